"""Time affine coupling, eager PyTorch and torch.compile: forward, backward, both. Room: kernels/affine_coupling.py

On a CPU the room runs its reference, which is eager PyTorch with a sum in double: the row shows what the contract costs
there.
"""

import torch
from measure import DEVICE, GPU, backward, both, checked, in_rung, ours, row, times

from genmini import ops

# images, a 2-D flow, one long row, a large batch
CASES = [(64, 3 * 32 * 32), (65536, 2), (1, 2**20)] + ([(1024, 12 * 64 * 64)] if GPU else [])


def eager(x, s, t):
    return x * s.exp() + t, s.sum(1)


def rows():
    compiled = torch.compile(eager)
    for N, D in CASES:
        x, s, t = (torch.randn(N, D, device=DEVICE) for _ in range(3))
        moving = [a.clone().requires_grad_() for a in (x, s, t)]
        exact = eager(*(a.double() for a in (x, s, t)))
        functions = {"eager": eager, "torch.compile": compiled}
        for name, rung in ours("affine_coupling").items():
            functions[name] = in_rung(ops.affine_coupling, rung)
            functions[name + ", y saved"] = in_rung(lambda x, s, t: ops.affine_coupling(x, s, t, save="y"), rung)
        errors = checked(functions, (x, s, t), exact, 1e-2)
        calls = [("forward", lambda f: lambda: f(x, s, t), 4), ("backward", lambda f: backward(f, moving), 5)]
        for what, call, traffic in [*calls, ("both", lambda f: both(f, moving), 9)]:
            took = times({name: call(function) for name, function in functions.items()})
            for name, time in took.items():
                bytes = (traffic + ("y saved" in name and what != "forward")) * 4 * N * D
                yield row("affine_coupling", f"N={N} D={D}", what, name, time,
                          bytes=bytes, error=errors[name], beside=took["eager"][0])
