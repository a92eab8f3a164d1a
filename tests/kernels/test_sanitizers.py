"""The sanitizers find no error in the drivers of all kernels, and the build meant for a planted bug finds it.

`python csrc/sanitize.py` does the same and prints a line each. A counted driver takes up to a minute: these
are marked thorough.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "csrc"))
import build  # noqa: E402  (csrc/build.py)
import sanitize  # noqa: E402  (csrc/sanitize.py)

pytestmark = pytest.mark.skipif(build.compiler("emulated") is None, reason="there is no g++")
BUILDS = [(path, kind) for path in sanitize.drivers() for kind in sanitize.THOROUGH if sanitize.suits(path, kind)]
RUNS = [pytest.param(*run, marks=[] if run[1] in sanitize.QUICK else pytest.mark.thorough) for run in BUILDS]


@pytest.mark.parametrize("path, kind", RUNS, ids=lambda value: getattr(value, "stem", value))
def test_drivers_are_clean(path, kind):
    passed, output = sanitize.drive(path, kind)
    assert passed, output


@pytest.mark.parametrize("name, kind, words", sanitize.bugs(), ids=[f"{bug[0]}-{bug[1]}" for bug in sanitize.bugs()])
def test_planted_bugs_are_found(name, kind, words):
    if why := sanitize.cannot_find(kind):
        pytest.skip(why)
    passed, output = sanitize.find(name, kind, words)
    assert passed, output


def test_every_kernel_has_a_driver_that_calls_every_entry_point():
    for source in [*build.CSRC.glob("*.cu"), *build.CSRC.glob("*.cpp")]:
        driver = next(path for path in sanitize.drivers() if sanitize.drives(path) == source).read_text()
        driver = re.sub(r'extern "C"[^{;]*;', "", driver)  # a declaration is no call
        code = source.read_text()
        entries = set(re.findall(r'extern "C" [\w ]+?[ *]+(\w+)\(', code))
        # entry points that a macro makes, one for each rung
        for template in re.findall(r'extern "C" \w+ (\w*)##', code):
            entries |= {template + rung for rung in re.findall(r"^RUNG\((\w+),", code, re.M)}
        assert entries, source.name
        for entry in entries:
            assert entry in driver, f"no driver calls {entry} of {source.name}"


def test_every_triton_kernel_is_launched_by_the_program_for_compute_sanitizer():
    """The program that compute-sanitizer watches runs interpreted here: one room, all of them when thorough."""
    import triton_rungs

    from genmini import kernels

    assert set(triton_rungs.CASES) == {name for name, room in kernels.ROOMS.items() if room.language == "triton"}
    rooms = [] if os.environ.get("GENMINI_THOROUGH") == "1" else ["softmax_nll"]
    done = subprocess.run([sys.executable, triton_rungs.__file__, *rooms], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_bug_that_is_not_found_is_a_failure():
    """The runner must be able to fail: a wrong result is no crash, and a right kernel no bug."""
    passed, output = sanitize.find("shared_uninitialised", "plain", "words of no report")
    assert not passed and "NOT found" in output


def test_all_planted_bugs_are_compiled_in():
    included = re.findall(r'#include "(\w+)\.cu"', (sanitize.DRIVERS / "planted" / "planted.cpp").read_text())
    assert sorted(included) == sorted({name for name, *_ in sanitize.bugs()})
