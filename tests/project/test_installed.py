"""Tests of the installed package: a source distribution is built, a wheel from it, and the wheel is installed in an
environment without this checkout. There it trains, draws and evaluates in another folder: with all that it can use;
without g++, Triton and matplotlib; and where it was built without g++, so that it has no libraries."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import copies
import pytest

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = {"genmini": "genmini", "kernels": "genmini/kernels", "csrc": "genmini/csrc"}  # folder: where it is then
BESIDE = ("bench", "docs", "examples", "tests")  # folders of the source distribution that are not installed
FILES = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "Makefile",
         "constraints.txt")
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
OFFLINE = ["-q", "--no-index", "--no-deps", "--no-cache-dir"]
NO_PICTURE = "pictures need matplotlib, which is not installed: pip install matplotlib"


def files(folder):
    """The files of a folder of the checkout, without caches and libraries"""
    return [path for path in sorted((ROOT / folder).rglob("*"))
            if path.is_file() and not {"__pycache__", "lib"} & set(path.relative_to(ROOT).parts)]


def run(command, status=0, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    assert done.returncode == status, done.stdout[-3000:]
    return done.stdout


def environment(compiler=True, **more):
    """The variables of a user's process: no PYTHONPATH, no interpreter of Triton chosen yet; a PATH without g++ and
    nvcc if wanted."""
    ours = ("PYTHONPATH", "TRITON_INTERPRET", "GENMINI_STRICT") + ("CXX", "CUDA_HOME", "CUDA_PATH") * (not compiler)
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return kept | ({} if compiler else {"PATH": ""}) | more


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """-> the source distribution of a copy of this checkout: the copy has no list of files of an earlier build."""
    for module, remedy in (("setuptools", "pip install -e '.[test]'"), ("pip", "python -m ensurepip")):
        # in a process of its own: in one that has looked for pip, setuptools cannot be imported any more
        there = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode == 0
        assert there, f"{module} is not installed here: {remedy}"
    copy = tmp_path_factory.mktemp("checkout")
    for folder in (*INSTALLED, *BESIDE):
        for path in files(folder):
            to = copy / path.relative_to(ROOT)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)
    for name in FILES:
        shutil.copyfile(ROOT / name, copy / name)
    run([sys.executable, "-c", "from setuptools import build_meta; build_meta.build_sdist('dist')"], cwd=copy,
        env=environment())
    (archive,) = (copy / "dist").glob("*.tar.gz")
    return archive


def unpacked(sdist, folder):
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    return source


def install(source, folder, variables):
    """Builds a wheel in the unpacked source distribution and installs it -> (Python, site-packages) of a new
    environment: this package from its wheel, the rest from the environment of the tests."""
    run([*PIP, "wheel", *OFFLINE, "--no-build-isolation", "-w", str(folder), str(source)], env=variables)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv")
    python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    site = Path(run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip())
    run([*PIP, "--python", str(python), "install", *OFFLINE, "--no-compile", str(wheel)])
    (site / "dependencies.pth").write_text("\n".join(path for path in sys.path if "site-packages" in path))
    return python, site


@pytest.fixture(scope="module")
def installed(sdist, tmp_path_factory):
    """-> (Python, site-packages). The libraries of this checkout lie where the build looks for them, so it compiles
    only what has changed, and fails where a source lacks something."""
    source = unpacked(sdist, tmp_path_factory.mktemp("unpacked"))
    built = source / "build" / f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    copies.copy(Path("kernels") / "lib", built / "genmini" / "kernels" / "lib")
    return install(source, tmp_path_factory.mktemp("installed"), environment(GENMINI_STRICT="1"))


PROGRAM = """
import contextlib, io, json, sys

hidden, commands = map(json.loads, sys.argv[1:])
sys.modules.update(dict.fromkeys(hidden))  # None: as if the package were missing
import genmini.cli

results = []
for words in commands:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        status = genmini.cli.main(words)
    results.append((status, out.getvalue()))
print(json.dumps(results))
"""


def genmini(python, folder, *commands, hidden=(), **variables):
    """Runs these commands in one process of the new environment -> [[status, what is printed]]"""
    words = json.dumps([command.split() for command in commands])
    out = run([str(python), "-c", PROGRAM, json.dumps(hidden), words], cwd=folder, env=environment(**variables))
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def trained(installed, tmp_path_factory):
    """-> the folder in which the command `genmini` of the new environment has trained a NADE; what it printed; and the
    nats that `genmini eval` then prints."""
    python, _ = installed
    folder = tmp_path_factory.mktemp("elsewhere")
    words = "train nade --data digits --steps 20 --threads 1".split()
    out = run([str(python.with_name("genmini")), *words], cwd=folder, env=environment())
    (status, evaluated), (drawn, _) = genmini(python, folder, "eval runs/nade-digits", "sample runs/nade-digits -n 4")
    assert status == 0 and drawn == 0 and (folder / "runs" / "nade-digits" / "drawn.png").exists()
    return folder, out, nats(evaluated)


def nats(evaluated):
    """The number of nats on the test split that `genmini eval` prints"""
    return float(re.search(r"test +(\d+\.\d+)", evaluated)[1])


def test_the_source_distribution_holds_the_project(sdist):
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {str(path.relative_to(ROOT)) for folder in (*INSTALLED, *BESIDE) for path in files(folder)}
    assert not (wanted | set(FILES)) - held
    assert not [name for name in held if name.endswith((".so", ".pyc"))]


def test_the_package_holds_every_file_of_the_checkout(installed):
    """All that is not compiled here: Python, C++ and CUDA sources, data, the mark that types are annotated."""
    _, site = installed
    for folder, to in INSTALLED.items():
        for path in files(folder):
            assert (site / to / path.relative_to(ROOT / folder)).read_bytes() == path.read_bytes(), path
    for source in (ROOT / "csrc").glob("*.cpp"):
        assert (site / "genmini" / "kernels" / "lib" / f"{source.stem}.cpu.so").exists(), source


def test_it_trains_in_another_folder(installed, trained):
    python, site = installed
    folder, out, _ = trained
    assert "picture   runs/nade-digits/samples.png" in out and (folder / "runs" / "nade-digits" / "run.json").exists()
    program = ("import genmini.kernels, genmini.csrc; "
               "print(genmini.__file__, genmini.kernels.__file__, *genmini.csrc.__path__)")
    for path in run([str(python), "-c", program], cwd=folder, env=environment()).split():
        assert Path(path).is_relative_to(site), path


def test_runs_that_come_with_genmini_are_installed_and_nothing_is_written_to_them(installed, tmp_path):
    python, site = installed
    shipped = {path.name for path in (ROOT / "genmini" / "shipped").iterdir()}
    (evaluate, evaluated), (_, listed) = genmini(python, tmp_path, "eval digits-v1", "list")
    assert evaluate == 0 and re.search(r"^test +accuracy +0\.970 ", evaluated)
    assert all(re.search(rf"\n  {name} +\w+, trained on ", listed) for name in shipped)
    if "imagen" in shipped:
        (status, printed), = genmini(python, tmp_path, "sample imagen -n 1")
        assert status == 0 and "1 samples in imagen.png" in printed and (tmp_path / "imagen.png").exists()
    at = site / "genmini" / "shipped"
    assert {path.relative_to(at) for path in at.rglob("*")} == {
        path.relative_to(ROOT / "genmini" / "shipped") for path in (ROOT / "genmini" / "shipped").rglob("*")}


def test_without_a_compiler_triton_and_matplotlib_only_pictures_are_missing(installed, trained, tmp_path):
    """The wheel brings its libraries along. What the run gave with all packages, it gives without them."""
    python, _ = installed
    folder, _, expected = trained
    run_ = folder / "runs" / "nade-digits"
    results = genmini(python, tmp_path, "train nade --data digits --steps 2 --threads 1 --out r", f"eval {run_}",
                      f"sample {run_} -n 4", f"sample {run_} -n 4 --out x.npy", "info",
                      hidden=["triton", "matplotlib"], compiler=False)
    (train, printed), (evaluate, evaluated), (picture, refused), (numbers, _), (info, shown) = results
    assert train == 0 and f"picture   {NO_PICTURE}" in printed and (tmp_path / "r" / "run.json").exists()
    assert evaluate == 0 and nats(evaluated) == expected
    assert picture == 1 and refused == f"genmini: {NO_PICTURE}\n"
    assert numbers == 0 and (tmp_path / "x.npy").exists()
    assert info == 0 and "triton    missing   (triton is not installed" in shown
    assert "g++       missing: nothing of csrc/ can be compiled; what is built runs all the same" in shown
    assert re.search(r"nade\.cpu +built", shown) and re.search(r" nade  .*\n    cpu +cpu +C\+\+ for CPU tensors", shown)


def test_built_without_a_compiler_it_runs_in_pytorch_and_says_how_to_build(sdist, trained, tmp_path):
    """Without g++ the installation succeeds, unless it is told to be strict. The command that `genmini info` prints
    builds what is missing."""
    folder, _, expected = trained
    source, bare = unpacked(sdist, tmp_path / "unpacked"), environment(compiler=False)
    python, site = install(source, tmp_path, bare)
    lib = site / "genmini" / "kernels" / "lib"
    assert not list(lib.glob("*.so"))
    results = genmini(python, tmp_path, "train nade --data digits --steps 2 --threads 1 --out r",
                      f"eval {folder / 'runs' / 'nade-digits'}", "info", compiler=False)
    (train, _), (evaluate, evaluated), (info, shown) = results
    assert train == 0 and (tmp_path / "r" / "samples.png").exists()
    assert evaluate == info == 0
    assert abs(nats(evaluated) - expected) < 0.0015  # the third digit, the last that is printed, may differ by one
    assert re.search(r"nade\.cpu +NOT built\n +g\+\+ was not found on PATH\n", shown)
    assert re.search(r" nade  .*\n    cpu +reference +nade.cpu.so is not built; .*g\+\+ was not found on PATH", shown)
    command = re.search(r"  to build what is missing: (.*)", shown)[1].split()
    assert Path(command[0]) == python
    run([*command, "--strict", "--kinds", "cpu", "--only", "q_sample"], env=environment())
    assert [path.name for path in lib.glob("*.so")] == ["q_sample.cpu.so"]
    (_, shown), = genmini(python, tmp_path, "info")
    assert re.search(r" q_sample  .*\n    cpu +cpu +C\+\+ for CPU tensors", shown)


def test_a_strict_installation_fails_without_a_compiler(sdist, tmp_path):
    source = unpacked(sdist, tmp_path / "unpacked")
    command = [*PIP, "wheel", *OFFLINE, "--no-build-isolation", "-w", str(tmp_path), str(source)]
    out = run(command, status=1, env=environment(compiler=False, GENMINI_STRICT="1"))
    assert "nade.cpu.so: NOT built\n" in out and "g++ was not found on PATH" in out
    assert not list(tmp_path.glob("*.whl"))
