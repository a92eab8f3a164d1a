"""Tests of the study inpaint: its figures and rows for draws that are known; planted mistakes, which the same checks
must see; its masks; and the command line."""


import numpy as np
import pytest
import torch
from check import command
from PIL import Image
from planted import planted

from genmini import checkpoint, conditions, data, plots
from genmini.models._model import Model
from genmini.models.diffusion import Diffusion
from genmini.models.made import MADE
from genmini.models.realnvp import RealNVP
from genmini.models.vae import VAE
from genmini.studies import inpaint

TEST, TRAIN = data.load("digits", "test"), data.load("digits", "train")
N, DRAWS = 40, 8


class Others(Model):
    """Draw k has the hidden pixels of the test image k + 1 places before; a hidden number costs 1/2 nat, and in every
    second image 1 more. The first draw of the first image loses a known pixel."""

    unit, device = "nats", torch.device("cpu")

    def inpaint(self, x, y=None, *, known, n):
        assert torch.equal(x, TEST.x[:N]) and (y is None) == (not self.classes)
        made = torch.stack([torch.where(known, x, x.roll(k + 1, 0)) for k in range(n)])
        made[0, 0, 0, 7] += 1
        return made

    def log_hidden(self, x, y=None, *, known):
        return -(~known).sum() * (0.5 + torch.arange(len(x)) % 2)


class Unsure(Others):
    """The same, without a likelihood"""

    log_hidden = Model.log_hidden


def run_of(model, name="digits"):
    split = lambda self, split: data.load(name, split)
    return type("Run", (), dict(model=model, seed=0, device="cpu", split=split, conditional=bool(model.classes),
                                name=f"{model.title} in r", folder=f"r/{model.title.lower()}"))()


@pytest.fixture
def drawn(monkeypatch):
    seen = []
    monkeypatch.setattr(plots, "rows", lambda path, *shown: seen.append(shown))
    return seen


def check(study, drawn):
    """What the lines and the picture hold of two models whose draws are known"""
    runs = [run_of(Others((8, 8), 17, classes=10)), run_of(Unsure((8, 8), 17))]
    first, line, other = study(runs, "x.png", "left").split("\n")
    x, hidden = TEST.x[:N].double(), slice(0, 4)
    made = torch.stack([x.roll(k + 1, 0) for k in range(DRAWS)])[..., hidden]
    root = lambda values: values.square().mean().sqrt().item()
    off = root((TRAIN.x.double().mean(0) - x)[..., hidden])
    shares = [((TRAIN.x[:, i, j] == x[n, i, j]).sum() + 0.5) / (len(TRAIN.x) + 17 / 2)
              for n in range(N) for i in range(8) for j in range(4)]
    plain = -torch.stack(shares).double().log().view(N, 32).mean(1)
    assert first == (f"left hides 32 of 64 numbers of 40 test images: the mean of train is {off:.2f} levels off, "
                     f"shares in train {plain.mean():.3f} ± {plain.std() / N**0.5:.3f} nats a number")
    apart = root(torch.stack([made[i] - made[j] for i in range(DRAWS) for j in range(i)]))
    off = root(made.mean(0) - x[..., hidden])
    figures = (f"the mean of 8 draws is {off:.2f} levels off, two draws are {apart:.2f} apart, a draw and the image "
               f"{root(made - x[..., hidden]):.2f}, 99.7% keep all that is known")
    assert line == f"Others in r: {figures}, 1.000 ± {0.5 / (N - 1) ** 0.5:.3f} nats a number"
    assert other == f"Unsure in r: {figures}"
    ((title, images, labels, levels),) = drawn
    assert (title, levels) == ("hidden: left (test)", 17) and images.shape == (8, 10, 8, 8)
    assert labels == ["known", *["others"] * 2, "mean of 8", *["unsure"] * 2, "mean of 8", "the image"]
    assert images[0, :, :, :4].isnan().all() and torch.equal(images[0, :, :, 4:], x[:10, :, 4:].float())
    assert torch.equal(images[2, ..., :4], made[1, :10].float()) and torch.equal(images[-1], x[:10].float())
    torch.testing.assert_close(images[3, ..., :4], made.mean(0)[:10].float())
    drawn.clear()


def test_figures_and_rows_are_those_of_the_draws(drawn):
    check(inpaint.study, drawn)


PLANTED = {
    "wrong split": ('for split in ("test", "train")', 'for split in ("train", "test")'),
    "the known measured": ("hidden = ~known", "hidden = known"),
    "the known drawn measured": ("drawn, truth = made[..., ~known]", "drawn, truth = made[..., known]"),
    "a draw in the place of the mean": ("mean = made.double().mean(0)", "mean = made[0].double()"),
    "draws of another image": ("length(drawn - truth)", "length(drawn - truth.roll(1, 0))"),
    "any known pixel is enough": ("[..., known].all(-1)", "[..., known].any(-1)"),
    "hidden pixels shown": ("masked_fill(hidden", "masked_fill(hidden & False"),
    "nats of an image": ("nll.double() / hidden.sum()", "nll.double()"),
    "the wrong error": ("each.std() / len(each) ** 0.5", "each.std()"),
    "log p for -log p": ("nats(-log_p, ~known)", "nats(log_p, ~known)"),
    "shares of all places": ("counts / counts.sum(0)", "counts / counts.sum()"),
    "no class": ("if run.conditional else None", "if False else None"),
    "a label for two rows": ("labels += [Path(run.folder).name] * ROWS", "labels += [Path(run.folder).name]"),
}


@pytest.mark.parametrize("right, wrong", PLANTED.values(), ids=PLANTED)
def test_planted_mistakes_are_seen(drawn, right, wrong):
    code = planted(inpaint, right, wrong)
    with pytest.raises((AssertionError, RuntimeError)):
        check(code.study, drawn)


# ---- masks -----------------------------------------------------------------------------------------------------------


def hidden(name, shape=(8, 8)):
    return (~conditions.unmasked(name, shape)).int().tolist()


def test_masks_hide_what_they_are_named_after():
    four = {"upper": ["1111", "1111", "0000", "0000"], "lower": ["0000", "0000", "1111", "1111"], "left": ["1100"] * 4,
            "right": ["0011"] * 4, "centre": ["0000", "0110", "0110", "0000"], "stripes": ["0101"] * 4}
    assert tuple(four) == conditions.MASKS
    for name, rows in four.items():
        assert hidden(name, (4, 4)) == [[int(pixel) for pixel in row] for row in rows]
        assert torch.equal(conditions.unmasked(name, (3, 4, 4)), conditions.unmasked(name, (4, 4)).expand(3, 4, 4))
    assert np.sum(hidden("random:0.3")) == 19 and hidden("random:0.3") == hidden("random:0.3")
    assert hidden("random:0.3") != hidden("stripes") and np.all(hidden("random:1"))
    wide = np.array(hidden("stripes", (16, 32)))
    assert (wide[0].reshape(8, 4) == wide[0].reshape(8, 4)[:, :1]).all() and (wide == wide[0]).all()


def test_a_picture_hides_where_it_is_dark(tmp_path):
    pixels = np.full((8, 8), 255, np.uint8)
    pixels[2:4, 5:] = 0
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    assert np.array_equal(np.array(hidden(str(tmp_path / "mask.png"))), pixels == 0)
    big = np.kron(pixels, np.ones((5, 5), np.uint8))
    Image.fromarray(big).save(tmp_path / "big.png")
    assert hidden(str(tmp_path / "big.png")) == hidden(str(tmp_path / "mask.png"))
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(tmp_path / "white.png")
    for name, why in ((tmp_path / "white.png", "hides nothing"), ("random:0", "above 0 and at most 1"),
                      ("random:x", "above 0 and at most 1"), ("middle", "mask must be upper, lower"),
                      ("random:0.001", "hides nothing of 8x8 pixels")):
        with pytest.raises(ValueError, match=why):
            hidden(str(name))
    with pytest.raises(ValueError, match="is square, and these images have 4x8"):
        hidden(str(tmp_path / "mask.png"), (4, 8))


# ---- by the command line ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder_of_its_own")
def test_the_command_draws_several_runs_and_refuses_others(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(inpaint, "IMAGES", 6)
    monkeypatch.setattr(inpaint, "DRAWS", 3)
    small = dict(made=MADE((8, 8), hidden=4, order="random", resample=True), vae=VAE((8, 8), latent=2, hidden=8),
                 diffusion=Diffusion((8, 8), 2, width=8, blocks=1, draws=2),
                 realnvp=RealNVP((8, 8), 2, couplings=1, width=4))
    for name, model in small.items():
        checkpoint.save(name, model, {"step": 1, "data": "digits-threshold"})
    checkpoint.save("levels", MADE((8, 8), hidden=4, levels=17), {"step": 1, "data": "digits"})
    checkpoint.save("upper", Diffusion((8, 8), 2, width=8, given="upper"), {"step": 1, "data": "digits-threshold"})
    status, out, _ = command(capsys, "study", "inpaint", "made", "vae", "diffusion", "--mask", "random:0.5")
    assert status == 0 and out.startswith("random:0.5 hides 32 of 64 numbers of 6 test images: ")
    assert out.count("100.0% keep all that is known") == 3 and out.count("nats a number") == 3
    assert out.endswith("picture   made/inpaint.png\n") and (tmp_path / "made/inpaint.png").stat().st_size > 5000
    for words, why in ((["made", "realnvp"], "realnvp does not fit: RealNVP does not draw what a mask hides"),
                       (["made", "levels"], "levels is of digits (8, 8), and made of digits-threshold (8, 8)"),
                       (["upper"], "upper does not fit: it is given upper of an image"),
                       (["made", "--mask", "corner"], "mask must be upper, lower, left"),
                       (["made", "--mask", "no.png"], "no.png")):
        status, _, err = command(capsys, "study", "inpaint", *words)
        assert status == 2 and why in err, err
    assert "--mask is for inpaint: complete does not take it" in command(capsys, "study", "complete", "made", "--mask",
                                                                         "left")[2]
