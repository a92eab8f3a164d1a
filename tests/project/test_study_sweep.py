"""The study `sweep`: of a model whose answers are known it tells what guidance makes right, what no longer varies, and
where samples are no longer finite."""

import math

import pytest
import torch
from check import command

from genmini import checkpoint
from genmini.data import shapes, shapes_captions
from genmini.data.shapes import Object, Scene
from genmini.models.dalle2 import DALLE2
from genmini.models.imagen import Imagen
from genmini.models.made import MADE
from genmini.studies import sweep

SMALL = dict(text_width=8, text_blocks=1, text_heads=2, directions=6, vector=8, adapter=1, width=8, larger_width=8,
             draws=1)
DALLE = dict(latent=4, clip_width=4, text_width=8, text_blocks=1, heads=2, prior_width=8, prior_blocks=1, directions=3,
             vector=8, width=8, draws=1)


class Painter:
    """w = 1: cyan squares anywhere. Up to 5: what is asked, anywhere. Above: the same in the centre, on white; there
    "none" is no longer finite, and "dynamic" draws nothing at all."""

    title, levels, shape = "Painter", 256, (3, 16, 16)

    def sample(self, n, y, guidance, threshold):
        if guidance > 5 and threshold == "none":
            raise ArithmeticError("samples are no longer finite")
        scenes = [self.scene(*shapes_captions.parse(text).things, guidance) for text in y]
        if guidance > 5 and threshold == "dynamic":
            scenes = [Scene((), "grey")] * n
        return torch.from_numpy(shapes.draw(scenes, 16))

    def scene(self, thing, w):
        colour, shape = ("cyan", "square") if w == 1 else (thing.colour, thing.shape)
        a, b, c = torch.rand(3).tolist()
        x, y = (32 if w > 5 else 9 + round(46 * each) for each in (a, b))
        return Scene((Object(colour, shape, "small", x, y),), "white" if w > 5 else [*shapes.GROUNDS][int(3 * c)])


@pytest.mark.usefixtures("folder_of_its_own")
def test_what_is_right_and_what_still_varies_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(sweep, "EACH", 12)
    run = type("Run", (), dict(model=Painter(), seed=0))
    data, *lines = sweep.study(run, "x.png").splitlines()
    assert (tmp_path / "x.png").stat().st_size > 10_000
    found = dict(line.split(": ") for line in lines)
    assert [*found] == [f"{threshold}, w = {w:g}" for threshold in sweep.THRESHOLDS for w in sweep.WEIGHTS]
    number = lambda line, word: float(line.split(f" {word}")[0].split()[-3])  # before its +- and error
    assert data.startswith("data: ") and 21 < number(data, "units") < 25 and "other grounds 6" in data
    for threshold in sweep.THRESHOLDS:
        assert found[f"{threshold}, w = 1"].startswith("right 0% +- 0.0%, nearest 0% +- 0.0%, ")
        for w in (1, 2, 3, 5):
            line = found[f"{threshold}, w = {w}"]
            assert w == 1 or line.startswith("right 100% +- 0.0%, nearest 100% +- 0.0%, ")
            assert 20 < number(line, "units") < 28  # expected: 0.521 of 46 units
            assert 58 < float(line.split("grounds ")[1].split("%")[0]) < 74
    assert found["static, w = 10"] == ("right 100% +- 0.0%, nearest 100% +- 0.0%, 0.0 +- 0.0 units apart, other "
                                       "grounds 0% +- 0.0%")
    assert found["dynamic, w = 10"] == "right 0% +- 0.0%, nearest 0% +- 0.0%, other grounds 0% +- 0.0%"
    assert found["none, w = 10"] == "samples are no longer finite"


def test_two_samples_of_a_caption_are_compared_and_no_others():
    at = lambda x, y, ground, *more: Scene((Object("red", "circle", "small", x, y), *more), ground)
    one, two, three = at(10, 10, "white"), at(13, 14, "black"), at(10, 10, "black")  # 5, 0 and 5 apart
    found = sweep.differences([[one, two, three], [at(50, 50, "grey"), at(50, 56, "grey")]])
    assert found["apart"][::2] == (pytest.approx((10 / 3 + 6) / 2), 2)
    assert found["ground"][::2] == (pytest.approx((2 / 3 + 0) / 2), 2)
    crowd = at(10, 10, "white", Object("red", "circle", "small", 40, 40))
    found = sweep.differences([[one, crowd], [one, three]])  # of two objects, no place; of all, a ground
    assert found["apart"][0] == 0 and math.isnan(found["apart"][1]) and found["apart"][2] == 1
    assert found["ground"][0] == 0.5
    assert "apart" not in sweep.differences([[one, crowd]])


def test_the_captions_have_every_colour_and_shape_and_data_of_their_own():
    things = [thing for (thing,) in (shapes_captions.parse(text).things for text in sweep.TEXTS)]
    assert {(thing.colour, thing.shape) for thing in things} <= {*shapes.SEEN}
    assert {thing.colour for thing in things} == {*shapes.COLOURS} and {thing.shape for thing in things} == {
        *shapes.SHAPES}
    for text, scenes in zip(sweep.TEXTS, sweep.of_data(), strict=True):
        assert len(scenes) == sweep.OF_DATA and all(shapes_captions.true_of(text, scene) for scene in scenes)


@pytest.mark.usefixtures("folder_of_its_own")
def test_the_command_line_and_what_does_not_fit(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sweep, "EACH", 2)
    words = shapes_captions.VOCABULARY
    checkpoint.save("r", Imagen((3, 16, 16), 256, words, 40, **SMALL), {"step": 1, "data": "shapes"})
    checkpoint.save("dalle", DALLE2((3, 32, 32), 256, words, 40, **DALLE), {"step": 1, "data": "shapes"})
    checkpoint.save("small", Imagen((3, 8, 8), 256, words, 40, **SMALL), {"step": 1, "data": "shapes"})
    checkpoint.save("made", MADE((8, 8), hidden=4), {"step": 1, "data": "digits-threshold"})
    status, out, err = command(capsys, "study", "sweep", "r", "dalle", "small", "made")
    assert status == 0 and all((tmp_path / run / "sweep.png").stat().st_size > 10_000 for run in ("r", "dalle")), err
    assert "static, w = 1: right 0% +- 0.0%, nearest 0% +- 0.0%, " in out
    for says in ("small does not fit: it draws images of shape (3, 8, 8)",
                 "made does not fit: MADE is not guided towards a class: sweep is for diffusion, dalle2, imagen"):
        assert says in err
