"""What lies between two images? The codes t z_1 + (1 - t) z_0, decoded, and below them the blends of the pixels.

The course, "Interpolation linéaire dans l'espace latent". A model that codes no images, as a GAN, goes between codes
drawn from its prior N(0, I), and the images at both ends are what they decode to.
"""

import torch

from genmini import plots
from genmini.studies._study import Study, lacks_images

PAIRS, STEPS = 6, 9


def pairs(y, conditional):
    """(N,) -> indices (PAIRS, 2), of images of two classes, or of one class if the model is conditional"""
    chosen, used = [], set()
    for i in range(len(y)):
        j = next((j for j in range(i + 1, len(y)) if j not in used and (y[i] == y[j]) == conditional), None)
        if i not in used and j is not None and len(chosen) < PAIRS:
            chosen.append((i, j))
            used |= {i, j}
    if not chosen:
        raise ValueError(f"among {len(y)} images there are no two of {'one class' if conditional else 'two classes'}")
    return torch.tensor(chosen)


def study(run, path):
    test = run.split("test")
    ends = pairs(test.y[:200], run.conditional)
    x, y = test.x[ends].float(), test.y[ends]  # (P, 2, *shape)
    if run.model.cannot("encode"):
        z = torch.randn(2 * len(ends), run.model.latent, generator=torch.Generator().manual_seed(run.seed))
        x = run.decode(z.to(run.model.dtype), y.flatten()).unflatten(0, (-1, 2))
    else:
        z = run.encode(x.flatten(0, 1), y.flatten())
    z = z.unflatten(0, (-1, 2))
    t = torch.linspace(0, 1, STEPS)
    along = lambda a: a[:, :1] + t.view(1, -1, *(1 for _ in a.shape[2:])) * (a[:, 1:] - a[:, :1])  # t a_1 + (1 - t) a_0
    classes = y[:, :1].expand(-1, STEPS).flatten()  # if the model is conditional, both ends are of this class
    between = run.decode(along(z).flatten(0, 1), classes).unflatten(0, (-1, STEPS))
    lines = torch.cat([x[:, :1], between, x[:, 1:]], 1)
    blends = torch.cat([x[:, :1], along(x), x[:, 1:]], 1)
    panels = {"between two codes (first and last: the images)": lines.flatten(0, 1),
              "between the pixels": blends.flatten(0, 1)}
    plots.side_by_side(path, panels, test.levels, columns=STEPS + 2)
    length = lambda a: (a[:, 1:] - a[:, :-1]).flatten(2).norm(dim=2).sum(1)
    longer = (length(between) / (between[:, -1] - between[:, 0]).flatten(1).norm(dim=1)).mean()
    return (f"{len(ends)} pairs: the way through the latent space "
            f"is {longer:.2f} times as long in pixels as the straight one")


STUDY = Study(study, needs=("decode",), misfit=lacks_images)
