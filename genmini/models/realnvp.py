"""RealNVP: an invertible network maps data to noise, and gives the determinant of that map.

The course, "Réseau inversible (NF)"; Dinh, Sohl-Dickstein, Bengio, "Density estimation using Real NVP", 2017.
Variational dequantisation is Ho et al.'s (Flow++, 2019), splines are those of Durkan, Bekasov, Murray and Papamakarios
(neural spline flows, 2019). genmini/models/_flow.py has log p(x) = log N(h(x); 0, I) + log |det dh/dx|; here is h:

    x_1' = x_1,   x_2' = exp(s(x_1)) o x_2 + t(x_1)       log |det| = sum s(x_1)            (1)
    s = b tanh(s~ / b)                                                                      (2)
    z = (z_1, ..., z_I):   (z_i, h_i) = f_i(h_i-1)                                          (3)
    u = sigmoid(g(e; x)),   log q(u|x) = log N(e; 0, I) - log |det du/de|                   (4)
    x_1' = x_1,   x_2' = c(x_2; w(x_1))                   log |det| = sum log c'(x_2)       (5)

h is a chain of steps: affine couplings (1), whose halves change roles from one to the next, with a bounded s (2), so
that the inverse is as well-conditioned as the forward; before each an actnorm. A vector is halved into even and odd
numbers. An image is halved as a checkerboard, squeezed (2x2 pixels become 4 channels), and halved by channels; at each
scale (3) half of the channels end as z_i, the others go on. A class y can steer every s and t. With splines (5) stands
in the place of (1): each number of x_2 goes through an increasing curve c of its own, on an interval that actnorm
fills; so few steps make holes and separate pieces, which an affine coupling can only stretch.

The noise u that dequantises an image x of L levels is uniform, or comes from a flow g of its own (4).

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
from genmini.models._flow import ActNorm, Flow, log_normal
from genmini.nets.conv import ResNet
from genmini.nets.mlp import MLP
from genmini.nets.recomputed import Recomputed
from genmini.settings import number, one_of, share, whole


class RealNVP(Flow):
    def __init__(self, shape, levels=None, couplings=4, scales=0, hidden=(128, 128), width=32, blocks=2, dropout=0.0,
                 classes=0, bound=1.0, dequantise="uniform", margin=0.01, save="x", coupling="affine",
                 bins=8, reach=5.0, device=None, dtype=None):
        """shape of one x: (D,), (H, W) or (C, H, W); levels: None for a density, L for images of levels 0 ... L-1.

        couplings: of a vector, or of an image at each scale and in each way of halving; scales: how often an image is
        squeezed. Bodies have `hidden` units a layer for vectors, `blocks` of `width` channels for images. classes:
        log_prob and sample take a class y. dequantise "uniform" or "variational"; margin: a of Flow's logit. save="y":
        the backward pass recomputes each step from its output, so that memory does not grow with depth. coupling
        "spline": of so many bins from -reach to reach; bound, of s, is for "affine".
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
                z_i, h = h.chunk(2, 1)  # (3)
                z.append(z_i.flatten(1))
        return torch.cat([*z, h.flatten(1)], 1), logdet

    def inverse(self, z, y=None):
        """z (N, D) -> x (N, *shape) with h(x) = z, log |det dx/dz| (N,)"""
        z = z.split([math.prod(shape) for shape in self.shapes], 1)
        *z, h = (z_i.unflatten(1, shape) for z_i, shape in zip(z, self.shapes, strict=True))
        logdet = 0
        for i, f in reversed(list(enumerate(self.f))):
            if i < len(z):
                h = torch.cat([z[i], h], 1)  # (3)
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

    def dequantise(self, x):
        """Levels x (N, *shape) -> u in [0, 1) (N, *shape), log q(u | x) (N,)"""
        if self.g is None:
            return super().dequantise(x)
        e = w = torch.randn(len(x), *self.inner, device=x.device, dtype=self.dtype)
        context, logdet = self.centred(x).reshape(e.shape), 0
        for step in self.g:
            w, part = step(w, None, context)
            logdet = logdet + part
        logdet = logdet + (F.logsigmoid(w) + F.logsigmoid(-w)).flatten(1).sum(1)  # of the sigmoid
        return w.sigmoid().reshape(x.shape), log_normal(e.flatten(1)) - logdet  # (4)


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
    return AffineCoupling(Bounded(net(2 * C), bound), mask, save)  # (1)


def _spline(net, C, mask, bins, reach):
    return SplineCoupling(net((3 * bins - 1) * C), mask, bins, reach)  # (5)


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
        return self.b * (s / self.b).tanh(), t  # (2)


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
    "digits-spline": {  # as many parameters as `digits`. Not tuned
        "data": "digits",
        "model": dict(couplings=2, scales=1, width=31, blocks=1, dropout=0.2, dequantise="variational",
                      coupling="spline", bins=7, reach=4.0),
        "train": dict(steps=2000, batch=64, rate=2e-3, shift=0.2, every=200),
    },
    "digits-threshold": {  # two levels: the bound holds for these too
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
    "mnist-spline": {  # 55 ms a step; better after 500 steps than `mnist` at its end. Not tuned
        "data": "mnist",
        "model": dict(couplings=2, scales=2, width=16, blocks=1, coupling="spline", bins=8, reach=4.0),
        "train": dict(steps=2000, batch=16, rate=2e-3, every=250),
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
