"""CGAN: a GAN given y, so that images of a chosen class can be drawn.

Mirza, Osindero, "Conditional Generative Adversarial Nets", 2014; the discriminator is Miyato and Koyama's ("cGANs with
Projection Discriminator", 2018).

    x = f(z, y),   z ~ N(0, I):   p_m(x | y)                                                (1)
    a(x, y) = w . phi(x) + b  +  e_y . phi(x)                                               (2)
    y ~ p(y),   z ~ p(z),   x = f(z, y)                                                     (3)

(2) has the form of the optimum: log p(x, y) / p_m(x, y) is log p(x) / p_m(x), the same for all classes, plus a
log p(y | x) / p_m(y | x), and where both of these are softmaxes over y of something linear in phi(x), so is (2). y
enters f as a one-hot vector, concatenated to z. Both players see a sample and an x of the same class in turn, and the
distance that judges unseen data is that of pairs (x, y).

    base: genmini/models/gan.py    test: tests/models/test_cgan.py
"""

import torch
import torch.nn.functional as F
from torch import nn

from genmini.models.gan import GAN
from genmini.settings import whole


class CGAN(GAN):
    sample_note = "all classes were drawn equally often"

    def __init__(self, shape, levels=None, classes=10, device=None, dtype=None, **settings):
        """classes: how many y tells apart; settings: those of GAN."""
        whole(classes=classes)
        super().__init__(shape, levels=levels, context=classes, **settings)
        self.discriminator["e"] = nn.Embedding(classes, self.discriminator["w"].in_features)
        nn.init.normal_(self.discriminator["e"].weight, 0, 0.1)
        self.place(device, dtype)

    def a(self, x_0, y=None):
        phi = self.discriminator["phi"](x_0)
        return self.discriminator["w"](phi)[:, 0] + (self.discriminator["e"](y) * phi).sum(1)  # (2)

    def w(self, z, y=None):
        return super().w(z, F.one_hot(y, self.classes).to(z.dtype))  # (1)

    def joint(self, x_0, y):
        """What the distance is of: x_0 and y, one-hot, so that samples of another class lie farther away."""
        return torch.cat([x_0.flatten(1), F.one_hot(y, self.classes).to(x_0.dtype)], 1)

    @torch.no_grad()
    def sample(self, n, y=None):
        """n draws, (n, *shape). y: a class for all, or one each; None: all classes in turn."""
        return super().sample(n, torch.arange(n, device=self.device) % self.classes if y is None else y)  # (3)


RECIPES = {  # tuned on the valid split alone
    "digits": {
        "data": "digits",
        "model": dict(latent=32, hidden=(128, 128), loss="relativistic", r1=3.0, r2=3.0, noise=1.0),
        "train": dict(steps=2400, batch=64, rate=1e-3, betas=(0.0, 0.99), ema=0.995, every=500),
        "threads": 1,
    },
    "gaussians": {
        "data": "gaussians",
        "model": dict(classes=8, latent=2, loss="relativistic", r1=0.02, r2=0.02),
        "train": dict(steps=1500, batch=256, rate=1e-3, betas=(0.0, 0.99), ema=0.99, every=250),
        "threads": 1,
    },
    "mnist": {  # as that of GAN
        "data": "mnist",
        "model": dict(latent=64, hidden=(512, 512), r1=1.0, noise=16.0),
        "train": dict(steps=40_000, batch=64, rate=1e-3, betas=(0.0, 0.99), ema=0.999, every=2000),
        "threads": 1,
    },
    "colour": {  # not tuned
        "data": "images",
        "model": dict(latent=64, body="conv", width=32, loss="relativistic", r1=1.0, r2=1.0, noise=1.0),
        "train": dict(steps=10_000, batch=64, rate=5e-4, betas=(0.0, 0.99), ema=0.999, every=500),
    },
}
