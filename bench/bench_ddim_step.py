"""Time a guided step of a sampler, and eager PyTorch and torch.compile. Room: kernels/ddim_step.py

The peers guide, predict x0 from eps, threshold it, and go to s; with eta = 1 they draw noise by torch.randn. Their
dynamic threshold is kthvalue, which is faster than torch.quantile: that sorts.
"""

import math

import torch
from measure import DEVICE, GPU, checked, in_rung, ours, row, times

from genmini import ops

CASES = [(128, 64), (32, 3 * 32 * 32), (64, 3 * 64 * 64)] + ([(512, 3 * 64 * 64)] if GPU else [])
T, S, WEIGHT, QUANTILE = (0.6, 0.8), (0.8, 0.6), 3.0, 0.995


def eager(x, output, unconditional, threshold, eta=0.0):
    (a_t, s_t), (a_s, s_s) = T, S
    out = unconditional + WEIGHT * (output - unconditional)
    x0 = (x - s_t * out) / a_t
    if threshold == "static":
        x0 = x0.clamp(-1, 1)
    if threshold == "dynamic":
        s = x0.abs().kthvalue(math.ceil(QUANTILE * (x0.shape[1] - 1)) + 1, 1, keepdim=True).values.clamp(min=1)
        x0 = x0.clamp(-s, s) / s
    c = eta * s_s / s_t * math.sqrt(1 - a_t**2 / a_s**2)
    x_s = a_s * x0 + math.sqrt(s_s**2 - c**2) / s_t * (x - a_t * x0)
    return x_s + c * torch.randn_like(x) if c else x_s


def room(x, output, unconditional, threshold, eta=0.0):
    return ops.ddim_step(x, output, *T, *S, "eps", unconditional, WEIGHT, threshold, QUANTILE, eta, seed=7)


@torch.no_grad()
def rows():
    functions = {"eager": eager, "torch.compile": torch.compile(eager, dynamic=False)} | {
        name: in_rung(room, rung) for name, rung in ours("ddim_step").items()}
    for N, D in CASES:
        x, o, u = (torch.randn(N, D, device=DEVICE) for _ in range(3))
        for what, threshold, eta in (
            ("DDIM", None, 0.0), ("DDPM, static", "static", 1.0), ("DDIM, dynamic", "dynamic", 0.0),
        ):
            exact = eager(*(a.double() for a in (x, o, u)), threshold)
            errors = checked(functions, (x, o, u, threshold), exact, 1e-4)
            took = times({name: (lambda f=f: f(x, o, u, threshold, eta)) for name, f in functions.items()})
            for name, time in took.items():
                yield row("ddim_step", f"N={N} D={D}", what, name, time,
                          bytes=4 * 4 * N * D, error=errors[name], beside=took["eager"][0])
