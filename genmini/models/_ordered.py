"""Draws the hidden numbers of any mask, by a model that draws x_1, x_2, ... one after another.

Gordon, Salmond, Smith, "Novel approach to nonlinear/non-Gaussian Bayesian state estimation", 1993 (particles); Liu,
"Peskun's theorem and a modified discrete-state Gibbs sampler", 1996. Of x the numbers x_k are known, x_h hidden:

    p(x_h | x_k) = p(x) / p(x_k),   p(x_k) = sum_{x_h} p(x)                                 (1)
    w <- w p(x_d | x_<d)                                                                    (2)
    p(x_k) ~ prod of the means of w                                                         (3)
    a = min(1, p(x'_>d | x'_<=d) (1 - p(x_d | x_<d)) / (p(x_>d | x_<=d) (1 - p(x'_d | x_<d))))   (4)
    p(x_h | x_k) = 1/R sum_r prod_{d in h} p_r(x_d | x_<d)                                  (5)

Where the known numbers come first in the order, `sample` draws x_h after them, exactly, and p(x_k) is a product of the
model. In any other mask a hidden number is to be drawn by what comes after it, and the sum (1) has L^|h| terms. Then
particles walk along the order: each draws what is hidden and keeps what is known, which weighs it by (2). Where few
particles have most of the weight, (sum w)^2 < P/2 sum w^2, P are chosen anew by their weights, and w is 1 again. The
product (3), over these times and the end, has the mean p(x_k). Its logarithm is too low in the mean, and `log_hidden`
too high: the less, the more particles there are.

A few draws by weight are then moved: sweeps over the hidden x_d propose another level by p(x_d | x_<d), which is
accepted with the probability (4); of bits that is the ratio p(x') / p(x). A sweep leaves (1) as it is: whatever the
particles are, sweeps lead to (1). What comes after the last known number is in none of these products: it is drawn at
the end, exactly.

A model whose weights have learnt all orders of the pixels draws what any mask hides, exactly and in one pass: in an
order with the known pixels first, then the hidden ones at random (Uria, Murray, Larochelle, "A Deep and Tractable
Density Estimator", 2014). The orders r are different densities p_r on the same weights, and (5) averages R of them;
each draw takes an order of its own.

    used by: fvsbn.py, nade.py, made.py and pixelcnn.py of genmini/models
    test: tests/models/test_inpaint.py
"""

import itertools
import math

import torch
import torch.nn.functional as F

from genmini import conditions
from genmini.models._model import Model
from genmini.settings import whole

AT_ONCE = 2**18  # numbers of all particles that walk together


class Ordered(Model):
    """A model with `logits`, `pixel_order`, and a `sample` that takes x and how many numbers of it are known; if it has
    learnt all orders, also `drawn_in(order, known, x)` and `log_p_in(order, x)`, of x (N, D) in an order of pixels."""

    learns_orders = False

    def log_levels(self, x, y=None):
        """(N, *shape) -> (N, D, L): log p(x_d = l | x_<d) for each level l, in the order of the model"""
        a = self.logits(x) if y is None else self.logits(x, y)
        a = a.reshape(len(x), self.D, -1)[:, self.pixel_order()]
        return F.logsigmoid(torch.cat([-a, a], 2)) if a.shape[2] == 1 else a.log_softmax(2)

    @torch.no_grad()
    def inpaint(self, x, y=None, *, known, n, particles=64, sweeps=4):
        """(N, *shape) -> (n, N, *shape), as `Model.inpaint` says; exact where the known numbers come first. particles,
        sweeps: of a model of one order."""
        whole(n=n, particles=particles)
        whole(0, sweeps=sweeps)
        if self.learns_orders:
            x, drawn = self.check(x, y)[0], []
            for _ in range(n):
                order, many = self._known_first(known)
                kept = x.index_fill(1, order[many:], 0).to(self.p.dtype)  # what is hidden is not read
                drawn.append(self.drawn_in(order, many, kept).view(-1, *self.shape))
            return torch.stack(drawn)
        is_known, exact = self._in_order(known, y)
        P, drawn = n if exact else particles, []
        for x_b, y_b in self._batches(x, y, P):
            x_b, y_b, log_w, _ = self._particles(x_b, y_b, is_known, P)
            first = P * torch.arange(len(log_w), device=x_b.device)
            of_each = torch.arange(n).expand(len(log_w), n) if exact else torch.multinomial(log_w.softmax(1), n, True)
            chosen = (of_each.T.to(x_b.device) + first).flatten()  # (n N,)
            x_b, y_b = (None if each is None else each[chosen] for each in (x_b, y_b))
            x_b = self._sweep(x_b, y_b, is_known, sweeps)
            drawn.append(self._drawn_from(x_b, y_b, len(is_known), self.D).view(n, -1, *self.shape))
        return torch.cat(drawn, 1)

    @torch.no_grad()
    def log_hidden(self, x, y=None, *, known, particles=256, orders=16):
        """(N,), as `Model.log_hidden` says; exact where the known numbers come first. orders: R of (5)"""
        whole(particles=particles, orders=orders)
        if self.learns_orders:
            x, log_p = self.check(x, y)[0], []
            for _ in range(orders):
                order, many = self._known_first(known)
                log_p.append(self.log_p_in(order, x)[:, order[many:]].sum(1))
            return torch.stack(log_p).logsumexp(0) - math.log(orders)  # log of (5)
        is_known, exact = self._in_order(known, y)
        P = 1 if exact else particles
        runs = [self._particles(x_b, y_b, is_known, P) for x_b, y_b in self._batches(x, y, P)]
        return self.log_prob(x, y) - torch.cat([log_known for *_, log_known in runs])  # (1)

    def _known_first(self, known):
        """-> an order of the pixels, (D,), at random but for the known ones, which come first; how many these are"""
        known = conditions.mask(known, self.shape, self.pixel_order().cpu()).flatten()
        parts = [part.nonzero().flatten() for part in (known, ~known)]
        order = torch.cat([part[torch.randperm(len(part))] for part in parts])
        return order.to(self.pixel_order().device), len(parts[0])

    def _in_order(self, known, y):
        """-> whether x_1, x_2, ... are known, a list up to the last one that is; whether all of these are and no class
        is to be found, so that particles have equal weights"""
        order = self.pixel_order().cpu()
        is_known = conditions.mask(known, self.shape, order).flatten()[order].tolist()
        is_known = is_known[: max((d + 1 for d in range(self.D) if is_known[d]), default=0)]
        return is_known, all(is_known) and not (self.classes and y is None)

    def _batches(self, x, y, P):
        """Pairs of x (N, D) and y (N,), or None, for as many examples as P particles of each fit"""
        x, y = self.check(x, y)
        many = max(1, AT_ONCE // (P * self.D))
        return zip(x.split(many), itertools.repeat(None) if y is None else y.split(many), strict=False)

    def _particles(self, x, y, is_known, P):
        """x (N, D), y (N,) -> x (N P, D) and y (N P,) of the particles, log w (N, P), log of (3) (N,)"""
        N, order = len(x), self.pixel_order()
        hidden = order[[d >= len(is_known) or not is_known[d] for d in range(self.D)]].to(x.device)
        x = x.repeat_interleave(P, 0).index_fill(1, hidden, 0).to(self.p.dtype)  # what is hidden is not read
        y = self.classes_or_drawn(None if y is None else y.repeat_interleave(P), N * P)
        log_w, log_known = torch.zeros(N, P, device=x.device, dtype=torch.float64), 0
        first = P * torch.arange(N, device=x.device)[:, None]  # of the particles of each example
        for known, run in itertools.groupby(range(len(is_known)), is_known.__getitem__):
            start, end = (run := [*run])[0], run[-1] + 1
            if not known:
                x = self._drawn_from(x, y, start, end)
                continue
            log_w = log_w + self._log_p_at(x, self.log_levels(x, y))[:, start:end].sum(1).view(N, P)  # (2)
            w = log_w.softmax(1)
            few = P * w.square().sum(1, keepdim=True) > 2
            log_known = log_known + torch.where(few, log_mean(log_w), 0)  # (3)
            log_w = log_w.masked_fill(few, 0)
            chosen = torch.where(few, systematic(w, P), torch.arange(P, device=x.device))
            x, y = (None if each is None else each[(first + chosen).flatten()] for each in (x, y))
        return x, y, log_w, (log_known + log_mean(log_w)).squeeze(1)  # (3)

    def _sweep(self, x, y, is_known, sweeps):
        """x (N, D) -> x with the numbers moved that are not known, `sweeps` times each"""
        order, hidden = self.pixel_order(), [d for d, known in enumerate(is_known) if not known]
        levels = self.log_levels(x, y) if sweeps and hidden else None
        for d in hidden * sweeps:
            now = x[:, order[d], None].long()
            others = levels[:, d].scatter(1, now, -math.inf)
            new = torch.multinomial(others.softmax(1), 1)
            moved = x.index_copy(1, order[d : d + 1].to(x.device), new.to(x.dtype))
            levels_of_moved = self.log_levels(moved, y)
            later = (self._log_p_at(moved, levels_of_moved) - self._log_p_at(x, levels))[:, d + 1 : len(is_known)]
            back = levels[:, d].scatter(1, new, -math.inf)
            log_a = later.sum(1, keepdim=True) + others.logsumexp(1, True) - back.logsumexp(1, True)  # (4)
            accepted = torch.rand_like(log_a).log() < log_a
            x, levels = torch.where(accepted, moved, x), torch.where(accepted[..., None], levels_of_moved, levels)
        return x

    def _log_p_at(self, x, levels):
        """x (N, D), what `log_levels` gives of it -> log p(x_d | x_<d), (N, D), in the order of the model"""
        return levels.gather(2, x[:, self.pixel_order(), None].long()).squeeze(2)

    def _drawn_from(self, x, y, start, end):
        """x (N, D) with its numbers from `start` to `end` in the order of the model drawn after those before"""
        if start == end:
            return x
        places = self.pixel_order()[start:end].to(x.device)
        drawn = self.sample(len(x), y, x=x.view(-1, *self.shape), known=start).flatten(1)
        return x.index_copy(1, places, drawn[:, places].to(x.dtype))


def log_mean(log_w):
    """(N, P) -> (N, 1)"""
    return log_w.logsumexp(1, keepdim=True) - math.log(log_w.shape[1])


def systematic(w, n):
    """Weights (N, P) whose sums are 1 -> (N, n): numbers of particles, each about n w times, in the mean n w"""
    at = (torch.arange(n, device=w.device) + torch.rand(len(w), 1, device=w.device)) / n
    return torch.searchsorted(w.cumsum(1), at.to(w.dtype), right=True).clamp(max=w.shape[1] - 1)
