"""p(v | a), v = x / (L-1): densities of the level x of a pixel, taken as a number from 0 to 1, and a loss that is none.

    Gaussian      a density of v = x / (L-1): N(sigma(a), variance)                        one number, or two
    Laplace       a density of v: exp(-|v - sigma(a)| / r) / 2r                            one number, or two
    Continuous    a density of v on [0, 1]: e^(a v) a / (e^a - 1)                          one number
    CrossEntropy  v log sigma(a) + (1 - v) log sigma(-a): a loss, and no density           one number

They have the members of genmini/outputs.py: a draw is the level nearest to a draw of v, and `cumulative` is that of
these draws. `decoder` names them, and the probabilities of levels, for a VAE.

    used by: genmini/models/vae.py    test: tests/project/test_densities.py
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from genmini.outputs import Bits, Levels, Output, at_least_float32
from genmini.settings import number, one_of


def decoder(name, levels, alpha=20.0, variance="shared"):
    """p(x|z) of a VAE: "bernoulli", "categorical", "gaussian" or "laplace" with alpha, "gaussian-learned" or
    "laplace-learned" with variance, "continuous-bernoulli", or "cross-entropy"."""
    kinds = {
        "bernoulli": lambda: Bits(),
        "categorical": lambda: Levels(levels),
        "gaussian": lambda: Gaussian(levels, alpha=alpha),
        "gaussian-learned": lambda: Gaussian(levels, variance=variance),
        "laplace": lambda: Laplace(levels, alpha=alpha),
        "laplace-learned": lambda: Laplace(levels, variance=variance),
        "continuous-bernoulli": lambda: Continuous(levels),
        "cross-entropy": lambda: CrossEntropy(levels),
    }
    one_of(kinds, decoder=name)
    one_of(("shared", "pixel"), variance=variance)
    number(above=0, alpha=alpha)
    if name == "bernoulli" and levels != 2:
        raise ValueError(f"decoder 'bernoulli' is for two levels, got {levels}: take 'categorical' or a 'gaussian', "
                         "or binary data")
    return kinds[name]()


class Density(Output):
    """A density of v = x / (L-1). draw gives the level nearest to v, and cumulative is that of these draws."""

    unit = "nats of a density of v"

    def __init__(self, levels, rows, dim=1):
        super().__init__(levels, rows, dim)
        self.brightest = levels - 1

    def edges(self, a):
        """Of a level and the next, in v: (L-1,)"""
        return (torch.arange(self.brightest, device=a.device, dtype=at_least_float32(a).dtype) + 0.5) / self.brightest

    def nearest(self, v):
        return (self.brightest * v).round().clamp(0, self.brightest).to(self.dtype)


class Scaled(Density):
    """A density with the centre sigma(a) and a scale, a fixed one, or floor + e^b: b one parameter for all ("shared")
    or the second row of a ("pixel"). Without the floor, a pixel that is always empty would have an unbounded density.
    """

    def __init__(self, levels, floor, fixed, variance, dim):
        super().__init__(levels, 2 if variance == "pixel" else 1, dim)
        self.floor, self.fixed = floor, fixed
        self.b = nn.Parameter(torch.tensor(-3.0)) if variance == "shared" else None

    def scale(self, a):
        """(N, ...), or one number"""
        a = at_least_float32(a)
        if self.fixed is not None:
            return torch.full((), self.fixed, device=a.device, dtype=a.dtype)
        return self.floor + (a.select(self.dim, 1) if self.b is None else self.b).exp()

    def centre(self, a):
        return at_least_float32(a).select(self.dim, 0).sigmoid()

    def mean(self, a):
        return self.brightest * self.centre(a)


class Gaussian(Scaled):
    """A density of v = x / (L-1):   log_p = log N(v; sigma(a), variance)

    alpha      variance = 1 / (2 alpha), fixed
    "shared"   variance = s^2 + e^b, b one parameter for all
    "pixel"    the same, b the second row of a

    s = 1/((L-1) sqrt 12) is the deviation of a uniform number within one level.
    """

    def __init__(self, levels, alpha=None, variance=None, dim=1):
        super().__init__(levels, 1 / (12 * (levels - 1) ** 2), alpha and 1 / (2 * alpha), variance, dim)

    def log_p(self, a, x):
        mean, variance = self.centre(a), self.scale(a)
        v = x.to(mean.dtype) / self.brightest
        return -0.5 * ((v - mean).square() / variance + (2 * math.pi * variance).log())

    def cumulative(self, a):
        return torch.special.ndtr((self.edges(a) - self.centre(a)[..., None]) / self.scale(a).sqrt()[..., None])

    def draw(self, a, u):  # the same without the L-1 numbers of cumulative
        return self.nearest(self.centre(a) + self.scale(a).sqrt() * torch.special.ndtri(u))


class Laplace(Scaled):
    """A density of v = x / (L-1):   log_p = -|v - sigma(a)| / r - log 2r

    alpha      r = 1 / alpha, fixed: -log_p is alpha times the absolute error, and a constant
    "shared"   r = s + e^b, b one parameter for all
    "pixel"    the same, b the second row of a

    s = 1 / (4 (L-1)) is the mean distance of a uniform number within one level from its middle. The best sigma(a) is
    the median of v, where that of a Gaussian is its mean.
    """

    def __init__(self, levels, alpha=None, variance=None, dim=1):
        super().__init__(levels, 1 / (4 * (levels - 1)), alpha and 1 / alpha, variance, dim)

    def log_p(self, a, x):
        median, r = self.centre(a), self.scale(a)
        return -(x.to(median.dtype) / self.brightest - median).abs() / r - (2 * r).log()

    def cumulative(self, a):
        e = (self.edges(a) - self.centre(a)[..., None]) / self.scale(a)[..., None]
        tail = (-e.abs()).exp() / 2
        return torch.where(e < 0, tail, 1 - tail)

    def draw(self, a, u):
        e = torch.where(u < 0.5, (2 * u).log(), -(2 * (1 - u)).log())
        return self.nearest(self.centre(a) + self.scale(a) * e)


class Continuous(Density):
    """The continuous Bernoulli (Loaiza-Ganem, Cunningham 2019), a density of v on [0, 1]:

        log_p = v log l + (1 - v) log(1 - l) + log C(l),   l = sigma(a),   C(l) = a / tanh(a / 2)
              = (v - 1/2) a - log(sinh(t) / t),            t = a / 2

    Without C this is the cross-entropy, whose exponential integrates to tanh(a/2) / a, at most 1/2: no density. The
    mean of v is not l, but 1/2 + (coth t - 1/t) / 2.
    """

    SERIES = 1 / 6, -1 / 180, 1 / 2835, -1 / 37800, 1 / 467775, -691 / 3831077250, 2 / 127702575  # of t^2, t^4, ...

    def __init__(self, levels, dim=1):
        super().__init__(levels, 1, dim)

    def log_p(self, a, x):
        a = at_least_float32(a).select(self.dim, 0)
        return (x.to(a.dtype) / self.brightest - 0.5) * a - self.log_sinhc(a / 2)

    def log_sinhc(self, t):
        """log(sinh(t) / t): near 0, where both terms of its derivative coth t - 1/t are large, by its series"""
        small = t.abs() < 0.25
        large, t2, series = t.abs().masked_fill(small, 1.0), t.masked_fill(~small, 0.0).square(), 0
        for term in reversed(self.SERIES):
            series = (series + term) * t2
        return torch.where(small, series, large + (-torch.expm1(-2 * large)).log() - (2 * large).log())

    def mean(self, a):
        """By the derivative of log_sinhc, as it stands"""
        t = at_least_float32(a).select(self.dim, 0) / 2
        slope = torch.func.grad(lambda t: self.log_sinhc(t).sum())(t)
        return self.brightest * (0.5 + slope / 2)

    def cumulative(self, a):
        """(e^(a v) - 1) / (e^a - 1); for a > 0 that of 1 - v, so that nothing overflows"""
        a = at_least_float32(a).select(self.dim, 0)[..., None]
        edges = self.edges(a)
        v, b = torch.where(a > 0, 1 - edges, edges), -a.abs().clamp(min=1e-30)
        below = torch.expm1(b * v) / torch.expm1(b)
        return torch.where(a > 0, 1 - below, below)

    def draw(self, a, u):
        a = at_least_float32(a).select(self.dim, 0)
        b = -a.abs().clamp(min=1e-30)
        v = torch.log1p(torch.where(a > 0, 1 - u, u) * torch.expm1(b)) / b
        return self.nearest(torch.where(a > 0, 1 - v, v))


class CrossEntropy(Output):
    """v log sigma(a) + (1 - v) log sigma(-a), v = x / (L-1): what is called log_p here is a loss, and no logarithm of
    a probability, unless L = 2. Its best sigma(a) is the mean of v; a draw is level L-1 so often, and else 0."""

    unit = "cross-entropy"

    def __init__(self, levels, dim=1):
        super().__init__(levels, 1, dim)
        self.brightest = levels - 1

    def log_p(self, a, x):
        a = at_least_float32(a).select(self.dim, 0)
        return -F.binary_cross_entropy_with_logits(a, x.to(a.dtype) / self.brightest, reduction="none")

    def cumulative(self, a):
        return (-at_least_float32(a)).movedim(self.dim, -1).sigmoid().expand(*a.select(self.dim, 0).shape,
                                                                             self.brightest)
