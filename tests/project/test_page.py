"""The page of `genmini count --html`: what it gathers, its formulae, and how a browser shows it."""

import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html import escape, unescape
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from check import command as run
from genmini.csrc import compiled
from genmini.csrc import count as counters
from genmini.kernels import _backend
from page_scripts import CHECK, TILES, WATCH

from genmini import counting, kernels, own_cu, page
from genmini.page import equations, source, store
from genmini.page.mathml import mathml

pytestmark = pytest.mark.usefixtures("folder_of_its_own")
TRITON = _backend._cannot_emulate(kernels.ROOMS["q_sample"], torch.device("cpu"))
triton = pytest.mark.skipif(bool(TRITON), reason=TRITON)
counts = pytest.mark.skipif(bool(counters.missing()), reason=counters.missing())
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browser = pytest.mark.skipif(CHROMIUM is None and os.environ.get("GENMINI_REQUIRES") != "chromium",
                             reason="no chromium is on PATH: the page was not opened")
SMALL = dict(N=64, K=4, D=32)
ROOT = Path(__file__).resolve().parents[2]
(CALL,) = re.findall(r'^genmini count examples/transpose.cu --call "([^"]*)"$',
                     (ROOT / "docs" / "counting.md").read_text().replace("\\\n", ""), re.M)


@pytest.fixture(scope="module")
def room():
    if counters.missing():
        pytest.skip(counters.missing())
    return page.of("code_stats", **SMALL)


@pytest.fixture(scope="module")
def own():
    """What the documented command shows of a user's .cu, compiled with what other tests compile, and a planted race."""
    if counters.missing():
        pytest.skip(counters.missing())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(counters.build.CSRC.parent / ".cache"))
        counted = own_cu.count(ROOT / "examples" / "transpose.cu", CALL)
    race = counters.Hazard("race", "shared", (("transpose.cu", 16, "store"), ("transpose.cu", 19, "load")), (0, 33),
                           (2, 2), 64)
    naive, *others, padded = counted.launches
    return replace(counted, launches=[naive, *others, replace(padded, hazards=[race])])


@pytest.fixture(scope="module")
def tiles():
    return page.of("q_sample", N=2, D=96)


# ---- formulae --------------------------------------------------------------------------------------------------------


def test_mathml_of_a_line():
    assert "<msup><mi>e</mi><mrow><mi>s</mi></mrow></msup>" in mathml("x e^{s}")
    assert "<msub><mi>s</mi><mrow><mi>n</mi><mi>d</mi></mrow></msub>" in mathml("s_{nd}")
    assert re.search(r"<munder><mo [^>]*>∑</mo><mrow><mi>d</mi></mrow></munder>", mathml("∑_{d}"))
    assert "<mfrac><mrow><mi>a</mi></mrow><mrow><mn>2</mn></mrow></mfrac>" in mathml(r"\frac{a}{2}")
    assert "<msubsup>" in mathml("z^{i}_{j}") and "<mi>softmax</mi>" in mathml("softmax(v)")
    assert "<mtext>of two levels</mtext>" in mathml(r"x ~ \text{of two levels}")
    assert "<mo>&lt;</mo>" in mathml("j < k") and "<mo>−</mo>" in mathml("1 - t")
    for wrong in (r"\frac{a}", "x_{n", r"\unknown x"):
        with pytest.raises(ValueError):
            mathml(wrong)


@pytest.mark.parametrize("room", counting.rooms())
def test_equations_are_those_of_the_room(room):
    """Well-formed, and in letters that its docstring has under Math."""
    text = page.sys.modules[f"genmini.kernels.{kernels.ROOMS[room].source}"].__doc__.partition("\nMath\n")[2]
    words = {"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "eps", "μ": "mu", "σ": "sigma",
             "min": "lowest", "argmin": "minimal"}
    found = equations.of(room)
    assert len(found) >= 2 and all("<mrow></mrow>" not in text for _, text in found)
    for _, formula in found:
        for name in ElementTree.fromstring(formula).iter("mi"):
            assert name.text in text or words[name.text] in text, name.text


# ---- the source ------------------------------------------------------------------------------------------------------

SOURCE = """// a head

// of one
__global__ void one(float* x) {
    x[0] = 1;

    x[1] = 2;
}

struct Two {    // { in a comment
    int a;
};
constexpr int THREE = 3;
""".splitlines()


def test_items_are_functions_with_their_comments():
    assert source.items(SOURCE) == [(1, 1), (3, 8), (10, 12), (13, 13)]


def test_items_of_python_are_functions_with_their_decorators():
    text = '"""A room."""\n\nimport torch\n\n\n@triton.jit\ndef one(x):\n    y = x\n\n    return y\n\nTWO = 2'
    assert source.items_in_python(text.splitlines()) == [(1, 1), (3, 3), (6, 10), (12, 12)]


def test_a_difference_has_what_left_and_what_came():
    texts = {"k.cu": SOURCE}
    before, after = {"k.cu": [(1, 1), (3, 8)]}, {"k.cu": [(1, 1), (10, 12)]}
    found = source.difference(before, after, texts)
    assert [line[2] for line in found if line[0] == "-"] == [3, 4, 5, 6, 7, 8]
    assert [line[2] for line in found if line[0] == "+"] == [10, 11, 12] and [".", "", 0, ""] not in found[1:]
    assert source.difference(before, before, texts) == []


# ---- what is gathered ------------------------------------------------------------------------------------------------


def test_what_is_gathered_of_a_room(room):
    naive, segments = room["rungs"]
    assert room["question"].endswith("?") and room["definition"].startswith("def reference(z, index, K):")
    assert room["math"].startswith("forward     count_k = ") and "Shapes" not in room["math"]
    assert room["files"]["code_stats.cu"][0].startswith("// ")
    assert [*segments["items"]] == ["code_stats.cu", "segments.h"]
    assert {line[0] for line in room["differences"][0]} >= {"-", "+"}
    assert segments["lesson"].startswith("the rows, sorted by their code")
    one = counting.count("code_stats", "naive", **SMALL)
    assert naive["launches"][0]["dramRead"] == one.launches[0].counters["dram__bytes_read.sum"]
    assert sum(row["requests"] for row in naive["rows"]) == sum(row.inst_executed for row in one.launches[0].rows)
    for row in (*naive["rows"], *segments["rows"]):
        assert len(row["examples"]) <= page.MOST and (row["examples"] or not row["space"])
    example = naive["rows"][0]["examples"][0]
    assert room["arrays"][example["array"]][0] == "index int64 64" and example["step"] == 0


@triton
def test_what_is_gathered_of_a_room_in_triton(tiles):
    (fused,) = tiles["rungs"]
    assert tiles["language"] == "triton" and fused["unit"] == "tile" and "reference" in tiles["definition"]
    assert [*fused["items"]] == ["q_sample.py", "_noise.py"] and fused["barriers"] == fused["divergent"] == 0
    (first, last), *others = fused["items"]["q_sample.py"]
    lines = tiles["files"]["q_sample.py"]
    assert lines[first - 1] == "@triton.jit" and lines[first].startswith("def fused(") and not others
    assert fused["launches"][0]["tiles"] == 6 and fused["launches"][0]["arguments"]["BD"] == "128"
    assert all(row["examples"] == [] for row in fused["rows"])


def test_what_is_gathered_of_a_users_file(own):
    shown = page.of_own(own)
    assert [rung["name"] for rung in shown["rungs"]] == ["naive", "tiled<32>", "tiled<33>"]
    assert shown["call"] == CALL and shown["printed"] == "y = 0 64 128 192 ...\n"
    assert shown["rungs"][0]["lesson"].startswith("A thread a number. The lanes of a warp read")
    assert shown["rungs"][1]["items"] == shown["rungs"][2]["items"] and shown["differences"][1] == []
    assert any(sign == "-" and "y[column * n + row] = v;" in text for sign, *_, text in shown["differences"][0])
    assert shown["arrays"][0][0] == "x float32 64 64"
    twice = page.of_own(replace(own, launches=[own.launches[0], replace(own.launches[0], grid=(1, 2, 1))]))
    assert [rung["name"] for rung in twice["rungs"]] == ["naive<<<2x2x1, 32x32x1>>>", "naive<<<1x2x1, 32x32x1>>>"]


def test_a_room_is_gathered_once_until_a_source_changes(tmp_path, monkeypatch):
    calls = []
    gather = lambda: calls.append(1) or {"name": "nade", "sizes": [1]}
    library = SimpleNamespace(path=tmp_path / "x.so")
    monkeypatch.setattr(store, "kernels", SimpleNamespace(
        libraries=lambda: [library], ROOMS=kernels.ROOMS, __file__=kernels.__file__))
    for _ in range(2):
        assert store.kept("nade", {"N": 1}, gather) == {"name": "nade", "sizes": [1]}
    assert len(calls) == 1
    store.kept("nade", {"N": 2}, gather)
    (tmp_path / "nade.cuda.key").write_text("compiled anew")
    store.kept("nade", {"N": 2}, gather)
    assert len(calls) == 3
    (tmp_path / "nade.page.json").write_text("{")  # not whole
    store.kept("nade", {"N": 2}, gather)
    assert len(calls) == 4


# ---- the command -----------------------------------------------------------------------------------------------------


@counts
def test_the_page_is_one_file_without_a_network(capsys, room, monkeypatch):
    monkeypatch.setattr(page, "kept", lambda name, sizes, gather: room)
    status, out, err = run(capsys, "count", "code_stats", "--shape", "N=64", "K=4", "D=32", "--html", "page")
    assert status == 0, err
    assert out == f"counted   code_stats: naive, segments\nsaved     {Path('page/index.html')}\n"
    text = Path("page/index.html").read_text()
    assert [path.name for path in Path("page").iterdir()] == ["index.html"]
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)|url\(|@import|fetch\(|XMLHttp""", text)
    assert "<!--" not in text and not re.search(r"\bmeasured\b", text.partition('id="counted"')[0])
    shown = re.search(r'id="counted">(.*?)</script>', text, re.S)[1]
    assert json.loads(shown)["rooms"][0]["name"] == "code_stats"
    assert ("softmax_nll" in json.loads(shown)["notCounted"]) == bool(TRITON)


@counts
def test_the_page_of_a_users_file_and_its_hazards(capsys, own, monkeypatch):
    monkeypatch.setattr(own_cu, "count", lambda path, call, seconds: own)
    status, out, err = run(capsys, "count", "transpose.cu", "--call", CALL, "--html", "page")
    assert (status, err) == (1, "")
    assert out == ("counted   transpose.cu: naive, tiled<32>, tiled<33>\n  race      shared store in transpose.cu:16 "
                   "and load in transpose.cu:19: thread 0 and thread 33 of block 2, 64 times, no barrier between\n"
                   f"saved     {Path('page/index.html')}\n")
    shown = json.loads(re.search(r'id="counted">(.*?)</script>', Path("page/index.html").read_text(), re.S)[1])
    assert [room["name"] for room in shown["rooms"]] == ["transpose.cu"] and shown["notCounted"] == []


@pytest.mark.parametrize("words, wanted", [
    (["k.cu", "--table", "--html", "p"], "--html shows all rungs and cards: leave out --table"),
    (["nade", "--rung", "naive", "--html", "p"], "--html shows all rungs and cards: leave out --rung"),
    (["nade", "code_stats", "--shape", "N=3", "--html", "p"], "--shape belongs to one ROOM: name it"),
    (["nade", "softmax", "--html", "p"], "unknown room 'softmax'; the rooms are"),
    (["nade", "code_stats"], "count takes one ROOM, or with --html DIR any number of them"),
    ([], "count takes one ROOM, or with --html DIR any number of them"),
])
def test_a_mistake_is_one_line(capsys, words, wanted):
    status, out, err = run(capsys, "count", *words)
    assert status == 2 and err.startswith(f"genmini: {wanted}") and not out and not Path("p").exists()


@pytest.mark.parametrize("folder, wanted", [
    ("file", "--html takes a folder, and {}/file is a file"), ("file/page", "--html takes a folder, and {}/file is a"),
    ("site", "site/index.html is no page of genmini count, and would be lost: choose another folder"),
    ("odd", "odd/index.html is a folder, and would be the page: choose another folder"),
])
def test_what_is_there_already_is_not_lost(capsys, folder, wanted):
    """And nothing is counted first."""
    Path("file").write_text("mine")
    Path("odd/index.html").mkdir(parents=True)
    Path("site").mkdir()
    Path("site/index.html").write_text("<title>my pages</title>")
    status, out, err = run(capsys, "count", "nade", "--html", folder)
    assert status == 2 and err.startswith(f"genmini: {wanted.format(Path.cwd())}") and not out
    assert Path("site/index.html").read_text() == "<title>my pages</title>"


def test_a_room_named_twice_is_shown_once_and_a_page_is_written_again(capsys, monkeypatch):
    monkeypatch.setattr(page, "kept", lambda name, sizes, gather: {"name": name, "rungs": []})
    for _ in range(2):
        status, out, err = run(capsys, "count", "nade", "code_stats", "nade", "--html", "page")
        assert status == 0 and re.findall(r"counted   (\w+)", out) == ["nade", "code_stats"], err


# ---- in a browser ----------------------------------------------------------------------------------------------------

KNOWN = [[4, 4], [5, 4], [32, 4], [16, 16], [32, 1], [1, 1], [4, 4], [2, 2], [16, 4], [4, 4], [32, 1]]


def opened(html, width, script=CHECK, dark=False):
    """What the script finds on the page, in a frame so wide: a window is at least 500 wide."""
    html = html.replace("<head>", f"<head>{WATCH}").replace("</body>", f"{script}</body>")
    Path("frame.html").write_text(f'<!doctype html><pre id="found"></pre><iframe srcdoc="{escape(html)}" '
                                  f'style="width: {width}px; height: 844px; border: 0"></iframe>')
    folder = Path("profile").resolve()
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
             "--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder}",
             "--window-size=1500,900", "--virtual-time-budget=4000", "--dump-dom",
             f"--blink-settings=preferredColorScheme={int(not dark)}"]
    words.append(Path("frame.html").resolve().as_uri())
    done = subprocess.run([CHROMIUM, *words], capture_output=True, text=True, timeout=120)
    return json.loads(unescape(re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.S)[1]))


@browser
@pytest.mark.parametrize("width, dark", [(390, True), (1400, False)])
def test_a_browser_shows_the_page(room, width, dark):
    found = opened(page.html([room]), width, dark=dark)
    assert found["mistakes"] == [] and found["known"] == KNOWN
    assert found["dark"] == dark and found["texts"] > 300 and found["faint"] == []
    assert found["heat"][0] > 1.3 and found["heat"][1] > 3, "the least of a strip and the most, against the page"
    assert " bind, on 1 of 132 SMs. " in found["why"] and ", on 4 of 132 SMs" in found["why"]
    before, after = (sum(row["requests"] for row in rung["rows"] if row["space"] == "global") for rung in room["rungs"])
    assert found["why"].endswith(  # of 8 warps, then of 4 blocks of 8, shared memory too
        "What falls: requests of a warp 41 → 11.5 (on average, in turn, ÷ 3.57); requests of global memory "
        f"{before} → {after} (by warps, ÷ {before / after:.3g}). The same: sectors.")
    assert found["shared"] == [
        " Line 7 is run as often, but by other warps: the requests that are kept of it (below) are all of warp 3 of a "
        "block, then of several, which share the work.", "", ""]
    assert found["width"] == width and found["sideways"] == [0, 0]
    assert found["curves"] == 32 and found["charts"] >= 5 and found["formulae"] == 2
    assert found["compared"] >= 5 and found["differ"] == []
    assert found["tab"] == "true" and found["down"] and found["closed"]
    assert found["lines"] == found["panels"] >= 4 and found["where"].startswith("Request 2 of the ")


@browser
def test_a_browser_shows_a_users_file(own):
    """Its launches in the place of rungs. What a launch is accused of stands beside its counts."""
    found = opened(page.html([page.of_own(own)], []), 390, dark=True)
    assert found["mistakes"] == [] and found["differ"] == [] and found["faint"] == [] and found["sideways"] == [0, 0]
    assert found["curves"] == 32 and found["formulae"] == 0 and found["lines"] == 2
    assert found["why"].startswith("Compared naive takes at least ")
    assert "What falls: L2 0.147 → 0.0328 (MB read and written, ÷ 4.5); sectors 4.5 → 1 " in found["why"]
    assert found["headings"] == ["1The call", "2The launches, one after the other", "3The kernels, line by line"]
    assert found["hazards"] == ["1 hazardrace      shared store in transpose.cu:16 and load in transpose.cu:19: "
                                "thread 0 and thread 33 of block 2, 64 times, no barrier between"]


@browser
@triton
@pytest.mark.parametrize("width", [390, 1400])
def test_a_browser_shows_a_room_in_triton(tiles, width):
    """By its tiles, with nothing drawn that nobody counted. x is 2 rows of 96 floats, 12 sectors each."""
    found = opened(page.html([tiles]), width, TILES)
    assert found["mistakes"] == [] and found["sideways"] == 0 and found["formulae"] == 2
    assert found["files"] == ["q_sample.py", "_noise.py"] and found["buttons"] == found["idle"] == 0
    assert sorted(found["figures"]) == ["1 / 1", "2 / 1", "2 / 1", "24 / 24", "24 / 24", "24 / 24"]
    assert found["head"] == ["sectors", "", "of a tile / the least possible"]
    assert found["launches"][0].startswith("1 program of 4 warps, with seed_ptr=None N=2 D=96")
    assert "6 tiles, 81.2 % of their elements masked off" in found["launches"][1]
    if not compiled.missing():
        assert re.match(r"compiled \d+ registers a thread, 0 bytes of .*\(sm_90\)", found["launches"][2])
    assert found["charts"] == ["DRAM", "L2", "sectors", "tiles", "elements", "tiles of a program",
                               *["registers"] * (not compiled.missing()), "at least so long on a card"]


@browser
@pytest.mark.parametrize("right, wrong", [
    ("const BANKS = 32;", "const BANKS = 33;"), ("const SECTOR = 32;", "const SECTOR = 64;"),
    ("row.size === 8 ? 16 : 8", "row.size === 8 ? 16 : 16"), ("slider.value = index;", "slider.worth.value = index;"),
])
def test_a_mistake_of_the_page_is_seen(room, right, wrong):
    html = page.html([room])
    assert html.count(right) == 1
    found = opened(html.replace(right, wrong), 1400)
    assert found["mistakes"] or found["known"] != KNOWN
