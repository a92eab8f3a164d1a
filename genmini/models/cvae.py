"""CVAE: a VAE given y, so that z need not code y, and images of a chosen y can be drawn.

The course, "VAE conditionnels": its ELBO, "concaténation du conditionnement au code latent", "choix de y (ou tirage
aléatoire)"; Sohn, Lee, Yan, "Learning Structured Output Representation using Deep Conditional Generative Models",
2015.

    q(z|x, y) = N(mu(x, y), diag sigma^2(x, y)),   p(x|z, y)                                (1)
    log p(x|y) >= E_q [log p(x|z, y)] - KL(q(z|x, y) || p(z))                               (2)
    y ~ p(y),   z ~ p(z),   x ~ p(x|z, y)                                                   (3)

y is a class, which enters as a one-hot vector, or any vector of C numbers: it is concatenated to what enters the
encoder (for convolutions as C constant planes), and to z. So a mixture of one-hot vectors gives images with properties
of several classes. If no y is given, (3) draws one of the last 2048 y of training.

    bodies: genmini/nets/coders.py    test: tests/models/test_cvae.py
"""

import torch
import torch.nn.functional as F

from genmini.models.vae import VAE
from genmini.settings import whole

KEPT = 2048  # y of training, for (3)


class CVAE(VAE):
    sample_note = "y was drawn from those of the training data, as frequent as there"

    def __init__(self, shape, levels=2, classes=10, device=None, dtype=None, **settings):
        """classes: C, how many y tells apart, or how long a vector y is; settings: those of VAE."""
        whole(classes=classes)
        super().__init__(shape, levels=levels, context=classes, **settings)
        self.register_buffer("seen", torch.full((KEPT, classes), 1 / classes))  # at first the mean of all classes
        self.register_buffer("count", torch.tensor(0))
        self.place(device, dtype)

    def check_y(self, y, n, needed=True):
        """A class, classes (n,), a vector (C,) or vectors (n, C) -> (n, C): what is concatenated in (1)"""
        y = None if y is None else torch.as_tensor(y)
        if y is None or not y.is_floating_point():
            return F.one_hot(super().check_y(y, n, needed=True), self.classes).to(self.dtype)  # (1)
        if y.shape not in ((self.classes,), (n, self.classes)):
            raise ValueError(f"y must be classes, (N,) whole numbers, or vectors, (N, {self.classes}), "
                             f"got {tuple(y.shape)} of {y.dtype}")
        return y.to(self.device, self.dtype).expand(n, self.classes)

    def mixture(self, classes):
        """The vector (C,) of an even mixture of classes"""
        return self.check_y(torch.tensor(classes), len(classes)).mean(0)

    def loss(self, x, y=None, *, eps=None):
        if self.training:
            self._keep(self.check_y(y, len(x)))
        return super().loss(x, y, eps=eps)  # (2)

    @torch.no_grad()
    def _keep(self, y):
        at = (self.count + torch.arange(len(y), device=y.device)) % KEPT
        self.seen[at] = y.to(self.seen.dtype)
        self.count += len(y)

    @torch.no_grad()
    def sample(self, n, y=None, *, mean=False):
        """n draws, (n, *shape), or means. y: a class or a vector for all, or one each; None: drawn from the data."""
        if y is None:
            known = self.count.clamp(1, KEPT)
            y = self.seen[(torch.rand(n, device=self.seen.device) * known).long()]
        return super().sample(n, y, mean=mean)  # (3)


RECIPES = {  # tuned on the valid split alone; y makes some of z superfluous
    "digits": {
        "data": "digits-threshold",
        "model": dict(latent=6, body="conv", width=24),
        "train": dict(steps=3000, batch=64, rate=3e-3, shift=0.2),
        "threads": 1,
    },
    "digits-levels": {
        "data": "digits",
        "model": dict(latent=10, body="conv", width=24, decoder="categorical"),
        "train": dict(steps=2500, batch=64, rate=3e-3, shift=0.2),
        "threads": 1,
    },
    "mnist": {
        "data": "mnist-dynamic",
        "model": dict(latent=20, hidden=400),
        "train": dict(steps=25_000, batch=128, rate=1e-3, every=1000, marginals=True),
    },
    "colour": {  # not tuned
        "data": "images",
        "model": dict(latent=64, body="conv", width=32, decoder="gaussian-learned"),
        "train": dict(steps=10_000, batch=64, rate=1e-3, every=500),
    },
}
