"""A flow: an invertible map h of data to noise, whose determinant is known. What RealNVP and MAF share.

The course, "Réseau inversible (NF)". Actnorm is Kingma and Dhariwal's (Glow, 2018).

    log p(x) = log N(h(x); 0, I) + log |det dh/dx|                                          (1)
    r = logit(a + (1 - 2a) (x + u) / L)                                                       (2)
    log P(x) = log int_[0,1)^D p(x + u) du  >=  E_q(u|x) [log p(x + u) - log q(u|x)]        (3)
    x' = exp(s) o x + t                                   log |det| = sum s                 (4)

An image x of L levels has a probability P(x), the integral of the density over its cell [x, x + 1)^D. u spreads x over
that cell: uniformly (log q = 0), unless a flow has its own `dequantise`. (2) maps [0, L) to the line, and its slope is
part of the determinant of (1), so that bits/dim is that of P. Actnorm (4) has one s and t a channel, which the first
batch sets to give mean 0 and deviation 1.

    used by: genmini/models/realnvp.py, genmini/models/maf.py    test: tests/models/test_realnvp.py
"""

import math

import torch
from torch import nn

from genmini.models._model import Model
from genmini.outputs import level_dtype
from genmini.settings import number


class Flow(Model):
    """A model that has h, `forward`, and its `inverse`"""

    has_normal_prior = True
    margin = 0.01  # a of (2)

    @classmethod
    def cannot(cls, name):
        if name == "reconstruct":
            return f"{cls.__name__} is invertible, so what it decodes of the code of an image is that image"
        return super().cannot(name)

    def log_prob(self, x, y=None, *, draws=1):
        """(N, *shape) -> (N,) in nats. With levels it is the bound (3), drawn anew each time; more draws are tighter:
        log 1/k sum_k p(x + u_k) / q(u_k | x). Without y, a model with classes averages p(x | y) over all of them."""
        x, y = self.check(x, y)
        x = x.reshape(len(x), *self.shape)
        if self.levels is None:
            return self._log_p(x.to(self.dtype), y)
        bounds = []
        for _ in range(draws):
            u, log_q = self.dequantise(x)
            r, slope = self._to_the_line(x + u)
            bounds.append(self._log_p(r, y) + slope - log_q)  # (3)
        return torch.stack(bounds).logsumexp(0) - math.log(draws)

    def _log_p(self, x, y):
        if self.classes and y is None:  # p(x) = 1/K sum_y p(x | y)
            return self.over_classes(lambda k: self._log_p(x, torch.full((len(x),), k, device=x.device)))
        z, logdet = self(x, y)
        return log_normal(z) + logdet  # (1)

    def _to_the_line(self, x):
        """x + u, in [0, L) (N, *shape) -> r, log of the slopes (N,)"""
        p = self.margin + (1 - 2 * self.margin) * x / self.levels
        slope = math.log((1 - 2 * self.margin) / self.levels) - p.log() - (-p).log1p()
        return p.log() - (-p).log1p(), slope.flatten(1).sum(1)  # (2)

    def dequantise(self, x):
        """Levels x (N, *shape) -> u in [0, 1) (N, *shape), log q(u | x) (N,)"""
        return torch.rand(x.shape, device=x.device, dtype=self.dtype), 0.0

    @property
    def latent(self):
        """z has as many numbers as x."""
        return self.D

    def encode(self, x, y=None):
        """h(x), (N, D); of levels at the middle of the cell, u = 1/2, and so the same each time"""
        x, y = self.check(x, y, needed=True)
        x = x.reshape(len(x), *self.shape).to(self.dtype)
        return self(x if self.levels is None else self._to_the_line(x + 0.5)[0], y)[0]

    def decode(self, z, y=None):
        """h^-1(z), (N, *shape); of levels the x in whose cell it lies, so that decode(encode(x)) is x"""
        r, _ = self.inverse(self.check_z(z), self.check_y(y, len(z), needed=True))
        if self.levels is None:
            return r
        x = self.levels * (r.sigmoid() - self.margin) / (1 - 2 * self.margin)
        return x.floor().clamp(0, self.levels - 1)

    @torch.no_grad()
    def sample(self, n, y=None, *, temperature=1.0):
        """n draws, (n, *shape): float, or whole levels. y: a class for all, or one each; None draws classes evenly.
        z ~ N(0, T^2 I) at the temperature T: below 1 nearer to the mode of p(z), which T = 0 decodes."""
        number(least=0, temperature=temperature)
        y = self.classes_or_drawn(y, n)
        x = self.decode(temperature * torch.randn(n, self.D, device=self.device, dtype=self.dtype), y)
        return x if self.levels is None else x.to(level_dtype(self.levels))


def log_normal(z):  # (N, D) -> (N,)
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)


class ActNorm(nn.Module):
    """x exp(s) + t with one s and t a channel, set by the first batch seen in training."""

    def __init__(self, shape):
        super().__init__()
        self.s = nn.Parameter(torch.zeros(shape[0], *(1 for _ in shape[1:])))
        self.t = nn.Parameter(torch.zeros_like(self.s))
        self.register_buffer("ready", torch.tensor(False))
        self.sites = math.prod(shape[1:])  # of one channel

    def forward(self, x, y=None):
        if self.training and not self.ready:
            self._set_by(x.detach())
        return x * self.s.exp() + self.t, self._logdet(x)  # (4)

    def inverse(self, x, y=None):
        return (x - self.t) * (-self.s).exp(), -self._logdet(x)

    def _logdet(self, x):
        return (self.s.sum() * self.sites).expand(len(x))

    @torch.no_grad()
    def _set_by(self, x):
        dims = [0, *range(2, x.dim())]
        deviation, mean = torch.std_mean(x, dims, correction=0, keepdim=True)
        self.s.copy_(-deviation.clamp_min(1e-3).log()[0])
        self.t.copy_(-mean[0] * self.s.exp())
        self.ready.fill_(True)
