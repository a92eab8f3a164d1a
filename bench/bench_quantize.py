"""The whole step of VQ-VAE, the search included, beside PyTorch's own; and a step of training whose codes are moving
averages: search, gather, loss, gradient of z, averages. Room: kernels/quantize.py

vector-quantize-pytorch (`make test-peers` installs it) is timed where it is installed: it computes the same averages,
with other rounding, and its loss is a mean.
"""

import contextlib

import torch
from bench_nearest_code import data
from measure import GPU, backward, both, furthest, in_rung, ours, row, times
from peers import plain

from genmini import layers, ops

STEPS = [(16384, 512, 64)] + ([(65536, 1024, 256)] if GPU else [])  # N, K, D
TRAININGS = [(16384, 1024, 64), (4096, 64, 16)]


def rows():
    compiled = torch.compile(plain.quantize)
    for N, K, D in STEPS:
        z, e = (a.requires_grad_() for a in data(N, K, D))
        steps = {"eager": plain.quantize, "torch.compile": compiled}
        steps |= {name: in_rung(ops.quantize, rung) for name, rung in ours("nearest_code", "quantize").items()}
        exact = torch.autograd.grad(plain.quantize(z.double(), e.double())[2].sum(), (z, e))
        errors = {}
        for name, step in steps.items():
            errors[name] = furthest(torch.autograd.grad(step(z, e)[2].sum(), (z, e)), exact)
            assert not name.startswith("genmini") or errors[name] < 1e-2, (name, errors[name])
        one, search = 4 * N * D, 2 * N * K * D  # forward: z twice, z_q; backward: dz_q, z twice, dz
        calls = [("forward", 3 * one, search, lambda f: lambda: f(z.detach(), e.detach())),
                 ("backward", 4 * one, 0, lambda f: backward(f, (z, e)))]
        for what, bytes, operations, call in [*calls, ("both", 7 * one, search, lambda f: both(f, (z, e)))]:
            took = times({name: call(step) for name, step in steps.items()})
            cost = {"bytes": bytes + 4 * K * D, "operations": operations, "beside": took["eager"][0]}
            for name, time in took.items():
                yield row("quantize", f"N={N} K={K} D={D}", what, name, time, error=errors[name], **cost)
    for N, K, D in TRAININGS:
        yield from training(N, K, D)


def training(N, K, D):
    z, e = data(N, K, D)
    z.requires_grad_()
    codes = layers.VectorQuantizer(K, D, decay=0.99, device=z.device)
    codes.weight.copy_(e), codes.total.copy_(e)
    who, rung = list(ours("nearest_code", "quantize", "code_stats").items())[-1]
    steps = {"plain PyTorch": plain.MovingCodes(e), who: in_rung(codes, rung)}

    def gradient(step):
        z_q, index, loss = step(z)
        return index, *torch.autograd.grad([z_q, loss.sum()], z, [z_q.detach(), torch.ones((), device=z.device)])

    (theirs, expected), (index, dz) = map(gradient, steps.values())
    same = index == theirs
    error = (dz - expected)[same].abs().max().item()
    assert same.double().mean() > 0.999 and error < 1e-4, (same.double().mean(), error)
    with contextlib.suppress(ImportError):
        from vector_quantize_pytorch import VectorQuantize

        steps["vector-quantize-pytorch"] = VectorQuantize(D, K, decay=0.99, commitment_weight=0.25).to(z.device)
    took = times({name: lambda step=step: gradient(step) for name, step in steps.items()})
    cost = {"bytes": 4 * (6 * N * D + 3 * K * D), "operations": 2 * N * K * D, "beside": took["plain PyTorch"][0]}
    for name, time in took.items():
        yield row("quantize", f"N={N} K={K} D={D}", "training", name, time, error=error, **cost)
