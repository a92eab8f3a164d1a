"""Proofs and laws of the nearest code room (kernels/nearest_code.py): the index is the true argmin; the step is the course's."""

import math

import numpy as np
import pytest
import torch
from check import DTYPES, dtypes, laid_out, layouts, matches, numbers, opaque, registered, runs, seeds
from genmini.kernels import nearest_code as room
from hypothesis import example, given
from hypothesis import strategies as st

from genmini import kernels, ops

RUNS = runs("nearest_code")
STEP_RUNS = runs("quantize")
everywhere = pytest.mark.parametrize("run", RUNS, ids=str)
each_step = pytest.mark.parametrize("run", STEP_RUNS, ids=str)
INF, NAN = math.inf, math.nan


def definition(z, e):
    """The contract, in NumPy: double, d ascending, every operation rounded on its own, NaN counts as infinity, the lowest of equals."""
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


# ---- cruel data: each makes (N, D) rows and (K, D) codes in float64 that are hard to tell apart ----------------------------------------


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


SINGLE = [gaussian, trained, midpoints, near_duplicates, duplicates, equal_codes, lattice, long_sums, offset(1e3), offset(1e6), initialised]
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


# ---- the law: the index is the argmin of the definition --------------------------------------------------------------------------------


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
    room.launch_search(choice, z.to(run.device).contiguous(), e.to(run.device).contiguous(), found)
    return found


@pytest.mark.parametrize("run", [r for r in RUNS if r.rung not in (None, "naive")], ids=str)
def test_the_screen_proves_most_rows(run):
    """Exactness alone would not notice a screen that proves nothing and scans: these are upper bounds on the work that is left."""
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


# ---- each term of the margin is needed: z is nearer to A by a hair, and the screen alone says B ----------------------------------------


def between(z, A, B, longer=1, others=6):
    """A codebook whose centre is zero, so that nothing is rounded but what is meant to be: B, A, some longer ones, and their negatives."""
    long = [(4 + j) * longer * np.sign(B) for j in range(others)]
    half = np.stack([B, *long[:4], A, *long[4:]])  # A and B belong to different threads
    assert ((z - A) ** 2).sum() < ((z - B) ** 2).sum()
    return torch.from_numpy(z[None].copy()), torch.from_numpy(np.concatenate([half, -half]))


def rounded_codes():
    """A is rounded down to fp16 and B up, by almost half an ulp in every entry."""
    one, ulp = np.ones(64), 2.0**-10
    return between(one, one + 0.49 * ulp, one + 0.51 * ulp)


def rounded_far_codes():
    """The same, among codes so short that A and B are left out of the margin of their tile: then they must be left out of the bound."""
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
    """fp16 holds every number. A tensor core cuts bits off at each addition for A; for B, a power of two, there is nothing to cut."""
    rng = np.random.default_rng(0)
    z, A, B = 1 + (2 * rng.integers(512, size=(2, 1024)) + 1) / 1024, None, np.ones(1024)
    z, A = z
    z[-2:], A[-2:], B[-2:] = 0, (16, 2.0**-6), 0
    for d, grid in ((-2, 2.0**-9), (-1, 2.0**-9)):  # the last two entries of z leave A nearer by as little as fp16 can say
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
    """A is 2^-61 of the longest code, too short to be told from zero; B, twice as long, looks less far away than zero."""
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
        z_q, same, loss = ops.quantize(z.to(run.device), e.to(run.device))
    assert index.shape == same.shape == loss.shape == shape[:-1] and index.dtype == torch.int64
    assert torch.equal(index.cpu().flatten(), definition(z.reshape(-1, 5), e)) and torch.equal(index, same)
    assert torch.equal(z_q.cpu(), e[index.cpu()])


@everywhere
def test_the_index_is_registered(run):
    z, e = (a.to(run.device) for a in (numbers(7, 4), numbers(5, 4, seed=1)))
    opaque(torch.ops.genmini.nearest_code.default, (z, e, run.backend))
    with run.use():
        index = ops.nearest_code(z, e)
        torch._dynamo.reset()
        assert torch.equal(torch.compile(ops.nearest_code, fullgraph=True, backend="aot_eager", dynamic=True)(z, e), index)
        for in_dims, inputs in (((0, None), (torch.stack([z, z * 2, -z]), e)), ((None, 0), (z, torch.stack([e, e * 2, -e])))):
            each = [ops.nearest_code(*(a if d is None else a[b] for a, d in zip(inputs, in_dims, strict=True))) for b in range(3)]
            assert torch.equal(torch.func.vmap(ops.nearest_code, in_dims)(*inputs), torch.stack(each))


# ---- the step --------------------------------------------------------------------------------------------------------------------------


def graph(z, e, beta=0.25):
    """The course's step, written with detach."""
    index = (z.detach()[..., None, :] - e.detach()).square().sum(-1).argmin(-1)
    code, wide = e[index], torch.promote_types(torch.float32, torch.promote_types(z.dtype, e.dtype))
    stopped = (code.detach().to(wide) - z.to(wide)).square().sum(-1)
    moving = (code.to(wide) - z.detach().to(wide)).square().sum(-1)
    return (z + (code - z).detach()).to(z.dtype), index, moving + beta * stopped


step_shapes = st.sampled_from([(1, 1, 1), (5, 3, 2), (33, 7, 33), (70, 4, 64), (9, 40, 31), (0, 3, 4)])  # N, K, D


def apart(N, K, D, seed=0):
    """Rows with one nearest code each, whatever the rounding."""
    e = numbers(K, D, seed=seed, scale=3)
    return e[torch.arange(N) * 5 % max(1, K - 1)] + numbers(N, D, seed=seed + 1, scale=0.1), e


@each_step
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
@given(shape=step_shapes, seed=seeds, beta=st.sampled_from([0, 0.25, 2.0]))
def test_step_matches(run, dtype, shape, seed, beta):
    matches(run, lambda z, e: ops.quantize(z, e, beta), apart(*shape, seed=seed), dtype, lambda z, e: graph(z, e, beta))


@each_step
@pytest.mark.parametrize("z_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("e_dtype", DTYPES, ids=str)
def test_step_in_all_dtypes(run, z_dtype, e_dtype):
    """z_q, dz like z; de like e; loss float32, or float64 if an input is; each within a rounding of its dtype from the graph in float64."""
    z, e = apart(20, 6, 9)
    z, e = z.to(run.device, z_dtype).requires_grad_(), e.to(run.device, e_dtype).requires_grad_()
    exact = [a.detach().double().requires_grad_() for a in (z, e)]
    with run.use():
        z_q, index, loss = ops.quantize(z, e)
    found = [z_q, loss, *torch.autograd.grad((z_q * 0.5).sum() + loss.sum(), (z, e))]
    want_q, want_index, want_loss = graph(*exact)
    wanted = [want_q, want_loss, *torch.autograd.grad((want_q * 0.5).sum() + want_loss.sum(), exact)]
    assert torch.equal(index, want_index)
    result = torch.float64 if torch.float64 in (z_dtype, e_dtype) else torch.float32
    assert [a.dtype for a in found] == [z_dtype, result, z_dtype, e_dtype]
    for got, want in zip(found, wanted, strict=True):
        assert (got.double() - want).abs().max() <= 2 * torch.finfo(got.dtype).eps * want.abs().max()


@each_step
def test_step_registered(run):
    """Forward, first and second gradients, compiled, mapped: all equal those of the graph."""
    registered(run, ops.quantize, list(apart(4, 3, 2)), argnums=(0, 1), plain=graph)


@each_step
def test_step_opaque(run):
    z, e = (a.to(run.device) for a in apart(4, 3, 2))
    index = torch.tensor([0, 2, 2, 1], device=run.device)
    opaque(torch.ops.genmini.quantize.default, (z, e, index, 0.25, run.backend))
    opaque(torch.ops.genmini.quantize_dz.default, (z, z[:, 0].contiguous(), z, e, index, 0.25, run.backend))
    opaque(torch.ops.genmini.quantize_de.default, (z[:, 0].contiguous(), z, e, index, run.backend))


@pytest.mark.parametrize("run", [run for run in STEP_RUNS if run.backend != "reference"], ids=str)
@pytest.mark.parametrize("bad", [-1, 2, 3])
def test_a_bad_index_reads_no_code_and_adds_nothing(run, bad):
    """The memory around e holds NaN: a code that is read there shows in z_q, the loss and dz."""
    around = torch.full((8, 3), NAN, dtype=torch.float64, device=run.device)
    e = around[2:4].copy_(numbers(2, 3))
    z, dz_q, dloss = (a.to(run.device) for a in (numbers(3, 3, seed=1), numbers(3, 3, seed=2), numbers(3, seed=3)))
    index = torch.tensor([1, bad, 0], device=run.device)
    with run.use():
        choice = kernels.chosen("quantize", run.device)
    z_q, loss = room.launch_step(choice, z, e, index, 0.25)
    dz, de = room.launch_dz(choice, dz_q, dloss, z, e, index, 0.25), room.launch_de(choice, dloss, z, e, index)
    assert not z_q[1].any() and loss[1] == 0 and torch.equal(dz[1], dz_q[1])
    good = torch.tensor([0, 2], device=run.device)
    z, dz_q, dloss, index = (a[good] for a in (z, dz_q, dloss, index))
    torch.testing.assert_close((z_q[good], loss[good]), room.reference_step(z, e, index, 0.25))
    torch.testing.assert_close(dz[good], room.dz_formula(dz_q, dloss, z, e, index, 0.25, ""))
    torch.testing.assert_close(de, room.de_formula(dloss, z, e, index, ""))


@each_step
@pytest.mark.parametrize("dynamic", [True, None])
def test_beta_may_change_between_calls_of_a_compiled_step(run, dynamic):
    z, e = numbers(5, 3).to(run.device), numbers(4, 3, seed=1).to(run.device).requires_grad_()
    torch._dynamo.reset()
    compiled = torch.compile(ops.quantize, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    with run.use():
        for beta in (0.25, 0.5, 1):
            (*got, loss), (*wanted, wanted_loss) = compiled(z, e, beta), ops.quantize(z, e, beta)
            torch.testing.assert_close([*got, loss], [*wanted, wanted_loss])
            torch.testing.assert_close(torch.autograd.grad(loss.sum(), e), torch.autograd.grad(wanted_loss.sum(), e))


@each_step
def test_each_gradient_alone(run):
    z, e = (a.to(run.device) for a in apart(6, 4, 3))
    for moves in ((True, False), (False, True)):
        inputs = [a.clone().requires_grad_(m) for a, m in zip((z, e), moves, strict=True)]
        with run.use():
            z_q, _, loss = ops.quantize(*inputs)
        want_q, _, want_loss = graph(*inputs)
        moving = [a for a in inputs if a.requires_grad]
        for got, want in zip(torch.autograd.grad(loss.sum(), moving), torch.autograd.grad(want_loss.sum(), moving), strict=True):
            torch.testing.assert_close(got, want)
        assert z_q.requires_grad == (moves[0] or moves[1])
        if moves[1]:  # the codebook learns from the loss alone
            assert torch.autograd.grad(ops.quantize(*inputs)[0].sum(), inputs[1])[0].count_nonzero() == 0


@each_step
def test_the_codebook_gradient_has_the_same_bits_every_time(run):
    """Most rows share a code: an atomic sum would differ from run to run."""
    z = numbers(3000, 5, dtype=torch.float32).to(run.device)
    e = torch.cat([torch.zeros(1, 5), 9 + numbers(3, 5, dtype=torch.float32)]).to(run.device).requires_grad_()
    found, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, threads):
            torch.set_num_threads(count)
            with run.use():
                found.append(torch.autograd.grad(ops.quantize(z, e)[2].sum(), e)[0])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found)
    torch.testing.assert_close(found[0][0], -2 * z.double().sum(0).float())


@each_step
def test_a_nan_row_spoils_what_arithmetic_says(run):
    z, e = (a.float().to(run.device) for a in apart(4, 3, 2))
    z[2, 0] = NAN
    z.requires_grad_(), e.requires_grad_()
    with run.use():
        z_q, index, loss = ops.quantize(z, e)
        dz, de = torch.autograd.grad(loss.sum(), (z, e))
    assert index[2] == 0 and torch.equal(z_q[2], e[0])
    assert loss.isnan().tolist() == [False, False, True, False]
    assert dz.isnan().tolist() == [[False] * 2] * 2 + [[True, False]] + [[False] * 2]
    assert de.isnan().tolist() == [[True, False]] + [[False] * 2] * 2


@each_step
def test_gradients_run_where_their_forward_ran(run, monkeypatch):
    z, e = (a.to(run.device).requires_grad_() for a in apart(4, 3, 2))
    with run.use():
        z_q, _, loss = ops.quantize(z, e)
    names, chosen = [], room._backend.chosen
    monkeypatch.setattr(room._backend, "chosen", lambda *a: names.append(chosen(*a)) or names[-1])
    with kernels.use("reference"):
        (z_q.sum() + loss.sum()).backward()
    assert [n.backend for n in names] == [run.backend] * 2


@everywhere
def test_autocast_computes_in_float32(run):
    z, e = (a.to(run.device, torch.bfloat16) for a in apart(4, 3, 2))
    with run.use(), torch.autocast(run.device, torch.bfloat16):
        z_q, index, loss = ops.quantize(z, e.float())
    assert z_q.dtype == loss.dtype == torch.float32
    assert torch.equal(index.cpu(), definition(z.cpu(), e.cpu()))


def test_errors_name_the_argument():
    z, e = torch.zeros(2, 3), torch.zeros(4, 3)
    for operator in (ops.nearest_code, ops.quantize):
        for wrong in (e[:, :2], e[:0], e[0], e[None]):
            with pytest.raises(ValueError, match=r"codebook must have shape \(K, D\) with D = 3 of z"):
                operator(z, wrong)
        with pytest.raises(ValueError, match=r"z must have shape \(..., D\)"):
            operator(z[0, 0], e)
        with pytest.raises(TypeError, match="z must be of dtype float32, float16, bfloat16 or float64, got int64"):
            operator(z.long(), e)
        with pytest.raises(TypeError, match="codebook must be a tensor, got list"):
            operator(z, [1.0])
        with pytest.raises(ValueError, match="codebook must be on the device of z, cpu, got meta"):
            operator(z, e.to("meta"))
    with pytest.raises(TypeError, match="beta must be a number, got str"):
        ops.quantize(z, e, "0.25")


def test_meta_tensors_pass():
    z_q, index, loss = ops.quantize(torch.zeros(2, 3, 4, device="meta"), torch.zeros(5, 4, device="meta"))
    assert z_q.shape == (2, 3, 4) and index.shape == loss.shape == (2, 3)
