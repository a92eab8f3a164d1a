"""Tests of what the benches share: wrong candidates are refused, the table shows no ratio where no kernel ran, and the
tables of the documentation are those of the stored rows."""

import csv
import importlib
import math
import subprocess
from dataclasses import replace
from pathlib import Path

import measure
import pytest
import run
import swap_peers
import torch
import trained

from genmini import kernels, limits

DOCS = Path(run.__file__).parents[1] / "docs"
on_cpu = pytest.mark.skipif(measure.GPU, reason="on a GPU the rungs of a room have no other name")


def test_a_wrong_function_is_named_and_not_timed():
    x = torch.linspace(-1, 1, 9)
    exact = x.double().exp(), torch.arange(9)
    errors = measure.checked({"right": lambda x: (x.exp(), torch.arange(9))}, [x], exact, 1e-6)
    assert 0 < errors["right"] <= 2 * 2**-24 * math.e  # exp of numbers up to 1, in float32
    for wrong in (lambda x: (x.exp() + 1e-3, torch.arange(9)), lambda x: (x.exp(), torch.arange(9).flip(0)),
                  lambda x: (x.exp(), torch.full((9,), torch.nan))):
        with pytest.raises(AssertionError, match="wrong is off by"):
            measure.checked({"wrong": wrong}, [x], exact, 1e-6)


def test_backward_and_both_give_the_gradients():
    x, y = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    function = lambda x, y: (x * y.exp(), torch.arange(5))
    along = torch.randn(5, dtype=torch.float64)
    wanted = along * y.exp(), along * x * y.exp()
    again = measure.backward(function, (x, y), [along])
    for got in (measure.both(function, (x, y), [along])(), again(), again()):
        for ours, theirs in zip(got, wanted, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_the_gradients_of_a_backward_pass_lie_elsewhere_than_the_outputs():
    """A room may keep an output, and its plan takes no address for two tensors (kernels/_plan.py)."""
    x, same = torch.randn(5, requires_grad=True), []

    def function(x):
        y = x * x
        y.register_hook(lambda dy: same.append(dy.data_ptr() == y.data_ptr()))
        return y

    measure.both(function, [x])(), measure.backward(function, [x])()
    assert same == [False, False]


def test_limits_are_measured_once_for_each_number_of_threads(monkeypatch):
    before, calls = torch.get_num_threads(), []
    monkeypatch.setattr(limits, "_seconds", lambda *_: calls.append(torch.get_num_threads()) or 1.0)
    once = limits._once(limits.copy_bandwidth.__wrapped__)
    try:
        for threads in (2, 2, 1, 2, 1):
            torch.set_num_threads(threads)
            assert once(quick=True) > 0
    finally:
        torch.set_num_threads(before)
    assert calls == [2, 1]


def test_a_time_is_that_of_a_call_after_another_of_the_same_function():
    calls, now = [], [0.0]

    def call(name, seconds):
        now[0] += seconds if calls[-1:] == [name] else 5 * seconds  # slower after another, whose data fill the caches
        calls.append(name)

    def found(seconds):
        calls.clear()
        candidates = {name: lambda name=name: call(name, seconds) for name in "ab"}
        return limits.times(candidates, seconds=0, clock=lambda: now[0])

    assert found(1e-3) == {name: pytest.approx((1.0, 1.0, 1.0)) for name in "ab"} and calls == [*"aabb"] * 5
    assert found(0.9e-4) == {name: pytest.approx((0.09, 0.09, 0.09)) for name in "ab"}, "a short one after half a ms"
    assert calls == [*"aaabbb"] * 5


@on_cpu
def test_a_row_says_where_pytorch_computes(monkeypatch):
    assert measure.ours("nearest_code") == measure.ours("nearest_code", "quantize") == {"genmini cpu": None}
    assert measure.ours("masked_linear") == measure.ours("masked_conv2d") == {"genmini cpu in PyTorch": None}
    monkeypatch.setitem(kernels.ROOMS, "quantize", replace(kernels.ROOMS["quantize"], cpu=None))
    assert measure.ours("quantize") == {"genmini reference": None}
    seen = measure.in_rung(lambda name: kernels.chosen(name).backend)
    with kernels.use("reference"):
        assert seen("nearest_code") == "cpu"  # what `auto` takes


@pytest.mark.parametrize("room", run.rooms())
def test_every_bench_checks_and_times_its_first_case(room, monkeypatch):
    bench = importlib.import_module(f"bench_{room}")

    def once(candidates, **_):
        for candidate in candidates.values():
            candidate()
        return dict.fromkeys(candidates, (1.0, 1.0, 1.0, 8))

    monkeypatch.setattr(bench, "times", once, raising=False)
    monkeypatch.setattr(measure, "times", once)
    monkeypatch.setattr(limits, "times", once)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    row = next(iter(bench.rows()))
    assert row["room"] == room and float(row["ms"]) > 0


def line(who, ms, case="c", what="forward", threads=2, room="r"):
    return dict(room=room, case=case, what=what, who=who, dtype="float32", threads=str(threads), ms=str(ms),
                ms_20=str(ms / 2), ms_80=str(2 * ms), held=str(int(1e6 * ms)), percent_of_bound="1.0", error="",
                commit="abc")


ABSENT = "no kernel; peer 3.0 ms, slow 9.0 ms", ""


@pytest.mark.parametrize("who, shown", [("cpu", ("peer 3.0 ms", "2.00")), ("naive", ("peer 3.0 ms", "2.00")),
                                        ("reference", ABSENT), ("reference, y saved", ABSENT),
                                        ("cpu in PyTorch", ("peer 3.0 ms", "2.00"))])
def test_a_row_stands_beside_its_best_rival_or_says_that_no_kernel_ran(who, shown):
    _, _, text = run.table([line("peer", 3.0), line("slow", 9.0), line(f"genmini {who}", 1.5)])
    cells = text.split(" | ")
    assert cells[3:6] == [who, "1.5", "0.75 to 3.0"] and tuple(cells[7:9]) == shown and cells[10] == "1.5, 3"


def test_the_worst_row_is_first_and_slower_ones_are_bold_and_explained():
    rows = [line(who, ms, case, what) for case, what, ours in (("a", "forward", 1.0), ("b", "forward", 4.0),
                                                               ("b", "both", 3.0), ("c", "both", 2.5))
            for who, ms in (("peer", 2.0), ("other", 5.0), ("genmini cpu", ours))]
    reasons = [dict(room="r", case="b", what="both", reason="First."), dict(room="r", case="", what="", reason="All."),
               dict(room="q", case="", what="", reason="Another room's."),
               dict(room="r", case="a", what="", reason="A goal.", goal="3")]
    _, _, *table, _, one, _, two, _, three = run.table([*rows, line("genmini reference", 9.0, "d")], reasons)
    assert [text.replace("*", "").split(" | ")[1:9:7] for text in table] == [
        ["b", "0.50 (1)"], ["b", "0.67 (2)"], ["c", "0.80 (1)"], ["a", "2.00 (3)"], ["d", "(1)"]]
    assert [text.replace("*", "").split(" | ")[10] for text in table] == ["4, 2", "3, 2", "2.5, 2", "1, 2", "9"]
    assert [text.count("**") for text in table] == [22, 22, 22, 0, 0]  # of 13 cells two are empty
    assert (one, two, three) == ("(1) All.", "(2) First.", "(3) A goal.")


def test_a_row_of_one_thread_stands_beside_that_of_all():
    rows = [line(who, ms, case, threads=threads) for case, threads, ours, peer in (
        ("a", 2, 1.0, 2.0), ("a", 1, 2.5, 2.0), ("b, holds 1", 2, 1.0, 1.5), ("b, holds 2", 1, 2.0, 4.0),
        ("only", 1, 2.0, 3.0)) for who, ms in (("genmini cpu", ours), ("peer", peer))]
    _, _, *table, _, why = run.table(rows, [dict(room="r", case="a", what="", reason="With one thread.")])
    cells = [text.replace("*", "").split(" | ") for text in table]
    assert [(each[1], *each[7:10]) for each in cells] == [
        ("a", "peer 2.0 ms", "2.00 (1)", "2.5 ms, 0.80"), ("b, holds 1", "peer 1.5 ms", "1.50", "2.0 ms, 2.00"),
        ("only", "peer 3.0 ms", "1.50", "")]
    assert ["**" in text for text in table] == [True, False, False] and why == "(1) With one thread."
    assert run.behind(rows) == {"r | a | forward | float32 | threads=1 | genmini cpu": 0.8}


def test_a_tiny_call_has_a_price_above_eager_pytorch():
    rows = [line(who, us / 1e3, case, what, 1, "front_door") for case, what, ours in (
        ("fast", "without gradient", 12.0), ("slow", "without gradient", 25.5), ("grads", "both", 90.0))
        for who, us in (("eager", 10.0), ("genmini cpu", ours))]
    reasons = [dict(room="front_door", case=case, what="", reason="Because.") for case in ("slow", "fast")]
    _, _, *table, _, why = run.prices(rows, reasons)
    assert table == ["| **slow** | **without gradient** | **25.5** | **10.0** | **15.5 (1)** | **15** |",
                     "| fast | without gradient | 12.0 | 10.0 | 2.0 | 15 |",
                     "| grads | both | 90.0 | 10.0 | 80.0 | 100 |"]
    assert why == "(1) Because." and run.behind(rows) == {}, "--check looks at no prices"


def test_a_room_runs_with_all_threads_and_with_one_and_its_rows_replace_those(monkeypatch, tmp_path):
    seen = []

    class Bench:
        @staticmethod
        def rows():
            seen.append(torch.get_num_threads())
            yield measure.row("r", "c", "forward", "genmini cpu", (1.0, 0.9, 1.1, 8))

    for name in ("copy_bandwidth", "matmul_rate"):
        monkeypatch.setattr(measure, name, lambda *_: 1e9)
    monkeypatch.setattr(measure, "GPU", False)
    monkeypatch.setattr(run.importlib, "import_module", lambda name: Bench)
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    monkeypatch.setattr(run, "HERE", tmp_path / "bench")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for threads, wanted in ((None, [2, 1]), ([3], [3]), ([1], [1])):
            seen.clear()
            for rows in run.run(["r"], threads):
                run.store(rows)
            assert seen == wanted and torch.get_num_threads() == 2
        (path,) = tmp_path.glob("*.csv")
        assert sorted(row["threads"] for row in csv.DictReader(path.open())) == ["1", "2", "3"]
        run.store([{**rows[0], "room": "s", "new": 4}])  # beside rows of before this column
        run.store([])  # a room that has no case here
        assert [row["new"] for row in csv.DictReader(path.open())] == ["", "", "", "4"]
        Bench.THREADS = (1,)
        assert [row["threads"] for row in next(run.run(["r"]))] == [1]
        del Bench.THREADS
        assert [row["threads"] for row in next(run.run(["steps"]))] == [2]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", ["0", "-1", "1.5"])
def test_a_number_of_threads_is_from_1(threads, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["run.py", "nade", "--check", "--threads", threads])
    with pytest.raises(SystemExit, match="2"):
        run.main()
    assert "--threads" in capsys.readouterr().err


def test_rooms_may_follow_the_numbers_of_threads(monkeypatch, capsys):
    """They were read as numbers: "invalid positive value: 'nade'"."""
    seen = []
    monkeypatch.setattr(run, "check", lambda names, measured: seen.append((names, measured.keywords["threads"])) or [])
    for words in (["--threads", "1", "2", "nade", "quantize"], ["nade", "--threads", "1", "2", "quantize"]):
        monkeypatch.setattr("sys.argv", ["run.py", "--check", *words])
        with pytest.raises(SystemExit, match="0"):
            run.main()
    assert seen == [(["nade", "quantize"], [1, 2])] * 2
    for words, message in ((["--threads", "nade"], "--threads takes numbers"), (["--threads", "1", "mad"], "mad")):
        monkeypatch.setattr("sys.argv", ["run.py", "--check", *words])
        with pytest.raises(SystemExit, match="2"):
            run.main()
        assert message in capsys.readouterr().err


def test_what_a_call_holds_stands_beside_its_time_unless_that_takes_seconds(monkeypatch):
    monkeypatch.setattr(limits, "times", lambda candidates, *_: dict.fromkeys(candidates, (1.0, 0.9, 1.1)))
    took = measure.times({"a": lambda: torch.zeros(1000, device=measure.DEVICE).sum()})
    assert took["a"][:3] == (1.0, 0.9, 1.1) and 4000 <= took["a"][3] < 6000
    monkeypatch.setattr(limits, "times", lambda candidates, *_: dict.fromkeys(candidates, (1e3, 1e3, 1e3)))
    took = measure.times({"a": None})
    assert took["a"][3] is None
    monkeypatch.setattr(measure, "copy_bandwidth", lambda: 1.0)
    monkeypatch.setattr(measure, "matmul_rate", lambda dtype: 1.0)
    rows = [measure.row("r", "c", "sample", name, took["a"]) for name in ("peer", "genmini cpu")]
    assert [row["held"] for row in rows] == ["", ""]


@on_cpu
def test_a_row_that_is_twice_behind_fails_the_check(monkeypatch, capsys):
    """In "late" the second run alone is behind, in "luck" the first."""
    runs = iter([[("late", 1.0), ("luck", 1.2), ("slow", 1.25)], [("late", 2.0), ("luck", 1.04), ("slow", 1.1)]])

    def measured(names):
        yield [row for case, ms in next(runs)
               for row in (line("genmini cpu", ms, case), line("peer", 1.0, case), line("other", 3.0, case))]

    assert list(run.check(["r"], measured)) == [
        "r | slow | forward | float32 | threads=2 | genmini cpu: 0.80 and 0.91 times as fast as its best rival"]
    runs = iter([[("fast", 0.9), ("alike", 1.05)]])
    assert list(run.check(["r"], measured)) == [], "and it runs once"
    for found, status in ((["a row"], 1), ([], 0)):
        monkeypatch.setattr(run, "check", lambda names, _, found=found: iter(found if names == ["nade"] else []))
        monkeypatch.setattr("sys.argv", ["run.py", "--check", "nade"])
        with pytest.raises(SystemExit) as stopped:
            run.main()
        assert stopped.value.code == status and capsys.readouterr().out.count("a row") == status


def test_a_commit_is_dirty_only_where_code_differs_from_it(tmp_path, monkeypatch):
    git = lambda *words: subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *words], cwd=tmp_path,
                                        check=True, capture_output=True, text=True).stdout.strip()
    monkeypatch.setattr(measure, "ROOT", tmp_path)
    for variable in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # set where tests run in a hook of git
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert measure.commit() == "" and measure.changed() == []
    files = [tmp_path / name for name in ("docs/results.md", "tests/test_run.py", "bench/results/latent.csv",
                                          "bench/run.py", "genmini/models/vae.py")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    name = git("rev-parse", "--short", "HEAD")
    assert measure.commit() == name
    for file in files[:3]:  # what no bench runs
        file.write_text("2")
    assert measure.commit() == name and measure.changed() == []
    for file in files[3:]:
        file.write_text("2")
    assert measure.commit() == f"{name}-dirty" and measure.changed() == ["bench/run.py", "genmini/models/vae.py"]


def test_the_measured_page_is_that_of_the_stored_rows(tmp_path, monkeypatch):
    page = tmp_path / "measured.md"
    page.write_text(run.MEASURED.read_text())
    monkeypatch.setattr(run, "MEASURED", page)
    run.document()
    assert page.read_text() == (DOCS / "measured.md").read_text(), "python bench/run.py --write"


@pytest.mark.parametrize("content", ["", "room,case,what"])
def test_a_file_without_rows_has_no_table(content, tmp_path, monkeypatch):
    (tmp_path / "cpu.csv").write_text(content)
    page = tmp_path / "measured.md"
    page.write_text("<!-- bench -->before<!-- /bench -->after")
    monkeypatch.setattr(run, "RESULTS", tmp_path), monkeypatch.setattr(run, "MEASURED", page)
    run.document()
    assert page.read_text() == "<!-- bench -->\n\n<!-- /bench -->after"


def test_the_table_of_other_libraries_is_that_of_the_stored_rows(tmp_path):
    page = tmp_path / "swap.md"
    page.write_text((DOCS / "swap.md").read_text())
    swap_peers.document(page)
    assert page.read_text() == (DOCS / "swap.md").read_text(), "python bench/swap_peers.py --write"


@pytest.mark.parametrize("name", sorted(path.stem for path in Path(run.__file__).parent.glob("table_*.py")))
def test_the_tables_of_results_are_those_of_the_stored_rows(tmp_path, name):
    """Rows of other settings than the recipes of today are not shown."""
    page, module = tmp_path / "results.md", importlib.import_module(name)
    (of_it,) = (each for each in vars(module).values() if isinstance(each, type) and each.__module__ == name
                and issubclass(each, trained.Table))
    page.write_text((DOCS / "results.md").read_text())
    table = of_it(document=page)
    assert f"<!-- {table.name} -->" in page.read_text()
    table.write()
    assert page.read_text() == (DOCS / "results.md").read_text(), f"python bench/{name}.py --write"
