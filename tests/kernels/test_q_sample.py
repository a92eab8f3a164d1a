"""Proofs and laws of the forward process of diffusion (kernels/q_sample.py)."""

import functools
import math

import pytest
import torch
from check import DTYPES, dtypes, gradient, laid_out, layouts, matches, numbers, opaque, registered, runs, scales, seeds
from genmini.kernels import q_sample as room
from hypothesis import given
from hypothesis import strategies as st
from noises import MOST, error_of_pytorch, exact_noise, is_noise

from genmini import ops

RUNS = runs("q_sample")
everywhere = pytest.mark.parametrize("run", RUNS, ids=str)
each_target = pytest.mark.parametrize("target", ["eps", "x0", "v"])
shapes = st.sampled_from([(0, 3), (3, 0), (40, 1), (33, 7), (20, 127), (3, 2, 5, 5), (2, 1300), (1, 4099)])


def schedule(T=50):
    """alpha, sigma (T,) in float64 of the cosine schedule."""
    angle = torch.linspace(0.01, 0.99, T, dtype=torch.float64) * math.pi / 2
    return angle.cos(), angle.sin()


def times(N, T=50, seed=0):
    return torch.randint(T, (N,), generator=torch.Generator().manual_seed(seed))


def of(t, target, table=None):
    """The operator and a textbook's definition at these times, functions of x0 and eps."""
    alpha, sigma = table or schedule()

    def definition(x0, eps):
        wide = torch.float64 if x0.dtype == torch.float64 else torch.float32
        each = (-1, *(1 for _ in x0.shape[1:]))
        a, s, x, e = alpha[t].to(wide).view(each), sigma[t].to(wide).view(each), x0.to(wide), eps.to(wide)
        y = {"eps": eps, "x0": x0, "v": (a * e - s * x).to(x0.dtype)}[target]
        return (a * x + s * e).to(x0.dtype), y

    def operator(x0, eps, seed=None):
        given = (a.to(x0.device) for a in (t, alpha, sigma))
        return ops.q_sample(x0, *given, eps, seed, target)

    return operator, definition


@everywhere
@each_target
@given(dtype=dtypes, shape=shapes, layout=layouts, scale=scales, seed=seeds)
def test_matches(run, target, dtype, shape, layout, scale, seed):
    x0, eps = numbers(*shape, seed=seed % 2**31, scale=scale), numbers(*shape, seed=seed % 2**31 + 1)
    operator, definition = of(times(shape[0], seed=seed), target)
    matches(run, operator, [laid_out(a, layout) for a in (x0, eps)], dtype, definition)


@everywhere
@each_target
def test_gradient(run, target):
    operator, _ = of(times(2), target)
    gradient(run, operator, [numbers(2, 3), numbers(2, 3, seed=1)])


@everywhere
def test_gradient_with_a_seed(run):
    operator, _ = of(times(2), "v")
    gradient(run, lambda x0: operator(x0, None, 5), [numbers(2, 3)])


@everywhere
def test_registered(run):
    operator, definition = of(times(3), "v")
    registered(run, operator, [numbers(3, 5), numbers(3, 5, seed=1)], (0, 1), plain=definition)


@everywhere
def test_registered_with_a_seed(run):
    operator, definition = of(times(3), "v")
    x0 = numbers(3, 5)
    with run.use():
        alpha, sigma = (torch.full((1,), float(v), device=run.device) for v in (0, 1))
        first = torch.zeros(3, dtype=torch.int64, device=run.device)
        eps = ops.q_sample(torch.zeros_like(x0).to(run.device), first, alpha, sigma, seed=7)[1]  # to the last bit
    registered(run, lambda x0: operator(x0, None, 7), [x0], (0,), plain=lambda x0: definition(x0, eps.to(x0)))


@everywhere
@pytest.mark.parametrize("target", ["none", "eps", "v"])
def test_opaque(run, target):
    x0, eps, t, alpha, sigma = (a.to(run.device) for a in (numbers(4, 6), numbers(4, 6, seed=1), times(4), *schedule()))
    seed, op = torch.tensor(3, device=run.device), torch.ops.genmini.q_sample.default
    opaque(op, (x0, t, alpha, sigma, None, seed, target, run.backend))
    if target != "eps":  # a given eps comes back as it is, from the front door
        opaque(op, (x0, t, alpha, sigma, eps, None, target, run.backend))


# ---- the noise -------------------------------------------------------------------------------------------------------


def drawn(run, N, D, seed, dtype=torch.float32):
    """The noise: x_t and its target where alpha = 0 and sigma = 1."""
    x0, t = torch.zeros(N, D, dtype=dtype, device=run.device), torch.zeros(N, dtype=torch.int64, device=run.device)
    alpha, sigma = torch.zeros(1, device=run.device), torch.ones(1, device=run.device)
    with run.use():
        x_t, eps = ops.q_sample(x0, t, alpha, sigma, seed=seed)
    assert torch.equal(x_t, eps)
    return eps.cpu()


@everywhere
@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 + 5, 2**63 - 1])
@pytest.mark.parametrize("shape", [(7, 3), (2, 1300), (130, 64), (1, 8195)], ids=str)
def test_a_seed_draws_the_same_noise_everywhere(run, shape, seed):
    assert is_noise(drawn(run, *shape, seed), seed) and is_noise(drawn(run, *shape, seed, torch.float64), seed)


@pytest.mark.parametrize("run", [run for run in RUNS if run.backend == "cpu"], ids=str)
@pytest.mark.parametrize("instructions", ["avx512", "avx2", "portable"])
def test_every_instruction_set_draws_it(run, instructions, monkeypatch):
    monkeypatch.setenv("GENMINI_CPU", instructions)
    for shape in ((7, 3), (33, 65), (1, 4099)):
        assert is_noise(drawn(run, *shape, 2**40 + 1), 2**40 + 1)


@everywhere
def test_a_number_of_the_noise_depends_on_seed_row_and_column_alone(run):
    """Not on how many rows and columns stand beside it, hence not on the tiles."""
    for D in (1, 2, 5, 1030):
        for N in (7, 1):
            assert is_noise(drawn(run, N, D, 9), 9)


@everywhere
@each_target
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_seed_gives_what_its_noise_gives(run, target, dtype):
    """x_t and the target of a seed are those of its noise, to the roundings of the noise and of the dtype."""
    x0, operator = numbers(9, 130).to(run.device, dtype), of(times(9), target)[0]
    eps = exact_noise(11, 9, 130).to(run.device)
    # the noise's coefficient is below 1; alpha, sigma and the two products are rounded to float32
    most = 2 * error_of_pytorch(11) + 2 * 2.0**-24 * (x0.abs().max().item() + MOST)
    with run.use():
        for got, want in zip(operator(x0, None, 11), operator(x0.double(), eps), strict=True):
            assert got.dtype == dtype
            torch.testing.assert_close(got.double(), want, rtol=torch.finfo(dtype).eps, atol=most)


def test_without_a_seed_torchs_generator_decides():
    x0, operator = torch.zeros(4, 5), of(times(4), "eps")[0]
    torch.manual_seed(1)
    first, second = operator(x0, None)[0], operator(x0, None)[0]
    torch.manual_seed(1)
    assert torch.equal(operator(x0, None)[0], first) and not torch.equal(first, second)


# ---- laws ------------------------------------------------------------------------------------------------------------


@everywhere
def test_marginals_are_those_of_the_closed_form(run):
    """x_t of one x0 has mean alpha x0 and deviation sigma, whatever t.

    The mean of M numbers of deviation s is off by s / M^(1/2), a variance s^2 by s^2 (2 / M)^(1/2); five of these.
    """
    (alpha, sigma), N, D = schedule(), 200, 64
    for t in (0, 25, 49):
        with run.use():
            x_t, _ = of(torch.full((N,), t), "eps")[0](torch.full((N, D), 0.7, device=run.device), None, t)
        z, M = (x_t.double() - alpha[t].item() * 0.7) / sigma[t].item(), N * D
        assert abs(z.mean()) < 5 / M**0.5 and abs(z.square().mean() - 1) < 5 * (2 / M) ** 0.5


@everywhere
@given(seed=seeds)
def test_each_target_gives_back_x0_and_eps(run, seed):
    """x0 and eps from x_t and a target: eps, x0 or v. In float64, off by some roundings of numbers below 1 / 0.015."""
    x0, eps, t = numbers(6, 10, seed=seed % 2**31), numbers(6, 10, seed=seed % 2**31 + 1), times(6, seed=seed)
    a, s = (table[t][:, None] for table in schedule())
    with run.use():
        for target in ("eps", "x0", "v"):
            x, y = (out.cpu() for out in of(t, target)[0](x0.to(run.device), eps.to(run.device)))
            back = {"eps": lambda x, y: ((x - s * y) / a, y), "x0": lambda x, y: (y, (x - a * y) / s),
                    "v": lambda x, y: (a * x - s * y, s * x + a * y)}[target]
            for got, want in zip(back(x, y), (x0, eps), strict=True):
                torch.testing.assert_close(got, want, rtol=0, atol=1e-13)


@everywhere
def test_v_is_a_rotation(run):
    """(x_t, v) is as long as (x0, eps)."""
    x0, eps = numbers(5, 8).to(run.device), numbers(5, 8, seed=1).to(run.device)
    with run.use():
        x, v = of(times(5), "v")[0](x0, eps)
    torch.testing.assert_close(x.square() + v.square(), x0.square() + eps.square(), rtol=1e-14, atol=1e-14)


@everywhere
def test_a_schedule_in_float64_is_rounded_once(run):
    """alpha of float64 times 1 is its nearest float32, not that of a table in float32 whose square root was taken."""
    alpha, sigma = schedule(1000)
    with run.use():
        t, x0 = torch.arange(1000, device=run.device), torch.ones(1000, 1, device=run.device)
        x_t, y = ops.q_sample(x0, t, alpha.to(run.device), sigma.to(run.device), torch.zeros_like(x0))
    assert torch.equal(x_t[:, 0].cpu(), alpha.float())


@everywhere
def test_a_target_that_is_an_argument_comes_back_as_it_is(run):
    x0, eps = numbers(5, 8).to(run.device), numbers(5, 8, seed=1).to(run.device)
    with run.use():
        assert of(times(5), "x0")[0](x0, None)[1] is x0 and of(times(5), "eps")[0](x0, eps)[1] is eps


@pytest.mark.parametrize("run", [run for run in RUNS if run.rung in (None, "fused")], ids=str)
def test_a_time_outside_the_schedule_reads_nothing(run):
    """On a GPU nothing checks t: its row is 0, and NaN stands around the table."""
    x0, t = numbers(5, 8).float(), torch.tensor([-1, 0, 3, 2**40, 2])
    around = torch.full((9,), math.nan, dtype=torch.float64)
    around[3:6] = torch.tensor([0.9, 0.8, 0.7], dtype=torch.float64)
    launcher = room.reference if run.backend == "reference" else functools.partial(room.launch, run.backend, run.rung)
    device = "cuda" if run.device == "cuda" else "cpu"
    arguments = (a.to(device) for a in (x0, t, around[3:6], around[3:6]))
    x_t, v = launcher(*arguments, torch.ones_like(x0).to(device), None, "v")
    assert (x_t[[0, 2, 3]] == 0).all() and (v[[0, 2, 3]] == 0).all()
    x, a = x0[[1, 4]].double(), torch.tensor([[0.9], [0.7]], dtype=torch.float64)
    within = 4 * 2**-24 * a * (x.abs() + 1)  # a, sigma = a, two products and their sum are rounded
    assert ((x_t[[1, 4]].cpu() - a * (x + 1)).abs() <= within).all()


@everywhere
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_infinite_and_nan(run, dtype):
    """They stay in their place."""
    x0 = torch.tensor([[math.inf, 0, 1], [0, math.nan, 1]], dtype=dtype, device=run.device)
    with run.use():
        x_t, v = of(torch.tensor([3, 4]), "v")[0](x0, torch.zeros_like(x0))
    assert x_t[0, 0] == math.inf and v[0, 0] == -math.inf and x_t[1, 1].isnan() and v[1, 1].isnan()
    assert x_t.isfinite().sum() == 4 and v.isfinite().sum() == 4


# ---- the front door --------------------------------------------------------------------------------------------------

ONE, TABLE = torch.ones(2, 3), torch.ones(4, dtype=torch.float64)
TIMES = torch.tensor([0, 3])


@pytest.mark.parametrize("arguments, kind, words", [
    ((ONE, TIMES[:1], TABLE, TABLE), ValueError, "t must have shape"),
    ((ONE, TIMES.float(), TABLE, TABLE), TypeError, "t must be of dtype"),
    ((ONE, TIMES + 1, TABLE, TABLE), ValueError, r"t must lie in 0 .. T-1 = 3, got values from 1 to 4"),
    ((ONE, -TIMES, TABLE, TABLE), ValueError, "t must lie in"),
    ((ONE, TIMES, TABLE, TABLE[:2]), ValueError, "sigma must have shape that of alpha"),
    ((ONE, TIMES, TABLE[None], TABLE), ValueError, "alpha must have shape"),
    ((ONE, TIMES, TABLE[:0], TABLE[:0]), ValueError, "at least one time"),
    ((ONE, TIMES, TABLE.half(), TABLE), TypeError, "alpha must be of dtype"),
    ((ONE, TIMES, TABLE.clone().requires_grad_(), TABLE), ValueError, "constants"),
    ((torch.tensor(1.0), TIMES, TABLE, TABLE), ValueError, "x0 must have shape"),
    ((ONE, TIMES, TABLE, TABLE, ONE[:1]), ValueError, "eps must have shape that of x0"),
    ((ONE, TIMES, TABLE, TABLE, ONE, 1), ValueError, "not both"),
    ((ONE, TIMES, TABLE, TABLE, None, -1), ValueError, "seed must be"),
    ((ONE, TIMES, TABLE, TABLE, None, 1, "noise"), ValueError, "target must be 'eps', 'x0' or 'v'"),
])
def test_errors(arguments, kind, words):
    with pytest.raises(kind, match=words):
        ops.q_sample(*arguments)


def test_autocast_computes_in_float32():
    with torch.autocast("cpu", torch.bfloat16):
        x_t, y = ops.q_sample(ONE.bfloat16(), TIMES, TABLE, TABLE)
    assert x_t.dtype == y.dtype == torch.float32
