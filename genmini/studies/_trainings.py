"""Trainings of one model that differ in one setting, and the sheet of their images: what two studies share."""

from pathlib import Path
from typing import NamedTuple

import torch

from genmini import checkpoint, experiment, models, plots, watch

SHOWN = 10  # images, and samples, of each run
NEEDS = "encode", "decode", "reconstruct", "sample"


class Curve(NamedTuple):
    """What a panel shows: points and the errors of their heights."""

    title: str
    across: str
    up: str
    points: list  # [(x, mean, error)]
    names: tuple = ()  # beside the points; then the axis is linear, otherwise x is a setting, on a log axis


def plans(setting, values, name, data_name, assignments=(), **how):
    """A plan for each value of the setting, {value: Plan}. how: what `experiment.plan` takes beside these."""
    model = models.find(name)
    missing = [model.cannot(need) for need in NEEDS if model.cannot(need)]
    if missing:
        raise ValueError(f"{name} does not fit: {missing[0]}")
    plan = lambda value: experiment.plan(name, data_name, assignments=[*assignments, f"{setting}={value}"], **how)
    return {value: plan(value) for value in values}


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


def samples(run, n):
    """n draws, of each class in turn if the model has classes; mean images where it has such, (n, *shape)"""
    torch.manual_seed(run.seed)
    y = dict(y=torch.arange(n, device=run.device) % run.model.classes) if run.conditional else {}
    return run.model.sample(n, **y, **{} if run.model.cannot("mean") else dict(mean=True)).cpu().float()


def sheet(path, curves, runs, labels):
    """Draw the curves; below them test images over reconstructions, and train images over samples, of each run."""
    test = runs[0].split("test")
    x, y, train = test.x[:SHOWN].float(), test.y[:SHOWN], runs[0].split("train").x[:SHOWN].float()
    back = torch.stack([x, *(run.reconstruct(test.x[:SHOWN], y).float() for run in runs)])
    drawn = torch.stack([train, *(samples(run, len(train)) for run in runs)])
    figure, panels, (left, right) = plots.over_sheets(len(curves), 0.72 * len(back) + 0.5)
    for panel, curve in zip(panels, curves, strict=True):
        across, mean, error = zip(*curve.points, strict=True)
        panel.errorbar(across, mean, error, fmt="o-", capsize=3, color="tab:blue")
        if not curve.names:
            panel.set(xscale="log", xticks=across, xticklabels=[f"{value:g}" for value in across])
            panel.minorticks_off()
        for name, *place in zip(curve.names, across, mean, strict=True) if curve.names else ():
            panel.annotate(name, place, (5, 5), textcoords="offset points", fontsize=9)
        panel.set(xlabel=curve.across, ylabel=curve.up)
        panel.set_title(curve.title, fontsize=11)
    H, means = test.x.shape[-2] + 1, "" if runs[0].model.cannot("mean") else ", without the noise of pixels"
    for panel, images, title in ((left, back, f"images ({test.split}) over their reconstructions"),
                                 (right, drawn, "images (train) over samples" + means)):
        plots.show(panel, images.flatten(0, 1), test.levels, images.shape[1])
        panel.set(yticks=[H * (row + 0.5) - 1 for row in range(len(back))],
                  yticklabels=["images", *labels])
        panel.set_title(title, fontsize=11)
    plots.save(figure, path)
