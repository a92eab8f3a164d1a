"""The encoder and the decoder of an autoencoder, by name: "linear", "mlp" or "conv".

    encoder    (N, *shape) -> (N, O)
    decoder    (N, d) -> (N, rows, *shape)

Both can be conditioned on a vector y (N, C): it is concatenated to the input, for convolutions as C constant planes.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from genmini.settings import image, one_of, share, whole

BODIES = ("linear", "mlp", "conv")
UPSAMPLE = ("transposed", "nearest", "bilinear")


def coders(body, shape, O, d, rows=1, hidden=400, width=32, upsample="nearest", context=0, dropout=0.0):
    """Return an encoder of `shape` to O numbers and a decoder of d numbers to `rows` numbers for each pixel.

    context: the length C of y, or two, of what the encoder and what the decoder gets.
    """
    one_of(BODIES, body=body)
    whole(hidden=hidden, width=width)
    share(dropout=dropout)
    D, (C, B) = math.prod(shape), context if isinstance(context, tuple) else (context, context)
    if body == "conv":
        return Down(shape, O, width, C, dropout), Up(shape, d, rows, width, upsample, B, dropout)
    enter, leave = nn.Flatten(), nn.Unflatten(1, (rows, *shape))
    if body == "linear":
        return Steered(enter, nn.Linear(D + C, O)), Steered(nn.Linear(d + B, rows * D), leave)
    relu = lambda: [nn.ReLU(), nn.Dropout(dropout)] if dropout else [nn.ReLU()]
    encoder = Steered(enter, nn.Linear(D + C, hidden), *relu(), nn.Linear(hidden, O))
    return encoder, Steered(nn.Linear(d + B, hidden), *relu(), nn.Linear(hidden, rows * D), leave)


class Steered(nn.Sequential):
    def forward(self, x, y=None):
        if y is not None:
            x = torch.cat([x.flatten(1), y], 1)
        return super().forward(x)


class Down(nn.Module):
    """The encoder: a 3x3 convolution, two of 4x4 and stride 2 that halve the sides, a linear layer; ReLU between."""

    def __init__(self, shape, O, width=32, context=0, dropout=0.0):
        super().__init__()
        C, H, W = self.image = _image(shape)
        self.layers = nn.Sequential(
            nn.Conv2d(C + context, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, 2, 1), nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout),
        )
        self.out = nn.Linear(2 * width * (H // 4) * (W // 4), O)
        _he(self.layers)

    def forward(self, x, y=None):
        x = x.reshape(len(x), *self.image)
        if y is not None:
            x = torch.cat([x, y[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)
        return self.out(self.layers(x))


class Up(nn.Module):
    """The decoder: a linear layer to a quarter of the sides, two steps that double them, a 3x3 convolution out.

    upsample "transposed": a transposed 4x4 convolution of stride 2, in which equally many weights reach every pixel;
    "nearest", "bilinear": interpolation, then a 3x3 convolution.
    """

    def __init__(self, shape, d, rows=1, width=32, upsample="nearest", context=0, dropout=0.0):
        super().__init__()
        one_of(UPSAMPLE, upsample=upsample)
        self.shape, self.rows, self.upsample = shape, rows, upsample
        C, H, W = _image(shape)
        self.enter = nn.Linear(d + context, 2 * width * (H // 4) * (W // 4))
        self.small = nn.Unflatten(1, (2 * width, H // 4, W // 4))
        double = lambda K, J: (nn.ConvTranspose2d(K, J, 4, 2, 1) if upsample == "transposed"
                               else nn.Conv2d(K, J, 3, padding=1))
        self.doublings = nn.ModuleList([double(2 * width, 2 * width), double(2 * width, width)])
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Conv2d(width, rows * C, 3, padding=1)
        _he(self.enter, self.doublings)

    def forward(self, z, y=None):
        h = F.relu(self.small(self.dropout(self.enter(z if y is None else torch.cat([z, y], 1)))))
        for layer in self.doublings:
            h = F.relu(layer(enlarged(h, self.upsample)))
        return self.out(h).reshape(len(z), self.rows, *self.shape)


def enlarged(h, upsample):
    """h (N, C, H, W) with its sides doubled; as it is for "transposed", where the next convolution doubles them"""
    if upsample == "transposed":
        return h
    return F.interpolate(h, scale_factor=2, mode=upsample, align_corners=False if upsample == "bilinear" else None)


def _he(*parts):
    """Initialise the layers as He et al. do.

    With PyTorch's own initialisation a layer and its ReLU make their input smaller by root 6: after four of them, z
    contributes little.
    """
    for layer in (layer for part in parts for layer in part.modules()
                  if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)):
        transposed = isinstance(layer, nn.ConvTranspose2d)
        # of the 4x4 weights of a transposed convolution of stride 2, 4 reach a pixel
        fan = layer.weight.shape[0] * 4 if transposed else layer.weight[0].numel()
        nn.init.normal_(layer.weight, 0, math.sqrt(2 / fan))
        nn.init.zeros_(layer.bias)


def _image(shape):
    C, H, W = image(shape)
    if H % 4 or W % 4:
        raise ValueError(f"convolutions halve an image twice: shape must have sides divisible by 4, got {shape}")
    return C, H, W
