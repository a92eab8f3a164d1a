"""What the rungs of the rooms in Triton load and move, by numbers worked out by hand, and mistakes that the counts see.

Each law says of a room what its lessons do (`genmini bench ROOM`): which counter falls from a rung to the next.
"""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from genmini.kernels import _backend

from genmini import counting, kernels

MISSING = _backend._cannot_emulate(kernels.ROOMS["masked_linear"], torch.device("cpu"))
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


def counted(room, rung, *names, l2=float("inf"), **sizes):
    """Of the launches of these kernels: numbers loaded, bytes of DRAM read and written, operations of tl.dot."""
    launches = [one for one in counting.count(room, rung, l2, **sizes).launches if one.kernel in names]
    assert {one.kernel for one in launches} == {*names}
    total = lambda name: sum(one.counters[name] for one in launches)
    loaded = sum(row.thread_inst_executed for one in launches for row in one.rows if row.what == "load")
    return (loaded, total("dram__bytes_read.sum"), total("dram__bytes_write.sum"), sum(one.flop for one in launches))


def softmax_nll():
    """online loads each logit once, naive twice: the second time from a cache. Targets have 8 bytes."""
    N, L, P = 2, 24, 32
    moved = 4 * N * L * P + 8 * N * P, 3 * 4 * N * P, 0
    assert counted("softmax_nll", "naive", "nll_of", N=N, L=L, P=P) == (2 * N * L * P + N * P, *moved)
    assert counted("softmax_nll", "online", "nll_of", N=N, L=L, P=P) == (N * L * P + N * P, *moved)


def gaussian_kl():
    """naive reads mu, l, eps, then mu and l, and writes z: 6 numbers an element; fused 4."""
    N, D = 8, 64
    written = 4 * (N * D + N)
    assert counted("gaussian_kl", "naive", "reparameterise", "divergence", N=N, D=D) == (
        5 * N * D, 5 * 4 * N * D, written, 0)
    assert counted("gaussian_kl", "fused", "fused", N=N, D=D) == (3 * N * D, 3 * 4 * N * D, written, 0)


def group_norm_silu():
    """naive loads a group three times forward, x and dy twice backward; held once. With gamma and beta of its channels
    twice 8, or 8 of each channel; statistics are 3 numbers a group."""
    N, C, P, G = 2, 16, 16, 2
    sizes, moved = dict(N=N, C=C, side=4), (4 * N * C * P + 2 * 4 * C, 4 * N * C * P + 64, 0)
    assert counted("group_norm_silu", "naive", "forward", **sizes) == (3 * N * C * P + 2 * N * C, *moved)
    assert counted("group_norm_silu", "held", "forward", **sizes) == (N * C * P + 2 * N * C, *moved)
    naive, held = (counted("group_norm_silu", rung, "backward", **sizes) for rung in ("naive", "held"))
    assert naive[0] == 4 * N * C * P + 4 * N * C + 3 * N * G and held[0] == 2 * N * C * P + 2 * N * C + 3 * N * G


def info_nce():
    """naive walks once for the rows and once for the columns; shared once. Tiles are 64 x 64; scale is a sector."""
    N, D = 128, 32
    naive, shared = (counted("info_nce", rung, "walk", N=N, D=D) for rung in ("naive", "shared"))
    assert shared[3] == 2 * N * N * D and naive[3] == 2 * shared[3]
    assert shared[:2] == (2 * 2 * N * D + 2, 2 * 4 * N * D + 32) and naive[:2] == (2 * shared[0], 2 * shared[1])


def ddim_step():
    """naive loads x and the output for each of 31 bits, and for the step; held once."""
    N, D = 2, 96
    read = 2 * 4 * N * D
    assert counted("ddim_step", "naive", "ranked", N=N, D=D)[:2] == (31 * 2 * N * D, read)
    assert counted("ddim_step", "naive", "step", N=N, D=D)[0] == 2 * N * D + N
    assert counted("ddim_step", "held", "held", N=N, D=D) == (2 * N * D, read, 4 * N * D, 0)


def q_sample():
    """A row's time, alpha and sigma are loaded once a tile, of 8 rows; its numbers once."""
    N, D = 8, 128
    loaded, read, written, _ = counted("q_sample", "fused", "fused", N=N, D=D)
    assert (loaded, written) == (2 * N * D + 3 * N, 4 * N * D) and 0 <= read - (2 * 4 * N * D + 8 * N) <= 2 * 32 * N


def masked_linear():
    """W is 2 x 2 tiles of 64 x 32, of which 3 are live. The second cache does not hold x and what is written meanwhile:
    under staircase x passes for each row of W, the first of which sees half of it; under grouped 8 tiles of 64 rows
    stay while W passes. dx is one column of tiles, of which all are live."""
    N, K, J = 1280, 64, 128
    held, passed, grouped = (counted("masked_linear", rung, "product", l2=l2, N=N, K=K, J=J)
                             for rung, l2 in (("staircase", 1e9), ("staircase", 360e3), ("grouped", 360e3)))
    assert held[3] == (3 / 4 + 1) * 2 * N * K * J
    assert grouped == held and passed == (held[0], held[1] + 4 * N * K / 2, *held[2:])


LAWS = {law.__name__: law for law in (softmax_nll, gaussian_kl, group_norm_silu, info_nce, ddim_step, q_sample,
                                      masked_linear)}


@pytest.mark.parametrize("room", LAWS)
def test_what_the_rungs_load_and_move(room):
    LAWS[room]()


@pytest.mark.parametrize("room, right, wrong", [
    ("softmax_nll", "l.to(tl.int64)[:, None] * a_l", "l.to(tl.int64)[:, None] * a_l // 2"),
    ("gaussian_kl", "at, ok = n[:, None] * D + d[None, :]", "at, ok = n[:, None] * (D - 8) + d[None, :]"),
    ("group_norm_silu", "at = ng * R + m * P + p", "at = ng * R + p"),
    ("info_nce", "a_ptr + n.to(tl.int64)[:, None] * D", "a_ptr + n.to(tl.int64)[:, None]"),
    ("ddim_step", "predicted(n * D + d, d < D", "predicted(n + d, d < D"),
    ("q_sample", "tl.load(x0_ptr + at, ok", "tl.load(x0_ptr + at // 2, ok"),
    ("masked_linear", "tl.cdiv(J, BJ), GROUP)", "tl.cdiv(J, BJ), tl.cdiv(N, BN))"),
], ids=[*LAWS])
def test_a_mistake_in_a_kernel_is_counted(room, right, wrong, monkeypatch, tmp_path):
    """In a copy of the room's kernels, which take their place."""
    module = sys.modules[f"genmini.kernels.{room}"]
    text = Path(module.__file__).read_text()
    text = text[text.index("# ---- kernel") : text.index("# ---- launcher")]
    assert text.count(right) == 1
    (tmp_path / "mistaken.py").write_text(f"from {module.__name__} import *\n\n{text.replace(right, wrong)}")
    spec = importlib.util.spec_from_file_location("mistaken", tmp_path / "mistaken.py")
    spec.loader.exec_module(mistaken := importlib.util.module_from_spec(spec))
    for name, kernel in vars(mistaken).items():
        if f"\ndef {name}(" in text:
            monkeypatch.setattr(module, name, kernel)
    with pytest.raises(AssertionError):
        LAWS[room]()
