"""What a decoder's numbers a (N, rows, *shape) say of an image: p(x|z) by name, its mean in levels, draws from it.

    bernoulli            x in {0, 1}, p(x = 1) = sigma(a)
    categorical          x in {0 ... L-1}, a softmax over L rows
    gaussian             a density of v = x / (L-1): N(sigma(a), 1/(2 alpha))
    gaussian-learned     the same with a variance s^2 + e^b: b one number for all pixels ("shared"), or a second row of a ("pixel")

s is a level's own deviation, 1/((L-1) sqrt 12): without it, a pixel that is always empty would have a density without bound.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from genmini import ops


class Bernoulli(nn.Module):
    rows, discrete = 1, True

    def log_p(self, a, x):  # x (N, *shape) levels -> (N,)
        return -F.binary_cross_entropy_with_logits(a[:, 0], x.to(a.dtype), reduction="none").flatten(1).sum(1)

    def mean(self, a):
        return a[:, 0].sigmoid()

    def draw(self, a):
        return self.mean(a).bernoulli()


class Categorical(nn.Module):
    discrete = True

    def __init__(self, levels):
        super().__init__()
        self.rows = levels

    def log_p(self, a, x):
        return -ops.softmax_nll(a, x.long()).flatten(1).sum(1)

    def mean(self, a):
        level = torch.arange(self.rows, device=a.device, dtype=a.dtype)
        return (a.softmax(1).movedim(1, -1) * level).sum(-1)

    def draw(self, a):
        p = a.softmax(1).movedim(1, -1)
        return p.reshape(-1, self.rows).multinomial(1).reshape(p.shape[:-1])


class Gaussian(nn.Module):
    discrete = False

    def __init__(self, levels, alpha=None, variance=None):
        super().__init__()
        self.brightest, self.alpha, self.rows = levels - 1, alpha, 2 if variance == "pixel" else 1
        self.floor = 1 / (12 * self.brightest**2)  # s^2
        self.b = nn.Parameter(torch.tensor(-3.0)) if variance == "shared" else None

    def variance(self, a):  # (N, *shape), or one number
        if self.alpha is not None:
            return torch.full((), 1 / (2 * self.alpha), device=a.device, dtype=a.dtype)
        return self.floor + (a[:, 1] if self.b is None else self.b).exp()

    def log_p(self, a, x):
        v, variance = x.to(a.dtype) / self.brightest, self.variance(a)
        return -0.5 * ((v - a[:, 0].sigmoid()).square() / variance + (2 * math.pi * variance).log()).flatten(1).sum(1)

    def mean(self, a):
        return self.brightest * a[:, 0].sigmoid()

    def draw(self, a):  # the nearest level
        v = a[:, 0].sigmoid() + self.variance(a).sqrt() * torch.randn_like(a[:, 0])
        return (self.brightest * v).round().clamp(0, self.brightest)


def decoder(name, levels, alpha, variance):
    kinds = {"bernoulli": lambda: Bernoulli(), "categorical": lambda: Categorical(levels), "gaussian": lambda: Gaussian(levels, alpha),
             "gaussian-learned": lambda: Gaussian(levels, variance=variance)}  # fmt: skip
    if name not in kinds:
        raise ValueError(f"decoder must be one of {', '.join(kinds)}, got {name!r}")
    if name == "bernoulli" and levels != 2:
        raise ValueError(f"decoder 'bernoulli' is for two levels, got {levels}: take 'categorical' or a 'gaussian', or binary data")
    if variance not in ("shared", "pixel"):
        raise ValueError(f"variance must be 'shared' or 'pixel', got {variance!r}")
    if alpha <= 0:
        raise ValueError(f"alpha = 1/(2 sigma^2) must be positive, got {alpha}")
    return kinds[name]()
