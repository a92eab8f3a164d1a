"""Tests of the picture of how costs grow: exponents have known answers, every line of it can be measured, rows of other
axes stay, and the picture is no wider than a screen."""

import csv

import measure
import pytest
import scaling
import torch
from PIL import Image

from genmini import limits


@pytest.mark.parametrize("p", [0, 1, 1.5, 3])
def test_the_exponent_is_that_of_the_largest_values(p):
    values = [1, 4, 16, 64, 256]
    assert scaling.exponent(values, [900, 700, *(5 * value**p for value in values[2:])]) == pytest.approx(p, abs=1e-9)


@pytest.mark.parametrize("axis", scaling.AXES)
def test_every_line_can_be_measured(axis):
    values, lines = scaling.AXES[axis]
    assert list(values) == sorted(set(values)) and (len(values) > scaling.FITTED or axis == "threads")
    for make in lines.values():
        make(values[0])()


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Two axes, whose times are the squares of the values: scaling's files are in a folder of the test's own."""
    monkeypatch.setattr(measure, "machine", lambda: dict(device="a processor"))
    monkeypatch.setattr(scaling, "STORED", tmp_path / "scaling.csv")
    monkeypatch.setattr(scaling, "PICTURE", tmp_path / "scaling.png")
    memory = lambda value: lambda: torch.zeros(value, 1000).sum()
    lines = {"N": ([4, 16, 64, 256], {"a line": memory}), "threads": ([1, 2], {"another": memory})}
    monkeypatch.setattr(scaling, "AXES", lines)
    monkeypatch.setattr(limits, "times", lambda calls, *_: {"": 3 * (torch.get_num_threads() ** 2.0,)})
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)


def test_rows_are_stored_by_axis_and_drawn(small, monkeypatch):
    for words in (["N"], ["threads"], ["N"], ["--write"]):
        monkeypatch.setattr("sys.argv", ["scaling.py", *words])
        scaling.main()
    rows = list(csv.DictReader((small / "scaling.csv").open()))
    assert [(row["axis"], row["value"]) for row in rows] == [
        *(("N", value) for value in ("4", "16", "64", "256")), ("threads", "1"), ("threads", "2")]
    assert [row["ms"] for row in rows[-2:]] == ["1", "4"], "by as many threads"
    memory = [int(row["bytes"]) for row in rows[:4]]
    assert scaling.exponent([4, 16, 64, 256], memory) == pytest.approx(1, abs=0.01) and rows[-1]["bytes"] == ""
    assert 500 < Image.open(small / "scaling.png").width <= 1600
    monkeypatch.setattr(measure, "machine", lambda: dict(device="another processor"))
    monkeypatch.setattr("sys.argv", ["scaling.py", "threads"])
    scaling.main()
    devices = {row["device"] for row in csv.DictReader((small / "scaling.csv").open())}
    assert devices == {"another processor"}, "the picture names one machine"
    monkeypatch.setattr("sys.argv", ["scaling.py", "M"])
    with pytest.raises(SystemExit):
        scaling.main()
