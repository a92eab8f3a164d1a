"""CLIP's laws: its loss is the two cross entropies of the batch, vectors have length 1, what fills a text changes
nothing, exchanged captions are those of the grammar, and a resumed training gives the same bits."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from check_models import resumes, rows

from genmini import data
from genmini.data import captions, shapes_captions
from genmini.models._model import Batch
from genmini.models.clip import CLIP, MOST, nearer

TRAIN = data.load("shapes", "valid", size=16, captions=4)
SMALL = replace(TRAIN, x=TRAIN.x[:60], y=TRAIN.y[:60], ways=TRAIN.ways[:60])
FAST = dict(latent=8, width=4, text_width=8, blocks=2, heads=2)


def clip(**settings):
    """A model in float64 whose blocks do not add 0, as they do at initialisation."""
    torch.manual_seed(0)
    model = CLIP.of_data(TRAIN, **FAST, dtype=torch.float64, **settings).eval()
    for parameter in model.T.parameters():
        torch.nn.init.normal_(parameter, 0.2, 0.3)
    return model


X, Y = TRAIN.x[:20], TRAIN.y[:20].long()


def plain(model, x, y):
    """(3) by a matrix of all pairs and two cross entropies."""
    l = model.a.exp() * model.encode(x) @ model.encode_text(y).T
    each = torch.arange(len(x))
    return (F.cross_entropy(l, each, reduction="none") + F.cross_entropy(l.T, each, reduction="none")) / 2


def test_the_loss_is_the_mean_of_two_cross_entropies():
    """Sums of 20 numbers of size 10: 1e-12 is 100 roundings of them."""
    model = clip()
    loss = model.loss(X, Y)
    assert loss.shape == (20,) and loss.std() > 0.01
    torch.testing.assert_close(loss, plain(model, X, Y), rtol=0, atol=1e-12)
    one, other = (torch.autograd.grad(each.sum(), [*model.parameters()]) for each in (model.loss(X, Y),
                                                                                      plain(model, X, Y)))
    for d, wanted in zip(one, other, strict=True):
        torch.testing.assert_close(d, wanted, rtol=1e-9, atol=1e-9)


def test_vectors_have_length_one_and_similarities_are_their_products():
    model, texts = clip(), ["a red circle", "a blue square above a green cross", "two red circles"]
    z, w = model.encode(X), model.encode_text(texts)
    for each in (z, w):
        torch.testing.assert_close(each.norm(dim=1), torch.ones(len(each), dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(model.similarity(X, texts), z @ w.T)
    torch.testing.assert_close(model.encode_text("a red circle"), w[:1])
    torch.testing.assert_close(model.encode_text(model.words.encode(texts, 40)), w)
    assert len(model.encode_text(model.words.encode(texts, 40)[0])) == 1 and len(model.encode_text([])) == 0


@pytest.mark.parametrize("swapped", [0.0, 0.7])
def test_the_order_of_a_batch_permutes_its_losses(swapped):
    model, order = clip(swapped=swapped), torch.randperm(20, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model.loss(X[order], Y[order]), model.loss(X, Y)[order], rtol=0, atol=1e-12)
    assert (model.loss(X[:10], Y[:10]) < model.loss(X, Y)[:10]).all()  # fewer wrong answers


def test_neither_other_texts_nor_what_fills_a_row_changes_a_vector():
    model = clip()
    together = model.encode_text(Y)
    for n in (0, 3, 7):
        torch.testing.assert_close(model.encode_text(Y[n]), together[n : n + 1], rtol=0, atol=1e-13)
    with torch.no_grad():
        model.T.position[(Y != 0).sum(1).max() + 1 :] += 1
    assert torch.equal(model.encode_text(Y), together)
    full = torch.ones(1, 40, dtype=torch.int64)  # numbers may fill a row without an end
    assert model.encode_text(full).isfinite().all()


def test_the_order_of_words_changes_a_vector():
    w = clip().encode_text(["a red circle above a blue square", "a blue square above a red circle"])
    assert (w[0] - w[1]).abs().max() > 1e-3


# ---- the exchanged captions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text, wanted", [
    ("a red circle left of a blue square", "a blue square left of a red circle"),
    ("there is a little disc over two big red boxes on a white background",
     "there are two big red boxes over a little disc on a white background"),
    ("a picture of a pair of crosses over one box", "a picture of one box over a pair of crosses"),
    ("a picture of a pair of crosses to the right of one thing", ""), ("a red shape left of a square", ""),
    ("a circle left of a circle", ""), ("two shapes left of a shape", ""),
    ("a red circle and a blue square", ""), ("a red circle", ""), ("left of", ""), ("", ""), ("a purpel cat", ""),
])
def test_the_things_of_a_relation_are_exchanged_in_their_own_words(text, wanted):
    assert shapes_captions.exchanged(text) == wanted
    assert not wanted or shapes_captions.exchanged(wanted) == text


def test_an_exchanged_caption_is_false_of_its_scene():
    found = 0
    for scene, text in zip(TRAIN.scenes, TRAIN.captions[:300], strict=False):
        other = shapes_captions.exchanged(text)
        assert bool(other) == bool(shapes_captions.parse(text).relation)
        found += bool(other)
        assert not other or shapes_captions.true_of(text, scene) and not shapes_captions.true_of(other, scene)
    assert found > 60


def test_exchanged_captions_are_wrong_answers():
    """(5), (6) by the caption's text; without a relation the loss is (3)."""
    model, plainly = clip(swapped=0.7), clip()
    loss, found = plainly.loss(X, Y), 0
    z, s = model.encode(X), model.a.exp()
    for n, text in enumerate(model.words.decode(Y)):
        other = shapes_captions.exchanged(text)
        if other:
            found += 1
            right, wrong = s * model.encode_text([text, other]) @ z[n]
            loss[n] = loss[n] + 0.7 * torch.log1p((wrong - right).exp())
    assert 0 < found < 20
    torch.testing.assert_close(model.loss(X, Y), loss, rtol=0, atol=1e-12)
    other = CLIP((3, 16, 16), 256, ("a", "dog"), 5, **FAST, swapped=1.0)  # words of another grammar
    assert not len(other.exchanged(torch.tensor([[1, 2, 0, 0, 0]]))[0])


# ---- what it finds ---------------------------------------------------------------------------------------------------


def test_the_right_answer_is_asked_among_those_that_follow():
    s = torch.tensor([[0.5, 0.9, 0.1, 0.1], [0.0, 0.5, 0.4, 0.9], [0.0, 0.0, 0.5, 0.5], [0.9, 0.6, 0.0, 0.5]])
    assert nearer(s).tolist() == [1, 1, 1, 2] and nearer(s, among=2).tolist() == [1, 0, 1, 1]
    same = torch.eye(4, dtype=torch.bool)
    same[2, 3] = same[3, 0] = True
    assert nearer(s, same).tolist() == [1, 1, 0, 1]
    assert nearer(s.T).tolist() == [1, 2, 0, 2]  # of images of a caption


def test_nothing_is_found_where_cosines_are_no_numbers():
    assert (nearer(torch.full((5, 5), math.nan)) == 4).all()


def test_figures_count_what_is_found():
    """An image of a caption that comes again is found by either caption, as they are the same."""
    model, again = clip(), torch.cat([Y[:10], Y[:10]])
    figures = model.figures(X, again)
    assert figures["loss"].equal(model.loss(X, again))
    s, found = model.similarity(X, again), 0
    for n in range(20):
        wrong = [m for m in range(20) if not again[m].equal(again[n])]
        assert figures["caption found"][n] == (s[n, n] > s[n, wrong].max())
        assert figures["image found"][n] == (s[n, n] > s[wrong, n].max())
        found += figures["caption found"][n]
    assert 0 < found < 20 and model.report(X, again) == {"scale": pytest.approx(1 / 0.07, rel=1e-6)}


# ---- training, and what is refused -----------------------------------------------------------------------------------


def test_the_scale_has_a_bound():
    model = clip()
    with torch.no_grad():
        model.a.fill_(7.0)
    for _, loss, parameters in model.updates(Batch(X, Y)):
        loss.backward()
        assert len([*parameters]) == len([*model.parameters()]) and model.s.item() > MOST
    assert model.s.item() == pytest.approx(MOST, rel=1e-12)
    assert clip().s.item() == pytest.approx(1 / 0.07, rel=1e-6)


def small():
    torch.manual_seed(3)
    return CLIP.of_data(TRAIN, **FAST, dropout=0.1, swapped=1.0)


def test_it_learns_and_resumes_to_the_same_bits(tmp_path):
    loop = dict(steps=16, batch=32, rate=1e-2, every=5)
    whole, *_ = resumes(small, TRAIN, SMALL, loop, stop=7, folder=tmp_path)
    assert whole.words == captions.WORDS and whole.length == captions.LENGTH
    metrics = rows(tmp_path / "whole")
    assert metrics[-1]["valid"] < small().eval().loss(SMALL.x, SMALL.y).mean() - 0.2
    assert min(metrics, key=lambda row: row["valid"])["scale"] == whole.s.item() != small().s.item()


@pytest.mark.parametrize("call, message", [
    (lambda model: model.loss(X), "y is missing: a caption for all, or one each"),
    (lambda model: model.encode_text("a purpel circle"), "no word 'purpel' here; the nearest is 'purple'"),
    (lambda model: model.encode_text(["a", ""]), "the text '' has no word"),
    (lambda model: model.encode_text(40 * "red "), "a text has at most 39 words here"),
    (lambda model: model.encode_text(3), "text must be a str, a list of str, or the numbers of words, got int"),
    (lambda model: model.encode_text(None), "y is missing"),
    (lambda model: model.loss(X, Y[:3]), r"the numbers of words must have shape \(20, 40\), got \(3, 40\)"),
    (lambda model: model.encode(X[:, :2]), r"x must have shape \(N, 3, 16, 16\), got"),
    (lambda model: model.sample(2), "CLIP draws no samples"),
    (lambda model: clip(swapped=-1.0), "swapped must be at least 0, got -1.0"),
    (lambda model: clip(swapped=math.nan), "swapped must be at least 0, got nan"),
    (lambda model: CLIP((3, 16, 18), 256, ("a",), 5), "must have sides divisible by 4"),
])
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(clip())
