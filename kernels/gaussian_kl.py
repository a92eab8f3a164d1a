"""How do we draw from a Gaussian so that a gradient flows through the draw, and how far is that Gaussian from N(0, I)?

These are the two halves of the evidence lower bound of a variational autoencoder (Kingma, Welling 2014, section 2.4 and
appendix B; the course's "reparametrization trick" and "terme de régularisation"). Both read the same mu and
log sigma^2, so one pass over them gives both.

    kernels: below, kernels/_noise.py, csrc/gaussian_kl.cpp    model: genmini/models/vae.py
    test: tests/kernels/test_gaussian_kl.py    bench: bench/bench_gaussian_kl.py

Math
    z_nd = mu_nd + sigma_nd eps_nd,    sigma = e^(l/2),  l = log sigma^2,  eps ~ N(0, 1)
    kl_n = KL(N(mu_n, sigma_n^2) || N(0, I)) = 1/2 sum_d mu_nd^2 + r(l_nd),    r(l) = e^l - 1 - l >= 0
    gradient, from dz and dkl:    dmu = dz + dkl_n mu     dl = 1/2 (dz sigma eps + dkl_n (e^l - 1))     deps = dz sigma
    For |l| < 1 the terms of r cancel: there r(l) = l^2/2 (1 + l/3 (1 + l/4 (1 + ...))), so that a KL is never negative,
    and 0 at equality.
    l = -inf is sigma = 0: z = mu, kl = inf, dl = -dkl/2.   l = inf: z = inf eps, kl = inf, dl as the formula gives it:
    inf or NaN.   NaN in mu or l gives NaN in its z, in the kl of its row, and in its own gradient.

Noise
    eps is given, or drawn in the kernel from a seed, by Philox and Box-Muller (kernels/_noise.py): the same numbers on
    every backend. The backward pass draws them again, and nothing is stored.

Shapes
    mu, log_var, eps (N, ...), equal; dimension 0 is the batch, the rest is one row of D numbers
    -> z as mu, kl (N,) float32 (float64 for float64)

Traffic
    A number is w bytes (4 for float32). An element of the forward moves 2 in + 1 out = 3w with a seed, 4w with eps; one
    of the backward 3 in + 2 out = 5w, 6w with eps. Eager PyTorch moves 11w for z (randn, half, exp, mul, add) and 13w
    for kl (square, exp, add, sub, sub, sum). Memory binds. A seed costs a Philox, 20 products of 32 bits, for four
    numbers.

Tiling
    BN rows x BD columns a program, BD a multiple of 4; BD / 4 counters a row give the noise of a tile.
    naive     one kernel for z, a tile a program; another for kl, a program a row, which reads mu and l once more: DRAM
              moves 6 numbers an element forward
    fused     a short row fits into one tile, a long one is walked in steps of BD, and kl added on the way, so that DRAM
              moves 4 numbers an element forward, not 6:

              n |  BD  |  BD  |  BD  |    z is stored, the row's sum stays in registers; its order depends on D alone

    On a CPU a task has 4096 numbers; the terms of 256 columns are added as they are, and these sums in double.
"""

import torch

from . import _check, _library
from ._noise import draw, noise, seed_of, tile, tile_of
from ._room import differentiable, door, operator, room, sum_dtype
from ._triton import for_interpreter, tl, triton, triton_dtype

# ---- reference ------------------------------------------------------------------------------------------------------


def reference(mu, log_var, eps, seed):  # (N, D) each, or eps None -> (N, D), (N,)
    m, l = mu.to(sum_dtype(mu.dtype)), log_var.to(sum_dtype(mu.dtype))
    z = m + (l / 2).exp() * (noise(seed, m) if eps is None else eps.to(m.dtype))
    return z.to(mu.dtype), (m.square() + excess(l)).sum(1) / 2


def reference_backward(dz, dkl, mu, log_var, eps, seed):
    # forward was: z = mu + sigma eps,  kl = 1/2 sum_d mu^2 + e^l - 1 - l
    m, l, g = mu.to(dkl.dtype), log_var.to(dkl.dtype), dz.to(dkl.dtype)
    sigma_eps = (l / 2).exp() * (noise(seed, m) if eps is None else eps.to(m.dtype))
    dmu, dl = g + dkl[:, None] * m, (g * sigma_eps + dkl[:, None] * l.expm1()) / 2
    return dmu.to(mu.dtype), dl.to(mu.dtype)


def excess(l):
    """r(l) = e^l - 1 - l"""
    series = one = l.new_ones(())
    for k in range(TERMS[l.dtype] + 2, 2, -1):
        series = torch.addcmul(one, series, l, value=1 / k)  # 1 + series l / k
    return torch.where(l.abs() < 1, l * l / 2 * series, l.exp() - 1 - l.clamp(max=LARGE))


TERMS = {torch.float32: 10, torch.float64: 17}  # of the series: the next one is below the roundings for |l| < 1
LARGE = 1000.0  # e^LARGE is infinite: r(l) is then infinity, and not infinity - infinity


# ---- kernel ---------------------------------------------------------------------------------------------------------


@triton.jit
def excess_of(l, TERMS: tl.constexpr):
    """r(l) = e^l - 1 - l"""
    series = tl.zeros_like(l) + 1
    for i in tl.static_range(TERMS):
        series = 1 + series * l * (1 / (TERMS + 2 - i))
    return tl.where(tl.abs(l) < 1, 0.5 * l * l * series, tl.exp(l) - 1 - tl.minimum(l, 1000.0))


@triton.jit
def reparameterise(mu_ptr, l_ptr, eps_ptr, seed_ptr, z_ptr, N, D, SUM: tl.constexpr, SEEDED: tl.constexpr,
                   BN: tl.constexpr, BD: tl.constexpr):
    n, start, at, ok = tile(N, D, BN, BD)
    mu, l = tl.load(mu_ptr + at, ok, other=0).to(SUM), tl.load(l_ptr + at, ok, other=0).to(SUM)
    z = mu + tl.exp(0.5 * l) * draw(n, start, at, ok, eps_ptr, seed_ptr, SUM, SEEDED, BD)
    tl.store(z_ptr + at, z.to(z_ptr.dtype.element_ty), ok)


@triton.jit
def divergence(mu_ptr, l_ptr, kl_ptr, D, SUM: tl.constexpr, TERMS: tl.constexpr, BD: tl.constexpr):
    n = tl.program_id(0).to(tl.int64)
    kl = tl.zeros((BD,), SUM)
    for start in range(0, D, BD):
        d = start + tl.arange(0, BD)
        mu = tl.load(mu_ptr + n * D + d, d < D, other=0).to(SUM)
        l = tl.load(l_ptr + n * D + d, d < D, other=0).to(SUM)
        kl += 0.5 * (mu * mu + excess_of(l, TERMS))
    tl.store(kl_ptr + n, tl.sum(kl))


@triton.jit
def fused(mu_ptr, l_ptr, eps_ptr, seed_ptr, z_ptr, kl_ptr, N, D, SUM: tl.constexpr, TERMS: tl.constexpr,
          SEEDED: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr):
    n = tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN)
    kl = tl.zeros((BN, BD), SUM)
    for start in range(0, D, BD):
        d = start + tl.arange(0, BD)
        at, ok = n[:, None] * D + d[None, :], (n < N)[:, None] & (d < D)[None, :]  # (BN, BD)
        mu, l = tl.load(mu_ptr + at, ok, other=0).to(SUM), tl.load(l_ptr + at, ok, other=0).to(SUM)
        z = mu + tl.exp(0.5 * l) * draw(n, start, at, ok, eps_ptr, seed_ptr, SUM, SEEDED, BD)
        tl.store(z_ptr + at, z.to(z_ptr.dtype.element_ty), ok)
        kl += 0.5 * (mu * mu + excess_of(l, TERMS))
    tl.store(kl_ptr + n, tl.sum(kl, 1), n < N)


@triton.jit
def backward(dz_ptr, dkl_ptr, mu_ptr, l_ptr, eps_ptr, seed_ptr, dmu_ptr, dl_ptr, N, D, SUM: tl.constexpr,
             TERMS: tl.constexpr, SEEDED: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr):
    n, start, at, ok = tile(N, D, BN, BD)
    dz, dkl = tl.load(dz_ptr + at, ok, other=0).to(SUM), tl.load(dkl_ptr + n, n < N, other=0)[:, None]
    mu, l = tl.load(mu_ptr + at, ok, other=0).to(SUM), tl.load(l_ptr + at, ok, other=0).to(SUM)
    sigma_eps = tl.exp(0.5 * l) * draw(n, start, at, ok, eps_ptr, seed_ptr, SUM, SEEDED, BD)
    slope = tl.where(tl.abs(l) < 1, l + excess_of(l, TERMS), tl.exp(l) - 1)
    dmu = dz + dkl * mu  # forward was: z = mu + sigma eps,  kl = 1/2 sum mu^2 + e^l - 1 - l
    dl = 0.5 * (dz * sigma_eps + dkl * slope)
    tl.store(dmu_ptr + at, dmu.to(dmu_ptr.dtype.element_ty), ok)
    tl.store(dl_ptr + at, dl.to(dl_ptr.dtype.element_ty), ok)


# ---- launcher -------------------------------------------------------------------------------------------------------


def launch(backend, rung, mu, log_var, eps, seed):
    (N, D), dtype = mu.shape, mu.dtype
    mu, log_var, eps = (_library.for_native if backend == "cpu" else for_interpreter)(mu, log_var, eps)
    z, kl = torch.empty_like(mu), mu.new_empty(N, dtype=sum_dtype(mu.dtype))
    if backend == "cpu":
        threads = torch.get_num_threads()
        bytes = _library.size("gaussian_kl", "cpu", "gaussian_kl_cpu_workspace", N, D, threads=threads)
        tensors = mu, log_var, eps, seed, z, kl, mu.new_empty(bytes, dtype=torch.uint8)
        _library.call("gaussian_kl", "cpu", "gaussian_kl_cpu", mu.dtype, *tensors, N, D, threads=threads)
        return z.to(dtype), kl
    (BN, BD), sums, noisy = tile_of(D), _sums(mu), dict(SEEDED=eps is None)
    with torch.cuda.device_of(mu):
        if rung == "naive":
            grid, SUM = (triton.cdiv(N, BN) * triton.cdiv(D, BD),), sums["SUM"]
            reparameterise[grid](mu, log_var, eps, seed, z, N, D, SUM=SUM, **noisy, BN=BN, BD=BD)
            divergence[(N,)](mu, log_var, kl, D, **sums, BD=BD)
        else:
            fused[(triton.cdiv(N, BN),)](mu, log_var, eps, seed, z, kl, N, D, **sums, **noisy, BN=BN, BD=BD)
    return z.to(dtype), kl


def launch_backward(backend, dz, dkl, mu, log_var, eps, seed):
    (N, D), dtype = mu.shape, mu.dtype
    dz, mu, log_var, eps = (_library.for_native if backend == "cpu" else for_interpreter)(dz, mu, log_var, eps)
    dmu, dl = torch.empty_like(mu), torch.empty_like(mu)
    if backend == "cpu":
        tensors = dz, dkl, mu, log_var, eps, seed, dmu, dl
        _library.call("gaussian_kl", "cpu", "gaussian_kl_backward_cpu", mu.dtype, *tensors, N, D)
        return dmu.to(dtype), dl.to(dtype)
    (BN, BD), constants = tile_of(D), _sums(mu) | dict(SEEDED=eps is None)
    with torch.cuda.device_of(mu):
        grid = (triton.cdiv(N, BN) * triton.cdiv(D, BD),)
        backward[grid](dz, dkl, mu, log_var, eps, seed, dmu, dl, N, D, **constants, BN=BN, BD=BD)
    return dmu.to(dtype), dl.to(dtype)


def _sums(mu):
    """The type of the sums, and how many terms of the series it needs."""
    return {"SUM": triton_dtype(sum_dtype(mu.dtype)), "TERMS": TERMS[sum_dtype(mu.dtype)]}


# ---- gradient -------------------------------------------------------------------------------------------------------


def gradient(dz, dkl, mu, log_var, eps, seed, needed):
    dmu, dl = (_backward_of_seed if eps is None else _backward)(
        dz=dz, dkl=dkl, mu=mu, log_var=log_var, eps=eps, seed=seed
    )
    if "eps" not in needed:
        return dict(mu=dmu, log_var=dl)
    deps = dz.to(dkl.dtype) * (log_var.to(dkl.dtype) / 2).exp()  # float16 has no room for sigma
    return dict(mu=dmu, log_var=dl, eps=deps.to(dz.dtype))


# ---- registration ---------------------------------------------------------------------------------------------------

GAUSSIAN = room("gaussian_kl", "triton", ("naive", "fused"), cpu="C++")

_op = operator(
    GAUSSIAN, "gaussian_kl(Tensor mu, Tensor log_var, Tensor? eps, Tensor? seed) -> (Tensor z, Tensor kl)",
    fake=lambda mu: (mu.new_empty(mu.shape), mu.new_empty(mu.shape[0], dtype=sum_dtype(mu.dtype))),
    takes="mu log_var eps z: T(N, D...); seed: int64()", reference=reference, kernel=launch, cpu=launch,
)
_backward_op = operator(
    GAUSSIAN, "gaussian_kl_backward(Tensor dz, Tensor dkl, Tensor mu, Tensor log_var, Tensor? eps, Tensor? seed) "
    "-> (Tensor dmu, Tensor dl)",
    fake="mu log_var", takes="dz mu log_var eps dmu dl: T(N, D...); dkl: R(N); seed: int64()",
    reference=reference_backward, kernel=launch_backward, cpu=launch_backward,
)
_of_noise = differentiable(_op, gradient, rows="mu log_var eps")
_backward = differentiable(_backward_op, rows="dz dkl mu log_var eps")
_of_seed = differentiable(_op, gradient)  # noise depends on n in the call: vmap must not fold into n
_backward_of_seed = differentiable(_backward_op)


def gaussian_kl(mu, log_var, eps=None, seed=None):
    """z = mu + e^(log_var / 2) eps and its KL from the standard Gaussian.   (N, ...) twice -> (N, ...), (N,)

    eps (N, ...) is the noise. Without it the kernel draws it from `seed` (0 to 2^63 - 1). Without both torch's
    generator decides: on a CPU it draws eps, elsewhere a seed.
    """
    _check.tensors(mu=mu)
    if eps is not None and seed is not None:
        raise ValueError("eps is the noise itself: give eps or a seed, not both")
    if eps is None and seed is None and mu.device.type == "cpu":
        eps = torch.randn_like(mu)  # the draws that plain PyTorch would have
    return _drawn(mu, log_var, eps, seed_of(seed, mu.device) if eps is None else None)


@door
def _drawn(mu, log_var, eps, seed):
    _check.tensors(mu=mu, log_var=log_var)
    _check.at_least("mu", mu, 1, "(N, ...), dimension 0 the batch")
    _check.shape("log_var", log_var, mu.shape, "that of mu")
    if eps is not None:
        _check.tensors(eps=eps)
        _check.shape("eps", eps, mu.shape, "that of mu")
    _check.one_device(mu=mu, log_var=log_var, eps=eps)
    mu, log_var = _check.float32_under_autocast(mu, log_var)
    _check.one_dtype(mu=mu, log_var=log_var)
    if eps is not None:
        return _of_noise(mu=mu, log_var=log_var, eps=eps.to(mu.dtype), seed=None)
    return _of_seed(mu=mu, log_var=log_var, eps=None, seed=seed)
