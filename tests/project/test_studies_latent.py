"""Tests of the studies of a latent space that runs share one picture of, for runs whose answer is known."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from genmini import plots
from genmini.data import Data
from genmini.models._model import Model
from genmini.studies import aggregate, continuity

pytestmark = pytest.mark.usefixtures("folder_of_its_own")


class Pixels:
    """A run whose codes are two pixels of images of 3 x 4, twice as far apart in test as in train, and decoded to
    themselves and to zeros. A class is the sign of the first pixel's place around the middle."""

    conditional, seed, folder, device = False, 0, "runs/pixels", "cpu"

    def __init__(self, name="Pixels in runs/pixels", wrong=0, **of_model):
        self.name, self.wrong = name, wrong
        self.model = type("Pixels", (Model,), {"latent": 2, **of_model})((3, 4), 20_001)

    def split(self, split):
        noise = torch.Generator().manual_seed(len(split))
        z = torch.randn(400, 2, generator=noise) * torch.tensor([3.0, 9.0]) * (2 if split == "test" else 1)
        x = torch.zeros(400, 3, 4)
        x[:, 1, 2:] = (10_000 + 100 * z).round()
        y = (x[:, 1, 2] > 10_000).long()
        return Data("pixels", split, x.int(), y if split == "test" else (y + self.wrong) % 2, 20_001, classes=2)

    def encode(self, x, y):
        return x[:, 1, 2:].float() / 100 - 100

    def q(self, x, y):
        return self.encode(x, y), torch.full((len(x), 2), math.log(4.0))  # sigma = 2

    def decode(self, z, y):
        x = torch.zeros(len(z), 3, 4)
        x[:, 1, 2:] = 10_000 + 100 * z
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
    lengths = ((near - z).double() / torch.tensor([1.0, 10.0, 100.0])).norm(dim=1)
    # near is rounded once, near - z once more, and what is added to z six times
    within = 2**-24 * (near.abs().norm(dim=1) + 8 * lengths).max().item()
    torch.testing.assert_close(lengths, torch.full_like(lengths, 0.5 * math.sqrt(6)), rtol=0, atol=within)
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
    assert of_class[0][0] > 0.85 and of_class[1][0] < 0.15 and 0.5 < of_class[0][-1] < 0.8
    assert of_class[0] + of_class[1] == pytest.approx(np.ones(6)) and (np.diff(of_class[0]) < 0.01).all()
    assert f"right: at 1/4 of the distance of two codes an image moves by {moved.lines[0].get_ydata()[3]:.1%}" in line
    assert "right" in shown.get_title() and "wrong" in other.get_title()

    test = right.split("test")
    cells = torch.tensor(shown.images[0].get_array().filled(0)).unfold(0, 3, 4).unfold(1, 4, 5)  # (6, 8, 3, 4)
    assert cells.shape == (6, 8, 3, 4) and [each.get_text() for each in shown.get_yticklabels()][4] == "1/2"
    assert torch.equal(cells[0], test.x[:1].float().expand(8, 3, 4))
    z, sigma = right.encode(test.x, None)[:200], right.encode(test.x[:200], None).std(0)
    lengths = ((cells[:, :, 1, 2:] / 100 - 100 - z[0]) / sigma).norm(dim=2)
    # pixels are rounded, and z is a hundredth of them; four times, here and there
    within = 4 * 2**-24 * (cells.max() / 100 / sigma.min()).item()
    torch.testing.assert_close(lengths, 2 * torch.tensor(continuity.RADII)[:, None].expand(6, 8), rtol=0, atol=within)


def test_images_without_classes_are_measured_by_their_distance_alone(figures, monkeypatch):
    split = Pixels.split
    monkeypatch.setattr(Pixels, "split", lambda self, name: dataclasses.replace(split(self, name), classes=0))
    assert "class" not in continuity.study([Pixels()], "x.png") and not figures[0].axes[2].get_visible()


def test_draws_far_from_all_codes_lie_in_holes():
    """Codes are a ring: its middle is a hole. Where codes and draws are of one distribution, a twentieth is."""
    noise = torch.Generator().manual_seed(0)
    ring = lambda n: torch.nn.functional.normalize(torch.randn(n, 2, generator=noise)) * 2
    some = torch.tensor([[0.0, 0.0], [0.5, 0.5], [2.0, 0.0], [9.0, 9.0]])
    assert aggregate.holes(ring(500), ring(500), some).tolist() == [True, True, False, True]
    same = [torch.randn(2000, 3, generator=noise) for _ in range(3)]
    # the share of 2000 draws, beyond a quantile of 2000: 2.2 standard errors, 3 seeds in a hundred
    error = (2 * 0.05 * 0.95 / 2000) ** 0.5
    assert aggregate.holes(*same).double().mean().item() == pytest.approx(0.05, abs=2.2 * error)


def test_the_divergence_of_draws_is_that_of_their_densities():
    """KL(N(a, s^2 I) || N(0, I)) = d/2 (s^2 + a^2 - 1 - log s^2), and not that of N(0, I) to N(a, s^2 I)."""
    noise = torch.Generator().manual_seed(0)
    for d, a, s in ((2, 1.0, 1.0), (2, 0.0, 0.5), (3, 0.0, 1.0)):
        z, draws = (torch.randn(3000, d, generator=noise, dtype=torch.float64) for _ in range(2))
        value, error = aggregate.divergence(a + s * z, draws)
        assert value == pytest.approx(d / 2 * (s**2 + a**2 - 1 - math.log(s**2)), abs=3 * error) and 0 < error < 0.05


def test_what_z_tells_and_how_far_the_sum_is_from_the_prior_are_the_mean_kl():
    noise, N = torch.Generator().manual_seed(0), 500
    mu, log_var = torch.full((N, 2), 0.5, dtype=torch.float64), torch.zeros(N, 2, dtype=torch.float64)
    told, apart = aggregate.parts(mu, log_var, noise)  # all alike: z tells nothing
    assert told[0] == pytest.approx(0, abs=1e-9) and apart[0] == pytest.approx(0.25, abs=3 * apart[1])
    far = 100 * torch.arange(N, dtype=torch.float64)[:, None].expand(N, 2)
    assert aggregate.parts(far, log_var, noise)[0][0] == pytest.approx(math.log(N))  # z tells which one
    mu, log_var = torch.randn(N, 2, generator=noise).double(), torch.randn(N, 2, generator=noise).double() - 1
    told, apart = aggregate.parts(mu, log_var, noise)
    kl = ((mu.square() + log_var.exp() - 1 - log_var) / 2).sum(1).mean().item()
    assert told[0] + apart[0] == pytest.approx(kl, abs=3 * math.hypot(told[1], apart[1]))
    assert told[0] > 0.5 and apart[0] > 0.1


@pytest.mark.parametrize("of_model", [{}, dict(q=True), dict(q=True, elbo=True, has_normal_prior=True)])
def test_the_codes_stand_in_coordinates_of_the_prior_and_its_draws_are_decoded(figures, of_model):
    """Codes have the deviations 3 and 9, and of a q 2 more: to N(0, I) they are far, to their Gaussian they are not."""
    run = Pixels(**of_model)
    line = aggregate.study([run, Pixels("again")], "x.png")
    codes, draws, among, inside = figures[0].axes[:4]
    z, y = run.encode(run.split("train").x, None), run.split("train").y
    shown, prior = torch.tensor(codes.collections[0].get_offsets()), run.model.has_normal_prior
    wide = (z.var(0) + (4 if of_model else 0)).sqrt()
    assert torch.equal(torch.tensor(codes.collections[0].get_array()), y)
    for name in codes.texts:  # the number of a class stands in the middle of its codes
        assert name.get_position() == pytest.approx(shown[y == int(name.get_text())].median(0).values.tolist())
    assert [name.get_text() for name in codes.texts] == ["0", "1"]
    error = 3 / (2 * len(z)) ** 0.5  # three standard errors of a deviation
    torch.testing.assert_close(shown.std(0), (wide if prior else torch.ones(2)).double(), rtol=error, atol=0)
    assert (torch.stack([*shown.T, *z.double().T]).corrcoef()[[0, 1], [2, 3]] > 0.7).all()  # an axis stays where it is
    scale = torch.ones(2) if prior else shown.new_tensor([*wide])
    centre = torch.zeros(2) if prior else z.mean(0)
    for panel, dots in zip((among, inside), draws.collections, strict=True):
        p = torch.tensor(dots.get_offsets())
        cells = torch.tensor(panel.images[0].get_array().filled(math.nan)).unfold(0, 3, 4).unfold(1, 4, 5).flatten(0, 1)
        some = min(36, len(p))
        # the Gaussian of the codes has three standard errors of their mean, and of their deviation
        within = 3 * scale / len(z) ** 0.5 + error * scale * p[:36].abs() if not prior else 2**-24 * 1e4
        assert ((cells[:some, 1, 2:] / 100 - 100 - (centre + scale * p[:36])).abs() <= within).all()
        assert cells[some:].isnan().all() and cells.shape == (36, 3, 4)
    assert [len(dots.get_offsets()) for dots in draws.collections] == [2000 - (far := holes_told(line)), far]
    assert far < 200  # the codes of test lie as those of train do
    kl = float(line.split("about ")[1].split(" ")[0])
    assert kl > 1.5 if prior else abs(kl) < 0.1
    assert ("of the sum itself" in line) == bool(of_model) and "\nagain: " in line


def holes_told(line):
    """How many of 2000 draws a line says to lie in holes"""
    return round(20 * float(line.partition(": ")[2].partition("%")[0]))
