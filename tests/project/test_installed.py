"""Tests of the installed package: a wheel is built and installed in an environment without this checkout, and trains in
another folder."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("genmini", "kernels", "csrc")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """-> a copy of what a wheel is built from. The libraries lie where the build looks for them, so it compiles only
    what has changed."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "lib"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    built = (folder / "build" / f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
             / "genmini" / "kernels" / "lib")
    shutil.copytree(ROOT / "kernels" / "lib", built)
    return folder


@pytest.fixture(scope="module")
def installed(checkout, tmp_path_factory):
    """-> (Python, site-packages) of a new environment: this package from its wheel, the rest from the environment of
    the tests."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    if (subprocess.run([*pip, "--version"], capture_output=True).returncode
            or not importlib.util.find_spec("setuptools")):
        pytest.skip("pip or setuptools is not installed here")
    folder = tmp_path_factory.mktemp("installed")
    offline = ["--no-index", "--no-deps", "--no-cache-dir"]
    run([*pip, "wheel", *offline, "--no-build-isolation", "-w", str(folder), str(checkout)])
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv")
    python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    site = Path(run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip())
    run([*pip, "--python", str(python), "install", "-q", *offline, str(wheel)])
    (site / "dependencies.pth").write_text("\n".join(path for path in sys.path if "site-packages" in path))
    return python, site


def run(command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def test_it_trains_in_another_folder(installed, tmp_path):
    python, site = installed
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    out = run([str(python.with_name("genmini")), "train", "made", "--data", "digits", "--steps", "20"], cwd=tmp_path,
              env=environment)
    assert "picture   runs/made-digits/samples.png" in out and (tmp_path / "runs" / "made-digits" / "run.json").exists()
    program = ("import genmini.kernels, genmini.csrc; "
               "print(genmini.__file__, genmini.kernels.__file__, *genmini.csrc.__path__)")
    for path in run([str(python), "-c", program], cwd=tmp_path, env=environment).split():
        assert Path(path).is_relative_to(site), path
    assert (site / "genmini" / "kernels" / "lib" / "nade.cpu.so").exists()


def test_it_holds_every_file_of_the_checkout(installed):
    """All that is not compiled here: Python, C++ and CUDA sources, data, the mark that types are annotated."""
    _, site = installed
    for name in FOLDERS:
        to = site / "genmini" / ("" if name == "genmini" else name)
        for path in (ROOT / name).rglob("*"):
            if path.is_file() and not {"__pycache__", "lib"} & set(path.relative_to(ROOT).parts):
                assert (to / path.relative_to(ROOT / name)).read_bytes() == path.read_bytes(), path
