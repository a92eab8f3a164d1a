"""NADE: a network for every pixel; they share their first layer, so that the next pixel costs one more column.

The course, "Neural Autoregressive Density Estimator", "Partage des poids"; Larochelle, Murray, "The Neural
Autoregressive Distribution Estimator", 2011; Uria et al., "Neural Autoregressive Distribution Estimation", 2016.

    p(x) = prod_d p(x_d | x_<d)                                                             (1)
    h_d = sigma(a_d)                                                                        (2)
    p(x_d = 1 | x_<d) = sigma(b_d + V_d . h_d)                                              (3)
    a_1 = c,   a_{d+1} = a_d + W_:d x_d                                                     (4)

Without sharing, h_d = sigma(W_{:,<d} x_<d + c) costs O(H d), and all of them O(H D^2); (4) makes that O(H D), for the
likelihood, its gradient and a sample. The logits of (3) go into log p as they are. Applying sigma twice, as some
implementations do, would confine p to [0.5, 0.73]. With L levels instead of two, x_d enters as the L-1 bits
[x_d >= 1] ... [x_d >= L-1], each with a column of its own, it gets L rows of V, and sigma in (3) is a softmax over
them. `order` says which pixel is x_1, which x_2, ...; x comes and goes in pixel order.

With `resample` each batch in training has an order of its own, drawn at random, and the columns of W and the rows of V
and b go with their pixels: the weights learn all orders at once, and the model draws what any mask hides (_ordered.py).
Each pixel then has a further bit, which is 1 and says that it has been seen: without it an unseen one looks like a 0.

    room: kernels/nade.py (two levels, one order; else PyTorch loops)    test: tests/models/test_nade_model.py
"""

import torch
import torch.nn.functional as F
from torch import nn

from genmini import ops, outputs
from genmini.models._levels import noise_and_start, ordered, steps
from genmini.models._ordered import Ordered
from genmini.settings import flag, share, whole


class NADE(Ordered):
    def __init__(self, shape, hidden=500, levels=2, order="natural", resample=False, dropout=0.0, device=None,
                 dtype=None):
        """shape of one x (8, 8); order "natural", "random" or the pixels in the order wanted; resample: if the order is
        random, every batch in training has another one.

        dropout: the share of hidden units set to 0 in a training batch; the same units for all its images and pixels.
        """
        whole(hidden=hidden)
        whole(2, levels=levels)
        share(dropout=dropout)
        flag(resample=resample)
        if resample and order != "random":
            raise ValueError(f"resample draws orders: it is for order='random', got {order!r}")
        super().__init__(shape, levels)
        self.H, self.learns_orders = hidden, resample
        self.register_buffer("order", ordered(order, self.D).to(device or torch.get_default_device()))
        self.p = outputs.softmax(levels, dim=-1)  # sigma of (3)
        bits, rows, to = levels - 1 + resample, self.p.rows, dict(device=device, dtype=dtype)
        self.W = nn.Parameter(torch.empty(hidden, self.D * bits, **to).uniform_(-1, 1) / self.D**0.5)
        self.V = nn.Parameter(torch.empty(self.D * rows, hidden, **to).uniform_(-1, 1) / hidden**0.5)
        self.b = nn.Parameter(torch.zeros(self.D * rows, **to))
        self.c = nn.Parameter(torch.zeros(hidden, **to))
        self.dropout = nn.Dropout(dropout)

    def logits(self, x, order=None):
        """(N, *shape) -> (N, D), or (N, D, L) with L > 2 levels, in pixel order; a row depends on the pixels before it
        in `order`, by default the model's."""
        order, (W, V, b) = self.order if order is None else order, self._weights(order)
        x = x.reshape(len(x), self.D)[:, order]  # x_1 ... x_D
        V = V * self.dropout(torch.ones_like(self.c))
        l = ops.nade_logits(x, W, V, b, self.c) if self.has_room else self._walk(x, W, V, b)[1].squeeze(2)
        return l[:, order.argsort()]

    @property
    def has_room(self):
        """Whether the room computes it: that is for one bit, and one row of V, a pixel."""
        return self.levels == 2 and not self.learns_orders

    def _weights(self, order=None):
        """W, V and b with their pixels in this order"""
        if order is None:
            return self.W, self.V, self.b
        at = self.order.argsort()[order]
        W = self.W.unflatten(1, (self.D, -1))[:, at].flatten(1)
        V, b = (a.unflatten(0, (self.D, -1))[at].flatten(0, 1) for a in (self.V, self.b))
        return W, V, b

    def log_prob(self, x, y=None, *, order=None):
        """(N, *shape) -> (N,) in nats, in the order given, by default the model's; in training one that is drawn."""
        x, _ = self.check(x, y)
        if order is None and self.training and self.learns_orders:
            order = torch.randperm(self.D).to(self.order.device)
        return self.log_p_in(order, x).sum(1)  # log of (1)

    def log_p_in(self, order, x):
        """log p(x_d | x_<d) of x (N, D) in this order, (N, D), in that of the pixels"""
        return self.p.log_p(self.logits(x, order).view(len(x), self.D, self.p.rows), x)

    @torch.no_grad()
    def begin_at_marginals(self, x):
        self.b.copy_(self.p.marginals(x.flatten(1)[:, self.order]).flatten())

    def pixel_order(self):
        return self.order

    @torch.no_grad()
    def sample(self, n, y=None, *, u=None, x=None, known=0):
        """n draws, (n, *shape), uint8 up to 256 levels. u (n, D): uniform noise; u[:, d] decides the d-th pixel drawn.

        x (n, *shape), known: the first `known` pixels in `order` are those of x, and the rest is drawn after them.
        """
        self.check_y(y, n)
        u, x = noise_and_start(n, self.D, u, x, known, self.device, self.p.dtype)
        x = self._drawn(x[:, self.order], u, known, *self._weights())
        return x[:, self.order.argsort()].reshape(n, *self.shape)

    def drawn_in(self, order, known, x):
        """x (N, D) with what follows its first `known` pixels in this order drawn"""
        u = torch.rand(len(x), self.D, device=x.device)
        x[:, order] = self._drawn(x[:, order], u, known, *self._weights(order))
        return x

    def _drawn(self, x, u, known, W, V, b):  # (n, D) in order
        if self.has_room:
            return ops.nade_sample(u, W, V, b, self.c, x, known)
        return self._walk(x, W, V, b, u, known)[0]

    def _walk(self, x, W, V, b, u=None, known=None):
        """(N, D) in order -> x with x[:, known:] drawn by u, and the logits (N, D, rows of V a pixel)"""
        W, V, b = W.unflatten(1, (self.D, -1)).unbind(1), V.unflatten(0, (self.D, -1)), b.unflatten(0, (self.D, -1))
        a, x, logits = self.c.expand(len(x), -1), x.clone(), []  # (4)
        for d in range(self.D):
            h = a.sigmoid()  # (2)
            l = F.linear(h, V[d], b[d])  # inside sigma: (3)
            if u is not None and d >= known:
                x[:, d] = self.p.draw(l, u[:, d])
            x_d = steps(x[:, d, None], self.levels, a.dtype)
            x_d = torch.cat([torch.ones_like(x_d[:, :1]), x_d], 1) if self.learns_orders else x_d
            a = a + x_d @ W[d].T  # (4)
            logits.append(l)
        return x, torch.stack(logits, 1)


RECIPES = {  # tuned on the valid split alone
    "digits": {
        "data": "digits-threshold",
        "model": dict(hidden=500, dropout=0.25),
        "train": dict(steps=6000, batch=64, rate=4e-3, shift=0.2),
        "threads": 1,
    },
    "digits-levels": {
        "data": "digits",
        "model": dict(hidden=200, dropout=0.5),
        "train": dict(steps=1500, batch=64, rate=4e-3, shift=0.2),
        "threads": 1,
    },
    "digits-orders": {  # learns all orders, so that it draws what any mask hides; not tuned
        "data": "digits",
        "model": dict(hidden=300, order="random", resample=True),
        "train": dict(steps=2500, batch=64, rate=2e-3, every=250, shift=0.2),
        "threads": 1,
    },
    "mnist": {  # tuned on 10,000 images: 90.5 nats on their valid split
        "data": "mnist-dynamic",
        "model": dict(hidden=500),
        "train": dict(steps=10_000, batch=64, rate=2e-3, every=1000),
        "threads": 1,
    },
    "paper": {  # 500 units, one order: 88.33 nats, on MNIST with bits drawn once for all (there by another draw)
        "data": "mnist-drawn",
        "model": dict(hidden=500),
        "train": dict(steps=100_000, batch=100, rate=1e-3, every=1000),
    },
}
