"""Proofs and laws of the affine coupling room (kernels/affine_coupling.py)."""

import math
from fractions import Fraction

import pytest
import torch
from check import DTYPES, edges, gradient, laid_out, layouts, matches, numbers, opaque, registered, runs, scales, seeds
from genmini.kernels import _backend
from genmini.kernels import affine_coupling as room
from hypothesis import example, given
from hypothesis import strategies as st

from genmini import kernels, ops

RUNS = runs("affine_coupling")
everywhere = pytest.mark.parametrize("run", RUNS, ids=str)
shapes = (
    st.tuples(edges, edges)
    | st.tuples(st.integers(0, 3), st.sampled_from([511, 512, 513, 4095, 4096, 4097, 9001]))
    | st.tuples(edges)
)


def inputs(*shape, seed=0, scale=1.0):
    return [numbers(*shape, seed=seed, scale=scale), numbers(*shape, seed=seed + 1),
            numbers(*shape, seed=seed + 2, scale=scale)]


def definition(x, s, t):
    y = x * s.exp() + t
    return y, s.reshape(s.shape[0], math.prod(s.shape[1:])).sum(1, dtype=torch.float64).to(room.sum_dtype(s.dtype))


def inverse_definition(y, s, t):
    return (
        (y - t) * (-s).exp(),
        -s.reshape(s.shape[0], math.prod(s.shape[1:])).sum(1, dtype=torch.float64).to(room.sum_dtype(s.dtype)),
    )


OPERATORS = {
    "forward": (ops.affine_coupling, definition),
    "forward, y saved": (lambda x, s, t: ops.affine_coupling(x, s, t, save="y"), definition),
    "inverse": (ops.affine_coupling_inverse, inverse_definition),
}
each_operator = pytest.mark.parametrize("name", OPERATORS)


# ---- the common proofs -----------------------------------------------------------------------------------------------


@everywhere
@each_operator
@given(shape=shapes, dtype=st.sampled_from(DTYPES[:3]), layout=layouts, seed=seeds, scale=scales)
@example(shape=(63,), dtype=torch.float32, layout="contiguous", seed=1054, scale=1.0)  # PyTorch is exact by luck
def test_matches(run, name, shape, dtype, layout, seed, scale):
    operator, plain = OPERATORS[name]
    if name == "forward, y saved":  # y - t loses what t covers: its own law is below
        scale, plain = 1.0, lambda x, s, t: definition_saving_y(x, s, t)
    matches(run, operator, [laid_out(a, layout) for a in inputs(*shape, seed=seed, scale=scale)], dtype, plain)


@everywhere
@each_operator
@pytest.mark.parametrize("shape", [(0,), (5,), (3, 7), (2, 513), (1, 4097)], ids=str)
def test_float64_is_within_its_roundings(run, name, shape):
    """The error is at most eight roundings of the largest intermediate number.

    exp is right to 2 ulp in the kernel and in PyTorch, each product and sum to half an ulp; both logdets may be off
    by the roundings of their sum.
    """
    operator, plain = OPERATORS[name]
    tensors = [a.to(run.device).requires_grad_() for a in inputs(*shape, seed=shape[0])]
    along = numbers(*shape, seed=8).to(run.device), numbers(shape[0], seed=9).to(run.device)
    with run.use():
        ours = operator(*tensors)
        grads = torch.autograd.grad(ours, tensors, along)
    wanted = plain(*tensors)
    of_sum = 2.0**-50 * 13 * tensors[1].abs().sum().item()
    largest = max((a.abs().max().item() for a in (*tensors, *along) if a.numel()), default=0)
    within = 8 * 2.0**-52 * (1 + largest) ** 3 * math.exp(largest)
    torch.testing.assert_close(ours[1], wanted[1], rtol=0, atol=of_sum)
    for got, want in zip((ours[0], *grads), (wanted[0], *torch.autograd.grad(wanted, tensors, along)), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=within)


def definition_saving_y(x, s, t):
    """The same function whose gradient is read off the rounded y, in PyTorch."""
    return SavingY.apply(x, s, t)


class SavingY(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, s, t):
        y, logdet = definition(x, s, t)
        ctx.save_for_backward(y, s, t)
        return y, logdet

    @staticmethod
    def backward(ctx, dy, dlogdet):
        y, s, t = ctx.saved_tensors
        return dy * s.exp(), dy * (y - t) + dlogdet.reshape(-1, *[1] * (s.dim() - 1)).to(dy.dtype), dy


@everywhere
@each_operator
def test_gradient(run, name):
    gradient(run, OPERATORS[name][0], inputs(2, 3, 2))


@everywhere
@each_operator
def test_registered(run, name):
    registered(run, OPERATORS[name][0], inputs(2, 3), argnums=(0, 1, 2), plain=OPERATORS[name][1])


@everywhere
def test_opaque(run):
    x, s, t = (a.to(run.device) for a in inputs(3, 5))
    opaque(torch.ops.genmini.affine_coupling.default, (x, s, t, str(run.backend)))
    opaque(torch.ops.genmini.affine_coupling_inverse.default, (x, s, t, str(run.backend)))
    opaque(torch.ops.genmini.affine_coupling_backward.default, (x, s[:, 0].contiguous(), x, s, None, str(run.backend)))
    opaque(torch.ops.genmini.affine_coupling_inverse_backward.default,
           (x, s[:, 0].contiguous(), x, s, str(run.backend)))


# ---- laws ------------------------------------------------------------------------------------------------------------


@everywhere
def test_inverse_undoes_forward(run):
    x, s, t = (a.to(run.device) for a in inputs(5, 4, 3, 3))
    with run.use():
        y, logdet = ops.affine_coupling(x, s, t)
        back, inverse_logdet = ops.affine_coupling_inverse(y, s, t)
    torch.testing.assert_close(back, x, rtol=0,
                               atol=2**-49 * (y.abs() + t.abs()).max().item() * (-s).exp().max().item())
    assert torch.equal(logdet, -inverse_logdet)


@everywhere
def test_logdet_is_that_of_the_jacobian(run):
    x, s, t = (a.to(run.device) for a in inputs(1, 6))
    with run.use():
        J = torch.func.jacrev(lambda x: ops.affine_coupling(x, s, t)[0])(x).reshape(6, 6)
        logdet = ops.affine_coupling(x, s, t)[1]
    assert torch.equal(J, J.diag().diag())  # triangular, and more: diagonal
    torch.testing.assert_close(J.slogdet().logabsdet, logdet[0])


def exact_sums(s):
    """To 2^-106: fsum rounds the exact sum once, and a second fsum gives what that rounding left."""
    rows = [(row, math.fsum(row)) for row in s.double().tolist()]
    return [Fraction(high) + Fraction(math.fsum([*row, -high])) for row, high in rows]


@everywhere
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("D", [1, 2, 5, 16, 511, 513, 5000, 2**15 + 3])
@pytest.mark.parametrize("cruel", ["random", "cancelling", "one large"])
def test_logdet_is_accurate(run, dtype, D, cruel):
    s = numbers(2, D, seed=D, scale=5)
    if cruel == "cancelling":
        s[:, 1::2] = -s[:, : 2 * (D // 2) : 2] * (1 + 2.0**-9)
    if cruel == "one large":
        s[:, 0] = 2.0**15
    s = s.to(dtype)
    with run.use():
        logdet = ops.affine_coupling(*(a.to(run.device) for a in (s, s, s)))[1].tolist()
    for got, exact, row in zip(logdet, exact_sums(s), s.double(), strict=True):
        size = Fraction(row.abs().sum().item())
        within = 2.0**-50 * math.log2(D) * size if dtype == torch.float64 else 2.0**-23 * abs(exact) + 2.0**-40 * size
        assert abs(Fraction(got) - exact) <= within


@pytest.mark.parametrize("run", [r for r in RUNS if r.backend != "reference"], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_logdet_of_a_million_terms(run, dtype):
    s = numbers(1, 2**20, seed=3, dtype=dtype)
    with run.use():
        got = ops.affine_coupling(*(a.to(run.device) for a in (s, s, s)))[1].item()
    exact, size = exact_sums(s)[0], Fraction(s.double().abs().sum().item())
    within = 2.0**-50 * 20 * size if dtype == torch.float64 else 2.0**-23 * abs(exact) + 2.0**-40 * size
    assert abs(Fraction(got) - exact) <= within


@pytest.mark.parametrize("run", [r for r in RUNS if r.backend != "reference"], ids=str)
def test_logdet_in_two_doubles_keeps_what_one_would_lose(run):
    """Beside 2^60 a double loses all below 2^7. The low double is the sum of at most D such losses; each of its own D
    roundings is below 2^-53 of that."""
    D = 5000
    s = numbers(2, D, seed=4)
    s[:, 0], s[:, -1] = 2.0**60, -(2.0**60)
    with run.use():
        logdet = ops.affine_coupling(*(a.to(run.device) for a in (s, s, s)))[1].tolist()
    for got, exact in zip(logdet, exact_sums(s), strict=True):
        assert abs(Fraction(got) - exact) <= 2.0**-53 * abs(exact) + D * 2.0**-53 * (D * 2.0**7)


@everywhere
def test_save_y_is_as_wrong_as_it_says(run):
    """ds through y - t is off by a rounding of y and one of the difference, times |dy|; x e^s by 2^-24 |x e^s|."""
    x, s, t = (a.float().to(run.device) for a in inputs(4, 50))
    t = t * 100
    s.requires_grad_()
    with run.use():
        y, _ = ops.affine_coupling(x, s, t, save="y")
        ds = torch.autograd.grad(y.sum(), s)[0].double()
    exact = x.double() * s.detach().double().exp()
    u = 2.0**-24
    # exp is right to 2 ulp, its product to half
    within = u * y.detach().abs() + u * (y.detach() - t).abs() + 4 * u * exact.abs()
    assert ((ds - exact).abs() <= within).all()
    assert (ds - exact).abs().max() > u * exact.abs().max()  # larger than with x saved


@everywhere
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_16_bits_are_computed_in_32(run, dtype, name):
    """e^11.5 is beyond float16 and 1e-4 e^11.5 is not: the result is the definition in float32, rounded once.

    e^s may be off by two ulp.
    """
    sign = -1 if name == "inverse" else 1
    x, s, t = (torch.full((2, 3), value, dtype=dtype, device=run.device) for value in (1e-4, 11.5 * sign, 0.5))
    x, t = (x + t, t) if name == "inverse" else (x, t)
    leaves, plain = [a.requires_grad_() for a in (x, s, t)], [a.detach().float().requires_grad_() for a in (x, s, t)]
    y_grad = torch.full((2, 3), 0.01, dtype=dtype, device=run.device)
    with run.use():
        y, logdet = OPERATORS[name][0](*leaves)
        got = torch.autograd.grad([y, logdet], leaves, [y_grad, torch.full_like(logdet, 0.1)])
    wanted_y, wanted_logdet = OPERATORS[name][1](*plain)
    wanted = torch.autograd.grad([wanted_y, wanted_logdet], plain, [y_grad.float(), torch.full_like(logdet, 0.1)])
    near = dict(rtol=torch.finfo(dtype).eps, atol=0)
    torch.testing.assert_close(y.float(), wanted_y, **near)
    for grad, want in zip(got, wanted, strict=True):
        if name == "forward":  # the others read the rounded output
            torch.testing.assert_close(grad.float(), want.to(dtype).float(), **near)
        assert grad.isfinite().all() == want.to(dtype).isfinite().all()


@everywhere
def test_nan_and_infinity_stay_in_their_row(run):
    x, s, t = (a.float().to(run.device) for a in inputs(4, 3, 40))
    s[1, 0, 3], s[2, 1, 5], s[3, 0, 0], s[3, 2, 1] = math.nan, math.inf, math.inf, -math.inf
    x[0, 0, 0] = math.inf
    with run.use():
        y, logdet = ops.affine_coupling(x, s, t)
    assert logdet[0].isfinite() and logdet[1].isnan() and logdet[2] == math.inf and logdet[3].isnan()
    wrong = ~y.isfinite()
    expected = ~(x * s.exp() + t).isfinite()
    assert torch.equal(wrong, expected)


@everywhere
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dtype, least, most", [(torch.float32, -110, 92), (torch.float64, -760, 712)], ids=str)
def test_every_s_has_its_exponential(run, dtype, least, most, sign):
    """e^s is right to two roundings where it is a normal number, and to one subnormal number below; beyond it is 0 or
    infinite."""
    s = torch.linspace(least, most, 5001, dtype=torch.float64).to(dtype) * sign
    one, zero = torch.ones_like(s), torch.zeros_like(s)
    operator = ops.affine_coupling if sign == 1 else ops.affine_coupling_inverse
    with run.use():
        got = operator(*(a.to(run.device) for a in (one, s, zero)))[0].cpu()
    limits, exact = torch.finfo(dtype), (sign * s.double()).exp()
    finite = exact <= limits.max
    assert (got[~finite] == math.inf).all()
    off = (got.double() - exact)[finite].abs()
    assert (off <= 2 * limits.eps * exact[finite] + limits.smallest_normal * limits.eps).all()
    assert got[0] == 0


@pytest.mark.parametrize("instructions", ["avx512", "avx2", "portable"])
@pytest.mark.parametrize("shape", [(40, 7), (5, 33), (30, 2), (1, 9001)], ids=str)
@each_operator
def test_every_instruction_set(instructions, shape, name, monkeypatch):
    monkeypatch.setenv("GENMINI_CPU", instructions)
    operator, plain = OPERATORS[name]
    native = next(run for run in RUNS if run.backend == "cpu")
    for dtype in (torch.float32, torch.bfloat16):
        matches(native, operator, inputs(*shape), dtype,
                definition_saving_y if name == "forward, y saved" else plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(40, 7), (5, 33), (30, 2), (2, 9001)], ids=str)
def test_logdet_has_the_same_bits_on_every_instruction_set(shape, dtype, monkeypatch):
    """The rest has them on those with fused products, AVX-512 and AVX2."""
    x, s, t = (a.to(dtype) for a in inputs(*shape, seed=6))
    seen = {}
    for instructions in ("avx512", "avx2", "portable"):
        monkeypatch.setenv("GENMINI_CPU", instructions)
        leaves = [a.clone().requires_grad_() for a in (x, s, t)]
        with kernels.use("cpu"):
            y, logdet = ops.affine_coupling(*leaves)
        seen[instructions] = logdet, y, *torch.autograd.grad([y, logdet], leaves, [t, logdet.detach()])
    assert torch.equal(seen["avx512"][0], seen["portable"][0])
    assert all(map(torch.equal, seen["avx512"], seen["avx2"]))


@pytest.mark.parametrize("run", [r for r in RUNS if r.backend != "reference"], ids=str)
def test_the_same_bits_wherever_the_numbers_lie(run):
    s = numbers(3, 5000, seed=1, dtype=torch.float32).to(run.device)
    with run.use():
        plain = ops.affine_coupling(s, s, s)[1]
        assert all(torch.equal(plain, ops.affine_coupling(s, laid_out(s, how), s)[1])
                   for how in ("offset", "transposed", "strided"))
        assert torch.equal(plain[1:], ops.affine_coupling(s[1:], s[1:], s[1:])[1])


HALVES = {  # s and t of a network's output w (N, 2D)
    "halves": lambda w: w.chunk(2, 1),
    "every other column": lambda w: (w[:, 1::2], w[:, 0::2]),
    "every other of halves": lambda w: (w[:, : w.shape[1] // 2], w[:, 1::2]),
    "one row for all": lambda w: (w[:1, ::2].expand(len(w), -1), w[:1, 1::2].expand(len(w), -1)),
}


@pytest.mark.parametrize("run", [r for r in RUNS if r.backend != "reference"], ids=str)
@pytest.mark.parametrize("D", [1, 2, 7, 15, 16, 40, 4100])
@pytest.mark.parametrize("how", HALVES)
def test_halves_of_an_array_give_the_bits_of_their_copies(run, D, how):
    N = 2 if D > 100 else 9
    w, x, dy = (numbers(N, 2 * D, seed=seed, dtype=torch.float32).to(run.device) for seed in (1, 2, 3))
    (s, t), x, dy, dlogdet = HALVES[how](w), x[:, :D], dy[:, ::2], w[:, 0]
    for operator, _ in OPERATORS.values():
        seen = []
        for copied in (lambda a: a, torch.Tensor.contiguous):
            leaves = [copied(a).detach().requires_grad_() for a in (x, s, t)]
            with run.use():
                y, logdet = operator(*leaves)
                seen.append((y, logdet, *torch.autograd.grad([y, logdet], leaves, [copied(dy), dlogdet])))
        assert all(map(torch.equal, *seen))


def test_the_cpu_reads_the_halves_of_an_array_where_they_lie(monkeypatch):
    w, x = numbers(5, 64, dtype=torch.float32), numbers(5, 32, dtype=torch.float32)
    seen, call = [], room._library.call
    monkeypatch.setattr(room._library, "call", lambda *args: seen.append(args) or call(*args))
    with kernels.use("cpu"):
        for s, t in (w.chunk(2, 1), (w[:, 1::2], w[:, 0::2])):
            leaves = [a.detach().requires_grad_() for a in (x, s, t)]
            y, logdet = ops.affine_coupling(*leaves, save="y")
            y.backward(w[:, :32])
            for which, names in zip(seen, ("x s t", "dy dlogdet kept s t"), strict=True):
                given = dict(zip(names.split(), which[4:], strict=False))
                assert given["s"].data_ptr() == s.data_ptr() and given["t"].data_ptr() == t.data_ptr()
                assert given.get("dy", w).data_ptr() == w.data_ptr()
            seen.clear()


@everywhere
def test_a_gradient_runs_where_its_forward_ran(run):
    x, s, t = (a.to(run.device).requires_grad_() for a in inputs(3, 4))
    with run.use():
        y, logdet = ops.affine_coupling(x, s, t)
    with kernels.use("reference"):
        names = []
        run_backward = _backend.chosen
        _backend.chosen = lambda *a: names.append(run_backward(*a)) or names[-1]
        try:
            (y.sum() + logdet.sum()).backward()
        finally:
            _backend.chosen = run_backward
    assert [n.backend for n in names] == [run.backend]


@everywhere
def test_autocast_computes_in_float32(run):
    x, s, t = (a.to(run.device, torch.bfloat16) for a in inputs(3, 4))
    with run.use(), torch.autocast(run.device, torch.bfloat16):
        y, logdet = ops.affine_coupling(x, s, t)
    assert y.dtype == logdet.dtype == torch.float32


def test_errors_name_the_argument():
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"s must have shape that of x = \(2, 3\), got \(1, 3\)"):
        ops.affine_coupling(x, x[:1], x)
    with pytest.raises(TypeError, match="t must have the dtype of x, float32, got float64"):
        ops.affine_coupling(x, x, x.double())
    with pytest.raises(TypeError, match="x must be of dtype float32, float16, bfloat16 or float64, got int64"):
        ops.affine_coupling(x.long(), x, x)
    with pytest.raises(TypeError, match="s must be a tensor, got float"):
        ops.affine_coupling(x, 1.0, x)
    with pytest.raises(ValueError, match=r"x must have shape \(N, ...\)"):
        ops.affine_coupling(x[0, 0], x[0, 0], x[0, 0])
    with pytest.raises(ValueError, match="save must be 'x' or 'y', got 'z'"):
        ops.affine_coupling(x, x, x, save="z")
    with pytest.raises(ValueError, match="s must be on the device of x, cpu, got meta"):
        ops.affine_coupling(x, x.to("meta"), x)


def test_meta_tensors_pass():
    x = torch.zeros(2, 3, device="meta")
    y, logdet = ops.affine_coupling(x, x, x)
    assert y.shape == (2, 3) and logdet.shape == (2,)


@pytest.mark.parametrize("N, D", [(8200, 1025), (3, 2_900_003)])
def test_a_y_of_more_than_32_mb_is_that_of_its_pieces(N, D):
    """The native kernel begins the pages of such a y before it fills them: each of its numbers once, and no other's."""
    x, s, t = (torch.randn(N, D, generator=torch.Generator().manual_seed(i)) for i in range(3))
    y, logdet = ops.affine_coupling(x, s, t)
    for n in range(0, N, piece := max(1, N // 4)):
        rows = slice(n, n + piece)
        found, part = ops.affine_coupling(x[rows], s[rows], t[rows])
        assert torch.equal(y[rows], found) and torch.equal(logdet[rows], part)
