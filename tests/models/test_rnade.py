"""Tests of RNADE: its density integrates to one, a number depends on earlier ones alone, samples follow it, and its
logarithm is that of float64 where numbers are extreme."""

import math

import pytest
import torch
from check import drawn_from
from check_models import differentiable
from torch.distributions import Categorical, MixtureSameFamily, Normal

import genmini
from genmini import data
from genmini.data import toys
from genmini.models.rnade import LOG_S, RNADE, draw, mixture
from genmini.train import evaluate, fit

MODELS = {
    "plane": dict(shape=2),
    "one number": dict(shape=1, components=3),
    "random order, two layers": dict(shape=5, hidden=(20, 12), order="random"),
    "given order, few units": dict(shape=5, hidden=(3,), components=1, order=[4, 0, 2, 1, 3]),
    "levels": dict(shape=(2, 2), levels=5, components=2),
}
each = pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)


def rnade(seed=0, **settings):
    """Untrained, with weights large enough that its conditionals differ; float64."""
    torch.manual_seed(seed)
    model = RNADE(**dict(components=4, hidden=(8,)) | settings).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.5 * torch.randn_like(p))
    return model.eval()


def distributions(model, x):
    """p(x_d | x_<d) of every d, by PyTorch's own mixtures; x (N, D) in order"""
    a, mu, s = model.parameters_of(x).unbind(2)
    return MixtureSameFamily(Categorical(logits=a), Normal(mu, s.exp()))


def grid(low, high, n, D):
    """The middles of n^D cells, (n^D, D), and the volume of one"""
    side = low + (high - low) * (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return torch.cartesian_prod(*[side] * D).view(-1, D), ((high - low) / n) ** D


# ---- the density -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("D", [1, 2])
def test_the_density_integrates_to_one_and_samples_follow_it(D):
    model, n = rnade(shape=D, order=[*range(D)][::-1]), 20_000
    x, volume = grid(-24, 24, 800, D)
    with torch.no_grad():
        p = model.log_prob(x).exp() * volume
    assert p.sum().item() == pytest.approx(1, abs=1e-6)
    cell = lambda x: ((x + 24) * (32 / 48)).long() @ 32 ** torch.arange(D)
    wanted = torch.zeros(32**D, dtype=torch.float64).index_add_(0, cell(x), n * p)
    drawn_from(torch.bincount(cell(model.sample(n)), minlength=32**D), wanted)


@each
def test_log_prob_is_that_of_pytorchs_mixtures(settings):
    model = rnade(**settings)
    x = torch.randint(model.levels, (6, model.D)) if model.levels else torch.randn(6, model.D, dtype=torch.float64)
    torch.manual_seed(1)
    found = model.log_prob(x)
    torch.manual_seed(1)
    r, slope = x[:, model.order].double(), 0
    if model.levels:  # the cell of a level is 2 / L wide on [-1, 1]
        r, slope = -1 + (r + torch.rand(6, model.D, dtype=torch.float64)) * 2 / 5, model.D * math.log(2 / 5)
    torch.testing.assert_close(found, distributions(model, r).log_prob(r).sum(1) + slope)
    assert model.is_bound == bool(model.levels)


@each
def test_a_mixture_sees_exactly_the_numbers_before(settings):
    """Of 200 points, because a unit of ReLU does not see where it is 0."""
    model = rnade(**settings)
    x = torch.randn(200, model.D, dtype=torch.float64)
    moved = torch.stack([model.parameters_of(x + step) for step in torch.eye(model.D, dtype=torch.float64)])
    changed = (moved - model.parameters_of(x)).abs().amax((1, 3, 4)) > 1e-12  # [moved, predicted]
    few = len(model.W[0].weight) < model.D - 1  # these cannot have every degree
    assert torch.equal(changed, changed.triu(1)) and (few or changed.sum() == model.D * (model.D - 1) // 2)


def test_gradcheck():
    model = rnade(shape=3, hidden=(4, 3), components=2, order=[1, 2, 0])
    differentiable(model, torch.randn(3, 3, dtype=torch.float64))


def test_images_lie_in_cells_that_fill_the_line():
    """The mass of all cells is that of p on [-1, 1]: the mean of the bound's exponential over a grid of u is it."""
    model, n = rnade(shape=1, levels=4, components=2), 2000
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    r, _ = grid(-1, 1, 4 * n, 1)
    with torch.no_grad():
        inside = (model._log_p(r).exp() * (2 / (4 * n))).sum()
        cells = [torch.exp(model._log_p(model._on_the_line(x + u[:, None])) + math.log(2 / 4)).mean() for x in range(4)]
        torch.manual_seed(0)
        drawn = model.sample(20_000)
    torch.testing.assert_close(sum(cells), inside)
    assert 0.1 < inside < 0.99 and drawn.dtype == torch.uint8
    for x, p in list(enumerate(cells))[1:3]:  # the outer levels also get what lies beyond
        assert (drawn == x).double().mean().item() == pytest.approx(p.item(), abs=5 * math.sqrt(0.25 / 20_000))


# ---- samples ---------------------------------------------------------------------------------------------------------


@each
def test_the_walk_draws_what_passes_of_the_network_draw(settings):
    model, u = rnade(**settings), torch.rand(50, rnade(**settings).D, dtype=torch.float64)
    x = model.sample(50, u=u)
    assert x.shape == (50, *model.shape) and torch.equal(x, model.sample(50, u=u))
    torch.testing.assert_close(model.sample_naive(50, u=u), x)
    half, order = (model.D + 1) // 2, model.order
    whole = model.sample(50, u=u, x=x, known=half)
    assert torch.equal(whole.flatten(1)[:, order[:half]], x.flatten(1)[:, order[:half]])
    torch.testing.assert_close(model.sample_naive(50, u=u, x=x, known=half), whole)
    if model.levels is None:  # of levels, u says where a known number lies in its cell
        torch.testing.assert_close(whole, x)
    other = x.flatten(1).index_fill(1, order[half:], 0).view_as(x)
    assert torch.equal(model.sample(50, u=u, x=other, known=half), whole)


def test_the_distribution_functions_of_samples_are_even():
    """F(x_d | x_<d) is uniform, and its value of one d says nothing about that of another."""
    model = rnade(shape=4, order="random")
    x = model.sample(20_000)[:, model.order]
    with torch.no_grad():
        F = distributions(model, x).cdf(x)
    for d in range(4):
        drawn_from(torch.bincount((20 * F[:, d]).long(), minlength=20), torch.full((20,), 1000.0))
    pairs = (5 * F[:, 1]).long() * 5 + (5 * F[:, 3]).long()
    drawn_from(torch.bincount(pairs, minlength=25), torch.full((25,), 800.0))


def test_one_uniform_number_decides_which_gaussian_and_where():
    """Even u give x at the even quantiles of each Gaussian; u = 0 and 1 give numbers, too."""
    a = torch.tensor([[0.25, 0.75]]).log(), torch.tensor([[-50.0, 50.0]]), torch.tensor([[2.0, 0.5]]).log()
    a = torch.stack(a, 1).expand(8, 3, 2).double()
    u = (torch.arange(8, dtype=torch.float64) + 0.5) / 8
    phi = lambda u: torch.special.ndtri(torch.as_tensor(u, dtype=torch.float64))
    wanted = torch.cat([-50 + 2 * phi([0.25, 0.75]), 50 + 0.5 * phi([(i + 0.5) / 6 for i in range(6)])])
    torch.testing.assert_close(draw(a, u), wanted)
    assert draw(a[:2], torch.tensor([0.0, 1.0])).isfinite().all()


# ---- numbers that are extreme, and the beginning ---------------------------------------------------------------------


def test_no_exponent_overflows():
    """In float32, beside the same formula in float64: x far from all, Gaussians narrow and wide, logits far apart."""
    torch.manual_seed(0)
    x = torch.tensor([0.0, 1e-6, 3.0, -40.0, 1e6, -1e15])[:, None, None].expand(6, 5, 4)
    a, mu, s = torch.randn(3, 6, 5, 4, 7).unbind(0)
    scale = torch.tensor([1.0, 30, 300, 1e4, 0])[:, None, None]
    a = torch.stack([scale * a, 3 * mu, torch.tensor([-9.0, -7, 0, 60])[:, None] + 0 * s], -2).requires_grad_()
    found = mixture(a, x)
    log_pi, mu, s = a.double().log_softmax(-1)[..., 0, :], a[..., 1, :].double(), a[..., 2, :].double().clamp(*LOG_S)
    each = log_pi + Normal(mu, s.exp()).log_prob(x[..., None].double())
    # exp(-s) is off by 1 + |s| roundings, its square by twice as many; the other terms, and the sums, by two each
    square = ((x[..., None] - mu) / s.exp()).square()
    others = log_pi.abs() + a[..., 0, :].abs().amax(-1, keepdim=True) + s.abs() + each.abs() + 2
    within = 2**-24 * (each.softmax(-1) * ((3 + s.abs()) * square + 2 * others)).sum(-1)
    assert ((found.double() - each.logsumexp(-1)).abs() <= within).all()
    (gradient,) = torch.autograd.grad(found.sum(), a)
    assert found.isfinite().all() and gradient.isfinite().all()
    assert mixture(a, torch.full_like(x, math.nan)).isnan().all()
    half = mixture(a.detach()[:3, :3].bfloat16(), x[:3, :3])
    assert half.dtype == torch.float32 and half.isfinite().all()


def test_it_begins_where_the_data_lie():
    """Whatever comes before, each x_d has the mean and the variance of the data, and about their density."""
    torch.manual_seed(0)
    x = torch.randn(996, 3) * torch.tensor([0.1, 1.0, 5.0]) + torch.tensor([3.0, 0.0, -7.0])
    model = RNADE(3, components=6, order=[2, 0, 1]).double()
    model._set_by(x)
    with torch.no_grad():
        model.V.weight.zero_()
        p = distributions(model, torch.randn(1, 3, dtype=torch.float64))
    torch.testing.assert_close(p.mean, x.double().mean(0)[None, [2, 0, 1]])
    torch.testing.assert_close(p.variance, x.double().var(0, correction=0)[None, [2, 0, 1]])
    entropy = 1.5 * math.log(2 * math.pi * math.e) + math.log(0.1 * 5)
    assert entropy - 0.05 < -model.log_prob(x).mean().item() < entropy + 3 * 0.1
    model._set_by(torch.ones(6, 3))  # no deviation
    assert model.log_prob(torch.ones(6, 3)).isfinite().all()
    model._set_by(x[:4])  # fewer than Gaussians
    assert model.log_prob(x).isfinite().all()


def test_it_learns_and_is_saved(tmp_path):
    """A few steps come near the truth of two moons, on unseen points; the run is the same density."""
    train, valid = data.load("moons", "train"), data.load("moons", "valid")
    torch.manual_seed(0)
    model = RNADE.of_data(train, hidden=(32, 32))
    fit(model, train, valid, steps=400, batch=256, rate=1e-2, every=200, run=tmp_path, progress=False)
    truth = -toys.TOYS["moons"].log_prob(valid.x).mean().item()
    assert truth < evaluate(model, valid)[0] < truth + 0.08
    again = genmini.load(tmp_path)
    assert again.settings == model.settings and torch.equal(again.log_prob(valid.x), model.log_prob(valid.x))
