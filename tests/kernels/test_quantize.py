"""Proofs and laws of the quantize room (kernels/quantize.py): its step is that of the course's stop-gradients."""

import math

import pytest
import torch
from check import DTYPES, matches, numbers, opaque, registered, runs, seeds
from genmini.kernels import _backend
from genmini.kernels import quantize as room
from hypothesis import given
from hypothesis import strategies as st

from genmini import kernels, ops

RUNS = runs("quantize")
everywhere = pytest.mark.parametrize("run", RUNS, ids=str)
NAN = math.nan


def graph(z, e, beta=0.25):
    """The course's step, written with detach."""
    index = (z.detach()[..., None, :] - e.detach()).square().sum(-1).argmin(-1)
    code, wide = e[index], torch.promote_types(torch.float32, torch.promote_types(z.dtype, e.dtype))
    stopped = (code.detach().to(wide) - z.to(wide)).square().sum(-1)
    moving = (code.to(wide) - z.detach().to(wide)).square().sum(-1)
    return (z + (code - z).detach()).to(z.dtype), index, moving + beta * stopped


step_shapes = st.sampled_from([  # N, K, D
    (1, 1, 1), (5, 3, 2), (33, 7, 33), (70, 4, 64), (9, 40, 31), (5, 2, 160), (0, 3, 4)])


def apart(N, K, D, seed=0):
    """Rows with one nearest code each, whatever the rounding."""
    e = numbers(K, D, seed=seed, scale=3)
    return e[torch.arange(N) * 5 % max(1, K - 1)] + numbers(N, D, seed=seed + 1, scale=0.1), e


@everywhere
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
@given(shape=step_shapes, seed=seeds, beta=st.sampled_from([0, 0.25, 2.0]))
def test_step_matches(run, dtype, shape, seed, beta):
    matches(run, lambda z, e: ops.quantize(z, e, beta), apart(*shape, seed=seed), dtype, lambda z, e: graph(z, e, beta))


@everywhere
@pytest.mark.parametrize("z_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("e_dtype", DTYPES, ids=str)
def test_step_in_all_dtypes(run, z_dtype, e_dtype):
    """z_q and dz have the dtype of z, de that of e, and the loss float32, or float64 if an input is.

    Each is within a rounding of its dtype from the graph in float64.
    """
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


@everywhere
def test_step_registered(run):
    """Forward, first and second gradients, compiled, mapped: all equal those of the graph."""
    registered(run, ops.quantize, list(apart(4, 3, 2)), argnums=(0, 1), plain=graph)


@everywhere
def test_step_opaque(run):
    z, e = (a.to(run.device) for a in apart(4, 3, 2))
    index = torch.tensor([0, 2, 2, 1], device=run.device)
    opaque(torch.ops.genmini.quantize.default, (z, e, index, 0.25, run.backend))
    opaque(torch.ops.genmini.quantize_dz.default, (z, z[:, 0].contiguous(), z, e, index, 0.25, run.backend))
    opaque(torch.ops.genmini.quantize_de.default, (z[:, 0].contiguous(), z, e, index, run.backend))


@pytest.mark.parametrize("run", [run for run in RUNS if run.backend != "reference"], ids=str)
@pytest.mark.parametrize("bad", [-1, 2, 3])
def test_a_bad_index_reads_no_code_and_adds_nothing(run, bad):
    """The memory around e holds NaN: a code that is read there shows in z_q, the loss and dz."""
    around = torch.full((8, 3), NAN, dtype=torch.float64, device=run.device)
    e = around[2:4].copy_(numbers(2, 3))
    z, dz_q, dloss = (a.to(run.device) for a in (numbers(3, 3, seed=1), numbers(3, 3, seed=2), numbers(3, seed=3)))
    index = torch.tensor([1, bad, 0], device=run.device)
    who = run.backend, run.rung
    z_q, loss = room.launch(*who, z, e, index, 0.25)
    dz, de = room.launch_dz(*who, dz_q, dloss, z, e, index, 0.25), room.launch_de(*who, dloss, z, e, index)
    assert not z_q[1].any() and loss[1] == 0 and torch.equal(dz[1], dz_q[1])
    good = torch.tensor([0, 2], device=run.device)
    z, dz_q, dloss, index = (a[good] for a in (z, dz_q, dloss, index))
    torch.testing.assert_close((z_q[good], loss[good]), room.reference(z, e, index, 0.25))
    torch.testing.assert_close(dz[good], room.reference_dz(dz_q, dloss, z, e, index, 0.25))
    torch.testing.assert_close(de, room.reference_de(dloss, z, e, index))


@everywhere
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


@everywhere
def test_each_gradient_alone(run):
    z, e = (a.to(run.device) for a in apart(6, 4, 3))
    for moves in ((True, False), (False, True)):
        inputs = [a.clone().requires_grad_(m) for a, m in zip((z, e), moves, strict=True)]
        with run.use():
            z_q, _, loss = ops.quantize(*inputs)
        want_q, _, want_loss = graph(*inputs)
        moving = [a for a in inputs if a.requires_grad]
        for got, want in zip(torch.autograd.grad(loss.sum(), moving), torch.autograd.grad(want_loss.sum(), moving),
                             strict=True):
            torch.testing.assert_close(got, want)
        assert z_q.requires_grad == (moves[0] or moves[1])
        if moves[1]:  # the codebook learns from the loss alone
            assert torch.autograd.grad(ops.quantize(*inputs)[0].sum(), inputs[1])[0].count_nonzero() == 0


@everywhere
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
    of_sum = 3000 * 2**-24 * 2 * z.double().abs().sum(0)  # float32, in any order
    assert ((found[0][0] + 2 * z.double().sum(0)).abs() <= of_sum).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(40, 5, 7), (50, 4, 16), (9, 3, 75), (2, 1, 5000), (40, 30, 1), (2, 99, 3)], ids=str)
def test_the_cpu_gives_the_same_bits_on_every_instruction_set(shape, dtype, monkeypatch):
    """In float32 also those of the reference: its sums in double are added in another order, and rounded to float."""
    (z, e), seen = apart(*shape, seed=6), []
    for backend, instructions in [("cpu", "avx512"), ("cpu", "avx2"), ("cpu", "portable"), ("reference", "")]:
        monkeypatch.setenv("GENMINI_CPU", instructions)
        leaves = [a.to(dtype, copy=True).requires_grad_() for a in (z, e)]
        with kernels.use(backend):
            z_q, index, loss = ops.quantize(*leaves)
        along = [numbers(*a.shape, seed=7, dtype=dtype) for a in (z_q, loss)]
        seen.append((z_q, loss, *torch.autograd.grad([z_q, loss], leaves, along)))
    for other in seen[1:3] if dtype == torch.float64 else seen[1:]:
        assert all(map(torch.equal, seen[0], other))


@everywhere
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


@everywhere
def test_gradients_run_where_their_forward_ran(run, monkeypatch):
    z, e = (a.to(run.device).requires_grad_() for a in apart(4, 3, 2))
    with run.use():
        z_q, _, loss = ops.quantize(z, e)
    names, chosen = [], _backend.chosen
    monkeypatch.setattr(_backend, "chosen", lambda *a: names.append(chosen(*a)) or names[-1])
    with kernels.use("reference"):
        (z_q.sum() + loss.sum()).backward()
    assert [n.backend for n in names] == [run.backend] * 2


@everywhere
@pytest.mark.parametrize("shape", [(5,), (0, 5), (2, 0, 5), (2, 3, 5), (1, 1, 1, 5)])
def test_any_leading_dimensions(run, shape):
    z, e = (numbers(*shape, dtype=torch.float32).to(run.device),
            numbers(9, 5, seed=1, dtype=torch.float32).to(run.device))
    with run.use():
        z_q, index, loss = ops.quantize(z, e)
    assert z_q.shape == shape and index.shape == loss.shape == shape[:-1]
    assert torch.equal(index, ops.nearest_code(z, e)) and torch.equal(z_q, e[index])


@everywhere
def test_autocast_computes_in_float32(run):
    z, e = (a.to(run.device, torch.bfloat16) for a in apart(4, 3, 2))
    with run.use(), torch.autocast(run.device, torch.bfloat16):
        z_q, index, loss = ops.quantize(z, e.float())
    assert z_q.dtype == loss.dtype == torch.float32
    assert torch.equal(index.cpu(), ops.nearest_code(z.cpu(), e.cpu()))


def test_errors_name_the_argument():
    z, e = torch.zeros(2, 3), torch.zeros(4, 3)
    index = torch.zeros(2, dtype=torch.int64)
    for operator in (ops.quantize, lambda z, e: ops.quantize_step(z, e, index)):
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
    with pytest.raises(TypeError, match="index must be of dtype int64, got float32"):
        ops.quantize_step(z, e, index.float())
    with pytest.raises(ValueError, match=r"index must have shape that of z without D = \(2,\), got \(1,\)"):
        ops.quantize_step(z, e, index[:1])
    for outside in (-1, 4):
        with pytest.raises(ValueError, match=f"index must lie in 0 .. K-1 = 3, got values from .*{outside}"):
            ops.quantize_step(z, e, torch.tensor([0, outside]))
    with pytest.raises(TypeError, match="beta must be a number, got str"):
        ops.quantize(z, e, "0.25")


def test_meta_tensors_pass():
    z_q, index, loss = ops.quantize(torch.zeros(2, 3, 4, device="meta"), torch.zeros(5, 4, device="meta"))
    assert z_q.shape == (2, 3, 4) and index.shape == loss.shape == (2, 3)
