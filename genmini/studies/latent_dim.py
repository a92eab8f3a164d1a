"""How many latent dimensions are enough? The same model, trained with 2, 5, 10, 20 ... of them.

The course's practical. The figures of each model on the test split, with the error of their mean: reconstruction, and
the bound if there is one.

    for d, plan in plans("vae", "digits").items(): train(plan, f"runs/vae/latent-{d}")
"""

from pathlib import Path

import torch

from genmini import checkpoint, experiment, models, plots, watch
from genmini.means import mean_and_error
from genmini.studies._study import Study

DIMENSIONS = (2, 5, 10, 20, 50)


def plans(name, data_name, dimensions=DIMENSIONS, assignments=(), **how):
    """A plan for each dimension, {d: Plan}. how: what `experiment.plan` takes beside these."""
    model = models.find(name)
    missing = [model.cannot(need) for need in STUDY.needs if model.cannot(need)]
    if missing:
        raise ValueError(f"{name} does not fit: {missing[0]}")
    plan = lambda d: experiment.plan(name, data_name, assignments=[*assignments, f"latent={d}"], **how)
    return {d: plan(d) for d in dimensions}


def train(plan, folder, data_dir=None, device="cpu"):
    """Train the model in this folder, or continue the training that is there -> History; None if it is at its end."""
    saved = checkpoint.read(folder) if (Path(folder) / "run.json").exists() else {}
    splits, device = experiment.splits(plan, data_dir), torch.device(device)
    if saved:
        experiment.check_resume(folder, saved, plan, device, splits)
    if saved and experiment.is_finished(saved):
        return None
    model = experiment.build(plan, splits["train"], device)
    seen = watch.Watch(Path(folder), splits, plan.seed, resume=bool(saved))
    history = experiment.train(plan, model, splits, folder, seen, resume=bool(saved))
    if history.stopped != "interrupted" and not plots.missing():
        watch.picture(Path(folder) / "samples.png", model, splits)
    return history


def misfit(model):
    return "" if "latent" in model.settings else "it has no setting `latent`"


def study(runs, path):
    """runs: of one model but for d, in any order"""
    values = {}  # figure -> [(d, mean, error)]
    for run in sorted(runs, key=lambda run: run.model.latent):
        d, test = run.model.latent, run.split("test")
        torch.manual_seed(run.seed)
        figures = run.figures(test.x, test.y)
        for name, of_examples in figures.items():
            values.setdefault(name, []).append((d, *mean_and_error(of_examples)))
    figure, panels = plots.new_figure(1, len(values), 4.2, 3.6)
    for panel, (name, points) in zip(panels[0], values.items(), strict=True):
        d, mean, error = zip(*points, strict=True)
        panel.errorbar(d, mean, error, fmt="o-", capsize=3, color="tab:blue")
        panel.set(xscale="log", xlabel="latent dimensions", xticks=d, xticklabels=d)
        panel.minorticks_off()
        panel.set_title(f"{name} ({test.split})", fontsize=11)
    plots.save(figure, path)
    line = lambda points: ", ".join(f"d={d} {mean:.3f} +- {error:.3f}" for d, mean, error in points)
    return "\n".join(f"{name}: {line(points)}" for name, points in values.items())


STUDY = Study(study, needs=("encode", "decode"), misfit=misfit, together=True)
