"""Named data sets, each with one fixed split into train, valid and test.

    train = genmini.data.load("digits-threshold", split="train")
    train.x          (N, 8, 8) uint8, each pixel a level 0 ... levels - 1          train.y       (N,) int64, the class
    train.levels     2                                                            train.shape   (8, 8)

Points of the plane and series of numbers are floating and have no levels (None); the densities of the toys are in genmini.data.toys.

A name ends in how its levels were made binary, so that numbers are never compared across: `digits` has its 17 levels, `digits-threshold` is
1 where a pixel reaches half of the brightest (static: the same bits at every epoch), `digits-drawn` is 1 with the probability x / 16, drawn
once for all (static too), and `digits-dynamic` is drawn anew for every batch that `batch` gives out; its `x`, by which models are compared, is
the draw of `digits-drawn`.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from . import digits, mnist, series, toys

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Data:
    name: str
    split: str
    x: torch.Tensor  # (N, *shape)
    y: torch.Tensor  # (N,)
    levels: int | None  # None: real numbers
    grey: torch.Tensor | None = None  # (N, *shape): of dynamic data, the levels that x was drawn from,
    brightest: int = 1  # the highest of them

    def __len__(self):
        return len(self.x)

    @property
    def shape(self):
        return tuple(self.x.shape[1:])

    def threshold(self):
        """Binary: x >= (levels - 1) / 2, half of the brightest level."""
        return replace(self, name=f"{self.name}-threshold", x=(2 * self.x.int() >= self.levels - 1).to(torch.uint8), levels=2)

    def dynamic(self):
        """Binary: 1 with the probability x / (levels - 1). What is drawn here is the same always: a stream that NumPy promises to keep."""
        u = np.random.RandomState(SPLITS.index(self.split)).randint(self.levels - 1, size=self.x.shape, dtype=np.uint8)
        x = (torch.from_numpy(u) < self.x).to(torch.uint8)
        return replace(self, name=f"{self.name}-dynamic", x=x, levels=2, grey=self.x, brightest=self.levels - 1)

    def drawn(self):
        """Binary: the draw of `dynamic`, and no other."""
        return replace(self.dynamic(), name=f"{self.name}-drawn", grey=None)

    def batch(self, n, noise):
        """The rows n of x; those of dynamic data are drawn anew, by the generator `noise` of a CPU."""
        if self.grey is None:
            return self.x[n]
        u = torch.randint(self.brightest, (len(n), *self.shape), generator=noise, dtype=torch.uint8)
        return (u.to(self.grey.device) < self.grey[n]).to(torch.uint8)

    def to(self, device):
        return replace(self, x=self.x.to(device), y=self.y.to(device), grey=None if self.grey is None else self.grey.to(device))


def _digits(split, folder=None):
    x, y = digits.read(split)
    return Data("digits", split, torch.from_numpy(x), torch.from_numpy(y).long(), digits.LEVELS)


def _mnist(split, folder):
    x, y = mnist.read(split, folder)
    return Data("mnist", split, torch.from_numpy(x), torch.from_numpy(y).long(), mnist.LEVELS)


def _toy(name):
    def read(split, folder):
        x, k = toys.read(name, split)
        return Data(name, split, torch.from_numpy(x), torch.from_numpy(k), None)

    return read


def _series(split, folder):
    x, year = series.read(split)
    return Data("series", split, torch.from_numpy(x)[None], torch.tensor([year]), None)  # one series, y the year it begins in


SETS = {  # name -> (what it is, the function that reads a split from a folder, where it needs one)
    "digits": ("8x8 handwritten digits, 17 levels (embedded)", _digits),
    "digits-threshold": ("8x8 handwritten digits, binary: level 8 and above (embedded)", lambda *at: _digits(*at).threshold()),
    "digits-drawn": ("8x8 handwritten digits, binary: 1 with probability level / 16, drawn once (embedded)", lambda *at: _digits(*at).drawn()),
    "digits-dynamic": ("8x8 handwritten digits, binary: the same, drawn for every batch (embedded)", lambda *at: _digits(*at).dynamic()),
    "mnist": ("28x28 handwritten digits, 256 levels (from --data-dir, or downloaded)", _mnist),
    "mnist-threshold": ("28x28 handwritten digits, binary: level 128 and above (the same)", lambda *at: _mnist(*at).threshold()),
    "mnist-drawn": ("28x28 handwritten digits, binary: 1 with probability level / 255, drawn once (the same)", lambda *at: _mnist(*at).drawn()),
    "mnist-dynamic": ("28x28 handwritten digits, binary: the same, drawn for every batch (the same)", lambda *at: _mnist(*at).dynamic()),
    **{name: (f"points of the plane: {toy.what} (made, density known)", _toy(name)) for name, toy in toys.TOYS.items()},
    "series": ("yearly sunspot numbers 1700-1919, -1954, -2008 (embedded)", _series),
}


def check(name):
    if name not in SETS:
        raise ValueError(f"unknown data {name!r}; the data sets are {', '.join(SETS)}")


def kind(name):
    return "points of the plane" if name in toys.TOYS else "a series" if name == "series" else "images"


def load(name, split="train", folder=None):
    """folder: where data that is not embedded lies, or shall lie (default: GENMINI_DATA, else genmini/ in the user's cache)."""
    check(name)
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    return SETS[name][1](split, folder)
