"""The mean and the deviation of the groups of an image's channels, and its numbers normalised by them.

For kernels/group_norm_silu.py. A group lies in one piece: C/G channels of P pixels, R numbers. Statistics take two
passes: the mean m, then the squares of x - m, which do not cancel whatever the offset of x. The mean of x - m, which
is the rounding of m, is taken from them and from x - m.
"""

import torch

from ._takes import sum_dtype
from ._triton import tl, triton


def normalised(x, G, eps):
    """In PyTorch: z (N, C, P) and its statistics (N, G, 3)"""
    N, C, P = x.shape
    groups = x.to(sum_dtype(x.dtype)).reshape(N, G, C // G * P)
    mean = groups.mean(2, keepdim=True)
    r = ((groups - mean).square().mean(2, keepdim=True) + eps).rsqrt()
    return ((groups - mean) * r).reshape(x.shape), torch.cat([mean, torch.zeros_like(mean), r], 2)


@triton.jit
def place(ng, C, P, G, BM: tl.constexpr, BP: tl.constexpr):
    """The channels of a group, which of them exist, and where their pixels lie, (BM, BP)"""
    m, p, M = tl.arange(0, BM), tl.arange(0, BP), C // G
    return ng % G * M + m, m < M, (ng * M + m)[:, None] * P + p[None, :], (m < M)[:, None] & (p < P)[None, :]


@triton.jit
def held_statistics(x, ok, count, eps):
    """x minus its mean, m, the mean of x - m, and 1 / deviation, of a group in registers"""
    mean = tl.sum(x) / count
    d = tl.where(ok, x - mean, 0)
    rest = tl.sum(d) / count
    d = tl.where(ok, d - rest, 0)
    return d, mean, rest, 1 / tl.sqrt(tl.sum(d * d) / count + eps)


@triton.jit
def walked_statistics(x_ptr, R, count, eps, SUM: tl.constexpr, BP: tl.constexpr):
    """m, the mean of x - m, and 1 / deviation, of a group in memory"""
    sums, rests, squares = tl.zeros((BP,), SUM), tl.zeros((BP,), SUM), tl.zeros((BP,), SUM)
    for start in range(0, R, BP):
        i = start + tl.arange(0, BP)
        sums += tl.load(x_ptr + i, i < R, other=0).to(SUM)
    mean = tl.sum(sums) / count
    for start in range(0, R, BP):
        i = start + tl.arange(0, BP)
        d = tl.where(i < R, tl.load(x_ptr + i, i < R, other=0).to(SUM) - mean, 0)
        rests, squares = rests + d, squares + d * d
    rest = tl.sum(rests) / count
    variance = tl.sum(squares) / count - rest * rest
    return mean, rest, 1 / tl.sqrt(tl.where(variance < 0, 0, variance) + eps)
