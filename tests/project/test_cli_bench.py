"""`genmini bench`: the ladder of a room; every figure says whether it is counted, compiled, predicted or measured."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from check import command as run
from genmini.csrc import compiled
from genmini.csrc import count as counters
from genmini.kernels import _backend
from planted import planted

from genmini import counting, kernels, ladder, limits, plots, predict

pytestmark = pytest.mark.usefixtures("folder_of_its_own")
counts = pytest.mark.skipif(bool(counters.missing()), reason=counters.missing())
SMALL = ["--shape", "N=64", "K=4", "D=32"]
COUNTERS = r"(?i)\b(requests?|sectors?|wavefronts|elements|DRAM|L2|barriers?|shuffles|tl\.dot)\b"  # of docs/counting.md


def times_of_one_call(candidates, seconds, device):
    """In the place of limits.times: each way runs once, and takes a millisecond."""
    for candidate in candidates.values():
        candidate()
    return {name: (1.0, 0.9, 1.1) for name in candidates}


@pytest.fixture(autouse=True)
def once(monkeypatch):
    monkeypatch.setattr(limits, "times", times_of_one_call)
    for name in ("copy_bandwidth", "matmul_rate"):
        monkeypatch.setattr(limits, name, lambda *_, **__: 1e10)


@pytest.mark.parametrize("room", kernels.ROOMS)
def test_every_rung_teaches_in_a_sentence(room):
    lessons = [ladder.lesson(room, rung) for rung in kernels.rungs(room)]
    assert all(15 < len(lesson) < 260 and "  " not in lesson and "//" not in lesson for lesson in lessons), lessons
    assert len({*lessons}) == len(lessons)
    # tests/kernels/test_count_rooms.py and test_count_tiles_rooms.py hold what they say of these
    assert all(re.search(COUNTERS, lesson) for lesson in lessons), lessons


def test_a_lesson_is_what_the_source_says():
    assert ladder.lesson("nearest_code", "naive") == (
        "one thread a row, the definition: lanes read z a row apart, in 32 sectors, where 4 could hold it")
    assert ladder.lesson("masked_linear", "naive") == "every tile is loaded and masked: tl.dot over all of W"
    assert ladder.lesson("masked_conv2d", "taps") == (
        "only the live taps, which are the first T in reading order: packed side by side with the centre masked, and "
        "channels last, so that a step of the sum reads BC neighbouring numbers of a pixel and of a filter row, in the "
        "least sectors")
    assert ladder.lesson("nade", "warp_rows").endswith("h recomputed from marks: a sixth of the L2 traffic")
    assert ladder.lesson("nade_sample", "warp_rows").startswith("a warp draws a row")


def test_operations_of_a_definition_are_exact():
    N, K, J = 8, 16, 12
    products = 2 * N * K * J
    assert ladder.definition("masked_linear", dict(N=N, K=K, J=J))[0] == 3 * products  # y, dx, dW
    assert ladder.definition("nearest_code", dict(N=8, K=5, D=4)) == (2 * 8 * 5 * 4, 4 * (8 + 5) * 4 + 8 * 8)


@counts
def test_the_ladder_of_a_room(capsys):
    status, out, err = run(capsys, "bench", "code_stats", *SMALL, "--plot", "r.png")
    assert status == 0, err
    assert out.startswith("code_stats, N=64 K=4 D=32, with its gradient if it has one\n")
    above, below = out.split("\nmeasured on cpu")
    assert "measured" not in above and all(word in above for word in ("counted", "compiled", "predicted, at least"))
    assert re.search(r"^  segments +the rows, sorted by their code, are one run for each code", above, re.M)
    counted = {rung: counting.count("code_stats", rung, N=64, K=4, D=32) for rung in ("naive", "segments")}
    for rung, one in counted.items():
        (line,) = re.findall(rf"^  {rung} +(\d+\.\d+) +(\d+\.\d+) .*$", above, re.M)
        of = [launch.counters for launch in one.launches]
        assert float(line[0]) == round(sum(c["dram__bytes_read.sum"] + c["dram__bytes_write.sum"] for c in of) / 1e6, 3)
    (library,) = (library for library in kernels.libraries() if (library.name, library.kind) == ("code_stats", "cuda"))
    if library.built and not compiled.missing():
        assert re.search(r"^  segments .* \d+ +\d+%  \d[\d.]*( \*)? \w+$", above, re.M), above
    ways = ["reference", "cpu"] if kernels.chosen("code_stats").backend == "cpu" else ["reference"]
    assert re.findall(r"^  (\w+) +1000 us   900 to 1100$", below, re.M) == ways
    assert open("r.png", "rb").read(4) == b"\x89PNG"


def check(ladder, monkeypatch):
    """The sums over launches that are made up: one kernel is launched twice, and takes longest."""
    row = lambda sectors, ideal, waves, least, collisions=0: SimpleNamespace(
        memory_l2_theoretical_sectors_global=sectors, memory_l2_theoretical_sectors_global_ideal=ideal,
        memory_l1_wavefronts_shared=waves, memory_l1_wavefronts_shared_ideal=least, collisions=collisions)
    counters_of = lambda n: {f"{name}.sum": n for name in (
        "dram__bytes_read", "dram__bytes_write", "lts__t_sectors_op_read", "lts__t_sectors_op_write",
        "lts__t_sectors_op_atom")}
    launches = [SimpleNamespace(binary="a", counters=counters_of(100), rows=[row(30, 10, 0, 0)]),
                SimpleNamespace(binary="b", counters=counters_of(1000), rows=[row(10, 10, 24, 8), row(0, 0, 8, 8, 5)])]
    room = lambda active: SimpleNamespace(fraction=active)
    rows = [SimpleNamespace(card="H100", kernel="a", at_least=1e-6, binds="DRAM", occupancy=room(1.0)),
            SimpleNamespace(card="H100", kernel="b", at_least=3e-6, binds="shared", occupancy=room(0.25))]
    usage = {(90, "a"): SimpleNamespace(registers=40), (90, "b"): SimpleNamespace(registers=64),
             (90, "another"): SimpleNamespace(registers=255)}
    small = [SimpleNamespace(binary="c", counters=counters_of(1), rows=[])]
    of_rung = dict(naive=small, warp_rows=launches)
    rows.insert(0, SimpleNamespace(card="H100", kernel="c", at_least=9e-6, binds="L2", occupancy=None))
    monkeypatch.setattr(counting, "count", lambda room, rung: counting.Counted(room, rung, {}, of_rung[rung], None))
    monkeypatch.setattr(predict, "of", lambda *_: SimpleNamespace(rows=rows, usage=usage, why=""))
    (first, rung), why = ladder.counted("nade", predict.named("h100"), {})
    assert (first.dram, first.sectors, first.registers, first.occupancy) == (2, None, None, None)
    assert first.predicted == {"H100": (9e-6, "L2")}
    assert (rung.dram, rung.l2, rung.sectors, rung.wavefronts, rung.collisions) == (2200, 32 * 3300, 2.0, 2.0, 5)
    assert (rung.registers, rung.occupancy, why) == (64, 0.25, "")
    assert rung.predicted == {"H100": (pytest.approx(4e-6), "shared")}


@pytest.mark.parametrize("right, wrong", [
    ("        32 * sum(total(f", "        sum(total(f"),
    ("(sum(row.at_least for row in of_card[name])", "(max(row.at_least for row in of_card[name])"),
    ("if kernel in launched]", "]"),
    ("max(rows, key=lambda row: row.at_least)", "min(rows, key=lambda row: row.at_least)"),
    ("return sum(count for count, _ in pairs) / least", "return sum(count for count, _ in pairs) / len(pairs)"),
])
def test_planted_mistakes_are_found(monkeypatch, right, wrong):
    check(ladder, monkeypatch)
    with pytest.raises(AssertionError):
        check(planted(ladder, right, wrong), monkeypatch)


def test_ways_are_timed_on_their_backend(monkeypatch):
    seen = []
    monkeypatch.setattr(counting, "made", lambda room, **_: lambda: seen.append(kernels.requested()))
    assert list(ladder.measured("masked_linear", "cpu", {})) == ["reference", "cpu"] and seen == ["reference", "cpu"]
    monkeypatch.setitem(kernels.ROOMS, "quantize", replace(kernels.ROOMS["quantize"], cpu=None))
    assert list(ladder.measured("quantize", "cpu", {})) == ["reference"], "a room without a backend of its own for CPUs"


@pytest.mark.parametrize("interprets", [True, False])
def test_the_ladder_of_a_triton_room(capsys, monkeypatch, interprets):
    """2 x 5 x 6 logits, 240 bytes: read and their gradient written; 12 indices of 8 bytes are 3 sectors, read twice;
    the nll, m and log s, 48 bytes each, are 2 sectors."""
    if not interprets:
        monkeypatch.setattr(_backend, "_cannot_emulate", lambda *_: "Triton compiles")
    elif why := _backend._cannot_emulate(kernels.ROOMS["softmax_nll"], torch.device("cpu")):
        pytest.skip(why)
    status, out, err = run(capsys, "bench", "softmax_nll", "--shape", "N=2", "L=5", "P=6")
    assert status == 0, err
    assert re.search(r"^  online +one walk: whenever a tile raises the maximum", out, re.M)
    assert re.findall(r"^  (\w+) +1000 us", out.split("measured on cpu")[1], re.M) == ["reference", "cpu"]
    if not interprets:
        assert "  note           softmax_nll cannot run on the backend 'emulated': Triton compiles" in out
        return
    counted = counting.count("softmax_nll", "online", N=2, L=5, P=6)
    forward, backward = (launch.counters for launch in counted.launches)
    assert forward["dram__bytes_read.sum"] == 32 * (8 + 3) and forward["dram__bytes_write.sum"] == 3 * 64
    total = sum(c[f"dram__bytes_{op}.sum"] for c in (forward, backward) for op in ("read", "write"))
    assert re.search(rf"^  online +{total / 1e6:.3f} +\d\S+ +1\.00 +- +- .* \* DRAM$", out, re.M), out
    assert "  of Triton's kernels whole tiles are counted, not lanes" in out


def test_predicted_points_are_hollow_and_measured_ones_filled(monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "save", lambda figure, path, option: figures.append(figure))
    rung = ladder.Rung("naive", "", 100, 200, predicted={"H100": (2e-6, "DRAM")})
    found = ladder.Ladder("nade", dict(N=2), "cpu", [rung], {"cpu": (1e-3, 1e-3, 1e-3)}, 1000, 50, "")
    ladder.roofline("x.png", found, predict.named("h100"))
    left, right = figures[0].axes
    assert "predicted, not measured" in left.get_title() and right.get_title().endswith(": measured")
    (hollow,), (filled,) = left.collections, right.collections
    assert len(hollow.get_facecolor()) == 0 and len(filled.get_facecolor()) == 1
    assert hollow.get_offsets().tolist() == [[10, 5e8]] and filled.get_offsets().tolist() == [[20, 1e6]]
    texts = lambda panel: [text.get_text() for text in panel.texts]
    assert "naive" in texts(left) and "cpu" in texts(right)
    rungs = [rung, ladder.Rung("same", "", 101, 200, predicted={"H100": (2.02e-6, "DRAM")}),
             ladder.Rung("apart", "", 100, 200, predicted={"H100": (2e-5, "DRAM")})]
    ladder.roofline("x.png", replace(found, rungs=rungs, why="no nvcc"), predict.named("h100"))
    left, _ = figures[1].axes
    assert {"naive, same", "apart"} <= {*texts(left)} and "naive" not in texts(left), "one name hides no other"
    assert left.get_title() == "H100: predicted, without instructions"
    with pytest.raises(ValueError, match="nade has no roofline"):
        ladder.roofline("x.png", ladder.Ladder("nade", {}, "cpu", [], {}, 0, 0, ""), predict.named("h100"))


@pytest.mark.parametrize("words, wanted", [
    (["softmax"], "unknown room 'softmax'; the rooms are affine_coupling"),
    (["softmax_nll", "--shape", "K=3"], "softmax_nll has no size 'K'; its sizes are N=16, L=256, P=256"),
    (["nade", "--shape", "N"], "--shape takes NAME=SIZE with a size from 1 to 10^9, as N=64; this is 'N'"),
    (["nade", "--card", "b200"], "unknown card 'b200'"),
    (["nade", "--plot", "x.svg"], "--plot takes a .png file, got x.svg"),
    (["nade", "--plot", "folder.png"], "--plot takes a file, and folder.png is a folder"),
])
def test_a_mistake_is_one_line(capsys, tmp_path, words, wanted):
    (tmp_path / "folder.png").mkdir()
    status, out, err = run(capsys, "bench", *words)
    assert status == 2 and err.startswith(f"genmini: {wanted}") and err.count("\n") == 1 and not out


def test_every_room_has_inputs_that_run():
    assert set(counting.INPUTS) == set(kernels.ROOMS)
    for room, sizes in dict(gaussian_kl=dict(N=2, D=3), info_nce=dict(N=4, D=3), q_sample=dict(N=2, D=3),
                            group_norm_silu=dict(N=2, C=8, side=2), masked_conv2d=dict(N=1, C=2, O=2, side=3),
                            ddim_step=dict(N=2, D=5), spline_coupling=dict(N=2, D=3)).items():
        counting.made(room, **sizes)()
    assert torch.is_grad_enabled()
