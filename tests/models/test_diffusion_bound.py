"""Tests of the bound of a diffusion: it is a bound, by quadrature where an image is one pixel, and its last term is a
probability of levels."""

import math

import pytest
import torch
from test_diffusion import diffusion, each_schedule
from torch.distributions import Normal, kl_divergence

from genmini.outputs import log_mass
from genmini.schedule import x0_of

# ---- the bound -------------------------------------------------------------------------------------------------------

X = torch.linspace(-8, 8, 801, dtype=torch.float64)  # a grid of x_t; every distribution here ends well inside it
WIDTH = X[1] - X[0]


def pixel(T=6, **settings):
    """A diffusion of images of one pixel with three levels"""
    return diffusion((1, 1), levels=3, T=T, multiples=(1,), attention=0, draws=1, **settings)


@torch.no_grad()
def on_grid(model, t):
    """x0 for x_t on the grid"""
    x = X.view(-1, 1, 1, 1)
    a, s = model.a[t : t + 1], model.s[t : t + 1]
    return x0_of(model.target, x, model.F(x, a, s, None), a, s, model.spread).flatten()


@torch.no_grad()
def transitions(model):
    """For t = T ... 2: q(x_t | x_0) of the three levels (3, X), and p(x_t-1 | x_t) and q(x_t-1 | x_t, x_0)"""
    a, s = model.a, model.s
    for t in range(model.T, 1, -1):
        beta = 1 - (a[t] / a[t - 1]).square()
        deviation = s[t - 1] / s[t] * beta.sqrt()
        mean = lambda x_0: (a[t - 1] * beta * x_0 + (1 - beta).sqrt() * s[t - 1].square() * X) / s[t].square()
        yield noised(model, t), Normal(mean(on_grid(model, t)), deviation), Normal(mean(V), deviation)


V = torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)  # the levels


def noised(model, t):
    return Normal(model.a[t] * V, model.s[t]).log_prob(X).exp() * WIDTH


@torch.no_grad()
def last(model):
    """log P(x | x_1), (3, X)"""
    x0, deviation = on_grid(model, 1), model.s[1] / model.a[1]
    return torch.stack([log_mass(torch.full((len(X),), level), x0, deviation, 3) for level in range(3)])


def exact_log_p(model):
    """log P(x) of the levels, (3,), by the chain p(x_T) p(x_T-1 | x_T) ... P(x | x_1) on the grid"""
    density = Normal(0, 1).log_prob(X).exp()
    for _, p, _ in transitions(model):
        density = p.log_prob(X[:, None]).exp() @ density * WIDTH
    return (last(model).exp() @ density * WIDTH).log()


def exact_bound(model):
    """(6) of the levels, (3,), by its definition: KL divergences of Gaussians, averaged over q(x_t | x_0)"""
    v, T = V[:, 0], model.T
    bound = -kl_divergence(Normal(model.a[T] * v, model.s[T]), Normal(torch.zeros(3).double(), 1.0))
    for noise, p, q in transitions(model):
        bound = bound - (noise * kl_divergence(q, p)).sum(1)
    return bound + (noised(model, 1) * last(model)).sum(1)


@pytest.mark.parametrize("target", ["x0", "v"])  # an untrained eps leads x0 out of the grid
@each_schedule
def test_the_bound_is_a_bound(target, schedule):
    """P(x) sums to one; the bound lies below log P(x), clearly; and `log_prob` has it as its mean, with every t in each
    estimate or with two of them."""
    model, n = pixel(target=target, schedule=schedule), 1500
    log_p, bound = exact_log_p(model), exact_bound(model)
    assert abs(log_p.exp().sum().item() - 1) < 1e-8
    assert (bound < log_p).all() and (log_p - bound).max() > 0.05, "the test wants a bound that is not tight"
    x = torch.arange(3).view(3, 1, 1).repeat(n, 1, 1)
    torch.manual_seed(0)
    for k in (100, 2):
        with torch.no_grad():
            drawn = model.log_prob(x, k=k).view(n, 3)
        assert ((drawn.mean(0) - bound).abs() < 5 * drawn.std(0) / math.sqrt(n)).all(), k


def test_the_parts_of_the_bound_are_its_figures_and_the_loss_estimates_it():
    model, n = pixel(loss="bound"), 3000
    x = torch.arange(3).view(3, 1, 1)
    torch.manual_seed(0)
    with torch.no_grad():
        figures = model.figures(x, k=3)
        torch.manual_seed(0)
        assert torch.equal(figures["elbo"], model.log_prob(x, k=3)) and model.unit == "nats"
        torch.testing.assert_close(figures["elbo"], -figures["reconstruction"] - figures["kl"])
        assert (figures["kl-prior"] > 0).all() and (figures["kl"] > figures["kl-prior"]).all()
        loss = model.train().loss(x.repeat(n, 1, 1)).view(n, 3)
    bound = exact_bound(model.eval())
    assert ((loss.mean(0) + bound).abs() < 5 * loss.std(0) / math.sqrt(n)).all()


class Exact(torch.nn.Module):
    """E[x_0 | x_t] of pixels that are -1, 0, 1 with the probabilities p: the best denoiser that there is"""

    p = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)

    def forward(self, x, log_snr, y):
        a, s = (torch.sigmoid(sign * log_snr).sqrt().view(-1, 1, 1, 1, 1) for sign in (1, -1))
        v = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
        return ((self.p.log() - ((x[..., None] - a * v) / s).square() / 2).softmax(-1) * v).sum(-1)


def test_with_the_best_denoiser_the_bound_nears_the_entropy():
    """The mean of the bound is below that of log p by a gap that more times T make smaller, and never 0."""
    gap = []
    for T in (8, 32, 128):
        model = pixel(T, target="x0")
        model.net = Exact()
        gap.append((Exact.p * (Exact.p.log() - exact_bound(model))).sum().item())
    assert gap[0] > 3 * gap[1] > 9 * gap[2] > 0, gap


def test_the_last_term_is_a_probability_of_levels():
    """Over the levels it sums to one, also where x0 is far off; and it is the integral of the Gaussian."""
    model = pixel()
    deviation = model.s[1] / model.a[1]
    x0 = torch.tensor([-30.0, -1.2, -0.5, 0.01, 0.7, 1.0, 2.0], dtype=torch.float64)
    log_p = torch.stack([log_mass(torch.full((7,), level), x0, deviation, 3) for level in range(3)])
    assert log_p.isfinite().all() and (log_p.exp().sum(0) - 1).abs().max() < 1e-12
    normal = Normal(x0, deviation)
    middle = normal.cdf(torch.tensor(0.5)) - normal.cdf(torch.tensor(-0.5))
    torch.testing.assert_close(log_p[1, 1:].exp(), middle[1:], atol=1e-14, rtol=1e-9)


def test_levels_that_a_byte_holds_are_not_doubled_in_it():
    """Images come in uint8, where 2 * 200 is 144."""
    x, x0 = torch.full((1, 16), 200, dtype=torch.uint8), torch.full((1, 16), 2 * 200 / 255 - 1).double()
    byte = log_mass(x, x0, 0.01, 256)
    assert torch.equal(byte, log_mass(x.long(), x0, 0.01, 256)) and (byte > -2).all()
