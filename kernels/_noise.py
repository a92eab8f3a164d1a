"""Normal numbers from a seed, the same on every backend: what the rooms share that draw inside a kernel.

Philox 4x32-10 turns the seed and the counter (q, n) into four words, read as i, j, k, m in [0, 1). Box-Muller turns
these into the numbers d = 4q ... 4q + 3 of row n:

    sqrt(-2 log i) (cos 2 pi k, sin 2 pi k),   sqrt(-2 log j) (cos 2 pi m, sin 2 pi m)

So eps_nd depends on the seed, n and d alone: not on N, D, backend, tiling or threads. A gradient draws it again, and
nothing is stored. The words are the same bits everywhere; backends differ by the roundings of log, cos and sqrt in
float32. |eps| <= 5.7. csrc/cpu/noise.h is the same for native kernels.
"""

import math

import torch

from . import _check
from ._triton import tl, triton

WORD = 2**32 - 1


def seed_of(seed, device):
    """A seed as a tensor on the device; None takes one from torch's generator."""
    if seed is None:
        return torch.randint(2**63 - 1, (), device=device)
    _check.whole("seed", seed, 0, 2**63 - 1, "from 0 to 2^63 - 1")
    return torch.full((), seed, dtype=torch.int64, device=device)


# ---- in PyTorch ------------------------------------------------------------------------------------------------------


def noise(seed, like):
    """The standard normal numbers of the seed, in the shape (N, D) and the dtype of `like`."""
    (N, D), device = like.shape, like.device
    q, n = torch.arange(math.ceil(D / 4), device=device), torch.arange(N, device=device)[:, None]
    words = torch.stack(philox(seed, q & WORD, q >> 32, n & WORD, n >> 32), -1)  # (N, D/4, 4)
    uniform = torch.minimum(words, WORD - words).float() * 4.6566127342e-10  # in [0, 1), as Triton makes it
    u, v = uniform.split(2, -1)
    radius = (-2 * u.clamp(min=1e-7).log()).sqrt()
    pair = radius[..., None] * torch.stack([cosine(v), cosine(torch.where(v < 0.25, v + 0.75, v - 0.25))], -1)
    return pair.reshape(N, 4 * len(q))[:, :D].to(like.dtype)  # of (N, D/4, 2, cos and sin): Box, Muller


def cosine(v):
    """cos 2 pi v, of v in [0, 1)"""
    return (math.pi * ((2 * v - 1).abs() - 0.5)).sin()


def philox(seed, *counter):
    """Four words of 32 bits, in int64 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers", 2011)"""
    a, b, c, d = counter
    turn = torch.arange(10, device=seed.device)
    keys = (seed + turn * 0x9E3779B9) & WORD, ((seed >> 32) + turn * 0xBB67AE85) & WORD
    for key, other in zip(*(k.unbind() for k in keys), strict=True):
        p, r = a * 0xD2511F53, c * 0xCD9E8D57  # int64 wraps around: the 64 bits are right, the sign is not
        a, b, c, d = (r >> 32 & WORD) ^ b ^ key, r & WORD, (p >> 32 & WORD) ^ d ^ other, p & WORD
    return a, b, c, d


# ---- in Triton -------------------------------------------------------------------------------------------------------

TILE = 1024  # numbers of a program; four warps, eight numbers a thread


@triton.jit
def cosine_of(v):
    """cos 2 pi v = sin pi x, x in [-1/2, 1/2], by a polynomial: the library's cosine keeps a table for huge angles"""
    x = tl.abs(2 * v - 1) - 0.5
    y = x * x
    sine = 0.59926453 - y * (0.08214589 - y * 0.00737043)  # of pi^k / k!
    return x * (3.14159265 - y * (5.16771278 - y * (2.55016404 - y * sine)))


@triton.jit
def normal(seed, n, q):
    """Box-Muller on the words of one Philox: n, q (BN, BD/4) -> (BN, BD)"""
    zero = n * 0
    q, n = q + zero, n + q * 0
    i, j, k, m = tl.philox(seed, q.to(tl.uint32), (q >> 32).to(tl.uint32), n.to(tl.uint32), (n >> 32).to(tl.uint32))
    u = tl.join(tl.uint_to_uniform_float(i), tl.uint_to_uniform_float(j))  # (BN, BD/4, 2)
    v = tl.join(tl.uint_to_uniform_float(k), tl.uint_to_uniform_float(m))
    radius = tl.sqrt(-2 * tl.log(tl.maximum(u, 1e-7)))
    pair = tl.join(radius * cosine_of(v), radius * cosine_of(tl.where(v < 0.25, v + 0.75, v - 0.25)))
    return tl.reshape(pair, (n.shape[0], 4 * n.shape[1]))  # of (BN, BD/4, 2, cos and sin)


@triton.jit
def draw(n, start, at, ok, eps_ptr, seed_ptr, SUM: tl.constexpr, SEEDED: tl.constexpr, BD: tl.constexpr):
    """eps of rows n and columns start ... start + BD - 1"""
    if SEEDED:
        q = start // 4 + tl.arange(0, BD // 4)
        return normal(tl.load(seed_ptr), n[:, None], q.to(tl.int64)[None, :]).to(SUM)
    else:
        return tl.load(eps_ptr + at, ok, other=0).to(SUM)


@triton.jit
def tile(N, D, BN: tl.constexpr, BD: tl.constexpr):
    """-> the rows of this program, where its columns start, its offsets, and which of them exist"""
    program, chunks = tl.program_id(0).to(tl.int64), tl.cdiv(D, BD)
    n, start = program // chunks * BN + tl.arange(0, BN), program % chunks * BD
    d = start + tl.arange(0, BD)
    return n, start, n[:, None] * D + d[None, :], (n < N)[:, None] & (d < D)[None, :]


def tile_of(D):
    """BN, BD of a tile: BD a multiple of 4, so that BD / 4 counters a row give its noise."""
    BD = min(max(triton.next_power_of_2(D), 4), TILE)
    return TILE // BD, BD
