"""Tests of the picture of all families: its recipes and its words exist, and it holds what it is given."""

import numpy as np
import sheet
import torch
from PIL import Image

from genmini import data, models
from genmini.data import captions, shapes_captions


def test_its_recipes_are_of_digits_and_its_captions_are_of_the_grammar():
    for name, recipe in sheet.FAMILIES:
        assert data.family(models.recipes(name)[recipe]["data"]) == "digits"
    for caption in sheet.CAPTIONS:
        assert shapes_captions.write(shapes_captions.parse(caption))
        captions.WORDS.rows(caption, 1, 40)


def test_a_model_that_is_there_is_not_trained_again(tmp_path, monkeypatch):
    monkeypatch.setattr(sheet, "RUNS", tmp_path)
    quick = dict(data="digits", model=dict(hidden=4), train=dict(steps=2, every=2, rate=0.01))
    monkeypatch.setitem(models.recipes("made"), "digits", quick)
    first = sheet.trained("made", "digits")
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = sheet.trained("made", "digits")
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} and len(written) > 1
    assert torch.equal(sheet.digits(first), sheet.digits(again)) and sheet.digits(again).shape == (10, 8, 8)


def test_the_picture_has_a_row_of_each_family_and_a_scene_of_each_caption(tmp_path):
    pictures = torch.full((len(sheet.CAPTIONS), 3, 64, 64), 255, dtype=torch.uint8)
    pictures[:, 1:] = 0
    sheet.draw(tmp_path / "x.png", {"one": torch.zeros(10, 8, 8), "another": torch.ones(10, 8, 8)}, pictures)
    x = np.asarray(Image.open(tmp_path / "x.png").convert("RGB")).astype(int)
    red = (x == (255, 0, 0)).all(2).mean(0) > 0.2  # of columns
    assert np.flatnonzero(np.diff(red.astype(int)) == 1).size == sheet.ACROSS
    assert ((x == 0).all(2).mean() > 0.02) and ((x == 255).all(2).mean() > 0.1)
