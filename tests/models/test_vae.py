"""Tests of the VAE, against quadrature where z is one number: its bounds are bounds, its decoders are probabilities,
and its gradient is the derivative."""

import math

import pytest
import torch
from check import drawn_from
from check_models import estimate_and_error, space
from torch.distributions import Normal, kl_divergence

from genmini import data
from genmini.models import vae as file
from genmini.models.vae import VAE
from genmini.train import fit

DECODERS = {
    "bernoulli": dict(levels=2),
    "categorical": dict(levels=3, decoder="categorical"),
    "gaussian": dict(levels=5, decoder="gaussian", alpha=3.0),
    "shared": dict(levels=5, decoder="gaussian-learned"),
    "pixel": dict(levels=5, decoder="gaussian-learned", variance="pixel"),
}
each_decoder = pytest.mark.parametrize("settings", DECODERS.values(), ids=DECODERS)


def vae(shape=3, seed=1, scale=2.0, **settings):
    """Untrained, with weights large enough that z matters and q is not p."""
    torch.manual_seed(seed)
    model = VAE(shape, **{"latent": 1, "hidden": 8, "dtype": torch.float64, **settings})
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale)
    return model.eval()


Z = torch.linspace(-12, 12, 24001, dtype=torch.float64)  # beyond it N(0, 1) and every q here are below 1e-20


@torch.no_grad()
def joint(model, x):
    """log p(x|z) p(z) on the grid, (N, Z); the trapezoidal rule integrates what decays so fast exactly, to the
    rounding"""
    log_p = torch.stack([model.log_p(one.expand(len(Z), *one.shape), Z[:, None]) for one in x])
    return log_p + Normal(0, 1).log_prob(Z)


def integral(log_f):
    return (log_f.logsumexp(1) + math.log(Z[1] - Z[0])).detach()


# ---- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [dict(), dict(levels=3, decoder="categorical"),
                                      dict(levels=4, decoder="gaussian-learned")], ids=str)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_elbo_is_below_log_p_by_the_divergence_from_the_posterior(settings, seed):
    """log p(x) - ELBO = KL(q(z|x) || p(z|x)) >= 0, all three by quadrature over z; the draws of `elbo` have that
    mean."""
    model = vae(seed=seed, **settings)
    x = space(model)
    log_joint, (mu, log_var) = joint(model, x), model.q(x)
    log_p = integral(log_joint)
    if model.unit == "nats":
        assert abs(log_p.exp().sum().item() - 1) < 1e-10
    log_q = Normal(mu, (log_var / 2).exp()).log_prob(Z).detach()
    mean_under_q = lambda f: (log_q.exp() * f).sum(1) * (Z[1] - Z[0])
    elbo = mean_under_q(log_joint - log_q)
    divergence = mean_under_q(log_q - (log_joint - log_p[:, None]))
    torch.testing.assert_close(log_p - elbo, divergence, atol=1e-8, rtol=1e-8)
    assert divergence.min() > 0 and divergence.max() > 0.05, "the test wants a bound that is not tight"
    n = 4000
    drawn = torch.stack([model.elbo(part) for part in x[None].expand(n, *x.shape).split(500)
                         for part in [part.flatten(0, 1)]])
    drawn = drawn.view(n, len(x)).detach()
    assert ((drawn.mean(0) - elbo).abs() < 5 * drawn.std(0) / n**0.5 + 1e-12).all()


def test_more_draws_are_a_higher_bound():
    """E L_K grows with K and stays below log p. Paired: the mean of L_5 over parts of 50 draws is at most L_50 of all
    50."""
    model = vae(seed=2)
    x = space(model)
    log_p, repeats = integral(joint(model, x)), 2000
    log_w = model.log_weights(x, k=50 * repeats).detach().view(repeats, 50, len(x))
    L = {K: (log_w.unflatten(1, (-1, K)).logsumexp(2) - math.log(K)).mean(1) for K in (1, 5, 50)}  # (repeats, N)
    for low, high in ((1, 5), (5, 50)):
        assert (L[low] <= L[high] + 1e-12).all()
        gain = L[high] - L[low]
        assert (gain.mean(0) > 5 * gain.std(0) / repeats**0.5).all()
    assert (L[50].mean(0) < log_p + 5 * L[50].std(0) / repeats**0.5).all()
    torch.manual_seed(5)
    one = model.iwae(x, k=50)
    torch.manual_seed(5)
    assert torch.equal(one, model.log_weights(x, k=50).logsumexp(0) - math.log(50))


def test_log_prob_misses_log_p_by_the_error_of_the_mean_of_its_weights(monkeypatch):
    """Against quadrature: the spread of 400 estimates is the error that their weights tell, within 25% (5 deviations of
    a deviation, 1 / root 800, and some for the tails of w); four times the draws halve it; fewer than 1 in 1000
    estimates are off by 5 of their own errors."""
    model, repeats, K = vae(seed=2, scale=1.5), 400, 400
    x = space(model)
    log_p = integral(joint(model, x))

    def estimates(K):
        each = model.log_weights(x, k=K * repeats).detach().view(repeats, K, len(x))
        return (torch.stack(part) for part in zip(*map(estimate_and_error, each), strict=True))

    estimate, error = estimates(K)
    off = estimate - log_p
    assert (off.abs() < 5 * error).double().mean() > 0.999
    deviation, reported = off.square().mean(0).sqrt(), error.square().mean(0).sqrt()
    assert (deviation / reported - 1).abs().max() < 0.25
    _, more = estimates(4 * K)
    assert ((more.mean(0) / error.mean(0)).log2() + 1).abs().max() < 0.1
    monkeypatch.setattr(file, "AT_ONCE", 100)  # a few draws at a time
    torch.manual_seed(5)
    apart = model.log_prob(x, k=5 * K)
    torch.manual_seed(5)
    again, error = estimate_and_error(model.log_weights(x, k=5 * K))
    assert torch.equal(apart, again) and ((apart - log_p).abs() < 5 * error).all()
    assert model.log_weights(x, k=7).shape == (7, 8) and model.log_prob(x).shape == (8,)


def test_samples_follow_p():
    model, n = vae(seed=3, scale=3.0), 20000
    x = model.sample(n)
    assert x.shape == (n, 3) and x.dtype == torch.uint8
    p = integral(joint(model, space(model))).exp()
    assert p.max() > 2 * p.mean()
    drawn_from(torch.bincount((x.long() * torch.tensor([4, 2, 1])).sum(1), minlength=8), n * p)


# ---- the terms -------------------------------------------------------------------------------------------------------


def test_the_divergence_is_that_of_torch():
    model = vae(shape=(4, 4), latent=3)
    x = torch.randint(2, (7, 4, 4))
    mu, log_var = model.q(x)
    each = kl_divergence(Normal(mu, (log_var / 2).exp()), Normal(0, 1))
    torch.testing.assert_close(model.terms(x)[1], each.sum(1), atol=1e-12, rtol=1e-12)
    free_bits = each.mean(0).sort().values[:2].mean().item()  # between the least KL_i and the next
    free = vae(shape=(4, 4), latent=3, free_bits=free_bits)
    reconstruction, kl, z = free.terms(x, eps=torch.zeros(7, 3, dtype=torch.float64))
    torch.testing.assert_close(kl, each, atol=1e-12, rtol=1e-12)
    assert torch.equal(z, mu)
    assert (each.mean(0) < free_bits).sum() == 1
    free.beta = 2.5
    torch.testing.assert_close(free.loss(x, eps=z * 0), reconstruction + 2.5 * each.mean(0).clamp(min=free_bits).sum())
    model.beta = 2.5
    torch.testing.assert_close(model.loss(x, eps=z * 0), reconstruction + 2.5 * each.sum(1))


def test_free_bits_cost_nothing_below():
    model = vae(shape=4, latent=2, free_bits=100.0)
    x = space(model)
    gradients = torch.autograd.grad(model.loss(x, eps=torch.zeros(len(x), 2)).sum(), model.encoder[3].weight)[0]
    # with eps = 0, log sigma^2 enters by the KL alone
    assert gradients[2:].abs().max() == 0 < gradients[:2].abs().max()


@each_decoder
def test_a_decoder_is_a_probability(settings):
    """Of levels: it sums to one over the space. A Gaussian: its density of v integrates to one over the line."""
    if settings["levels"] < 5:
        model = vae(shape=(2, 2), **settings)
        x, z = space(model), torch.randn(1, 1, dtype=torch.float64)
        assert abs(model.log_p(x, z.expand(len(x), 1)).exp().sum().item() - 1) < 1e-12
    else:
        model, n = vae(shape=1, **settings), 20001
        z = torch.full((n, 1), 0.7, dtype=torch.float64)
        mean, deviation = model.decode(z[:1]).item() / 4, model.p.scale(model.f(z[:1])).sqrt().item()
        e = torch.linspace(-10, 10, n, dtype=torch.float64)
        density = model.log_p(4 * (mean + deviation * e)[:, None], z).exp()
        assert abs(density.sum().item() * deviation * 1e-3 - 1) < 1e-12
    assert model.unit == ("nats" if settings["levels"] < 5 else "nats of a density of v")


@each_decoder
def test_a_decoder_draws_what_it_says(settings):
    """The mean of draws is `decode`, of levels; a Gaussian's share below half a level is its distribution function
    there. Both hold within 5 deviations."""
    model, n = vae(shape=(2, 2), **settings), 4000
    z = torch.full((n, 1), 0.7, dtype=torch.float64)
    a = model.f(z).detach()
    drawn, mean = model.p.draw(a, torch.rand(n, 2, 2)).double(), model.decode(z)[0].detach()
    assert torch.equal(drawn, drawn.round()) and 0 <= drawn.min() <= drawn.max() <= model.levels - 1
    if model.unit == "nats":
        assert ((drawn.mean(0) - mean).abs() < 5 * drawn.std(0) / n**0.5).all()
    else:
        variance = model.p.scale(a).detach().expand(n, 2, 2)[0]
        p = Normal(mean, 4 * variance.sqrt()).cdf(torch.tensor(1.5))
        assert (((drawn <= 1).double().mean(0) - p).abs() < 5 * (p * (1 - p) / n).sqrt()).all()


def test_a_fixed_variance_is_the_course_s_alpha():
    """-log N(v; f, 1/(2 alpha)) = alpha ||v - f||^2 + D/2 log(pi / alpha)"""
    for alpha in (0.5, 3.0, 50.0):
        model = vae(shape=(2, 3), levels=17, decoder="gaussian", alpha=alpha)
        x, eps = torch.randint(17, (9, 2, 3)), torch.randn(9, 1, dtype=torch.float64)
        _, kl, z = model.terms(x, eps=eps)
        course = alpha * (x / 16 - model.decode(z) / 16).square().sum((1, 2)) + kl
        torch.testing.assert_close(model.loss(x, eps=eps), course + 3 * math.log(math.pi / alpha), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("variance", ["shared", "pixel"])
def test_a_learned_variance_is_learnt(variance):
    """Of noise around a constant, shared: its variance, with a level's own as the floor; a pixel: each its own."""
    torch.manual_seed(0)
    deviation = torch.tensor([0.5, 3.0])
    x = (8 + deviation * torch.randn(1000, 2)).round().clamp(0, 16)
    model = VAE(2, levels=17, latent=1, hidden=4, decoder="gaussian-learned", variance=variance, beta=100.0,
                dtype=torch.float64)
    optimiser = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(200):
        optimiser.zero_grad()
        model.loss(x).mean().backward()
        optimiser.step()
    learnt = model.p.scale(model.f(torch.zeros(1, 1, dtype=torch.float64))).detach() * 256
    wanted = x.double().var(0, correction=0) if variance == "pixel" else x.double().var(0, correction=0).mean()
    error = (2 / 1000) ** 0.5  # of the variance of 1000 numbers: what is learnt lies within a tenth of it
    torch.testing.assert_close(learnt.squeeze(), wanted, rtol=error / 10, atol=0)
    assert model.p.floor == pytest.approx(1 / 12 / 256)


@each_decoder
@pytest.mark.parametrize("more", [dict(), dict(beta=0.5, free_bits=0.2), dict(body="conv", width=1, shape=(4, 4))],
                         ids=["", "free", "conv"])
def test_the_gradient_is_the_derivative(settings, more):
    """gradcheck of the loss at a given eps, in every parameter, float64."""
    model = vae(**{"shape": (2, 2), "latent": 2, "hidden": 3, **settings, **more})
    x, eps = torch.randint(model.levels, (3, *model.shape)), torch.randn(3, 2, dtype=torch.float64)
    with torch.no_grad():
        for b in (p for p in model.parameters() if p.dim() == 1):
            b.add_(0.3 * torch.randn_like(b))  # a bias of 0 on pixels of 0 is where a ReLU bends
    names, values = zip(*model.named_parameters(), strict=True)

    def loss(*values):
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x, eps))

    model.forward = lambda x, eps: model.loss(x, eps=eps)
    assert torch.autograd.gradcheck(loss, values, fast_mode=True)


# ---- images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body, upsample",
                         [("mlp", "nearest"), ("conv", "transposed"), ("conv", "nearest"), ("conv", "bilinear")])
@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (3, 8, 8)])
def test_images_go_through_every_body(body, upsample, shape):
    model = VAE(shape, levels=17, latent=4, body=body, hidden=8, width=4, upsample=upsample, decoder="categorical",
                dropout=0.1).eval()
    x = torch.randint(17, (5, *shape), dtype=torch.uint8)
    assert model.encode(x).shape == (5, 4) and model.latent == 4
    again, drawn = model.reconstruct(x), model.sample(6)
    assert again.shape == x.shape and again.is_floating_point() and 0 <= again.min() <= again.max() <= 16
    assert drawn.shape == (6, *shape) and drawn.dtype == torch.uint8 and drawn.max() <= 16
    figures = model.figures(x, k=3)
    assert (list(figures) == ["elbo", "iwae-3", "reconstruction", "kl"]
            and all(values.shape == (5,) for values in figures.values()))
    assert torch.equal(figures["elbo"], -figures["reconstruction"] - figures["kl"])
    alone = model.double().loss(x[:1], eps=(eps := torch.randn(5, 4).double())[:1])
    torch.testing.assert_close(model.loss(x, eps=eps)[:1], alone, rtol=1e-12, atol=0)  # examples stand apart
    model.loss(x).sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_it_learns():
    """300 steps, and unseen digits cost less than under the best independent pixels, 24.57 nats."""
    train, valid, _ = (data.load("digits-threshold", split) for split in data.SPLITS)
    torch.manual_seed(0)
    model = VAE((8, 8), latent=10, hidden=100)
    assert fit(model, train, valid, steps=300, rate=3e-3, progress=False).valid < 22
    figures = model.figures(valid.x, k=20)
    assert figures["iwae-20"].mean() > figures["elbo"].mean() and figures["kl"].mean() > 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_noise_comes_from_a_seed():
    model, x = VAE((8, 8), latent=6, hidden=20).cuda(), torch.randint(2, (9, 8, 8), device="cuda")
    torch.manual_seed(1)
    first = model.loss(x)
    torch.manual_seed(1)
    assert torch.equal(first, model.loss(x)) and not torch.equal(first, model.loss(x))
    first.sum().backward()
    assert (all(p.grad.isfinite().all() for p in model.parameters()) and model.iwae(x, k=5).shape == (9,)
            and model.sample(3).is_cuda)


@pytest.mark.parametrize("settings, says", [
    (dict(body="linear"), "body must be 'mlp' or 'conv', got 'linear'"),
    (dict(latent=0), "latent must be at least 1, got 0"),
    (dict(levels=None), "levels must"),
    (dict(levels=17), "'bernoulli' is for two levels, got 17"),
    (dict(decoder="beta"), "decoder must be 'bernoulli', 'categorical', 'gaussian'"),
    (dict(decoder="gaussian", alpha=0.0), "alpha must be above 0"),
    (dict(variance="row"), "'shared' or 'pixel', got 'row'"),
    (dict(body="conv", shape=(6, 8)), "sides divisible by 4"),
    (dict(body="conv", upsample="cubic"), "'transposed', 'nearest' or 'bilinear'"),
])
def test_mistakes_are_said(settings, says):
    with pytest.raises(ValueError, match=says):
        VAE(**{"shape": (8, 8), **settings})
    with pytest.raises(ValueError, match="made without classes"):
        VAE((8, 8)).sample(2, y=3)
    with pytest.raises(ValueError, match="x must hold levels 0 ... 1"):
        VAE((8, 8)).elbo(torch.full((1, 8, 8), 2))
