"""Tests of what a diffusion draws: samples by each sampler, guidance, thresholds, films and the process, from Python
and by the command line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from check import command
from PIL import Image
from test_diffusion import diffusion

from genmini import checkpoint, data, plots
from genmini.guidance import guided
from genmini.metrics import against, draw, network
from genmini.models.made import MADE
from genmini.samplers import DATA, SAMPLERS
from genmini.schedule import x0_of
from genmini.studies import guide

# ---- samples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", SAMPLERS)
@pytest.mark.parametrize("shape, levels", [((8, 8), 17), ((3, 8, 8), 256), ((64, 64), 2)], ids=str)
def test_samples_are_levels_and_follow_the_seed(how, shape, levels):
    model = diffusion(shape, levels=levels, dtype=torch.float32)
    draw = lambda seed, **more: (torch.manual_seed(seed), model.sample(3, how=how, steps=2, **more))[1]
    x = draw(0)
    assert x.shape == (3, *shape) and x.dtype == torch.uint8 and x.max().item() < levels
    assert torch.equal(x, draw(0)) and not torch.equal(x, draw(1))
    noise = torch.randn(3, *shape)
    assert torch.equal(draw(0, noise=noise), draw(1, noise=noise)) == (how != "ddpm")


def test_ddim_with_eta_1_is_ddpm_and_with_0_draws_no_noise():
    model = diffusion(dtype=torch.float32)
    draw = lambda seed, **how: (torch.manual_seed(seed), model.sample(3, steps=4, noise=noise, **how))[1]
    noise = torch.randn(3, 8, 8)
    assert torch.equal(draw(1, how="ddim", eta=1.0), draw(1, how="ddpm"))
    assert torch.equal(draw(1, how="ddim", eta=0.0), draw(2, how="ddim"))
    half = draw(1, how="ddim", eta=0.5)
    assert not torch.equal(half, draw(2, how="ddim", eta=0.5)) and not torch.equal(half, draw(1, how="ddpm"))
    for how, wrong, says in (("ddim", 1.1, "eta must be at least 0 and at most 1, got 1.1"),
                             ("ddpm", 1.0, "eta is for how='ddim'"), (None, 0.5, "eta is for how='ddim'")):
        with pytest.raises(ValueError, match=says):
            model.sample(3, how=how, eta=wrong)


def test_the_path_ends_at_the_data_in_any_number_of_steps():
    model = diffusion()
    for steps in (1, 7, 999, 1000):
        path = model.path(steps)
        assert len(path) == steps + 1 == len(set(path)) and path[0][1] > 0.99999 and path[-1] == DATA


def test_guidance_1_is_the_conditional_model_and_0_the_unconditional_one():
    model, t, r = diffusion(classes=3), (0.6, 0.8), (0.8, 0.6)
    x, y = torch.randn(4, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    none = torch.full_like(y, -1)
    at = lambda y, w: model.step(y, w, "none")(x, t, r)
    conditional, unconditional = at(y, 1), at(none, 1)
    torch.testing.assert_close(at(y, 0), unconditional, atol=1e-12, rtol=1e-12)
    for w in (1 + 1e-9, 3.0):  # not 1: by the two halves of a batch
        torch.testing.assert_close(at(y, w), unconditional + w * (conditional - unconditional), atol=1e-12, rtol=1e-12)
    assert (conditional - unconditional).abs().max() > 1e-3
    torch.manual_seed(0)
    plain = model.sample(5, y=1, steps=3)
    torch.manual_seed(0)
    assert torch.equal(model.sample(5, y=1, steps=3, guidance=1.0), plain)


def test_the_limits_of_the_thresholds():
    """Inside [-1, 1] none changes anything; outside, "static" clamps and "dynamic" divides by what it clamps to."""
    x, t = torch.randn(2, 1, 8, 8, dtype=torch.float64), (0.6, 0.8)
    for size in (0.5, 40.0):
        model = diffusion(target="x0", scale=0)
        model.net.forward = lambda x, log_snr, y, size=size: size * x / x.abs().amax((1, 2, 3), keepdim=True)
        raw = size * x / x.abs().amax((1, 2, 3), keepdim=True)
        x0 = {name: model.step(None, 1, name)(x, t, DATA) for name in ("none", "static", "dynamic")}
        torch.testing.assert_close(x0["none"], raw, atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(x0["static"], raw.clamp(-1, 1), atol=1e-12, rtol=1e-12)
        bound = torch.quantile(raw.flatten(1).abs(), 0.995, 1, interpolation="higher").clamp(min=1).view(-1, 1, 1, 1)
        torch.testing.assert_close(x0["dynamic"], raw.clamp(-bound, bound) / bound, atol=1e-12, rtol=1e-12)
        assert x0["dynamic"].abs().max() <= 1


def test_a_classifier_leads_a_model_without_classes():
    """Each step moves x0 up the slope of log p(y | x0), so the samples are surer of their class; the steps are those of
    genmini/guidance.py. By default each class is drawn as often."""
    model, judge = diffusion(T=20, draws=5, dtype=torch.float32, scale=0.02), network()
    torch.manual_seed(0)
    y, noise = torch.arange(20) % 10, torch.randn(20, 8, 8)
    sure = {}
    for w in (0.0, 1.0, 10.0):
        torch.manual_seed(1)
        x = model.sample(20, y, noise=noise, guidance=w, classifier=judge)
        sure[w] = judge.log_p(x, 17, y).mean().item()
    assert sure[0.0] < sure[1.0] < sure[10.0], sure
    torch.manual_seed(1)
    assert torch.equal(model.sample(20, noise=noise, guidance=10.0, classifier=judge), x)
    denoiser = lambda x, t: x0_of("v", x, model.F(x, *(torch.tensor([v]).double() for v in t), None), *t)
    log_p = lambda X: judge.log_p(model.in_levels(X), 17, y)
    torch.manual_seed(1)
    by_hand = SAMPLERS["ddpm"](guided(denoiser, log_p, 10.0, 1.0), noise[:, None], model.path(5))
    assert (model.in_levels(by_hand).round().clamp(0, 16) == x).all()
    with pytest.raises(ValueError, match="a classifier guides a model without classes"):
        diffusion(classes=10).sample(2, classifier=judge)
    with pytest.raises(ValueError, match="y must hold classes 0 ... 9"):
        model.sample(2, y=10, classifier=judge)


def test_samples_that_are_not_finite_are_no_images():
    """NaN would become level 0, a black or a white image; the guidance overflows float32 and nothing limits x0."""
    model = diffusion(classes=3, dtype=torch.float32)
    with pytest.raises(ArithmeticError, match=r"no longer finite: a guidance nearer to 1 \(it is 1e\+38\), or a thr"):
        model.sample(2, y=1, steps=3, guidance=1e38, threshold="none")
    assert model.sample(2, y=1, steps=3, guidance=1e30).shape == (2, 8, 8)  # "static" holds


@pytest.mark.parametrize("how", SAMPLERS)
def test_a_film_has_every_x_t_and_ends_with_the_samples(how):
    model, film = diffusion(draws=4), []
    noise = torch.randn(3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    x = model.sample(3, noise=noise, how=how, film=film)
    assert len(film) == 5 and all(frame.shape == (3, 8, 8) for frame in film)
    torch.testing.assert_close(film[0], (noise + 1) * 8)
    assert torch.equal(film[-1].round().clamp(0, 16).to(torch.uint8), x)
    torch.manual_seed(0)
    assert torch.equal(model.sample(3, noise=noise, how=how), x)


# ---- the process -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [1000, 8])
def test_the_process_shows_one_noise_at_rising_times_and_a_way_back(T):
    model, x = diffusion(T=T, draws=1, classes=3), torch.randint(17, (5, 8, 8)).double()
    torch.manual_seed(0)
    there, seen, back, expected = model.process(x, y=1, times=8)
    assert all(part.shape == (8, 5, 8, 8) for part in (there, seen, back, expected))
    path = [t for t in model.path(min(T, 80)) if t[1] > 0]
    kept = path[:: len(path) // 8]
    noise = [(some / 8 - 1 - a * (x / 8 - 1)) / s for some, (a, s) in zip(there, kept[::-1], strict=True)]
    assert all((each - noise[0]).abs().max() < 1e-10 for each in noise) and abs(noise[0].std() - 1) < 0.2
    step, one = model.step(torch.ones(5, dtype=torch.long)), lambda some: some.view(5, 1, 8, 8) / 8 - 1
    for some, estimates, times in ((there, seen, kept[::-1]), (back, expected, kept)):
        for x_t, x0, t in zip(some, estimates, times, strict=True):
            torch.testing.assert_close(one(x0), step(one(x_t), t, DATA), atol=1e-9, rtol=1e-9)
    x_t = one(back[0])  # DDIM leads from the first to the second that is shown
    for t, r in zip(path, path[1 : 1 + len(path) // 8], strict=False):
        x_t = step(x_t, t, r)
    torch.testing.assert_close(one(back[1]), x_t, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("classes", [0, 10])
def test_the_study_draws_the_process(capsys, folder_of_its_own, classes):
    checkpoint.save("run", diffusion(classes=classes, dtype=torch.float32), {"step": 1, "data": "digits"})
    status, out, _ = command(capsys, "study", "diffuse", "run")
    assert status == 0 and out.count("0.") >= 9 and "picture   run/diffuse.png" in out
    assert len(plots.missing()) or Path("run/diffuse.png").stat().st_size > 10_000


def test_a_study_guides_by_classes_and_by_a_classifier(capsys, folder_of_its_own, monkeypatch):
    """In one picture, for each weight; runs that draw no digits, or are given a part of them, do not fit."""
    monkeypatch.setattr(guide, "N", 10)
    monkeypatch.setattr(guide, "WEIGHTS", (0.0, 2.0))
    for name, model, of in (("own", diffusion(classes=10, T=20, dtype=torch.float32), "digits"),
                            ("led", diffusion(T=20, dtype=torch.float32), "digits"),
                            ("given", diffusion(given="half", T=20), "digits"), ("big", diffusion((16, 16)), "mnist")):
        checkpoint.save(name, model, {"step": 1, "data": of})
    status, out, _ = command(capsys, "study", "guide", "own", "led")
    own, led, picture = out.splitlines()
    assert status == 0 and own.startswith("own, by own classes: w = 0: right class ") and own.count("; w = 2: ") == 1
    assert led.startswith("led, by digits-v1: w = 0: right class ") and picture == "picture   own/guide.png"
    assert Path("own/guide.png").stat().st_size > 10_000
    x, y = draw(checkpoint.load("led"), 10, 0, 10, how="ddpm", guidance=2.0, classifier=network())
    found = against(data.load("digits", "train"), network())(x, 17, y)
    assert led.endswith(f"w = 2: right class {found['accuracy'][0]:.1%}, FID {found['fid']:.1f}, "
                        f"recall {found['recall']:.2f}")
    for name in ("given", "big"):
        status, _, err = command(capsys, "study", "guide", name)
        assert status == 2 and f"{name} does not fit: guide is for diffusions of the digits" in err


def test_the_command_line_chooses_sampler_steps_and_guidance(capsys, folder_of_its_own):
    """`sample` and `score` hand them on; a model without classes refuses --guidance, MADE all three."""
    model = diffusion(classes=10, dtype=torch.float32)
    checkpoint.save("run", model, {"step": 1, "data": "digits"})
    words = ["--how", "heun", "--sampling-steps", "3", "--guidance", "2.5"]
    assert command(capsys, "sample", "run", "-n", "4", "-y", "7", *words, "--out", "x.npy")[0] == 0
    torch.manual_seed(0)
    assert np.array_equal(np.load("x.npy"), model.sample(4, y=7, how="heun", steps=3, guidance=2.5).numpy())
    status, out, _ = command(capsys, "score", "run", "-n", "8", *words)
    assert status == 0 and "seed 0, how heun, steps 3, guidance 2.5" in out
    words = ["--how", "ddim", "--eta", "0.5", "--sampling-steps", "3"]
    assert command(capsys, "sample", "run", "-n", "4", "-y", "7", *words, "--out", "x.npy")[0] == 0
    torch.manual_seed(0)
    assert np.array_equal(np.load("x.npy"), model.sample(4, y=7, how="ddim", eta=0.5, steps=3).numpy())
    checkpoint.save("made", MADE((8, 8), hidden=4), {"step": 1, "data": "digits-threshold"})
    for option, reason in (("--how", "MADE has one way to draw"), ("--eta", "MADE has no sampler that draws a share"),
                           ("--guidance", "MADE is not guided towards a class"),
                           ("--sampling-steps", "MADE draws in a number of steps of its own")):
        for verb in ("sample", "score"):
            status, _, err = command(capsys, verb, "made", option, "2")
            assert status == 2 and f"{option} does not fit: {reason}" in err


def test_the_command_line_guides_by_a_classifier_and_makes_a_film(capsys, folder_of_its_own):
    checkpoint.save("run", diffusion(T=20, dtype=torch.float32), {"step": 1, "data": "digits"})
    model, judge = checkpoint.load("run"), network()
    words = ["--sampling-steps", "4", "--guidance", "3"]
    assert command(capsys, "sample", "run", "-n", "5", "-y", "3,8", "--classifier", "digits-v1", *words, "--out",
                   "x.npy")[0] == 0
    torch.manual_seed(0)
    x = model.sample(5, torch.tensor([3, 8, 3, 8, 3]), steps=4, guidance=3.0, classifier=judge)
    assert np.array_equal(np.load("x.npy"), x.numpy())
    status, out, _ = command(capsys, "score", "run", "-n", "10", "--classifier", "digits-v1", *words)
    assert status == 0 and "seed 0, steps 4, guidance 3.0, classifier digits-v1" in out
    assert "+-" in next(line for line in out.splitlines() if line.startswith("right class"))
    status, out, _ = command(capsys, "sample", "run", "-n", "4", "--film", "--sampling-steps", "3")
    assert status == 0 and out == "film of 4 samples in run/drawn.gif\n"
    assert "--out takes a .gif" in command(capsys, "sample", "run", "--film", "--out", "")[2]
    with Image.open("run/drawn.gif") as film:
        assert film.n_frames == 4 and film.size == (17 * 28, 17 * 28)  # two images of 8 pixels, and a line between
    assert command(capsys, "sample", "run", "--film", "--out", "x.png")[0] == 2
    checkpoint.save("made", MADE((8, 8), hidden=4), {"step": 1, "data": "digits-threshold"})
    for option, reason in ((["--film"], "MADE does not draw step by step"),
                           (["--classifier", "digits-v1"], "MADE is not guided by a classifier")):
        status, _, err = command(capsys, "sample", "made", *option)
        assert status == 2 and f"{option[0]} does not fit: {reason}" in err
    assert "inception has none of the classes" in command(capsys, "sample", "run", "--classifier", "inception")[2]
    for option, says in (("--classifier", "features must be digits-v1"), ("--how", "how must be 'ddim'")):
        status, _, err = command(capsys, "sample", "run", option, "")
        assert status == 2 and says in err and err.endswith("got ''\n")
