"""The language model's laws: a probability of all texts that its samples follow, causal, whatever fills a row; what
other models read of it; what it refuses."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from check import drawn_from
from check_models import resumes, rows

from genmini import data
from genmini.data.text import Words
from genmini.models.language import Language

WORDS = "a", "red", "circle"


def language(L=4, vocabulary=WORDS, **settings):
    """In float64, with random weights in every block"""
    model = Language((L,), levels=len(vocabulary) + 1, vocabulary=vocabulary, **dict(width=8, blocks=2, heads=2)
                     | settings).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.4 * torch.randn_like(parameter)
    return model.eval()


def every(L, K):
    """All texts of at most L words"""
    rows = [(*words, *(L - e) * (0,)) for e in range(L + 1) for words in itertools.product(range(1, K), repeat=e)]
    return torch.tensor(rows)


# ---- probability -----------------------------------------------------------------------------------------------------


def test_the_probabilities_of_all_texts_sum_to_one_and_samples_follow_them():
    model, x = language(), every(4, 4)
    p = model.log_prob(x).exp()
    assert len(x) == 1 + 3 + 9 + 27 + 81 and abs(p.sum().item() - 1) < 1e-12 and p.max() > 5 * p.mean()
    drawn = model.sample(20_000)
    place = 4 ** torch.arange(3, -1, -1)
    count = torch.bincount((drawn.long() * place).sum(1), minlength=256)[(x * place).sum(1)]
    assert drawn.dtype == torch.uint8 and count.sum() == 20_000  # nothing follows an end
    drawn_from(count, 20_000 * p)


def test_a_text_that_is_begun_goes_on_by_the_same_probabilities():
    model, x = language(), every(4, 4)
    x = x[(x[:, 0] == 1) & (x[:, 1] == 2)]  # "a red ..."
    p = model.log_prob(x).softmax(0)
    drawn = model.sample(10_000, begin="a red")
    assert (drawn[:, :2] == torch.tensor([1, 2])).all()
    drawn_from(torch.bincount(drawn[:, 2] * 4 + drawn[:, 3], minlength=16)[x[:, 2] * 4 + x[:, 3]], 10_000 * p)
    each = model.sample(3, begin=["red", "a red circle", "a"])
    assert each[:, 0].tolist() == [2, 1, 1] and each[1, :3].tolist() == [1, 2, 3]
    assert torch.equal(model.sample(2, begin=torch.tensor([2, 0, 0, 0]))[:, 0], torch.tensor([2, 2]))


def test_the_same_noise_gives_the_same_texts():
    """By inverting the distribution of each next word, one number of u a word."""
    model, u = language(), torch.rand(5, 4, dtype=torch.float64)
    x = model.sample(5, u=u)
    assert torch.equal(model.sample(5, u=u), x)
    for n, row in enumerate(x.long()):
        for l in range(4):
            p = model.W(model.h(row[None, :l])[0, -1]).softmax(0).cumsum(0)
            assert row[l] == (u[n, l] >= p[:-1]).sum()
            if row[l] == 0:
                break
    with pytest.raises(ValueError, match=r"u must have shape \(5, 4\)"):
        model.sample(5, u=u[:, :3])


def test_log_prob_is_the_sum_over_words_each_given_those_before():
    model, x = language(6), every(6, 4)[::97]
    for row, log_p in zip(x, model.log_prob(x), strict=True):
        wanted = 0.0
        for l in range(6):
            wanted += model.W(model.h(row[None, :l])[0, -1]).log_softmax(0)[row[l]].item()
            if row[l] == 0:
                break
        assert log_p.item() == pytest.approx(wanted, abs=1e-10)


def test_no_word_changes_what_stands_before_it():
    """h_1 ... h_l to the bit, where word l and all later ones are others: attention gives them the weight 0."""
    model, x = language(8), torch.randint(1, 4, (5, 8))
    h, _ = model.states(x)
    for l in range(8):
        other = torch.cat([x[:, :l], torch.randint(1, 4, (5, 8 - l))], 1)
        assert torch.equal(model.states(other)[0][:, : l + 1], h[:, : l + 1])
    assert (model.states(torch.cat([x[:, :3], x[:, 3:] % 3 + 1], 1))[0][:, 4:] != h[:, 4:]).all()


def test_neither_the_batch_nor_the_length_of_its_rows_changes_a_text():
    """Products of other sizes round elsewhere, in float64 by less than 1e-12."""
    model = language(8)
    x = torch.cat([every(3, 4), torch.zeros(40, 5, dtype=torch.long)], 1)[::4]
    together = model.log_prob(torch.cat([x, torch.ones(1, 8, dtype=torch.long)]))[:-1]
    alone = torch.cat([model.log_prob(row[None]) for row in x])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_the_perplexity_of_even_words_is_their_number():
    model = language(6)
    torch.nn.init.zeros_(model.W.weight)
    torch.nn.init.zeros_(model.W.bias)
    x = torch.tensor([[1, 2, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 2, 3, 1, 2, 3]])  # e = 3, 1, 6
    torch.testing.assert_close(model.log_prob(x), -math.log(4) * torch.tensor([3.0, 1, 6], dtype=torch.float64))
    assert model.report(x)["perplexity"] == pytest.approx(4, rel=1e-12)


# ---- what other models read ------------------------------------------------------------------------------------------


def test_states_are_those_that_words_were_predicted_from():
    """log p(x) can be computed from them alone; the rest is 0."""
    model, x = language(7), torch.tensor([[1, 2, 3, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]])
    h, mask = model.states(x)
    assert h.shape == (3, 7, 8) and mask.sum(1).tolist() == [4, 2, 1] and not h[~mask].any()
    log_p = model.W(h).log_softmax(2).gather(2, x[:, :, None])[..., 0]
    torch.testing.assert_close((log_p * mask).sum(1), model.log_prob(x), rtol=0, atol=1e-12)
    assert torch.equal(model.states(["a red circle", "circle"])[0], h[:2])


def test_every_state_has_read_the_start():
    """A reader that left it out would give other states: of all texts, at every word."""
    model, x = language(7), torch.tensor([[1, 2, 3, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0, 0]])
    h, mask = model.states(x)
    assert torch.equal(h[0, 0], h[1, 0])  # before any word
    with torch.no_grad():
        model.E.weight[-1] += 1
    other, _ = model.states(x)
    assert (other[mask] != h[mask]).any(1).all()
    assert model.E.num_embeddings == 5  # the words, the end and the start


# ---- training, and what is refused -----------------------------------------------------------------------------------

TRAIN = data.load("captions", "valid")
SMALL = replace(TRAIN, x=TRAIN.x[:50], y=TRAIN.y[:50])


def small():
    torch.manual_seed(3)
    return Language.of_data(TRAIN, width=8, blocks=1, heads=2, dropout=0.1)


def test_it_learns_and_resumes_to_the_same_bits(tmp_path):
    loop = dict(steps=12, batch=16, rate=1e-2, every=5)
    whole, *_ = resumes(small, TRAIN, SMALL, loop, stop=7, folder=tmp_path)
    assert whole.settings["vocabulary"] == TRAIN.words.vocabulary and whole.words == TRAIN.words
    metrics = rows(tmp_path / "whole")
    assert metrics[-1]["valid"] < small().eval().loss(SMALL.x).mean() - 1
    best = min(metrics, key=lambda row: row["valid"])
    assert best["perplexity"] == whole.report(SMALL.x)["perplexity"]


def test_texts_are_taken_where_there_is_a_vocabulary():
    model = language(6)
    torch.testing.assert_close(model.log_prob(["A red circle.", "red"]),
                               model.log_prob(Words(WORDS).encode(["a red circle", "red"], 6)))
    without = Language((6,), levels=4, width=8, blocks=1, heads=2)
    with pytest.raises(ValueError, match="this model has no vocabulary: it takes the numbers of words, not text"):
        without.log_prob(["a red circle"])
    with pytest.raises(ValueError, match="this model has no vocabulary"):
        without.sample(2, begin="a")
    assert without.sample(2, begin=torch.tensor([3, 0, 0, 0, 0, 0]))[:, 0].tolist() == [3, 3]


@pytest.mark.parametrize("x, message", [
    (["a purpel circle"], "there is no word 'purpel' here; the nearest is 'red', and known are a, red, circle"),
    ([""], "the text '' has no word; known are a, red, circle"), (["a", 3], "a text must be a str, got int"),
    (["a red red red"], "a text has at most 3 words here, .*'a red red red'... has 4"),
    (torch.tensor([[1, 0, 2, 0]]), "a text ends at its first 0, and numbers of words follow one"),
    (torch.tensor([[1, 4, 0, 0]]), "x must hold levels 0 ... 3, got 0 ... 4"),
    (torch.tensor([[1, 0, 0]]), r"x must have shape \(N, 4\), got \(1, 3\)"),
])
def test_what_is_no_text_is_refused(x, message):
    with pytest.raises(ValueError, match=message):
        language().log_prob(x)


@pytest.mark.parametrize("settings, message", [
    (dict(shape=(4, 4), levels=4), r"shape must be \(L,\), the length of a text, got \(4, 4\)"),
    (dict(shape=(4,), levels=5, vocabulary=WORDS), "levels must be one more than the vocabulary has words, 3, got 5"),
    (dict(shape=(4,), levels=4, vocabulary=("a", "a", "b")), "of which some are twice"),
])
def test_what_is_no_language_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Language(**settings)
