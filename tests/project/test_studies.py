"""Tests of what each study computes and draws, for models whose answer is known."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from genmini import data, plots, studies
from genmini.models._model import Model
from genmini.studies import (
    embed,
    interpolate,
    reconstruct,
    semi_supervised,
    spectrum,
    traverse,
)

pytestmark = pytest.mark.usefixtures("folder_of_its_own")
TEST = data.load("digits", "test")


class Linear:
    """A run of a model that decodes three numbers into three pixels, the third one not at all."""

    conditional, seed, check_labels, folder, device = False, 0, studies.Run.check_labels, "runs/linear", "cpu"
    name = "Linear in runs/linear"

    def __init__(self, **of_model):
        self.model = type("Linear", (Model,), {"latent": 3, "encode": lambda self, x: self, **of_model})((8, 8), 17)

    def split(self, split):
        return data.load("digits", split)

    def encode(self, x, y):
        return x[:, 3, 2:5].float()

    def decode(self, z, y):
        x = torch.zeros(len(z), 8, 8)
        x[:, 3, 2:4] = z[:, :2].float() * torch.tensor([1.0, 0.5])
        return x

    def reconstruct(self, x, y):
        return self.decode(self.encode(x, y), y)


@pytest.fixture
def drawn(monkeypatch):
    """What the studies hand to plots, in place of the pictures."""
    seen = []
    monkeypatch.setattr(plots, "side_by_side",
                        lambda path, panels, levels, columns=8: seen.append((panels, levels, columns)))
    monkeypatch.setattr(plots, "rows", lambda path, *shown: seen.append(shown))
    return seen


def test_reconstructions_stand_below_their_images_and_the_error_is_theirs(drawn):
    line = reconstruct.study(Linear(), "x.png")
    x = TEST.x.float()
    back = torch.zeros_like(x)
    back[:, 3, 2], back[:, 3, 3] = x[:, 3, 2], x[:, 3, 3] / 2
    error = ((x - back) / 16).square().mean((1, 2))
    assert (f"test {error.mean():.4f} +- {error.std() / math.sqrt(300):.4f}" in line
            and line.startswith("squared error of a pixel: train 0."))
    ((panels, levels, _),) = drawn
    shown = panels["test: images over their reconstructions"]
    assert (levels == 17 and torch.equal(shown[:8], x[:8]) and torch.equal(shown[8:16], back[:8])
            and torch.equal(shown[16:24], x[8:16]))


def test_interpolations_are_of_different_classes_or_of_one_and_straight_in_the_codes(drawn):
    for conditional in (False, True):
        ends = interpolate.pairs(TEST.y[:200], conditional)
        assert (ends.shape == (6, 2) and len(ends.unique()) == 12
                and ((TEST.y[ends[:, 0]] == TEST.y[ends[:, 1]]) == conditional).all())
    line = interpolate.study(Linear(), "x.png")
    # a linear decoder
    assert line == "6 pairs: the way through the latent space is 1.00 times as long in pixels as the straight one"
    ((panels, _, names),) = drawn
    row = next(iter(panels.values())).unflatten(0, (6, 11))
    ends = interpolate.pairs(TEST.y[:200], False)
    assert names == ["x$_0$", "0%", "12%", "25%", "38%", "50%", "62%", "75%", "88%", "100%", "x$_1$"]
    assert torch.equal(row[:, [0, -1]], TEST.x[ends].float())
    # eighths of integers are exact
    assert torch.equal(row[:, 1:10, 3, 2],
                       torch.stack([torch.linspace(a, b, 9) for a, b in TEST.x[ends][:, :, 3, 2].tolist()]))


def test_the_plane_of_codes_is_the_latent_one_or_that_of_most_variance():
    torch.manual_seed(0)
    z = torch.randn(500, 4) * torch.tensor([1.0, 5.0, 0.1, 2.0]) + 3
    assert torch.equal(embed.plane(z[:, :2])[0], z[:, :2])
    points, axes = embed.plane(z)
    variance = z.var(0)
    assert axes == ("2 principal components of 4 dimensions, "
                    f"{(variance[1] + variance[3]) / variance.sum():.0%} of the variance")
    # correlations of about 1 / root 500 turn the axes by 1 / root 500 x 5 x 2 / (25 - 4): four times that angle
    z_0 = (z - z.mean(0))[:, [1, 3]]
    within = 4 / 500**0.5 * 5 * 2 / (25 - 4) * z_0.norm(dim=1).max().item()
    torch.testing.assert_close(points.abs(), z_0.abs(), rtol=0, atol=within)
    assert embed.plane(z[:, :1])[0].shape == (500, 2)
    y = torch.tensor([0, 0, 1, 1, 1])
    # 1.0 and 1.5 are next to each other
    assert embed.like_its_neighbour(torch.tensor([[0.0], [1.0], [1.5], [9.0], [9.1]]), y) == 3 / 5


def test_a_dimension_that_moves_nothing_is_said_to(drawn):
    line = traverse.study(Linear(), "x.png")
    ((_, images, labels, levels),) = drawn
    z = data.load("digits").x[:, 3, 2:5].float()
    low, high = torch.quantile(z, 0.01, dim=0), torch.quantile(z, 0.99, dim=0)
    first, second = (high - low)[0] / 16, (high - low)[1] / 32
    assert line == f"z_1 moves the image most, by {first:.2f}; 1 of 3 dimensions by less than a tenth of that"
    assert (labels == [f"z$_{{1}}$, moves {first:.1f}", f"z$_{{2}}$, moves {second:.1f}", "z$_{3}$, moves 0.0"]
            and images.shape == (3, 11, 8, 8))
    torch.testing.assert_close(images[0, :, 3, 2], torch.linspace(low[0], high[0], 11))
    assert images[0, :, 3, 3].eq(images[0, 0, 3, 3]).all() and images[2].eq(images[2, 0]).all()


def test_dimensions_that_follow_attributes_come_first_with_what_they_reach(drawn):
    """The attribute is the pixel that the dimension moves, so its ends are the quantiles; z_3 follows none."""
    names, half = ("left", "right"), lambda self, x: dict.fromkeys(names, 0.5)
    run = Linear(attributes=names, measure=lambda self, x: x[:, 3, 2:4], correlations=half)
    run.device = "cpu"
    line = traverse.study(run, "x.png")
    ((_, images, labels, _),) = drawn
    z = data.load("digits").x[:, 3, 2:5].float()
    low, high = torch.quantile(z, 0.01, dim=0), torch.quantile(z, 0.99, dim=0)
    assert labels[0] == f"left, ρ = 0.50: {low[0]:.3g} to {high[0]:.3g}"
    assert labels[1] == f"right, ρ = 0.50: {low[1] / 2:.3g} to {high[1] / 2:.3g}" and labels[2].startswith("z$_{3}$")
    assert line.endswith("rank correlation of a dimension with its attribute: left 0.500, right 0.500")


def test_the_few_label_classifier_is_at_its_least_and_learns():
    torch.manual_seed(0)
    f, y = torch.randn(60, 5).double(), torch.randint(3, (60,))
    W, b = semi_supervised.fit(f, y, 3, 0.1)
    wrong = (f @ W.T + b).softmax(1) - torch.nn.functional.one_hot(y, 3)
    assert (wrong.T @ f / 60 + 0.1 * W).abs().max() < 1e-5 and wrong.mean(0).abs().max() < 1e-5  # the gradient
    centres = 3 * torch.randn(4, 6).double()
    y = {split: torch.arange(80) % 4 for split in ("train", "valid", "test")}
    f = {split: centres[k] + 0.3 * torch.randn(80, 6).double() for split, k in y.items()}
    right = semi_supervised.accuracy(f, y, [torch.arange(4), torch.arange(4, 8)], 4)
    assert right.shape == (2,) and (right > 0.95).all()
    noise = semi_supervised.accuracy({split: torch.randn(80, 6).double() for split in f}, y, [torch.arange(40)] * 2, 4)
    assert (noise < 0.5).all()


def test_the_regulariser_is_chosen_on_valid_and_the_share_is_of_test(monkeypatch):
    """With the weight 0.1 every prediction is class 1, with others class 0. The weight that is best on valid predicts
    all of test right where test is alike, and none where it is the opposite, though another weight would predict them
    right."""
    b = lambda weight: torch.tensor([0.0, 1.0 if weight == 0.1 else -1.0])
    monkeypatch.setattr(semi_supervised, "fit", lambda f, y, classes, weight: (torch.zeros(2, 1), b(weight)))
    f = {split: torch.zeros(6, 1) for split in ("train", "valid", "test")}
    zeros, ones = torch.zeros(6, dtype=torch.long), torch.ones(6, dtype=torch.long)
    for valid, test, right in ((ones, zeros, 0), (ones, ones, 1), (zeros, ones, 0)):
        y = {"train": zeros, "valid": valid, "test": test}
        assert semi_supervised.accuracy(f, y, [torch.arange(2)] * 3, 2).tolist() == [right] * 3


@pytest.fixture
def figures(monkeypatch):
    """The figures of matplotlib that the studies draw, in place of files."""
    seen = []
    monkeypatch.setattr(plots, "save", lambda figure, path: seen.append(figure))
    return seen


class Letters(Linear):
    """Images of 26 classes."""

    folder = "runs/letters"

    def split(self, split):
        some = super().split(split)
        return dataclasses.replace(some, y=torch.arange(len(some)) % 26, classes=26)


def test_each_of_many_classes_has_its_colour(figures):
    embed.study(Letters(), "x.png")
    dots = figures[0].axes[0].collections[0]
    assert len({tuple(colour) for colour in dots.cmap(dots.norm(np.arange(26)))}) == 26


@pytest.mark.parametrize("study", [embed, semi_supervised])
def test_a_study_of_classes_refuses_images_without(study, monkeypatch):
    run, load = Letters(), data.load
    monkeypatch.setattr(Letters, "split", lambda self, split: dataclasses.replace(load("digits", split), classes=0))
    with pytest.raises(studies.Misfit, match="runs/letters does not fit: its images have no classes"):
        study.study(run, "x.png")


def test_the_second_row_of_an_interpolation_blends_the_pixels(drawn):
    interpolate.study(Linear(), "x.png")
    ((panels, _, _),) = drawn
    blends, ends = panels["between the pixels"].unflatten(0, (6, 11)), interpolate.pairs(TEST.y[:200], False)
    x = TEST.x[ends].float()
    for step in range(9):
        assert torch.equal(blends[:, 1 + step], x[:, 0] + step / 8 * (x[:, 1] - x[:, 0]))
    assert torch.equal(blends[:, 0], x[:, 0]) and torch.equal(blends[:, 10], x[:, 1])


def test_a_traversal_moves_rightwards_and_each_row_has_its_label(figures):
    """The picture is R rows of STEPS cells, each row beside its label."""
    images = torch.arange(3 * 2.0).view(3, 2, 1, 1).expand(3, 2, 8, 8)
    plots.rows("x.png", "title", images, ["a", "b", "c"], 17)
    panel = figures[0].axes[0]
    shown = panel.images[0].get_array()
    assert [[shown[9 * r + 4, 9 * c + 4] for c in range(2)] for r in range(3)] == [[0, 1], [2, 3], [4, 5]]
    assert ([each.get_text() for each in panel.get_yticklabels()] == ["a", "b", "c"]
            and panel.get_yticks().tolist() == [3.5, 12.5, 21.5])


def test_the_power_of_all_frequencies_is_the_variance_and_a_checkerboard_is_one_of_them():
    x = torch.randint(256, (5, 3, 8, 6), generator=torch.Generator().manual_seed(0))
    P = spectrum.power(x, 256)
    v = x.double() / 255
    torch.testing.assert_close(P.sum(), v.var((2, 3), correction=0).mean(), rtol=1e-12, atol=0)
    i, j = torch.arange(8)[:, None], torch.arange(6)
    waves = {"rows": (4 + 3 * (-1) ** i + 0 * j, 1), "both": (4 + 3 * (-1) ** (i + j), 1),
             "slow": (4 + (3.5 * (2 * torch.pi * j / 6).cos()).round() + 0 * i, 0)}
    for name, (wave, share) in waves.items():
        P = spectrum.power(wave[None], 9)
        assert spectrum.checkerboard(P) == pytest.approx(share, abs=0.02), name  # the rounded wave has overtones
        frequency, mean = spectrum.radial(P)
        assert name == "both" or frequency[mean.argmax()] == (1 / 6 if name == "slow" else 1 / 2)
    noise = torch.rand(20000, 4, 4, generator=torch.Generator().manual_seed(0))
    assert spectrum.checkerboard(spectrum.power(noise, 2)) == pytest.approx(3 / 15, rel=0.01)
    assert spectrum.checkerboard(spectrum.power(torch.ones(3, 4, 4), 2)) == 0  # no power, and no share of it
    with pytest.raises(ValueError, match="at least 2x2"):
        spectrum.power(torch.zeros(3, 1, 8), 2)
