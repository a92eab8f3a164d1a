"""Tests of the unpaired digits, of what measures their translations, and of the commands that train and show them."""

import json

import pytest
import torch
from check import command

from genmini import checkpoint, data, experiment, metrics, plots, studies
from genmini.data import unpaired
from genmini.models._model import Model
from genmini.models.cyclegan import CycleGAN
from genmini.studies import translate

REAL = {split: data.load("digits", split) for split in data.SPLITS}
SETS = {split: data.load("digits-unpaired", split) for split in data.SPLITS}


# ---- the data --------------------------------------------------------------------------------------------------------


def test_a_pixel_gives_half_of_its_ink_to_the_right_and_then_down():
    """By hand: full ink at (1, 1) gives 1/2 to the right, and the row gives half of itself to the next."""
    x = torch.zeros(1, 4, 4)
    x[0, 1, 1] = 16
    expected = torch.full((4, 4), 16)
    expected[1, 1:3] = torch.tensor([16 - 16, 16 - 8])
    expected[2, 1:3] = torch.tensor([16 - 8, 16 - 4])
    assert unpaired.change(x.to(torch.uint8), 17)[0].tolist() == expected.tolist()
    x[0, 1, 2] = 8  # and ink adds up as chances do: 1 - (1 - 1/2) (1 - 1/2)
    assert unpaired.change(x.to(torch.uint8), 17)[0, 1].tolist() == [16, 0, 4, 12]


@pytest.mark.parametrize("split", data.SPLITS)
def test_both_sets_are_made_of_other_images_and_keep_their_places(split):
    real, some = REAL[split], SETS[split]
    changed = unpaired.change(real.x, 17)
    assert len(some) == len(real) and some.levels == 17 and some.classes == 2
    assert torch.equal(some.x[some.y == 0], real.x[some.y == 0])
    assert torch.equal(some.x[some.y == 1], changed[some.y == 1])
    assert some.y.sum() == len(some) - len(some) // 2 and not torch.equal(some.y, some.y.sort()[0])
    again = data.load("digits-unpaired", split)
    assert torch.equal(again.x, some.x) and torch.equal(again.y, some.y)
    true = unpaired.counterparts(some.x, some.y, real.x, 17)
    assert torch.equal(true[some.y == 0], changed[some.y == 0]) and torch.equal(true[some.y == 1], real.x[some.y == 1])


def test_y_is_thicker_and_inverted():
    x, y = REAL["test"].x, unpaired.change(REAL["test"].x, 17)
    assert (y.int() <= 16 - x.int()).all(), "no pixel loses ink"
    assert x.float().mean() < 6 and (16 - y.float()).mean() > 1.4 * x.float().mean()


def test_undoing_finds_the_image_again():
    """Without the rounding to levels to a rounding error of float64; with it, each digit of test to a mean error of
    less than half a level, and no pixel by 4 levels."""
    x = torch.rand(50, 6, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.99
    v = x
    for dim in (2, 1):
        v = 1 - (1 - v) * (1 - unpaired.before(v, dim) / 2)
    torch.testing.assert_close(unpaired.undo((1 - v) * 16, 17), x * 16, rtol=0, atol=1e-11)
    apart = (unpaired.undo(unpaired.change(REAL["test"].x, 17), 17) - REAL["test"].x).abs()
    assert apart.mean() < 0.5 and apart.max() < 4
    assert unpaired.undo(torch.full((1, 8, 8), 16), 17).eq(0).all()


# ---- the measure -----------------------------------------------------------------------------------------------------


class Fixed(Model):
    """Translates by two known maps: F gives f(x), G gives g(y), of the true x and y of the test split."""

    def __init__(self, f=lambda x: x, g=lambda y: y):
        super().__init__((8, 8), 17, classes=2)
        self.maps, self.one = (g, f), torch.nn.Parameter(torch.zeros(()))

    def translate(self, x, y=None):
        real = REAL["test"].x
        assert torch.equal(x, (real, unpaired.change(real, 17))[y])
        return self.maps[y]((unpaired.change(real, 17), real)[y].float())


def means(**maps):
    return {name: each.mean().item() for name, each in metrics.translation(Fixed(**maps), SETS["test"]).items()}


def test_true_translations_are_right_and_those_of_other_images_are_not():
    right = means()
    assert right["F off"] == right["G off"] == 0 and right["F own"] == right["G own"] == 1
    logits = metrics.network()(REAL["test"].x, 17)[1]
    assert right["F right"] == (logits.argmax(1) == REAL["test"].y).double().mean() and right["G right"] > 0.95
    off = means(f=lambda x: x * 0.75, g=lambda y: y.roll(1, 0))
    x = REAL["test"].x.double()
    nearest = (x[:, None] * 0.75 - x).square().sum((2, 3)).argmin(1)  # of the squares, not of the roots
    assert off["F off"] == pytest.approx(x.mean().item() / 4, rel=1e-12)
    assert off["F own"] == (nearest == torch.arange(300)).double().mean() and 0.9 < off["F own"] < 1
    assert off["G own"] == 0 and off["G right"] < 0.3 and off["G off"] > 3
    same = means(f=lambda x: x[:1].expand_as(x), g=lambda y: y[:1].expand_as(y))  # all become the first
    share = (REAL["test"].y == REAL["test"].y[0]).double().mean().item()
    assert same["F right"] == share and same["F own"] == 1 / 300


# ---- the commands ----------------------------------------------------------------------------------------------------

FEW = ["--steps", "2", "--set", "width=2", "--set", "blocks=0", "--set", "every=1", "--set", "ema=0.0"]


@pytest.fixture
def run(folder_of_its_own, capsys):
    assert command(capsys, "train", "cyclegan", "--data", "digits", *FEW, "--out", "r")[0] == 0
    return "r"


def test_a_run_trains_is_evaluated_and_studied_by_the_command_line(run, capsys):
    rows = [json.loads(line) for line in open("r/metrics.jsonl")]
    measured = {f"{T} {what}" for T in "FG" for what in ("right", "off", "own")}
    assert checkpoint.read(run)["data"] == "digits-unpaired" and all(measured <= row.keys() for row in rows)
    status, out, _ = command(capsys, "eval", run)
    assert status == 0 and "test      F right" in out and "300 images of digits-unpaired\n" in out
    model = checkpoint.load(run)
    exact = {name: each.mean().item() for name, each in metrics.translation(model, SETS["test"]).items()}
    found = {figure.name: figure.mean for figure in experiment.figures(model, SETS["test"])}
    assert {name: found[name] for name in measured} == exact
    status, out, _ = command(capsys, "study", "translate", run)
    assert status == 0 and f"G has the right class in {exact['G right']:.1%}" in out
    assert command(capsys, "study", "reconstruct", run)[0] == 0


def test_what_a_translator_does_not_do_is_said(run, capsys):
    assert command(capsys, "sample", run)[::2] == (2, "genmini: r does not fit: CycleGAN draws no samples\n")
    status, _, err = command(capsys, "score", run)
    assert status == 2 and "a score takes a model that draws images: CycleGAN draws none" in err
    status, _, err = command(capsys, "train", "cyclegan", "--data", "digits-threshold", *FEW)
    assert status == 2 and "made for 2 classes, and digits-threshold has 10" in err
    status, _, err = command(capsys, "train", "cyclegan", "--data", "shapes", "--size", "16", *FEW)
    assert status == 2 and err.endswith("this cyclegan is made for 2 classes, and shapes has 3\n")
    status, _, err = command(capsys, "train", "cgan", "--data", "digits-unpaired", *FEW[:2])
    assert status == 2 and err.endswith("made for 10 classes, and digits-unpaired has 2: --set classes=2\n")


def test_the_study_shows_each_image_its_translation_the_truth_and_the_way_back(run, monkeypatch):
    shown = []
    monkeypatch.setattr(plots, "rows", lambda path, *given: shown.append(given))
    line = studies.study("translate", run)
    ((_, images, labels, levels),) = shown
    assert labels == ["x", "G(x)", "true y", "F(G(x))", "y", "F(y)", "true x", "G(F(y))"] and levels == 17
    test, real, model = SETS["test"], REAL["test"], checkpoint.load(run)
    for k in range(2):
        n = (test.y == k).nonzero()[:10, 0]
        x, y = test.x[n], test.y[n]
        true = real.x[n] if k else unpaired.change(real.x[n], 17)
        with torch.no_grad():
            expected = [x, model.translate(x, y), true, model.reconstruct(x, y)]
        for row, each in zip(images[4 * k : 4 * k + 4], expected, strict=True):
            assert torch.equal(row, each.float())
    with torch.no_grad():
        lost = (model.reconstruct(test.x, test.y) - test.x).abs().mean()
    assert line.startswith(f"there and back a pixel is off by {lost:.3f} +- ")


def test_without_a_known_truth_the_study_leaves_it_out(monkeypatch):
    shown, test = [], SETS["test"]
    monkeypatch.setattr(plots, "rows", lambda path, *given: shown.append(given))
    torch.manual_seed(0)
    model = CycleGAN((8, 8), 17, width=2, blocks=0).eval()

    class Own:
        translate, reconstruct = (staticmethod(torch.no_grad()(f)) for f in (model.translate, model.reconstruct))
        split = staticmethod(lambda split: data.Data("images", split, test.x[:60], test.y[:60], 17))

    Own.model = model
    line = translate.study(Own, "x.png")
    assert shown[0][2] == ["x", "G(x)", "F(G(x))", "y", "F(y)", "G(F(y))"] and "right class" not in line
