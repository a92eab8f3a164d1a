"""Time CLIP's contrastive loss of N pairs, and plain PyTorch: a product and F.cross_entropy in both directions, eager
and compiled, as open_clip writes it.

Operations are those that any form needs: one product forward, three in all. The room computes l again in the gradient,
one product more, and holds no N x N matrix.

    room: kernels/info_nce.py
"""

import torch
import torch.nn.functional as F
from measure import DEVICE, GPU, both, checked, in_rung, ours, row, times

from genmini import ops

CASES = [(128, 64), (128, 512), (256, 64), (512, 128), (1024, 64), (1024, 512)]  # N, D
CASES += [(4096, 512), (16384, 512)] if GPU else []


def eager(a, b, scale):
    l, match = scale * a @ b.T, torch.arange(len(a), device=a.device)
    return (F.cross_entropy(l, match, reduction="none") + F.cross_entropy(l.T, match, reduction="none")) / 2


def rows():
    for N, D in CASES:
        a = F.normalize(torch.randn(N, D, device=DEVICE), dim=1)
        b = F.normalize(torch.randn(N, D, device=DEVICE) / D**0.5 + a, dim=1)
        scale, dloss = torch.tensor(1 / 0.07, device=DEVICE), torch.full((N,), 1 / N, device=DEVICE)
        functions = {"eager": eager, "torch.compile": torch.compile(eager, dynamic=False)}
        functions |= {name: in_rung(ops.info_nce, rung) for name, rung in ours("info_nce").items()}
        errors = checked(functions, (a, b, scale), eager(a.double(), b.double(), scale.double()), 1e-4)
        moving = [x.clone().requires_grad_() for x in (a, b, scale)]
        for what, products, call in (("forward", 1, lambda f, given=(a, b, scale): lambda: f(*given)),
                                     ("both", 3, lambda f, given=moving, g=dloss: both(f, given, [g]))):
            took = times({name: call(function) for name, function in functions.items()})
            for name, time in took.items():
                yield row("info_nce", f"N={N} D={D}", what, name, time, operations=products * 2 * N * N * D,
                          error=errors[name], beside=took["eager"][0])
