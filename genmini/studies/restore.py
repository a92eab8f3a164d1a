"""What does a model make of a part of an image: of a picture without colours, of a small one? A mean, or one of many?

The rows show what is given of test images, what each run makes of it (one row of a regressor, five draws of a model
that draws; of a CVAE mean images of five z), and the images. The runs are given the same part (genmini/conditions.py)
of the same data.

    PSNR = 10 log10((L-1)^2 / mean |x' - x|^2)      of what is made, x', against the image x                     (1)
    |x' - x''|    between two draws for the same image; like |x' - x| if both are draws from p(x | c)            (2)
    agreement = sum_k n_k (n_k - 1) / (n (n - 1))   of n draws, n_k of the colour k: unbiased of sum_k p_k^2     (3)

Means are over images, pixels and draws, of squares; a length is the root, in levels. A draw from p(x | c) has half the
accuracy of the mean of p(x | c): a PSNR that is 3.0 dB lower. Of scenes of shapes the reader says how many are right:
all of the objects and the ground; up to their colours, where c is a picture without colours.
"""

import math

import torch

from genmini import conditions, plots
from genmini.data import shapes_reader
from genmini.data.shapes import COLOURS
from genmini.studies._run import Misfit
from genmini.studies._study import Study

IMAGES, DRAWS, COLUMNS, ROWS = 60, 12, 10, 5  # measured: images, draws of each; shown: images, draws of each


def misfit(model):
    recipes = "colourise, enlarge-4 or digits-upper"
    return "" if model.given else f"it is given no part of an image: train it by the recipe {recipes}"


def study(runs, path):
    first, test = runs[0], runs[0].split("test")
    for run in runs[1:]:
        if run.model.given != first.model.given or run.model.shape != first.model.shape:
            this, that = (f"{one.model.given!r} of images {one.model.shape}" for one in (run, first))
            raise Misfit(f"{run.folder} is given {this}, and {first.folder} {that}: choose runs given the same")
    x, what = test.x[:IMAGES], first.model.given
    c = conditions.pictured(x, what)
    answers, images, labels = [f"given {what}: {measured(c[None], x, test, what)}"], [c[:COLUMNS]], [f"given: {what}"]
    for run in runs:
        torch.manual_seed(run.seed)
        n = 1 if run.model.cannot("sample") else DRAWS
        made = torch.stack([run.restore(x, test.y[:IMAGES]) for _ in range(n)])
        answers.append(f"{run.name}: {measured(made, x, test, what, run)}")
        images += made[:ROWS, :COLUMNS]
        labels += [run.model.title] * min(n, ROWS)
    rows = torch.stack([row.float() for row in (*images, x[:COLUMNS])])
    plots.rows(path, f"what is made of a part of an image ({test.split})", rows, [*labels, "the image"], test.levels)
    return "\n".join(answers)


def measured(made, x, test, what, run=None):
    """The figures of n draws for each of N images, made (n, N, *shape), in words"""
    dB = lambda error: 20 * math.log10((test.levels - 1) / max(error, 1e-9))  # (1)
    error = length(made - x.double())
    words = [f"PSNR {dB(error):.1f} dB"]
    if len(made) > 1:
        words[0] += f" ({dB(length(made.double().mean(0) - x)):.1f} of the mean of {len(made)} draws)"
        words.append(f"two draws are {distance(made):.1f} levels apart, a draw and the image {error:.1f}")  # (2)
    if run:
        flat = made.flatten(0, 1).float()
        apart = conditions.pictured(flat, what).view(made.shape) - conditions.pictured(x, what)
        words.append(f"what is given of them differs by {length(apart):.1f} levels")
    if test.scenes is not None:
        words.append(of_scenes(made, test, what))
    return ", ".join(words)


def length(x):
    return x.double().square().mean().sqrt().item()


def distance(made):
    """The root of the mean square between two draws for the same image, over all pairs of the n draws"""
    return (2 * made.double().var(0).mean()).sqrt().item()


def of_scenes(made, test, what):
    """How many scenes are read right, and, where they are right up to their colours, what colours they have"""
    n, N = made.shape[:2]
    truth = [test.scenes[i] for i in range(N)]
    read = [shapes_reader.read(images) for images in made]
    if what not in ("dark", "grey"):
        return f"{sum(read[d][i] == truth[i] for d in range(n) for i in range(N)) / (n * N):.1%} of scenes read right"
    right = [[scene is not None and colourless(scene) == colourless(truth[i]) for i, scene in enumerate(scenes)]
             for scenes in read]
    words = f"{sum(map(sum, right)) / (n * N):.1%} of scenes read right up to colour"
    if n == 1 or not any(map(any, right)):
        return words
    names, agreed, pairs, counts = list(COLOURS), 0, 0, torch.zeros(len(COLOURS))
    for i in range(N):
        for m in range(len(truth[i].objects)):
            seen = torch.tensor([names.index(read[d][i].objects[m].colour) for d in range(n) if right[d][i]])
            count = seen.long().bincount(minlength=len(names))
            counts += count
            agreed += (count * (count - 1)).sum().item()
            pairs += len(seen) * (len(seen) - 1)
    shares = counts / counts.sum()
    bits = -torch.xlogy(shares, shares).sum().item() / math.log(2)
    colours = ", ".join(f"{name} {share:.0%}" for name, share in zip(names, shares.tolist(), strict=True))
    agreement = agreed / max(1, pairs)  # (3)
    return (f"{words}, colours {colours} ({bits:.2f} bits of {math.log2(len(names)):.2f}); two draws agree in "
            f"{agreement:.1%}, {allowed(what):.1%} where each colour that fits is as likely")


def allowed(what):
    """sum_k p_k^2 where all colours with the same c on a black ground are as likely, the mean over colours"""
    c = conditions.part(torch.tensor([*COLOURS.values()], dtype=torch.float64)[:, :, None, None], what).flatten()
    return (1 / (c[:, None] == c).double().sum(1)).mean().item()


def colourless(scene):
    return scene.ground, [(o.shape, o.size, o.x, o.y) for o in scene.objects]


STUDY = Study(study, needs=("restore",), misfit=misfit, together=True)
