"""What does a model draw where a part of an image is missing? The first half of test images is known, in its own order.

The rows show what is known, five completions, and the image. Every model of whole images that takes `known` fits: one
that draws pixel after pixel begins after the known ones; a diffusion keeps these at every step (genmini/samplers.py). A
model that is given a part of an image, as its colours, would be told of the missing half. Measured are the share of
completions that keep every known number to the bit, and two distances over the numbers that are drawn: between two
completions of an image, and between a completion and the image. They are equal if both are draws from p(x | known). Of
scenes of shapes, also how many the reader can read, and how many of these have the objects that lie wholly in the known
half, and a number of objects that occurs in the data.
"""

import torch

from genmini import plots, samples
from genmini.data import shapes_reader
from genmini.data.shapes import RADIUS, UNITS
from genmini.studies._study import Study
from genmini.studies.restore import distance, length

IMAGES, DRAWS, COLUMNS, ROWS = 40, 8, 10, 5  # measured: images, draws of each; shown: images, draws of each


def misfit(model):
    return samples.sees_more(model) or ("" if model.levels else "complete is for models of images")


def study(run, path):
    test = run.split("test")
    how, beside = samples.halves(run.model, test, min(IMAGES, len(test)))
    x, kept = beside.values()
    made = torch.stack([samples.draw(run.model, len(x), run.seed + d, **how) for d in range(DRAWS)])
    known = ~kept.isnan()
    same = ((made == x) | ~known).flatten(2).all(2)
    missing = ~known.expand_as(made)
    drawn, truth = (images.expand_as(made)[missing].view(DRAWS, -1).double() for images in (made, x))
    rows = [kept, *made[:ROWS], x]
    labels = ["known", *[run.model.title] * ROWS, "the image"]
    plots.rows(path, f"the missing half, drawn ({test.split})", torch.stack([row[:COLUMNS].float() for row in rows]),
               labels, test.levels)
    answer = (f"{same.double().mean():.1%} of {same.numel()} completions keep every known pixel; in the half that is "
              f"drawn, two of an image are {distance(drawn):.1f} levels apart, one and the image "
              f"{length(drawn - truth):.1f}")
    return answer if test.scenes is None else f"{answer}; {of_scenes(made, test)}"


def of_scenes(made, test):
    """How many completions the reader reads; how many of these have every object of the upper half, and how many have
    as many objects as a scene of the data can have"""
    counts = {len(scene.objects) for scene in test.scenes[:1000]}
    read = [(i, scene) for images in made for i, scene in enumerate(shapes_reader.read(images)) if scene is not None]
    share = lambda right: f"{sum(right) / max(1, len(read)):.1%}"
    kept = share(upper(test.scenes[i]) <= set(scene.objects) for i, scene in read)
    possible = share(len(scene.objects) in counts for _, scene in read)
    return (f"{len(read) / made[:, :, 0, 0, 0].numel():.1%} of the scenes can be read; of these {kept} have what lies "
            f"wholly in the known half, and {possible} as many objects as a scene of {test.name} has")


def upper(scene):
    """The objects whose boxes lie in the upper half"""
    return {o for o in scene.objects if o.y + RADIUS[o.size] <= UNITS // 2}


STUDY = Study(study, needs=("known",), misfit=misfit)
