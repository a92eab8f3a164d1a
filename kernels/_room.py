"""Wires a room: its functions become PyTorch operators, and every argument is known by its name in the schema.

    SQUARE = room("square", "cuda", ("naive", "tiled"), cpu="C++")       # rungs of the GPU kernel, slowest first

    backward = operator(SQUARE, "square_dx(Tensor dy, Tensor x) -> Tensor dx", fake=..., reference=..., kernel=...)
    forward = operator(SQUARE, "square(Tensor x) -> Tensor y", fake=..., reference=..., kernel=..., cpu=...)

    def gradient(dy, x): return dict(x=_backward(dy=dy, x=x))            # each input's gradient, by its name

    _square = differentiable(forward, gradient, rows="x")
    _backward = differentiable(backward, rows="dy x")                    # PyTorch differentiates its reference

An operator names its inputs and outputs in its schema, and is called by the names of its inputs. Its functions take
whichever of these they need, in any order, under these names:

    fake(inputs)                       empty outputs: their shapes, dtypes and strides; or a string, "x s", of the
                                       inputs that they are like: the first like x, the second like s
    takes                              a string, "x s: T(N, D)": which dtypes and shapes agree (kernels/_takes.py);
                                       held before every backend and in the fake
    check(inputs)                      raises if values inside the tensors are not allowed; runs before every backend
    reference(inputs)                  the definition, in plain PyTorch
    cpu(inputs, backend)               what is fast on CPU tensors; an operator without it takes its reference there
    kernel(inputs, backend, rung)      launches the GPU kernel, real or emulated
    gradient(inputs, outputs, d<output>, needed)
                                       -> dict(input=gradient). The inputs and outputs that it names are kept for the
                                       backward pass; `needed` is the set of inputs that want a gradient

`cpu` and `kernel` get contiguous tensors at addresses that are multiples of 16 bytes, except those named in `strided`.
What PyTorch computes is made contiguous, or gets the strides of the fake where `strided` names an output. `rows` names
the inputs whose dimension 0 is the batch: vmap folds its new dimension into it.

This form gives right results under torch.compile(fullgraph=True), func.grad, jacrev, vmap, gradgradcheck and export.
Three simpler forms do not: register_autograd fails under func.grad, a bare operator as backward
fails gradgradcheck, a Function that Dynamo traces gives wrong compiled Jacobians. Forward mode (jvp) is not defined and
raises: PyTorch would nest it wrongly in silence.

The request (the backend that `kernels.use` had chosen when the front door was called) travels as a last, hidden
argument. A gradient's operators get the request of their forward, whatever is chosen by then, in whatever thread.
"""

import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter

import torch

from . import _backend, _library
from ._backend import room
from ._takes import Remembered, agreement, sum_dtype

LIBRARY = torch.library.Library("genmini", "DEF")
FUNCTIONS = {}  # operator -> its Function, for a call of the operator by itself, as an exported graph makes it

__all__ = ["Operator", "differentiable", "operator", "room", "sum_dtype"]


# ---- operator: a backend is chosen inside, where nothing is traced and no gradient is recorded ----------------------


@dataclass(frozen=True, eq=False)
class Operator:
    """genmini::<name>, called with the request of the moment, below autograd: `differentiable` adds the gradient."""

    name: str
    inputs: tuple  # their names in the schema, without the request
    outputs: tuple
    reference: Callable  # of all inputs, in the order of the schema
    overload: Callable  # torch.ops.genmini.<name>.default

    def __call__(self, **named):
        return self.overload(*self.in_order(named), _backend.requested())

    def in_order(self, named):
        """The values of these names, in the order of the schema."""
        if named.keys() != set(self.inputs):
            raise TypeError(f"genmini::{self.name} takes {', '.join(self.inputs)}, got {', '.join(named)}")
        return [named[name] for name in self.inputs]


def operator(room, schema, *, fake, reference, kernel, cpu=None, check=None, strided="", takes=None):
    """Define genmini::<schema>, which runs on the backend of its request."""
    arguments, _, results = schema.rpartition(") -> ")
    LIBRARY.define(f"{arguments}, str request) -> {results}", tags=[torch.Tag.pt2_compliant_tag])
    name = schema.partition("(")[0]
    overload = getattr(torch.ops.genmini, name).default
    *parsed, _ = overload._schema.arguments  # the last is the request
    inputs, outputs = tuple(a.name for a in parsed), tuple(r.name for r in overload._schema.returns)
    if not all(outputs) or len({*inputs, *outputs}) < len(inputs + outputs):
        raise NameError(f"genmini::{name} must name every output, and no two arguments alike: {schema}")
    where = f"genmini::{name}"
    strided = _known(strided, inputs + outputs, f"strided of {where}")
    tensors = [a.name for a in parsed if "Tensor" in str(a.type)]
    to_plain = [inputs.index(name) for name in tensors if name not in strided]
    agree = agreement(takes, inputs, tensors, where) if takes else lambda values: None
    agree_again = Remembered(agree, [inputs.index(name) for name in tensors]) if takes else agree
    device = next(i for i, a in enumerate(parsed) if str(a.type) == "Tensor")  # that of the first tensor decides
    fake = _alike(fake, inputs, where) if isinstance(fake, str) else _by_name(fake, inputs, where)
    reference, check = (f and _by_name(f, inputs, where) for f in (reference, check))
    kernel, cpu = (f and _by_name(f, (*inputs, "backend", "rung"), where) for f in (kernel, cpu))
    like_fake = bool(set(strided) & set(outputs))

    def as_fake(found, values):
        """What PyTorch computed, with the strides of the fake's outputs."""
        many = isinstance(found, tuple)
        outs = found if many else (found,)
        if like_fake:
            wanted = fake(*values) if many else (fake(*values),)
            outs = [o if o.stride() == w.stride() else w.copy_(o) for o, w in zip(outs, wanted, strict=True)]
        else:
            outs = [o.contiguous() for o in outs]
        return tuple(outs) if many else outs[0]

    def run(*arguments):
        *values, request = arguments
        agree_again(values)
        if check:
            check(*values)
        choice = _backend.chosen(room.name, values[device].device, values[device].dtype, request)
        if choice.backend == "reference" or (choice.backend == "cpu" and not cpu):
            return as_fake(reference(*values), values)
        for i in to_plain:
            values[i] = _plain(values[i])
        found = (cpu if choice.backend == "cpu" else kernel)(*values, choice.backend, choice.rung)
        return as_fake(found, arguments[:-1]) if choice.backend == "cpu" and room.cpu == "PyTorch" else found

    def with_gradient(*arguments):  # the operator called by itself, as an exported graph does
        if not _moving(arguments):
            with torch._C._AutoDispatchBelowAutograd():
                return overload(*arguments)
        if overload not in FUNCTIONS or torch._C._are_functorch_transforms_active():
            # a gradient would be dropped in silence
            raise RuntimeError(f"genmini::{name} has no gradient here: call its front door in genmini.ops")
        return FUNCTIONS[overload].apply(*arguments)

    def checked_fake(*arguments):
        agree(arguments[:-1])
        return fake(*arguments[:-1])

    LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    LIBRARY.impl(name, with_gradient, "Autograd")
    torch.library.register_fake(f"genmini::{name}", checked_fake, lib=LIBRARY)
    return Operator(name, inputs, outputs, reference, overload)


def _plain(value):
    return list(map(_library.plain, value)) if isinstance(value, list) else _library.plain(value)


def _alike(names, inputs, where):
    """A fake whose outputs have the shapes and dtypes of these inputs."""
    places = [inputs.index(name) for name in _known(names, inputs, f"fake of {where}")]
    empty = lambda a: a.new_empty(a.shape)
    return lambda *values: empty(values[places[0]]) if len(places) == 1 else tuple(empty(values[i]) for i in places)


def _by_name(function, known, where):
    """The function, called with a value for each of the known names: it gets those that its own parameters name."""
    places = [known.index(name) for name in _parameters(function, known, where)]
    if len(places) < 2:
        return lambda *values: function(*[values[i] for i in places])
    pick = itemgetter(*places)
    return lambda *values: function(*pick(values))


def _parameters(function, known, where):
    """The names of the function's parameters; one that is not known must have a default."""
    parameters = inspect.signature(function).parameters
    names = [name for name, p in parameters.items() if name in known or p.default is p.empty]
    return _known(names, known, f"{function.__name__} of {where}")


def _known(names, known, where):
    """These names, or those of a string, if all are known."""
    names = names.split() if isinstance(names, str) else list(names)
    for name in names:
        if name not in known:
            raise NameError(f"{where} names {name!r}, which is none of {', '.join(known)}")
    return names


# ---- differentiable: an autograd.Function around an operator --------------------------------------------------------


def differentiable(operator, gradient=None, rows="", constant=""):
    """The operator with a gradient: `gradient`, or without one the derivative of its reference by autograd.

    constant: outputs that have none; those that are no floats have none anyway.
    """
    inputs, outputs = operator.inputs, operator.outputs
    where = f"genmini::{operator.name}"
    constant = [outputs.index(name) for name in _known(constant, outputs, f"constant of {where}")]
    rows = [inputs.index(name) for name in _known(rows, inputs, f"rows of {where}")]
    if gradient is None:
        keeps = range(len(inputs))
        pullback = lambda values, grads, needed: _derivative(operator.reference, values, grads)
    else:
        known = (*inputs, *outputs, *(f"d{o}" for o in outputs), "needed")
        names = _parameters(gradient, known, where)
        kept = [n for n in names if n in inputs or n in outputs]
        keeps = [(*inputs, *outputs).index(n) for n in kept]

        def pullback(values, grads, needed):
            values = dict(zip(kept, values, strict=True)) | {f"d{o}": g for o, g in zip(outputs, grads, strict=True)}
            values["needed"] = {name for name, wants in zip(inputs, needed, strict=True) if wants}
            found = gradient(**{name: values[name] for name in names})
            _known(found, inputs, f"the result of {gradient.__name__} of {where}")
            return [found.get(name) for name in inputs]

    def run(*arguments):
        """The operator, where no gradient is recorded: one call of Python less than through its Autograd key."""
        if torch._C._are_functorch_transforms_active():
            return operator.overload(*arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return operator.overload(*arguments)

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(*arguments):
            return run(*arguments)

        @staticmethod
        def setup_context(ctx, arguments, output):
            output = output if isinstance(output, tuple) else (output,)
            values = [(*arguments[:-1], *output)[i] for i in keeps]
            ctx.save_for_backward(*(v if isinstance(v, torch.Tensor) else None for v in values))
            ctx.constants = [None if isinstance(v, torch.Tensor) else v for v in values]
            ctx.request = arguments[-1]
            still = (o for i, o in enumerate(output) if i in constant or not o.is_floating_point())
            ctx.mark_non_differentiable(*still)

        @staticmethod
        def backward(ctx, *grads):
            values = [c if t is None else t for t, c in zip(ctx.saved_tensors, ctx.constants, strict=True)]
            before, _here.request = getattr(_here, "request", None), ctx.request
            try:
                return (*pullback(values, grads, ctx.needs_input_grad[:-1]), None)
            finally:
                _here.request = before

        @staticmethod
        def vmap(info, in_dims, *arguments):
            return _vmap(Function.apply, rows, info.batch_size, in_dims, arguments)

    class OneLevel(torch.autograd.Function):
        """The same where no transform of torch.func is active: PyTorch applies this form in a third of the time."""

        @staticmethod
        def forward(ctx, *arguments):
            output = run(*arguments)
            Function.setup_context(ctx, arguments, output)
            return output

        backward = Function.backward

    def apply(*arguments):
        if carried := getattr(_here, "request", None):
            arguments = (*arguments[:-1], carried)
        if torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0:
            return Function.apply(*arguments)
        if _moving(arguments):
            return OneLevel.apply(*arguments)
        return run(*arguments)  # without a gradient and the Function a call takes two thirds of the time

    Function.forward.__signature__ = inspect.signature(Function.forward)  # asked for at each call
    FUNCTIONS.setdefault(operator.overload, Function)  # two Functions of one operator give the same gradient
    for form in (Function, OneLevel):
        form.__name__ = form.__qualname__ = operator.name
    apply.__name__ = operator.name
    apply = torch.compiler.allow_in_graph(apply)  # Dynamo does not look inside
    return lambda **named: apply(*operator.in_order(named), _backend.requested())  # Dynamo guards what this reads


def _moving(arguments):
    """Whether a gradient is wanted of one of these, or of a tensor in a list of them."""
    return torch.is_grad_enabled() and any(map(_wanted, arguments))


def _wanted(a):
    return any(map(_wanted, a)) if isinstance(a, list | tuple) else getattr(a, "requires_grad", False)


_here = threading.local()  # .request, while a gradient runs in this thread: that of its forward


def _derivative(reference, values, grads):
    """The gradient of each value through the reference, by autograd."""
    moving = [i for i, a in enumerate(values) if isinstance(a, torch.Tensor) and a.is_floating_point()]

    def of_moving(*tensors):
        arguments = list(values)
        for i, tensor in zip(moving, tensors, strict=True):
            arguments[i] = tensor
        return reference(*arguments)

    out, pullback = torch.func.vjp(of_moving, *(values[i] for i in moving))
    found = dict(zip(moving, pullback(grads if isinstance(out, tuple) else grads[0]), strict=True))
    return [found.get(i) for i in range(len(values))]


def _vmap(apply, rows, B, in_dims, arguments):
    """One call for all B examples, as (B N, ...), where only inputs with rows are mapped; else one call an example."""
    if all(dim is None or i in rows for i, dim in enumerate(in_dims)):
        folded = list(arguments)
        for i in rows:
            if isinstance(arguments[i], torch.Tensor):
                a, dim = arguments[i], in_dims[i]
                each = a.expand(B, *a.shape) if dim is None else a.movedim(dim, 0)
                N = each.shape[1]
                folded[i] = each.reshape(B * N, *each.shape[2:])
        out = apply(*folded)
        unfold = lambda tensor: tensor.reshape(B, N, *tensor.shape[1:])
        return (tuple(map(unfold, out)), (0,) * len(out)) if isinstance(out, tuple) else (unfold(out), 0)
    if B == 0:
        raise ValueError("vmap over a batch of 0 is possible only where the batch of x alone is mapped")
    pick = lambda b: [a if dim is None else a.select(dim, b) for a, dim in zip(arguments, in_dims, strict=True)]
    outs = [apply(*pick(b)) for b in range(B)]
    if isinstance(outs[0], tuple):
        return tuple(map(torch.stack, zip(*outs, strict=True))), (0,) * len(outs[0])
    return torch.stack(outs), 0
