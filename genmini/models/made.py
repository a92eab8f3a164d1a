"""MADE: an autoencoder becomes a density once no path leads from x_d to the output that predicts it.

The course, "MADE : principe"; Germain, Gregor, Murray, Larochelle, "MADE: Masked Autoencoder for Distribution
Estimation", 2015.

    p(x) = prod_d p(x_d | x_<d)                                                             (1)
    z = f(b + (W o M^W) x)                                                                  (2)
    x^ = sigma(c + (V o M^V) z)                                                             (3)
    M^W_kd = [m(k) >= d],   M^V_dk = [d > m(k)]                                             (4)
    log p(x) = sum_d x_d log x^_d + (1 - x_d) log(1 - x^_d)                                 (5)
    p(x) = 1/K sum_k p_k(x)                                                                 (6)

x_d has the degree d = 1 ... D, a hidden unit k the degree m(k) = 1 ... D-1: the last input that it may see. With more
hidden layers, (2) is repeated, and d in M^W is the degree of the unit below. With direct connections, (3) has a further
term (A o M^A) x, M^A_dd' = [d > d']. With L levels instead of two, x_d enters as the L-1 bits [x_d >= 1] ...
[x_d >= L-1], so that neighbouring levels share what they learn; it gets L outputs, and sigma in (3) is a softmax over
them. `order` says which pixel is x_1, which x_2, ...; x comes and goes in pixel order.

With K masks the hidden units have K sets of degrees, and if the order is random the pixels have K orders: p_k is of
mask k, on the same weights. A batch in training takes one mask at random, or with `resample` draws a new one, so that
the weights learn all orders at once; (6) averages the probabilities of the K masks, not their logits: an average of
logits defines no probability over x.

A model that learns all orders (random, and `resample`) draws what any mask hides, as _ordered.py says; each order there
takes a mask of its own.

    rooms: kernels/masked_linear.py, kernels/made_sample.py    test: tests/models/test_made.py
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from genmini import ops, outputs
from genmini.models._levels import noise, noise_and_start, ordered, steps
from genmini.models._model import Cannot
from genmini.models._ordered import Ordered
from genmini.settings import flag, share, whole

ROWS = 2**17  # numbers of the rows that are put in order at a time


class MADE(Ordered):
    def __init__(self, shape, hidden=(500,), levels=2, order="natural", masks=1, resample=False, direct=False,
                 dropout=0.0, device=None, dtype=None):
        """shape of one x (8, 8); hidden: units of each layer; order "natural", "random" or a list of pixels; masks: K;
        resample: every batch in training has degrees of its own, and if the order is random an order of its own."""
        whole(hidden=hidden, masks=masks)
        whole(2, 256, levels=levels)
        share(dropout=dropout)
        flag(resample=resample, direct=direct)
        super().__init__(shape, levels)
        self.masks, self.resample, self._order = masks, resample, order

        to, place = dict(device=device, dtype=dtype), device or torch.get_default_device()
        drawn = [self._new_mask(hidden, first=k == 0) for k in range(masks)]
        orders = torch.stack([order for order, _ in drawn])
        self.register_buffer("orders", orders.to(place))  # (K, D): the pixel that comes d-th
        # The degrees of every layer, (K, units). Inputs enter in the order of mask 0, so that its degrees ascend: both
        # rooms have a fast path for this
        hidden_degrees = map(torch.stack, zip(*(degrees for _, degrees in drawn), strict=True))
        m = [1 + self.orders.argsort(1)[:, self.orders[0]], *hidden_degrees]
        for i, degrees in enumerate(m):
            self.register_buffer(f"m{i}", degrees.to(place))
        sizes = [self.D * (levels - 1), *hidden]
        self.W = nn.ModuleList(nn.Linear(K, J, **to) for K, J in zip(sizes, hidden, strict=False))
        self.p = outputs.softmax(levels, dim=-1)  # sigma of (3)
        self.V = nn.Linear(sizes[-1], self.D * self.p.rows, **to)
        self.A = nn.Linear(sizes[0], self.D * self.p.rows, False, **to) if direct else None
        self.dropout = nn.Dropout(dropout)

    def _new_mask(self, hidden, first=False):
        """-> an order of the pixels (D,), the degrees of each hidden layer: 1 ... D-1 evenly; `first`: not shuffled."""
        even = [1 + torch.arange(H, device="cpu") * max(self.D - 1, 1) // H for H in hidden]  # m(k)
        with torch.device("cpu"):
            order = ordered(self._order, self.D)
        return order, even if first else [m[torch.randperm(len(m), device="cpu")] for m in even]

    def _as_mask(self, order, hidden):
        """An order of the pixels, degrees of each hidden layer -> the degrees that `logits` takes"""
        place = self.orders.device
        return [1 + order.to(place).argsort()[self.orders[0]], *(m.to(place) for m in hidden)]

    def logits(self, x, mask=0):
        """(N, *shape) -> (N, D), or (N, D, L) with L > 2 levels, in pixel order. A row depends on the pixels before it
        in `orders[mask]` only.

        mask: its number, or the degrees of the pixels (in the order of mask 0) and of each hidden layer."""
        x = x.reshape(len(x), self.D)[:, self.orders[0]]
        m, d = self._degrees(mask)
        z = x = steps(x, self.levels, self.dtype)
        for W, below, m_i in zip(self.W, m, m[1:], strict=False):
            z = self.dropout(F.relu(ops.masked_linear(z, W.weight, W.bias, below, m_i)))  # (2), (4)
        a = ops.masked_linear(z, self.V.weight, self.V.bias, m[-1], d, strict=True)  # inside sigma: (3)
        if self.A is not None:
            a = a + ops.masked_linear(x, self.A.weight, None, m[0], d, strict=True)
        return a.unflatten(1, (self.D, self.p.rows))[:, self.orders[0].argsort()].squeeze(2)

    def _degrees(self, mask):
        """-> the degrees of the bits and of each hidden layer, a list, and those of the outputs"""
        if isinstance(mask, int):
            mask = [getattr(self, f"m{i}")[mask] for i in range(len(self.W) + 1)]
        pixels, *hidden = mask
        return [pixels.repeat_interleave(self.levels - 1), *hidden], pixels.repeat_interleave(self.p.rows)

    def log_prob(self, x, y=None, *, mask=None):
        """(N, *shape) -> (N,) in nats: of all masks; in training, of one that is drawn; or of the one given."""
        x, _ = self.check(x, y)
        if mask is None and self.training and self.resample:
            mask = self._as_mask(*self._new_mask([layer.out_features for layer in self.W]))
        elif mask is None and self.training:
            mask = torch.randint(self.masks, ()).item() if self.masks > 1 else 0
        elif mask is None and self.masks > 1:
            of_masks = torch.stack([self.log_prob(x, mask=k) for k in range(self.masks)])
            return of_masks.logsumexp(0) - math.log(self.masks)  # log of (6)
        return self._log_p(x, 0 if mask is None else mask).sum(1)  # (5)

    def _log_p(self, x, mask):  # (N, D) -> log p(x_d | x_<d), (N, D)
        return self.p.log_p(self.logits(x, mask).view(len(x), self.D, self.p.rows), x)

    @torch.no_grad()
    def begin_at_marginals(self, x):
        self.V.bias.copy_(self.p.marginals(x.flatten(1)[:, self.orders[0]]).flatten())

    def pixel_order(self):
        return self.orders[0]

    def sample(self, n, y=None, *, u=None, x=None, known=0):
        """n draws, (n, *shape). u (n, D): uniform noise; u[:, d] decides the d-th pixel in order.

        x (n, *shape), known: the first `known` pixels in order are those of x, the rest is drawn. Of several masks, u
        is (n, D + 1), its last column decides the mask, and the orders must agree on which pixels are known.
        """
        self.check_y(y, n)
        return self._sample(n, u, x, known, self._draw)

    def sample_naive(self, n, y=None, *, u=None, x=None, known=0):
        """The same draws, by D passes of the network; tests and benches compare `sample` with it."""
        self.check_y(y, n)
        return self._sample(n, u, x, known, self._draw_naive)

    @torch.no_grad()
    def _sample(self, n, u, x, known, draw):
        K, D = self.masks, self.D
        u = noise(u, n, D + (K > 1), self.device)
        whole = noise_and_start(n, D, u[:, :D], x, known, u.device)[1].clone()
        first = self.orders[0, :known]
        if known and any(set(order[:known].tolist()) != set(first.tolist()) for order in self.orders[1:]):
            raise ValueError(f"known = {known} pixels: the orders of the masks differ in which these are")
        # the mask is drawn from p(k | what is known): for nothing, evenly
        log_p = u.new_zeros(n, K)
        if K > 1 and known:
            log_p = torch.stack([self._log_p(whole, k)[:, first].sum(1) for k in range(K)], 1)
        mask = outputs.Levels(K, dim=-1).draw(log_p, u[:, -1])
        for k in mask.unique().tolist():
            of_k, order = (mask == k).nonzero(), self.orders[k]
            whole[of_k, order] = draw(k, u[of_k[:, 0], :D], whole[of_k, order], known)
        return whole.reshape(n, *self.shape)

    def _draw(self, k, u, x, known):  # (n, D), in the order of mask k, which is a number or degrees
        m, d = self._degrees(k)
        sort = [m_i.argsort(stable=True) for m_i in (*m, d)]
        ascending = (lambda W, i, j: W) if k == 0 else permuted  # mask 0 is sorted as it is
        layers = list(zip([*self.W, self.V], sort, sort[1:], strict=False))
        weights, biases = [ascending(W.weight, i, j) for W, i, j in layers], [W.bias[j] for W, _, j in layers]
        degrees = [m_i[j] for m_i, j in zip(m[1:], sort[1:], strict=False)]
        A = None if self.A is None else ascending(self.A.weight, sort[0], sort[-1])
        return ops.made_sample(u, weights, biases, degrees, self.levels, A, x, known)  # (1), each unit of (2) once

    def _draw_naive(self, k, u, x, known):
        pixel_of, place_of = self.orders[k], self.orders[k].argsort()
        for d in range(known, self.D):
            a = self.logits(x[:, place_of], k)[:, pixel_of[d]]  # of p(x_d | x_<d): x_d and later pixels are not seen
            x[:, d] = self.p.draw(a.view(len(x), self.p.rows), u[:, d])  # (1)
        return x

    # ---- what a mask hides -------------------------------------------------------------------------------------------

    @property
    def learns_orders(self):
        return self.resample and isinstance(self._order, str) and self._order == "random"

    def log_levels(self, x, y=None):
        """(N, *shape) -> (N, D, L), as `Ordered.log_levels` says; of several masks by (6)"""
        if self.masks == 1:
            return super().log_levels(x)
        if (self.orders != self.orders[0]).any():
            raise Cannot("the orders of this MADE differ: set resample=True, so that it learns all orders")
        x, order = self.check(x)[0], self.orders[0]
        a = torch.stack([self.logits(x, k).reshape(len(x), self.D, -1)[:, order] for k in range(self.masks)])
        log_p = F.logsigmoid(torch.cat([-a, a], -1)) if a.shape[-1] == 1 else a.log_softmax(-1)  # (K, N, D, L)
        each = log_p.gather(3, x[None, :, order, None].long().expand(self.masks, -1, -1, 1))
        before = each.cumsum(2) - each  # log p_k(x_<d)
        return (before + log_p).logsumexp(0) - before.logsumexp(0)

    def drawn_in(self, order, known, x):
        """x (N, D) with what follows its first `known` pixels in this order drawn"""
        mask = self._of_order(order)
        x[:, order] = self._draw(mask, torch.rand(len(x), self.D, device=x.device), x[:, order], known)
        return x

    def log_p_in(self, order, x):
        """log p(x_d | x_<d) of x (N, D) in this order, (N, D), in that of the pixels"""
        return self._log_p(x, self._of_order(order))

    def _of_order(self, order):
        return self._as_mask(order, self._new_mask([layer.out_features for layer in self.W])[1])


def permuted(W, i, j):
    """W (J, K) -> W[j][:, i], some rows at a time, which the caches hold: a third of the time if W is large"""
    W, rows, of_j = W.detach(), torch.empty_like(W), max(1, ROWS // W.shape[1])
    for some, to in zip(j.split(of_j), rows.split(of_j), strict=True):
        torch.index_select(W.index_select(0, some), 1, i, out=to)
    return rows


RECIPES = {  # tuned on the valid split alone; without dropout and shifts the 1297 images are overfitted within seconds
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
    "digits-orders": {  # learns all orders, so that it draws what any mask hides
        "data": "digits",
        "model": dict(hidden=(500,), order="random", masks=8, resample=True),
        "train": dict(steps=5000, batch=64, rate=2e-3, every=500, shift=0.2),
    },
    "mnist": {  # tuned on 10,000 images: 96.1 nats on their valid split; with dropout 0.1 it has 98.4
        "data": "mnist-dynamic",
        "model": dict(hidden=(1000,)),
        "train": dict(steps=6000, batch=64, rate=2e-3, every=1000, marginals=True),
        "threads": 1,
    },
    "paper": {  # two layers, 32 masks: 86.64 nats, on MNIST with bits drawn once for all (there by another draw)
        "data": "mnist-drawn",
        "model": dict(hidden=(8000, 8000), masks=32),
        "train": dict(steps=100_000, batch=100, rate=1e-3, every=1000),
    },
}
