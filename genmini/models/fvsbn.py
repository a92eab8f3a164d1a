"""FVSBN: every pixel is a logistic regression on those before it, the simplest of all autoregressive networks.

The course, "fully-visible sigmoid belief network"; Neal, "Connectionist learning of belief networks", 1992; Frey,
Hinton, Dayan, "Does the wake-sleep algorithm produce good density estimators?", 1996.

    p(x) = prod_d p(x_d | x_<d)                                                             (1)
    p(x_d = 1 | x_<d) = sigma(alpha_d0 + sum_{i<d} alpha_di x_i)                            (2)

All the sums of (2) together are one linear map whose matrix is strictly lower triangular. A draw costs the arithmetic
of one such product: once x_i is known, its column is added to all the sums that follow. With L levels instead of two,
x_i enters as the L-1 bits [x_i >= 1] ... [x_i >= L-1], x_d gets L sums, and sigma is a softmax over them. `order` says
which pixel is x_1, which x_2, ...; x comes and goes in pixel order.

    layer: genmini.layers.MaskedLinear    room: kernels/masked_linear.py    test: tests/models/test_fvsbn.py
"""

import torch
from torch import nn

from genmini import outputs
from genmini.layers import MaskedLinear
from genmini.models._levels import noise_and_start, ordered, steps
from genmini.models._ordered import Ordered
from genmini.settings import share, whole


class FVSBN(Ordered):
    def __init__(self, shape, levels=2, order="natural", dropout=0.0, device=None, dtype=None):
        """shape of one x (8, 8); order "natural", "random" or a list of pixels; dropout: of x_i in (2), in training."""
        whole(2, levels=levels)
        share(dropout=dropout)
        super().__init__(shape, levels)
        self.register_buffer("order", ordered(order, self.D).to(device or torch.get_default_device()))
        d = torch.arange(1, self.D + 1, device="cpu")
        self.p = outputs.softmax(levels, dim=-1)  # sigma of (2)
        d_in, d_out = d.repeat_interleave(levels - 1), d.repeat_interleave(self.p.rows)
        degrees = dict(in_degree=d_in, out_degree=d_out, strict=True)
        self.alpha = MaskedLinear(len(d_in), len(d_out), device=device, dtype=dtype, **degrees)
        self.dropout = nn.Dropout(dropout)
        with torch.no_grad():  # start with weights 0: all pixels are independent
            self.alpha.weight.zero_()
            self.alpha.bias.zero_()

    def logits(self, x):
        """(N, *shape) -> (N, D), or (N, D, L) with L > 2 levels, in pixel order; a row depends on earlier pixels."""
        x = x.reshape(len(x), self.D)[:, self.order]  # x_1 ... x_D
        a = self.alpha(self.dropout(steps(x, self.levels, self.dtype)))  # inside sigma: (2)
        return a.unflatten(1, (self.D, self.p.rows))[:, self.order.argsort()].squeeze(2)

    def log_prob(self, x, y=None):
        """(N, *shape) -> (N,) in nats."""
        x, _ = self.check(x, y)
        return self.p.log_p(self.logits(x).view(len(x), self.D, self.p.rows), x).sum(1)  # log of (1)

    @torch.no_grad()
    def begin_at_marginals(self, x):
        self.alpha.bias.copy_(self.p.marginals(x.flatten(1)[:, self.order]).flatten())

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
        a = self.alpha.bias.expand(n, -1).clone()  # alpha_d0; the column of a pixel is added once it is known
        bits, rows = self.levels - 1, self.p.rows
        for d in range(self.D):
            if d >= known:
                x[:, d] = self.p.draw(a[:, rows * d : rows * (d + 1)], u[:, d])  # (1)
            later = rows * (d + 1)
            x_d = steps(x[:, d, None], self.levels, a.dtype)
            a[:, later:] += x_d @ self.alpha.weight[later:, bits * d : bits * (d + 1)].T  # (2)
        return x[:, self.order.argsort()].reshape(n, *self.shape)


RECIPES = {  # tuned on the valid split alone: with 17 levels there are a million weights, hence the large decay
    "digits": {
        "data": "digits-threshold",
        "model": dict(),
        "train": dict(steps=3000, batch=64, rate=5e-3, decay=0.1, shift=0.1),
        "threads": 1,
    },
    "digits-levels": {
        "data": "digits",
        "model": dict(dropout=0.1),
        "train": dict(steps=1500, batch=64, rate=5e-3, decay=0.3, shift=0.2),
        "threads": 1,
    },
    "mnist": {
        "data": "mnist-dynamic",
        "model": dict(),
        "train": dict(steps=6000, batch=64, rate=2e-3, every=500, marginals=True),
        "threads": 1,
    },
    "paper": {  # MNIST with bits drawn anew: 96.58 nats, as the README of pytorch-generative reports of its FVSBN
        "data": "mnist-dynamic",
        "model": dict(),
        "train": dict(steps=50_000, batch=100, rate=1e-3, every=1000),
    },
}
