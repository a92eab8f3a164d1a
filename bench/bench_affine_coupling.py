"""Time affine coupling and its inverse, eager PyTorch and torch.compile: forward, backward, both.

`clone + copy_` moves as many bytes as a forward pass: two numbers read and two written for each element, one of them
into new memory, as y.   Room: kernels/affine_coupling.py
"""

import torch
from measure import DEVICE, GPU, backward, both, checked, in_rung, ours, row, times

from genmini import ops

# images, larger than the caches, a 2-D flow, one long row, a large batch
CASES = [(64, 3 * 32 * 32), (8192, 1024), (65536, 2), (1, 2**20)] + ([(1024, 12 * 64 * 64)] if GPU else [])


def eager(x, s, t):
    return x * s.exp() + t, s.sum(1)


def eager_inverse(y, s, t):
    return (y - t) * (-s).exp(), -s.sum(1)


def saving_y(x, s, t):
    return ops.affine_coupling(x, s, t, save="y")


def rows():
    for N, D in CASES:
        yield from rows_of(N, D, "", eager, ops.affine_coupling)
        yield from rows_of(N, D, " inverse", eager_inverse, ops.affine_coupling_inverse)


def rows_of(N, D, inverse, plain, operator):
    x, s, t = (torch.randn(N, D, device=DEVICE) for _ in range(3))
    moving, target = [a.clone().requires_grad_() for a in (x, s, t)], torch.empty_like(x)
    exact = plain(*(a.double() for a in (x, s, t)))
    functions = {"eager": plain, "torch.compile": torch.compile(plain)}
    for name, rung in ours("affine_coupling").items():
        functions[name] = in_rung(operator, rung)
        if not inverse:
            functions[name + ", y saved"] = in_rung(saving_y, rung)
    errors = checked(functions, (x, s, t), exact, 1e-2)
    calls = [("forward", lambda f: lambda: f(x, s, t), 4), ("backward", lambda f: backward(f, moving), 5)]
    for what, call, traffic in [*calls, ("both", lambda f: both(f, moving), 9)]:
        candidates = {name: call(function) for name, function in functions.items()}
        if what == "forward":
            candidates["clone + copy_"] = lambda: (x.clone(), target.copy_(s))
        took = times(candidates)
        for name, time in took.items():
            bytes = (traffic + ("y saved" in name and what != "forward")) * 4 * N * D
            yield row("affine_coupling", f"N={N} D={D}{inverse}", what, name, time,
                      bytes=bytes, error=errors.get(name), beside=took["eager"][0])
