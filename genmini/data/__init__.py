"""Named data sets, each with one fixed split into train, valid and test.

    train = genmini.data.load("digits-threshold", split="train")
    train.x          (N, 8, 8) uint8, each pixel a level 0 ... levels - 1          train.y       (N,) int64, the class
    train.levels     2                                                            train.shape   (8, 8)

Points of the plane and series of numbers are floating and have no levels (None); the densities of the toys are in genmini.data.toys.

A name ends in how its levels were made binary, so that numbers are never compared across: `digits` has its 17 levels, `digits-threshold` is
1 where a pixel reaches half of the brightest (static: the same bits at every epoch).
"""

from dataclasses import dataclass

import torch

from . import digits, series, toys

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Data:
    name: str
    split: str
    x: torch.Tensor  # (N, *shape)
    y: torch.Tensor  # (N,)
    levels: int | None  # None: real numbers

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


def _toy(name):
    def read(split):
        x, k = toys.read(name, split)
        return Data(name, split, torch.from_numpy(x), torch.from_numpy(k), None)

    return read


def _series(split):
    x, year = series.read(split)
    return Data("series", split, torch.from_numpy(x)[None], torch.tensor([year]), None)  # one series, y the year it begins in


SETS = {  # name -> (what it is, the function that reads a split)
    "digits": ("8x8 handwritten digits, 17 levels (embedded)", _digits),
    "digits-threshold": ("8x8 handwritten digits, binary: level 8 and above (embedded)", lambda split: _digits(split).threshold()),
    **{name: (f"points of the plane: {toy.what} (made, density known)", _toy(name)) for name, toy in toys.TOYS.items()},
    "series": ("yearly sunspot numbers 1700-1919, -1954, -2008 (embedded)", _series),
}


def load(name, split="train"):
    if name not in SETS:
        raise ValueError(f"unknown data {name!r}; the data sets are {', '.join(SETS)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    return SETS[name][1](split)
