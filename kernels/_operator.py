"""A kernel becomes a PyTorch operator: what every room needs once.

    forward  = operator("x_forward(Tensor a, str request) -> Tensor", run, fake)      # opaque: no autograd, no tracing inside
    backward = operator("x_backward(Tensor dy, Tensor a, str request) -> Tensor", run, fake)

    x          = differentiable(forward, save, gradient, fold=...)          # autograd.Function: its backward calls `gradient`
    gradient   = differentiable_in_pytorch(backward, formula, fold=...)     # autograd.Function: its own gradient is plain PyTorch

Why this form, among the ones that were tried (most are silently wrong somewhere: register_autograd fails under func.grad, a bare operator as
backward fails gradgradcheck, a Function that Dynamo traces gives wrong compiled jacobians): it is right under torch.compile(fullgraph=True),
func.grad, jacrev, vmap, gradgradcheck and export. Forward mode (jvp) is not defined and says so: PyTorch would nest it wrongly in silence.

Arguments of an operator are tensors (or None) and constants (str, bool, int, float); `request` is the backend asked for, read by the front
door when it is called, so that a gradient runs where its forward ran, whatever `use` says by then, and whatever thread it runs in.
"""

import torch

LIBRARY = torch.library.Library("genmini", "DEF")


FUNCTIONS = {}  # operator -> the autograd.Function that gives its gradient when the operator is called by itself, as an exported graph does


def operator(schema, run, fake):
    """Define genmini::<schema>. `run` computes, `fake` gives empty outputs of the right shapes; neither sees a gradient."""
    name = schema.partition("(")[0]
    LIBRARY.define(schema, tags=[torch.Tag.pt2_compliant_tag])
    call = getattr(torch.ops.genmini, name).default

    def with_gradient(*arguments):
        if not _moving(arguments):
            with torch._C._AutoDispatchBelowAutograd():
                return call(*arguments)
        if call not in FUNCTIONS or torch._C._are_functorch_transforms_active():  # a gradient would be dropped in silence
            raise RuntimeError(f"genmini::{name} has no gradient here: call its front door in genmini.ops")
        return FUNCTIONS[call].apply(*arguments)

    LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    LIBRARY.impl(name, with_gradient, "Autograd")
    torch.library.register_fake(f"genmini::{name}", fake, lib=LIBRARY)
    return call


def differentiable(forward, save, gradient, fold=()):
    """The operator with a gradient.

    save(inputs, outputs) -> what the gradient needs, tensors and constants;  gradient(needed, grads, *saved) -> a gradient per input, where
    needed[i] tells whether input i wants one. fold: the positions of the inputs whose dimension 0 is the batch (see `_vmap`).
    """

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(*inputs):
            return forward(*inputs)

        @staticmethod
        def setup_context(ctx, inputs, output):
            outputs = output if isinstance(output, tuple) else (output,)
            _save(ctx, save(inputs, outputs))
            ctx.mark_non_differentiable(*(o for o in outputs if not o.is_floating_point()))

        @staticmethod
        def backward(ctx, *grads):
            return tuple(gradient(ctx.needs_input_grad, grads, *_saved(ctx)))

        @staticmethod
        def vmap(info, in_dims, *inputs):
            return _vmap(Function.apply, fold, info.batch_size, in_dims, inputs)

    return _opaque_to_dynamo(Function, forward)


def differentiable_in_pytorch(backward, formula, fold=()):
    """A backward operator whose own derivative is that of `formula`, the same function written in plain PyTorch."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(*inputs):
            return backward(*inputs)

        @staticmethod
        def setup_context(ctx, inputs, output):
            _save(ctx, inputs)

        @staticmethod
        def backward(ctx, *grads):
            inputs = _saved(ctx)
            moving = [i for i, a in enumerate(inputs) if isinstance(a, torch.Tensor) and a.is_floating_point()]

            def of_moving(*tensors):
                arguments = list(inputs)
                for i, tensor in zip(moving, tensors, strict=True):
                    arguments[i] = tensor
                return formula(*arguments)

            out, pullback = torch.func.vjp(of_moving, *(inputs[i] for i in moving))
            result = [None] * len(inputs)
            for i, grad in zip(moving, pullback(grads if isinstance(out, tuple) else grads[0]), strict=True):
                result[i] = grad
            return tuple(result)

        @staticmethod
        def vmap(info, in_dims, *inputs):
            return _vmap(Function.apply, fold, info.batch_size, in_dims, inputs)

    return _opaque_to_dynamo(Function, backward)


def _save(ctx, values):
    ctx.save_for_backward(*(v if isinstance(v, torch.Tensor) else None for v in values))
    ctx.constants = [None if isinstance(v, torch.Tensor) else v for v in values]


def _saved(ctx):
    return [c if t is None else t for t, c in zip(ctx.saved_tensors, ctx.constants, strict=True)]


def _moving(arguments):
    return torch.is_grad_enabled() and any(isinstance(a, torch.Tensor) and a.requires_grad for a in arguments)


def _opaque_to_dynamo(Function, call):
    FUNCTIONS.setdefault(call, Function)  # two Functions of one operator differ in what they save or fold, not in the gradient

    def apply(*arguments):
        if _moving(arguments) or torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0:
            return Function.apply(*arguments)
        return call(*arguments)  # nobody differentiates: without the Function a call takes two thirds of the time

    apply.__name__ = Function.__name__ = Function.__qualname__ = call._schema.name.split("::")[1]
    return torch.compiler.allow_in_graph(apply)


def _vmap(apply, fold, B, in_dims, inputs):
    """One call for all B examples where only batch-carrying inputs are mapped: (B, N, ...) is (B N, ...). Otherwise one call an example."""
    if all(dim is None or i in fold for i, dim in enumerate(in_dims)):
        folded = list(inputs)
        for i in fold:
            if isinstance(inputs[i], torch.Tensor):
                each = inputs[i].expand(B, *inputs[i].shape) if in_dims[i] is None else inputs[i].movedim(in_dims[i], 0)
                N = each.shape[1]
                folded[i] = each.reshape(B * N, *each.shape[2:])
        out = apply(*folded)
        unfold = lambda tensor: tensor.reshape(B, N, *tensor.shape[1:])
        return (tuple(map(unfold, out)), (0,) * len(out)) if isinstance(out, tuple) else (unfold(out), 0)
    if B == 0:
        raise ValueError("vmap over a batch of 0 is possible only where the batch of x alone is mapped")
    pick = lambda b: [a if dim is None else a.select(dim, b) for a, dim in zip(inputs, in_dims, strict=True)]
    outs = [apply(*pick(b)) for b in range(B)]
    if isinstance(outs[0], tuple):
        return tuple(map(torch.stack, zip(*outs, strict=True))), (0,) * len(outs[0])
    return torch.stack(outs), 0
