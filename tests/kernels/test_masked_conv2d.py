"""Proofs and laws of PixelCNN's masked convolution (kernels/masked_conv2d.py)."""

import math
import mmap

import pytest
import torch
import torch.nn.functional as F
from check import (
    dtypes,
    gradient,
    laid_out,
    layouts,
    matches,
    numbers,
    one_rounding,
    opaque,
    registered,
    runs,
    seeds,
    to,
)
from genmini.kernels import _masked_conv2d_cpu
from genmini.kernels import masked_conv2d as room
from genmini.kernels._live_taps import mask
from hypothesis import given
from hypothesis import strategies as st

from genmini import ops

RUNS = runs("masked_conv2d")
KERNELS = [run for run in RUNS if run.rung]
everywhere = pytest.mark.parametrize("run", RUNS, ids=str)
# rungs share the code around their kernels, so one rung a backend is enough
of_backends = pytest.mark.parametrize("run", [run for run in RUNS if run.rung != "naive"], ids=str)
in_kernels = pytest.mark.parametrize("run", KERNELS, ids=str)
kinds = pytest.mark.parametrize("kind", ["A", "B"])
filters = st.sampled_from([(1, 1), (3, 3), (3, 5), (5, 3), (5, 5), (7, 1), (1, 7)])


def inputs(N=2, C=3, O=5, H=4, W=5, kh=3, kw=3, kind="A", colours=1, seed=0, scale=1.0):
    x, weight, bias = (numbers(N, C, H, W, seed=seed, scale=scale), numbers(O, C, kh, kw, seed=seed + 1),
                       numbers(O, seed=seed + 2))
    return [x, weight, bias, kind, colours]


def forward_and_gradients(x, weight, bias, kind, colours, dy=None):
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    y = ops.masked_conv2d(x, weight, bias, kind, colours)
    return y.detach(), *torch.autograd.grad(y, (x, weight), torch.ones_like(y) if dy is None else dy)


def plain_gradients(x, weight, dy):
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    y = F.conv2d(x, weight, padding=(weight.shape[2] // 2, weight.shape[3] // 2))
    return y.detach(), *torch.autograd.grad(y, (x, weight), dy)


# ---- the common proofs -----------------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 40, 66, 5, 7, 3, 5, "B", 3), (2, 17, 40, 7, 6, 3, 3, "A", 1)], ids=str)
def test_matches(run, shape, dtype):
    matches(run, ops.masked_conv2d, inputs(*shape, seed=3), dtype, room.reference)


@pytest.mark.parametrize("split, in_turn", [(False, False), (True, False), (True, True), (False, True)])
@pytest.mark.parametrize("C, O, kh, kw, kind, colours",
                         [(6, 5, 3, 3, "A", 1), (3, 6, 5, 3, "B", 3), (7, 3, 7, 7, "B", 1), (5, 2, 5, 1, "A", 1)])
def test_matches_in_each_form_of_a_cpu(split, in_turn, C, O, kh, kw, kind, colours, monkeypatch):
    """Two convolutions are worth it where many channels meet, some images after the other where they are many, but both
    are right everywhere; for images of one pixel, too."""
    (run,) = [run for run in RUNS if run.backend == "cpu"]
    monkeypatch.setattr(_masked_conv2d_cpu, "split", lambda *_: split)
    if in_turn:
        for name in ("MANY", "COLUMNS"):
            monkeypatch.setattr(_masked_conv2d_cpu, name, 1)
    caches = _masked_conv2d_cpu.parts, _masked_conv2d_cpu.way
    for cache in caches:
        cache.cache_clear()
    try:
        for H, W in ((5, 6), (1, 1)):
            matches(run, ops.masked_conv2d, inputs(3, C, O, H, W, kh, kw, kind, colours), torch.float32, room.reference)
    finally:
        for cache in caches:
            cache.cache_clear()


@everywhere
def test_matches_where_the_sum_of_dw_is_cut_into_chunks(run):
    matches(run, ops.masked_conv2d, inputs(1, 2, 3, 46, 47, 1, 1, "B", 2, seed=4), torch.float32, room.reference)


@everywhere
def test_matches_without_bias_and_with_expanded_tensors(run):
    x, weight, _, *rest = inputs(3, 4, 5)
    expanded = [x[:1].expand(x.shape), weight[:, :1].expand(weight.shape)]
    without_bias = lambda operator: lambda x, w, *a: operator(x, w, None, *a)
    matches(run, without_bias(ops.masked_conv2d), [*expanded, *rest], torch.float32, without_bias(room.reference))


@everywhere
@given(data=st.data(), taps=filters, kind=st.sampled_from("AB"), layout=layouts | st.just("channels last"), seed=seeds)
def test_within_the_rounding_of_its_sums(run, data, taps, kind, layout, seed):
    """A sum of n products in any order is off by at most n 2^-24 (float64: n 2^-53) times the sum of their sizes.

    It is rounded once more. PyTorch on a CPU rounds 16-bit numbers more often: there the reference is compared with
    PyTorch alone (test_matches).
    """
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]) if run.rung is None else dtypes)
    N, H, W = data.draw(st.tuples(st.sampled_from([0, 1, 2]), st.sampled_from([1, 2, 5]), st.sampled_from([1, 3, 7])))
    kh, kw = taps
    C, O = data.draw(st.tuples(*[st.sampled_from([1, 2, 3, 15, 16, 17, 33])] * 2))
    colours, scale = data.draw(st.sampled_from([1, 1, 2, 3, min(C, O)])), data.draw(st.sampled_from([1.0, 1e-3, 1e2]))
    colours = min(colours, C, O)
    x, weight, bias, *_ = inputs(N, C, O, H, W, kh, kw, seed=seed, scale=scale)
    x, weight, bias, dy = (a.to(dtype) for a in (x, weight, bias, numbers(N, O, H, W, seed=9)))
    live = mask(O, C, kh, kw, kind, colours).double()
    if N:
        exact = plain_gradients(x.double(), weight.double() * live, dy.double())
        sizes = plain_gradients(x.double().abs(), weight.double().abs() * live, dy.double().abs())
    else:
        exact = sizes = [torch.zeros(a.shape, dtype=torch.float64) for a in (dy, x, weight)]
    exact, sizes = [list(three) for three in (exact, sizes)]
    exact[0], sizes[0] = exact[0] + bias.double()[:, None, None], sizes[0] + bias.double().abs()[:, None, None]
    exact[2], sizes[2] = exact[2] * live, sizes[2] * live
    with run.use():
        place = lambda a: (a.contiguous(memory_format=torch.channels_last) if layout == "channels last"
                           else laid_out(a, layout))
        tensors = [a.to(run.device) for a in (*map(place, (x, weight)), laid_out(bias, "strided"))]
        found = forward_and_gradients(*tensors, kind, colours, dy.to(run.device))
    u = 2.0**-53 if dtype == torch.float64 else 2.0**-24
    for got, truth, size, terms in zip(found, exact, sizes, (C * kh * kw + 3, O * kh * kw + 2, N * H * W + 2),
                                       strict=True):
        assert got.dtype == dtype and got.shape == truth.shape
        within = (2 if dtype == torch.float64 else 1) * terms * u * size + one_rounding(truth, dtype)
        assert ((got.cpu().double() - truth).abs() <= within).all()


@of_backends
@pytest.mark.parametrize("shape", [(1, 1, 2, 2, 1, 3, 1, "B", 1), (1, 2, 2, 1, 2, 1, 3, "A", 2)], ids=str)
def test_gradient(run, shape):
    *tensors, kind, colours = inputs(*shape)
    gradient(run, lambda x, w, b: ops.masked_conv2d(x, w, b, kind, colours), tensors)


@of_backends
def test_registered(run):
    registered(run, ops.masked_conv2d, inputs(1, 2, 2, 2, 1, 3, 1, "A", 2), argnums=(0, 1, 2), plain=room.reference)


@of_backends
def test_opaque(run):
    x, weight, bias, kind, colours = to(run, None, inputs(2, 3, 4, 3, 3, 3, 3, "A", 3))
    request = ":".join(filter(None, (run.backend, run.rung)))
    dy = numbers(2, 4, 3, 3).to(run.device)
    for image in (x, x.contiguous(memory_format=torch.channels_last)):
        opaque(torch.ops.genmini.masked_conv2d.default, (image, weight, bias, kind, colours, request))
    opaque(torch.ops.genmini.masked_conv2d_turned.default, (dy, weight, kind, colours, request))
    opaque(torch.ops.genmini.masked_conv2d_dw.default, (dy, x, 3, 3, kind, colours, request))
    opaque(torch.ops.genmini.masked_conv2d_backward.default, (dy, x, weight, kind, colours, request))


# ---- laws: the mask --------------------------------------------------------------------------------------------------


def may_see(o, h, w, c, h_, w_, kind, colours, O, C, kh, kw):
    """A filter sees the earlier pixels within reach, and in its pixel the earlier colours (kind "B": the same too)."""
    if abs(h - h_) > kh // 2 or abs(w - w_) > kw // 2:
        return False
    if (h_, w_) != (h, w):
        return (h_, w_) < (h, w)
    mine, its = math.floor(o * colours / O), math.floor(c * colours / C)
    return mine > its or (kind == "B" and mine == its)


@everywhere
@kinds
@pytest.mark.parametrize("C, O, colours, kh, kw",
                         [(1, 2, 1, 7, 7), (3, 3, 3, 3, 3), (4, 5, 3, 5, 3), (3, 2, 1, 1, 7), (3, 3, 3, 1, 1)])
def test_the_receptive_field_is_exactly_the_past(run, kind, C, O, colours, kh, kw):
    H, W = 3, 4
    _, weight, *_ = to(run, None, inputs(1, C, O, H, W, kh, kw))
    pixels = torch.eye(C * H * W, dtype=torch.float64, device=run.device).view(C * H * W, C, H, W)
    with run.use():
        jacobian = ops.masked_conv2d(pixels, weight, None, kind, colours).flatten(1).T.cpu()  # (O H W, C H W)
    outs, ins = ([(a, h, w) for a in range(channels) for h in range(H) for w in range(W)] for channels in (O, C))
    allowed = torch.tensor([[may_see(*out, *in_, kind, colours, O, C, kh, kw) for in_ in ins] for out in outs])
    assert torch.equal(jacobian != 0, allowed)


@everywhere
def test_a_net_of_one_a_and_then_b_is_autoregressive_in_pixels_and_colours(run):
    C, hidden, H, W = 3, 6, 2, 3
    first, middle, last = (numbers(*shape, 3, 3, seed=i).to(run.device)
                           for i, shape in enumerate(((hidden, C), (hidden, hidden), (C, hidden))))

    def net(x):
        features = ops.masked_conv2d(x, first, None, "A", C).tanh()
        features = ops.masked_conv2d(features, middle, None, "B", C).tanh()
        return ops.masked_conv2d(features, last, None, "B", C)

    with run.use():
        jacobian = torch.func.jacrev(net)(numbers(1, C, H, W).to(run.device))
    # pixel by pixel, colour by colour
    order = jacobian.reshape(C, H * W, C, H * W).permute(1, 0, 3, 2).reshape(C * H * W, C * H * W).cpu()
    assert torch.equal(order != 0, (order != 0).tril(-1))
    sees_the_one_before = order.diagonal(-1) != 0
    assert torch.equal(sees_the_one_before, torch.arange(1, C * H * W) % (C * W) != 0)  # but for the first of each row


@everywhere
@kinds
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_dead_weights_are_never_seen(run, kind, poison):
    x, weight, bias, *rest = to(run, None, inputs(2, 5, 6, 4, 4, 5, 3, kind, 3))
    dead = ~mask(6, 5, 5, 3, kind, 3, run.device)
    with run.use():
        clean = forward_and_gradients(x, weight.masked_fill(dead, 0), bias, *rest)
        seen = forward_and_gradients(x, weight.masked_fill(dead, poison), bias, *rest)
    assert all(torch.equal(a, b) for a, b in zip(clean, seen, strict=True))
    assert (seen[2][dead] == 0).all() and seen[2][~dead].all()


@everywhere
def test_what_is_not_finite_reaches_all_that_may_see_it_and_no_dead_gradient(run):
    x, weight, bias, *rest = to(run, None, inputs(2, 3, 3, 4, 4, 3, 3, "B", 1))
    x[1, 2, 1, 2] = math.nan
    with run.use():
        y, _, dw = forward_and_gradients(x, weight, bias, *rest)
    sees = torch.zeros(4, 4, dtype=torch.bool, device=run.device)
    sees[1, 2:] = sees[2, 1:] = True
    assert y[1, :, sees].isnan().all() and y[0].isfinite().all()
    if run.rung == "taps":  # the others multiply what a dead tap would see by 0
        assert y[1, :, ~sees].isfinite().all()
    assert (dw[~mask(3, 3, 3, 3, "B", 1, run.device)] == 0).all()


@everywhere
def test_a_kernel_with_no_live_tap_gives_the_bias(run):
    x, weight, bias, *rest = to(run, None, inputs(2, 3, 5, 4, 4, 1, 1, "A", 1))
    with run.use():
        y, dx, dw = forward_and_gradients(x, weight * math.nan, bias, *rest)
    assert torch.equal(y, bias[:, None, None].expand_as(y)) and not dx.any() and not dw.any()


# ---- laws: the kernels -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(len(KERNELS) < 2, reason="needs two rungs")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@kinds
def test_leaving_dead_taps_out_changes_no_bit(dtype, kind):
    found = []
    for run in KERNELS:
        with run.use():
            found.append([a.cpu()
                          for a in forward_and_gradients(*to(run, dtype, inputs(2, 40, 33, 5, 5, 3, 3, kind, 2)))])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.skipif(not any(run.backend == "emulated" for run in RUNS), reason="counts the interpreter's products")
@pytest.mark.parametrize("kh, kw, kind, colours, T", [(3, 3, "A", 1, 4), (3, 3, "A", 3, 5), (5, 3, "B", 1, 8),
                                                      (1, 1, "A", 1, 0), (1, 7, "B", 3, 4)])
def test_a_dead_tap_costs_no_product(kh, kw, kind, colours, T, monkeypatch):
    from triton.runtime import interpreter

    steps, dot = [], interpreter.InterpreterBuilder.create_dot
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", lambda *a: steps.append(1) or dot(*a))
    # 81 pixels: 2 tiles of 64; 40 channels: 2 steps of 32; 70: 2 tiles of 64 or 3 steps of 32
    N, C, O, H, W = 1, 40, 70, 9, 9
    x, weight, dy = (torch.ones(*shape) for shape in ((N, C, H, W), (O, C, kh, kw), (N, O, H, W)))
    for rung, taps in (("taps", T), ("naive", kh * kw)):
        for expected, launch in (
            (2 * 2 * 2 * taps, lambda rung=rung: room.launch(rung, x, weight, None, kind, colours, False)),
            (2 * 1 * 3 * taps, lambda rung=rung: room.launch(rung, dy, weight, None, kind, colours, True)),
            # dw: 3 steps of 32 pixels, 2 tiles (64, 64), each tap
            (3 * 2 * taps, lambda rung=rung: room.launch_dw(rung, dy, x, kh, kw, kind, colours)),
        ):
            steps.clear()
            launch()
            assert len(steps) == expected, rung


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("P", [2147450923, 2**31 - 2**16 - 1, 2**31 - 2**16, 2**31 - 4097])
def test_pixels_are_numbered_in_32_bits_only_where_chunks_end_below_2_to_31(P, dtype, monkeypatch):
    """A chunk begins at chunk * CHUNK and ends at that + CHUNK, before the minimum with P. Nothing is launched."""
    launched = {}

    class Recorded:
        def __getitem__(self, grid):
            return lambda *arguments, INDEX, **_: launched.update(grid=grid, CHUNK=arguments[10], INDEX=INDEX)

    monkeypatch.setattr(room, "correlate", Recorded())
    image = torch.zeros(1, 1, 1, 1, dtype=dtype).expand(P, 1, 1, 1)
    room.launch_dw("naive", image, image, 1, 1, "B", 1)
    chunks = launched["grid"][2]
    assert chunks * launched["CHUNK"] >= P, "the chunks hold all pixels"
    assert launched["INDEX"] == room.tl.int64 or chunks * launched["CHUNK"] < 2**31


@in_kernels
def test_the_same_bits_wherever_the_numbers_lie(run):
    x, weight, bias, *rest = to(run, torch.float32, inputs(2, 20, 18, 5, 6, 3, 3, "A", 2))
    with run.use():
        plain = forward_and_gradients(x, weight, bias, *rest)
        for how in ("offset", "transposed", "strided"):
            assert torch.equal(plain[0],
                               ops.masked_conv2d(laid_out(x, how), laid_out(weight, how), laid_out(bias, how), *rest))
        last = forward_and_gradients(x.contiguous(memory_format=torch.channels_last), weight, bias, *rest)
    assert all(torch.equal(a, b) for a, b in zip(plain, last, strict=True))


@everywhere
def test_the_memory_order_is_that_of_x(run):
    x, weight, bias, *rest = to(run, None, inputs())
    with run.use():
        y, dx, _ = forward_and_gradients(x, weight, bias, *rest)
        last, dx_last, _ = forward_and_gradients(x.contiguous(memory_format=torch.channels_last), weight, bias, *rest)
    assert y.is_contiguous() and last.is_contiguous(memory_format=torch.channels_last) and not last.is_contiguous()
    torch.testing.assert_close((y, dx), (last, dx_last))


@pytest.mark.parametrize("run", [run for run in KERNELS if run.device == "cpu"], ids=str)
def test_offsets_of_more_than_31_bits(run):
    """Two images 2^31 + 16 numbers apart, then two channels, in memory that is reserved and hardly used."""
    stride = 2**31 + 16
    memory = mmap.mmap(-1, 4 * (stride + 64),
                       flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0))
    far = torch.frombuffer(memory, dtype=torch.float32).as_strided((2, 1, 3, 3), (stride, 1, 3, 1))
    far.copy_(numbers(2, 1, 3, 3))
    near, weight = far.contiguous(), numbers(2, 1, 3, 3, seed=5).float()
    with run.use():
        for x, k in ((far, weight), (far.transpose(0, 1), weight.transpose(0, 1)), (near, far)):
            got = forward_and_gradients(x, k, None, "B", 1)
            assert all(torch.equal(a, b) for a, b in zip(
                got, forward_and_gradients(x.contiguous(), k.contiguous(), None, "B", 1), strict=True))
