"""How many latent dimensions are enough? The same model, trained with 2, 5, 10, 20 ... of them.

The course's practical. The figures of each model on the test split, with the error of their mean: reconstruction, and
the bound if there is one. Below them test images, what each model makes of their codes, and its samples.

    for d, plan in plans("vae", "digits").items(): train(plan, f"runs/vae/latent-{d}")
"""

import torch

from genmini.means import mean_and_error
from genmini.studies import _trainings
from genmini.studies._study import Study
from genmini.studies._trainings import Curve, train  # noqa: F401  of the example

DIMENSIONS = (2, 5, 10, 20, 50)
BETTER = {"elbo": ", higher is better", "reconstruction": ", lower is better", "squared error": ", lower is better"}


def plans(name, data_name, dimensions=DIMENSIONS, assignments=(), **how):
    """A plan for each dimension, {d: Plan}. how: what `experiment.plan` takes beside these."""
    return _trainings.plans("latent", dimensions, name, data_name, assignments, **how)


def misfit(model):
    return "" if "latent" in model.settings else "it has no setting `latent`"


def study(runs, path):
    """runs: of one model but for d, in any order"""
    values, runs = {}, sorted(runs, key=lambda run: run.model.latent)  # figure -> [(d, mean, error)]
    for run in runs:
        test = run.split("test")
        torch.manual_seed(run.seed)
        for name, of_examples in run.figures(test.x, test.y).items():
            values.setdefault(name, []).append((run.model.latent, *mean_and_error(of_examples)))
    title = lambda name: f"{name} ({test.split}){BETTER.get(name, '')}"
    curves = [Curve(title(name), "latent dimensions", f"{run.model.unit} of an image", points)
              for name, points in values.items()]
    _trainings.sheet(path, curves, runs, [f"d = {run.model.latent}" for run in runs])
    line = lambda points: ", ".join(f"d={d} {mean:.3f} +- {error:.3f}" for d, mean, error in points)
    return "\n".join(f"{name}: {line(points)}" for name, points in values.items())


STUDY = Study(study, needs=_trainings.NEEDS, misfit=misfit, together=True, trains="latent", plans=plans)
