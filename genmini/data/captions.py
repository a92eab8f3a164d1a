"""Sentences without images, from which a language model learns: captions of scenes of which there is no image.

Of ten sentences 6 are of scenes of `shapes`, 2 of `shapes-pairs` and 2 of `shapes-counts`. So the text also speaks of
green circles and of four triangles, which no image of `shapes` shows: an encoder that has learnt from text alone has
read more than the images can teach, which is the point of it (the course, "Imagen"). What stays unseen is the look of
such a scene.

Scenes of a split are of this split alone (genmini/data/shapes.py). A sentence may come again, also in another split,
as many scenes are "a red circle": 4 of 10 test sentences are also in train. An image and a sentence of one scene are
described by other draws.

    test: tests/project/test_data_captions.py
"""

import functools
from itertools import cycle, islice

import torch

from . import shapes, shapes_captions, text

WORDS = text.Words(shapes_captions.VOCABULARY, shapes_captions.GRAMMAR)

COUNT = {"train": 100_000, "valid": 1_000, "test": 2_000}  # sentences; 100,000 take 4 seconds of one core
OF_TEN = {"shapes": 6, "shapes-pairs": 2, "shapes-counts": 2}
LENGTH = 40  # words of the longest sentence of three things, "a pair of small red circles in the top left", and its end


def words(vocabulary):
    """Words of this vocabulary, which know the grammar of captions if they are its words"""
    return WORDS if vocabulary == WORDS.vocabulary else text.Words(vocabulary)


@functools.cache
def numbers(split, n):
    """-> the numbers of the words of n sentences, (n, LENGTH) uint8"""
    return WORDS.encode(read(split, n), LENGTH).to(torch.uint8)


def read(split, n):
    """-> a list of n sentences, always the same: the first n of any longer list"""
    index = list(COUNT).index(split)
    of_mix = {}
    for k, (name, share) in enumerate(OF_TEN.items()):
        scenes = shapes.read(name, split, -(-n // 10) * share)[0]
        of_mix[name] = iter(shapes_captions.captions(scenes, seed=[index, k, 1]))  # not the seeds of images
    turns = cycle(name for name, share in OF_TEN.items() for _ in range(share))
    return [next(of_mix[name]) for name in islice(turns, n)]
