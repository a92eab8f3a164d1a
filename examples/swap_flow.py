"""A masked autoregressive flow as it stands in many a tutorial, its masked layers computed by the room masked_linear.

    python examples/swap_flow.py --out flow.png
"""

import math

import torch
import torch.nn.functional as F
from beside import arguments, beside, digits
from torch import nn


class MaskedLinear(nn.Module):
    """Its weight is its own, its mask is made of degrees and no parameter."""

    def __init__(self, below, above, strict=False):
        super().__init__()
        bound = 1 / math.sqrt(len(below))
        self.weight = nn.Parameter(torch.empty(len(above), len(below)).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(len(above)))
        self.register_buffer("mask", above[:, None] > below if strict else above[:, None] >= below)

    def forward(self, x):
        return F.linear(x, self.weight * self.mask, self.bias)


class MAF(nn.Module):
    """Of each flow u = (x - t(x_<d)) e^-s(x_<d); the order of x turns around between two."""

    def __init__(self, D, H, flows):
        super().__init__()
        d, h = torch.arange(D), torch.arange(H) * (D - 1) // H
        self.nets = nn.ModuleList(
            nn.Sequential(MaskedLinear(d, h), nn.ReLU(), MaskedLinear(h, h), nn.ReLU(),
                          MaskedLinear(h, torch.cat([d, d]), strict=True))
            for _ in range(flows)
        )

    def forward(self, x):
        logdet = 0
        for net in self.nets:
            s, t = net(x).chunk(2, 1)
            s = torch.tanh(s)
            x, logdet = ((x - t) * torch.exp(-s)).flip(1), logdet - s.sum(1)
        return x, logdet


def loss(model, x):
    u, logdet = model(x)
    return (u.square().sum(1) / 2 + u.shape[1] * math.log(2 * math.pi) / 2 - logdet).mean()


if __name__ == "__main__":
    how = arguments(__doc__, batch=256, hidden=1024, flows=3)
    torch.manual_seed(0)
    x = digits(how.batch)
    x = torch.logit(0.05 + 0.9 * (x * 16 + torch.rand(x.shape)) / 17)  # levels, with noise between them
    beside(MAF(64, how.hidden, how.flows), loss, x, how.steps, how.out)
