"""The command line from end to end: train, sample and eval do what they say, of every kind of model."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from check import command as run

from genmini import checkpoint, data, models, watch
from genmini.cli import _output, main

pytestmark = pytest.mark.usefixtures("folder_of_its_own")
FAST = ["--steps", "20", "--set", "hidden=16", "--set", "every=10", "--threads", "1"]


def test_completions_keep_what_is_known(capsys):
    from genmini import data

    assert run(capsys, "train", "nade", "--data", "digits", *FAST, "--out", "r")[0] == 0
    assert run(capsys, "sample", "r", "--complete", "-n", "6", "--out", "x.npy")[0] == 0
    x, test = np.load("x.npy"), data.load("digits-threshold", "test").x[:6].numpy()
    assert (x[:, :4] == test[:, :4]).all() and (x[:, 4:] != test[:, 4:]).any()
    assert run(capsys, "sample", "r", "--complete", "-n", "6")[0] == 0 and os.path.getsize("r/drawn.png") > 1000
    status, _, err = run(capsys, "sample", "r", "-y", "3")
    assert status == 2 and "-y names a class, and the NADE in r was made without classes" in err


def test_samples_of_one_class(capsys):
    small = ["--set", "couplings=2", "--set", "hidden=8", "--set", "classes=2", "--steps", "100", "--threads", "1"]
    assert run(capsys, "train", "realnvp", "--data", "moons", *small, "--out", "r")[0] == 0
    middles = []
    for y in "01":
        assert run(capsys, "sample", "r", "-n", "500", "-y", y, "--out", "x.npy")[0] == 0
        middles.append(np.load("x.npy")[:, 1].mean())
    assert middles[0] > middles[1] + 0.2  # the upper moon, the lower one
    status, _, err = run(capsys, "sample", "r", "-y", "2")
    assert status == 2 and "classes 0 ... 1" in err
    status, _, err = run(capsys, "sample", "r", "--how", "naive")
    assert status == 2 and "--how does not fit: RealNVP has one way to draw" in err
    status, _, err = run(capsys, "sample", "r", "--complete")
    assert status == 2 and "--complete does not fit: RealNVP keeps no known pixels, so it cannot" in err


def test_a_binary_recipe_takes_the_version_with_two_levels(capsys):
    few = [*FAST, "--steps", "1"]
    for wanted, words, name in (
        ("digits", [], "digits-threshold"), ("digits-threshold", [], "digits-threshold"),
        ("digits-dynamic", [], "digits-dynamic"),
        ("digits", ["--recipe", "digits-levels"], "digits"),
        ("digits-threshold", ["--recipe", "digits-levels"], "digits-threshold"),
    ):
        status, out, _ = run(capsys, "train", "made", "--data", wanted, *words, *few, "--out", "r", "--overwrite")
        assert status == 0 and json.loads(open("r/run.json").read())["data"] == name
        assert ("is taken as" in out) == (wanted != name)


def test_the_second_number_of_points_is_drawn_after_the_first(capsys, monkeypatch):
    """--complete keeps x_1 of test points; a picture shows the points, an array holds them."""
    monkeypatch.setattr(watch, "picture", lambda path, model, splits: path.write_bytes(b""))
    assert run(capsys, "train", "rnade", "--data", "moons", "--steps", "1", "--set", "hidden=4", "--out", "r")[0] == 0
    for out in ("x.npy", "x.png"):
        assert run(capsys, "sample", "r", "-n", "20", "--complete", "--out", out)[0] == 0
    drawn, test = np.load("x.npy"), data.load("moons", "test").x[:20].numpy()
    assert (drawn[:, 0] == test[:, 0]).all() and not (drawn[:, 1] == test[:, 1]).any()


@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_trains_samples_and_is_judged(capsys, monkeypatch, name):
    """Every model takes one step of its first recipe, with smaller batches; then each command works on the run. The
    pictures, and the whole sets of scenes and sentences, are tested elsewhere."""
    for drawn in (data.shapes, data.captions):
        monkeypatch.setattr(drawn, "COUNT", dict(train=400, valid=100, test=100))
    monkeypatch.setattr(watch, "picture", lambda path, model, splits: path.write_bytes(b""))
    monkeypatch.setattr(watch, "frame", lambda model, splits: b"")
    recipe = next(iter(models.recipes(name).values()))
    words = [] if not models.find(name).cannot("fit") else ["--steps", "1", "--set", "batch=4"]
    words += ["--size", "16", "--scenes", "400"] if data.family(recipe["data"]) == "shapes" else []
    status, out, err = run(capsys, "train", name, "--data", recipe["data"], *words, "--out", "r")
    assert status == 0 and err.count("\n") <= max(2, len(models.find(name).stages))  # a bar for each stage
    assert checkpoint.load("r").unit in out
    assert run(capsys, "eval", "r", "-k", "5")[0] == 0
    if models.find(name).cannot("sample"):
        return
    assert run(capsys, "sample", "r", "-n", "2", "--out", "x.npy")[0] == 0 and len(np.load("x.npy")) == 2


def test_the_figures_of_one_example_have_no_error(capsys):
    test = data.load("digits-threshold", "test")
    _output.figures(models.find("vae")((8, 8), latent=2, hidden=4).eval(), replace(test, x=test.x[:1], y=test.y[:1]))
    assert "elbo" in capsys.readouterr().out


def test_train_sample_eval(capsys, tmp_path):
    status, out, _ = run(capsys, "train", "made", "--data", "digits", *FAST)
    assert status == 0 and "digits-threshold" in out and "bits/dim" in out
    folder = tmp_path / "runs" / "made-digits"
    assert ((folder / "samples.png").stat().st_size > 1000
            and len((folder / "metrics.jsonl").read_text().splitlines()) == 2)
    metadata = json.loads((folder / "run.json").read_text())
    assert metadata["data"] == "digits-threshold" and metadata["settings"]["hidden"] == [16]
    assert metadata["recipe"]["steps"] == 20

    status, again, _ = run(capsys, "eval", str(folder))
    assert status == 0 and [line for line in out.splitlines() if line.startswith("test")] == again.splitlines()

    assert run(capsys, "sample", str(folder), "-n", "5")[0] == 0 and (folder / "drawn.png").exists()
    first = (folder / "drawn.png").read_bytes()
    status, out, _ = run(capsys, "sample", str(folder), "-n", "6")
    assert (status == 0 and out == f"6 samples in {folder}/drawn-2.png\n"
            and (folder / "drawn.png").read_bytes() == first)
    assert run(capsys, "sample", str(folder), "-n", "5", "--out", "x.npy")[0] == 0
    x = np.load("x.npy", allow_pickle=False)
    assert x.shape == (5, 8, 8) and x.dtype == np.uint8 and set(np.unique(x)) <= {0, 1}

    assert run(capsys, "train", "made", "--data", "digits", *FAST)[0] == 0
    assert (tmp_path / "runs" / "made-digits-2" / "run.json").exists(), "the first run is never overwritten"


def test_every_sampler_draws_the_same(capsys):
    small = ["--recipe", "digits", "--set", "width=4", "--set", "blocks=1", "--set", "batch=8", "--set", "ema=0.0",
             "--steps", "2", "--threads", "1"]
    assert run(capsys, "train", "pixelcnn", "--data", "digits", *small, "--out", "r")[0] == 0
    drawn = []
    for how in ("cached", "naive", "jacobi"):
        assert run(capsys, "sample", "r", "-n", "3", "--how", how, "--out", f"{how}.npy")[0] == 0
        drawn.append(np.load(f"{how}.npy"))
    assert (drawn[0] == drawn[1]).all() and (drawn[1] == drawn[2]).all() and 0 < drawn[0].mean() < 1
    status, _, err = run(capsys, "sample", "r", "--how", "guess")
    assert status == 2 and "how must be 'cached' or 'naive' or 'jacobi', got 'guess'" in err
    status, _, err = run(capsys, "sample", "r", "--complete", "-n", "301")
    assert (status == 2
            and "301 halves are to be completed, and the test split of digits-threshold has 300 images" in err)
    next(Path("r").glob("model-*.safetensors")).unlink()
    status, _, err = run(capsys, "sample", "r")
    assert status == 2 and "r is damaged: No such file" in err


def test_levels_and_other_backends(capsys):
    status, out, _ = run(capsys, "train", "made", "--data", "digits", "--recipe", "digits-levels", *FAST,
                         "--steps", "4", "--out", "r")
    assert status == 0 and "300 images of digits)" in out
    likelihoods = []
    for backend in ("reference", "auto"):
        assert run(capsys, "eval", "r", "--backend", backend)[0] == 0
        likelihoods.append(run(capsys, "eval", "r", "--backend", backend)[1])
    assert likelihoods[0] == likelihoods[1]


def test_a_series_is_fitted_at_once_and_forecast(capsys, tmp_path):
    status, out, _ = run(capsys, "train", "ar", "--data", "series", "--set", "p=2", "--set", "method=yule-walker")
    assert status == 0 and "fitted at once" in out and "54 numbers of series" in out and "bits" not in out
    assert (tmp_path / "runs" / "ar-series" / "samples.png").stat().st_size > 10_000
    test = next(line for line in out.splitlines() if line.startswith("test"))
    status, out, _ = run(capsys, "eval", "runs/ar-series")
    assert status == 0 and test in out
    assert (run(capsys, "sample", "runs/ar-series", "-n", "3", "--out", "x.npy")[0] == 0
            and np.load("x.npy").shape == (3, 220))
    assert run(capsys, "sample", "runs/ar-series", "-n", "3")[0] == 0
    status, _, err = run(capsys, "train", "ar", "--data", "series", "--steps", "5")
    assert status == 2 and "no --steps" in err


def test_a_flow_on_the_plane_stands_beside_the_truth(capsys, tmp_path):
    small = ["--set", "couplings=2", "--set", "hidden=8", "--steps", "3", "--threads", "1"]
    status, out, _ = run(capsys, "train", "realnvp", "--data", "moons", *small, "--set", "classes=2")
    assert status == 0 and "10000 points of moons" in out and "bits" not in out
    truth = next(line for line in out.splitlines() if line.startswith("truth"))
    assert 0.2 < float(truth.split()[1]) < 0.4  # 0.993 less log 2, given which moon
    assert (tmp_path / "runs" / "realnvp-moons" / "samples.png").stat().st_size > 50_000
    assert (run(capsys, "sample", "runs/realnvp-moons", "-n", "100")[0] == 0
            and (tmp_path / "runs/realnvp-moons/drawn.png").exists())


def test_a_bound_says_so_and_is_the_same_each_time(capsys):
    small = ["--set", "couplings=1", "--set", "width=4", "--steps", "3", "--threads", "1"]
    status, out, _ = run(capsys, "train", "realnvp", "--data", "digits", *small, "--out", "r")
    assert status == 0 and "bits/dim, at most" in out
    assert run(capsys, "eval", "r")[1] == run(capsys, "eval", "r")[1]


SMALL = ["--set", "body=mlp", "--set", "hidden=16", "--set", "latent=6", "--steps", "30", "--set", "every=30",
         "--threads", "1", "--out", "r"]


def test_a_model_of_several_figures_prints_them(capsys):
    status, out, _ = run(capsys, "train", "vae", "--data", "digits", *SMALL)
    lines = [line for line in out.splitlines() if line.startswith("test")]
    assert (status == 0 and [line.split()[1] for line in lines] == ["elbo", "reconstruction", "kl"]
            and "bits/dim" in lines[0])
    status, again, _ = run(capsys, "eval", "r", "-k", "7")
    judged = {line.split()[1]: line for line in again.splitlines() if line.startswith("test")}
    assert (status == 0 and list(judged) == ["elbo", "iwae-7", "reconstruction", "kl"]
            and judged["elbo"].split() == lines[0].split())
    assert float(judged["iwae-7"].split()[2]) > float(judged["elbo"].split()[2])
    assert again == run(capsys, "eval", "r", "-k", "7")[1] and "over 300 images of digits-threshold" in again
    assert run(capsys, "train", "vae", "--data", "digits", "--recipe", "digits-gaussian", *SMALL, "--overwrite")[0] == 0
    status, out, _ = run(capsys, "eval", "r", "-k", "2", "--split", "valid")
    assert "nats of a density of v" in out and "bits" not in out and out.startswith("valid")


def test_an_autoencoder_says_where_its_samples_come_from(capsys):
    status, out, _ = run(capsys, "train", "autoencoder", "--data", "digits", *SMALL)
    assert status == 0 and "squared error" in out and "nats" not in out and "Gaussian fitted to the codes" in out
    status, out, _ = run(capsys, "sample", "r", "-n", "4", "--out", "x.npy")
    assert status == 0 and "Gaussian fitted to the codes" in out and np.load("x.npy").shape == (4, 8, 8)


def test_a_conditional_vae_takes_a_class_or_several(capsys):
    assert run(capsys, "train", "cvae", "--data", "digits", *SMALL, "--steps", "200")[0] == 0
    assert "given the class" in run(capsys, "eval", "r", "-k", "2")[1]
    drawn = {}
    for y in ("3", "8", "3,8"):
        status, out, _ = run(capsys, "sample", "r", "-n", "300", "-y", y, "--out", "x.npy")
        assert status == 0 and "y was drawn" not in out
        drawn[y] = np.load("x.npy").mean(0)
    far = lambda a, b: np.abs(drawn[a] - drawn[b]).sum()
    assert far("3", "3,8") < far("3", "8") > far("8", "3,8") > 0
    assert "y was drawn from those of the training data" in run(capsys, "sample", "r", "-n", "3", "--out", "x.npy")[1]
    status, _, err = run(capsys, "sample", "r", "-y", "10")
    assert status == 2 and "classes 0 ... 9, got 10" in err
    with pytest.raises(SystemExit):
        main(["sample", "r", "-y", "three"])
    moons = ["--set", "couplings=1", "--set", "hidden=4", "--set", "classes=2", "--steps", "1", "--threads", "1",
             "--out", "m"]
    assert run(capsys, "train", "realnvp", "--data", "moons", *moons)[0] == 0
    status, _, err = run(capsys, "sample", "m", "-y", "0,1")
    assert status == 2 and "-y with several classes does not fit: RealNVP takes one class" in err


def test_an_ar_vae_prints_its_correlations(capsys):
    status, out, _ = run(capsys, "train", "arvae", "--data", "digits", *SMALL, "--set", "attributes=('area', 'slant')")
    assert (status == 0 and "rank correlation, slant" in out
            and json.loads(open("r/run.json").read())["settings"]["attributes"] == ["area", "slant"])
    status, _, err = run(capsys, "train", "arvae", "--data", "digits", *SMALL, "--set", "colour=1", "--overwrite")
    assert status == 2 and "gamma" in err and "beta" in err  # its own keys, and those of VAE
