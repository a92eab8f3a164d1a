"""Does a model draw what a caption says? Colours and shapes, counts, the order of two things: seen and unseen.

Captions of test scenes are given, N of each kind, one sample is drawn of each and read (genmini/metrics/captions.py).
Pairs of a colour and a shape that no image of `shapes` shows are those of `shapes-pairs`; four and five equal things
are in no image of `shapes` either. The line tells the shares that are right, each of the samples that can show it, and
how many these are if not all: "order" is of samples with the right things apart along the right axis, and half of it is
luck.

The picture shows samples of one seed for captions that differ in little.
"""

import math

import torch

from genmini import metrics, plots, samples
from genmini.data import shapes, shapes_captions
from genmini.studies._study import Study

N, COLUMNS, AT_ONCE = 100, 8, 50  # captions of a kind; samples of a row; samples that are drawn together
MEASURES = "bound", "count", "size", "place", "axis", "order", "whole"  # of the kinds of words

KINDS = {  # of captions: the scenes, and the counts of their things
    "one object": ("shapes", [(1,)]),
    "two objects": ("shapes", [(1, 1)]),
    "two or three equal objects": ("shapes", [(2,), (3,)]),
    "one object of an unseen pair": ("shapes-pairs", [(1,)]),
    "two objects, one of an unseen pair": ("shapes-pairs", [(1, 1)]),
    "four or five equal objects, which is unseen": ("shapes-counts", [(4,), (5,)]),
}
SHOWN = ("a red circle", "a small red circle and a big blue square", "a red circle left of a blue square",
         "a blue square left of a red circle", "two red circles above a blue square",
         "two blue circles above a red square", "three yellow triangles", "a green circle on a black ground",
         "five yellow triangles")


def misfit(model):
    if model.vocabulary != shapes_captions.VOCABULARY:
        return "it reads no captions of shapes"
    if model.shape not in [(3, side, side) for side in shapes.SIDES]:
        return f"it draws images of shape {model.shape}, and scenes are read of (3, 16, 16) to (3, 64, 64)"
    return ""


def scenes_of(kind, n):
    """n test scenes, each with a caption that names the colour and the shape of each thing; always the same"""
    name, counts = KINDS[kind]
    scenes, _ = shapes.read(name, "test", 20 * n)
    captions = map(shapes_captions.parse, shapes_captions.captions(scenes, seed=2))
    full = ((scene, c) for scene, c in zip(scenes, captions, strict=True)
            if tuple(thing.count for thing in c.things) in counts
            and all(thing.colour and thing.shape for thing in c.things))
    return [each for _, each in zip(range(n), full, strict=False)]


def captions_of(kind, n):
    """The captions of these scenes"""
    return [caption for _, caption in scenes_of(kind, n)]


def study(run, path):
    torch.manual_seed(run.seed)
    answers = [f"{kind}: {measured(run.model, captions_of(kind, N))}" for kind in KINDS]
    rows = torch.stack([samples.draw(run.model, COLUMNS, run.seed, y=text) for text in SHOWN])  # of the same noise
    plots.rows(path, f"samples of {run.model.title}", rows, SHOWN, run.model.levels)
    return "\n".join(answers)


def measured(model, captions):
    """What samples of these captions show of them, in words"""
    texts = [shapes_captions.write(caption) for caption in captions]
    parts = [texts[i : i + AT_ONCE] for i in range(0, len(texts), AT_ONCE)]
    found = metrics.shares(metrics.captions(captions, torch.cat([model.sample(len(p), p).cpu() for p in parts])))
    words = [f"{name} {share_of(len(texts), *found[name])}" for name in found if name in MEASURES]
    return f"{', '.join(words)} ({len(texts)} captions, {found['unread'][0]:.0%} of the samples unreadable)"


def share_of(all_, share, error, n):
    """A share of n samples, with its standard error if it has one, and with n if it is not all of them"""
    return f"{share:.0%}" + f" +- {error:.1%}" * math.isfinite(error) + f" of {n}" * (n != all_)


STUDY = Study(study, needs=("sample",), misfit=misfit)
