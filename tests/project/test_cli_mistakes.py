"""A user's mistake or a failure of the machine is one clear line and status 2 or 1, never a traceback."""

import json
import os

import pytest
from check import command as run

from genmini import models
from genmini.cli import main

pytestmark = pytest.mark.usefixtures("folder_of_its_own")
FAST = ["--steps", "20", "--set", "hidden=16", "--set", "every=10", "--threads", "1"]
MADE = ["train", "made", "--data", "digits"]
OF_NAMES = lambda name: ([*MADE, "--steps", "1", "--out", name], ["sample", name], ["eval", name], ["score", name],
                         ["study", "embed", name])

MISTAKES = {
    "unknown model": (["train", "madde", "--data", "digits"],
                      f"unknown model 'madde'; the models are {', '.join(models.MODELS)}"),
    "unknown data": (["train", "made", "--data", "mnits"],
                     "unknown data 'mnits'; the data sets are digits, digits-threshold"),
    "unknown recipe": ([*MADE, "--recipe", "best"], "digits-levels"),
    "unknown key": ([*MADE, "--set", "stepz=3"], "the keys are hidden"),
    "no value": ([*MADE, "--set", "steps"], "KEY=VALUE"),
    "wrong kind": ([*MADE, "--set", "rate=fast"], "--set rate takes a value like 0.002, got 'fast'"),
    "unknown device": ([*MADE, "--device", "tpu"], "no device 'tpu' here"),
    "unknown backend": ([*MADE, "--backend", "gpu"], "unknown backend 'gpu'; the backends are auto"),
    "no run": (["sample", "nowhere"], "nowhere holds no run"),
    "no run to evaluate": (["eval", "nowhere"], "nowhere holds no run"),
    "wrong file": (["sample", "nowhere", "--out", "x.jpg"], ".png or a .npy"),
    "other kind of data": (["train", "made", "--data", "moons", "--recipe", "digits"],
                           "is for images, and moons is points of the plane"),
    "no recipe": (["train", "made", "--data", "series"], "made has no recipe for 'series'; its recipes are digits"),
    "no folder": (["train", "realnvp", "--data", "mnist", "--data-dir", "nowhere", "--recipe", "digits"],
                  "there is no folder nowhere"),
    "nothing to resume": ([*MADE, "--resume", "--out", "nowhere"], "nowhere holds no run"),
    "resume what": ([*MADE, "--resume"], "--resume continues the run in --out, and none is given"),
    "precision": ([*MADE, "--steps", "1", "--set", "precision=int8"], "'bfloat16' or 'float16'"),
    "no step to clip to": ([*MADE, "--steps", "1", "--set", "clip=-1.0"],
                           "clip must be above 0, got -1.0"),
    "no numbers there": ([*MADE, "--device", "meta"], "no device 'meta' here"),
    "no units": (["train", "vae", "--data", "digits", "--set", "width=0"],
                 "width must be at least 1, got 0"),
    "beta below 0": (["train", "vae", "--data", "digits", "--set", "beta=-1.0"],
                     "beta must be at least 0, got -1.0"),
    "no share": (["train", "vqvae", "--data", "digits", "--set", "miss=2.0"],
                 "miss must be at least 0 and at most 1, got 2.0"),
    "twice": (["train", "arvae", "--data", "digits", "--set", "attributes=('area', 'area')"], "there is one twice"),
    "no picture": (["study", "embed", "r", "--out", "x.pdf"], "the study embed draws a .png file, got x.pdf"),
    "not finite": ([*MADE, "--set", "rate=1e400"], "--set rate takes a finite number, got '1e400'"),
    "no rate": ([*MADE, "--set", "rate=0.0"], "rate must be above 0, got 0.0"),
    "no share of batches": ([*MADE, "--set", "shift=2.0"], "shift must be at least 0 and at most 1, got 2.0"),
    "no hidden units": ([*MADE, "--set", "hidden=0"], "hidden must be at least 1, got (0,)"),
    "all units dropped": (["train", "nade", "--data", "digits", "--set", "dropout=1.0"],
                          "dropout must be at least 0 and below 1, got 1.0"),
    "no steps of a stage": (["train", "vqvae", "--data", "digits", "--set", "prior.steps=0"],
                            "prior.steps must be at least 1, got 0"),
    "no slope": (["train", "realnvp", "--data", "digits", "--set", "bound=0.0"], "bound must be above 0, got 0.0"),
    "threads": ([*MADE, "--threads", "100000"], "--threads takes 1 to "),
    "GPU kernels on a CPU": ([*MADE, "--backend", "cuda"], "'cuda' does not run here on --device cpu"),
    "a folder of embedded data": ([*MADE, "--data-dir", "nowhere"], "lies in no folder, and 'nowhere' is given"),
    "other classes": (["train", "cvae", "--data", "digits", "--set", "classes=3"],
                      "made for 3 classes, and digits-threshold has 10: --set classes=10"),
    "no such classes": (["train", "realnvp", "--data", "moons", "--set", "classes=3"], "moons has 2: --set classes=2"),
    **{f"a name that is too long: {words[0]}": (words, f"'{57 * 'x'}...' is too long a name for the file system, 300")
       for words in OF_NAMES(300 * "x")},
    **{f"a null byte: {words[0]}": (words, r"'a\x00b' holds a null byte: choose another name")
       for words in OF_NAMES("a\0b")},
    "a path that is too long": (["eval", "/".join(["yy"] * 3000)], "' is too long a name for the file system, 8999"),
    "the out is a file": ([*MADE, "--steps", "1", "--out", __file__], "--out takes a folder, and"),
}


@pytest.mark.parametrize("words, says", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(capsys, words, says):
    status, _, err = run(capsys, *words)
    line = err.splitlines()[-1]
    assert status == 2 and line.startswith("genmini: ") and says in line
    assert [other for other in err.splitlines()[:-1] if "step/s" not in other] == []


@pytest.mark.parametrize("words", [[], ["trian"], ["train"], ["sample", "r", "-n", "0"],
                                   ["sample", "r", "-n", "many"], ["sample", "r", "-n", "1" + 23 * "0"],
                                   ["score", "r", "-n", "100000000000"], [*MADE, "--seed", str(2**64)],
                                   [*MADE, "--seed", "-1"], ["sample", "r", "-n", 9999 * "9"], ["info", "--fast"],
                                   *(["sample", "r", "-y", y] for y in ("9" * 30, "1_1", "3,", "\u0663"))])
def test_a_mistyped_command_is_one_line(capsys, words):
    with pytest.raises(SystemExit) as caught:
        main(words)
    err = capsys.readouterr().err
    assert caught.value.code == 2 and len(err.splitlines()) == 1 and "--help" in err and len(err) < 400


def test_nan_and_memory_are_one_line(capsys, monkeypatch):
    status, _, err = run(capsys, *MADE, *FAST, "--set", "rate=1e30")
    assert status == 1 and "no longer finite" in err.splitlines()[-1] and "Traceback" not in err
    status, _, err = run(capsys, *MADE, *FAST, "--set", "hidden=1000000000000")
    assert status == 1 and "out of memory" in err.splitlines()[-1]


@pytest.mark.parametrize("words, message", [
    ([*MADE, "--set", "hidden=(3.5,)"], "--set hidden takes a value like"),
    ([*MADE, "--set", f"batch={10**20}"], "--set batch takes a value like"),
    ([*MADE, "--set", "foo=1"], "--set knows no key 'foo'"),
    (["train", "cvae", "--data", "digits", "--set", "context=3"], "--set knows no key 'context'"),
    (["train", "ar", "--data", "series", "--tensorboard"], "it takes no --tensorboard"),
])
def test_a_mistake_in_a_setting_is_one_line(capsys, words, message):
    status, _, err = run(capsys, *words)
    assert status == 2 and message in err and len(err.strip().splitlines()) == 1


def test_a_run_that_kept_nothing_leaves_no_run(capsys, monkeypatch):
    assert run(capsys, *MADE, *FAST, "--out", "here")[0] == 0
    status, _, err = run(capsys, *MADE, *FAST, "--out", "here", "--overwrite", "--set", "rate=1e30")
    assert status == 1 and "nothing was kept" in err.splitlines()[-1] and not os.path.exists("here/run.json")


def test_an_existing_run_is_kept(capsys, tmp_path):
    assert run(capsys, *MADE, *FAST, "--out", "mine")[0] == 0
    before = (tmp_path / "mine" / "run.json").read_bytes()
    status, _, err = run(capsys, *MADE, *FAST, "--out", "mine", "--seed", "1")
    assert status == 2 and "--overwrite" in err and (tmp_path / "mine" / "run.json").read_bytes() == before
    assert run(capsys, *MADE, *FAST, "--out", "mine", "--seed", "1", "--overwrite")[0] == 0
    assert json.loads((tmp_path / "mine" / "run.json").read_text())["seed"] == 1


def test_more_samples_than_fit_are_refused_and_memory_that_runs_out_names_the_option(capsys, monkeypatch):
    assert run(capsys, *MADE, *FAST, "--out", "r")[0] == 0
    for command in ("sample", "score"):
        status, _, err = run(capsys, command, "r", "-n", "1000000000")  # 512 GB
        assert status == 2 and "1,000,000,000 samples of MADE take 512.0 GB or more, and " in err
        assert err.endswith("ask for fewer (-n)\n")

    def out_of_memory(*arguments, **settings):
        raise MemoryError

    made = models.find("made")
    monkeypatch.setattr(made, "sample", out_of_memory)
    for command in ("sample", "score"):
        status, _, err = run(capsys, command, "r", "-n", "9")
        assert status == 1 and "out of memory: fewer samples (-n) may fit" in err and "--set" not in err


def test_a_backend_that_does_not_run_here_is_refused_before_anything_is_trained(capsys):
    status, _, err = run(capsys, *MADE, *FAST, "--backend", "cuda", "--out", "r")
    assert status == 2 and err.count("\n") == 1 and "use('emulated') runs the same kernel on CPU tensors" in err
    assert not os.path.exists("r")
