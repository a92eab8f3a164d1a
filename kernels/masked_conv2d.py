"""How does an image model see, for every pixel at once, only the pixels that come before it?

The masked convolution of PixelCNN (van den Oord, Kalchbrenner, Kavukcuoglu 2016, section 3.4 and figure 2; the course's
"PixelCNN"): pixels are ordered row by row, the colours of a pixel one after the other. The taps of the filter that
would read a later pixel are dead: they count as 0.

    kernels: below, kernels/_live_taps.py, kernels/_masked_conv2d_cpu.py    layer: genmini.layers.MaskedConv2d
    test: tests/kernels/test_masked_conv2d.py    bench: bench/bench_masked_conv2d.py

Math
    the filter is K (O, C, kh, kw), odd, with centre (ph, pw) = (kh//2, kw//2); its taps in reading order are
    t = u kw + v, the centre is t = m; x is 0 outside the image:

    forward     y_nohw = b_o + sum_{t < m} sum_c x_nc(h+u-ph)(w+v-pw) K_ocuv  +  sum_c x_nchw K_oc(m) M_oc
                M_oc = [colour(o) > colour(c)] for kind "A", [>=] for "B"; colour(c) = floor(c colours / C), of o with O
    gradient    dx_nchw = sum_{t < m} sum_o dy_no(h-u+ph)(w-v+pw) K_ocuv  +  sum_o dy_nohw K_oc(m) M_oc  ("turned")
                dK_ocuv = sum_nhw dy_nohw x_nc(h+u-ph)(w+v-pw)  if t < m, times M_oc if t = m, else 0
    db_o = sum_nhw dy_nohw. The derivatives of these are the same three sums: two kernels give those of every order.

Shapes
    x (N, C, H, W), K (O, C, kh, kw), bias (O) or None -> y (N, O, H, W).   P = N H W pixels; T live taps: m, or m+1
    with a live centre.

Traffic
    2 P O C T operations each for y, dx and dK, against 2 P O C kh kw with a dense masked filter: T is 4 or 5 of 9, 12
    or 13 of 25, 24 or 25 of 49. w P (C + O) bytes once, w bytes a number (a tap's shifted pixels come again from the
    cache), and w T O C for the filter. P = 256 x 32 x 32, O = C = 128, 3x3 "B" in bfloat16: 77 dense and 43 live GFLOP,
    134 MB.

Dead taps
    have no effect: whatever K is there, NaN included, y and dx do not change, and dK is exactly 0. Where x is not
    finite, every y that may see it is not finite; others near it may be finite or not (0 times infinity).

Tiling
    An implicit matrix product: rows are pixels p = (n, h, w), columns output channels o; the sum runs over (t, c):

          . . . . .         naive   every tap of the dense filter is loaded and masked; a tile of 32 x 32 lies in 1024
          t t t t t                 sectors, for its numbers lie k k apart, where 128 could hold it
          t t m . .         taps    only the live taps, which are the first T in reading order: packed side by side
          . . . . .                 with the centre masked, and channels last, so that a step of the sum reads BC
          . . . . .                 neighbouring numbers of a pixel and of a filter row, in the least sectors
                            program (p tile, o tile): BP pixels x BO channels, BC channels of one tap a step

    dK, by programs (o tile, c tile, tap, chunk of p), is added over the chunks in order, whose size the shapes alone
    set: the same bits every time. A tensor that is not channels last is copied once. A tile has at least 16 channels.
"""

import torch
import torch.nn.functional as F
from torch.nn.grad import conv2d_weight

from . import _check
from ._live_taps import channels_last, live_taps, masked, may_see, new_image, packed, pixel, tap_tile
from ._masked_conv2d_cpu import cpu, cpu_both, cpu_dw, cpu_turned
from ._room import differentiable, door, operator, room, sum_dtype
from ._triton import TILE, chunks, for_interpreter, index_type, options, side, tl, triton

# ---- reference ------------------------------------------------------------------------------------------------------


def reference(x, weight, bias, kind, colours):  # (N, C, H, W), (O, C, kh, kw), (O) -> (N, O, H, W)
    return F.conv2d(x, masked(weight, kind, colours), bias, padding=[side // 2 for side in weight.shape[2:]])


def reference_turned(dy, weight, kind, colours):  # (N, O, H, W), (O, C, kh, kw) -> (N, C, H, W)
    return F.conv_transpose2d(dy, masked(weight, kind, colours), padding=[side // 2 for side in weight.shape[2:]])


def reference_dw(dy, x, kh, kw, kind, colours):  # (N, O, H, W), (N, C, H, W) -> (O, C, kh, kw)
    return masked(conv2d_weight(x, (dy.shape[1], x.shape[1], kh, kw), dy, padding=(kh // 2, kw // 2)), kind, colours)


def reference_both(dy, x, weight, kind, colours):  # -> (N, C, H, W), (O, C, kh, kw)
    return reference_turned(dy, weight, kind, colours), reference_dw(dy, x, *weight.shape[2:], kind, colours)


# ---- kernel ---------------------------------------------------------------------------------------------------------

@triton.jit
def convolve(x_ptr, k_ptr, b_ptr, y_ptr, C, O, H, W, P, T, kh, kw, x_n, x_c, x_h, x_w, k_o, k_c, k_t,
             y_n, y_o, y_h, y_w, COLOURS, TAPS: tl.constexpr, KIND_A: tl.constexpr, TURNED: tl.constexpr,
             BIAS: tl.constexpr, PRECISION: tl.constexpr, SUM: tl.constexpr, INDEX: tl.constexpr,
             BP: tl.constexpr, BO: tl.constexpr, BC: tl.constexpr):
    """One tile (BP pixels, BO channels) of y. Turned, it is dx; then C counts the filter's outputs and O its inputs."""
    p = (tl.program_id(0) // tl.cdiv(O, BO)).to(INDEX) * BP + tl.arange(0, BP)
    o = tl.program_id(0) % tl.cdiv(O, BO) * BO + tl.arange(0, BO)
    n, h, w = pixel(p, H, W)
    p_ok = p < P
    x_ptrs = x_ptr + n.to(tl.int64) * x_n + h.to(tl.int64) * x_h + w.to(tl.int64) * x_w  # x[n, 0, h, w]
    k_ptrs = k_ptr + o.to(tl.int64) * k_o  # K[o, 0, tap 0]
    y = tl.zeros((BP, BO), SUM)
    CB = tl.cdiv(C, BC)
    for s in range(0, T * CB):  # tap by tap, BC channels a step
        y = tap_tile(y, x_ptrs, k_ptrs, s // CB, s % CB * BC, h, w, p_ok, o, C, O, H, W, kh, kw,
                     x_c, x_h, x_w, k_t, k_c, COLOURS, not TAPS, KIND_A, TURNED, PRECISION, BC)
    if BIAS:
        y += tl.load(b_ptr + o, o < O, other=0).to(SUM)[None, :]
    y_ptrs = y_ptr + n.to(tl.int64) * y_n + h.to(tl.int64) * y_h + w.to(tl.int64) * y_w  # y[n, 0, h, w]
    tl.store(y_ptrs[:, None] + o.to(tl.int64)[None, :] * y_o, y.to(y_ptr.dtype.element_ty),
             p_ok[:, None] & (o < O)[None, :])


@triton.jit
def correlate(dy_ptr, x_ptr, dk_ptr, C, O, H, W, P, kh, kw, CHUNK, dy_n, dy_o, dy_h, dy_w, x_n, x_c, x_h, x_w, COLOURS,
              TAPS: tl.constexpr, KIND_A: tl.constexpr, PRECISION: tl.constexpr, SUM: tl.constexpr, INDEX: tl.constexpr,
              BP: tl.constexpr, BO: tl.constexpr, BC: tl.constexpr):
    """dK_oct = M_oct sum_p dy_po x_p'c for one tile (BO, BC) of tap t, which reads p', and the pixels p of a chunk."""
    t, chunk = tl.program_id(1), tl.program_id(2)
    o = tl.program_id(0) // tl.cdiv(C, BC) * BO + tl.arange(0, BO)
    c = tl.program_id(0) % tl.cdiv(C, BC) * BC + tl.arange(0, BC)
    dh, dw, m = t // kw - kh // 2, t % kw - kw // 2, kh * kw // 2
    live = (o < O)[:, None] & (c < C)[None, :]
    live &= (t < m) | ((t == m) & may_see(o[:, None], c[None, :], O, C, COLOURS, KIND_A, False))
    p_begin = chunk.to(INDEX) * CHUNK
    p_end = tl.minimum(p_begin + CHUNK, P)
    if TAPS:
        if tl.max(live.to(tl.int32)) == 0:
            p_end = p_begin
    dk = tl.zeros((BO, BC), SUM)
    for p_start in range(p_begin, p_end, BP):  # dy is (BP, BO), x is (BP, BC)
        p = p_start + tl.arange(0, BP)
        n, h, w = pixel(p, H, W)
        x_ok = (p < p_end) & (h + dh >= 0) & (h + dh < H) & (w + dw >= 0) & (w + dw < W)
        dy_ptrs = dy_ptr + n.to(tl.int64) * dy_n + h.to(tl.int64) * dy_h + w.to(tl.int64) * dy_w  # dy[n, 0, h, w]
        x_ptrs = x_ptr + n.to(tl.int64) * x_n + (h + dh).to(tl.int64) * x_h + (w + dw).to(tl.int64) * x_w  # x[n, 0, p']
        dy = tl.load(dy_ptrs[:, None] + o.to(tl.int64)[None, :] * dy_o,
                     (p < p_end)[:, None] & (o < O)[None, :], other=0)
        x = tl.load(x_ptrs[:, None] + c.to(tl.int64)[None, :] * x_c, x_ok[:, None] & (c < C)[None, :], other=0)
        dk = tl.dot(tl.trans(dy), x, dk, input_precision=PRECISION, out_dtype=SUM)
    dk_ptrs = dk_ptr + ((chunk * tl.num_programs(1) + t).to(tl.int64) * O + o[:, None]) * C + c[None, :]  # dK[chunk]
    tl.store(dk_ptrs, tl.where(live, dk, 0).to(dk_ptr.dtype.element_ty), (o < O)[:, None] & (c < C)[None, :])


# ---- launcher -------------------------------------------------------------------------------------------------------


def launch(rung, x, weight, bias, kind, colours, turned=False):
    dtype, (N, C, H, W), (_, _, kh, kw) = x.dtype, x.shape, weight.shape
    x, weight, bias = for_interpreter(x, weight, bias)
    y = new_image(x, weight.shape[1 if turned else 0])
    O, P, T = y.shape[1], N * H * W, kh * kw
    k = weight.reshape(*weight.shape[:2], T)  # (o, c, t)
    if rung == "taps":
        x, (k, T) = channels_last(x), packed(weight, kind, colours, turned)
    k_o, k_c, k_t = k.stride()
    tile = TILE[x.dtype]
    BP, BO, BC = tile.rows, side(O, tile.columns), side(C, tile.depth)
    with torch.cuda.device_of(x):
        convolve[(triton.cdiv(P, BP) * triton.cdiv(O, BO),)](
            x, k, bias, y, C, O, H, W, P, T, kh, kw, *x.stride(), *((k_c, k_o) if turned else (k_o, k_c)), k_t,
            *y.stride(), colours, TAPS=rung == "taps", KIND_A=kind == "A", TURNED=turned, BIAS=bias is not None,
            INDEX=index_type(P), BP=BP, BO=BO, BC=BC,
            **options(tile, x.dtype, torch.backends.cudnn.conv, rung == "taps"),
        )
    return y.to(dtype)


def launch_turned(rung, dy, weight, kind, colours):
    return launch(rung, dy, weight, None, kind, colours, turned=True)


def launch_dw(rung, dy, x, kh, kw, kind, colours):
    dtype, (N, C, H, W), O = x.dtype, x.shape, dy.shape[1]
    dy, x = for_interpreter(dy, x)
    P, T = N * H * W, live_taps(kh, kw, kind, colours)[1] if rung == "taps" else kh * kw
    if rung == "taps":
        dy, x = channels_last(dy), channels_last(x)
    tile = TILE[x.dtype]
    BP, BO, BC = tile.depth, side(O, tile.rows), side(C, tile.columns)
    tiles = triton.cdiv(O, BO) * triton.cdiv(C, BC)
    count, CHUNK = chunks(P, BP, tiles * max(T, 1), programs=512, least=2048)
    part = x.new_empty((count, T, O, C), dtype=sum_dtype(x.dtype))
    with torch.cuda.device_of(x):
        correlate[(tiles, T, count)](
            dy, x, part, C, O, H, W, P, kh, kw, CHUNK, *dy.stride(), *x.stride(), colours,
            TAPS=rung == "taps", KIND_A=kind == "A", INDEX=index_type(P), BP=BP, BO=BO, BC=BC,
            **options(tile, x.dtype, torch.backends.cudnn.conv, rung == "taps"),
        )
    dw = x.new_zeros((O, C, kh, kw), dtype=dtype)
    dw.view(O, C, kh * kw)[..., :T] = part.sum(0).permute(1, 2, 0)
    return dw


def launch_both(rung, dy, x, weight, kind, colours):
    dx = launch_turned(rung, dy, weight, kind, colours)
    return dx, launch_dw(rung, dy, x, *weight.shape[2:], kind, colours)


# ---- gradient -------------------------------------------------------------------------------------------------------


def gradient(dy, x, weight, kind, colours, needed):
    # forward was: y = x * K + b over the live taps
    kh, kw = weight.shape[2:]
    dx = dw = None
    if {"x", "weight"} <= needed:
        dx, dw = _both(dy=dy, x=x, weight=weight, kind=kind, colours=colours)
    elif "x" in needed:
        dx = _turned(dy=dy, weight=weight, kind=kind, colours=colours)
    elif "weight" in needed:
        dw = _dw(dy=dy, x=x, kh=kh, kw=kw, kind=kind, colours=colours)
    return dict(x=dx, weight=dw, bias=dy.sum((0, 2, 3)) if "bias" in needed else None)


def gradient_both(ddx, ddw, dy, x, weight, kind, colours, needed):
    # forward was: dx, the adjoint of x * K, and dK, both linear in dy
    dx, dw = gradient_turned(ddx, dy, weight, kind, colours, needed), gradient_dw(ddw, dy, x, kind, colours, needed)
    return dict(dy=dx["dy"] + dw["dy"] if "dy" in needed else None, x=dw["x"], weight=dx["weight"])


def gradient_turned(ddx, dy, weight, kind, colours, needed):
    # forward was: dx = the adjoint of x * K, of dy;   ddx is the derivative of the loss with respect to dx
    kh, kw = weight.shape[2:]
    return dict(
        dy=_conv(x=ddx, weight=weight, bias=None, kind=kind, colours=colours) if "dy" in needed else None,
        weight=_dw(dy=dy, x=ddx, kh=kh, kw=kw, kind=kind, colours=colours) if "weight" in needed else None,
    )


def gradient_dw(ddw, dy, x, kind, colours, needed):
    # forward was: dK_oct = M_oct sum_p dy_po x_p'c;   ddw is the derivative of the loss with respect to dK
    return dict(
        dy=_conv(x=x, weight=ddw, bias=None, kind=kind, colours=colours) if "dy" in needed else None,
        x=_turned(dy=dy, weight=ddw, kind=kind, colours=colours) if "x" in needed else None,
    )


# ---- registration ---------------------------------------------------------------------------------------------------

CONV = room("masked_conv2d", "triton", ("naive", "taps"), cpu="PyTorch")

_conv = differentiable(operator(
    CONV, "masked_conv2d(Tensor x, Tensor weight, Tensor? bias, str kind, int colours) -> Tensor y",
    fake=lambda x, weight: new_image(x, weight.shape[0]),
    takes="x: T(N, C, H, W); weight: T(O, C, kh, kw); bias: T(O)",
    reference=reference, kernel=launch, cpu=cpu, strided="x weight y",
), gradient, rows="x")
_turned = differentiable(operator(
    CONV, "masked_conv2d_turned(Tensor dy, Tensor weight, str kind, int colours) -> Tensor dx",
    fake=lambda dy, weight: new_image(dy, weight.shape[1]),
    takes="dy: T(N, O, H, W); weight: T(O, C, kh, kw)",
    reference=reference_turned, kernel=launch_turned, cpu=cpu_turned, strided="dy weight dx",
), gradient_turned, rows="dy")
_dw = differentiable(operator(
    CONV, "masked_conv2d_dw(Tensor dy, Tensor x, int kh, int kw, str kind, int colours) -> Tensor dw",
    fake=lambda dy, x, kh, kw: x.new_empty(dy.shape[1], x.shape[1], kh, kw),
    takes="dy: T(N, O, H, W); x: T(N, C, H, W)", reference=reference_dw, kernel=launch_dw, cpu=cpu_dw, strided="dy x",
), gradient_dw)
_both = differentiable(operator(
    CONV, "masked_conv2d_backward(Tensor dy, Tensor x, Tensor weight, str kind, int colours) -> (Tensor dx, Tensor dw)",
    fake=lambda dy, x, weight: (new_image(dy, x.shape[1]), weight.new_empty(weight.shape)),
    takes="dy: T(N, O, H, W); x: T(N, C, H, W); weight: T(O, C, kh, kw)",
    reference=reference_both, kernel=launch_both, cpu=cpu_both, strided="dy x weight dx",
), gradient_both)


@door
def masked_conv2d(x, weight, bias, kind, colours=1):
    """y = x * (K o M) + b; M keeps the taps before the centre, and there the colours before, with kind "B" its own too.

    (N, C, H, W), (O, C, kh, kw), (O) or None -> (N, O, H, W)
    """
    _check.tensors(x=x, weight=weight, **({} if bias is None else {"bias": bias}))
    _check.one_of("kind", kind, ("A", "B"))
    for name, tensor, meaning in (("x", x, "(N, C, H, W)"), ("weight", weight, "(O, C, kh, kw)")):
        _check.dimensions(name, tensor, 4, meaning)
    (N, C, H, W), (O, _, kh, kw) = x.shape, weight.shape
    _check.shape("weight", weight, (O, C, kh, kw), "(O, C, kh, kw) with the C of x")
    for name, size in (("kh", kh), ("kw", kw)):
        _check.one_of(f"{name} of weight", size, (1, 3, 5, 7))
    _check.whole("colours", colours, 1, min(C, O), "from 1 to the number of channels of x and of y")
    _check.shape("bias", bias, (O,), "(O) with the O of weight")
    _check.one_device(x=x, weight=weight, bias=bias)
    x, weight, bias = _check.in_autocast_dtype(x, weight, bias)
    _check.one_dtype(x=x, weight=weight, bias=bias)
    if H * W == 0:  # PyTorch's convolutions take an empty batch, but no empty image
        x = x.reshape(0, C, 1, 1)
        return _conv(x=x, weight=weight, bias=bias, kind=kind, colours=colours).reshape(N, O, H, W)
    return _conv(x=x, weight=weight, bias=bias, kind=kind, colours=colours)
