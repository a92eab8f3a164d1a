"""Time the forward process of diffusion, and eager PyTorch and torch.compile. Room: kernels/q_sample.py

A training step needs x_t and its target from images, times and a schedule. The peers gather alpha and sigma, draw the
noise with torch.randn, and compute both: for the target eps, and for v, which takes two more products and a sum.
"""

import torch
from measure import DEVICE, GPU, row, times

from genmini import kernels, ops

CASES = [(128, 64), (32, 3 * 32 * 32), (128, 3 * 64 * 64)] + ([(512, 3 * 64 * 64)] if GPU else [])


def eager(x0, t, alpha, sigma, eps=None, target="eps"):
    eps = torch.randn_like(x0) if eps is None else eps
    a, s = alpha[t].to(x0.dtype)[:, None], sigma[t].to(x0.dtype)[:, None]
    return a * x0 + s * eps, eps if target == "eps" else a * eps - s * x0


def in_rung(rung):
    def call(x0, t, alpha, sigma, eps=None, target="eps"):
        with kernels.use("auto", rung):
            return ops.q_sample(x0, t, alpha, sigma, eps, None if eps is not None else 7, target)

    return call


def rows():
    angle = torch.linspace(0.01, 1.56, 1000, dtype=torch.float64, device=DEVICE)
    alpha, sigma = angle.cos(), angle.sin()
    ours = {f"genmini {rung}": rung for rung in kernels.rungs("q_sample")} if GPU else {
        f"genmini {kernels.chosen('q_sample').backend}": None}  # fmt: skip
    functions = {"eager": eager, "torch.compile": torch.compile(eager, dynamic=False)} | {
        name: in_rung(rung) for name, rung in ours.items()}  # fmt: skip
    for N, D in CASES:
        x0, eps, t = torch.randn(N, D, device=DEVICE), torch.randn(N, D, device=DEVICE), torch.arange(N, device=DEVICE)
        for target in ("eps", "v"):
            exact, errors = eager(x0.double(), t, alpha, sigma, eps.double(), target), {}
            for name, function in functions.items():  # a wrong kernel is not timed
                got = function(x0, t, alpha, sigma, eps, target)
                errors[name] = max((a.double() - b).abs().max().item() for a, b in zip(got, exact, strict=True))
                assert errors[name] < 1e-5, (name, errors[name])
            took = times({name: (lambda f=f: f(x0, t, alpha, sigma, target=target)) for name, f in functions.items()})
            for name, time in took.items():
                yield row("q_sample", f"N={N} D={D}", f"seed, {target}", name, time,
                          bytes=4 * 3 * N * D, error=errors[name], beside=took["eager"][0])  # fmt: skip
