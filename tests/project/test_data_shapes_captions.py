"""Captions of scenes: true of their scene, false with a word changed, read back as written; what is none is refused."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_data_shapes import scenes

from genmini.data import shapes
from genmini.data import shapes_captions as captions
from genmini.data.captions import WORDS
from genmini.data.shapes import Object, Scene
from genmini.data.shapes_captions import PLACES, RELATIONS, WAYS, Caption, Thing, parse, true_of, write

each = pytest.mark.parametrize("name", shapes.MIXES)
CONVERSE = dict(zip(RELATIONS, ("right of", "left of", "below", "above"), strict=True))


def scenes_of(name, n=150):
    return [*shapes.read(name, "test", n)[0]]


def changed(caption):
    """Every caption that differs from this one in one word of one kind."""
    if caption.relation:
        yield from (replace(caption, relation=other) for other in RELATIONS if other != caption.relation)
    if caption.ground:
        yield from (replace(caption, ground=other) for other in shapes.GROUNDS if other != caption.ground)
    for n, thing in enumerate(caption.things):
        for kind in ("count", "size", "colour", "shape", "place"):
            word = getattr(thing, kind)
            for other in WAYS[kind] if word else ():
                if other not in (word, None):
                    things = [*caption.things]
                    things[n] = replace(thing, **{kind: other})
                    yield replace(caption, things=tuple(things))


# ---- of the scenes of the sets -------------------------------------------------------------------------------------


@each
def test_a_caption_is_true_of_its_scene_and_false_with_a_word_changed(name):
    of, random, kinds = scenes_of(name), np.random.RandomState(1), 0
    for scene in of:
        caption = captions.describe(scene, random)
        assert true_of(caption, scene) and true_of(write(caption, random), scene)
        for wrong in changed(caption):
            kinds += 1
            assert not true_of(wrong, scene), (scene, write(wrong))
    assert kinds > 10 * len(of)


@given(scene=scenes(), seed=st.integers(0, 999))
def test_so_is_one_of_any_scene(scene, seed):
    """Of scenes that no set has, too: two things of one colour and shape are told apart by their size."""
    if scene.objects:
        caption = captions.describe(scene, np.random.RandomState(seed))
        assert true_of(caption, scene)
        for wrong in changed(caption):
            if len({(o.colour, o.shape) for o in scene.objects}) == len(caption.things):
                assert not true_of(wrong, scene), write(wrong)


@each
def test_a_caption_counts_every_object(name):
    for scene, text in zip(scenes_of(name), captions.captions(scenes_of(name)), strict=True):
        assert true_of(text, scene)
        assert not true_of(text, Scene(scene.objects[1:], scene.ground))
        assert not true_of(text, Scene((*scene.objects, scene.objects[0]), scene.ground))


def test_the_captions_of_a_set_say_everything_now_and_then():
    """Of 2000 captions, each word of the grammar that `shapes` can need is used, and most texts are different."""
    texts = captions.captions(shapes.read("shapes", "test")[0])
    words = {word for text in texts for word in text.replace(",", " ,").split()}
    assert words == set(captions.VOCABULARY) - {"four", "five", "six", "seven", "eight", "nine"}
    assert len(set(texts)) > 0.85 * len(texts)
    parsed = [parse(text) for text in texts]
    assert {caption.relation for caption in parsed} == {None, *RELATIONS}
    assert {thing.place for caption in parsed for thing in caption.things} == {None, *PLACES}
    assert {len(caption.things) for caption in parsed} == {1, 2, 3}


def test_only_what_is_clear_is_said():
    near = lambda v: min(abs(2 * v - 47), abs(2 * v - 81)) < 4  # a place ends between 23 and 24, and 40 and 41
    random = np.random.RandomState(0)
    for scene in scenes_of("shapes", 400):
        caption = captions.describe(scene, random)
        for thing in caption.things:
            for o in scene.objects:
                assert not (thing.place and thing.fits(o) and (near(o.x) or near(o.y)))
        if caption.relation and len(scene.objects) == 2:
            a, b = scene.objects
            assert abs(abs(a.x - b.x) - abs(a.y - b.y)) > 4


# ---- what is true --------------------------------------------------------------------------------------------------


def at(words, x, y):
    size, colour, shape = words.split()
    return Object(colour, shape, size, x, y)


TWO = Scene((at("small red circle", 12, 30), at("big blue square", 45, 34)), "white")
THREE = Scene((at("small red circle", 12, 12), at("small red circle", 50, 15), at("big blue square", 30, 50)), "black")
GREEN = Scene(tuple(at("small green triangle", x, 40) for x in (10, 30, 52)), "grey")
TIE = Scene((at("small red circle", 20, 20), at("small blue square", 40, 40)), "white")


@pytest.mark.parametrize(
    "scene, text, truth",
    [
        (TWO, "a small red circle left of a big blue square", True),
        (TWO, "There is a red disc to the left of one large box on a white background.", True),
        (TWO, "a big blue square right of a small red circle", True),
        (TWO, "a big blue square left of a small red circle", False),
        (TWO, "a small red circle above a big blue square", False),  # further across than down
        (TWO, "a red circle and a blue square", True),
        (TWO, "a blue square on the right and a circle on the left", True),
        (TWO, "a blue circle left of a red square", False),
        (TWO, "a red circle", False),  # and a blue square
        (TWO, "two shapes", True),
        (TWO, "two circles", False),
        (TWO, "a shape and a thing on the right on a white ground", True),
        (TWO, "a red circle and a blue square on a grey ground", False),
        (THREE, "two red circles above a blue square", True),
        (THREE, "a blue square under a pair of little red discs on a black ground", True),
        (THREE, "a red circle above a blue square", False),
        (THREE, "three red circles", False),
        (THREE, "a red circle in the upper left, a red circle in the top right and a square at the bottom", True),
        (THREE, "a red circle in the top left, a red circle in the top left and a square at the bottom", False),
        (GREEN, "three green triangles", True),
        (GREEN, "three little triangles", True),
        (GREEN, "two green triangles", False),
        (GREEN, "three green triangles at the bottom", False),  # they lie on the left, in the centre, on the right
        (TIE, "a red circle left of a blue square", False),  # as far across as down: neither
        (TIE, "a red circle above a blue square", False),
    ],
)
def test_a_scene_and_a_text(scene, text, truth):
    assert true_of(text, scene) == truth


@given(scene=scenes(6), cut=st.integers(1, 5))
def test_at_most_one_relation_holds_and_its_converse_the_other_way(scene, cut):
    A, B = scene.objects[:cut], scene.objects[cut:]
    if B:
        found = captions.relation(A, B)
        assert captions.relation(B, A) == CONVERSE.get(found)
        dx, dy = (np.mean([getattr(o, v) for o in B]) - np.mean([getattr(o, v) for o in A]) for v in "xy")
        if found:
            assert {"left of": dx, "right of": -dx, "above": dy, "below": -dy}[found] > 0
            assert (abs(dx) > abs(dy)) == (found in RELATIONS[:2])
        assert captions.relation(A, B, clear=4) in (None, found)


def test_a_place_is_one_of_nine():
    for x, y in itertools.product(range(7, 58), repeat=2):
        row, column = ("top", "", "bottom")[(y > 23) + (y > 40)], ("left", "", "right")[(x > 23) + (x > 40)]
        where = captions.place(Object("red", "circle", "small", x, y))
        assert [word for word in ("top", "bottom", "left", "right") if word in where.split()] == [*filter(None, (row,
                                                                                                         column))]


def test_a_caption_can_be_judged_part_by_part():
    """The parts that a wrong image has right: here colours and shapes, not the order, the size or the place."""
    caption = parse("a small red circle left of a small blue square on a white ground")
    wrong = Scene((at("small red circle", 50, 30), at("big blue square", 15, 34)), "white")
    right = {part: true_of(caption.only(part), wrong) for part in ("colour", "shape", "size", "relation", "ground")}
    assert right == dict(colour=True, shape=True, size=False, relation=True, ground=True)
    assert not true_of(caption.only("colour", "shape", "relation"), wrong) and not true_of(caption, wrong)
    assert caption.only() == Caption((Thing(1), Thing(1)))


def test_where_nothing_tells_the_things_apart_both_orders_may_be_true():
    for text, other in (("two triangles left of a triangle", "a triangle left of two triangles"),
                        ("two green shapes left of a triangle", "a triangle left of two green shapes")):
        assert true_of(text, GREEN) and true_of(other, GREEN) and captions.exchanged(text) == ""


# ---- text ----------------------------------------------------------------------------------------------------------

things = st.builds(Thing, *(st.sampled_from([*WAYS[kind]]) if kind in ("count", "shape")
                            else st.sampled_from([None, *WAYS[kind]])
                            for kind in ("count", "size", "colour", "shape", "place")))
grounds = st.sampled_from([None, *shapes.GROUNDS])
any_caption = st.one_of(
    st.builds(Caption, st.lists(things, min_size=1, max_size=4).map(tuple), st.none(), grounds),
    st.builds(Caption, st.tuples(things, things), st.sampled_from(RELATIONS), grounds),
)


@given(caption=any_caption, seed=st.integers(0, 999))
def test_what_is_written_is_read(caption, seed):
    assert parse(write(caption)) == caption
    assert parse(write(caption, np.random.RandomState(seed)).upper() + ".") == caption


def test_words_are_those_of_text():
    for text in ("A red circle!", "a (red) circle", "a red circle?"):
        assert parse(text) == parse("a red circle")
        assert WORDS.decode(WORDS.encode([text])) == ["a red circle"]


def test_no_two_meanings_are_said_in_one_way():
    for kind, meanings in WAYS.items():
        ways = [way for all_ways in meanings.values() for way in all_ways]
        assert len(ways) == len(set(ways)), kind


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "a caption begins with a number, a, two, .*, got its end; an example: 'a small red circle left of"),
        ("a rad circle", "have no word 'rad'; the nearest that they have is 'red' among a, above"),
        ("a red hexagon", "have no word 'hexagon'"),
        ("red circle", "a caption begins with a number, .* got 'red'"),
        ("two red", "after 'two red' a caption goes on with a shape, circle, square, triangle, cross, shape, got its"),
        ("a red circle left of", "after 'a red circle left of' a caption goes on with a number"),
        ("a red circle and", "after 'a red circle and' a caption goes on with a number"),
        ("a circle, and a square", "after 'a circle,' a caption goes on with a number"),
        ("a circle left of a square above a cross", "after 'a circle left of a square' .* got 'above'"),
        ("a circle on a red ground", "after 'a circle' .* got 'on'"),
        ("a circle and a square and a cross", "after 'a circle and a square' .* got 'and'"),
    ],
)
def test_what_is_no_caption_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)
