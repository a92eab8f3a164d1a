"""Images with captions (genmini/data) and what models of them share (genmini/models/_captioned.py): one of the captions
of an image is drawn for each batch, to the same bits after an interruption; y may be text; words are those of the data.
"""

import sys
from dataclasses import replace

import pytest
import torch
from check import command
from check_models import resumes, rows
from torch import nn

from genmini import checkpoint, data, experiment, models
from genmini.data import shapes, shapes_captions
from genmini.models._captioned import Captioned
from genmini.train import fit, judge


class Test_Captioned(Captioned):  # named as this file, as a family is named as its own
    """Pixels around the mean of what each word of the caption adds"""

    __test__ = False

    def __init__(self, shape, levels=2, vocabulary=(), length=40, scale=1.0, device=None, dtype=None):
        super().__init__(shape, levels, vocabulary, length)
        self.adds, self.scale = nn.Embedding(len(self.words), self.D), scale
        self.seen = []

    def loss(self, x, y=None):
        x, y = self.check(x, y, needed=True)
        if self.training:
            self.seen.append(y)
        return (self.scale * self.adds(y).mean(1) - x / (self.levels - 1)).square().mean(1)

    def sample(self, n, y=None):
        y = self.check_y("a red circle" if y is None else y, n)
        return self.adds(y).mean(1).clamp(0, 1).mul(self.levels - 1).byte().view(n, *self.shape)


RECIPES = {"shapes": {"data": "shapes", "model": {}, "train": dict(steps=2, batch=4)}}
WORDS = shapes_captions.VOCABULARY


@pytest.fixture
def family(monkeypatch):
    """The class above as a family of models, and few scenes"""
    monkeypatch.setattr(shapes, "COUNT", {"train": 30, "valid": 10, "test": 12})
    monkeypatch.setattr(models, "MODELS", (*models.MODELS, "test_captioned"))
    monkeypatch.setitem(sys.modules, "genmini.models.test_captioned", sys.modules[__name__])
    return Test_Captioned


def load(split, **options):
    return data.load("shapes", split, **dict(size=16, captions=3) | options)


# ---- data ------------------------------------------------------------------------------------------------------------


def test_every_way_is_true_of_its_scene_and_the_first_is_the_one_that_is_shown():
    some = load("valid", captions=4)
    assert some.ways.shape == (1000, 4, 40) and some.ways.dtype == torch.uint8 and torch.equal(some.y, some.ways[:, 0])
    assert some.words.decode(some.y) == some.captions and some.classes == 0
    for n in range(0, 1000, 50):
        assert all(shapes_captions.true_of(text, some.scenes[n]) for text in some.words.decode(some.ways[n]))
    assert sum(len({*some.words.decode(each)}) for each in some.ways) > 3.5 * len(some)  # most ways differ
    again = load("valid", captions=2)
    assert torch.equal(again.ways, some.ways[:, :2]) and torch.equal(again.x, load("valid", captions=0).x)
    grey = data.load("shapes-grey-dynamic", "valid", size=16, captions=2)
    assert torch.equal(grey.ways, again.ways) and grey.grey is not None


def test_a_batch_has_each_way_as_often_by_the_noise_it_is_given():
    some = load("valid")
    n = torch.arange(600)
    x, y = some.batch(n, torch.Generator().manual_seed(0))
    assert torch.equal(x, some.x[:600]) and torch.equal(some.batch(n, torch.Generator().manual_seed(0))[1], y)
    fits = (some.ways[:600] == y[:, None]).all(2)
    assert fits.any(1).all()  # each of its own image
    alone = fits[fits.sum(1) == 1].sum(0).double()  # of those whose three ways differ
    assert (alone / alone.sum() - 1 / 3).abs().max() < 4 * (2 / 9 / alone.sum()).sqrt()


def test_classes_and_other_noise_are_as_they_were():
    """A set without captions draws no number for y."""
    digits, noise = data.load("digits", "valid"), torch.Generator().manual_seed(0)
    x, y = digits.batch(torch.arange(5), noise)
    assert torch.equal(x, digits.x[:5]) and torch.equal(y, digits.y[:5])
    assert torch.equal(noise.get_state(), torch.Generator().manual_seed(0).get_state())
    assert data.options("shapes", 16) == dict(size=16) and data.options("shapes", 16, captions=3) == dict(
        size=16, captions=3)


@pytest.mark.parametrize("name, captions, message", [
    ("digits", 2, "captions are chosen for the data `shapes` and `images`, and digits has none"),
    ("captions", 2, "captions are chosen for the data `shapes` and `images`, and captions has none"),
    ("shapes", 17, "captions must be how many of an image there are, 1 to 16, got 17"),
    ("shapes", -1, "1 to 16, got -1"), ("shapes", 1.0, "1 to 16, got 1.0"), ("shapes", True, "1 to 16, got True"),
])
def test_captions_that_cannot_be_are_refused(name, captions, message):
    with pytest.raises(ValueError, match=message):
        data.load(name, "valid", captions=captions)


# ---- models ----------------------------------------------------------------------------------------------------------


def test_y_is_text_or_numbers():
    model, x = Test_Captioned((2,), vocabulary=WORDS, length=6), torch.zeros(2, 2, dtype=torch.long)
    y = model.words.encode(["a red circle", "two crosses"], 6)
    wanted = model.loss(x, y)
    assert torch.equal(model.loss(x, ["A red circle.", "two crosses"]), wanted)
    assert torch.equal(model.loss(x, y.to(torch.uint8)), wanted)
    assert torch.equal(model.loss(x, "a red circle"), model.loss(x, y[0]))
    assert model.check_y(None, 3) is None and model.takes_y and not model.classes
    for wrong, words in ((None, "y is missing: a caption for all, or one each"), ("a rad circle", "nearest is 'red'"),
                         ("", "has no word; known are the colours"), (["a"], "one text for all, or 2 of them, got 1"),
                         ("a red circle and a red cross", "at most 5 words here"), (3, "text must be a str"),
                         (torch.zeros(2), "a str, a list of str, or the numbers of words, got torch.float")):
        with pytest.raises(ValueError, match=words):
            model.loss(x, wrong)


def test_words_come_from_the_data_and_are_kept():
    train = load("valid")
    model = Test_Captioned.of_data(train, scale=0.5)
    assert model.settings == dict(shape=(3, 16, 16), levels=256, vocabulary=WORDS, length=40, scale=0.5)
    with pytest.raises(ValueError, match=r"learns from captions, and shapes was loaded without them \(captions=4\)"):
        Test_Captioned.of_data(load("valid", captions=0))
    with pytest.raises(ValueError, match="a vocabulary is 1 to 32768 different words"):
        Test_Captioned((2,))


def test_a_training_sees_all_ways_is_judged_by_one_and_resumes_to_the_same_bits(family, tmp_path):
    train, valid = load("train"), load("valid")

    def make():
        torch.manual_seed(0)
        return family.of_data(train)

    loop = dict(steps=9, batch=20, rate=1e-2, every=4)
    whole, *_ = resumes(make, train, valid, loop, stop=6, folder=tmp_path)
    seen = {tuple(row) for row in torch.cat(whole.seen).tolist()}
    assert seen <= {tuple(row) for row in train.ways.flatten(0, 1).tolist()}
    assert len(seen) > 1.5 * len({tuple(row) for row in train.y.tolist()})
    best = min(rows(tmp_path / "whole"), key=lambda row: row["valid"])
    assert best["valid"] == judge(whole, valid.x, valid.y).mean().item()
    other = replace(train, ways=train.ways.flip(1))  # the same y to be judged by, other ones to be drawn
    model = make()
    fit(model, other, valid, **loop, progress=False)
    assert not torch.equal(model.adds.weight, whole.adds.weight)


@pytest.mark.usefixtures("folder_of_its_own")
def test_the_command_line_trains_judges_and_draws_by_captions(family, capsys):
    words = ["train", "test_captioned", "--data", "shapes", "--size", "16", "--out", "r", "--threads", "1"]
    status, out, err = command(capsys, *words)
    assert status == 0, err
    saved = checkpoint.read("r")
    assert saved["options"] == {"size": 16, "captions": 4} and saved["settings"]["vocabulary"] == [*WORDS]
    assert "given the caption   (mean" in out or "12 images of shapes, given the caption" in out
    assert command(capsys, "eval", "r")[0] == 0
    test = data.of_run(saved, "test")
    assert test.ways.shape == (12, 4, 40)
    figures = experiment.figures(checkpoint.load("r"), test)
    assert figures[0].mean == pytest.approx(judge(checkpoint.load("r"), test.x, test.y).mean().item())
    assert command(capsys, "sample", "r", "two red circles", "-n", "2", "--out", "x.npy")[0] == 0
    for caption, says in (("a rad circle", "no word 'rad' here; the nearest is 'red'"), ("", "text '' has no word")):
        status, _, err = command(capsys, "sample", "r", caption, "-n", "2")
        assert status == 2 and says in err
    assert command(capsys, *words, "--resume")[1].count("nothing left to resume") == 1


@pytest.mark.usefixtures("folder_of_its_own")
def test_a_model_without_captions_reads_none(family, capsys):
    assert command(capsys, "train", "made", "--data", "digits", "--steps", "1", "--out", "m")[0] == 0
    status, _, err = command(capsys, "sample", "m", "two red circles")
    assert status == 2 and "'two red circles' would be a caption, and the MADE in m reads none" in err
    status, _, err = command(capsys, "train", "test_captioned", "--data", "digits", "--recipe", "shapes")
    assert status == 2 and "captions are chosen for the data `shapes` and `images`, and digits has none" in err
