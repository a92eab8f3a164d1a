"""DALL-E 2's laws: weights of a stage that is over do not change, and its three stages are one training, which resumes
in each to the same bits; padding has no effect; what is hidden, and guided; variations keep the code, and what lies
between two codes lies on the sphere. The laws of its priors stand in test_dalle2_priors.py.
"""

import hashlib
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from check import command
from check_models import at_step, ctrl_c, rows, same_runs, same_weights, takes_text_in_any_form

from genmini import checkpoint, data
from genmini.data import shapes
from genmini.data.text import Words
from genmini.models.dalle2 import DALLE2, M, slerp
from genmini.train import fit

SMALL = dict(latent=4, clip_width=4, text_width=8, text_blocks=1, heads=2, prior_width=8, prior_blocks=1, directions=3,
             bins=3, vector=8, adapter=1, width=8, draws=3, sampler="dpm")
VALID = data.load("shapes", "valid", size=16, captions=4)
FEW = replace(VALID, x=VALID.x[:30], y=VALID.y[:30], ways=VALID.ways[:30], scenes=None)
WORDS = "a", "red", "circle"
each_prior = pytest.mark.parametrize("prior", ["diffusion", "autoregressive"])


def dalle2(**settings):
    """In float64 at the stage "decoder", with random weights everywhere"""
    torch.manual_seed(0)
    model = DALLE2((8, 8), 17, WORDS, 7, **SMALL | dict(dtype=torch.float64) | settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    model.stage.fill_(2)
    return model.eval()


# ---- texts and codes -------------------------------------------------------------------------------------------------


@each_prior
def test_what_stands_beside_a_text_and_fills_its_row_has_no_effect(prior):
    model, x = dalle2(prior=prior), torch.randint(17, (2, 8, 8))
    text = model.text(model.check_y(["red", "a red circle a a"], 2))
    alone = model.text(model.check_y("red", 1))
    assert text.mask.sum(1).tolist() == [2, 6] and alone.mask.shape == (1, 2)
    near = lambda one, two: torch.testing.assert_close(one, two, atol=1e-12, rtol=1e-12)
    near(alone.h[0], text.h[0, :2])
    near(alone.w[0], text.w[0])
    z = model.encode(x)
    near(model.prior.loss(z[:1], alone), model.prior.loss(z, text)[:1] if prior != "diffusion" else
         model.prior.loss(z[:1], type(text)(*(part[:1] for part in text))))
    t, noise = torch.tensor([300, 700]), torch.randn(2, 8, 8).double()
    loss = lambda y, n: model.decoder.loss(x[n], y, t=t[n], noise=noise[n])
    y = model.joined(z, text)
    near(loss(model.joined(z[:1], alone), slice(0, 1)), loss(y, slice(None))[:1])
    other = y.clone()
    other[0, 2:, 4:-1] = 100.0  # the h that fill a row
    assert torch.equal(loss(other, slice(None)), loss(y, slice(None)))
    other[0, 1, 4] += 1
    assert (loss(other, slice(None)) != loss(y, slice(None))).tolist() == [True, False]


def test_a_text_may_be_given_in_any_form():
    model, x, noise = dalle2(), torch.randint(17, (2, 8, 8)), torch.randn(2, 8, 8).double()
    draw = lambda y: (torch.manual_seed(1), model.sample(2, y, noise=noise))[1]
    takes_text_in_any_form(model, x, draw)


def test_a_code_may_take_the_place_of_the_prior():
    model, noise, z = dalle2(), torch.randn(2, 8, 8).double(), F.normalize(torch.randn(2, 4).double(), dim=1)
    draw = lambda **how: model.sample(2, noise=noise, **how)
    torch.manual_seed(1)
    drawn = model.sample_z(2, "a red circle")
    torch.manual_seed(1)
    assert torch.equal(draw(y="a red circle"), draw(y="a red circle", z=drawn))
    four = [draw(), draw(y="red", z=z), draw(y="a circle", z=z), draw(z=z), draw(z=-z)]
    assert len({tuple(x.flatten().tolist()) for x in four}) == 5
    for wrong, says in ((z[:1], "z must hold n = 2 codes, got 1"), (z[:, :3], r"z must have shape \(N, 4\)")):
        with pytest.raises(ValueError, match=says):
            draw(z=wrong)


# ---- what is hidden, and guidance ------------------------------------------------------------------------------------


def test_hidden_is_neither_code_nor_text_and_learnt_vectors_stand_for_them():
    model = dalle2()
    text = model.text(model.check_y(["red", "a red circle a a"], 2))
    y = model.joined(F.normalize(torch.randn(2, 4).double(), dim=1), text)
    hidden = model.decoder.hidden(y, torch.tensor([False, True]))
    assert torch.equal(hidden[0], y[0]) and not hidden[1].any()
    read, reads = [], model.decoder.A.forward
    model.decoder.A.forward = lambda c, mask: (read.append((c, mask)), reads(c, mask))[1]
    model.decoder.read(hidden)
    ((c, mask),) = read
    assert torch.equal(c[1, :M], model.decoder.none) and mask.sum(1).tolist() == [M + 2, M]
    assert not torch.equal(c[0, :M], model.decoder.none)


def test_a_share_is_hidden_in_training_alone():
    """Of neither 0.9 x 0.6, of the text alone 0.9 x 0.4, of both 0.1: z 0.9, and a text 0.54"""
    model, seen, N = dalle2(hide=0.1, hide_text=0.4, dtype=torch.float32), [], 2000
    read = model.decoder.read
    model.decoder.read = lambda y: (seen.append((y[:, 0, :4].any(1), y[:, :, -1].sum(1))), read(y))[1]
    x = torch.randint(17, (N, 8, 8))
    with torch.no_grad():
        model.train().loss(x, "a red circle")
        model.eval().loss(x, "a red circle")
    (z, words), (all_z, all_words) = seen
    assert all_z.all() and (all_words == 4).all() and {*words.tolist()} == {0, 4} and not words[~z].any()
    for there, share in ((z, 0.9), (words > 0, 0.54)):
        assert abs(there.double().mean() - share) < 5 * math.sqrt(share * (1 - share) / N)


def test_guidance_1_is_the_model_of_code_and_text_and_0_that_of_neither():
    model, x, t, r = dalle2(), torch.randn(2, 1, 8, 8).double(), (0.6, 0.8), (0.8, 0.6)
    y = model.joined(F.normalize(torch.randn(2, 4).double(), dim=1), model.text(model.check_y("a red circle", 2)))
    none = torch.zeros_like(y)
    with torch.no_grad():
        at = lambda y, g: model.decoder.step(y, g, "none")(x, t, r)
        conditional, unconditional = at(y, 1), at(none, 1)
        assert (conditional - unconditional).abs().max() > 1e-4
        torch.testing.assert_close(at(y, 0), unconditional, atol=1e-12, rtol=1e-12)
        for w in (1 + 1e-9, 3.0):
            far = unconditional + w * (conditional - unconditional)
            torch.testing.assert_close(at(y, w), far, atol=1e-12, rtol=1e-12)
    noise, z = torch.randn(2, 8, 8).double(), y[:, 0, :4]
    draw = lambda **how: model.sample(2, "a red circle", z=z, noise=noise, **how)
    assert torch.equal(draw(), draw(guidance=2.0)) and not torch.equal(draw(), draw(guidance=8.0))


@each_prior
def test_guidance_of_the_prior_is_that_of_its_setting(prior):
    draw = lambda model, **how: (torch.manual_seed(1), model.sample_z(40, "a red circle", **how))[1]
    assert torch.equal(draw(dalle2(prior=prior, prior_guidance=3.0)), draw(dalle2(prior=prior), guidance=3.0))
    assert not torch.equal(draw(dalle2(prior=prior)), draw(dalle2(prior=prior), guidance=3.0))


# ---- variations, and what lies between -------------------------------------------------------------------------------


def test_the_way_on_the_sphere_ends_at_its_ends_and_stays_there():
    torch.manual_seed(0)
    one, other = F.normalize(torch.randn(2, 50, 5).double(), dim=2)
    u = torch.linspace(0, 1, 9).double()[:, None, None]
    z = slerp(one, other, u)
    near = lambda a, b: torch.testing.assert_close(a, b, atol=1e-12, rtol=0)
    near(z[0], one)
    near(z[-1], other)
    near(z.norm(dim=2), torch.ones(9, 50).double())
    steps = (z[1:] * z[:-1]).sum(2)  # the cosines of equal angles
    near(steps, steps[:1].expand(8, 50))
    near(slerp(one, one, u), one.expand(9, 50, 5))
    assert torch.equal(slerp(one.float(), one.float(), u.float()).isfinite().all(), torch.tensor(True))


def codes_of(model, call):
    """What the decoder is given when the model draws: y, and the noise"""
    seen, sample = [], model.decoder.sample
    model.decoder.sample = lambda n, y, **how: (seen.append((y, how["noise"])), sample(n, y, **how))[1]
    x = call()
    ((y, noise),) = seen
    return x, y[:, 0, :4], y[:, :, -1], noise


def test_variations_keep_the_code_and_read_no_text():
    model, x = dalle2(), torch.randint(17, (3, 8, 8))
    drawn, z, there, _ = codes_of(model, lambda: model.variations(x, 4))
    assert drawn.shape == (3, 4, 8, 8) and not there.any()
    assert torch.equal(z.unflatten(0, (3, 4)), model.encode(x)[:, None].expand(3, 4, 4))
    assert not torch.equal(drawn[0, 0], drawn[0, 1])  # other noise


def test_no_images_and_arguments_that_do_not_fit():
    model, x = dalle2(patch=2), torch.randint(17, (3, 8, 8))
    assert model.sample(0).shape == (0, 8, 8) and model.variations(x, 0).shape == (3, 0, 8, 8)
    assert model.variations(x[:0], 3).shape == (0, 3, 8, 8) and model.interpolate(x, x, 0).shape == (3, 0, 8, 8)
    for call, says in ((lambda: model.interpolate(x, x[:2], 3), "as many ends as beginnings, got 3 and 2"),
                       (lambda: model.variations(x, -1), "n must be"), (lambda: model.variations(x, 1.5), "n must be"),
                       (lambda: model.sample(2, z=[1.0]), "z must be a tensor of real numbers, got list"),
                       (lambda: model.sample(2, z=torch.zeros(2, 4, dtype=torch.cfloat)), "got torch.complex64"),
                       (lambda: model.sample_z(2, "red", guidance=math.nan), "guidance must be")):
        with pytest.raises(ValueError, match=says):
            call()


def test_between_two_images_and_two_texts_the_noise_stays():
    model, x = dalle2(), torch.randint(17, (4, 8, 8))
    drawn, z, there, noise = codes_of(model, lambda: model.interpolate(x[:2], x[2:], 5))
    assert drawn.shape == (2, 5, 8, 8) and not there.any()
    ends = z.unflatten(0, (2, 5))[:, [0, -1]]
    torch.testing.assert_close(ends, model.encode(x).unflatten(0, (2, 2)).transpose(0, 1), atol=1e-12, rtol=0)
    noise = noise.unflatten(0, (2, 5))
    assert torch.equal(noise, noise[:, :1].expand_as(noise)) and not torch.equal(noise[0], noise[1])
    model = dalle2()
    torch.manual_seed(2)
    ends = model.sample_z(1, ["red"]), model.sample_z(1, ["a circle"])
    torch.manual_seed(2)
    _, z, *_ = codes_of(model, lambda: model.interpolate(["red"], ["a circle"], 3))
    torch.testing.assert_close(z[[0, -1]], torch.cat(ends), atol=1e-12, rtol=0)


# ---- the stages ------------------------------------------------------------------------------------------------------

LOOPS = dict(steps=4, every=2, batch=8, rate=1e-2, decay=0.1, ema=0.9, progress=False,
             later={"prior": dict(steps=5, every=3, batch=8, rate=1e-2, decay=0.1, ema=0.9),
                    "decoder": dict(steps=6, every=3, batch=8, rate=1e-2, decay=0.1, ema=0.9)})


def staged(prior, run=None, at=None, event=None, resume=False):
    torch.manual_seed(7)
    model = DALLE2.of_data(FEW, prior=prior, dropout=0.1, **SMALL)
    if resume:
        torch.rand(100)
    with at_step(DALLE2, at, event):
        return model, fit(model, FEW, FEW, **LOOPS, run=run, resume=resume)


@pytest.fixture(scope="module", params=["diffusion", "autoregressive"])
def whole(request, tmp_path_factory):
    run = tmp_path_factory.mktemp(request.param)
    return run, request.param, staged(request.param, run)[0]


@pytest.mark.parametrize("at", [3, 6, 12])
def test_interrupted_in_any_stage_and_resumed_equals_uninterrupted(tmp_path, whole, at):
    run, prior, model = whole
    stage, last = {3: ("clip", 3), 6: ("prior", 2), 12: ("decoder", 3)}[at]
    with ctrl_c() as press:
        _, history = staged(prior, tmp_path, at, press)
    assert history.last == last and checkpoint.read(tmp_path)["stage"] == stage
    again, history = staged(prior, tmp_path, resume=True)
    same_weights(model, again)
    same_runs(tmp_path, run)
    assert [row["stage"] for row in rows(tmp_path)] == ["clip"] * 2 + ["prior"] * 2 + ["decoder"] * 2


def digest(module):
    tensors = module.state_dict().values()
    return hashlib.sha256(b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)).hexdigest()


@each_prior
def test_what_has_learnt_rests_to_the_bit_and_what_follows_waits(monkeypatch, prior):
    """Whatever the decay of weights and their averages."""
    seen, begin = {}, DALLE2.begin
    of = lambda model: [digest(part) for part in model.parts]
    monkeypatch.setattr(DALLE2, "begin", lambda model, stage, train: (
        seen.update({stage: of(model)}), begin(model, stage, train)))
    model, _ = staged(prior)
    times = [seen["clip"], seen["prior"], seen["decoder"], of(model)]
    for n, part in enumerate(zip(*times, strict=True)):
        changes = [one != other for one, other in zip(part, part[1:], strict=False)]
        assert changes == [n == 0, n == 1, n == 2]
    resting = [model.clip, model.prior]
    assert not any(parameter.requires_grad for part in resting for parameter in part.parameters())
    model.train()
    assert not any(module.training for part in resting for module in part.modules()) and model.decoder.net.training
    model.begin("prior", FEW)
    model.train()
    assert model.prior.training and not model.clip.training and model.unit == model.prior.unit


def test_a_prior_of_numbers_refuses_one_image():
    model = dalle2(prior="autoregressive")
    with pytest.raises(ValueError, match="needs the codes of 2 images or more, got 1"):
        model.prior.begin(torch.ones(1, 4).double())


def test_it_learns_what_the_text_says():
    """Two images and two captions of one word: each caption becomes its image, and an image another one of its kind."""
    left = torch.zeros(8, 8, dtype=torch.uint8)
    left[:, :4] = 1
    x, ways = torch.stack([left, left.flip(1)] * 8), torch.tensor([[[1, 0]], [[2, 0]]] * 8)
    some = data.Data("halves", "train", x, ways[:, 0], 2, words=Words(("left", "right")), ways=ways)
    torch.manual_seed(0)
    model = DALLE2.of_data(some, loss="simple", **SMALL)  # which learns an image at large sooner
    loop = dict(rate=1e-2, batch=16)
    fit(model, some, some, steps=60, **loop, progress=False,
        later={"prior": dict(steps=250, **loop), "decoder": dict(steps=200, **loop)})
    nearest = lambda drawn: torch.cdist(drawn.flatten(1).float(), x[:2].flatten(1).float()).argmin(1)
    assert torch.equal(nearest(model.sample(16, ["left", "right"] * 8)), torch.arange(16) % 2)
    assert torch.equal(nearest(model.variations(x[:2], 3).flatten(0, 1)), torch.arange(6) // 3)
    ends = model.interpolate(["left"], ["right"], 4)[0, [0, -1]]
    assert nearest(ends).tolist() == [0, 1]


def test_without_a_caption_those_of_the_data_are_drawn():
    model, read = DALLE2.of_data(FEW, **SMALL), []
    model.begin("prior", FEW)
    text = model.text
    model.text = lambda y: (read.append(y), text(y))[1]
    assert model.sample(9).shape == (9, 3, 16, 16)
    assert {*map(tuple, read[0].tolist())} <= {*map(tuple, FEW.y.tolist())} and len(read[0]) == 9
    assert all(torch.equal(each, read[0]) for each in read)  # the prior and the decoder read the same


@pytest.mark.parametrize("settings, message", [
    (dict(prior="flow"), "prior must be 'diffusion' or 'autoregressive', got 'flow'"),
    (dict(bins=1), "bins must be at least 2, got 1"), (dict(hide_text=2.0), "hide_text must be at least 0 and at most"),
    (dict(prior_guidance=math.inf), "prior_guidance must be finite, got inf"), (dict(latent=0), "latent must be at"),
    (dict(prior_width=9), "width must be a multiple of heads = 2, got 9"),
])
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DALLE2((8, 8), **SMALL | settings)


@pytest.mark.usefixtures("folder_of_its_own")
def test_the_command_line_trains_all_stages_draws_what_is_said_and_varies_it(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(shapes, "COUNT", {"train": 30, "valid": 10, "test": 12})
    words = ["train", "dalle2", "--data", "shapes", "--size", "16", "--scenes", "30", "--steps", "2", "--out", "r"]
    words += [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    status, out, err = command(capsys, *words)
    assert status == 0 and "2 + 2 + 2 steps" in out, err
    status, out, _ = command(capsys, "eval", "r")
    names = "error", "prior", "cosine", "contrast", "caption found", "image found"
    assert status == 0 and all(name in out for name in names) and "given the caption" in out
    draw = "sample", "r", "two red circles above a blue square", "-n", "3", "--guidance", "5"
    for more in (["--out", "x.npy"], ["--how", "ddim"]):
        status, _, err = command(capsys, *draw, *more)
        assert status == 0, err
    status, _, err = command(capsys, "sample", "r", "two red dogs", "-n", "2")
    assert status == 2 and "there is no word 'dogs' here; the nearest is" in err
    status, out, _ = command(capsys, "sample", "r", "-n", "2")
    assert status == 0 and "no caption was given" in out
    status, out, err = command(capsys, "study", "vary", "r")
    assert status == 0 and "r: 12 variations have the cosine " in out, err
    assert (tmp_path / "r" / "vary.png").stat().st_size > 10_000
    status, _, err = command(capsys, "study", "reconstruct", "r")
    assert status == 2 and "DALLE2 draws images of a code, and has no mean image of it" in err
    assert command(capsys, *words, "--resume")[1].count("nothing left to resume") == 1
