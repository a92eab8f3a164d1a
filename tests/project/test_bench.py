"""Tests of what the benches share: wrong candidates are refused, the table shows no ratio where no kernel ran, and the
tables of the documentation are those of the stored rows."""

import importlib
import subprocess
from dataclasses import replace
from pathlib import Path

import measure
import pytest
import run
import torch
import trained

from genmini import kernels, limits

DOCS = Path(run.__file__).parents[1] / "docs"
on_cpu = pytest.mark.skipif(measure.GPU, reason="on a GPU the rungs of a room have no other name")


def test_a_wrong_function_is_named_and_not_timed():
    x = torch.linspace(-1, 1, 9)
    exact = x.double().exp(), torch.arange(9)
    errors = measure.checked({"right": lambda x: (x.exp(), torch.arange(9))}, [x], exact, 1e-6)
    assert 0 < errors["right"] < 1e-6
    for wrong in (lambda x: (x.exp() + 1e-3, torch.arange(9)), lambda x: (x.exp(), torch.arange(9).flip(0))):
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
        return dict.fromkeys(candidates, (1.0, 1.0, 1.0))

    monkeypatch.setattr(bench, "times", once, raising=False)
    monkeypatch.setattr(measure, "times", once)
    monkeypatch.setattr(limits, "times", once)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    row = next(iter(bench.rows()))
    assert row["room"] == room and float(row["ms"]) > 0


ABSENT = "no kernel; peer 3.0 ms"


@pytest.mark.parametrize("who, shown", [("cpu", "peer 2.00"), ("naive", "peer 2.00"), ("reference", ABSENT),
                                        ("reference, y saved", ABSENT), ("cpu in PyTorch", ABSENT)])
def test_no_ratio_is_shown_where_no_kernel_ran(who, shown):
    row = dict(room="r", case="c", what="forward", dtype="float32", percent_of_bound="1.0", error="", commit="abc")
    _, _, line = run.table([row | dict(who="peer", ms="3.0"), row | dict(who=f"genmini {who}", ms="1.5")])
    assert line.split(" | ")[3] == who and line.split(" | ")[6] == shown


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
