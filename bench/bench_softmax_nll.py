"""Time the softmax's negative log-likelihood of every pixel, and F.cross_entropy, eager and compiled.

Bytes are what the room must move: the logits once, and for both directions once more and their gradient.

    room: kernels/softmax_nll.py
"""

import torch
import torch.nn.functional as F
from measure import DEVICE, GPU, both, checked, in_rung, ours, row, times

from genmini import ops

# images, levels, pixels: digits, many pixels of few levels, MNIST, CIFAR-10; "last": a pixel's levels lie side by side
SIZES = [(64, 17, 64), (512, 17, 784), (16, 256, 784)]
CASES = [(*size, levels) for size in SIZES for levels in ("first", "last")]
CASES += [(64, 256, 3072, "first"), (64, 256, 3072, "last")] if GPU else []
DTYPES = ["float32", "bfloat16"] if GPU else ["float32"]


def eager(logits, target):
    return F.cross_entropy(logits.float(), target, reduction="none")


def plain(logits, target):
    a = logits.float()
    return a.logsumexp(1) - a.gather(1, target[:, None])[:, 0]


def rows():
    for dtype in DTYPES:
        for case in CASES:
            yield from rows_of(*case, dtype)


def rows_of(N, L, P, channels, dtype):
    logits = torch.randn(N, L, P, device=DEVICE).to(getattr(torch, dtype))
    logits = logits if channels == "first" else logits.movedim(1, -1).contiguous().movedim(-1, 1)
    target, dnll = torch.randint(L, (N, P), device=DEVICE), torch.randn(N, P, device=DEVICE)
    exact = F.cross_entropy(logits.double(), target, reduction="none")
    functions = {"eager": eager, "logsumexp": plain, "torch.compile": torch.compile(eager)}
    functions |= {name: in_rung(ops.softmax_nll, rung) for name, rung in ours("softmax_nll").items()}
    errors = checked(functions, (logits, target), exact, 1e-5)
    moving, cost = logits.clone().requires_grad_(), logits.element_size() * logits.numel()
    for what, reads, call in (("forward", 1, lambda f: lambda: f(logits, target)),
                              ("both", 3, lambda f: both(lambda a: f(a, target), [moving], [dnll]))):
        took = times({name: call(function) for name, function in functions.items()})
        for name, time in took.items():
            work = {"bytes": reads * cost + 8 * N * P, "operations": 0}
            label = f"N={N} L={L} P={P} levels {channels}"
            yield row("softmax_nll", label, what, name, time, dtype=dtype, error=errors[name],
                      beside=took["eager"][0], **work)


if __name__ == "__main__":
    for each in rows():
        print(each)
