"""What the counters say of the rooms' own kernels: the lines on which the speed of a rung rests."""

import math
import shutil

import pytest
import torch
from emulated import count
from genmini.csrc import build
from genmini.kernels import _library

from genmini import counting, kernels

pytestmark = pytest.mark.skipif(bool(count.missing()), reason=count.missing())


def launched(counted, kernel):
    """The launch of this kernel, whatever its template arguments."""
    (launch,) = (launch for launch in counted.launches if launch.kernel.partition("<")[0] == kernel)
    assert launch.elsewhere == 0 and launch.hazards == []
    return launch


def row(counted, kernel, words, what, space):
    """The row of this kind on the line of the room's source that has these words."""
    (line,) = (number for number, text in enumerate(counted.source.read_text().splitlines(), 1) if words in text)
    (found,) = (row for row in launched(counted, kernel).rows
                if (row.file, row.line, row.what, row.space) == (counted.source.name, line, what, space))
    return found


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """planted(file, right, wrong): the rooms are counted with this mistake in a copy of csrc/."""

    def plant(file, right, wrong):
        shutil.copytree(build.CSRC, tmp_path / "csrc")
        source = tmp_path / "csrc" / file
        text = source.read_text()
        assert text.count(right) == 1
        source.write_text(text.replace(right, wrong))
        monkeypatch.setattr(build, "CSRC", tmp_path / "csrc")
        monkeypatch.setattr(_library, "FOLDER", tmp_path)
        _library.load.cache_clear()

    yield plant
    _library.load.cache_clear()


SMALL = {"affine_coupling": dict(N=3, D=4100), "spline_coupling": dict(N=40, D=5), "quantize": dict(N=100, K=9),
         "nearest_code": dict(N=140, K=130, D=40), "code_stats": dict(N=700, K=5), "nade": dict(N=3, D=10),
         "nade_sample": dict(N=3, D=10), "made_sample": dict(N=2, D=9, H=40),
         "pixelcnn_sample": dict(N=1, side=3, width=8)}


@pytest.mark.parametrize("room", [name for name, room in kernels.ROOMS.items() if room.language == "cuda"])
def test_no_room_has_a_hazard(room):
    """Not a race, nor a read of what nobody wrote: in all rungs, at sizes that end within a tile."""
    for rung in kernels.rungs(room):
        for launch in counting.count(room, rung, **SMALL[room]).launches:
            assert launch.hazards == [], [str(hazard) for hazard in launch.hazards]


def test_a_tensor_that_nobody_wrote_is_known():
    """nade reads x, which it may write: as torch.empty left it, that is a hazard; with other numbers in it, none."""
    N, D, H = 2, 4, 3
    W, V, b, c = torch.randn(H, D), torch.randn(D, H), torch.randn(D), torch.randn(H)
    found, before = [], torch.are_deterministic_algorithms_enabled()
    for written in (False, True):
        with kernels.counting("nade") as launches:
            x = torch.zeros(N, D, dtype=torch.uint8) if written else torch.empty(N, D, dtype=torch.uint8)
            rest = W, V, b, c, W.new_empty(N, D), W.new_empty(N, H), N, D, H
            _library.call("nade", "emulated", "nade_warp_rows", W.dtype, None, x, D, *rest)
        found.append([hazard for launch in launches for hazard in launch.hazards])
    unwritten, none = found
    assert {(hazard.mistake, hazard.space, hazard.one[2]) for hazard in unwritten} == {("unwritten", "global", "load")}
    assert none == [] and torch.are_deterministic_algorithms_enabled() == before


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


def test_a_spline_reads_its_parameters_once():
    """Under naive neighbouring lanes read numbers of different elements, 23 apart: 32 sectors, where 4 could hold them.
    Under staged they copy neighbouring numbers, and an element begins an odd number behind the one before it."""
    N, D, K = 8, 32, 8
    naive = counting.count("spline_coupling", "naive", N=N, D=D, K=K)
    read = [row for row in launched(naive, "forward_naive").rows if row.sectors > 8]
    assert read and all((row.sectors, row.sectors_ideal) == (32, 4) for row in read)
    staged = counting.count("spline_coupling", "staged", N=N, D=D, K=K)
    for kernel in ("forward_staged", "backward_staged"):
        found = row(staged, kernel, "= number(p.w[first * J + i", "load", "global")
        assert (found.sectors, found.sectors_ideal) == (4, 4) and found.inst_executed == N * D * (3 * K - 1) / 32
        shared = [row for row in launched(staged, kernel).rows if row.space == "shared"]
        assert shared and all(row.wavefronts == row.wavefronts_ideal == 1 for row in shared)


def test_a_warp_of_nade_waits_for_nobody():
    """Under naive a block meets at log2(128) + 2 barriers a pixel, a in memory. Under warp_rows a is in registers: V is
    read for each pixel, W for those of 1, and logits are all that is written."""
    N, D, H = 8, 64, 128
    naive, warps = (counting.count("nade", rung, N=N, D=D, H=H) for rung in ("naive", "warp_rows"))
    torch.manual_seed(0)  # as counting does
    ones = torch.randint(2, (N, D)).sum()
    assert launched(naive, "pass_naive").barriers == (7 + 2) * 4 * N * D
    found = launched(warps, "pass_warp_rows")
    assert found.barriers == 0 and [row.inst_executed for row in found.rows if row.what == "store"] == [N * D]
    for words, times in (("sum += V[lane", N * D), ("sigma(a[i] += W[lane", ones)):
        reads = row(warps, "pass_warp_rows", words, "load", "global")
        assert (reads.lanes, reads.sectors, reads.sectors_ideal) == (32, 4, 4)
        assert reads.inst_executed == H / 32 * times
    l2 = {one.rung: sum(launch.counters[f"lts__t_sectors_op_{op}.sum"] for launch in one.launches[1:]
                        if launch.kernel.startswith("backward") for op in ("read", "write")) for one in (naive, warps)}
    assert 5 < l2["naive"] / l2["warp_rows"] < 7


def test_a_warp_of_nade_draws_a_row():
    """Of what it drew, W is read for the pixels of 1."""
    N, D, H = 8, 64, 128
    naive, warps = (counting.count("nade_sample", rung, N=N, D=D, H=H) for rung in ("naive", "warp_rows"))
    found, before = launched(warps, "pass_warp_rows"), launched(naive, "pass_naive")
    assert found.barriers == 0 and before.barriers == (7 + 2) * 4 * N * D
    reads = row(warps, "pass_warp_rows", "sigma(a[i] += W[lane", "load", "global")
    both = row(naive, "pass_naive", "a[h] += ", "load", "global")  # a and W
    assert (reads.sectors, reads.sectors_ideal) == (4, 4) and both.inst_executed == 2 * reads.inst_executed
    l2 = [sum(one.counters[f"lts__t_sectors_op_{op}.sum"] for op in ("read", "write")) for one in (before, found)]
    assert 3 < l2[0] / l2[1] < 4


@pytest.mark.thorough
@pytest.mark.parametrize("file, right, wrong, law", [
    ("spline_coupling.cu", "return (3 * K - 1) | 1;", "return 3 * K;", test_a_spline_reads_its_parameters_once),
    ("spline_coupling.cu", "% J] = number(p.w[first * J + i]);", "% J] = number(p.w[first * J + i / 2]);",
     test_a_spline_reads_its_parameters_once),
    ("nade.cu", "sum += V[lane + 32 * i] * h[i]", "sum += V[lane * U + i] * h[i]",
     test_a_warp_of_nade_waits_for_nobody),
    ("nade.cu", "sigma(a[i] += W[lane + 32 * i])", "sigma(a[i] += W[lane * U + i])",
     test_a_warp_of_nade_draws_a_row),
], ids=["padding", "stride", "nade", "nade_sample"])
def test_a_mistaken_stride_turns_the_counts_red(file, right, wrong, law, planted):
    planted(file, right, wrong)
    with pytest.raises(AssertionError):
        law()


def test_a_gradient_of_quantize_moves_16_bytes_a_lane():
    """dz in the rung fused: whole sectors, and a quarter of the requests of the rung naive."""
    N, D = 64, 64
    fused, naive = (counting.count("quantize", rung, N=N, K=8, D=D) for rung in ("fused", "naive"))
    for words, what in (("v = *(const Wide<Z, V>*)(dz_q + d)", "load"), ("*(Wide<Z, V>*)(dz + d) = v", "store")):
        found = row(fused, "gradient_of_z_wide", words, what, "global")
        assert (found.size, found.lanes, found.sectors, found.sectors_ideal) == (16, 32, 16, 16)
        assert found.inst_executed == N * D / 4 / 32
    wide = [row for row in launched(naive, "forward_naive").rows if row.sectors == 32]  # z and z_q: a row a lane
    assert {row.what for row in wide} == {"load", "store"} and all(row.sectors_ideal == 4 for row in wide)
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


def test_sorted_rows_of_code_stats_are_read_by_who_adds_them():
    """Under naive each warp reads the index of every row; under segments it makes 15 requests."""
    per_warp = []
    for rung, kernel, warps in (("naive", "stats_naive", 16 * 8), ("segments", "stats_segments", 64 * 2 * 8)):
        found = launched(counting.count("code_stats", rung, N=2048, K=64, D=64), kernel)
        assert 8 * math.prod(found.grid) == warps
        per_warp.append(sum(row.inst_executed for row in found.rows if row.space) / warps)
    assert [round(requests) for requests in per_warp] == [2082, 15]


def test_a_tile_of_nearest_code_is_read_for_all_of_its_rows():
    """Under naive lanes read z in 32 sectors, and all of them one number of e, in one."""
    requests = []
    for rung in ("naive", "tiled"):
        counted = counting.count("nearest_code", rung, N=256, K=256, D=64)
        requests.append(sum(row.inst_executed for launch in counted.launches for row in launch.rows
                            if row.space == "global"))
        if rung == "naive":
            (found,) = (row for row in launched(counted, "nearest_naive").rows if row.what == "load")
            assert (found.sectors, found.sectors_ideal) == ((32 + 1) / 2, (4 + 1) / 2)
    assert 19 < requests[0] / requests[1] < 21


def test_a_block_of_made_sample_shares_out_its_sums():
    """Under naive the 256 threads of a block halve a sum eight times: 9 barriers a unit, and one a pixel. Under tiles,
    4 sums of 32 lanes each: 6 shuffles a warp leave each sum in 8 lanes, where each by itself would take 5."""
    D, H, blocks, warps = 8, 32, 2, 8
    naive = launched(counting.count("made_sample", "naive", N=blocks, D=D, H=H), "walk_naive")
    assert naive.barriers == blocks * warps * (9 * (H + D) + D)
    counted = launched(counting.count("made_sample", N=blocks, D=D, H=H), "walk_tiles")
    times = lambda what: sum(row.inst_executed for row in counted.rows if row.what == what)
    groups = times("__syncthreads") - blocks * warps * D  # two barriers each, of each warp, beside one for each pixel
    assert groups and times("__shfl_xor_sync") == 6 * groups / 2


def test_the_taps_of_pixelcnn_sample_are_made_ready_by_one_thread_each():
    """Under naive each thread reads the five fields of each tap; under groups each lane those of another one. Weights
    are read as often, under naive by one warp of eight."""
    both = [counting.count("pixelcnn_sample", rung, N=1) for rung in ("naive", "groups")]
    naive, groups = (row(one, "walk", "Tap tap = p.taps[t];", "load", "global") for one in both)
    alone, shared = (row(one, "walk", "sum += tap.in[k] * tap.W", "load", "global") for one in both)
    assert alone.inst_executed == shared.inst_executed and {example.warp for example in alone.examples} == {0}
    assert len({example.warp for example in shared.examples}) > 2
    assert naive.inst_executed == groups.inst_executed * groups.lanes
    assert [4 * found.inst_executed for found in (naive, groups)] == [28800, 6480]  # of 4 images


def conflicts():
    """{access: (wavefronts, the least)} of what the tensor-core rung of nearest_code does to shared memory"""
    counted = counting.count("nearest_code", rung="tensor_core", N=128, K=128, D=160)
    assert launched(counted, "screen_tensor_core").flop == 2 * 128 * 128 * 160
    lines = {"rows": ("load_matrix_x4(a[i]", "ldmatrix"), "codes": ("load_matrix_x4(b[j]", "ldmatrix"),
             "copies": ("copy_async<16>(y_to", "cp.async")}
    rows = {name: row(counted, "screen_tensor_core", words, what, "shared") for name, (words, what) in lines.items()}
    return {name: (row.wavefronts, row.wavefronts_ideal) for name, row in rows.items()}


def test_the_matrices_of_nearest_code_meet_no_conflict():
    """The 8 rows of an ldmatrix lie in different banks, and so does what 8 lanes copy: their pieces are exchanged."""
    assert conflicts() == {"rows": (4, 4), "codes": (4, 4), "copies": (4, 4)}


@pytest.mark.thorough
def test_without_the_exchange_nearest_code_has_conflicts(planted):
    planted("nearest_code.cu", "(d ^ r / 2 % 4 * 8)", "d")
    assert conflicts() == {"rows": (16, 4), "codes": (16, 4), "copies": (4, 4)}


def test_the_sieve_of_nearest_code_asks_for_a_row_once():
    """Four lanes have the same rows: each lowers the bound of one, so that no two collide, and reads the error bound of
    it alone. Codes are read once for all rows; rows stay in shared memory while codes pass, up to D = 128."""
    N, K, D = 128, 256, 64
    found = launched(counting.count("nearest_code", rung="tensor_core", N=N, K=K, D=D), "screen_tensor_core")
    text = (build.CSRC / "nearest_code_sieve.h").read_text().splitlines()
    of = lambda words, what: [row for row in found.rows if row.what == what and row.space == "shared"
                              and row.file == "nearest_code_sieve.h" and words in text[row.line - 1]]
    warps = 8 * K // 128  # and tiles
    (bounds,), (codes,) = of("atomicMin", "atomic"), of("half = *(const Run*)", "load")
    assert (bounds.inst_executed, bounds.wavefronts, bounds.collisions) == (warps, 1, 0)
    assert (codes.inst_executed, codes.size, codes.wavefronts, codes.wavefronts_ideal) == (16 * warps, 8, 2, 2)
    (margins,) = (row for row in of("return rows[r + r / 8 * 2]", "load") if row.size == 16 and row.lanes == 32)
    assert (margins.inst_executed, margins.wavefronts, margins.wavefronts_ideal) == (warps, 4, 4)
    copied = sum(row.bytes for row in found.rows if row.what == "cp.async" and row.space == "shared")
    assert copied == 2 * D * (N * found.grid[1] + K)
