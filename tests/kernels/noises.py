"""The noise of a seed in float64, and how far a backend may be from it."""

import functools
import math

import torch
from check import ROUNDING, error
from genmini.kernels._noise import WORD, noise, philox

MOST = math.sqrt(-2 * math.log(1e-7))  # of |eps|
# An error of `noise`, in float32. Of the number itself, relative: 1 for log, of which the root makes a half, and 1 for
# the root; 1 and a half for pi x, as pi is rounded too; 2 for the sine (a unit in the last place); 1 for the product.
# Of x = |2 v - 1| - 1/2, where v + 3/4 was rounded by half a unit: at most 1 times pi, and that by the cosine, whose
# square is 1 - that of the sine
BOUND = MOST * math.hypot(6.5, math.pi) * ROUNDING[torch.float32]


def exact_noise(seed, N, D):
    """What `noise` stands for, of the same uniform numbers, which are float32."""
    q, n = torch.arange(math.ceil(D / 4)), torch.arange(N)[:, None]
    words = torch.stack(philox(torch.tensor(seed), q & WORD, q >> 32, n & WORD, n >> 32), -1)
    u, v = (torch.minimum(words, WORD - words).float() * 4.6566127342e-10).double().split(2, -1)
    radius, angle = (-2 * u.clamp(min=1e-7).log()).sqrt(), 2 * math.pi * v
    return (radius[..., None] * torch.stack([angle.cos(), angle.sin()], -1)).reshape(N, -1)[:, :D]


@functools.cache
def error_of_pytorch(seed):
    return error(noise(torch.tensor(seed), torch.empty(100, 1000)), exact_noise(seed, 100, 1000))


def is_noise(got, seed, scale=1.0, others=0.0):
    """Whether these are the numbers of the seed times `scale`: at most twice as wrong as the largest error among
    100,000 of PyTorch's; others: the largest of the other roundings of the result."""
    return error(got, scale * exact_noise(seed, *got.shape)) <= scale * 2 * error_of_pytorch(seed) + others
