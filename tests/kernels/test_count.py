"""Test the counters of csrc/emulator/count.cpp: kernels whose counts are known, and mistakes that the counts show."""

import ctypes
import shutil
from pathlib import Path

import numpy as np
import pytest
from emulated import build, count, sanitize

SOURCE = Path(__file__).with_suffix(".cu")
FOLDER = sanitize.CACHE.parent / "counted"
pytestmark = pytest.mark.skipif(bool(count.missing()), reason=count.missing())


def counted(name, source=SOURCE, order=0):
    """The Launch of run_<name>."""
    path = count.built(source, FOLDER)
    library = ctypes.CDLL(str(path))
    library.gpu_order(ctypes.c_int(order), ctypes.c_uint64(7))
    memory = [np.random.RandomState(0).rand(5000).astype(np.float32) for _ in range(2)]
    x, y = (ctypes.c_void_p((array.ctypes.data + 127) // 128 * 128) for array in memory)
    code = getattr(library, f"run_{name}")(x, y)
    library.gpu_error.restype = ctypes.c_char_p
    assert code == 0, library.gpu_error(code).decode()
    (launch,) = count.launches(path, source)
    assert launch.elsewhere == 0
    return launch


def row(launch, words, what, space, source=SOURCE):
    """The one row of this kind on the line that has these words."""
    (line,) = (number for number, text in enumerate(source.read_text().splitlines(), 1) if words in text)
    (found,) = (row for row in launch.rows if (row.line, row.what, row.space) == (line, what, space))
    return found


def of_global(launch, words, what, requests, lanes, sectors, ideal, **options):
    found = row(launch, words, what, "global", **options)
    assert (found.inst_executed, found.lanes, found.sectors, found.sectors_ideal) == (requests, lanes, sectors, ideal)
    assert found.wavefronts == 0
    return found


def of_shared(launch, words, what, requests, lanes, wavefronts, ideal, **options):
    found = row(launch, words, what, "shared", **options)
    assert (found.inst_executed, found.lanes, found.wavefronts, found.wavefronts_ideal) == (requests, lanes, wavefronts,
                                                                                           ideal)
    assert found.sectors == 0
    return found


# ---- global memory ---------------------------------------------------------------------------------------------------


def stride_one(**options):
    launch = counted("stride_one", **options)
    assert launch.kernel == "stride_one" and launch.grid == (4, 1, 1) and launch.block == (128, 1, 1)
    for what in ("load", "store"):  # a warp's 128 bytes are 4 sectors
        assert of_global(launch, "y[i] = x[", what, 16, 32, 4, 4, **options).bytes == 2048
    assert launch.lanes == 32 and launch.divergent == 0
    return launch


def test_neighbours_share_sectors():
    launch = stride_one()
    assert list(launch.counters.values()) == [64, 64, 0, 2048, 2048]


def test_wide_accesses_stay_one_request():
    launch = counted("wide")
    assert of_global(launch, "float4 v = ((const float4*)x)", "load", 1, 32, 16, 16).size == 16
    of_global(launch, "((float4*)y)[threadIdx.x] = v", "store", 1, 32, 16, 16)


@pytest.mark.parametrize("name, words, sectors, ideal", [
    ("column", "x[32 * threadIdx.x]", 32, 4), ("strided", "x[2 * threadIdx.x + 1]", 8, 4),
    ("shifted", "y[threadIdx.x] = x[threadIdx.x + 1]", 5, 4), ("broadcast", "x[7]", 1, 1),
])
def test_sectors_of_a_pattern(name, words, sectors, ideal):
    launch = counted(name)
    of_global(launch, words, "load", 1, 32, sectors, ideal)
    of_global(launch, words, "store", 1, 32, 4, 4)


def test_a_warp_may_have_few_lanes():
    launch = counted("rest")
    of_global(launch, "// of rest", "load", 2, 20, 2.5, 2.5)
    assert launch.lanes == 20 and launch.divergent == 0


def test_caches():
    """A block reads a sector once through its first cache, what it wrote too; memory is read and written once."""
    launch = counted("twice")
    of_global(launch, "float sum = x[threadIdx.x]", "load", 3, 32, 4, 4)
    assert launch.barriers == 3
    assert launch.counters == {"lts__t_sectors_op_read.sum": 3 * (4 + 4), "lts__t_sectors_op_write.sum": 3 * (4 + 4),
                               "lts__t_sectors_op_atom.sum": 0,
                               "dram__bytes_read.sum": 128, "dram__bytes_write.sum": 3 * 128}


# ---- shared memory ---------------------------------------------------------------------------------------------------


def padded(name="tile_33", **options):
    launch = counted(name, **options)
    of_shared(launch, "tile[r][threadIdx.x] = x[", "store", 32, 32, 1, 1, **options)
    of_shared(launch, "= tile[threadIdx.x][r]", "load", 32, 32, 1, 1, **options)
    return launch


def test_a_column_of_a_tile():
    assert padded().kernel == "tile<33>"
    launch = counted("tile_32")
    of_shared(launch, "tile[r][threadIdx.x] = x[", "store", 32, 32, 1, 1)
    of_shared(launch, "= tile[threadIdx.x][r]", "load", 32, 32, 32, 1)
    assert launch.barriers == 1


def test_a_swizzled_tile():
    launch = counted("swizzled")
    of_shared(launch, "tile[r][r ^ threadIdx.x] =", "store", 32, 32, 1, 1)
    of_shared(launch, "= tile[threadIdx.x][threadIdx.x ^ r]", "load", 32, 32, 1, 1)


def test_wide_accesses_of_shared_memory():
    """16 bytes a lane are four wavefronts, two where pairs of lanes read the same."""
    launch = counted("shared_wide")
    assert launch.dynamic_shared == 512
    of_shared(launch, "s[threadIdx.x] = ((const float4*)x)", "store", 1, 32, 4, 4)
    of_shared(launch, "float4 own", "load", 1, 32, 4, 4)
    of_shared(launch, "float4 same", "load", 1, 32, 2, 2)
    of_shared(launch, "float4 pairs", "load", 1, 32, 2, 2)
    of_shared(launch, "float strided", "load", 1, 32, 4, 1)


def test_accesses_of_8_bytes():
    launch = counted("shared_doubles")
    of_shared(launch, "    s[threadIdx.x] = x[threadIdx.x];", "store", 1, 32, 2, 2)
    of_shared(launch, "s[2 * threadIdx.x] = x", "store", 1, 32, 4, 2)
    of_shared(launch, "float(s[threadIdx.x ^ 1])", "load", 1, 32, 2, 2)


@pytest.mark.parametrize("stride, wavefronts", [(32, 4), (40, 1)])
def test_matrices(stride, wavefronts):
    """Rows of 64 bytes: 8 rows hit 4 banks each 4 times. Rows of 80 bytes: each bank once."""
    launch = counted(f"matrices_{stride}")
    of_shared(launch, "load_matrix_x4(a", "ldmatrix", 1, 32, 4 * wavefronts, 4)
    of_shared(launch, "load_matrix_x2(b", "ldmatrix", 1, 32, 2 * wavefronts, 2)
    of_shared(launch, "tile[i] = uint16_t(x[i])", "store", 16 * stride // 32, 32, 1, 1)
    assert row(launch, "mma_16x8x16_f16(d", "mma_16x8x16_f16", "").flop == launch.flop == 4096


def test_copies_that_nobody_waits_for():
    """Nothing is read where no byte is valid; zeros are written. The first cache is passed."""
    launch = counted("staged")
    of_global(launch, "copy_async<16>(s +", "cp.async", 2, 24, 12, 12)
    of_shared(launch, "copy_async<16>(s +", "cp.async", 2, 32, 4, 4)
    assert launch.counters["lts__t_sectors_op_read.sum"] == 24 and launch.counters["dram__bytes_read.sum"] == 384


# ---- lanes that part -------------------------------------------------------------------------------------------------


def test_lanes_leave_a_loop_one_after_the_other():
    launch = counted("divergent")
    assert row(launch, "sum += x[32 * i + threadIdx.x]", "load", "global").inst_executed == 4
    assert row(launch, "sum += x[32 * i + threadIdx.x]", "load", "global").lanes == 20
    of_global(launch, "    y[threadIdx.x] = sum;", "store", 1, 32, 4, 4)
    assert launch.divergent == 3 and launch.lanes < 32


def test_lanes_meet_again_after_an_inner_loop():
    launch = counted("nested")
    found = row(launch, "for (int j = 0; j < int(i", "load", "global")
    assert (found.inst_executed, found.lanes) == (4, 24)  # 32, 16, 32, 16
    of_global(launch, "        y[32 * i + threadIdx.x] = sum;    // of nested", "store", 2, 32, 4, 4)
    assert launch.divergent == 2


def test_the_branch_right_behind_a_shuffle_is_divergent():
    """And behind a vote and __syncwarp: each parts the warp once."""
    launch = counted("behind")
    assert launch.divergent == 3


def test_lanes_meet_again_after_a_call():
    launch = counted("calls")
    of_global(launch, "return 2 * x[i]", "load", 2, 16, 4, 2)
    of_global(launch, "y[32 * i + threadIdx.x] = sum;    // of calls", "store", 2, 32, 4, 4)
    assert launch.divergent == 2


def test_lanes_meet_again_after_a_condition():
    launch = counted("smallest")
    of_global(launch, "double v = x[", "load", 16, 32, 4, 4)
    of_global(launch, "y[threadIdx.x] = float(at)", "store", 1, 32, 4, 4)
    assert launch.divergent > 10


def test_lanes_meet_again_at_the_head_of_a_loop():
    launch = counted("largest")
    of_shared(launch, "top = w[j] > top ||", "load", 7, 32, 1, 1)
    of_global(launch, "y[threadIdx.x] = w[0]", "store", 1, 32, 4, 4)


def test_shuffles_and_threads_that_return():
    launch = counted("sum")
    found = row(launch, "__shfl_down_sync", "__shfl_down_sync", "")
    assert (found.inst_executed, found.lanes) == (8, 24)  # 32 and 16 lanes, four times each
    of_global(launch, "float v = x[threadIdx.x]", "load", 2, 32, 4, 4)
    of_global(launch, "y[0] = v", "store", 1, 1, 1, 1)


# ---- atomic operations -----------------------------------------------------------------------------------------------


def test_collisions_of_atomic_operations():
    launch = counted("histogram")
    assert of_global(launch, "atomicAdd(&y[", "atomic", 1, 32, 1, 1).collisions == 28
    assert launch.counters["lts__t_sectors_op_atom.sum"] == 1
    launch = counted("histogram_in_shared")
    assert of_shared(launch, "atomicAdd(&bin[", "atomic", 1, 32, 8, 1).collisions == 28


# ---- the method ------------------------------------------------------------------------------------------------------


def test_a_mutant_of_a_stride_and_one_of_a_padding_are_seen(tmp_path):
    text = SOURCE.read_text()
    for right, wrong in (("y[i] = x[i] + 1", "y[i] = x[2 * i] + 1"), ("tile<33>", "tile<32>")):
        assert text.count(right) == 1
        text = text.replace(right, wrong)
    (tmp_path / "mutant.cu").write_text(text)
    for law in (stride_one, padded):
        law()
        with pytest.raises(AssertionError):
            law(source=tmp_path / "mutant.cu")


def test_the_order_of_the_threads_does_not_matter():
    forward, *others = (counted("nested", order=order) for order in (0, 1, 2))
    assert all(launch.rows == forward.rows for launch in others)


def test_a_launch_that_fails_counts_nothing():
    path = count.built(SOURCE, FOLDER)
    library = ctypes.CDLL(str(path))
    memory = np.ones(5000, np.float32)
    x = ctypes.c_void_p((memory.ctypes.data + 127) // 128 * 128)
    assert library.run_fails(x, x) != 0 and count.launches(path, SOURCE) == []


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RuntimeError, match=r"counting needs g\+\+: no-such-compiler was not found"):
        count.built(SOURCE, tmp_path)
    monkeypatch.delenv("CXX")
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "addr2line" else name)
    assert count.missing().startswith("counting needs addr2line")


def test_a_compiler_without_the_calls_is_an_error(monkeypatch, tmp_path):
    """One that has no such sanitizer, and one that calls a function which the counters do not have."""
    compiler = tmp_path / "g++"
    compiler.write_text('#!/bin/sh\ncase "$*" in *-fsanitize=thread*) echo "error: no -fsanitize=thread" >&2; exit 1;; '
                        f'*) exec {build.compiler("counted")[0]} "$@";; esac\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(RuntimeError, match="error: no -fsanitize=thread .*counting needs"):
        count.built(SOURCE, tmp_path)
    monkeypatch.delenv("CXX")
    (tmp_path / "new.cu").write_text('extern "C" void __tsan_new(); extern "C" void f() { __tsan_new(); }\n')
    with pytest.raises(RuntimeError, match="undefined reference to .__tsan_new"):
        count.built(tmp_path / "new.cu", tmp_path)
