"""p(x | a): the distribution of a level x in {0 ... L-1}, or of many, given the numbers a that a network computes.

    Bits          p(x = 1) = sigma(a),   L = 2                                             one number a
    Levels        p(x = l) = exp(a_l) / sum_k exp(a_k)                                     L numbers
    Mixture       p(x = l) = sum_k pi_k [sigma((e_l - mu_k)/s_k) - sigma((e_l-1 - mu_k)/s_k)]   3 K numbers
    Gaussian      a density of v = x / (L-1): N(sigma(a), variance)                        one number, or two

Every class has these members:

    rows          the number of parameters a for one x
    log_p(a, x)   log p(x | a)
    mean(a)       the mean of x in levels, from 0 to L-1
    cumulative(a) p(x <= l | a) for l = 0 ... L-2, along a new last dimension
    draw(a, u)    the number of levels l < L-1 with p(x <= l | a) <= u, for uniform noise 0 <= u < 1
    marginals(x)  the a of given shares of the levels, where `has_marginals`: of Bits and Levels
    levels        L
    discrete      true if log_p is a probability of levels, false if it is a density
    dtype         of draws: uint8 up to 256 levels

Layout: `dim` is the dimension of a that holds the rows; x, u and all results have the shape of a without it. dim=1 is
for images, as in ops.softmax_nll: a (N, rows, H, W). dim=-1 is for logits (N, D, rows): the rows of each x_d are last.
float16 and bfloat16 are widened to float32 first, so log_p is float32 (float64 for float64).

    used by: genmini/models    room: kernels/softmax_nll.py    test: tests/project/test_outputs.py
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from genmini import ops
from genmini.settings import number, one_of


def softmax(levels, dim=1):
    """Bits for two levels, Levels for more: a sigmoid is the softmax of the logits 0 and a."""
    return Bits(dim) if levels == 2 else Levels(levels, dim)


def decoder(name, levels, alpha=20.0, variance="shared"):
    """p(x|z) of a VAE: "bernoulli", "categorical", "gaussian" with alpha, or "gaussian-learned" with variance."""
    kinds = {
        "bernoulli": lambda: Bits(),
        "categorical": lambda: Levels(levels),
        "gaussian": lambda: Gaussian(levels, alpha=alpha),
        "gaussian-learned": lambda: Gaussian(levels, variance=variance),
    }
    one_of(kinds, decoder=name)
    one_of(("shared", "pixel"), variance=variance)
    number(above=0, alpha=alpha)
    if name == "bernoulli" and levels != 2:
        raise ValueError(f"decoder 'bernoulli' is for two levels, got {levels}: take 'categorical' or a 'gaussian', "
                         "or binary data")
    return kinds[name]()


class Output(nn.Module):
    """What the four classes share: discrete levels, drawn by inverting their cumulative distribution."""

    discrete = True
    has_marginals = False

    def __init__(self, levels, rows, dim=1):
        super().__init__()
        self.levels, self.rows, self.dim = levels, rows, dim
        self.dtype = level_dtype(levels)

    def mean(self, a):
        return (1 - self.cumulative(a)).sum(-1)  # E x = sum_l p(x > l)

    def draw(self, a, u):
        return (u[..., None] >= self.cumulative(a)).sum(-1).to(self.dtype)

    def marginals(self, x):
        """Examples (N, D) -> a (D, rows): p(x_d | a_d) are the shares of the levels among x_1d ... x_Nd, where each
        level counts half an example more. Only Bits and Levels can represent arbitrary shares."""
        raise ValueError(f"marginals are for bits and levels: {type(self).__name__} has another form of p(x | a)")

    def extra_repr(self):
        return f"levels={self.levels}, rows={self.rows}"


class Bits(Output):
    """p(x = 1) = sigma(a)"""

    has_marginals = True

    def __init__(self, dim=1):
        super().__init__(2, 1, dim)

    def log_p(self, a, x):
        a = at_least_float32(a).select(self.dim, 0)
        return -F.binary_cross_entropy_with_logits(a, x.to(a.dtype), reduction="none")

    def mean(self, a):
        return at_least_float32(a).select(self.dim, 0).sigmoid()

    def cumulative(self, a):
        return (-at_least_float32(a)).movedim(self.dim, -1).sigmoid()  # p(x <= 0) = 1 - sigma(a) = sigma(-a)

    def marginals(self, x):
        ones = x.long().sum(0)
        return torch.log((ones + 0.5) / (len(x) - ones + 0.5))[:, None]


class Levels(Output):
    """p(x = l) = exp(a_l) / sum_k exp(a_k)"""

    has_marginals = True

    def __init__(self, levels, dim=1):
        super().__init__(levels, levels, dim)

    def log_p(self, a, x):
        a, x = at_least_float32(a).movedim(self.dim, 1), x.long()
        if self.dim == -1:  # the logits of an x lie side by side: there PyTorch is faster on a CPU than the room
            return -F.cross_entropy(a, x, reduction="none")
        return -ops.softmax_nll(a, x)

    def mean(self, a):
        p = at_least_float32(a).softmax(self.dim).movedim(self.dim, -1)
        return (p * torch.arange(self.levels, device=a.device, dtype=p.dtype)).sum(-1)

    def cumulative(self, a):
        return at_least_float32(a).movedim(self.dim, -1).softmax(-1).cumsum(-1)[..., :-1]

    def marginals(self, x):
        counts = torch.stack([(x == level).sum(0) for level in range(self.levels)], 1)
        return torch.log((counts + 0.5) / (len(x) + 0.5 * self.levels))


class Mixture(Output):
    """K logistics, cut into levels (PixelCNN++): p(x = l) = sum_k pi_k [sigma(b_l) - sigma(b_l-1)]

    b_l = (e_l - mu_k) / s_k. The levels lie at -1 ... 1, 2/(L-1) apart, and e_l = (2 l + 1)/(L-1) - 1 is the edge above
    level l; all below e_0 belongs to level 0, all above e_L-2 to level L-1. The rows of a are K logits of pi, then K
    times mu, then K times log s. The log of a difference is taken as

        sigma(b) - sigma(c) = sigma(b) sigma(-c) (1 - e^(c-b)),   c - b = -2 / ((L-1) s)

    so that no digits cancel where both are near 0 or 1.
    """

    LOG_S = -7, 60  # of log s: at -7 one level has nearly all; exp(-log s) underflows in float32 above 87

    def __init__(self, levels, components=5, dim=1):
        super().__init__(levels, 3 * components, dim)
        self.components = components

    def logistics(self, a):
        """-> log pi, mu, log s, each (N, ..., K)"""
        log_pi, mu, log_s = at_least_float32(a).movedim(self.dim, -1).unflatten(-1, (3, self.components)).unbind(-2)
        return log_pi.log_softmax(-1), mu, log_s.clamp(*self.LOG_S)

    def log_p(self, a, x):
        log_pi, mu, log_s = self.logistics(a)
        x, half = x[..., None].to(mu.dtype), 1 / (self.levels - 1)
        centred = x * (2 * half) - 1 - mu
        c, b = ((centred + edge) * torch.exp(-log_s) for edge in (-half, half))
        lowest, highest = x == 0, x == self.levels - 1
        log_width = torch.log(-torch.expm1(-2 * half * torch.exp(-log_s)))  # log(1 - e^(c-b))
        log_p = F.logsigmoid(b).masked_fill(highest, 0) + F.logsigmoid(-c).masked_fill(lowest, 0)
        log_p = log_p + log_width.masked_fill(lowest | highest, 0)
        return (log_pi + log_p).logsumexp(-1)

    def cumulative(self, a):
        log_pi, mu, log_s = (part[..., None, :] for part in self.logistics(a))  # (N, ..., 1, K)
        edge = (2 * torch.arange(self.levels - 1, device=a.device, dtype=mu.dtype) + 1) / (self.levels - 1) - 1
        return (log_pi.exp() * torch.sigmoid((edge[:, None] - mu) * torch.exp(-log_s))).sum(-1)


class Gaussian(Output):
    """A density of v = x / (L-1):   log_p = log N(v; sigma(a), variance)

    alpha      variance = 1 / (2 alpha), fixed
    "shared"   variance = s^2 + e^b, b one parameter for all
    "pixel"    the same, b the second row of a

    s = 1/((L-1) sqrt 12) is the deviation of a uniform number within one level: without it, a pixel that is always
    empty would have an unbounded density. draw gives the level nearest to v, and cumulative is that of these draws.
    """

    discrete = False

    def __init__(self, levels, alpha=None, variance=None, dim=1):
        super().__init__(levels, 2 if variance == "pixel" else 1, dim)
        self.brightest, self.alpha, self.floor = levels - 1, alpha, 1 / (12 * (levels - 1) ** 2)  # floor: s^2
        self.b = nn.Parameter(torch.tensor(-3.0)) if variance == "shared" else None

    def variance(self, a):
        """(N, ...), or one number"""
        a = at_least_float32(a)
        if self.alpha is not None:
            return torch.full((), 1 / (2 * self.alpha), device=a.device, dtype=a.dtype)
        return self.floor + (a.select(self.dim, 1) if self.b is None else self.b).exp()

    def log_p(self, a, x):
        a, variance = at_least_float32(a), self.variance(a)
        v, mean = x.to(a.dtype) / self.brightest, a.select(self.dim, 0).sigmoid()
        return -0.5 * ((v - mean).square() / variance + (2 * math.pi * variance).log())

    def mean(self, a):
        return self.brightest * at_least_float32(a).select(self.dim, 0).sigmoid()

    def cumulative(self, a):
        mean = at_least_float32(a).select(self.dim, 0).sigmoid()[..., None]
        deviation = self.variance(a).sqrt()[..., None]
        edge = (torch.arange(self.brightest, device=a.device, dtype=mean.dtype) + 0.5) / self.brightest  # above level l
        return torch.special.ndtr((edge - mean) / deviation)

    def draw(self, a, u):  # the same without the L-1 numbers of cumulative
        v = at_least_float32(a).select(self.dim, 0).sigmoid() + self.variance(a).sqrt() * torch.special.ndtri(u)
        return (self.brightest * v).round().clamp(0, self.brightest).to(self.dtype)


def level_dtype(levels):
    """In which levels are drawn: uint8 up to 256 of them, else int64"""
    return torch.uint8 if levels <= 256 else torch.int64


def at_least_float32(a):
    """a, 16 bits as float32"""
    return a.to(torch.promote_types(a.dtype, torch.float32))


def log_mass(x, mean, deviation, levels):
    """log of the mass that N(mean, deviation^2) has on the cell of level x, float64. The levels lie evenly on [-1, 1];
    a cell reaches half way to the next levels, those of the first and of the last one to infinity."""
    centre, half = 2 * (x.double() / (levels - 1)) - 1, 1 / (levels - 1)
    edge = lambda side: (centre - mean.double() + side * half) / deviation
    low, high = edge(-1).masked_fill(x == 0, -math.inf), edge(1).masked_fill(x == levels - 1, math.inf)
    low, high = torch.where(low + high > 0, -high, low), torch.where(low + high > 0, -low, high)  # the lower tail
    log_low, log_high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    return log_high + torch.log(-torch.expm1(log_low - log_high))
