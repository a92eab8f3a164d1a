"""Proofs and laws of a group norm with silu, its scale and its shift (kernels/group_norm_silu.py)."""

import math

import pytest
import torch
import torch.nn.functional as F
from check import DTYPES, error, fair, gradient, laid_out, layouts, matches, numbers, opaque, registered, runs, seeds
from hypothesis import example, given
from hypothesis import strategies as st

from genmini import ops

RUNS = runs("group_norm_silu")
everywhere = pytest.mark.parametrize("run", RUNS, ids=str)
kernels_alone = pytest.mark.parametrize("run", [run for run in RUNS if run.backend != "reference"], ids=str)
modulated = pytest.mark.parametrize("modulated", [False, True], ids=["plain", "modulated"])
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def definition(G, eps=1e-5):
    """What eager PyTorch writes, in the dtype that sums have."""

    def norm_silu(x, gamma, beta, scale=None, shift=None):
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        u = torch.group_norm(x.to(wide), G, gamma.to(wide), beta.to(wide), eps)
        if scale is not None:
            s, b = (a.to(wide).reshape(*a.shape, *(1 for _ in x.shape[2:])) for a in (scale, shift))
            u = (1 + s) * u + b
        return F.silu(u).to(x.dtype)

    return norm_silu


def operator(G, eps=1e-5):
    return lambda x, gamma, beta, scale=None, shift=None: ops.group_norm_silu(x, G, gamma, beta, scale, shift, eps)


def inputs(*shape, modulated=True, seed=0, scale=1.0):
    """x, gamma, beta and, if wanted, scale and shift, in float64"""
    N, C, *_ = shape
    sizes = (shape, (C,), (C,), *([(N, C)] * 2 if modulated else []))
    return [numbers(*size, seed=seed % 2**31 + i, scale=scale if i == 0 else 1.0) for i, size in enumerate(sizes)]


# Groups of at least nine numbers: around the edges of lanes and tiles, long ones, no image. Smaller groups are below:
# where z is nearly the same whatever x is, dx is a difference of nearly equal numbers.
SHAPES = [((0, 4, 3, 3), 2), ((2, 6, 5), 3), ((2, 18), 2), ((2, 4, 3, 11), 4), ((3, 8, 4, 4), 1),
          ((1, 2, 17, 2, 2), 1), ((9, 3, 3), 1), ((1, 2, 1030), 2), ((1, 3, 3001), 1)]


def all_of(f, given, device="cpu", dtype=torch.float64):
    """The output and all gradients, for a fixed gradient of the output"""
    moving = [a.to(device, dtype, copy=True).requires_grad_() for a in given]
    y = f(*moving)
    return [y, *torch.autograd.grad(y, moving, numbers(*y.shape, seed=7).to(y))]


anywhere = dict(shape=st.sampled_from(SHAPES), layout=layouts, seed=seeds, scale=st.sampled_from([1.0, 1e-3, 1e3]))


@everywhere
@modulated
@given(dtype=st.sampled_from(DTYPES[:3]), **anywhere)
@example(dtype=torch.float32, shape=((2, 4, 3, 11), 4), layout="contiguous", seed=2561, scale=1e-3)  # PyTorch is exact
@example(dtype=torch.float32, shape=((1, 2, 17, 2, 2), 1), layout="contiguous", seed=27, scale=1.0)  # by luck
def test_matches(run, modulated, dtype, shape, layout, seed, scale):
    shape, G = shape
    tensors = [laid_out(a, layout) for a in inputs(*shape, modulated=modulated, seed=seed, scale=scale)]
    matches(run, operator(G), tensors, dtype, definition(G))


@everywhere
@modulated
@given(**anywhere)
def test_float64_is_within_its_roundings(run, modulated, shape, layout, seed, scale):
    """64 roundings, for sums of up to 9003 numbers, relative to the largest number of each tensor"""
    shape, G = shape
    tensors = inputs(*shape, modulated=modulated, seed=seed, scale=scale)
    exact = all_of(definition(G), tensors)
    with run.use():
        found = all_of(operator(G), [laid_out(a, layout) for a in tensors], run.device)
    for got, want in zip(found, exact, strict=True):
        assert error(got, want) <= 64 * 2.0**-52 * (want.abs().max() if want.numel() else 1)


@everywhere
@modulated
def test_gradient(run, modulated):
    gradient(run, operator(1), inputs(1, 2, 3, modulated=modulated))


@everywhere
def test_registered(run):
    registered(run, operator(2), inputs(2, 4, 3), (0, 1, 2, 3, 4), plain=definition(2))


@everywhere
@modulated
def test_opaque(run, modulated):
    x, gamma, beta, *rest = (a.to(run.device) for a in inputs(3, 4, 6, modulated=modulated))
    rest = rest or [None, None]
    opaque(torch.ops.genmini.group_norm_silu.default, (x, gamma, beta, *rest, 2, 1e-5, run.backend))
    with run.use():
        _, stats = torch.ops.genmini.group_norm_silu.default(x, gamma, beta, *rest, 2, 1e-5, run.backend)
    opaque(torch.ops.genmini.group_norm_silu_backward.default, (x, x, gamma, beta, *rest, stats, 2, 1e-5, run.backend))


@everywhere
@each_dtype
def test_channels_last_gives_the_same_bits(run, dtype):
    x, *rest = (a.to(run.device, dtype) for a in inputs(2, 8, 5, 3))
    last = x.to(memory_format=torch.channels_last)
    with run.use():
        assert torch.equal(operator(2)(x, *rest), operator(2)(last, *rest))


@everywhere
def test_without_pixels_or_images_gradients_are_0(run):
    for shape in ((0, 4, 3), (2, 4, 0)):
        given = [a.to(run.device).requires_grad_() for a in inputs(*shape)]
        with run.use():
            found = torch.autograd.grad(operator(2)(*given).sum(), given)
        assert all(d.shape == a.shape and not d.any() for d, a in zip(found, given, strict=True))


# ---- cruel groups ----------------------------------------------------------------------------------------------------


@kernels_alone
@pytest.mark.parametrize("shape", [(3, 6, 11), (2, 4, 8, 8), (1, 2, 1500)], ids=str)
def test_an_offset_costs_no_digits(run, shape):
    """x = 10,000 + 0.01 noise in float32, whose neighbours there are 0.001 apart, is normalised as well as x - 10,000.

    E x^2 - (E x)^2 is wrong there by 1e8 * 2^-24 = 6, at a variance of 1e-4; a mean in float32 by 5e-4, a twentieth of
    the deviation. The kernels subtract both parts of the mean exactly; what is left are roundings of sums and of sigma.
    """
    x, gamma, beta = (a.float() for a in inputs(*shape, modulated=False))
    x = 1e4 + 0.01 * x
    variance = x.flatten(1).square().mean(1) - x.flatten(1).mean(1).square()
    assert (variance - x.double().flatten(1).var(1)).abs().max() > 1e-2, "one pass would do"
    given = [a.requires_grad_() for a in (x, gamma, beta)]
    exact = definition(2)(*[a.double() for a in given])
    with run.use():
        moving = [a.detach().to(run.device).requires_grad_() for a in given]
        y = operator(2)(*moving)
        found = torch.autograd.grad(y, moving, torch.ones_like(y).cumsum(-1))
    wanted = torch.autograd.grad(exact, given, torch.ones_like(exact).cumsum(-1))
    for got, want in zip((y, *found), (exact, *wanted), strict=True):
        assert error(got, want.double()) <= 32 * 2**-24 * want.abs().max()


@kernels_alone
@pytest.mark.parametrize("value", [0.0, 3.3, 1e4, -7e5])
def test_a_constant_group_is_0(run, value):
    """z = 0, y = silu(beta): and dx = r (w du - mean), r = eps^(-1/2), within roundings of r |w du|"""
    x = torch.full((2, 4, 3, 7), value)
    gamma, beta, dy = (numbers(*size, seed=i).float() for i, size in enumerate(((4,), (4,), x.shape)))
    with run.use():
        moving = x.to(run.device).requires_grad_()
        y = operator(2)(moving, gamma.to(run.device), beta.to(run.device))
        (dx,) = torch.autograd.grad(y, moving, dy.to(run.device))
    b = beta.double().requires_grad_()
    (slope,) = torch.autograd.grad(F.silu(b).sum(), b)
    dz = ((gamma * slope)[:, None, None] * dy).view(2, 2, -1)
    torch.testing.assert_close(y.cpu(), F.silu(beta)[:, None, None].expand_as(x), rtol=2**-21, atol=0)
    want = ((dz - dz.mean(2, keepdim=True)) * 1e5**0.5).view_as(x)
    assert error(dx, want) <= 8 * 2**-24 * 1e5**0.5 * dz.abs().max()


@everywhere
@each_dtype
def test_a_group_of_one_number_is_0(run, dtype):
    """One pixel, one channel a group: y = silu((1 + s) beta + b) to two roundings, dx = 0 to one of r w du."""
    given = [a.to(run.device, dtype).requires_grad_() for a in inputs(3, 4)]
    with run.use():
        y = operator(4)(*given)
        dx, dgamma, *_ = torch.autograd.grad(y.sum(), given)
    x, gamma, beta, s, b = (a.detach().double() for a in given)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), F.silu((1 + s) * beta + b), rtol=4 * eps, atol=4 * eps)
    assert dx.abs().max() <= torch.finfo(torch.promote_types(dtype, torch.float32)).eps * 1e5**0.5 * 8
    assert not dgamma.any()


@everywhere
@each_dtype
def test_infinite_and_nan_as_in_pytorch(run, dtype):
    """NaN or infinity in x makes its group NaN; in gamma and beta their channel; u = -inf gives NaN, u = inf inf."""
    given = [a.to(dtype) for a in inputs(4, 8, 3, 3)]
    x, gamma, _, _, shift = given
    x[0, 0, 1, 1], x[1, 7, 0, 0], x[1, 2, 2, 2] = math.nan, math.inf, -math.inf
    gamma[5] = math.nan
    shift[2, 0], shift[2, 2], shift[3, 3] = math.inf, -math.inf, math.inf

    with run.use():
        found = all_of(operator(4), given, run.device, dtype)
    exact, wanted = (all_of(definition(4), given, dtype=of) for of in (torch.float64, dtype))
    for got, truth, want in zip(found, exact, wanted, strict=True):
        got = got.cpu()
        assert torch.equal(got.isnan(), want.isnan()) and torch.equal(got.isinf(), want.isinf())
        got, truth, want = (a[want.isfinite()] for a in (got, truth, want))
        if dtype in (torch.float32, torch.float64):  # sums of up to 36 numbers
            assert error(got, truth) <= 18 * torch.finfo(dtype).eps * truth.abs().max()
        else:
            fair(got, truth, want, dtype)


# ---- laws ------------------------------------------------------------------------------------------------------------


@everywhere
@given(seed=seeds, eps=st.sampled_from([0.0, 1e-5, 0.1]))
def test_groups_have_mean_0_and_nearly_variance_1(run, seed, eps):
    """silu(u) = u to e^-90 around u = 100: there y - 100 is z, of variance v / (v + eps)."""
    x = numbers(2, 6, 5, 7, seed=seed % 2**31, scale=3).to(run.device)
    one = torch.ones(6, dtype=torch.float64, device=run.device)
    with run.use():
        z = (operator(2, eps)(x, one, 100 * one) - 100).view(2, 2, -1)
    v = x.view(2, 2, -1).var(2, correction=0)
    assert z.mean(2).abs().max() < 1e-13
    torch.testing.assert_close(z.var(2, correction=0), v / (v + eps), rtol=1e-12, atol=0)


@everywhere
@given(seed=seeds, offset=st.sampled_from([-100.0, 0.5, 3.0]), factor=st.sampled_from([0.01, 3.0, 1000.0]))
def test_offset_and_scale_of_a_group_change_nothing(run, seed, offset, factor):
    """y(factor x + offset, factor^2 eps) = y(x, eps), also where each group has its own offset."""
    x, *rest = (a.to(run.device) for a in inputs(2, 6, 4, 4, seed=seed))
    each = 1 + torch.arange(3, device=run.device).repeat_interleave(2).view(1, 6, 1, 1)
    with run.use():
        y = operator(3, 1e-3)(x, *rest)
        moved = operator(3, 1e-3 * factor**2)(factor * x + offset * each, *rest)
    # both times the mean and the variance of 32 numbers are off by 34 roundings each, and z, enlarged, by those of x
    r = (x.view(2, 3, -1).var(2, correction=0) + 1e-3).rsqrt().max()
    gamma, _, s, _ = rest
    size = (x.abs().max() + 3 * abs(offset) / factor) * r * (gamma * (1 + s)).abs().max()
    torch.testing.assert_close(moved, y, rtol=0, atol=4 * 34 * 2**-53 * size.item())


@everywhere
@given(seed=seeds)
def test_the_gradient_moves_neither_the_mean_nor_the_scale(run, seed):
    """What the output does not depend on has no gradient: with eps = 0, sum dx = 0 and sum dx z = 0 of each group."""
    x, *rest = (a.to(run.device) for a in inputs(2, 6, 4, 4, seed=seed))
    x.requires_grad_()
    with run.use():
        (dx,) = torch.autograd.grad(operator(3, 0.0)(x, *rest), x, numbers(*x.shape, seed=1).to(run.device))
    dx, groups = dx.view(2, 3, -1), x.detach().view(2, 3, -1)
    bound = 1e-13 * dx.abs().amax(2) * groups.shape[2]
    assert (dx.sum(2).abs() <= bound).all()
    assert ((dx * (groups - groups.mean(2, keepdim=True))).sum(2).abs() <= bound * groups.abs().amax(2)).all()


@everywhere
def test_groups_and_images_stand_apart(run):
    x, *rest = (a.to(run.device) for a in inputs(3, 6, 4))
    x.requires_grad_()
    with run.use():
        (dx,) = torch.autograd.grad(operator(3)(x, *rest)[1, 2:4].square().sum(), x)
    assert dx[1, 2:4].all()
    dx[1, 2:4] = 0
    assert not dx.any()


@everywhere
def test_scale_and_shift_are_another_gamma_and_beta(run):
    x, gamma, beta, s, b = (a.to(run.device) for a in inputs(1, 6, 5))
    with run.use():
        torch.testing.assert_close(operator(2)(x, gamma, beta, s, b),
                                   operator(2)(x, (1 + s[0]) * gamma, (1 + s[0]) * beta + b[0]), rtol=0, atol=1e-14)
        zero = torch.zeros_like(s)
        assert torch.equal(operator(2)(x, gamma, beta, zero, zero), operator(2)(x, gamma, beta))


# ---- one order of every sum ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("instructions", ["avx512", "avx2", "portable"])
@pytest.mark.parametrize("shape", [(40, 16, 7, 7), (300, 130, 1), (2, 4, 2500)], ids=str)
def test_the_cpu_gives_the_same_on_any_threads_and_nearly_on_every_instruction_set(instructions, shape, monkeypatch):
    monkeypatch.setenv("GENMINI_CPU", instructions)
    given, before, found = [a.float().requires_grad_() for a in inputs(*shape)], torch.get_num_threads(), []
    along = numbers(*shape, seed=9).float()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        y = operator(2)(*given)
        found.append([y, *torch.autograd.grad(y, given, along)])
    torch.set_num_threads(before)
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
    exact = [a.detach().double().requires_grad_() for a in given]
    y = definition(2)(*exact)
    for got, want in zip(found[0], (y, *torch.autograd.grad(y, exact, along.double())), strict=True):
        assert error(got, want) <= 64 * 2**-24 * want.abs().max()


# ---- the front door --------------------------------------------------------------------------------------------------

X, C4 = torch.ones(2, 4, 3), torch.ones(4)


@pytest.mark.parametrize("arguments, kind, words", [
    ((X, 3, C4, C4), ValueError, "groups must divide the channels of x, got 3 groups of 4 channels"),
    ((X, 0, C4, C4), ValueError, "groups must be a number of groups of channels, 1 to 4, got 0"),
    ((X, 2.0, C4, C4), TypeError, "groups must be an int"),
    ((C4, 1, C4, C4), ValueError, "x must have shape"),
    ((X.long(), 2, C4, C4), TypeError, "x must be of dtype"),
    ((X, 2, C4[:2], C4), ValueError, r"gamma must have shape .* = \(4,\), got \(2,\)"),
    ((X, 2, C4, X), ValueError, "beta must have shape"),
    ((X, 2, C4, C4.double()), TypeError, "beta must have the dtype of x"),
    ((X, 2, C4, C4, X[:, :, 0]), TypeError, "shift must be a tensor, got NoneType"),
    ((X, 2, C4, C4, X, X), ValueError, r"scale must have shape \(N, C\) of x = \(2, 4\)"),
    ((X, 2, C4, C4, None, None, -1.0), ValueError, "eps must not be negative"),
    ((X, 2, C4, C4, None, None, math.nan), ValueError, "eps must be finite"),
])
def test_errors(arguments, kind, words):
    with pytest.raises(kind, match=words):
        ops.group_norm_silu(*arguments)


def test_autocast_computes_in_float32():
    with torch.autocast("cpu", torch.bfloat16):
        assert operator(2)(X.bfloat16(), C4, C4).dtype == torch.float32
