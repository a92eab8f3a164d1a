"""The study `words`: its counts are those of the formula, its picture is of texts, and it tells copies from sentences.
"""

import math
from collections import Counter

import pytest
import torch
from check import command

from genmini import checkpoint, data
from genmini.data import captions, captions_density
from genmini.models.language import Language
from genmini.models.made import MADE
from genmini.studies import words

X = torch.tensor([[1, 2, 0, 0], [1, 1, 2, 0], [0, 0, 0, 0], [2, 2, 2, 2]], dtype=torch.uint8)
TEXTS = [[1, 2, 0], [1, 1, 2, 0], [0], [2, 2, 2, 2]]  # what counts of them


def test_counts_are_those_of_the_formula():
    K, each = 3, [k for text in TEXTS for k in text]
    follows = Counter(pair for text in TEXTS for pair in zip(["start", *text], text, strict=False))
    before = Counter(j for text in TEXTS for j in ["start", *text[:-1]])
    of_word = lambda k: math.log((each.count(k) + 0.5) / (len(each) + K / 2))
    of_pair = lambda j, k: math.log((follows[j, k] + 0.5) / (before[j] + K / 2))
    found = words.counted(X, X, K)
    for n, text in enumerate(TEXTS):
        assert found["counts of words"][n].item() == pytest.approx(-sum(map(of_word, text)), abs=1e-12)
        wanted = -sum(of_pair(j, k) for j, k in zip(["start", *text], text, strict=False))
        assert found["counts of pairs of words"][n].item() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.usefixtures("folder_of_its_own")
def test_it_tells_sentences_and_copies_and_fits_text_alone(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(captions, "COUNT", {"train": 60, "valid": 20, "test": 70})
    monkeypatch.setattr(words, "N", 4)
    monkeypatch.setattr(captions_density, "N", 500)
    captions_density._places.cache_clear()
    test = data.load("captions", "test")
    model = Language.of_data(test, width=8, blocks=1, heads=2)
    checkpoint.save("r", model, {"step": 1, "data": "captions"})
    checkpoint.save("made", MADE((8, 8), hidden=4), {"step": 1, "data": "digits-threshold"})
    own = -model.eval().log_prob(test.x).mean().item()
    copy, seen = captions.read("train", 1)[0], {*captions.read("train", 60)}
    new = next(text for text in captions.read("test", 70) if text not in seen)
    drawn = test.words.encode([copy, copy, new, "red a red"], 40)
    monkeypatch.setattr(Language, "sample", lambda self, n, y=None: drawn)
    status, out, err = command(capsys, "study", "words", "r", "made")
    assert status == 0 and (tmp_path / "r" / "words.png").stat().st_size > 10_000
    truth = -sum(map(captions_density.log_prob, captions.read("test", 70))) / 70
    assert f"r: {own:.2f} +- " in out and "by counts of words, " in out
    assert f", {truth:.2f} by their own density;" in out
    assert "75.0% of 4 samples are of the grammar; 50.0% of them are texts of train, of unseen texts" in out
    captions_density._places.cache_clear()
    assert err.strip() == "genmini: made does not fit: its samples are no texts: words is for language"
