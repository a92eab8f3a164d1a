"""Tests of the diffusion: its noise has the marginals it says, its bound is a bound, by quadrature where an image is
one pixel, and guidance, thresholds and the hidden class do what they say."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from check import command
from check_models import resumes
from PIL import Image
from torch.distributions import Normal, kl_divergence

from genmini import checkpoint, conditions, data, ops, plots
from genmini.guidance import guided
from genmini.metrics import network
from genmini.models._model import Cannot
from genmini.models.diffusion import LOSSES, Diffusion
from genmini.models.made import MADE
from genmini.outputs import log_mass
from genmini.samplers import DATA, SAMPLERS
from genmini.schedule import SCHEDULES, TARGETS, deviation, edm, tables, x0_of
from genmini.train import fit

each_target = pytest.mark.parametrize("target", TARGETS)
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES)


def diffusion(shape=(8, 8), seed=0, scale=0.1, **settings):
    """Untrained, in float64, with weights that are not 0 anywhere."""
    torch.manual_seed(seed)
    model = Diffusion(shape, **{"levels": 17, "width": 8, "dtype": torch.float64, **settings}).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(scale * torch.randn_like(p))
    return model


# ---- noise -----------------------------------------------------------------------------------------------------------


def test_the_schedules_are_those_of_the_papers():
    a, s = tables("linear", 1000)
    assert abs(a[1].square() - (1 - 1e-4)) < 1e-15
    product = math.prod(1 - (1e-4 + (0.02 - 1e-4) * i / 999) for i in range(1000))
    assert abs(a[1000].square() / product - 1) < 1e-12
    a, s = tables("cosine", 1000)
    f = lambda t: math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2
    assert all(abs(a[t].square() / (f(t) / f(0)) - 1) < 1e-10 for t in (1, 500, 999))
    assert abs(a[1000].square() / a[999].square() - 0.001) < 1e-12, "the last beta is 0.999"


@each_schedule
@pytest.mark.parametrize("T", [2, 10, 1000])
def test_noise_grows_and_the_variance_stays(schedule, T):
    a, s = tables(schedule, T)
    assert a.dtype == s.dtype == torch.float64 and len(a) == len(s) == T + 1
    assert a[0] == 1 and s[0] == 0 and (a.square() + s.square() - 1).abs().max() < 1e-15
    assert (a[1:] < a[:-1]).all() and (s[1:] > s[:-1]).all()


@each_schedule
def test_the_marginal_is_that_of_many_small_steps(schedule):
    """q(x_t | x_0) of (1) against x_t = sqrt(1 - beta_t) x_t-1 + sqrt(beta_t) e, taken step by step: mean and variance
    in closed form, and those of draws within five standard errors."""
    T, n = 20, 50_000
    a, s = tables(schedule, T)
    mean, variance, x_0 = torch.ones(()).double(), torch.zeros(()).double(), 0.7
    torch.manual_seed(0)
    for t in range(1, T + 1):
        beta = 1 - (a[t] / a[t - 1]).square()
        mean, variance = (1 - beta).sqrt() * mean, (1 - beta) * variance + beta
        assert abs(mean - a[t]) < 1e-14 and abs(variance - s[t].square()) < 1e-14
        if t in (1, 10, 20):
            x_t, _ = ops.q_sample(torch.full((n, 1), x_0).double(), torch.full((n,), t), a, s)
            assert abs(x_t.mean() - x_0 * mean) < 5 * (variance / n).sqrt()
            assert abs(x_t.var() / variance - 1) < 5 * math.sqrt(2 / n)


@each_target
def test_the_estimate_of_x0_inverts_the_target(target):
    a, s = (table[1:, None] for table in tables("cosine", 1000))  # every t
    x_0, e = torch.randn(2, 1000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    if target == "edm":
        x_t, d = a * x_0 + s * e, 0.4
        out = edm(x_t, x_0, a, s, d)
        n = (a.square() * d**2 + s.square()).sqrt()
        # the target by its definition; edm has it from x_t, in which a rounding weighs a d / (n s)
        assert ((out - (s * x_0 / d - a * d * e) / n).abs() <= 1e-15 * 20 * (1 + 1 / s)).all()
    else:
        d = 1.0
        x_t, out = ops.q_sample(x_0, torch.arange(1000), a[:, 0], s[:, 0], e, target=target)
    # for eps, an error of one rounding of x_t is divided by a
    assert ((x0_of(target, x_t, out, a, s, d) - x_0).abs() <= 1e-15 * 10 / (a if target == "eps" else 1)).all()


def test_edm_gives_inputs_and_targets_of_variance_1_and_with_d_1_it_is_v():
    a, s = (table[1:, None] for table in tables("cosine", 50))
    random = torch.Generator().manual_seed(0)
    e = torch.randn(50, 40_000, dtype=torch.float64, generator=random)
    x_0 = 0.4 * torch.randn(50, 40_000, dtype=torch.float64, generator=random)
    x_t = a * x_0 + s * e
    five = 5 * math.sqrt(2 / 40_000)  # standard errors of a variance
    assert (edm(x_t, x_0, a, s, 0.4).var(1) - 1).abs().max() < five
    assert ((x_t / deviation(a, s, 0.4)).var(1) - 1).abs().max() < five
    torch.testing.assert_close(edm(x_t, x_0, a, s, 1.0), s * x_0 - a * e, atol=1e-12, rtol=0)
    torch.testing.assert_close(x0_of("edm", x_t, x_0, a, s, 1.0), x0_of("v", x_t, -x_0, a, s), atol=1e-12, rtol=0)


def test_with_edm_the_network_sees_and_learns_what_the_equation_says():
    """Inside `loss`: the network's input is x_t / n, and the error is that of its target."""
    model, seen = diffusion((4, 4), target="edm", deviation=0.5), []
    model.net.register_forward_pre_hook(lambda net, inputs: seen.append(inputs))
    x, t = torch.randint(17, (3, 4, 4), generator=torch.Generator().manual_seed(0)), torch.tensor([1, 400, 1000])
    noise = torch.randn(3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    loss = model.loss(x, t=t, noise=noise)
    a, s, x_0 = model.a[t].view(3, 1, 1), model.s[t].view(3, 1, 1), x / 8 - 1
    n = (a.square() / 4 + s.square()).sqrt()
    x_t = a * x_0 + s * noise
    ((given, log_snr, _),) = seen
    torch.testing.assert_close(given[:, 0], x_t / n)
    torch.testing.assert_close(log_snr, 2 * (a / s).log().flatten())
    out = model.net(given, log_snr, None)[:, 0]
    wanted = (out - (2 * s * x_0 - a * noise / 2) / n).square().mean((1, 2))
    torch.testing.assert_close(loss, wanted, rtol=1e-9, atol=1e-9)


@each_target
@pytest.mark.parametrize("t", [1, 500, 999])
def test_the_step_of_a_sampler_takes_the_same_estimate(target, t):
    """`step` to DATA, without a threshold, is the x0 of (4)."""
    model = diffusion(target=target, deviation=0.5)
    x_t = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    a, s = model.a[t], model.s[t]
    x0 = model.step(None, threshold="none")(x_t, (a.item(), s.item()), DATA)
    expected = x0_of(target, x_t, model.F(x_t, a[None], s[None], None), a, s, model.spread)
    torch.testing.assert_close(x0, expected, atol=1e-11 / a.item(), rtol=1e-11)


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


# ---- learning --------------------------------------------------------------------------------------------------------


@each_target
@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_is_what_it_says(target, loss):
    model = diffusion(target=target, loss=loss, deviation=0.5)
    x, t = torch.randint(17, (4, 8, 8)), torch.tensor([1, 2, 500, 1000])
    noise = torch.randn(4, 8, 8, dtype=torch.float64)
    x_0, a, s = x / 8 - 1, model.a[t].view(-1, 1, 1), model.s[t].view(-1, 1, 1)
    x_t = a * x_0 + s * noise
    out = model.F(x_t[:, None], model.a[t], model.s[t], None)[:, 0]
    if loss == "simple":
        n = (a.square() / 4 + s.square()).sqrt()
        wanted = {"eps": noise, "x0": x_0, "v": a * noise - s * x_0, "edm": (2 * s * x_0 - a * noise / 2) / n}[target]
        expected = (out - wanted).square().mean((1, 2))
    else:
        snr, x0 = (model.a / model.s).square(), x0_of(target, x_t, out, a, s, 0.5)
        expected = 500 * (snr[t - 1] - snr[t]) * (x0 - x_0).square().sum((1, 2))
        expected[0] = -1000 * log_mass(x[0], x0[0], model.s[1] / model.a[1], 17).sum()
        expected = expected + model.prior_kl(x_0[:, None])
    torch.testing.assert_close(model.loss(x, t=t, noise=noise), expected, atol=1e-9, rtol=1e-9)
    model.loss(x, t=t, noise=noise).sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_times_are_spread_over_the_batch_and_valid_is_judged_by_the_same_draws():
    model, seen = diffusion(), []
    noised = model.noised
    model.noised = lambda x_0, t, noise: (seen.append(t), noised(x_0, t, noise))[1]
    x = torch.randint(17, (50, 8, 8))
    one, again = model.loss(x), model.loss(x)
    assert torch.equal(one, again)
    model.train()
    assert not torch.equal(model.loss(x), model.loss(x))
    for t in seen:
        assert ((t - 1) // 20).tolist() == list(range(50)), "one time in each of 50 parts of 1 ... 1000"
    assert not torch.equal(seen[2], seen[3])


def test_the_class_is_hidden_from_a_share():
    x, y, seen = torch.randint(17, (2000, 8, 8)), torch.arange(2000) % 3, []
    model = diffusion(classes=3, hide=0.25)
    model.F = lambda x_t, a, s, y, c: (seen.append(y), torch.zeros_like(x_t))[1]
    model.train().loss(x, y=y)
    model.eval().loss(x, y=y)
    model.loss(x)
    hidden = seen[0] == -1
    assert abs(hidden.double().mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 2000)
    assert torch.equal(seen[0][~hidden], y[~hidden]) and torch.equal(seen[1], y) and (seen[2] == -1).all()


def test_it_learns_and_its_classes_matter():
    train, valid = (data.load("digits", split) for split in ("train", "valid"))
    torch.manual_seed(0)
    model = Diffusion((8, 8), levels=17, width=8, classes=10)
    untrained = model.eval().loss(valid.x).mean()
    fit(model, train, valid, steps=100, rate=1e-2, batch=32, progress=False)
    right, wrong = (model.loss(valid.x, y=y).mean() for y in (valid.y, (valid.y + 1) % 10))
    assert right < 0.6 * untrained and right < 0.98 * wrong


# ---- samples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", SAMPLERS)
@pytest.mark.parametrize("shape, levels", [((8, 8), 17), ((3, 8, 8), 256), ((64, 64), 2)], ids=str)
def test_samples_are_levels_and_follow_the_seed(how, shape, levels):
    model = diffusion(shape, levels=levels, dtype=torch.float32)
    draw = lambda seed, **more: (torch.manual_seed(seed), model.sample(3, how=how, steps=2, **more))[1]
    x = draw(0)
    assert x.shape == (3, *shape) and x.dtype == torch.uint8 and x.max().item() < levels
    assert torch.equal(x, draw(0)) and not torch.equal(x, draw(1))
    noise = torch.randn(3, *shape)
    assert torch.equal(draw(0, noise=noise), draw(1, noise=noise)) == (how != "ddpm")


def test_the_path_ends_at_the_data_in_any_number_of_steps():
    model = diffusion()
    for steps in (1, 7, 999, 1000):
        path = model.path(steps)
        assert len(path) == steps + 1 == len(set(path)) and path[0][1] > 0.99999 and path[-1] == DATA


def test_guidance_1_is_the_conditional_model_and_0_the_unconditional_one():
    model, t, r = diffusion(classes=3), (0.6, 0.8), (0.8, 0.6)
    x, y = torch.randn(4, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    none = torch.full_like(y, -1)
    at = lambda y, w: model.step(y, w, "none")(x, t, r)
    conditional, unconditional = at(y, 1), at(none, 1)
    torch.testing.assert_close(at(y, 1 + 1e-9), conditional, atol=1e-7, rtol=1e-7)  # by the two halves of a batch
    torch.testing.assert_close(at(y, 0), unconditional, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(at(y, 3.0), unconditional + 3 * (conditional - unconditional), atol=1e-11, rtol=1e-11)
    assert (conditional - unconditional).abs().max() > 1e-3
    torch.manual_seed(0)
    plain = model.sample(5, y=1, steps=3)
    torch.manual_seed(0)
    assert torch.equal(model.sample(5, y=1, steps=3, guidance=1.0), plain)


def test_the_limits_of_the_thresholds():
    """Inside [-1, 1] none changes anything; outside, "static" clamps and "dynamic" divides by what it clamps to."""
    x, t = torch.randn(2, 1, 8, 8, dtype=torch.float64), (0.6, 0.8)
    for size in (0.5, 40.0):
        model = diffusion(target="x0", scale=0)
        model.net.forward = lambda x, log_snr, y, size=size: size * x / x.abs().amax((1, 2, 3), keepdim=True)
        raw = size * x / x.abs().amax((1, 2, 3), keepdim=True)
        x0 = {name: model.step(None, 1, name)(x, t, DATA) for name in ("none", "static", "dynamic")}
        torch.testing.assert_close(x0["none"], raw, atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(x0["static"], raw.clamp(-1, 1), atol=1e-12, rtol=1e-12)
        bound = torch.quantile(raw.flatten(1).abs(), 0.995, 1, interpolation="higher").clamp(min=1).view(-1, 1, 1, 1)
        torch.testing.assert_close(x0["dynamic"], raw.clamp(-bound, bound) / bound, atol=1e-12, rtol=1e-12)
        assert x0["dynamic"].abs().max() <= 1


def test_what_cannot_be_is_refused():
    for settings, words in (
        (dict(levels=None), "levels must be a whole number, 2 to 256"), (dict(shape=(8,)), r"shape must be \(H, W\)"),
        (dict(target="score"), "target must be 'eps', 'x0', 'v' or 'edm', got 'score'"),
        (dict(T=1), "T must be 2 to 100000"), (dict(deviation=0.0), "deviation must be above 0"),
        (dict(schedule="flat"), "schedule must be 'linear' or 'cosine'"), (dict(hide=1.5), "hide must be at least 0"),
        (dict(loss="l1"), "loss must be 'simple' or 'bound'"),
        (dict(sampler="euler"), "how must be 'ddim', 'ddpm', 'dpm' or 'heun', got 'euler'"),
        (dict(guidance=2.0), "guidance is towards a class, and this model was made without: got 2.0"),
    ):
        with pytest.raises(ValueError, match=words):
            diffusion(**settings)
    model = diffusion()
    for more, words in ((dict(steps=0), "steps must be 1 to 1000, got 0"), (dict(steps=1001), "got 1001"),
                        (dict(threshold="soft"), "threshold must be 'none', 'static' or 'dynamic', got 'soft'"),
                        (dict(y=1), "made without classes")):
        with pytest.raises(ValueError, match=words):
            model.sample(2, **more)


def test_a_classifier_leads_a_model_without_classes():
    """Each step moves x0 up the slope of log p(y | x0), so the samples are surer of their class; the steps are those of
    genmini/guidance.py. By default each class is drawn as often."""
    model, judge = diffusion(T=20, draws=5, dtype=torch.float32, scale=0.02), network()
    torch.manual_seed(0)
    y, noise = torch.arange(20) % 10, torch.randn(20, 8, 8)
    sure = {}
    for w in (0.0, 1.0, 10.0):
        torch.manual_seed(1)
        x = model.sample(20, y, noise=noise, guidance=w, classifier=judge)
        sure[w] = judge.log_p(x, 17, y).mean().item()
    assert sure[0.0] < sure[1.0] < sure[10.0], sure
    torch.manual_seed(1)
    assert torch.equal(model.sample(20, noise=noise, guidance=10.0, classifier=judge), x)
    denoiser = lambda x, t: x0_of("v", x, model.F(x, *(torch.tensor([v]).double() for v in t), None), *t)
    log_p = lambda X: judge.log_p(model.in_levels(X), 17, y)
    torch.manual_seed(1)
    by_hand = SAMPLERS["ddpm"](guided(denoiser, log_p, 10.0, 1.0), noise[:, None], model.path(5))
    assert (model.in_levels(by_hand).round().clamp(0, 16) == x).all()
    with pytest.raises(ValueError, match="a classifier guides a model without classes"):
        diffusion(classes=10).sample(2, classifier=judge)
    with pytest.raises(ValueError, match="y must hold classes 0 ... 9"):
        model.sample(2, y=10, classifier=judge)


@pytest.mark.parametrize("how", SAMPLERS)
def test_a_film_has_every_x_t_and_ends_with_the_samples(how):
    model, film = diffusion(draws=4), []
    noise = torch.randn(3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    x = model.sample(3, noise=noise, how=how, film=film)
    assert len(film) == 5 and all(frame.shape == (3, 8, 8) for frame in film)
    torch.testing.assert_close(film[0], (noise + 1) * 8)
    assert torch.equal(film[-1].round().clamp(0, 16).to(torch.uint8), x)
    torch.manual_seed(0)
    assert torch.equal(model.sample(3, noise=noise, how=how), x)


# ---- a part of an image is given ------------------------------------------------------------------------------------


def of_parts(what, **settings):
    return diffusion((3, 8, 8), given=what, **{"draws": 3, **settings})


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("what", conditions.GIVEN)
def test_the_network_sees_c_beside_the_noise(what, loss):
    """In the loss, in every term of the bound and in each step of a sampler, with guidance as without."""
    model, seen = of_parts(what, loss=loss, classes=3), []
    net, C = model.net.forward, 3 + conditions.channels(what, (3, 8, 8))
    model.net.forward = lambda x, log_snr, y: (seen.append(x), net(x, log_snr, y))[1]
    x, y = torch.randint(17, (4, 3, 8, 8)), torch.tensor([0, 1, 2, 0])
    model.loss(x, y=y)
    model.log_prob(x, y=y, k=2)
    model.sample(4, y, x=x)
    guided = len(seen)
    model.sample(4, y, x=x, guidance=2.0)
    model.process(x, y, times=2)
    c = conditions.shown(x / 8.0 - 1, what).double()
    assert len(seen) > 20
    for n, images in enumerate(seen):
        assert images.shape[1:] == (C, 8, 8)
        twice = guided <= n < guided + 3
        torch.testing.assert_close(images[:, 3:], torch.cat([c, c]) if twice else c, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("what", conditions.GIVEN)
def test_a_sample_depends_on_c_alone(what):
    model, noise = of_parts(what), torch.randn(4, 3, 8, 8).double()
    x = torch.randint(17, (4, 3, 8, 8))
    same = x.roll(1, 1) if what in ("dark", "grey") else x[:, :, [1, 0, *range(2, 8)]]  # the channels, or two rows
    assert not torch.equal(same, x)
    draw = lambda x: model.sample(4, noise=noise, x=x)
    assert torch.equal(draw(same), draw(x)) and not torch.equal(draw(16 - x), draw(x))
    torch.manual_seed(0)
    one = model.restore(x)
    torch.manual_seed(0)
    assert torch.equal(one, model.sample(4, x=x)) and one.dtype == torch.uint8


def test_what_is_given_must_be_there():
    with pytest.raises(ValueError, match="given must be 'dark', 'grey', 'half' or 'quarter', got 'sepia'"):
        of_parts("sepia")
    with pytest.raises(ValueError, match="x is missing: the images of which this model is given half"):
        of_parts("half").sample(2)
    with pytest.raises(ValueError, match="x is missing: the images of which this model is given known pixels"):
        diffusion().sample(2, known=3)
    with pytest.raises(Cannot, match="this Diffusion is given no part of an image: set given to dark or grey or"):
        diffusion().restore(torch.zeros(2, 8, 8))


# ---- completion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [dict(), dict(given="dark"), dict(classes=3)], ids=str)
def test_known_pixels_stay_to_the_bit_and_the_rest_is_drawn(settings):
    model = diffusion((3, 8, 8), levels=256, draws=3, dtype=torch.float32, **settings)
    x = torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8)
    hole = torch.ones(8, 8, dtype=torch.bool)
    hole[2:6, 3:7] = False
    half = torch.zeros(3, 8, 8, dtype=torch.bool)
    half[:, :4] = True  # 96 numbers: the upper rows, in all colours
    for known, mask in ((96, half), (half, half), (hole, hole.expand(3, 8, 8)), (192, torch.ones_like(half))):
        one, other = model.sample(5, x=x, known=known), model.sample(5, x=x, known=known)
        assert torch.equal(one[:, mask], x[:, mask]) and one.dtype == torch.uint8
        assert mask.all() or not torch.equal(one, other)
    for wrong in (-1, 193, 2.0):
        with pytest.raises(ValueError, match="known must be"):
            model.sample(5, x=x, known=wrong)
    for wrong, words in ((dict(x=x[:2], known=3), r"x must hold n = 5 images, got 2"),
                         (dict(noise=torch.zeros(5, 3, 3)), r"noise must have shape \(5, 3, 8, 8\), got \(5, 3, 3\)"),
                         (dict(film=()), r"film must be a list, got \(\)"),
                         (dict(known=torch.ones(3, 3)), r"known must be a mask of shape \(3, 8, 8\), got \(3, 3\)")):
        with pytest.raises(ValueError, match=words):
            model.sample(5, **dict(x=x) | wrong)
    for times in (0, 1001):
        with pytest.raises(ValueError, match=f"times must be 1 to 1000, got {times}"):
            model.process(x, times=times)
    for how in ("ddim", "dpm", "heun"):
        with pytest.raises(ValueError, match=f"known pixels are completed by how='ddpm' alone, got '{how}'"):
            model.sample(5, x=x, known=96, how=how)
    torch.manual_seed(3)
    one = model.sample(5, x=x, known=96)
    torch.manual_seed(3)
    assert torch.equal(one, model.sample(5, x=x, known=96, how="ddpm"))


def test_the_command_line_completes_and_restores_test_images(capsys, folder_of_its_own):
    """--complete keeps the upper half; a model that is given a part of an image takes that of test images."""
    test = data.load("shapes-one", "test", size=16).x[:4]
    for what in ("", "half"):
        model = diffusion((3, 16, 16), levels=256, draws=2, given=what, dtype=torch.float32)
        metadata = {"step": 1, "data": "shapes-one", "options": {"size": 16}}
        checkpoint.save(f"run{what}", model, metadata)
        words = ["sample", f"run{what}", "-n", "4", "--out"]
        status, out, _ = command(capsys, *words, "x.npy", "--complete")
        assert status == 0 and "4 completions in x.npy" in out
        assert np.array_equal(np.load("x.npy")[:, :, :8], test[:, :, :8].numpy())
        status, _, err = command(capsys, *words, "x.npy", "--complete", "--how", "heun")
        assert status == 2 and err.count("\n") == 1 and "how='ddpm' alone, got 'heun'" in err
        assert command(capsys, *words, "y.npy")[0] == command(capsys, *words, "y.png")[0] == 0
    torch.manual_seed(0)
    assert np.array_equal(np.load("y.npy"), model.sample(4, x=test).numpy())


# ---- the process -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [1000, 8])
def test_the_process_shows_one_noise_at_rising_times_and_a_way_back(T):
    model, x = diffusion(T=T, draws=1, classes=3), torch.randint(17, (5, 8, 8)).double()
    torch.manual_seed(0)
    there, seen, back, expected = model.process(x, y=1, times=8)
    assert all(part.shape == (8, 5, 8, 8) for part in (there, seen, back, expected))
    path = [t for t in model.path(min(T, 80)) if t[1] > 0]
    kept = path[:: len(path) // 8]
    noise = [(some / 8 - 1 - a * (x / 8 - 1)) / s for some, (a, s) in zip(there, kept[::-1], strict=True)]
    assert all((each - noise[0]).abs().max() < 1e-10 for each in noise) and abs(noise[0].std() - 1) < 0.2
    step, one = model.step(torch.ones(5, dtype=torch.long)), lambda some: some.view(5, 1, 8, 8) / 8 - 1
    for some, estimates, times in ((there, seen, kept[::-1]), (back, expected, kept)):
        for x_t, x0, t in zip(some, estimates, times, strict=True):
            torch.testing.assert_close(one(x0), step(one(x_t), t, DATA), atol=1e-9, rtol=1e-9)
    x_t = one(back[0])  # DDIM leads from the first to the second that is shown
    for t, r in zip(path, path[1 : 1 + len(path) // 8], strict=False):
        x_t = step(x_t, t, r)
    torch.testing.assert_close(one(back[1]), x_t, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("classes", [0, 10])
def test_the_study_draws_the_process(capsys, folder_of_its_own, classes):
    checkpoint.save("run", diffusion(classes=classes, dtype=torch.float32), {"step": 1, "data": "digits"})
    status, out, _ = command(capsys, "study", "diffuse", "run")
    assert status == 0 and out.count("0.") >= 9 and "picture   run/diffuse.png" in out
    assert len(plots.missing()) or Path("run/diffuse.png").stat().st_size > 10_000


def test_the_command_line_chooses_sampler_steps_and_guidance(capsys, folder_of_its_own):
    """`sample` and `score` hand them on; a model without classes refuses --guidance, MADE all three."""
    model = diffusion(classes=10, dtype=torch.float32)
    checkpoint.save("run", model, {"step": 1, "data": "digits"})
    words = ["--how", "heun", "--sampling-steps", "3", "--guidance", "2.5"]
    assert command(capsys, "sample", "run", "-n", "4", "-y", "7", *words, "--out", "x.npy")[0] == 0
    torch.manual_seed(0)
    assert np.array_equal(np.load("x.npy"), model.sample(4, y=7, how="heun", steps=3, guidance=2.5).numpy())
    status, out, _ = command(capsys, "score", "run", "-n", "8", *words)
    assert status == 0 and "seed 0, how heun, steps 3, guidance 2.5" in out
    checkpoint.save("made", MADE((8, 8), hidden=4), {"step": 1, "data": "digits-threshold"})
    for option, reason in (("--how", "MADE has one way to draw"), ("--guidance", "MADE is not guided towards a class"),
                           ("--sampling-steps", "MADE draws in a number of steps of its own")):
        for verb in ("sample", "score"):
            status, _, err = command(capsys, verb, "made", option, "2")
            assert status == 2 and f"{option} does not fit: {reason}" in err


def test_the_command_line_guides_by_a_classifier_and_makes_a_film(capsys, folder_of_its_own):
    checkpoint.save("run", diffusion(T=20, dtype=torch.float32), {"step": 1, "data": "digits"})
    model, judge = checkpoint.load("run"), network()
    words = ["--sampling-steps", "4", "--guidance", "3"]
    assert command(capsys, "sample", "run", "-n", "5", "-y", "3,8", "--classifier", "digits-v1", *words, "--out",
                   "x.npy")[0] == 0
    torch.manual_seed(0)
    x = model.sample(5, torch.tensor([3, 8, 3, 8, 3]), steps=4, guidance=3.0, classifier=judge)
    assert np.array_equal(np.load("x.npy"), x.numpy())
    status, out, _ = command(capsys, "score", "run", "-n", "10", "--classifier", "digits-v1", *words)
    assert status == 0 and "seed 0, steps 4, guidance 3.0, classifier digits-v1" in out
    assert "+-" in next(line for line in out.splitlines() if line.startswith("right class"))
    assert command(capsys, "sample", "run", "-n", "4", "--film", "--sampling-steps", "3")[0] == 0
    with Image.open("run/drawn.gif") as film:
        assert film.n_frames == 4 and film.size == (17 * 28, 17 * 28)  # two images of 8 pixels, and a line between
    assert command(capsys, "sample", "run", "--film", "--out", "x.png")[0] == 2
    checkpoint.save("made", MADE((8, 8), hidden=4), {"step": 1, "data": "digits-threshold"})
    for option, reason in ((["--film"], "MADE does not draw step by step"),
                           (["--classifier", "digits-v1"], "MADE is not guided by a classifier")):
        status, _, err = command(capsys, "sample", "made", *option)
        assert status == 2 and f"{option[0]} does not fit: {reason}" in err
    assert "inception has none of the classes" in command(capsys, "sample", "run", "--classifier", "inception")[2]


def test_a_training_resumes_to_the_same_bits(tmp_path):
    """With the moving average of the weights, dropout and hidden classes: step 4 of 8 is where the first part ends."""
    train, valid = (data.load("digits", split) for split in ("train", "valid"))
    make = lambda: diffusion(classes=10, dropout=0.2, hide=0.5, dtype=torch.float32)
    resumes(make, train, valid, dict(steps=8, every=4, batch=8, ema=0.9), stop=4, folder=tmp_path)
