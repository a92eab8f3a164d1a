"""Test the examples that the counters keep of each line: which lanes asked for what, from where an array begins."""

import ctypes
import re

import numpy as np
import pytest
from emulated import build, count
from test_count import FOLDER, SOURCE, counted, row

from genmini import counting

pytestmark = pytest.mark.skipif(bool(count.missing()), reason=count.missing())


def at(launch, words, what, space):
    """The addresses of each example of a row."""
    return [example.at for example in row(launch, words, what, space).examples]


def test_addresses_of_a_pattern():
    """Without a name they count from the first sector that the line touches."""
    assert at(counted("stride_one"), "y[i] = x[", "load", "global")[0] == {l: 4 * l for l in range(32)}
    assert at(counted("column"), "x[32 * threadIdx.x]", "load", "global") == [{l: 128 * l for l in range(32)}]
    (shifted,) = at(counted("shifted"), "y[threadIdx.x] = x[threadIdx.x + 1]", "load", "global")
    assert shifted == {l: 4 * l + 4 for l in range(32)}
    (wide,) = at(counted("wide"), "float4 v = ((const float4*)x)", "load", "global")
    assert wide == {l: 16 * l for l in range(32)}


def test_only_lanes_that_take_part():
    full, rest = at(counted("rest"), "// of rest", "load", "global")
    assert (len(full), len(rest)) == (32, 8)


@pytest.mark.parametrize("name, banks", [("tile_32", 1), ("tile_33", 32)])
def test_banks_of_a_column(name, banks):
    """A request of a column lies in one bank, with a padding in all."""
    requests = at(counted(name), "= tile[threadIdx.x][r]", "load", "shared")
    assert all(len({address // 4 % 32 for address in request.values()}) == banks for request in requests)
    assert {example.array for example in row(counted(name), "= tile[threadIdx.x][r]", "load", "shared").examples
            } == {"shared"}


def test_rows_of_matrices():
    (rows,) = at(counted("matrices_40"), "load_matrix_x4(a", "ldmatrix", "shared")
    assert len(rows) == 32 and {b - a for a, b in zip([*rows.values()][:7], [*rows.values()][1:8], strict=True)} == {80}
    (rows,) = at(counted("matrices_40"), "load_matrix_x2(b", "ldmatrix", "shared")
    assert len(rows) == 16


def test_the_first_requests_and_some_of_the_rest():
    """32 requests of a loop: the first 8, then every fourth or so, in their order."""
    examples = row(counted("tile_33"), "= tile[threadIdx.x][r]", "load", "shared").examples
    times = [example.time - examples[0].time for example in examples]
    step = times[1]
    assert times[:8] == [step * i for i in range(8)] and len(times) < 17 and times[-1] > 24 * step
    assert times == sorted(times)


def test_examples_of_many_sites_stay_few():
    example = lambda time: count.Example(time, 0, 0, "", 0, {0: 0})
    kept = [each.time for each in count.thinned([example(time) for time in reversed(range(1000))])]
    assert kept[: count.FIRST] == [*range(count.FIRST)] and len(kept) <= 2 * count.FIRST and kept[-1] > 900


def test_arrays_have_the_names_of_the_arguments():
    """An address behind the start of an array counts from there, also where that is inside a sector."""
    path = count.built(SOURCE, FOLDER)
    library = ctypes.CDLL(str(path))
    memory = [np.ones(5000, np.float32) for _ in range(2)]
    x, y = ((array.ctypes.data + 127) // 128 * 128 for array in memory)
    with count.naming(path, [(x, 4096, "x float32 1024", True), (y - 8, 4096, "y float32 1024", True)]):
        assert library.run_column(ctypes.c_void_p(x), ctypes.c_void_p(y)) == 0
    (launch,) = count.launches(path, SOURCE)
    (of_x,), (of_y,) = (row(launch, "x[32 * threadIdx.x]", what, "global").examples for what in ("load", "store"))
    assert (of_x.array, of_x.skew, of_x.at[1]) == ("x float32 1024", 0, 128)
    assert (of_y.array, of_y.skew, of_y.at[0]) == ("y float32 1024", 24, 32)
    assert library.run_column(ctypes.c_void_p(x), ctypes.c_void_p(y)) == 0  # the names are forgotten
    (launch,) = count.launches(path, SOURCE)
    assert row(launch, "x[32 * threadIdx.x]", "load", "global").examples[0].array == ""


def test_arguments_of_a_function_by_its_source():
    found = count.arguments(build.CSRC / "affine_coupling.cu", "affine_coupling_backward_naive")
    assert [*found][:5] == ["dtype", "dy", "dlogdet", "kept", "s"] and [*found][-1] == "stream"
    assert [found[name] for name in ("dy", "s", "dx", "ds")] == [False, False, True, True]  # which it may write
    assert [*count.arguments(build.CSRC / "affine_coupling.cu", "affine_coupling_one_pass")][:3] == ["dtype", "x", "s"]
    assert [*count.arguments(build.CSRC / "code_stats.cu", "code_stats_naive")][1:3] == ["z", "index"]
    assert count.arguments(build.CSRC / "code_stats.cu", "other") == {}


def test_examples_of_a_room_lie_in_its_tensors():
    """The naive sum of code_stats reads the index, and z where the index is its code; each example has all of it."""
    found = counting.count("code_stats", "naive", N=64, K=4, D=32)
    examples = [example for launch in found.launches for row in launch.rows for example in row.examples]
    assert {example.array for example in examples} == {"z float32 64 32", "index int64 64", "count int64 4",
                                                       "total float32 4 32"}
    for example in examples:
        size = {"float32": 4, "int64": 8}[example.array.split()[1]]
        shape = [int(n) for n in re.findall(r" (\d+)", example.array)]
        assert all(0 <= a - example.skew < size * np.prod(shape) for a in example.at.values())
