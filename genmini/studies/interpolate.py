"""What lies between two images? The codes t z_1 + (1 - t) z_0, decoded, and below them the blends of the pixels.

The course, "Interpolation linéaire dans l'espace latent". A model that codes no images, as a GAN, goes between codes
drawn from its prior N(0, I), and the images at both ends are what they decode to. `between` names the classes of the
ends, as the course's 0 and 7; pick="nearest" takes the pairs of images whose codes are nearest to each other.
"""

import torch

from genmini import plots
from genmini.studies._run import Misfit
from genmini.studies._study import Study, lacks_images

PAIRS, STEPS, FIRST = 6, 9, 200


def pairs(y, conditional, between=None, z=None):
    """(N,) -> indices (P, 2), of images of two classes, or of one class if the model is conditional

    between: the classes of the first and of the second image; z: codes (N, d), those nearest to each other come first
    """
    N = len(y)
    if between:
        allowed = (y[:, None] == between[0]) & (y == between[1]) & ~torch.eye(N, dtype=torch.bool)
    else:
        allowed = ((y[:, None] == y) == conditional).triu(1)
    rows = allowed.nonzero()
    if z is not None:
        rows = rows[(z[rows[:, 0]] - z[rows[:, 1]]).norm(dim=1).argsort(stable=True)]
    chosen, used = [], set()
    for i, j in rows.tolist():
        if not used & {i, j} and len(chosen) < PAIRS:
            chosen.append((i, j))
            used |= {i, j}
    if not chosen:
        what = "one class" if conditional else "two classes"
        what = f"the classes {between[0]} and {between[1]}" if between else what
        raise ValueError(f"among {N} images there are no two of {what}")
    return torch.tensor(chosen)


def study(run, path, between=None, pick="first"):
    test = run.split("test")
    if between:
        run.check_labels()
    if (between or pick == "nearest") and run.model.cannot("encode"):
        raise Misfit(f"{run.folder} does not fit: {run.model.cannot('encode')}, and no image is picked")
    if between and run.conditional and between[0] != between[1]:
        raise Misfit(f"{run.folder} does not fit: its codes are of images given their class, so both are of one class")
    some = slice(None if between else FIRST)
    z = run.encode(test.x[some], test.y[some]).float() if pick == "nearest" else None
    ends = pairs(test.y[some], run.conditional, between, z)
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
    way = run.decode(along(z).flatten(0, 1), classes).unflatten(0, (-1, STEPS))
    lines = torch.cat([x[:, :1], way, x[:, 1:]], 1)
    blends = torch.cat([x[:, :1], along(x), x[:, 1:]], 1)
    panels = {"between two codes, by t (first and last: the images)": lines.flatten(0, 1),
              "between the pixels": blends.flatten(0, 1)}
    plots.side_by_side(path, panels, test.levels, ["x$_0$", *(f"{100 * a:.0f}%" for a in t.tolist()), "x$_1$"])
    length = lambda a: (a[:, 1:] - a[:, :-1]).flatten(2).norm(dim=2).sum(1)
    longer = (length(way) / (way[:, -1] - way[:, 0]).flatten(1).norm(dim=1)).mean()
    of = (f" of {between[0]} and {between[1]}" if between else "") + ", of the nearest codes" * (pick == "nearest")
    return (f"{len(ends)} pairs{of}: the way through the latent space "
            f"is {longer:.2f} times as long in pixels as the straight one")


STUDY = Study(study, needs=("decode",), misfit=lacks_images, options=("between", "pick"))
