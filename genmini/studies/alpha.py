"""How much does a reconstruction weigh against the prior? The same VAE, trained with five weights alpha.

The course, "Interprétation de la fonction de perte":

    loss = KL(q(z|x) || p(z)) + alpha |x - f(z)|^2                                          (1)

The second term keeps codes of different images apart, the first draws them to N(0, I): where alpha is small, z tells
little of the image, and all reconstructions are one; where it is large, p(z) draws codes that are of no image. (1) is
the bound of a decoder N(f(z), I / (2 alpha)), so bounds of different alpha are of different models, and only the two
terms are shown: means over test images, with the error of the mean.
"""

import torch

from genmini.means import mean_and_error
from genmini.studies import _trainings
from genmini.studies._study import Study
from genmini.studies._trainings import Curve

ALPHAS = (1, 5, 20, 100, 500)


def plans(name, data_name, alphas=ALPHAS, assignments=(), **how):
    """A plan for each alpha, {alpha: Plan}. how: what `experiment.plan` takes beside these."""
    return _trainings.plans("alpha", alphas, name, data_name, [*assignments, "decoder=gaussian"], **how)


def misfit(model):
    if model.settings.get("decoder") == "gaussian":
        return ""
    return "its loss has no alpha: train VAEs by `genmini study alpha vae --data D`, or with --set decoder=gaussian"


def study(runs, path):
    """runs: of one model but for alpha, in any order"""
    runs = sorted(runs, key=lambda run: run.model.settings["alpha"])
    alphas, errors, kls = [run.model.settings["alpha"] for run in runs], [], []
    for run in runs:
        test = run.split("test")
        torch.manual_seed(run.seed)
        kls.append(mean_and_error(run.figures(test.x, test.y)["kl"]))
        apart = (test.x - run.reconstruct(test.x, test.y)) / (test.levels - 1)
        errors.append(mean_and_error(apart.square().flatten(1).sum(1)))
    names = [f"{alpha:g}" for alpha in alphas]
    of = lambda values, across: [(x, *value) for x, value in zip(across, values, strict=True)]
    error, kl = "|x - f(z)|$^2$ of an image, x from 0 to 1", "KL(q(z|x) || p(z)) in nats"
    curves = [Curve(f"squared error ({test.split}), lower is better", "alpha", error, of(errors, alphas)),
              Curve(f"KL ({test.split}), lower is nearer to the prior", "alpha", kl, of(kls, alphas)),
              Curve("one against the other, by alpha", kl, error, of(errors, [mean for mean, _ in kls]), names)]
    _trainings.sheet(path, curves, runs, [f"alpha = {name}" for name in names])
    line = lambda values: ", ".join(f"alpha={name} {mean:.3f} +- {error:.3f}"
                                    for name, (mean, error) in zip(names, values, strict=True))
    return f"squared error: {line(errors)}\nkl: {line(kls)}"


STUDY = Study(study, needs=_trainings.NEEDS, misfit=misfit, together=True, trains="alpha", plans=plans)
