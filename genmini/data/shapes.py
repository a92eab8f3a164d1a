"""Scenes of coloured shapes, drawn by the project: unlimited, the same bits everywhere, none in two splits.

A scene is a ground and objects, each a colour, a shape, a size and the centre of its box in units of 1/64 of the side,
x to the right and y downwards. No unit depends on the number of pixels: 16, 32, 48 and 64 show the same scene, and an
image of 16 pixels is the image of 64 averaged over squares of 4x4, up to rounding.

    inside, for an object of radius r at distance (dx, dy) from its centre:
    circle    dx^2 + dy^2 <= r^2                       square    max(|dx|, |dy|) <= r
    triangle  dy <= r and 2 |dx| <= dy + r             cross     max(|dx|, |dy|) <= r and 3 min(|dx|, |dy|) <= r

A pixel is ground and colour in the proportion in which 384x384 samples of the image lie in the object, as integers, so
that no bit depends on how a processor rounds. Boxes keep GAP units between them: no pixel holds parts of two objects.

The objects of a scene, without its ground, decide the split that it belongs to, by a hash of 64 bits. So no scene of
one split can be in another, whatever the seed, the set and the number of scenes; a scene may come again in its own.

    captions: genmini/data/shapes_captions.py    reader: genmini/data/shapes_reader.py
    test: tests/project/test_data_shapes.py
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

COLOURS = {"red": (225, 40, 40), "green": (40, 170, 60), "blue": (40, 80, 230), "yellow": (250, 215, 40),
           "purple": (150, 40, 190), "cyan": (40, 205, 220)}
SHAPES = "circle", "square", "triangle", "cross"
RADIUS = {"small": 7, "big": 11}  # half of the side of an object's box, in units
GROUNDS = {"white": (245, 245, 245), "grey": (190, 190, 190), "black": (20, 20, 20)}
SIDES = 16, 32, 48, 64  # of an image, in pixels
UNITS = 64  # of the side of every image
GAP, EDGE = 4, 2  # units between two boxes, and between a box and the border
FINE = 384  # samples along a side of the image
PER_UNIT = FINE // UNITS


@dataclass(frozen=True)
class Object:
    colour: str | None  # None: read from a grey image
    shape: str
    size: str
    x: int
    y: int


@dataclass(frozen=True)
class Scene:
    objects: tuple  # of Object; kept from top to bottom, whatever the order given
    ground: str | None  # None: read from a grey image

    def __post_init__(self):
        object.__setattr__(self, "objects", tuple(sorted(self.objects, key=lambda o: (o.y, o.x))))


@dataclass(frozen=True, eq=False)
class Scenes(Sequence):
    """N scenes as whole numbers: what `draw` takes. An index gives a Scene, a slice Scenes."""

    objects: np.ndarray  # (N, M, 5): the numbers of colour, shape and size, x, y; -1 where there is no object
    ground: np.ndarray  # (N,)

    def __len__(self):
        return len(self.ground)

    def __getitem__(self, n):
        if isinstance(n, slice):
            return Scenes(self.objects[n], self.ground[n])
        colours, sizes = list(COLOURS), list(RADIUS)
        rows = [row for row in self.objects[n].tolist() if row[0] >= 0]
        objects = (Object(colours[c], SHAPES[k], sizes[s], x, y) for c, k, s, x, y in rows)
        return Scene(tuple(objects), list(GROUNDS)[self.ground[n]])

    @staticmethod
    def of(scenes):
        """A list of Scene -> Scenes"""
        colours, sizes, grounds = list(COLOURS), list(RADIUS), list(GROUNDS)
        objects = np.full((len(scenes), max((len(scene.objects) for scene in scenes), default=0), 5), -1)
        for row, scene in zip(objects, scenes, strict=True):
            for m, o in enumerate(scene.objects):
                row[m] = colours.index(o.colour), SHAPES.index(o.shape), sizes.index(o.size), o.x, o.y
                r = RADIUS[o.size]
                if not (r <= o.x <= UNITS - r and r <= o.y <= UNITS - r):
                    raise ValueError(f"the centre of a {o.size} object lies at {r} to {UNITS - r} units, got {o}")
        return Scenes(objects, np.array([grounds.index(scene.ground) for scene in scenes], np.int64))


# ---- the sets ------------------------------------------------------------------------------------------------------

PAIRS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
HELD_OUT = ("green", "circle"), ("yellow", "square"), ("red", "triangle"), ("blue", "cross")  # `shapes` has none
SEEN = tuple(pair for pair in PAIRS if pair not in HELD_OUT)
FEW = {(1,): 25, (1, 1): 40, (2,): 8, (3,): 7, (2, 1): 10, (1, 1, 1): 10}
COUNT = {"train": 20_000, "valid": 1_000, "test": 2_000}  # scenes of a split, where no other number is given
MOST = 1_000_000  # scenes of a split


@dataclass(frozen=True)
class Mix:
    """What the scenes of a set are made of: things, each of one or more equal objects."""

    what: str
    things: dict  # {how many objects each thing has: in how many scenes of 100}
    pairs: tuple = SEEN  # the colour and shape of a thing; those of two things differ
    first: tuple = ()  # the same of the first thing, if it has others
    sizes: tuple = tuple(RADIUS)
    class_is: str = "count"  # or "shape", of the first object

    @property
    def counts(self):
        return sorted({sum(each) for each in self.things})

    @property
    def classes(self):
        return len(SHAPES) if self.class_is == "shape" else len(self.counts)


_of = lambda shape: tuple(pair for pair in PAIRS if pair[1] == shape)
MIXES = {
    "shapes": Mix("scenes of 1 to 3 coloured shapes with captions", FEW),
    "shapes-pairs": Mix("the same with a colour of a shape that `shapes` never shows", FEW, first=HELD_OUT),
    "shapes-counts": Mix("4 or 5 equal shapes: counts that `shapes` never shows", {(4,): 50, (5,): 50},
                         sizes=("small",)),
    "shapes-one": Mix("one coloured shape, which is the class", {(1,): 100}, PAIRS, class_is="shape"),
    "shapes-circles": Mix("scenes of 1 to 3 circles", FEW, _of("circle")),
    "shapes-squares": Mix("scenes of 1 to 3 squares, other scenes than those of circles", FEW, _of("square")),
}


def read(name, split, n=None):
    """-> n Scenes, always the same, and their classes (n,) int64. More scenes begin with the fewer.

    n: default, that of COUNT.
    """
    mix, n = MIXES[name], COUNT[split] if n is None else n
    index, parts, found = list(COUNT).index(split), [], 0
    while not parts or found < n:
        random = np.random.RandomState([list(MIXES).index(name), index, len(parts)])  # NumPy keeps this stream
        invented = invent(mix, random, 1024)
        of_split = split_of(invented) == index
        parts.append((invented.objects[of_split], invented.ground[of_split]))
        found += of_split.sum()
    scenes = Scenes(*(np.concatenate(each)[:n] for each in zip(*parts, strict=True)))
    if mix.class_is == "shape":
        return scenes, scenes.objects[:, 0, 1]
    return scenes, (scenes.objects[:, :, 0] >= 0).sum(1) - min(mix.counts)


def invent(mix, random, n):
    """n Scenes of this mix, of whatever split; random: a RandomState"""
    whole = lambda most, *shape: np.floor(random.random_sample(shape) * most).astype(np.int64)  # 0 ... most - 1
    M, most = max(mix.counts), max(map(len, mix.things))
    layouts = np.array([[g for g, count in enumerate(each) for _ in range(count)] + [-1] * (M - sum(each))
                        for each in mix.things])  # to which thing each object belongs; -1: none
    layout = layouts[np.repeat(np.arange(len(layouts)), list(mix.things.values()))[whole(100, n)]]  # (n, M)
    number = lambda pairs: np.array([[list(COLOURS).index(c), SHAPES.index(k)] for c, k in pairs])
    pair = number(mix.pairs)[random.random_sample((n, len(mix.pairs))).argsort(1)[:, :most]]  # (n, things, 2): differ
    if mix.first:
        pair[:, 0] = number(mix.first)[whole(len(mix.first), n)]  # in none of mix.pairs
    size = np.array([list(RADIUS).index(each) for each in mix.sizes])[whole(len(mix.sizes), n, most)]
    thing = np.concatenate([pair, size[:, :, None]], 2)  # (n, things, 3)
    is_object = layout >= 0
    radius = np.array([*RADIUS.values()])[np.take_along_axis(size, layout.clip(0), 1)] * is_object
    place = _places(radius, random)
    objects = np.concatenate([np.take_along_axis(thing, layout.clip(0)[:, :, None], 1), place], 2)
    objects[~is_object] = -1
    order = np.where(is_object, place[:, :, 1] * UNITS + place[:, :, 0], UNITS**2).argsort(1, kind="stable")
    return Scenes(np.take_along_axis(objects, order[:, :, None], 1), whole(len(GROUNDS), n))


def _places(radius, random, tries=32):
    """(n, M) -> the centres (n, M, 2) of boxes that lie in the image and apart. radius: 0 for no object, these last.

    Objects are placed one after another; where one finds no place in so many tries, its scene is begun again.
    """
    n, M = radius.shape
    place, left = np.zeros((n, M, 2), np.int64), np.arange(n)
    while len(left):
        r, fits = radius[left], np.ones(len(left), bool)
        for m in range(M):
            lowest = EDGE + r[:, m, None, None]
            u = random.random_sample((len(left), tries, 2))
            tried = lowest + np.floor(u * (UNITS + 1 - 2 * lowest)).astype(np.int64)
            apart = np.abs(tried[:, :, None] - place[left][:, None, :m]).max(3)  # (n, tries, m)
            free = (apart >= r[:, None, :m] + r[:, None, m : m + 1] + GAP).all(2)
            place[left, m] = tried[np.arange(len(left)), free.argmax(1)]
            fits &= free.any(1) | (r[:, m] == 0)
        left = left[~fits]
    return place


def split_of(scenes):
    """The split that each of Scenes belongs to, as its index in train, valid, test: (N,), whatever its ground."""
    h = np.zeros(len(scenes), np.uint64)
    for m in range(scenes.objects.shape[1]):
        colour, shape, size, x, y = scenes.objects[:, m].T
        code = ((((colour * len(SHAPES) + shape) * len(RADIUS) + size) * UNITS + x) * UNITS + y + 1).astype(np.uint64)
        mixed = (h ^ code) * np.uint64(0x9E3779B97F4A7C15)  # modulo 2^64
        mixed = (mixed ^ mixed >> np.uint64(29)) * np.uint64(0xBF58476D1CE4E5B9)
        h = np.where(colour >= 0, mixed ^ mixed >> np.uint64(32), h)
    return np.array([2, 1, 0, 0, 0, 0, 0, 0])[h >> np.uint64(61)]  # of eight, one is for test and one for valid


# ---- drawing -------------------------------------------------------------------------------------------------------


def check_side(side):
    if type(side) is not int or side not in SIDES:
        raise ValueError(f"size must be {', '.join(map(str, SIDES[:-1]))} or {SIDES[-1]} pixels for scenes of shapes, "
                         f"got {side!r}")


def draw(scenes, side, colour=True):
    """Scenes, or a list of Scene -> images (N, 3, side, side) uint8; without colour (N, side, side), objects of 255 on
    a ground of 0."""
    check_side(side)
    scenes = scenes if isinstance(scenes, Scenes) else Scenes.of(scenes)
    masks, period = templates(side)
    w, full = masks.shape[-1], (FINE // side) ** 2
    palette = _palette(full) if colour else _palette(full, dict.fromkeys(COLOURS, (255,)), dict.fromkeys(GROUNDS, (0,)))
    x = np.empty((len(scenes), len(palette), side, side), np.uint8)
    for first in range(0, len(scenes), 500):  # what lies between stays small
        part = scenes[first : first + 500]
        tone = np.zeros((len(part), side + w, side + w), np.int32)  # windows may reach over the border
        tone += (part.ground * len(COLOURS) * (full + 1)).astype(np.int32)[:, None, None]
        for m in range(part.objects.shape[1]):
            n = np.flatnonzero(part.objects[:, m, 0] >= 0)
            c, shape, size, *centre = part.objects[n, m].T
            corner = [(v - np.array([*RADIUS.values()])[size]) * PER_UNIT for v in centre]  # x, y in samples
            (j, i), (b, a) = zip(*(divmod(v, FINE // side) for v in corner), strict=True)  # the pixel, the place in it
            mask = masks[shape, size, a // period, b // period]  # (n, w, w)
            at = n[:, None, None], (i[:, None] + np.arange(w))[:, :, None], (j[:, None] + np.arange(w))[:, None]
            of_colour = ((part.ground[n] * len(COLOURS) + c) * (full + 1)).astype(np.int32)[:, None, None]
            tone[at] = np.where(mask, of_colour + mask, tone[at])  # no two objects in a pixel
        for channel, values in enumerate(palette):
            np.take(values, tone[:, :side, :side], out=x[first : first + 500, channel])
    return x if colour else x[:, 0]


def _palette(full, colours=COLOURS, grounds=GROUNDS):
    """The value of a channel by ground, colour, and how many of a pixel's samples are of that colour, (C, tones)."""
    covered = np.arange(full + 1)[:, None]
    mixed = [[(2 * ((full - covered) * np.array(ground) + covered * np.array(colour)) + full) // (2 * full)
              for colour in colours.values()] for ground in grounds.values()]  # rounded, halves upwards
    return np.array(mixed).reshape(-1, np.shape(mixed)[-1]).T.astype(np.uint8)


@functools.cache
def templates(side):
    """-> how many samples of each pixel an object covers, (shapes, sizes, phases, phases, w, w), and the period:
    a phase is the number of periods by which the upper left corner lies below, then to the right of, a pixel's."""
    pixel = FINE // side  # in samples
    period = math.gcd(pixel, PER_UNIT)
    phases, widest = pixel // period, 2 * max(RADIUS.values()) * PER_UNIT
    w = -(-(widest + pixel - period) // pixel)
    masks = np.zeros((len(SHAPES), len(RADIUS), phases, phases, w, w), np.int32)
    for k, shape in enumerate(SHAPES):
        for s, radius in enumerate(RADIUS.values()):
            inside = _inside(shape, radius)
            for a in range(phases):
                for b in range(phases):
                    whole = np.zeros((w * pixel, w * pixel), np.int64)
                    whole[a * period :, b * period :][: len(inside), : len(inside)] = inside
                    masks[k, s, a, b] = whole.reshape(w, pixel, w, pixel).sum((1, 3))
    return masks, period


def _inside(shape, radius):
    """Which samples of its box an object covers; distances in half samples, so that they are whole numbers."""
    r = 2 * PER_UNIT * radius
    d = np.arange(1 - r, r, 2)
    dy, dx = d[:, None], d[None]
    near, far = np.minimum(abs(dx), abs(dy)), np.maximum(abs(dx), abs(dy))
    return {"circle": dx**2 + dy**2 <= r**2, "square": far <= r, "triangle": 2 * abs(dx) <= dy + r,
            "cross": 3 * near <= r}[shape]
