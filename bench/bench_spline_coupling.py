"""Time a monotonic rational-quadratic spline, eager PyTorch and torch.compile: forward, inverse, and forward with
gradients. Room: kernels/spline_coupling.py

Eager PyTorch is the paper's form, as flow libraries write it: its inverse solves the quadratic equation directly.
"""

import math

import torch
import torch.nn.functional as F
from measure import DEVICE, GPU, both, checked, in_rung, ours, row, times

from genmini import ops

# a flow on the plane, with a small and a large batch; a flow of 64 pixels
CASES = [(512, 1, 8), (8192, 2, 8), (256, 32, 8)] + ([(2**20, 2, 8), (1024, 3 * 32 * 32, 8)] if GPU else [])
B, LEAST = 5.0, 1e-3


def eager(x, w, inverse=False):
    K = (w.shape[-1] + 1) // 3
    sizes = [2 * B * (LEAST + (1 - K * LEAST) * w[..., i * K : (i + 1) * K].softmax(-1)) for i in (0, 1)]
    knots = [F.pad(size.cumsum(-1)[..., :-1] - B, (1, 0), value=-B) for size in sizes]
    slopes = F.pad(LEAST + F.softplus(w[..., 2 * K :] + math.log(math.expm1(1 - LEAST))), (1, 1), value=1)
    inside = (x >= -B) & (x <= B)
    v = torch.where(inside, x, 0)
    k = (v[..., None] >= knots[inverse][..., 1:]).sum(-1, keepdim=True)
    x0, y0, width, height = (a.gather(-1, k)[..., 0] for a in (*knots, *sizes))
    d0, d1, s = slopes.gather(-1, k)[..., 0], slopes.gather(-1, k + 1)[..., 0], height / width
    bend = d0 + d1 - 2 * s
    if inverse:
        b, c = height * d0 - (v - y0) * bend, -s * (v - y0)
        a = height * (s - d0) + (v - y0) * bend
        t = 2 * c / (-b - (b * b - 4 * a * c).clamp_min(0).sqrt())
        y, den = t * width + x0, s + bend * t * (1 - t)
    else:
        t = (v - x0) / width
        den = s + bend * t * (1 - t)
        y = y0 + height * (s * t * t + d0 * t * (1 - t)) / den
    ln = (s * s * (d1 * t * t + 2 * s * t * (1 - t) + d0 * (1 - t) * (1 - t))).log() - 2 * den.log()
    ln = torch.where(inside, ln, 0).sum(1)
    return torch.where(inside, y, x), -ln if inverse else ln


def rows():
    compiled = torch.compile(eager, dynamic=False)
    for N, D, K in CASES:
        x, w = 2 * torch.randn(N, D, device=DEVICE), torch.randn(N, D, 3 * K - 1, device=DEVICE)
        moving = [a.clone().requires_grad_() for a in (x, w)]
        forward, back = {"eager": eager, "torch.compile": compiled}, {"eager": lambda x, w: eager(x, w, True)}
        for name, rung in ours("spline_coupling").items():
            forward[name] = in_rung(ops.spline_coupling, rung)
            back[name] = in_rung(ops.spline_coupling_inverse, rung)
        of_forward = checked(forward, (x, w), eager(x.double(), w.double()), 1e-2)
        of_inverse = checked(back, (x, w), eager(x.double(), w.double(), True), 0.1)
        for what, functions, errors, numbers in (
            ("forward", {name: lambda f=f: f(x, w) for name, f in forward.items()}, of_forward, 3 * K + 1),
            ("inverse", {name: lambda f=f: f(x, w) for name, f in back.items()}, of_inverse, 3 * K + 1),
            ("both", {name: both(f, moving) for name, f in forward.items()}, of_forward, 9 * K + 2),
        ):
            took = times(functions)
            for name, time in took.items():
                yield row("spline_coupling", f"N={N} D={D} K={K}", what, name, time, bytes=4 * numbers * N * D,
                          error=errors[name], beside=took["eager"][0])
