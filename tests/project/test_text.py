"""Text as numbers (genmini/data/text.py): there and back, and what is no text, no word or no number is named."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmini.data.text import Words, check, nearest, split

WORDS = Words(("a", "and", ",", "blue", "circle", "red", "x-ray", "it's"))
texts = st.lists(st.lists(st.sampled_from(WORDS.vocabulary), min_size=1, max_size=9), max_size=5)


@given(texts=texts, more=st.integers(0, 3))
def test_what_is_encoded_is_decoded(texts, more):
    longest = max(map(len, texts), default=0)
    written = [" ".join(words).replace(" ,", ",") for words in texts]
    tokens = WORDS.encode(written, longest + 1 + more)
    assert tokens.dtype == torch.int64 and tokens.shape == (len(texts), longest + 1 + more)
    assert [row[row > 0].tolist() for row in tokens] == [[WORDS.vocabulary.index(w) + 1 for w in t] for t in texts]
    assert ((tokens[:, :-1] > 0) | (tokens[:, 1:] == 0)).all()  # zeros alone follow the first
    check(tokens, len(WORDS))
    assert WORDS.decode(tokens) == written and torch.equal(WORDS.encode(written), tokens[:, : longest + 1])


@pytest.mark.parametrize("text, words", [
    ("A RED  circle.", ["a", "red", "circle"]), ("red,blue;a\n'it's'", ["red", ",", "blue", "a", "it's'"]),
    ("x-ray -- _a_ \0 (red)!", ["x-ray", "a", "red"]), ("été 3 日本", ["été", "3", "日本"]), ("", []),
    ("...", []),
])
def test_words_of_a_text(text, words):
    assert split(text) == words


@pytest.mark.parametrize("text, message", [
    ("a purpel red", "there is no word 'purpel' here; the nearest is '.*', and known are a, and, blue, circle, red"),
    ("a rad", "no word 'rad' here; the nearest is 'red'"), ("a " + 5000 * "z", "no word 'z{40}' here; the nearest is "),
    ("", "the text '' has no word; known are a, and"), ("!?", "the text '![?]' has no word"),
    (3, "a text must be a str, got int"), (None, "a text must be a str, got NoneType"), (b"red", "got bytes"),
    (10_001 * "a", "a text has at most 10000 characters, got 10001"),
    ("a red circle, and a blue", "a text has at most 5 words here, a comma is one, and 'a red circle, and a blue'..."),
])
def test_what_is_no_text_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        WORDS.encode(["a", text], 6)


def test_an_error_lists_few_words_and_counts_many():
    many = Words(tuple(f"w{n}" for n in range(3000)))
    with pytest.raises(ValueError, match="no word 'w3001' here; the nearest is 'w.*', and known are 3000 words$"):
        many.encode(["w3001"])


def test_an_error_says_the_grammar_where_there_is_one():
    words = Words(WORDS.vocabulary, "the colours blue, red")
    assert words == WORDS
    for text in ("purple", ""):
        with pytest.raises(ValueError, match="known are the colours blue, red$"):
            words.encode([text])


@pytest.mark.parametrize("word, near", [("2", "two"), ("3", "zed"), ("²", "zed"), ("tow", "two"), ("zde", "zed")])
def test_the_nearest_word_of_a_digit_is_its_name(word, near):
    assert nearest(word, ("two", "zed")) == near


@pytest.mark.parametrize("vocabulary", [(), ("a", "a"), ("Red",), ("a b",), ("",), ("a,",), (3,), (None,), ("-",)])
def test_what_is_no_vocabulary_is_refused(vocabulary):
    with pytest.raises(ValueError, match="a vocabulary is 1 to 32768 different words in small letters, got"):
        Words(vocabulary)


def test_a_text_for_all_or_one_each_or_numbers():
    two, red = WORDS.encode(["a red circle", "blue"], 5), WORDS.encode(["red"], 5)
    assert torch.equal(WORDS.rows(["a red circle", "Blue."], 2, 5), two)
    assert torch.equal(WORDS.rows("red", 3, 5), red.expand(3, 5))
    assert torch.equal(WORDS.rows(two.to(torch.uint8), 2, 5), two) and WORDS.rows(two[:1], 1, 5).dtype == torch.int64
    assert torch.equal(WORDS.rows(two[0], 2, 5), two[:1].expand(2, 5))


@pytest.mark.parametrize("text, message", [
    (["red"], "one text for all, or 2 of them, got 1"), (3, "text must be a str, a list of str, or the numbers"),
    (torch.zeros(2, 5), "numbers of words, got torch.float32"), (torch.zeros(2, 5).bool(), "got torch.bool"),
    (torch.zeros(2, 4).long(), r"must have shape \(2, 5\), got \(2, 4\)"),
    (torch.full((2, 5), 9), "words have the numbers 0 ... 8, got 9 ... 9"),
    (torch.full((5,), -1), "words have the numbers 0 ... 8, got -1"),
    (torch.tensor([1, 0, 0, 2, 0]), "a text ends at its first 0, and numbers of words follow one"),
])
def test_what_is_no_text_for_a_batch_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        WORDS.rows(text, 2, 5)
