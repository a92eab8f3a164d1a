"""Who runs an operator: the choice, its reasons, its errors, and that a compiled graph follows it."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from genmini.kernels import _backend, _check, _library

from genmini import kernels, ops

GPU = torch.cuda.is_available()
needs_gpu = pytest.mark.skipif(not GPU, reason="no CUDA device on this machine")
ROOT = Path(__file__).resolve().parents[2]


def coupling_runs_on():
    """The backend and rung that a call really reached."""
    seen = []
    real = _backend.chosen
    _backend.chosen = lambda *a: seen.append(real(*a)) or seen[-1]
    try:
        ops.affine_coupling(*[torch.zeros(2, 3)] * 3)
    finally:
        _backend.chosen = real
    return seen[-1].backend, seen[-1].rung


def test_use_is_a_function_and_a_context():
    assert coupling_runs_on() == ("cpu", None)
    kernels.use("emulated")
    assert coupling_runs_on() == ("emulated", "one_pass")
    with kernels.use("emulated", rung="naive"):
        assert coupling_runs_on() == ("emulated", "naive")
        with kernels.use("reference"):
            assert coupling_runs_on() == ("reference", None)
        assert coupling_runs_on() == ("emulated", "naive")
    assert coupling_runs_on() == ("emulated", "one_pass")


def test_a_context_ends_with_an_exception_too():
    with pytest.raises(KeyError), kernels.use("emulated"):
        raise KeyError
    assert kernels.requested() == "auto"


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError,
                       match="unknown backend 'metal'; the backends are auto, reference, cpu, triton, cuda, emulated"):
        kernels.use("metal")
    with pytest.raises(ValueError, match="unknown rung 'fastest'; the rungs are .*naive.*one_pass"):
        kernels.use("cuda", rung="fastest")
    with pytest.raises(ValueError,
                       match="unknown operator 'coupling'; the operators are affine_coupling, .*nearest_code"):
        kernels.rungs("coupling")
    with pytest.raises(ValueError, match="unknown operator 'coupling'"):
        kernels.chosen("coupling")
    assert kernels.requested() == "auto"


def test_every_operator_says_who_runs_it_and_why():
    for operator, room in kernels.ROOMS.items():
        assert kernels.rungs(operator) == room.rungs and len(room.rungs) >= 1
        on_cpu = kernels.chosen(operator, "cpu", torch.float32)
        assert on_cpu.backend == ("cpu" if room.cpu else "reference") and on_cpu.why
        assert kernels.chosen(operator, "meta").backend == "reference"
        with kernels.use("emulated", rung=room.rungs[0]):
            if room.language == "cuda" or not GPU:
                assert kernels.chosen(operator, "cpu").rung == room.rungs[0]


def test_an_explicit_backend_raises_with_the_reason():
    with kernels.use("cuda"), pytest.raises(
            RuntimeError, match="affine_coupling cannot run on the backend 'cuda': it runs on NVIDIA tensors"):
        ops.affine_coupling(*[torch.zeros(2, 3)] * 3)
    with kernels.use("triton"):  # no room of this name: it follows auto
        assert coupling_runs_on() == ("cpu", None)


def test_a_missing_library_names_the_command_that_mends_it(monkeypatch, tmp_path):
    (tmp_path / "affine_coupling.emulated.log").write_text("g++ ...\nfatal error: no input files\n")
    monkeypatch.setattr(_library, "FOLDER", tmp_path)
    _library.load.cache_clear()
    try:
        with kernels.use("emulated"), pytest.raises(
                RuntimeError, match="not built.*fatal error: no input files.*csrc.build.py --out"):
            ops.affine_coupling(*[torch.zeros(2, 3)] * 3)
        missing = [library for library in kernels.libraries()
                   if library.name == "affine_coupling" and library.kind == "emulated"]
        assert not missing[0].built and "no input files" in missing[0].log
    finally:
        _library.load.cache_clear()


def test_a_library_of_other_sources_is_not_loaded(monkeypatch, tmp_path):
    """Its functions may take other arguments: a call could read anywhere. Built again, or without a record of its
    sources, it is loaded."""
    csrc, lib = shutil.copytree(ROOT / "csrc", tmp_path / "csrc"), tmp_path / "lib"
    shutil.copytree(_library.FOLDER, lib, ignore=lambda _, names: [n for n in names if not n.startswith("q_sample.")])
    monkeypatch.setattr(_library, "FOLDER", lib)
    monkeypatch.setattr(_library.build, "CSRC", csrc)
    draw = lambda: ops.q_sample(torch.ones(2, 3), torch.zeros(2, dtype=torch.long), *torch.ones(2, 1), seed=0)
    header, library = csrc / "cpu" / "noise.h", lib / "q_sample.cpu.so"
    header.write_text(header.read_text() + "// edited\n")
    _library.load.cache_clear()
    try:
        why = "q_sample.cpu.so is built from other sources than csrc/ has now; to build it again: .*csrc.build.py"
        with kernels.use("cpu"), pytest.raises(RuntimeError, match=why):
            draw()
        chosen = kernels.chosen("q_sample", "cpu")
        assert chosen.backend == "reference" and re.match(why, chosen.why)
        draw()
        assert [found.stale for found in kernels.libraries() if found.path == library] == [True]
        library.with_suffix(".sources").write_text(_library.build.contents(csrc / "q_sample.cpp").hexdigest())
        os.utime(library)  # as when it is built again
        assert not _library.missing("q_sample", "cpu")
        _library.load.cache_clear()
        library.with_suffix(".sources").unlink()
        os.utime(library)
        assert kernels.chosen("q_sample", "cpu").backend == "cpu"
    finally:
        _library.load.cache_clear()


@pytest.mark.skipif(GPU, reason="needs a machine without a CUDA device")
def test_a_cuda_library_loads_without_a_driver_and_says_what_is_missing():
    if _library.missing("affine_coupling", "cuda"):
        pytest.skip("nvcc is not on this machine, so there is no CUDA library to load")
    x = torch.zeros(2, 3)
    library = _library.load("affine_coupling", "cuda")
    arguments = x.dtype, x, x, x, x, x, None, 2, 3
    entry = _library.declared(library, "affine_coupling_naive", arguments, ctypes.c_void_p)
    code = entry(*map(_library._value, arguments), None)
    assert code and "driver" in _library._text(library, code)


def test_the_environment_sets_the_default():
    program = "from genmini import kernels; print(kernels.requested(), kernels.chosen('affine_coupling').backend)"
    run = lambda backend: subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "GENMINI_BACKEND": backend}, cwd=ROOT,
        capture_output=True, text=True
    )
    assert run("emulated").stdout.split() == ["emulated", "emulated"]
    wrong = run("fast")
    assert wrong.returncode and "GENMINI_BACKEND='fast' is unknown; the backends are auto" in wrong.stderr


def test_values_are_checked_on_a_cpu_and_on_a_gpu_where_asked(monkeypatch):
    """Values on a GPU are checked, which waits for it, only where GENMINI_CHECK=1.

    `values` reads nothing but the device, so that a stand-in without memory is enough.
    """
    on = lambda device: _check.values(SimpleNamespace(device=torch.device(device)))
    for setting, seen in ((None, False), ("0", False), ("", False), ("1", True)):
        monkeypatch.delenv("GENMINI_CHECK", raising=False)
        if setting is not None:
            monkeypatch.setenv("GENMINI_CHECK", setting)
        assert on("cuda:0") == seen and on("cpu") and not on("meta")


def test_a_compiled_graph_follows_a_change_of_backend():
    compiled = torch.compile(ops.affine_coupling, fullgraph=True, backend="aot_eager")
    x = torch.zeros(2, 3)
    seen = []
    real = _backend.chosen
    _backend.chosen = lambda *a: seen.append(real(*a).backend) or real(*a)
    try:
        for backend in ("reference", "emulated", "reference"):
            with kernels.use(backend):
                compiled(x, x, x)
            assert seen[-1] == backend
    finally:
        _backend.chosen = real


def test_threads_share_the_choice():
    seen = []
    with kernels.use("emulated", "naive"):
        thread = threading.Thread(target=lambda: seen.append(kernels.requested()))
        thread.start()
        thread.join()
    assert seen == ["emulated:naive"]


def test_without_triton_the_package_runs():
    """macOS and Windows have no Triton: hide it, and everything but the kernels written in it works."""
    program = (
        "import sys; sys.modules['triton'] = None\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'triton' else find(name, *a)\n"
        "import torch; from genmini import kernels, ops\n"
        "x = torch.ones(2, 3); ops.affine_coupling(x, x, x)\n"
        "d = torch.arange(3); print(ops.masked_linear(x, torch.ones(3, 3), None, d, d))\n"
        "with kernels.use('emulated'):\n"
        "    try: ops.masked_linear(x, torch.ones(3, 3), None, d, d)\n"
        "    except RuntimeError as e: print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "triton is not installed" in done.stdout


@needs_gpu
def test_auto_takes_the_gpu_for_gpu_tensors():
    for operator, room in kernels.ROOMS.items():
        assert kernels.chosen(operator, "cuda").backend == room.language
