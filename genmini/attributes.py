"""Measure an image of one drawn shape: its area, length, thickness, slant, width and height, in pixels.

(N, H, W) -> (N,). Every v in [0, 1] counts as that much ink. There is no threshold and no skeleton, so that a little
ink changes a measure by little. Outside the image, v is 0.

    area         A = sum v
    length, thickness      the sides l >= t of the rectangle that has the area A = l t and the perimeter P = 2 (l + t)
                 of the shape; if the perimeter is too short for any rectangle, as that of a disc, l = t = P / 4. P
                 sums the differences of neighbours, horizontally and vertically with the weight root 2 - 1, diagonally
                 with 1 - 1/root 2, so that straight edges along the axes and along the diagonals have their true
                 length; four corners, of the brightest ink, are added to it
    slant        the slope of the line through the rows' means: by how many columns the ink moves right in the row above
    width, height          the sides of a box whose ink has the same variance along the columns and along the rows:
                 root(12 variance + 1)

The sides are exact for a full rectangle of whole pixels. The slant is exact for a bar each row of which is shifted by
the same amount. An empty image has 0 in all.
"""

import math

import torch
import torch.nn.functional as F

NAMES = ("area", "length", "thickness", "slant", "width", "height")


def measure(v):
    """The six measures of each image, in the order of NAMES.   v (N, H, W) in [0, 1] -> (N, 6)"""
    v = v if v.is_floating_point() else v.float()
    area, peak = v.sum((1, 2)), v.flatten(1).amax(1)
    padded = F.pad(v, (1, 1, 1, 1))
    between = lambda a, b: (a - b).abs().sum((1, 2))
    straight = between(padded[:, 1:], padded[:, :-1]) + between(padded[:, :, 1:], padded[:, :, :-1])
    diagonal = between(padded[:, 1:, 1:], padded[:, :-1, :-1]) + between(padded[:, 1:, :-1], padded[:, :-1, 1:])
    perimeter = (math.sqrt(2) - 1) * straight + (1 - math.sqrt(0.5)) * (diagonal + 4 * peak)
    half = perimeter / 4
    root = (half.square() - area).clamp(min=0).sqrt()
    length, thickness = half + root, half - root

    mass = area.clamp(min=torch.finfo(v.dtype).tiny)
    row, column = (torch.arange(side, device=v.device, dtype=v.dtype) for side in v.shape[1:])
    mean = lambda a: (v * a).sum((1, 2)) / mass
    up, right = mean(-row[:, None]), mean(column)
    up, right = -row[:, None] - up[:, None, None], column - right[:, None, None]  # from the middle of the ink
    slant = mean(up * right) / mean(up.square()).clamp(min=torch.finfo(v.dtype).tiny)
    there = (area > 0).to(v.dtype)
    width, height = ((12 * mean(off.square()) + 1).sqrt() * there for off in (right, up))
    return torch.stack([area, length, thickness, slant, width, height], 1)
