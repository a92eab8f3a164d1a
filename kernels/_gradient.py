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
from ._door import last_plan, note, through
from ._operator import GRADIENTS, known, parameters, picked, requires_gradient

_carried = threading.local()  # .request, while a gradient runs in this thread: that of its forward


def differentiable(operator, gradient=None, rows="", constant=""):
    """The operator with a gradient: `gradient`, or without one the derivative of its reference by autograd.

    constant: outputs that have none; those that are no floats have none anyway.
    """
    where = f"genmini::{operator.name}"
    constants = [operator.outputs.index(name) for name in known(constant, operator.outputs, f"constant of {where}")]
    batched = [operator.inputs.index(name) for name in known(rows, operator.inputs, f"rows of {where}")]
    keeps, pullback = by_formula(operator, gradient, where) if gradient else by_autograd(operator)
    is_tensor = [t in ("Tensor", "Optional[Tensor]") for t in operator.types.values()] + [True] * len(operator.outputs)
    of_tensors = picked([i for i in keeps if is_tensor[i]])
    of_others = picked([i for i in keeps if not is_tensor[i]])
    of_both = picked([sorted(keeps, key=lambda i: not is_tensor[i]).index(i) for i in keeps])  # in the order of keeps
    below_autograd, run = torch._C._AutoDispatchBelowAutograd, operator.overload._op  # its __call__ only calls it

    def save(ctx, arguments, output):
        output = output if isinstance(output, tuple) else (output,)
        values = (*arguments[:-1], *output)
        ctx.save_for_backward(*of_tensors(values))
        ctx.no_tensors, ctx.request = of_others(values), arguments[-1]
        still = ()
        for i, o in enumerate(output):  # a list comprehension is one call more
            if i in constants or not o.is_floating_point():
                still += (o,)
        if still:
            ctx.mark_non_differentiable(*still)

    def backward(ctx, saved, grads, needed):
        """-> the gradients of all inputs"""
        values = of_both((*saved, *ctx.no_tensors))
        before, _carried.request = getattr(_carried, "request", None), ctx.request
        try:
            return pullback(values, grads, needed)
        finally:
            _carried.request = before

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(*arguments):
            return operator.overload(*arguments)

        setup_context = staticmethod(save)

        @staticmethod
        def backward(ctx, *grads):
            return *backward(ctx, ctx.saved_tensors, grads, ctx.needs_input_grad), None

        @staticmethod
        def vmap(info, in_dims, *arguments):
            return mapped(Function.apply, batched, info.batch_size, in_dims, arguments)

    class OneLevel(torch.autograd.Function):
        """The same where no transform of torch.func is active: PyTorch applies this form in a third of the time."""

        @staticmethod
        def forward(ctx, way, *arguments):
            """way: a shortcut with its tensors and addresses, or an empty list, which gets the operator's plan."""
            if way:
                shortcut, tensors, addresses = way
                output, ctx.shortcuts = shortcut.plan(tensors, addresses), shortcut.backward
            else:
                with below_autograd():
                    output, ctx.shortcuts = run(*arguments), None
                way.append(last_plan())
            save(ctx, arguments, output)
            return output

        @staticmethod
        def backward(ctx, *grads):
            saved, needed = ctx.saved_tensors, ctx.needs_input_grad[1:]
            whole = backward, (ctx, saved, grads, needed), {}
            if ctx.shortcuts is None or torch.is_grad_enabled():
                return None, *backward(*whole[1]), None
            return None, *through(ctx.shortcuts, (*saved, *grads), needed, *whole), None

    record = super(torch.autograd.Function, OneLevel).apply  # its own ends with it outside of transforms

    def apply(*arguments):
        if request := getattr(_carried, "request", None):
            arguments = (*arguments[:-1], request)
        if torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0:
            return Function.apply(*arguments)
        if torch.is_grad_enabled() and requires_gradient(arguments):
            output = record(plan := [], *arguments)  # its end runs hooks of saved tensors, which may run operators
            note(plan[0], record, arguments, output)
        else:
            with below_autograd():  # without the Function a call takes two thirds of the time
                output = run(*arguments)
            note(last_plan(), None, arguments, output)
        return output

    Function.forward.__signature__ = inspect.signature(Function.forward)  # asked for at each call
    GRADIENTS.setdefault(operator.overload, Function)  # two Functions of one operator give the same gradient
    for form in (Function, OneLevel):
        form.__name__ = form.__qualname__ = operator.name
    apply.__name__ = operator.name
    opaque = torch.compiler.allow_in_graph(apply)  # Dynamo does not look inside
    return lambda **named: opaque(*operator.in_order(named), _backend.requested())  # Dynamo guards what this reads


# ---- pullbacks: which values are kept, and a function (values, grads, needed) -> a gradient of each input ------------


def by_formula(operator, gradient, where):
    inputs, outputs, all_inputs = operator.inputs, operator.outputs, {*operator.inputs}
    names = parameters(gradient, (*inputs, *outputs, *(f"d{o}" for o in outputs), "needed"), where)
    kept = [name for name in names if name in inputs or name in outputs]

    everything = (*kept, *(f"d{o}" for o in outputs), "needed")
    of_gradient = picked([everything.index(name) for name in names])

    def pullback(values, grads, needed):
        wanted = {name for name, wants in zip(inputs, needed, strict=False) if wants} if "needed" in names else None
        gradients = gradient(*of_gradient((*values, *grads, wanted)))
        if not gradients.keys() <= all_inputs:
            known(gradients, inputs, f"the result of {gradient.__name__} of {where}")
        return tuple([gradients.get(name) for name in inputs])

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
        return tuple([gradients.get(i) for i in range(len(values))])

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
