"""A user's mistake or a failure of the machine is one clear line and status 2 or 1, never a traceback."""

import json
import os

import pytest
from check import command as run

from genmini import models
from genmini.cli import main

pytestmark = pytest.mark.usefixtures("folder_of_its_own")
FAST = ["--steps", "20", "--set", "hidden=16", "--set", "every=10", "--threads", "1"]


MISTAKES = {
    "unknown model": (["train", "madde", "--data", "digits"], f"unknown model 'madde'; the models are {', '.join(models.MODELS)}"),
    "unknown data": (["train", "made", "--data", "mnits"], "unknown data 'mnits'; the data sets are digits, digits-threshold"),
    "unknown recipe": (["train", "made", "--data", "digits", "--recipe", "best"], "digits-levels"),
    "unknown key": (["train", "made", "--data", "digits", "--set", "stepz=3"], "the keys are hidden"),
    "no value": (["train", "made", "--data", "digits", "--set", "steps"], "KEY=VALUE"),
    "wrong kind": (["train", "made", "--data", "digits", "--set", "rate=fast"], "--set rate takes a value like 0.002, got 'fast'"),
    "unknown device": (["train", "made", "--data", "digits", "--device", "tpu"], "no device 'tpu' here"),
    "unknown backend": (["train", "made", "--data", "digits", "--backend", "gpu"], "unknown backend 'gpu'; the backends are auto"),
    "no run": (["sample", "nowhere"], "nowhere holds no run"),
    "no run to evaluate": (["eval", "nowhere"], "nowhere holds no run"),
    "wrong file": (["sample", "nowhere", "--out", "x.jpg"], ".png or a .npy"),
    "other kind of data": (["train", "made", "--data", "moons", "--recipe", "digits"], "is for images, and moons is points of the plane"),
    "no recipe": (["train", "made", "--data", "series"], "made has no recipe for 'series'; its recipes are digits"),
    "no folder": (["train", "realnvp", "--data", "mnist", "--data-dir", "nowhere", "--recipe", "digits"], "there is no folder nowhere"),
    "nothing to resume": (["train", "made", "--data", "digits", "--resume", "--out", "nowhere"], "nowhere holds no run"),
    "resume what": (["train", "made", "--data", "digits", "--resume"], "--resume continues the run in --out, and none is given"),
    "precision": (["train", "made", "--data", "digits", "--steps", "1", "--set", "precision=int8"], "float32, bfloat16, float16"),
    "no step to clip to": (["train", "made", "--data", "digits", "--steps", "1", "--set", "clip=-1.0"], "clip must be above 0, got -1.0"),
    "no numbers there": (["train", "made", "--data", "digits", "--device", "meta"], "no device 'meta' here"),
    "no units": (["train", "vae", "--data", "digits", "--set", "width=0"], "hidden and width must be at least 1, got 400 and 0"),
    "beta below 0": (["train", "vae", "--data", "digits", "--set", "beta=-1.0"], "beta and free_bits must be at least 0"),
    "no share": (["train", "vqvae", "--data", "digits", "--set", "miss=2.0"], "miss a share, 0 to 1"),
    "twice": (["train", "arvae", "--data", "digits", "--set", "attributes=('area', 'area')"], "there is one twice"),
    "no picture": (["study", "embed", "r", "--out", "x.pdf"], "--out takes a .png file, got x.pdf"),
    "the out is a file": (["train", "made", "--data", "digits", "--steps", "1", "--out", __file__], "--out takes a folder, and"),
}


@pytest.mark.parametrize("words, says", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(capsys, words, says):
    status, _, err = run(capsys, *words)
    line = err.splitlines()[-1]
    assert status == 2 and line.startswith("genmini: ") and says in line
    assert [other for other in err.splitlines()[:-1] if "step/s" not in other] == []


@pytest.mark.parametrize("words", [[], ["trian"], ["train"], ["sample", "r", "-n", "0"], ["sample", "r", "-n", "many"], ["info", "--fast"]])
def test_a_mistyped_command_is_one_line(capsys, words):
    with pytest.raises(SystemExit) as caught:
        main(words)
    err = capsys.readouterr().err
    assert caught.value.code == 2 and len(err.splitlines()) == 1 and "--help" in err


def test_nan_and_memory_are_one_line(capsys, monkeypatch):
    status, _, err = run(capsys, "train", "made", "--data", "digits", *FAST, "--set", "rate=1e30")
    assert status == 1 and "no longer finite" in err.splitlines()[-1] and "Traceback" not in err
    status, _, err = run(capsys, "train", "made", "--data", "digits", *FAST, "--set", "hidden=1000000000000")
    assert status == 1 and "out of memory" in err.splitlines()[-1]


@pytest.mark.parametrize("words, said", [
    (["train", "made", "--data", "digits", "--set", "hidden=(3.5,)"], "--set hidden takes a value like"),
    (["train", "made", "--data", "digits", "--set", f"batch={10**20}"], "--set batch takes a value like"),
    (["train", "made", "--data", "digits", "--set", "foo=1"], "--set knows no key 'foo'"),
    (["train", "ar", "--data", "series", "--tensorboard"], "it takes no --tensorboard"),
])  # fmt: skip
def test_a_mistake_in_a_setting_is_one_line(capsys, words, said):
    status, _, err = run(capsys, *words)
    assert status == 2 and said in err and len(err.strip().splitlines()) == 1


def test_a_run_that_kept_nothing_leaves_no_run(capsys, monkeypatch):
    assert run(capsys, "train", "made", "--data", "digits", *FAST, "--out", "here")[0] == 0
    status, _, err = run(capsys, "train", "made", "--data", "digits", *FAST, "--out", "here", "--overwrite", "--set", "rate=1e30")
    assert status == 1 and "nothing was kept" in err.splitlines()[-1] and not os.path.exists("here/run.json")


def test_an_existing_run_is_kept(capsys, tmp_path):
    assert run(capsys, "train", "made", "--data", "digits", *FAST, "--out", "mine")[0] == 0
    before = (tmp_path / "mine" / "run.json").read_bytes()
    status, _, err = run(capsys, "train", "made", "--data", "digits", *FAST, "--out", "mine", "--seed", "1")
    assert status == 2 and "--overwrite" in err and (tmp_path / "mine" / "run.json").read_bytes() == before
    assert run(capsys, "train", "made", "--data", "digits", *FAST, "--out", "mine", "--seed", "1", "--overwrite")[0] == 0
    assert json.loads((tmp_path / "mine" / "run.json").read_text())["seed"] == 1
