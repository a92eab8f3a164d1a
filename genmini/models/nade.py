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

    room: kernels/nade.py (two levels; with more, PyTorch loops over pixels)    test: tests/models/test_nade_model.py
"""

import torch
import torch.nn.functional as F
from torch import nn

from genmini import ops, outputs
from genmini.models._levels import noise_and_start, ordered, steps
from genmini.models._ordered import Ordered
from genmini.settings import share, whole


class NADE(Ordered):
    def __init__(self, shape, hidden=500, levels=2, order="natural", dropout=0.0, device=None, dtype=None):
        """shape of one x (8, 8); order "natural", "random" or the pixels in the order wanted.

        dropout: the share of hidden units set to 0 in a training batch; the same units for all its images and pixels.
        """
        whole(hidden=hidden)
        whole(2, levels=levels)
        share(dropout=dropout)
        super().__init__(shape, levels)
        self.H = hidden
        self.register_buffer("order", ordered(order, self.D).to(device or torch.get_default_device()))
        self.p = outputs.softmax(levels, dim=-1)  # sigma of (3)
        bits, rows, to = levels - 1, self.p.rows, dict(device=device, dtype=dtype)
        self.W = nn.Parameter(torch.empty(hidden, self.D * bits, **to).uniform_(-1, 1) / self.D**0.5)
        self.V = nn.Parameter(torch.empty(self.D * rows, hidden, **to).uniform_(-1, 1) / hidden**0.5)
        self.b = nn.Parameter(torch.zeros(self.D * rows, **to))
        self.c = nn.Parameter(torch.zeros(hidden, **to))
        self.dropout = nn.Dropout(dropout)

    def logits(self, x):
        """(N, *shape) -> (N, D), or (N, D, L) with L > 2 levels, in pixel order; a row depends on earlier pixels."""
        x = x.reshape(len(x), self.D)[:, self.order]  # x_1 ... x_D
        V = self.V * self.dropout(torch.ones_like(self.c))
        # the room is for bits: it needs one column of V for each pixel
        l = ops.nade_logits(x, self.W, V, self.b, self.c) if self.levels == 2 else self._walk(x, V)[1]
        return l[:, self.order.argsort()]

    def log_prob(self, x, y=None):
        """(N, *shape) -> (N,) in nats."""
        x, _ = self.check(x, y)
        return self.p.log_p(self.logits(x).view(len(x), self.D, self.p.rows), x).sum(1)  # log of (1)

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
        x = x[:, self.order]
        if self.levels == 2:
            x = ops.nade_sample(u, self.W, self.V, self.b, self.c, x, known)
        else:
            x = self._walk(x, self.V, u, known)[0]
        return x[:, self.order.argsort()].reshape(n, *self.shape)

    def _walk(self, x, V, u=None, known=None):
        """(N, D) in order -> x with x[:, known:] drawn by u, and the logits (N, D, L), of L > 2 levels."""
        W, b = self.W.unflatten(1, (self.D, -1)).unbind(1), self.b.unflatten(0, (self.D, -1))
        V = V.unflatten(0, (self.D, -1))
        a, x, logits = self.c.expand(len(x), -1), x.clone(), []  # (4)
        for d in range(self.D):
            h = a.sigmoid()  # (2)
            l = F.linear(h, V[d], b[d])  # inside sigma: (3)
            if u is not None and d >= known:
                x[:, d] = self.p.draw(l, u[:, d])
            a = a + steps(x[:, d, None], self.levels, a.dtype) @ W[d].T  # (4)
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
