"""SSVAE: a VAE whose codes a second VAE splits into a class and a rest; few of the images need labels.

The course, "Exemple d'utilisation : apprentissage semi-supervisé"; Kingma, Mohamed, Rezende, Welling, "Semi-supervised
learning with deep generative models", 2014: its M1, and its M2 on the codes c of M1.

    p(x, c, y, z) = p(y) p(z) p(c|y, z) p(x|c),   p(y) = 1 / K,   p(z) = N(0, I),   p(c|y, z) = N(m, diag s^2)      (1)
    q(c|x) = N(mu, diag sigma^2)(x),   q(y|c) = softmax_y(h(c)),   q(z|c, y) = N(mu, diag sigma^2)(c, y)            (2)
    L(c, y) = E_q(z|c, y) [log p(c|y, z)] + log p(y) - KL(q(z|c, y) || p(z)) <= log p(c, y)                         (3)
    U(c) = sum_y q(y|c) (L(c, y) - log q(y|c)) <= log p(c)                                                          (4)
    log p(x) >= E_q(c|x) [log p(x|c) - log q(c|x) + U(c)],   log p(x, y) the same by L(c, y)                        (5)
    loss = -mean_u U(c_u) - n / N sum_l L(c_l, y_l) / n - alpha sum_l log q(y_l|c_l) / n                            (6)

M1, a VAE with the prior N(0, I) of c, is learnt first, of all images and no label; beta < 1 is the weight of its KL,
so that codes of unlike images lie farther apart: M2 takes the place of that prior. Then M1 rests, and (6) teaches M2:
u are all N images, l the n with a label. The sum over y is exact, so no gradient passes through a draw of y. q(y|c) is
the classifier; in U it is taught by all images: a class is what makes c likely together with few numbers z.

`labels` images, as many of each class, are chosen by the seed `chosen` when M2's stage begins, and are kept with the
weights. No other label of the train split is read; the weights are judged by (5) of valid, without labels.

    first part: genmini/models/vae.py    used by: genmini/studies/_few_labels.py    test: tests/models/test_ssvae.py
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from genmini import ops
from genmini.models._judge import judge
from genmini.models._model import Model
from genmini.models.vae import VAE
from genmini.nets.coders import coders
from genmini.settings import number, share, whole


class M2(nn.Module):
    """p(c, y) of codes c (N, D) and classes y, those as one-hot vectors (N, K)"""

    def __init__(self, D, K, latent=8, hidden=128, dropout=0.0):
        super().__init__()
        self.K = K
        self.h = nn.Sequential(nn.Linear(D, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, K))
        self.encoder, self.f = coders("mlp", (D,), 2 * latent, latent, 2, hidden, context=K)

    def q(self, c, y):
        """-> mu, log sigma^2 of q(z|c, y), each (N, d)"""
        return self.encoder(c, y).chunk(2, 1)  # (2)

    def log_p(self, c, z, y):
        """log p(c|y, z), (N,)"""
        m, log_s = self.f(z, y).unbind(1)  # (1)
        return (-((c - m) / log_s.exp()).square() / 2 - log_s - math.log(2 * math.pi) / 2).sum(1)

    def L(self, c, y):
        """A draw of (3), (N,)"""
        z, kl = ops.gaussian_kl(*self.q(c, y))
        return self.log_p(c, z, y) - math.log(self.K) - kl  # (3)

    def of_each(self, c):
        """L(c, y) of every class y, (N, K)"""
        y = torch.eye(self.K, device=c.device, dtype=c.dtype).repeat(len(c), 1)  # (N K, K)
        return self.L(c.repeat_interleave(self.K, 0), y).view(len(c), self.K)

    def U(self, c):
        """(4), (N,)"""
        log_q = self.h(c).log_softmax(1)
        return (log_q.exp() * (self.of_each(c) - log_q)).sum(1)  # (4)

    def loss(self, c, c_l, y_l, weight, alpha=1.0):
        """(6), a number, of codes c without labels, and codes c_l of classes y_l; weight: n / N"""
        labelled = self.L(c_l, F.one_hot(y_l, self.K).to(c.dtype))
        return alpha * F.cross_entropy(self.h(c_l), y_l) - weight * labelled.mean() - self.U(c).mean()  # (6)


def few(y, n, classes, seed):
    """y (N,) -> n of their indices, as many of each class, by this seed; ValueError if that is not possible."""
    noise, of_class = np.random.RandomState(seed), [np.flatnonzero(y.cpu().numpy() == k) for k in range(classes)]
    least = min(map(len, of_class))
    if n % classes or n // classes > least:
        raise ValueError(f"labels must be as many of each of {classes} classes, and at most {least} of one, got {n}")
    return torch.from_numpy(np.concatenate([noise.choice(rows, n // classes, replace=False) for rows in of_class]))


class SSVAE(Model):
    is_bound = True  # in expectation
    stages = ("codes", "classes")
    sample_note = "every class is equally likely"

    def __init__(self, shape, levels=2, classes=10, labels=100, chosen=0, codes=10, latent=8, units=128, alpha=1.0,
                 body="mlp", hidden=400, width=32, decoder="bernoulli", beta=1.0, dropout=0.0, device=None,
                 dtype=None):
        """labels: n of (6), `chosen` by this seed; codes: D, how many numbers c has; latent: how many z has; units: of
        a hidden layer of M2; alpha: of (6); body, hidden, width, decoder, beta: of M1, as VAE's; dropout: of both."""
        whole(classes=classes, labels=labels, codes=codes, latent=latent, units=units)
        whole(0, 2**32 - 1, chosen=chosen)
        number(above=0, alpha=alpha)
        share(dropout=dropout)
        super().__init__(shape, levels, classes)
        self.labels, self.chosen, self.latent, self.alpha = labels, chosen, latent, alpha
        self.m1 = VAE(shape, levels, codes, body, hidden, width, decoder=decoder, beta=beta,
                      dropout=dropout)
        self.m2 = M2(codes, classes, latent, units, dropout)
        self.unit = self.m1.unit
        self.register_buffer("with_classes", torch.tensor(False))  # true from the second stage on
        self.register_buffer("n_of_all", torch.tensor(0.0))  # n / N of (6)
        self.register_buffer("x_l", torch.zeros(labels, *shape, dtype=torch.uint8))
        self.register_buffer("y_l", torch.zeros(labels, dtype=torch.int64))
        self.place(device, dtype)

    # ---- what is learnt, stage by stage ------------------------------------------------------------------------------

    def begin(self, stage, train):
        self.with_classes.fill_(stage == "classes")
        if stage == "classes":
            n = few(train.y, self.labels, self.classes, self.chosen)
            self.x_l.copy_(train.x[n]), self.y_l.copy_(train.y[n])
            self.n_of_all.fill_(len(n) / len(train))

    def train(self, mode=True):
        super().train(mode)
        if self.with_classes:
            self.m1.eval()
        return self

    def updates(self, batch):
        """The first stage learns M1, the second M2; batch.y is not read."""
        if not self.with_classes:
            yield "loss", self.m1.loss(batch.x).mean(), self.m1.parameters()
            return
        i = torch.randint(self.labels, (min(self.labels, len(batch.x)),), device=self.device)
        with torch.no_grad():
            c, c_l = (self.c(x)[0] for x in (batch.x, self.x_l[i]))
        yield "loss", self.m2.loss(c, c_l, self.y_l[i], self.n_of_all, self.alpha), self.m2.parameters()

    def valid_loss(self, x, y=None):
        return judge(self, x).mean().item()  # no label of valid is read

    # ---- bounds ------------------------------------------------------------------------------------------------------

    def c(self, x):
        """A draw c of q(c|x), (N, D), and log q(c|x), (N,)"""
        mu, log_var = self.m1.q(x)
        eps = torch.randn_like(mu)
        return mu + (log_var / 2).exp() * eps, -(eps.square() + log_var + math.log(2 * math.pi)).sum(1) / 2

    def terms(self, x, y=None):
        """-log p(x|c) (N,); log q(c|x) - U(c), or with y log q(c|x) - log p(c|y) at most, (N,)"""
        x, y = self.check(x, y)
        c, log_q = self.c(x)
        if y is None:
            return -self.m1.log_p(x, c), log_q - self.m2.U(c)
        L = self.m2.L(c, F.one_hot(y, self.classes).to(c.dtype))
        return -self.m1.log_p(x, c), log_q - L - math.log(self.classes)  # log p(c|y) = log p(c, y) - log p(y)

    def log_prob(self, x, y=None):
        """(N, *shape) -> (N,): a draw of the bound (5) of log p(x), or of log p(x|y)"""
        return -sum(self.terms(x, y))  # (5)

    def loss(self, x, y=None):
        """In the first stage M1's, then the bound (5) with the other sign."""
        if not self.with_classes:
            x, _ = self.check(x, y)
            return self.m1.loss(x)
        return -self.log_prob(x, y)

    def figures(self, x, y=None, *, k=0):
        reconstruction, kl = self.terms(x, y)
        found = {"elbo": -reconstruction - kl, "reconstruction": reconstruction, "kl": kl}
        if y is None:
            return found
        right = self.classify(x)[1].argmax(1) == self.check_y(y, len(x))
        return found | {"elbo-without-y": self.log_prob(x), "accuracy": right.to(kl.dtype)}

    # ---- classes, codes, images --------------------------------------------------------------------------------------

    def classify(self, x):
        """(N, *shape) -> codes c, (N, D), the means of q(c|x), and logits, (N, K): those of q(y|c)"""
        c = self.m1.encode(x)
        return c, self.m2.h(c)

    def one_hot(self, y, n):
        return F.one_hot(self.check_y(y, n, needed=True), self.classes).to(self.dtype)

    def encode(self, x, y=None):
        """The mean of q(z|c, y), (N, d); y None: the likeliest class"""
        c, a = self.classify(x)
        return self.m2.q(c, self.one_hot(a.argmax(1) if y is None else y, len(x)))[0]

    def decode(self, z, y=None):
        """(N, d) -> the mean of p(x|c), in levels, of the mean c of p(c|y, z), (N, *shape)"""
        return self.m1.decode(self.m2.f(self.check_z(z), self.one_hot(y, len(z)))[:, 0])

    def reconstruct(self, x, y=None):
        """By z and the class; in the first stage by c. y None: the likeliest class"""
        if not self.with_classes:
            return self.m1.reconstruct(x)
        y = self.classify(x)[1].argmax(1) if y is None else y
        return self.decode(self.encode(x, y), y)

    @torch.no_grad()
    def sample(self, n, y=None, *, mean=False):
        """n draws, (n, *shape). y: a class for all, or one each; None: drawn. mean: the mean of x given c"""
        y = self.check_y(self.classes_or_drawn(y, n), n)
        if not self.with_classes:
            return self.m1.sample(n, mean=mean)
        z = torch.randn(n, self.latent, device=self.device, dtype=self.dtype)
        m, log_s = self.m2.f(z, self.one_hot(y, n)).unbind(1)
        c = m + log_s.exp() * torch.randn_like(m)  # (1)
        return self.m1.decode(c) if mean else self.m1.p.draw(self.m1.f(c), torch.rand(n, *self.shape, device=c.device))


RECIPES = {  # `digits` tuned on the valid split alone
    "digits": {
        "data": "digits",
        "model": dict(codes=10, body="conv", width=24, decoder="categorical", beta=0.3),
        "train": dict(steps=2000, batch=64, rate=3e-3, shift=0.5),
        "classes": dict(steps=1000, batch=64, rate=3e-3),
        "threads": 1,
    },
    "mnist": {
        "data": "mnist-dynamic",
        "model": dict(codes=20, hidden=400, beta=0.3),
        "train": dict(steps=10_000, batch=128, rate=1e-3, every=1000),
        "classes": dict(steps=3000, batch=128, rate=3e-3, every=500),
    },
}
