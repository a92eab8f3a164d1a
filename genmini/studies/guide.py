"""What does guidance do to samples of a class, by the model's own classes and by a classifier?

A diffusion with classes is guided without a classifier, (7) of genmini/models/diffusion.py; one without classes is led
by digits-v1, (3) of genmini/guidance.py. For each weight w the rows show a sample of each class; the curves have, of N
samples, the share whose class digits-v1 names as asked, their FID against the train split, and the recall: how much of
the data the samples reach. All samples are drawn by ddpm, from the same noise.

Where digits-v1 leads and judges, the share says less: samples can please this one network. `genmini score RUN
--features C` asks another classifier C.
"""

import torch

from genmini import metrics, plots
from genmini.data import family
from genmini.studies._run import Misfit
from genmini.studies._study import Study

N, WEIGHTS = 500, (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)


def misfit(model):
    if model.given or model.captions or model.shape != (8, 8) or model.classes not in (0, 10):
        return "guide is for diffusions of the digits, with their 10 classes or without classes"
    return ""


def study(runs, path):
    network, images, labels, curves = metrics.network("digits-v1"), [], [], {}
    for run in runs:
        train = run.split("train")
        if family(train.name) != "digits":
            raise Misfit(f"{run.folder} does not fit: guide is for diffusions of the digits")
        judge, led = metrics.against(train, network), "own classes" if run.model.classes else "digits-v1"
        own = {} if run.model.classes else dict(classifier=network)
        for w in WEIGHTS:
            x, y = metrics.draw(run.model, N, run.seed, network.classes, how="ddpm", guidance=w, **own)
            found = judge(x, train.levels, y)
            curves.setdefault(f"{run.folder}, by {led}", []).append(
                {"right class": found["accuracy"][0], "FID": found["fid"], "recall": found["recall"]})
            images.append(x[: network.classes])
            labels.append(f"{led}, w = {w:g}")
    figure, panels = plots.new_figure(1, 4, 3.4, 0.3 * len(labels) + 0.4)
    rows = torch.stack(images)
    plots.show(panels[0, 0], rows.flatten(0, 1), train.levels, rows.shape[1])
    height = train.shape[0] + 1
    panels[0, 0].set(yticks=[r * height + height / 2 - 1 for r in range(len(labels))], yticklabels=labels)
    for panel, name in zip(panels[0, 1:], ("right class", "FID", "recall"), strict=True):
        for of, points in curves.items():
            panel.plot(WEIGHTS, [point[name] for point in points], "o-", label=of)
        panel.set(title=name, xlabel="w")
    panels[0, 1].legend(fontsize=7)
    plots.save(figure, path)
    line = lambda w, point: (f"w = {w:g}: right class {point['right class']:.1%}, FID {point['FID']:.1f}, "
                             f"recall {point['recall']:.2f}")
    return "\n".join(f"{of}: {'; '.join(map(line, WEIGHTS, points))}" for of, points in curves.items())


STUDY = Study(study, needs=("guidance", "classifier"), misfit=misfit, together=True)
