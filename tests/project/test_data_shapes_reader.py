"""Tests of the reader of scenes: every scene drawn is read without a mistake, noise up to a size does not matter, and
what shows no scene is unreadable."""


import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_data_shapes import each, each_side, scenes

from genmini.data import digits, shapes, shapes_reader
from genmini.data.shapes import GROUNDS, Object, Scene


@each_side
@each
def test_every_scene_drawn_is_read_without_a_mistake(name, side):
    some = shapes.read(name, "test", 200 if side == 16 else 40)[0]
    assert shapes_reader.read(shapes.draw(some, side)) == list(some)


@each_side
@given(scene=scenes())
def test_any_scene_is_read(side, scene):
    assert shapes_reader.read(shapes.draw([scene], side)) == [scene]


def test_a_grey_image_has_no_colours_to_read():
    some = shapes.read("shapes", "test", 100)[0]
    wanted = [Scene(tuple(Object(None, o.shape, o.size, o.x, o.y) for o in scene.objects), None) for scene in some]
    for side in (16, 64):
        assert shapes_reader.read(shapes.draw(some, side, colour=False)) == wanted


def test_noise_up_to_a_size_does_not_matter():
    """Gaussian noise of so many levels: at 16 pixels 10 leave all scenes right, with 15 a place may be a unit off. With
    more, scenes become unreadable; a colour, shape or size is never read wrongly."""
    some = shapes.read("shapes", "test", 80)[0]
    what = lambda scene: sorted((o.colour, o.shape, o.size) for o in scene.objects)
    for side, sigma, readable, exact in ((16, 10, 80, 80), (16, 15, 80, 77), (16, 25, 0, 0), (16, 60, 0, 0),
                                         (32, 20, 80, 80), (64, 25, 80, 80)):
        x = shapes.draw(some, side)
        noise = sigma * np.random.RandomState(0).standard_normal(x.shape)
        found = shapes_reader.read(np.clip(np.rint(x + noise), 0, 255))
        read = [(scene, true) for scene, true in zip(found, some, strict=True) if scene]
        assert all(what(scene) == what(true) for scene, true in read), (side, sigma)
        assert len(read) >= readable and sum(scene == true for scene, true in read) >= exact, (side, sigma)


def garbage(side):
    """{what it is: images that are no drawn scene}"""
    some, random = shapes.read("shapes-one", "test", 32)[0], np.random.RandomState(0)
    x = shapes.draw(some, 64).astype(float)
    half, brown = x.copy(), x.copy()
    for n, scene in enumerate(some):
        (o,), ground = scene.objects, np.array(GROUNDS[scene.ground])[:, None, None]
        half[n, :, : o.y] = ground  # the upper half of the object is gone
        brown[n] = np.where((x[n] == ground).all(0), ground, np.array([130, 75, 25])[:, None, None])
    reduced = lambda x: x.reshape(len(x), 3, side, 64 // side, side, 64 // side).mean((3, 5))
    x, half, brown = reduced(x), reduced(half), reduced(brown)
    written = torch.from_numpy(digits.read("test")[0][:16]).float()[:, None] / 16 * 255
    written = torch.nn.functional.interpolate(written, size=(side, side)).expand(-1, 3, -1, -1).numpy()
    meet = Object("red", "square", "big", 25, 30), Object("blue", "circle", "big", 33, 34)
    stripes = x.copy()
    stripes[:, :, ::4] = 255 - stripes[:, :, ::4]
    return {
        "noise": random.randint(256, size=x.shape), "a mean": np.full_like(x, 100), "digits": written,
        "half an object": half, "a colour that is none": brown, "stripes": stripes,
        "objects that meet": shapes.draw([Scene(meet, "white")], side), "brighter": x + 60,
        "NaN": np.full_like(x, np.nan), "infinity": np.full_like(x, np.inf),
        "two scenes at once": x / 2 + x[::-1] / 2,
    }


@pytest.mark.parametrize("side, as_another", [(16, 0.25), (64, 0)])
def test_garbage_is_unreadable(side, as_another):
    """With 16 pixels up to a quarter of the halves of objects are too like another object, as docs/data.md says."""
    for what, x in garbage(side).items():
        found = shapes_reader.read(x)
        read = sum(scene is not None for scene in found) / len(found)
        assert read <= (as_another if what == "half an object" else 0), (what, read)


@given(scene=scenes(), tolerance=st.sampled_from([5.0, 20.0, 32.0]), seed=st.integers(0, 9))
def test_what_is_read_looks_like_the_image(scene, tolerance, seed):
    """Whatever is drawn over a scene: the answer is None, or a scene that differs by at most the tolerance."""
    x, random = shapes.draw([scene], 16).astype(float), np.random.RandomState(seed)
    i, j, h, w = random.randint(0, 12, size=4)
    x[0, :, i : i + h, j : j + w] += random.uniform(-90, 90, size=(3, 1, 1))
    (found,) = shapes_reader.read(x, tolerance)
    if found is not None:
        error = np.square(shapes.draw([found], 16)[0] - x[0]).mean(0)
        worst = max(error[a : a + 4, b : b + 4].mean() for a in range(13) for b in range(13))
        assert np.sqrt(worst) <= tolerance * (1 + 1e-5)
    else:
        assert h and w


def test_other_shapes_of_arrays_are_refused():
    for shape in ((2, 1, 16, 16), (2, 3, 20, 20), (2, 3, 16, 32), (16,), (16, 16)):
        with pytest.raises(ValueError, match="the reader takes images"):
            shapes_reader.read(np.zeros(shape))
    assert shapes_reader.read(np.zeros((0, 3, 16, 16))) == [] and len(shapes_reader.read(np.zeros((3, 16, 16)))) == 3
