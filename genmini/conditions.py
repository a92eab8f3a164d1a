"""What a model is given of an image: c(x), a fixed map of the image itself, so that any images are data to learn from.

    dark       c = the least of the channels           what a model adds: colours
    grey       c = the mean of the channels            colours
    upper      c = the upper half of the rows          the other half: several futures of one beginning
    half       c = the means of squares of 2x2 pixels  super-resolution x2
    quarter    c = the means of squares of 4x4 pixels  super-resolution x4

A U-Net sees c enlarged to the sides of x, bilinearly, as further channels of its input, a half with 0 in the place of
the other; a CVAE as so many numbers. Pixels that are known of an image of which a model draws the rest are no c: `mask`
says which they are, and what is drawn keeps them. `unmasked` names some masks by what they hide.

How many images have the same c decides what can be learnt. The six colours of genmini/data/shapes.py have different
means, 90, 102, 117, 127, 155 and 168 of 255: "grey" tells each colour from the others. Their least channel is 40 in
all of them, and every ground has equal channels: "dark" shows the scene and says nothing about its colours.

    used by: cvae.py, diffusion.py, _painters.py and regressor.py of genmini/models
    test: tests/models/test_regressor.py
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F

from genmini.data import images
from genmini.settings import image, one_of, whole

SQUARE = {"half": 2, "quarter": 4}  # pixels along the side of a square
GIVEN = ("dark", "grey", "upper", *SQUARE)
MASKS = ("upper", "lower", "left", "right", "centre", "stripes")  # what they hide


def channels(given, shape):
    """How many channels c has, of images of this shape; ValueError if they have no such c. given: "" is nothing"""
    if not given:
        return 0
    one_of(GIVEN, given=given)
    C, H, W = image(shape)
    k = SQUARE.get(given, 1)
    if H % k or W % k:
        raise ValueError(f"given={given!r} takes images whose sides {k} divides, got {H}x{W}")
    return C if given in SQUARE or given == "upper" else 1


def part(x, given):
    """c of images (N, C, H, W), (N, c, h, w)"""
    if given in SQUARE:
        return F.avg_pool2d(x, SQUARE[given])
    if given == "upper":
        return x[..., : x.shape[-2] // 2, :]
    return x.amin(1, keepdim=True) if given == "dark" else x.mean(1, keepdim=True)


def shown(x, given):
    """c of images (N, C, H, W), enlarged to their sides, (N, c, H, W)"""
    c = part(x, given)
    if given == "upper":
        return F.pad(c, (0, 0, 0, x.shape[-2] - c.shape[-2]))
    return enlarged(c, x.shape[-2:]) if given in SQUARE else c


def enlarged(c, sides):
    """(N, c, h, w) -> (N, c, *sides), bilinearly"""
    return F.interpolate(c, sides, mode="bilinear", align_corners=False)


def pictured(x, given):
    """c of images (N, [C,] H, W) in levels, to look at: enlarged, one channel in the place of all, in the shape of x"""
    images = x.reshape(len(x), *image(x.shape[1:])).float()
    return shown(images, given).expand_as(images).reshape(x.shape)


def mask(known, shape, order):
    """The pixels of an image of this shape that are known, (C, H, W) bool. known: a mask of them, (*shape), or how many
    there are, the first in `order`, a permutation of all."""
    if isinstance(known, torch.Tensor):
        last_first = zip(known.shape[::-1], shape[::-1], strict=False)  # known may have fewer dimensions
        if known.dim() > len(shape) or any(a not in (1, b) for a, b in last_first):
            raise ValueError(f"known must be a mask of shape {shape}, got {tuple(known.shape)}")
        return known.bool().expand(shape).reshape(image(shape))
    D = math.prod(shape)
    whole(0, D, known=known)
    return torch.zeros(D, dtype=torch.bool).index_fill(0, order[:known], True).view(image(shape))


def unmasked(name, shape):
    """The pixels of images of this shape that a mask leaves, (*shape) bool. name: of MASKS; "random:SHARE", the same
    pixels every time; or a PNG or JPEG file, whose dark pixels hide what lies below them."""
    C, H, W = image(shape)
    hidden = torch.zeros(H, W, dtype=torch.bool)
    if name.startswith("random:"):
        hidden.view(-1)[torch.randperm(H * W, generator=torch.Generator().manual_seed(0))[: _count(name, H * W)]] = True
    elif Path(name).suffix.lower() in images.SUFFIXES:
        if H != W:
            raise ValueError(f"a mask from a file is square, and these images have {H}x{W} pixels")
        hidden = torch.from_numpy(images.image(Path(name).read_bytes(), H, False, name) >= 128)  # dark ink is 255
    elif name not in MASKS:
        raise ValueError(f"mask must be {', '.join(MASKS)}, random:SHARE, or a .png or .jpg file, got {name!r}")
    else:
        rows, columns = {"upper": (slice(H // 2), slice(W)), "lower": (slice(H // 2, H), slice(W)),
                         "left": (slice(H), slice(W // 2)), "right": (slice(H), slice(W // 2, W)),
                         "centre": (slice(H // 4, H - H // 4), slice(W // 4, W - W // 4)),
                         "stripes": (slice(H), torch.arange(W) // max(1, W // 8) % 2 == 1)}[name]
        hidden[rows, columns] = True
    if not hidden.any():
        raise ValueError(f"the mask {name} hides nothing of {H}x{W} pixels")
    return ~hidden.expand(C, H, W).reshape(shape)


def _count(name, pixels):
    try:
        share = float(name.partition(":")[2])
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ValueError(f"random:SHARE hides a share above 0 and at most 1, got {name!r}")
    return round(share * pixels)
