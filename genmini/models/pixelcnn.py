"""PixelCNN: convolutions that see only earlier pixels predict every pixel of an image at once.

The course, "PixelRNN/PixelCNN"; van den Oord, Kalchbrenner, Kavukcuoglu, "Pixel Recurrent Neural Networks", 2016; van
den Oord et al., "Conditional Image Generation with PixelCNN Decoders", 2016 (gated); Salimans et al., "PixelCNN++",
2017 (the logistic mixture).

    p(x) = prod_i p(x_i | x_<i)                                                             (1)
    p(x_i | x_<i) = p(x_iR | x_<i) p(x_iG | x_<i, x_iR) p(x_iB | x_<i, x_iR, x_iG)          (2)
    p(x_ic = l | ...) = exp(a_l) / sum_k exp(a_k)                                           (3)
    p(x_ic = l | ...) = sum_k pi_k [sigma((l + 1/2 - mu_k) / s_k) - sigma((l - 1/2 - mu_k) / s_k)]   (4)
    h <- h + W_3 relu(W_2 * relu(W_1 relu(h)) + V y)                                        (5)
    h <- tanh(W_f * h + V_f y) o sigma(W_g * h + V_g y)                                     (6)
    x_ic = number of l < L-1 with u_ic >= p(x_ic <= l | ...)                                (7)

Pixels i are ordered row by row, and the colours of a pixel one after the other. output "softmax" is (3), a sigmoid for
two levels; "mixture" is (4), where all below level 0 and all above level L-1 belong to these levels (genmini/outputs.py
holds both). (7) turns uniform noise u into a sample.

The plain network is a masked convolution of kind "A", then blocks (5) of kind "B". It has a blind spot: some earlier
pixels, above and to the right, stay unseen however deep it is. `gated` has none: it has two stacks of (6), a vertical
one that sees all rows above, and a horizontal one that sees its own row to the left and takes in the vertical one. A
class y adds a bias to every layer.

`PixelCNN.network` lists the layers once: `features` computes them for whole images, and the sampler
(kernels/pixelcnn_sample.py) pixel by pixel.

    layer: genmini.layers.MaskedConv2d    test: tests/models/test_pixelcnn.py
    rooms: kernels/masked_conv2d.py, kernels/softmax_nll.py, kernels/pixelcnn_sample.py
"""

import math

import torch
from torch import nn

from genmini import ops, outputs
from genmini.kernels import pixelcnn_sample as sampler
from genmini.layers import MaskedConv2d
from genmini.models._levels import noise_and_start
from genmini.models._ordered import Ordered
from genmini.nets.pixels import Network, RowsAbove
from genmini.settings import image, one_of, share, whole


class Raster(Ordered):
    """Models of images, number after number, that have `features(x, y)`: levels (N, C, h, W) of the first h rows ->
    (N, C, F, h, W). features[:, c, :, i, j] are the F parameters of p(x_ijc | earlier numbers)."""

    def __init__(self, shape, levels, output, components, classes):
        whole(2, levels=levels)
        whole(components=components)
        whole(0, classes=classes)
        one_of(("softmax", "mixture"), output=output)
        super().__init__(shape, levels, classes)
        self.C, self.H, self.W = image(shape)
        self.components = components if output == "mixture" else 0
        self.p = outputs.Mixture(levels, components) if self.components else outputs.softmax(levels)

    def embed(self, x):
        """(N, C, h, W) -> (N, C M, h, W): of every level the M numbers that the network sees."""
        return sampler.embed(x, self.levels, self.dtype, dim=-3).flatten(1, 2)

    def log_prob(self, x, y=None):
        """(N, *shape) -> (N,) in nats. Without y, a model with classes averages p(x | y) over all of them."""
        x, y = self.check(x, y)
        x = self._image(x)
        if self.classes and y is None:
            return self.over_classes(lambda k: self.log_prob(x, k))
        log_p = self.p.log_p(self.features(x, y).flatten(0, 1), x.flatten(0, 1)).view(x.shape)  # log of (3) or (4)
        log_p = log_p.sum(1)  # log of (2)
        return log_p.flatten(1).sum(1)  # log of (1)

    def logits(self, x, y=None):
        """(N, *shape) -> (N, *shape) for two levels and a softmax, else (N, *shape, L): the a_l of (3), or the
        logarithms of (4)."""
        x, y = self.check(x, y, needed=True)
        a = self.features(self._image(x), y)
        if self.components:
            every = [torch.full_like(x, l).view(-1, self.H, self.W) for l in range(self.levels)]
            a = torch.stack([self.p.log_p(a.flatten(0, 1), level) for level in every], 1).unflatten(0, (len(x), self.C))
        a = a.movedim(2, -1)
        return a.reshape(len(x), *self.shape, *a.shape[4:] if a.shape[4] > 1 else ())

    # ---- samples -----------------------------------------------------------------------------------------------------

    def pixel_order(self):
        return torch.arange(self.D).view(self.C, -1).T.flatten()

    @property
    def samplers(self):
        """The ways to draw, by the name of each; all give the same samples."""
        return {"naive": self.sample_naive, "jacobi": lambda n, y, **how: self.sample_jacobi(n, y, **how)[0]}

    @torch.no_grad()
    def sample(self, n, y=None, *, u=None, x=None, known=0, how=None):
        """n draws, (n, *shape), uint8 up to 256 levels. u (n, D) is uniform noise: u[:, d] decides the d-th number in
        the order of (1), (2), and the same noise gives the same draws.

        x (n, *shape) and known: the first `known` numbers in that order are those of x, the rest is drawn after them.
        y: a class for all, or one each; None draws them evenly. how: one of `samplers`, by default the first.
        """
        how = how or next(iter(self.samplers))
        if how not in self.samplers:
            raise ValueError(f"how must be {' or '.join(map(repr, self.samplers))}, got {how!r}")
        return self.samplers[how](n, y, u=u, x=x, known=known)

    @torch.no_grad()
    def sample_naive(self, n, y=None, *, u=None, x=None, known=0):
        """Draws with one pass for each number, over the rows down to its own: the measure of the other samplers."""
        y, u, x = self._begin(n, y, u, x, known)
        for d in range(known, self.D):
            i, j, c = d // (self.W * self.C), d // self.C % self.W, d % self.C
            a = self.features(x[:, :, : i + 1], y)[:, c, :, i, j]  # the next factor of (2)
            x[:, c, i, j] = self.p.draw(a, u[:, c, i, j])
        return x.reshape(n, *self.shape)

    @torch.no_grad()
    def sample_jacobi(self, n, y=None, *, u=None, x=None, known=0):
        """Draws all numbers at once, again and again until none changes -> the draws, and the number of passes.

        Only one x fulfils (7) everywhere: the sample of this noise. After d passes its first d numbers are right.
        """
        y, u, x = self._begin(n, y, u, x, known)
        free = self._spread(torch.arange(self.D, device=u.device)[None] >= known)
        passes, before = 0, None
        while before is None or not torch.equal(before, x):
            drawn = self.p.draw(self.features(x, y).flatten(0, 1), u.flatten(0, 1)).view(x.shape)  # (7)
            before, x, passes = x, torch.where(free, drawn, x), passes + 1
        return x.reshape(n, *self.shape), passes

    def _begin(self, n, y, u, x, known):
        """-> the classes (n), noise (n, C, H, W), x (n, C, H, W) with its first `known` numbers and 0 elsewhere"""
        u, x = noise_and_start(n, self.D, u, x, known, self.device, self.p.dtype)
        is_known = self._spread(torch.arange(self.D, device=u.device)[None] < known)
        x = torch.where(is_known, self._image(self.check(x)[0]), 0)
        return self.classes_or_drawn(y, n), self._spread(u), x

    def _spread(self, u):  # (n, D) in order -> (n, C, H, W)
        return u.view(len(u), self.H, self.W, self.C).movedim(-1, 1)

    def _image(self, x):
        return x.reshape(len(x), self.C, self.H, self.W)


class PixelCNN(Raster):
    def __init__(self, shape, levels=2, width=64, blocks=5, gated=False, output="softmax", components=5, classes=0,
                 dropout=0.0, first=7, kernel=3, device=None, dtype=None):
        """shape of one image, (H, W) or (C, H, W) with colours C; width: channels; first, kernel: the sides of the
        first filter and of the others; components: logistics of a mixture; classes: log_prob and sample take a class y.
        """
        super().__init__(shape, levels, output, components, classes)
        check_width(width, self.C)
        whole(first=first, kernel=kernel)
        whole(0, blocks=blocks)
        share(dropout=dropout)
        self.gated, to = gated, dict(colours=self.C, device=device, dtype=dtype)
        inputs = self.C * (1 + sampler.steps_of(levels))
        if gated:
            self.enter = Gated(inputs, width, first, "A", classes, dropout, to)
            self.blocks = nn.ModuleList(Gated(width, width, kernel, "B", classes, dropout, to) for _ in range(blocks))
        else:
            self.enter = MaskedConv2d(inputs, width, first, "A", **to)
            self.blocks = nn.ModuleList(Residual(width, kernel, classes, dropout, to) for _ in range(blocks))
        self.between = MaskedConv2d(width, width, 1, "B", **to)
        self.out = MaskedConv2d(width, self.C * self.p.rows, 1, "B", **to)
        if self.components:
            spread_logistics(self.out, self.C, components)

    def network(self):
        """The layers, in their order."""
        network = Network()
        if self.gated:
            above = h = 0
            for block in (self.enter, *self.blocks):
                above, h, after = block.add_to(network, above, h)
        else:
            h, after = network.add([(self.enter, 0)])
            for block in self.blocks:
                h, after = block.add_to(network, h, after)
        _, after = network.add([(self.between, after)])
        network.add([(self.out, after)], act="")
        return network

    def features(self, x, y):
        return self.network()(self.embed(x), y).unflatten(1, (self.C, self.p.rows))

    def program(self):
        """The layers as ops.pixelcnn_sample takes them."""
        return self.network().of_taps()

    @property
    def samplers(self):
        return {"cached": self.sample_cached} | super().samplers

    @torch.no_grad()
    def sample_cached(self, n, y=None, *, u=None, x=None, known=0):
        """Draws for the arithmetic of one pass: the sampler keeps what the layers give for a pixel as long as a filter
        looks back at it."""
        y, u, x = self._begin(n, y, u, x, known)
        u, x = (a.movedim(1, 3).flatten(1) for a in (u, x))
        shape = self.C, self.H, self.W
        x = ops.pixelcnn_sample(u, self.program(), shape, self.levels, self.components, y, x, known)  # (7)
        return self._spread(x).to(self.p.dtype).reshape(n, *self.shape)


def check_width(width, C):
    whole(width=width)
    if width % (2 * C):
        raise ValueError(f"width must be a multiple of 2 for each of {C} colours, got {width}")


def spread_logistics(out, C, K):
    """Set the biases so that the logistics start side by side from -1 to 1, each as wide as its share."""
    with torch.no_grad():
        _, mu, log_s = out.bias.view(C, 3, K).unbind(1)
        mu += (2 * torch.arange(K, device=mu.device) + 1) / K - 1
        log_s -= math.log(2 * K)


class Residual(nn.Module):
    """The block (5) of the plain PixelCNN: half as many channels where the filter is wide."""

    def __init__(self, width, kernel, classes, dropout, to):
        super().__init__()
        self.W1 = MaskedConv2d(width, width // 2, 1, "B", **to)
        self.W2 = MaskedConv2d(width // 2, width // 2, kernel, "B", **to)
        self.W3 = MaskedConv2d(width // 2, width, 1, "B", **to)
        self.V = nn.Embedding(classes, width // 2, device=to["device"], dtype=to["dtype"]) if classes else None
        self.dropout = nn.Dropout(dropout)

    def add_to(self, network, h, after):
        """The streams h and relu(h) -> those of the next h and relu(h)."""
        V = None if self.V is None else self.V.weight
        _, z = network.add([(self.W1, after)])
        _, z = network.add([(self.W2, z)], V=V, dropout=self.dropout)
        return network.add([(self.W3, z)], residual=h)  # (5)


class Gated(nn.Module):
    """The layer (6), for two stacks: `above` sees the rows above; h sees its row to the left, and `above`. In the first
    layer, kind "A", h does not see its own pixel and `above` not its own row; in later layers, kind "B", both may,
    because those features hold nothing of later pixels."""

    def __init__(self, inputs, width, kernel, kind, classes, dropout, to):
        super().__init__()
        plain, self.kind = dict(device=to["device"], dtype=to["dtype"]), kind
        self.V = RowsAbove(inputs, 2 * width, (kernel // 2 + (kind == "B"), kernel), kind, **plain)
        self.H = MaskedConv2d(inputs, 2 * width, (1, kernel), kind, **to)
        self.V_to_H = RowsAbove(2 * width, 2 * width, 1, "B", **plain)  # all colours may see the rows above
        self.W = MaskedConv2d(width, width, 1, "B", **to)
        self.of_class = nn.Embedding(classes, 4 * width, **plain) if classes else None
        self.dropout = nn.Dropout(dropout)

    def add_to(self, network, above, h):
        """The streams above and h -> those of the next above, h and relu(h)."""
        V_above, V_h = (None, None) if self.of_class is None else self.of_class.weight.chunk(2, 1)
        s, above = network.add([(self.V, above)], act="gate", rows=True)
        if V_above is not None:  # V_to_H reads the sum s without it
            _, above = network.add([], act="gate", V=V_above, residual=s, rows=True)
        _, left = network.add([(self.H, h), (self.V_to_H, s)], act="gate", V=V_h, dropout=self.dropout)  # (6)
        return above, *network.add([(self.W, left)], residual=None if self.kind == "A" else h)


RECIPES = {  # tuned on the valid split alone; a thousand steps overfit its 1297 training images
    "digits": {
        "data": "digits-threshold",
        "model": dict(width=32, blocks=3, gated=True, dropout=0.4),
        "train": dict(steps=1000, batch=64, rate=3e-3, shift=0.1, ema=0.99),
    },
    "digits-levels": {
        "data": "digits",
        "model": dict(width=32, blocks=3, gated=True, dropout=0.5, first=5),
        "train": dict(steps=1500, batch=64, rate=4e-3, shift=0.3, ema=0.99),
    },
    "digits-mixture": {  # neighbouring levels share probability, and the same network overfits later
        "data": "digits",
        "model": dict(width=32, blocks=3, gated=True, dropout=0.5, first=5, output="mixture", components=5),
        "train": dict(steps=1200, batch=64, rate=3e-3, shift=0.3, ema=0.99),
    },
    "mnist": {  # kernel 5: 94.5 nats on valid after 1000 steps, where kernel 3 has 96.5; 93 ms a step on one core
        "data": "mnist-dynamic",
        "model": dict(width=16, blocks=4, gated=True, kernel=5),
        "train": dict(steps=15_000, batch=16, rate=3e-3, every=500, ema=0.999),
    },
    "paper": {  # "Pixel Recurrent Neural Networks", 7 layers: 81.30 nats on MNIST with bits drawn once for all
        "data": "mnist-drawn",
        "model": dict(width=64, blocks=7),
        "train": dict(steps=300000, batch=16, rate=1e-3),
    },
    "colour": {  # not tuned
        "data": "images",
        "model": dict(width=48, blocks=3, gated=True, output="mixture", components=5, first=5),
        "train": dict(steps=10_000, batch=8, rate=1e-3, every=500, ema=0.99),
    },
}
