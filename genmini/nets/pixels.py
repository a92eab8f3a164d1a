"""A network over images as a list of layers, which can be computed for a whole image, or pixel by pixel.

    network = Network()
    s, z = network.add([(MaskedConv2d(2, 16, 7, "A"), 0)])      a layer that reads stream 0, the input; z = relu(s)
    network.add([(MaskedConv2d(16, 1, 1, "B"), z)], act="")
    network(x, y)           what the last layer gives for a whole image, with gradients
    network.of_taps()       the same layers for ops.pixelcnn_sample

    used by: genmini/models/pixelcnn.py    room: kernels/pixelcnn_sample.py    test: tests/models/test_pixelcnn.py
"""

from dataclasses import dataclass
from functools import reduce

import torch
import torch.nn.functional as F
from torch import nn

from genmini.kernels import pixelcnn_sample as sampler


@dataclass
class Layer:
    """s = the sum of convolutions of streams, of V y, and of a residual stream.

    Stream 0 is the input; layer a of a network gives stream 2a + 1, which is s, and 2a + 2, which is act(s)."""

    terms: list  # (convolution, stream)
    act: str = "relu"  # "relu", "gate" or none
    V: torch.Tensor | None = None  # (classes, outputs)
    residual: int | None = None  # a stream
    dropout: nn.Module | None = None  # of act(s)
    rows: bool = False  # of the vertical stack: reads rows above alone, or streams of that stack

    def reads(self):
        return [r for _, r in self.terms] + ([] if self.residual is None else [self.residual])

    def sum(self, z, y):
        terms = [convolution(z[r]) for convolution, r in self.terms]
        terms += [] if self.V is None else [F.embedding(y, self.V)[:, :, None, None]]
        terms += [] if self.residual is None else [z[self.residual]]
        return reduce(torch.add, terms)

    def activated(self, s):
        after = gate(s) if self.act == "gate" else F.relu(s)
        return after if self.dropout is None else self.dropout(after)

    def of_taps(self):
        """The same for the sampler: the taps of the convolutions, and one bias."""
        taps = [tap for convolution, r in self.terms for tap in taps_of(convolution, r)]
        biases = [convolution.bias for convolution, _ in self.terms] + ([] if self.V is None else [self.V])
        return sampler.Layer(taps, reduce(torch.add, biases), self.act, self.residual, self.rows)


class Network(list):
    """Layers, each added after those whose streams it reads. It owns no parameters: they stay in the modules."""

    def add(self, terms, **settings):
        """-> the numbers of the layer's two streams, s and act(s)."""
        self.append(Layer(terms, **settings))
        return 2 * len(self) - 1, 2 * len(self)

    def __call__(self, x, y):
        """x (N, channels, h, W), y (N) -> s of the last layer, (N, outputs, h, W). Streams are kept until their last
        use."""
        z, last_use = {0: x}, {r: a for a, layer in enumerate(self) for r in layer.reads()}
        for a, layer in enumerate(self):
            s = z[2 * a + 1] = layer.sum(z, y)
            if 2 * a + 2 in last_use:
                z[2 * a + 2] = layer.activated(s)
            z = {r: z[r] for r in z if last_use.get(r, a) > a}
        return s

    def of_taps(self):
        return [layer.of_taps() for layer in self]


class RowsAbove(nn.Conv2d):
    """A convolution whose filter ends a row above the pixel (kind "A") or on its row ("B"), for layers of the vertical
    stack: all its taps may be seen."""

    def __init__(self, inputs, outputs, kernel, kind, **to):
        super().__init__(inputs, outputs, kernel, **to)
        self.kind = kind

    def forward(self, x):
        (kh, kw), below = self.kernel_size, -1 if self.kind == "A" else 0
        padding = kw // 2, kw // 2, kh - 1 - below, below
        return super().forward(F.pad(x, padding) if any(padding) else x)


def taps_of(convolution, stream):
    taps = sampler.row_taps if isinstance(convolution, RowsAbove) else sampler.masked_taps
    return taps(stream, convolution.weight, convolution.kind)


def gate(s):
    """(N, 2 K, h, W) -> (N, K, h, W); the pairs are neighbours, so that a channel stays with its colour."""
    return torch.tanh(s[:, 0::2]) * torch.sigmoid(s[:, 1::2])
