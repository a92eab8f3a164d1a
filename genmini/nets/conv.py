"""Convolutional networks: a residual one that keeps the image's size, an encoder, and a decoder.

    ResNet(C, O)    (N, C, H, W) -> (N, O, H, W); it can be conditioned on a class and on an image

silu(norm(h)) is PyTorch's here, not layers.GroupNormSiLU as in genmini/nets/unet.py: that sums in another order, and
the tables and golden values of RealNVP, VQ-VAE and CycleGAN were measured with the roundings of this one.
"""

import torch
import torch.nn.functional as F
from torch import nn


class ResNet(nn.Module):
    """A 3x3 convolution to `width` channels, residual blocks, a 1x1 convolution out.

    classes: the number of classes of y; context: the channels of the image that it is conditioned on. The constant 1
    is one more input channel: by it the network can detect the edge of the image, and tell x = 0 from the padding. The
    output is 0 at initialisation.
    """

    def __init__(self, C, O, width=32, blocks=2, classes=0, context=0, dropout=0.0):
        super().__init__()
        self.enter = nn.Conv2d(C + context + 1, width, 3, padding=1)
        self.of_class = nn.Embedding(classes, width) if classes else None
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(blocks))
        self.out = nn.Conv2d(width, O, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x, y=None, context=None):
        h = self.enter(torch.cat([x, torch.ones_like(x[:, :1])] if context is None
                                 else [x, torch.ones_like(x[:, :1]), context], 1))
        if self.of_class is not None:
            h = h + self.of_class(y)[:, :, None, None]
        for block in self.blocks:
            h = block(h)
        return self.out(F.silu(h))


class Block(nn.Module):
    """h + V silu(norm(W silu(norm(h)))); W and V are 3x3 convolutions.

    Each example is normalised alone, so that none depends on the others of its batch.
    """

    def __init__(self, width, dropout=0.0):
        super().__init__()
        self.W = nn.Conv2d(width, width, 3, padding=1)
        self.V = nn.Conv2d(width, width, 3, padding=1)
        self.norm, self.between = nn.GroupNorm(1, width), nn.GroupNorm(1, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h):
        return h + self.V(self.dropout(F.silu(self.between(self.W(F.silu(self.norm(h)))))))


class Encoder(nn.Module):
    """Halves the sides of an image `halvings` times, by convolutions of 4x4.   (N, C, H, W), y (N,) -> (N, O, h, w)"""

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
    """Doubles the sides `doublings` times, by transposed convolutions.   (N, C, h, w), y (N,) -> (N, O, H, W)"""

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
