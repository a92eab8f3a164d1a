"""Text as whole numbers: each word of a vocabulary has one, and 0 ends a text and fills the rest of its row.

    words = Words(("a", "blue", "circle", "red"))
    words.encode(["a red circle", "Blue!"], 5)               [[1, 4, 3, 0, 0], [2, 0, 0, 0, 0]], (N, L) int64
    words.decode(words.encode(["a red circle"], 5))          ["a red circle"]

Capitals are made small. A word is a letter or a digit and what follows it of letters, digits, ' and -; a comma is a
word of its own, as in genmini/data/shapes_captions.py; all other characters separate words, and are dropped. A row of L
numbers has room for L - 1 words and the 0 that ends them.

    used by: genmini/data/__init__.py, genmini/models    test: tests/project/test_text.py
"""

import difflib
import functools
import re
from dataclasses import dataclass, field

import numpy as np
import torch

MOST_CHARACTERS = 10_000  # of one text
MOST_WORDS = 2**15  # of a vocabulary
FEW = 100  # words that an error lists, at most
DIGITS = "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"


def split(text):
    """A text -> its words, a list of str, which may be empty; ValueError if it is no text."""
    if not isinstance(text, str):
        raise ValueError(f"a text must be a str, got {type(text).__name__}")
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"a text has at most {MOST_CHARACTERS} characters, got {len(text)}")
    return re.findall(r"[^\W_](?:[^\W_]|['-])*|,", text.lower())


def nearest(word, vocabulary):
    """The word of the vocabulary that is spelt most like this one; of a digit its name, if that is there."""
    named = DIGITS[int(word)] if re.fullmatch("[0-9]", word) else ""
    return named if named in vocabulary else difflib.get_close_matches(word, vocabulary, 1, 0)[0]


@dataclass(frozen=True)
class Words:
    vocabulary: tuple  # of str: word n has the number n + 1
    grammar: str = field(default="", compare=False)  # what an error says of them; "": it lists them

    def __post_init__(self):
        strange = [word for word in self.vocabulary if not isinstance(word, str) or split(word) != [word]]
        if strange or not 0 < len(set(self.vocabulary)) == len(self.vocabulary) <= MOST_WORDS:
            what = f"{strange[0]!r:.60} among {len(self.vocabulary)}" if strange else f"{len(self.vocabulary)}"
            raise ValueError(f"a vocabulary is 1 to {MOST_WORDS} different words in small letters, got {what}"
                             + ", of which some are twice" * (len(set(self.vocabulary)) < len(self.vocabulary)))

    @functools.cached_property
    def number(self):
        """{word: its number}"""
        return {word: n for n, word in enumerate(self.vocabulary, 1)}

    def __len__(self):
        """How many numbers there are, with 0."""
        return len(self.vocabulary) + 1

    def encode(self, texts, length=None):
        """A list of N texts -> (N, L) int64. length: L (default: one more than the longest text has words)."""
        rows = [self._numbers(text) for text in texts]
        longest = max(map(len, rows), default=0)
        length = longest + 1 if length is None else length
        if longest >= length:
            raise ValueError(f"a text has at most {length - 1} words here, a comma is one, and "
                             f"{next(t for t, row in zip(texts, rows, strict=True) if len(row) == longest)[:60]!r}... "
                             f"has {longest}")
        tokens = np.zeros((len(rows), length), np.int64)
        for row, numbers in zip(tokens, rows, strict=True):
            row[: len(numbers)] = numbers
        return torch.from_numpy(tokens)

    def _numbers(self, text):
        words = split(text)
        if not words:
            raise ValueError(f"the text {text[:30]!r} has no word; known are {self._known()}")
        try:
            return [self.number[word] for word in words]
        except KeyError:
            unknown = next(word for word in words if word not in self.number)[:40]
            near = nearest(unknown, self.vocabulary)
            raise ValueError(f"there is no word {unknown!r} here; the nearest is {near!r}, "
                             f"and known are {self._known()}") from None

    def _known(self):
        if self.grammar:
            return self.grammar
        if len(self.vocabulary) > FEW:
            return f"{len(self.vocabulary)} words"
        return ", ".join(word for word in self.vocabulary if word != ",")

    def decode(self, tokens):
        """(N, L) -> a list of N texts, each up to its first 0"""
        texts = []
        for row in tokens.tolist():
            row = row[: row.index(0)] if 0 in row else row
            texts.append(" ".join(self.vocabulary[number - 1] for number in row).replace(" ,", ","))
        return texts

    def rows(self, text, n, length):
        """One text for all, or a list of n, or their numbers, (length,) or (n, length) -> (n, length) int64"""
        if isinstance(text, str):
            return self.encode([text], length).expand(n, length)
        if isinstance(text, list | tuple):
            if len(text) != n:
                raise ValueError(f"there must be one text for all, or {n} of them, got {len(text)}")
            return self.encode(text, length)
        if not isinstance(text, torch.Tensor) or text.dtype.is_floating_point or text.dtype == torch.bool:
            kind = text.dtype if isinstance(text, torch.Tensor) else type(text).__name__
            raise ValueError(f"text must be a str, a list of str, or the numbers of words, got {kind}")
        if text.shape not in ((length,), (n, length)):
            raise ValueError(f"the numbers of words must have shape ({n}, {length}), got {tuple(text.shape)}")
        check(text, len(self))
        return text.long().expand(n, length)


def check(tokens, count):
    """ValueError for numbers (..., L) that are no words of `count`, 0 included, or that go on after a 0. Like those of
    images, values are checked on a CPU only: reading them on a GPU would make the host wait for it."""
    if tokens.device.type != "cpu" or not tokens.numel():
        return
    low, high = tokens.min().item(), tokens.max().item()
    if not 0 <= low <= high < count:
        raise ValueError(f"words have the numbers 0 ... {count - 1}, got {low} ... {high}")
    if ((tokens[..., :-1] == 0) & (tokens[..., 1:] != 0)).any():
        raise ValueError("a text ends at its first 0, and numbers of words follow one")
