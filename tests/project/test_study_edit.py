"""The study `edit`: it tells a model that changes the word alone from one that ignores it and from one that changes all
else."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from check import command

from genmini import checkpoint, plots
from genmini.data import shapes, shapes_captions
from genmini.data.shapes import Object, Scene
from genmini.models.dalle2 import DALLE2
from genmini.models.imagen import Imagen
from genmini.models.made import MADE
from genmini.studies import edit

SMALL = dict(text_width=8, text_blocks=1, text_heads=2, directions=6, vector=8, adapter=1, width=8, larger_width=8,
             draws=1)
DALLE = dict(latent=4, clip_width=4, text_width=8, text_blocks=1, heads=2, prior_width=8, prior_blocks=1, directions=3,
             vector=8, width=8, draws=1)


class Exact:
    """Draws the one thing that a caption says, with its place and the ground from the noise."""

    title, levels, shape = "Painter", 256, (3, 16, 16)

    def noise(self, text):
        return torch.rand(3).tolist()

    def thing(self, text):
        return shapes_captions.parse(text).things[0]

    def sample(self, n, y):
        return torch.from_numpy(shapes.draw([self.scene(text) for text in ([y] * n if isinstance(y, str) else y)], 16))

    def scene(self, text):
        thing, (a, b, c) = self.thing(text), self.noise(text)
        x, y = (12 + round(40 * each) for each in (a, b))
        return Scene((Object(thing.colour, thing.shape, thing.size or "small", x, y),), [*shapes.GROUNDS][int(3 * c)])


class NoSize(Exact):
    """All that it draws is small."""

    def thing(self, text):
        return edit.replace(super().thing(text), size="small")


class Noisy(Exact):
    """Each pixel is off by some 50 levels."""

    def sample(self, n, y):
        x = super().sample(n, y).float()
        return (x + 50 * torch.randn_like(x)).clamp(0, 255).to(torch.uint8)


class AllAnew(Exact):
    """Another caption is another noise."""

    def noise(self, text):
        super().noise(text)
        return np.random.RandomState([*text.encode(), torch.randint(1 << 30, (1,)).item()]).rand(3).tolist()


def lines(model, monkeypatch):
    shown = []
    monkeypatch.setattr(plots, "rows", lambda path, *given: shown.append(given))
    answer = edit.study(type("Run", (), dict(model=model, seed=0)), "x.png")
    return answer.splitlines(), shown[0]


def test_pairs_differ_in_one_word_and_are_seen():
    found = edit.pairs(99)
    assert found == edit.pairs(99) and found[:30] == edit.pairs(30)
    assert Counter(kind for kind, _, _ in found) == {"colour": 33, "shape": 33, "size": 33}
    for kind, before, after in found:
        one, other = (shapes_captions.write(each).split() for each in (before, after))
        assert len(one) == len(other) == 4 and sum(a != b for a, b in zip(one, other, strict=True)) == 1
        others = {key for key in edit.KINDS if key != kind}
        assert before.only(*others) == after.only(*others) and before.says(kind) != after.says(kind)
        assert {(c.things[0].colour, c.things[0].shape) for c in (before, after)} <= {*shapes.SEEN}
    changes = {(*before.says(kind), *after.says(kind)) for kind, before, after in found}
    assert len(changes) > 25  # of 30 + 12 + 2


def numbers(line):
    """Of a line: in how many the ground stayed, in %, how much the pixels differ, how far the object moved"""
    return [float(line.split(word)[1].split()[0].rstrip("%")) for word in ("stayed in", "differ by", "moved")]


def is_of_other_noise(line):
    stayed, pixels, moved = numbers(line)
    return 20 < stayed < 47 and 60 < pixels < 110 and 17 < moved < 25  # expected: 33, 88, 20.9


def test_who_changes_the_word_alone_is_right_and_changes_nothing_else(monkeypatch):
    (*shares, same, other), (_, rows, labels, levels) = lines(Exact(), monkeypatch)
    all_right = "100% +- 0.0%, colour 100% +- 0.0%, shape 100% +- 0.0%, size 100% +- 0.0%"
    assert shares == [f"{words}: {all_right}" for words in (
        "of 99 pairs with the same noise right", "by the nearest scenes", "the replaced word alone")]
    assert same == ("with the same noise the ground stayed in 100% +- 0.0% (99), pixels beside objects differ by 0.0 "
                    "+- 0.0 levels (99), the object moved 0.0 +- 0.0 of 64 units (99)")
    assert other.startswith("with other noise the ground stayed in") and is_of_other_noise(other)
    assert rows.shape == (13, 8, 3, 16, 16) and len(labels) == 13 and levels == 256
    assert labels[:2] == ["a small red circle", "red -> blue"]
    torch.manual_seed(0)
    assert torch.equal(rows[1], Exact().sample(8, "a small blue circle"))


def test_who_ignores_a_word_is_wrong_where_it_counts(monkeypatch):
    (strict, near, word, same, _), _ = lines(NoSize(), monkeypatch)
    right = [kind for kind, before, _ in edit.pairs(99) if kind != "size" and before.says("size") == ["small"]]
    for line in (strict, near):
        assert f": {len(right) / 99:.0%} +- " in line and line.endswith(", size 0% +- 0.0%") and 20 < len(right) < 46
        assert all(f"{kind} {right.count(kind) / 33:.0%} +- " in line for kind in edit.KINDS)
    assert "67% +- " in word and word.endswith("colour 100% +- 0.0%, shape 100% +- 0.0%, size 0% +- 0.0%")
    assert numbers(same) == [100, 0, 0]


def test_who_changes_all_else_is_right_and_moves_as_far_as_by_other_noise(monkeypatch):
    (strict, _, _, same, other), _ = lines(AllAnew(), monkeypatch)
    assert "right: 100% +- 0.0%, " in strict and is_of_other_noise(same) and is_of_other_noise(other)


def test_who_draws_badly_is_right_by_the_nearest_scene_alone(monkeypatch):
    (*shares, same, _), _ = lines(Noisy(), monkeypatch)
    strict, near, _ = (float(line.split(": ")[1].split("%")[0]) for line in shares)
    assert strict < 5 and near > 60 and numbers(same)[0] == 100 and numbers(same)[2] < 3


def test_what_differs_is_measured_beside_both_objects():
    one = Scene((Object("red", "circle", "small", 12, 20),), "black")
    other = Scene((Object("red", "circle", "big", 15, 24),), "white")
    x, y = torch.from_numpy(shapes.draw([one, other], 16))
    assert edit.changed(x, x, one, one) == {"ground": True, "pixels": 0.0, "moved": 0.0}
    white_less_black = 245.0 - 20  # no pixel of an object is counted
    assert edit.changed(x, y, one, other) == {"ground": False, "pixels": white_less_black, "moved": 5.0}
    empty = edit.changed(x, y, Scene((), "black"), Scene((), "white"))
    assert empty["pixels"] < white_less_black and math.isnan(empty["moved"])
    for size, r in shapes.RADIUS.items():
        white = torch.from_numpy(shapes.draw([Scene((Object("red", "square", size, 30, 33),), "white")], 64))[0]
        is_object, near = (white != 245).any(0), edit.covered(Object("red", "square", size, 30, 33), 64)
        assert near[is_object].all() and near.sum() == (2 * (r + shapes.GAP)) ** 2


@pytest.mark.usefixtures("folder_of_its_own")
def test_the_command_line_and_what_does_not_fit(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(edit, "N", 3)
    words = shapes_captions.VOCABULARY
    checkpoint.save("r", Imagen((3, 16, 16), 256, words, 40, **SMALL), {"step": 1, "data": "shapes"})
    checkpoint.save("dalle", DALLE2((3, 32, 32), 256, words, 40, **DALLE), {"step": 1, "data": "shapes"})
    checkpoint.save("other", Imagen((3, 16, 16), 256, **SMALL), {"step": 1, "data": "shapes"})
    checkpoint.save("made", MADE((8, 8), hidden=4), {"step": 1, "data": "digits-threshold"})
    status, out, err = command(capsys, "study", "edit", "r", "dalle", "other", "made")
    assert status == 0 and all((tmp_path / run / "edit.png").stat().st_size > 10_000 for run in ("r", "dalle")), err
    assert "r: of 3 pairs with the same noise right: 0% +- 0.0%, colour 0% +- nan%" in out
    assert "with other noise the ground stayed in" in out and "nan levels" not in out
    for says in ("other does not fit: it reads no captions of shapes", "made does not fit: it reads no captions"):
        assert says in err
