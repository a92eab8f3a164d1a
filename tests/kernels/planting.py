"""Plant a one-line mistake in a copy of the project, rebuild what it touches, and run a room's tests there: for
test_wrong.py, which lists the mistakes."""

import contextlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import copies
import pytest
from forks import Forks

ROOT = Path(__file__).resolve().parents[2]
NO_TESTS = pytest.ExitCode.NO_TESTS_COLLECTED


@dataclass(frozen=True)
class Wrong:
    room: str  # whose tests must notice
    file: str
    right: str  # occurs once in the file
    wrong: str
    what: str  # the mistake, in words
    runs: str = "emulated"  # which of the room's tests must turn red (pytest -k)

    def __str__(self):
        return f"{self.room}: {self.what}"


def copied(folder):
    """A copy of the project."""
    for name in ("csrc", "kernels", "genmini", "tests"):
        copies.copy(name, folder / name)
    shutil.copy(ROOT / "pyproject.toml", folder)


def plant(wrong, folder):
    file = folder / wrong.file
    source = file.read_text()
    assert source.count(wrong.right) == 1, f"{wrong.right!r} occurs {source.count(wrong.right)} times in {wrong.file}"
    file.write_text(source.replace(wrong.right, wrong.wrong))


def build(folder, *options):
    """Without optimisation: a mistake changes the results at -O0, too, and most of the time would go into compiling."""
    command = [sys.executable, "csrc/build.py", "--strict", "--debug", *options]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def planted(wrong, folder):
    """A copy of the project with the mistake in it, rebuilt."""
    copied(folder)
    plant(wrong, folder)
    if wrong.file.startswith("csrc/"):
        room, file = wrong.room.removesuffix("_cpu"), Path(wrong.file)
        kind = "cpu" if wrong.runs.startswith("cpu") else "emulated"
        build(folder, "--kinds", kind, "--only", file.stem if file.suffix == ".cu" and kind == "emulated" else room)


@contextlib.contextmanager
def watching():
    """-> red(folder, rooms, runs): whether tests of the rooms fail there, in these runs (and not, say, their import).

    registered: the tests of registration, too, which are slow, and seldom the first to see a mistake.
    """
    forks = Forks({**os.environ, "HYPOTHESIS_PROFILE": "quick", "GENMINI_THOROUGH": "0", "OMP_NUM_THREADS": "1"})

    def red(folder, rooms, runs, registered=True):
        found = [path for room in rooms for path in sorted(folder.glob(f"tests/kernels/test_{room}*.py"))]
        files = [str(path.relative_to(folder)) for path in found]
        codes = []
        for part in ("not registered", "registered")[: 1 + registered]:
            # --assert=plain: which test fails matters, not why, and compiling asserts that say so takes a tenth longer
            code, output = forks.pytest(folder, "-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-p",
                                        "no:xdist", *files, "-k", f"({runs}) and {part}")
            assert code in (0, 1, NO_TESTS) and "error" not in output.splitlines()[-1], output[-6000:]
            if code == 1:
                return output
            codes.append(code)
        assert {*codes} != {NO_TESTS}, output[-6000:]
        return ""

    yield red
    forks.close()
