"""RealNVP: an invertible network maps data to noise, and gives the determinant of that map.

The course, "Réseau inversible (NF)"; Dinh, Sohl-Dickstein, Bengio, "Density estimation using Real NVP", 2017. Actnorm
is Kingma and Dhariwal's (Glow, 2018), variational dequantisation Ho et al.'s (Flow++, 2019), splines are those of
Durkan, Bekasov, Murray and Papamakarios (neural spline flows, 2019).

    log p(x) = log N(h(x); 0, I) + log |det dh/dx|                                          (1)
    x_1' = x_1,   x_2' = exp(s(x_1)) o x_2 + t(x_1)       log |det| = sum s(x_1)            (2)
    s = b tanh(s~ / b)                                                                      (3)
    x' = exp(s) o x + t                                   log |det| = sum s                 (4)
    z = (z_1, ..., z_I):   (z_i, h_i) = f_i(h_i-1)                                          (5)
    r = logit(a + (1 - 2a) (x + u) / L)                                                       (6)
    log P(x) = log int_[0,1)^D p(x + u) du  >=  E_q(u|x) [log p(x + u) - log q(u|x)]        (7)
    u = sigmoid(g(e; x)),   log q(u|x) = log N(e; 0, I) - log |det du/de|                   (8)
    x_1' = x_1,   x_2' = c(x_2; w(x_1))                   log |det| = sum log c'(x_2)       (9)

h is a chain of steps: affine couplings (2), whose halves change roles from one to the next, with a bounded s (3), so
that the inverse is as well-conditioned as the forward; before each an actnorm (4), one s and t a channel, which the
first batch sets to give mean 0 and deviation 1. A vector is halved into even and odd numbers. An image is halved as a
checkerboard, squeezed (2x2 pixels become 4 channels), and halved by channels; at each scale (5) half of the channels
end as z_i, the others go on. A class y can steer every s and t. With splines (9) stands in the place of (2): each
number of x_2 goes through an increasing curve c of its own, on an interval that actnorm fills; so few steps make holes
and separate pieces, which an affine coupling can only stretch.

An image x of L levels has a probability P(x), the integral of the density over its cell [x, x + 1)^D. u spreads x over
that cell, uniformly (log q = 0) or by a flow of its own (8). (6) maps [0, L) to the line, and its slope is part of the
determinant of (1), so that bits/dim is that of P.

    layers: genmini.layers.AffineCoupling, SplineCoupling    bodies: genmini/nets
    rooms: kernels/affine_coupling.py, kernels/spline_coupling.py
    test: tests/models/test_realnvp.py
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from genmini.layers import AffineCoupling, SplineCoupling
from genmini.models._model import Model
from genmini.nets.conv import ResNet
from genmini.nets.mlp import MLP
from genmini.nets.recomputed import Recomputed
from genmini.outputs import level_dtype
from genmini.settings import number, one_of, share, whole


class RealNVP(Model):
    def __init__(self, shape, levels=None, couplings=4, scales=0, hidden=(128, 128), width=32, blocks=2, dropout=0.0,
                 classes=0, bound=1.0, dequantise="uniform", margin=0.01, save="x", coupling="affine",
                 bins=8, reach=5.0, device=None, dtype=None):
        """shape of one x: (D,), (H, W) or (C, H, W); levels: None for a density, L for images of levels 0 ... L-1.

        couplings: of a vector, or of an image at each scale and in each way of halving; scales: how often an image is
        squeezed. Bodies have `hidden` units a layer for vectors, `blocks` of `width` channels for images. classes:
        log_prob and sample take a class y. dequantise "uniform" or "variational"; margin: a of (6). save="y": the
        backward pass recomputes each step from its output, so that memory does not grow with depth. coupling "spline":
        of so many bins from -reach to reach; bound, of s, is for "affine".
        """
        whole(hidden=hidden, width=width, couplings=couplings)
        whole(0, scales=scales, blocks=blocks, classes=classes)
        number(above=0, bound=bound)
        share(dropout=dropout)
        one_of(("x", "y"), save=save)
        one_of(("affine", "spline"), coupling=coupling)
        whole(2, 64, bins=bins)
        number(least=1e-3, most=1e3, reach=reach)
        one_of(("uniform", "variational"), dequantise=dequantise)
        if levels is not None:
            whole(2, levels=levels)
            number(above=0, below=0.5, margin=margin)
        if not 1 <= len(shape) <= 3:
            raise ValueError(f"shape must be (D,), (H, W) or (C, H, W), got {shape}")
        if scales and (len(shape) == 1 or any(side % 2**scales for side in shape[-2:])):
            raise ValueError(f"scales={scales} halves the sides of an image that often: {2**scales} must divide them, "
                             f"got shape {shape}")
        if save == "y" and dropout:
            raise ValueError("save='y' computes each step twice, so dropout must be 0")
        super().__init__(shape, levels, classes)
        self.margin, self.save, self.is_bound = margin, save, levels is not None

        body = dict(hidden=hidden) if len(shape) == 1 else dict(width=width, blocks=blocks)
        body["dropout"] = dropout
        make = (partial(_affine, bound=bound, save=save) if coupling == "affine"
                else partial(_spline, bins=bins, reach=reach))
        couple = partial(_couple, make=make, couplings=couplings, body=body)
        self.inner = shape if len(shape) != 2 else (1, *shape)  # an image has channels
        self.f, self.shapes, h = nn.ModuleList(), [], self.inner  # f_i of (5), the shapes of z_i, that of h_i
        for _ in range(scales):
            C, H, W = h
            squeezed = 4 * C, H // 2, W // 2
            before, after = couple(h, "checkerboard", classes), couple(squeezed, "channel", classes)
            self.f.append(nn.ModuleList([*before, Squeeze(), *after]))
            h = 2 * C, H // 2, W // 2
            self.shapes.append(h)
        self.f.append(nn.ModuleList(couple(h, "parity" if len(h) == 1 else "checkerboard", classes)))
        self.shapes.append(h)
        self.g = None
        if levels is not None and dequantise == "variational":
            steps = couple(self.inner, "parity" if len(h) == 1 else "checkerboard", context=self.inner[0])
            self.g = nn.ModuleList(steps[1::2])  # couplings only: e ~ N(0, I) needs no actnorm
        self.place(device, dtype)

    # ---- h and its inverse -------------------------------------------------------------------------------------------

    def forward(self, x, y=None):
        """h: real x (N, *shape) -> z (N, D), log |det dh/dx| (N,)"""
        h, logdet, z = x.reshape(len(x), *self.inner), 0, []
        for i, f in enumerate(self.f):
            h, part = self._chain(f, h, y)
            logdet = logdet + part
            if i + 1 < len(self.f):
                z_i, h = h.chunk(2, 1)  # (5)
                z.append(z_i.flatten(1))
        return torch.cat([*z, h.flatten(1)], 1), logdet

    def inverse(self, z, y=None):
        """z (N, D) -> x (N, *shape) with h(x) = z, log |det dx/dz| (N,)"""
        z = z.split([math.prod(shape) for shape in self.shapes], 1)
        *z, h = (z_i.unflatten(1, shape) for z_i, shape in zip(z, self.shapes, strict=True))
        logdet = 0
        for i, f in reversed(list(enumerate(self.f))):
            if i < len(z):
                h = torch.cat([z[i], h], 1)  # (5)
            for step in reversed(f):
                h, part = step.inverse(h, y)
                logdet = logdet + part
        return h.reshape(len(h), *self.shape), logdet

    def _chain(self, f, h, y):
        if self.save == "y" and torch.is_grad_enabled():
            return Recomputed.apply(f, y, h, *f.parameters())
        logdet = 0
        for step in f:
            h, part = step(h, y)
            logdet = logdet + part
        return h, logdet

    # ---- the probability ---------------------------------------------------------------------------------------------

    def log_prob(self, x, y=None, *, draws=1):
        """(N, *shape) -> (N,) in nats. With levels it is the bound (7), drawn anew each time; more draws are tighter:
        log 1/k sum_k p(x + u_k) / q(u_k | x). Without y, a model with classes averages p(x | y) over all of them."""
        x, y = self.check(x, y)
        x = x.reshape(len(x), *self.shape)
        if self.levels is None:
            return self._log_p(x.to(self.dtype), y)
        bounds = []
        for _ in range(draws):
            u, log_q = self.dequantise(x)
            r, slope = self._to_the_line(x + u)
            bounds.append(self._log_p(r, y) + slope - log_q)  # (7)
        return torch.stack(bounds).logsumexp(0) - math.log(draws)

    def _log_p(self, x, y):
        if self.classes and y is None:  # p(x) = 1/K sum_y p(x | y)
            return self.over_classes(lambda k: self._log_p(x, torch.full((len(x),), k, device=x.device)))
        z, logdet = self(x, y)
        return _log_normal(z) + logdet  # (1)

    def _to_the_line(self, x):
        """x + u, in [0, L) (N, *shape) -> r, log of the slopes (N,)"""
        p = self.margin + (1 - 2 * self.margin) * x / self.levels
        slope = math.log((1 - 2 * self.margin) / self.levels) - p.log() - (-p).log1p()
        return p.log() - (-p).log1p(), slope.flatten(1).sum(1)  # (6)

    def dequantise(self, x):
        """Levels x (N, *shape) -> u in [0, 1) (N, *shape), log q(u | x) (N,)"""
        if self.g is None:
            return torch.rand(x.shape, device=x.device, dtype=self.dtype), 0.0
        e = w = torch.randn(len(x), *self.inner, device=x.device, dtype=self.dtype)
        context, logdet = self.centred(x).reshape(e.shape), 0
        for step in self.g:
            w, part = step(w, None, context)
            logdet = logdet + part
        logdet = logdet + (F.logsigmoid(w) + F.logsigmoid(-w)).flatten(1).sum(1)  # of the sigmoid
        return w.sigmoid().reshape(x.shape), _log_normal(e.flatten(1)) - logdet  # (8)

    @torch.no_grad()
    def sample(self, n, y=None):
        """n draws, (n, *shape): float, or whole levels. y: a class for all, or one each; None draws classes evenly."""
        y = self.classes_or_drawn(y, n)
        x, _ = self.inverse(torch.randn(n, self.D, device=self.device, dtype=self.dtype), y)
        if self.levels is None:
            return x
        x = self.levels * (x.sigmoid() - self.margin) / (1 - 2 * self.margin)
        return x.floor().clamp(0, self.levels - 1).to(level_dtype(self.levels))


def _log_normal(z):  # (N, D) -> (N,)
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)


# ---- steps: forward(x, y) and inverse(x, y) give (x', logdet) --------------------------------------------------------


def _couple(shape, kind, classes=0, context=0, *, make, couplings, body):
    """actnorm, coupling, actnorm, coupling ...; the halves of a coupling change roles each time. make: _affine or
    _spline, with all but the body, still without its outputs, and the mask."""
    C, steps = shape[0], []
    for i in range(couplings):
        net = partial(MLP if len(shape) == 1 else ResNet, C, classes=classes, context=context, **body)
        steps += [ActNorm(shape), make(net, C, half(shape, kind) ^ bool(i % 2))]
    return steps


def _affine(net, C, mask, bound, save):
    return AffineCoupling(Bounded(net(2 * C), bound), mask, save)  # (2)


def _spline(net, C, mask, bins, reach):
    return SplineCoupling(net((3 * bins - 1) * C), mask, bins, reach)  # (9)


def half(shape, kind):
    """True on one half of the numbers: the even ones, the white squares of a checkerboard, or the first channels."""
    if kind == "parity":
        return torch.arange(shape[0], device="cpu") % 2 == 0
    C, H, W = (torch.arange(side, device="cpu") for side in shape)
    seen = (H[:, None] + W) % 2 == 0 if kind == "checkerboard" else C[:, None, None] < shape[0] // 2
    return seen.expand(shape).clone()


class Bounded(nn.Module):
    """The body's output as (s, t), s within +-b."""

    def __init__(self, body, b):
        super().__init__()
        self.body, self.b = body, b

    def forward(self, x, *condition):
        s, t = self.body(x, *condition).chunk(2, 1)
        return self.b * (s / self.b).tanh(), t  # (3)


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


class Squeeze(nn.Module):
    """Every 2x2 pixels become 4 channels."""

    def forward(self, x, y=None):
        pixels = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (N, C, H/2, 2, W/2, 2)
        return pixels.permute(0, 1, 3, 5, 2, 4).flatten(1, 3), x.new_zeros(len(x))

    def inverse(self, x, y=None):
        pixels = x.unflatten(1, (-1, 2, 2)).permute(0, 1, 4, 2, 5, 3)
        return pixels.flatten(4, 5).flatten(2, 3), x.new_zeros(len(x))


RECIPES = {
    **{
        toy: {
            "data": toy,
            "model": dict(couplings=16, hidden=(64, 64)),
            "train": dict(steps=2500, batch=512, rate=5e-3),
            "threads": 1,
        }
        for toy in ("moons", "spirals")
    },
    **{  # densities with holes or separate pieces
        toy: {
            "data": toy,
            "model": dict(couplings=16, hidden=(64, 64), bound=2.0),
            "train": dict(steps=6000, batch=256, rate=5e-3, ema=0.99, every=500),
            "threads": 1,
        }
        for toy in ("rings", "checkerboard", "gaussians")
    },
    **{  # with more steps the splines of rings and Gaussians fit the noise of train
        f"{toy}-spline": {
            "data": toy,
            "model": dict(couplings=4, hidden=(64, 64), coupling="spline", bins=bins, reach=reach),
            "train": dict(steps=steps, batch=256, rate=rate, ema=ema, every=1000),
            "threads": 1,
        }
        for toy, bins, reach, steps, rate, ema in (
            ("moons", 8, 5.0, 6000, 2e-3, 0.998), ("spirals", 16, 3.0, 12_000, 5e-3, 0.99),
            ("rings", 16, 3.0, 4000, 5e-3, 0.99), ("checkerboard", 32, 3.0, 12_000, 5e-3, 0.99),
            ("gaussians", 16, 3.0, 4000, 5e-3, 0.99),
        )
    },
    "digits": {
        "data": "digits",
        "model": dict(couplings=2, scales=1, width=32, blocks=1, dropout=0.2, dequantise="variational"),
        "train": dict(steps=3000, batch=64, rate=2e-3, shift=0.2),
    },
    "digits-threshold": {  # two levels: (7) holds for these too
        "data": "digits-threshold",
        "model": dict(couplings=2, scales=1, width=32, blocks=1, dropout=0.2, dequantise="variational"),
        "train": dict(steps=2500, batch=64, rate=2e-3, shift=0.2),
        "threads": 1,
    },
    "mnist": {  # 55 ms a step on one core
        "data": "mnist",
        "model": dict(couplings=2, scales=2, width=16, blocks=1),
        "train": dict(steps=15_000, batch=16, rate=2e-3, every=1000),
    },
    "paper": {  # the paper's architecture. The paper reports no MNIST; similar flows reach 1.02 to 1.08 bits/dim
        "data": "mnist",
        "model": dict(couplings=4, scales=2, width=64, blocks=4, dequantise="variational", margin=0.0001, save="y"),
        "train": dict(steps=100_000, batch=64, rate=1e-3, decay=5e-5),
    },
    "colour": {  # not tuned
        "data": "images",
        "model": dict(couplings=2, scales=2, width=32, blocks=1),
        "train": dict(steps=10_000, batch=16, rate=1e-3, every=500),
    },
}
