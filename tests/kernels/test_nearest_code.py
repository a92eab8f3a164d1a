"""Proofs and laws of the nearest code room (kernels/nearest_code.py): the index is the true argmin."""

import pytest
import torch
from check import DTYPES, dtypes, laid_out, layouts, numbers, opaque, runs, seeds
from genmini.kernels import nearest_code as room
from hypothesis import example, given
from hypothesis import strategies as st
from nearest_code_data import (
    DOUBLE,
    HAIRS,
    INF,
    NAN,
    SINGLE,
    WIDE,
    definition,
    duplicates,
    equal_codes,
    gaussian,
    initialised,
    kinds_for,
    lattice,
    long_sums,
    made,
    midpoints,
    nan_and_infinite_codes,
    near_duplicates,
    no_finite_code,
    offset,
    one_code_at,
    rows_of_all_sizes,
    scaled,
    trained,
)

from genmini import kernels, ops

RUNS = runs("nearest_code")
everywhere = pytest.mark.parametrize("run", RUNS, ids=str)


def check_exact(run, z, e):
    with run.use():
        got = ops.nearest_code(z.to(run.device), e.to(run.device)).cpu()
    want = definition(z, e)
    wrong = (got != want).nonzero().flatten().tolist()
    assert not wrong, f"rows {wrong[:5]}: got {got[wrong[:5]].tolist()}, nearest is {want[wrong[:5]].tolist()}"


# ---- the law: the index is the argmin of the definition --------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("cruel", SINGLE + WIDE, ids=lambda f: f.__name__)
@pytest.mark.parametrize("D", [3, 40])
def test_the_index_is_the_argmin(run, cruel, D):
    check_exact(run, *made(cruel, 33, 261, D, 1, torch.float32, torch.float32))


@everywhere
@pytest.mark.parametrize("cruel", SINGLE + WIDE + DOUBLE, ids=lambda f: f.__name__)
def test_the_index_is_the_argmin_in_float64(run, cruel):
    check_exact(run, *made(cruel, 20, 140, 9, 2, torch.float64, torch.float64))


@everywhere
@pytest.mark.parametrize("z_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("e_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cruel", [gaussian, midpoints, near_duplicates, offset(1e3)], ids=lambda f: f.__name__)
def test_the_index_is_the_argmin_in_all_dtypes(run, z_dtype, e_dtype, cruel):
    check_exact(run, *made(cruel, 12, 150, 17, 3, z_dtype, e_dtype))


@st.composite
def problems(draw):
    z_dtype, e_dtype = draw(dtypes), draw(dtypes)
    cruel = draw(st.sampled_from(kinds_for(z_dtype, e_dtype)))
    N = draw(st.sampled_from([0, 1, 2, 7, 8, 9, 31, 127, 128, 129]))
    K = draw(st.sampled_from([1, 2, 3, 31, 127, 128, 129, 255, 257, 385]))
    D = draw(st.sampled_from([1, 2, 3, 8, 15, 16, 17, 31, 32, 33, 64, 65]))
    return cruel, N, K, D, draw(seeds), z_dtype, e_dtype


@everywhere
@given(problem=problems())
@example(problem=(lattice, 129, 385, 2, 5, torch.float32, torch.float32))
@example(problem=(long_sums, 40, 130, 256, 5, torch.float16, torch.float32))
@example(problem=(gaussian, 5, 1, 1, 5, torch.float32, torch.float32))
@example(problem=(gaussian, 129, 385, 100, 5, torch.float32, torch.float32))  # rows that stay while codes pass
@example(problem=(gaussian, 129, 385, 160, 5, torch.float32, torch.float32))  # and those that come with each tile
def test_the_index_is_the_argmin_for_all_shapes(run, problem):
    check_exact(run, *made(*problem))


@everywhere
def test_long_vectors(run):
    for cruel in (gaussian, midpoints, long_sums):
        check_exact(run, *made(cruel, 6, 130, 1024, 6, torch.float32, torch.float32))


@everywhere
def test_long_codebook(run):
    """K = 2^20 where that is affordable: the emulator draws a shorter one."""
    K = 2**20 if run.backend in ("cpu", "cuda") or run.rung == "naive" else 2**12 + 3
    check_exact(run, *made(gaussian, 3, K, 2, 7, torch.float32, torch.float32))


@pytest.mark.parametrize("run", [r for r in RUNS if r.rung not in (None, "naive")], ids=str)
@pytest.mark.parametrize("S", [1, 2, 3, 5])
def test_the_answer_does_not_depend_on_the_split(run, S, monkeypatch):
    monkeypatch.setattr(room, "splits", lambda *_: S)
    for cruel in (gaussian, duplicates, midpoints):
        check_exact(run, *made(cruel, 130, 600, 20, 8, torch.float32, torch.float32))


@pytest.mark.parametrize("run", [r for r in RUNS if r.rung], ids=str)
def test_many_rows_are_searched_in_parts(run, monkeypatch):
    monkeypatch.setattr(room, "ROWS", 64)
    for N in (63, 64, 65, 200):
        check_exact(run, *made(gaussian, N, 150, 20, N, torch.float32, torch.float32))


def effort(run, z, e):
    """How many codes of each row the screen left over; -1 where the row was scanned."""
    with run.use():
        choice = kernels.chosen("nearest_code", run.device)
    found = torch.empty(len(z), dtype=torch.int64)
    room.launch(choice.backend, choice.rung, z.to(run.device).contiguous(), e.to(run.device).contiguous(), found)
    return found


@pytest.mark.parametrize("run", [r for r in RUNS if r.rung not in (None, "naive")], ids=str)
def test_the_screen_proves_most_rows(run):
    """The work left after the screen has upper bounds: a screen that proves nothing and scans is exact too."""
    data = [gaussian, trained, initialised, nan_and_infinite_codes, rows_of_all_sizes, one_code_at(1e6)]
    for cruel in [*data, offset(1e3), offset(1e6), scaled(1e30), scaled(1e-40)]:
        z, e = made(cruel, 128, 512, 64, 11, torch.float64, torch.float64)
        if cruel.__name__ == "rows_of_all_sizes":
            z = z[z.abs().amax(1) < 1e6]  # from 1e9 on all codes are equally far to double itself
        left = effort(run, z, e)
        limit = 1.02 if run.rung == "tiled" else 1.25
        assert (left > 0).all() and left.double().mean() < limit, (cruel.__name__, left.tolist())


@pytest.mark.parametrize("run", [r for r in RUNS if r.rung not in (None, "naive")], ids=str)
def test_what_cannot_be_screened_is_scanned(run):
    z, e = made(gaussian, 20, 130, 8, 12, torch.float64, torch.float64)
    z[0, 0], z[1, 1], z[2] = NAN, INF, 1e25
    assert effort(run, z, e)[:3].tolist() == [-1] * 3
    for cruel in (equal_codes, no_finite_code, *DOUBLE):
        assert (effort(run, *made(cruel, 20, 130, 8, 12, torch.float64, torch.float64)) == -1).all(), cruel.__name__


@everywhere
@pytest.mark.parametrize("made", HAIRS, ids=lambda f: f.__name__)
def test_every_term_of_the_margin_is_needed(run, made):
    z, e = made()
    check_exact(run, z, e)
    assert definition(z, e).tolist() == [5]


@everywhere
def test_nan_and_infinity_by_hand(run):
    e = torch.tensor([[0.0, 0.0], [NAN, 1.0], [1.0, 1.0], [INF, 1.0]])
    z = torch.tensor([[0.9, 0.9], [NAN, 1.0], [INF, 1.0], [-INF, 0.0], [0.5, 0.5], [0.6, 0.5]])
    with run.use():
        assert ops.nearest_code(z.to(run.device), e.to(run.device)).tolist() == [2, 0, 0, 0, 0, 2]


@everywhere
@given(layout=layouts, e_layout=layouts)
def test_any_strides(run, layout, e_layout):
    z, e = made(gaussian, 20, 50, 6, 9, torch.float32, torch.float32)
    check_exact(run, laid_out(z, layout), laid_out(e, e_layout))
    check_exact(run, z[:1].expand(20, -1), e.flip(0))


@everywhere
@pytest.mark.parametrize("shape", [(5,), (0, 5), (2, 0, 5), (2, 3, 5), (1, 1, 1, 5)])
def test_any_leading_dimensions(run, shape):
    z, e = numbers(*shape, dtype=torch.float32), numbers(9, 5, seed=1, dtype=torch.float32)
    with run.use():
        index = ops.nearest_code(z.to(run.device), e.to(run.device))
    assert index.shape == shape[:-1] and index.dtype == torch.int64
    assert torch.equal(index.cpu().flatten(), definition(z.reshape(-1, 5), e))


@everywhere
def test_the_index_is_registered(run):
    z, e = (a.to(run.device) for a in (numbers(7, 4), numbers(5, 4, seed=1)))
    opaque(torch.ops.genmini.nearest_code.default, (z, e, run.backend))
    with run.use():
        index = ops.nearest_code(z, e)
        torch._dynamo.reset()
        assert torch.equal(
            torch.compile(ops.nearest_code, fullgraph=True, backend="aot_eager", dynamic=True)(z, e), index
        )
        for in_dims, inputs in (((0, None), (torch.stack([z, z * 2, -z]), e)),
                                ((None, 0), (z, torch.stack([e, e * 2, -e])))):
            each = [ops.nearest_code(*(a if d is None else a[b] for a, d in zip(inputs, in_dims, strict=True)))
                    for b in range(3)]
            assert torch.equal(torch.func.vmap(ops.nearest_code, in_dims)(*inputs), torch.stack(each))


@everywhere
def test_autocast_computes_in_float32(run):
    z, e = (a.to(run.device, torch.bfloat16) for a in (numbers(20, 6), numbers(9, 6, seed=1)))
    with run.use(), torch.autocast(run.device, torch.bfloat16):
        index = ops.nearest_code(z, e.float())
    assert torch.equal(index.cpu(), definition(z.cpu(), e.cpu()))


def test_errors_name_the_argument():
    z, e = torch.zeros(2, 3), torch.zeros(4, 3)
    for wrong in (e[:, :2], e[:0], e[0], e[None]):
        with pytest.raises(ValueError, match=r"codebook must have shape \(K, D\) with D = 3 of z"):
            ops.nearest_code(z, wrong)
    with pytest.raises(ValueError, match=r"z must have shape \(..., D\)"):
        ops.nearest_code(z[0, 0], e)
    with pytest.raises(TypeError, match="z must be of dtype float32, float16, bfloat16 or float64, got int64"):
        ops.nearest_code(z.long(), e)
    with pytest.raises(TypeError, match="codebook must be a tensor, got list"):
        ops.nearest_code(z, [1.0])
    with pytest.raises(ValueError, match="codebook must be on the device of z, cpu, got meta"):
        ops.nearest_code(z, e.to("meta"))


def test_meta_tensors_pass():
    index = ops.nearest_code(torch.zeros(2, 3, 4, device="meta"), torch.zeros(5, 4, device="meta"))
    assert index.shape == (2, 3) and index.dtype == torch.int64
