"""What does one latent dimension do? Images decoded while one dimension changes and the others keep their values.

Each row changes one dimension of a test image's code, from the 1st to the 99th percentile of the codes of train; the
label is the distance between the first and the last image. Where dimensions follow attributes (AR-VAE), their rows come
first, with the rank correlation of dimension and attribute on the test split, and the attribute of the first and the
last image.
"""

import torch

from genmini import plots
from genmini.studies._study import Study, lacks_images

ROWS, STEPS = 10, 11


def study(run, path):
    train, test = run.split("train"), run.split("test")
    z = run.encode(train.x[:5000], train.y[:5000]).float()
    low, high = torch.quantile(z, torch.tensor([0.01, 0.99]), dim=0)
    base, y = run.encode(test.x[:1], test.y[:1]).float(), test.y[:1]
    t = torch.linspace(0, 1, STEPS)
    moved = base.repeat(z.shape[1], STEPS, 1)  # (d, STEPS, d)
    for i in range(z.shape[1]):
        moved[i, :, i] = low[i] + t * (high[i] - low[i])
    images = run.decode(moved.flatten(0, 1), y.repeat(z.shape[1] * STEPS)).unflatten(0, (-1, STEPS)).float()
    reach = (images[:, -1] - images[:, 0]).flatten(1).norm(dim=1) / (test.levels - 1)
    tied = run.model.attributes
    free = reach.argsort(descending=True, stable=True)
    shown = [*range(len(tied)), *(i for i in free.tolist() if i >= len(tied))][: max(ROWS, len(tied))]
    labels = [f"z$_{{{i + 1}}}$, moves {reach[i]:.1f}" for i in shown]
    follows = []
    if tied:
        with torch.no_grad():
            rho = list(run.model.correlations(test.x.to(run.device)).values())
            ends = [run.model.measure(images[: len(tied), at].to(run.device)).cpu().diag().tolist() for at in (0, -1)]
        labels[: len(tied)] = [f"{name}, ρ = {r:.2f}: {a:.3g} to {b:.3g}"
                               for name, r, a, b in zip(tied, rho, *ends, strict=True)]
        follows = [f"{name} {r:.3f}" for name, r in zip(tied, rho, strict=True)]
    plots.rows(path, f"{run.model.title}: one latent dimension moves", images[shown], labels, test.levels)
    unused = (reach < 0.1 * reach.max()).sum().item()
    answer = (f"z_{free[0] + 1} moves the image most, by {reach.max():.2f}; "
              f"{unused} of {len(reach)} dimensions by less than a tenth of that")
    return answer + (f"; rank correlation of a dimension with its attribute: {', '.join(follows)}" if tied else "")


STUDY = Study(study, needs=("encode", "decode"), misfit=lacks_images)
