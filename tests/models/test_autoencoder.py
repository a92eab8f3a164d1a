"""Tests of the autoencoder: the linear one is PCA; its Gaussian is that of its codes; it learns."""

import pytest
import torch

from genmini import data
from genmini.models.autoencoder import Autoencoder
from genmini.train import evaluate, fit


def levels(N, D, seed=0):
    """Levels 0 ... 16 with a spectrum that falls."""
    noise = torch.Generator().manual_seed(seed)
    mixed = (torch.randn(N, D, generator=noise) * 0.6 ** torch.arange(D)
             @ torch.linalg.qr(torch.randn(D, D, generator=noise))[0])
    return (8 + 5 * mixed).round().clamp(0, 16).to(torch.uint8)


def pca(x, d):
    v = x.double() / 16
    _, s, axes = torch.linalg.svd(v - v.mean(0), full_matrices=False)
    return v, axes[:d], s[d:].square().sum().item() / len(x)  # the squared error of an example


def test_the_linear_one_learns_the_principal_subspace():
    """From random weights, full batch, float64: the error of PCA, which no rank d beats, and its subspace."""
    x, d = levels(100, 6), 2
    v, axes, least = pca(x, d)
    model = Autoencoder(6, levels=17, latent=d, body="linear", dtype=torch.float64)
    how = dict(max_iter=400, max_eval=2000, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe")
    optimiser = torch.optim.LBFGS(model.parameters(), lr=1, **how)

    def closure():
        optimiser.zero_grad()
        loss = model.loss(x).mean()
        loss.backward()
        return loss

    assert model.loss(x).mean() > 2 * least
    optimiser.step(closure)
    loss = model.loss(x).mean().item()
    rounding = 2 * v.numel() * 2**-53 * v.square().sum(1).mean().item()  # of the two sums of squares
    assert least - rounding <= loss <= least * (1 + 1e-12) + rounding  # 1e-12: where the optimiser's gradient ends
    # the angle a of two planes costs sin^2 a times the gap of the spectrum, and P - P' is sin a large
    excess, (_, s, _) = loss - least + rounding, torch.linalg.svd(v - v.mean(0))
    angle = (excess / (s[d - 1] ** 2 - s[d] ** 2).item() * len(x)) ** 0.5
    basis = torch.linalg.qr(model.f[0].weight.detach()).Q
    torch.testing.assert_close(basis @ basis.T, axes.T @ axes, atol=angle, rtol=0)
    # each point is off by the angle of the plane, and within it by at most the excess of all
    within = (len(x) * excess) ** 0.5 + angle * (v - v.mean(0)).norm(dim=1).max().item()
    projected = v.mean(0) + (v - v.mean(0)) @ axes.T @ axes
    torch.testing.assert_close(model.f(model.e(v))[:, 0], projected, atol=within, rtol=0)


def test_the_principal_components_are_an_optimum():
    x, d = levels(100, 8, seed=1), 3
    v, axes, least = pca(x, d)
    model = Autoencoder(8, levels=17, latent=d, body="linear", dtype=torch.float64)
    with torch.no_grad():
        model.e[1].weight.copy_(axes), model.e[1].bias.copy_(-axes @ v.mean(0))
        model.f[0].weight.copy_(axes.T), model.f[0].bias.copy_(v.mean(0))
    loss = model.loss(x).mean()
    assert loss.item() == pytest.approx(least, rel=1e-12)
    for gradient in torch.autograd.grad(loss, list(model.parameters())):
        assert gradient.abs().max() < 1e-14


def test_the_gaussian_is_that_of_the_codes():
    """m and S are the mean and the covariance of all codes, to the rounding, while no batch is forgotten yet."""
    model = Autoencoder((8, 8), levels=17, latent=3, hidden=5, dtype=torch.float64).train()
    x = data.load("digits", "train").x[:640]
    for batch in x.split(64):
        model.loss(batch)
    z = model.encode(x).detach()
    torch.testing.assert_close(model.m, z.mean(0), atol=1e-13, rtol=0)
    torch.testing.assert_close(model.S, z.T.cov(correction=0), atol=1e-13, rtol=0)
    model.eval().loss(x[:3])
    assert model.batches == 10, "what is judged is not learnt from"
    drawn = model.draw(20000)
    deviation = model.S.diagonal().sqrt()
    assert ((drawn.mean(0) - model.m) / deviation).abs().max() < 5 / 20000**0.5
    correlation = lambda S: S / deviation.outer(deviation)
    # that of a variance is root 2 / n
    assert (correlation(drawn.T.cov()) - correlation(model.S)).abs().max() < 5 * (2 / 20000) ** 0.5
    old, new = (Autoencoder(2, latent=1, dtype=torch.float64).train(),
                torch.tensor([[1, 0]], dtype=torch.uint8).expand(8, 2))
    for _ in range(1500):
        old._follow(old.encode(new).detach())
    old._follow(old.encode(new).detach() + 1)
    assert (old.m - old.encode(new)[0] - 0.01).abs() < 1e-6, "of many batches, the last hundred count"


def test_a_singular_gaussian_is_drawn_from():
    model = Autoencoder(4, latent=3, hidden=2, dtype=torch.float64)
    direction = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
    model.S.copy_(direction.outer(direction))
    z = model.draw(100)
    assert z.isfinite().all() and (z[:, 1] - 2 * z[:, 0]).abs().max() < 1e-6 and z.std() > 0.5


@pytest.mark.parametrize("body, upsample", [("linear", ""), ("mlp", ""), ("conv", "transposed"), ("conv", "nearest"),
                                            ("conv", "bilinear")])
@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (3, 8, 8)])
def test_images_go_through_every_body(body, upsample, shape):
    model = Autoencoder(shape, levels=17, latent=4, body=body, hidden=8, width=4, upsample=upsample)
    x = torch.randint(17, (5, *shape), dtype=torch.uint8)
    assert model.loss(x).shape == (5,) and model.encode(x).shape == (5, 4)
    again, drawn = model.reconstruct(x), model.sample(6)
    assert again.shape == x.shape and 0 <= again.min() <= again.max() <= 16
    assert drawn.shape == (6, *shape) and drawn.dtype == torch.uint8 and drawn.max() <= 16
    model.double()
    torch.testing.assert_close(model.loss(x[:1]), model.loss(x)[:1], rtol=1e-12, atol=0)  # examples stand apart
    model.loss(x).sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_it_learns():
    """300 steps halve the error of the mean image."""
    train, valid, _ = (data.load("digits", split) for split in data.SPLITS)
    torch.manual_seed(0)
    model = Autoencoder((8, 8), levels=17, latent=10, hidden=64)
    fit(model, train, valid, steps=300, rate=3e-3, progress=False)
    v = train.x.flatten(1).double() / 16
    mean = ((valid.x.flatten(1) / 16 - v.mean(0)) ** 2).sum(1).mean()
    assert (evaluate(model, valid)[0] < mean / 2
            and evaluate(model, valid)[0] == pytest.approx(model.figures(valid.x)["squared error"].mean().item()))


@pytest.mark.parametrize("settings, says", [
    (dict(body="deep"), "body must be 'linear', 'mlp' or 'conv', got 'deep'"),
    (dict(latent=0), "latent must be at least 1, got 0"),
    (dict(levels=None), "levels must be a whole number, 2 to 256, got None"),
    (dict(body="conv", shape=(6, 8)), "sides divisible by 4"),
    (dict(body="conv", upsample="cubic"), "upsample must be 'transposed', 'nearest' or 'bilinear', got 'cubic'"),
])
def test_mistakes_are_said(settings, says):
    with pytest.raises(ValueError, match=says):
        Autoencoder(**{"shape": (8, 8), **settings})
