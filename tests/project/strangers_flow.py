"""An autoregressive flow in the manner of zuko, with the names of its parts: for test_swap_walk.py."""

import functools

import strangers
import torch
from torch import nn


class Affine:
    def __init__(self, shift, log_scale):
        self.shift, self.scale = shift, log_scale.tanh().exp()

    def __call__(self, x):
        return x * self.scale + self.shift

    def inv(self, y):
        return (y - self.shift) / self.scale


def unpack(phi, shapes):
    assert shapes == ((), ())
    return phi.unbind(-1)


class AutoregressiveTransform:
    """D passes of the network in the inverse"""

    def __init__(self, meta, passes):
        self.meta, self.passes = meta, passes

    def _inverse(self, y):
        x = torch.zeros_like(y)
        for _ in range(self.passes):
            x = self.meta(x).inv(y)
        return x

    def inv(self, y):
        return self._inverse(y)


def masked(mask):
    layer = strangers.Masked(mask.shape[1], len(mask))
    layer.mask = mask.float()
    return layer


class MaskedAutoregressiveTransform(nn.Module):
    """order (D,): when each number comes; several may come at once"""

    def __init__(self, order, hidden=(9, 8), activation=nn.ReLU):
        super().__init__()
        self.univariate, self.shapes, self.total, self.asked = Affine, ((), ()), 2, []
        self.passes, below, layers = int(order.max()) + 1, order, []
        for H in hidden:
            above = torch.arange(H) % self.passes  # in no order
            layers += [masked(above[:, None] >= below), activation()]
            below = above
        self.hyper = nn.Sequential(*layers, masked(order.repeat_interleave(2)[:, None] > below))

    def meta(self, c, x):
        self.asked.append(len(x))
        phi = self.hyper(x).unflatten(-1, (-1, self.total))
        return self.univariate(*unpack(phi if c is None else phi + c, self.shapes))

    def forward(self, c=None):
        return AutoregressiveTransform(functools.partial(self.meta, c), self.passes)
