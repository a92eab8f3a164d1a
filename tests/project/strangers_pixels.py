"""PixelCNNs as teachers write them, and how each is drawn from: for test_swap_pixels.py."""

import torch
import torch.nn.functional as F
from strangers import MaskedConv, MaskedConvBroadcast, MaskedConvInPlace
from torch import nn


def plain(L=2, width=8, masked=MaskedConv):
    """A, B, B, ReLU and a head of 1x1; for two levels one number a pixel"""
    head = nn.Conv2d(width, L if L > 2 else 1, 1)
    body = [masked("A", 1, width, 5, padding=2), nn.ReLU()]
    for _ in range(2):
        body += [masked("B", width, width, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*body, head)


def normed(L=4, width=8):
    """Batch norms that have seen data, filters without biases, masked in place"""
    network = nn.Sequential(
        MaskedConvInPlace("A", 1, width, 7, padding="same", bias=False), nn.BatchNorm2d(width), nn.ReLU(True),
        MaskedConvInPlace("B", width, width, 7, padding="same", bias=False), nn.BatchNorm2d(width), nn.ReLU(True),
        nn.Conv2d(width, L, 1))
    for module in network:
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network.eval()


class Residual(nn.Module):
    """Blocks of relu first, what comes in is added; it scales its own input, and ends in log p of the levels"""

    def __init__(self, L=3, width=8):
        super().__init__()
        self.L, self.enter = L, MaskedConv("A", 1, width, 3, padding=1)
        mask = torch.tensor([[1.0, 1, 1], [1, 1, 0], [0, 0, 0]])
        self.norms = nn.ModuleList(nn.BatchNorm2d(width).eval() for _ in range(2))
        self.blocks = nn.ModuleList(MaskedConvBroadcast(width, width, mask) for _ in range(2))
        self.out, self.dropout = nn.Conv2d(width, L, 1), nn.Dropout(0.5)
        for norm in self.norms:
            nn.init.normal_(norm.bias)

    def forward(self, x):
        h = self.enter(2 * x / (self.L - 1) - 1)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            h = h + self.dropout(block(F.relu(norm(h))))
        h = 0.5 * F.relu(h) + 1
        return F.log_softmax(self.out(h).unsqueeze(2), 1)


class Gated(nn.Module):
    """Two stacks: one sees all rows above, the other its row to the left, and the first; levels become vectors"""

    def __init__(self, L=5, width=6):
        super().__init__()
        self.embedding, self.layers, above = nn.Embedding(L, 3), nn.ModuleList(), torch.ones(3, 3)
        for c_in, own in (3, 0), (width, 1):
            above[1:] = torch.tensor([own, 0])[:, None]
            left, wide = torch.tensor([[1.0, own, 0]]), 2 * width
            self.layers.append(nn.ModuleList([
                MaskedConvBroadcast(c_in, wide, above.clone()), nn.Conv2d(wide, wide, 1),
                MaskedConvBroadcast(c_in, wide, left), nn.Conv2d(width, width, 1, groups=2),
            ]))
        self.out = nn.Conv2d(width, L, 1)

    def forward(self, x):
        v = h = self.embedding(x[:, 0]).permute(0, 3, 1, 2)
        for above, join, left, mix in self.layers:
            s = above(v)
            f, g = s.split(s.shape[1] // 2, 1)
            v = g.sigmoid() * f.tanh()
            f, g = (left(h) + join(s)).chunk(2, 1)
            new = mix(torch.tanh(f) * torch.sigmoid(g))
            h = new + h if h.shape == new.shape else new
        return self.out(torch.relu(h))


@torch.no_grad()
def loop(network, u, values):
    """What its owner does: a pass for each pixel"""
    x = torch.zeros_like(u).to(values.dtype)
    for i in range(u.shape[2]):
        for j in range(u.shape[3]):
            l = network(x)[..., i, j].flatten(1)
            p = torch.sigmoid(torch.cat([-l, l], 1)) if l.shape[1] == 1 else l.softmax(1)
            level = (u[:, 0, i, j, None] >= p.cumsum(1)[:, :-1]).sum(1)
            x[:, 0, i, j] = values[level]
    return x
