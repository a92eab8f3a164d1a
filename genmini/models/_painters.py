"""The diffusions of Imagen: one draws an image of a text, the others enlarge it to twice its sides, each by the text.

    c_1 ... c_l = A(W e_1, ..., W e_l)                                                      (1)
    F(x_t, t, c) = x_0,   by attention of pixels to c_1 ... c_l                             (2)
    F(x_t, t, c, d, u) = x_0,   d = sqrt(1 - u^2) half(x_0) + u e,   e ~ N(0, I)            (3)

e_l are numbers that a language model has at each place of a text (genmini/models/imagen.py). A in (1) is a small
transformer; it is learnt with the diffusion, and so is W. One half of its heads reads what stands before a word, the
other half what stands after it ("sided"), because "left of" says one thing of the noun before it and the converse of
the noun after it. With heads that read both sides the diffusion learns which colours there are and not which belongs
where: after 6000 steps of 32 channels, with noise of t = 700, 56% of 200 valid captions with a relation had a smaller
error than with their two things exchanged, and with sided heads it was 84%.

(2) is genmini/models/diffusion.py's: the loss, guidance, samplers and thresholds. half(x_0) are means of squares of 2x2
pixels (genmini/conditions.py).

A sample of (2), which is enlarged by (3), is not half of an image of the data, though nearly: its mistakes are small,
and such as (3) has never seen. So (3) learns from images with noise, u uniform on [0, MOST], and is told u, which the
input has as one more channel; where a sample is enlarged a little noise hides its mistakes (Ho et al., "Cascaded
Diffusion Models for High Fidelity Image Generation", 2022: conditioning augmentation).

    network: genmini/nets/unet.py    used by: imagen.py and dalle2.py of genmini/models
    test: tests/models/test_imagen_larger.py
"""

import torch
from torch import nn

from genmini import conditions
from genmini.models.diffusion import Diffusion
from genmini.nets.transformer import Transformer
from genmini.settings import image, number

MOST = 0.5  # the u of training


class Reader(Diffusion):
    """A diffusion whose pixels attend to vectors: `read` makes of y what `estimate` takes, c (N, l, vector) and which
    of them there are. It is part of a model, which gives it every y."""

    captions = 1  # it takes y

    def x_and_y(self, x, y):
        return self.check(x)[0], y

    def classes_or_drawn(self, y, n):
        return y

    def estimate(self, x, log_snr, y):
        c, mask = y
        return self.net(x, log_snr, context=c, mask=mask)  # (2)


class Painter(Reader):
    """A Reader of texts: y (N, L, E + 1), the last number 1 where there is a vector."""

    def __init__(self, shape, levels, length, E, vector, adapter, heads, device=None, dtype=None, **settings):
        """E: of y; vector: the length of c_l; adapter, heads: blocks and heads of A."""
        super().__init__(shape, levels, context=vector, placed=True, device=device, dtype=dtype, **settings)
        self.W, self.A = nn.Linear(E, vector), Transformer(length, vector, adapter, heads, sided=True)
        nn.init.normal_(self.W.weight, std=E**-0.5)  # W e_l then vary by about 1
        nn.init.normal_(self.A.position, std=0.5)
        for part in (self.W, self.A):
            part.to(device=self.device, dtype=self.dtype)

    def hidden(self, y, which):
        there = y[:, :, -1:] * ~which[:, None, None]
        there[:, :1] = 1  # e_1 stays
        return torch.cat([y[:, :, :-1], there], 2)

    def read(self, y):
        mask = y[:, :, -1] > 0
        return self.A(self.W(y[:, :, :-1]), mask), mask  # (1)


class Enlarger(Painter):
    """A Painter that sees half of the image, with noise; `sample` takes as x images of which half(x) is enlarged."""

    def __init__(self, shape, noise=0.1, **settings):
        """noise: u where it does not learn"""
        number(least=0, most=MOST, noise=noise)
        super().__init__(shape, given="half", **settings)
        self.noise = noise

    def further(self):
        return super().further() + 1

    def estimate(self, x, log_snr, y):
        """What the network gives is added to d, so that it begins with an image that is only blurred."""
        C = image(self.shape)[0]
        return super().estimate(x, log_snr, y) + (x[:, C : 2 * C] if self.target == "x0" else 0)

    def shown(self, x_0, generator=None):
        half = conditions.part(x_0, self.given)
        draw = lambda f, *shape: f(*shape, generator=generator, device=x_0.device, dtype=x_0.dtype)
        u = torch.full((len(half), 1, 1, 1), self.noise, device=x_0.device, dtype=x_0.dtype)
        if self.training:
            u = MOST * draw(torch.rand, len(half), 1, 1, 1)
        d = (1 - u.square()).sqrt() * half + u * draw(torch.randn, *half.shape)  # (3)
        return torch.cat([conditions.enlarged(d, x_0.shape[-2:]), u.expand(-1, 1, *x_0.shape[-2:])], 1)
