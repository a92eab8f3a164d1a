"""`genmini count`: its table, the source beside its counters, and what it says of rooms that have none."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from check import command as run
from genmini.csrc import compiled
from genmini.csrc import count as counters
from genmini.kernels import _backend

from genmini import counting, kernels, ladder
from genmini.cli import bench

pytestmark = pytest.mark.usefixtures("folder_of_its_own")

TRITON = _backend._cannot_emulate(kernels.ROOMS["q_sample"], torch.device("cpu"))
BLOCKS = re.findall(r"^```\n(.*?)^```", (Path(__file__).resolve().parents[2] / "docs" / "counting.md").read_text(),
                    re.M | re.S)
COUNTED = 103  # columns of a table's row: behind them stands what nvcc made of it
MISTAKES = {
    "no room": (["softmax"], "unknown room 'softmax'; the rooms are affine_coupling, spline_coupling"),
    "no rung of a Triton room": (["softmax_nll", "--rung", "tiled"], "softmax_nll has no rung 'tiled'; its rungs are "),
    "no rung": (["nade", "--rung", "tiled"], "nade has no rung 'tiled'; its rungs are naive, warp_rows"),
    "no size": (["nade", "--shape", "K=3"], "nade has no size 'K'; its sizes are N=8, D=64, H=100"),
    "no card": (["nade", "--card", "b200"], "unknown card 'b200'; known are a100, h100, h200, rtx4090, and all"),
    "no second cache": (["q_sample", "--l2", "0"], "--l2 takes a size in MB, above 0; this is 0"),
    "a second cache in CUDA": (["nade", "--l2", "1"], "nade is in CUDA: in its emulator the second cache holds"),
    "no number": (["nade", "--shape", "N"], "--shape takes NAME=SIZE with a size from 1 to 10^9, as N=64; this is 'N'"),
    "nothing": (["nade", "--shape", "N=0"],
                "--shape takes NAME=SIZE with a size from 1 to 10^9, as N=64; this is 'N=0'"),
}


def documented(words):
    """The lines of the block of docs/counting.md that has these words."""
    (block,) = (block for block in BLOCKS if words in block)
    return block.splitlines()


@pytest.mark.parametrize("words, wanted", MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_is_one_line(capsys, words, wanted):
    status, out, err = run(capsys, "count", *words)
    assert status == 2 and err.startswith(f"genmini: {wanted}") and err.count("\n") == 1 and not out


def test_a_room_without_inputs_is_named(monkeypatch):
    monkeypatch.delitem(counting.INPUTS, "nade")
    with pytest.raises(ValueError, match="nade has no inputs to be counted with: .* genmini/counting.py"):
        counting.count("nade")


def test_without_a_compiler_nothing_is_counted(capsys, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    status, _, err = run(capsys, "count", "code_stats")
    assert status == 1 and err == "genmini: counting needs g++: no-such-compiler was not found on PATH\n"


@pytest.mark.skipif(bool(counters.missing()), reason=counters.missing())
def test_counters_by_line(capsys):
    """N rows of 32 numbers: the sums of each code read every row once, 4 sectors of 4 each, and write K rows."""
    status, out, err = run(capsys, "count", "code_stats", "--shape", "N=64", "K=4", "D=32", "--json", "c.json")
    assert status == 0, err
    assert out.startswith("code_stats, rung segments, N=64 K=4 D=32: counted on a CPU, not measured")
    table, source = out.split("all that was counted on a line")
    assert re.search(r"code_stats.cu:\d+ +global load +4 +64 +32.0 +4.00 / 4.00", table), table
    assert re.search(r"^ +\d+ +32.0 .* \| .*", source, re.M) and source.strip().startswith("code_stats.cu"), source
    (launch,) = json.load(open("c.json"))["launches"]
    assert launch["elsewhere"] == 0 and launch["hazards"] == []
    assert launch["counters"]["dram__bytes_write.sum"] == 4 * 32 * 4 + 32  # sums, counts
    rows = {(row["what"], row["space"]): row for row in launch["rows"] if row["file"] == "code_stats.cu"}
    assert rows["load", "global"]["memory_l2_theoretical_sectors_global"] >= 4 * 64


@pytest.mark.skipif(bool(counters.missing()), reason=counters.missing())
def test_the_documented_tables(capsys, monkeypatch):
    """What docs/counting.md prints of CUDA is what the command prints, but for what compilers of other versions say."""
    rungs = {rung: counting.count("affine_coupling", rung) for rung in kernels.rungs("affine_coupling")}
    _, out, _ = run(capsys, "count", "nearest_code", "--table")
    printed = {line[:COUNTED].rstrip() for line in out.splitlines()}
    rows = [line for line in documented("shared ldmatrix") if ".cu:" in line or ".h:" in line]
    assert len(rows) == 4 and {line[:COUNTED].rstrip() for line in rows} <= printed
    monkeypatch.setattr(counting, "count", lambda room, rung, *_: rungs[rung])
    _, out, _ = run(capsys, "count", "affine_coupling", "--rung", "naive", "--table")
    assert "\n".join(documented("logdet_naive<float, false>   1x1x1")) in out
    climbed, _ = ladder.joined([*rungs.values()], ["", ""], [])
    table = [*bench._table(ladder.Ladder("", {}, "", climbed, {}, 0, 0, ""), [], 0)]
    until = documented("counted                                               compiled")[1].index(" registers")
    assert [line[:until] for line in documented("compiled  predicted, at least, us\n  rung")[1:]] == [
        line[:until] for line in table[1:4]]


def test_the_documented_hazards():
    shown = documented("race      shared store in k.cu:10")
    hazard = lambda mistake, space, one, other, threads, blocks, times: str(counters.Hazard(
        mistake, space, (("k.cu", *one), ("k.cu", *other)), threads, blocks, times))
    printed = [
        hazard("race", "shared", (10, "store"), (12, "load"), (32, 31), (0, 0), 9),
        hazard("race", "global", (20, "store"), (27, "load"), (0, 0), (0, 3), 3),
        hazard("early", "shared", (31, "cp.async"), (34, "load"), (0, 0), (0, 0), 64),
        hazard("stale", "global", (40, "load"), (41, "store"), (0, 0), (0, 0), 64),
        hazard("unwritten", "shared", (51, "load"), (51, "load"), (4, 4), (0, 0), 1),
        hazard("outside", "global", (61, "load"), (61, "load"), (60, 60), (0, 0), 4)]
    assert all(f"  {line}".startswith(text.removesuffix("...")) for line, text in zip(printed, shown, strict=True))


@pytest.mark.skipif(bool(TRITON), reason=TRITON)
def test_counters_of_triton_by_line(capsys):
    """2 rows of 96 numbers in tiles of 8 x 128, so that a tile holds 192 of 1024; a row is 12 sectors."""
    status, out, err = run(capsys, "count", "q_sample", "--shape", "N=2", "D=96", "--json", "c.json", "--card", "h100")
    assert status == 0, err
    assert out.startswith("q_sample, rung fused, N=2 D=96 T=1000: counted on a CPU, not measured")
    assert "\n".join(documented("fused   1x1x1 programs of 4 warps")) in out
    assert re.search(r"^ +1 +192.0 +24.00 / 24.00 +\d+ \|     x0 = tl.load\(x0_ptr", out, re.M), out
    if not compiled.missing():
        of_triton = r"^  compiled  sm_90: \d+ registers, 0 bytes of shared memory, nothing spilled$"
        assert re.search(of_triton, out, re.M) and re.search(r"^  H100 +\d+ +\d+ of 64 ", out, re.M), out
    assert re.search(r"^  H100 .* DRAM$", out, re.M) and "up to Triton's compiler" in out
    saved = json.load(open("c.json"))
    (launch,) = saved["launches"]
    assert all(each["kernel"].startswith("fused seed_ptr=None N=2 D=96 ") for each in saved["compiled"])
    assert launch["counters"]["dram__bytes_write.sum"] == 2 * 96 * 4 and launch["arguments"]["BN"] == "8"
    assert {"tiles": 1, "elements": 192, "masked": 832, "sectors": 24}.items() <= launch["rows"][0].items()
    assert not [name for row in launch["rows"] for name in row if name.startswith(("inst", "thread", "memory"))]


@pytest.mark.skipif(bool(_backend.triton_missing()), reason=_backend.triton_missing())
def test_where_triton_compiles_nothing_is_counted(capsys, monkeypatch):
    monkeypatch.setattr(_backend, "interpreting", lambda: False)
    status, _, err = run(capsys, "count", "q_sample")
    assert status == 1 and "start Python with TRITON_INTERPRET=1" in err and err.count("\n") == 1


@pytest.mark.skipif(bool(counters.missing()), reason=counters.missing())
def test_what_cards_could_do_is_predicted(capsys, monkeypatch):
    """In four words, never "measured"; without nvcc's library the ceilings stand, and the reason why no more does."""
    words = "count", "code_stats", "--shape", "N=64", "K=4", "D=32", "--table", "--json", "c.json", "--card"
    (library,) = (library for library in kernels.libraries() if (library.name, library.kind) == ("code_stats", "cuda"))
    if library.built and not compiled.missing():
        status, out, err = run(capsys, *words, "all")
        assert status == 0, err
        assert out.count("measured") == 1 and "counted on a CPU, not measured" in out
        of_nvcc = r"^  compiled  sm_90: \d+ registers, \d+ bytes of static shared memory, nothing spilled, \d+ inst"
        assert re.search(of_nvcc, out, re.M), out
        assert " in sm_90\n" in out and re.search(r"^  code_stats.cu:\d+ +global store +4 .*  2 STG.E$", out, re.M), out
        rows = re.findall(r"^  (A100|H100|H200|RTX 4090) +(\d+) +\d+ of \d+  [a-z ]+ (\d+\.\d+) .* (\w+)$", out, re.M)
        assert [row[0] for row in rows] == ["A100", "H100", "H200", "RTX 4090"], out
        saved = json.load(open("c.json"))
        assert {"registers", "shared", "kernel"} < set(saved["compiled"][0])
        assert [row["blocks"] for row in saved["predicted"]] == [int(row[1]) for row in rows]
        read = saved["launches"][0]["counters"]["dram__bytes_read.sum"] + 4 * 32 * 4 + 32
        assert saved["predicted"][1]["seconds"]["DRAM"] == pytest.approx(read / 3.35e12)
    absent = replace(library, built=False, log="nvcc was not found on PATH or in CUDA_HOME")
    monkeypatch.setattr(kernels, "libraries", lambda: [absent])
    status, out, err = run(capsys, *words, "h100")
    assert status == 0, err
    assert "  compiled  nothing: nvcc was not found on PATH or in CUDA_HOME" in out and "in sm_" not in out
    assert re.search(r"^  H100 +- +- +- +- +\d+\.\d+ +\d+\.\d+ .*, (DRAM|shared)$", out, re.M), out


def test_a_race_is_told(capsys, monkeypatch):
    """With both lines; csrc/count.py finds it (tests/kernels/test_races.py)."""
    race = counters.Hazard("race", "shared", (("k.cu", 3, "store"), ("k.cu", 9, "load")), (5, 40), (2, 2), 64)
    launch = counters.Launch("k", (4, 1, 1), (64, 1, 1), 0, [], [], dict.fromkeys(counters.PER_LAUNCH, 0), 0, [race])
    counted = counting.Counted("nade", "naive", {}, [launch + launch], counters.build.CSRC / "nade.cu")
    monkeypatch.setattr(counting, "count", lambda *words, **sizes: counted)
    status, out, _ = run(capsys, "count", "nade", "--table")
    assert status == 1 and ("\n  race      shared store in k.cu:3 and load in k.cu:9: thread 5 and thread 40 of "
                            "block 2, 128 times, no barrier between\n") in out


@pytest.mark.skipif(bool(counters.missing()), reason=counters.missing())
def test_only_inside_the_counted_build_runs():
    """Afterwards `emulated` runs the plain build again, and the result is the same."""
    from genmini import ops

    z, index = torch.randn(64, 32), torch.randint(4, (64,))
    with kernels.use("emulated"):
        before = ops.code_stats(z, index, 4)
        with kernels.counting("code_stats") as launches:
            inside = ops.code_stats(z, index, 4)
        after = ops.code_stats(z, index, 4)
    assert len(launches) == 1
    assert all(torch.equal(a, b) and torch.equal(b, c) for a, b, c in zip(before, inside, after, strict=True))
    with kernels.counting("code_stats") as launches:
        pass
    assert launches == []
