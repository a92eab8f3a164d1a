"""How does a network transform a density so that the change of volume is known exactly?

The affine coupling layer of RealNVP (Dinh, Sohl-Dickstein, Bengio 2017, eq. 7-8; the course's "affine coupling layer"):
half of the variables passes through, the other half is scaled and shifted by what a network computes from the first.
This room computes the second half.

    kernels: csrc/affine_coupling.cu, csrc/affine_coupling.cpp    layer: genmini.layers.AffineCoupling
    test: tests/kernels/test_affine_coupling.py    bench: bench/bench_affine_coupling.py

Math
    forward     y = x e^s + t            logdet_n =  sum_d s_nd        the Jacobian dy/dx is diagonal, e^s on it
    inverse     x = (y - t) e^-s         logdet_n = -sum_d s_nd
    gradient of the forward, from dy and dlogdet (D for the derivative of the loss with respect to ...):
                dx = dy e^s              ds = dy x e^s + dlogdet       dt = dy
                x e^s is also y - t: with save="y" the backward reads y and t, and x need not be kept
    gradient of the inverse, from dx and dlogdet, with its output x:
                dy = dx e^-s             ds = -dx x - dlogdet          dt = -dy

Shapes
    x, s, t, y (N, ...), equal; dimension 0 is the batch, the rest is read as one row of D numbers
    logdet (N,) float32 (float64 for float64)

Traffic
    a number read or written is w bytes (4 for float32); per element: forward or inverse 3 in + 1 out = 4w and 2
    operations and one exp; backward 3 in + 2 out = 5w, with save="y" 4 in + 2 out = 6w; of the inverse dt is no dy that
    is there already, 3 in + 3 out. Memory is the bound: 16, 20, 24 bytes an element in float32. Eager PyTorch moves at
    least 36: exp (8), mul (12), add (12), sum (4).
    On a CPU exp hides behind memory where vectors are wide: one core of an EPYC with AVX-512 takes 30 us for 64 x 3072
    and for two copies of 64 x 3072 numbers, 16 bytes an element too; with AVX2 75 us, bound by exp. Into memory at hand
    8192 x 1024 takes 3.6 ms, two copies 3.4; with a new y 20.6 ms, clone and copy_ 17.9: most is the system's work on
    new pages, which stores past the caches do not make less.

Accuracy
    All is computed in float32, also for x of 16 bits (float64 for float64), and y is rounded once, because e^s may
    exceed float16. The sum of s is kept in double, and compensated (two doubles) for float64, in an order that the
    rung, D and the dtype decide:
        |logdet - exact| <= 2^-23 |exact| + 2^-40 sum|s|   for float32 and 16 bits
        |logdet - exact| <= 2^-50 sum|s| log2(D)           for float64
    On a CPU logdet has the same bits for every instruction set and number of threads; the rest for every number of
    threads, and on AVX-512 those of AVX2. y and the gradients are right to some roundings of their terms.
    save="y": y - t loses the digits that t covers: its error is 2^-24 (|y| + |t|) where x e^s has 2^-24 |x e^s|, so
    keep |t| modest.

Tiling
    naive       one thread an element for y, then one thread a row for logdet (s is read twice)
    one_pass    16-byte loads; a row is a run of chunks of 4096 numbers, a chunk belongs to one block of 256 threads:

                row n   |  chunk 0  |  chunk 1  | ...         block (n, c) writes y, and the sum of its chunk to
                        thread v, v+256, ... in wide loads    part[n, c]; a second kernel, one block a row, adds
                                                              part[n, :] in a fixed tree

                A short row (D <= 512) belongs to 1, 2, 4 ... 32 neighbouring lanes of one warp; a shuffle tree adds it.
    cpu         a task is a chunk, or some short rows; a chunk of at least 16 numbers has 16 partial sums, d in sum
                d % 16, which a tree adds. Below, a vector holds numbers of several rows, and a row is added in order.
                Halves of a network's output are read where they lie, and every other column goes through the cache:
                to copy s and t before took 2 to 7 times as long as the whole pass over 4096 x 32 to 8192 x 1024.
"""

import math

import torch

from . import _check, _library
from ._room import differentiable, door, operator, room, sum_dtype

CHUNK = 4096  # numbers of a row that are added together: CHUNK of csrc/affine_coupling.cu, PART of csrc/cpu/threads.h
SHORT = 512  # a row that lanes of one warp add: SHORT of csrc/affine_coupling.cu

# ---- reference ------------------------------------------------------------------------------------------------------


def reference(x, s, t):  # (N, D) each -> (N, D), (N,)
    wider = sum_dtype(x.dtype)
    y = x.to(wider) * s.to(wider).exp() + t.to(wider)
    return y.to(x.dtype), _row_sum(s)


def reference_inverse(y, s, t):
    wider = sum_dtype(y.dtype)
    x = (y.to(wider) - t.to(wider)) * (-s.to(wider)).exp()
    return x.to(y.dtype), -_row_sum(s)


def _row_sum(s):
    return s.sum(1, dtype=torch.float64).to(sum_dtype(s.dtype))


def reference_backward(dy, dlogdet, kept, s, t):
    # forward was: y = x e^s + t, logdet = sum_d s;   so x e^s = y - t
    dtype = dy.dtype
    dy, kept, s, t = (a if a is None else a.to(sum_dtype(dtype)) for a in (dy, kept, s, t))
    xes = kept * s.exp() if t is None else kept - t
    return (dy * s.exp()).to(dtype), (dy * xes + dlogdet[:, None]).to(dtype)


def reference_inverse_backward(dx, dlogdet, x, s):
    # inverse was: x = (y - t) e^-s, logdet = -sum_d s;   so dx/ds = -x
    dtype = dx.dtype
    dx, x, s = (a.to(sum_dtype(dtype)) for a in (dx, x, s))
    dy = (dx * (-s).exp()).to(dtype)
    return dy, (-dx * x - dlogdet[:, None]).to(dtype), -dy


# ---- kernel: for GPUs in csrc/affine_coupling.cu, for CPUs in csrc/affine_coupling.cpp, by these names ---------------
#
#   rung        forward, inverse                     their gradients
#   naive       affine_coupling[_inverse]_naive      affine_coupling[_inverse]_backward_naive
#   one_pass    affine_coupling[_inverse]_one_pass   affine_coupling[_inverse]_backward_one_pass
#   -           affine_coupling[_inverse]_cpu        affine_coupling[_inverse]_backward_cpu

# ---- launcher -------------------------------------------------------------------------------------------------------


def empty(s):
    """y and logdet, or x and logdet"""
    return s.new_empty(s.shape), s.new_empty(s.shape[0], dtype=sum_dtype(s.dtype))


def launch(backend, rung, x, s, t, inverse=False):
    (N, D), dtype = x.shape, x.dtype
    (x, s, t), strides = ready(backend, x, s, t)
    y, logdet, part = *empty(s), None
    if D > (CHUNK if backend == "cpu" else SHORT):  # else a row is added by one task
        part = x.new_empty((N, math.ceil(D / CHUNK), 2), dtype=torch.float64)  # the sum of each chunk, in two doubles
    name = f"affine_coupling{'_inverse' if inverse else ''}_{rung or backend}"
    _library.call("affine_coupling", backend, name, x.dtype, x, s, t, *strides, y, logdet, part, N, D)
    return y.to(dtype), logdet


def launch_inverse(backend, rung, y, s, t):
    return launch(backend, rung, y, s, t, inverse=True)


def launch_backward(backend, rung, dy, dlogdet, kept, s, t):
    """kept is x if t is None, else y."""
    (N, D), dtype = dy.shape, dy.dtype
    (dy, kept, s, t), strides = ready(backend, dy, kept, s, t)
    dx, ds = dy.new_empty(N, D), dy.new_empty(N, D)
    name = f"affine_coupling_backward_{rung or backend}"
    _library.call("affine_coupling", backend, name, dy.dtype, dy, dlogdet, kept, s, t, *strides, dx, ds, N, D)
    return dx.to(dtype), ds.to(dtype)


def launch_inverse_backward(backend, rung, dx, dlogdet, x, s):
    (N, D), dtype, native = dx.shape, dx.dtype, backend == "cpu"
    (dx, x, s, _), strides = ready(backend, dx, x, s, None)
    dy, ds, *dt = (dx.new_empty(N, D) for _ in range(3 if native else 2))  # a GPU's kernel gives no dt
    name = f"affine_coupling_inverse_backward_{rung or backend}"
    _library.call("affine_coupling", backend, name, dx.dtype, dx, dlogdet, x, s, *strides, dy, ds, *dt, N, D)
    dt = dt[0] if native else -dy
    return dy.to(dtype), ds.to(dtype), dt.to(dtype)


def ready(backend, *tensors):
    """For a GPU's kernel contiguous; for the CPU's as they lie, with an array of all their strides."""
    if backend != "cpu":
        return map(_library.plain, tensors), ()
    tensors = _library.for_native(*tensors)
    return tensors, [_library.integers(*[n for a in tensors for n in ((0, 0) if a is None else a.stride())])]


# ---- gradient -------------------------------------------------------------------------------------------------------


def gradient(dy, dlogdet, x, s):
    dx, ds = _backward(dy=dy, dlogdet=dlogdet, kept=x, s=s, t=None)
    return dict(x=dx, s=ds, t=dy)


def gradient_saving_y(dy, dlogdet, y, s, t):
    dx, ds = _backward(dy=dy, dlogdet=dlogdet, kept=y, s=s, t=t)
    return dict(x=dx, s=ds, t=dy)


def inverse_gradient(dx, dlogdet, x, s):
    dy, ds, dt = _inverse_backward(dx=dx, dlogdet=dlogdet, x=x, s=s)
    return dict(y=dy, s=ds, t=dt)


# ---- registration ---------------------------------------------------------------------------------------------------

COUPLING = room("affine_coupling", "cuda", ("naive", "one_pass"), cpu="C++")

_forward = operator(
    COUPLING, "affine_coupling(Tensor x, Tensor s, Tensor t) -> (Tensor y, Tensor logdet)",
    fake=empty, takes="x s t y: T(N, D...)", strided="x s t", reference=reference, kernel=launch, cpu=launch,
)
_saving_x = differentiable(_forward, gradient, rows="x s t")
_saving_y = differentiable(_forward, gradient_saving_y, rows="x s t")
_inverse = differentiable(operator(
    COUPLING, "affine_coupling_inverse(Tensor y, Tensor s, Tensor t) -> (Tensor x, Tensor logdet)",
    fake=empty, takes="y s t x: T(N, D...)", strided="y s t",
    reference=reference_inverse, kernel=launch_inverse, cpu=launch_inverse,
), inverse_gradient, rows="y s t")
_backward = differentiable(operator(
    COUPLING, "affine_coupling_backward(Tensor dy, Tensor dlogdet, Tensor kept, Tensor s, Tensor? t)"
    " -> (Tensor dx, Tensor ds)",
    fake="dy s", takes="dy kept s t dx ds: T(N, D...); dlogdet: R(N)", strided="dy kept s t",
    reference=reference_backward, kernel=launch_backward, cpu=launch_backward,
), rows="dy dlogdet kept s t")
_inverse_backward = differentiable(operator(
    COUPLING, "affine_coupling_inverse_backward(Tensor dx, Tensor dlogdet, Tensor x, Tensor s)"
    " -> (Tensor dy, Tensor ds, Tensor dt)",
    fake="dx s s", takes="dx x s dy ds dt: T(N, D...); dlogdet: R(N)", strided="dx x s",
    reference=reference_inverse_backward, kernel=launch_inverse_backward, cpu=launch_inverse_backward,
), rows="dx dlogdet x s")


@door
def affine_coupling(x, s, t, save="x"):
    """y = x e^s + t and logdet = sum of s over all but dimension 0.   (N, ...) three times -> (N, ...), (N,)

    save="y" keeps the output y and t for the backward pass, and not x: in a chain of couplings y is kept anyway, as the
    input of the next.
    """
    _check.one_of("save", save, ("x", "y"))
    x, s, t = _checked(x=x, s=s, t=t)
    return (_saving_x if save == "x" else _saving_y)(x=x, s=s, t=t)


@door
def affine_coupling_inverse(y, s, t):
    """x = (y - t) e^-s and logdet = -sum of s over all but dimension 0.   (N, ...) three times -> (N, ...), (N,)"""
    y, s, t = _checked(y=y, s=s, t=t)
    return _inverse(y=y, s=s, t=t)


def _checked(**named):
    _check.tensors(**named)
    (first, like), *rest = named.items()
    _check.at_least(first, like, 1, "(N, ...), dimension 0 the batch")
    for name, tensor in rest:
        _check.shape(name, tensor, like.shape, f"that of {first}")
    _check.one_device(**named)
    named = dict(zip(named, _check.float32_under_autocast(*named.values()), strict=True))
    _check.one_dtype(**named)
    return named.values()
