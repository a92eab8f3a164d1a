"""Autoencoder: codes an image as a few numbers, and reconstructs the image from them.

The course, "Auto-encodeurs" and "Des auto-encodeurs aux VAE"; Hinton, Salakhutdinov, "Reducing the
Dimensionality of Data with Neural Networks", 2006; the linear one is Baldi, Hornik, "Neural Networks and Principal
Component Analysis", 1989.

    z = e(v),   v^ = f(z)                                                                   (1)
    loss = ||v - f(e(v))||^2,   v = x / (L-1)                                               (2)
    z ~ N(m, S)                                                                             (3)

With e and f linear, the least squared error is that of the projection on the first d principal components: the columns
of f span them, each a mixture of several. An autoencoder has no probability of its own. To draw from it, z is drawn
from the Gaussian (3) that fits its codes of the training images; m and S follow the codes by averages over the last
batches.

    bodies: genmini/nets/coders.py    test: tests/models/test_autoencoder.py
"""

import torch
from torch import nn

from genmini.models._model import Model
from genmini.nets.coders import coders
from genmini.settings import whole

BATCHES = 100  # over which m and S are averaged


class Autoencoder(Model):
    unit = "squared error"
    sample_note = ("z is drawn from a Gaussian fitted to the codes of the training images: "
                   "an autoencoder has no density of its own")

    def __init__(self, shape, levels=2, latent=20, body="mlp", hidden=400, width=32, upsample="nearest", dropout=0.0,
                 device=None, dtype=None):
        """latent: d numbers z; body "linear", "mlp" of `hidden` units, or "conv" of `width` channels, `upsample`
        "transposed", "nearest" or "bilinear". f ends in a sigmoid, unless it is linear."""
        whole(2, 256, levels=levels)
        whole(latent=latent)
        super().__init__(shape, levels)
        self.latent = latent
        self.e, f = coders(body, shape, latent, latent, 1, hidden, width, upsample, dropout=dropout)
        self.f = f if body == "linear" else nn.Sequential(f, nn.Sigmoid())
        self.register_buffer("m", torch.zeros(latent))
        self.register_buffer("S", torch.eye(latent))
        self.register_buffer("batches", torch.tensor(0))
        self.place(device, dtype)

    def _v(self, x, y):
        return self.v_of(self.check(x, y)[0])

    def loss(self, x, y=None):
        """(N, *shape) -> the squared error of v, summed over an image, (N,)"""
        v = self._v(x, y)
        z = self.e(v)  # (1)
        if self.training:
            self._follow(z.detach())
        return (v - self.f(z)[:, 0]).square().flatten(1).sum(1)  # (2)

    def figures(self, x, y=None, *, k=0):
        return {"squared error": self.loss(x, y)}

    @torch.no_grad()
    def _follow(self, z):
        z = z.to(self.m.dtype)  # under autocast z is bfloat16 or float16
        self.batches += 1
        share = (1 / self.batches.to(z.dtype)).clamp(min=1 / BATCHES)
        moved = z.mean(0) - self.m
        within = (z - z.mean(0)).T @ (z - z.mean(0)) / len(z)
        between = (1 - share) * moved.outer(moved)
        self.S += share * (within - self.S + between)  # the covariance of a mixture
        self.m += share * moved

    def encode(self, x, y=None):
        """The code, (N, d)"""
        return self.e(self._v(x, y))

    def decode(self, z, y=None):
        """The image in levels, (N, *shape)"""
        self.check_y(y, len(z))
        return (self.levels - 1) * self.f(self.check_z(z))[:, 0].clamp(0, 1)

    def reconstruct(self, x, y=None):
        return self.decode(self.encode(x, y))

    def draw(self, n):
        """Codes, (n, d)"""
        variance, axes = torch.linalg.eigh(self.S)  # where a code is constant S is singular
        eps = torch.randn(n, self.latent, device=self.m.device, dtype=self.m.dtype)
        return self.m + eps * variance.clamp(min=0).sqrt() @ axes.T  # (3)

    @torch.no_grad()
    def sample(self, n, y=None):
        """n draws, (n, *shape) uint8: the nearest levels to f(z)."""
        self.check_y(y, n)
        return self.decode(self.draw(n)).round().to(torch.uint8)


RECIPES = {  # tuned on the valid split alone
    "digits": {
        "data": "digits",
        "model": dict(latent=10, body="conv", width=16),
        "train": dict(steps=1500, batch=64, rate=2e-3, shift=0.2),
        "threads": 1,
    },
    "digits-threshold": {
        "data": "digits-threshold",
        "model": dict(latent=10, body="conv", width=16),
        "train": dict(steps=1500, batch=64, rate=2e-3, shift=0.2),
        "threads": 1,
    },
    "pca": {
        "data": "digits",
        "model": dict(latent=10, body="linear"),
        "train": dict(steps=2000, batch=64, rate=3e-3),
        "threads": 1,
    },
    "mnist": {
        "data": "mnist",
        "model": dict(latent=20, body="conv", width=32),
        "train": dict(steps=20_000, batch=128, rate=1e-3, every=1000),
    },
    "colour": {  # not tuned
        "data": "images",
        "model": dict(latent=64, body="conv", width=32),
        "train": dict(steps=10_000, batch=64, rate=1e-3, every=500),
    },
}
