"""Captions: does an image of shapes show what its caption says? Each image is read, and each kind of word judged.

The scene of an image is read exactly (genmini/data/shapes_reader.py), and a caption c is true of a scene or not
(genmini/data/shapes_captions.py). With c_k, the caption without all words but those of the kinds k, and its counts,

    count       there are as many objects as c counts                                       (1)
    colour      c_colour is true; shape, the same                                           (2)
    bound       c_colour,shape is true: each object has both, no colour of another's shape  (3)
    size        c_colour,shape,size is true; place, the same; both of images that are (3)   (4)
    axis        the two things lie further apart along the axis of the relation than along the other           (5)
    order       along this axis, the first lies before the second or behind it, as c says   (6)
    whole       c is true                                                                   (7)

(5) is of images that are (3), and (6) of those that are (5), by the means of a thing's objects: a model that draws both
things, and does not know which comes first, is right in half of (6). Both are left out where the things have one
colour and shape. An image that cannot be read is wrong in (1), (2), (3) and (7). A number is NaN where the
caption does not speak of it, or where the image is not of those that it is of.

    values = metrics.captions(texts, x)                 {"count": (n,), ..., "whole": (n,), "unread": (n,)}
    metrics.shares(values)                              {"count": (share, its standard error, of how many), ...}

    test: tests/project/test_metrics_captions.py
"""

import math

import torch

from genmini.data import shapes_captions, shapes_reader
from genmini.data.shapes_captions import RELATIONS, dealt, true_of
from genmini.means import mean_and_error

NAMES = "count", "colour", "shape", "bound", "size", "place", "axis", "order", "whole", "unread"


def captions(texts, x):
    """n texts, or Captions, and n images of shapes in levels 0 ... 255 -> {name of NAMES: (n,) float64, 0, 1 or NaN}"""
    if len(texts) != len(x):
        raise ValueError(f"there must be a caption for each image, got {len(texts)} and {len(x)}")
    read = [shapes_captions.parse(text) if isinstance(text, str) else text for text in texts]
    judged = [_judged(caption, scene) for caption, scene in zip(read, shapes_reader.read(x), strict=True)]
    return {name: torch.tensor([each.get(name, math.nan) for each in judged], dtype=torch.float64) for name in NAMES}


def shares(values):
    """{name: (n,)} -> {name: the share that is right, its standard error, and of how many}, where any was asked"""
    answered = {name: each[~each.isnan()] for name, each in values.items()}
    return {name: (*mean_and_error(each), len(each)) for name, each in answered.items() if len(each)}


def _judged(caption, scene):
    """{name: whether it is right}, of what the caption says and can be asked of the scene; scene: None if unread"""
    right = lambda *kinds: scene is not None and true_of(caption.only(*kinds), scene)
    found = {"unread": scene is None}
    found["count"] = scene is not None and len(scene.objects) == sum(thing.count for thing in caption.things)  # (1)
    found |= {kind: right(kind) for kind in ("colour", "shape") if any(caption.says(kind))}  # (2)
    found["whole"] = scene is not None and true_of(caption, scene)  # (7)
    if not all(caption.says("colour") + caption.says("shape")):
        return found
    found["bound"] = right("colour", "shape")  # (3)
    if not found["bound"]:
        return found
    found |= {kind: right("colour", "shape", kind) for kind in ("size", "place") if any(caption.says(kind))}  # (4)
    if caption.relation and len({(thing.colour, thing.shape) for thing in caption.things}) == 2:
        found |= related(caption, scene)
    return found


def related(caption, scene):
    """(5) and (6) of two things, as {"axis": ..., "order": ...}. They differ in colour or shape: the deals then differ
    within things alone."""
    A, B = next(dealt(caption.only("colour", "shape").things, scene.objects))
    mean = lambda objects: torch.tensor([(o.x, o.y) for o in objects], dtype=torch.float64).mean(0)
    x, y = (mean(A) - mean(B)).tolist()
    along, across = (x, y) if caption.relation in RELATIONS[:2] else (y, x)
    axis = abs(along) > abs(across)  # (5)
    first = caption.relation in (RELATIONS[0], RELATIONS[2])  # left of, above
    return {"axis": True, "order": (along < 0) == first} if axis else {"axis": False}  # (6)
