"""What does one latent dimension do? Images decoded while one dimension changes and the others keep their values.

Each row changes one dimension of a test image's code, from the 1st to the 99th percentile of the codes of train; the
label is the distance between the first and the last image. Where dimensions follow attributes (AR-VAE), their rows come
first, with the rank correlation of dimension and attribute on the test split, and the attribute of the first and the
last image. With two axes, both change, in a plane: the first rightwards, the second upwards.
"""

import torch

from genmini import plots
from genmini.studies._run import called, coordinates
from genmini.studies._study import Study, lacks_images

ROWS, STEPS = 10, 11


def study(run, path, axes=None):
    train, test = run.split("train"), run.split("test")
    z = run.encode(train.x[:5000], train.y[:5000]).float()
    low, high = torch.quantile(z, torch.tensor([0.01, 0.99]), dim=0)
    base, y = run.encode(test.x[:1], test.y[:1]).float(), test.y[:1]
    if axes:
        return plane(run, path, coordinates(run.model, axes), base, y, low, high)
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


def plane(run, path, axes, base, y, low, high):
    """Draw the images of the plane of two axes through the code `base` (1, d) -> how far each axis moves the image"""
    t, (i, j), levels = torch.linspace(0, 1, STEPS), axes, run.split("test").levels
    places = [low[axis] + t * (high[axis] - low[axis]) for axis in axes]
    moved = base.repeat(STEPS, STEPS, 1)  # row by row, upwards
    moved[..., i], moved[..., j] = places[0], places[1].flip(0)[:, None]
    x = run.decode(moved.flatten(0, 1), y.repeat(STEPS**2)).float()
    figure, ((panel,),) = plots.new_figure(1, 1, 7.5, 7.0)
    plots.show(panel, x, levels, STEPS)
    plots.ticks(panel, x.shape[-2:], *places)
    panel.set(xlabel=called(run.model, i), ylabel=called(run.model, j))
    panel.set_title(f"{run.name}: two latent dimensions move", fontsize=12)
    plots.save(figure, path)
    cells = x.unflatten(0, (STEPS, STEPS)).flip(0)  # [of the second axis, of the first]
    length = lambda a: a.flatten(1).norm(dim=1).mean().item() / (levels - 1)
    answer = (f"rightwards z_{i + 1} moves the image by {length(cells[:, -1] - cells[:, 0]):.2f}, upwards z_{j + 1} by "
              f"{length(cells[-1] - cells[0]):.2f}, in the mean over the other")
    for axis in axes:
        if axis < len(run.model.attributes):
            with torch.no_grad():
                a = run.model.measure(cells.flatten(0, 1).to(run.device)).cpu()[:, axis].view(STEPS, STEPS)
            steps = [(a[:, -1] - a[:, 0]).mean().item(), (a[-1] - a[0]).mean().item()]
            answer += f"; {run.model.attributes[axis]} grows by {steps[0]:.3g} rightwards and {steps[1]:.3g} upwards"
    return answer


STUDY = Study(study, needs=("encode", "decode"), misfit=lacks_images, options=("axes",))
