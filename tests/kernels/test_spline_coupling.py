"""Proofs and laws of the spline coupling room (kernels/spline_coupling.py)."""

import math

import pytest
import torch
import torch.nn.functional as F
from check import (
    DTYPES,
    Run,
    edges,
    error,
    gradient,
    laid_out,
    layouts,
    matches,
    numbers,
    opaque,
    registered,
    runs,
    seeds,
)
from genmini.kernels import spline_coupling as room
from hypothesis import given
from hypothesis import strategies as st

from genmini import ops

RUNS = runs("spline_coupling")
everywhere = pytest.mark.parametrize("run", RUNS, ids=str)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
shapes = st.tuples(edges, st.sampled_from([0, 1, 2, 3, 17])) | st.tuples(st.integers(0, 3), edges) | st.tuples(edges)
B, LEAST = 5.0, 1e-3


def inputs(*shape, K=5, seed=0, scale=1.0):
    """x, of which some are beyond B, and w, in float64"""
    seed %= 2**31
    return [numbers(*shape, seed=seed, scale=3), numbers(*shape, 3 * K - 1, seed=seed + 1, scale=scale)]


def definition(x, w, inverse=False):
    """The equations of the paper, as they stand there: differentiable by autograd, but inaccurate where they cancel."""
    wide = room.sum_dtype(x.dtype)
    v, w, K = x.to(wide), w.to(wide), (w.shape[-1] + 1) // 3
    knots = []
    for a in w[..., : 2 * K].unflatten(-1, (2, K)).softmax(-1).unbind(-2):
        ends = F.pad(2 * B * (LEAST + (1 - K * LEAST) * a), (1, 0)).cumsum(-1) - B
        knots.append(torch.cat([ends[..., :-1], torch.full_like(ends[..., :1], B)], -1))
    slopes = F.pad(LEAST + F.softplus(w[..., 2 * K :] + math.log(math.expm1(1 - LEAST))), (1, 1), value=1)
    inside = ~((v < -B) | (v > B))
    v = torch.where(inside, v, 0)
    k = (v[..., None] >= knots[inverse][..., 1:-1]).sum(-1, keepdim=True)
    at = lambda of, k: of.gather(-1, k)[..., 0]
    (x0, y0), (x1, y1) = ([at(of, i) for of in knots] for i in (k, k + 1))
    d0, d1, s = at(slopes, k), at(slopes, k + 1), (y1 - y0) / (x1 - x0)
    if inverse:  # eq. 6-8
        a = (y1 - y0) * (s - d0) + (v - y0) * (d1 + d0 - 2 * s)
        b = (y1 - y0) * d0 - (v - y0) * (d1 + d0 - 2 * s)
        c = -s * (v - y0)
        t = 2 * c / (-b - (b * b - 4 * a * c).clamp_min(0).sqrt())
        y = t * (x1 - x0) + x0
    else:  # eq. 4
        t = (v - x0) / (x1 - x0)
        y = y0 + (y1 - y0) * (s * t * t + d0 * t * (1 - t)) / (s + (d1 + d0 - 2 * s) * t * (1 - t))
    slope = s * s * (d1 * t * t + 2 * s * t * (1 - t) + d0 * (1 - t) ** 2)  # eq. 5
    ln = slope.log() - 2 * (s + (d1 + d0 - 2 * s) * t * (1 - t)).log()
    ln = torch.where(inside, ln, 0).reshape(x.shape[0], math.prod(x.shape[1:])).sum(1, dtype=torch.float64).to(wide)
    return torch.where(inside, y.to(x.dtype), x), -ln if inverse else ln


OPERATORS = {
    "forward": (ops.spline_coupling, definition),
    "inverse": (ops.spline_coupling_inverse, lambda y, w: definition(y, w, inverse=True)),
}
each_operator = pytest.mark.parametrize("name", OPERATORS)


def gradients(operator, x, w, seed=7):
    x, w = x.detach().clone().requires_grad_(), w.detach().clone().requires_grad_()
    y, logdet = operator(x, w)
    along = numbers(*y.shape, seed=seed).to(y), numbers(*logdet.shape, seed=seed + 1).to(logdet)
    return y, logdet, *torch.autograd.grad((y, logdet), (x, w), along)


# ---- the common proofs -----------------------------------------------------------------------------------------------


@everywhere
@each_operator
@given(shape=shapes, dtype=st.sampled_from(DTYPES[:3]), layout=layouts, seed=seeds, K=st.sampled_from([2, 3, 8]))
def test_matches(run, name, shape, dtype, layout, seed, K):
    operator, plain = OPERATORS[name]
    matches(run, operator, [laid_out(a, layout) for a in inputs(*shape, K=K, seed=seed, scale=0.5)], dtype, plain)


@everywhere
@each_operator
@pytest.mark.parametrize("shape", [(0,), (5,), (3, 7), (2, 130), (1, 0), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("K", [2, 8, 33])
def test_float64_is_that_of_the_paper(run, name, shape, K):
    """To about 2^-40, as the paper's form cancels."""
    operator, plain = OPERATORS[name]
    x, w = (a.to(run.device) for a in inputs(*shape, K=K, seed=K))
    with run.use():
        ours = gradients(operator, x, w)
    for got, want in zip(ours, gradients(plain, x, w), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@everywhere
@each_operator
def test_gradient(run, name):
    gradient(run, OPERATORS[name][0], inputs(2, 3, K=3))


@everywhere
@each_operator
def test_registered(run, name):
    registered(run, OPERATORS[name][0], inputs(2, 3, K=3), argnums=(0, 1), plain=OPERATORS[name][1])


@everywhere
def test_opaque(run):
    x, w = (a.to(run.device) for a in inputs(3, 5))
    for inverse in (False, True):
        rest = B, LEAST, inverse, str(run.backend)
        opaque(torch.ops.genmini.spline_coupling.default, (x, w, *rest))
        opaque(torch.ops.genmini.spline_coupling_backward.default, (x, x[:, 0].contiguous(), x, w, *rest))


# ---- laws ------------------------------------------------------------------------------------------------------------


@everywhere
@each_dtype
def test_no_parameters_are_the_identity(run, dtype):
    x = numbers(4, 9, scale=3, dtype=dtype).to(run.device)
    with run.use():
        y, logdet = ops.spline_coupling(x, x.new_zeros(4, 9, 23))
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(y, x, rtol=2 * eps, atol=8 * B * torch.finfo(logdet.dtype).eps)
    assert (logdet.abs() <= 9 * 64 * torch.finfo(logdet.dtype).eps).all()


def least_slope(w):
    """A bound from below of the slopes anywhere: s^2 min / max^2 of (s, delta_k, delta_k+1), the worst bin."""
    *_, x, y, d = room.knots(w, B, LEAST)
    s = y.diff() / x.diff()
    three = torch.stack([s, d[..., :-1], d[..., 1:]])
    return (s.square() * three.amin(0) / three.amax(0).square()).amin()


@everywhere
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@given(seed=seeds, scale=st.sampled_from([0.3, 1.0, 2.0]), K=st.sampled_from([2, 8, 20]))
def test_inverse_undoes_forward(run, dtype, seed, scale, K):
    """Both see the same knots. y is off by some roundings of B, and x moves by at most that over the least slope; it
    has some of its own."""
    x, w = (a.to(run.device, dtype) for a in inputs(50, 2, K=K, seed=seed, scale=scale))
    with run.use():
        y, logdet = ops.spline_coupling(x, w)
        back, minus = ops.spline_coupling_inverse(y, w)
    assert ((y.abs() <= B) | (y == x)).all()
    eps = torch.finfo(dtype).eps
    within = 16 * eps * B * (1 + 1 / least_slope(w).item())
    torch.testing.assert_close(back, x, rtol=0, atol=within)
    if scale < 1 and dtype == torch.float64:
        torch.testing.assert_close(logdet, -minus, rtol=0, atol=1e-10)


@everywhere
@given(seed=seeds, K=st.sampled_from([2, 8]))
def test_increasing_and_exact_at_the_knots(run, seed, K):
    """Between knots y may fall by the roundings of a bin."""
    w = inputs(1, K=K, seed=seed, scale=2)[1].to(run.device)
    *_, x_k, y_k, _ = room.knots(w, B, LEAST)
    x = torch.cat([x_k[0], torch.linspace(-B - 1, B + 1, 400, dtype=x_k.dtype, device=x_k.device)]).sort().values
    with run.use():
        y, _ = ops.spline_coupling(x[:, None], w.expand(len(x), 1, -1))
        at_knots, _ = ops.spline_coupling(x_k[0][:, None], w.expand(K + 1, 1, -1))
        ends, logdet = ops.spline_coupling(x_k.new_tensor([[-B], [B]]), w.expand(2, 1, -1))
    assert (y[:, 0].diff() >= -8 * B * torch.finfo(y.dtype).eps).all()
    torch.testing.assert_close(at_knots[:, 0], y_k[0], rtol=0, atol=2**-45)
    assert ends.flatten().tolist() == [-B, B]
    assert logdet.abs().max() <= 2**-48


@everywhere
def test_logdet_is_that_of_the_jacobian(run):
    x, w = (a.to(run.device) for a in inputs(1, 6))
    with run.use():
        J = torch.func.jacrev(lambda x: ops.spline_coupling(x, w)[0])(x).reshape(6, 6)
        logdet = ops.spline_coupling(x, w)[1]
    assert torch.equal(J, J.diag().diag()) and (J.diag() > 0).all()
    torch.testing.assert_close(J.slogdet().logabsdet, logdet[0])


@everywhere
@each_operator
def test_beyond_the_bound_is_the_identity(run, name):
    x = torch.tensor([[-7.0, 5.1, math.inf, -math.inf]], dtype=torch.float64, device=run.device)
    w = inputs(1, 4)[1].to(run.device)
    with run.use():
        y, logdet, dx, dw = gradients(OPERATORS[name][0], x, w)
    assert torch.equal(y, x) and logdet.item() == 0 and not dw.any()
    assert torch.equal(dx, numbers(1, 4, seed=7).to(dx))


@everywhere
@each_operator
def test_nan_stays_in_its_element_and_its_row(run, name):
    x, w = (a.float().to(run.device) for a in inputs(4, 3))
    x[:] = x.clamp(-4, 4)
    x[0, 0], w[1, 1, 0], w[2, 2, 5], w[2, 0, 1] = math.nan, math.nan, math.inf, -math.inf
    with run.use():
        y, logdet, dx, dw = gradients(OPERATORS[name][0], x, w)
    bad = torch.zeros(4, 3, dtype=torch.bool, device=run.device)
    bad[0, 0] = bad[1, 1] = bad[2, 2] = True
    assert torch.equal(~y.isfinite(), bad) and torch.equal(~dx.isfinite(), bad)
    assert torch.equal(~logdet.isfinite(), bad.any(1)) and not dw[~bad].isnan().any()


@everywhere
@each_operator
@each_dtype
def test_huge_parameters(run, name, dtype):
    """+-1e4: widths and heights at their least, slopes from the least to 1e4. Results are finite, and x comes back as
    far as its slope allows."""
    x = numbers(40, 5, scale=2, dtype=dtype).to(run.device)
    w = (1e4 * numbers(40, 5, 23, seed=1).sign()).to(run.device, dtype)
    with run.use():
        found = gradients(OPERATORS[name][0], x, w)
    assert all(a.isfinite().all() for a in found[:2])
    assert dtype == torch.float16 or all(a.isfinite().all() for a in found)
    assert (found[0].abs() <= B).logical_or(x.abs() > B).all()


@everywhere
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@each_operator
def test_16_bits_are_computed_in_32(run, dtype, name):
    x, w = (a.to(run.device, dtype) for a in inputs(30, 3, scale=0.5))
    with run.use():
        ours = gradients(OPERATORS[name][0], x, w)
        wide = gradients(OPERATORS[name][0], x.float(), w.float())
    assert ours[1].dtype == torch.float32
    for got, want in zip(ours, wide, strict=True):
        assert error(got, want.to(got.dtype)) <= 2 * torch.finfo(got.dtype).eps * want.abs().max()


@pytest.mark.parametrize("run", [run for run in RUNS if run.backend != "reference"], ids=str)
def test_the_same_bits_wherever_the_numbers_lie(run):
    x, w = (a.float().to(run.device) for a in inputs(7, 3))
    with run.use():
        plain = gradients(ops.spline_coupling, x, w)
        for how in ("offset", "transposed", "strided"):
            moved = gradients(ops.spline_coupling, laid_out(x, how), laid_out(w, how))
            assert all(map(torch.equal, plain, moved))


@everywhere
@pytest.mark.parametrize("D", [1, 31, 33, 5000])
def test_logdet_is_summed_in_double(run, D):
    """The sum over d is off by what its terms are off, each by some roundings, and one rounding of its own."""
    x, w = (a.to(run.device) for a in inputs(2, D, K=2, seed=D, scale=0.5))
    with run.use():
        got = ops.spline_coupling(x.float(), w.float())[1].double()
        exact = ops.spline_coupling(x.float().double(), w.float().double())[1]
    each = 64 * 2.0**-24
    assert ((got - exact).abs() <= 2.0**-24 * exact.abs() + each * math.sqrt(D) * 4).all()


@pytest.mark.parametrize("instructions", ["avx512", "avx2", "portable"])
@pytest.mark.parametrize("shape", [(40, 7), (3, 1), (1, 1000)], ids=str)
@each_operator
def test_every_instruction_set(instructions, shape, name, monkeypatch):
    monkeypatch.setenv("GENMINI_CPU", instructions)
    operator, plain = OPERATORS[name]
    given = inputs(*shape, scale=0.5)
    matches(Run("cpu", None, "cpu"), operator, given, torch.float32, plain)
    for got, want in zip(gradients(operator, *given), gradients(plain, *given), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@everywhere
def test_autocast_computes_in_float32(run):
    x, w = (a.to(run.device, torch.bfloat16) for a in inputs(3, 4))
    with run.use(), torch.autocast(run.device, torch.bfloat16):
        y, logdet = ops.spline_coupling(x, w)
    assert y.dtype == logdet.dtype == torch.float32


def test_errors_name_the_argument():
    x, w = torch.zeros(2, 3), torch.zeros(2, 3, 8)
    with pytest.raises(ValueError, match=r"w must have shape that of x and 3K - 1 more = \(2, 3, 8\), got \(1, 3, 8\)"):
        ops.spline_coupling(x, w[:1])
    with pytest.raises(ValueError, match=r"w must have shape \(N, ..., 3K - 1\), K from 2 to 64, got \(2, 3, 7\)"):
        ops.spline_coupling(x, w[..., :7])
    with pytest.raises(TypeError, match="w must have the dtype of y, float32, got float64"):
        ops.spline_coupling_inverse(x, w.double())
    with pytest.raises(ValueError, match="bound must lie in 0.001 to 1000.0, got 0.0"):
        ops.spline_coupling(x, w, bound=0.0)
    with pytest.raises(ValueError, match=r"least must lie in 0.0001 to 0.1666\d*, got 0.5"):
        ops.spline_coupling(x, w, least=0.5)
    with pytest.raises(TypeError, match="x must be of dtype float32, float16, bfloat16 or float64, got int64"):
        ops.spline_coupling(x.long(), w)
    with pytest.raises(ValueError, match="w must be on the device of x, cpu, got meta"):
        ops.spline_coupling(x, w.to("meta"))


def test_meta_tensors_pass():
    y, logdet = ops.spline_coupling(torch.zeros(2, 3, device="meta"), torch.zeros(2, 3, 8, device="meta"))
    assert y.shape == (2, 3) and logdet.shape == (2,)
