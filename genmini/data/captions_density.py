"""How probable is a sentence of `captions`? What a language model of them can reach at best.

A sentence has one meaning, which `parse` finds, and is written in one of several ways:

    p(text) = P(text | caption) P(caption)
    P(caption) = sum over mixes and layouts of their share, times P(pairs) P(ground) P(sizes, places, relation)

The first factors follow from the rules of genmini/data/shapes_captions.py and genmini/data/shapes.py. Places and
relations follow from where objects fit, which has no formula: they are counted among N scenes of each layout. So
the mean of -log p over the test sentences is 14.752 nats, and 14.750 with five times as many scenes.

    test: tests/project/test_captions_density.py    used by: genmini/studies/words.py
"""

import functools
import itertools
import math

import numpy as np

from . import shapes
from .captions import OF_TEN
from .shapes_captions import PLACES, RELATIONS, WAYS, parse, plural

N = 20_000  # scenes of a layout


def log_prob(sentence):
    """log p of a sentence, in nats; ValueError if it is none of the grammar"""
    caption = parse(sentence)
    p = sum(share / 10 * _of_mix(caption, shapes.MIXES[name]) for name, share in OF_TEN.items())
    p *= 0.3 / len(shapes.GROUNDS) if caption.ground else 0.7
    p *= _written(" ".join(sentence.lower().replace(",", " ,").replace(".", " ").split()), _slots(caption))
    return math.log(p) if p else -math.inf


# ---- how it is written: genmini/data/shapes_captions.py, `write` -----------------------------------------------------


def _ways(ways):
    """{way: how probable it is}, of several that mean the same: the plain one, or with 1/2 any"""
    return {way: 0.5 * (way == ways[0]) + 0.5 / len(ways) for way in ways}


def _slots(caption):
    """What is written one after another, each {words: how probable they are}"""
    begins = "there is" if caption.things[0].count == 1 else "there are"
    slots = [{"": 0.7, "a picture of": 0.15, begins: 0.15}]
    for n, thing in enumerate(caption.things):
        if n and caption.relation:
            slots.append(_ways(WAYS["relation"][caption.relation]))
        elif n:
            slots.append({"and" if n == len(caption.things) - 1 else ",": 1.0})
        given = [("count", thing.count), ("size", thing.size), ("colour", thing.colour), ("shape", thing.shape),
                 ("place", thing.place)]
        for kind, meaning in given:
            if meaning or kind == "shape":
                ways = _ways(WAYS[kind][meaning])
                many = kind == "shape" and thing.count > 1
                slots.append({plural(way) if many else way: p for way, p in ways.items()})
    return [*slots, _ways(WAYS["ground"][caption.ground])] if caption.ground else slots


def _written(text, slots):
    """How probable it is that these slots are written as this text"""
    if not slots:
        return float(not text)
    fits = ((words, p) for words, p in slots[0].items() if f"{text} ".startswith(f"{words} ") or not words)
    return sum(p * _written(text[len(words) :].strip(), slots[1:]) for words, p in fits)


# ---- what it says: `describe`, and the mixes of genmini/data/shapes.py -----------------------------------------------


def _of_mix(caption, mix):
    """P(things, relation) of scenes of this mix"""
    counts, total = tuple(thing.count for thing in caption.things), sum(mix.things.values())
    layout = tuple(sorted(counts, reverse=True))
    if layout not in mix.things:
        return 0.0
    orders = len({*itertools.permutations(counts)})  # in which things are named
    dropped = 0.2 / 2 if len(counts) == 1 else 0.0  # of one thing the colour, or the shape, is left out
    thing = caption.things[0]
    p = (1 - 2 * dropped if thing.colour and thing.shape else dropped) * _pairs(caption.things, mix, layout)
    return mix.things[layout] / total / orders * p * _where(caption, counts, mix.sizes)


def _pairs(things, mix, layout):
    """P of the colours and shapes; several, where one of them is not said"""
    fitting = [[pair for pair in (*mix.pairs, *mix.first)
                if thing.colour in (None, pair[0]) and thing.shape in (None, pair[1])] for thing in things]
    total = 0.0
    for pairs in itertools.product(*fitting):
        first = [n for n, pair in enumerate(pairs) if pair in mix.first]
        if len({*pairs}) < len(pairs) or len(first) != bool(mix.first):
            continue
        others = math.perm(len(mix.pairs), len(pairs) - len(first))
        if not first:
            total += 1 / others
        elif things[first[0]].count == layout[0]:  # the first thing of a layout, which is any of equal ones
            total += 1 / len(mix.first) / others / layout.count(layout[0])
    return total


def _where(caption, counts, sizes):
    """P of the sizes, the places and the relation"""
    table, G = _places(counts, sizes), len(counts)
    for n, thing in enumerate(caption.things):
        size = [(size in sizes) * (0.6 * (size == thing.size) if thing.size else 0.4) for size in shapes.RADIUS]
        place = [0.6 * (place == thing.place) if thing.place else 0.4 for place in PLACES]
        place = [1.0] * 10 if caption.relation else [*place, 0.0 if thing.place else 1.0]  # a relation, and no place
        for axis, p in ((n, size), (G + n, place)):
            table = table * np.reshape(p, [-1 if i == axis else 1 for i in range(table.ndim)])
    if G != 2:
        return table.sum()
    relation = [0.8 * (r == caption.relation) for r in RELATIONS] + [0] if caption.relation else [0.2] * 4 + [1.0]
    return (table * relation).sum()


@functools.cache
def _places(counts, sizes):
    """P of the size of each thing, then of the clear place of each, 9 for none, and of the clear relation of two, 4 for
    none: (2, ..., 10, ..., 5), counted, with one scene more that is spread evenly"""
    G, random = len(counts), np.random.RandomState([N, *counts])
    mix = shapes.Mix("", {tuple(sorted(counts, reverse=True)): 100}, sizes=sizes)
    objects = shapes.invent(mix, random, N).objects  # (N, M, 5)
    at, pair = objects[:, :, 3:], objects[:, :, 0] * len(shapes.SHAPES) + objects[:, :, 1]
    same = pair[:, :, None] == pair[:, None]
    key = 100 * same.sum(2) + pair  # things in order of count, and those of one count in an order of no meaning
    keys = np.sort(np.where(same.argmax(2) == np.arange(same.shape[2]), key, 10**6), 1)[:, :G]
    own = [key == keys[:, i, None] for i in np.argsort(np.argsort(counts, kind="stable"))]  # (N, M) for each thing
    found = [objects[np.arange(N), each.argmax(1), 2] for each in own] + [_clear_place(at, each) for each in own]
    found.append(_clear_relation(at, *own) if G == 2 else np.full(N, 4))
    table = np.zeros([2] * G + [10] * G + [5])
    np.add.at(table, tuple(found), 1.0)
    return (table + 1 / table.size) / (N + 1)


def _third(v):
    return (v >= 24).astype(int) + (v > 40)


def _clear_place(at, own):
    """Centres (N, M, 2), and which are of the thing, (N, M) -> the place of all of them, (N,)"""
    least = np.where(own[:, :, None], _third(at - 2), 9).min(1)
    most = np.where(own[:, :, None], _third(at + 2), -9).max(1)
    return np.where((least == most).all(1), 3 * least[:, 1] + least[:, 0], 9)


def _clear_relation(at, A, B):
    """The same of two things -> their relation, (N,)"""
    a, b = A.sum(1), B.sum(1)
    total, least, most = ([of(np.where(own[:, :, None], at, fill), 1) for own in (A, B)]
                          for of, fill in ((np.sum, 0), (np.min, 999), (np.max, -999)))
    across, found = np.abs(b[:, None] * total[0] - a[:, None] * total[1]), np.full(len(at), 4)
    for axis in (0, 1):
        clear = across[:, axis] - across[:, 1 - axis] > 4 * a * b
        for n, apart in enumerate((most[0] < least[1], least[0] > most[1])):
            found[clear & apart[:, axis]] = 2 * axis + n
    return found
