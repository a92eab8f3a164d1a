"""How does an image become noise, how does noise become an image, and which x_0 does the model estimate on the way?

Two test images, at eight times with more and more noise, over the images x_0 that the model estimates from them. Below
two samples, drawn from pure noise by DDIM, at the same times back, over the estimates that led them there.
"""

import torch

from genmini import plots
from genmini.studies._study import Study

SHOWN, TIMES = 2, 8


def study(run, path):
    test = run.split("test")
    torch.manual_seed(run.seed)
    x, y = test.x[:100].to(run.device), test.y[:100].to(run.device)
    process = run.model.process(x, y if run.conditional else None, times=TIMES)
    there, seen, back, expected = (frames.cpu() for frames in process)
    rows, labels = [], []
    for noisy, estimates, what in ((there, seen, "image to noise"), (back, expected, "noise to image")):
        for n in range(SHOWN):
            rows += [noisy[:, n], estimates[:, n]]
            labels += [what, "estimated x$_0$"]
    title = f"{run.model.title}: {TIMES} times between an image and noise"
    plots.rows(path, title, torch.stack(rows), labels, test.levels)
    error = ((seen - x.cpu()) / (test.levels - 1)).square().flatten(2).mean((1, 2))
    return ("squared error of a pixel of x_0, estimated from more and more noise: "
            f"{', '.join(f'{e:.4f}' for e in error)}; of the mean image: "
            f"{((x.float() - x.float().mean(0)) / (test.levels - 1)).square().mean():.4f}")


STUDY = Study(study, needs=("process",))
