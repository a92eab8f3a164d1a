"""Proofs and laws of the softmax's negative log-likelihood (kernels/softmax_nll.py)."""

import math

import pytest
import torch
import torch.nn.functional as F
from check import DTYPES, dtypes, fair, gradient, laid_out, layouts, matches, numbers, opaque, registered, runs, seeds
from genmini.kernels import _backend
from genmini.kernels import softmax_nll as room
from hypothesis import given
from hypothesis import strategies as st

from genmini import kernels, ops

RUNS = runs("softmax_nll")
KERNELS = [run for run in RUNS if run.rung or run.backend == "cpu"]
everywhere = pytest.mark.parametrize("run", RUNS, ids=str)
in_kernels = pytest.mark.parametrize("run", KERNELS, ids=str)
# rungs share the code around their kernels, so one rung a backend is enough
of_backends = pytest.mark.parametrize("run", [run for run in RUNS if run.rung != "naive"], ids=str)
rows = st.sampled_from([(0,), (1,), (3,), (64,), (65,), (129,), (2, 0), (2, 31), (3, 43), (2, 3, 5), (1, 8, 8),
                        (2, 2, 3, 4)])  # N, ...
levels = st.sampled_from([1, 2, 3, 7, 8, 9, 17, 31, 32, 33, 64, 65, 256])


def inputs(shape, L, seed=0, scale=1.0):
    target = torch.randint(L, shape, generator=torch.Generator().manual_seed(seed % 2**31))
    return [numbers(shape[0], L, *shape[1:], seed=seed, scale=scale), target]


def definition(logits, target):
    return F.cross_entropy(logits.to(room.sum_dtype(logits.dtype)), target.long(), reduction="none")


def nll_and_gradient(logits, target, dnll=None):
    logits = logits.detach().requires_grad_()  # where it lies
    nll = ops.softmax_nll(logits, target)
    return nll.detach(), torch.autograd.grad(nll, logits, torch.ones_like(nll) if dnll is None else dnll)[0]


def on(run, *tensors):
    return [a.to(run.device) for a in tensors]


# ---- the common proofs -----------------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
@pytest.mark.parametrize("shape, L, scale",
                         [((2, 3, 5), 17, 1.0), ((70,), 256, 3.0), ((3, 43), 33, 1e4), ((130,), 1, 1.0)], ids=str)
def test_matches(run, shape, L, scale, dtype):
    """At most twice as wrong as PyTorch, also where logits are so large that m and log s added would lose log s."""
    matches(run, ops.softmax_nll, inputs(shape, L, seed=5, scale=scale), dtype, definition)


@everywhere
@given(shape=rows, L=levels, dtype=dtypes, layout=layouts, seed=seeds, scale=st.sampled_from([1.0, 1e-3, 30.0]))
def test_within_its_roundings(run, shape, L, dtype, layout, seed, scale):
    """The error is within the roundings, with u = 2^-24 (2^-53).

    There are L + 8 roundings of log s and four of the largest number on the way; a gradient, at most 1, is rounded
    once more.
    """
    logits, target = inputs(shape, L, seed, scale)
    logits = laid_out(logits.to(dtype), layout)
    a = logits.double()
    exact = F.cross_entropy(a, target, reduction="none")
    q = (a.softmax(1) - F.one_hot(target, L).movedim(-1, 1)) if target.numel() else a
    dnll = numbers(*shape, seed=9)
    with run.use():
        nll, da = (got.cpu().double()
                   for got in nll_and_gradient(*on(run, logits, target), dnll.to(run.device, room.sum_dtype(dtype))))
    u, width = (2.0**-53 if dtype == torch.float64 else 2.0**-24), a.abs().amax() * 2 if a.numel() else 0
    assert ((nll - exact).abs() <= u * (2 * L + 16 + 8 * width)).all()
    rounding = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}.get(dtype, u)
    within = u * (2 * L + 16 + 8 * width) + rounding * q.abs() * 1.01 + (2.0**-25 if dtype == torch.float16 else 0)
    assert ((da - q * dnll[:, None]).abs() <= within * dnll[:, None].abs().clamp(min=1)).all()


@of_backends
def test_gradient(run):
    logits, target = on(run, *inputs((2, 3), 4, seed=1))
    gradient(run, lambda a: ops.softmax_nll(a, target), [logits])


@of_backends
def test_registered(run):
    registered(run, ops.softmax_nll, inputs((2, 2), 3, seed=2), argnums=(0,), plain=definition)


@of_backends
def test_opaque(run):
    logits, target = on(run, *inputs((5, 6), 7))
    request = ":".join(filter(None, (run.backend, run.rung)))
    opaque(torch.ops.genmini.softmax_nll.default, (logits, target, request))
    with run.use():
        nll, m, log_s = torch.ops.genmini.softmax_nll.default(logits, target, request)
    opaque(torch.ops.genmini.softmax_nll_backward.default, (nll, logits, target, m, log_s, request))


@of_backends
def test_vmap_over_what_is_mapped_alone(run):
    logits, target = on(run, *inputs((3, 4), 5))
    targets = torch.stack([target, (target + 1) % 5])
    with run.use():
        both = torch.func.vmap(ops.softmax_nll, in_dims=(None, 0))(logits, targets)
        assert torch.equal(both, torch.stack([ops.softmax_nll(logits, t) for t in targets]))
        each = torch.func.vmap(torch.func.grad(lambda a, t: ops.softmax_nll(a[None], t[None]).sum()))(logits, target)
        torch.testing.assert_close(each, nll_and_gradient(logits, target)[1])


# ---- laws ------------------------------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("L", [1, 2, 17, 33, 70])
def test_the_levels_share_a_probability_of_one(run, L):
    logits = on(run, inputs((5,), L, scale=3.0)[0])[0].repeat_interleave(L, 0)
    target = torch.arange(L, device=run.device).repeat(5)
    with run.use():
        nll, da = nll_and_gradient(logits, target)
    torch.testing.assert_close((-nll).exp().view(5, L).sum(1), torch.ones(5, dtype=nll.dtype, device=run.device))
    # adding a constant to all logits changes nothing
    torch.testing.assert_close(da.sum(1), torch.zeros_like(nll), rtol=0, atol=1e-14)
    assert (nll >= 0).all()
    if L == 1:
        assert (nll == 0).all() and (da == 0).all()


@everywhere
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_constant_added_to_all_logits_changes_nothing(run, dtype):
    logits, target = on(run, *inputs((40,), 33, scale=3.0))
    logits = (logits * 64).round().to(dtype) / 64  # with the constant still exact
    with run.use():
        near, far = (nll_and_gradient(logits + constant, target) for constant in (0, 2.0**14))
    assert torch.equal(near[0], far[0]) and torch.equal(near[1], far[1])


@everywhere
@pytest.mark.parametrize("rising", [True, False])
def test_a_maximum_that_moves_with_every_tile(run, rising):
    """Logits from -1e4 to 1e4 in steps, so that each tile shrinks all before it to nothing, or none does."""
    logits = torch.linspace(-1e4, 1e4, 200).repeat(70, 1)
    logits = (logits if rising else logits.flip(1)).contiguous()
    target = torch.arange(70) * 2
    wanted = [F.cross_entropy(logits.double(), target, reduction="none"),
              logits.double().softmax(1) - F.one_hot(target, 200)]
    with run.use():
        got = nll_and_gradient(*on(run, logits, target))
    for a, b in zip(got, wanted, strict=True):  # a difference, rounded once; steps are 100 and e^-100 is 0 in float32
        torch.testing.assert_close(a.cpu().double(), b, rtol=2**-24, atol=2 * math.exp(-100))


@everywhere
# the warnings are NumPy's, in the interpreter
@pytest.mark.filterwarnings("ignore:invalid value encountered", "ignore:divide by zero", "ignore:All-NaN")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_means_what_it_means_to_pytorch(run, poison, dtype):
    """Logits that are not finite give PyTorch's results, and change no other row.

    They are one logit in the first or last tile, the target's or another; a whole first tile; or all of them.
    """
    logits, target = inputs((9, 10), 40)
    target[:] = 20
    for i, level in enumerate((0, 20, 39)):
        logits[i, level] = poison
    logits[3, :33] = poison
    logits[4, :] = poison
    wanted = logits.to(dtype).double().requires_grad_()
    exact = definition(wanted, target)
    (exact_gradient,) = torch.autograd.grad(exact.sum(), wanted)
    with run.use():
        nll, da = nll_and_gradient(*on(run, logits.to(dtype), target))
    for got, truth in ((nll, exact), (da, exact_gradient)):
        fair(got, truth, truth.float() if dtype == torch.float64 else truth.to(dtype),
             torch.float32 if dtype == torch.float64 else dtype)
    assert nll[5:].isfinite().all() and da[5:].isfinite().all()


@in_kernels
def test_the_same_bits_wherever_the_numbers_lie(run):
    """On a GPU strides may change the order of a sum; there the same place gives the same bits."""
    logits, target = on(run, inputs((3, 4, 5), 40)[0].float(), inputs((3, 4, 5), 40)[1])
    last = logits.movedim(1, -1).contiguous().movedim(-1, 1)
    with run.use():
        plain = nll_and_gradient(logits, target)
        for moved in (logits, laid_out(logits, "offset"), laid_out(logits, "transposed"),
                      laid_out(logits, "strided"), last):
            for a, b in zip(plain, nll_and_gradient(moved, laid_out(target, "transposed")), strict=True):
                assert (torch.equal(a, b) if run.device == "cpu" or moved is logits
                        else torch.allclose(a, b, rtol=1e-6, atol=1e-6))
        assert nll_and_gradient(last, target)[1].stride() == last.stride(), "a gradient lies as its logits lie"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape, L", [((70,), 256), ((3, 43), 33), ((2, 100), 17)], ids=str)
def test_every_instruction_set(shape, L, dtype, monkeypatch):
    """Each is within twice PyTorch's error; AVX-512 and AVX2, whose products are fused, give the same bits."""
    seen, native = {}, next(run for run in RUNS if run.backend == "cpu")
    logits, target = inputs(shape, L, seed=5, scale=3.0)
    for instructions in ("avx512", "avx2", "portable"):
        monkeypatch.setenv("GENMINI_CPU", instructions)
        matches(native, ops.softmax_nll, [logits, target], dtype, definition)
        with native.use():
            seen[instructions] = nll_and_gradient(logits.to(dtype), target)
    assert all(map(torch.equal, seen["avx512"], seen["avx2"]))


@everywhere
def test_expanded_logits(run):
    logits, target = on(run, *inputs((6, 10), 33))
    with run.use():
        got = nll_and_gradient(logits[:1].expand(6, 33, 10), target)
        want = nll_and_gradient(logits[:1].repeat(6, 1, 1), target)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.skipif(not any(run.backend == "emulated" for run in RUNS), reason="counts the interpreter's loads")
def test_the_online_rung_reads_every_logit_once(monkeypatch):
    from triton.runtime import interpreter

    counted, load = [], interpreter.InterpreterBuilder.create_masked_load
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_masked_load",
                        lambda *a: counted.append(a[2].data.sum()) or load(*a))
    logits, target = inputs((70,), 100)
    for rung, reads in (("online", 1), ("naive", 2)):
        counted.clear()
        room.launch("emulated", rung, logits[..., None], target[:, None])
        assert sum(counted) == reads * 7000 + 70, rung  # and every target


# ---- the contract ----------------------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_targets_of_every_integer_type(run, dtype):
    logits, target = on(run, *inputs((7, 3), 100))
    with run.use():
        got, want = nll_and_gradient(logits, target.to(dtype)), nll_and_gradient(logits, target)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@everywhere
def test_a_uint8_target_reaches_all_256_levels(run):
    logits, _ = on(run, *inputs((256,), 256))
    target = torch.arange(256, device=run.device)
    with run.use():
        assert torch.equal(ops.softmax_nll(logits, target.to(torch.uint8)), ops.softmax_nll(logits, target))


@everywhere
@pytest.mark.parametrize("bad", [-1, 5, 2**40])
def test_a_target_out_of_range(run, bad, monkeypatch):
    """Raises where values are checked; elsewhere (a GPU) its pixel costs nothing, and touches no memory beyond."""
    logits, target = on(run, *inputs((4, 3), 5))
    target[2, 1] = bad
    with run.use():
        if run.device == "cpu":
            with pytest.raises(ValueError, match=f"target must lie in 0 .. L-1 = 4, got values from .*{bad}"):
                ops.softmax_nll(logits, target)
        monkeypatch.setattr(room._check, "values", lambda target: False)
        nll, da = nll_and_gradient(logits, target)
        clean = nll_and_gradient(logits, target.clamp(0, 4))
    others = torch.ones(4, 3, dtype=torch.bool, device=run.device)
    others[2, 1] = False
    assert nll[2, 1] == 0 and (da[2, :, 1] == 0).all() and torch.equal(nll[others], clean[0][others])


@everywhere
def test_a_gradient_runs_where_its_forward_ran(run, monkeypatch):
    logits, target = on(run, *inputs((3, 4), 5))
    chosen, names = _backend.chosen, []
    with run.use():
        nll = ops.softmax_nll(logits.requires_grad_(), target)
    monkeypatch.setattr(_backend, "chosen", lambda *a: names.append(chosen(*a)) or names[-1])
    with kernels.use("reference"):
        nll.sum().backward()
    assert [(name.backend, name.rung) for name in names] == [(run.backend, run.rung)]


@everywhere
def test_autocast_computes_in_float32_as_cross_entropy_does(run):
    logits, target = on(run, *inputs((3, 4), 5))
    logits = logits.bfloat16()
    with run.use(), torch.autocast(run.device, torch.bfloat16):
        got = ops.softmax_nll(logits, target)
        assert got.dtype == F.cross_entropy(logits, target, reduction="none").dtype == torch.float32
    exact, wanted = (F.cross_entropy(logits.to(of), target, reduction="none") for of in (torch.float64, torch.float32))
    fair(got, exact, wanted, torch.float32)


def test_errors_name_the_argument():
    logits, target = inputs((2, 3), 4)
    for call, error, named in [
        (lambda: ops.softmax_nll(logits, target[:, :2]), ValueError,
         r"target must have shape \(N, ...\), that of logits .*, got \(2, 2\)"),
        (lambda: ops.softmax_nll(logits[0, 0], target), ValueError,
         r"logits must have shape \(N, L, ...\), got \(3,\)"),
        (lambda: ops.softmax_nll(logits[:, :0], target), ValueError, "logits must have at least 1 level"),
        (lambda: ops.softmax_nll(logits, target.double()), TypeError, "target must be of dtype int64, .*, got float64"),
        (lambda: ops.softmax_nll(logits.long(), target), TypeError, "logits must be of dtype float32, .*, got int64"),
        (lambda: ops.softmax_nll(logits, target.to("meta")), ValueError,
         "target must be on the device of logits, cpu, got meta"),
        (lambda: ops.softmax_nll(logits, 3), TypeError, "target must be a tensor, got int"),
    ]:
        with pytest.raises(error, match=named):
            call()


def test_meta_tensors_pass():
    assert ops.softmax_nll(torch.empty(2, 3, 4, 5, device="meta"),
                           torch.empty(2, 4, 5, dtype=torch.uint8, device="meta")).shape == (2, 4, 5)
