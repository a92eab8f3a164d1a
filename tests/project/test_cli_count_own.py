"""`genmini count my.cu`: its lines, which docs/counting.md shows, and what it says of mistakes."""

import json
import re
import shlex
from pathlib import Path

import pytest
from check import command
from genmini.csrc import build
from genmini.csrc import count as counters

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "counting.md").read_text()
counts = pytest.mark.skipif(bool(counters.missing()), reason=counters.missing())
SOURCE = "__global__ void put(float* x, int n) { x[threadIdx.x] = n; }\n"
OF_CU = "belongs to a .cu of yours: name the file in the place of a ROOM"
MISTAKES = {
    "no file": (["none.cu", "--call", "k();"], "there is no file none.cu"),
    "another kind": (["more.h"], "count takes a ROOM or a .cu, and more.h is neither; --with takes a .py beside"),
    "two": (["k.cu", "./k.cu"], "count takes one .cu at a time, and no ROOM beside it; this is k.cu ./k.cu"),
    "a room beside": (["nade", "k.cu"], "count takes one .cu at a time, and no ROOM beside it; this is nade k.cu"),
    "a rung": (["k.cu", "--rung", "naive"], "--rung is a room's: --call says which kernels run"),
    "sizes": (["k.cu", "--shape", "N=3"], "--shape is a room's: --call says how large the arrays are"),
    "a kernel": (["k.cu", "--with", "k.py"], "--with belongs to a ROOM: it registers a kernel for it"),
    "an empty call": (["k.cu", "--call", " "], "--call is empty: it takes statements of C++ that launch a kernel"),
    "a call of a room": (["nade", "--call", "k();"], f"--call {OF_CU}"),
    "seconds of a room": (["nade", "--seconds", "3"], f"--seconds {OF_CU}"),
    "a part of a launch": (["k.cu", "--call", "\nput<<<1, 2>>(x);"], "--call:2: this launch is not whole; it is "),
    "no card": (["k.cu", "--card", ""], "unknown card ''; known are a100"),
    "no card of a room": (["nade", "--card", ""], "unknown card ''; known are a100"),
    "JSON nowhere": (["nade", "--json", ""], "--json takes a file, got ''"),
    "JSON into a folder": (["k.cu", "--json", "."], "--json takes a file, got '.'"),
    "JSON into the source": (["k.cu", "--json", "./k.cu"], "--json ./k.cu is the source, and would be lost: choose "),
    "a page nowhere": (["nade", "--html", ""], "--html takes a folder, got ''"),
    "a rung of a page": (["nade", "--rung", "", "--html", "p"], "--html shows all rungs and cards: leave out --rung"),
}


@pytest.fixture(autouse=True)
def a_cache(tmp_path, monkeypatch):
    """What is compiled stays with what other tests compile."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(build.CSRC.parent / ".cache"))
    monkeypatch.chdir(tmp_path)
    Path("k.cu").write_text(SOURCE)


@pytest.mark.parametrize("words, wanted", MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_is_one_line(capsys, words, wanted):
    """And nothing is written."""
    status, out, err = command(capsys, "count", *words)
    assert status == 2 and err.startswith(f"genmini: {wanted}") and err.count("\n") == 1 and not out
    assert [path.name for path in Path().iterdir()] == ["k.cu"] and Path("k.cu").read_text() == SOURCE


def test_without_a_call_the_kernels_are_named(capsys):
    status, out, err = command(capsys, "count", "k.cu")
    assert status == 2 and not out
    assert err == ("genmini: k.cu has no main(): say by --call which of its kernels run, and on what. It has\n"
                   "  put(float* x, int n)\nAn example, whose sizes may not be those of the kernel:\n"
                   "  genmini count k.cu --call 'Array<float> x(1024); put<<<32, 32>>>(x, 1024);'\n")


@counts
def test_the_documented_transposition(capsys):
    """Its command prints what stands on the page, each line of it."""
    (line,) = re.findall(r"^(genmini count examples/transpose.cu --call .*)$", PAGE.replace("\\\n", ""), re.M)
    (shown,) = re.findall(r"```\n(transpose.cu: counted on a CPU.*?)```", PAGE, re.S)
    Path("examples").symlink_to(ROOT / "examples")
    status, out, err = command(capsys, *shlex.split(line)[1:], "--json", "t.json")
    assert status == 0, err
    assert out.startswith(shown)
    assert re.search(r"^ +128 +32.0 +! 32.00 / 4.00 +\d+ \| +y\[column \* n \+ row\] = v", out, re.M), out
    saved = json.load(open("t.json"))
    assert saved["source"] == "transpose.cu"
    assert [each["kernel"] for each in saved["launches"]] == ["naive", "tiled<32>", "tiled<33>"]


@counts
def test_the_command_ends_with_what_went_wrong(capsys):
    """A second --call goes on behind the first, and is a line of its own."""
    status, out, err = command(capsys, "count", "k.cu", "--call", "Array<float> x(4);", "--call",
                               "pot<<<1, 4>>>(x, 1);")
    assert status == 1 and not out and err.startswith("genmini: k.cu and its call do not compile:\n--call: In function")
    assert "--call:2: error: 'pot' was not declared in this scope" in err
