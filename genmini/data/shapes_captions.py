"""Captions of scenes: what a scene's sentence may say, how it is written and read, and whether it is true of a scene.

    caption  = [opening] (thing | thing relation thing | thing {"," thing} "and" thing) [ground]
    thing    = count [size] [colour] shape [place]
    count    = "a" | "two" | ... | "nine"                     size     = "small" | "big"
    colour   = "red" | "green" | ... | "cyan"                 shape    = "circle" | ... | "cross" | "shape"
    place    = "in the top left" | ... | "in the centre" ...  relation = "left of" | "right of" | "above" | "below"
    ground   = "on a white ground" | ...                      opening  = "a picture of" | "there is" | "there are"

Several words mean the same (WAYS): "disc" is "circle", "to the left of" is "left of". Every other word is an error that
names the nearest one that the grammar has.

A caption is true of a scene if all of the scene's objects can be dealt out to its things, to each as many as it counts,
so that every object is what its thing says. So "a red circle" is false of two red circles, and of a red circle beside a
blue square. A place is one of nine parts of the image (x and y below 24, to 40, above), and each object of the thing
lies in it: "at the top" is the middle of the top alone. "A left of B": each of A lies left of each of B, and the mean
of A is further from that of B across than down. So at most one relation holds, and its converse is false.

`describe` says of a scene only what is clear: a place 2 units from its border, a relation by more than 4. Its
things differ in colour or shape and it names both, unless there is one thing. That is why no word of it can be changed
for another of its kind and leave it true.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np

from .shapes import COLOURS, GROUNDS
from .text import nearest, split

COUNTS = "a", "two", "three", "four", "five", "six", "seven", "eight", "nine"
PLACES = ("in the top left", "at the top", "in the top right", "on the left", "in the centre", "on the right",
          "in the bottom left", "at the bottom", "in the bottom right")  # by row, then by column
RELATIONS = "left of", "right of", "above", "below"
PLURAL = {"box": "boxes", "cross": "crosses", "plus": "pluses"}
UPPER = {"top": "upper", "bottom": "lower"}

WAYS = {  # kind -> {meaning: how it is said, the plain way first}
    "count": {1: ("a", "one", "a single"), 2: ("two", "a pair of"),
              **{n: (word,) for n, word in enumerate(COUNTS, 1) if n > 2}},
    "size": {"small": ("small", "little"), "big": ("big", "large")},
    "colour": {colour: (colour,) for colour in COLOURS} | {"purple": ("purple", "violet")},
    "shape": {"circle": ("circle", "disc"), "square": ("square", "box"), "triangle": ("triangle",),
              "cross": ("cross", "plus"), None: ("shape", "thing")},
    "place": {place: (place, *(place.replace(word, UPPER[word]) for word in UPPER if f"in the {word}" in place))
              for place in PLACES} | {"in the centre": ("in the centre", "in the middle")},
    "relation": {"left of": ("left of", "to the left of"), "right of": ("right of", "to the right of"),
                 "above": ("above", "over"), "below": ("below", "under")},
    "ground": {ground: tuple(f"on a {ground} {word}" for word in ("ground", "background")) for ground in GROUNDS},
    "opening": {True: ("a picture of", "there is", "there are")},
}
EXAMPLE = "a small red circle left of two blue squares"
GRAMMAR = "; ".join(f"the {kind}s " + ", ".join(ways[0] for ways in WAYS[kind].values()) for kind in (
    "colour", "shape", "size", "count", "relation", "place", "ground")) + f"; an example: {EXAMPLE!r}"


@dataclass(frozen=True)
class Thing:
    """One or more equal objects; None is what a caption does not say."""

    count: int
    size: str | None = None
    colour: str | None = None
    shape: str | None = None
    place: str | None = None

    def fits(self, object):
        return (self.size in (None, object.size) and self.colour in (None, object.colour)
                and self.shape in (None, object.shape) and self.place in (None, place(object)))


@dataclass(frozen=True)
class Caption:
    things: tuple  # of Thing
    relation: str | None = None  # of the first of two things to the second
    ground: str | None = None

    def says(self, kind):
        """What its things say of a kind, as "colour", a list: None where one says nothing"""
        return [getattr(thing, kind) for thing in self.things]

    def only(self, *kept):
        """The caption with no more than its counts and these of size, colour, shape, place, relation and ground."""
        dropped = {key: None for key in ("size", "colour", "shape", "place") if key not in kept}
        rest = {key: None for key in ("relation", "ground") if key not in kept}
        return replace(self, things=tuple(replace(thing, **dropped) for thing in self.things), **rest)


# ---- true or false ---------------------------------------------------------------------------------------------------


def true_of(caption, scene):
    """Whether the caption, a Caption or its text, is true of the Scene."""
    caption = parse(caption) if isinstance(caption, str) else caption
    if caption.ground not in (None, scene.ground):
        return False
    deals = dealt(caption.things, scene.objects)
    return any(not caption.relation or relation(*given) == caption.relation for given in deals)


def dealt(things, objects):
    """Every way to give each thing as many objects as it counts, which fit it, so that none is left."""
    if not things:
        if not objects:
            yield ()
        return
    fitting = [n for n, object in enumerate(objects) if things[0].fits(object)]
    for given in itertools.combinations(fitting, things[0].count):
        rest = tuple(object for n, object in enumerate(objects) if n not in given)
        for others in dealt(things[1:], rest):
            yield (tuple(objects[n] for n in given), *others)


def place(object):
    return PLACES[3 * _third(object.y) + _third(object.x)]


def _third(v):
    return (v >= 24) + (v > 40)


def relation(A, B, clear=0):
    """How the objects A lie to the objects B, one of RELATIONS, or None. clear: units by which it is so."""
    for axis, (less, more) in (("x", RELATIONS[:2]), ("y", RELATIONS[2:])):
        a, b = ([getattr(o, axis) for o in objects] for objects in (A, B))
        across = [abs(len(B) * sum(getattr(o, v) for o in A) - len(A) * sum(getattr(o, v) for o in B)) for v in "xy"]
        further = (across[0] - across[1]) * (1 if axis == "x" else -1)  # len(A) len(B) times the units
        if further > clear * len(A) * len(B):
            return less if max(a) < min(b) else more if min(a) > max(b) else None
    return None


# ---- a sentence of a scene -------------------------------------------------------------------------------------------


def captions(scenes, seed=0):
    """A sentence of each Scene, a list of str: always the same."""
    random = np.random.RandomState(seed)  # NumPy keeps this stream
    return [write(describe(scene, random), random) for scene in scenes]


def describe(scene, random):
    """What is clear of a Scene, some of it -> Caption. random: a RandomState decides what."""
    chance = lambda p: random.random_sample() < p
    alike = {}
    for object in scene.objects:
        alike.setdefault((object.size, object.colour, object.shape), []).append(object)
    groups = [[*alike.values()][n] for n in random.random_sample(len(alike)).argsort(kind="stable")]
    pairs = [key[1:] for key in alike]
    things = []
    for objects in groups:
        size, colour, shape = objects[0].size, objects[0].colour, objects[0].shape
        needs_size = pairs.count((colour, shape)) > 1  # else two things would have one description
        named = Thing(len(objects), size if needs_size or chance(0.6) else None, colour, shape)
        if len(groups) == 1 and chance(0.2):
            named = replace(named, **{("colour", "shape")[chance(0.5)]: None})
        where = _clear_place(objects)
        things.append((named, replace(named, place=where) if where and chance(0.6) else named))
    ground = scene.ground if chance(0.3) else None
    related = relation(*groups, clear=4) if len(groups) == 2 else None
    if related and chance(0.8):
        return Caption(tuple(plain for plain, _ in things), related, ground)
    return Caption(tuple(placed for _, placed in things), None, ground)


def _clear_place(objects):
    """The place in which all of them lie, at least 2 units from its border; or None."""
    clear = all(_third(v - 2) == _third(v + 2) for o in objects for v in (o.x, o.y))
    places = {place(object) for object in objects}
    return places.pop() if clear and len(places) == 1 else None


def write(caption, random=None):
    """Caption -> text: the plain words, or with a RandomState any that mean the same."""
    any_of = lambda ways: ways[int(random.random_sample() * len(ways))]
    choose = lambda ways: ways[0] if random is None or random.random_sample() < 0.5 else any_of(ways)
    things = [_write_thing(thing, choose) for thing in caption.things]
    opening = ""
    if random and random.random_sample() < 0.3:
        opening = any_of(("a picture of ", "there is " if caption.things[0].count == 1 else "there are "))
    if caption.relation:
        text = f"{things[0]} {choose(WAYS['relation'][caption.relation])} {things[1]}"
    else:
        text = " and ".join([", ".join(things[:-1])] * (len(things) > 1) + things[-1:])
    return opening + text + (f" {choose(WAYS['ground'][caption.ground])}" if caption.ground else "")


def _write_thing(thing, choose):
    noun = choose(WAYS["shape"][thing.shape])
    noun = noun if thing.count == 1 else plural(noun)
    before = [choose(WAYS[kind][getattr(thing, kind)]) for kind in ("count", "size", "colour") if getattr(thing, kind)]
    return " ".join([*before, noun, *([choose(WAYS["place"][thing.place])] if thing.place else [])])


def plural(noun):
    return PLURAL.get(noun, f"{noun}s")


# ---- and back --------------------------------------------------------------------------------------------------------

_READ = {  # kind -> {the words, as a tuple: what they mean}, the longest first
    kind: dict(sorted(((tuple(way.split()), meaning) for meaning, ways in meanings.items()
                       for way in (*ways, *(map(plural, ways) if kind == "shape" else ()))),
                      key=lambda item: -len(item[0])))
    for kind, meanings in WAYS.items()
}
VOCABULARY = tuple(sorted({"and", ","} | {word for words in _READ.values() for way in words for word in way}))


def parse(text):
    """Text -> Caption; ValueError, with what the grammar takes, if it is none."""
    words = split(text)
    unknown = next((word for word in words if word not in VOCABULARY), None)
    if unknown:
        near = nearest(unknown, VOCABULARY)
        raise ValueError(f"captions of shapes have no word {unknown!r}; the nearest that they have is {near!r} "
                         f"among {', '.join(word for word in VOCABULARY if word != ',')}")
    rest = _Words(words)
    rest.take("opening")
    things, related = [_parse_thing(rest)], rest.take("relation")
    if related:
        things.append(_parse_thing(rest))
    while not related and rest.words and rest.words[0] in (",", "and"):
        last = rest.words.pop(0) == "and"
        things.append(_parse_thing(rest))
        if last:
            break
    ground = rest.take("ground")
    if rest.words:
        rest.wrong("'and', one relation of two things, as 'left of', a ground, as 'on a white ground', or its end")
    return Caption(tuple(things), related, ground)


def _parse_thing(rest):
    count = rest.take("count") or rest.wrong(f"a number, {', '.join(COUNTS)}")
    size, colour = rest.take("size"), rest.take("colour")
    if not rest.starts("shape"):
        rest.wrong("a shape, " + ", ".join(ways[0] for ways in WAYS["shape"].values()))
    return Thing(count, size, colour, rest.take("shape"), rest.take("place"))


def exchanged(text):
    """A caption with the two things of its relation exchanged, in its own words: false wherever the caption is true. ""
    if it has no relation, is no caption, or says nothing that tells the things apart: counts alone do not, as the first
    of three circles in a row is left of the other two, and the first two are left of the last."""
    try:
        caption = parse(text)
    except ValueError:
        return ""
    words = (set(caption.says(kind)) - {None} for kind in ("size", "colour", "shape", "place"))
    if not caption.relation or not any(len(each) == 2 for each in words):
        return ""
    rest = _Words(split(text))
    opening, one, related, other = (rest.took(take) for take in (
        lambda: rest.take("opening"), lambda: _parse_thing(rest), lambda: rest.take("relation"),
        lambda: _parse_thing(rest)))
    if opening[:1] == ["there"]:
        opening = ["there", "is" if caption.things[1].count == 1 else "are"]
    return " ".join([*opening, *other, *related, *one, *rest.words])


class _Words:
    """What is left of a caption's words."""

    def __init__(self, words):
        self.words, self.all = list(words), list(words)

    def starts(self, kind):
        return next((way for way in _READ[kind] if tuple(self.words[: len(way)]) == way), None)

    def take(self, kind):
        """What the next words mean, if they are of this kind; else None."""
        way = self.starts(kind)
        del self.words[: len(way or ())]
        return _READ[kind].get(way)

    def took(self, take):
        """The words that take() takes."""
        before = list(self.words)
        take()
        return before[: len(before) - len(self.words)]

    def wrong(self, wanted):
        before = " ".join(self.all[: len(self.all) - len(self.words)]).replace(" ,", ",")
        begins = f"after {before!r} a caption goes on with" if before else "a caption begins with"
        found = repr(self.words[0]) if self.words else "its end"
        raise ValueError(f"{begins} {wanted}, got {found}; an example: {EXAMPLE!r}")
