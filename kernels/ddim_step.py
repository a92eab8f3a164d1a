"""How does a sampler go from a noisy image to a less noisy one, given what the network predicts?

One step of DDIM (Song, Meng, Ermon, "Denoising diffusion implicit models", 2021, eq. 12 and 16), of which DDPM's
ancestral step is the case eta = 1, with classifier-free guidance (Ho, Salimans 2022, eq. 6) and the thresholds of
Imagen (Saharia et al. 2022, section 2.3).

    kernels: below, kernels/_noise.py, csrc/ddim_step.cpp    model: genmini/models/diffusion.py
    test: tests/kernels/test_ddim_step.py    bench: bench/bench_ddim_step.py

Math
    out  = u + w (o - u)                                  of the outputs with and without a condition; w = 1 is o alone
    x0   = p x + q out                                    what the network takes for the image, by its target:
           eps: (x - sigma_t out) / alpha_t     x0: out     v: (alpha_t x - sigma_t out) / (alpha_t^2 + sigma_t^2)
    x0   = clamp(x0, -1, 1)                                                                       static threshold
    x0   = clamp(x0, -s, s) / s,  s_n = max(1, |x0_n| in rank r),  r = ceil(quantile (D - 1))    dynamic threshold
    x_s  = alpha_s x0 + k (x - alpha_t x0) + c noise = a x0 + k x + c noise
           c = eta sigma_s / sigma_t sqrt(sigma_t^2 - (alpha_t sigma_s / alpha_s)^2)
           k = sqrt(sigma_s^2 - c^2) / sigma_t,   a = alpha_s - k alpha_t
    Where alpha^2 + sigma^2 = 1 that root is sqrt(1 - alpha_t^2 / alpha_s^2). Ranks count from 0: the rank r is
    torch.quantile's order statistic "higher", a number of the row, and not a number between two. NaN is above infinity;
    a NaN in that rank makes its row NaN. p, q, a, k, c are computed in float64, once for the batch: all images of a
    sampler have one t, so the five are arguments of the kernel, and no table is read.
    The end of a sampler, alpha_s = 1 and sigma_s = 0, gives x0 itself.

Shapes
    x, output, unconditional, noise (N, ...), equal; dimension 0 is the batch, the rest is one row of D numbers
    noise is given, or drawn in the kernel from a seed, by Philox and Box-Muller (kernels/_noise.py)

Traffic
    A number is w bytes (4 for float32). An element moves x, o and u in, x_s out: 4w with guidance, 3w without, also
    where noise is drawn. Eager PyTorch moves 8w for guidance, 5w for x0 (a product, addcmul), 2w for a clamp, 5w for
    x_s, 4w for drawn noise: 24w, and for a dynamic threshold a sort. One launch replaces some ten; memory binds. The
    rank reads no more if a row fits into the registers of a program; else it reads x, o and u 31 times from L2.

Tiling
    A rank is found by its bits: |x0| as an integer keeps its order. From the highest bit down, a bit is set if at most
    r numbers of the row are below the result. Counts are exact: the same s whatever the order.
    naive     a program a row counts by walking along the row, once a bit, 31 times its elements in float32; a second
              kernel takes the step, tile by tile
    held      a program holds BN whole rows in registers, counts there, and takes the step: its elements are loaded
              once, not for every bit and the step (32 times in float32); longer rows go the naive way
    cpu       a task is a row: its |x0| above 1 are collected, few as they are, and counted in the same way
"""

import math

import torch

from . import _check, _library
from ._noise import draw, seed_of, tile, tile_of
from ._noise import noise as normal
from ._room import door, operator, room, sum_dtype
from ._triton import for_interpreter, tl, triton, triton_dtype

# ---- reference ------------------------------------------------------------------------------------------------------


def reference(x, output, unconditional, noise, seed, w, p, q, a, k, c, threshold, quantile):  # (N, D) each -> (N, D)
    X, out = x.to(sum_dtype(x.dtype)), output.to(sum_dtype(x.dtype))
    if unconditional is not None:
        u = unconditional.to(X.dtype)
        out = u + w * (out - u)
    x_s = a * thresholded(p * X + q * out, threshold, quantile) + k * X
    if c:
        x_s = x_s + c * (normal(seed, X) if noise is None else noise.to(X.dtype))
    return x_s.to(x.dtype)


def thresholded(x0, threshold, quantile):
    if threshold == "static":
        return x0.clamp(-1, 1)
    if threshold == "dynamic" and x0.numel():
        s = x0.abs().sort(1).values[:, rank_of(quantile, x0.shape[1]), None].clamp(min=1)
        return x0.clamp(-s, s) / s
    return x0


def rank_of(quantile, D):
    return math.ceil(quantile * (D - 1))


# ---- kernel: for CPUs in csrc/ddim_step.cpp -------------------------------------------------------------------------


@triton.jit
def predicted(at, ok, x_ptr, out_ptr, u_ptr, w, p, q, SUM: tl.constexpr, GUIDED: tl.constexpr):
    """x, and x0 before its threshold"""
    x, out = tl.load(x_ptr + at, ok, other=0).to(SUM), tl.load(out_ptr + at, ok, other=0).to(SUM)
    if GUIDED:
        u = tl.load(u_ptr + at, ok, other=0).to(SUM)
        out = u + tl.full((), w, tl.float64).to(SUM) * (out - u)
    return x, tl.full((), p, tl.float64).to(SUM) * x + tl.full((), q, tl.float64).to(SUM) * out


@triton.jit
def key_of(x0, ok, KEY: tl.constexpr, MOST: tl.constexpr):
    """|x0| as an integer in the same order; what does not exist is above all."""
    return tl.where(ok, x0.to(KEY, bitcast=True) & MOST, MOST)


@triton.jit
def finished(x, x0, s, n, start, at, ok, noise_ptr, seed_ptr, x_s_ptr, a, k, c, THRESHOLD: tl.constexpr,
             NOISE: tl.constexpr, SUM: tl.constexpr, BD: tl.constexpr):
    """x_s = a x0 + k x + c noise, x0 within -s ... s and divided by s; NaN stays NaN"""
    if THRESHOLD != "none":
        x0 = tl.where(x0 > s, s, tl.where(x0 < -s, -s, x0))
    if THRESHOLD == "dynamic":
        x0 = x0 / s
    x_s = tl.full((), a, tl.float64).to(SUM) * x0 + tl.full((), k, tl.float64).to(SUM) * x
    if NOISE != "none":
        eps = draw(n, start, at, ok, noise_ptr, seed_ptr, SUM, NOISE == "seed", BD)
        x_s += tl.full((), c, tl.float64).to(SUM) * eps
    tl.store(x_s_ptr + at, x_s.to(x_s_ptr.dtype.element_ty), ok)


# The numbers are declared as float64: Triton would take a Python float as float32
@triton.jit
def step(x_ptr, out_ptr, u_ptr, noise_ptr, seed_ptr, s_ptr, x_s_ptr, w: tl.float64, p: tl.float64, q: tl.float64,
         a: tl.float64, k: tl.float64, c: tl.float64, N, D, GUIDED: tl.constexpr, THRESHOLD: tl.constexpr,
         NOISE: tl.constexpr, SUM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr):
    n, start, at, ok = tile(N, D, BN, BD)
    x, x0 = predicted(at, ok, x_ptr, out_ptr, u_ptr, w, p, q, SUM, GUIDED)
    s = tl.full((BN, 1), 1, SUM)
    if THRESHOLD == "dynamic":
        s = tl.load(s_ptr + n, n < N, other=1)[:, None]
    finished(x, x0, s, n, start, at, ok, noise_ptr, seed_ptr, x_s_ptr, a, k, c, THRESHOLD, NOISE, SUM, BD)


@triton.jit
def ranked(x_ptr, out_ptr, u_ptr, s_ptr, w: tl.float64, p: tl.float64, q: tl.float64, D, rank, GUIDED: tl.constexpr,
           SUM: tl.constexpr, KEY: tl.constexpr, MOST: tl.constexpr, ONE: tl.constexpr, BITS: tl.constexpr,
           BD: tl.constexpr):
    """s_n = max(1, |x0_n| in this rank)"""
    n = tl.program_id(0).to(tl.int64)
    found, one = tl.zeros((), KEY), tl.full((), 1, KEY)
    for bit in range(BITS):
        more, below = found | (one << (BITS - 1 - bit)), tl.zeros((), tl.int64)
        for start in range(0, D, BD):
            d = start + tl.arange(0, BD)
            x, x0 = predicted(n * D + d, d < D, x_ptr, out_ptr, u_ptr, w, p, q, SUM, GUIDED)
            below += tl.sum((key_of(x0, d < D, KEY, MOST) < more).to(tl.int32))
        found = tl.where(below <= rank, more, found)
    tl.store(s_ptr + n, tl.maximum(found, one * ONE).to(SUM, bitcast=True))


@triton.jit
def held(x_ptr, out_ptr, u_ptr, noise_ptr, seed_ptr, x_s_ptr, w: tl.float64, p: tl.float64, q: tl.float64,
         a: tl.float64, k: tl.float64, c: tl.float64, N, D, rank, GUIDED: tl.constexpr, NOISE: tl.constexpr,
         SUM: tl.constexpr, KEY: tl.constexpr, MOST: tl.constexpr, ONE: tl.constexpr, BITS: tl.constexpr,
         BN: tl.constexpr, BD: tl.constexpr):
    n, start, at, ok = tile(N, D, BN, BD)  # whole rows: start is 0
    x, x0 = predicted(at, ok, x_ptr, out_ptr, u_ptr, w, p, q, SUM, GUIDED)
    key, found, one = key_of(x0, ok, KEY, MOST), tl.zeros((BN,), KEY), tl.full((BN,), 1, KEY)
    for bit in range(BITS):
        more = found | (one << (BITS - 1 - bit))
        found = tl.where(tl.sum((key < more[:, None]).to(tl.int32), 1) <= rank, more, found)
    s = tl.maximum(found, one * ONE).to(SUM, bitcast=True)[:, None]
    finished(x, x0, s, n, start, at, ok, noise_ptr, seed_ptr, x_s_ptr, a, k, c, "dynamic", NOISE, SUM, BD)


# ---- launcher -------------------------------------------------------------------------------------------------------

LONGEST = 16384  # numbers of a row that a program holds, 32 a thread


def launch(backend, rung, x, output, unconditional, noise, seed, w, p, q, a, k, c, threshold, quantile):
    (N, D), dtype, sums = x.shape, x.dtype, sum_dtype(x.dtype)
    ready = _library.for_native if backend == "cpu" else for_interpreter
    x, output, unconditional, noise = ready(x, output, unconditional, noise)
    x_s, rank = torch.empty_like(x), rank_of(quantile, D)
    if backend == "cpu":
        threads = torch.get_num_threads()  # read once: the workspace is for so many
        work = x.new_empty(min(threads, N), D if threshold == "dynamic" else 0)
        tensors = x, output, unconditional, noise, seed, x_s, work
        numbers = w, p, q, a, k, c, THRESHOLDS.index(threshold), rank, N, D
        _library.call("ddim_step", "cpu", "ddim_step_cpu", x.dtype, *tensors, *numbers, threads=threads)
        return x_s.to(dtype)
    (BN, BD), s = tile_of(D), None
    both = dict(GUIDED=unconditional is not None, SUM=triton_dtype(sums))
    noisy = dict(NOISE="none" if not c else "seed" if noise is None else "given")
    keys = (dict(KEY=tl.int32, MOST=2**31 - 1, ONE=0x3F800000, BITS=31) if sums == torch.float32 else
            dict(KEY=tl.int64, MOST=2**63 - 1, ONE=0x3FF << 52, BITS=63))
    with torch.cuda.device_of(x):
        if threshold == "dynamic" and rung == "held" and D <= LONGEST:
            BD = max(triton.next_power_of_2(D), 4)
            held[(triton.cdiv(N, BN) * triton.cdiv(D, BD),)](
                x, output, unconditional, noise, seed, x_s, w, p, q, a, k, c, N, D, rank,
                **both, **noisy, **keys, BN=BN, BD=BD, num_warps=min(16, max(4, BD // 512)),
            )
            return x_s.to(dtype)
        if threshold == "dynamic":
            s = x.new_empty(N, dtype=sums)
            ranked[(N,)](x, output, unconditional, s, w, p, q, D, rank, **both, **keys, BD=BD)
        step[(triton.cdiv(N, BN) * triton.cdiv(D, BD),)](
            x, output, unconditional, noise, seed, s, x_s, w, p, q, a, k, c, N, D, THRESHOLD=threshold,
            **both, **noisy, BN=BN, BD=BD,
        )
    return x_s.to(dtype)


THRESHOLDS = ("none", "static", "dynamic")  # their numbers in csrc/ddim_step.cpp

# ---- gradient: none; a sampler needs none, and the front door refuses an input that requires one --------------------

# ---- registration ---------------------------------------------------------------------------------------------------

DDIM = room("ddim_step", "triton", ("naive", "held"), cpu="C++")

_step = operator(
    DDIM, "ddim_step(Tensor x, Tensor output, Tensor? unconditional, Tensor? noise, Tensor? seed, float w, float p, "
    "float q, float a, float k, float c, str threshold, float quantile) -> Tensor x_s",
    fake="x", takes="x output unconditional noise x_s: T(N, D...); seed: int64()",
    reference=reference, kernel=launch, cpu=launch,
)


def ddim_step(x, output, alpha_t, sigma_t, alpha_s, sigma_s, target="eps", unconditional=None, weight=1.0,
              threshold=None, quantile=0.995, eta=0.0, noise=None, seed=None):
    """x_s of a sampler at x = x_t, where the network gave `output`.   (N, ...) twice -> (N, ...)

    alpha_t, sigma_t, alpha_s, sigma_s: numbers of the schedule, for the whole batch. target: what the network predicts,
    eps, x0 or v. With unconditional (N, ...) the output becomes unconditional + weight (output - unconditional).
    threshold: None, "static", or "dynamic" at this quantile of |x0|. eta 0 is DDIM, 1 is DDPM; with eta > 0 noise
    (N, ...) is added, given, or drawn from `seed` (0 to 2^63 - 1) or from a seed of torch's generator.
    """
    _check.tensors(x=x)
    _check.one_of("target", target, ("eps", "x0", "v"))
    *numbers, c = numbers_of(alpha_t, sigma_t, alpha_s, sigma_s, target, weight, quantile, eta)
    if noise is not None and seed is not None:
        raise ValueError("noise is the noise itself: give noise or a seed, not both")
    seed = seed_of(seed, x.device) if c and noise is None else None
    return _drawn(x, output, unconditional, noise, seed, *numbers, c, threshold, quantile)


@door
def _drawn(x, output, unconditional, noise, seed, w, p, q, a, k, c, threshold, quantile):
    if threshold is not None:
        _check.one_of("threshold", threshold, ("static", "dynamic"))
    more = dict(unconditional=unconditional, noise=noise)
    given = dict(x=x, output=output) | {name: tensor for name, tensor in more.items() if tensor is not None}
    _check.tensors(**given)
    _check.at_least("x", x, 1, "(N, ...), dimension 0 the batch")
    for name, tensor in given.items():
        _check.shape(name, tensor, x.shape, "that of x")
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given.values()):
        raise RuntimeError("ddim_step has no gradient: call it under torch.no_grad(), or give detached tensors")
    _check.one_device(**given)
    given = dict(zip(given, _check.float32_under_autocast(*given.values()), strict=True))
    given = more | {name: tensor.to(given["x"].dtype) for name, tensor in given.items()}
    return _step(**given, seed=seed, w=w, p=p, q=q, a=a, k=k, c=c, threshold=threshold or "none",
                 quantile=float(quantile))


def numbers_of(alpha_t, sigma_t, alpha_s, sigma_s, target, weight, quantile, eta):
    """w, p, q, a, k, c of the math above, from checked arguments."""
    named = dict(alpha_t=alpha_t, sigma_t=sigma_t, alpha_s=alpha_s, sigma_s=sigma_s, quantile=quantile, eta=eta)
    _check.number("weight", weight)
    for name, value in named.items():
        _check.number(name, value, 0, 1 if name in ("quantile", "eta") else math.inf)
    if not sigma_t or (target == "eps" and not alpha_t):
        raise ValueError(f"a step from {alpha_t=}, {sigma_t=} does not determine x0: sigma_t, and alpha_t for eps, "
                         "must be above 0")
    if eta and not alpha_s * sigma_t >= alpha_t * sigma_s:
        raise ValueError(f"eta = {eta} adds noise: s must not be noisier than t, got {alpha_s=}, {sigma_s=}")
    square = alpha_t**2 + sigma_t**2
    p, q = {"eps": (1 / (alpha_t or 1), -sigma_t / (alpha_t or 1)), "x0": (0.0, 1.0),
            "v": (alpha_t / square, -sigma_t / square)}[target]
    spread = math.sqrt(max(0.0, sigma_t**2 - (alpha_t * sigma_s / alpha_s) ** 2)) if eta else 0.0
    c = eta * sigma_s / sigma_t * spread
    k = math.sqrt(max(0.0, sigma_s**2 - c**2)) / sigma_t
    return tuple(map(float, (weight, p, q, alpha_s - k * alpha_t, k, c)))
