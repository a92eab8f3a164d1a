"""What the counters say of the rooms' own kernels: the lines on which the speed of a rung rests."""

import shutil

import pytest
import torch
from emulated import count
from genmini.csrc import build
from genmini.kernels import _library

from genmini import counting

pytestmark = pytest.mark.skipif(bool(count.missing()), reason=count.missing())


def launched(counted, kernel):
    """The launch of this kernel, whatever its template arguments."""
    (launch,) = (launch for launch in counted.launches if launch.kernel.partition("<")[0] == kernel)
    assert launch.elsewhere == 0 and launch.races == []
    return launch


def row(counted, kernel, words, what, space):
    """The row of this kind on the line of the room's source that has these words."""
    (line,) = (number for number, text in enumerate(counted.source.read_text().splitlines(), 1) if words in text)
    (found,) = (row for row in launched(counted, kernel).rows
                if (row.file, row.line, row.what, row.space) == (counted.source.name, line, what, space))
    return found


def test_affine_coupling_moves_whole_sectors():
    """The rung one_pass loads and stores 16 bytes a lane, 16 of 16 sectors, and moves each number once."""
    N, D = 4, 4096
    counted = counting.count("affine_coupling", N=N, D=D)
    for kernel, words, what, size in (("couple_chunks", "Wide<T, V> xv = ((const", "load", 3),
                                      ("couple_chunks", "((Wide<T, V>*)y)[v] = yv", "store", 1),
                                      ("backward_wide", "Wide<T, V> dyv = ", "load", 3),
                                      ("backward_wide", "((Wide<T, V>*)dx)[v] = dxv", "store", 2)):
        found = row(counted, kernel, words, what, "global")
        assert (found.size, found.lanes, found.sectors, found.sectors_ideal) == (16, 32, 16, 16)
        assert found.bytes == size * N * D * 4
    forward, backward = (launched(counted, kernel) for kernel in ("couple_chunks", "backward_wide"))
    assert forward.counters["dram__bytes_read.sum"] == 3 * N * D * 4
    assert backward.counters["dram__bytes_write.sum"] == 2 * N * D * 4 and backward.divergent == 0


def test_blocks_of_a_shuffle_are_not_the_kernels_own():
    """addr2line may set the emulator's code into the kernel's file: at line 60, which begins another kernel."""
    counted = counting.count("affine_coupling", N=4)
    text = counted.source.read_text().splitlines()
    found = {branch.line for launch in counted.launches for branch in launch.branches
             if branch.file == counted.source.name}
    assert found and not [line for line in found if text[line - 1].startswith("template")]


def test_the_naive_sum_of_affine_coupling_reads_a_sector_for_each_lane():
    counted = counting.count("affine_coupling", rung="naive", N=64, D=128)
    found = row(counted, "logdet_naive", "sum.add(to_double(s[n * D + d]))", "load", "global")
    assert (found.lanes, found.sectors, found.sectors_ideal) == (32, 32, 4)


def test_a_gradient_of_quantize_moves_16_bytes_a_lane():
    """dz in the rung fused: whole sectors, and a quarter of the requests of the rung naive."""
    N, D = 64, 64
    fused, naive = (counting.count("quantize", rung, N=N, K=8, D=D) for rung in ("fused", "naive"))
    for words, what in (("v = *(const Wide<Z, V>*)(dz_q + d)", "load"), ("*(Wide<Z, V>*)(dz + d) = v", "store")):
        found = row(fused, "gradient_of_z_wide", words, what, "global")
        assert (found.size, found.lanes, found.sectors, found.sectors_ideal) == (16, 32, 16, 16)
        assert found.inst_executed == N * D / 4 / 32
    requests = [sum(row.inst_executed for row in launched(counted, kernel).rows)
                for counted, kernel in ((naive, "gradient_of_z_naive"), (fused, "gradient_of_z_wide"))]
    assert requests == [6 * N * D / 32, 6 * N * D / 4 / 32]


def test_a_short_run_of_code_stats_waits_for_no_other():
    """Its warp has four rows on their way at a time, behind the end the last one again; no barrier, nothing shared."""
    N = K = 2048
    counted = counting.count("code_stats", N=N, K=K, D=32)
    found = launched(counted, "stats_segments")
    assert found.grid == (K // 8, 1, 1)
    assert not [row for row in found.rows if row.space == "shared" or row.what == "__syncthreads"]
    torch.manual_seed(0)  # as counting does
    _, index = torch.randn(N, 32), torch.randint(K, (N,))
    rows = row(counted, "stats_segments", "return to_double(z[n * D + d])", "load", "global")
    assert (rows.lanes, rows.sectors, rows.sectors_ideal) == (32, 4, 4)
    assert rows.inst_executed == (4 * torch.bincount(index).div(4).ceil()).sum()


def conflicts():
    """(wavefronts, the least) of the matrices that the tensor-core rung of nearest_code loads, on its two lines"""
    counted = counting.count("nearest_code", rung="tensor_core", N=128, K=128, D=32)
    rows = [row(counted, "screen_tensor_core", f"load_matrix_x4({name}", "ldmatrix", "shared")
            for name in ("a[i]", "b[j]")]
    assert launched(counted, "screen_tensor_core").flop == 2 * 128 * 128 * 32
    return [(row.wavefronts, row.wavefronts_ideal) for row in rows]


def test_the_matrices_of_nearest_code_meet_no_conflict():
    """Rows of 80 bytes: the 8 rows of an ldmatrix lie in different banks."""
    assert conflicts() == [(4, 4), (4, 4)]


@pytest.mark.thorough
def test_without_its_padding_nearest_code_has_conflicts(tmp_path, monkeypatch):
    shutil.copytree(build.CSRC, tmp_path / "csrc")
    source = tmp_path / "csrc" / "nearest_code.cu"
    text = source.read_text()
    assert text.count("STRIDE = HD + 8") == 1
    source.write_text(text.replace("STRIDE = HD + 8", "STRIDE = HD"))
    monkeypatch.setattr(build, "CSRC", tmp_path / "csrc")
    monkeypatch.setattr(_library, "FOLDER", tmp_path)
    _library.load.cache_clear()
    assert conflicts() == [(16, 4), (16, 4)]
    _library.load.cache_clear()
