"""Test that a missing barrier between accesses of shared memory is found, and that no correct kernel is accused."""

import ctypes
import re
from pathlib import Path

import numpy as np
import pytest
from emulated import count, sanitize

SOURCE = Path(__file__).with_suffix(".cu")
FOLDER = sanitize.CACHE.parent / "counted"
KERNELS = re.findall(r"^RUN\((\w+)\)", SOURCE.read_text(), re.M)
pytestmark = pytest.mark.skipif(bool(count.missing()), reason=count.missing())


def races(kernel, bug, order=0):
    path = count.built(SOURCE, FOLDER)
    library = ctypes.CDLL(str(path))
    library.gpu_order(ctypes.c_int(order), ctypes.c_uint64(3))
    memory = [np.ones(5000, np.float32) for _ in range(2)]
    x, y = (ctypes.c_void_p((array.ctypes.data + 127) // 128 * 128) for array in memory)
    assert getattr(library, f"run_{kernel}")(int(bug), x, y) == 0
    (launch,) = count.launches(path, SOURCE)
    return launch.races


def line(words):
    (number,) = (i for i, text in enumerate(SOURCE.read_text().splitlines(), 1) if text.endswith(f"// {words}"))
    return number


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_missing_barrier_is_found_in_every_order(kernel):
    """Both lines are named, and two different threads. What is right is not accused, whoever runs first."""
    for order in (0, 1, 2):
        assert races(kernel, bug=False, order=order) == []
        (race,) = races(kernel, bug=True, order=order)
        assert {race.one[:2], race.other[:2]} == {(SOURCE.name, line(f"{kernel}: {part}")) for part in ("one", "other")}
        assert race.threads[0] != race.threads[1] and race.times >= 1


def test_a_race_says_what_met():
    (race,) = races("neighbour", bug=True)
    assert (race.one[2], race.other[2]) == ("cp.async", "load")
    (race,) = races("counted", bug=True)
    assert (race.one[2], race.other[2], race.times) == ("atomic", "load", 2 * 2 * 64 * 63 // 2)
