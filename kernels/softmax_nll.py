"""How many nats does a pixel cost, if it has one of L levels and the model gives each level a logit?

The loss of every L-way softmax: PixelCNN and PixelRNN over 256 levels (van den Oord, Kalchbrenner, Kavukcuoglu 2016,
section 3.3), MADE and NADE over a few. The running maximum is that of Milakov, Gimelshein, "Online normalizer
calculation for softmax", 2018.

    kernels: below, csrc/softmax_nll.cpp    model: genmini/models/pixelcnn.py
    test: tests/kernels/test_softmax_nll.py    bench: bench/bench_softmax_nll.py

Math
    forward     nll_np = (m_np - a_ntp) + log s_np,  m_np = max_l a_nlp,  s_np = sum_l exp(a_nlp - m_np),  t = target_np
    online      m, s of the levels so far;  m' = max(m, a_l),  s <- s exp(m - m') + exp(a_l - m'),  m <- m'
    gradient    da_nlp  = (q_nlp - [l = t]) dnll_np,   q_nlp = exp((a_nlp - m_np) - log s_np)
    m and log s are kept apart: their sum would round away log s where logits are large. The derivative of da is plain
    PyTorch.

Shapes
    logits (N, L, ...), target (N, ...) of integers 0 ... L-1 -> nll (N, ...), in float32, for float64 logits float64
    R = N P pixels, where P is the product of the dimensions after L, which the room folds into one

Traffic
    w bytes a logit: w R L once in the forward, w R L in and w R L out in the gradient, 8 bytes a pixel for m and log s.
    Eager PyTorch writes log-softmax (2 w R L), and its gradient fills a tensor with zeros, writes the ones, reads it
    and log-softmax and writes da: 4 w R L. R = 64 x 32 x 32 x 3, L = 256, float32: 201 MB forward, 403 MB gradient,
    against 403 and 805. There are a few operations a byte: memory is the bound.
    With one level a pixel m and log s take more than its log-softmax: 8 bytes for 4.
    On a CPU a few more: one core of an EPYC with AVX-512 takes 3.4 ns for 16 logits in its caches (0.7 ms for 16 x 256
    x 784, of which exp is half), and 2.4 ms for 512 x 17 x 784, 27 MB of memory; for da 0.8 and 2.9 ms where it lies in
    memory at hand. Of a new da, the system's work on its pages takes longer than that.

Not finite
    as F.cross_entropy: a logit NaN or +inf makes nll and the gradient of its pixel NaN; a logit -inf gives its level
    probability 0 and gradient 0; if it is the target, nll is inf; all -inf: NaN. A target outside 0 ... L-1 raises
    on a CPU; on a GPU its pixel costs 0 and has no gradient.

Tiling
    A program owns BP pixels and walks along their L logits, BL at a time: a tile (BL, BP), whose fast side is the
    pixels where an image's channels come first, and the levels where they come last. Any strides of N, L and P.

        naive    two walks: the maximum, then the sum; the elements of the logits are loaded twice forward
        online   one walk: whenever a tile raises the maximum, the sum so far is scaled down, and each logit is loaded
                 once: half of the elements forward (DRAM stays if a cache holds the tile's walk)
        cpu      the same by blocks of 64 levels; the lanes of a vector are pixels, and a block of those whose levels
                 lie side by side is transposed. The sum of a pixel has one order, whatever the strides and the number
                 of threads; AVX-512 and AVX2 give the same bits

    The gradient needs no walk: each program computes one tile. The order of a sum over l depends on shapes and strides
    alone: the same bits every time.
"""

import torch

from . import _check, _library
from ._room import differentiable, door, operator, room, sum_dtype
from ._triton import for_interpreter, tl, triton, triton_dtype

# ---- reference ------------------------------------------------------------------------------------------------------


def reference(logits, target):  # (N, L, P), (N, P) -> nll, m, log s, each (N, P)
    a, L = logits.to(sum_dtype(logits.dtype)), logits.shape[1]
    m = a.amax(1)
    log_s = (a - m[:, None]).exp().sum(1).log()
    a_t = a.gather(1, target.long().clamp(0, L - 1)[:, None])[:, 0]
    return torch.where(inside(target, L), m - a_t + log_s, 0), m, log_s


def reference_backward(dnll, logits, target, m):
    """da (N, L, P). It computes m and log s again, so that its own derivative goes through them."""
    q, l = logits.to(m.dtype).softmax(1), torch.arange(logits.shape[1], device=logits.device)
    da = (q - (l[:, None] == target[:, None]).to(q.dtype)) * dnll[:, None]
    return torch.where(inside(target, len(l))[:, None], da, 0).to(logits.dtype)


def inside(target, L):
    return (target >= 0) & (target.long() < L)


# ---- kernel: for CPUs in csrc/softmax_nll.cpp -----------------------------------------------------------------------


@triton.jit
def tile(l_start, a_ptrs, a_l, p_ok, L, SUM: tl.constexpr, BL: tl.constexpr):
    """BL levels of BP pixels, (BL, BP); beyond L they are -inf, which adds nothing."""
    l = l_start + tl.arange(0, BL)
    return l[:, None], tl.load(a_ptrs[None, :] + l.to(tl.int64)[:, None] * a_l, (l < L)[:, None] & p_ok[None, :],
                               other=float("-inf")).to(SUM)


@triton.jit
def finite(m):
    return tl.where(m == float("-inf"), 0, m)  # while all levels are -inf: then exp gives 0 and not NaN


@triton.jit
def nll_of(a_ptr, t_ptr, nll_ptr, m_ptr, log_s_ptr, L, P, R, a_n, a_l, a_p, t_n, t_p,
           ONLINE: tl.constexpr, SUM: tl.constexpr, BP: tl.constexpr, BL: tl.constexpr):
    """nll_r = (m_r - a_tr) + log s_r for BP pixels r = (n, p)."""
    r = tl.program_id(0).to(tl.int64) * BP + tl.arange(0, BP)
    n, p, p_ok = r // P, r % P, r < R
    t = tl.load(t_ptr + n * t_n + p * t_p, p_ok, other=0).to(tl.int64)
    a_ptrs = a_ptr + n * a_n + p * a_p  # a[n, 0, p]
    # the maximum and the sum of no levels; beyond R, numbers whose logarithm is finite
    m, s = tl.where(p_ok, float("-inf"), 0).to(SUM), tl.where(p_ok, 0, 1).to(SUM)
    a_t = tl.zeros((BP,), SUM)
    if ONLINE:
        for l_start in range(0, L, BL):
            l, a = tile(l_start, a_ptrs, a_l, p_ok, L, SUM, BL)
            top = tl.maximum(m, tl.max(a, 0))
            s = s * tl.exp(m - finite(top)) + tl.sum(tl.exp(a - finite(top)[None, :]), 0)
            m = top
            a_t += tl.sum(tl.where(l == t[None, :], a, 0), 0)
    else:
        for l_start in range(0, L, BL):
            l, a = tile(l_start, a_ptrs, a_l, p_ok, L, SUM, BL)
            m = tl.maximum(m, tl.max(a, 0))
        for l_start in range(0, L, BL):
            l, a = tile(l_start, a_ptrs, a_l, p_ok, L, SUM, BL)
            s += tl.sum(tl.exp(a - finite(m)[None, :]), 0)
            a_t += tl.sum(tl.where(l == t[None, :], a, 0), 0)
    log_s = tl.log(s)
    tl.store(nll_ptr + r, tl.where((t >= 0) & (t < L), (m - a_t) + log_s, 0), p_ok)
    tl.store(m_ptr + r, m, p_ok)
    tl.store(log_s_ptr + r, log_s, p_ok)


@triton.jit
def backward(dnll_ptr, a_ptr, t_ptr, m_ptr, log_s_ptr, da_ptr, L, P, R,
             a_n, a_l, a_p, t_n, t_p, d_n, d_p, da_n, da_l, da_p,
             SUM: tl.constexpr, BP: tl.constexpr, BL: tl.constexpr):
    """da_lr = (exp((a_lr - m_r) - log s_r) - [l = t_r]) dnll_r for one tile."""
    r = tl.program_id(0).to(tl.int64) * BP + tl.arange(0, BP)
    n, p, p_ok = r // P, r % P, r < R
    t = tl.load(t_ptr + n * t_n + p * t_p, p_ok, other=0).to(tl.int64)
    m, log_s = tl.load(m_ptr + r, p_ok, other=0), tl.load(log_s_ptr + r, p_ok, other=0)
    dnll = tl.load(dnll_ptr + n * d_n + p * d_p, p_ok, other=0)
    l, a = tile(tl.program_id(1) * BL, a_ptr + n * a_n + p * a_p, a_l, p_ok, L, SUM, BL)
    q = tl.exp((a - m[None, :]) - log_s[None, :])
    da = tl.where(((t >= 0) & (t < L))[None, :], (q - tl.where(l == t[None, :], 1, 0)) * dnll[None, :], 0)
    da_ptrs = da_ptr + (n * da_n + p * da_p)[None, :] + l.to(tl.int64) * da_l
    tl.store(da_ptrs, da.to(da_ptr.dtype.element_ty), (l < L) & p_ok[None, :])


# ---- launcher -------------------------------------------------------------------------------------------------------

TILE = {"naive": (128, 8), "online": (64, 32)}  # pixels, levels


def launch(backend, rung, logits, target):
    (N, L, P), (logits,) = logits.shape, (_library.for_native if backend == "cpu" else for_interpreter)(logits)
    nll, m, log_s = (logits.new_empty((N, P), dtype=sum_dtype(logits.dtype)) for _ in range(3))
    if backend == "cpu":
        t = target.long().contiguous()
        _library.call("softmax_nll", "cpu", "softmax_nll_cpu", logits.dtype, logits, t, nll, m, log_s, N, L, P,
                      *logits.stride())
        return nll, m, log_s
    BP, BL = TILE[rung]
    with torch.cuda.device_of(logits):
        nll_of[(triton.cdiv(N * P, BP),)](
            logits, target, nll, m, log_s, L, P, N * P, *logits.stride(), *target.stride(),
            ONLINE=rung == "online", SUM=triton_dtype(sum_dtype(logits.dtype)), BP=BP, BL=BL, num_warps=4,
        )
    return nll, m, log_s


def launch_backward(backend, rung, dnll, logits, target, m, log_s):
    (N, L, P), dtype = logits.shape, logits.dtype
    (logits,) = (_library.for_native if backend == "cpu" else for_interpreter)(logits)
    da = torch.empty_like(logits)
    if backend == "cpu":
        tensors = dnll.contiguous(), logits, target.long().contiguous(), m, log_s, da
        _library.call("softmax_nll", "cpu", "softmax_nll_backward_cpu", logits.dtype, *tensors, N, L, P,
                      *logits.stride(), *da.stride())
        return da.to(dtype)
    BP, BL = TILE[rung]
    with torch.cuda.device_of(logits):
        backward[(triton.cdiv(N * P, BP), triton.cdiv(L, BL))](
            dnll, logits, target, m, log_s, da, L, P, N * P,
            *logits.stride(), *target.stride(), *dnll.stride(), *da.stride(),
            SUM=triton_dtype(sum_dtype(logits.dtype)), BP=BP, BL=BL, num_warps=4,
        )
    return da.to(dtype)


# ---- gradient -------------------------------------------------------------------------------------------------------


def gradient(dnll, logits, target, m, log_s):
    # forward was: nll_np = (m_np - a_ntp) + log s_np;   m and log s are outputs only for this gradient
    return dict(logits=_backward(dnll=dnll, logits=logits, target=target, m=m, log_s=log_s))


# ---- registration ---------------------------------------------------------------------------------------------------

NLL = room("softmax_nll", "triton", ("naive", "online"), cpu="C++")

_forward = differentiable(operator(
    NLL, "softmax_nll(Tensor logits, Tensor target) -> (Tensor nll, Tensor m, Tensor log_s)",
    fake=lambda logits, target: tuple(target.new_empty(target.shape, dtype=sum_dtype(logits.dtype)) for _ in range(3)),
    check=lambda logits, target: _check.in_range("target", target, logits.shape[1], "L"),
    takes="logits: T(N, L, P...); target: int(N, P...); nll m log_s: R(N, P...)",
    reference=reference, kernel=launch, cpu=launch,
    strided="logits target",
), gradient, rows="logits target", constant="m log_s")
_backward = differentiable(operator(
    NLL, "softmax_nll_backward(Tensor dnll, Tensor logits, Tensor target, Tensor m, Tensor log_s) -> Tensor da",
    fake=lambda logits: torch.empty_like(logits),
    takes="logits da: T(N, L, P...); target: int(N, P...); dnll m log_s: R(N, P...)",
    reference=reference_backward, kernel=launch_backward, cpu=launch_backward, strided="dnll logits target da",
), rows="dnll logits target m log_s")


@door
def softmax_nll(logits, target):
    """nll = -log softmax(logits)_target, over dimension 1.

    (N, L, ...), (N, ...) integers -> (N, ...) in float32 (float64 for float64)
    """
    _check.tensors(logits=logits)
    _check.tensors(_check.INTEGERS, target=target)
    _check.at_least("logits", logits, 2, "(N, L, ...)")
    (N, L, *rest) = logits.shape
    _check.shape("target", target, (N, *rest), "(N, ...), that of logits without L")
    if L < 1:
        raise ValueError(f"logits must have at least 1 level along dimension 1, got shape {tuple(logits.shape)}")
    _check.one_device(logits=logits, target=target)
    (logits,) = _check.float32_under_autocast(logits)
    nll, *_ = _forward(logits=logits, target=target)
    return nll
