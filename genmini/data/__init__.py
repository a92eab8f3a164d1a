"""Data sets by name, each with one fixed split into train, valid and test.

    train = genmini.data.load("digits-threshold", split="train")
    train.x          (N, 8, 8) uint8, each pixel a level 0 ... levels - 1         train.y       (N,) int64, the class
    train.levels     2                                                           train.shape   (8, 8)

    load("idx", "train", "fashion/")                             any set in MNIST's file format: genmini/data/idx.py
    load("images", "train", "photos/", size=32, colour=True)     PNG and JPEG images: genmini/data/images.py
    load("shapes", "train", size=32)                             drawn scenes with captions: genmini/data/shapes.py
    load("shapes", "train", size=32, captions=4)                 y are captions, of 4 sentences of each image
    load("captions", "train")                                    sentences without images: genmini/data/captions.py
    load("csv", "train", "shop.csv", column="sold")              a column of numbers: genmini/data/series_file.py

Points of the plane and series of numbers are floating and have no levels (None). toys.TOYS holds the toys' densities.
Text is x (N, L), the numbers of words (genmini/data/text.py): 0 ends a text and fills its row, levels is how many
numbers there are, and `words` has the words.

A name ends in how its levels were made binary, because likelihoods of different versions do not compare. `digits` has
17 levels. `digits-threshold` is 1 where a pixel reaches half of the highest level: the same bits at every epoch.
`digits-drawn` is 1 with the probability x / 16, drawn once for all. `digits-dynamic` is drawn anew for every batch that
`batch` returns; its `x`, on which models are judged, is that of `digits-drawn`. `digits-unpaired` has 17 levels and two
sets of images, to translate between: genmini/data/unpaired.py.
"""

import functools
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from . import (
    captions,
    captions_file,
    digits,
    home,
    idx,
    images,
    mnist,
    series,
    series_file,
    shapes,
    shapes_captions,
    text,
    toys,
    unpaired,
)
from ._options import chosen, family, in_colour, kind  # noqa: F401  data.kind, data.in_colour

SPLITS = ("train", "valid", "test")
OWN = ("idx", "images")  # the user's own images: always from a folder


@dataclass(frozen=True)
class Data:
    name: str
    split: str
    x: torch.Tensor  # (N, *shape)
    y: torch.Tensor  # (N,) classes, or (N, L) numbers of words
    levels: int | None  # None: real numbers
    grey: torch.Tensor | None = None  # (N, *shape): of dynamic data, the levels that x was drawn from
    brightest: int = 1  # the highest level of grey
    classes: int | None = None  # how many y tells apart: 0 without labels; None: it is not known
    source: dict | None = None  # of the user's own data: its folder, and the count and SHA-256 that identify it
    scenes: shapes.Scenes | None = None  # of shapes, what each image shows
    words: text.Words | None = None  # of text, and of captioned images, what the numbers mean
    ways: torch.Tensor | None = None  # (N, K, L): of captioned images, K captions of each; y is the first, (N, L)

    def __len__(self):
        return len(self.x)

    @property
    def count(self):
        """How many examples; of one series, how many numbers."""
        return len(self.x) if len(self.x) > 1 else self.x.numel()

    @property
    def shape(self):
        return tuple(self.x.shape[1:])

    @functools.cached_property
    def captions(self):
        """Of shapes, a sentence that is true of each image, and of images that were loaded with captions the first of
        each: always the same, a list of N."""
        if self.scenes is None and self.ways is not None:
            return self.words.decode(self.y)
        if self.scenes is None:
            raise ValueError(f"{self.name} has no captions: shapes has, and images that are loaded with captions=K")
        return shapes_captions.captions(self.scenes, seed=SPLITS.index(self.split))

    def threshold(self):
        """Binary: 1 where x >= (levels - 1) / 2, half of the highest level."""
        x = (2 * self.x.int() >= self.levels - 1).to(torch.uint8)
        return replace(self, name=f"{self.name}-threshold", x=x, levels=2)

    def dynamic(self):
        """Binary: 1 with the probability x / (levels - 1). It is always the same draw: NumPy keeps this stream."""
        u = np.random.RandomState(SPLITS.index(self.split)).randint(self.levels - 1, size=self.x.shape, dtype=np.uint8)
        x = (torch.from_numpy(u) < self.x).to(torch.uint8)
        return replace(self, name=f"{self.name}-dynamic", x=x, levels=2, grey=self.x, brightest=self.levels - 1)

    def drawn(self):
        """Binary: the one draw of `dynamic`, for all epochs."""
        return replace(self.dynamic(), name=f"{self.name}-drawn", grey=None)

    def captioned(self, K):
        """With captions for y. Of shapes, the first of each image is that of `captions`, and K - 1 are other sentences
        that are true of it; some may be the same. Of images, they are those of a file: genmini/data/captions_file.py.
        """
        if self.scenes is None:
            return self._captioned_by_file(K)
        others = [shapes_captions.captions(self.scenes, seed=[SPLITS.index(self.split), k]) for k in range(1, K)]
        ways = [captions.WORDS.encode(each, captions.LENGTH) for each in (self.captions, *others)]
        ways = torch.stack(ways, 1).to(torch.uint8)
        return replace(self, y=ways[:, 0], classes=0, words=captions.WORDS, ways=ways)

    def _captioned_by_file(self, K):
        folder = self.source["folder"]
        (paths, own), (_, train) = (images.find(split, folder) for split in (self.split, "train"))
        of_image = captions_file.read(folder, paths)
        words, ways = captions_file.ways(of_image, train, own, K)
        # the vocabulary and the length of a row, which are of train, say what the numbers mean
        content = json.dumps([self.source["sha256"], [of_image[each] for each in own], words.vocabulary, ways.shape[2]])
        source = self.source | dict(sha256=hashlib.sha256(content.encode()).hexdigest())
        return replace(self, y=ways[:, 0], classes=0, words=words, ways=ways, source=source)

    def batch(self, n, noise):
        """The rows n of x and y. Of dynamic data, x are new draws, and of captioned images, y is one of the captions of
        each: drawn by `noise`, a generator of the CPU."""
        x = self.x.index_select(0, n) if self.grey is None else None  # in half the time of x[n]
        y = self.y.index_select(0, n) if self.ways is None else None
        if x is None:
            u = torch.randint(self.brightest, (len(n), *self.shape), generator=noise, dtype=torch.uint8)
            x = (u.to(self.grey.device) < self.grey[n]).to(torch.uint8)
        if y is None:
            k = torch.randint(self.ways.shape[1], (len(n),), generator=noise)
            y = self.ways[n, k.to(n.device)]
        return x, y

    def to(self, device):
        to = lambda tensor: None if tensor is None else tensor.to(device)
        return replace(self, x=to(self.x), y=to(self.y), grey=to(self.grey), ways=to(self.ways))


def _digits(split, folder):
    x, y = digits.read(split)
    return Data("digits", split, torch.from_numpy(x), torch.from_numpy(y).long(), digits.LEVELS, classes=10)


def _unpaired(split, folder):
    whole = _digits(split, folder)
    x, y = unpaired.halves(whole.x, whole.levels, SPLITS.index(split))
    return Data("digits-unpaired", split, x, y, whole.levels, classes=2)


def _mnist(split, folder):
    x, y = mnist.read(split, folder)
    return Data("mnist", split, torch.from_numpy(x), torch.from_numpy(y).long(), mnist.LEVELS, classes=10)


def _idx(split, folder):
    x, y, classes = idx.read(split, folder)
    sha256 = hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest()
    return _own("idx", split, x, y, classes, folder, sha256)


def _images(split, folder, size, colour):
    x, y, classes, sha256 = images.read(split, folder, size, colour)
    return _own("images", split, x, y, classes, folder, sha256)


def _own(name, split, x, y, classes, folder, sha256):
    source = dict(folder=str(Path(folder).resolve()), count=len(x), sha256=sha256)
    return Data(name, split, torch.from_numpy(x), torch.from_numpy(y), 256, classes=classes, source=source)


def _toy(name):
    def read(split, folder):
        x, k = toys.read(name, split)
        return Data(name, split, torch.from_numpy(x), torch.from_numpy(k), None, classes=toys.TOYS[name].K)

    return read


def _captions(split, folder):
    x, words = captions.numbers(split, captions.COUNT[split]).clone(), captions.WORDS
    return Data("captions", split, x, torch.zeros(len(x), dtype=torch.int64), len(words), classes=0, words=words)


def _series(split, folder):
    x, year = series.read(split)  # one series; y is the year that it begins in
    return Data("series", split, torch.from_numpy(x)[None], torch.tensor([year]), None, classes=0)


def _csv(split, path, column=None):
    x, before = series_file.read(split, path, column)
    source = dict(folder=str(Path(path).resolve()), count=len(x), sha256=hashlib.sha256(x.tobytes()).hexdigest())
    return Data("csv", split, torch.from_numpy(x)[None], torch.tensor([before]), None, classes=0, source=source)


def _shapes(name, colour=True):
    def read(split, folder, size, scenes=0):
        scenes, y = shapes.read(name, split, scenes if scenes and split == "train" else None)
        x = torch.from_numpy(shapes.draw(scenes, size, colour))
        return Data(name if colour else f"{name}-grey", split, x, torch.from_numpy(y), 256,
                    classes=shapes.MIXES[name].classes, scenes=scenes)

    return read


def _binary(name, what, read, of, where):
    """The set `name` and its three binary versions; what: its images in words; of: its highest level."""
    half = (of + 1) // 2
    version = lambda how: lambda *given, **options: getattr(read(*given, **options), how)()
    return {
        name: (f"{what}, {of + 1} levels ({where})", read),
        f"{name}-threshold": (f"{what}, binary: level {half} and above ({where})", version("threshold")),
        f"{name}-drawn": (f"{what}, binary: 1 with probability level / {of}, drawn once ({where})", version("drawn")),
        f"{name}-dynamic": (f"{what}, binary: the same, drawn for every batch ({where})", version("dynamic")),
    }


SETS = {  # name -> (what it is, the function that reads a split from a folder; of images, also with a size and colour)
    **_binary("digits", "8x8 handwritten digits", _digits, 16, "embedded"),
    "digits-unpaired": ("half of the digits, and the others thick and inverted; y says which (embedded)", _unpaired),
    **_binary("mnist", "28x28 handwritten digits", _mnist, 255, "from --data-dir, or downloaded"),
    **_binary("idx", "grey images in MNIST's file format", _idx, 255, "from --data-dir"),
    **_binary("images", "PNG and JPEG images, --size N, grey or --colour", _images, 255, "from --data-dir"),
    **{name: (f"{mix.what}, --size N (drawn)", _shapes(name)) for name, mix in shapes.MIXES.items()},
    **_binary("shapes-grey", "`shapes` without colours, --size N", _shapes("shapes", False), 255, "drawn"),
    "captions": ("sentences about scenes of `shapes` and its kin, without images (made)", _captions),
    **{name: (f"points of the plane: {toy.what} (made, density known)", _toy(name)) for name, toy in toys.TOYS.items()},
    "series": ("yearly sunspot numbers 1700-1919, -1954, -2008 (embedded)", _series),
    "csv": ("a series of your own, a column of numbers, --column NAME (from --path)", _csv),
}


def check(name):
    if name not in SETS:
        raise ValueError(f"unknown data {name!r}; the data sets are {', '.join(SETS)}")


def options(name, size=None, colour=False, captions=0, scenes=0, column=None):
    """What `load` takes beside name, split and folder, checked: {} of all data but `images`, `shapes` and `csv`."""
    check(name)
    return chosen(name, size, colour, captions, scenes, column)


def load(name, split="train", folder=None, size=None, colour=False, captions=0, scenes=0, column=None):
    """A split of a data set.

    folder: where data lies that is not embedded (default: GENMINI_DATA; of MNIST, else the user's cache); of `csv` the
    file, and column: its column, by name or by number from 1 (default: the only one).
    size: of the data `images` and `shapes`, the side in pixels (default: 32). colour: whether `images` keep theirs.
    captions: of `images` and `shapes`, how many sentences of each image y is drawn from; 0: y is a class.
    scenes: of `shapes`, how many the train split has; 0: shapes.COUNT.
    """
    its = options(name, size, colour, captions, scenes, column)
    K = its.pop("captions", 0)
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    if folder is not None and family(name) not in (*OWN, "mnist", "csv"):
        raise ValueError(f"{name} lies in no folder, and {str(folder)!r} is given: leave --data-dir out")
    if family(name) in OWN:
        folder = home.find(folder, needed_by=name)
    read = SETS[name][1](split, folder, **its)
    return read.captioned(K) if K else read


def of_run(metadata, split, folder=None):
    """A split of the data that a run was trained on; ValueError if it is not the same. metadata: the run's run.json.

    folder: where the data lies now (default: where it lay in training).
    """
    if "data" not in metadata:
        raise ValueError("run.json does not name the data of the run: load them by genmini.data.load")
    source = metadata.get("source")
    lay_in = source["folder"] if source else None
    data = load(metadata["data"], split, folder or lay_in, **metadata.get("options", {}))
    check_same(data, source)
    return data


def record(splits):
    """What a run keeps of the user's own data, for `of_run`; None for other data. splits: {name: Data}"""
    if splits["train"].source is None:
        return None
    identity = {name: {key: data.source[key] for key in ("count", "sha256")} for name, data in splits.items()}
    return {"folder": splits["train"].source["folder"], "splits": identity}


def check_same(data, record):
    """ValueError if this split of the user's own data is not the one on record."""
    if record is None:
        return
    then, now = record["splits"][data.split], data.source
    if (then["count"], then["sha256"]) != (now["count"], now["sha256"]):
        of, where = ("numbers", "file by --path") if data.name == "csv" else ("images", "folder by --data-dir")
        has, had = (f"{one['count']} {of} with SHA-256 {one['sha256'][:12]}..." for one in (now, then))
        raise ValueError(f"{now['folder']} does not hold the data of this run: its {data.split} split has {has}, "
                         f"and the run's had {had}; it lay in {record['folder']}: name the right {where}")
