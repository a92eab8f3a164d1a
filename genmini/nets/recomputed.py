"""A chain of invertible steps that keeps only its last output: the backward pass inverts it and differentiates it, step
by step, so that memory does not grow with the number of steps.

Gomez, Ren, Urtasun, Grosse, "The Reversible Residual Network", 2017. A step has forward(x, y) and inverse(x, y), each
-> (x', log |det|), and draws no noise: its forward runs twice.

    used by: genmini/models/realnvp.py    test: tests/models/test_realnvp.py
"""

import torch


class Recomputed(torch.autograd.Function):
    """Recomputed.apply(steps, y, x, *parameters of the steps) -> the last output, the sum of the log-determinants"""

    @staticmethod
    def forward(ctx, steps, y, x, *parameters):
        ctx.steps, logdet = steps, 0
        for step in steps:
            x, part = step(x, y)
            logdet = logdet + part
        ctx.save_for_backward(x, y)
        return x, logdet

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dx, dlogdet):
        out, y = ctx.saved_tensors
        grads = {}
        for step in reversed(ctx.steps):
            x, _ = step.inverse(out, y)
            with torch.enable_grad():
                again = step(x.requires_grad_(), y)
            wrt = [x, *(p for p in step.parameters() if p.requires_grad)]
            pairs = [(o, d) for o, d in zip(again, (dx, dlogdet), strict=True) if o.requires_grad]
            outputs, douts = zip(*pairs, strict=True)
            dx, *dparameters = torch.autograd.grad(outputs, wrt, douts)
            grads.update(zip(wrt[1:], dparameters, strict=True))
            out = x.detach()
        return None, None, dx, *(grads.get(p) for p in ctx.steps.parameters())
