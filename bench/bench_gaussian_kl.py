"""Time a draw from a Gaussian with its KL, and eager PyTorch and torch.compile, each of which draws the noise.

Without a seed torch.randn draws the noise on a CPU, as in a training; with one it is drawn in the kernel, the same
everywhere (the rows "seeded"), and once more for the gradient. The rows "given" are of noise that is there before.

    room: kernels/gaussian_kl.py
"""

import torch
from measure import DEVICE, GPU, both, checked, in_rung, ours, row, times

from genmini import ops

CASES = [(128, 20), (128, 2048)] + ([(4096, 1024), (65536, 64)] if GPU else [(8192, 64)])


def eager(mu, log_var, eps=None):
    sigma = (0.5 * log_var).exp()
    eps = torch.randn_like(mu) if eps is None else eps
    return mu + sigma * eps, 0.5 * (mu.square() + log_var.exp() - 1 - log_var).sum(1)


def seeded(mu, log_var, eps=None):
    return ops.gaussian_kl(mu, log_var, eps, 7 if eps is None else None)


def rows():
    for N, D in CASES:
        yield from rows_of(N, D, f"N={N} D={D}", ops.gaussian_kl)
        yield from rows_of(N, D, f"N={N} D={D} given", ops.gaussian_kl, given=True)
        yield from rows_of(N, D, f"N={N} D={D} seeded", seeded)


def rows_of(N, D, case, room, given=False):
    mu, log_var, eps = (torch.randn(N, D, device=DEVICE) for _ in range(3))
    moving = [mu.requires_grad_(), log_var.requires_grad_()]
    functions = {"eager": eager, "torch.compile": torch.compile(eager)} | {
        name: in_rung(room, rung) for name, rung in ours("gaussian_kl").items()}
    errors = checked(functions, (mu, log_var, eps), eager(mu.double(), log_var.double(), eps.double()), 1e-2)
    if given:
        functions = {name: (lambda mu, log_var, f=f: f(mu, log_var, eps)) for name, f in functions.items()}
    for what, candidates, numbers in (
        ("forward", {name: (lambda f=f: f(*moving)) for name, f in functions.items()}, (3 + given) * N * D + N),
        ("both", {name: both(f, moving) for name, f in functions.items()}, (8 + 2 * given) * N * D + 2 * N),
    ):
        took = times(candidates)
        for name, time in took.items():
            yield row("gaussian_kl", case, what, name, time,
                      bytes=4 * numbers, error=errors[name], beside=took["eager"][0])
