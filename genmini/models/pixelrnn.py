"""PixelRNN: LSTMs walk over an image, row by row or diagonal by diagonal, and carry what they have seen in their state.

The course, "PixelRNN/PixelCNN"; van den Oord, Kalchbrenner, Kavukcuoglu, "Pixel Recurrent Neural Networks", 2016,
sections 3.1 to 3.4.

    p(x) = prod_i p(x_i | x_<i), the colours of a pixel one after the other                  (1)
    o, f, i = sigma(K_ss * h_before + K_is * x),   g = tanh(K_ss * h_before + K_is * x)      (2)
    c = f o c_before + i o g,   h = o o tanh(c)                                              (3)
    x <- x + W h                                                                            (4)
    h = h_left + (h_right, a row lower)                                                     (5)

Row LSTM: a step is a row, `before` is the row above, and K_ss is a filter of three pixels: a pixel sees a triangle.

Diagonal BiLSTM: a step is a diagonal of pixels (i, j) with the same i + j. Before (i, j) are (i, j-1) and (i-1, j), so
that it sees all pixels above and to the left. A second LSTM comes from the right, and its state is used a row lower:
it gives (i, j) the rows above (5). In the published network a pixel does not see the last pixel of the row above. Here
the LSTM from the right also reads its own pixels, which is allowed: its state is used a row lower. To walk along
diagonals, row i is moved i pixels to the right: then a diagonal is a column.

K_is is a masked convolution of kind "B", computed for the whole image before the walk begins. The first layer is a
masked convolution of kind "A", and the output is that of PixelCNN.

What a pixel needs of those before it stands in the LSTMs' states, so that a sample takes each step (2) of a left LSTM
or of a row once a colour, and each of a right LSTM once, when its row is drawn.

    layer: genmini.layers.MaskedConv2d    rooms: kernels/masked_conv2d.py, kernels/softmax_nll.py
    test: tests/models/test_pixelrnn.py
"""

import itertools
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from genmini.kernels._live_taps import masked
from genmini.kernels.pixelcnn_sample import steps_of
from genmini.layers import MaskedConv2d
from genmini.models.pixelcnn import Raster, check_width, spread_logistics
from genmini.settings import one_of, share, whole


class PixelRNN(Raster):
    def __init__(self, shape, levels=2, width=32, layers=2, walk="diagonal", output="softmax", components=5, classes=0,
                 dropout=0.0, first=7, device=None, dtype=None):
        """shape of one image, (H, W) or (C, H, W) with colours C; width: channels, of which an LSTM has half; walk:
        "row" or "diagonal"; first: the side of the first filter; output, components, classes as in PixelCNN."""
        super().__init__(shape, levels, output, components, classes)
        check_width(width, self.C)
        whole(layers=layers, first=first)
        share(dropout=dropout)
        one_of(("row", "diagonal"), walk=walk)
        to = dict(colours=self.C, device=device, dtype=dtype)
        self.enter = MaskedConv2d(self.C * (1 + steps_of(levels)), width, first, "A", **to)  # x_i is not seen
        kind = RowLSTM if walk == "row" else DiagonalBiLSTM
        self.layers = nn.ModuleList(kind(self.enter.in_channels, width, classes, to) for _ in range(layers))
        self.widen = nn.ModuleList(MaskedConv2d(width // 2, width, 1, "B", **to) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.between = MaskedConv2d(width, width, 1, "B", **to)
        self.out = MaskedConv2d(width, self.C * self.p.rows, 1, "B", **to)
        if self.components:
            spread_logistics(self.out, self.C, components)

    def features(self, x, y):
        pixels = self.embed(x)
        x = self.enter(pixels)
        for layer, W in zip(self.layers, self.widen, strict=True):
            x = x + W(self.dropout(layer(x, pixels, y)))  # (4)
        return self.out(F.relu(self.between(F.relu(x)))).unflatten(1, (self.C, self.p.rows))  # inside p: (1)

    @property
    def samplers(self):
        return {"cached": self.sample_cached} | super().samplers

    @torch.no_grad()
    def sample_cached(self, n, y=None, *, u=None, x=None, known=0):
        """Draws by one step of the LSTMs for each number, from the states that the steps before have left."""
        y, u, x = self._begin(n, y, u, x, known)
        kh, kw = (side // 2 for side in self.enter.kernel_size)
        pixels = F.pad(self.embed(x), (kw, kw, kh, 0))
        enter, between, out, *widen = map(of_pixel, (self.enter, self.between, self.out, *self.widen))
        walks = [layer.of_pixels(n, self.W, y) for layer in self.layers]
        for i in range(self.H):
            for j, c in itertools.product(range(self.W), range(self.C)):
                d = (i * self.W + j) * self.C + c
                if d < known and c < self.C - 1:
                    continue  # the last colour of a pixel leaves its states
                h = enter(pixels[:, :, i : i + kh + 1, j : j + 2 * kw + 1].flatten(1))
                for walk, W in zip(walks, widen, strict=True):
                    h = h + W(walk.step(j, h))  # (4)
                if d < known:
                    continue
                a = out(F.relu(between(F.relu(h)))).unflatten(1, (self.C, self.p.rows))[:, c]
                x[:, c, i, j] = self.p.draw(a, u[:, c, i, j])  # (1)
                pixels[:, :, i + kh, j + kw] = self.embed(x[:, :, i : i + 1, j : j + 1])[..., 0, 0]
            for walk in walks:
                walk.next_row(pixels[:, :, i + kh, kw : kw + self.W])
        return x.reshape(n, *self.shape)


class LSTM(nn.Module):
    """(2), (3): K_is for the whole image, then a walk along one dimension.

    K_ss has no bias: a state of zeros with input zero stays zero, so that steps outside the image change nothing.
    """

    def __init__(self, width, kernel, before, classes, to):
        """before: how far K_ss sees around s in the step before: (-1, 1) from s-1 to s+1, (-1, 0) from s-1 to s."""
        super().__init__()
        K, plain, self.padding = width // 2, dict(device=to["device"], dtype=to["dtype"]), (-before[0], before[1])
        self.K_is = MaskedConv2d(width, 4 * K, kernel, "B", **to)
        self.K_ss = nn.Conv1d(K, 4 * K, 1 + sum(self.padding), bias=False, **plain)
        self.of_class = nn.Embedding(classes, 4 * K, **plain) if classes else None

    def input(self, x, y):
        a = self.K_is(x)
        return a if self.of_class is None else a + self.of_class(y)[:, :, None, None]

    def walk(self, a):
        """(N, 4 K, S, T) -> h (N, K, S, T), step t after step t-1, all s at once."""
        h = c = a.new_zeros(a.shape[0], a.shape[1] // 4, a.shape[2])
        every = []
        for step in a.unbind(3):
            h, c = after(step + self.K_ss(F.pad(h, self.padding)), c)
            every.append(h)
        return torch.stack(every, 3)


def after(gates, c):
    """What is inside of (2), (N, 4 K, ...), and c (N, K, ...) of the step before -> h, c of this one"""
    o, f, i, g = (gates[:, k::4] for k in range(4))  # by fours: channels keep their colour
    o, f, i, g = o.sigmoid(), f.sigmoid(), i.sigmoid(), g.tanh()  # (2)
    c = f * c + i * g
    return o * torch.tanh(c), c  # (3)


def of_pixel(layer):
    """A masked convolution at one pixel: the numbers that its filter reaches down to the pixel's row, (N, C kh kw)
    -> (N, O)"""
    rows = masked(layer.weight.detach(), layer.kind, layer.colours)[:, :, : layer.kernel_size[0] // 2 + 1]
    return partial(F.linear, weight=rows.flatten(1), bias=layer.bias)


class RowLSTM(LSTM):
    def __init__(self, inputs, width, classes, to):
        super().__init__(width, (1, 3), (-1, 1), classes, to)

    def forward(self, x, pixels, y):
        return self.walk(self.input(x, y).transpose(2, 3)).transpose(2, 3)  # a step is a row

    def of_pixels(self, n, W, y):
        return RowPixels(self, n, W, y)


class RowPixels:
    """A RowLSTM that goes from pixel to pixel. Rows are (W, N, channels)."""

    def __init__(self, lstm, n, W, y):
        like, K = lstm.K_ss.weight.detach(), lstm.K_ss.in_channels
        self.K_is, self.taps = of_pixel(lstm.K_is), like.unbind(2)
        self.of_class = 0 if lstm.of_class is None else lstm.of_class(y)
        self.x = like.new_zeros(n, 2 * K, W + 2)  # of this row, and 0 on either side
        self.h, self.c = like.new_zeros(2, W, n, K)  # of this row as far as it is drawn, then of the one before
        self.next_row()

    def step(self, j, x):
        """x (N, width) of pixel j -> its h (N, K)"""
        self.x[:, :, j + 1] = x
        gates = self.K_is(self.x[:, :, j : j + 3].flatten(1)) + self.of_row_before[j]
        self.h[j], self.c[j] = after(gates, self.c_before[j])
        return self.h[j]

    def next_row(self, pixels=None):
        h, W = F.pad(self.h, (0, 0, 0, 0, 1, 1)), len(self.h)
        self.of_row_before = sum(F.linear(h[k : k + W], tap) for k, tap in enumerate(self.taps)) + self.of_class
        self.c_before = self.c.clone()


class DiagonalLSTM(LSTM):
    def __init__(self, width, classes, to):
        super().__init__(width, 1, (-1, 0), classes, to)

    def forward(self, x, y):
        return unskewed(self.walk(skewed(self.input(x, y))), x.shape[3])  # a step is a diagonal


class DiagonalBiLSTM(nn.Module):
    def __init__(self, inputs, width, classes, to):
        super().__init__()
        self.left, self.right = DiagonalLSTM(width, classes, to), DiagonalLSTM(width, classes, to)
        self.own = nn.Conv2d(inputs, width, 1, device=to["device"], dtype=to["dtype"])

    def forward(self, x, pixels, y):
        h_left, h_right = self.left(x, y), self.right((x + self.own(pixels)).flip(3), y).flip(3)
        return h_left + F.pad(h_right, (0, 0, 1, -1))  # (5)

    def of_pixels(self, n, W, y):
        return DiagonalPixels(self, n, W, y)


class DiagonalPixels:
    """A DiagonalBiLSTM that goes from pixel to pixel, and the LSTM from the right when a row is drawn. Rows are
    (W, N, channels)."""

    def __init__(self, layer, n, W, y):
        self.layer, self.y, left = layer, y, layer.left
        like, K = left.K_ss.weight.detach(), left.K_ss.in_channels
        self.K_is, (self.above, self.before) = of_pixel(left.K_is), like.unbind(2)
        self.of_class = 0 if left.of_class is None else left.of_class(y)
        self.x = like.new_zeros(n, 2 * K, W)  # of this row
        self.h, self.c = like.new_zeros(2, W + 1, n, K)  # of this row, after 0
        self.h_right, self.of_row_before = like.new_zeros(W, n, K), like.new_zeros(W, n, 4 * K) + self.of_class

    def step(self, j, x):
        """x (N, width) of pixel j -> its h (N, K)"""
        self.x[:, :, j] = x
        gates = self.K_is(x) + F.linear(self.h[j], self.before) + self.of_row_before[j]
        self.h[j + 1], self.c[j + 1] = after(gates, self.c[j])
        return self.h[j + 1] + self.h_right[j]  # (5)

    def next_row(self, pixels):
        """pixels (N, inputs, W) of the row that is drawn"""
        self.of_row_before = F.linear(self.h[1:], self.above) + self.of_class
        right, x = self.layer.right, self.x[:, :, None] + self.layer.own(pixels[:, :, None])
        of_row_before = F.linear(self.h_right, right.K_ss.weight[:, :, 0]).permute(1, 2, 0)[:, :, None]
        self.h_right = right.walk((right.input(x, self.y) + of_row_before).flip(3)).flip(3).squeeze(2).permute(2, 0, 1)


def skewed(x):
    """(N, C, H, W) -> (N, C, H, H + W - 1), row i moved i pixels to the right.

    Rows of H + W numbers are read as rows of H + W - 1, so that each begins one later."""
    H, W = x.shape[2:]
    return F.pad(x, (0, H)).flatten(2)[:, :, : H * (H + W - 1)].unflatten(2, (H, H + W - 1))


def unskewed(x, W):
    H = x.shape[2]
    return F.pad(x.flatten(2), (0, H)).unflatten(2, (H, H + W))[..., :W]


RECIPES = {  # tuned on the valid split alone
    "digits": {
        "data": "digits-threshold",
        "model": dict(width=32, layers=2, first=5, dropout=0.3),
        "train": dict(steps=1000, batch=64, rate=8e-3, shift=0.2, ema=0.99),
    },
    "digits-levels": {
        "data": "digits",
        "model": dict(width=32, layers=2, first=5, dropout=0.3),
        "train": dict(steps=1000, batch=64, rate=8e-3, shift=0.3, ema=0.99),
    },
    "paper": {  # the Diagonal BiLSTM, 7 layers of 16 units: 79.20 nats (one layer: 80.75) on MNIST with bits drawn once
        "data": "mnist-drawn",
        "model": dict(width=32, layers=7),
        "train": dict(steps=300000, batch=16, rate=1e-3),
    },
    "colour": {  # not tuned
        "data": "images",
        "model": dict(width=24, layers=2, first=5, output="mixture"),
        "train": dict(steps=10_000, batch=8, rate=2e-3, every=500, ema=0.99),
    },
}
