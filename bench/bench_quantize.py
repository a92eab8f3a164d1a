"""The whole step of VQ-VAE, the search included, beside PyTorch's own. Room: kernels/quantize.py
"""

import torch
from bench_nearest_code import data
from measure import GPU, backward, both, in_rung, ours, row, times

from genmini import ops

STEPS = [(16384, 512, 64)] + ([(65536, 1024, 256)] if GPU else [])  # N, K, D


def vq(z, e, beta=0.25):
    """The step in eager PyTorch."""
    index = torch.cdist(z, e).argmin(1)
    code = e[index]
    loss = (code - z.detach()).square().sum(1) + beta * (z - code.detach()).square().sum(1)
    return z + (code - z).detach(), index, loss


def rows():
    compiled, alone = torch.compile(vq), next(iter(ours("quantize")))  # alone: the step without the search
    for N, K, D in STEPS:
        z, e = (a.requires_grad_() for a in data(N, K, D))
        steps = {"eager": vq, "torch.compile": compiled}
        steps |= {name: in_rung(ops.quantize, rung) for name, rung in ours("nearest_code", "quantize").items()}
        exact = torch.autograd.grad(vq(z.double(), e.double())[2].sum(), (z, e))
        errors = {}
        for name, step in steps.items():
            got = torch.autograd.grad(step(z, e)[2].sum(), (z, e))
            errors[name] = max((g - x).abs().max().item() for g, x in zip(got, exact, strict=True))
            assert not name.startswith("genmini") or errors[name] < 1e-2, (name, errors[name])
        one, search = 4 * N * D, 2 * N * K * D  # forward: z twice, z_q; backward: dz_q, z twice, dz
        calls = [("forward", 3 * one, search, lambda f: lambda: f(z.detach(), e.detach())),
                 ("backward", 4 * one, 0, lambda f: backward(f, (z, e)))]
        for what, bytes, operations, call in [*calls, ("both", 7 * one, search, lambda f: both(f, (z, e)))]:
            took = times({name: call(step) for name, step in steps.items()})
            cost = {"bytes": bytes + 4 * K * D, "operations": operations, "beside": took["eager"][0]}
            for name, time in took.items():
                who = alone if name.startswith("genmini") and what == "backward" and not GPU else name
                yield row("quantize", f"N={N} K={K} D={D}", what, who, time, error=errors[name], **cost)
