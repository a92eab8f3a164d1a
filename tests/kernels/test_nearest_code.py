"""Proofs and laws of the nearest code room (kernels/nearest_code.py): the index is the true argmin."""

import math

import numpy as np
import pytest
import torch
from check import DTYPES, dtypes, laid_out, layouts, numbers, opaque, runs, seeds
from genmini.kernels import nearest_code as room
from hypothesis import example, given
from hypothesis import strategies as st

from genmini import kernels, ops

RUNS = runs("nearest_code")
everywhere = pytest.mark.parametrize("run", RUNS, ids=str)
INF, NAN = math.inf, math.nan


def definition(z, e):
    """Return the index of the contract, in NumPy.

    Double, d ascending, every operation rounded on its own, NaN counts as infinity, the lowest of equals.
    """
    z, e = z.double().numpy(), e.double().numpy()
    distance = np.zeros((len(z), len(e)))
    with np.errstate(all="ignore"):
        for d in range(z.shape[1]):
            t = z[:, d, None] - e[None, :, d]
            distance = distance + t * t
    distance[np.isnan(distance)] = INF
    return torch.from_numpy(distance.argmin(1))


def check_exact(run, z, e):
    with run.use():
        got = ops.nearest_code(z.to(run.device), e.to(run.device)).cpu()
    want = definition(z, e)
    wrong = (got != want).nonzero().flatten().tolist()
    assert not wrong, f"rows {wrong[:5]}: got {got[wrong[:5]].tolist()}, nearest is {want[wrong[:5]].tolist()}"


# ---- cruel data: each makes (N, D) rows and (K, D) codes in float64 that are hard to tell apart ----------------------


def gaussian(z, e, rng):
    return z, e


def trained(z, e, rng):
    return e[rng.integers(len(e), size=len(z))] + 0.05 * z, e


def midpoints(z, e, rng):
    """A row between two codes, off the middle by a few roundings."""
    a, b = e[rng.integers(len(e), size=(2, len(z)))]
    return (a + b) / 2 * (1 + 2.0**-24 * rng.integers(-3, 4, size=z.shape)), e


def near_duplicates(z, e, rng):
    """Codes that differ from one another in one entry, by one rounding of float32."""
    e = np.repeat(e[: max(1, len(e) // 8)], 8, 0)[: len(e)]
    return z, e * (1 + 2.0**-23 * (rng.integers(e.shape[1], size=len(e))[:, None] == np.arange(e.shape[1])))


def duplicates(z, e, rng):
    return z, e[rng.integers(max(1, len(e) // 4), size=len(e))]


def equal_codes(z, e, rng):
    return z, np.broadcast_to(e[:1], e.shape)


def lattice(z, e, rng):
    """Small integers: many exact ties, and nothing is rounded but the screen's sums."""
    return rng.integers(-2, 3, size=z.shape).astype(float), rng.integers(-2, 3, size=e.shape).astype(float)


def long_sums(z, e, rng):
    """Integers that fp16 holds, codes a step from one another: the screen's only error is that of its accumulation."""
    base = rng.integers(1500, 2000, size=(1, e.shape[1]))
    sign = np.ones_like(e)
    sign[1::2] = -1
    return base + rng.integers(0, 2, size=z.shape) + 0.0, sign * base + rng.integers(0, 2, size=e.shape)


def offset(by):
    def cruel(z, e, rng):
        return z + by, e + by

    cruel.__name__ = f"offset_{by:g}"
    return cruel


def scaled(by):
    def cruel(z, e, rng):
        return z * by, e * by

    cruel.__name__ = f"scaled_{by:g}"
    return cruel


def rows_of_all_sizes(z, e, rng):
    return z * 10.0 ** rng.integers(-30, 31, size=(len(z), 1)), e


def codes_of_all_sizes(z, e, rng):
    return z, e * 10.0 ** rng.integers(-12, 13, size=(len(e), 1))


def one_code_at(far):
    def cruel(z, e, rng):
        e = e.copy()
        e[rng.integers(len(e))] = far
        return z, e

    cruel.__name__ = f"one_code_at_{far:g}"
    return cruel


def initialised(z, e, rng):
    """VQ-VAE's e ~ U(-1/K, 1/K): all codes seem the same from far away."""
    return z, rng.uniform(-1, 1, size=e.shape) / len(e)


def nan_and_infinite_codes(z, e, rng):
    e = e.copy()
    for value in (NAN, INF, -INF):
        e[rng.integers(len(e)), rng.integers(e.shape[1])] = value
    return z, e


def nan_and_infinite_rows(z, e, rng):
    z = z.copy()
    for value in (NAN, INF, -INF):
        if len(z):
            z[rng.integers(len(z)), rng.integers(z.shape[1])] = value
    return z, e


def no_finite_code(z, e, rng):
    return z, np.where(np.arange(e.shape[1]) == 0, NAN, e)


def last_code_is_nearest(z, e, rng):
    return np.broadcast_to(e[-1:], z.shape) + 1e-3 * z, e


SINGLE = [gaussian, trained, midpoints, near_duplicates, duplicates, equal_codes, lattice, long_sums, offset(1e3),
          offset(1e6), initialised]
SINGLE += [nan_and_infinite_codes, nan_and_infinite_rows, no_finite_code, last_code_is_nearest, codes_of_all_sizes]
WIDE = [scaled(1e30), scaled(1e-40), rows_of_all_sizes, one_code_at(1e6), one_code_at(1e30)]  # beyond float16
DOUBLE = [scaled(1e300), scaled(1e-300), scaled(1e150), scaled(1e-155)]  # where double itself over- and underflows


def made(cruel, N, K, D, seed, z_dtype, e_dtype):
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        z, e = cruel(rng.standard_normal((N, D)), rng.standard_normal((K, D)), rng)
    return torch.from_numpy(np.array(z)).to(z_dtype), torch.from_numpy(np.array(e)).to(e_dtype)


def kinds_for(*given_dtypes):
    fits = torch.float16 not in given_dtypes
    return SINGLE + WIDE * fits + DOUBLE * (set(given_dtypes) == {torch.float64})


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


# ---- each term of the margin is needed: z is nearer to A by very little, and the screen alone says B -----------------


def between(z, A, B, longer=1, others=6):
    """Return z and a codebook of B, A, some longer codes, and the negatives of all.

    So its centre is zero, and nothing is rounded but what is meant to be.
    """
    long = [(4 + j) * longer * np.sign(B) for j in range(others)]
    half = np.stack([B, *long[:4], A, *long[4:]])  # A and B belong to different threads
    assert ((z - A) ** 2).sum() < ((z - B) ** 2).sum()
    return torch.from_numpy(z[None].copy()), torch.from_numpy(np.concatenate([half, -half]))


def rounded_codes():
    """A is rounded down to fp16 and B up, by almost half an ulp in every entry."""
    one, ulp = np.ones(64), 2.0**-10
    return between(one, one + 0.49 * ulp, one + 0.51 * ulp)


def rounded_far_codes():
    """The same, among codes so short that the margin of the tile leaves A and B out, so that the bound must too."""
    one, ulp = np.ones(64), 2.0**-10
    return between(one, one + 0.49 * ulp, one + 0.51 * ulp, longer=2.0**-11, others=62)


def rounded_row():
    """A - B = 2 in half of the entries; the sum of z over them is positive, and negative when z is rounded to fp16."""
    side, ulp = np.repeat([0, 1], 32), 2.0**-10
    z = np.where(side, 1.5 * (-1.0) ** np.arange(64), 1) + side * 0.49 * ulp
    z[0], A, B = -10 * ulp, np.ones(64), np.where(side, -1.0, 1)
    B[0] = -1
    return between(z, A, B)


def cut_sums():
    """fp16 holds every number; a tensor core cuts bits at each addition for A, and none for B, a power of two."""
    rng = np.random.default_rng(0)
    z, A, B = 1 + (2 * rng.integers(512, size=(2, 1024)) + 1) / 1024, None, np.ones(1024)
    z, A = z
    z[-2:], A[-2:], B[-2:] = 0, (16, 2.0**-6), 0
    # the last two entries of z leave A nearer by as little as fp16 can represent
    for d, grid in ((-2, 2.0**-9), (-1, 2.0**-9)):
        lead = ((z - A) ** 2).sum() - ((z - B) ** 2).sum()
        z[d] = np.ceil(lead / (2 * A[d]) / grid) * grid if d == -1 else np.floor(lead / (2 * A[d]) / grid) * grid
    return between(z, A, B)


def drifting_sums():
    """Every addition for A rounds down by almost half an ulp of the float that 1024 additions reach."""
    one = np.append(np.ones(1024), 0)
    A, B = one * (1 + 0.98 * 2.0**-15), one.copy()
    B[-1] = 2.0**-9
    return between(one, A, B)


def short_codes():
    """A is 2^-61 of the longest code, too short to be told from zero; B, twice as long, seems nearer than zero."""
    one, other = np.eye(4)[:2]
    return between(2.0**-30 * one, 1.9 * 2.0**-61 * one, 2.0**-60 * (0.25 * one + other), longer=2.0**-3)


HAIRS = [rounded_codes, rounded_far_codes, rounded_row, cut_sums, drifting_sums, short_codes]


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
