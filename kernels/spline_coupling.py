"""How does a network bend an axis into any increasing curve that can be inverted and differentiated exactly?

Neural spline flows (Durkan, Bekasov, Murray, Papamakarios 2019, eq. 4-8; the curve is Gregory and Delbourgo's, 1982):
half of the variables passes through, and each of the others by a curve of its own, whose knots a network computes from
the first half. This room computes the second half.

    kernels: csrc/spline_coupling.cu, csrc/spline_coupling.cpp    layer: genmini.layers.SplineCoupling
    test: tests/kernels/test_spline_coupling.py    bench: bench/bench_spline_coupling.py

Math
    B is the bound, m the least, K how many bins. An element has K, K and K - 1 parameters w = (v, v', v'').
    knots       a = softmax(v), a' = softmax(v')
                x_k = -B + sum_{j<k} 2B (m + (1 - K m) a_j)         y_k the same with a'        x_K = y_K = B
                delta_k = m + softplus(v''_k + c), c so that v''_k = 0 gives 1                  delta_0 = delta_K = 1
                w = 0 is the identity; beyond [-B, B] so is every spline
    a bin       x_k <= x < x_k+1:   s = (y_k+1 - y_k) / (x_k+1 - x_k),   t = (x - x_k) / (x_k+1 - x_k),   u = 1 - t
                den = s (t^2 + u^2) + (delta_k + delta_k+1) t u         sums of positive numbers: nothing cancels
                q   = delta_k+1 t^2 + 2 s t u + delta_k u^2
    forward     y = y_k + (y_k+1 - y_k) (s t^2 + delta_k t u) / den
                logdet_n = sum_d ln(q s^2 / den^2)                      dy/dx = q s^2 / den^2
    inverse     of the bin y_k <= y < y_k+1, with n = (y - y_k) / (y_k+1 - y_k), e = delta_k (1 - n) - delta_k+1 n:
                a t^2 + b t + c = 0 with b = e + 2 s n, c = -s n, a = s - b, of which t = 2c / (-b - sqrt(b^2 - 4ac)).
                b^2 - 4ac = e^2 + 4 s^2 n (1 - n) is a sum of squares: rounding cannot make it negative. With
                r = sqrt(b^2 - 4ac) + |e|:   t : u = 2 s n : r   if e >= 0, else   t : u = r : 2 s (1 - n)
                logdet_n = -sum_d ln(q s^2 / den^2) at that t
    gradient from g = dy and e = dlogdet, with l = ln dy/dx; of the ends of the bin, then of w:
                dx = g dy/dx + e dl/dx                        dz = g dy/dz + e dl/dz    of z = delta_k, delta_k+1, s
                dx_k = -dx,  d(x_k+1 - x_k) = -t dx - ds s / (x_k+1 - x_k)              dy_k = g, and so on
                dv_j = 2B (1 - K m) a_j (d_j - sum_i a_i d_i),   d_j = dx_k if j < k, d(x_k+1 - x_k) if j = k, else 0
    of the inverse, from dx and dlogdet: dy = (dx - dlogdet dl/dx) / (dy/dx); dw that with g = -dy, e = -dlogdet

Shapes
    x, y (N, ...): dimension 0 is the batch, the rest is read as one row of D numbers
    w (N, ..., 3K - 1), 2 <= K <= 64            logdet (N,) float32 (float64 for float64)

Traffic
    a number is b bytes; an element reads 1 + (3K - 1) numbers and writes 1: (3K + 1) b. A backward pass reads w and
    computes the bin again, so that nothing but x and w is kept: it reads 3K + 1 numbers and writes 3K, (6K + 1) b. For
    K = 8 and float32 that is 100 and 196 bytes. The log-slopes of the GPU's kernels are 2 numbers more.

Accuracy
    All is computed in float32, also for x of 16 bits (float64 for float64); the sum over d is kept in double. Knots are
    within (K + 4) roundings of 2B; given its knots, y, x and the logarithm of the slope are right to some roundings:
    the result is taken from the nearer end of the bin, and is exact at every knot. x = B gives y = B. The slopes of a
    bin lie within s^2 min / max^2 and s^2 max / min^2 of (s, delta_k, delta_k+1).
    NaN in x gives NaN in y, logdet and the gradients of its element; an infinite x is beyond B.

Tiling
    naive       one thread an element; it reads w in each pass: two maxima, two sums, the walk over the bins
    staged      a block copies w of 128 elements (fewer if K is large) into shared memory, neighbours side by side:

                w     | 0 1 ... 3K-2 | 3K-1 ...        shared   row of an element, an odd number of columns:
                        thread 0 1 2 ...                        thread e walks row e, each in its own bank

                The softmax is made in place, and the gradient too, which a second copy takes out. Both rungs write each
                log-slope; a second kernel adds a row: one thread (naive), or one warp by a shuffle tree (staged).
    cpu         the lanes of a vector are elements; w is transposed into columns of them, and the formulas are the same
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _check, _library
from ._room import differentiable, door, operator, room, sum_dtype

MOST_BINS = 64  # the same constant stands in csrc/spline_coupling.cu and csrc/spline_coupling.cpp

# ---- reference ------------------------------------------------------------------------------------------------------


class Spot(NamedTuple):
    """The bin of each element, (N, D) but for a and b (N, D, K), and its place there"""

    inside: Tensor  # of +-B
    k: Tensor  # (N, D, 1)
    a: Tensor  # the shares of the widths and of the heights
    b: Tensor
    x: tuple  # of the bin's ends, as y and d
    y: tuple
    d: tuple
    s: Tensor
    t: Tensor
    u: Tensor
    den: Tensor
    q: Tensor


def reference(x, w, bound, least, inverse):  # (N, D), (N, D, 3K-1) -> (N, D), (N,)
    at = spot(x, w, bound, least, inverse)
    (x0, x1), (y0, y1), (d0, d1), s, t, u = at.x, at.y, at.d, at.s, at.t, at.u
    ln = torch.where(at.inside, at.q.log() + 2 * (s / at.den).log(), 0).sum(1, dtype=torch.float64).to(s.dtype)
    if inverse:
        y, ln = torch.where(t < u, x0 + (x1 - x0) * t, x1 - (x1 - x0) * u), -ln
    else:
        up, down = (s * t * t + d0 * t * u) / at.den, (s * u * u + d1 * t * u) / at.den  # 1 together
        y = torch.where(t < u, y0 + (y1 - y0) * up, y1 - (y1 - y0) * down)
    return torch.where(at.inside, y.to(x.dtype), x), ln


def knots(w, bound, least):
    """a, a' (..., K), x_k, y_k and delta_k (..., K+1)"""
    K = bins(w)
    *axes, slopes = w.split([K, K, K - 1], -1)
    shares = [v.softmax(-1) for v in axes]
    inner = [-bound + (2 * bound * (least + (1 - K * least) * a)).cumsum(-1)[..., :-1] for a in shares]
    ends = [F.pad(F.pad(x, (1, 0), value=-bound), (0, 1), value=bound) for x in inner]
    delta = least + F.softplus(slopes + shift(least))
    return *shares, *ends, F.pad(delta, (1, 1), value=1.0)


def bins(w):
    return (w.shape[-1] + 1) // 3


def shift(least):
    return math.log(math.expm1(1 - least))  # least + softplus(shift) = 1


def spot(v, w, bound, least, inverse):
    v, w = v.to(sum_dtype(v.dtype)), w.to(sum_dtype(v.dtype))
    a, b, *of_knots = knots(w, bound, least)
    inside = ~((v < -bound) | (v > bound))
    v = torch.where(inside, v, 0)
    k = (v[..., None] >= of_knots[inverse][..., 1:-1]).sum(-1, keepdim=True)
    x, y, d = ((of.gather(-1, k)[..., 0], of.gather(-1, k + 1)[..., 0]) for of in of_knots)
    (x0, x1), (y0, y1), (d0, d1) = x, y, d
    s = (y1 - y0) / (x1 - x0)
    if inverse:
        n, rest = (v - y0) / (y1 - y0), (y1 - v) / (y1 - y0)
        e = d0 * rest - d1 * n
        r, sn, sm = (e * e + 4 * s * s * n * rest).sqrt() + torch.where(e < 0, -e, e), 2 * s * n, 2 * s * rest
        t, u = torch.where(e < 0, r / (r + sm), sn / (r + sn)), torch.where(e < 0, sm / (r + sm), r / (r + sn))
    else:
        t, u = (v - x0) / (x1 - x0), (x1 - v) / (x1 - x0)
    den = s * (t * t + u * u) + (d0 + d1) * t * u
    return Spot(inside, k, a, b, x, y, d, s, t, u, den, d1 * t * t + 2 * s * t * u + d0 * u * u)


def reference_backward(dy, dlogdet, x, w, bound, least, inverse):
    g, e, at = dy.to(sum_dtype(dy.dtype)), dlogdet[:, None], spot(x, w, bound, least, inverse)
    _, k, a, b, (x0, x1), (y0, y1), (d0, d1), s, t, u, den, q = at
    p = t * u
    # forward was: dy/dx = q s^2 / den^2, l = ln q + 2 ln s - 2 ln den, and dt/dx = -du/dx = 1 / (x1 - x0)
    slope = q * (s / den).square()
    dl = (2 * (d1 * t - d0 * u + s * (u - t)) / q - 2 * (d0 + d1 - 2 * s) * (u - t) / den) / (x1 - x0)
    dv = dx = g * slope + e * dl
    if inverse:  # was: x with y(x, w) = y, logdet = -l(x, w)
        dv, dx, e = (g - e * dl) / slope, -g, -e
        g = -dv
    # forward was: y = y0 + (y1 - y0) rho, rho = (s t^2 + d0 t u) / den
    rho, gh = (s * t * t + d0 * p) / den, g * (y1 - y0) / den
    ds = gh * p * (d1 * t * t - d0 * u * u) / den + e * (2 / s + 2 * p / q - 2 * (t * t + u * u) / den)
    dd0 = gh * p * (s * u * u + d1 * p) / den + e * (u * u / q - 2 * p / den)
    dd1 = e * (t * t / q - 2 * p / den) - gh * p * rho
    axes = (-dx, -(t * dx + ds * s / (x1 - x0)), a), (g, g * rho + ds / (x1 - x0), b)  # s = (y1 - y0) / (x1 - x0)
    K, dw = a.shape[-1], []
    j = torch.arange(K, device=w.device)
    for first, size, share in axes:  # knots were: sums of 2B (m + (1 - K m) softmax(v))
        d = first[..., None] * (j < k) + size[..., None] * (j == k)
        dw.append(2 * bound * (1 - K * least) * share * (d - (share * d).sum(-1, keepdim=True)))
    sigma = (w[..., 2 * K :].to(s.dtype) + shift(least)).sigmoid()  # delta was: m + softplus(v + shift)
    dw.append(sigma * (dd0[..., None] * (j[1:] == k) + dd1[..., None] * (j[1:] == k + 1)))
    dw = torch.where(at.inside[..., None], torch.cat(dw, -1), 0)
    return torch.where(at.inside, dv, dy).to(x.dtype), dw.to(w.dtype)


# ---- kernel: for GPUs in csrc/spline_coupling.cu, for CPUs in csrc/spline_coupling.cpp ------------------------------
#
#   spline_coupling[_backward]_naive, _staged, _cpu

# ---- launcher -------------------------------------------------------------------------------------------------------


def launch(backend, rung, x, w, bound, least, inverse):
    (N, D), dtype, sums = x.shape, x.dtype, sum_dtype(x.dtype)
    if backend == "cpu":
        x, w = _library.for_native(x, w)
    y, logdet = torch.empty_like(x), x.new_empty(N, dtype=sums)
    slopes = () if backend == "cpu" else (x.new_empty((N, D), dtype=sums),)  # the logarithm of each
    _library.call("spline_coupling", backend, f"spline_coupling_{rung or backend}", x.dtype, inverse, x, w, y, logdet,
                  *slopes, bound, least, shift(least), N, D, bins(w))
    return y.to(dtype), logdet


def launch_backward(backend, rung, dy, dlogdet, x, w, bound, least, inverse):
    (N, D), dtype = x.shape, x.dtype
    if backend == "cpu":
        dy, x, w = _library.for_native(dy, x, w)
    dx, dw = torch.empty_like(x), torch.empty_like(w)
    _library.call("spline_coupling", backend, f"spline_coupling_backward_{rung or backend}", x.dtype, inverse, dy,
                  dlogdet, x, w, dx, dw, bound, least, shift(least), N, D, bins(w))
    return dx.to(dtype), dw.to(dtype)


# ---- gradient -------------------------------------------------------------------------------------------------------


def gradient(dy, dlogdet, x, w, bound, least, inverse):
    dx, dw = _backward(dy=dy, dlogdet=dlogdet, x=x, w=w, bound=bound, least=least, inverse=inverse)
    return dict(x=dx, w=dw)


# ---- registration ---------------------------------------------------------------------------------------------------


def possible(w, bound, least):
    if (w.shape[-1] + 1) % 3 or not 2 <= bins(w) <= MOST_BINS:
        raise ValueError(f"w must have shape (N, ..., 3K - 1), K from 2 to {MOST_BINS}, got {tuple(w.shape)}")
    _check.number("bound", bound, 1e-3, 1e3)
    _check.number("least", least, 1e-4, 0.5 / bins(w))


SPLINE = room("spline_coupling", "cuda", ("naive", "staged"), cpu="C++")

# with `inverse` x is y and y is x
_spline = differentiable(operator(
    SPLINE, "spline_coupling(Tensor x, Tensor w, float bound, float least, bool inverse) -> (Tensor y, Tensor logdet)",
    fake=lambda x: (x.new_empty(x.shape), x.new_empty(x.shape[0], dtype=sum_dtype(x.dtype))), check=possible,
    takes="x y: T(N, D...); w: T(N, D..., *)", reference=reference, kernel=launch, cpu=launch,
), gradient, rows="x w")
_backward = differentiable(operator(
    SPLINE, "spline_coupling_backward(Tensor dy, Tensor dlogdet, Tensor x, Tensor w, float bound, float least, "
    "bool inverse) -> (Tensor dx, Tensor dw)", fake="x w", check=possible,
    takes="dy x dx: T(N, D...); w dw: T(N, D..., *); dlogdet: R(N)",
    reference=reference_backward, kernel=launch_backward, cpu=launch_backward,
), rows="dy dlogdet x w")


@door
def spline_coupling(x, w, bound=5.0, least=1e-3):
    """y, each x by its own increasing spline of K bins on +-bound, and logdet, the sum of the logarithms of the slopes.

    x (N, ...), w (N, ..., 3K - 1) -> (N, ...), (N,).   w: K widths, K heights and K - 1 slopes, any numbers; 0 is the
    identity. least: the least slope, and the least width and height as a share of 2 bound.
    """
    return _call("x", x, w, bound, least, inverse=False)


@door
def spline_coupling_inverse(y, w, bound=5.0, least=1e-3):
    """x whose spline_coupling(x, w) is y, and minus its logdet.   (N, ...), (N, ..., 3K - 1) -> (N, ...), (N,)"""
    return _call("y", y, w, bound, least, inverse=True)


def _call(name, x, w, bound, least, inverse):
    _check.tensors(**{name: x}, w=w)
    _check.at_least(name, x, 1, "(N, ...), dimension 0 the batch")
    _check.at_least("w", w, 2, "(N, ..., 3K - 1)")
    _check.shape("w", w, (*x.shape, w.shape[-1]), f"that of {name} and 3K - 1 more")
    possible(w, bound, least)
    _check.one_device(**{name: x}, w=w)
    x, w = _check.float32_under_autocast(x, w)
    _check.one_dtype(**{name: x}, w=w)
    return _spline(x=x, w=w, bound=float(bound), least=float(least), inverse=inverse)
