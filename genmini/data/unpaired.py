"""Two sets without pairs: digits, and other digits made thick and inverted.

X are images v in [0, 1] as they are. Y are made of other images: each pixel gives half of its ink to its right
neighbour, then half of what it has now to the one below, and ink becomes paper:

    v_hw <- 1 - (1 - v_hw) (1 - v_h,w-1 / 2),    then    v_hw <- 1 - (1 - v_hw) (1 - v_h-1,w / 2)   (1)
    y = 1 - v, rounded to a level                                                                   (2)

Ink of two sources in one pixel adds up as if one missed the other by chance, so a stroke gets thicker, to the right and
below, and no pixel loses ink. Both steps of (1) can be undone exactly, from the top and from the left; what the
rounding loses comes back as an error of some levels at few pixels.

In each split one fixed random half of the images is X (the class 0), and the other is changed to Y (the class 1): no
image is in both. They keep their places, so row n of the split is made of row n of the original, which is the truth
that a translation is measured by. Nothing learns from it.

    measured by: genmini/metrics/translation.py    test: tests/project/test_translation.py
"""

import numpy as np
import torch

OF = {"digits-unpaired": "digits"}  # name -> the set whose images it was made of


def change(x, levels):
    """Levels (N, H, W) of X -> those of Y, uint8"""
    v = x.double() / (levels - 1)
    for dim in (2, 1):
        v = 1 - (1 - v) * (1 - before(v, dim) / 2)  # (1)
    return ((1 - v) * (levels - 1)).round().to(torch.uint8)  # (2)


def undo(y, levels):
    """Levels (N, H, W) of Y, whole or not -> those of X, float64 and not rounded"""
    v = 1 - y.double() / (levels - 1)
    for dim in (1, 2):
        lines, line = [], torch.zeros((), dtype=v.dtype)
        for changed in v.unbind(dim):
            line = (1 - (1 - changed) / (1 - line / 2)).clamp(0, 1)
            lines.append(line)
        v = torch.stack(lines, dim)
    return v * (levels - 1)


def before(v, dim):
    """Each pixel's left (dim 2) or upper (dim 1) neighbour; 0 outside the image"""
    return torch.cat([torch.zeros_like(v.narrow(dim, 0, 1)), v.narrow(dim, 0, v.shape[dim] - 1)], dim)


def halves(x, levels, seed):
    """Images (N, H, W) of X -> the same with one half changed to Y; y (N,): 0 for X, 1 for Y"""
    order = np.random.RandomState(seed).permutation(len(x))  # a stream that NumPy promises never to change
    y = torch.zeros(len(x), dtype=torch.int64)
    y[torch.from_numpy(order[len(x) // 2 :])] = 1
    return torch.where(y[:, None, None] == 1, change(x, levels), x), y


def counterparts(x, y, original, levels):
    """The true translation of each row x, of the set y, that was made of the row of `original`"""
    return torch.where(y[:, None, None] == 1, original, change(x, levels))
