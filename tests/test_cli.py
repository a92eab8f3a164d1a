"""The command line: it works from end to end, and a user's mistake is one clear line and status 2, never a traceback."""

import ctypes
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from genmini import __version__, kernels, models
from genmini.cli import main

FAST = ["--steps", "20", "--set", "hidden=16", "--set", "every=10", "--threads", "1"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Runs land in a folder of the test; threads and the backend are as before afterwards."""
    import torch

    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run(capsys, *words):
    status = main(list(words))
    out, err = capsys.readouterr()
    return status, out, err


def python(*words, **environment):
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    environment = {**os.environ, "PYTHONPATH": root, **environment}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300, env=environment)


def test_train_sample_eval(capsys, tmp_path):
    status, out, _ = run(capsys, "train", "made", "--data", "digits", *FAST)
    assert status == 0 and "digits-threshold" in out and "bits/dim" in out
    folder = tmp_path / "runs" / "made-digits"
    assert (folder / "samples.png").stat().st_size > 1000 and len((folder / "metrics.jsonl").read_text().splitlines()) == 2
    said = json.loads((folder / "run.json").read_text())
    assert said["data"] == "digits-threshold" and said["settings"]["hidden"] == [16] and said["recipe"]["steps"] == 20

    status, again, _ = run(capsys, "eval", str(folder))
    assert status == 0 and [line for line in out.splitlines() if line.startswith("test")] == again.splitlines()

    assert run(capsys, "sample", str(folder), "-n", "5")[0] == 0 and (folder / "grid.png").exists()
    assert run(capsys, "sample", str(folder), "-n", "5", "--out", "x.npy")[0] == 0
    x = np.load("x.npy", allow_pickle=False)
    assert x.shape == (5, 8, 8) and x.dtype == np.uint8 and set(np.unique(x)) <= {0, 1}

    assert run(capsys, "train", "made", "--data", "digits", *FAST)[0] == 0
    assert (tmp_path / "runs" / "made-digits-2" / "run.json").exists(), "the first run is never overwritten"


def test_levels_and_other_backends(capsys):
    status, out, _ = run(capsys, "train", "made", "--data", "digits", "--recipe", "digits-levels", *FAST, "--steps", "4", "--out", "r")
    assert status == 0 and "300 images of digits)" in out
    likelihoods = []
    for backend in ("reference", "auto"):
        assert run(capsys, "eval", "r", "--backend", backend)[0] == 0
        likelihoods.append(run(capsys, "eval", "r", "--backend", backend)[1])
    assert likelihoods[0] == likelihoods[1]


def test_an_existing_run_is_kept(capsys, tmp_path):
    assert run(capsys, "train", "made", "--data", "digits", *FAST, "--out", "mine")[0] == 0
    before = (tmp_path / "mine" / "run.json").read_bytes()
    status, _, err = run(capsys, "train", "made", "--data", "digits", *FAST, "--out", "mine", "--seed", "1")
    assert status == 2 and "--overwrite" in err and (tmp_path / "mine" / "run.json").read_bytes() == before
    assert run(capsys, "train", "made", "--data", "digits", *FAST, "--out", "mine", "--seed", "1", "--overwrite")[0] == 0
    assert json.loads((tmp_path / "mine" / "run.json").read_text())["seed"] == 1


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
    "the out is a file": (["train", "made", "--data", "digits", "--steps", "1", "--out", __file__], "could not write"),
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


def test_version_is_light():
    done = python("-X", "importtime", "-m", "genmini", "--version")
    assert done.returncode == 0 and done.stdout.strip() == f"genmini {__version__}"
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "genmini.cli" in imported and ("torch" in imported) == _driver()


def test_import_finds_the_kernels_and_sets_the_interpreter():
    code = "import os; os.environ.pop('TRITON_INTERPRET', 0); import genmini as g; print(os.getenv('TRITON_INTERPRET'), g.kernels.__name__)"
    import torch

    done = python("-c", code)
    assert done.stdout.split() == ["None" if torch.cuda.is_available() else "1", "genmini.kernels"], done.stderr


def _driver():
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def test_list(capsys):
    status, out, _ = run(capsys, "list")
    assert status == 0 and all(word in out for word in ("made", "digits-threshold", *kernels.ROOMS))
    assert "masked_linear      triton: naive < staircase" in out


def test_info(capsys, monkeypatch):
    from genmini.kernels import _backend

    status, out, _ = run(capsys, "info")
    assert status == 0
    for name in ("python", "torch", "triton", "numpy", "g++", "nvcc", "devices", "affine_coupling.emulated", *kernels.ROOMS):
        assert name in out
    for operator in kernels.ROOMS:
        assert kernels.chosen(operator, "cpu").why in out
    monkeypatch.setattr(_backend, "interpreter_broken", lambda: "Triton 3.6.0 cannot interpret a loop with NumPy 2.5.2: pip install ...")
    assert "note      Triton 3.6.0 cannot interpret" in run(capsys, "info")[1]


def test_info_shows_the_compilers_last_words(capsys, monkeypatch):
    from pathlib import Path

    from genmini.kernels._library import Library

    broken = Library("nearest_code", "cpu", Path("nearest_code.cpu.so"), False, "line 1\nnearest_code.cpp:7: error: expected ';'\n")
    monkeypatch.setattr(kernels, "libraries", lambda: [broken])
    out = run(capsys, "info")[1]
    assert "NOT built" in out and "expected ';'" in out and "csrc/build.py --out" in out


def test_ctrl_c_is_one_line_and_130(capsys, monkeypatch):
    import genmini.models

    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(genmini.models, "find", interrupted)  # as during an import
    status, _, err = run(capsys, "train", "made", "--data", "digits")
    assert status == 130 and err == "genmini: interrupted\n"


def test_the_examples_of_the_readme_run(tmp_path):
    import re
    from pathlib import Path

    readme = (Path(__file__).resolve().parent.parent / "README.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", readme, re.S)
    assert len(examples) == 2
    for i, example in enumerate(examples):
        (tmp_path / f"example{i}.py").write_text(example)
        done = python(str(tmp_path / f"example{i}.py"))
        assert done.returncode == 0, done.stderr
    commands = re.findall(r"^genmini (\w+)", readme, re.M)
    assert set(commands) == {"train", "sample", "eval", "info", "list"}


def test_a_series_is_fitted_at_once_and_forecast(capsys, tmp_path):
    status, out, _ = run(capsys, "train", "ar", "--data", "series", "--set", "p=2", "--set", "method=yule-walker")
    assert status == 0 and "fitted at once" in out and "54 numbers of series" in out and "bits" not in out
    assert (tmp_path / "runs" / "ar-series" / "samples.png").stat().st_size > 10_000
    test = next(line for line in out.splitlines() if line.startswith("test"))
    status, out, _ = run(capsys, "eval", "runs/ar-series")
    assert status == 0 and test in out
    assert run(capsys, "sample", "runs/ar-series", "-n", "3", "--out", "x.npy")[0] == 0 and np.load("x.npy").shape == (3, 220)
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
    assert run(capsys, "sample", "runs/realnvp-moons", "-n", "100")[0] == 0 and (tmp_path / "runs/realnvp-moons/grid.png").exists()


def test_a_bound_says_so_and_is_the_same_each_time(capsys):
    small = ["--set", "couplings=1", "--set", "width=4", "--steps", "3", "--threads", "1"]
    status, out, _ = run(capsys, "train", "realnvp", "--data", "digits", *small, "--out", "r")
    assert status == 0 and "bits/dim, at most" in out
    assert run(capsys, "eval", "r")[1] == run(capsys, "eval", "r")[1]
