"""Regression: a network makes an image of a part of it, with the least squared error: the mean of all that it could be.

The course, on what a regressor learns of colourisation; Bishop, "Mixture Density Networks", 1994, on means of several
answers; Zhang, Isola, Efros, "Colorful Image Colorization", 2016, on the grey-brown images that they give.

    c = c(x_0)                                                                              (1)
    f(c) = U(c)                                                                             (2)
    loss = |f(c) - x_0|^2 / D                                                               (3)

Of all functions of c, f(c) = E[x_0 | c] has the least expected loss. Where c leaves a choice, it is no image that could
be: between red and green it is brown. A model that draws x_0 from p(x_0 | c), as genmini/models/diffusion.py with
the same `given`, has twice the error: with x' and x_0 two draws from p(x_0 | c),

    E |x' - x_0|^2 = 2 E |E[x_0 | c] - x_0|^2 = E |x' - x''|^2

and so the distance between two draws, x' and x'', is that between a draw and the truth. `genmini study restore` prints
all three. x_0 = 2 x / (L-1) - 1 are the levels on [-1, 1]; U is the U-Net of the diffusion, at the time 0.

    c: genmini/conditions.py    network: genmini/nets/unet.py    test: tests/models/test_regressor.py
"""

import torch

from genmini import conditions
from genmini.models._model import Model
from genmini.nets.unet import UNet
from genmini.settings import image, whole


class Regressor(Model):
    unit = "squared error"

    def __init__(self, shape, levels=2, given="dark", width=32, multiples=(1, 2), blocks=1, attention=1,
                 upsample="nearest", dropout=0.0, device=None, dtype=None):
        """given: c of (1), "dark", "grey", "half" or "quarter"; width to dropout: of the U-Net."""
        whole(2, 256, levels=levels)
        c, C = conditions.channels(given, shape), image(shape)[0]
        super().__init__(shape, levels)
        self.given = given
        self.net = UNet(c, C, width, multiples, blocks, attention, upsample=upsample, dropout=dropout)
        self.place(device, dtype)

    def f(self, x_0):
        """x_0 (N, C, H, W), of which only c is seen -> the mean image, (N, C, H, W)"""
        c = conditions.shown(x_0, self.given)  # (1)
        return self.net(c, torch.zeros(len(c), device=c.device))  # (2)

    def loss(self, x, y=None):
        """(N, *shape) -> (N,)"""
        x_0 = self.x_0(self.check(x, y)[0])
        return (self.f(x_0) - x_0).square().flatten(1).mean(1)  # (3)

    @torch.no_grad()
    def restore(self, x, y=None):
        """(N, *shape) -> the mean image f(c) in levels, (N, *shape)"""
        mean = self.f(self.x_0(self.check(x, y)[0]))
        return self.in_levels(mean).clamp(0, self.levels - 1)


RECIPES = {  # the sizes and the rate are those of the diffusion; a mean is learnt in fewer steps
    **{
        name: {
            "data": "shapes",
            "model": dict(width=16, multiples=(1, 2, 4), attention=attention, given=given),
            "train": dict(steps=steps, batch=32, rate=2e-3, ema=0.99, every=200),
            "threads": 1,
        }
        for name, given, attention, steps in (
            ("colourise", "dark", 2, 1500), ("enlarge-2", "half", 1, 1000), ("enlarge-4", "quarter", 1, 1000),
        )
    },
    "colour": {  # not tuned
        "data": "images",
        "model": dict(width=32, multiples=(1, 2, 2), given="grey"),
        "train": dict(steps=5000, batch=32, rate=1e-3, ema=0.999, every=500),
    },
}
