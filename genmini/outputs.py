"""p(x | a): the distribution of a level x in {0 ... L-1}, or of many, given the numbers a that a network computes.

    Bits          p(x = 1) = sigma(a),   L = 2                                             one number a
    Levels        p(x = l) = exp(a_l) / sum_k exp(a_k)                                     L numbers
    Mixture       p(x = l) = sum_k pi_k [sigma((e_l - mu_k)/s_k) - sigma((e_l-1 - mu_k)/s_k)]   3 K numbers

Every class has these members:

    rows          the number of parameters a for one x
    log_p(a, x)   log p(x | a)
    mean(a)       the mean of x in levels, from 0 to L-1
    cumulative(a) p(x <= l | a) for l = 0 ... L-2, along a new last dimension
    draw(a, u)    the number of levels l < L-1 with p(x <= l | a) <= u, for uniform noise 0 <= u < 1
    marginals(x)  the a of given shares of the levels, where `has_marginals`: of Bits and Levels
    levels        L
    unit          of log_p: "nats", of a probability of levels; the densities of genmini/densities.py have others
    dtype         of draws: uint8 up to 256 levels

Layout: `dim` is the dimension of a that holds the rows; x, u and all results have the shape of a without it. dim=1 is
for images, as in ops.softmax_nll: a (N, rows, H, W). dim=-1 is for logits (N, D, rows): the rows of each x_d are last.
float16 and bfloat16 are widened to float32 first, so log_p is float32 (float64 for float64).

    used by: genmini/models, genmini/densities.py    room: kernels/softmax_nll.py    test: tests/project/test_outputs.py
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from genmini import ops


def softmax(levels, dim=1):
    """Bits for two levels, Levels for more: a sigmoid is the softmax of the logits 0 and a."""
    return Bits(dim) if levels == 2 else Levels(levels, dim)


class Output(nn.Module):
    """What the classes share: levels, drawn by inverting their cumulative distribution."""

    unit = "nats"
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
