"""Show the functions of a room all dimensions of an image as one: (N, C, H, W) as (N, C, P), or as (N, D).

    takes="x s t y: T(N, D...); logdet: R(N)"

The dots in the text of kernels/_takes.py, behind the last extent of inputs and outputs, say that D stands for any
number of dimensions, none too. They are folded inside the operator, where nothing is traced and no gradient is
recorded: views of a front door would each be a step of autograd, forward and backward.
"""

import math
import re

DOTS = "..."


def folding(text, inputs, outputs):
    """-> fold(values) -> values, the dimensions that were folded; and unfold(outputs, these dimensions)."""
    extents = {}  # of a tensor with dots: how many
    for names, shape in re.findall(r"([\w\s]+):\s*\w+\(([^)]*)\)", text):
        if shape.endswith(DOTS):
            extents |= dict.fromkeys(names.split(), len(shape.split(",")))
    folded = [(i, extents[name]) for i, name in enumerate(inputs) if name in extents]
    unfolded = [i for i, name in enumerate(outputs) if name in extents]

    def fold(values):
        values, rest = [*values], None
        for i, n in folded:
            if (a := values[i]) is not None and a.dim() >= n - 1:
                if rest is None:
                    rest = a.shape[n - 1 :]
                if a.dim() != n:
                    values[i] = a.reshape(*a.shape[: n - 1], math.prod(a.shape[n - 1 :]))
        return values, rest

    def unfold(result, rest):
        if rest is None or len(rest) == 1:
            return result
        outs = [*result] if isinstance(result, tuple) else [result]
        for i in unfolded:
            outs[i] = outs[i].reshape(*outs[i].shape[:-1], *rest)
        return tuple(outs) if isinstance(result, tuple) else outs[0]

    return fold, unfold
