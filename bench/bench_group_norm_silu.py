"""Time silu of a group norm, with and without a scale and a shift, and eager PyTorch and torch.compile, on the sizes
of the U-Net of genmini/models/diffusion.py: groups of 8 channels.

    room: kernels/group_norm_silu.py
"""

import torch
import torch.nn.functional as F
from measure import DEVICE, GPU, both, checked, in_rung, ours, row, times

from genmini import ops

# digits at 8x8 and 4x4, and 32 images of 28x28 and 14x14
CASES = [(32, 32, 8), (32, 64, 4), (32, 16, 28), (32, 32, 14)] + ([(256, 128, 32), (64, 512, 32)] if GPU else [])
GROUP = 8


def eager(x, gamma, beta, scale=None, shift=None):
    u = F.group_norm(x, x.shape[1] // GROUP, gamma, beta)
    if scale is not None:
        u = (1 + scale[:, :, None, None]) * u + shift[:, :, None, None]
    return F.silu(u)


def room(x, gamma, beta, scale=None, shift=None):
    return ops.group_norm_silu(x, x.shape[1] // GROUP, gamma, beta, scale, shift)


def rows():
    for N, C, S in CASES:
        functions = {"eager": eager, "torch.compile": torch.compile(eager, dynamic=False)} | {
            name: in_rung(room, rung) for name, rung in ours("group_norm_silu").items()}
        x = torch.randn(N, C, S, S, device=DEVICE)
        gamma, beta, scale, shift = (torch.randn(*shape, device=DEVICE) for shape in ((C,), (C,), (N, C), (N, C)))
        for case, inputs in (("", (x, gamma, beta)), (", modulated", (x, gamma, beta, scale, shift))):
            errors = checked(functions, inputs, eager(*(a.double() for a in inputs)), 1e-4)
            moving = [a.clone().requires_grad_() for a in inputs]
            for what, candidates, numbers in (
                ("forward", {name: (lambda f=f: f(*inputs)) for name, f in functions.items()}, 2 * x.numel()),
                ("both", {name: both(f, moving) for name, f in functions.items()}, 5 * x.numel()),
            ):
                took = times(candidates)
                for name, time in took.items():
                    yield row("group_norm_silu", f"N={N} C={C} {S}x{S}{case}", what, name, time,
                              bytes=4 * numbers, error=errors[name], beside=took["eager"][0])
