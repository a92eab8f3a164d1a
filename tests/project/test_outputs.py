"""genmini/outputs.py: probabilities sum to one, mean and draw agree with log_p, gradients and extremes are exact."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from genmini import outputs
from genmini.densities import Continuous, Gaussian, Laplace
from genmini.outputs import Bits, Levels, Mixture

KINDS = {
    "bits": lambda: Bits(),
    "two levels": lambda: Levels(2),
    "levels": lambda: Levels(5),
    "mixture of one": lambda: Mixture(4, 1),
    "mixture of two levels": lambda: Mixture(2, 3),
    "mixture": lambda: Mixture(7, 3),
    "gaussian": lambda: Gaussian(6, alpha=4.0),
    "gaussian, shared": lambda: Gaussian(6, variance="shared"),
    "gaussian, pixel": lambda: Gaussian(6, variance="pixel"),
    "laplace": lambda: Laplace(6, alpha=4.0),
    "laplace, shared": lambda: Laplace(6, variance="shared"),
    "laplace, pixel": lambda: Laplace(6, variance="pixel"),
    "continuous": lambda: Continuous(6),
}
DISCRETE = [name for name in KINDS if KINDS[name]().unit == "nats"]
each = pytest.mark.parametrize("name", KINDS)
each_discrete = pytest.mark.parametrize("name", DISCRETE)


def numbers(p, *shape, scale=1.5, seed=0, dtype=torch.float64):
    """a (N, rows, ...) for x of `shape` (N, ...)."""
    noise = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(shape[0], p.rows, *shape[1:], generator=noise, dtype=torch.float64)).to(dtype)


def log_p_of_levels(p, a):
    """log p(x = l) for every l, (N, ..., L)."""
    shape = a[:, 0].shape
    return torch.stack([p.log_p(a, torch.full(shape, l, dtype=torch.uint8)) for l in range(p.levels)], -1)


@each_discrete
def test_probabilities_sum_to_one_and_cumulative_adds_them(name):
    p = KINDS[name]()
    a = numbers(p, 40, 2, 3)
    probability = log_p_of_levels(p, a).exp()
    assert (probability.sum(-1) - 1).abs().max() < 1e-14
    torch.testing.assert_close(p.cumulative(a), probability.cumsum(-1)[..., :-1], atol=1e-14, rtol=0)


@each_discrete
def test_the_mean_is_that_of_the_probabilities(name):
    p = KINDS[name]()
    a = numbers(p, 40, 2, 3)
    wanted = (log_p_of_levels(p, a).exp() * torch.arange(p.levels)).sum(-1)
    torch.testing.assert_close(p.mean(a), wanted, atol=1e-13, rtol=0)


def test_bits_and_levels_are_sigmoid_and_softmax():
    a, x = numbers(Bits(), 9, 4), torch.arange(36).view(9, 4) % 2
    torch.testing.assert_close(Bits().log_p(a, x), torch.where(x == 1, a[:, 0].sigmoid(), 1 - a[:, 0].sigmoid()).log())
    two = torch.cat([torch.zeros_like(a), a], 1)  # a sigmoid is the softmax of the logits 0 and a
    torch.testing.assert_close(Levels(2).log_p(two, x), Bits().log_p(a, x))
    torch.testing.assert_close(Levels(2).cumulative(two), Bits().cumulative(a))
    a, x = numbers(Levels(5), 9, 4), torch.arange(36).view(9, 4) % 5
    e = a.exp()
    torch.testing.assert_close(Levels(5).log_p(a, x), (e.gather(1, x[:, None])[:, 0] / e.sum(1)).log())


def test_a_mixture_is_a_difference_of_logistics():
    p = Mixture(6, 3)
    a = numbers(p, 30, 2)
    log_pi, mu, log_s = a.movedim(1, -1).unflatten(-1, (3, 3)).unbind(-2)  # (N, 2, K)
    for l in range(6):
        upper = ((2 * l + 1) / 5 - 1 - mu) / log_s.exp()
        b = upper.sigmoid() if l < 5 else 1
        c = (upper - 2 / 5 / log_s.exp()).sigmoid() if l > 0 else 0
        wanted = (log_pi.softmax(-1) * (b - c)).sum(-1).log()
        torch.testing.assert_close(p.log_p(a, torch.full((30, 2), l)), wanted)


@each
def test_draw_inverts_the_cumulative_distribution(name):
    """Level l is drawn for u just inside both ends of [p(x < l), p(x <= l)) and in its middle; u = 0 and 1 - 2^-53 give
    levels too."""
    p = KINDS[name]().double()
    a = numbers(p, 30, 2)
    edges = F.pad(F.pad(p.cumulative(a), (1, 0)), (0, 1), value=1.0)  # 0, p(x <= 0), ..., 1
    for l in range(p.levels):
        low, high = edges[..., l], edges[..., l + 1]
        wide = high - low > 1e-9
        assert wide.any()
        for share in (1e-3, 0.5, 1 - 1e-3):
            x = p.draw(a, low + share * (high - low))
            assert x.dtype == torch.uint8 and (x == l)[wide].all()
    assert (p.draw(a, torch.zeros(30, 2).double()) == 0).all()
    assert (p.draw(a, torch.full((30, 2), 1 - 2**-53).double()) <= p.levels - 1).all()


@each
def test_draw_is_monotone_in_u(name):
    p = KINDS[name]()
    a = numbers(p, 1, 2, dtype=torch.float32).expand(1001, -1, -1)
    u = torch.linspace(0, 1 - 2**-24, 1001)[:, None].expand(-1, 2)
    x = p.draw(a, u).long()
    assert (x.diff(dim=0) >= 0).all() and x.min() >= 0 and x.max() <= p.levels - 1


@each
def test_draws_have_the_frequencies_of_cumulative(name):
    """u at the middles of 10,000 equal steps: the share of draws <= l is p(x <= l) within one step."""
    p, n = KINDS[name]().double(), 10_000
    a = numbers(p, 1, 3).expand(n, -1, -1)
    x = p.draw(a, ((torch.arange(n).double() + 0.5) / n)[:, None].expand(-1, 3))
    share = torch.stack([(x <= l).double().mean(0) for l in range(p.levels - 1)], -1)
    assert (share - p.cumulative(a[:1])[0]).abs().max() <= 1 / n


@each
def test_gradients_are_those_of_float64(name):
    """gradcheck in float64; the float32 gradient is off by the roundings of a chain of some 16 operations."""
    p = KINDS[name]().double()
    a = numbers(p, 8).requires_grad_()
    x = torch.arange(8) % p.levels
    assert torch.autograd.gradcheck(lambda a: p.log_p(a, x), a)
    (exact,) = torch.autograd.grad(p.log_p(a, x).sum(), a)
    single = KINDS[name]()
    b = a.detach().float().requires_grad_()
    (rounded,) = torch.autograd.grad(single.log_p(b, x).sum(), b)
    assert (rounded - exact).abs().max() <= 16 * 2**-24 * (1 + exact.abs().max())


@pytest.mark.parametrize("name, huge", [*itertools.product(["bits", "two levels", "levels"], [1e4, 1e30])])
def test_huge_logits_are_exact(name, huge):
    """The level with the huge logit costs 0 nats and is drawn, another costs the difference; gradients are finite."""
    p = KINDS[name]()
    top = p.levels - 1
    a = torch.zeros(1, p.rows, 1)
    a[:, -1] = huge
    a.requires_grad_()
    log_p = log_p_of_levels(p, a).flatten()
    assert log_p[top] == 0 and (log_p[:top] == -huge).all()
    assert torch.autograd.grad(log_p.sum(), a)[0].isfinite().all()
    assert p.mean(a).item() == top and (p.draw(a.expand(9, -1, -1), torch.linspace(0, 0.999, 9)[:, None]) == top).all()


@pytest.mark.parametrize("log_s", [-1e6, -100.0, -7.0, 30.0, 90.0, 200.0, 1e6])
@pytest.mark.parametrize("mu", [-50.0, -1.0, 0.03, 1.0, 50.0])
def test_a_mixture_of_any_scale_is_finite_and_sums_to_one(log_s, mu):
    """s from e^-7, where one level has all, to e^60, where the two ends have a half each; every gradient is finite."""
    p = Mixture(256, 1)
    a = torch.tensor([0.0, mu, log_s]).view(1, 3, 1).requires_grad_()
    log_p = log_p_of_levels(p, a)
    # what is worth counting has a log p above -20, off by 8 roundings
    assert log_p.isfinite().all() and (log_p.exp().sum() - 1).abs() < 20 * 8 * 2**-24
    assert torch.autograd.grad(log_p.sum(), a)[0].isfinite().all()
    below = p.cumulative(a)
    assert ((below >= 0) & (below <= 1)).all() and (below.diff(dim=-1) >= 0).all()
    if log_s >= 30:
        assert (log_p[..., [0, -1]] - math.log(0.5)).abs().max() < 4 * 2**-24 and (log_p[..., 1:-1] < -20).all()
    if log_s <= -7 and abs(mu) < 1:
        assert log_p.argmax() == round((mu + 1) / 2 * 255)


def test_a_mixture_keeps_its_digits_far_from_its_mean():
    """Far from mu, log p(x = l) of float32 is that of float64; a plain difference of sigmoids would give log 0."""
    p = Mixture(256, 1)
    a = torch.tensor([0.0, -1.0, -6.0]).view(1, 3, 1)
    single, double = log_p_of_levels(p, a), log_p_of_levels(p, a.double())
    assert double.min() < -700
    # (edge - mu) exp(-log s) is off by 8 roundings, near the mean by those of the two edges, below 2
    torch.testing.assert_close(single.double(), double, rtol=8 * 2**-24, atol=16 * 2**-24)


@each
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_to_float32(name, dtype):
    p = KINDS[name]()
    a, x, u = numbers(p, 6, 2, dtype=dtype), torch.arange(12).view(6, 2) % p.levels, torch.rand(6, 2)
    assert p.log_p(a, x).dtype == p.mean(a).dtype == torch.float32
    assert torch.equal(p.log_p(a, x), p.log_p(a.float(), x)) and torch.equal(p.draw(a, u), p.draw(a.float(), u))


@each
@pytest.mark.parametrize("shape", [(0,), (3,), (3, 4), (2, 3, 4), (2, 0, 4)])
def test_the_rows_are_the_dimension_that_dim_names(name, shape):
    """dim=1: a (N, rows, ...) -> (N, ...); dim=-1 and 2 give the same values of the same numbers laid out otherwise."""
    p = KINDS[name]().double()
    a, x, u = numbers(p, *shape), torch.zeros(shape, dtype=torch.uint8), torch.full(shape, 0.5)
    log_p, mean, draws = p.log_p(a, x), p.mean(a), p.draw(a, u)
    assert log_p.shape == mean.shape == draws.shape == shape and p.cumulative(a).shape == (*shape, p.levels - 1)
    for dim in (-1, 2)[: len(shape)]:
        p.dim, moved = dim, a.movedim(1, dim).contiguous()
        torch.testing.assert_close(p.log_p(moved, x), log_p, rtol=1e-13, atol=1e-14)
        torch.testing.assert_close(p.mean(moved), mean, rtol=1e-13, atol=1e-14)
        assert torch.equal(p.draw(moved, u), draws)


def test_more_than_256_levels_are_drawn_in_64_bits():
    p = Levels(300)
    a = torch.zeros(1, 300)
    a[:, 299] = 100.0
    assert p.draw(a, torch.tensor([0.5])).tolist() == [299]


def test_names_and_levels_choose_the_class():
    assert isinstance(outputs.softmax(2), Bits) and outputs.softmax(2).rows == 1
    assert isinstance(outputs.softmax(3), Levels) and outputs.softmax(3).rows == 3
    assert outputs.softmax(2, dim=-1).dim == outputs.softmax(3, dim=-1).dim == -1
