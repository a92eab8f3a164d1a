"""The command line on its machine: info, list, versions, imports, Ctrl-C, TensorBoard."""

import ctypes
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from check import command as run

from genmini import __version__, kernels

pytestmark = pytest.mark.usefixtures("folder_of_its_own")
FAST = ["--steps", "20", "--set", "hidden=16", "--set", "every=10", "--threads", "1"]


def python(*words, **environment):
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = {**os.environ, "PYTHONPATH": root, **environment}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300, env=environment)


def test_version_is_light():
    done = python("-X", "importtime", "-m", "genmini", "--version")
    assert done.returncode == 0 and done.stdout.strip() == f"genmini {__version__}"
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "genmini.cli" in imported and ("torch" in imported) == _driver()


def test_import_finds_the_kernels_and_sets_the_interpreter():
    code = ("import os; os.environ.pop('TRITON_INTERPRET', 0); import genmini as g; "
            "print(os.getenv('TRITON_INTERPRET'), g.kernels.__name__)")
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
    assert "masked_linear      triton: naive < staircase < grouped" in out


def test_info(capsys, monkeypatch):
    from genmini.kernels import _backend

    status, out, _ = run(capsys, "info")
    assert status == 0
    for name in ("python", "torch", "triton", "numpy", "g++", "nvcc", "devices", "affine_coupling.emulated",
                 *kernels.ROOMS):
        assert name in out
    for operator in kernels.ROOMS:
        assert kernels.chosen(operator, "cpu").why in out
    monkeypatch.setattr(_backend, "interpreter_broken",
                        lambda: "Triton 3.6.0 cannot interpret a loop with NumPy 2.5.2: pip install ...")
    assert "note      Triton 3.6.0 cannot interpret" in run(capsys, "info")[1]


def test_info_shows_the_compilers_last_words(capsys, monkeypatch):
    from pathlib import Path

    from genmini.kernels._library import Library

    broken = Library("nearest_code", "cpu", Path("nearest_code.cpu.so"), False,
                     "line 1\nnearest_code.cpp:7: error: expected ';'\n")
    monkeypatch.setattr(kernels, "libraries", lambda: [broken])
    out = run(capsys, "info")[1]
    assert "NOT built" in out and "expected ';'" in out and "csrc/build.py --out" in out
    stale = Library("nade", "cpu", Path("nade.cpu.so"), True, "g++ ...", stale=True)
    monkeypatch.setattr(kernels, "libraries", lambda: [stale])
    out = run(capsys, "info")[1]
    assert re.search(r"nade\.cpu +built from other sources\n", out) and "csrc/build.py --out" in out


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
    """An interrupted import of torch ends in one line. `import genmini` imports torch itself where there is a driver;
    any library may stand in for that driver."""
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt")
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = dict(PYTHONPATH=f"{tmp_path}:{root}", TRITON_INTERPRET="1")
    if driver:
        libm = next(line.split()[-1] for line in open("/proc/self/maps") if "libm.so" in line or "libm-" in line)
        (tmp_path / "libcuda.so.1").symlink_to(libm)
        environment |= dict(LD_LIBRARY_PATH=str(tmp_path))
    command = ("import os; del os.environ['TRITON_INTERPRET']; import runpy, sys; "
               "sys.argv[:] = ['genmini', 'train', 'made', '--data', 'digits']; ")
    done = python("-c", command * driver + "runpy.run_module('genmini')" if driver
                  else "import genmini.cli as c, sys; sys.exit(c.main(['list']))",
                  **environment)
    assert done.returncode == 130 and done.stderr == "genmini: interrupted\n", done.stderr


def test_info_without_triton():
    done = python("-c", "import sys; sys.modules['triton'] = None; import genmini.cli as c; sys.exit(c.main(['info']))")
    assert done.returncode == 0 and "(triton is not installed" in done.stdout, done.stderr


def test_training_without_matplotlib(tmp_path, capsys, monkeypatch):
    """The run is saved in full, and its line says why there is no picture; a command that draws says so too."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if the package were missing
    status, out, err = run(capsys, "train", "made", "--data", "digits", *FAST, "--out", "r")
    assert (status == 0
            and "picture   pictures need matplotlib, which is not installed: pip install matplotlib" in out), err
    status, _, err = run(capsys, "sample", "r", "-n", "4")
    assert status == 1 and err == "genmini: pictures need matplotlib, which is not installed: pip install matplotlib\n"
    assert run(capsys, "sample", "r", "-n", "4", "--out", "x.npy")[0] == 0


def test_tensorboard_is_an_extra(capsys, monkeypatch):
    status, _, err = 0, "", ""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as if the package were missing
    status, _, err = run(capsys, "train", "made", "--data", "digits", *FAST, "--tensorboard")
    assert status == 2 and "pip install .[tensorboard]" in err.splitlines()[-1] and not os.path.exists("runs")

    written = []
    writer = lambda folder: SimpleNamespace(add_scalar=lambda *scalar: written.append(scalar),
                                            flush=lambda: written.append(folder.name))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=writer))
    assert run(capsys, "train", "made", "--data", "digits", *FAST, "--tensorboard", "--out", "r")[0] == 0
    rows = [json.loads(line) for line in open("r/metrics.jsonl")]
    assert written == [x for row in rows
                       for x in (*((f"nats/{k}", row[k], row["step"]) for k in ("train", "valid")), "tensorboard")]
