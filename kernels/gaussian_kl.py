"""How do we draw from a Gaussian so that a gradient flows through the draw, and how far is that Gaussian from the standard one?

The two halves of the evidence lower bound of a variational autoencoder (Kingma, Welling 2014, section 2.4 and appendix B; the course's
"reparametrization trick" and "terme de régularisation"). Both read the same mu and log sigma^2, so one pass over them gives both.

    model: genmini/models/vae.py    test: tests/kernels/test_gaussian_kl.py    bench: bench/bench_gaussian_kl.py

Math
    z_nd = mu_nd + sigma_nd eps_nd,    sigma = e^(l/2),  l = log sigma^2,  eps ~ N(0, 1)
    kl_n = KL(N(mu_n, sigma_n^2) || N(0, I)) = 1/2 sum_d mu_nd^2 + r(l_nd),    r(l) = e^l - 1 - l >= 0
    gradient, from dz and dkl:    dmu = dz + dkl_n mu        dl = 1/2 (dz sigma eps + dkl_n (e^l - 1))        deps = dz sigma
    For |l| < 1 the terms of r cancel: there r(l) = l^2/2 (1 + l/3 (1 + l/4 (1 + ...))), so that a KL is never negative, and 0 at equality.
    l = -inf is sigma = 0: z = mu, kl = inf, dl = -dkl/2.   l = inf: z = inf eps, kl = inf, dl as the formula gives it: inf or NaN.   NaN in
    mu or l gives NaN in its z, in the kl of its row, and in its own gradient.

Shapes
    mu, log_var, eps (N, ...), equal; dimension 0 is the batch, the rest is one row of D numbers -> z as mu, kl (N,) float32 (float64 for float64)
    eps is given, or drawn in the kernel: eps_nd is a function of the seed and n D + d alone (Philox, Box-Muller, in float32), in the backward
    pass too, so it is never stored. The same seed gives the same noise on every backend, up to the roundings of log, cos and sqrt.

Traffic
    a number is w bytes (4 for float32), per element: forward 2 in + 1 out = 3w with a seed, 4w with eps; backward 3 in + 2 out = 5w, 6w with
    eps. Eager PyTorch moves 11w forward for z (randn, half, exp, mul, add) and 13w for kl (square, exp, add, sub, sub, sum). Memory binds.

Tiling
    naive     one kernel for z, an element a lane; another for kl, a program a row, which reads mu and l once more
    fused     BN rows x BD columns a program; a short row fits into one tile, a long one is walked in steps of BD, and kl added on the way:

              n |  BD  |  BD  |  BD  |    z leaves, the row's sum stays in registers; the order of the sum depends on D alone
"""

import math

import torch

from . import _backend, _check, _operator
from ._triton import tl, triton, widened

# ---- reference -------------------------------------------------------------------------------------------------------------------------


def reference(mu, log_var, eps, seed):  # (N, D) each, or eps None -> (N, D), (N,)
    m, l = mu.to(wide(mu.dtype)), log_var.to(wide(mu.dtype))
    z = m + (l / 2).exp() * (noise(seed, m) if eps is None else eps.to(m.dtype))
    return z.to(mu.dtype), (m.square() + excess(l)).sum(1) / 2


def excess(l):
    """r(l) = e^l - 1 - l"""
    series, terms = torch.ones_like(l), TERMS[l.dtype]
    for i in range(terms):
        series = 1 + series * l / (terms + 2 - i)
    return torch.where(l.abs() < 1, l * l / 2 * series, l.exp() - 1 - l.clamp(max=LARGE))


TERMS = {torch.float32: 10, torch.float64: 17}  # of the series: the next one is below the roundings for |l| < 1
LARGE = 1000.0  # e^LARGE is infinite: r(l) is then infinity, and not infinity - infinity


def noise(seed, like):
    """Standard normal numbers of the seed in the shape and dtype of `like`: the noise that the kernels draw."""
    c = [torch.arange(like.numel(), device=like.device)] * 2 + [torch.zeros_like(like, dtype=torch.int64).flatten()] * 2
    c[0], c[1] = c[0] & WORD, c[1] >> 32
    key = [seed & WORD, seed >> 32 & WORD]
    for _ in range(10):  # Philox 4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011
        (high_a, low_a), (high_b, low_b) = _product(c[0], 0xD2511F53), _product(c[2], 0xCD9E8D57)
        c = [high_b ^ c[1] ^ key[0], low_b, high_a ^ c[3] ^ key[1], low_a]
        key = [key[0] + 0x9E3779B9 & WORD, key[1] + 0xBB67AE85 & WORD]
    u, v = (torch.where(word < 2**31, word, WORD - word).float() * 4.6566127342e-10 for word in c[:2])  # in [0, 1)
    cosine = (math.pi * ((2 * v - 1).abs() - 0.5)).sin()  # of 2 pi v
    return ((-2 * u.clamp(min=1e-7).log()).sqrt() * cosine).view(like.shape).to(like.dtype)  # Box, Muller


WORD = 2**32 - 1


def _product(a, b):
    """The high and the low 32 bits of a b, of numbers of 32 bits in int64."""
    low, high = a * (b & 0xFFFF), a * (b >> 16)
    return high + (low >> 16) >> 16, low + ((high & 0xFFFF) << 16) & WORD


def wide(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


# ---- kernel ----------------------------------------------------------------------------------------------------------------------------


@triton.jit
def excess_of(l, TERMS: tl.constexpr):
    """r(l) = e^l - 1 - l"""
    series = tl.zeros_like(l) + 1
    for i in tl.static_range(TERMS):
        series = 1 + series * l * (1 / (TERMS + 2 - i))
    return tl.where(tl.abs(l) < 1, 0.5 * l * l * series, tl.exp(l) - 1 - tl.minimum(l, 1000.0))


@triton.jit
def normal(seed, at):
    """Box-Muller on two words of Philox. cos 2 pi v = sin pi x: a polynomial, for the library's cosine keeps a table for huge angles."""
    low, high = at.to(tl.uint32), (at >> 32).to(tl.uint32)
    i, j, _, _ = tl.philox(seed, low, high, low * 0, low * 0)
    u, v = tl.uint_to_uniform_float(i), tl.uint_to_uniform_float(j)
    x = tl.abs(2 * v - 1) - 0.5  # in [-1/2, 1/2]
    q = x * x
    sine = 0.59926453 - q * (0.08214589 - q * 0.00737043)  # of pi^k / k!
    sine = x * (3.14159265 - q * (5.16771278 - q * (2.55016404 - q * sine)))
    return tl.sqrt(-2 * tl.log(tl.maximum(u, 1e-7))) * sine


@triton.jit
def draw(at, ok, eps_ptr, seed_ptr, SUM: tl.constexpr, SEEDED: tl.constexpr):
    if SEEDED:
        return normal(tl.load(seed_ptr), at).to(SUM)
    else:
        return tl.load(eps_ptr + at, ok, other=0).to(SUM)


@triton.jit
def reparameterise(mu_ptr, l_ptr, eps_ptr, seed_ptr, z_ptr, SIZE, SUM: tl.constexpr, SEEDED: tl.constexpr, B: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    ok = at < SIZE
    mu, l = tl.load(mu_ptr + at, ok, other=0).to(SUM), tl.load(l_ptr + at, ok, other=0).to(SUM)
    z = mu + tl.exp(0.5 * l) * draw(at, ok, eps_ptr, seed_ptr, SUM, SEEDED)
    tl.store(z_ptr + at, z.to(z_ptr.dtype.element_ty), ok)


@triton.jit
def divergence(mu_ptr, l_ptr, kl_ptr, D, SUM: tl.constexpr, TERMS: tl.constexpr, BD: tl.constexpr):
    n = tl.program_id(0).to(tl.int64)
    kl = tl.zeros((BD,), SUM)
    for start in range(0, D, BD):
        d = start + tl.arange(0, BD)
        mu, l = tl.load(mu_ptr + n * D + d, d < D, other=0).to(SUM), tl.load(l_ptr + n * D + d, d < D, other=0).to(SUM)
        kl += 0.5 * (mu * mu + excess_of(l, TERMS))
    tl.store(kl_ptr + n, tl.sum(kl))


@triton.jit
def fused(mu_ptr, l_ptr, eps_ptr, seed_ptr, z_ptr, kl_ptr, N, D, SUM: tl.constexpr, TERMS: tl.constexpr, SEEDED: tl.constexpr,
          BN: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    n = tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN)
    kl = tl.zeros((BN, BD), SUM)
    for start in range(0, D, BD):
        d = start + tl.arange(0, BD)
        at, ok = n[:, None] * D + d[None, :], (n < N)[:, None] & (d < D)[None, :]  # (BN, BD)
        mu, l = tl.load(mu_ptr + at, ok, other=0).to(SUM), tl.load(l_ptr + at, ok, other=0).to(SUM)
        z = mu + tl.exp(0.5 * l) * draw(at, ok, eps_ptr, seed_ptr, SUM, SEEDED)
        tl.store(z_ptr + at, z.to(z_ptr.dtype.element_ty), ok)
        kl += 0.5 * (mu * mu + excess_of(l, TERMS))
    tl.store(kl_ptr + n, tl.sum(kl, 1), n < N)


@triton.jit
def backward(dz_ptr, dkl_ptr, mu_ptr, l_ptr, eps_ptr, seed_ptr, dmu_ptr, dl_ptr, SIZE, D, SUM: tl.constexpr, TERMS: tl.constexpr,
             SEEDED: tl.constexpr, B: tl.constexpr):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    ok = at < SIZE
    dz, dkl = tl.load(dz_ptr + at, ok, other=0).to(SUM), tl.load(dkl_ptr + at // D, ok, other=0)
    mu, l = tl.load(mu_ptr + at, ok, other=0).to(SUM), tl.load(l_ptr + at, ok, other=0).to(SUM)
    sigma_eps = tl.exp(0.5 * l) * draw(at, ok, eps_ptr, seed_ptr, SUM, SEEDED)
    dmu = dz + dkl * mu  # forward was: z = mu + sigma eps,  kl = 1/2 sum mu^2 + e^l - 1 - l
    slope = tl.where(tl.abs(l) < 1, l + excess_of(l, TERMS), tl.exp(l) - 1)
    dl = 0.5 * (dz * sigma_eps + dkl * slope)
    tl.store(dmu_ptr + at, dmu.to(dmu_ptr.dtype.element_ty), ok)
    tl.store(dl_ptr + at, dl.to(dl_ptr.dtype.element_ty), ok)


# ---- launcher --------------------------------------------------------------------------------------------------------------------------

TILE = 1024  # numbers of a program; four warps, eight numbers a thread


def launch(rung, mu, log_var, eps, seed):
    (N, D), dtype = mu.shape, mu.dtype
    mu, log_var, eps = widened(mu, log_var, eps)
    z, kl = torch.empty_like(mu), mu.new_empty(N, dtype=wide(mu.dtype))
    BD = min(triton.next_power_of_2(max(D, 1)), TILE)
    same = {**_same(mu), "SEEDED": eps is None}
    with torch.cuda.device_of(mu):
        if rung == "naive":
            reparameterise[(triton.cdiv(N * D, TILE),)](mu, log_var, eps, seed, z, N * D, SUM=same["SUM"], SEEDED=same["SEEDED"], B=TILE)
            divergence[(N,)](mu, log_var, kl, D, **_same(mu), BD=BD)
        else:
            fused[(triton.cdiv(N, TILE // BD),)](mu, log_var, eps, seed, z, kl, N, D, **same, BN=TILE // BD, BD=BD)
    return z.to(dtype), kl


def launch_backward(dz, dkl, mu, log_var, eps, seed):
    SIZE, dtype = mu.numel(), mu.dtype
    dz, mu, log_var, eps = widened(dz, mu, log_var, eps)
    dmu, dl = torch.empty_like(mu), torch.empty_like(mu)
    with torch.cuda.device_of(mu):
        backward[(triton.cdiv(SIZE, TILE),)](
            dz, dkl, mu, log_var, eps, seed, dmu, dl, SIZE, mu.shape[1], **_same(mu), SEEDED=eps is None, B=TILE
        )  # fmt: skip
    return dmu.to(dtype), dl.to(dtype)


def _same(mu):
    """The type of the sums, and how many terms of the series it needs."""
    return {"SUM": tl.float64 if mu.dtype == torch.float64 else tl.float32, "TERMS": TERMS[wide(mu.dtype)]}


def run(mu, log_var, eps, seed, request):
    choice = _backend.chosen("gaussian_kl", mu.device, mu.dtype, request)
    mu, log_var, eps = (a if a is None else a.contiguous() for a in (mu, log_var, eps))
    return reference(mu, log_var, eps, seed) if choice.backend == "reference" else launch(choice.rung, mu, log_var, eps, seed)


def run_backward(dz, dkl, mu, log_var, eps, seed, request):
    choice = _backend.chosen("gaussian_kl", mu.device, mu.dtype, request)
    dz, dkl, mu, log_var, eps = (a if a is None else a.contiguous() for a in (dz, dkl, mu, log_var, eps))
    if choice.backend == "reference":
        return tuple(d.contiguous() for d in gradient_formula(dz, dkl, mu, log_var, eps, seed, request))
    return launch_backward(dz, dkl, mu, log_var, eps, seed)


# ---- gradient --------------------------------------------------------------------------------------------------------------------------


def gradient_formula(dz, dkl, mu, log_var, eps, seed, request):
    # forward was: z = mu + sigma eps,  kl = 1/2 sum_d mu^2 + e^l - 1 - l
    m, l, g = mu.to(dkl.dtype), log_var.to(dkl.dtype), dz.to(dkl.dtype)
    sigma_eps = (l / 2).exp() * (noise(seed, m) if eps is None else eps.to(m.dtype))
    dmu, dl = g + dkl[:, None] * m, (g * sigma_eps + dkl[:, None] * l.expm1()) / 2
    return dmu.to(mu.dtype), dl.to(mu.dtype)


def gradient(needed, grads, mu, log_var, eps, seed, request):
    dz, dkl = grads
    dmu, dl = (_backward_of_seed if eps is None else _backward)(dz, dkl, mu, log_var, eps, seed, request)
    deps = dz * (log_var / 2).exp() if needed[2] else None
    return dmu, dl, deps, None, None


# ---- registration ----------------------------------------------------------------------------------------------------------------------

_backend.room("gaussian_kl", "triton", ("naive", "fused"))


def _fake(mu, *_):
    return torch.empty_like(mu, memory_format=torch.contiguous_format), mu.new_empty(mu.shape[0], dtype=wide(mu.dtype))


def _fake_backward(dz, dkl, mu, *_):
    return tuple(torch.empty_like(mu, memory_format=torch.contiguous_format) for _ in range(2))


_op = _operator.operator("gaussian_kl(Tensor mu, Tensor log_var, Tensor? eps, Tensor? seed, str request) -> (Tensor, Tensor)", run, _fake)
_backward_op = _operator.operator(
    "gaussian_kl_backward(Tensor dz, Tensor dkl, Tensor mu, Tensor log_var, Tensor? eps, Tensor? seed, str request) -> (Tensor, Tensor)",
    run_backward,
    _fake_backward,
)
_of_noise = _operator.differentiable(_op, lambda inputs, outputs: inputs, gradient, fold=(0, 1, 2))
_backward = _operator.differentiable_in_pytorch(_backward_op, gradient_formula, fold=(0, 1, 2, 3, 4))
_of_seed = _operator.differentiable(_op, lambda inputs, outputs: inputs, gradient)  # a seed counts the rows of one call: nothing is folded
_backward_of_seed = _operator.differentiable_in_pytorch(_backward_op, gradient_formula)


def gaussian_kl(mu, log_var, eps=None, seed=None):
    """z = mu + e^(log_var / 2) eps and its KL from the standard Gaussian.   (N, ...) twice -> (N, ...), (N,)

    eps (N, ...): the noise; without it the kernel draws it, from `seed` (0 to 2^63 - 1) or from one of torch's generator.
    """
    _check.tensors(mu=mu, log_var=log_var)
    _check.at_least("mu", mu, 1, "(N, ...), dimension 0 the batch")
    _check.shape("log_var", log_var, mu.shape, "that of mu")
    if eps is not None:
        _check.tensors(eps=eps)
        _check.shape("eps", eps, mu.shape, "that of mu")
        if seed is not None:
            raise ValueError("eps is the noise itself: give eps or a seed, not both")
    _check.one_device(mu=mu, log_var=log_var, eps=eps)
    mu, log_var = _check.in_float32(mu, log_var)
    _check.one_dtype(mu=mu, log_var=log_var)
    if eps is not None:
        z, kl = _of_noise(_rows(mu), _rows(log_var), _rows(eps.to(mu.dtype)), None, _backend.requested())
        return z.reshape(mu.shape), kl
    if seed is None:
        seed = torch.randint(2**63 - 1, (), device=mu.device)
    else:
        _check.whole("seed", seed, 0, 2**63 - 1, "from 0 to 2^63 - 1")
        seed = torch.full((), seed, dtype=torch.int64, device=mu.device)
    z, kl = _of_seed(_rows(mu), _rows(log_var), None, seed, _backend.requested())
    return z.reshape(mu.shape), kl


def _rows(tensor):
    return tensor.reshape(tensor.shape[0], math.prod(tensor.shape[1:]))
