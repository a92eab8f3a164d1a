"""The proofs that every room passes. A room's own test file adds its laws.

    RUNS = check.runs("affine_coupling")             # the reference, each native kernel, each rung of the GPU kernel
    @pytest.mark.parametrize("run", RUNS, ids=str)
    def test_matches(run): check.matches(run, ops.affine_coupling, inputs)

`matches` sets the tolerance: the definition in float64 is the truth, and the error of a kernel may be at most twice
the error of PyTorch evaluating the same definition in the same dtype, plus one rounding of the largest number. Of few
numbers PyTorch may happen to be exact; then the largest of its errors at inputs near these counts instead.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st
from torch.autograd import forward_ad
from torch.utils._pytree import tree_leaves, tree_map

from genmini import kernels
from genmini.cli import main

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
GPU = torch.cuda.is_available()


@dataclass(frozen=True)
class Run:
    backend: str
    rung: str | None
    device: str

    def __str__(self):
        return "-".join(part for part in (self.backend, self.rung, self.device if self.device != "cpu" else None)
                        if part)

    def use(self):
        return kernels.use(self.backend, self.rung)


def runs(operator):
    """Return every way in which this machine runs the operator.

    A way that should run here and cannot is in the list too, so that its tests fail.
    """
    room = kernels.ROOMS[operator]
    found = [Run("reference", None, "cpu")]
    if room.cpu:
        found.append(Run("cpu", None, "cpu"))
    if room.language == "cuda" or not GPU:  # with a GPU, Triton compiles in this process and cannot interpret
        found += [Run("emulated", rung, "cpu") for rung in room.rungs]
    if GPU:
        found += [Run("reference", None, "cuda")] + [Run(room.language, rung, "cuda") for rung in room.rungs]
    return found


# ---- inputs ----------------------------------------------------------------------------------------------------------


def structs(header):
    """The structs of a header in csrc/, {name: {field: its type}} in their order; functions are left out."""
    text = re.sub("//.*", "", (Path(__file__).resolve().parents[1] / "csrc" / header).read_text())
    found = {}
    for name, body in re.findall(r"struct (\w+)(?: : \w+)? \{(.*?)\n\};", text, re.S):
        lists = re.findall(r"^ *(?:const )?(\w+)([\w*, ]+);", body, re.M)
        found[name] = {field.strip(" *"): kind + "*" * field.count("*") for kind, fields in lists
                       for field in fields.split(",")}
    return found


def numbers(*shape, seed=0, scale=1.0, dtype=torch.float64):
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale).to(dtype)


def laid_out(tensor, layout):
    """Return the same values in another layout: transposed, every second number of a larger array, or unaligned."""
    if layout == "transposed":
        return tensor.transpose(0, -1).contiguous().transpose(0, -1) if tensor.dim() else tensor
    if layout == "strided":
        larger = torch.full((*tensor.shape[:-1], 2 * tensor.shape[-1]), float("nan"), dtype=tensor.dtype,
                            device=tensor.device)
        larger[..., ::2] = tensor
        return larger[..., ::2]
    if layout == "offset":
        larger = torch.full((tensor.numel() + 1,), float("nan"), dtype=tensor.dtype, device=tensor.device)
        larger[1:] = tensor.flatten()
        return larger[1:].view(tensor.shape)
    return tensor.contiguous()


layouts = st.sampled_from(["contiguous", "transposed", "strided", "offset"])
dtypes = st.sampled_from(DTYPES)
seeds = st.integers(0, 2**32 - 1)
scales = st.sampled_from([1.0, 1e-3, 1e3])
edges = st.sampled_from([0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129])  # around the edges of tiles


def to(run, dtype, inputs):
    """Floating tensors of the inputs in this dtype (None: each in its own), all on the run's device."""

    def move(a):
        if not isinstance(a, torch.Tensor):
            return a
        return a.to(run.device, dtype if dtype and a.is_floating_point() else a.dtype)

    return tree_map(move, inputs)


# ---- matches ---------------------------------------------------------------------------------------------------------

ROUNDING = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float64: 2.0**-53}
TINY = {torch.float32: 2.0**-150, torch.float16: 2.0**-25, torch.bfloat16: 2.0**-134, torch.float64: 0.0}


def one_rounding(truth, dtype):
    """The most that a rounding to this dtype moves a number that is near `truth`."""
    return ROUNDING[dtype] * truth.abs() * (1 + 2.0**-6) + TINY[dtype]


def error(got, exact):
    """The largest error; infinite when a number is missing or should not be there."""
    got, exact = got.detach().cpu().double(), exact.detach().cpu().double()
    assert got.shape == exact.shape, (got.shape, exact.shape)
    finite = exact.isfinite()
    if (not torch.equal(got[~finite].nan_to_num(7.0), exact[~finite].nan_to_num(7.0))
            or not got[finite].isfinite().all()):
        return float("inf")
    return (got - exact)[finite].abs().max().item() if finite.any() else 0.0


def fair(got, exact, pytorch, dtype, name="", near=lambda: ()):
    """|got - exact| <= 2 |pytorch - exact| + one rounding of the largest number. near() gives further errors of
    PyTorch, and is called where this one is too small."""
    exact = exact.detach().cpu().double()
    finite = exact[exact.isfinite()]
    rounding = torch.finfo(dtype).eps * finite.abs().max().item() if finite.numel() else 0.0
    ours, theirs = error(got, exact), error(pytorch, exact)
    if ours > 2 * theirs + rounding:
        theirs = max([theirs, *(e for e in near() if math.isfinite(e))])
    assert ours <= 2 * theirs + rounding, (
        f"{name} is off by {ours:.3g}; PyTorch in {dtype} by {theirs:.3g}, one rounding is {rounding:.3g}"
    )


def matches(run, operator, inputs, dtype=torch.float32, definition=None, gradients=True):
    """Outputs, and gradients for random output gradients, against the definition in float64.

    definition: plain PyTorch, differentiable by autograd; without one the operator itself on the backend "reference".
    """
    def plain(*arguments):
        with kernels.use("reference"):
            return (definition or operator)(*arguments)

    cpu = Run("reference", None, "cpu")
    rounded = to(cpu, dtype, inputs)  # all three see the same numbers
    exact = _out_and_gradients(plain, to(cpu, torch.float64, rounded), gradients)
    theirs = _out_and_gradients(plain, rounded, gradients)
    given = tree_map(lambda a: a.to(run.device) if isinstance(a, torch.Tensor) else a, rounded)
    before = tree_map(lambda a: a.clone() if isinstance(a, torch.Tensor) else a, given)
    with run.use():
        ours = _out_and_gradients(operator, given, gradients)
    for now, then in zip(given, before, strict=True):
        assert (not isinstance(now, torch.Tensor)
                or torch.equal(now.nan_to_num(7.0), then.nan_to_num(7.0))), "an input was overwritten"
    assert len(ours) == len(exact)
    for i, ((name, got), (_, truth), (_, pytorch)) in enumerate(zip(ours, exact, theirs, strict=True)):
        assert got.dtype == pytorch.dtype, (name, got.dtype, pytorch.dtype)
        near = lambda: _errors_near(plain, rounded, dtype, gradients, i)  # noqa: B023
        fair(got, truth, pytorch, got.dtype if got.dtype.is_floating_point else dtype, name, near)


def _errors_near(plain, inputs, dtype, gradients, i, tries=32):
    """PyTorch's errors in output or gradient i at inputs that differ from these by up to 1/64 of each number."""
    noise, cpu = torch.Generator().manual_seed(0), Run("reference", None, "cpu")

    def moved(a):
        if not isinstance(a, torch.Tensor) or not a.is_floating_point():
            return a
        return ((1 + (torch.rand(a.shape, generator=noise) - 0.5) / 32) * a).to(a.dtype)

    for _ in range(tries):
        beside = tree_map(moved, inputs)
        exact, theirs = (_out_and_gradients(plain, to(cpu, d, beside), gradients) for d in (torch.float64, dtype))
        yield error(theirs[i][1], exact[i][1])


def _out_and_gradients(operator, inputs, gradients):
    inputs = [a.detach().requires_grad_(gradients and a.is_floating_point()) if isinstance(a, torch.Tensor) else a
              for a in inputs]
    outs = tree_leaves(operator(*inputs))
    found = [(f"output {i}", out) for i, out in enumerate(outs)]
    moving = [(i, a) for i, a in enumerate(inputs) if isinstance(a, torch.Tensor) and a.requires_grad]
    flowing = [out for out in outs if out.requires_grad]
    if moving and flowing:
        along = [numbers(*out.shape, seed=17 + i).to(out) for i, out in enumerate(flowing)]
        for (i, _), grad in zip(moving, torch.autograd.grad(flowing, [a for _, a in moving], along), strict=True):
            found.append((f"gradient of input {i}", grad))
    return found


# ---- command ---------------------------------------------------------------------------------------------------------


def command(capsys, *words):
    """The command line: -> status, what it wrote, what it wrote on stderr."""
    status = main(list(words))
    return status, *capsys.readouterr()


# ---- drawn from ------------------------------------------------------------------------------------------------------


def drawn_from(seen, wanted):
    """Check counts against expected counts: chi-square is at most 4.5 standard deviations above its mean."""
    often = wanted >= 5  # the usual rule: rare cells count as one
    seen, wanted = (torch.cat([a[often], a[~often].sum()[None]]) for a in (seen, wanted))
    assert not seen[wanted == 0].any(), "what has no probability was drawn"
    seen, wanted = seen[wanted > 0], wanted[wanted > 0]
    chi2, free = ((seen - wanted) ** 2 / wanted).sum().item(), len(wanted) - 1
    assert free > 3 and chi2 < free + 4.5 * (2 * free) ** 0.5, (chi2, free)


# ---- gradient --------------------------------------------------------------------------------------------------------


def gradient(run, operator, inputs):
    """First and second derivatives against finite differences, in float64."""
    inputs = to(run, torch.float64, inputs)
    inputs = [a.requires_grad_() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in inputs]
    with run.use():
        assert torch.autograd.gradcheck(operator, inputs, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(operator, inputs)


# ---- registered ------------------------------------------------------------------------------------------------------


def registered(run, operator, inputs, argnums, plain=None, **tolerance):
    """Compare the operator under compile, func.grad, jacrev, grad of grad and vmap(grad) with autograd through `plain`.

    tolerance: rtol and atol of the comparison with `plain`, where the defaults of PyTorch are too narrow.
    """
    inputs = to(run, torch.float64, inputs)

    def loss(f):
        return lambda *a: sum((o * o.cos()).sum() for o in tree_leaves(f(*a)) if o.is_floating_point())

    def plainly(*a):
        with kernels.use("reference"):
            return (plain or operator)(*a)

    transforms = {
        "call": lambda f: f,
        "grad": lambda f: torch.func.grad(loss(f), argnums),
        "jacrev": lambda f: torch.func.jacrev(loss(f), argnums),
        "grad of grad": lambda f: torch.func.grad(
            lambda *a: sum(g.square().sum() for g in tree_leaves(torch.func.grad(loss(f), argnums)(*a))), argnums
        ),
    }
    with run.use():
        for name, transform in transforms.items():
            wanted = tree_leaves(transform(plain or plainly)(*inputs))
            for how, function in (("eager", transform(operator)), ("compiled", _compiled(transform(operator)))):
                for got, want in zip(tree_leaves(function(*inputs)), wanted, strict=True):
                    torch.testing.assert_close(
                        got, want, **tolerance, msg=lambda m, name=name, how=how: f"{how} {name}: {m}"
                    )
        alone = _Module(operator, inputs, argnums)
        moving = tuple(inputs[i] for i in argnums)
        with pytest.raises((NotImplementedError, RuntimeError)):  # forward mode is not defined, and says so
            torch.func.jvp(alone, moving, moving)
        with forward_ad.dual_level(), pytest.raises((NotImplementedError, RuntimeError)):
            alone(*(forward_ad.make_dual(a, a) for a in moving))
        exported = torch.export.export(alone, moving).module()
        for got, want in zip(tree_leaves(exported(*moving)), tree_leaves(operator(*inputs)), strict=True):
            torch.testing.assert_close(got, want)
        leaves = tuple(a.detach().requires_grad_() for a in moving)
        wanted = tree_leaves(transforms["grad"](operator)(*inputs))
        for got, want in zip(torch.autograd.grad(loss(exported)(*leaves), leaves), wanted, strict=True):
            torch.testing.assert_close(got, want)
        mapped_like_a_loop(operator, inputs, argnums)
        mapped_like_a_loop(torch.func.grad(loss(operator), argnums), inputs, argnums)


class _Module(torch.nn.Module):
    """What torch.export takes: the operator, with all but its differentiable inputs fixed."""

    def __init__(self, operator, inputs, argnums):
        super().__init__()
        self.operator, self.inputs, self.argnums = operator, inputs, argnums

    def forward(self, *moving):
        return self.operator(*(moving[self.argnums.index(i)] if i in self.argnums else a
                               for i, a in enumerate(self.inputs)))


def _compiled(function):
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend="aot_eager")


def mapped_like_a_loop(function, inputs, argnums, B=3):
    """vmap over each differentiable input alone, and over all, equals a Python loop."""
    stacked = [torch.stack([a * (1 + b) for b in range(B)]) if i in argnums else a for i, a in enumerate(inputs)]
    for mapped in ((i,) for i in argnums) if len(argnums) == 1 else (*((i,) for i in argnums), argnums):
        arguments = [stacked[i] if i in mapped else a for i, a in enumerate(inputs)]
        in_dims = tuple(0 if i in mapped else None for i in range(len(inputs)))
        got = tree_leaves(torch.func.vmap(function, in_dims=in_dims)(*arguments))
        each = [tree_leaves(function(*(a[b] if i in mapped else a for i, a in enumerate(arguments)))) for b in range(B)]
        for g, *singles in zip(got, *each, strict=True):
            torch.testing.assert_close(g, torch.stack(singles))


def opaque(op, arguments):
    """Run PyTorch's checks of a registered operator: schema, fake outputs and strides, no aliasing, dynamic shapes."""
    torch.library.opcheck(op, arguments)
    torch.library.opcheck(op, tuple(laid_out(a, "transposed") if isinstance(a, torch.Tensor) else a for a in arguments))
