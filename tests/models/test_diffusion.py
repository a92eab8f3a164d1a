"""Tests of the diffusion: its noise has the marginals it says, its targets invert, its loss is that of the formulas,
and a training resumes to the same bits."""

import itertools
import math

import pytest
import torch
from check_models import resumes

from genmini import data, ops
from genmini.models.diffusion import LOSSES, Diffusion
from genmini.outputs import log_mass
from genmini.samplers import DATA
from genmini.schedule import SCHEDULES, SHARE, TARGETS, TIMES, deviation, drawn, edm, tables, x0_of
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


def test_middle_times_have_the_density_that_is_said():
    """Against its distribution function, and one time in each of N strata; even times as they were."""
    n, T = 100_000, 1000
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    t = drawn("middle", u, T)
    assert t.min() == 1 and t.max() == T
    x = torch.tensor([0.1, 0.3, 0.45, 0.55, 0.7, 0.9], dtype=torch.float64)
    normal = torch.distributions.Normal(0.5, 0.6)
    expected = 0.8 * normal.cdf((x / (1 - x)).log()) + 0.2 * x
    below = (t[:, None] <= T * x).double().mean(0)
    torch.testing.assert_close(below, expected, atol=2 / n, rtol=0)
    assert torch.equal(drawn("even", u, T), 1 + (T * u).long())
    ends = torch.tensor([0.0, SHARE, 1 - 2**-24])
    for times in TIMES:
        assert 1 <= drawn(times, ends, 7).min() and drawn(times, ends, 7).max() <= 7


def test_the_times_of_training_are_those_that_are_said(monkeypatch):
    seen, x = [], torch.randint(17, (400, 8, 8))
    monkeypatch.setattr(ops, "q_sample", lambda x_0, t, *args, **kw: (seen.append(t), (x_0, x_0))[1])
    for times in TIMES:
        diffusion(times=times).train().loss(x)
    even, middle = (((t > 300) & (t <= 750)).double().mean() for t in seen)
    # one time in each of 400 strata: the interval's two ends cut two, of a mixture of two kinds four
    assert abs(even - 0.45) < 2 / 400 and abs(middle - (0.8 * 0.8284 + 0.2 * 0.45)) < 4 / 400


# ---- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target, loss", [pair for pair in itertools.product(TARGETS, LOSSES)
                                          if pair != ("eps", "weighted")])  # which is refused
def test_the_loss_is_what_it_says(target, loss):
    model = diffusion(target=target, loss=loss, deviation=0.5)
    x, t = torch.randint(17, (4, 8, 8)), torch.tensor([1, 2, 400, 1000])
    noise = torch.randn(4, 8, 8, dtype=torch.float64)
    x_0, a, s = x / 8 - 1, model.a[t].view(-1, 1, 1), model.s[t].view(-1, 1, 1)
    x_t = a * x_0 + s * noise
    out = model.F(x_t[:, None], model.a[t], model.s[t], None)[:, 0]
    if loss == "simple":
        n = (a.square() / 4 + s.square()).sqrt()
        wanted = {"eps": noise, "x0": x_0, "v": a * noise - s * x_0, "edm": (2 * s * x_0 - a * noise / 2) / n}[target]
        expected = (out - wanted).square().mean((1, 2))
    elif loss == "weighted":
        weight = [min(max((model.a[i] / model.s[i]).square().item(), 1), 5) for i in t]
        error = (x0_of(target, x_t, out, a, s, 0.5) - x_0).square().mean((1, 2))
        assert weight[0] == 5 > weight[2] > weight[3] == 1
        expected = torch.tensor(weight, dtype=torch.float64) * error
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


@pytest.mark.parametrize("guided", [0.0, 0.5, 1.0])
def test_guidance_counts_where_there_is_more_noise_than_guided(guided):
    model, x, y = diffusion(classes=3, guided=guided), torch.randn(2, 1, 8, 8).double(), torch.tensor([0, 2])
    for s in (0.3, 0.5, 0.7, 0.9):
        t, r = (math.sqrt(1 - s * s), s), (1.0, 0.0)
        one, led = model.step(y, 1.0, "none")(x, t, r), model.step(y, 4.0, "none")(x, t, r)
        none = model.step(torch.tensor([-1, -1]), 1.0, "none")(x, t, r)
        wanted = none + 4 * (one - none) if s > guided else one
        torch.testing.assert_close(led, wanted, atol=1e-10, rtol=1e-10)
        assert not torch.allclose(one, none)


def test_what_cannot_be_is_refused():
    for settings, words in (
        (dict(levels=None), "levels must be a whole number, 2 to 256"), (dict(shape=(8,)), r"shape must be \(H, W\)"),
        (dict(target="score"), "target must be 'eps', 'x0', 'v' or 'edm', got 'score'"),
        (dict(target="eps", loss="weighted"), "target must be 'x0', 'v' or 'edm', got 'eps'"),
        (dict(T=1), "T must be 2 to 100000"), (dict(deviation=0.0), "deviation must be above 0"),
        (dict(schedule="flat"), "schedule must be 'linear' or 'cosine'"), (dict(hide=1.5), "hide must be at least 0"),
        (dict(times="late"), "times must be 'even' or 'middle', got 'late'"),
        (dict(times="middle", loss="bound"), "the loss 'bound' is a sum over all times: times must be 'even'"),
        (dict(loss="l1"), "loss must be 'simple', 'weighted' or 'bound'"),
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
def test_a_training_resumes_to_the_same_bits(tmp_path):
    """With the moving average of the weights, dropout and hidden classes: step 4 of 8 is where the first part ends."""
    train, valid = (data.load("digits", split) for split in ("train", "valid"))
    make = lambda: diffusion(classes=10, dropout=0.2, hide=0.5, dtype=torch.float32)
    resumes(make, train, valid, dict(steps=8, every=4, batch=8, ema=0.9), stop=4, folder=tmp_path)
