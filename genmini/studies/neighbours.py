"""Does the model copy? Samples over the train images nearest to them, and how far away these are."""

import torch

from genmini import plots
from genmini.metrics import nearest
from genmini.metrics.score import draw, draws_no_images
from genmini.studies._study import Study

N = 1000  # samples whose distances are taken
COLUMNS, ROWS = 8, 3  # of samples that are shown


def misfit(model):
    return draws_no_images(model) and f"neighbours is for models that draw images: {draws_no_images(model)}"


def study(run, path):
    train, test = run.split("train"), run.split("test")
    x, _ = draw(run.model, N, run.seed, run.model.classes)
    index, distance = nearest(train.x, x)
    _, real = nearest(train.x, test.x)
    rows = lambda images: images[: COLUMNS * ROWS].float().unflatten(0, (ROWS, COLUMNS))
    pairs = torch.stack([rows(x), rows(train.x[index])], 1).flatten(0, 2)
    plots.side_by_side(path, {"samples over their nearest train images": pairs}, train.levels, COLUMNS)
    near = (distance < real.quantile(0.1)).double().mean()
    return (f"median distance to the nearest train image: {distance.median():.2f} of samples, {real.median():.2f} of "
            f"test images; {near:.1%} of {N} samples lie nearer than 90% of the test images do")


STUDY = Study(study, needs=("sample",), misfit=misfit)
