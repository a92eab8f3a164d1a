"""Time NADE and the PyTorch loop over its pixels: sampling, and likelihood with gradient. Room: kernels/nade.py

The loop is a good one: the O(H D) recursion that carries a and h along, not D networks; columns of W made contiguous
once, products with vectors, outer products in place. Images have half ones, or 13 % ink (about as binarised MNIST has):
a pixel of 0 saves its H sigmoids. The peak of what the allocator holds is in the case of the row, in numbers of 4
bytes, beside N D H.
"""

import math

import torch
from measure import DEVICE, GPU, both, checked, in_rung, ours, peak, row, times

from genmini import ops

CASES = [(100, 784, 500, 0.5), (100, 784, 500, 0.13)] + ([(1000, 784, 500, 0.5), (1000, 784, 500, 0.13)] if GPU else [])


@torch.no_grad()
def loop_sample(u, W, V, b, c):
    a, x = c.expand(len(u), -1).clone(), []
    for w, v, b_d, u_d in zip(W.t().contiguous().unbind(), V.unbind(), b.unbind(), u.t().contiguous().unbind(),
                              strict=True):
        x.append((u_d >= torch.sigmoid(-torch.addmv(b_d, a.sigmoid(), v))).to(a.dtype))
        a.addr_(x[-1], w)
    return torch.stack(x, 1)


def loop_log_prob(x, W, V, b, c):
    a, l = c.expand(len(x), -1), []
    for w, v, x_d in zip(W.t().contiguous().unbind(), V.unbind(), x.to(W.dtype).unbind(1), strict=True):
        l.append(a.sigmoid() @ v)
        a = torch.addr(a, x_d, w)
    return -torch.nn.functional.binary_cross_entropy_with_logits(torch.stack(l, 1) + b, x.to(W.dtype),
                                                                 reduction="none").sum(1)


def rows():
    for N, D, H, ink in CASES:
        sizes = (((H, D), 0.05), ((D, H), 0.05), ((D,), 0.1), ((H,), 0.1))
        W, V, b, c = (torch.randn(*size, device=DEVICE) * scale for size, scale in sizes)
        b += math.log(ink / (1 - ink)) - V.sum(1) / 2  # so that samples have about that ink
        moving = [a.requires_grad_() for a in (W, V, b, c)]
        u = torch.rand(N, D, device=DEVICE)
        x = (torch.rand(N, D, device=DEVICE) < ink).to(torch.uint8)
        exact = loop_log_prob(x, *(a.double() for a in moving))
        sample, likelihood = {"PyTorch loop": loop_sample}, {"PyTorch loop": loop_log_prob}
        for name, rung in ours("nade").items():
            sample[name], likelihood[name] = in_rung(ops.nade_sample, rung), in_rung(ops.nade, rung)
        wanted, errors = loop_sample(u, *moving), checked(likelihood, (x, *moving), exact, 1e-2)
        for name, function in sample.items():  # float32: u may fall between two roundings of a sigmoid
            differ = (function(u, *moving) != wanted).any(1).sum()
            assert differ <= N // 20, (name, differ)
        shown = wanted.float().mean().item()
        work = 4 * N * D * H
        for what, functions, share, operations in (
            ("sample", {name: (lambda f=f: f(u, *moving)) for name, f in sample.items()}, shown, work),
            ("both", {name: both(lambda *w, f=f: f(x, *w), moving) for name, f in likelihood.items()}, ink, 3 * work),
        ):
            held = {name: peak(function) / (4 * N * D * H) for name, function in functions.items()}
            took = times(functions, seconds=3.0)
            memory = " / ".join(f"{held[name]:.3f}" for name in took)
            for name, time in took.items():
                case = f"N={N} D={D} H={H} ink={share:.2f}, holds {memory} N D H"
                yield row("nade", case, what, name, time, operations=operations, error=errors[name],
                          beside=took["PyTorch loop"][0])
