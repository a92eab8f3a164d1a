"""Tests of FVSBN: it is a probability and a logistic regression on the pixels before; its sampler draws from it; it
learns."""

import math

import pytest
import torch
from check_models import differentiable, follows, probability, space

from genmini import data
from genmini.models.fvsbn import FVSBN
from genmini.train import evaluate, fit

MODELS = {
    "two levels": dict(),
    "random order": dict(order="random"),
    "three levels": dict(levels=3),
    "four levels, given order": dict(levels=4, order=[4, 0, 2, 1, 3]),
}
each = pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)


def fvsbn(shape=5, seed=3, scale=1.5, **settings):
    torch.manual_seed(seed)
    model = FVSBN(shape, **settings).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(scale * torch.randn_like(p))
    return model.eval()


@each
def test_probabilities_sum_to_one(settings):
    probability(fvsbn(**settings))


def test_it_is_the_equation():
    """p(x_d = 1 | x_<d) = sigma(alpha_d0 + sum_{i<d} alpha_di x_i), summed one by one."""
    model = fvsbn()
    alpha, bias = model.alpha.weight, model.alpha.bias
    for x in space(model)[[0, 3, 21, 31]].tolist():
        log_p = 0.0
        for d in range(5):
            a = bias[d] + sum(alpha[d, i] * x[i] for i in range(d))
            log_p += math.log(1 / (1 + math.exp(-a if x[d] else a)))
        assert model.log_prob(torch.tensor([x])).item() == pytest.approx(log_p, abs=1e-12)


def test_the_jacobian_is_strictly_triangular_in_the_order():
    model = fvsbn(order="random")
    x = torch.randint(2, (1, 5), dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: model.logits(x)[0], x)[:, 0]  # [predicted, looked at]
    assert torch.equal(jacobian[model.order][:, model.order] != 0, torch.ones(5, 5).tril(-1).bool())


@each
def test_samples_follow_log_prob(settings):
    follows(fvsbn(3, **{**settings, "order": [2, 0, 1]}))


@each
def test_the_same_noise_gives_the_naive_sample(settings):
    """The walk that adds columns as pixels become known draws what a whole forward pass a pixel draws."""
    model, u = fvsbn(**settings), torch.rand(50, 5, dtype=torch.float64)
    x = torch.zeros(50, 5, dtype=torch.uint8)
    for d, pixel in enumerate(model.order.tolist()):
        l = model.logits(x)[:, pixel]
        below = torch.sigmoid(-l)[:, None] if model.levels == 2 else l.softmax(1).cumsum(1)[:, :-1]
        x[:, pixel] = (u[:, d, None] >= below).sum(1)
    assert torch.equal(model.sample(50, u=u), x)
    assert torch.equal(model.sample(50, u=u, x=x, known=3), x)
    others = x.clone()
    others[:, model.order[3:]] = 0
    assert torch.equal(model.sample(50, u=u, x=others, known=3), x), "what is not known is not looked at"


@each
def test_gradcheck(settings):
    model = fvsbn(4, **{**settings, "order": "natural"})
    x = torch.randint(model.levels, (3, 4))
    differentiable(model, x)


def test_images_and_dtypes():
    model = FVSBN((2, 3))
    x = torch.randint(2, (7, 2, 3))
    even = torch.full((7,), -6 * math.log(2))  # six log 2, each rounded twice, and their sum five times
    torch.testing.assert_close(model.log_prob(x), even, rtol=8 * 2**-24, atol=0)
    assert torch.equal(model.log_prob(x), model.log_prob(x.float().flatten(1)))
    assert model.sample(2).shape == (2, 2, 3) and model.log_prob(x[:0]).shape == (0,)


@pytest.mark.parametrize("wrong", [dict(order="backwards"), dict(order=[0, 1, 1]), dict(levels=1)])
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FVSBN(3, **wrong)


def test_it_learns_the_digits():
    torch.manual_seed(0)
    train, valid, test = (data.load("digits-threshold", split) for split in data.SPLITS)
    model = FVSBN(train.shape)
    before, _ = evaluate(model, test)
    history = fit(model, train, valid, steps=600, rate=5e-3, progress=False)
    after, error = evaluate(model, test)
    assert before == pytest.approx(64 * math.log(2), rel=(64 + 3) * 2**-24) and 0 < error < 1
    assert after < 22 and history.valid < 22  # independent pixels: above 24
