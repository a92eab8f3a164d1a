"""Time the forward process of diffusion, and eager PyTorch and torch.compile. Room: kernels/q_sample.py

A training step needs x_t and its target from images, times and a schedule. The peers gather alpha and sigma, draw the
noise with torch.randn, and compute both: for the target eps, and for v, which takes two more products and a sum.
"""

import torch
from measure import DEVICE, GPU, checked, in_rung, ours, row, times

from genmini import ops

CASES = [(128, 64), (32, 3 * 32 * 32), (128, 3 * 64 * 64)] + ([(512, 3 * 64 * 64)] if GPU else [])


def eager(x0, t, alpha, sigma, eps=None, target="eps"):
    eps = torch.randn_like(x0) if eps is None else eps
    a, s = alpha[t].to(x0.dtype)[:, None], sigma[t].to(x0.dtype)[:, None]
    return a * x0 + s * eps, eps if target == "eps" else a * eps - s * x0


def room(x0, t, alpha, sigma, eps=None, target="eps"):
    return ops.q_sample(x0, t, alpha, sigma, eps, 7 if eps is None else None, target)


def rows():
    angle = torch.linspace(0.01, 1.56, 1000, dtype=torch.float64, device=DEVICE)
    alpha, sigma = angle.cos(), angle.sin()
    functions = {"eager": eager, "torch.compile": torch.compile(eager, dynamic=False)} | {
        name: in_rung(room, rung) for name, rung in ours("q_sample").items()}
    for N, D in CASES:
        x0, eps, t = torch.randn(N, D, device=DEVICE), torch.randn(N, D, device=DEVICE), torch.arange(N, device=DEVICE)
        for target in ("eps", "v"):
            inputs, exact = (x0, t, alpha, sigma), eager(x0.double(), t, alpha, sigma, eps.double(), target)
            errors = checked(functions, (*inputs, eps, target), exact, 1e-5)
            took = times({name: (lambda f=f: f(*inputs, None, target)) for name, f in functions.items()})
            for name, time in took.items():
                yield row("q_sample", f"N={N} D={D}", f"seed, {target}", name, time,
                          bytes=4 * 3 * N * D, error=errors[name], beside=took["eager"][0])
