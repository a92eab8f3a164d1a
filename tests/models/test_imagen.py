"""Imagen's laws: attention ignores padding, the weights of the language model do not change once it has learnt, what is
hidden and guided; texts in any form; its stages are one training, which resumes in each to the same bits."""

import hashlib
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from check import command
from check_models import at_step, ctrl_c, rows, same_runs, same_weights, takes_text_in_any_form

from genmini import checkpoint, data
from genmini.data import captions, shapes
from genmini.data.text import Words
from genmini.models.imagen import Imagen
from genmini.nets.unet import Attention
from genmini.train import fit

SMALL = dict(text_width=8, text_blocks=1, text_heads=2, directions=6, vector=8, adapter=1, width=8, larger_width=8,
             draws=3)
VALID = data.load("shapes", "valid", size=16, captions=4)
FEW = replace(VALID, x=VALID.x[:30], y=VALID.y[:30], ways=VALID.ways[:30], scenes=None)
WORDS = "a", "red", "circle"


def imagen(shape=(8, 8), **settings):
    """In float64 at the stage "base", with random weights everywhere"""
    torch.manual_seed(0)
    model = Imagen(shape, 17, WORDS, 7, **SMALL | dict(dtype=torch.float64) | settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
        model.V.normal_()
    model.stage.fill_(1)
    return model.eval()


# ---- what is read of a text ------------------------------------------------------------------------------------------


def test_what_stands_beside_a_text_and_fills_its_row_has_no_effect():
    model, x = imagen(), torch.randint(17, (2, 8, 8))
    t, noise = torch.tensor([300, 700]), torch.randn(2, 8, 8).double()
    loss = lambda y, n: model.base.loss(x[n], y[n], t=t[n], noise=noise[n])
    y = model.states(model.check_y(["red", "a red circle a a"], 2))
    assert y.shape == (2, 6, 7) and y[:, :, -1].sum(1).tolist() == [2, 6]
    alone = model.states(model.check_y("red", 1))
    assert alone.shape == (1, 2, 7)
    torch.testing.assert_close(alone[0], y[0, :2], atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(model.base.loss(x[:1], alone, t=t[:1], noise=noise[:1]), loss(y, slice(0, 1)),
                               atol=1e-12, rtol=1e-12)
    y, other = y.clone(), y.clone()  # of one layout, or products may round in another order
    other[0, 2:, :-1] = 100.0
    assert torch.equal(loss(other, slice(None)), loss(y, slice(None)))
    other[0, 1, 0] += 1
    assert (loss(other, slice(None)) != loss(y, slice(None))).tolist() == [True, False]


def test_each_word_and_its_place_matter():
    model, x = imagen(), torch.randint(17, (1, 8, 8))
    losses = {text: model.loss(x, text).item() for text in ("a red circle", "red a circle", "a circle red", "circle")}
    assert len({*losses.values()}) == 4


def test_all_attention_knows_where_a_pixel_lies():
    model, x = imagen(), torch.randint(17, (1, 8, 8))
    layers = [layer for layer in model.base.net.modules() if isinstance(layer, Attention)]
    now = model.loss(x, "a red circle")
    for layer in layers:
        before = layer.P.weight.clone()
        torch.nn.init.zeros_(layer.P.weight)
        assert model.loss(x, "a red circle") != now
        layer.P.weight.data.copy_(before)


def test_a_text_may_be_given_in_any_form():
    model, x, noise = imagen(), torch.randint(17, (2, 8, 8)), torch.randn(2, 8, 8).double()
    draw = lambda y: (torch.manual_seed(1), model.sample(2, y, noise=noise))[1]
    takes_text_in_any_form(model, x, draw)


def test_the_numbers_of_a_text_vary_alike():
    """(2), over the texts that m and V are taken of: to the rounding of variances, of which the least kept is 1e-4
    of the largest."""
    torch.manual_seed(1)
    model = Imagen.of_data(FEW, **SMALL, dtype=torch.float64)
    model.begin("base", FEW)
    e = model.states(model.texts.long())
    e = e[e[:, :, -1] > 0][:, :-1]
    within = 6 * len(e) * 2**-53 * 1e4
    torch.testing.assert_close(e.mean(0), torch.zeros(6).double(), atol=within, rtol=0)
    torch.testing.assert_close(e.T.cov(), torch.eye(6).double(), atol=within, rtol=0)


# ---- hidden texts, and guidance --------------------------------------------------------------------------------------


def test_a_hidden_text_is_the_state_before_any_word():
    model = imagen()
    y = model.states(model.check_y(["red", "a red circle a a"], 2))
    hidden = model.base.hidden(y, torch.tensor([False, True]))
    assert torch.equal(hidden[0], y[0]) and hidden[1, :, -1].tolist() == [1, 0, 0, 0, 0, 0]
    x, t, noise = torch.randint(17, (1, 8, 8)), torch.tensor([500]), torch.randn(1, 8, 8).double()
    none = model.states(torch.zeros(1, 7, dtype=torch.long))  # no word
    assert none.shape == (1, 1, 7)
    torch.testing.assert_close(model.base.loss(x, hidden[1:], t=t, noise=noise),
                               model.base.loss(x, none, t=t, noise=noise), atol=1e-12, rtol=1e-12)


def test_texts_are_hidden_from_a_share_in_training_alone():
    model, seen, N = imagen(hide=0.25, dtype=torch.float32), [], 2000
    read = model.base.read
    model.base.read = lambda y: (seen.append(y[:, :, -1].sum(1)), read(y))[1]
    x = torch.randint(17, (N, 8, 8))
    model.train().loss(x, "a red circle")
    model.eval().loss(x, "a red circle")
    assert {*seen[0].tolist()} == {1, 4} and (seen[1] == 4).all()
    assert abs((seen[0] == 1).double().mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / N)


def test_guidance_1_is_the_model_of_the_text_and_0_that_of_none():
    model, x, t, r = imagen(), torch.randn(2, 1, 8, 8).double(), (0.6, 0.8), (0.8, 0.6)
    y = model.states(model.check_y("a red circle", 2))
    none = model.base.hidden(y, torch.ones(2, dtype=torch.bool))
    with torch.no_grad():
        at = lambda y, w: model.base.step(y, w, "none")(x, t, r)
        conditional, unconditional = at(y, 1), at(none, 1)
        assert (conditional - unconditional).abs().max() > 1e-4
        torch.testing.assert_close(at(y, 0), unconditional, atol=1e-12, rtol=1e-12)
        for w in (1 + 1e-9, 3.0):
            far = unconditional + w * (conditional - unconditional)
            torch.testing.assert_close(at(y, w), far, atol=1e-12, rtol=1e-12)
    noise = torch.randn(2, 8, 8).double()
    draw = lambda **how: model.sample(2, "a red circle", noise=noise, how="ddim", **how)
    assert torch.equal(draw(), draw(guidance=3.0)) and not torch.equal(draw(), draw(guidance=8.0))
    assert not torch.equal(draw(guidance=8.0, threshold="static"), draw(guidance=8.0, threshold="dynamic"))


# ---- the stages ------------------------------------------------------------------------------------------------------

LOOP = dict(steps=8, every=4, batch=8, rate=1e-2, decay=0.1, ema=0.9)
LOOPS = dict(steps=6, every=3, batch=8, rate=1e-2, ema=0.9, progress=False, later={"base": LOOP, "twice": LOOP})
LARGER = replace(FEW, x=FEW.x.repeat_interleave(2, 2).repeat_interleave(2, 3))


def staged(run=None, at=None, event=None, resume=False):
    torch.manual_seed(7)
    model = Imagen.of_data(LARGER, dropout=0.1, **SMALL)
    if resume:
        torch.rand(100)
    with at_step(Imagen, at, event):
        return model, fit(model, LARGER, LARGER, **LOOPS, run=run, resume=resume)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = tmp_path_factory.mktemp("whole")
    return run, *staged(run)


@pytest.mark.parametrize("at", [4, 11, 20])
def test_interrupted_in_each_stage_and_resumed_equals_uninterrupted(tmp_path, whole, at):
    with ctrl_c() as press:
        _, history = staged(tmp_path, at, press)
    stage, before = {4: ("language", 0), 11: ("base", 6), 20: ("twice", 14)}[at]
    assert history.last == at - before
    assert checkpoint.read(tmp_path)["stage"] == stage
    model, history = staged(tmp_path, resume=True)
    same_weights(whole[1], model)
    same_runs(tmp_path, whole[0])
    assert [row["stage"] for row in rows(tmp_path)] == ["language"] * 2 + ["base"] * 2 + ["twice"] * 2


def test_it_learns_what_the_order_of_words_says():
    """Two images with captions of the same two words, of which the first says where it is light."""
    left = torch.zeros(8, 8, dtype=torch.uint8)
    left[:, :4] = 1
    x, ways = torch.stack([left, left.flip(1)] * 8), torch.tensor([[[1, 2, 0]], [[2, 1, 0]]] * 8)
    some = data.Data("halves", "train", x, ways[:, 0], 2, words=Words(("left", "right")), ways=ways)
    torch.manual_seed(0)
    model = Imagen.of_data(some, **SMALL)
    fit(model, some, some, steps=30, rate=2e-2, batch=16, progress=False,
        later={"base": dict(steps=200, rate=1e-2, batch=16)})
    drawn = model.sample(16, ["left right", "right left"] * 8).float()
    apart = torch.cdist(drawn.flatten(1), x[:2].float().flatten(1))
    assert (apart.argmin(1) == torch.arange(16) % 2).all()


def digest(module):
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in module.state_dict().values())).hexdigest()


def test_what_has_learnt_rests_to_the_bit(monkeypatch):
    """In all later stages, whatever the decay of weights and their averages; and what learns later, before."""
    seen, begin = [], Imagen.begin
    monkeypatch.setattr(Imagen, "begin", lambda model, stage, train: (
        seen.append([digest(part) for part in model.parts]), begin(model, stage, train)))
    model, _ = staged()
    seen.append([digest(part) for part in model.parts])
    for i, part in enumerate(zip(*seen, strict=True)):  # part i changes in stage i alone
        assert [a != b for a, b in pairwise(part)] == [stage == i for stage in range(3)]
    for part in model.train().parts:
        learns = part is model.learnt
        assert part.training == learns and all(parameter.requires_grad == learns for parameter in part.parameters())


def test_what_makes_states_vary_alike_is_computed_once():
    model = Imagen.of_data(LARGER, **SMALL)
    model.begin("base", LARGER)
    assert model.V.any()
    model.V.zero_()
    model.begin("twice", LARGER)
    assert not model.V.any()


def test_the_language_model_learns_from_more_text_than_the_images_have(monkeypatch):
    monkeypatch.setattr(captions, "COUNT", {"train": 40, "valid": 10, "test": 10})
    model = Imagen.of_data(VALID, **SMALL)
    model.begin("language", VALID)
    assert torch.equal(model.texts, data.load("captions", "train").x)
    model.begin("language", FEW)  # images without scenes, as those of a folder
    assert torch.equal(model.texts, FEW.ways.view(120, 40))


def test_without_a_caption_those_of_the_data_are_drawn():
    model, read = Imagen.of_data(FEW, **SMALL), []
    model.begin("base", FEW)
    states = model.states
    model.states = lambda y: (read.append(y), states(y))[1]
    assert model.sample(9).shape == (9, 3, 16, 16)
    assert {*map(tuple, read[0].tolist())} <= {*map(tuple, FEW.y.tolist())} and len(read[0]) == 9


@pytest.mark.usefixtures("folder_of_its_own")
def test_the_command_line_trains_both_stages_and_draws_what_is_said(capsys, monkeypatch):
    monkeypatch.setattr(shapes, "COUNT", {"train": 30, "valid": 10, "test": 12})
    monkeypatch.setattr(captions, "COUNT", {"train": 40, "valid": 10, "test": 10})
    words = ["train", "imagen", "--data", "shapes", "--size", "16", "--steps", "2", "--out", "r"]
    words += [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    status, out, err = command(capsys, *words)
    assert status == 0 and "2 + 2 steps" in out, err
    status, out, _ = command(capsys, "eval", "r")
    assert status == 0 and "error" in out and "text" in out and "given the caption" in out
    draw = "sample", "r", "two red circles above a blue square", "-n", "3", "--guidance", "5"
    assert command(capsys, *draw, "--out", "x.npy")[0] == command(capsys, *draw, "--how", "ddim")[0] == 0
    status, out, _ = command(capsys, "sample", "r", "-n", "2")
    assert status == 0 and "no caption was given" in out
    assert command(capsys, *words, "--resume")[1].count("nothing left to resume") == 1
