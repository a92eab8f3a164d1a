"""Show the functions of a room all dimensions of an image as one: (N, C, H, W) as (N, C, P), or as (N, D).

    takes="x s t y: T(N, D...); logdet: R(N)"        takes="x y: T(N, D...); w: T(N, D..., *)"

The dots in the text of kernels/_takes.py, behind an extent of inputs and outputs, say that D stands for any number of
dimensions, none too. They are folded inside the operator, where nothing is traced and no gradient is recorded: views of
a front door would each be a step of autograd, forward and backward.
"""

import math
import re

DOTS = "..."


def folding(text, inputs, outputs):
    """-> fold(values) -> values, the dimensions that were folded; and unfold(outputs, these dimensions)."""
    around = {}  # of a tensor with dots: how many extents stand before D, and how many behind
    for names, shape in re.findall(r"([\w\s]+):\s*\w+\(([^)]*)\)", text):
        before, dots, behind = shape.partition(DOTS)
        if dots:
            around |= dict.fromkeys(names.split(), (before.count(","), behind.count(",")))
    folded = [(i, *around[name]) for i, name in enumerate(inputs) if name in around]
    unfolded = [(i, around[name][0]) for i, name in enumerate(outputs) if name in around]

    def fold(values):
        values, rest = [*values], None
        for i, before, behind in folded:
            if (a := values[i]) is not None and a.dim() >= before + behind:
                shape, end = a.shape, a.dim() - behind
                if rest is None:
                    rest = shape[before:end]
                if end - before != 1:
                    values[i] = a.reshape(*shape[:before], math.prod(shape[before:end]), *shape[end:])
        return values, rest

    def unfold(result, rest):
        if rest is None or len(rest) == 1:
            return result
        outs = [*result] if isinstance(result, tuple) else [result]
        for i, D in unfolded:
            if outs[i].shape[D] == math.prod(rest):  # else it holds nothing: it was not asked for
                outs[i] = outs[i].reshape(*outs[i].shape[:D], *rest, *outs[i].shape[D + 1 :])
        return tuple(outs) if isinstance(result, tuple) else outs[0]

    return fold, unfold
