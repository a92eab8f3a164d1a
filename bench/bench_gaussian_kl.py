"""Time a draw from a Gaussian with its KL, and eager PyTorch and torch.compile, each of which draws the noise.

On a CPU the room runs its reference, whose Philox is PyTorch's integer arithmetic: the row shows what the same noise
everywhere costs there.

    room: kernels/gaussian_kl.py
"""

import torch
from measure import DEVICE, GPU, row, times

from genmini import kernels, ops

CASES = [(128, 20), (128, 2048)] + ([(4096, 1024), (65536, 64)] if GPU else [])


def eager(mu, log_var, eps=None):
    sigma = (0.5 * log_var).exp()
    eps = torch.randn_like(mu) if eps is None else eps
    return mu + sigma * eps, 0.5 * (mu.square() + log_var.exp() - 1 - log_var).sum(1)


def in_rung(rung, seed=None):
    def call(mu, log_var, eps=None):
        with kernels.use("auto", rung):
            return ops.gaussian_kl(mu, log_var, eps, None if eps is not None else seed)

    return call


def both(function, mu, log_var):
    z, kl = function(mu, log_var)
    return torch.autograd.grad([z, kl], [mu, log_var], [torch.ones_like(z), torch.ones_like(kl)])


def rows():
    for N, D in CASES:
        mu, log_var, eps = (torch.randn(N, D, device=DEVICE) for _ in range(3))
        moving = [mu.requires_grad_(), log_var.requires_grad_()]
        ours = ({f"genmini {rung}": rung for rung in kernels.rungs("gaussian_kl")} if GPU
                else {"genmini reference": None})  # fmt: skip
        functions = {"eager": eager, "torch.compile": torch.compile(eager)} | {
            name: in_rung(rung, 7) for name, rung in ours.items()}  # fmt: skip
        exact, errors = eager(mu.double(), log_var.double(), eps.double()), {}
        for name, function in functions.items():  # a wrong kernel is not timed
            got = function(mu, log_var, eps)
            errors[name] = max((a.double() - b).abs().max().item() for a, b in zip(got, exact, strict=True))
            assert errors[name] < 1e-2, (name, errors[name])
        for what, candidates, numbers in (
            ("forward", {name: (lambda f=f: f(*moving)) for name, f in functions.items()}, 3 * N * D + N),
            ("both", {name: (lambda f=f: both(f, *moving)) for name, f in functions.items()}, 8 * N * D + 2 * N),
        ):
            took = times(candidates)
            for name, time in took.items():
                yield row("gaussian_kl", f"N={N} D={D}", what, name, time,
                          bytes=4 * numbers, error=errors[name], beside=took["eager"][0])  # fmt: skip
