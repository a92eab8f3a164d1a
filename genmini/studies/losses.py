"""What does the loss of a pixel do to the picture? Squared and absolute error, cross-entropy, probabilities of levels.

The rows show test images, what each run reconstructs of them, and samples of each run, both as mean images of p(x|z).
Measured are, over test images, of v = x / (L-1) and the reconstruction v^:

    squared error     mean (v - v^)^2         least where v^ is the mean of all v that are coded alike           (1)
    absolute error    mean |v - v^|           least where it is their median                                     (2)
    edges             mean |dv^| / mean |dv|  differences of neighbours; 1: as sharp as the images               (3)
    grey              the share of pixels between 1/8 and 7/8, beside that of the images                         (4)
"""

import torch

from genmini import plots, samples
from genmini.studies._run import Misfit
from genmini.studies._study import Study

IMAGES, COLUMNS = 1000, 12  # measured, shown


def misfit(model):
    return "" if model.levels else "losses is for models of images"


def study(runs, path):
    first, test = runs[0], runs[0].split("test")
    for run in runs[1:]:
        if (run.model.shape, run.model.levels) != (first.model.shape, first.model.levels):
            this, that = (f"images {one.model.shape} of {one.model.levels} levels" for one in (run, first))
            raise Misfit(f"{run.folder} has {this}, and {first.folder} {that}: choose runs of the same data")
    x, y = test.x[:IMAGES], test.y[:IMAGES]
    v, answers = x.double() / (test.levels - 1), []
    rows, labels, drawn = [x[:COLUMNS].float()], [f"data ({test.split})"], []
    for run in runs:
        back = run.reconstruct(x, y)
        answers.append(f"{run.name}: {measured(back.double() / (test.levels - 1), v)}")
        rows.append(back[:COLUMNS])
        labels.append(str(run.folder))
        how = {} if run.model.cannot("mean") else dict(mean=True)
        drawn.append(samples.draw(run.model, COLUMNS, run.seed, **how).float())
    plots.rows(path, "reconstructed, and below drawn: mean images", torch.stack([*rows, *drawn]),
               [*labels, *(f"samples of {label}" for label in labels[1:])], test.levels)
    return "\n".join([*answers, f"the images themselves: grey {grey(v):.1%}"])


def measured(back, v):
    """The figures of reconstructions (N, *shape), in words"""
    e = back - v
    return (f"squared error {e.square().mean():.4f}, absolute error {e.abs().mean():.4f}, "  # (1), (2)
            f"edges {edges(back) / edges(v):.2f}, grey {grey(back):.1%}")  # (3)


def edges(v):
    return (v.diff(dim=-1).abs().mean() + v.diff(dim=-2).abs().mean()).item()


def grey(v):
    return ((v > 1 / 8) & (v < 7 / 8)).double().mean().item()  # (4)


STUDY = Study(study, needs=("reconstruct", "sample"), misfit=misfit, together=True)
