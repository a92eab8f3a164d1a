"""An image of the user's own as one of the images that a run has learnt from, and in words what was done to it.

    x, words = fitted("three.png", "digits-threshold", (8, 8))        x is (1, 8, 8) uint8, levels 0 and 1

The part in the middle with the form of the run's images is scaled to their size, as the data `images` do it. Of grey
images levels count ink: dark is ink, unless the border is dark; then light is ink. The data `images` know no such
exception, and colours stay as they are. 256 levels become the levels of the data, and these two levels where the data
are binary, by the same rule. What is 1 with a probability is drawn from one seed: equal images have equal draws.

    used by: genmini/ranking.py    test: tests/project/test_ranking.py
"""

import stat
from pathlib import Path

import numpy as np
import torch

from genmini import data, files
from genmini.settings import image

from . import digits, images

VERSIONS = {  # of binary data -> what a pixel is
    "threshold": "a pixel is 1 from level {half} of {top} on",
    "drawn": "a pixel is 1 with the probability level / {top}, drawn once",
    "dynamic": "a pixel is 1 with the probability level / {top}, drawn once",
}


def fitted(path, name, shape):
    """The image in this file for a model of the data `name` whose images have this shape -> x (1, *shape), words"""
    if data.kind(name) != "images":
        raise ValueError(f"{name} is {data.kind(name)}: only a run of images takes an image")
    (C, H, W), family, version = image(shape), data.family(name), name.rpartition("-")[2]
    content = _content(path)
    with images.errors_name(path):
        whole = images.decoded(content)
        pixels, part = images.cut(whole, (H, W), C == 3)
        in_colour = whole.mode == "RGB" and np.ptp(np.asarray(whole).astype(int), axis=2).any()
    words = [f"{whole.width} x {whole.height} pixels" + f", cut to {part[0]} x {part[1]}" * (part != whole.size)
             + f", scaled to {W} x {H}" * (part != (W, H))]
    if C == 3:
        words += [] if in_colour else ["grey: three equal channels"]
        return torch.from_numpy(pixels.copy())[None].view(1, *shape), "; ".join(words)
    words += ["colours became grey"] if in_colour else []
    light = family != "images" and np.median(_border(pixels)) < 128
    words.append("light is ink, as the border is dark" if light else "dark is ink")
    top = digits.LEVELS - 1 if family == "digits" else 255
    ink = (pixels if light else 255 - pixels).astype(int)
    x = torch.from_numpy(((2 * ink * top + 255) // 510).astype(np.uint8))[None].view(1, *shape)
    words += [f"256 levels became {top + 1}"] if top < 255 else []
    if version in VERSIONS:
        of_levels = data.Data(family, "test", x, torch.zeros(1, dtype=torch.int64), top + 1)
        x = getattr(of_levels, version)().x
        words.append(VERSIONS[version].format(half=(top + 1) // 2, top=top))
    return x, "; ".join(words)


def _content(path):
    files.check_name(path)
    path = Path(path)
    if not path.exists():
        raise ValueError(f"there is no image {path}")
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path} is {'a folder' if path.is_dir() else 'no file'}, and an image is a PNG or JPEG file")
    return images.content_of(path)


def _border(pixels):
    return np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
