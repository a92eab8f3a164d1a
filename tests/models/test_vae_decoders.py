"""Tests of a VAE's losses of grey pixels: an absolute error, a cross-entropy that is no likelihood, its normaliser."""

import math

import pytest
import torch
from test_vae import vae

from genmini.models._model import Cannot


def test_a_fixed_scale_is_alpha_times_the_absolute_error():
    """-log p = alpha ||v - f||_1 + D log(2 / alpha) of a Laplace density"""
    model = vae(shape=(2, 3), levels=17, decoder="laplace", alpha=3.0)
    x, eps = torch.randint(17, (9, 2, 3)), torch.randn(9, 1, dtype=torch.float64)
    _, kl, z = model.terms(x, eps=eps)
    course = 3.0 * (x / 16 - model.decode(z) / 16).abs().sum((1, 2)) + kl
    torch.testing.assert_close(model.loss(x, eps=eps), course + 6 * math.log(2 / 3.0), atol=1e-9, rtol=1e-9)


def test_the_cross_entropy_of_grey_values_is_learnt_and_has_no_likelihood():
    """It lacks log C, which depends on z: its sum with KL bounds nothing, and is not called a bound."""
    cross, proper = (vae(shape=(2, 3), levels=17, decoder=name) for name in ("cross-entropy", "continuous-bernoulli"))
    x, eps = torch.randint(17, (9, 2, 3)), torch.randn(9, 1, dtype=torch.float64)
    _, kl, z = cross.terms(x, eps=eps)
    f, v = cross.decode(z) / 16, x / 16
    practical = -(v * f.log() + (1 - v) * (1 - f).log()).sum((1, 2)) + kl
    torch.testing.assert_close(cross.loss(x, eps=eps), practical)
    log_C = torch.log(2 * torch.atanh(1 - 2 * f) / (1 - 2 * f)).sum((1, 2))
    torch.testing.assert_close(proper.loss(x, eps=eps), practical - log_C)
    assert log_C.std() > 0.01
    figures = cross.figures(x, k=5)
    assert [*figures] == ["cross-entropy + KL", "cross-entropy", "KL"] and cross.unit == "cross-entropy"
    torch.testing.assert_close(figures["cross-entropy + KL"], figures["cross-entropy"] + figures["KL"])
    for method in (cross.log_prob, cross.elbo, lambda x: cross.iwae(x, k=3)):
        with pytest.raises(Cannot, match="the cross-entropy of grey values is no -log p"):
            method(x)
    assert proper.log_prob(x).isfinite().all() and proper.unit == "nats of a density of v"
