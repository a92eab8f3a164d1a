"""Proofs and laws of CLIP's symmetric contrastive loss (kernels/info_nce.py)."""

import math

import pytest
import torch
import torch.nn.functional as F
from check import DTYPES, Run, error, fair, gradient, laid_out, layouts, numbers, opaque, registered, runs, seeds
from genmini.kernels import info_nce as room
from hypothesis import given
from hypothesis import strategies as st

from genmini import ops

# the warnings are NumPy's, in the interpreter
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered", "ignore:divide by zero", "ignore:All-NaN",
                                        "ignore:overflow encountered")
RUNS = runs("info_nce")
everywhere = pytest.mark.parametrize("run", RUNS, ids=str)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
# around the edges of tiles of 32 and 64 rows and of the CPU's vectors; no pair, one pair, no dimension
SHAPES = [(0, 3), (1, 1), (2, 7), (3, 0), (31, 5), (33, 17), (64, 64), (65, 33)]
LONG = [(129, 65), (200, 3), (257, 9)]  # around the CPU's slabs of 128; the interpreter takes seconds for them


def on_each(*sizes, long=(), of=RUNS):
    """The runs with these sizes, and with longer ones where nothing is interpreted."""
    cases = [(run, size) for run in of for size in (*sizes, *(() if run.backend == "emulated" else long))]
    return pytest.mark.parametrize("run, N", cases, ids=str)


# rungs share the gradient and the code around their kernels, so one rung a backend is enough
BACKENDS = [run for run in RUNS if run.rung != "naive"]
of_backends = pytest.mark.parametrize("run", BACKENDS, ids=str)


def definition(a, b, scale):
    """What eager PyTorch writes, in the dtype that sums have."""
    l = scale * (a.to(scale.dtype) @ b.to(scale.dtype).T)
    match = torch.arange(len(a), device=a.device)
    both = F.cross_entropy(l, match, reduction="none") + F.cross_entropy(l.T, match, reduction="none")
    return both / 2 if len(a) else l.sum(1)


def inputs(N, D, seed=0, dtype=torch.float64, scale=2.0):
    """a, b and the scale, in the dtype of sums"""
    a, b = (numbers(N, D, seed=seed % 2**31 + i, dtype=dtype) for i in range(2))
    return a, b, torch.tensor(scale, dtype=room.sum_dtype(dtype))


def all_of(f, given, device="cpu"):
    """The losses and the gradients of a, b and scale, for fixed gradients of the losses"""
    moving = [a.detach().to(device).requires_grad_() for a in given]  # where it lies
    loss = f(*moving)
    return [loss, *torch.autograd.grad(loss, moving, numbers(*loss.shape, seed=7).to(loss))]


def widened(given):
    return [a.double() for a in given]


# ---- the common proofs -----------------------------------------------------------------------------------------------


@everywhere
@given(shape=st.sampled_from(SHAPES + LONG), dtype=st.sampled_from(DTYPES), layout=layouts, seed=seeds,
       scale=st.sampled_from([1.0, 1e-3, 30.0]))
def test_matches(run, shape, dtype, layout, seed, scale):
    """The error is within the roundings, u = 2^-24 (2^-53) each, of the numbers that are added.

    W bounds |x_nm| through sum_d |a_nd b_md|. l and the exponent of P are wrong by (D + 6) u scale W, so P and Q, at
    most 1, by a little more than that and by N + 16 roundings of their sums; sums over n and m add at most N.
    """
    N, D = SHAPES[-1] if run.backend == "emulated" and shape in LONG else shape
    a, b, scale = inputs(N, D, seed, dtype, scale)
    given = laid_out(a, layout), laid_out(b, layout), scale
    with run.use():
        found = all_of(ops.info_nce, given, run.device)
    exact = all_of(definition, widened(given))
    u = 2.0**-53 if dtype == torch.float64 else 2.0**-24
    rounding = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}.get(dtype, u)
    a, b = widened((a, b))
    largest = [x.abs().max().item() if x.numel() else 0.0 for x in (a, b)]
    W, g = (a.abs() @ b.abs().T).amax().item() if N else 0.0, numbers(N, seed=7).abs().amax().item() if N else 0.0
    of_P = u * (4 * (D + 6) * scale.item() * W + 2 * N + 32)
    assert error(found[0], exact[0]) <= of_P
    of_dl = 2 * g * of_P  # of each number; a row has N of them, whose absolute sum is at most (N + 1) g
    sums = N * of_dl + (N + 4) * u * (N + 1) * g
    for got, want, size in zip(found[1:3], exact[1:3], largest[::-1], strict=True):
        assert got.dtype == dtype and got.shape == want.shape
        tiny = 2.0**-25 if dtype == torch.float16 else 0
        bound = scale.item() * size * sums
        assert error(got, want) <= bound * (1 + rounding) + rounding * 1.01 * (want.abs().max() if N * D else 0) + tiny
    assert error(found[3], exact[3]) <= N * W * (sums + (D + 4) * u * (N + 1) * g)


@everywhere
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape, scale", [((65, 33), 1.0), ((5, 300), 0.1), ((70, 16), 100.0)], ids=str)
def test_at_most_twice_as_wrong_as_pytorch(run, shape, scale, dtype):
    """And one rounding, each relative to the largest number of the tensor; PyTorch's error is its largest of all, and
    of four inputs. With a scale of 100 the largest l of many rows is far above the others, and dl nearly 0.

    That of dscale is sum_n |sum_m dl_nm x_nm| = sum_n |a_n . da_n| / scale: the sum itself may cancel.
    """
    own, wrong = 0, []
    for seed in range(4):
        given = inputs(*shape, seed=seed, dtype=dtype, scale=scale)
        given = *(F.normalize(a.float(), dim=1).to(dtype) * 2 for a in given[:2]), given[2]
        exact, theirs = all_of(definition, widened(given)), all_of(definition, given)
        with run.use():
            found = all_of(ops.info_nce, given, run.device)
        sizes = [*(want.abs().max() for want in exact[:3]), (given[0] * exact[1]).sum(1).abs().sum() / scale]
        own = max(own, *(error(one, want) / size for one, want, size in zip(theirs, exact, sizes, strict=True)))
        wrong += [(error(got, want) / size - torch.finfo(got.dtype).eps, seed, i)
                  for i, (got, want, size) in enumerate(zip(found, exact, sizes, strict=True))]
    assert max(wrong)[0] <= 2 * own, max(wrong)


def test_at_most_twice_as_wrong_as_pytorch_at_the_size_of_a_batch():
    """Sums of long rows are those of parts, as PyTorch's."""
    test_at_most_twice_as_wrong_as_pytorch(Run("cpu", None, "cpu"), (1024, 512), 20.0, torch.float32)


@of_backends
def test_gradient(run):
    gradient(run, ops.info_nce, list(inputs(3, 2, scale=1.5)))


@of_backends
def test_registered(run):
    registered(run, ops.info_nce, list(inputs(3, 2)), (0, 1, 2), plain=definition)


@of_backends
def test_opaque(run):
    a, b, scale = (x.to(run.device) for x in inputs(5, 6))
    request = ":".join(filter(None, (run.backend, run.rung)))
    opaque(torch.ops.genmini.info_nce.default, (a, b, scale, request))
    with run.use():
        loss, stats = torch.ops.genmini.info_nce.default(a, b, scale, request)
    opaque(torch.ops.genmini.info_nce_backward.default, (loss, a, b, scale, stats, request))


# ---- laws ------------------------------------------------------------------------------------------------------------


@on_each(2, 37, long=(130,))
def test_permuted_pairs_have_permuted_losses(run, N):
    a, b, scale = (x.to(run.device) for x in inputs(N, 5))
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1)).to(run.device)
    with run.use():
        torch.testing.assert_close(ops.info_nce(a[order], b[order], scale), ops.info_nce(a, b, scale)[order],
                                   rtol=1e-12, atol=1e-12)


@on_each(37, long=(130,), of=BACKENDS)
def test_images_and_texts_are_exchangeable(run, N):
    a, b, scale = inputs(N, 5)
    with run.use():
        one, other = all_of(ops.info_nce, (a, b, scale), run.device), all_of(ops.info_nce, (b, a, scale), run.device)
    for left, right in zip(one, [other[0], other[2], other[1], other[3]], strict=True):
        torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-12)


@on_each(1, 33, long=(130,))
def test_at_scale_0_every_pair_costs_log_N(run, N):
    """And da = db = 0, while dscale = sum_n g_n (the mean of row n and column n of x, less x_nn)."""
    a, b, scale = inputs(N, 7, scale=0.0)
    with run.use():
        loss, da, db, dscale = (x.cpu() for x in all_of(ops.info_nce, (a, b, scale), run.device))
    torch.testing.assert_close(loss, torch.full((N,), math.log(N), dtype=loss.dtype), rtol=1e-14, atol=0)
    assert not da.any() and not db.any()
    x = a @ b.T
    want = (numbers(N, seed=7) * ((x.mean(0) + x.mean(1)) / 2 - x.diagonal())).sum()
    torch.testing.assert_close(dscale, want, rtol=1e-11, atol=1e-12)


@everywhere
@each_dtype
def test_one_pair_alone_costs_nothing(run, dtype):
    with run.use():
        found = all_of(ops.info_nce, inputs(1, 9, dtype=dtype, scale=50.0), run.device)
    assert not any(x.any() for x in found)


@on_each(5, 37, long=(130,))
@each_dtype
def test_pairs_that_are_all_equally_unlike(run, N, dtype):
    """l_nm = -900 for all n and m: e^900 is beyond every dtype, and no padded place of a tile may take part.
    The errors are within the roundings that test_matches counts."""
    one = torch.ones(N, 1, dtype=dtype)
    given = 30 * one, -30 * one, torch.tensor(1.0, dtype=room.sum_dtype(dtype))
    with run.use():
        found = all_of(lambda *moving: 1000 * ops.info_nce(*moving), given, run.device)
    g, u = 1000 * numbers(N, seed=7).abs().amax().item(), 2.0**-53 if dtype == torch.float64 else 2.0**-24
    of_P = u * (28 * 900 + 2 * N + 32)
    sums = 2 * g * N * of_P + (N + 4) * u * (N + 1) * g
    exact = all_of(lambda *moving: 1000 * definition(*moving), widened(given))
    for got, want, size in zip(found, exact, (0, 30, 30, 900 * N), strict=True):
        assert got.isfinite().all()
        narrow = torch.finfo(got.dtype).eps * want.abs().max() + torch.finfo(got.dtype).tiny
        assert error(got, want) <= size * sums + narrow + (1000 * of_P if not size else 0)


@on_each(5, 33, long=(130,), of=BACKENDS)
def test_a_number_added_to_a_row_and_a_column_changes_their_direction_alone(run, N):
    """One more dimension with a_nd = c_n, b_md = 1 adds scale c_n to row n of l: its softmax over m stays.

    With c added to all of b instead, columns move as a whole; a constant c moves both, and no loss changes.
    """
    a, b, scale = (x.to(run.device) for x in inputs(N, 5))
    c, one = numbers(N, 1, seed=3).to(run.device), torch.ones_like(a[:, :1])
    rows = F.cross_entropy(scale * a @ b.T, torch.arange(N, device=run.device), reduction="none")
    with run.use():
        loss = ops.info_nce(a, b, scale)
        moved, back = (ops.info_nce(torch.cat([a, s * c], 1), torch.cat([b, one], 1), scale) for s in (1, -1))
        constant = ops.info_nce(torch.cat([a, 40 * one], 1), torch.cat([b, one], 1), scale)
    torch.testing.assert_close(constant, loss, rtol=1e-12, atol=1e-12)
    columns = F.cross_entropy(scale * (a @ b.T + c).T, torch.arange(N, device=run.device), reduction="none")
    torch.testing.assert_close(2 * moved - columns, rows, rtol=1e-12, atol=1e-12)
    assert (moved - back).abs().min() > 1e-6, "c moves every column's softmax"


@on_each(3, 37, long=(130, 257), of=BACKENDS)
def test_gradients_do_not_move_what_the_loss_does_not_see(run, N):
    """sum_n dl_nm over a column is (sum_n g_n P_nm - g_m) / 2, and over both directions the sum of all dl is 0: so a
    constant dimension of both has no gradient in all, and scale dscale = sum da a = sum db b."""
    a, b, scale = inputs(N, 5)
    a[:, 0] = b[:, 0] = 1
    with run.use():
        _, da, db, dscale = (x.cpu() for x in all_of(ops.info_nce, (a, b, scale), run.device))
    torch.testing.assert_close(da[:, 0].sum(), torch.zeros((), dtype=da.dtype), rtol=0, atol=1e-12)
    torch.testing.assert_close(db[:, 0].sum(), torch.zeros((), dtype=da.dtype), rtol=0, atol=1e-12)
    for embedding, its in ((a, da), (b, db)):
        torch.testing.assert_close((embedding * its).sum(), scale * dscale, rtol=1e-11, atol=1e-12)


@everywhere
@pytest.mark.parametrize("rising", [True, False])
def test_a_maximum_that_moves_with_every_tile(run, rising):
    """l_nm = 1e4 c_n c_m, c from -1 to 1 or back: each tile shrinks all before it to nothing, or none does."""
    c = torch.linspace(-1, 1, 70) * (1 if rising else -1)
    given = c[:, None], c[:, None], torch.tensor(1e4)
    with run.use():
        found = all_of(ops.info_nce, given, run.device)
    for got, want in zip(found, all_of(definition, widened(given)), strict=True):
        assert error(got, want) <= 2e-3 * want.abs().max(), "l is rounded to 1e4 2^-24"
    assert found[0].isfinite().all()


@on_each((3, 1), (66, 65), long=((131, 0),))
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_means_what_it_means_to_pytorch(run, N, poison):
    """One number of a: +-inf makes l +inf where b is of its sign, and -inf elsewhere. Then a row, all -inf, and 0."""
    (N, n), dtype = N, torch.float32
    a, b, scale = inputs(N, 5, dtype=dtype)
    cases = [b, b[:, 2:3].abs() * torch.ones(5, dtype=dtype), b.clone().index_fill_(1, torch.tensor(2), 0)]
    a[n, 2] = poison
    for b in cases:
        want = definition(*widened((a, b, scale)))
        with run.use():
            got = ops.info_nce(a.to(run.device), b.to(run.device), scale.to(run.device)).cpu()
        assert torch.equal(got.isnan(), want.isnan()) and torch.equal(got.isinf(), want.isinf())
        fair(got, want, definition(a, b, scale), dtype)


@everywhere
def test_what_is_far_below_or_infinitely_far_has_probability_0(run):
    """Exactly, or a large gradient would make much of it; 0 times an x of -inf is NaN in dscale, as in PyTorch."""
    far, one = 100 * torch.eye(3), torch.tensor(1.0)
    below = torch.tensor([[1e20, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [-1e20, 1.0]]), one
    with run.use():
        loss, *gradients = all_of(lambda *moving: 1e30 * ops.info_nce(*moving), (far, far / 100, 10 * one), run.device)
        assert not any(each.any() for each in (loss, *gradients))
        _, da, _, dscale = (each.cpu() for each in all_of(ops.info_nce, below, run.device))
    assert dscale.isnan() and not da[0].any()


@of_backends
def test_a_row_with_nan_makes_all_gradients_nan(run):
    a, b, scale = inputs(37, 3)
    a[36, 1] = math.nan
    with run.use():
        assert all(x.isnan().all() for x in all_of(ops.info_nce, (a, b, scale), run.device))


@pytest.mark.parametrize("run", [run for run in RUNS if run.backend != "reference"], ids=str)
def test_the_same_bits_wherever_the_numbers_lie(run):
    given = inputs(33, 9, dtype=torch.float32)
    with run.use():
        plain = all_of(ops.info_nce, given, run.device)
        for layout in ("transposed", "strided", "offset"):
            moved = all_of(ops.info_nce, [laid_out(a, layout) for a in given[:2]] + [given[2]], run.device)
            assert all(torch.equal(a, b) for a, b in zip(plain, moved, strict=True))


@pytest.mark.parametrize("instructions", ["avx512", "avx2", "portable"])
def test_the_cpu_computes_the_same_on_every_instruction_set(instructions, monkeypatch):
    monkeypatch.setenv("GENMINI_CPU", instructions)
    for N, D, dtype in ((1, 1, torch.float32), (130, 70, torch.float32), (67, 9, torch.float64)):
        given = inputs(N, D, dtype=dtype, scale=0.3)
        for got, want in zip(all_of(ops.info_nce, given), all_of(definition, widened(given)), strict=True):
            assert error(got, want) <= 64 * torch.finfo(dtype).eps * (1 + want.abs().max())


@pytest.mark.skipif(not any(run.backend == "emulated" for run in RUNS), reason="counts the interpreter's products")
def test_the_shared_rung_computes_each_product_once(monkeypatch):
    from triton.runtime import interpreter

    counted, dot = [], interpreter.InterpreterBuilder.create_dot
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot",
                        lambda *a: counted.append(a[1].data.size * a[2].data.shape[1]) or dot(*a))
    a, b, scale = inputs(64, 32, dtype=torch.float32)
    for rung, products in (("shared", 1), ("naive", 2)):
        counted.clear()
        room.launch("emulated", rung, a, b, scale)
        assert sum(counted) == products * 64 * 64 * 32, rung


# ---- the front door --------------------------------------------------------------------------------------------------


@everywhere
def test_autocast_computes_in_float32(run):
    a, b, scale = (x.to(run.device) for x in inputs(3, 4, dtype=torch.bfloat16))
    with run.use(), torch.autocast(run.device, torch.bfloat16):
        got = ops.info_nce(a, b, scale)
    exact, wanted = (definition(a.to(of), b.to(of), scale.to(of)) for of in (torch.float64, torch.float32))
    assert got.dtype == torch.float32
    fair(got, exact, wanted, torch.float32)


def test_a_scale_of_another_dtype_keeps_its_gradient():
    a, b, _ = inputs(4, 3, dtype=torch.float32)
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    ops.info_nce(a, b, scale).sum().backward()
    assert scale.grad.dtype == torch.float64 and scale.grad != 0


A = torch.ones(4, 3)


@pytest.mark.parametrize("arguments, kind, words", [
    ((A, A[:3], A[0, 0]), ValueError, r"b must have shape \(N, D\), that of a = \(4, 3\), got \(3, 3\)"),
    ((A[0], A[0], A[0, 0]), ValueError, r"a must have shape \(N, D\), got \(3,\)"),
    ((A, A, A[0, :1]), ValueError, r"scale must have shape \(\), one number, got \(1,\)"),
    ((A, A, 2.0), TypeError, "scale must be a tensor, got float"),
    ((A, A.double(), A[0, 0]), TypeError, "b must have the dtype of a, float32, got float64"),
    ((A.long(), A, A[0, 0]), TypeError, "a must be of dtype float32, .*, got int64"),
    ((A, A, A[0, 0].to("meta")), ValueError, "scale must be on the device of a, cpu, got meta"),
])
def test_errors(arguments, kind, words):
    with pytest.raises(kind, match=words):
        ops.info_nce(*arguments)


def test_meta_tensors_pass():
    a = torch.empty(5, 3, device="meta")
    assert ops.info_nce(a, a, torch.empty((), device="meta")).shape == (5,)
