"""Proofs and laws of the NADE room (kernels/nade.py): the likelihood. test_nade_sample.py has the sampler."""

import itertools
import math

import pytest
import torch
from check import (
    DTYPES,
    gradient,
    laid_out,
    layouts,
    mapped_like_a_loop,
    matches,
    numbers,
    opaque,
    registered,
    runs,
    seeds,
)
from genmini.kernels import nade as room
from hypothesis import given
from hypothesis import strategies as st

from genmini import kernels, ops

RUNS = runs("nade")
everywhere = pytest.mark.parametrize("run", RUNS, ids=str)
BEST = [run for run in RUNS if run.rung in (None, kernels.rungs("nade")[-1])]  # what does not depend on the rung
on_each_backend = pytest.mark.parametrize("run", BEST, ids=str)
# around the edges of vectors, warps, chunks, and groups of rows
ROWS, PIXELS, UNITS = [0, 1, 2, 3, 8, 9, 17, 33], [0, 1, 2, 5, 16, 17, 33], [0, 1, 3, 15, 16, 17, 31, 33, 65, 130]
shapes = st.tuples(*(st.sampled_from(edges) for edges in (ROWS, PIXELS, UNITS)))


def weights(D, H, seed=0, scale=1.0, dtype=torch.float64):
    """W, V, b, c; V is smaller by sqrt(H), so that logits are a few times `scale`."""
    sizes = ((H, D), (D, H), (D,), (H,))
    scales = (scale, scale / max(H, 1) ** 0.5, scale, scale)
    return [numbers(*size, seed=seed + i, scale=s, dtype=dtype)
            for i, (size, s) in enumerate(zip(sizes, scales, strict=True))]


def pixels(N, D, seed=0, ink=0.5):
    return (torch.rand(N, D, generator=torch.Generator().manual_seed(seed)) < ink).to(torch.uint8)


def inputs(N, D, H, seed=0, ink=0.5, scale=1.0):
    return [pixels(N, D, seed, ink), *weights(D, H, seed, scale)]


def definition(x, W, V, b, c):
    """The course's equations with a network of its own for every pixel: nothing is shared, nothing carried over."""
    l = torch.stack([b[d] + torch.sigmoid(c + x[:, :d].to(W.dtype) @ W[:, :d].T) @ V[d] for d in range(x.shape[1])], 1)
    p = l.sigmoid()
    return torch.where(x != 0, p, 1 - p).log().sum(1)


# ---- the common proofs -----------------------------------------------------------------------------------------------


@everywhere
@given(shape=shapes, dtype=st.sampled_from(DTYPES[:3]), layout=layouts, seed=seeds,
       ink=st.sampled_from([0, 0.13, 0.5, 1]))
def test_matches(run, shape, dtype, layout, seed, ink):
    x, *rest = inputs(*shape, seed=seed % 1000, ink=ink)
    matches(run, lambda x, *rest: ops.nade(laid_out(x.float(), layout), *rest),
            [x, *(laid_out(a, layout) for a in rest)], dtype)


@everywhere
@pytest.mark.parametrize("shape", [(3, 9, 5), (17, 40, 33), (35, 70, 70)], ids=str)
def test_float64_is_the_definition(run, shape):
    """Each of H + D additions may round once: eps times the sum of magnitudes, which here is below a hundred."""
    x, *rest = (a.to(run.device) for a in inputs(*shape, seed=1))
    rest = [a.requires_grad_() for a in rest]
    bound = 2.0**-52 * (shape[1] + shape[2]) * 100
    with run.use():
        got = ops.nade(x, *rest)
        grads = torch.autograd.grad(got.sum(), rest)
    wanted = definition(x, *rest)
    torch.testing.assert_close(got, wanted, rtol=0, atol=bound)
    for g, w in zip(grads, torch.autograd.grad(wanted.sum(), rest), strict=True):
        torch.testing.assert_close(g, w, rtol=0, atol=bound)


@on_each_backend
def test_gradient(run):
    x, *rest = inputs(3, 4, 5)
    gradient(run, lambda *a: ops.nade(x.to(run.device), *a), rest)
    gradient(run, lambda *a: ops.nade_logits(x.to(run.device), *a), rest)


@on_each_backend
def test_registered(run):
    registered(run, ops.nade, inputs(2, 3, 4), argnums=(1, 2, 3, 4))


@on_each_backend
def test_mapped_over_rows(run):
    x, *rest = (a.to(run.device) for a in inputs(6, 3, 4))
    with run.use():
        got = torch.func.vmap(ops.nade, in_dims=(0, None, None, None, None))(x.reshape(2, 3, 3), *rest)
        assert torch.equal(got.flatten(), ops.nade(x, *rest))
        each = torch.func.vmap(torch.func.grad(lambda W, x: ops.nade(x[None], W, *rest[1:]).sum()),
                               in_dims=(None, 0))(rest[0], x)
        W = rest[0].requires_grad_()
        torch.testing.assert_close(each.sum(0), torch.autograd.grad(ops.nade(x, W, *rest[1:]).sum(), W)[0])
        mapped_like_a_loop(lambda c: ops.nade(x, W.detach(), *rest[1:3], c), [rest[3]], (0,))


@on_each_backend
def test_opaque(run):
    x, W, V, b, c = (a.to(run.device) for a in inputs(3, 5, 4))
    opaque(torch.ops.genmini.nade.default, (x, W.t(), V, b, c, str(run.backend)))
    opaque(torch.ops.genmini.nade_backward.default, (x.double(), x, W.t(), V, c, str(run.backend)))
    u = torch.rand(3, 5, dtype=torch.float64).to(run.device)
    opaque(torch.ops.genmini.nade_sample.default, (u, x, 2, W.t(), V, b, c, str(run.backend)))


# ---- laws: the likelihood --------------------------------------------------------------------------------------------


def space(D):
    return torch.tensor(list(itertools.product((0, 1), repeat=D)), dtype=torch.uint8)


@everywhere
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_probabilities_sum_to_one(run, dtype):
    with run.use():
        log_p = ops.nade(space(7).to(run.device), *(a.to(run.device) for a in weights(7, 20, scale=2.0, dtype=dtype)))
    assert log_p.dtype == dtype and log_p.exp().max() > 3 / 2**7, "a flat distribution proves little"
    assert abs(log_p.double().exp().sum().item() - 1) < (1e-12 if dtype == torch.float64 else 1e-5)


@everywhere
def test_logits_see_exactly_what_comes_before(run):
    """Flipping x_d changes the logits of d+1 ... D, all of them, and leaves the others their bits."""
    D = 6
    x, *rest = (a.to(run.device) for a in inputs(1, D, 40, seed=5))
    flipped = x ^ torch.eye(D, dtype=torch.uint8, device=run.device)
    with run.use():
        changed = ops.nade_logits(flipped, *rest) != ops.nade_logits(x.expand(D, D), *rest)
    assert torch.equal(changed.cpu(), torch.ones(D, D).triu(1).bool())


@everywhere
def test_it_is_not_the_double_sigmoid(run):
    """A sigmoid of the sigmoid still sums to one, but no p(x_d = 1) could leave [0.5, 0.73]."""
    _, *rest = (a.to(run.device) for a in inputs(1, 3, 4))
    rest[2] += torch.tensor([8.0, -8.0, 0.0], device=run.device)
    with run.use():
        p = ops.nade_logits(torch.zeros(1, 3, device=run.device), *rest).sigmoid()[0]
    assert p[0] > 0.99 and p[1] < 0.01


@everywhere
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_extreme_activations(run, dtype):
    """sigma is 0 or 1 far out, NaN for NaN; log_prob stays finite where the probability does not underflow."""
    x = torch.tensor([[1, 0]], dtype=torch.uint8, device=run.device)
    W, V, b = (torch.zeros(*s, dtype=dtype, device=run.device) for s in ((6, 2), (2, 6), (2,)))
    c = torch.tensor([-1e30, -200, 200, 1e30, -math.inf, math.inf], dtype=dtype, device=run.device)
    V[0] = torch.tensor([1, 2, 4, 8, 16, 32])
    with run.use():
        assert ops.nade_logits(x, W, V, b, c)[0].tolist() == [44, 0]  # 4 + 8 + 32
        assert math.isfinite(ops.nade(x, W, 1e4 * V, b, -c).item())
        c[0] = math.nan
        assert ops.nade(x, W, V, b, c).isnan().all() and ops.nade_logits(x, W, V, b, c).isnan().all()


# ---- laws: how it is computed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [r for r in RUNS if r.backend != "reference"], ids=str)
def test_a_row_does_not_depend_on_its_neighbours(run):
    x, *rest = (a.to(run.device) for a in inputs(37, 20, 70))
    with run.use():
        together = ops.nade_logits(x, *rest)
        assert all(torch.equal(ops.nade_logits(x[n : n + 1], *rest)[0], together[n]) for n in (0, 7, 15, 16, 36))


@pytest.mark.parametrize("kind", ["avx2", "portable"])
def test_every_instruction_set(kind, monkeypatch):
    """The other vector widths of the native kernel are as close to the definition.

    A processor without AVX2 runs the narrow one twice.
    """
    monkeypatch.setenv("GENMINI_CPU", kind)
    run = next(run for run in RUNS if run.backend == "cpu")
    for shape in ((3, 9, 5), (37, 40, 70)):
        matches(run, ops.nade, inputs(*shape), torch.float32, definition)
        test_float64_is_the_definition(run, shape)


@pytest.mark.parametrize("run", [r for r in RUNS if r.backend != "reference"], ids=str)
def test_no_kernel_stores_every_activation(run):
    """The largest tensor of forward and backward is far below N D H."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple) else (out,):
                if isinstance(tensor, torch.Tensor):
                    self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // tensor.element_size())
            return out

    N, D, H = 64, 60, 40
    x, *rest = (a.to(run.device) for a in inputs(N, D, H))
    rest = [a.float().requires_grad_() for a in rest]
    with run.use(), Largest() as largest:
        ops.nade(x, *rest).sum().backward()
    assert 0 < largest.numbers < N * D * H / 3


def test_wide_layers_take_the_naive_pass():
    x, *rest = inputs(2, 3, 1100)
    with kernels.use("emulated", "warp_rows"):
        wide = ops.nade_logits(x, *rest)
    with kernels.use("emulated", "naive"):
        assert torch.equal(wide, ops.nade_logits(x, *rest))


@pytest.mark.parametrize("run", [r for r in RUNS if r.rung == "warp_rows"], ids=str)
def test_very_long_rows_take_the_naive_gradient(run):
    """Where the marks of a row leave shared memory, here of 130 thousand pixels in double, the sums are the same."""
    N, D, H = 2, 130_000, 1
    x, W, V, _, c = (a.to(run.device) for a in inputs(N, D, H, scale=0.1))
    dl = numbers(N, D, seed=8).to(run.device)
    found = room.launch_backward(run.backend, run.rung, dl, x, W.t().contiguous(), V, c)
    for got, wanted in zip(found, room.reference_backward(dl, x, W.t(), V, c), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


def test_16_bit_numbers_are_computed_in_float32():
    x, *rest = inputs(4, 5, 6)
    rest = [a.bfloat16() for a in rest]
    got = ops.nade(x, *rest)
    assert got.dtype == torch.float32 and torch.equal(got, ops.nade(x, *(a.float() for a in rest)))


def test_errors_name_the_argument():
    x, W, V, b, c = inputs(2, 3, 4)
    with pytest.raises(ValueError, match="x must hold 0 and 1 alone"):
        ops.nade(x + 1, W, V, b, c)
    with pytest.raises(ValueError, match="x must hold 0 and 1 alone"):
        ops.nade(x * 0.5 + 0.25, W, V, b, c)
    with pytest.raises(ValueError, match=r"x must have shape \(N, D\)"):
        ops.nade(x[0], W, V, b, c)
    with pytest.raises(ValueError, match=r"W must have shape \(H, D\) with H of V = \(4, 3\), got \(3, 4\)"):
        ops.nade(x, W.t(), V, b, c)
    with pytest.raises(ValueError, match=r"V must have shape \(D, H\) with D of x"):
        ops.nade(x[:, :2], W, V, b, c)
    with pytest.raises(TypeError, match="V must have the dtype of W"):
        ops.nade(x, W, V.float(), b, c)


def test_meta_tensors_pass():
    x, *rest = (a.to("meta") for a in inputs(2, 3, 4))
    assert ops.nade(x, *rest).shape == (2,)


def test_the_gradient_recomputes_h_in_the_order_of_the_pass():
    """reference_backward adds a_d up as the pass does: the same bits, so its h is the pass's h."""
    x, W, _, _, c = inputs(5, 9, 7)
    with kernels.use("reference"):
        V = torch.zeros(9, 7, dtype=torch.float64)
        V[8, 3] = 1
        h = ops.nade_logits(x, W, V, torch.zeros(9, dtype=torch.float64), c)[:, 8]
        dl = torch.zeros(5, 9, dtype=torch.float64)
        dl[2, 8] = 1
        dV = room.reference_backward(dl, x, W.t(), V, c)[1]
    assert dV[8, 3] == h[2]
