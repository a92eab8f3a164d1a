"""Captions of one's own images: read as they stand, split with their images; each mistake is named with its line."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from genmini import data
from genmini.data import captions_file
from genmini.data.text import split as words_of

CAPTIONS = {f"{kind}/{n:02}.png": [f"A {kind} of number {n}.", f"number {n}, a {kind}"][: 1 + n % 2]
            for kind in ("cat", "dog") for n in range(9)}


def lines(captions):
    return [json.dumps({"file": file, "caption": text, "more": 1}) for file in captions for text in captions[file]]


def lay(folder, captions=CAPTIONS, extra=(), content=None):
    """A folder of images, whose first pixel is their number, and their captions"""
    for n, file in enumerate(CAPTIONS):
        (folder / file).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), n, np.uint8)).save(folder / file)
    written = "\n".join([*lines(captions), "", *extra]).encode() if content is None else content
    (folder / "captions.jsonl").write_bytes(written)
    return folder


def load(folder, split="train", captions=2, **options):
    return data.load("images", split, folder, **dict(size=8, colour=True) | options, captions=captions)


def test_every_image_keeps_its_captions_in_every_split(tmp_path):
    lay(tmp_path)
    files, count = [*CAPTIONS], 0
    for split in data.SPLITS:
        some = load(tmp_path, split)
        count += len(some)
        assert some.classes == 0 and some.ways.shape[:2] == (len(some), 2) and torch.equal(some.y, some.ways[:, 0])
        known = {*some.words.vocabulary}
        for n, image in enumerate(some.x):
            texts = CAPTIONS[files[image[0, 0, 0]]]
            texts = [*texts, texts[0]]  # one caption is there twice
            wanted = [" ".join(w for w in words_of(text) if w in known).replace(" ,", ",") for text in texts]
            assert some.words.decode(some.ways[n]) == wanted[:2] and some.captions[n] == wanted[0]
        assert some.words == load(tmp_path, "train").words and some.ways.dtype == torch.uint8
        x, y = some.batch(torch.arange(len(some)), torch.Generator().manual_seed(0))
        assert torch.equal(x, some.x) and (some.ways == y[:, None]).all(2).any(1).all()
    assert count == len(CAPTIONS)
    without = data.load("images", "train", tmp_path, size=8, colour=True)
    assert without.ways is None and without.classes == 2  # as ever, beside a captions.jsonl
    assert load(tmp_path, captions=1).ways.shape[1] == 1
    assert data.load("images-dynamic", "train", tmp_path, size=8, captions=1).ways.shape[1] == 1


def test_a_run_knows_its_captions_again(tmp_path):
    lay(tmp_path)
    splits = {split: load(tmp_path, split) for split in data.SPLITS}
    saved = dict(data="images", options=dict(size=8, colour=True, captions=2), source=data.record(splits))
    assert torch.equal(data.of_run(saved, "test").ways, splits["test"].ways)
    lay(tmp_path, {file: [*captions[:-1], captions[-1] + " again"] for file, captions in CAPTIONS.items()})
    with pytest.raises(ValueError, match="does not hold the data of this run: its test split has 3 images"):
        data.of_run(saved, "test")
    assert data.load("images", "test", tmp_path, size=8, colour=True).source["count"] == 3
    trained = {(image[0, 0, 0]).item() for image in splits["train"].x}
    for more in (" aardvark", " number number"):  # a word that shifts the numbers of all others, and a longer row
        lay(tmp_path, {file: [*texts[:-1], texts[-1] + more * (n in trained)] for n, (file, texts) in
                       enumerate(CAPTIONS.items())})
        with pytest.raises(ValueError, match="its test split has 3 images"):
            data.of_run(saved, "test")


def test_the_vocabulary_and_the_length_are_those_of_train(monkeypatch):
    monkeypatch.setattr(captions_file, "MOST_WORDS", 3)
    monkeypatch.setattr(captions_file, "MOST_LENGTH", 5)
    texts = {("a",): [["d", "b", "a", "b"], ["c", "c"]], ("b",): [["a"] * 9],
             ("c",): [["x", "y"], ["y", "c", "a", "d"]]}
    words, ways = captions_file.ways(texts, [("a",), ("b",)], [("c",), ("b",), ("a",)], 3)
    assert words.vocabulary == ("a", "b", "c")  # a is there ten times, b and c twice, d once, x and y in train never
    assert ways.tolist() == [[[0] * 5, [3, 1, 0, 0, 0], [0] * 5], [[1, 1, 1, 1, 0]] * 3,
                             [[2, 1, 2, 0, 0], [3, 3, 0, 0, 0], [2, 1, 2, 0, 0]]]


def test_many_words_take_wider_numbers():
    texts = {("a",): [[f"w{n}" for n in range(300)]]}
    words, ways = captions_file.ways(texts, [("a",)], [("a",)], 1)
    assert len(words) == 301 and ways.dtype == torch.int16 and ways.shape == (1, 1, 64)
    assert words.decode(ways[0]) == [" ".join(f"w{n}" for n in range(63))]


GOOD = {"file": "cat/00.png", "caption": "another one"}


@pytest.mark.parametrize("line, message", [
    ("{", "it is no JSON at column 2"), ("[]", "must hold a \"file\" and a \"caption\", both text"),
    ("{\"file\": \"cat/00.png\"}", "must hold a"), (json.dumps(GOOD | {"caption": 3}), "must hold a"),
    (100_000 * "[", "it has more than 20000 bytes"), (10_000 * "[", "it is no JSON that can be read"),
    (json.dumps(GOOD | {"caption": 19_999 * "a"}), "it has more than 20000 bytes"),
    (json.dumps(GOOD | {"caption": 15_000 * "a"}), "a text has at most 10000 characters, got 15000"),
    (json.dumps(GOOD | {"caption": ""}), "the caption '' has no word"),
    (json.dumps(GOOD | {"caption": " !? "}), "the caption ' !\\? ' has no word"),
    (json.dumps(GOOD | {"file": "../a.png"}), "'../a.png' leads out of the folder"),
    (json.dumps(GOOD | {"file": "cat/../../a.png"}), "leads out of the folder"),
    (json.dumps(GOOD | {"file": "/etc/passwd"}), "'/etc/passwd' leads out of the folder"),
    (json.dumps(GOOD | {"file": "cat/99.png"}), "the folder has no image 'cat/99.png'"),
    (json.dumps(GOOD | {"file": "captions.jsonl"}), "the folder has no image 'captions.jsonl'"),
    (json.dumps(GOOD | {"file": ""}), "the folder has no image ''"),
    (json.dumps(GOOD | {"file": "a\0b"}), r"the folder has no image 'a\\x00b'"),
    (json.dumps(GOOD | {"caption": "a CAT of number 0"}), "the same caption of cat/00.png stands in line 1"),
])
def test_a_mistake_is_named_with_its_line(tmp_path, line, message):
    lay(tmp_path, extra=[line])
    with pytest.raises(ValueError, match=rf"captions.jsonl, line {len(lines(CAPTIONS)) + 2}: .*{message}"):
        load(tmp_path)


def test_bytes_that_are_no_text_are_named(tmp_path):
    lay(tmp_path, content=b"\n\xff{}\n")
    with pytest.raises(ValueError, match="captions.jsonl, line 2: it is no UTF-8 at byte 0"):
        load(tmp_path)


def test_too_many_captions_and_none_are_named(tmp_path):
    lay(tmp_path, extra=[json.dumps(GOOD | {"caption": f"cat {n}"}) for n in range(20)])
    with pytest.raises(ValueError, match=r"line \d+: cat/00.png has more than 16 captions"):
        load(tmp_path)
    lay(tmp_path, {file: captions for file, captions in CAPTIONS.items() if file != "dog/03.png"})
    with pytest.raises(ValueError, match="captions.jsonl has no caption of dog/03.png: every image needs one"):
        load(tmp_path)


@pytest.mark.parametrize("kind", ["none", "folder", "pipe", "link"])
def test_a_file_that_is_none_is_named(tmp_path, kind):
    lay(tmp_path)
    path = tmp_path / "captions.jsonl"
    path.rename(tmp_path.parent / "elsewhere")
    {"none": lambda: None, "folder": path.mkdir, "pipe": lambda: os.mkfifo(path),
     "link": lambda: path.symlink_to(tmp_path.parent / "elsewhere")}[kind]()
    message = {"none": "has no captions.jsonl, with lines as", "link": "captions.jsonl is a link"}
    with pytest.raises(ValueError, match=message.get(kind, "captions.jsonl is a link or no file")):
        load(tmp_path)
