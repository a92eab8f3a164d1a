"""What the metric `captions` says of drawn scenes, for which each answer is known: of true captions, and of captions
with one word, or the order of two things, changed."""

import math
from dataclasses import replace

import pytest
import torch

from genmini import data, metrics
from genmini.data import shapes, shapes_captions
from genmini.data.shapes import Object, Scene


def drawn(*objects, ground="white", side=16):
    return torch.from_numpy(shapes.draw([Scene(tuple(objects), ground)], side))


RED = Object("red", "circle", "small", 15, 30)
BLUE = Object("blue", "square", "big", 45, 34)  # 30 units to the right of it, 4 below


def judged(text, *objects):
    """{name: True or False}, without what is NaN"""
    found = metrics.captions([text], drawn(*objects))
    assert all(values.dtype == torch.float64 and values.shape == (1,) for values in found.values())
    return {name: bool(values) for name, values in found.items() if not values.isnan()}


@pytest.mark.parametrize("name", ["shapes", "shapes-pairs", "shapes-counts"])
def test_a_true_caption_is_right_in_all_that_it_says(name):
    some = data.load(name, "valid", size=16)
    values = metrics.captions(some.captions[:60], some.x[:60])
    for measure, (share, error, n) in metrics.shares(values).items():
        assert (share, error) == (float(measure != "unread"), 0) and 0 < n <= 60
    both = [len(c.things) == 2 and c.relation is not None for c in map(shapes_captions.parse, some.captions[:60])]
    assert (~values["order"].isnan()).sum() <= sum(both) and (name == "shapes-counts") == (sum(both) == 0)


@pytest.mark.parametrize("text, wrong", [
    ("a small red circle left of a big blue square", set()),
    ("a blue square right of a red circle", set()),
    ("a red square left of a blue circle", {"bound", "whole"}),  # every colour and shape is there, and on another
    ("a red circle right of a blue square", {"order", "whole"}),
    ("a blue square left of a red circle", {"order", "whole"}),
    ("a red circle above a blue square", {"axis", "whole"}),
    ("a green circle left of a blue square", {"colour", "bound", "whole"}),
    ("a red circle left of a blue cross", {"shape", "bound", "whole"}),
    ("a big red circle left of a blue square", {"size", "whole"}),
    ("a red circle in the top left and a blue square", {"place", "whole"}),
    ("a red circle left of two blue squares", {"count", "colour", "shape", "bound", "whole"}),
    ("a red circle and a blue square on a black ground", {"whole"}),
])
def test_each_kind_of_word_is_judged_alone(text, wrong):
    found = judged(text, RED, BLUE)
    assert {name for name, right in found.items() if not right} - {"unread"} == wrong
    caption, bound = shapes_captions.parse(text), "bound" not in wrong
    assert ("order" in found) == (caption.relation is not None and bound and "axis" not in wrong)
    assert ("axis" in found) == (caption.relation is not None and bound)
    assert ("size" in found) == (bound and ("small" in text or "big" in text))


def test_the_order_of_things_is_that_of_the_means_of_their_objects():
    """Two circles, one of them right of the square, with their mean left of it: it is no relation, but its order."""
    objects = RED, replace(RED, x=55), Object("blue", "square", "small", 38, 30)
    assert judged("two red circles left of a blue square", *objects) == {
        "unread": False, "count": True, "colour": True, "shape": True, "bound": True, "axis": True, "order": True,
        "whole": False}
    over = Object("red", "circle", "small", 30, 12), Object("red", "circle", "small", 40, 40)
    low = Object("blue", "square", "small", 22, 54)
    assert judged("two red circles above a blue square", *over, low)["order"]
    assert not judged("two red circles below a blue square", *over, low)["order"]


def test_things_of_one_colour_and_shape_have_no_order_that_could_be_told():
    objects = RED, replace(RED, size="big", x=45)
    found = judged("a small red circle left of a big red circle", *objects)
    assert found["whole"] and not found.keys() & {"axis", "order"}


def test_an_image_that_cannot_be_read_is_wrong():
    noise = torch.randint(256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    values = metrics.captions(["a red circle left of a blue square"] * 2, noise)
    found = metrics.shares(values)
    assert found == {"unread": (1.0, 0.0, 2), **dict.fromkeys(("count", "colour", "shape", "bound", "whole"),
                                                               (0.0, 0.0, 2))}


def test_shares_are_means_of_what_was_asked():
    values = {"bound": torch.tensor([1, 0, 1, math.nan, 1], dtype=torch.float64), "size": torch.full((5,), math.nan)}
    found = metrics.shares(values)
    assert found.keys() == {"bound"}
    share, error, n = found["bound"]
    assert (share, n) == (0.75, 4) and error == pytest.approx(math.sqrt(0.75 * 0.25 / 3), abs=1e-15)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="there must be a caption for each image, got 2 and 1"):
        metrics.captions(["a red circle"] * 2, drawn(RED))
    with pytest.raises(ValueError, match="captions of shapes have no word 'rde'"):
        metrics.captions(["a rde circle"], drawn(RED))
