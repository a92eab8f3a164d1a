"""The data `captions`: sentences of the grammar, the same everywhere, that speak of more than the images show."""

import hashlib

import pytest
import torch

from genmini import data
from genmini.data import captions, shapes, shapes_captions


def test_sentences_are_the_same_everywhere_and_more_begin_with_the_fewer():
    """Of another order or another draw the digest differs."""
    digest = hashlib.sha256()
    for split in data.SPLITS:
        some = captions.read(split, 300)
        assert captions.read(split, 57) == some[:57] and len(set(some)) > 200
        digest.update("\n".join(some).encode())
    assert digest.hexdigest()[:16] == "26c391ef6318c05b"


def test_every_sentence_is_of_the_grammar_and_held_out_pairs_and_counts_are_among_them():
    parsed = [shapes_captions.parse(sentence) for sentence in captions.read("valid", 1000)]
    pairs = [{(thing.colour, thing.shape) for thing in caption.things} for caption in parsed]
    share = sum(bool(each & {*shapes.HELD_OUT}) for each in pairs) / 1000
    assert 0.15 < share < 0.2  # 2 of 10, without those of which the colour or the shape is not said
    counts = [sum(thing.count for thing in caption.things) for caption in parsed]
    assert sum(count > 3 for count in counts) == 200 and {*counts} == {1, 2, 3, 4, 5}


def test_they_are_data_of_a_shape_that_all_splits_share():
    valid = data.load("captions", "valid")
    assert valid.x.shape == (1000, 40) and valid.x.dtype == torch.uint8 and data.kind("captions") == "text"
    assert valid.levels == len(valid.words) == 71 and valid.words.vocabulary == shapes_captions.VOCABULARY
    assert valid.classes == 0 and not valid.y.any() and valid.source is None
    assert valid.words.decode(valid.x[:50]) == captions.read("valid", 50)
    longest = "a picture of " + ", ".join(2 * ["a pair of small red circles in the top left"]) + (
        " and a pair of small red circles in the top left on a white ground")
    shapes_captions.parse(longest)
    assert (valid.words.encode([longest], captions.LENGTH)[0] == 0).sum() == 1  # its end alone


def test_what_sentences_do_not_have_is_refused():
    with pytest.raises(ValueError, match="captions has its own"):
        data.load("captions", "valid", size=16)
    with pytest.raises(ValueError, match="captions lies in no folder"):
        data.load("captions", "valid", "somewhere")
