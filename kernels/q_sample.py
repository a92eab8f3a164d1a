"""How does an image become noise in one step, and what shall the network learn from the result?

The forward process of a diffusion model in closed form (Ho, Jain, Abbeel, "Denoising diffusion probabilistic models",
2020, eq. 4), with the three targets of its training: eps (there, eq. 14), x0, and v (Salimans, Ho, "Progressive
distillation", 2022, section 4).

    kernels: below, kernels/_noise.py, csrc/q_sample.cpp    model: genmini/models/diffusion.py
    test: tests/kernels/test_q_sample.py    bench: bench/bench_q_sample.py

Math
    x_t = alpha x0 + sigma eps,    alpha = alpha[t_n], sigma = sigma[t_n] of row n,    eps ~ N(0, 1)
    y   = eps,  x0  or  v = alpha eps - sigma x0
    gradient, from dx_t and dy:    dx0 = alpha dx_t - sigma dv         deps = sigma dx_t + alpha dv
                                   dx0 = alpha dx_t (+ dy of x0)       deps = sigma dx_t (+ dy of eps)
    Where alpha^2 + sigma^2 = 1, (x_t, v) is (x0, eps) turned by an angle with this cosine and sine. The gradient turns
    back: it is the same operator with -sigma. The schedule is constant: alpha and sigma have no gradient.

Noise
    eps is given, or drawn in the kernel from a seed, by Philox and Box-Muller (kernels/_noise.py): the same numbers on
    every backend. The gradient with respect to x0 does not need them.

Shapes
    x0, eps (N, ...), equal; dimension 0 is the batch, the rest is one row of D numbers; t (N,) integers;
    alpha, sigma (T,) float64 or float32, the schedule -> x_t, y as x0
    A target that is an argument comes back as it is: x0, or eps where it is given. t outside 0 ... T-1 raises on a CPU;
    on a GPU its row counts as alpha = sigma = 0.

Traffic
    A number is w bytes (4 for float32). An element moves x0 in, x_t and y out = 3w with a seed (2w for the target x0),
    3w with eps (4w for v). Eager PyTorch moves 8w: randn, two products, a sum; and 7w more for v. One launch replaces
    four to seven, and the two gathers of N numbers. Memory binds a GPU: a Philox costs 20 products for four numbers.
    On a CPU the noise binds, and in small calls the checks and the dispatch of an operator.

Tiling
    fused     BN rows x BD columns a program, BD a multiple of 4: a row's scalars are read once a tile, DRAM moves 3
              numbers an element (x0, eps, the result), and BD / 4 counters of Philox a row give noise of a seed
    cpu       a task is some short rows, or 4096 numbers of a long one: its noise is drawn into the place of the last
              output, and is still in the cache when that output takes it
"""

import torch

from . import _check, _library
from ._noise import draw, noise, seed_of, tile, tile_of
from ._room import differentiable, door, operator, room, sum_dtype
from ._triton import for_interpreter, tl, triton, triton_dtype

# ---- reference ------------------------------------------------------------------------------------------------------


def reference(x0, t, alpha, sigma, eps, seed, target):  # (N, D), (N), (T) twice -> (N, D), (N, D); y of "none": (N, 0)
    x = x0.to(sum_dtype(x0.dtype))
    a, s = of_rows(alpha, t, x), of_rows(sigma, t, x)
    e = noise(seed, x) if eps is None else eps.to(x.dtype)
    y = x.new_empty(len(x), 0) if target == "none" else e if target == "eps" else a * e - s * x
    return (a * x + s * e).to(x0.dtype), y.to(x0.dtype)


def of_rows(table, t, x):
    """table[t_n] of each row of x (N, ...), as (N, 1, ...) in its dtype; 0 for a t outside the table."""
    there = table[t.clamp(0, len(table) - 1)]
    return torch.where(inside(t, table), there, 0).to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))


def inside(t, table):
    return (t >= 0) & (t < len(table))


# ---- kernel: for CPUs in csrc/q_sample.cpp --------------------------------------------------------------------------


@triton.jit
def fused(x0_ptr, t_ptr, alpha_ptr, sigma_ptr, eps_ptr, seed_ptr, x_t_ptr, y_ptr, N, D, T, TARGET: tl.constexpr,
          SUM: tl.constexpr, SEEDED: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr):
    n, start, at, ok = tile(N, D, BN, BD)
    t = tl.load(t_ptr + n, n < N, other=-1)
    known = (t >= 0) & (t < T)
    alpha = tl.load(alpha_ptr + t, known, other=0).to(SUM)[:, None]
    sigma = tl.load(sigma_ptr + t, known, other=0).to(SUM)[:, None]
    x0 = tl.load(x0_ptr + at, ok, other=0).to(SUM)
    eps = draw(n, start, at, ok, eps_ptr, seed_ptr, SUM, SEEDED, BD)
    tl.store(x_t_ptr + at, (alpha * x0 + sigma * eps).to(x_t_ptr.dtype.element_ty), ok)
    if TARGET == "eps":
        tl.store(y_ptr + at, eps.to(y_ptr.dtype.element_ty), ok)
    if TARGET == "v":
        tl.store(y_ptr + at, (alpha * eps - sigma * x0).to(y_ptr.dtype.element_ty), ok)


# ---- launcher -------------------------------------------------------------------------------------------------------


def launch(backend, rung, x0, t, alpha, sigma, eps, seed, target):
    (N, D), dtype = x0.shape, x0.dtype
    x0, eps = (_library.for_native if backend == "cpu" else for_interpreter)(x0, eps)
    x_t, y = _empty(x0, target)
    if backend == "cpu":
        tensors = x0, t, alpha.double(), sigma.double(), eps, seed, x_t, y
        _library.call("q_sample", "cpu", "q_sample_cpu", x0.dtype, *tensors, TARGETS.index(target), N, D, len(alpha))
        return x_t.to(dtype), y.to(dtype)
    BN, BD = tile_of(D)
    with torch.cuda.device_of(x0):
        fused[(triton.cdiv(N, BN) * triton.cdiv(D, BD),)](
            x0, t, alpha, sigma, eps, seed, x_t, y, N, D, len(alpha), TARGET=target,
            SUM=triton_dtype(sum_dtype(x0.dtype)), SEEDED=eps is None, BN=BN, BD=BD,
        )
    return x_t.to(dtype), y.to(dtype)


TARGETS = ("none", "eps", "v")  # their numbers in csrc/q_sample.cpp; "none": y is an argument, and is not written


def _empty(x0, target):
    return x0.new_empty(x0.shape), x0.new_empty(x0.shape[0], 0 if target == "none" else x0.shape[1])


# ---- gradient -------------------------------------------------------------------------------------------------------


def gradient(dx_t, dy, t, alpha, sigma, target, needed):
    # forward was: x_t = alpha x0 + sigma eps,  v = alpha eps - sigma x0
    if target == "v":
        target = "v" if "eps" in needed else "none"
        dx0, deps = _of_noise(x0=dx_t, t=t, alpha=alpha, sigma=-sigma, eps=dy, seed=None, target=target)
    else:
        dx = dx_t.to(sum_dtype(dx_t.dtype))
        dx0, deps = ((of_rows(table, t, dx) * dx).to(dx_t.dtype) for table in (alpha, sigma))
    return dict(x0=dx0, eps=deps if "eps" in needed else None)


# ---- registration ---------------------------------------------------------------------------------------------------

Q_SAMPLE = room("q_sample", "triton", ("fused",), cpu="C++")

_op = operator(
    Q_SAMPLE, "q_sample(Tensor x0, Tensor t, Tensor alpha, Tensor sigma, Tensor? eps, Tensor? seed, str target)"
    " -> (Tensor x_t, Tensor y)",
    fake=_empty, check=lambda t, alpha: _check.in_range("t", t, len(alpha), "T"),
    takes="x0 eps x_t y: T(N, D...); t: int64(N); alpha sigma: U(times); seed: int64()",
    reference=reference, kernel=launch, cpu=launch,
)
_of_noise = differentiable(_op, gradient, rows="x0 t eps")
_of_seed = differentiable(_op, gradient)  # noise depends on the row's number in its call: no rows are folded


def q_sample(x0, t, alpha, sigma, eps=None, seed=None, target="eps"):
    """x_t = alpha[t] x0 + sigma[t] eps, and the target: eps, x0, or v = alpha[t] eps - sigma[t] x0.

    x0 (N, ...), t (N,) integers, alpha and sigma (T,) float64 or float32 -> (N, ...) twice. eps (N, ...) is the noise.
    Without it the kernel draws it from `seed` (0 to 2^63 - 1); without a seed torch's generator gives one.
    """
    _check.tensors(x0=x0)
    if eps is not None and seed is not None:
        raise ValueError("eps is the noise itself: give eps or a seed, not both")
    return _drawn(x0, t, alpha, sigma, eps, seed_of(seed, x0.device) if eps is None else None, target)


@door
def _drawn(x0, t, alpha, sigma, eps, seed, target):
    _check.one_of("target", target, ("eps", "x0", "v"))
    _check.tensors(x0=x0)
    _check.at_least("x0", x0, 1, "(N, ...), dimension 0 the batch")
    _check.tensors(_check.INTEGERS, t=t)
    _check.shape("t", t, x0.shape[:1], "(N,) with N of x0")
    _check.tensors((torch.float64, torch.float32), alpha=alpha, sigma=sigma)
    _check.dimensions("alpha", alpha, 1, "(T,)")
    _check.shape("sigma", sigma, alpha.shape, "that of alpha")
    if len(alpha) < 1:
        raise ValueError("alpha and sigma must hold at least one time, got none")
    if alpha.requires_grad or sigma.requires_grad:
        raise ValueError("alpha and sigma are constants and have no gradient here: give them detached")
    if eps is not None:
        _check.tensors(eps=eps)
        _check.shape("eps", eps, x0.shape, "that of x0")
    _check.one_device(x0=x0, t=t, alpha=alpha, sigma=sigma, eps=eps)
    (x0,) = _check.float32_under_autocast(x0)
    eps = eps if eps is None else eps.to(x0.dtype)
    y = {"x0": x0, "eps": eps}.get(target)
    x_t, computed = (_of_seed if eps is None else _of_noise)(
        x0=x0, t=t.long(), alpha=alpha, sigma=sigma, eps=eps, seed=seed, target="none" if y is not None else target)
    return x_t, computed if y is None else y
