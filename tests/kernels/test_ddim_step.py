"""Proofs and laws of a step of a diffusion model's sampler (kernels/ddim_step.py)."""

import math

import pytest
import torch
from check import DTYPES, ROUNDING, dtypes, fair, laid_out, layouts, matches, numbers, opaque, runs, scales, seeds
from genmini.kernels import ddim_step as room
from genmini.kernels._noise import noise
from hypothesis import given
from hypothesis import strategies as st
from noises import MOST, exact_noise, is_noise

from genmini import ops

RUNS = runs("ddim_step")
everywhere = pytest.mark.parametrize("run", RUNS, ids=str)
each_threshold = pytest.mark.parametrize("threshold", [None, "static", "dynamic"])
shapes = st.sampled_from([(0, 3), (3, 0), (5, 1), (6, 7), (3, 127), (3, 2, 5, 5), (1, 1030)])
T, S = (0.6, 0.8), (0.8, 0.6)  # alpha and sigma before and after the step


def definition(x, output, unconditional=None, noise=None, target="eps", weight=1.0, threshold=None, quantile=0.995,
               eta=0.0, t=T, s=S):
    """What a textbook writes, with alpha^2 + sigma^2 = 1, in the dtype that sums have."""
    (a_t, s_t), (a_s, s_s) = t, s
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    x_t, out = x.to(wide), output.to(wide)
    if unconditional is not None:
        out = (1 - weight) * unconditional.to(wide) + weight * out
    x0 = {"eps": (x_t - s_t * out) / (a_t or 1), "x0": out, "v": a_t * x_t - s_t * out}[target]
    if threshold == "static":
        x0 = x0.clamp(-1, 1)
    if threshold == "dynamic" and x0.numel():
        rows = x0.flatten(1)
        bound = torch.quantile(rows.abs().double(), quantile, 1, interpolation="higher")[:, None].clamp(min=1).to(wide)
        x0 = (rows.clamp(-bound, bound) / bound).reshape(x0.shape)
    eps = (x_t - a_t * x0) / s_t
    c = eta * s_s / s_t * math.sqrt(1 - a_t**2 / a_s**2)
    x_s = a_s * x0 + math.sqrt(s_s**2 - c**2) * eps
    return (x_s if noise is None else x_s + c * noise.to(wide)).to(x.dtype)


def step(x, output, unconditional=None, noise=None, t=T, s=S, **options):
    return ops.ddim_step(x, output, *t, *s, unconditional=unconditional, noise=noise, **options)


@everywhere
@each_threshold
@given(dtype=dtypes, shape=shapes, layout=layouts, scale=scales, seed=seeds, guided=st.booleans(), noisy=st.booleans(),
       target=st.sampled_from(["eps", "x0", "v"]))
def test_matches(run, threshold, dtype, shape, layout, scale, seed, guided, noisy, target):
    x, o, u, eps = (laid_out(numbers(*shape, seed=seed % 2**31 + i, scale=scale), layout) for i in range(4))
    options = dict(target=target, weight=2.5 if guided else 1.0, threshold=threshold, eta=0.7 if noisy else 0.0)
    tensors = [x, o, u if guided else None, eps if noisy else None]
    matches(run, lambda *a: step(*a, **options), tensors, dtype, gradients=False)


@everywhere
@each_threshold
@given(scale=scales, seed=seeds, guided=st.booleans(), target=st.sampled_from(["eps", "x0", "v"]))
def test_is_what_a_textbook_writes(run, threshold, scale, seed, guided, target):
    """Both are off by at most 12 roundings of their terms; a dynamic bound adds those of its row's largest, twice."""
    x, o, u, eps = (numbers(2, 40, seed=seed % 2**31 + i, scale=scale) for i in range(4))
    options = dict(target=target, weight=2.5 if guided else 1.0, threshold=threshold, eta=0.7, quantile=0.9)
    tensors = [x, o, u if guided else None, eps]
    with run.use():
        got = step(*(a if a is None else a.to(run.device) for a in tensors), **options).cpu()
    sizes = [a if a is None else a.abs() for a in tensors]
    x0 = (sizes[0] + (1.5 * sizes[2] + 2.5 * sizes[1] if guided else sizes[1])) / T[0]
    terms = (x0 + sizes[0] + sizes[3]).amax(1, keepdim=True)
    assert ((got - definition(*tensors, **options)).abs() <= 3 * 24 * 2**-53 * terms).all()


@everywhere
@pytest.mark.parametrize("threshold", ["none", "static", "dynamic"])
def test_opaque(run, threshold):
    x, o, u, eps = (numbers(4, 6, seed=i).to(run.device) for i in range(4))
    scalars = (*room.numbers_of(*T, *S, "eps", 2.0, 0.9, 1.0), threshold, 0.9)
    seed = torch.tensor(3, device=run.device)
    for tensors in ((x, o, u, eps, None), (x, o, None, None, seed)):
        opaque(torch.ops.genmini.ddim_step.default, (*tensors, *scalars, run.backend))


@everywhere
def test_compiled(run):
    """torch.compile takes it whole, with the numbers of another step too."""
    torch._dynamo.reset()  # what other tests of this process compiled counts, too
    x, o = (numbers(4, 6, seed=i).to(run.device) for i in range(2))
    compiled = torch.compile(lambda x, o, t, s: step(x, o, t=t, s=s, eta=1.0, seed=3, threshold="dynamic"),
                             fullgraph=True, backend="aot_eager")
    with run.use(), torch.no_grad():
        for t, s in ((T, S), (S, (0.96, 0.28)), (S, (1.0, 0.0))):
            torch.testing.assert_close(compiled(x, o, t, s), step(x, o, t=t, s=s, eta=1.0, seed=3, threshold="dynamic"))


# ---- the quantile ----------------------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("D", [1, 2, 3, 64, 201, 1025])
@pytest.mark.parametrize("quantile", [0.0, 0.37, 0.5, 0.995, 1.0])
def test_the_bound_is_a_number_of_the_row_and_that_of_torch(run, D, quantile):
    """x0 = output, above 1 everywhere; x_s = x0 / s where |x0| <= s: so s is seen to the last bit.

    The rank is that of torch.quantile, interpolation "higher", in float64, and that of a sorted row.
    """
    x0 = (1 + numbers(5, D, seed=D).abs()) * numbers(5, D, seed=D + 1).sign()
    x0[:, D // 2] = x0[:, 0]  # two equals
    x0 = x0.float()
    with run.use():
        got = step(x0.to(run.device), x0.to(run.device), target="x0", threshold="dynamic", quantile=quantile,
                   s=(1.0, 0.0)).cpu()
    bound = torch.quantile(x0.abs().double(), quantile, 1, interpolation="higher")[:, None].float()
    assert torch.equal(bound[:, 0], x0.abs().sort(1).values[:, math.ceil(quantile * (D - 1))])
    assert torch.equal(got, x0.clamp(-bound, bound) / bound)


@everywhere
def test_a_row_within_one_keeps_its_numbers(run):
    """s is at least 1: where the quantile is below, the dynamic threshold is the static one."""
    x0 = numbers(6, 50).clamp(-0.9, 0.9).float()
    x0[:3, 7] = 4.0  # one number in 50 is above the quantile 0.9
    with run.use():
        both = [step(x0.to(run.device), x0.to(run.device), target="x0", threshold=how, quantile=0.9, s=(1.0, 0.0)).cpu()
                for how in ("static", "dynamic")]
    assert torch.equal(*both) and torch.equal(both[0], x0.clamp(-1, 1))


@everywhere
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_infinite_and_nan(run, dtype):
    """NaN counts as the largest: it stays in its place, or makes its row NaN where it has the rank."""
    inf, nan = math.inf, math.nan
    x0 = torch.tensor([[nan, 4, 0, -2], [nan, nan, 0, -2], [-inf, inf, 2, 0], [-inf, 4, 2, 0]], dtype=dtype)
    with run.use():
        got = step(torch.zeros_like(x0).to(run.device), x0.to(run.device), target="x0", threshold="dynamic",
                   quantile=0.5, s=(1.0, 0.0)).cpu()
    want = torch.tensor([[nan, 1, 0, -0.5], [nan] * 4, [nan, nan, 0, 0], [-1, 1, 0.5, 0]], dtype=dtype)
    torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)


def test_a_long_row_is_walked():
    """Rows longer than the registers of a program go the naive way, on the rung `held` too."""
    x0, options = numbers(1, 5000, scale=3).float(), dict(target="x0", threshold="dynamic")
    exact, want = (definition(x, x, **options) for x in (x0.double(), x0))
    for run in RUNS:
        with run.use(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(room, "LONGEST", 4096)
            fair(step(x0.to(run.device), x0.to(run.device), **options), exact, want, torch.float32)


# ---- laws ------------------------------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("target", ["eps", "x0", "v"])
def test_the_true_answer_leads_to_the_true_image(run, target):
    """With the eps that made x_t, a deterministic step lands on alpha_s x0 + sigma_s eps, in one step or two."""
    x0, eps = numbers(4, 9).to(run.device), numbers(4, 9, seed=1).to(run.device)
    truth = {"eps": lambda a, s: eps, "x0": lambda a, s: x0, "v": lambda a, s: a * eps - s * x0}[target]
    middle, end = (0.7, math.sqrt(1 - 0.7**2)), (0.96, 0.28)
    with run.use():
        x = T[0] * x0 + T[1] * eps
        once = step(x, truth(*T), t=T, s=end, target=target)
        twice = step(step(x, truth(*T), t=T, s=middle, target=target), truth(*middle), t=middle, s=end, target=target)
        image = step(x, truth(*T), t=T, s=(1.0, 0.0), target=target)
    for got, want in ((once, end[0] * x0 + end[1] * eps), (twice, once), (image, x0)):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-14)


@everywhere
def test_guidance_of_one_is_the_conditional_model_and_of_zero_the_other(run):
    x, o, u = (numbers(4, 9, seed=i).to(run.device) for i in range(3))
    with run.use():
        for weight, alone in ((1.0, o), (0.0, u)):
            torch.testing.assert_close(step(x, o, u, weight=weight), step(x, alone), rtol=0, atol=1e-14)


@everywhere
def test_eta_one_is_the_ancestral_step_of_ddpm(run):
    """Mean and variance of q(x_s | x_t, x0), in DDPM's own letters (Ho et al. 2020, eq. 6 and 7), of a seed's noise.

    The roundings: those of the noise, and of the numbers in float64.
    """
    x, x0 = numbers(5, 80), numbers(5, 80, seed=1)
    bar_t, bar_s = T[0] ** 2, S[0] ** 2
    alpha = bar_t / bar_s
    beta = 1 - alpha
    mean = bar_s**0.5 * beta / (1 - bar_t) * x0 + alpha**0.5 * (1 - bar_s) / (1 - bar_t) * x
    deviation = math.sqrt((1 - bar_s) / (1 - bar_t) * beta)
    eps = noise(torch.tensor(9), x)
    with run.use():
        drawn = step(x.to(run.device), x0.to(run.device), target="x0", eta=1.0, seed=9).cpu()
        given = step(x.to(run.device), x0.to(run.device), noise=eps.to(run.device), target="x0", eta=1.0).cpu()
    torch.testing.assert_close(given, mean + deviation * eps, rtol=0, atol=1e-14)
    assert is_noise((drawn - mean) / deviation, 9, others=1e-13)


@everywhere
@pytest.mark.parametrize("seed", [0, 2**32 + 5, 2**63 - 1])
@pytest.mark.parametrize("shape", [(7, 3), (1, 1300), (5, 64)], ids=str)
@each_threshold
def test_a_seed_draws_the_same_noise_everywhere(run, shape, seed, threshold):
    """x_s = noise where x = x0 = 0, but for its deviation."""
    zero, (*_, c) = torch.zeros(shape), room.numbers_of(*T, *S, "x0", 1.0, 1.0, 1.0)
    with run.use():
        got = step(zero.to(run.device), zero.to(run.device), target="x0", eta=1.0, seed=seed, threshold=threshold)
    assert is_noise(got, seed, c, ROUNDING[torch.float32] * MOST)  # the product's


def test_without_a_seed_torchs_generator_decides_and_eta_zero_takes_none():
    x = torch.ones(4, 5)
    torch.manual_seed(1)
    first, second = step(x, x, eta=1.0), step(x, x, eta=1.0)
    torch.manual_seed(1)
    assert torch.equal(step(x, x, eta=1.0), first) and not torch.equal(first, second)
    before = torch.get_rng_state()
    step(x, x), step(x, x, eta=1.0, s=(1.0, 0.0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("instructions", ["avx512", "avx2", "portable"])
@each_threshold
def test_the_cpu_gives_the_same_on_every_instruction_set_and_any_threads(instructions, threshold, monkeypatch):
    x, o, u = (numbers(40, 301, seed=i, scale=2).float() for i in range(3))
    options = dict(weight=3.0, threshold=threshold, quantile=0.9, eta=1.0)
    exact = definition(*(a.double() for a in (x, o, u)), exact_noise(4, *x.shape), **options)
    theirs = definition(x, o, u, noise(torch.tensor(4), x), **options)
    monkeypatch.setenv("GENMINI_CPU", instructions)
    before, found = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(step(x, o, u, seed=4, **options))
    torch.set_num_threads(before)
    assert torch.equal(*found)
    fair(found[0], exact, theirs, x.dtype)


def test_noise_can_be_taken_back():
    """A deterministic step to more noise and back again returns, where the network's answer is the same (inversion)."""
    x, eps = numbers(4, 9), numbers(4, 9, seed=1)
    torch.testing.assert_close(step(step(x, eps, t=S, s=T), eps), x, rtol=0, atol=1e-14)


# ---- the front door --------------------------------------------------------------------------------------------------

ONE = torch.ones(2, 3)


@pytest.mark.parametrize("change, kind, words", [
    (dict(output=ONE[:1]), ValueError, "output must have shape that of x"),
    (dict(output=ONE.long()), TypeError, "output must be of dtype"),
    (dict(x=torch.tensor(1.0)), ValueError, "x must have shape"),
    (dict(unconditional=ONE.T), ValueError, "unconditional must have shape that of x"),
    (dict(alpha_t=torch.tensor(0.6)), TypeError, "alpha_t must be a number, got Tensor"),
    (dict(alpha_t=math.nan), ValueError, "alpha_t must be finite"),
    (dict(sigma_s=-0.1), ValueError, "sigma_s must not be negative"),
    (dict(sigma_t=0.0), ValueError, "does not determine x0"),
    (dict(alpha_t=0.0), ValueError, "does not determine x0"),
    (dict(alpha_s=0.1, eta=1.0), ValueError, "s must not be noisier than t"),
    (dict(eta=1.5), ValueError, "eta must lie in 0 to 1"),
    (dict(quantile=1.5), ValueError, "quantile must lie in 0 to 1"),
    (dict(target="noise"), ValueError, "target must be 'eps', 'x0' or 'v'"),
    (dict(threshold="none"), ValueError, "threshold must be 'static' or 'dynamic'"),
    (dict(noise=ONE, seed=1), ValueError, "not both"),
    (dict(eta=1.0, seed=-1), ValueError, "seed must be"),
    (dict(x=ONE.clone().requires_grad_()), RuntimeError, "has no gradient"),
])
def test_errors(change, kind, words):
    arguments = dict(x=ONE, output=ONE, alpha_t=0.6, sigma_t=0.8, alpha_s=0.8, sigma_s=0.6) | change
    with pytest.raises(kind, match=words):
        ops.ddim_step(**arguments)


def test_an_input_that_requires_a_gradient_is_taken_where_none_is_recorded():
    with torch.no_grad():
        assert torch.equal(step(ONE.clone().requires_grad_(), ONE), step(ONE, ONE))


def test_autocast_computes_in_float32():
    with torch.autocast("cpu", torch.bfloat16):
        assert step(ONE.bfloat16(), ONE.bfloat16()).dtype == torch.float32
