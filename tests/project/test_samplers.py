"""Tests of the samplers with the exact denoiser of a Gaussian mixture: they return that mixture, and their errors fall
with the steps as their orders say.

In one dimension the probability flow keeps the order of the points, so it carries the quantile of x_T to the same
quantile of x_0: the exact answer for each x_T.
"""

import math

import pytest
import torch

from genmini import samplers
from genmini.guidance import guided
from genmini.samplers import DATA, SAMPLERS, ddim, ddpm, dpm, heun, lead, of, repaint
from genmini.schedule import tables

WEIGHT = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)
MEAN = torch.tensor([-0.8, 0.1, 0.9], dtype=torch.float64)
DEVIATION = torch.tensor([0.15, 0.3, 0.1], dtype=torch.float64)


def moments(t):
    """Means and deviations of the parts at the time t = (a, s)"""
    a, s = t
    return a * MEAN, (a**2 * DEVIATION**2 + s**2).sqrt()


def denoise(x, t):
    """E[x_0 | x_t], exactly"""
    a, s = t
    mean, deviation = moments(t)
    z = (x[..., None] - mean) / deviation
    share = (WEIGHT.log() - deviation.log() - z.square() / 2).softmax(-1)
    return (share * (MEAN + a * DEVIATION**2 / deviation * z)).sum(-1)


def cumulative(x, t):
    mean, deviation = moments(t)
    return (WEIGHT * torch.special.ndtr((x[..., None] - mean) / deviation)).sum(-1)


def carried(x, t, r):
    """The exact flow: from the quantile at t to that at r, by bisection"""
    p, low, high = cumulative(x, t), torch.full_like(x, -20), torch.full_like(x, 20)
    for _ in range(80):
        middle = (low + high) / 2
        below = cumulative(middle, r) < p
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def even_path(steps, first=-3.0, last=3.0):
    """Times at even distances of log(a / s), a^2 + s^2 = 1"""
    log_ratio = torch.linspace(first, last, steps + 1, dtype=torch.float64)
    return list(zip(torch.sigmoid(2 * log_ratio).sqrt().tolist(), torch.sigmoid(-2 * log_ratio).sqrt().tolist(),
                    strict=True))


def cosine_path(steps, T=1000):
    a, s = tables("cosine", T)
    t = torch.linspace(T, 0, steps + 1, dtype=torch.float64).round().long()
    return list(zip(a[t].tolist(), s[t].tolist(), strict=True))


def kolmogorov(x):
    """The largest distance between the empirical distribution of x and the mixture's"""
    p, n = cumulative(x.sort().values, DATA), len(x)
    i = torch.arange(n)
    return torch.maximum((i + 1) / n - p, p - i / n).max().item()


@pytest.mark.parametrize("sampler, order", [(ddim, 1), (dpm, 2), (heun, 2)])
def test_the_error_falls_at_the_sampler_s_order(sampler, order):
    """From 80 to 160 and to 320 steps it is divided by 2^order, within a sixth: the next term of the error."""
    x = torch.linspace(-2.5, 2.5, 101, dtype=torch.float64)
    error = []
    for steps in (80, 160, 320):
        path = even_path(steps)
        exact = carried(x, path[0], path[-1])
        error.append((sampler(of(denoise), x, path) - exact).square().mean().sqrt().item())
    for coarse, fine in zip(error, error[1:], strict=False):
        assert abs(math.log2(coarse / fine) - order) < 0.25, error


@pytest.mark.parametrize("sampler, steps", [(ddim, 250), (ddpm, 1000), (dpm, 50), (heun, 50), (dpm, 200)])
def test_samples_of_the_exact_denoiser_are_the_mixture(sampler, steps):
    """Kolmogorov and Smirnov at the level 0.001, and mean and variance within four standard errors; the step's own
    error is far below both."""
    torch.manual_seed(0)
    n = 4000
    x = sampler(of(denoise), torch.randn(n, dtype=torch.float64), cosine_path(steps))
    assert kolmogorov(x) < 1.95 / math.sqrt(n)
    mean = (WEIGHT * MEAN).sum()
    variance = (WEIGHT * (MEAN.square() + DEVIATION.square())).sum() - mean.square()
    assert abs(x.mean() - mean) < 4 * (variance / n).sqrt()
    fourth = (x - x.mean()).pow(4).mean()
    assert abs(x.var() - variance) < 4 * ((fourth - variance**2) / n).sqrt()


def test_the_solvers_of_order_2_are_nearer_for_the_same_work():
    """From noise to data along the cosine, with 80 evaluations of the denoiser each."""
    x = torch.linspace(-2.5, 2.5, 101, dtype=torch.float64)
    exact = carried(x, cosine_path(1)[0], DATA)
    error = {sampler: (sampler(of(denoise), x, cosine_path(steps)) - exact).abs().mean().item()
             for sampler, steps in ((ddim, 80), (dpm, 80), (heun, 40))}
    assert error[dpm] < error[ddim] / 4 and error[heun] < error[ddim], error


@pytest.mark.parametrize("name", SAMPLERS)
def test_with_one_value_every_sampler_ends_there(name):
    """If the data are one number c, x0 = c everywhere, and so is each sample, whatever the steps."""
    x = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for steps in (1, 2, 7):
        out = SAMPLERS[name](of(lambda x, t: torch.full_like(x, 0.3)), x, cosine_path(steps))
        assert (out - 0.3).abs().max() < 1e-12


def test_with_gaussian_data_one_step_of_noise_is_the_posterior():
    """ddpm's step draws x_r with the mean and variance of q(x_r | x_t, x_0), by Bayes' rule."""
    (a_t, s_t), (a_r, s_r) = t, r = even_path(4)[1:3]
    x_t, x_0, n = 0.7, -0.4, 100_000
    torch.manual_seed(0)
    drawn = lead(torch.full((n,), x_t, dtype=torch.float64), torch.full((n,), x_0, dtype=torch.float64), t, r, eta=1.0)
    ratio = a_t / a_r  # x_t = ratio x_r + noise of variance `added`
    added = s_t**2 - ratio**2 * s_r**2
    variance = 1 / (1 / s_r**2 + ratio**2 / added)
    mean = variance * (a_r * x_0 / s_r**2 + ratio * x_t / added)
    assert abs(drawn.mean() - mean) < 4 * math.sqrt(variance / n)
    assert abs(drawn.var() / variance - 1) < 4 * math.sqrt(2 / n)


def test_no_noise_is_drawn_but_by_ddpm():
    x = torch.randn(20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for name, sampler in SAMPLERS.items():
        torch.manual_seed(1)
        one = sampler(of(denoise), x, cosine_path(10))
        torch.manual_seed(2)
        other = sampler(of(denoise), x, cosine_path(10))
        assert torch.equal(one, other) == (name != "ddpm")
    torch.manual_seed(1)
    one = ddim(of(denoise), x, cosine_path(10), eta=1.0)
    torch.manual_seed(1)
    assert torch.equal(one, ddpm(of(denoise), x, cosine_path(10)))


def test_the_denoiser_is_asked_once_a_step_and_by_heun_twice():
    for name, sampler in SAMPLERS.items():
        calls = []
        sampler(of(lambda x, t: calls.append(t) or denoise(x, t)), torch.zeros(1, dtype=torch.float64), cosine_path(6))
        assert len(calls) == (11 if name == "heun" else 6), name
        assert all(samplers.log_ratio(t) < math.inf for t in calls), "never at the data"


# ---- completion ------------------------------------------------------------------------------------------------------

COVARIANCE = torch.tensor([[0.25, 0.2], [0.2, 0.25]], dtype=torch.float64)  # of two numbers, of mean 0


def of_two(x, t):
    """E[x_0 | x_t], exactly, of the two"""
    a, s = t
    return a * x @ torch.linalg.solve(a**2 * COVARIANCE + s**2 * torch.eye(2, dtype=torch.float64), COVARIANCE)


def completed(n, first, times, steps=100):
    """The second number of n draws, where the first is known"""
    known = torch.tensor([first, 9.0], dtype=torch.float64).expand(n, 2)  # the 9 is not known, and not looked at
    mask = torch.tensor([True, False])
    x = repaint(of(of_two), torch.randn(n, 2, dtype=torch.float64), [*even_path(steps), DATA], known, mask, times)
    assert torch.equal(x[:, 0], known[:, 0])
    return x[:, 1]


def test_a_completion_tends_to_the_exact_conditional():
    """p(x_2 | x_1) = N(0.8 x_1, 0.09). With every repetition the mean is nearer to it, and with 20 it is within 0.02,
    and the variance within a tenth, beside five standard errors; without one it is 0.19 off, of 0.48."""
    torch.manual_seed(0)
    n, mean, variance = 4000, 0.8 * 0.6, 0.25 * (1 - 0.8**2)
    deviation = math.sqrt(variance / n)
    once, some, many = (completed(n, 0.6, times) for times in (1, 5, 20))
    assert mean - once.mean() > 0.15 > 0.07 > abs(some.mean() - mean) > abs(many.mean() - mean)
    assert abs(many.mean() - mean) < 0.02 + 5 * deviation
    assert abs(many.var() / variance - 1) < 0.1 + 5 * math.sqrt(2 / n)


def test_what_is_known_of_one_number_does_not_move_an_independent_one():
    """The rest keeps its distribution, the mixture's, whatever is known and however often a step is repeated."""
    torch.manual_seed(0)
    n = 4000
    for times in (1, 4):
        x = repaint(of(denoise), torch.randn(n, 2, dtype=torch.float64), [*even_path(60), DATA],
                    torch.full((n, 2), -0.7, dtype=torch.float64), torch.tensor([True, False]), times)
        assert (x[:, 0] == -0.7).all()
        assert kolmogorov(x[:, 1]) < 1.95 / math.sqrt(n) + 0.02  # of 60 steps


def test_a_completion_asks_the_denoiser_so_many_times():
    calls = []
    repaint(of(lambda x, t: calls.append(t) or denoise(x, t)), torch.zeros(1, 2, dtype=torch.float64), cosine_path(6),
            torch.zeros(1, 2, dtype=torch.float64), torch.tensor([True, False]), times=3)
    assert len(calls) == 3 * 5 + 1, "the last step is taken once"


# ---- guidance by a classifier ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("w", [1.0, 3.0])
@pytest.mark.parametrize("sampler, steps", [(ddim, 500), (ddpm, 1000), (dpm, 100), (heun, 100)])
def test_a_gaussian_is_led_to_its_exact_conditional(sampler, steps, w):
    """x_0 ~ N(m, v I) in two dimensions, log p(y | x_0) = b x_0 + const: p_w(x_0 | y) = N(m + w v b, v I)."""
    torch.manual_seed(0)
    n, m, v = 4000, torch.tensor([0.2, -0.1], dtype=torch.float64), 0.09
    b = torch.tensor([1.5, -1.0], dtype=torch.float64)
    denoise = lambda x, t: m + t[0] * v * (x - t[0] * m) / (t[0] ** 2 * v + t[1] ** 2)
    x = sampler(guided(denoise, lambda X: X @ b, w), torch.randn(n, 2, dtype=torch.float64), cosine_path(steps))
    # four standard errors, and the steps' own error: ddim's falls as 1 / steps
    assert (x.mean(0) - (m + w * v * b)).abs().max() < 4 * math.sqrt(v / n) + 0.01
    assert (x.var(0) / v - 1).abs().max() < 4 * math.sqrt(2 / n) + 0.02
    assert not x.requires_grad


def test_guidance_of_weight_0_changes_nothing_and_a_limit_holds():
    x, path = torch.randn(50, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), cosine_path(5)
    one = lambda x, t: denoise(x[:, 0], t)[:, None]
    plain = dpm(of(one), x, path)
    torch.testing.assert_close(dpm(guided(one, lambda X: -X[:, 0] ** 2, 0.0), x, path), plain, rtol=0, atol=0)
    assert dpm(guided(one, lambda X: 100 * X[:, 0], 1.0, limit=0.5), x, path).max() == 0.5
