"""AR-VAE: a VAE whose first latent numbers each grow with one measured attribute of the image, such as its area.

The course, "Structuration de l'espace latent: AR-VAE"; Pati, Lerch, "Attribute-based regularization of latent
spaces for variational auto-encoders", 2020.

    D_a(i, j) = a(x_i) - a(x_j),   i, j in a batch                                          (1)
    D_r(i, j) = z_i^r - z_j^r                                                               (2)
    L_r = MAE(tanh(delta D_r) - sign(D_a))                                                  (3)
    loss = -log p(x|z) + beta KL(q(z|x) || p(z)) + gamma sum_r L_r                          (4)
    rho_r = correlation of the ranks of mu^r(x) with those of a(x)                          (5)

The r-th attribute (genmini/attributes.py: area, length, thickness, slant, width, height) orders the r-th number; the
other numbers are free. (3) depends on the order alone, so it is judged by rank correlation, Spearman's (5). Attributes
depend on one another, as thickness and area do, and so do the numbers that follow them; but p(z) draws these
independently. So traversals look like digits, and samples less so.

(1) to (3) have no kernel: for a batch of 64 and six attributes each matrix holds 98 kB, and all of them, gradient
included, took 0.4 of the 5 ms of a step (MLP of 400 units, 17 levels, one core): a kernel could win 8% at most.

    attributes: genmini/attributes.py    bodies: genmini/nets/coders.py    test: tests/models/test_arvae.py
"""

import torch

from genmini import attributes as measured
from genmini.models.vae import VAE
from genmini.settings import number


class ARVAE(VAE):
    def __init__(self, shape, levels=2, attributes=measured.NAMES, gamma=10.0, delta=1.0, device=None, dtype=None,
                 **settings):
        """attributes: names of those that the first numbers z follow; gamma: of (4); delta: of (3); settings: VAE's."""
        number(least=0, gamma=gamma)
        number(above=0, delta=delta)
        super().__init__(shape, levels=levels, device=device, dtype=dtype, **settings)
        if not attributes or not set(attributes) <= set(measured.NAMES):
            raise ValueError(f"attributes must be among {', '.join(measured.NAMES)}, got {attributes}")
        if len(set(attributes)) < len(attributes):
            raise ValueError(f"an attribute takes one number z, and there is one twice: {attributes}")
        if len(attributes) > self.latent or len(self.shape) != 2:
            raise ValueError(f"an attribute of an image (H, W) takes one of latent={self.latent} numbers, "
                             f"got {attributes} of shape {shape}")
        self.attributes, self.gamma, self.delta = attributes, gamma, delta

    def measure(self, x):
        """Levels (N, H, W) -> what the attributes are, (N, R)"""
        return measured.measure(self.v_of(x))[:, [measured.NAMES.index(name) for name in self.attributes]]

    def disorder(self, z, a):
        """z (N, d), a (N, R) -> (N,): for each i, the sum over r of the mean over j of |tanh(delta D_r) - sign(D_a)|.
        Its mean over i is sum_r L_r."""
        D_a = a[:, None] - a  # (1)
        z = z[:, : a.shape[1]]
        D_r = z[:, None] - z  # (2)
        return ((self.delta * D_r).tanh() - D_a.sign()).abs().mean(1).sum(1)  # (3)

    def loss(self, x, y=None, *, eps=None):
        reconstruction, kl, z = self.terms(x, y, eps=eps)
        return self.cost(reconstruction, kl) + self.gamma * self.disorder(z, self.measure(x))  # (4)

    @torch.no_grad()
    def correlations(self, x):
        """(5) over these x, {attribute: number}"""
        mu, a = (torch.cat([f(part) for part in x.split(1000)]) for f in (self.encode, self.measure))
        rho = [(ranks(mu[:, r]) * ranks(a[:, r])).mean().item() for r in range(len(self.attributes))]  # (5)
        return dict(zip(self.attributes, rho, strict=True))

    def report(self, x, y=None):
        return {f"rank correlation, {name}": rho for name, rho in self.correlations(x).items()}


def ranks(a):
    """(N,) -> their ranks, those of equals the same, with mean 0 and deviation 1; 0 where all are equal"""
    _, which, count = a.double().unique(return_inverse=True, return_counts=True)
    rank = (count.cumsum(0) - (count.double() - 1) / 2)[which]
    rank = rank - rank.mean()
    return rank / rank.std(correction=0) if len(count) > 1 else rank


RECIPES = {  # tuned on the valid split alone: a larger gamma gives higher rank correlations and a worse likelihood
    "digits": {
        "data": "digits",
        "model": dict(latent=10, body="conv", width=24, decoder="categorical", delta=10.0, gamma=5.0),
        "train": dict(steps=1500, batch=64, rate=3e-3, shift=0.2),
        "threads": 1,
    },
    "digits-threshold": {
        "data": "digits-threshold",
        "model": dict(latent=10, body="conv", width=16, delta=10.0, gamma=3.0),
        "train": dict(steps=1500, batch=64, rate=3e-3, shift=0.2),
        "threads": 1,
    },
    "mnist": {
        "data": "mnist-dynamic",
        "model": dict(latent=20, hidden=400, delta=10.0),
        "train": dict(steps=25_000, batch=128, rate=1e-3, every=1000, marginals=True),
    },
}
