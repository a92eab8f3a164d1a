"""Tests of the studies that train runs which differ in one setting: the sheet of their images, and its curves."""

import json
import math

import numpy as np
import pytest
import torch
from check import command
from test_studies import TEST, Linear, figures  # noqa: F401  a fixture

from genmini import data
from genmini.studies import alpha, latent_dim

pytestmark = pytest.mark.usefixtures("folder_of_its_own")


class Fixed(Linear):
    """A run whose figures, samples and reconstructions are told by a number of its own."""

    def __init__(self, number, **of_model):
        super().__init__(sample=lambda self, n: torch.full((n, 8, 8), number, dtype=torch.uint8), **of_model)
        self.number, self.model.settings = number, dict(alpha=float(number), decoder="gaussian")

    def figures(self, x, y):
        return {"elbo": torch.tensor([1.0, 3.0]) * self.number, "kl": torch.tensor([4.0, 6.0]) + self.number}

    def reconstruct(self, x, y):
        return x + torch.full((8, 8), self.number / 10.0)


def cells(panel):
    """The rows of ten images, (R, 10, 8, 8)"""
    return torch.tensor(panel.images[0].get_array().filled(math.nan)).unfold(0, 8, 9).unfold(1, 8, 9)


def check_sheet(axes, numbers, labels):
    """Test images stand over what each run makes of them, train images over its samples, each row with its label."""
    left, right = axes
    x = TEST.x[:10].float()
    assert torch.equal(cells(left)[0], x) and torch.equal(cells(right)[0], data.load("digits").x[:10].float())
    for row, number in enumerate(numbers, 1):
        torch.testing.assert_close(cells(left)[row], x + number / 10)
        assert (cells(right)[row] == number).all()
    for panel in axes:
        assert [each.get_text() for each in panel.get_yticklabels()] == ["images", *labels]
        assert panel.get_yticks().tolist() == [9 * row + 3.5 for row in range(len(numbers) + 1)]


def test_figures_are_drawn_at_their_latent_dimension_over_images_of_each(figures):  # noqa: F811
    """Runs in any order: each panel's points are (d, mean) of one figure, ascending, with the error of the mean."""
    line = latent_dim.study([Fixed(d, latent=d) for d in (10, 2)], "x.png")
    elbo, kl, unused, *sheet = figures[0].axes
    assert (elbo.lines[0].get_xydata().tolist() == [[2, 4], [10, 20]]
            and kl.lines[0].get_xydata().tolist() == [[2, 7], [10, 15]] and not unused.get_visible())
    assert elbo.get_title() == "elbo (test), higher is better" and kl.get_title() == "kl (test)"
    assert elbo.get_xlabel() == "latent dimensions" and elbo.get_ylabel() == "nats of an image"
    assert line == "elbo: d=2 4.000 +- 2.000, d=10 20.000 +- 10.000\nkl: d=2 7.000 +- 1.000, d=10 15.000 +- 1.000"
    check_sheet(sheet, (2, 10), ["d = 2", "d = 10"])


def test_the_two_terms_are_drawn_at_their_weight_and_against_each_other(figures):  # noqa: F811
    line = alpha.study([Fixed(a) for a in (20, 1, 5)], "x.png")
    error, kl, both, *sheet = figures[0].axes
    squares, points = [64 * (a / 10 / 16) ** 2 for a in (1, 5, 20)], lambda panel: panel.lines[0].get_xydata()
    assert points(error) == pytest.approx(np.array([(1, 5, 20), squares]).T, rel=1e-4)
    assert points(kl).tolist() == [[1, 6], [5, 10], [20, 25]]
    assert [panel.get_title().partition(",")[0] for panel in (error, kl)] == ["squared error (test)", "KL (test)"]
    assert points(both) == pytest.approx(np.array([(6, 10, 25), squares]).T, rel=1e-4)
    assert [each.get_text() for each in both.texts] == ["1", "5", "20"]
    assert line.startswith(f"squared error: alpha=1 {squares[0]:.3f} +- 0.000, alpha=5 ")
    assert "\nkl: alpha=1 6.000 +- 1.000, alpha=5 10.000" in line
    check_sheet(sheet, (1, 5, 20), ["alpha = 1", "alpha = 5", "alpha = 20"])


def test_vaes_of_several_weights_are_trained(capsys, tmp_path):
    words = ["study", "alpha", "vae", "--data", "digits", "--recipe", "digits-levels-mlp", "--set", "hidden=4",
             "--steps", "2", "--alphas"]
    status, out, _ = command(capsys, *words, "0.5", "20")
    assert status == 0 and "squared error: alpha=0.5 " in out and "picture   runs/alpha-vae-digits/alpha.png" in out
    assert (tmp_path / "runs/alpha-vae-digits/alpha.png").stat().st_size > 20_000
    settings = json.loads((tmp_path / "runs/alpha-vae-digits/alpha-0.5/run.json").read_text())["settings"]
    assert settings["alpha"] == 0.5 and settings["decoder"] == "gaussian" and settings["hidden"] == 4
    assert "there is nothing left to resume" in command(capsys, *words, "20")[1]
    for words, says in ((["alpha", "made", "--data", "digits"], "made does not fit: MADE has no latent code"),
                        (["alpha", "vae"], "genmini study alpha MODEL --data D"),
                        (["alpha", "vae", "--data", "digits", "--dimensions", "2"], "--dimensions is for latent-dim"),
                        (["latent-dim", "vae", "--data", "digits", "--alphas", "2"], "--alphas is for alpha"),
                        (["latent-dim", "vae", "--data", "digits", "--axes", "0,1"], "--axes is for embed")):
        status, _, err = command(capsys, "study", *words)
        assert status == 2 and says in err, err
    with pytest.raises(SystemExit, match="2"):
        command(capsys, "study", "alpha", "vae", "--data", "digits", "--alphas", "0")
    assert "it takes a number above 0, got '0'" in capsys.readouterr().err
