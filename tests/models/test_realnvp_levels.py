"""Tests of RealNVP on images of levels: bits/dim are those of P, and the density of the noise that spreads x over its
cell is the one reported."""

import itertools
import math

import pytest
import torch
from check_models import estimate_and_error
from test_realnvp import SMALL, flow

from genmini.models.realnvp import RealNVP

# ---- levels: dequantisation and bits/dim -----------------------------------------------------------------------------


def identity(shape, levels, margin=0.1, **settings):
    """h = identity: then P(x) is a product of normal probabilities of intervals, known exactly."""
    model = RealNVP(shape, levels=levels, margin=margin, **settings).double().eval()

    def log_prob(x):
        edges = torch.arange(levels + 1, dtype=torch.float64) / levels
        p = torch.special.ndtr((margin + (1 - 2 * margin) * edges).logit()).diff()
        return p[x.long()].log().flatten(1).sum(1)

    return model, log_prob


def bounds(model, x, draws):
    """(draws, N): the bound (7), drawn that often."""
    with torch.no_grad():
        return model.log_prob(x.repeat(draws, *(1 for _ in model.shape))).view(draws, len(x))


@pytest.mark.parametrize("settings",
                         [dict(shape=(3,), levels=5), dict(shape=(3,), levels=5, coupling="spline"),
                          dict(shape=(2, 2), levels=256, width=4, blocks=1, couplings=1)])
def test_bits_are_right_to_the_constant(settings):
    """With the identity for h, P is known: p(x + u) has the mean P, and the mean bound lies a little below log P
    (Jensen)."""
    model, exact = identity(**settings)
    torch.manual_seed(0)
    x = torch.randint(settings["levels"], (20, *settings["shape"]))
    bound = bounds(model, x, 4000)
    estimate, error = estimate_and_error(bound)
    assert ((estimate - exact(x)).abs() < 5 * error).all()  # of 20: a false alarm in 80,000 seeds
    gap = (exact(x) - bound.mean(0)).mean()
    assert 0 < gap < bound.var(0).mean(), gap  # about half of the variance


def test_more_draws_are_averaged():
    model = flow(scale=0.3, shape=(3,), levels=4, hidden=(8,), dequantise="variational")
    x = torch.randint(4, (5, 3))
    torch.manual_seed(0)
    three = model.log_prob(x, draws=3)
    torch.manual_seed(0)
    torch.testing.assert_close(three, torch.stack([model.log_prob(x) for _ in range(3)]).logsumexp(0) - math.log(3))


@pytest.mark.parametrize("shape", [(3,), (2, 2)])
def test_probabilities_of_all_images_are_those_of_samples(shape):
    """The estimate of P(x), averaged over u, is unbiased: summed over all x it is the mass that h leaves in [0, L)^D,
    which (6) makes a little less than 1. That mass is counted from samples. The bounds add up to less, and so do those
    of the variational u, which bound the same P."""
    settings = dict(shape=shape, levels=3, margin=0.02, hidden=(8,), width=4, blocks=1, couplings=2)
    model, n = flow(scale=0.15, **settings, dequantise="variational"), 50_000
    torch.manual_seed(0)
    D = math.prod(shape)
    x = torch.tensor(list(itertools.product(range(3), repeat=D))).view(-1, *shape)
    with torch.no_grad():
        r, _ = model.inverse(torch.randn(n, D, dtype=torch.float64))
        v = 3 * (r.sigmoid() - 0.02) / 0.96
        inside = ((v >= 0) & (v < 3)).flatten(1).all(1)
        cell = (v[inside].floor().flatten(1).long() * 3 ** torch.arange(D - 1, -1, -1)).sum(1)
    variational, model.g = bounds(model, x, 300), None
    uniform = bounds(model, x, 1500)
    log_p, error = estimate_and_error(uniform)
    counted, p = torch.bincount(cell, minlength=3**D).double() / n, log_p.exp()
    # five standard errors: of a count, a binomial of n, and of the estimate
    within = 5 * (p * (1 - p) / n + (p * error).square()).sqrt()
    assert ((p - counted).abs() < within).all() and 0.7 < inside.double().mean() < 1
    assert (p - counted).sum().abs() < 5 * (0.25 / n + (p * error).square().sum()).sqrt()
    for bound in (uniform, variational):
        gap = log_p - bound.mean(0)
        assert (gap > -5 * (error.square() + bound.var(0) / len(bound)).sqrt()).all()
        assert gap.mean() > 0 and (bound.mean(0) < 0).all()


@pytest.mark.parametrize("shape", [(3,), (4, 4), (2, 2, 4)])
def test_the_density_of_variational_noise_is_the_one_reported(shape):
    """log q(u | x): the Jacobian of u by e has the determinant that (8) subtracts, and q integrates to 1."""
    model = flow(shape=shape, levels=4, dequantise="variational", hidden=(8,), width=4, blocks=1, couplings=2)
    x = torch.randint(4, (1, *shape))
    D = math.prod(shape)
    e = torch.randn(1, *model.inner, dtype=torch.float64)

    def u_of(e):
        with torch.no_grad() if not e.requires_grad else torch.enable_grad():
            original, torch.randn = torch.randn, lambda *a, **k: e
            try:
                return model.dequantise(x)
            finally:
                torch.randn = original

    u, log_q = u_of(e)
    assert u.shape == x.shape and (0 < u).all() and (u < 1).all()
    jacobian = torch.autograd.functional.jacobian(lambda e: u_of(e)[0], e).reshape(D, D)
    wanted = -0.5 * (e.square() + math.log(2 * math.pi)).sum() - torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(log_q[0], wanted)


def test_images_come_back_as_levels():
    model = flow(scale=0.1, shape=(4, 4), levels=17, scales=1, **SMALL)
    x = model.sample(30)
    assert x.dtype == torch.uint8 and x.shape == (30, 4, 4) and x.max() <= 16 and len(x.unique()) > 5
    assert (model.log_prob(x).shape == (30,) and model.log_prob(x).isfinite().all()
            and model.log_prob(x[:0]).shape == (0,))
    extremes = torch.stack([torch.zeros(4, 4), torch.full((4, 4), 16)])
    assert all(model.float().log_prob(extremes).isfinite().all() for _ in range(20))
    assert flow(shape=(2,), levels=1000).sample(3).dtype == torch.int64
