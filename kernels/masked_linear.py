"""How does one matrix product compute D conditionals at once, if each may depend only on the inputs before it?

The masked layer of MADE (Germain, Gregor, Murray, Larochelle 2015, eq. 8 and section 4.1; the course's "MADE :
principe"): every unit has a number, its degree. A weight is kept only if the degree of its output is at least the
degree of its input; the others are masked.

    kernels: below, kernels/_degrees.py, kernels/_masked_linear_cpu.py    layer: genmini.layers.MaskedLinear
    test: tests/kernels/test_masked_linear.py    bench: bench/bench_masked_linear.py

Math
    M_jk = [out_degree_j >= in_degree_k]           ( > if strict: what gives x_d sees only what comes before x_d)
    forward     y_nj  = sum_k x_nk (W o M)_jk + b_j
    gradient    dx_nk = sum_j dy_nj (W o M)_jk         dW_jk = M_jk sum_n dy_nj x_nk         db_j = sum_n dy_nj
    A transposed mask is a mask: a >= b if and only if ~b >= ~a (~a = -a-1, which cannot overflow). So dx is this
    operator on dy, with W transposed and degrees ~out, ~in; and the derivatives of dW are this operator again. Two
    kernels give derivatives of every order.

Shapes
    x (..., K), weight (J, K), bias (J) or None, in_degree (K), out_degree (J) of integers -> y (..., J)
    N rows of x

Traffic
    2 N J K L operations each for y, dx and dW, where L is the live part of the tiles: about 1/2 if the degrees are
    sorted (0.54 for J = K = 4096 in tiles of 128), up to 1 if not; w (N K + J K L + N J) bytes, w bytes a number.
    F.linear(x, M * W) does 2 N J K operations and moves 3 w J K bytes more, to read W and M and write W o M. N = 8192,
    J = K = 4096 in bfloat16: 275 GFLOP dense, 148 live; 168 MB dense and 3 x 34 for the mask, 152 live.

Masked weights
    have no effect: whatever W_jk is where M_jk = 0, NaN included, y and dx do not change, and dW_jk is exactly 0. If
    x_nk is not finite, no y_nj that may see it is finite; other y_nj of its tile may not be, either (0 times infinity).

Tiling
    A program owns the tile (BN, BJ) of y and walks along k, BK at a time. The least and greatest degrees of a tile of W
    tell its kind:

         k ->   sorted degrees     naive        every tile is loaded and masked: tl.dot over all of W
        j   F m . . .    F full    staircase    dead tiles are skipped: tl.dot and the loads of x and W fall to the live
        |   F F m . .    m mixed                part L. Full tiles are multiplied as they are: the runs of them at both
        v   F F F m .    . dead                 ends of a row have loops of their own, which a GPU can pipeline. Tiles
                                                between them are tested one by one. The longest rows start first
                                   grouped      8 tiles of n at a time, which stay in the L2 while all of W passes: DRAM
                                                reads x once (with --l2, which holds less than x), not for every tile
                                                of j. Counted for N = 2048, K = J = 256, 1 MB: 2.7 MB, not 5.4

    Degrees may come in any order; sorted ones are fast. dW: a program owns the tile (BJ, BK) and walks along n, in
    chunks that the shapes set, and only writes zeros if dead. Sums ascend: the same bits on every device and rung.
"""

import torch
import torch.nn.functional as F

from . import _check
from ._degrees import mask, may_see, product_tile, tile_of, turned
from ._masked_linear_cpu import both_by_tiles, by_tiles, dw_by_tiles
from ._room import differentiable, door, operator, room, sum_dtype
from ._triton import TILE, chunks, for_interpreter, options, tl, triton

# ---- reference ------------------------------------------------------------------------------------------------------


def reference(x, weight, bias, in_degree, out_degree, strict):  # (N, K), (J, K), (J) -> (N, J)
    return F.linear(x, weight.masked_fill(~mask(in_degree, out_degree, strict), 0), bias)


def reference_dw(dy, x, in_degree, out_degree, strict):  # (N, J), (N, K) -> (J, K)
    return (dy.T @ x).masked_fill(~mask(in_degree, out_degree, strict), 0)


def reference_both(dy, x, weight, in_degree, out_degree, strict):  # -> (N, K), (J, K)
    dx = dy @ weight.masked_fill(~mask(in_degree, out_degree, strict), 0)
    return dx, reference_dw(dy, x, in_degree, out_degree, strict)


# ---- kernel ---------------------------------------------------------------------------------------------------------

@triton.jit
def extremes(degree_ptr, low_ptr, high_ptr, K, BK: tl.constexpr):
    """The least and the greatest degree of tile t."""
    t = tl.program_id(0)
    k = t * BK + tl.arange(0, BK)
    tl.store(low_ptr + t, tl.min(tl.load(degree_ptr + k, k < K, other=9223372036854775807)))
    tl.store(high_ptr + t, tl.max(tl.load(degree_ptr + k, k < K, other=-9223372036854775808)))


@triton.jit
def product(x_ptr, w_ptr, b_ptr, y_ptr, in_ptr, out_ptr, low_ptr, high_ptr, N, J, K, GROUP, x_n, x_k, w_j, w_k,
            y_n, y_j, STAIRCASE: tl.constexpr, STRICT: tl.constexpr, BIAS: tl.constexpr,
            PRECISION: tl.constexpr, SUM: tl.constexpr, TILES: tl.constexpr, BN: tl.constexpr, BJ: tl.constexpr,
            BK: tl.constexpr):
    """y_nj = sum_k x_nk W_jk [out_degree_j >= in_degree_k] + b_j for one tile of y."""
    row, column = tile_of(tl.program_id(0), tl.cdiv(N, BN), tl.cdiv(J, BJ), GROUP)
    if tl.load(out_ptr + J - 1) > tl.load(out_ptr):  # the longest rows of tiles first
        column = tl.cdiv(J, BJ) - 1 - column
    n, j = row.to(tl.int64) * BN + tl.arange(0, BN), column.to(tl.int64) * BJ + tl.arange(0, BJ)
    n_ok, j_ok = n < N, j < J
    x_ptrs, w_ptrs = x_ptr + n[:, None] * x_n, w_ptr + j[None, :] * w_j
    out_degree = tl.load(out_ptr + j, j_ok, other=0)
    y = tl.zeros((BN, BJ), SUM)
    KB = tl.cdiv(K, BK)
    if STAIRCASE:
        least = tl.min(tl.where(j_ok, out_degree, 9223372036854775807))
        greatest = tl.max(tl.where(j_ok, out_degree, -9223372036854775808))
        t = tl.arange(0, TILES)  # the tiles along k, all at once
        live = (t < KB) & may_see(greatest, tl.load(low_ptr + t, t < KB, other=0), STRICT)
        full = (t < KB) & may_see(least, tl.load(high_ptr + t, t < KB, other=0), STRICT)
        begin, end = tl.min(tl.where(live, t, KB)), tl.max(tl.where(live, t + 1, 0))  # nothing lives outside
        head = tl.minimum(tl.min(tl.where(full, KB, t)), KB)  # tiles 0 ... head-1 are full
        tail = tl.maximum(tl.max(tl.where((t < KB) & (full == 0), t + 1, 0)), head)  # tiles tail ... KB-1 are full
        for t in range(0, head):
            y = product_tile(y, x_ptrs, w_ptrs, in_ptr, t, x_k, w_k, n_ok, j_ok, out_degree, K, False,
                             STRICT, PRECISION, BK)
        for t in range(tl.maximum(head, begin), tl.minimum(tail, end)):
            if may_see(greatest, tl.load(low_ptr + t), STRICT):
                y = product_tile(y, x_ptrs, w_ptrs, in_ptr, t, x_k, w_k, n_ok, j_ok, out_degree, K, True,
                                 STRICT, PRECISION, BK)
        for t in range(tail, KB):
            y = product_tile(y, x_ptrs, w_ptrs, in_ptr, t, x_k, w_k, n_ok, j_ok, out_degree, K, False,
                             STRICT, PRECISION, BK)
    else:
        for t in range(0, KB):
            y = product_tile(y, x_ptrs, w_ptrs, in_ptr, t, x_k, w_k, n_ok, j_ok, out_degree, K, True,
                             STRICT, PRECISION, BK)
    if BIAS:
        y += tl.load(b_ptr + j, j_ok, other=0).to(SUM)[None, :]
    tl.store(y_ptr + n[:, None] * y_n + j[None, :] * y_j, y.to(y_ptr.dtype.element_ty), n_ok[:, None] & j_ok[None, :])


@triton.jit
def outer(dy_ptr, x_ptr, dw_ptr, in_ptr, out_ptr, N, J, K, CHUNK, dy_n, dy_j, x_n, x_k,
          STAIRCASE: tl.constexpr, STRICT: tl.constexpr, PRECISION: tl.constexpr, SUM: tl.constexpr,
          BN: tl.constexpr, BJ: tl.constexpr, BK: tl.constexpr):
    """dW_jk = [out_degree_j >= in_degree_k] sum_n dy_nj x_nk for one tile of dW and the n of one chunk."""
    chunk, tile = tl.program_id(1), tl.program_id(0)
    j = (tile // tl.cdiv(K, BK)).to(tl.int64) * BJ + tl.arange(0, BJ)
    k = (tile % tl.cdiv(K, BK)).to(tl.int64) * BK + tl.arange(0, BK)
    j_ok, k_ok = j < J, k < K
    out_degree, in_degree = tl.load(out_ptr + j, j_ok, other=0), tl.load(in_ptr + k, k_ok, other=0)
    live = may_see(out_degree[:, None], in_degree[None, :], STRICT) & j_ok[:, None] & k_ok[None, :]
    n_begin = chunk.to(tl.int64) * CHUNK
    n_end = tl.minimum(n_begin + CHUNK, N)
    if STAIRCASE:
        if tl.max(live.to(tl.int32)) == 0:
            n_end = n_begin
    dw = tl.zeros((BJ, BK), SUM)
    for n_start in range(n_begin, n_end, BN):
        n = n_start + tl.arange(0, BN)
        n_ok = (n < n_end)[:, None]
        dy = tl.load(dy_ptr + n[:, None] * dy_n + j[None, :] * dy_j, n_ok & j_ok[None, :], other=0)  # (BN, BJ)
        x = tl.load(x_ptr + n[:, None] * x_n + k[None, :] * x_k, n_ok & k_ok[None, :], other=0)  # (BN, BK)
        dw = tl.dot(tl.trans(dy), x, dw, input_precision=PRECISION, out_dtype=SUM)
    dw_ptrs = dw_ptr + (chunk.to(tl.int64) * J + j[:, None]) * K + k[None, :]
    tl.store(dw_ptrs, tl.where(live, dw, 0).to(dw_ptr.dtype.element_ty), j_ok[:, None] & k_ok[None, :])


# ---- launcher -------------------------------------------------------------------------------------------------------


def launch(rung, x, weight, bias, in_degree, out_degree, strict):
    (N, K), J, dtype = x.shape, weight.shape[0], x.dtype
    x, weight, bias = for_interpreter(x, weight, bias)
    y, tile = x.new_empty(N, J), TILE[x.dtype]
    BN, BJ, BK = tile.rows, tile.columns, tile.depth
    KB = triton.cdiv(K, BK)
    low, high = in_degree.new_empty(KB), in_degree.new_empty(KB)
    staircase, ROWS = rung != "naive", triton.cdiv(N, BN)
    with torch.cuda.device_of(x):
        if staircase and KB:
            extremes[(KB,)](in_degree, low, high, K, BK)
        product[(ROWS * triton.cdiv(J, BJ),)](
            x, weight, bias, y, in_degree, out_degree, low, high, N, J, K, 8 if rung == "grouped" else ROWS,
            *x.stride(), *weight.stride(), *y.stride(), STAIRCASE=staircase, STRICT=strict, BIAS=bias is not None,
            TILES=triton.next_power_of_2(max(KB, 1)), BN=BN, BJ=BJ, BK=BK,
            **options(tile, x.dtype, torch.backends.cuda.matmul, staircase),
        )
    return y.to(dtype)


def launch_dw(rung, dy, x, in_degree, out_degree, strict):
    (N, J), K, dtype = dy.shape, x.shape[1], x.dtype
    dy, x = for_interpreter(dy, x)
    BN, BJ, BK = (tile := TILE[x.dtype]).depth, tile.rows, tile.columns
    tiles = triton.cdiv(J, BJ) * triton.cdiv(K, BK)
    count, CHUNK = chunks(N, BN, tiles, programs=256, least=1024)
    dw = x.new_empty((count, J, K), dtype=x.dtype if count == 1 else sum_dtype(x.dtype))
    with torch.cuda.device_of(x):
        outer[(tiles, count)](
            dy, x, dw, in_degree, out_degree, N, J, K, CHUNK, *dy.stride(), *x.stride(),
            STAIRCASE=rung != "naive", STRICT=strict, BN=BN, BJ=BJ, BK=BK,
            **options(tile, x.dtype, torch.backends.cuda.matmul, rung != "naive"),
        )
    return (dw[0] if count == 1 else dw.sum(0)).to(dtype)


def launch_both(rung, dy, x, weight, in_degree, out_degree, strict):
    dx = launch(rung, dy, weight.T, None, ~out_degree, ~in_degree, strict)
    return dx, launch_dw(rung, dy, x, in_degree, out_degree, strict)


# ---- gradient -------------------------------------------------------------------------------------------------------


def gradient(dy, x, weight, in_degree, out_degree, strict, needed):
    # forward was: y_nj = sum_k x_nk W_jk [out_j >= in_k] + b_j;   and [out_j >= in_k] = [~in_k >= ~out_j]
    degrees = dict(in_degree=in_degree, out_degree=out_degree, strict=strict)
    dx = dw = None
    if {"x", "weight"} <= needed:
        dx, dw = _both(dy=dy, x=x, weight=weight, **degrees)
    elif "x" in needed:
        dx = _linear(x=dy, weight=weight.T, bias=None, **turned(**degrees))
    elif "weight" in needed:
        dw = _dw(dy=dy, x=x, **degrees)
    return dict(x=dx, weight=dw, bias=dy.sum(0) if "bias" in needed else None)


def gradient_both(ddx, ddw, dy, x, weight, in_degree, out_degree, strict, needed):
    # forward was: dx_nk = sum_j dy_nj (W o M)_jk, and dw of `gradient_dw`: both are linear in dy
    degrees = dict(in_degree=in_degree, out_degree=out_degree, strict=strict)
    of_dw = gradient_dw(ddw, dy, x, in_degree, out_degree, strict, needed)
    ddy = of_dw["dy"] + _linear(x=ddx, weight=weight, bias=None, **degrees) if "dy" in needed else None
    return dict(dy=ddy, x=of_dw["x"], weight=_dw(dy=dy, x=ddx, **degrees) if "weight" in needed else None)


def gradient_dw(ddw, dy, x, in_degree, out_degree, strict, needed):
    # forward was: dw_jk = [out_j >= in_k] sum_n dy_nj x_nk;   ddw is the derivative of the loss with respect to dw
    degrees = dict(in_degree=in_degree, out_degree=out_degree, strict=strict)
    return dict(
        dy=_linear(x=x, weight=ddw, bias=None, **degrees) if "dy" in needed else None,
        x=_linear(x=dy, weight=ddw.T, bias=None, **turned(**degrees)) if "x" in needed else None,
    )


# ---- registration ---------------------------------------------------------------------------------------------------

LINEAR = room("masked_linear", "triton", ("naive", "staircase", "grouped"), cpu="PyTorch")

_linear = differentiable(operator(
    LINEAR, "masked_linear(Tensor x, Tensor weight, Tensor? bias, Tensor in_degree, Tensor out_degree, bool strict)"
    " -> Tensor y",
    fake=lambda x, weight: x.new_empty(x.shape[0], weight.shape[0]),
    takes="x: T(N, K); weight: T(J, K); bias: T(J); in_degree: int64(K); out_degree: int64(J)",
    reference=reference, kernel=launch, cpu=by_tiles, strided="x weight",
), gradient, rows="x")
_dw = differentiable(operator(
    LINEAR, "masked_linear_dw(Tensor dy, Tensor x, Tensor in_degree, Tensor out_degree, bool strict) -> Tensor dw",
    fake=lambda dy, x: x.new_empty(dy.shape[1], x.shape[1]),
    takes="dy: T(N, J); x: T(N, K); in_degree: int64(K); out_degree: int64(J)",
    reference=reference_dw, kernel=launch_dw, cpu=dw_by_tiles, strided="dy x",
), gradient_dw)
_both = differentiable(operator(
    LINEAR, "masked_linear_backward(Tensor dy, Tensor x, Tensor weight, Tensor in_degree, Tensor out_degree,"
    " bool strict) -> (Tensor dx, Tensor dw)", fake="x weight",
    takes="dy: T(N, J); x: T(N, K); weight: T(J, K); in_degree: int64(K); out_degree: int64(J)",
    reference=reference_both, kernel=launch_both, cpu=both_by_tiles, strided="dy x weight",
), gradient_both)


@door
def masked_linear(x, weight, bias, in_degree, out_degree, strict=False):
    """y = x (W o M)^T + b with M_jk = [out_degree_j >= in_degree_k], > if strict.

    (..., K), (J, K), (J) or None, (K), (J) -> (..., J)
    """
    _check.tensors(x=x, weight=weight, **({} if bias is None else {"bias": bias}))
    _check.flag("strict", strict)
    _check.tensors(_check.INTEGERS, in_degree=in_degree, out_degree=out_degree)
    _check.at_least("x", x, 1, "(..., K)")
    _check.at_least("weight", weight, 2, "(J, K)")
    K, J = x.shape[-1], weight.shape[0]
    _check.shape("weight", weight, (J, K), "(J, K) with the K of x")
    _check.shape("in_degree", in_degree, (K,), "(K) with the K of x")
    _check.shape("out_degree", out_degree, (J,), "(J) with the J of weight")
    _check.shape("bias", bias, (J,), "(J) with the J of weight")
    _check.one_device(x=x, weight=weight, bias=bias, in_degree=in_degree, out_degree=out_degree)
    x, weight, bias = _check.in_autocast_dtype(x, weight, bias)
    _check.one_dtype(x=x, weight=weight, bias=bias)
    rows = x if x.dim() == 2 else x[None].flatten(0, -2)  # a view that does nothing takes time, too
    y = _linear(x=rows, weight=weight, bias=bias, in_degree=in_degree.long(), out_degree=out_degree.long(),
                strict=strict)
    return y if x.dim() == 2 else y.reshape(*x.shape[:-1], J)
