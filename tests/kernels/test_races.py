"""Test that hazards of memory are found, each in every order of threads, and that no correct kernel is accused."""

import ctypes
import re
import time
from pathlib import Path

import numpy as np
import pytest
from emulated import count, sanitize

SOURCE = Path(__file__).with_suffix(".cu")
FOLDER = sanitize.CACHE.parent / "counted"
KERNELS = re.findall(r"^RUN\((\w+),", SOURCE.read_text(), re.M)
MISTAKES = {"unwaited": "early", "late": "early", "empty": "unwritten", "stale": "stale"}  # the others: race
OF_GLOBAL = [*KERNELS[KERNELS.index("through"):KERNELS.index("empty")], "empty_global", "stale", "stale_later",
             "stale_wide"]
pytestmark = pytest.mark.skipif(bool(count.missing()), reason=count.missing())


def launched(kernel, bug, order=0, written=True):
    path = count.built(SOURCE, FOLDER)
    library = ctypes.CDLL(str(path))
    library.gpu_order(ctypes.c_int(order), ctypes.c_uint64(3))
    memory = [np.zeros(5000, np.float32) for _ in range(2)]
    x, y = ((array.ctypes.data + 127) // 128 * 128 for array in memory)
    with count.naming(path, [(x, 16000, "x", True), (y, 16000, "y", written)]):
        assert getattr(library, f"run_{kernel}")(int(bug), ctypes.c_void_p(x), ctypes.c_void_p(y)) == 0
    (launch,) = count.launches(path, SOURCE)
    return launch


def hazards(*which, **more):
    return launched(*which, **more).hazards


def line(words):
    (number,) = (i for i, text in enumerate(SOURCE.read_text().splitlines(), 1)
                 if re.search(rf"// .*\b{words}(, |$)", text))
    return number


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_hazard_is_found_in_every_order(kernel):
    """Both lines are named, and two threads, of one block or of two. What is right is not accused, whoever is first."""
    written = kernel != "empty_global"
    for order in (0, 1, 2):
        assert hazards(kernel, False, order, written) == []
        (found,) = hazards(kernel, True, order, written)
        lines = {(SOURCE.name, line(f"{kernel}: {part}")) for part in ("one", "other")}
        assert {found.one[:2], found.other[:2]} == lines and found.times >= 1
        assert found.mistake == MISTAKES.get(kernel.partition("_")[0], "race")
        assert found.space == ("global" if kernel in OF_GLOBAL else "shared")
        if found.mistake == "race":
            assert (found.blocks[0], found.threads[0]) != (found.blocks[1], found.threads[1])


def test_a_hazard_says_what_met():
    (race,) = hazards("neighbour", bug=True)
    assert (race.one[2], race.other[2]) == ("cp.async", "load")
    (race,) = hazards("counted", bug=True)
    assert (race.one[2], race.other[2], race.times) == ("atomic", "load", 2 * 64 * 63 // 2)
    (race,) = hazards("untold", bug=True)
    assert str(race).endswith("no fence, atomic and fence between")
    assert race.blocks[0] != race.blocks[1]


def test_what_is_set_and_copied_as_a_whole_is_counted():
    """As the widest accesses that its addresses and size allow."""
    def rows(kernel, part):
        return [(row.what, row.space, row.size, row.inst_executed, row.thread_inst_executed)
                for row in launched(kernel, bug=False).rows if row.line == line(f"{kernel}: {part}")]

    for kernel in ("moved", "assigned"):  # 3 times 8 bytes, two warps
        assert rows(kernel, "one") == [("load", "global", 8, 6, 192), ("store", "shared", 8, 6, 192)]


def test_blocks_have_the_numbers_of_the_grid():
    """Also where the last one runs first."""
    for order, blocks in ((0, {0, 1}), (1, {3, 2})):
        (race,) = hazards("one_cell", bug=True, order=order)
        assert set(race.blocks) == blocks


def test_four_times_as_many_fences_take_no_sixteen_times_as_long():
    """All threads of all blocks have a fence, as the guide of CUDA shows it. The least of three times, of this thread
    alone: other processes can only add to a time."""
    path = count.built(SOURCE, FOLDER)
    y = np.zeros(5000, np.float32)

    def seconds(blocks):
        start = time.thread_time()
        assert ctypes.CDLL(str(path)).run_fences(ctypes.c_int64(blocks), ctypes.c_void_p(y.ctypes.data)) == 0
        took, y[:] = time.thread_time() - start, 0
        (launch,) = count.launches(path, SOURCE)
        assert launch.hazards == []
        return took

    seconds(8)
    few, many = (min(seconds(blocks) for _ in range(3)) for blocks in (32, 128))
    assert many < 10 * few
