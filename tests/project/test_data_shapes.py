"""Drawn scenes: the same bits everywhere, splits that share nothing, pixels as defined, a reader without a mistake."""

import hashlib
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmini import data, experiment, models
from genmini.cli import main
from genmini.data import shapes
from genmini.data.shapes import COLOURS, GROUNDS, HELD_OUT, PAIRS, RADIUS, SHAPES, Object, Scene, Scenes
from genmini.models import clip

each = pytest.mark.parametrize("name", shapes.MIXES)
each_side = pytest.mark.parametrize("side", shapes.SIDES)


@st.composite
def scenes(draw, most=5):
    """Up to five objects of any kind anywhere, boxes apart: also what no set shows."""
    objects = []
    for _ in range(draw(st.integers(0, most))):
        size = draw(st.sampled_from([*RADIUS]))
        r = RADIUS[size]
        x, y = (draw(st.integers(r, shapes.UNITS - r)) for _ in "xy")
        apart = all(max(abs(x - o.x), abs(y - o.y)) >= r + RADIUS[o.size] + shapes.GAP for o in objects)
        if apart:
            objects.append(Object(draw(st.sampled_from([*COLOURS])), draw(st.sampled_from(SHAPES)), size, x, y))
    return Scene(tuple(objects), draw(st.sampled_from([*GROUNDS])))


# ---- the sets ------------------------------------------------------------------------------------------------------

DIGESTS = {
    "shapes": "bd45677fc42c6e6b",
    "shapes-pairs": "f733c318d29f39df",
    "shapes-counts": "3ff814bbb9446200",
    "shapes-one": "2c4ebea05c7c2611",
    "shapes-circles": "761f118ab29d1c55",
    "shapes-squares": "010b3cfd404837ed",
}


@each
def test_the_scenes_their_images_and_their_captions_keep_their_bits(name):
    digest = hashlib.sha256()
    for split in data.SPLITS:
        some, y = shapes.read(name, split, 60)
        for array in (some.objects, some.ground, y):
            digest.update(array.astype("<i8").tobytes())
        for side in (16, 48):
            digest.update(shapes.draw(some, side).tobytes())
        digest.update("\n".join(data.shapes_captions.captions(some)).encode())
    assert digest.hexdigest()[:16] == DIGESTS[name]


@each
def test_more_scenes_begin_with_the_fewer(name):
    (few, y_few), (many, y_many) = (shapes.read(name, "valid", n) for n in (70, 700))
    assert len(few) == 70 and len(many) == 700 and len(shapes.read(name, "valid", 0)[0]) == 0
    assert np.array_equal(few.objects, many.objects[:70]) and np.array_equal(few.ground, many.ground[:70])
    assert np.array_equal(y_few, y_many[:70])


def test_no_scene_is_in_two_splits_of_any_sets():
    """The split is a function of the objects, so it holds for all scenes; here it is seen on some of every set."""
    found = {split: set() for split in data.SPLITS}
    for name in shapes.MIXES:
        for index, split in enumerate(data.SPLITS):
            some = shapes.read(name, split, 600)[0]
            assert (shapes.split_of(some) == index).all()
            found[split] |= {scene.objects for scene in some}
    train, valid, test = found.values()
    assert not train & valid and not train & test and not valid & test and min(map(len, found.values())) > 2000


@given(scenes(), st.randoms(use_true_random=False), st.sampled_from([*GROUNDS]))
def test_the_split_is_a_function_of_the_objects(scene, random, ground):
    """Neither their order, nor the ground, nor the room for more objects changes it."""
    shuffled = random.sample(scene.objects, len(scene.objects))
    others = [scene, Scene(tuple(shuffled), ground), Scene((Object("red", "cross", "big", 20, 20),) * 6, "grey")]
    alone, together = shapes.split_of(Scenes.of([scene])), shapes.split_of(Scenes.of(others))
    assert alone[0] == together[0] == together[1]


def test_of_eight_scenes_six_are_for_training():
    some = shapes.invent(shapes.MIXES["shapes"], np.random.RandomState(0), 8000)
    share = np.bincount(shapes.split_of(some), minlength=3) / 8000
    p = np.array([6, 1, 1]) / 8
    assert (abs(share - p) < 4 * np.sqrt(p * (1 - p) / 8000)).all()


@each
def test_a_set_shows_what_it_says(name):
    mix, (some, y) = shapes.MIXES[name], shapes.read(name, "train", 1500)
    assert sorted(set(y)) == list(range(mix.classes))
    pairs, counts = set(), set()
    for scene, k in zip(some, y, strict=True):
        for n, o in enumerate(scene.objects):
            r = RADIUS[o.size]
            assert r + shapes.EDGE <= min(o.x, o.y) and max(o.x, o.y) <= 64 - r - shapes.EDGE
            for other in scene.objects[:n]:
                assert max(abs(o.x - other.x), abs(o.y - other.y)) >= r + RADIUS[other.size] + shapes.GAP
        kinds = {(o.colour, o.shape) for o in scene.objects}
        alike = {(o.size, o.colour, o.shape) for o in scene.objects}
        assert len(kinds) == len(alike)  # things differ in colour or shape
        assert name not in ("shapes", "shapes-counts") or not kinds & set(HELD_OUT)
        assert name != "shapes-pairs" or len(kinds & set(HELD_OUT)) == 1
        assert k == (SHAPES.index(scene.objects[0].shape) if name == "shapes-one"
                     else len(scene.objects) - min(mix.counts))
        pairs |= kinds
        counts.add(len(scene.objects))
    assert counts == set({"shapes-one": [1], "shapes-counts": [4, 5]}.get(name, [1, 2, 3]))
    shown = dict.fromkeys(("shapes", "shapes-counts"), set(PAIRS) - set(HELD_OUT))
    shown |= {f"shapes-{shape}s": {(colour, shape) for colour in COLOURS} for shape in ("circle", "square")}
    assert pairs == shown.get(name, set(PAIRS))
    assert {scene.ground for scene in some} == set(GROUNDS)
    assert {o.size for scene in some for o in scene.objects} == set(mix.sizes)


def test_the_held_out_pairs_leave_every_colour_and_shape_in_sight():
    assert sorted(shape for _, shape in HELD_OUT) == sorted(SHAPES) and len({colour for colour, _ in HELD_OUT}) == 4


def test_ten_thousand_scenes_take_little_time():
    began = time.process_time()
    shapes.draw(shapes.read("shapes", "train", 10_000)[0], 32)
    assert time.process_time() - began < 5  # 0.3 seconds of a processor of 2024


# ---- drawing -------------------------------------------------------------------------------------------------------


def as_defined(scene, side):
    """The docstring's inequalities at 384x384 points, object by object, averaged over the pixels."""
    v = (np.arange(384) + 0.5) / 6
    y, x = v[:, None], v[None]
    drawn = np.tile(np.array(GROUNDS[scene.ground], np.float64)[:, None, None], (1, 384, 384))
    for o in scene.objects:
        r, dx, dy = RADIUS[o.size], x - o.x, y - o.y
        far, near = np.maximum(abs(dx), abs(dy)), np.minimum(abs(dx), abs(dy))
        inside = {
            "circle": dx**2 + dy**2 <= r**2,
            "square": far <= r,
            "triangle": (dy <= r) & (2 * abs(dx) <= dy + r),
            "cross": (far <= r) & (3 * near <= r),
        }[o.shape]
        drawn = np.where(inside, np.array(COLOURS[o.colour])[:, None, None], drawn)
    return np.floor(drawn.reshape(3, side, 384 // side, side, 384 // side).mean((2, 4)) + 0.5)


@each_side
@given(scene=scenes())
def test_a_pixel_is_what_the_definition_says(side, scene):
    assert np.array_equal(shapes.draw([scene], side)[0], as_defined(scene, side))


def test_smaller_images_are_the_means_of_larger_ones():
    """Up to the rounding of both: half a level of each."""
    some = shapes.read("shapes", "test", 200)[0]
    x = {side: shapes.draw(some, side).astype(float) for side in shapes.SIDES}
    for side, larger in ((16, 32), (32, 64), (16, 48), (16, 64)):
        k = larger // side
        assert abs(x[larger].reshape(200, 3, side, k, side, k).mean((3, 5)) - x[side]).max() <= 1


def test_without_colours_an_object_is_ink():
    some = shapes.read("shapes-counts", "test", 100)[0]
    ink = shapes.draw(some, 32, colour=False)
    alike = [Scene(tuple(Object("blue", o.shape, o.size, o.x, o.y) for o in scene.objects), "black") for scene in some]
    blue = shapes.draw(alike, 32)[:, 2]  # 20 of the ground, 230 of the object
    assert ink.shape == (100, 32, 32) and ink.max() == 255 and abs(20 + ink / 255 * 210 - blue).max() <= 1


def test_an_area_is_that_of_geometry():
    for shape, area in {"circle": np.pi, "square": 4, "triangle": 2, "cross": 20 / 9}.items():
        for size, r in RADIUS.items():
            x = shapes.draw([Scene((Object("red", shape, size, 30, 33),), "white")], 64, colour=False)
            assert x.sum() / 255 == pytest.approx(area * r**2, rel=0.005)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="the centre of a big object lies at 11 to 53 units"):
        shapes.draw([Scene((Object("red", "circle", "big", 10, 30),), "white")], 16)
    for side in (24, 8, 32.0, True):
        with pytest.raises(ValueError, match="16, 32, 48 or 64 pixels"):
            shapes.draw([], side)
    assert shapes.draw([], 16).shape == (0, 3, 16, 16)


# ---- as data -------------------------------------------------------------------------------------------------------


def test_the_sets_are_loaded_by_name():
    some = data.load("shapes", "valid", size=16)
    assert len(some) == len(some.captions) == 1000 and some.shape == (3, 16, 16) and some.levels == 256
    assert some.classes == 3 and some.captions == data.load("shapes", "valid", size=32).captions
    assert some.captions != data.load("shapes", "test", size=16).captions[:1000]
    assert np.array_equal(some.x, shapes.draw(some.scenes, 16)) and data.load("shapes", "valid").shape == (3, 32, 32)
    grey, binary, dynamic = (data.load(f"shapes-grey{how}", "valid", size=16) for how in ("", "-threshold", "-dynamic"))
    assert grey.name == "shapes-grey" and grey.shape == (16, 16) and grey.captions == some.captions
    assert binary.levels == 2 and torch.equal(binary.x, (grey.x >= 128).to(torch.uint8))
    assert binary.captions == grey.captions and torch.equal(dynamic.grey, grey.x)
    with pytest.raises(ValueError, match="digits has no captions"):
        data.load("digits").captions  # noqa: B018


def test_a_wrong_size_or_colour_is_refused():
    for name, given_, message in (
        ("shapes", dict(size=20), "size must be 16, 32, 48 or 64 pixels for scenes of shapes, got 20"),
        ("shapes-grey", dict(colour=True), "shapes-grey is made of grey images: leave colour out, or take the data"),
        ("moons", dict(size=16), "a size for `shapes`, and moons has its own"),
    ):
        with pytest.raises(ValueError, match=message):
            data.load(name, "valid", **given_)
    assert data.options("shapes", colour=True) == dict(size=32)  # they are in colour


def test_more_scenes_begin_with_the_fewer_and_are_of_train_alone(monkeypatch):
    monkeypatch.setattr(shapes, "COUNT", {"train": 64, "valid": 16, "test": 16})
    usual, more = data.load("shapes", size=16), data.load("shapes", size=16, scenes=100)
    assert len(usual) == 64 and len(more) == 100 and torch.equal(more.x[:64], usual.x)
    assert len(data.load("shapes", "valid", size=16, scenes=100)) == 16
    assert len(data.load("shapes-grey-dynamic", size=16, scenes=5)) == 5
    assert experiment.plan("diffusion", "shapes", scenes=7).options == dict(size=32, scenes=7)
    monkeypatch.setitem(clip.RECIPES, "shapes", clip.RECIPES["shapes"] | {"scenes": 50})
    assert experiment.plan("clip", "shapes", size=16).options == dict(size=16, captions=4, scenes=50)
    assert experiment.plan("clip", "shapes", scenes=9).options["scenes"] == 9
    assert "scenes" not in experiment.plan("clip", "images", "shapes", colour=True).options
    for name, n, message in (("digits", 5, "chosen for the data `shapes`, and digits has none"),
                             ("shapes", 10**7, "1 to 1000000, got 10000000"), ("shapes", 0.5, "got 0.5")):
        with pytest.raises(ValueError, match=message):
            data.load(name, scenes=n)


def test_every_model_of_colour_takes_its_recipe_for_shapes():
    chosen = lambda model, name: experiment.plan(model, name, size=16)
    for model in models.MODELS:
        own = [key for key, recipe in models.recipes(model).items() if recipe["data"] == "shapes"]  # before "colour"
        options = {"size": 16} | ({"captions": 4} if models.find(model).captions else {})
        options |= {"scenes": 100_000} if model in ("clip", "dalle2") else {}  # of their recipes
        if own or "colour" in models.recipes(model):
            for name in ("shapes", "shapes-one", "shapes-circles"):
                plan = chosen(model, name)
                recipe = own[0] if own else "colour"
                assert (plan.recipe_name, plan.data, plan.options) == (recipe, name, options)
    for model, name in (("nade", "shapes-grey-dynamic"), ("realnvp", "shapes-grey")):
        plan = chosen(model, "shapes-grey")
        assert (plan.recipe_name, plan.data) == ("mnist", name)
    with pytest.raises(ValueError, match="nade has no recipe for 'shapes' in colour"):
        chosen("nade", "shapes")


@pytest.mark.usefixtures("folder_of_its_own")
def test_a_run_on_shapes_is_trained_and_evaluated(monkeypatch, capsys):
    monkeypatch.setattr(shapes, "COUNT", {"train": 64, "valid": 16, "test": 16})
    small = ["--steps", "1", "--set", "batch=4", "--set", "width=4", "--threads", "1"]
    assert main(["train", "vae", "--data", "shapes", "--size", "16", "--out", "r", *small]) == 0
    capsys.readouterr()
    assert main(["eval", "r"]) == 0
    assert "16 images of shapes" in capsys.readouterr().out
    assert main(["train", "cvae", "--data", "shapes-one", "--size", "16", "--out", "s", *small]) == 2
    assert "this cvae is made for 10 classes, and shapes-one has 4: --set classes=4" in capsys.readouterr().err
    words = ["train", "cvae", "--data", "shapes-one", "--size", "16", "--out", "s", *small, "--set", "classes=4"]
    assert main(words) == 0, capsys.readouterr().err
