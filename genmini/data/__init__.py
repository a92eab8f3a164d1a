"""Named data sets, each with one fixed split into train, valid and test.

    train = genmini.data.load("digits-threshold", split="train")
    train.x          (N, 8, 8) uint8, each pixel a level 0 ... levels - 1          train.y       (N,) int64, the class
    train.levels     2                                                            train.shape   (8, 8)

A name ends in how its levels were made binary, so that numbers are never compared across: `digits` has its 17 levels, `digits-threshold` is
1 where a pixel reaches half of the brightest (static: the same bits at every epoch).
"""

from dataclasses import dataclass

import torch

from . import digits

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Data:
    name: str
    split: str
    x: torch.Tensor  # (N, *shape)
    y: torch.Tensor  # (N,)
    levels: int

    def __len__(self):
        return len(self.x)

    @property
    def shape(self):
        return tuple(self.x.shape[1:])

    def threshold(self):
        """Binary: x >= (levels - 1) / 2, half of the brightest level."""
        return Data(f"{self.name}-threshold", self.split, (2 * self.x.int() >= self.levels - 1).to(torch.uint8), self.y, 2)


def _digits(split):
    x, y = digits.read(split)
    return Data("digits", split, torch.from_numpy(x), torch.from_numpy(y).long(), digits.LEVELS)


SETS = {  # name -> (what it is, the function that reads a split)
    "digits": ("8x8 handwritten digits, 17 levels (embedded)", _digits),
    "digits-threshold": ("8x8 handwritten digits, binary: level 8 and above (embedded)", lambda split: _digits(split).threshold()),
}


def load(name, split="train"):
    if name not in SETS:
        raise ValueError(f"unknown data {name!r}; the data sets are {', '.join(SETS)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    return SETS[name][1](split)
