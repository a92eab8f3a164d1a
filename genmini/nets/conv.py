"""A residual network of convolutions that keeps its image's size; a class and an image can steer it.   (N, C, H, W) -> (N, O, H, W)"""

import torch
import torch.nn.functional as F
from torch import nn


class ResNet(nn.Module):
    """A 3x3 convolution to `width` channels, residual blocks, a 1x1 convolution out. classes: how many y tells apart; context: the channels
    of the image that steers it. The constant 1 enters as a channel of its own: with it the edge of the image can be felt, and an x that is
    0 be told from one that is not there. It begins as the constant 0."""

    def __init__(self, C, O, width=32, blocks=2, classes=0, context=0, dropout=0.0):
        super().__init__()
        self.enter = nn.Conv2d(C + context + 1, width, 3, padding=1)
        self.of_class = nn.Embedding(classes, width) if classes else None
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(blocks))
        self.out = nn.Conv2d(width, O, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x, y=None, context=None):
        h = self.enter(torch.cat([x, torch.ones_like(x[:, :1])] if context is None else [x, torch.ones_like(x[:, :1]), context], 1))
        if self.of_class is not None:
            h = h + self.of_class(y)[:, :, None, None]
        for block in self.blocks:
            h = block(h)
        return self.out(F.silu(h))


class Block(nn.Module):
    """h + V silu(norm(W silu(norm(h)))), both 3x3; the normalisation is over the channels of one pixel, so that examples stay apart."""

    def __init__(self, width, dropout=0.0):
        super().__init__()
        self.W = nn.Conv2d(width, width, 3, padding=1)
        self.V = nn.Conv2d(width, width, 3, padding=1)
        self.norm, self.between = nn.GroupNorm(1, width), nn.GroupNorm(1, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h):
        return h + self.V(self.dropout(F.silu(self.between(self.W(F.silu(self.norm(h)))))))


class Encoder(nn.Module):
    """An image whose sides are halved `halvings` times, by convolutions of 4x4.   (N, C, H, W), y (N,) -> (N, O, h, w)"""

    def __init__(self, C, O, width=32, halvings=1, blocks=1, classes=0, dropout=0.0):
        super().__init__()
        self.enter = nn.Conv2d(C, width, 3, padding=1)
        self.of_class = nn.Embedding(classes, width) if classes else None
        self.down = nn.ModuleList(nn.Conv2d(width, width, 4, stride=2, padding=1) for _ in range(halvings))
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(blocks))
        self.out = nn.Conv2d(width, O, 1)

    def forward(self, x, y=None):
        h = self.enter(x)
        if self.of_class is not None:
            h = h + self.of_class(y)[:, :, None, None]
        for down in self.down:
            h = down(F.silu(h))
        for block in self.blocks:
            h = block(h)
        return self.out(F.silu(h))


class Decoder(nn.Module):
    """The way back, by transposed convolutions.   (N, C, h, w), y (N,) -> (N, O, H, W)"""

    def __init__(self, C, O, width=32, doublings=1, blocks=1, classes=0, dropout=0.0):
        super().__init__()
        self.enter = nn.Conv2d(C, width, 3, padding=1)
        self.of_class = nn.Embedding(classes, width) if classes else None
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(blocks))
        self.up = nn.ModuleList(nn.ConvTranspose2d(width, width, 4, stride=2, padding=1) for _ in range(doublings))
        self.out = nn.Conv2d(width, O, 3, padding=1)

    def forward(self, h, y=None):
        h = self.enter(h)
        if self.of_class is not None:
            h = h + self.of_class(y)[:, :, None, None]
        for block in self.blocks:
            h = block(h)
        for up in self.up:
            h = up(F.silu(h))
        return self.out(F.silu(h))
