"""What the counters say of kernels in Triton: small ones whose counts can be worked out, and lines of the rooms'."""

import importlib.util
import inspect
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiles
import torch
from genmini.csrc import compiled
from genmini.kernels import _backend, _degrees, _tiles, masked_linear

from genmini import compiling, counting, kernels

MISSING = _backend._cannot_emulate(kernels.ROOMS["masked_linear"], torch.device("cpu"))
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


def run(kernel, grid, *arguments, **constants):
    """The one launch, counted."""
    with kernels.counting_tiles() as launches:
        kernel[grid](*arguments, **constants)
    (launch,) = launches
    return launch


def found(launch, what):
    (row,) = (row for row in launch.rows if row.what == what)
    return row.inst_executed, row.lanes, row.masked, row.sectors, row.sectors_ideal


def bytes_of(launch):
    return launch.counters["dram__bytes_read.sum"], launch.counters["dram__bytes_write.sum"]


@pytest.mark.parametrize("step, sectors", [(0, 1), (1, 8), (2, 16), (4, 32), (8, 64), (100, 64)])
def test_a_strided_load(step, sectors):
    """64 floats, 256 bytes: 8 sectors; a step of 4 numbers touches 4 times as many, a step of 8 one for each number."""
    launch = run(tiles.strided, (2,), torch.zeros(128 * max(step, 1)), torch.zeros(128), step, 64)
    assert found(launch, "load") == (2, 64, 0, sectors, 1 if step == 0 else 8)
    assert found(launch, "store") == (2, 64, 0, 8, 8)
    assert bytes_of(launch) == (32 * sectors * (1 if step == 0 else 2), 512)
    assert launch.kernel == "strided" and launch.grid == (2, 1, 1) and launch.block == (128, 1, 1)
    assert launch.arguments == {"STEP": str(step), "B": "64"}


@pytest.mark.parametrize("dtype, sectors", [(torch.uint8, 2), (torch.float16, 4), (torch.float64, 16)])
def test_the_size_of_a_number_is_that_of_its_dtype(dtype, sectors):
    launch = run(tiles.strided, (1,), torch.zeros(64, dtype=dtype), torch.zeros(64, dtype=dtype), 1, 64)
    assert found(launch, "load") == found(launch, "store") == (1, 64, 0, sectors, sectors)


def test_an_unaligned_load_touches_a_sector_more():
    launch = run(tiles.strided, (1,), torch.zeros(65)[1:], torch.zeros(64), 1, 64)
    assert found(launch, "load") == (1, 64, 0, 9, 8)


def test_a_masked_tail():
    """100 numbers in tiles of 64: 28 of the second are masked off; its 36 floats are 144 bytes, 5 sectors (4.5)."""
    N = 100
    launch = run(tiles.tail, (2,), torch.ones(N), y := torch.zeros(N), N, B=64, num_warps=2)
    assert launch.block == (64, 1, 1) and launch.arguments == {"N": "100", "B": "64"} and y.eq(2).all()
    first, second = (row for row in launch.rows if row.what == "load")
    assert (first.thread_inst_executed, first.masked) == (100, 28)
    assert first.memory_l2_theoretical_sectors_global == 8 + 5
    text = inspect.getsource(tiles).splitlines()
    assert "x = tl.load" in text[first.line - 1] and "x + tl.load" in text[second.line - 1]
    assert first.file == "tiles.py" and launch.source == launch.files["tiles.py"]
    # the second load finds in the program's cache what the first has read
    assert launch.counters["lts__t_sectors_op_read.sum"] == 13 and bytes_of(launch) == (13 * 32, 13 * 32)


def test_a_whole_tile_may_be_masked_off():
    launch = run(tiles.tail, (2,), torch.ones(64), torch.zeros(64), 64, B=64)
    load = next(row for row in launch.rows if row.what == "load")
    assert (load.inst_executed, load.masked, load.sectors) == (2, 64, 4)
    assert found(launch, "store") == (2, 32, 64, 4, 4)


def test_a_second_cache_that_is_too_small_is_filled_again():
    """Three programs load one sector and store eight: of nine the one that is asked for again stays, of eight not. What
    is written back and written once more is counted twice."""
    for l2, sectors in ((math.inf, 1), (9 * 32, 1), (8 * 32, 3)):
        with kernels.counting_tiles(l2) as launches:
            tiles.strided[3,](torch.zeros(64), torch.zeros(192), 0, 64)
        assert bytes_of(launches[0]) == (32 * sectors, 3 * 8 * 32)
    for l2, times in ((math.inf, 1), (0, 2)):
        with kernels.counting_tiles(l2) as launches:
            tiles.products[2,](torch.ones(16, 16), 16)
        assert bytes_of(launches[0]) == (times * 1024, times * 1024)


def test_a_tile_has_sectors_whatever_the_order_of_its_elements():
    """A transposition of a whole matrix costs nothing here: a tile of 16 x 32 floats is 64 sectors either way. Of a
    part of longer rows each row is 4 sectors."""
    for D in (32, 100):
        launch = run(tiles.corner, (1,), torch.zeros(16, D), torch.zeros(32, 16), D, 16, 32)
        wide = 64 if D == 32 else sum((4 * (100 * n + 32) - 1) // 32 - 400 * n // 32 + 1 for n in range(16))
        assert found(launch, "load") == (1, 512, 0, wide, 64) and found(launch, "store") == (1, 512, 0, 64, 64)


def test_atomic_operations_collide():
    """64 numbers into 4 counters: 60 find another at their address."""
    x, total = torch.arange(64) % 4, torch.zeros(4, dtype=torch.int32)
    launch = run(tiles.counts, (1,), x, total, 64)
    assert total.tolist() == [16] * 4
    assert found(launch, "atomic") == (1, 64, 0, 1, 1)
    assert [row.collisions for row in launch.rows if row.what == "atomic"] == [60]
    assert launch.counters["lts__t_sectors_op_atom.sum"] == 1 and bytes_of(launch) == (64 * 8 + 32, 32)
    assert all(row.collisions == 0 for row in launch.rows if row.what == "load")


@pytest.mark.parametrize("dtype, what", [(torch.float32, "dot_f32"), (torch.float16, "dot_f16")])
def test_products_are_counted_where_they_stand(dtype, what):
    launch = run(tiles.products, (1,), torch.ones(16, 16, dtype=dtype), 16)
    (dot,) = (row for row in launch.rows if row.what == what)
    assert dot.flop == launch.flop == 2 * 16**3 and dot.space == ""
    assert "return tl.dot(" in inspect.getsource(tiles).splitlines()[dot.line - 1]


def test_a_descriptor_loads_a_tile_too():
    launch = run(tiles.described, (2,), torch.ones(100), torch.zeros(128), 100, 64)
    assert found(launch, "load") == (2, 50, 28, 6.5, 6.5)


def test_only_inside_launches_are_counted():
    with kernels.counting_tiles() as launches:
        pass
    tiles.strided[1,](torch.zeros(64), torch.zeros(64), 1, 64)
    assert launches == []
    from triton.runtime import interpreter

    assert "create_masked_load" not in vars(interpreter.interpreter_builder)


def test_a_launch_that_fails_leaves_no_hook():
    from triton.runtime import interpreter

    with pytest.raises(Exception, match="NoneType"), kernels.counting_tiles():
        tiles.strided[1,](torch.zeros(64), torch.zeros(64), 1, None)
    assert "create_masked_load" not in vars(interpreter.interpreter_builder)


def test_a_count_inside_a_count_sees_what_it_sees():
    from triton.runtime import interpreter

    with kernels.counting_tiles() as outer, kernels.counting_tiles() as inner:
        tiles.strided[1,](torch.zeros(64), torch.zeros(64), 1, 64)
    assert outer == inner and len(inner) == 1
    assert "create_masked_load" not in vars(interpreter.interpreter_builder)


def test_arguments_say_nothing_of_what_is_in_tensors():
    from triton.tools.tensor_descriptor import TensorDescriptor

    x = TensorDescriptor.from_tensor(torch.ones(64), [32])
    launch = run(tiles.blocks, (1,), x, (torch.zeros(32), torch.zeros(32)), 32)
    assert launch.arguments == {"x": "[32]", "B": "32"}


def test_a_package_beside_triton_has_lines_of_its_own():
    import triton

    path = Path(f"{Path(triton.__file__).parent}_kernels", "mine.py")
    names = dict(place=_tiles.place, sys=sys)
    exec(compile("\nfound = place(sys._getframe())", str(path), "exec"), names)
    assert names["found"] == (path, 2)


# ---- the rooms' kernels ----------------------------------------------------------------------------------------------


def rows_of(launch, source, words):
    """The rows of memory on the line of the source that has these words."""
    (line,) = (number for number, text in enumerate(source.read_text().splitlines(), 1) if words in text)
    return [row for row in launch.rows if (row.file, row.line) == (source.name, line) and row.space]


def x_tiles(rung="naive"):
    """(tiles, elements, masked off, sectors, least) of the x that masked_linear loads: N = 100, K = J = 128."""
    x, weight, degrees = torch.randn(200, 128)[:100], torch.randn(128, 128), torch.arange(128)
    with kernels.counting_tiles() as launches, kernels.use("emulated", rung):
        masked_linear.masked_linear(x, weight, None, degrees, degrees)
    (row,) = rows_of(launches[-1], Path(_degrees.__file__), "x = tl.load(x_ptrs")
    return row.inst_executed, row.thread_inst_executed, row.masked, row.sectors, row.sectors_ideal


# tiles of 64 rows x 32 columns, for each of the 2 x 2 tiles of y: a row of a tile is 128 bytes, 4 sectors; of the
# second 64 rows 36 exist
X_TILES = 16, 2 * 100 * 128, 2 * 28 * 128, 4 * 50, 4 * 50


def test_the_tiles_of_a_masked_product():
    assert x_tiles() == X_TILES
    tiles, elements, *_ = x_tiles("staircase")  # of 4 tiles along k the first 2 rows of W see 2
    assert (tiles, elements) == (12, 12 / 16 * X_TILES[1])


@pytest.mark.parametrize("right, wrong, sectors", [
    ("x_ptrs + k.to(tl.int64)[None, :] * x_k", "x_ptrs + k.to(tl.int64)[None, :] * 2 * x_k", 2 * X_TILES[3]),
    ("x_ptrs + k.to(tl.int64)[None, :] * x_k", "x_ptrs + k.to(tl.int64)[None, :] * 0", X_TILES[3] / 4),
], ids=["twice the stride", "no stride"])
def test_a_mistaken_stride_is_seen(monkeypatch, tmp_path, right, wrong, sectors):
    """In a copy of the room's kernels, which takes their place."""
    text = Path(_degrees.__file__).read_text()
    assert text.count(right) == 1
    (tmp_path / "_degrees.py").write_text(text.replace(right, wrong))
    spec = importlib.util.spec_from_file_location("genmini.kernels.mistaken", tmp_path / "_degrees.py")
    spec.loader.exec_module(mistaken := importlib.util.module_from_spec(spec))
    monkeypatch.setattr(masked_linear, "product_tile", mistaken.product_tile)
    assert x_tiles() != X_TILES and x_tiles()[3] == sectors


def test_a_room_is_counted_forward_and_backward():
    counted = counting.count("masked_linear", N=100, K=128, J=128)
    assert [(launch.kernel, launch.launches) for launch in counted.launches] == [
        ("extremes", 2), ("product", 1), ("product", 1), ("outer", 1)]
    assert [launch.flop for launch in counted.launches] == [0, *[12 / 16 * 2 * 128**3] * 3]  # y, dx, dW; whole tiles
    _, forward, backward, _ = counted.launches
    assert forward.arguments["BIAS"] == "True" and backward.arguments["BIAS"] == "False"
    assert bytes_of(forward)[1] == 4 * 100 * 128
    assert [path.name for path in counted.files] == ["masked_linear.py", "_degrees.py"] and counted.in_triton
    assert counted.source == counted.files[0]


@pytest.mark.skipif(bool(compiled.missing()), reason=compiled.missing())
def test_each_launch_is_compiled_as_it_was_counted():
    """By a child process, which launches the same kernels with the same arguments. A product of two tiles of 64 x 32
    floats keeps both in shared memory, twice where the loop is pipelined."""
    counted = counting.count("masked_linear", N=100, K=128, J=128)
    usage, why = compiling.of("masked_linear", ["grouped"], counted.sizes, [90])
    assert why == "" and {*usage} == {(90, launch.binary) for launch in counted.launches}
    of = [usage[90, launch.binary] for launch in counted.launches]
    assert [each.shared % (2 * 64 * 32 * 4) for each in of] == [0] * 4 and of[0].shared == 0 < of[1].shared
    assert all(0 < each.registers <= 255 and each.stack == each.local == 0 for each in of)


def test_why_nothing_is_compiled(monkeypatch):
    failed = SimpleNamespace(returncode=1, stderr="Traceback\nPTXASError: none\n")
    monkeypatch.setattr(compiling, "subprocess", SimpleNamespace(run=lambda *_, **__: failed))
    monkeypatch.setattr(compiled, "missing", lambda: "")
    assert compiling.of("masked_linear", ["staircase"], {}, [90]) == ({}, "Triton did not compile: PTXASError: none")
    monkeypatch.setattr(compiled, "missing", lambda: "no cuobjdump")
    assert compiling.of("masked_linear", ["staircase"], {}, [90]) == ({}, "no cuobjdump")


def test_taps_of_a_masked_convolution_lie_side_by_side():
    """The rung naive reads a number of each filter row, 36 bytes apart; packed, neighbours."""
    sectors = {}
    for rung in kernels.rungs("masked_conv2d"):
        counted = counting.count("masked_conv2d", rung, N=1, C=32, O=32, side=4)
        (taps,) = (path for path in counted.files if path.name == "_live_taps.py")
        (row,) = rows_of(counted.launches[0], taps, "k = tl.load(k_ptrs")
        sectors[rung] = row.sectors / row.sectors_ideal
    assert sectors == {"naive": 8, "taps": 1}
