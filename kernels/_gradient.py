"""Put a gradient around an operator of kernels/_operator.py, and vmap: an autograd.Function written by hand.

This form gives right results under torch.compile(fullgraph=True), func.grad, jacrev, vmap, gradgradcheck and export.
Three simpler forms do not: register_autograd fails under func.grad, a bare operator as backward fails gradgradcheck, a
Function that Dynamo traces gives wrong compiled Jacobians. Forward mode (jvp) is not defined and raises: PyTorch would
nest it wrongly in silence.
"""

import inspect
import threading

import torch

from . import _backend
from ._operator import GRADIENTS, known, parameters, wants_gradient

_carried = threading.local()  # .request, while a gradient runs in this thread: that of its forward


def differentiable(operator, gradient=None, rows="", constant=""):
    """The operator with a gradient: `gradient`, or without one the derivative of its reference by autograd.

    constant: outputs that have none; those that are no floats have none anyway.
    """
    where = f"genmini::{operator.name}"
    constants = [operator.outputs.index(name) for name in known(constant, operator.outputs, f"constant of {where}")]
    batched = [operator.inputs.index(name) for name in known(rows, operator.inputs, f"rows of {where}")]
    keeps, pullback = by_formula(operator, gradient, where) if gradient else by_autograd(operator)

    def call(*arguments):
        """The operator, where no gradient is recorded: one call of Python less than through its Autograd key."""
        if torch._C._are_functorch_transforms_active():
            return operator.overload(*arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return operator.overload(*arguments)

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(*arguments):
            return call(*arguments)

        @staticmethod
        def setup_context(ctx, arguments, output):
            output = output if isinstance(output, tuple) else (output,)
            values = [(*arguments[:-1], *output)[i] for i in keeps]
            ctx.save_for_backward(*(v if isinstance(v, torch.Tensor) else None for v in values))
            ctx.no_tensors = [None if isinstance(v, torch.Tensor) else v for v in values]
            ctx.request = arguments[-1]
            still = (o for i, o in enumerate(output) if i in constants or not o.is_floating_point())
            ctx.mark_non_differentiable(*still)

        @staticmethod
        def backward(ctx, *grads):
            values = [v if t is None else t for t, v in zip(ctx.saved_tensors, ctx.no_tensors, strict=True)]
            before, _carried.request = getattr(_carried, "request", None), ctx.request
            try:
                return (*pullback(values, grads, ctx.needs_input_grad[:-1]), None)
            finally:
                _carried.request = before

        @staticmethod
        def vmap(info, in_dims, *arguments):
            return mapped(Function.apply, batched, info.batch_size, in_dims, arguments)

    class OneLevel(torch.autograd.Function):
        """The same where no transform of torch.func is active: PyTorch applies this form in a third of the time."""

        @staticmethod
        def forward(ctx, *arguments):
            output = call(*arguments)
            Function.setup_context(ctx, arguments, output)
            return output

        backward = Function.backward

    def apply(*arguments):
        if request := getattr(_carried, "request", None):
            arguments = (*arguments[:-1], request)
        if torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0:
            return Function.apply(*arguments)
        if wants_gradient(arguments):
            return OneLevel.apply(*arguments)
        return call(*arguments)  # without a gradient and the Function a call takes two thirds of the time

    Function.forward.__signature__ = inspect.signature(Function.forward)  # asked for at each call
    GRADIENTS.setdefault(operator.overload, Function)  # two Functions of one operator give the same gradient
    for form in (Function, OneLevel):
        form.__name__ = form.__qualname__ = operator.name
    apply.__name__ = operator.name
    opaque = torch.compiler.allow_in_graph(apply)  # Dynamo does not look inside
    return lambda **named: opaque(*operator.in_order(named), _backend.requested())  # Dynamo guards what this reads


# ---- pullbacks: which values are kept, and a function (values, grads, needed) -> a gradient of each input ------------


def by_formula(operator, gradient, where):
    inputs, outputs = operator.inputs, operator.outputs
    names = parameters(gradient, (*inputs, *outputs, *(f"d{o}" for o in outputs), "needed"), where)
    kept = [name for name in names if name in inputs or name in outputs]

    def pullback(values, grads, needed):
        named = dict(zip(kept, values, strict=True)) | {f"d{o}": g for o, g in zip(outputs, grads, strict=True)}
        named["needed"] = {name for name, wants in zip(inputs, needed, strict=True) if wants}
        gradients = gradient(**{name: named[name] for name in names})
        known(gradients, inputs, f"the result of {gradient.__name__} of {where}")
        return [gradients.get(name) for name in inputs]

    return [(*inputs, *outputs).index(name) for name in kept], pullback


def by_autograd(operator):
    """Through the reference."""

    def pullback(values, grads, needed):
        moving = [i for i, v in enumerate(values) if isinstance(v, torch.Tensor) and v.is_floating_point()]

        def reference(*tensors):
            arguments = list(values)
            for i, tensor in zip(moving, tensors, strict=True):
                arguments[i] = tensor
            return operator.reference(*arguments)

        out, pull = torch.func.vjp(reference, *(values[i] for i in moving))
        gradients = dict(zip(moving, pull(grads if isinstance(out, tuple) else grads[0]), strict=True))
        return [gradients.get(i) for i in range(len(values))]

    return range(len(operator.inputs)), pullback


# ---- vmap -----------------------------------------------------------------------------------------------------------


def mapped(apply, batched, B, in_dims, arguments):
    """One call for all B examples, as (B N, ...), where only batched inputs are mapped; else one call an example."""
    if all(dim is None or i in batched for i, dim in enumerate(in_dims)):
        folded = list(arguments)
        for i in batched:
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
