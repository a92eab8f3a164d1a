"""The command line: it works from end to end, and a user's mistake is one clear line and status 2, never a traceback."""

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from check import command as run

from genmini import __version__, kernels, models
from genmini.cli import main

pytestmark = pytest.mark.usefixtures("folder_of_its_own")
FAST = ["--steps", "20", "--set", "hidden=16", "--set", "every=10", "--threads", "1"]


def python(*words, **environment):
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = {**os.environ, "PYTHONPATH": root, **environment}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300, env=environment)


def test_the_same_command_resumes_to_the_same_bits(capsys, tmp_path, monkeypatch):
    from genmini import checkpoint, models

    words = ["train", "made", "--data", "digits", *FAST, "--seed", "3"]
    assert run(capsys, *words, "--out", "whole")[0] == 0
    log_prob, step = models.find("made").log_prob, [0]

    def pressed(model, x):
        step[0] += model.training
        if model.training and step[0] == 15:
            signal.raise_signal(signal.SIGINT)
        return log_prob(model, x)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(models.find("made"), "log_prob", pressed)
    try:
        status, _, err = run(capsys, *words, "--out", "parts")
    finally:
        signal.signal(signal.SIGINT, before)
        monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    line = err.splitlines()[-1]
    assert status == 130 and line.startswith("genmini: interrupted; the weights of step 10, valid") and line.endswith("continues from step 15")

    other = [*words[:-2], "--out", "parts", "--resume"]
    for words_too, says in ((["--seed", "4"], "seed 3, not 4"), (["--seed", "3", "--steps", "30"], "steps 20, not 30"),
                            (["--seed", "3", "--set", "rate=0.1"], "rate 0.002, not 0.1"),
                            (["--seed", "3", "--backend", "reference"], "backend 'auto', not 'reference'")):  # fmt: skip
        status, _, err = run(capsys, *other, *words_too)
        assert status == 2 and says in err, err
    kernels.use("auto")
    status, out, _ = run(capsys, *words, "--out", "parts", "--resume")
    assert status == 0 and "resumed   parts at step 15" in out
    said = [checkpoint.read(folder) for folder in ("whole", "parts")]
    assert said[0] == said[1]
    weights = [(tmp_path / folder / said[0]["weights"]).read_bytes() for folder in ("whole", "parts")]
    assert weights[0] == weights[1]
    status, again, _ = run(capsys, *words, "--out", "parts", "--resume")
    assert status == 0 and "at its end already" in again and out.splitlines()[-2:] == again.splitlines()[-2:]


def test_completions_keep_what_is_known(capsys):
    from genmini import data

    assert run(capsys, "train", "nade", "--data", "digits", *FAST, "--out", "r")[0] == 0
    assert run(capsys, "sample", "r", "--complete", "-n", "6", "--out", "x.npy")[0] == 0
    x, test = np.load("x.npy"), data.load("digits-threshold", "test").x[:6].numpy()
    assert (x[:, :4] == test[:, :4]).all() and (x[:, 4:] != test[:, 4:]).any()
    assert run(capsys, "sample", "r", "--complete", "-n", "6")[0] == 0 and os.path.getsize("r/grid.png") > 1000
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
    assert status == 2 and "--how chooses between samplers, and RealNVP has one" in err
    status, _, err = run(capsys, "sample", "r", "--complete")
    assert status == 2 and "--complete is for models that draw pixel after pixel, and RealNVP is none" in err


def test_a_binary_recipe_takes_the_version_with_two_levels(capsys):
    few = [*FAST, "--steps", "1"]
    for wanted, words, name in (
        ("digits", [], "digits-threshold"), ("digits-threshold", [], "digits-threshold"), ("digits-dynamic", [], "digits-dynamic"),
        ("digits", ["--recipe", "digits-levels"], "digits"), ("digits-threshold", ["--recipe", "digits-levels"], "digits-threshold"),
    ):  # fmt: skip
        status, out, _ = run(capsys, "train", "made", "--data", wanted, *words, *few, "--out", "r", "--overwrite")
        assert status == 0 and json.loads(open("r/run.json").read())["data"] == name
        assert ("is taken as" in out) == (wanted != name)


@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_trains_samples_and_is_judged(capsys, monkeypatch, name):
    """One step of its first recipe, as it is but for the size of the batch, then what can be done with a run; of pictures others judge."""
    from genmini import commands

    monkeypatch.setattr(commands, "picture", lambda path, model, splits: None)
    recipe = next(iter(models.recipes(name).values()))
    words = [] if hasattr(models.find(name), "fit") else ["--steps", "1", "--set", "batch=4"]
    status, out, err = run(capsys, "train", name, "--data", recipe["data"], *words, "--out", "r")
    assert status == 0 and err.count("\n") <= 2 and ("nats" in out or "squared error" in out)
    assert run(capsys, "eval", "r", "-k", "5")[0] == 0
    if not hasattr(models.find(name), "sample"):
        return
    assert run(capsys, "sample", "r", "-n", "2", "--out", "x.npy")[0] == 0 and len(np.load("x.npy")) == 2


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


def test_every_sampler_draws_the_same(capsys):
    small = ["--recipe", "digits", "--set", "width=4", "--set", "blocks=1", "--set", "batch=8", "--set", "ema=0.0", "--steps", "2", "--threads", "1"]
    assert run(capsys, "train", "pixelcnn", "--data", "digits", *small, "--out", "r")[0] == 0
    drawn = []
    for how in ("cached", "naive", "jacobi"):
        assert run(capsys, "sample", "r", "-n", "3", "--how", how, "--out", f"{how}.npy")[0] == 0
        drawn.append(np.load(f"{how}.npy"))
    assert (drawn[0] == drawn[1]).all() and (drawn[1] == drawn[2]).all() and 0 < drawn[0].mean() < 1
    status, _, err = run(capsys, "sample", "r", "--how", "guess")
    assert status == 2 and "how must be 'cached' or 'naive' or 'jacobi', got 'guess'" in err
    status, _, err = run(capsys, "sample", "r", "--complete", "-n", "301")
    assert status == 2 and "-n 301 halves are to be completed, and the test split of digits-threshold has 300 images" in err
    next(Path("r").glob("model-*.safetensors")).unlink()
    status, _, err = run(capsys, "sample", "r")
    assert status == 2 and "r is damaged: No such file" in err


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


def test_a_run_that_kept_nothing_leaves_no_run(capsys, monkeypatch):
    assert run(capsys, "train", "made", "--data", "digits", *FAST, "--out", "here")[0] == 0
    status, _, err = run(capsys, "train", "made", "--data", "digits", *FAST, "--out", "here", "--overwrite", "--set", "rate=1e30")
    assert status == 1 and "nothing was kept" in err.splitlines()[-1] and not os.path.exists("here/run.json")


@pytest.mark.parametrize("words, said", [
    (["train", "made", "--data", "digits", "--set", "hidden=(3.5,)"], "--set hidden takes a value like"),
    (["train", "made", "--data", "digits", "--set", f"batch={10**20}"], "--set batch takes a value like"),
    (["train", "made", "--data", "digits", "--set", "foo=1"], "--set knows no key 'foo'"),
    (["train", "ar", "--data", "series", "--tensorboard"], "it takes no --tensorboard"),
])  # fmt: skip
def test_a_mistake_in_a_setting_is_one_line(capsys, words, said):
    status, _, err = run(capsys, *words)
    assert status == 2 and said in err and len(err.strip().splitlines()) == 1


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


@pytest.mark.skipif(sys.platform != "linux", reason="the driver is found by LD_LIBRARY_PATH")
@pytest.mark.parametrize("driver", [False, True], ids=["by the command", "by the package, which asks the driver"])
def test_ctrl_c_during_an_import_is_one_line_and_130(tmp_path, driver):
    """A torch whose import is interrupted; `import genmini` asks it itself where there is a driver, which any library may stand in for."""
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt")
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = dict(PYTHONPATH=f"{tmp_path}:{root}", TRITON_INTERPRET="1")
    if driver:
        libm = next(line.split()[-1] for line in open("/proc/self/maps") if "libm.so" in line or "libm-" in line)
        (tmp_path / "libcuda.so.1").symlink_to(libm)
        environment |= dict(LD_LIBRARY_PATH=str(tmp_path))
    command = "import os; del os.environ['TRITON_INTERPRET']; import runpy, sys; sys.argv[:] = ['genmini', 'train', 'made', '--data', 'digits']; "
    done = python("-c", command * driver + "runpy.run_module('genmini')" if driver else "import genmini.cli as c, sys; sys.exit(c.main(['list']))",
                  **environment)  # fmt: skip
    assert done.returncode == 130 and done.stderr == "genmini: interrupted\n", done.stderr


def test_a_full_disk_says_what_is_saved_and_can_be_resumed(capsys, monkeypatch):
    """The system refuses to write more than 2 kB a file from step 15 on, as it would on a full disk."""
    resource = pytest.importorskip("resource")
    made, words = models.find("made"), ["train", "made", "--data", "digits", *FAST, "--out", "r"]
    log_prob, step, (soft, hard) = made.log_prob, [0], resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(model, x):
        step[0] += model.training
        if model.training and step[0] == 15:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        return log_prob(model, x)

    monkeypatch.setattr(made, "log_prob", full)
    try:
        status, _, err = run(capsys, *words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        monkeypatch.setattr(made, "log_prob", log_prob)
    line = err.splitlines()[-1]
    assert status == 2 and line.startswith("genmini: could not write to r: [Errno 27] File too large")
    assert line.endswith("; the weights of step 10 are in r; --resume continues from step 10")
    assert not [name for name in os.listdir("r") if name.endswith(".part")]
    assert run(capsys, *words, "--resume")[0] == 0


def test_running_out_of_memory_says_what_is_saved(capsys, monkeypatch):
    import torch

    made, step = models.find("made"), [0]
    log_prob = made.log_prob

    def hungry(model, x):
        step[0] += model.training
        return log_prob(model, x) if step[0] < 15 else torch.empty(2**60)

    monkeypatch.setattr(made, "log_prob", hungry)
    status, _, err = run(capsys, "train", "made", "--data", "digits", *FAST, "--out", "r")
    line = err.splitlines()[-1]
    assert status == 1 and "out of memory: a smaller batch" in line and line.endswith("step 10 are in r; --resume continues from step 10")


def test_tensorboard_is_an_extra(capsys, monkeypatch):
    status, _, err = 0, "", ""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as if the package were missing
    status, _, err = run(capsys, "train", "made", "--data", "digits", *FAST, "--tensorboard")
    assert status == 2 and "pip install genmini[tensorboard]" in err.splitlines()[-1]

    written = []
    writer = lambda folder: SimpleNamespace(add_scalar=lambda *said: written.append(said), flush=lambda: written.append(folder.name))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=writer))
    assert run(capsys, "train", "made", "--data", "digits", *FAST, "--tensorboard", "--out", "r")[0] == 0
    rows = [json.loads(line) for line in open("r/metrics.jsonl")]
    assert written == [x for row in rows for x in (*((f"nats/{k}", row[k], row["step"]) for k in ("train", "valid")), "tensorboard")]


def test_pictures_are_drawn_as_it_goes(capsys, monkeypatch, tmp_path):
    """At the first evaluation after five seconds, and not again before twenty times what it took; the training does not notice."""
    from genmini import commands

    now, drawn = [0.0], []
    monkeypatch.setattr(commands.time, "perf_counter", lambda: now[0])

    def picture(path, model, splits):
        drawn.append((path.name, now[0], model.sample(2).sum().item()))
        now[0] += 1

    monkeypatch.setattr(commands, "picture", picture)
    watch = commands._watch(tmp_path, None, 0, False)
    model = models.find("made")((8, 8), hidden=4)
    for second in range(0, 60, 2):
        now[0] = second
        watch(dict(step=second), model)
    assert [at for _, at, _ in drawn] == [6, 26, 46] and len({total for *_, total in drawn}) == 1  # 5 = 20 * 0.25, 25 = 20 * 1.25


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


SMALL = ["--set", "body=mlp", "--set", "hidden=16", "--set", "latent=6", "--steps", "30", "--set", "every=30", "--threads", "1", "--out", "r"]


def test_a_model_of_several_figures_prints_them(capsys):
    status, out, _ = run(capsys, "train", "vae", "--data", "digits", *SMALL)
    lines = [line for line in out.splitlines() if line.startswith("test")]
    assert status == 0 and [line.split()[1] for line in lines] == ["elbo", "reconstruction", "kl"] and "bits/dim" in lines[0]
    status, again, _ = run(capsys, "eval", "r", "-k", "7")
    judged = {line.split()[1]: line for line in again.splitlines() if line.startswith("test")}
    assert status == 0 and list(judged) == ["elbo", "iwae-7", "reconstruction", "kl"] and judged["elbo"].split() == lines[0].split()
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
    moons = ["--set", "couplings=1", "--set", "hidden=4", "--set", "classes=2", "--steps", "1", "--threads", "1", "--out", "m"]
    assert run(capsys, "train", "realnvp", "--data", "moons", *moons)[0] == 0
    status, _, err = run(capsys, "sample", "m", "-y", "0,1")
    assert status == 2 and "RealNVP takes one" in err


def test_an_ar_vae_prints_its_correlations(capsys):
    status, out, _ = run(capsys, "train", "arvae", "--data", "digits", *SMALL, "--set", "attributes=('area', 'slant')")
    assert status == 0 and "rank correlation, slant" in out and json.loads(open("r/run.json").read())["settings"]["attributes"] == ["area", "slant"]
    status, _, err = run(capsys, "train", "arvae", "--data", "digits", *SMALL, "--set", "colour=1", "--overwrite")
    assert status == 2 and "gamma" in err and "beta" in err  # its own keys, and those of VAE


@pytest.mark.parametrize("name, columns", [("vae", 8), ("cvae", 10)])
def test_a_picture_shows_data_reconstructions_and_samples(monkeypatch, tmp_path, name, columns):
    from genmini import commands, data, plots

    drawn, asked = {}, []
    monkeypatch.setattr(plots, "side_by_side", lambda path, panels, levels, columns: drawn.update(panels, columns=columns))
    splits = {split: data.load("digits-threshold", split) for split in data.SPLITS}
    model = models.find(name)((8, 8), hidden=4)
    reconstruct = model.reconstruct
    monkeypatch.setattr(model, "reconstruct", lambda x, *y: asked.append((x, *y)) or reconstruct(x, *y))
    commands.picture(tmp_path / "x.png", model, splits)
    shape = (8 * columns, 8, 8)
    assert drawn.pop("columns") == columns and all(panel.shape == shape for panel in drawn.values())
    both = [f"{what} ({split})" for split in ("train", "test") for what in ("data", "reconstructed")]
    assert list(drawn) == [*both, f"samples of {type(model).__name__}"]
    for split, given in zip(("train", "test"), asked, strict=True):
        assert (given[0] == splits[split].x[: 8 * columns]).all() and len(given) == (2 if name == "cvae" else 1)
        assert name == "vae" or (given[1] == splits[split].y[:80]).all()
