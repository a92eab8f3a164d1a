"""Tests of the toys: the densities of the plane integrate to 1, the points are drawn from them, and the data stay the
same."""

import hashlib
import math

import numpy as np
import pytest
import scipy.integrate
import torch

from genmini import data
from genmini.data import series, toys

each = pytest.mark.parametrize("name", toys.TOYS)


def midpoints(n, reach=3.2):
    """The centres of n^2 squares that fill [-reach, reach]^2, (n^2, 2), and the area of one."""
    side = (torch.arange(n, dtype=torch.float64) + 0.5) * (2 * reach / n) - reach
    return torch.stack(torch.meshgrid(side, side, indexing="xy"), -1).flatten(0, 1), (2 * reach / n) ** 2


@each
def test_the_density_integrates_to_one(name):
    """The density, and that of each class, integrates to 1. The midpoint rule is exact to ten digits where squares are
    at most half as wide as the blur, or fit."""
    toy = toys.TOYS[name]
    x, area = midpoints(160)
    assert toy.log_prob(x).exp().sum().item() * area == pytest.approx(1, abs=1e-10)
    for k in range(toy.K):
        assert toy.log_prob(x, torch.full((len(x),), k)).exp().sum().item() * area == pytest.approx(1, abs=1e-10)


@each
def test_points_follow_the_density(name):
    """The counts in squares of the plane pass a chi-square test of the density, in each split, and class by class."""
    toy, n, fine = toys.TOYS[name], 16, 10
    x, area = midpoints(n * fine)
    cell = lambda x: (((x.double() + 3.2) / 6.4 * n).long() * torch.tensor([1, n])).sum(1)
    for k in (None, toy.K - 1):
        p = toy.log_prob(x, None if k is None else torch.full((len(x),), k)).exp() * area
        p = torch.zeros(n * n, dtype=torch.float64).index_add_(0, cell(x), p)
        for split in data.SPLITS:
            some = data.load(name, split)
            mine = some.x if k is None else some.x[some.y == k]
            seen, wanted = torch.bincount(cell(mine), minlength=n * n).double(), p * len(mine)
            often = wanted >= 5
            chi2, cells = ((seen - wanted).square() / wanted)[often].sum().item(), often.sum().item()
            assert cells > 3 and seen[~often].sum() < 0.02 * len(mine) + 10
            assert chi2 < cells + 5 * math.sqrt(2 * cells), (split, k, chi2, cells)


@each
def test_the_mean_log_density_of_the_points_is_minus_the_entropy(name):
    toy, test = toys.TOYS[name], data.load(name, "test")
    x, area = midpoints(160)
    p = toy.log_prob(x)
    entropy = -(p.exp() * p.clamp_min(-700)).sum().item() * area
    values = toy.log_prob(test.x)
    assert abs(-values.mean().item() - entropy) < 4 * values.std().item() / math.sqrt(len(values)) + 1e-9
    if name == "checkerboard":
        assert entropy == pytest.approx(math.log(8), abs=1e-12)


def normal(x, centre, sigma):
    return math.exp(-((x[0] - centre[0]) ** 2 + (x[1] - centre[1]) ** 2) / (2 * sigma**2)) / (2 * math.pi * sigma**2)


def test_rings_are_the_integral_that_their_closed_form_stands_for():
    x = torch.tensor([[0.6, 0.0], [0.3, -1.1], [1.3, 1.5], [0.0, 0.0]], dtype=torch.float64)
    for k, r in enumerate((0.6, 1.2, 1.8)):
        density = lambda a, x, r=r: normal(x, (r * math.cos(a), r * math.sin(a)), 0.08) / (2 * math.pi)
        for row in x.tolist():
            peak = math.atan2(row[1], row[0])
            wanted = scipy.integrate.quad(density, peak - math.pi, peak + math.pi, (row,), points=[peak], epsabs=0,
                                          epsrel=1e-11)[0]
            got = toys.TOYS["rings"].log_given(torch.tensor([row], dtype=torch.float64), k).exp().item()
            assert got == pytest.approx(wanted, rel=1e-8)


@pytest.mark.parametrize("name", ["moons", "spirals"])
def test_quadrature_has_enough_nodes(name):
    """Against adaptive integration, near the curve and far from it."""
    toy = toys.TOYS[name]
    end, sigma = (math.pi, 0.1) if name == "moons" else (3 * math.pi, 0.08)
    law = (lambda a: 1 / math.pi) if name == "moons" else (lambda a: 2 * a / end**2)

    def curve(a):
        if name == "moons":
            return math.cos(a) - 0.5, math.sin(a) - 0.25
        return 2 / end * a * math.cos(a), 2 / end * a * math.sin(a)

    for row in ([0.5, 0.0], [-0.4, 0.7], [0.1, -0.1], [1.9, 0.3], [-2.0, 0.05], [-1.4, -0.3]):
        parts = np.linspace(0, end, 60)
        integrand = lambda a, row=row: law(a) * normal(row, curve(a), sigma)
        wanted = sum(scipy.integrate.quad(integrand, a, b, epsabs=0, epsrel=1e-12)[0]
                     for a, b in zip(parts[:-1], parts[1:], strict=True))
        got = toy.log_given(torch.tensor([row], dtype=torch.float64), 0).exp().item()
        assert got == pytest.approx(wanted, rel=1e-8), row


@each
def test_splits_are_fixed_and_share_nothing(name):
    splits = {split: data.load(name, split) for split in data.SPLITS}
    for split, some in splits.items():
        assert (some.x.shape == (toys.SIZES[split], 2) and some.x.dtype == torch.float32 and some.levels is None
                and some.shape == (2,))
        assert some.y.unique().tolist() == list(range(toys.TOYS[name].K))
        assert torch.equal(some.x, data.load(name, split).x) and torch.equal(some.y, data.load(name, split).y)
    rows = torch.cat([some.x for some in splits.values()])
    # float32 may repeat a point by chance, a split may not repeat another
    assert len(rows.unique(dim=0)) > len(rows) - 3
    draws = [toys.read(other, "test")[0] for other in toys.TOYS]
    assert len({hashlib.sha256(x.tobytes()).hexdigest() for x in draws}) == len(toys.TOYS)


def test_a_point_off_the_checkerboard_is_impossible():
    toy = toys.TOYS["checkerboard"]
    assert toy.log_prob(torch.tensor([[-1.5, -0.5], [0.5, 2.5]])).tolist() == [-math.inf, -math.inf]
    assert toy.log_prob(torch.tensor([[-1.5, -1.5]])).item() == pytest.approx(-math.log(8))
    assert toy.log_prob(torch.empty(0, 2)).shape == (0,)


def test_the_series_is_the_published_one():
    """The years are in order and split in the order of time; minima and maxima of the solar cycle stand where astronomy
    has them."""
    splits = [series.read(split) for split in data.SPLITS]
    assert [(len(x), year) for x, year in splits] == [(220, 1700), (35, 1920), (54, 1955)]
    x = np.concatenate([x for x, _ in splits])
    at = lambda year: x[year - 1700]
    assert at(1957) == x.max() == 190.2 and at(1816) == 45.8 and at(1913) == 1.4 and x.min() == 0
    some = data.load("series", "valid")
    assert (some.x.shape == (1, 35) and some.x.dtype == torch.float64 and some.y.tolist() == [1920]
            and some.levels is None)
