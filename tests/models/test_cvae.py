"""Tests of the conditional VAE: p(x|y) is a probability for every y; y is a class or any vector; where no y is given,
it is drawn from those of the data."""

import itertools
import math

import pytest
import torch
from torch.distributions import Normal

from genmini import checkpoint, data
from genmini.models.cvae import CVAE, KEPT
from genmini.train import fit


def cvae(shape=3, seed=1, scale=2.0, **settings):
    torch.manual_seed(seed)
    model = CVAE(shape, **{"latent": 1, "hidden": 8, "classes": 3, "dtype": torch.float64, **settings})
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale)
    return model.eval()


Z = torch.linspace(-12, 12, 6001, dtype=torch.float64)


@torch.no_grad()
def log_p(model, x, y):
    """log p(x|y) by the trapezoidal rule over z"""
    each = [model.log_p(one.expand(len(Z), *one.shape), Z[:, None], y) + Normal(0, 1).log_prob(Z) for one in x]
    return torch.stack(each).logsumexp(1) + math.log(Z[1] - Z[0])


@pytest.mark.parametrize("y", [0, 2, [0.5, 0.5, 0.0], [-1.0, 2.0, 7.0]], ids=str)
def test_given_any_y_it_is_a_probability_and_its_bounds_are_below_it(y):
    model, x = cvae(scale=1.2), torch.tensor(list(itertools.product(range(2), repeat=3)), dtype=torch.uint8)
    y = torch.tensor(y, dtype=torch.float64) if isinstance(y, list) else y
    log_p_x = log_p(model, x, y)
    assert abs(log_p_x.exp().sum().item() - 1) < 1e-10
    drawn = torch.stack([model.elbo(x, y) for _ in range(500)]).detach()
    assert (drawn.mean(0) < log_p_x + 5 * drawn.std(0) / 500**0.5).all()
    log_w = model.log_weights(x, y, k=5000).detach()
    estimate = log_w.logsumexp(0) - math.log(5000)
    error = (log_w - estimate).exp().std(0) / 5000**0.5  # of the mean of w, divided by it
    assert ((estimate - log_p_x).abs() < 5 * error).all()
    assert model.iwae(x, y, k=3).shape == (8,)


def test_a_class_is_its_one_hot_vector():
    model, x, eps = cvae(), torch.randint(2, (4, 3)), torch.randn(4, 1, dtype=torch.float64)
    y = torch.tensor([0, 2, 1, 2])
    hot = torch.eye(3, dtype=torch.float64)[y]
    assert (torch.equal(model.loss(x, y, eps=eps), model.loss(x, hot, eps=eps))
            and torch.equal(model.decode(eps, y), model.decode(eps, hot)))
    assert torch.equal(model.decode(eps, 2), model.decode(eps, torch.tensor([2, 2, 2, 2])))
    assert torch.equal(model.mixture([0, 2]), torch.tensor([0.5, 0, 0.5], dtype=torch.float64))
    assert not torch.equal(model.loss(x, y, eps=eps), model.loss(x, y.flip(0), eps=eps))
    between = model.decode(eps, model.mixture([0, 2]))
    assert not torch.equal(between, model.decode(eps, 0)) and model.sample(5, model.mixture([0, 2])).shape == (5, 3)


@pytest.mark.parametrize("body", ["mlp", "conv"])
def test_y_enters_both_halves(body):
    model = cvae((8, 8), body=body, width=2)
    x, z = torch.randint(2, (5, 8, 8)), torch.randn(5, 1, dtype=torch.float64)
    assert (model.encode(x, 0) != model.encode(x, 1)).all() and not torch.equal(model.decode(z, 0), model.decode(z, 1))
    y = torch.eye(3, dtype=torch.float64)[torch.tensor([0, 1, 2, 1, 0])].requires_grad_()
    for gradient in (torch.autograd.grad(out.sum(), y)[0] for out in (model.encode(x, y), model.decode(z, y))):
        assert (gradient.abs().amax(1) > 0).all()


def test_without_y_it_is_as_frequent_as_in_the_data():
    """In 20000 draws from 2048 kept y, each class is within 5 deviations of its share among those; vectors come back as
    they were."""
    model = CVAE(2, latent=1, hidden=2, classes=4).train()
    y = torch.multinomial(torch.tensor([0.6, 0.3, 0.1, 0.0]), 3000, replacement=True)
    for some in y.split(64):
        model.loss(torch.zeros(len(some), 2), some)
    share = torch.bincount(y[-KEPT:], minlength=4) / KEPT
    drawn, decode = [], model.f.forward
    model.f.forward = lambda z, y: drawn.append(y) or decode(z, y)
    model.eval().loss(torch.zeros(1, 2), torch.tensor([3]))
    drawn.clear()
    model.sample(20000)
    assert ((drawn[0].mean(0) - share).abs() <= 5 * (share * (1 - share) / 20000).sqrt()).all() and share[3] == 0
    model.sample(10, 1)
    assert (drawn[1] == torch.eye(4)[1]).all()
    few = CVAE(2, latent=1, hidden=2, classes=4).train()
    vectors = torch.rand(3, 4)
    few.loss(torch.zeros(3, 2), vectors)
    few.f.forward = lambda z, y: drawn.append(y) or decode(z, y)
    few.sample(200)
    assert {tuple(row) for row in drawn[2].tolist()} == {tuple(row) for row in vectors.tolist()}


def test_it_learns_what_a_class_looks_like(tmp_path):
    """After 300 steps on digits, the mean image of a class is nearest to the mean of that class in train, for 9 of 10
    classes; so it is in a loaded run."""
    train, valid, _ = (data.load("digits-threshold", split) for split in data.SPLITS)
    torch.manual_seed(0)
    model = CVAE((8, 8), latent=4, hidden=100)
    fit(model, train, valid, steps=300, rate=3e-3, run=tmp_path, progress=False)
    model = checkpoint.load(tmp_path)
    means = torch.stack([train.x[train.y == k].float().mean(0).flatten() for k in range(10)])
    drawn = torch.stack([model.sample(200, k).float().mean(0).flatten() for k in range(10)])
    assert (torch.cdist(drawn, means).argmin(1) == torch.arange(10)).sum() >= 9
    assert model.sample(20).shape == (20, 8, 8) and model.count == 300 * 64
    figures = model.figures(valid.x, valid.y, k=5)
    assert list(figures) == ["elbo", "iwae-5", "reconstruction", "kl"]


def test_mistakes_are_said():
    model, x = CVAE((2, 2), latent=1, hidden=2, classes=3), torch.zeros(4, 2, 2)
    for y, says in ((None, "y is missing: a class 0 ... 2"), (3, "classes 0 ... 2, got 3"),
                    (torch.rand(4, 2), r"vectors, \(N, 3\), got \(4, 2\)")):
        with pytest.raises(ValueError, match=says):
            model.elbo(x, y)
    with pytest.raises(ValueError, match="classes must be at least 1"):
        CVAE((2, 2), classes=0)
    assert "context" not in model.settings, "the classes are stored once"
    assert (model.settings["classes"] == 3
            and CVAE((2, 2), **{k: v for k, v in model.settings.items() if k != "shape"}).settings == model.settings)
