"""PixelCNN: convolutions that look only backwards predict every pixel of an image at once.

The course, "PixelRNN/PixelCNN"; van den Oord, Kalchbrenner, Kavukcuoglu, "Pixel Recurrent Neural Networks", 2016; van den Oord et al.,
"Conditional Image Generation with PixelCNN Decoders", 2016 (gated); Salimans et al., "PixelCNN++", 2017 (the logistic mixture).

    p(x) = prod_i p(x_i | x_<i)                                                             (1)
    p(x_i | x_<i) = p(x_iR | x_<i) p(x_iG | x_<i, x_iR) p(x_iB | x_<i, x_iR, x_iG)          (2)
    p(x_ic = l | ...) = exp(a_l) / sum_k exp(a_k)                                           (3)
    p(x_ic = l | ...) = sum_k pi_k [sigma((l + 1/2 - mu_k) / s_k) - sigma((l - 1/2 - mu_k) / s_k)]   (4)
    h <- h + W_3 relu(W_2 * relu(W_1 relu(h)) + V y)                                        (5)
    h <- tanh(W_f * h + V_f y) o sigma(W_g * h + V_g y)                                     (6)
    x_ic = number of l < L-1 with u_ic >= p(x_ic <= l | ...)                                (7)

Pixels i come row by row, the colours of a pixel one after the other. output "softmax" is (3) (a sigmoid for two levels), "mixture" is (4),
where what lies below level 0 and above level L-1 belongs to them. (7) makes a sample of uniform noise u.
Plain, the first convolution is a masked one of kind "A" and the rest are blocks (5) of kind "B"; then pixels above and to the right stay
unseen, however deep the net: its blind spot. `gated` cures that with two stacks of (6), one that sees the rows above whole, and one that
sees its own row to the left, and takes in the first. A class y is a bias of every layer.

    layer: genmini.layers.MaskedConv2d    rooms: kernels/masked_conv2d.py, kernels/softmax_nll.py, kernels/pixelcnn_sample.py
    test: tests/models/test_pixelcnn.py
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from genmini import ops
from genmini.kernels.pixelcnn_sample import ALL, Layer, masked_taps, row_taps
from genmini.layers import MaskedConv2d
from genmini.models._levels import begun, checked
from genmini.models._model import Model


class Raster(Model):
    """Images number after number, for models that give `features(x, y)`: levels (N, C, h, W) of the first h rows -> (N, C, F, h, W), where
    [:, c, :, i, j] are the F numbers that decide the distribution of x_ijc, computed from what comes before it."""

    def __init__(self, shape, levels, output, components, classes):
        if len(shape) not in (2, 3):
            raise ValueError(f"shape must be (H, W) or (C, H, W), got {shape}")
        if levels < 2:
            raise ValueError(f"levels must be at least 2, got {levels}")
        if output not in ("softmax", "mixture"):
            raise ValueError(f"output must be 'softmax' or 'mixture', got {output!r}")
        super().__init__(shape, levels, classes)
        self.output, self.components = output, components
        self.C, self.H, self.W = (1, *shape)[-3:]
        self.F = 3 * components if output == "mixture" else 1 if levels == 2 else levels
        self.steps = min(levels - 1, 32)
        self.dtype = torch.uint8 if levels <= 256 else torch.int64

    def embed(self, x):
        """(N, C, h, W) -> (N, C (1 + steps), h, W): 1, which tells a 0 from what lies outside, then the steps below x, [x >= 1] ... [x >= L-1];
        with more than 33 levels, 32 wider steps, of which one is passed in part."""
        k = torch.arange(self.steps, device=x.device).view(-1, 1, 1)
        x = x[:, :, None].to(next(self.parameters()).dtype) * (self.steps / (self.levels - 1))
        return torch.cat([torch.ones_like(x), (x - k).clamp(0, 1)], 2).flatten(1, 2)

    def log_prob(self, x, y=None):
        """(N, *shape) -> (N,) in nats. A model with classes that is told no y averages p(x | y) over all of them."""
        x, y = self._image(checked(x, self.shape, self.levels)), self._class(y, len(x))
        if self.classes and y is None:
            each = [self.log_prob(x, k) for k in range(self.classes)]
            return torch.stack(each).logsumexp(0) - math.log(self.classes)
        a = self.features(x, y)
        a = a.to(torch.promote_types(a.dtype, torch.float32))  # under autocast too
        if self.output == "mixture":
            log_p = self._log_mixture(a, x)
        elif self.levels == 2:
            log_p = -F.binary_cross_entropy_with_logits(a[:, :, 0], x.to(a.dtype), reduction="none")
        else:
            log_p = -ops.softmax_nll(a.flatten(0, 1), x.flatten(0, 1).long()).view(x.shape)  # log of (3)
        return log_p.sum(1).flatten(1).sum(1)  # log of (2), then of (1)

    def logits(self, x, y=None):
        """(N, *shape) -> (N, *shape) with two levels and a softmax, else (N, *shape, L): the a_l of (3), or the logarithms of (4)."""
        a = self.features(self._image(checked(x, self.shape, self.levels)), self._class(y, len(x), needed=True))
        if self.output == "mixture":
            each = [self._log_mixture(a, torch.full_like(a[:, :, 0], l)) for l in range(self.levels)]
            return torch.stack(each, -1).reshape(len(x), *self.shape, self.levels)
        a = a.movedim(2, -1)
        return a.reshape(len(x), *self.shape) if self.levels == 2 else a.reshape(len(x), *self.shape, self.levels)

    def _logistics(self, a):
        """(..., F) -> log pi, mu, log s, each (..., K), for a scale on which the levels reach from -1 to 1."""
        log_pi, mu, log_s = a.unflatten(-1, (3, self.components)).unbind(-2)
        return log_pi.log_softmax(-1), mu, log_s.clamp(min=-7)

    def _log_mixture(self, a, x):
        """log of (4), for levels x (N, C, h, W), by sigma(b) - sigma(a) = sigma(b) sigma(-a) (1 - e^(a-b)): no difference of equals."""
        log_pi, mu, log_s = self._logistics(a.movedim(2, -1))
        x, half = x[..., None].to(a.dtype), 1 / (self.levels - 1)
        centred = x * (2 * half) - 1 - mu
        below, above = ((centred + edge) * torch.exp(-log_s) for edge in (-half, half))
        least, most = x == 0, x == self.levels - 1
        log_width = torch.log(-torch.expm1(-2 * half * torch.exp(-log_s)))
        log_p = F.logsigmoid(above).masked_fill(most, 0) + F.logsigmoid(-below).masked_fill(least, 0) + log_width.masked_fill(least | most, 0)
        return (log_pi + log_p).logsumexp(-1)  # log of (4)

    def decide(self, a, u):
        """F numbers (..., F) and uniform noise (...) -> levels (...)."""
        if self.output == "mixture":
            log_pi, mu, log_s = self._logistics(a)
            edge = (2 * torch.arange(self.levels - 1, device=a.device) + 1) / (self.levels - 1) - 1  # above level l
            below = (log_pi.exp()[..., None, :] * torch.sigmoid((edge[:, None] - mu[..., None, :]) * torch.exp(-log_s)[..., None, :])).sum(-1)
        else:
            below = torch.sigmoid(-a) if self.levels == 2 else a.softmax(-1).cumsum(-1)[..., :-1]
        return (u[..., None] >= below).sum(-1).to(self.dtype)  # (7)

    @torch.no_grad()
    def sample(self, n, u=None, x=None, known=0, y=None, how=None):
        """n draws, (n, *shape), uint8 up to 256 levels. u (n, D) uniform noise: the same noise gives the same draws; u[:, d] decides the d-th
        number in the order of (1), (2).

        x (n, *shape), known: the first `known` numbers in that order are those of x, and the rest is drawn after them. y: a class for all, or
        one each; None draws them evenly. how: "cached" (the default where the model gives its `program`), "naive" or "jacobi", below.
        """
        samplers = {"naive": self.sample_naive, "jacobi": lambda *a: self.sample_jacobi(*a)[0]}
        samplers = ({"cached": self.sample_cached} if hasattr(self, "program") else {}) | samplers
        how = how or next(iter(samplers))
        if how not in samplers:
            raise ValueError(f"how must be {' or '.join(map(repr, samplers))}, got {how!r}")
        return samplers[how](n, u, x, known, y)

    @torch.no_grad()
    def sample_cached(self, n, u=None, x=None, known=0, y=None):
        """For the price of one pass: what the layers give for a pixel is computed once, and kept as long as a filter looks back at it."""
        u, x, y = self._begin(n, u, x, known, y)
        u, x = (a.movedim(1, 3).flatten(1) for a in (u, x))
        components = self.components if self.output == "mixture" else 0
        x = ops.pixelcnn_sample(u, self.program(), (self.C, self.H, self.W), self.levels, components, y, x, known)  # (7)
        return self._spread(x).to(self.dtype).reshape(n, *self.shape)

    @torch.no_grad()
    def sample_naive(self, n, u=None, x=None, known=0, y=None):
        """One pass a number, over the rows down to its own. What other samplers are measured by."""
        u, x, y = self._begin(n, u, x, known, y)
        for d in range(known, self.D):
            i, j, c = d // (self.W * self.C), d // self.C % self.W, d % self.C
            x[:, c, i, j] = self.decide(self.features(x[:, :, : i + 1], y)[:, c, :, i, j], u[:, c, i, j])  # the next factor of (2)
        return x.reshape(n, *self.shape)

    @torch.no_grad()
    def sample_jacobi(self, n, u=None, x=None, known=0, y=None):
        """All numbers at once, again and again until none changes: that is the sample of this noise, for the only x with (7) everywhere is it,
        and the d-th number is right after d passes at the latest.   -> the draws, and how many passes it took"""
        u, x, y = self._begin(n, u, x, known, y)
        free = self._spread(torch.arange(self.D, device=u.device)[None] >= known)
        passes, before = 0, None
        while before is None or not torch.equal(before, x):
            before, x, passes = x, torch.where(free, self.decide(self.features(x, y).movedim(2, -1), u), x), passes + 1
        return x.reshape(n, *self.shape), passes

    def _begin(self, n, u, x, known, y):
        """-> noise (n, C, H, W), x (n, C, H, W) with its first `known` numbers and 0 elsewhere, the classes (n)."""
        u, given = begun(n, self.D, u, x, known, next(self.parameters()), self.dtype)
        x = torch.where(self._spread(torch.arange(self.D, device=u.device)[None] < known), self._image(checked(given, self.shape, self.levels)), 0)
        if self.classes and y is None:
            y = torch.randint(self.classes, (n,), device=u.device)
        return self._spread(u), x, self._class(y, n)

    def _spread(self, u):  # (n, D) in order -> (n, C, H, W)
        return u.view(len(u), self.H, self.W, self.C).movedim(-1, 1)

    def _image(self, x):
        return x.reshape(len(x), self.C, self.H, self.W)

    def _class(self, y, n, needed=False):
        return self.check_y(y, n, needed)

    def pixel_order(self):
        return torch.arange(self.D).view(self.C, -1).T.flatten()


class PixelCNN(Raster):
    def __init__(self, shape, levels=2, width=64, blocks=5, gated=False, output="softmax", components=5, classes=0, dropout=0.0, first=7,
                 kernel=3, device=None, dtype=None):  # fmt: skip
        """shape of one image, (H, W) or (C, H, W) with colours C; width: channels; first, kernel: the sides of the first filter and of the others;
        components: logistics of a mixture; classes: log_prob and sample take a class y."""
        super().__init__(shape, levels, output, components, classes)
        if width < 1 or width % (2 * self.C):
            raise ValueError(f"width must be a multiple of 2 for each of {self.C} colours, got {width}")
        self.gated, to = gated, dict(colours=self.C, device=device, dtype=dtype)
        inputs = self.C * (1 + self.steps)
        if gated:
            self.enter = Gated(inputs, width, first, "A", classes, dropout, to)
            self.blocks = nn.ModuleList(Gated(width, width, kernel, "B", classes, dropout, to) for _ in range(blocks))
        else:
            self.enter = MaskedConv2d(inputs, width, first, "A", **to)
            self.blocks = nn.ModuleList(Residual(width, kernel, classes, dropout, to) for _ in range(blocks))
        self.between = MaskedConv2d(width, width, 1, "B", **to)
        self.out = MaskedConv2d(width, self.C * self.F, 1, "B", **to)
        if output == "mixture":
            spread_logistics(self.out, self.C, components)

    def features(self, x, y):
        x = self.embed(x)
        if self.gated:
            v, h = self.enter(x, x, y)
            for block in self.blocks:
                v, h = block(v, h, y)
        else:
            h = self.enter(x)
            for block in self.blocks:
                h = block(h, y)
        return self.out(F.relu(self.between(F.relu(h)))).unflatten(1, (self.C, self.F))

    def program(self):
        """`features` as the sampler reads it, layer by layer: layer a gives the streams 2 a + 1, and 2 a + 2 after its activation."""
        layers = []

        def add(taps, bias, act="relu", residual=None, rows=False):
            layers.append(Layer(taps, bias, act, residual, rows))
            return 2 * len(layers) - 1, 2 * len(layers)

        v = h = 0
        if self.gated:
            for layer in (self.enter, *self.blocks):
                v, h, after = layer.program(add, v, h)
        else:
            h, after = add(masked_taps(0, self.enter.weight, "A"), self.enter.bias)
            for block in self.blocks:
                h, after = block.program(add, h, after)
        _, after = add(masked_taps(after, self.between.weight, "B"), self.between.bias)
        add(masked_taps(after, self.out.weight, "B"), self.out.bias, "")
        return layers


def spread_logistics(out, C, K):
    """Begin with logistics side by side from -1 to 1, each as wide as its share."""
    with torch.no_grad():
        _, mu, log_s = out.bias.view(C, 3, K).unbind(1)
        mu += (2 * torch.arange(K, device=mu.device) + 1) / K - 1
        log_s -= math.log(2 * K)


class Residual(nn.Module):
    """The block of PixelCNN: half as many channels where the filter is wide."""

    def __init__(self, width, kernel, classes, dropout, to):
        super().__init__()
        self.W1 = MaskedConv2d(width, width // 2, 1, "B", **to)
        self.W2 = MaskedConv2d(width // 2, width // 2, kernel, "B", **to)
        self.W3 = MaskedConv2d(width // 2, width, 1, "B", **to)
        self.V = nn.Embedding(classes, width // 2, device=to["device"], dtype=to["dtype"]) if classes else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, h, y):
        z = self.W2(F.relu(self.W1(F.relu(h))))
        if self.V is not None:
            z = z + self.V(y)[:, :, None, None]
        return h + self.W3(self.dropout(F.relu(z)))  # (5)

    def program(self, add, h, after):  # the streams of h and relu(h)
        _, z = add(masked_taps(after, self.W1.weight, "B"), self.W1.bias)
        _, z = add(masked_taps(z, self.W2.weight, "B"), self.W2.bias if self.V is None else self.W2.bias + self.V.weight)
        return add(masked_taps(z, self.W3.weight, "B"), self.W3.bias, residual=h)


class Gated(nn.Module):
    """The layer of the gated PixelCNN: v sees the rows above, h its row to the left, and v. Kind "A" is the first: it leaves out the pixel
    itself from h, and its row from v; what follows may take in both."""

    def __init__(self, inputs, width, kernel, kind, classes, dropout, to):
        super().__init__()
        plain, self.kernel, self.kind = dict(device=to["device"], dtype=to["dtype"]), kernel, kind
        self.V = nn.Conv2d(inputs, 2 * width, (kernel // 2 + (kind == "B"), kernel), **plain)  # cropped: no tap of it is dead
        self.H = MaskedConv2d(inputs, 2 * width, (1, kernel), kind, **to)
        self.V_to_H = nn.Conv2d(2 * width, 2 * width, 1, **plain)  # all colours may see the rows above
        self.W = MaskedConv2d(width, width, 1, "B", **to)
        self.of_class = nn.Embedding(classes, 4 * width, **plain) if classes else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, v, h, y):
        side = self.kernel // 2
        below = self.V(F.pad(v, (side, side, side, 0 if self.kind == "B" else -1)))
        left = self.H(h) + self.V_to_H(below)
        if self.of_class is not None:
            v_y, h_y = self.of_class(y)[:, :, None, None].chunk(2, 1)
            below, left = below + v_y, left + h_y
        out = self.W(self.dropout(gate(left)))
        return gate(below), out if self.kind == "A" else h + out

    def program(self, add, v, h):  # the streams of v and h -> those of the next v, h and relu(h)
        v_y, h_y = self.of_class.weight.chunk(2, 1) if self.of_class is not None else (torch.zeros_like(self.V.bias), 0)
        across = self.V_to_H.weight[:, :, 0, 0].T  # it sees V without v_y, the stream is V with it
        below, v = add(row_taps(v, self.V.weight, self.kind), self.V.bias + v_y, "gate", rows=True)
        bias = self.H.bias + self.V_to_H.bias + h_y - v_y @ across
        _, left = add([*masked_taps(h, self.H.weight, self.kind), (below, 0, 0, ALL, across)], bias, "gate")
        return v, *add(masked_taps(left, self.W.weight, "B"), self.W.bias, residual=None if self.kind == "A" else h)


def gate(h):
    """(N, 2 K, h, W) -> (N, K, h, W); the pairs are neighbours, so that a channel stays with its colour."""
    return torch.tanh(h[:, 0::2]) * torch.sigmoid(h[:, 1::2])  # (6)


RECIPES = {  # tuned on the valid split alone: 1297 images overfit within a thousand steps
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
    "digits-mixture": {  # the neighbourhood of levels is in its form: the same net overfits later
        "data": "digits",
        "model": dict(width=32, blocks=3, gated=True, dropout=0.5, first=5, output="mixture", components=5),
        "train": dict(steps=1200, batch=64, rate=3e-3, shift=0.3, ema=0.99),
    },
    "paper": {  # the PixelCNN of "Pixel Recurrent Neural Networks", 7 layers: 81.30 nats, on MNIST with bits drawn once for all
        "data": "mnist-drawn",
        "model": dict(width=64, blocks=7),
        "train": dict(steps=300000, batch=16, rate=1e-3),
    },
}
