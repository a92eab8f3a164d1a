"""How likely is each pixel given those before it, if one network computes all of these probabilities in one pass?

The neural autoregressive distribution estimator (Larochelle, Murray 2011, eq. 5-8; Uria et al. 2016, algorithm 1; the
course's "Neural Autoregressive Density Estimator", partage des poids): the D networks share W, so that the next pixel
only adds one column of W.

    kernels: csrc/nade.cu, csrc/nade.cpp    model: genmini/models/nade.py
    test: tests/kernels/test_nade.py    bench: bench/bench_nade.py

Math
    a_1 = c,   h_d = sigma(a_d),   l_d = b_d + V_d . h_d,   a_{d+1} = a_d + W_:d if x_d = 1, else a_d
    log_prob = sum_d log sigma(+-l_d), + where x_d = 1          (l_d is a logit: sigma is applied to it only here)
    sample      x_d = [u_d >= sigma(-l_d)], that is, 1 with probability sigma(l_d)
    gradient, from dl_d:    dV_d = dl_d h_d        da_d = dl_d V_d h_d (1 - h_d)        db_d = dl_d
                            dW_:d = x_d A_d,  A_d = sum_{d' > d} da_d'        dc = sum_d da_d
                            each summed over the rows
    x is data: 0 or 1, and gets no gradient. The second derivative is plain PyTorch's, which stores (N, D, H).

Shapes
    x, u (N, D)   W (H, D)   V (D, H)   b (D)   c (H) -> log_prob (N)   logits (N, D)
    float32 or float64; 16-bit numbers become float32

Traffic
    N D H sigmoids and 4 N D H operations, where D separate networks would need N D^2 H; the weights are read once a
    block of rows. A pixel of 0 leaves h as it was: with a share p of ones there are p N D H sigmoids. What PyTorch's
    loop stores for its gradient, N D H numbers, is never stored: h is recomputed from a_d, which is added up in the
    forward's own order, hence to the same bits. (Going back by subtraction, a_d = a_{d+1} - W_:d, would lose the digits
    that the largest a covers, at every pixel again.) A thread of a CPU holds 16 rows of a and h, and in the gradient
    the marks of 32 rows for 64 units: for few small images more than PyTorch's loop does.

Tiling
    naive       the pass: a block a row, two barriers a reduction; the gradient: a thread a unit, all rows in turn
    warp_rows   the pass: a warp a row, its H units in registers. The gradient: no unit depends on another, so a block
                owns 32 units

                a_d of a row   | chunk 0 | chunk 1 | ... | chunk C |     upwards only a, stored at every mark; then
                               ^mark     ^mark                           chunk by chunk from the end: h is computed
                                                                         again, and the gradient goes down through it

    cpu         the pass: up to 16 rows a task; the gradient: up to 4 vectors of units a task, all rows; chunks as above
"""

import math

import torch
import torch.nn.functional as F

from . import _check, _library
from ._room import differentiable, operator, room

GROUPS = 16  # of rows, at most: the gradient of warp_rows keeps (2 D + 1) H partial sums a group

# ---- reference ------------------------------------------------------------------------------------------------------


def reference(x, W, V, b, c):
    """(N, D), W transposed (D, H), (D, H), (D), (H) -> logits (N, D)"""
    a, logits = c.expand(len(x), -1), [b.new_zeros(len(x), 0)]
    for d in range(x.shape[1]):
        logits.append((b[d] + a.sigmoid() @ V[d])[:, None])
        a = torch.where(x[:, d, None] != 0, a + W[d], a)
    return torch.cat(logits, 1)


def reference_sample(u, x, known, W, V, b, c):
    """x (N, D), of which x[:, :known] is given -> x, drawn from there on, and the logits of all pixels"""
    a, x, logits = c.expand(len(x), -1), x.clone(memory_format=torch.contiguous_format), [b.new_zeros(len(x), 0)]
    for d in range(x.shape[1]):
        l = b[d] + a.sigmoid() @ V[d]
        if d >= known:
            x[:, d] = u[:, d] >= torch.sigmoid(-l)
        a = torch.where(x[:, d, None] != 0, a + W[d], a)
        logits.append(l[:, None])
    return x, torch.cat(logits, 1)


def reference_backward(dl, x, W, V, c):
    """dW, dV, dc. It holds all a_d at once, (N, D, H)."""
    one = x[:, :, None] != 0
    a = torch.cat([c.expand(len(x), 1, -1), torch.where(one, W, 0)[:, :-1]], 1)[:, : x.shape[1]].cumsum(1)
    h = a.sigmoid()
    # forward was: l_d = b_d + V_d . h_d,   a_{d+1} = a_d + W_d x_d
    da = dl[:, :, None] * V * h * (1 - h)
    A = da.flip(1).cumsum(1).flip(1) - da
    return torch.where(one, A, 0).sum(0), (dl[:, :, None] * h).sum(0), da.sum((0, 1))


# ---- kernel: in csrc/nade.cu and csrc/nade.cpp, by these names ------------------------------------------------------
#
#   rung         the pass, and sampling    the gradient
#   naive        nade_naive                nade_backward_naive
#   warp_rows    nade_warp_rows            nade_backward_warp_rows
#   (cpu)        nade_cpu                  nade_backward_cpu

# ---- launcher -------------------------------------------------------------------------------------------------------


def launch(backend, rung, x, W, V, b, c, u=None, known=None):
    """Writes x[:, known:] if there is u, and returns the logits."""
    (N, D), H, threads = x.shape, V.shape[1], torch.get_num_threads()
    known, logits = D if known is None else known, W.new_empty(N, D)
    if backend == "cpu":
        function, work = "nade_cpu", _workspace("nade_cpu", W.dtype, N, H, threads=threads)
    else:
        function, work = f"nade_{rung}", W.new_empty(N, H)
    arguments = W.dtype, u, x, known, W, V, b, c, logits, work, N, D, H
    _library.call("nade", backend, function, *arguments, threads=threads)
    return logits


def launch_sample(backend, rung, u, x, known, W, V, b, c):
    x = x.clone()  # its pixels from `known` on are written
    return x, launch(backend, rung, x, W, V, b, c, u, known)


def launch_backward(backend, rung, dl, x, W, V, c):
    (N, D), H, threads = x.shape, V.shape[1], torch.get_num_threads()
    if N == 0:
        return torch.zeros_like(W), torch.zeros_like(V), torch.zeros_like(c)
    dW, dV, dc = torch.empty_like(W), torch.empty_like(V), torch.empty_like(c)
    arguments = W.dtype, dl, x, W, V, c, dW, dV, dc
    if backend == "cpu":
        work = _workspace("nade_backward_cpu", W.dtype, D, H, threads=threads)
        _library.call("nade", "cpu", "nade_backward_cpu", *arguments, work, N, D, H, threads=threads)
    else:
        groups = min(GROUPS, math.ceil(N / 8))
        work = W.new_empty(D, H) if rung == "naive" else W.new_empty(groups, 2 * D + 1, H)
        _library.call("nade", backend, f"nade_backward_{rung}", *arguments, work, groups, N, D, H)
    return dW, dV, dc


def _workspace(function, *sizes, threads):
    bytes = _library.size("nade", "cpu", f"{function}_workspace", *sizes, threads=threads)
    return torch.empty(bytes, dtype=torch.uint8)


# ---- gradient -------------------------------------------------------------------------------------------------------


def gradient(dl, x, W, V, c):
    dW, dV, dc = _backward(dl=dl, x=x, W=W, V=V, c=c)
    return dict(W=dW, V=dV, b=dl.sum(0), c=dc)


# ---- registration ---------------------------------------------------------------------------------------------------

NADE = room("nade", "cuda", ("naive", "warp_rows"), cpu="C++")
SAMPLE = room("nade_sample", "cuda", ("naive", "warp_rows"), cpu="C++", source="nade")


def _binary(x, known=None):
    if _check.values(x) and ((x if known is None else x[:, :known]) > 1).any():
        raise ValueError("x must hold 0 and 1 alone, and it holds other values")


_backward = differentiable(operator(
    NADE, "nade_backward(Tensor dl, Tensor x, Tensor W, Tensor V, Tensor c) -> (Tensor dW, Tensor dV, Tensor dc)",
    fake="W V c", takes="x: uint8(N, D); dl: T(N, D); W V: T(D, H); c: T(H)",
    reference=reference_backward, kernel=launch_backward, cpu=launch_backward,
))
_logits = differentiable(operator(
    NADE, "nade(Tensor x, Tensor W, Tensor V, Tensor b, Tensor c) -> Tensor l",
    fake=lambda x, W: W.new_empty(x.shape), takes="x: uint8(N, D); W V: T(D, H); b: T(D); c: T(H)",
    check=_binary, reference=reference, kernel=launch, cpu=launch,
), gradient, rows="x")
_sample = operator(
    SAMPLE, "nade_sample(Tensor u, Tensor x, int known, Tensor W, Tensor V, Tensor b, Tensor c)"
    " -> (Tensor drawn, Tensor l)",
    fake=lambda x, W: (x.new_empty(x.shape), W.new_empty(x.shape)),
    takes="x: uint8(N, D); u: T(N, D); W V: T(D, H); b: T(D); c: T(H)",
    check=_binary, reference=reference_sample, kernel=launch_sample, cpu=launch_sample,
)


def nade(x, W, V, b, c):
    """log p(x).   x (N, D) of 0 and 1, any dtype; W (H, D), V (D, H), b (D), c (H) -> (N,)"""
    x = _data(x)
    l = nade_logits(x, W, V, b, c)
    return F.logsigmoid(torch.where(x != 0, l, -l)).sum(1, dtype=torch.float64).to(l.dtype)


def nade_logits(x, W, V, b, c):
    """l_d, the logit of p(x_d = 1 | x_<d), for every d.   As nade -> (N, D)"""
    x = _data(x)
    W, V, b, c = _weights(x, W, V, b, c)
    return _logits(x=x, W=W.t(), V=V, b=b, c=c)


def nade_sample(u, W, V, b, c, x=None, known=0, logits=False):
    """Draws, (N, D) uint8: the same u (N, D), uniform in [0, 1), gives the same draws.

    Backends round differently, so they may differ where u_d lies within a rounding of a probability.

    x (N, D) and known: x[:, :known] is given, the rest is drawn after it. logits=True also returns the logits of all
    steps, (N, D), as constants.
    """
    x = _check.x_to_complete(u, x, known, _check.NUMBERS, torch.uint8, _data)
    with torch.no_grad():
        W, V, b, c = _weights(x, W, V, b, c)
        x, l = _sample(u=u.to(W.dtype), x=x, known=known, W=W.t(), V=V, b=b, c=c)
    return (x, l) if logits else x


def _data(x):
    """x as uint8. What is neither 0 nor 1 becomes 2, which the operator refuses."""
    _check.tensors(_check.NUMBERS, x=x)
    _check.dimensions("x", x, 2, "(N, D)")
    return x if x.dtype == torch.uint8 else torch.where(x == 0, 0, torch.where(x == 1, 1, 2)).to(torch.uint8)


def _weights(x, W, V, b, c):
    _check.tensors(W=W, V=V, b=b, c=c)
    _check.dimensions("V", V, 2, "(D, H)")
    D, H = x.shape[1], V.shape[1]
    _check.shape("V", V, (D, H), "(D, H) with D of x")
    _check.shape("W", W, (H, D), "(H, D) with H of V")
    _check.shape("b", b, (D,), "(D,)")
    _check.shape("c", c, (H,), "(H,)")
    _check.one_device(x=x, W=W, V=V, b=b, c=c)
    _check.one_dtype(W=W, V=V, b=b, c=c)
    return _library.for_native(W, V, b, c)
