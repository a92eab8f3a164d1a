"""How improbable is each image, given its text, among N images, and each text, given its image, among N texts?

CLIP's symmetric contrastive loss with its learned temperature (Radford et al. 2021, figure 3): InfoNCE (van den Oord,
Li, Vinyals 2018, eq. 4) in both directions. The running maximum is that of Milakov, Gimelshein 2018.

    kernels: below, csrc/info_nce.cpp
    model: genmini/models/clip.py    test: tests/kernels/test_info_nce.py    bench: bench/bench_info_nce.py

Math
    l_nm = scale x_nm,   x_nm = a_n . b_m,   scale = exp(a learned number);   row n of a belongs to row n of b
    rows        u_n = max_m l_nm,   s_n = sum_m exp(l_nm - u_n)
    columns     v_m = max_n l_nm,   t_m = sum_n exp(l_nm - v_m)
    forward     loss_n = ((u_n - l_nn) + log s_n + (v_n - l_nn) + log t_n) / 2
    gradient, from g = dloss:
        P_nm = exp((l_nm - u_n) - log s_n),   Q_nm = exp((l_nm - v_m) - log t_m)
        dl_nm = (g_n P_nm + g_m Q_nm) / 2 - [n = m] g_n
        da_n = scale sum_m dl_nm b_m     db_m = scale sum_n dl_nm a_n     dscale = sum_nm dl_nm x_nm
    Maxima and logarithms are kept apart: their sum would round away log s where l is large. Vectors of unit length,
    if they are wanted, are made outside.

Shapes
    a, b (N, D), scale () -> loss (N), in float32, for float64 embeddings float64; stats (4, N): u, log s, v, log t

Traffic
    Eager PyTorch writes l and both log-softmaxes, reads them again, and adds the gradients of both: 5 N^2 w bytes
    forward, 13 in the gradient, w bytes a number. Here no N x N matrix is stored; the maxima and sums of columns, one
    pair for each BN rows, are 2 N^2 / BN numbers. A CPU packs b, to whole blocks of 64 rows; of few pairs
    eager PyTorch holds less. Products of 2 N^2 D operations: forward 1, for both directions. Gradient: l again, da
    and db, 3 on a CPU; 4 on a GPU, where da and db each compute l (and once more for each BE of D beyond the first);
    eager 2. N = 4096, D = 512: 17 GFLOP a product, and 1.2 GB for eager. Arithmetic is the bound.

Not finite
    as F.cross_entropy in both directions: NaN in a row makes every loss and gradient NaN, as every column has that row.
    l = +inf makes the losses of its row and column NaN; l = -inf has probability 0.

Tiling
    A program owns BN rows n, walks along all m, BN at a time, and sums x over d, BD at a time.
        naive     the columns are another walk: a program owns BN of them, and walks along all n: tl.dot twice forward
        shared    one walk, half of tl.dot and of the loads forward: each tile gives its part of the rows (online) and
                  of the columns, (max, sum) over its BN rows; a last kernel joins the parts of a column, by n
        cpu       as shared, in blocks of 64 x 64. The gradient has 128 rows of dl at a time: a task computes 64 columns
                  and adds to their db, then others take rows of da
    The gradient of both rungs: a program owns BN rows n and BE numbers e of da_n, or BN columns m and as many of db_m.
    Sums have one order: the same bits every time. Over processes: gather a and b, and let each compute all N losses.

Rounding
    Where one l_nm is far above the others, P_nm = 1 and dl nearly 0. An l = 400 whose last bit is not that of the
    forward pass makes dl wrong by 3e-5. So all passes compute a_n . b_m, no b_m . a_n, and round scale x before - u.
"""

import torch

from . import _check, _library
from ._room import differentiable, door, operator, room, sum_dtype
from ._triton import Tile, for_interpreter, options, side, tl, triton

# ---- reference ------------------------------------------------------------------------------------------------------


def times(x, y):
    """x y in the dtype of sums, under autocast, too"""
    with torch.autocast(x.device.type, enabled=False):
        return x.to(sum_dtype(x.dtype)) @ y.to(sum_dtype(y.dtype))


def log_sum(l, dim):
    """The maximum along dim and log sum exp(l - maximum), each (N)"""
    top = l.amax(dim, keepdim=True) if l.numel() else l.sum(dim, keepdim=True)  # an empty l has no amax
    return top.squeeze(dim), (l - top).exp().sum(dim).log()


def reference(a, b, scale):  # (N, D), (N, D), () -> loss (N), stats (4, N)
    l = scale * times(a, b.T)
    (u, log_s), (v, log_t) = log_sum(l, 1), log_sum(l, 0)
    return loss_of(l.diagonal(), u, log_s, v, log_t), torch.stack([u, log_s, v, log_t])


def loss_of(l_nn, u, log_s, v, log_t):
    return (((u - l_nn) + log_s) + ((v - l_nn) + log_t)) / 2


def reference_backward(dloss, a, b, scale):
    """da, db, dscale. It computes P and Q again, so that its own derivative goes through them."""
    x = times(a, b.T)
    P, Q = (scale * x).softmax(1), (scale * x).softmax(0)
    dl = (dloss[:, None] * P + dloss * Q) / 2 - dloss.diag()
    # forward was: l_nm = scale a_n . b_m
    da, db = scale * times(dl, b), scale * times(dl.T, a)
    return da.to(a.dtype), db.to(b.dtype), (dl * x).sum()


# ---- kernel: for CPUs in csrc/info_nce.cpp --------------------------------------------------------------------------


@triton.jit
def tile(n, m, a_ptr, b_ptr, N, D, PRECISION: tl.constexpr, SUM: tl.constexpr, BD: tl.constexpr):
    """x_nm = a_n . b_m, (BN, BN); 0 beyond N"""
    x = tl.zeros((n.shape[0], m.shape[0]), SUM)
    for start in range(0, D, BD):
        d = start + tl.arange(0, BD)
        a = tl.load(a_ptr + n.to(tl.int64)[:, None] * D + d[None, :], (n < N)[:, None] & (d < D)[None, :], other=0)
        b = tl.load(b_ptr + m.to(tl.int64)[None, :] * D + d[:, None], (m < N)[None, :] & (d < D)[:, None], other=0)
        x = tl.dot(a, b, x, input_precision=PRECISION, out_dtype=SUM)
    return x


@triton.jit
def finite(top):
    return tl.where(top == float("-inf"), 0, top)  # while all are -inf: then exp gives 0 and not NaN


@triton.jit
def walk(a_ptr, b_ptr, scale_ptr, l_nn_ptr, u_ptr, log_s_ptr, part_v_ptr, part_t_ptr, N, D, AXIS: tl.constexpr,
         SHARED: tl.constexpr, PRECISION: tl.constexpr, SUM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr):
    """AXIS 1: u, log s and l_nn of BN rows; SHARED: their part of v and t. AXIS 0: v, log t and l_nn of BN columns."""
    own, scale = tl.program_id(0) * BN + tl.arange(0, BN), tl.load(scale_ptr)
    u, s, l_nn = tl.full((BN,), float("-inf"), SUM), tl.zeros((BN,), SUM), tl.zeros((BN,), SUM)
    for start in range(0, N, BN):
        along = start + tl.arange(0, BN)
        n, m = (own, along) if AXIS == 1 else (along, own)
        l = scale * tile(n, m, a_ptr, b_ptr, N, D, PRECISION, SUM, BD)
        l_nn += tl.sum(tl.where(n[:, None] == m[None, :], l, 0), AXIS)
        l = tl.where(tl.expand_dims(along < N, 1 - AXIS), l, float("-inf"))
        top = tl.maximum(u, tl.max(l, AXIS))
        s = s * tl.exp(u - finite(top)) + tl.sum(tl.exp(l - tl.expand_dims(finite(top), AXIS)), AXIS)
        u = top
        if SHARED:
            l = tl.where((n < N)[:, None], l, float("-inf"))
            v = tl.max(l, 0)
            at = tl.program_id(0).to(tl.int64) * N + m
            tl.store(part_v_ptr + at, v, m < N)
            tl.store(part_t_ptr + at, tl.sum(tl.exp(l - finite(v)[None, :]), 0), m < N)
    tl.store(l_nn_ptr + own, l_nn, own < N)
    tl.store(u_ptr + own, u, own < N)
    tl.store(log_s_ptr + own, tl.log(s), own < N)


@triton.jit
def join(part_v_ptr, part_t_ptr, v_ptr, log_t_ptr, parts, N, SUM: tl.constexpr, BM: tl.constexpr):
    """v and log t of BM columns from their parts."""
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    v, t = tl.where(m < N, float("-inf"), 0).to(SUM), tl.where(m < N, 0, 1).to(SUM)
    for part in range(0, parts):
        at = tl.full((), part, tl.int64) * N + m
        part_v, part_t = tl.load(part_v_ptr + at, m < N, other=0), tl.load(part_t_ptr + at, m < N, other=0)
        top = tl.maximum(v, part_v)
        t = t * tl.exp(v - finite(top)) + part_t * tl.exp(part_v - finite(top))
        v = top
    tl.store(v_ptr + m, v, m < N)
    tl.store(log_t_ptr + m, tl.log(t), m < N)


@triton.jit
def walk_back(g_ptr, a_ptr, b_ptr, scale_ptr, u_ptr, log_s_ptr, v_ptr, log_t_ptr, da_ptr, sums_ptr, N, D,
              AXIS: tl.constexpr, PRECISION: tl.constexpr, PRECISION_OF_DL: tl.constexpr, SUM: tl.constexpr,
              BN: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr):
    """AXIS 1: da_ne = scale sum_m dl_nm b_me for BN rows, and sum_m dl_nm x_nm; 0: db of BN columns, in da_ptr."""
    own, e = tl.program_id(0) * BN + tl.arange(0, BN), tl.program_id(1) * BE + tl.arange(0, BE)
    scale, sums, da = tl.load(scale_ptr), tl.zeros((BN,), SUM), tl.zeros((BN, BE), SUM)
    for start in range(0, N, BN):
        along = start + tl.arange(0, BN)
        n, m = (own, along) if AXIS == 1 else (along, own)
        n_ok, m_ok = n < N, m < N
        u, log_s = tl.load(u_ptr + n, n_ok, other=0), tl.load(log_s_ptr + n, n_ok, other=0)
        v, log_t = tl.load(v_ptr + m, m_ok, other=0), tl.load(log_t_ptr + m, m_ok, other=0)
        g_n, g_m = tl.load(g_ptr + n, n_ok, other=0), tl.load(g_ptr + m, m_ok, other=0)
        x = tile(n, m, a_ptr, b_ptr, N, D, PRECISION, SUM, BD)
        P = tl.exp((scale * x - u[:, None]) - log_s[:, None])
        Q = tl.exp((scale * x - v[None, :]) - log_t[None, :])
        dl = (g_n[:, None] * P + g_m[None, :] * Q) / 2 - tl.where(n[:, None] == m[None, :], g_n[:, None], 0)
        dl = tl.where(n_ok[:, None] & m_ok[None, :], dl, 0)
        if AXIS == 1:
            sums += tl.sum(dl * x, 1)
        at, at_ok = along.to(tl.int64)[:, None] * D + e[None, :], (along < N)[:, None] & (e < D)[None, :]
        y = tl.load((b_ptr if AXIS == 1 else a_ptr) + at, at_ok, other=0).to(SUM)
        da = tl.dot(dl if AXIS == 1 else tl.trans(dl), y, da, input_precision=PRECISION_OF_DL, out_dtype=SUM)
    da_ptrs = da_ptr + own.to(tl.int64)[:, None] * D + e[None, :]
    tl.store(da_ptrs, (scale * da).to(da_ptr.dtype.element_ty), (own < N)[:, None] & (e < D)[None, :])
    if AXIS == 1:
        tl.store(sums_ptr + own, sums, (own < N) & (tl.program_id(1) == 0))


# ---- launcher -------------------------------------------------------------------------------------------------------

TILE = {torch.float16: Tile(64, 64, 64, 8, 3), torch.bfloat16: Tile(64, 64, 64, 8, 3),
        torch.float32: Tile(64, 64, 32, 8, 3), torch.float64: Tile(32, 32, 32, 4, 2)}
OWNED = {2: 128, 4: 128, 8: 32}  # the most of BE, by the bytes of a number


def launch(backend, rung, a, b, scale):
    (N, D), dtype, threads = a.shape, a.dtype, torch.get_num_threads()
    a, b = _library.for_native(a, b) if backend == "cpu" else for_interpreter(a, b)
    loss, stats = scale.new_empty(N), scale.new_empty(4, N)
    if backend == "cpu":
        tensors = a, b, scale, loss, stats, _workspace("info_nce_cpu", a, threads)
        _library.call("info_nce", "cpu", "info_nce_cpu", a.dtype, *tensors, N, D, threads=threads)
        return loss, stats
    (u, log_s, v, log_t), l_nn, constants = stats, loss, _constants(dtype, rung)
    parts = triton.cdiv(N, constants["BN"])
    part_v, part_t = scale.new_empty(2, parts, N) if rung == "shared" else (None, None)
    with torch.cuda.device_of(a):
        if rung == "naive":
            walk[(parts,)](a, b, scale, l_nn, v, log_t, None, None, N, D, AXIS=0, SHARED=False, **constants)
        walk[(parts,)](a, b, scale, l_nn, u, log_s, part_v, part_t, N, D, AXIS=1, SHARED=rung == "shared", **constants)
        if rung == "shared":
            join[(triton.cdiv(N, 128),)](part_v, part_t, v, log_t, parts, N, SUM=constants["SUM"], BM=128)
    return loss_of(l_nn, *stats), stats


def launch_backward(backend, rung, dloss, a, b, scale, stats):
    (N, D), dtype, threads = a.shape, a.dtype, torch.get_num_threads()
    a, b = _library.for_native(a, b) if backend == "cpu" else for_interpreter(a, b)
    da, db = torch.empty_like(a), torch.empty_like(b)
    if backend == "cpu":
        dscale = torch.empty_like(scale)
        tensors = dloss, a, b, scale, stats, da, db, dscale, _workspace("info_nce_backward_cpu", a, threads)
        _library.call("info_nce", "cpu", "info_nce_backward_cpu", a.dtype, *tensors, N, D, threads=threads)
        return da.to(dtype), db.to(dtype), dscale
    constants, BE, sums = _constants(dtype, rung), side(D, OWNED[dtype.itemsize]), scale.new_empty(N)
    # tf32 holds a 16-bit b exactly, and dl as exactly as float16, without its underflow
    precision = "tf32" if dtype.itemsize == 2 else constants["PRECISION"]
    with torch.cuda.device_of(a):
        grid = triton.cdiv(N, constants["BN"]), max(1, triton.cdiv(D, BE))  # sums are there without a dimension, too
        for axis, gradient in ((0, db), (1, da)):
            walk_back[grid](dloss, a, b, scale, *stats, gradient, sums, N, D, AXIS=axis, PRECISION_OF_DL=precision,
                            BE=BE, **constants)
    return da.to(dtype), db.to(dtype), sums.sum()


def _constants(dtype, rung):
    tile = TILE[dtype]
    return dict(BN=tile.rows, BD=tile.depth, enable_fp_fusion=False,
                **options(tile, dtype, torch.backends.cuda.matmul, rung == "shared"))


def _workspace(function, a, threads):
    bytes = _library.size("info_nce", "cpu", f"{function}_workspace", a.dtype, *a.shape, threads=threads)
    return torch.empty(bytes, dtype=torch.uint8)


# ---- gradient -------------------------------------------------------------------------------------------------------


def gradient(dloss, a, b, scale, stats):
    # stats are outputs only for this gradient
    da, db, dscale = _backward(dloss=dloss, a=a, b=b, scale=scale, stats=stats)
    return dict(a=da, b=db, scale=dscale)


# ---- registration ---------------------------------------------------------------------------------------------------

NCE = room("info_nce", "triton", ("naive", "shared"), cpu="C++")

_forward = differentiable(operator(
    NCE, "info_nce(Tensor a, Tensor b, Tensor scale) -> (Tensor loss, Tensor stats)",
    fake=lambda a, scale: (scale.new_empty(a.shape[0]), scale.new_empty((4, a.shape[0]))),
    takes="a b: T(N, D); scale: R()", reference=reference, kernel=launch, cpu=launch,
), gradient, constant="stats")
_backward = differentiable(operator(
    NCE, "info_nce_backward(Tensor dloss, Tensor a, Tensor b, Tensor scale, Tensor stats) -> "
    "(Tensor da, Tensor db, Tensor dscale)",
    fake="a b scale", takes="dloss: R(N); a b: T(N, D); scale: R(); stats: R(4, N)",
    reference=reference_backward, kernel=launch_backward, cpu=launch_backward,
))


@door
def info_nce(a, b, scale):
    """loss_n = -(log softmax_m(scale a_n . b_m)_n + log softmax_m(scale a_m . b_n)_n) / 2, of N pairs.

    (N, D), (N, D), () -> (N) in float32 (float64 for float64)
    """
    _check.tensors(a=a, b=b, scale=scale)
    _check.dimensions("a", a, 2, "(N, D)")
    _check.shape("b", b, a.shape, "(N, D), that of a")
    _check.dimensions("scale", scale, 0, "(), one number")
    _check.one_device(a=a, b=b, scale=scale)
    a, b = _check.float32_under_autocast(a, b)
    _check.one_dtype(a=a, b=b)
    return _forward(a=a, b=b, scale=scale.to(sum_dtype(a.dtype)))[0]
