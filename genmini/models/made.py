"""MADE: an autoencoder becomes a density once no path leads from x_d to the output that predicts it.

The course, "MADE : principe"; Germain, Gregor, Murray, Larochelle, "MADE: Masked Autoencoder for Distribution Estimation", 2015.

    p(x) = prod_d p(x_d | x_<d)                                                             (1)
    z = f(b + (W o M^W) x)                                                                  (2)
    x^ = sigma(c + (V o M^V) z)                                                             (3)
    M^W_kd = [m(k) >= d],   M^V_dk = [d > m(k)]                                             (4)
    log p(x) = sum_d x_d log x^_d + (1 - x_d) log(1 - x^_d)                                 (5)

x_d has the degree d = 1 ... D, a hidden unit k the degree m(k) = 1 ... D-1: the last input that it may see. With more hidden layers, (2) is
repeated, and d in M^W is the degree of the unit below. With direct connections, (3) has a further term (A o M^A) x, M^A_dd' = [d > d'].
With L levels in place of two, x_d enters as the L-1 bits [x_d >= 1] ... [x_d >= L-1] (which for L = 2 is x_d itself: neighbouring levels
share what they learn), it gets L outputs, and sigma in (3) is a softmax over them.
`order` says which pixel is x_1, which x_2, ...; x comes and goes in pixel order all the same.

    layer: genmini.layers.MaskedLinear    rooms: kernels/masked_linear.py, kernels/made_sample.py    test: tests/test_made.py
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from genmini import ops
from genmini.layers import MaskedLinear


class MADE(nn.Module):
    def __init__(self, shape, hidden=(500,), levels=2, order="natural", direct=False, dropout=0.0, device=None, dtype=None):
        """shape of one x (8, 8); hidden: units of each layer; order "natural", "random" or the pixels in the order wanted."""
        super().__init__()
        if levels < 2:
            raise ValueError(f"levels must be at least 2, got {levels}")
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        hidden = (hidden,) if isinstance(hidden, int) else tuple(hidden)
        order = order.tolist() if isinstance(order, torch.Tensor) else order
        self.settings = dict(shape=shape, hidden=hidden, levels=levels, order=order, direct=direct, dropout=dropout)
        self.shape, self.levels, self.D = shape, levels, math.prod(shape)
        self.register_buffer("order", _order(order, self.D).to(device or torch.get_default_device()))

        to = dict(device=device, dtype=dtype)
        d = torch.arange(1, self.D + 1, device="cpu")  # degrees, ascending: the fast path of masked_linear
        d_in, d_out = d.repeat_interleave(levels - 1), d.repeat_interleave(1 if levels == 2 else levels)
        m, self.W = d_in, nn.ModuleList()
        for K in hidden:
            below, m = m, 1 + torch.arange(K, device="cpu") * max(self.D - 1, 1) // K  # 1 ... D-1, evenly
            self.W.append(MaskedLinear(len(below), K, **to, in_degree=below, out_degree=m))  # M^W of (4)
        self.V = MaskedLinear(len(m), len(d_out), **to, in_degree=m, out_degree=d_out, strict=True)  # M^V of (4)
        self.A = MaskedLinear(len(d_in), len(d_out), False, **to, in_degree=d_in, out_degree=d_out, strict=True) if direct else None
        self.dropout = nn.Dropout(dropout)

    def logits(self, x):
        """(N, *shape) -> (N, D), or (N, D, L) with L > 2 levels, in pixel order: row d depends only on the pixels before it in `order`."""
        x = x.reshape(len(x), self.D)[:, self.order]  # x_1 ... x_D
        z = x = self._bits(x)
        for W in self.W:
            z = self.dropout(F.relu(W(z)))  # (2)
        a = self.V(z)  # (3) before its sigma
        if self.A is not None:
            a = a + self.A(x)
        a = a if self.levels == 2 else a.unflatten(1, (self.D, self.levels))
        return a[:, self.order.argsort()]

    def _bits(self, x):  # (N, D) -> (N, D (L-1))
        if self.levels > 2:
            x = (x[..., None] >= torch.arange(1, self.levels, device=x.device)).flatten(1)
        return x.to(self.V.weight.dtype)

    def log_prob(self, x):
        """(N, *shape) -> (N,) in nats."""
        a, x = self.logits(x), x.reshape(len(x), self.D)
        if self.levels == 2:
            return -F.binary_cross_entropy_with_logits(a, x.to(a.dtype), reduction="none").sum(1)  # (5)
        return -F.cross_entropy(a.transpose(1, 2), x.long(), reduction="none").sum(1)  # (5)

    @torch.no_grad()
    def sample(self, n, u=None, x=None, known=0):
        """n draws, (n, *shape) uint8. u (n, D) uniform noise: the same noise gives the same draws; u[:, d] decides the d-th in `order`.

        x (n, *shape), known: the first `known` pixels in `order` are those of x, and the rest is drawn after them.
        """
        u, x = self._begin(n, u, x)
        weights, biases = ([getattr(layer, name) for layer in (*self.W, self.V)] for name in ("weight", "bias"))
        degrees, A = [W.out_degree for W in self.W], None if self.A is None else self.A.weight
        x = ops.made_sample(u, weights, biases, degrees, self.levels, A, x, known)  # (1), each unit of (2) once
        return x[:, self.order.argsort()].reshape(n, *self.shape)

    @torch.no_grad()
    def sample_naive(self, n, u=None, x=None, known=0):
        """The same draws for D passes: what `sample` is measured by."""
        u, x = self._begin(n, u, x)
        x = x[:, self.order.argsort()]
        for d, pixel in list(enumerate(self.order.tolist()))[known:]:
            a = self.logits(x)[:, pixel]  # of p(x_d | x_<d): what stands in x_d and after is not seen
            below = torch.sigmoid(-a)[:, None] if self.levels == 2 else a.softmax(1).cumsum(1)[:, :-1]  # p(x_d <= l | x_<d), l < L-1
            x[:, pixel] = (u[:, d, None] >= below).sum(1)  # (1)
        return x.reshape(n, *self.shape)

    def _begin(self, n, u, x):
        """Noise, and what is given of x, in order: (n, D) each."""
        u = torch.rand(n, self.D, device=self.order.device) if u is None else u
        x = torch.zeros(n, self.D, device=self.order.device) if x is None else x.reshape(n, self.D)[:, self.order]
        return u, x.to(torch.uint8)


def _order(order, D):
    if order == "natural":
        return torch.arange(D)
    if order == "random":
        return torch.randperm(D)
    if isinstance(order, str) or sorted(order) != list(range(D)):
        raise ValueError(f"order must be 'natural', 'random' or the numbers 0 ... {D - 1} in some order, got {order!r}")
    return torch.tensor(order)


RECIPES = {  # tuned on the valid split alone; 1297 images overfit within seconds: dropout and shifts hold against it
    "digits": {
        "data": "digits-threshold",
        "model": dict(hidden=(500,), dropout=0.5),
        "train": dict(steps=8000, batch=64, rate=2e-3, shift=0.2),
        "threads": 1,  # a second thread costs such small matrices more than it brings
    },
    "digits-levels": {
        "data": "digits",
        "model": dict(hidden=(500,), dropout=0.5),
        "train": dict(steps=2500, batch=64, rate=2e-3, shift=0.2),
    },
}
