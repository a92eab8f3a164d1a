"""Tests of the study restore: its figures for draws whose law is known, the picture of several runs together, and what
is refused."""

import math
from pathlib import Path

import pytest
import torch
from check import command

from genmini import checkpoint, conditions, data, plots, studies
from genmini.data import shapes
from genmini.data.shapes import COLOURS, Object, Scene
from genmini.models._model import Model
from genmini.models.diffusion import Diffusion
from genmini.models.made import MADE
from genmini.models.regressor import Regressor
from genmini.studies import restore

TEST = data.load("shapes-one", "test", size=16)


def recoloured(scenes, n, seed=0):
    """Of each scene n drawings in colours drawn evenly: draws from p(x | dark), (n, N, 3, 16, 16)"""
    generator, names = torch.Generator().manual_seed(seed), list(COLOURS)
    k = torch.randint(len(names), (n, len(scenes)), generator=generator).tolist()
    again = lambda scene, colour: Scene(tuple(Object(colour, o.shape, o.size, o.x, o.y) for o in scene.objects),
                                        scene.ground)
    return torch.stack([torch.from_numpy(shapes.draw([again(scenes[i], names[row[i]]) for i in range(len(scenes))], 16))
                        for row in k])


class Fixed:
    """A run whose model gives these images."""

    folder, seed = "fixed", 0

    def __init__(self, made, draws=True, what="dark"):
        self.made, self.name = iter(made), "Draws in fixed" if draws else "Mean in fixed"
        has = {"sample": lambda self, n: None} if draws else {}
        self.model = type("Draws" if draws else "Mean", (Model,), has)((3, 16, 16), 256)
        self.model.given = what

    def split(self, split):
        return TEST

    def restore(self, x, y):
        return next(self.made)


@pytest.fixture
def drawn(monkeypatch):
    seen = []
    monkeypatch.setattr(plots, "rows", lambda path, *shown: seen.append(shown))
    return seen


def test_draws_from_the_conditional_have_the_figures_that_the_laws_say(drawn, monkeypatch):
    """Recoloured at random: all are read right up to colour, what is given of them is the same, two draws are as far
    apart as a draw and the image, and the mean of all is 3 dB better; colours agree in 1/6."""
    monkeypatch.setattr(restore, "IMAGES", 40)
    scenes = [TEST.scenes[i] for i in range(40)]
    made, every = recoloured(scenes, 12).float(), recoloured(scenes, 60, seed=1).float()
    answer = restore.study([Fixed([every.mean(0)], draws=False), Fixed(made)], "x.png")
    of_c, of_mean, of_draws = answer.splitlines()
    x = TEST.x[:40].float()
    dB = lambda made: 20 * math.log10(255 / (made - x).square().mean().sqrt())
    assert f"PSNR {dB(x.amin(1, keepdim=True)):.1f} dB" in of_c and "0.0% of scenes read right up to colour" in of_c
    assert of_mean.startswith(f"Mean in fixed: PSNR {dB(every.mean(0)):.1f} dB, what is given of them differs by ")
    assert "two draws" not in of_mean
    error = (made - x).square().mean().sqrt()
    pairs = [(made[i] - made[j]).square().mean() for i in range(12) for j in range(i)]
    apart = (sum(pairs) / len(pairs)).sqrt()
    assert f"PSNR {dB(made):.1f} dB ({dB(made.mean(0)):.1f} of the mean of 12 draws), two draws" in of_draws
    assert f"two draws are {apart:.1f} levels apart, a draw and the image {error:.1f}, what" in of_draws
    assert "what is given of them differs by 0.0 levels, 100.0% of scenes read right up to colour" in of_draws
    assert abs(20 * math.log10(apart / error)) < 0.5, "as far apart"
    assert abs(dB(every.mean(0)) - dB(made) - 3.01) < 0.5, "the mean of 60 draws is nearly that of all"
    agree = float(of_draws.partition("two draws agree in ")[2].partition("%")[0]) / 100
    # 40 images of 66 pairs each; pairs are uncorrelated, as each colour is as likely
    assert abs(agree - 1 / 6) < 5 * math.sqrt(1 / 6 * 5 / 6 / (40 * 66))
    assert of_draws.endswith("16.7% where each colour that fits is as likely")
    ((_, images, labels, levels),) = drawn
    assert labels == ["given: dark", "Mean", *["Draws"] * 5, "the image"] and levels == 256
    assert images.shape == (8, 10, 3, 16, 16) and torch.equal(images[0], conditions.pictured(x[:10], "dark"))
    assert torch.equal(images[-1], x[:10]) and torch.equal(images[2], made[0, :10])


def test_the_agreement_of_one_colour_alone_is_1_and_of_the_grey_of_each_colour_too(drawn, monkeypatch):
    monkeypatch.setattr(restore, "IMAGES", 10)
    one = torch.from_numpy(shapes.draw([Scene((Object("red", o.shape, o.size, o.x, o.y),), TEST.scenes[i].ground)
                                        for i in range(10) for o in TEST.scenes[i].objects], 16))
    answer = restore.study([Fixed([one] * 12)], "x.png")
    assert "red 100%, green 0%" in answer and "0.00 bits of 2.58" in answer
    assert "two draws agree in 100.0%, 16.7%" in answer
    assert restore.allowed("grey") == 1 and abs(restore.allowed("dark") - 1 / 6) < 1e-12
    truth = restore.study([Fixed([TEST.x[:10]] * 12, what="half")], "x.png")
    assert "a draw and the image 0.0, what is given of them differs by 0.0 levels, 100.0% of scenes read right" in truth


def save(folder, model, name="shapes-one"):
    checkpoint.save(folder, model, {"step": 1, "data": name, "options": {"size": 16} if name == "shapes-one" else {}})
    return folder


def test_runs_are_studied_together_by_the_command_line(capsys, folder_of_its_own, monkeypatch):
    monkeypatch.setattr(restore, "IMAGES", 6)
    monkeypatch.setattr(restore, "DRAWS", 2)
    of = dict(shape=(3, 16, 16), levels=256, width=8, given="quarter")
    runs = [save("regressor", Regressor(**of)), save("diffusion", Diffusion(**of, draws=2))]
    status, out, _ = command(capsys, "study", "restore", *runs)
    assert status == 0 and [line.partition(":")[0] for line in out.splitlines()[:3]] == [
        "given quarter", "Regressor in regressor", "Diffusion in diffusion"]
    assert out.splitlines()[-1] == "picture   regressor/restore.png"
    assert plots.missing() or Path("regressor/restore.png").stat().st_size > 5000
    assert command(capsys, "study", "restore", *runs, "--out", "both.png")[0] == 0
    assert studies.study("restore", "diffusion").startswith("given quarter: PSNR ")
    other = save("other", Regressor(**of | dict(given="dark")))
    for words, says in (([*runs, other], "other is given 'dark' of images (3, 16, 16), and regressor 'quarter' of"),
                        ([save("none", Diffusion((3, 16, 16), 256, width=8))], "none does not fit: it is given no"),
                        ([save("made", MADE((8, 8), hidden=4), "digits-threshold")],
                         "MADE is given no part of an image: restore is for cvae, diffusion, regressor")):
        status, _, err = command(capsys, "study", "restore", *words)
        assert status == 2 and says in err, err


@pytest.mark.parametrize("words", [("study", "neighbours"), ("study", "spectrum"), ("score",)], ids=" ".join)
def test_what_takes_samples_alone_is_not_for_a_model_that_is_given_a_part(capsys, folder_of_its_own, words):
    save("given", Diffusion((3, 16, 16), 256, width=8, given="dark"))
    status, _, err = command(capsys, *words, "given")
    assert status == 2 and err.endswith("draws what is missing of images, of which it is given dark: see the studies "
                                        "restore and complete\n"), err
