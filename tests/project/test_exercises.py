"""Exercises: a blank one says so; the solutions are right, and differ from the blank ones where these are blank."""

import re
import runpy
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from genmini.csrc import count as counters
from genmini.kernels import _backend

from genmini import kernels

ROOT = Path(__file__).resolve().parents[2]
BLANK, SOLVED = ROOT / "examples" / "exercises", ROOT / "tests" / "exercises"
EXERCISES = {"coupling": "coupling.cu", "masked_product": "masked_product.py", "search": "search.cu"}
RUNS = pytest.mark.parametrize("name", [
    name for name, file in EXERCISES.items()
    if not (counters.missing() if file.endswith(".cu") else _backend.triton_missing() or not _backend.interpreting())])
YOURS = re.compile(r"( *(?://|#) ---- yours\n)(.*?)( *(?://|#) ---- end of yours\n)", re.S)


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch):
    yield
    _backend.OWN.clear()
    sys.modules.pop("right", None)


def told(folder, name, monkeypatch, capsys):
    """What the command of an exercise prints -> exit status, text"""
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(SystemExit) as done:
        runpy.run_path(str(folder / f"{name}.py"), run_name="__main__")
    return done.value.code, capsys.readouterr().out


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(BLANK, tmp_path / "exercises", ignore=shutil.ignore_patterns("__*")))


@pytest.mark.parametrize("file", EXERCISES.values())
def test_a_solution_fills_in_what_is_left_blank(file):
    blank, solved = ((where / file).read_text() for where in (BLANK, SOLVED))
    assert YOURS.sub(r"\1\3", blank) == YOURS.sub(r"\1\3", solved)
    assert "is left blank" in YOURS.search(blank)[2] and "is left blank" not in solved


@RUNS
def test_a_blank_one_says_so(folder, name, monkeypatch, capsys):
    status, out = told(folder, name, monkeypatch, capsys)
    file = EXERCISES[name]
    assert status == 1 and re.match(rf"{name} \({name}.py:\d+\), backend 'mine' of ", out)
    assert f"{file}: the kernel is left blank: write it between the marks (docs/exercises.md)" in out


@RUNS
def test_a_solved_one_is_right(folder, name, monkeypatch, capsys):
    shutil.copy(SOLVED / EXERCISES[name], folder)
    if name == "coupling":  # tests/project/test_cli_own.py counts it: to compile the counters takes six seconds
        monkeypatch.setattr(counters, "missing", lambda: "another test counts it")
    status, out = told(folder, name, monkeypatch, capsys)
    assert status == 0, out
    first, *rest = out.splitlines()
    assert re.match(rf"{name} \({name}.py:\d+\), backend 'mine' of \w+, is right on all \d+ inputs \(cpu\)", first)
    assert rest == ["counted: no line touches more memory than it must"] * (name == "search")


def test_hints_name_lines_that_cost_more_than_they_must(monkeypatch):
    monkeypatch.syspath_prepend(str(BLANK))
    import right

    row = dict(file="a.cu", what="load", size=4, sectors=4.0, sectors_ideal=4.0, wavefronts=0.0, wavefronts_ideal=0.0)
    rows = [SimpleNamespace(**row, line=1, space="global"),
            SimpleNamespace(**row | dict(sectors=32.0), line=2, space="global"),
            SimpleNamespace(**row | dict(wavefronts=8.0, wavefronts_ideal=1.0), line=3, space="shared")]
    race = counters.Hazard("race", "shared", (("a.cu", 4, "store"), ("a.cu", 5, "load")), (0, 1), (0, 0))
    found = [*right.hints(SimpleNamespace(rows=rows, hazards=[race]))]
    assert [re.findall(r"a.cu:(\d)", hint) for hint in found] == [["4", "5"], ["2"], ["3"]]
    assert "32.0 sectors of 32 bytes, where 4.0 would do" in found[1] and "8.0 passes" in found[2]


def test_the_page_names_each_exercise():
    page = (ROOT / "docs" / "exercises.md").read_text()
    assert all(f"`python examples/exercises/{name}.py`" in page for name in EXERCISES)
    shown = re.findall(r"^  (?:right: )?(.*): N=8 K=16 D=2", page, re.M)

    @kernels.register("nearest_code")
    def my_search(z, e):
        return (z[:, None] - e).square().sum(2).nan_to_num(float("inf"), float("inf")).argmin(1)

    assert shown == [case.words for case, _ in kernels.checked("nearest_code").wrong]
