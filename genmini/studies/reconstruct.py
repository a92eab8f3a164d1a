"""How well is an image reconstructed from its code, and are images that were not trained on reconstructed as well?"""

import torch

from genmini import plots
from genmini.means import mean_and_error
from genmini.studies._study import Study

LEAST = 1000  # images of train that the error is taken of, if test has not more


def study(run, path):
    panels, errors, N = {}, [], len(run.split("test"))
    for split in ("train", "test"):
        images = run.split(split)
        x, y = images.x[: max(N, LEAST)], images.y[: max(N, LEAST)]
        back, top = run.reconstruct(x, y), images.levels - 1
        error, deviation = mean_and_error(((x - back) / top).square().flatten(1).mean(1))
        errors.append(f"{split} {error:.4f} +- {deviation:.4f}")
        columns = min(8, len(x))
        rows = lambda a: a[: min(4, len(x) // columns) * columns].float().unflatten(0, (-1, columns))
        panels[f"{split}: images over their reconstructions"] = torch.stack([rows(x), rows(back)], 1).flatten(0, 2)
    plots.side_by_side(path, panels, images.levels, columns)
    train = run.split("train").x[: max(N, LEAST)] / top
    return (f"squared error of a pixel: {', '.join(errors)}; "
            f"the mean image of train would give {(train - train.mean(0)).square().mean():.4f}; "
            f"of {len(train)} images of train, {N} of test")


STUDY = Study(study, needs=("reconstruct",))
