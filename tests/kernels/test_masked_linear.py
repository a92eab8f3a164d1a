"""Proofs and laws of MADE's masked linear layer (kernels/masked_linear.py)."""

import math
import mmap
from unittest import mock

import pytest
import torch
from check import (
    dtypes,
    gradient,
    laid_out,
    layouts,
    matches,
    numbers,
    one_rounding,
    opaque,
    registered,
    runs,
    seeds,
    to,
)
from genmini.kernels import _masked_linear_cpu
from genmini.kernels import masked_linear as room
from hypothesis import example, given
from hypothesis import strategies as st

from genmini import kernels, ops

RUNS = runs("masked_linear")
KERNELS = [run for run in RUNS if run.rung]
everywhere = pytest.mark.parametrize("run", RUNS, ids=str)
# rungs share the code around their kernels, so one rung a backend is enough
of_backends = pytest.mark.parametrize("run", [run for run in RUNS if run.rung in (None, "grouped")], ids=str)
in_kernels = pytest.mark.parametrize("run", KERNELS, ids=str)
edges = st.sampled_from([0, 1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65])
wide = st.sampled_from([1, 65, 128, 129, 150])
shapes = st.tuples(edges, edges, edges) | st.tuples(st.sampled_from([1, 17]), wide, wide)
orders = st.sampled_from(["ascending", "descending", "random", "constant", "round", "extreme"])


def degrees(K, J, order="random", seed=0):
    """in_degree (K), out_degree (J) from 1 ... 9, in an order that makes a staircase of the mask, or does not."""
    generator = torch.Generator().manual_seed(seed)
    both = [torch.randint(1, 10, (size,), generator=generator) for size in (K, J)]
    if order == "constant":
        both = [torch.full_like(d, 3) for d in both]
    if order == "round":
        both = [torch.arange(size) % 7 for size in (K, J)]
    if order == "extreme":  # the ends of int64, where -d would overflow
        both = [torch.tensor([-(2**63), -1, 0, 2**63 - 1])[d % 4] for d in both]
    if order in ("ascending", "descending", "extreme"):
        both = [d.sort(descending=order == "descending").values for d in both]
    return both


def inputs(N, K, J, order="random", strict=False, seed=0, scale=1.0):
    x, weight, bias = numbers(N, K, seed=seed, scale=scale), numbers(J, K, seed=seed + 1), numbers(J, seed=seed + 2)
    return [x, weight, bias, *degrees(K, J, order, seed), strict]


def forward_and_gradients(x, weight, bias, in_degree, out_degree, strict, dy=None):
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    y = ops.masked_linear(x, weight, bias, in_degree, out_degree, strict)
    return y.detach(), *torch.autograd.grad(y, (x, weight), torch.ones_like(y) if dy is None else dy)


def within_rounding(y, x, weight, bias, in_degree, out_degree, strict):
    """Whether y is off by at most (K + 2) 2^-24 times the sum of the sizes, as float32 sums in any order are"""
    W, b = weight.double() * room.mask(in_degree, out_degree, strict), 0 if bias is None else bias.double()
    error, sizes = (y.double() - (x.double() @ W.T + b)).abs(), x.double().abs() @ W.abs().T + abs(b)
    return (error <= (x.shape[1] + 2) * 2.0**-24 * sizes).all()


# ---- the common proofs -----------------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape, order",
                         [((33, 150, 129), "ascending"), ((65, 64, 66), "random"), ((1200, 3, 17), "random")], ids=str)
def test_matches(run, shape, order, dtype, monkeypatch):
    for name, value in dict(KEPT=0, FEW=0, LIGHT=0).items():  # these products, too, are cut on a CPU, and sorted
        monkeypatch.setattr(_masked_linear_cpu, name, value)
    matches(run, ops.masked_linear, inputs(*shape, order, seed=5), dtype, room.reference)


@everywhere
@given(shape=shapes, order=orders, strict=st.booleans(), dtype=dtypes, layout=layouts, seed=seeds,
       scale=st.sampled_from([1.0, 1e-3, 1e2]), cut=st.booleans(), few=st.sampled_from([0, 96]))
def test_within_the_rounding_of_its_sums(run, shape, order, strict, dtype, layout, seed, scale, cut, few):
    """A sum of n products in any order is off by at most n 2^-24 (float64: n 2^-53) times the sum of their sizes.

    It is rounded once more.
    """
    (N, K, J), (x, weight, bias, in_degree, out_degree, _) = shape, inputs(*shape, order, strict, seed, scale)
    x, weight, bias, dy = (a.to(dtype) for a in (x, weight, bias, numbers(N, J, seed=9)))
    live = room.mask(in_degree, out_degree, strict).double()
    W, X, b, dY = weight.double() * live, x.double(), bias.double(), dy.double()
    exact = X @ W.T + b, dY @ W, dY.T @ X * live
    sizes = X.abs() @ W.abs().T + b.abs(), dY.abs() @ W.abs(), dY.abs().T @ X.abs() * live
    constants = dict(FEW=few, LIGHT=0) | (dict(KEPT=0) if cut else {})
    with run.use(), mock.patch.multiple(_masked_linear_cpu, **constants):
        x, weight, bias, dy = (laid_out(a, layout).to(run.device) for a in (x, weight, bias, dy))
        found = forward_and_gradients(x, weight, bias, in_degree.to(run.device), out_degree.to(run.device), strict, dy)
    u = 2.0**-53 if dtype == torch.float64 else 2.0**-24
    for got, truth, size, terms in zip(found, exact, sizes, (K + 2, J + 1, N + 1), strict=True):
        assert got.dtype == dtype and got.shape == truth.shape
        within = ((2 if dtype == torch.float64 else 1) * terms * u * size + one_rounding(truth, dtype))
        assert ((got.cpu().double() - truth).abs() <= within).all()


@everywhere
@pytest.mark.parametrize("shape", [(3, 5, 4), (300, 200, 150)])  # the second is cut into steps on a CPU
def test_degrees_that_change_in_place_change_the_mask(run, shape):
    """What is kept of degrees is found by their values, not by where they lie."""
    x, weight, bias, in_degree, out_degree, strict = (
        a.to(run.device) if torch.is_tensor(a) else a for a in inputs(*shape))
    with run.use():
        for _ in range(2):
            got = ops.masked_linear(x, weight, bias, in_degree, out_degree, strict)
            want = room.reference(x, weight, bias, in_degree, out_degree, strict)
            torch.testing.assert_close(got, want)
            in_degree.copy_(in_degree.flip(0) + 1)


@pytest.mark.parametrize("N, K, J", [(1, 1024, 1025), (0, 3000, 3000)])
def test_a_large_mask_is_not_kept(N, K, J):
    """64 masks are kept, whatever their size: the weights of a network that is fed row by row would fill the memory."""
    x, weight, bias, *rest = (a.float() if torch.is_tensor(a) and a.is_floating_point() else a
                              for a in inputs(N, K, J, "ascending"))
    _masked_linear_cpu._bits.cache_clear()
    with kernels.use("cpu"):
        y, dx, _ = forward_and_gradients(x, weight, bias, *rest)
    assert _masked_linear_cpu._bits.cache_info().currsize == 0
    assert within_rounding(y, x, weight, bias, *rest)
    assert dx.shape == x.shape


@everywhere
def test_matches_without_bias_and_with_expanded_tensors(run):
    x, weight, _, *rest = inputs(40, 70, 66)
    expanded = [x[:1].expand(40, 70), weight[:, :1].expand(66, 70)]
    without_bias = lambda operator: lambda x, w, *a: operator(x, w, None, *a)
    matches(run, without_bias(ops.masked_linear), [*expanded, *rest], torch.float32, without_bias(room.reference))


@of_backends
def test_gradient(run):
    *tensors, in_degree, out_degree, strict = inputs(2, 2, 3, seed=1)
    gradient(run, lambda x, w, b: ops.masked_linear(x, w, b, in_degree, out_degree, strict), tensors)


@of_backends
def test_registered(run):
    registered(run, ops.masked_linear, inputs(2, 2, 3, seed=2), argnums=(0, 1, 2), plain=room.reference)


@of_backends
def test_opaque(run):
    x, weight, bias, in_degree, out_degree, strict = to(run, None, inputs(5, 6, 7))
    request = ":".join(filter(None, (run.backend, run.rung)))
    opaque(torch.ops.genmini.masked_linear.default, (x, weight, bias, in_degree, out_degree, strict, request))
    opaque(torch.ops.genmini.masked_linear.default, (x, weight, None, in_degree, out_degree, True, request))
    opaque(torch.ops.genmini.masked_linear_dw.default, (x @ weight.T, x, in_degree, out_degree, strict, request))
    opaque(torch.ops.genmini.masked_linear_backward.default,
           (x @ weight.T, x, weight, in_degree, out_degree, strict, request))


# ---- laws: the mask --------------------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("order", ["ascending", "descending", "random", "constant", "round", "extreme"])
def test_the_jacobian_is_nonzero_exactly_where_the_mask_is(run, order, strict):
    x, weight, bias, in_degree, out_degree, _ = to(run, None, inputs(1, 70, 67, order))
    allowed = torch.tensor([[o > i if strict else o >= i for i in in_degree.tolist()] for o in out_degree.tolist()],
                           device=run.device)
    with run.use():
        x = x[0].requires_grad_()
        y = ops.masked_linear(x, weight, bias, in_degree, out_degree, strict)
        jacobian = torch.stack([torch.autograd.grad(y[j], x, retain_graph=True)[0] for j in range(0, 67, 11)])
        assert torch.equal(jacobian != 0, allowed[::11])
        assert torch.equal(jacobian, torch.where(allowed, weight, 0)[::11])  # one term each: nothing to round
        one = torch.eye(70, dtype=x.dtype, device=run.device)
        assert torch.equal(ops.masked_linear(one, weight, None, in_degree, out_degree, strict).T != 0, allowed)


@everywhere
@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e300])
@pytest.mark.parametrize("order", ["ascending", "random"])
def test_dead_weights_are_never_seen(run, poison, order):
    x, weight, bias, in_degree, out_degree, strict = to(run, None, inputs(20, 70, 80, order))
    dead = ~room.mask(in_degree, out_degree, strict)
    assert dead.any() and not dead.all()
    with run.use():
        clean = forward_and_gradients(x, weight.masked_fill(dead, 0), bias, in_degree, out_degree, strict)
        seen = forward_and_gradients(x, weight.masked_fill(dead, poison), bias, in_degree, out_degree, strict)
    assert all(torch.equal(a, b) for a, b in zip(clean, seen, strict=True))
    assert (seen[2][dead] == 0).all() and seen[2][~dead].all()


@everywhere
@pytest.mark.filterwarnings("ignore:invalid value encountered")  # NumPy, in the interpreter, of 0 times infinity
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_reaches_all_that_may_see_it_and_no_dead_gradient(run, poison):
    x, weight, bias, in_degree, out_degree, strict = to(run, None, inputs(6, 70, 80))
    weight[5] = 0  # also through a weight of 0
    x[2, 30] = poison
    allowed = room.mask(in_degree, out_degree, strict)
    with run.use():
        y, dx, dw = forward_and_gradients(x, weight, bias, in_degree, out_degree, strict)
    assert not y[2, allowed[:, 30]].isfinite().any()
    assert y[torch.arange(6) != 2].isfinite().all() and dx.isfinite().all()
    assert not dw[allowed[:, 30], 30].isfinite().any()
    assert (dw[~allowed] == 0).all()


@everywhere
@pytest.mark.parametrize("strict", [False, True])
def test_degrees_in_any_order_are_the_sorted_ones_permuted(run, strict):
    x, weight, bias, in_degree, out_degree, _ = to(run, None, inputs(9, 100, 90))
    k, j = in_degree.argsort(stable=True), out_degree.argsort(stable=True)
    with run.use():
        y, dx, dw = forward_and_gradients(x, weight, bias, in_degree, out_degree, strict)
        y_, dx_, dw_ = forward_and_gradients(x[:, k], weight[j][:, k], bias[j], in_degree[k], out_degree[j], strict)
    torch.testing.assert_close((y_, dx_, dw_), (y[:, j], dx[:, k], dw[j][:, k]), rtol=0, atol=1e-12)


@of_backends
@pytest.mark.parametrize("shape", [(3, 10, 20), (70, 300, 500)], ids=str)  # the second is cut on a CPU
def test_a_backward_pass_inside_autocast_is_that_outside(run, shape):
    N, K, J = shape
    x, weight = (numbers(rows, K).float().to(run.device).requires_grad_() for rows in (N, J))
    degrees = (torch.arange(n, device=run.device) * 7 % 5 for n in (K, J))
    with run.use():
        y = ops.masked_linear(x, weight, None, *degrees)
        outside = torch.autograd.grad(y, (x, weight), torch.ones_like(y), retain_graph=True)
        with torch.autocast(run.device, torch.bfloat16):
            inside = torch.autograd.grad(y, (x, weight), torch.ones_like(y))
    assert all(map(torch.equal, inside, outside))


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("few", [0, 96])
@pytest.mark.parametrize("N", [9, 95])
def test_matches_sorted_or_not_on_a_cpu(few, N, threads, monkeypatch):
    """Of many rows degrees in another order are sorted, and what they gave is put back; few rows are not."""
    for name, value in dict(KEPT=0, FEW=few, LEAST=1, DW=1, LIGHT=0).items():
        monkeypatch.setattr(_masked_linear_cpu, name, value)
    (run,) = [run for run in RUNS if run.backend == "cpu"]
    arguments = inputs(N, 200, 300)
    values = *_masked_linear_cpu._values(*arguments[3:5]), False
    assert (_masked_linear_cpu.order_of(N, *values) is None) == (few > N)
    assert 9 < _masked_linear_cpu._order(*values).block < 95 // 2  # one block, or some and a part
    matches(run, ops.masked_linear, arguments, torch.float32, room.reference)
    x, *learnt = (a.float() if a.is_floating_point() else a for a in arguments[:5])  # W alone wants a gradient
    matches(run, lambda w, *a: ops.masked_linear(x.to(w.dtype), w, *a), learnt, torch.float32)


runs_of = st.lists(st.integers(1, 200), min_size=1, max_size=4)  # ascending ones, of degrees from 0


@given(in_runs=runs_of, out_runs=runs_of, strict=st.booleans(), many=st.booleans(), transposed=st.booleans(),
       turned=st.booleans(), dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
@example(in_runs=[33], out_runs=[33, 55, 200], strict=False, many=True, transposed=False, turned=False,
         dtype=torch.float32)
def test_the_spans_of_a_cpu_are_the_mask(in_runs, out_runs, strict, many, transposed, turned, dtype):
    """The live inputs of some outputs, but for their mixed ones that the bits mask, in the order of the plan"""
    in_degree, out_degree = (torch.cat([torch.arange(n) for n in runs]) for runs in (in_runs, out_runs))
    values = *_masked_linear_cpu._values(in_degree, out_degree), strict
    mask, order = room.mask(in_degree, out_degree, strict), _masked_linear_cpu._order(*values) if many else None
    mask = mask[order.j][:, order.k] if order else mask
    mask = mask.T if transposed else mask
    found = torch.zeros_like(mask)
    steps = _masked_linear_cpu._steps(*values, many, transposed, dtype, turned)
    side = order.side if order else _masked_linear_cpu.rows(len(found))
    for rows, seen in zip(found.split(side), steps, strict=True):
        assert dtype.itemsize > 2 or len(seen) <= 1  # a sum of 16 bits in two parts is rounded twice
        for live, mixed, bits in seen:
            rows.narrow(1, *live)[:] = True
            rows.narrow(1, *live).narrow(1, *mixed)[:] = bits != 0
    assert torch.equal(found, mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_ascending_runs_are_multiplied_as_they_lie_on_a_cpu(dtype):
    """The hidden units of other libraries have the degrees 1, ..., D-1 in turn: few more tiles live than if sorted."""
    in_degree, out_degree = torch.cat([torch.arange(300), torch.arange(200)]), torch.arange(400)
    values = *_masked_linear_cpu._values(in_degree, out_degree), False
    assert _masked_linear_cpu._order(*values) is None
    of_rows = [len(seen) for seen in _masked_linear_cpu._steps(*values, True, False, torch.float32, False)]
    assert max(of_rows) == 2
    (run,) = [run for run in RUNS if run.backend == "cpu"]
    x, weight, bias = (numbers(*shape, seed=i) for i, shape in enumerate(((50, 500), (400, 500), (400,))))
    matches(run, ops.masked_linear, [x, weight, bias, in_degree, out_degree, False], dtype, room.reference)


def test_masks_that_a_cpu_keeps_take_little_memory(monkeypatch):
    """Few tiles are dead, and no order makes more: the masks of each of these degrees are as large as W."""
    steps = _masked_linear_cpu._steps
    monkeypatch.setattr(_masked_linear_cpu, "KEPT", 0)
    monkeypatch.setattr(steps, "results", {})
    monkeypatch.setattr(steps, "most", 2**20)
    x, weight, in_degree = numbers(100, 300).float(), numbers(300, 300, seed=1).float(), torch.arange(300) * 7 % 300
    outs = [torch.arange(300) * 11 % 300 + 250 + shift for shift in range(4)]
    for i in (0, 1, 2, 3, 2, 1):
        y = ops.masked_linear(x, weight, None, in_degree, outs[i])
        assert within_rounding(y, x, weight, None, in_degree, outs[i], False)
    assert [key[1] for key in steps.results] == [outs[i].numpy().tobytes() for i in (3, 2, 1)]  # the last used
    assert 3 * 300_000 < steps.bytes() <= 2**20


@everywhere
def test_layers_of_rising_degrees_are_autoregressive(run):
    D, H = 6, 40
    d, h = torch.arange(1, D + 1, device=run.device), (torch.arange(H, device=run.device) % (D - 1) + 1).sort().values
    w, v, u = (numbers(*shape, seed=i).to(run.device) for i, shape in enumerate(((H, D), (H, H), (D, H))))

    def net(x):
        hidden = ops.masked_linear(x, w, None, d, h).tanh()
        hidden = ops.masked_linear(hidden, v, None, h, h).tanh()
        return ops.masked_linear(hidden, u, None, h, d, strict=True)

    with run.use():
        jacobian = torch.func.jacrev(net)(numbers(D).to(run.device))
    assert torch.equal(jacobian != 0, torch.ones_like(jacobian).tril(-1) != 0)


# ---- laws: the kernels -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(len(KERNELS) < 2, reason="needs two rungs")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("order", ["ascending", "descending", "random", "constant"])
def test_skipping_dead_tiles_and_unmasking_full_ones_changes_no_bit(order, dtype):
    x, weight, bias, *rest = inputs(70, 150, 140, order)
    found = []
    for run in KERNELS:
        with run.use():
            found.append([a.cpu() for a in forward_and_gradients(*to(run, dtype, [x, weight, bias, *rest]))])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def tiles(degree, side):
    return [(part.min().item(), part.max().item()) for part in degree.split(side)]


@pytest.mark.skipif(not any(run.backend == "emulated" for run in RUNS), reason="counts the interpreter's products")
@pytest.mark.parametrize("order", ["ascending", "descending", "random", "round"])
def test_a_dead_tile_costs_no_product(order, monkeypatch):
    from triton.runtime import interpreter

    steps, dot = [], interpreter.InterpreterBuilder.create_dot
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", lambda *a: steps.append(1) or dot(*a))
    in_degree, out_degree = degrees(200, 180, order)
    N, K, J, (side, _, deep, *_) = 100, 200, 180, room.TILE[torch.float32]
    x, weight, dy = (torch.ones(*shape) for shape in ((N, K), (J, K), (N, J)))
    rows = math.ceil(N / side)
    live = lambda j_side, k_side: sum(
        high >= low for _, high in tiles(out_degree, j_side) for low, _ in tiles(in_degree, k_side)
    )
    count = {
        "staircase": (rows * live(side, deep), rows * live(deep, side), live(side, side) * math.ceil(N / deep)),
        "naive": (rows * 3 * 7, rows * 6 * 4, 3 * 4 * math.ceil(N / deep)),
    }
    count["grouped"] = count["staircase"]
    for rung, (forward, turned, outer) in count.items():
        for expected, launch in (
            (forward, lambda rung=rung: room.launch(rung, x, weight, None, in_degree, out_degree, False)),
            (turned, lambda rung=rung: room.launch(rung, dy, weight.T, None, ~out_degree, ~in_degree, False)),
            (outer, lambda rung=rung: room.launch_dw(rung, dy, x, in_degree, out_degree, False)),
        ):
            steps.clear()
            launch()
            assert len(steps) == expected, (rung, order)


@in_kernels
def test_the_same_bits_wherever_the_numbers_lie(run):
    x, weight, bias, *rest = to(run, torch.float32, inputs(70, 75, 66))
    with run.use():
        plain = forward_and_gradients(x, weight, bias, *rest)
        for how in ("offset", "transposed", "strided"):
            moved = ops.masked_linear(laid_out(x, how), laid_out(weight, how), laid_out(bias, how), *rest)
            assert torch.equal(plain[0], moved)
        assert all(torch.equal(a, b) for a, b in zip(plain, forward_and_gradients(x, weight, bias, *rest), strict=True))


@pytest.mark.parametrize("run", [run for run in KERNELS if run.device == "cpu"], ids=str)
def test_offsets_of_more_than_31_bits(run):
    """Two rows 2^31 + 16 numbers apart, in memory that is reserved and hardly used."""
    stride = 2**31 + 16
    memory = mmap.mmap(-1, 4 * (stride + 64),
                       flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0))
    far = torch.frombuffer(memory, dtype=torch.float32).as_strided((2, 20), (stride, 1))
    far.copy_(numbers(2, 20))
    near, (in_degree, out_degree) = far.contiguous(), degrees(20, 2)
    with run.use():
        for x, weight in ((far, near), (near, far)):
            got = ops.masked_linear(x, weight, None, in_degree, out_degree)
            assert torch.equal(got, ops.masked_linear(near, near, None, in_degree, out_degree))
        wide, back = (ops.masked_linear(far.T, far.T, None, out_degree, in_degree),
                      ops.masked_linear(near.T, near.T, None, out_degree, in_degree))
        assert torch.equal(wide, back)
