"""`genmini count`: its table, the source beside its counters, and what it says of rooms that have none."""

import json
import re

import pytest
from check import command as run
from genmini.csrc import count as counters

from genmini import counting, kernels

pytestmark = pytest.mark.usefixtures("folder_of_its_own")

MISTAKES = {
    "a Triton room": (["softmax_nll"], "softmax_nll is a Triton room: only CUDA kernels are counted yet, those of a"),
    "no room": (["softmax"], "unknown room 'softmax'; those with CUDA kernels are affine_coupling, spline_coupling"),
    "no rung": (["nade", "--rung", "tiled"], "nade has no rung 'tiled'; its rungs are naive, warp_rows"),
    "no size": (["nade", "--shape", "K=3"], "nade has no size 'K'; its sizes are N=8, D=64, H=100"),
    "no number": (["nade", "--shape", "N"], "--shape takes NAME=SIZE with a size from 1, as N=64; this is 'N'"),
    "nothing": (["nade", "--shape", "N=0"], "--shape takes NAME=SIZE with a size from 1, as N=64; this is 'N=0'"),
}


@pytest.mark.parametrize("words, wanted", MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_is_one_line(capsys, words, wanted):
    status, out, err = run(capsys, "count", *words)
    assert status == 2 and err.startswith(f"genmini: {wanted}") and err.count("\n") == 1 and not out


def test_every_cuda_room_has_inputs():
    assert set(counting.INPUTS) == {name for name, room in kernels.ROOMS.items() if room.language == "cuda"}


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
    assert launch["elsewhere"] == 0 and launch["counters"]["dram__bytes_write.sum"] == 4 * 32 * 4 + 32  # sums, counts
    rows = {(row["what"], row["space"]): row for row in launch["rows"] if row["file"] == "code_stats.cu"}
    assert rows["load", "global"]["memory_l2_theoretical_sectors_global"] >= 4 * 64


@pytest.mark.skipif(bool(counters.missing()), reason=counters.missing())
def test_only_inside_the_counted_build_runs():
    """Afterwards `emulated` runs the plain build again, and the result is the same."""
    import torch

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
