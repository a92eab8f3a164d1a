"""Captions of the user's own images: a file captions.jsonl in their folder, a line of JSON for each caption.

    {"file": "cats/1.png", "caption": "a cat on a red mat"}          file: the path from the folder, with /
    {"file": "cats/1.png", "caption": "a red mat with a cat"}        an image may have several, up to 16

Every image has a caption. What else a line holds is ignored, and so are empty lines. All other mistakes end the reading
in an error that names the line: what is no JSON or has no words, a path that leads out of the folder or to no image
(links are refused by genmini/data/images.py), a caption that stands there twice, a line of more than 20,000 bytes.

The vocabulary is that of the train captions: all words, or the 4,000 most frequent of them, of equally frequent ones
those that come first in the alphabet. Other words are left out of every caption, which may leave none. A row has room
for the longest train caption, at most 63 words, and its end; what is longer is cut there.

    used by: genmini/data/__init__.py    test: tests/project/test_captions_file.py
"""

import json
import stat
from collections import Counter
from pathlib import Path, PurePosixPath

import torch

from . import text

NAME = "captions.jsonl"
MOST_BYTES = 20_000  # of a line
MOST_CAPTIONS = 16  # of an image
MOST_WORDS = 4_000  # of the vocabulary
MOST_LENGTH = 64  # of a row


def read(folder, images):
    """-> {image: its captions, each a list of words}, for every one of the images, each the names on the way to it"""
    path, found, lines = Path(folder) / NAME, {image: [] for image in images}, {}
    if not path.is_symlink() and not path.exists():
        raise ValueError(f'{folder} has no {NAME}, with lines as {{"file": "a.png", "caption": "a red circle"}}')
    if path.is_symlink() or not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path} is a link or no file: put the file itself there")
    with open(path, "rb") as file:
        for n, line in enumerate(iter(lambda: file.readline(MOST_BYTES + 1), b""), 1):
            try:
                if line.strip():
                    image, words = _caption(line, found)
                    twice = lines.setdefault((image, *words), n)
                    if twice != n:
                        raise ValueError(f"the same caption of {'/'.join(image)} stands in line {twice}")
                    found[image].append(words)
                    if len(found[image]) > MOST_CAPTIONS:
                        raise ValueError(f"{'/'.join(image)} has more than {MOST_CAPTIONS} captions")
            except ValueError as error:
                raise ValueError(f"{path}, line {n}: {error}") from None
    without = next((image for image, captions in found.items() if not captions), None)
    if without:
        raise ValueError(f"{path} has no caption of {'/'.join(without)}: every image needs one")
    return found


def _caption(line, images):
    """A line -> the image, its words"""
    if len(line) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES} bytes")
    try:
        content = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON at column {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError):  # a number of too many digits, too many brackets
        raise ValueError("it is no JSON that can be read") from None
    given = [content.get(key) for key in ("file", "caption")] if isinstance(content, dict) else [None]
    if not all(isinstance(each, str) for each in given):
        raise ValueError('it must hold a "file" and a "caption", both text')
    name, caption = given
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"{name[:60]!r} leads out of the folder")
    image, words = PurePosixPath(name).parts, text.split(caption)
    if image not in images:
        raise ValueError(f"the folder has no image {name[:60]!r}")
    if not words:
        raise ValueError(f"the caption {caption[:30]!r} has no word")
    return image, words


def ways(captions, train, images, K):
    """-> text.Words, and the numbers of K captions of each of the images, (N, K, L)

    captions: what `read` gives; train: the images that the vocabulary and L are of. Of more than K captions the first
    ones are taken; fewer come again, in turn.
    """
    count = Counter(word for image in train for words in captions[image] for word in words)
    frequent = sorted(count, key=lambda word: (-count[word], word))[:MOST_WORDS]
    words = text.Words(tuple(sorted(frequent)))
    known = lambda caption: [words.number[word] for word in caption if word in words.number]
    longest = max(len(known(caption)) for image in train for caption in captions[image])
    L = min(longest + 1, MOST_LENGTH)
    numbers = torch.zeros(len(images), K, L, dtype=torch.uint8 if len(words) <= 256 else torch.int16)
    for n, image in enumerate(images):
        for k in range(K):
            row = known(captions[image][k % len(captions[image])])[: L - 1]
            numbers[n, k, : len(row)] = torch.tensor(row)
    return words, numbers
