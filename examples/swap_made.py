"""A MADE as it stands in many a tutorial, its masked layers computed by the room masked_linear.

    python examples/swap_made.py --out made.png

Its hidden units are in the order of their degrees, which the room likes best; in a random order a CPU gains little, and
genmini.swap leaves the layers and says so.
"""

import torch
import torch.nn.functional as F
from beside import arguments, beside, digits
from torch import nn


class MaskedLinear(nn.Linear):
    def __init__(self, in_features, out_features):
        super().__init__(in_features, out_features)
        self.register_buffer("mask", torch.ones(out_features, in_features))

    def set_mask(self, mask):
        self.mask.data.copy_(mask)

    def forward(self, x):
        return F.linear(x, self.mask * self.weight, self.bias)


class MADE(nn.Module):
    def __init__(self, D, hidden):
        super().__init__()
        m = [torch.arange(D), *(torch.arange(H) * (D - 1) // H for H in hidden)]
        sizes, layers = [D, *hidden], []
        for below, above in zip(sizes, sizes[1:], strict=False):
            layers += [MaskedLinear(below, above), nn.ReLU()]
        self.net = nn.Sequential(*layers, MaskedLinear(sizes[-1], D))
        for layer, (below, above) in zip(self.net[::2], zip(m, m[1:], strict=False), strict=False):
            layer.set_mask(above[:, None] >= below)
        self.net[-1].set_mask(torch.arange(D)[:, None] > m[-1])

    def forward(self, x):
        return self.net(x)


def loss(model, x):
    bits = (x > 0.5).float()
    return F.binary_cross_entropy_with_logits(model(bits), bits, reduction="sum") / len(x)


if __name__ == "__main__":
    how = arguments(__doc__, batch=256, hidden=2000)
    torch.manual_seed(0)
    beside(MADE(64, [how.hidden, how.hidden]), loss, digits(how.batch), how.steps, how.out)
