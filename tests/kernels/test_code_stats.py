"""Proofs and laws of the code statistics room (kernels/code_stats.py)."""

from fractions import Fraction

import pytest
import torch
from check import DTYPES, gradient, laid_out, layouts, matches, numbers, opaque, registered, runs, seeds
from hypothesis import given
from hypothesis import strategies as st

from genmini import ops

RUNS = runs("code_stats")
everywhere = pytest.mark.parametrize("run", RUNS, ids=str)
shapes = st.sampled_from([(0, 3, 2), (1, 1, 1), (7, 3, 2), (40, 5, 33), (130, 2, 31), (65, 300, 1), (20, 9, 64),
                          (33, 1, 32), (3, 4, 0)])


def inputs(N, K, D, seed=0):
    index = torch.randint(K, (N,), generator=torch.Generator().manual_seed(seed % 2**31))
    return numbers(N, D, seed=seed), index


def definition(z, index, K):
    one = torch.nn.functional.one_hot(index, K).to(z.dtype)  # (N, K)
    total = one.T @ z
    return one.sum(0).long(), total if z.dtype == torch.float64 else total.float()


@everywhere
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
@given(shape=shapes, layout=layouts, seed=seeds)
def test_matches(run, dtype, shape, layout, seed):
    z, index = inputs(*shape, seed=seed)
    K, z = shape[1], laid_out(z, layout)
    matches(run, lambda z, index: ops.code_stats(z, index, K), [z, index], dtype,
            lambda z, index: definition(z, index, K))


@everywhere
@given(shape=shapes, seed=seeds)
def test_float64_is_off_by_its_roundings(run, shape, seed):
    """|total - exact| <= count 2^-53 sum|z|, against sums of fractions."""
    z, index = inputs(*shape, seed=seed)
    with run.use():
        count, total = (a.cpu() for a in ops.code_stats(z.to(run.device), index.to(run.device), shape[1]))
    assert torch.equal(count, torch.bincount(index, minlength=shape[1]))
    for k in index.unique().tolist():
        for d in range(min(3, shape[2])):
            terms = [Fraction(v) for v in z[index == k, d].tolist()]
            assert (abs(Fraction(total[k, d].item()) - sum(terms))
                    <= count[k].item() * Fraction(2) ** -53 * sum(map(abs, terms)))


@everywhere
def test_gradient(run):
    index = torch.tensor([1, 0, 1, 1, 3]).to(run.device)
    gradient(run, lambda z: ops.code_stats(z, index.to(z.device), 4)[1], [numbers(5, 3)])


@everywhere
def test_registered(run):
    z, index = inputs(5, 3, 2)
    index = index.to(run.device)
    registered(run, lambda z: ops.code_stats(z, index, 3), [z], argnums=(0,), plain=lambda z: definition(z, index, 3))


@everywhere
def test_opaque(run):
    z, index = (a.to(run.device) for a in inputs(6, 3, 2))
    opaque(torch.ops.genmini.code_stats.default, (z, index, 3, run.backend))


@everywhere
@pytest.mark.parametrize("shape", [(4,), (0, 4), (2, 3, 4), (2, 0, 4)])
def test_any_leading_dimensions(run, shape):
    z = numbers(*shape, dtype=torch.float32).to(run.device)
    index = torch.ones(shape[:-1], dtype=torch.int64, device=run.device)
    with run.use():
        count, total = ops.code_stats(z, index, 3)
    assert count.tolist() == [0, index.numel(), 0] and count.dtype == torch.int64
    rows = z.reshape(-1, 4).double()
    assert ((total[1] - rows.sum(0)).abs() <= len(rows) * 2**-24 * rows.abs().sum(0)).all()  # a sum in any order
    assert total[::2].count_nonzero() == 0


@everywhere
def test_counts_add_up_to_the_rows_and_totals_to_their_sum(run):
    z, index = (a.to(run.device) for a in inputs(200, 17, 5))
    with run.use():
        count, total = ops.code_stats(z, index, 17)
    assert count.sum() == 200
    torch.testing.assert_close(total.sum(0), z.sum(0))


@everywhere
def test_one_code_gets_all_and_cancels(run):
    """1e8 and -1e8 between small numbers: a sum in float32 loses them, one in double is exact (of multiples of 8)."""
    z = numbers(500, 3, dtype=torch.float32)
    z[::2] += 1e8
    z[1::2] -= 1e8
    with run.use():
        total = ops.code_stats(z.to(run.device), torch.zeros(500, dtype=torch.int64, device=run.device), 2)[1].cpu()
    assert torch.equal(total[0], z.double().sum(0).float())
    assert total[1].count_nonzero() == 0


@everywhere
def test_the_same_bits_every_time(run):
    z, index = (a.to(run.device) for a in inputs(3000, 3, 4))
    found, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, threads):
            torch.set_num_threads(count)
            with run.use():
                found.append(ops.code_stats(z, index, 3)[1])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found)


@pytest.mark.parametrize("run", [run for run in RUNS if run.rung == "segments"], ids=str)
@pytest.mark.parametrize("K", [9, 2100])
def test_a_sum_depends_on_the_rows_of_its_code_alone(run, K):
    """16 sums of every 16th row, added in order; a block adds 257 rows, or those of few codes, a warp 256."""
    counts = torch.tensor([0, 1, 16, 17, 256, 257, 300, 33, 5])
    index = torch.repeat_interleave(torch.arange(9), counts)[torch.randperm(885, generator=torch.manual_seed(0))]
    z, parts = numbers(885, 3), torch.zeros(9, 16, 3, dtype=torch.float64)
    with run.use():
        count, total = (a[:9].cpu() for a in ops.code_stats(z.to(run.device), index.to(run.device), K))
    for k in range(9):
        for i, row in enumerate(z[index == k]):
            parts[k, i % 16] += row
    wanted = torch.zeros(9, 3, dtype=torch.float64)
    for part in parts.unbind(1):
        wanted += part
    assert torch.equal(count, counts) and torch.equal(total, wanted)


@everywhere
def test_nan_stays_with_its_code(run):
    z, index = inputs(30, 4, 3)
    z[4, 1] = float("nan")
    with run.use():
        count, total = ops.code_stats(z.to(run.device), index.to(run.device), 4)
    spoilt = torch.zeros(4, 3, dtype=torch.bool)
    spoilt[index[4], 1] = True
    assert torch.equal(total.isnan().cpu(), spoilt) and count.sum() == 30


@everywhere
@pytest.mark.parametrize("wrong", [-1, 3, 2**40])
def test_an_index_outside_is_refused_where_values_are_seen(run, wrong, monkeypatch):
    """On a CPU always, on a GPU where GENMINI_CHECK=1 asks for it."""
    if run.device == "cuda":
        monkeypatch.setenv("GENMINI_CHECK", "1")
    with run.use(), pytest.raises(ValueError, match=r"index must lie in 0 .. K-1 = 2, got values from"):
        ops.code_stats(torch.zeros(2, 4, device=run.device), torch.tensor([0, wrong], device=run.device), 3)


@everywhere
def test_an_index_outside_adds_nothing_where_values_are_not_seen(run, monkeypatch):
    """The kernel and its gradient ignore indices outside: on a GPU they are not read back to be checked first."""
    monkeypatch.setattr("genmini.kernels._check.values", lambda tensor: False)
    z = numbers(5, 4, dtype=torch.float32).to(run.device).requires_grad_()
    index = torch.tensor([2, -1, 3, 2**40, 0]).to(run.device)
    along = torch.tensor([[2.0], [3.0], [5.0]], device=run.device).expand(3, 4)
    with run.use():
        count, total = ops.code_stats(z, index, 3)
        (dz,) = torch.autograd.grad(total, z, along, retain_graph=True)
        (spoilt,) = torch.autograd.grad(total, z, along * torch.tensor([[float("inf")], [1], [float("nan")]]).to(along))
    assert count.tolist() == [1, 0, 1]
    assert torch.equal(total, torch.stack([z[4], torch.zeros_like(z[0]), z[0]]))
    assert dz[:, 0].tolist() == [5, 0, 0, 0, 2]
    assert not spoilt[1:4].any() and spoilt[0].isnan().all() and (spoilt[4] == float("inf")).all()


@everywhere
def test_autocast_computes_in_float32(run):
    z, index = (a.to(run.device) for a in inputs(6, 3, 2))
    with run.use(), torch.autocast(run.device, torch.bfloat16):
        assert ops.code_stats(z.bfloat16(), index, 3)[1].dtype == torch.float32


def test_errors_name_the_argument():
    z, index = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"index must have shape that of z without D = \(2,\), got \(1,\)"):
        ops.code_stats(z, index[:1], 4)
    with pytest.raises(TypeError, match="index must be of dtype int64, got int32"):
        ops.code_stats(z, index.int(), 4)
    with pytest.raises(TypeError, match="K must be an int, got float"):
        ops.code_stats(z, index, 4.0)
    for K in (0, 2**63):
        with pytest.raises(ValueError, match=f"K must be the number of codes, 1 to {2**63 - 1}, got {K}"):
            ops.code_stats(z, index, K)
    with pytest.raises(TypeError, match="z must be of dtype float32, float16, bfloat16 or float64, got int64"):
        ops.code_stats(z.long(), index, 4)


def test_meta_tensors_pass():
    count, total = ops.code_stats(torch.zeros(2, 3, device="meta"), torch.zeros(2, dtype=torch.int64, device="meta"), 5)
    assert count.shape == (5,) and total.shape == (5, 3)
