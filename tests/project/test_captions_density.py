"""The density of `captions` is that of its sentences: as frequent as they are, and none where none is due."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from check import drawn_from

from genmini.data import captions, shapes, shapes_captions
from genmini.data.captions_density import _clear_place, _clear_relation, _slots, _where, _written, log_prob
from genmini.data.shapes_captions import PLACES, RELATIONS, Caption, Thing, parse


def test_sentences_are_as_frequent_as_their_density_says():
    """30,000 of train, a chi-square test. Which sentences are counted is chosen by those of test."""
    count = Counter(captions.read("train", 30_000))
    short = sorted({text for text in captions.read("test", 500) if len(text.split()) < 7})
    wanted = {text: p for text in short if (p := 30_000 * math.exp(log_prob(text))) > 8}
    found = [count[text] for text in wanted]
    assert len(wanted) > 30
    drawn_from(torch.tensor([*found, 30_000 - sum(found)]),
               torch.tensor([*wanted.values(), 30_000 - sum(wanted.values())]))


@pytest.mark.parametrize("text", ["a red circle", "two small cyan boxes over a big plus in the middle",
                                  "there is a thing, a red shape on the left and three green discs on a grey ground"])
def test_the_ways_to_write_a_caption_are_as_probable_as_they_are_written(text):
    caption, random = parse(text), np.random.RandomState(0)
    slots = _slots(caption)
    texts = {" ".join(" ".join(words).split()) for words in itertools.product(*slots)}
    p = {each: _written(each, slots) for each in texts}
    assert sum(p.values()) == pytest.approx(1, abs=1e-12)
    drawn = Counter(shapes_captions.write(caption, random).replace(",", " ,") for _ in range(4000))
    assert drawn.keys() <= p.keys()
    often = [each for each in p if 4000 * p[each] > 10] or [max(p, key=p.get)]
    found, wanted = [drawn[each] for each in often], [4000 * p[each] for each in often]
    rest = [4000 - sum(found)], [4000 - sum(wanted)]
    drawn_from(torch.tensor(found + rest[0]), torch.tensor(wanted + rest[1]))


@pytest.mark.parametrize("counts", [(1, 1), (1, 2), (2, 1), (1,), (3,)])
def test_all_that_may_be_said_of_where_things_are_has_the_probability_one(counts):
    """And what has a relation is as frequent as among captions: 5 standard deviations of 2000 of them"""
    sizes, of_relation = (None, "small", "big"), Counter()
    for size in itertools.product(sizes, repeat=len(counts)):
        for place in itertools.product((None, *PLACES), repeat=len(counts)):
            for relation in RELATIONS if len(counts) == 2 and not any(place) else ():
                of_relation[relation] += _where(Caption((*map(Thing, counts, size),), relation), counts, sizes[1:])
            things = tuple(Thing(n, s, place=at) for n, s, at in zip(counts, size, place, strict=True))
            of_relation[None] += _where(Caption(things), counts, sizes[1:])
    assert sum(of_relation.values()) == pytest.approx(1, abs=1e-9)
    mix = shapes.Mix("", {tuple(sorted(counts, reverse=True)): 100})
    texts = shapes_captions.captions(shapes.invent(mix, np.random.RandomState(5), 2000))
    found = Counter(caption.relation for caption in map(parse, texts))
    for relation, p in of_relation.items():
        assert abs(found[relation] - 2000 * p) <= 5 * math.sqrt(2000 * p * (1 - p) + 1e-9) + 1e-6, relation


def test_places_and_relations_are_those_that_captions_say():
    scenes = shapes.read("shapes", "test", 400)[0]
    at, is_object = scenes.objects[:, :, 3:], scenes.objects[:, :, 0] >= 0
    pair = np.where(is_object, scenes.objects[:, :, 0] * 10 + scenes.objects[:, :, 1], -1)
    A = pair == pair[:, :1]
    B = is_object & ~A
    place, relation = _clear_place(at, A), _clear_relation(at, A, B)
    for n, scene in enumerate(scenes):
        a, b = ([scene.objects[m] for m in np.flatnonzero(own[n])] for own in (A, B))
        assert [*PLACES, None][place[n]] == shapes_captions._clear_place(a)
        assert not b or [*RELATIONS, None][relation[n]] == shapes_captions.relation(a, b, clear=4)


@pytest.mark.parametrize("text", ["six red circles", "four big red circles", "a red circle and a red circle",
                                  "two green circles and a yellow square", "four red circles and a blue square"])
def test_what_is_never_said_has_no_probability(text):
    assert log_prob(text) == -math.inf


def test_what_is_no_sentence_has_no_density():
    with pytest.raises(ValueError, match="have no word 'rad'"):
        log_prob("a rad circle")
