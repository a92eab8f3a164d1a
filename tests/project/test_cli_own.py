"""`genmini bench ROOM --with FILE` and `genmini count ROOM --with FILE`: a user's kernel beside those of a room."""

import re
import sys
from pathlib import Path

import pytest
import torch
from check import command as run
from genmini.csrc import count as counters
from genmini.kernels import _backend
from test_cli_bench import times_of_one_call

from genmini import counting, kernels, ladder, limits

pytestmark = pytest.mark.usefixtures("folder_of_its_own")
counts = pytest.mark.skipif(bool(counters.missing()), reason=counters.missing())
SOLVED = Path(__file__).resolve().parents[1] / "exercises" / "coupling.cu"
COUPLING = """
import genmini
source = genmini.Source("coupling.cu")

@genmini.register("affine_coupling")
def coupling(x, s, t):
    y, logdet = x.new_empty(x.shape), x.new_empty(len(x))
    source.call("coupling", x, s, t, y, logdet, *x.shape)
    return y, logdet
"""
SEARCH = """
import torch
import genmini

@genmini.register("nearest_code", backend="mine")
def search(z, e):
    {line}
    return (z[:, None].double() - e.double()).square().sum(2).nan_to_num(1e300, 1e300).argmin(1)

@genmini.register("nearest_code", backend="other")
def another(z, e):
    return search(z, e)
"""


@pytest.fixture(autouse=True)
def once(monkeypatch):
    """Nothing stays registered."""
    monkeypatch.setattr(limits, "times", times_of_one_call)
    yield
    _backend.OWN.clear()


@counts
def test_a_cuda_kernel_is_counted_beside_the_rungs_and_timed(capsys, monkeypatch):
    monkeypatch.setattr(ladder, "counted", lambda *_: ([], ""))  # the room's own
    Path("coupling.cu").write_text(SOLVED.read_text())
    Path("mine.py").write_text(COUPLING)
    sizes = ["--shape", "N=4", "D=96"]
    status, out, err = run(capsys, "count", "affine_coupling", "--with", "mine.py", *sizes)
    assert status == 0, err
    assert out.startswith("affine_coupling, rung mine, N=4 D=96: counted on a CPU")
    assert re.search(r"^  coupling.cu:\d+ +global load +4 +12 +32.0 +4.00 / 4.00$", out, re.M), out  # 3 warps of 4 rows
    counted = counting.count_own("affine_coupling", "mine", N=4, D=96)
    assert [launch.kernel for launch in counted.launches] == ["couple"]  # the gradient is the room's
    status, out, err = run(capsys, "bench", "affine_coupling", "--with", "mine.py", *sizes)
    assert status == 0, err
    above, below = out.split("\nmeasured on cpu")
    assert re.search(r"^  mine +coupling \(mine.py:\d+\), backend 'mine' of affine_coupling, is right on", above, re.M)
    c = counted.launches[0].counters
    megabytes = (c["dram__bytes_read.sum"] + c["dram__bytes_write.sum"]) / 1e6
    assert re.search(rf"^  mine +{megabytes:.3f} .* 1.00 ", above, re.M), above
    assert re.findall(r"^  (\w+) +1000 us", below, re.M)[-1] == "mine"


def test_the_environment_may_name_what_the_file_registers(capsys, monkeypatch):
    monkeypatch.setattr(_backend, "own_names", ())
    monkeypatch.setattr(_backend, "_requested", ("mine", None))  # GENMINI_BACKEND=mine
    monkeypatch.setattr(ladder, "counted", lambda *_: ([], ""))
    Path("mine.py").write_text(SEARCH.format(line="pass"))
    status, out, err = run(capsys, "bench", "nearest_code", "--with", "mine.py")
    assert status == 0 and re.search(r"^  mine +1000 us", out, re.M), err
    Path("mine.py").write_text(SEARCH.format(line="pass").replace('"mine"', '"fast"'))
    monkeypatch.setattr(_backend, "own_names", ())
    status, _, err = run(capsys, "bench", "nearest_code", "--with", "mine.py")
    assert status == 2 and "GENMINI_BACKEND='mine' is unknown; the backends are auto" in err


def test_kernels_in_python_are_timed_and_a_wrong_one_is_not(capsys):
    Path("mine.py").write_text(SEARCH.format(line="pass"))
    status, out, err = run(capsys, "bench", "masked_linear", "--with", "mine.py")
    assert status == 2 and "mine.py registers no kernel of masked_linear: it needs" in err
    Path("mine.py").write_text(SEARCH.format(line="e = e.flip(0)"))
    for command in ("bench", "count"):
        status, out, err = run(capsys, command, "nearest_code", "--with", "mine.py")
        assert status == 1 and not err
        assert re.match(r"\w+ \(mine.py:\d+\), backend '\w+' of nearest_code, is wrong on .*:\n  odd sizes: N=13 D=17 "
                        "K=7, float32", out), out


def test_a_kernel_that_does_not_take_the_dtypes_of_the_inputs_is_no_mistake_of_genmini(capsys):
    """alpha and sigma are in float64, for which a kernel must be registered."""
    Path("mine.py").write_text("""
import genmini
from genmini.kernels import q_sample

@genmini.register("q_sample")
def mine(x0, t, alpha, sigma, eps, seed, target):
    return q_sample.reference(x0, t, alpha, sigma, eps, seed, target)
""")
    for command in ("bench", "count"):
        status, _, err = run(capsys, command, "q_sample", "--with", "mine.py")
        assert status == 2 and re.fullmatch(
            r"genmini: mine \(mine.py:\d+\), backend 'mine' of q_sample, takes alpha of dtype float32, got float64: "
            r"register it with dtypes=\(...\) if it takes these, too\n", err), err


def test_a_kernel_in_triton_is_counted_by_its_tiles(capsys):
    """N = K = J = 64 in tiles of 32 x 32: 4 programs, 2 steps along k, 4 sectors a row of x."""
    if why := _backend._cannot_emulate(kernels.ROOMS["masked_linear"], torch.device("cpu")):
        pytest.skip(why)
    text = (SOLVED.parent / "masked_product.py").read_text()
    Path("mine.py").write_text(text.replace("import right\n", ""))
    status, out, err = run(capsys, "count", "masked_linear", "--with", "mine.py", "--shape", "N=64", "K=64", "J=64")
    assert status == 0, err
    assert out.startswith("masked_linear, rung mine, N=64 K=64 J=64: counted on a CPU")
    assert re.search(r"^product   2x2x1 programs of 4 warps$", out, re.M), out
    assert re.search(r"^  mine.py:\d+ +load +4 +8 +1024.0 +0.0 +128.00 / 128.00$", out, re.M), out
    assert re.search(r"^ +8 +1024.0 +128.00 / 128.00 +\d+ \|         x = tl.load\(x_ptr", out, re.M), out


@pytest.mark.parametrize("words, message", [
    (["bench", "nearest_code", "--with", "mine.cu"], "--with takes a .py file, got mine.cu"),
    (["bench", "nearest_code", "--with", "gone.py"], "gone.py"),
    (["count", "nearest_code", "--with", "mine.py", "--card", "h100"], "--rung, --card and --l2 are of the room's own"),
    (["count", "nearest_code", "--with", "mine.py"], "backend 'other' of nearest_code launches kernels of no source"),
])
def test_mistakes_end_in_a_line(capsys, words, message):
    Path("mine.py").write_text(SEARCH.format(line="pass"))
    status, _, err = run(capsys, *words)
    assert status == 2 and message in err


@pytest.mark.parametrize("line, message", [
    ("import sys; sys.exit(0)", "mine.py, line 1: SystemExit: 0"), ("{}['k']", "mine.py, line 1: KeyError: 'k'"),
    ("def f(:", "mine.py: SyntaxError: invalid syntax (mine.py, line 1)"),
])
def test_a_file_that_fails_says_where(capsys, line, message):
    Path("mine.py").write_text(line)
    status, _, err = run(capsys, "count", "affine_coupling", "--with", "mine.py")
    assert status == 2 and err == f"genmini: {message}\n"


def test_a_file_imports_its_neighbours_as_the_exercises_do(capsys):
    Path("own").mkdir()
    Path("own/my_search.py").write_text(SEARCH.format(line="pass"))
    Path("own/mine.py").write_text("import my_search")
    before = [*sys.path]
    try:
        status, _, err = run(capsys, "count", "nearest_code", "--with", "own/mine.py")
    finally:
        sys.modules.pop("my_search", None)
    assert status == 2 and "launches kernels of no sources here" in err and sys.path == before


def test_a_folder_is_no_file_and_a_size_has_a_limit(capsys):
    Path("mine.py").mkdir()
    status, _, err = run(capsys, "count", "affine_coupling", "--with", "mine.py")
    assert status == 2 and err == "genmini: --with takes a .py file, and mine.py is a folder\n"
    status, _, err = run(capsys, "count", "affine_coupling", "--shape", f"N={10**20}")
    assert status == 2 and "--shape takes NAME=SIZE with a size from 1 to 10^9" in err
