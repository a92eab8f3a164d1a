"""A U-Net: an encoder halves the image, a decoder doubles it again and sees what the encoder had at each size.

The course, "U-Nets"; Ronneberger, Fischer, Brox, "U-Net", 2015; with the blocks of Ho, Jain, Abbeel, "Denoising
Diffusion Probabilistic Models", 2020, and Dhariwal, Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021.

    UNet(C, O)    x (N, C, H, W), time (N,) -> (N, O, H, W)

    x -- enter -- block ........................................ cat, block -- out      H x W, width m_0
                    `-- down -- block .............. cat, block -- up -'                H/2 x W/2, width m_1
                                  `-- block, attention, block -'                        the middle

The time is a real number, for a diffusion the log of its signal-to-noise ratio; y (N,) is a class, or -1 for none;
context (N, L, E) is a sequence of L vectors, of a text for example, which each pixel reads by cross-attention: of each
sequence those that mask (N, L) marks, one or more, or all without it.

    used by: genmini/models/diffusion.py, genmini/models/regressor.py    test: tests/models/test_unet.py
"""

import torch
import torch.nn.functional as F
from torch import nn

from genmini.layers import GroupNormSiLU
from genmini.nets.coders import UPSAMPLE, enlarged
from genmini.settings import flag, one_of, share, whole

GROUP = 8  # channels that are normalised together
COSINES = 3  # of the row of a pixel, and as many of its column: left or right, in the middle or at a side, and finer


class UNet(nn.Module):
    """width, multiples: width * multiples[i] channels where the sides are halved i times; blocks: at each size, on each
    side; attention: the number of smallest sizes whose blocks attend; classes: of y; context: the length E.

    patch: P, squares of P x P pixels enter as the channels of one pixel, and leave as them: an image has fewer pixels
    to compute, and the width can be larger. upsample: as in genmini/nets/coders.py; with "transposed" the halving
    convolution has 4x4 weights, too. placed: attention knows where a pixel lies, by cosines of its place; a text says
    what shall be on the left, and noise does not tell where that is. The output is 0 at initialisation, and so is what
    each block and each attention adds.
    """

    def __init__(self, C, O, width=32, multiples=(1, 2), blocks=1, attention=1, classes=0, context=0,
                 upsample="nearest", dropout=0.0, patch=1, placed=False):
        super().__init__()
        one_of(UPSAMPLE, upsample=upsample)
        whole(multiples=multiples, blocks=blocks, patch=patch)
        if not multiples:
            raise ValueError("multiples must be one number or more, got ()")
        whole(0, len(multiples), attention=attention)
        if context and not attention:  # nothing else reads it
            raise ValueError(f"attention must be 1 or more where there is a context, got {attention}")
        share(dropout=dropout)
        flag(placed=placed)
        if width < GROUP or width % GROUP:
            raise ValueError(f"width must be a multiple of {GROUP}, got {width}")
        widths, E = [width * m for m in multiples], 4 * width
        self.halvings, self.frequencies, self.patch = len(widths) - 1, width // 2, patch
        self.of_time = nn.Sequential(nn.Linear(width, E), nn.SiLU(), nn.Linear(E, E))
        self.of_class = nn.Embedding(classes, E) if classes else None
        attends = [len(widths) - i <= attention for i in range(len(widths))]
        unit = lambda K, J, i: Unit(K, J, E, attends[i], context, dropout, placed)
        self.enter = nn.Conv2d(C * patch**2, width, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()  # of each size
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()  # between them
        K = width
        for i, J in enumerate(widths):
            self.down.append(nn.ModuleList(unit(K if b == 0 else J, J, i) for b in range(blocks)))
            if i < self.halvings:
                self.shrink.append(nn.Conv2d(J, J, 4, 2, 1) if upsample == "transposed" else nn.Conv2d(J, J, 3, 2, 1))
            K = J
        self.middle = nn.ModuleList([Unit(K, K, E, attention > 0, context, dropout, placed),
                                     Unit(K, K, E, False, 0, dropout)])
        for i, J in reversed(list(enumerate(widths))):
            self.up.append(nn.ModuleList(unit(2 * J, J, i) for _ in range(blocks)))
            if i > 0:
                self.grow.append(Double(J, widths[i - 1], upsample))
        self.norm = GroupNormSiLU(widths[0] // GROUP, widths[0])
        self.out = zero(nn.Conv2d(widths[0], O * patch**2, 3, padding=1))

    def forward(self, x, time, y=None, context=None, mask=None):
        least = self.patch * 2**self.halvings
        if x.shape[2] % least or x.shape[3] % least:
            raise ValueError(f"a U-Net with {self.halvings + 1} multiples halves the sides {self.halvings} times"
                             + f", after patches of {self.patch}x{self.patch}" * (self.patch > 1)
                             + f": they must be divisible by {least}, got {tuple(x.shape[2:])}")
        e = self.of_time(sinusoids(time, self.frequencies).to(x.dtype))  # (N, E)
        if y is not None:
            e = e + F.embedding(y.clamp(min=0), self.of_class.weight) * (y >= 0)[:, None]
        e, h, skips = F.silu(e), self.enter(self.patches(x)), []
        for i, units in enumerate(self.down):
            for unit in units:
                h = unit(h, e, context, mask)
                skips.append(h)
            if i < self.halvings:
                h = self.shrink[i](h)
        for unit in self.middle:
            h = unit(h, e, context, mask)
        for i, units in enumerate(self.up):
            for unit in units:
                h = unit(torch.cat([h, skips.pop()], 1), e, context, mask)
            if i < self.halvings:
                h = self.grow[i](h)
        h = self.out(self.norm(h))
        return F.pixel_shuffle(h, self.patch) if len(h) else h.reshape(0, h.shape[1] // self.patch**2, *x.shape[2:])

    def patches(self, x):
        """(N, C, H, W) -> (N, C P P, H / P, W / P); PyTorch's own function leaves an empty batch as it is"""
        (N, C, H, W), P = x.shape, self.patch
        return F.pixel_unshuffle(x, P) if N else x.reshape(N, C * P * P, H // P, W // P)


class Unit(nn.Module):
    """A residual block; then, where wanted, self-attention, and cross-attention to the context."""

    def __init__(self, K, J, E, attends=False, context=0, dropout=0.0, placed=False):
        super().__init__()
        self.block = Block(K, J, E, dropout)
        self.itself = Attention(J, placed=placed) if attends else None
        self.across = Attention(J, context, placed=placed) if attends and context else None

    def forward(self, h, e, context=None, mask=None):
        h = self.block(h, e)
        if self.itself is not None:
            h = self.itself(h)
        if self.across is not None and context is not None:
            h = self.across(h, context, mask)
        return h


class Block(nn.Module):
    """h <- R h + V silu((1 + s) norm(W silu(norm(h))) + b), where s and b are linear in the embedding e.

    W and V are 3x3 convolutions; R is 1x1, or the identity where the number of channels stays.
    """

    def __init__(self, K, J, E, dropout=0.0):
        super().__init__()
        self.norm, self.between = GroupNormSiLU(K // GROUP, K), GroupNormSiLU(J // GROUP, J)
        self.W, self.V = nn.Conv2d(K, J, 3, padding=1), zero(nn.Conv2d(J, J, 3, padding=1))
        self.of_e = nn.Linear(E, 2 * J)
        self.R = nn.Conv2d(K, J, 1) if K != J else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, h, e):
        s, b = self.of_e(e).chunk(2, 1)  # (N, J) each
        a = self.between(self.W(self.norm(h)), s, b)
        return self.R(h) + self.V(self.dropout(a))


class Attention(nn.Module):
    """h <- h + W softmax(q k^T / sqrt(d)) v over the pixels, or over the L vectors of a context.

    The queries q are of the pixels, the keys k and the values v of the pixels or of the context, where mask is true.
    placed: the pixels are norm(h) + P cosines, of their places.
    """

    def __init__(self, K, context=0, head=32, placed=False):
        super().__init__()
        self.heads = next(n for n in range(max(1, K // head), 0, -1) if K % n == 0)
        self.norm = nn.GroupNorm(max(1, K // GROUP), K)
        self.q = nn.Linear(K, K)
        self.kv = nn.Linear(context or K, 2 * K)
        self.out = zero(nn.Linear(K, K))
        self.P = nn.Linear(2 * COSINES, K, bias=False) if placed else None
        if placed:
            nn.init.normal_(self.P.weight, std=COSINES**-0.5)  # P cosines then vary as norm(h) does

    def forward(self, h, context=None, mask=None):
        x = self.norm(h).flatten(2).mT  # (N, H W, K)
        x = x if self.P is None else x + self.P(cosines(h))
        heads = lambda a: a.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (N, heads, ., d)
        k, v = self.kv(x if context is None else context).chunk(2, 2)
        reads = None if mask is None else mask[:, None, None]  # (N, heads, pixels, L)
        a = F.scaled_dot_product_attention(heads(self.q(x)), heads(k), heads(v), attn_mask=reads)
        return h + self.out(a.transpose(1, 2).flatten(2)).mT.view_as(h)


def cosines(h):
    """(N, K, H, W) -> cos(pi k (i + 1/2) / H), cos(pi k (j + 1/2) / W), k = 1 ... COSINES, of pixel i, j: (H W, .)"""
    k = torch.arange(1, COSINES + 1, dtype=torch.float64, device=h.device)
    i, j = (torch.cos(torch.pi / n * (torch.arange(n, device=h.device).to(k) + 0.5)[:, None] * k) for n in h.shape[2:])
    both = torch.cat([i[:, None].expand(-1, len(j), -1), j.expand(len(i), -1, -1)], 2)
    return both.flatten(0, 1).to(h)


class Double(nn.Module):
    """Double the sides: a transposed 4x4 convolution of stride 2, or interpolation and a 3x3 convolution."""

    def __init__(self, K, J, upsample):
        super().__init__()
        self.upsample = upsample
        self.W = nn.ConvTranspose2d(K, J, 4, 2, 1) if upsample == "transposed" else nn.Conv2d(K, J, 3, padding=1)

    def forward(self, h):
        return self.W(enlarged(h, self.upsample))


def sinusoids(time, K):
    """(N,) -> (N, 2 K): sines and cosines of the time at K frequencies, from 1/30 to 3, each a constant times the
    one before."""
    f = torch.logspace(-1.5, 0.5, K, dtype=torch.float64, device=time.device)
    angle = time.double()[:, None] * f
    return torch.cat([angle.sin(), angle.cos()], 1)


def zero(layer):
    """Set the layer's weights to 0, so that at first it adds nothing."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
