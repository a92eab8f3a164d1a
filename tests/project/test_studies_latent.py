"""Tests of the studies of a latent space that runs share one picture of, for runs whose answer is known."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from genmini import plots
from genmini.data import Data
from genmini.models._model import Model
from genmini.studies import continuity

pytestmark = pytest.mark.usefixtures("folder_of_its_own")


class Pixels:
    """A run whose codes are two pixels of images of 3 x 4, twice as far apart in test as in train, and decoded to
    themselves and to zeros. A class is the sign of the first pixel's place around the middle."""

    conditional, seed, folder, device = False, 0, "runs/pixels", "cpu"

    def __init__(self, name="Pixels in runs/pixels", wrong=0, **of_model):
        self.name, self.wrong = name, wrong
        self.model = type("Pixels", (Model,), {"latent": 2, **of_model})((3, 4), 256)

    def split(self, split):
        noise = torch.Generator().manual_seed(len(split))
        z = torch.randn(400, 2, generator=noise) * torch.tensor([3.0, 9.0]) * (2 if split == "test" else 1)
        x = torch.zeros(400, 3, 4)
        x[:, 1, 2:] = (100 + z).round()
        y = (x[:, 1, 2] > 100).long()
        return Data("pixels", split, x.to(torch.uint8), y if split == "test" else (y + self.wrong) % 2, 256, classes=2)

    def encode(self, x, y):
        return x[:, 1, 2:].float() - 100

    def decode(self, z, y):
        x = torch.zeros(len(z), 3, 4)
        x[:, 1, 2:] = 100 + z
        return x


@pytest.fixture
def figures(monkeypatch):
    """The figures of matplotlib that the studies draw, in place of files."""
    seen = []
    monkeypatch.setattr(plots, "save", lambda figure, path: seen.append(figure))
    return seen


def test_draws_around_a_code_lie_at_one_distance_in_deviations_of_the_codes():
    z, sigma = torch.randn(50, 3), torch.tensor([1.0, 10.0, 0.0])
    near = continuity.around(z, 0.5, torch.tensor([1.0, 10.0, 100.0]), torch.Generator().manual_seed(0))
    lengths = ((near - z) / torch.tensor([1.0, 10.0, 100.0])).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full((50,), 0.5 * math.sqrt(6)), rtol=1e-4, atol=0)
    assert torch.equal(continuity.around(z, 1, sigma, torch.Generator())[:, 2], z[:, 2])


def test_through_a_linear_decoder_an_image_moves_as_far_as_its_code(figures):
    """So `moved` is r, of whatever scale the codes are; the row of the distance r shows draws at r of the first test
    image. Next to their own code draws keep the class, and none does where train has the other class."""
    right, wrong = Pixels("right"), Pixels("wrong", wrong=1)
    line = continuity.study([right, wrong], "x.png")
    shown, other, moved, kept = figures[0].axes
    for curve in moved.containers:
        r, values = curve.lines[0].get_data()
        assert list(r) == list(continuity.RADII) and values == pytest.approx(r, rel=0.1)
    assert moved.containers[0].get_label() == "right" and moved.containers[1].get_label() == "wrong"
    of_class = [curve.lines[0].get_ydata() for curve in kept.containers]
    assert of_class[0][0] > 0.9 and of_class[1][0] < 0.1 and 0.5 < of_class[0][-1] < 0.9
    assert of_class[0] + of_class[1] == pytest.approx(np.ones(6)) and (np.diff(of_class[0]) < 0.01).all()
    assert f"right: at 1/4 of the distance of two codes an image moves by {moved.lines[0].get_ydata()[3]:.1%}" in line
    assert "right" in shown.get_title() and "wrong" in other.get_title()

    test = right.split("test")
    cells = torch.tensor(shown.images[0].get_array().filled(0)).unfold(0, 3, 4).unfold(1, 4, 5)  # (6, 8, 3, 4)
    assert cells.shape == (6, 8, 3, 4) and [each.get_text() for each in shown.get_yticklabels()][4] == "1/2"
    assert torch.equal(cells[0], test.x[:1].float().expand(8, 3, 4))
    z, sigma = right.encode(test.x, None)[:200], right.encode(test.x[:200], None).std(0)
    lengths = ((cells[:, :, 1, 2:] - 100 - z[0]) / sigma).norm(dim=2)
    torch.testing.assert_close(lengths, 2 * torch.tensor(continuity.RADII)[:, None].expand(6, 8), rtol=1e-3, atol=1e-3)


def test_images_without_classes_are_measured_by_their_distance_alone(figures, monkeypatch):
    split = Pixels.split
    monkeypatch.setattr(Pixels, "split", lambda self, name: dataclasses.replace(split(self, name), classes=0))
    assert "class" not in continuity.study([Pixels()], "x.png") and not figures[0].axes[2].get_visible()
