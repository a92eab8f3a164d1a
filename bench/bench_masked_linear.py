"""Time MADE's layer, the masked-dense product that libraries use, a hand-cropped one, and torch.compile.

Operations and bytes are those of the live weights alone, so that a kernel at 100 % of the bound computes nothing else.

    room: kernels/masked_linear.py
"""

import torch
import torch.nn.functional as F
from genmini.kernels.masked_linear import mask
from measure import DEVICE, GPU, backward, both, checked, in_rung, ours, row, times

from genmini import ops

# rows, inputs, outputs, order of the degrees: MNIST's first layer, a small batch, random order, MNIST's widest layer
CASES = [(256, 784, 1024, "sorted"), (64, 2048, 2048, "sorted"), (1024, 1024, 1024, "shuffled")]
CASES += [(N, 784, 4096, order) for N in (64, 4096) for order in ("sorted", "shuffled")]
CASES += [(8192, 4096, 4096, "sorted"), (8192, 4096, 4096, "shuffled"), (8192, 1024, 1024, "sorted")] if GPU else []
DTYPES = ["float32", "bfloat16"] if GPU else ["float32"]
BLOCK = 256


def degrees(K, J, order):
    in_degree, out_degree = torch.arange(K) % 783 + 1, torch.arange(J) % 783 + 1
    if order == "sorted":
        return in_degree.sort().values.to(DEVICE), out_degree.sort().values.to(DEVICE)
    shuffle = lambda d: d[torch.randperm(len(d), generator=torch.Generator().manual_seed(0))].to(DEVICE)
    return shuffle(in_degree), shuffle(out_degree)


def masked_dense(x, weight, bias, M, seen):
    return F.linear(x, weight * M, bias)


def cropped(x, weight, bias, M, seen):
    """What one can do by hand where the degrees are sorted: the live inputs of 256 outputs at a time."""
    blocks = [(slice(j, j + BLOCK), slice(0, last)) for j, last in zip(range(0, len(weight), BLOCK), seen, strict=True)]
    return torch.cat([F.linear(x[:, live], weight[rows, live] * M[rows, live], bias[rows]) for rows, live in blocks], 1)


def rows():
    for dtype in DTYPES:
        for case in CASES:
            yield from rows_of(*case, dtype)


def rows_of(N, K, J, order, dtype):
    in_degree, out_degree = degrees(K, J, order)
    x, weight, bias, dy = (torch.randn(*shape, device=DEVICE).to(getattr(torch, dtype))
                           for shape in ((N, K), (J, K), (J,), (N, J)))
    weight /= K**0.5
    live = mask(in_degree, out_degree, False)
    M, L = live.to(x.dtype), live.float().mean().item()
    seen = ([live[j : j + BLOCK].any(0).nonzero().max().item() + 1 for j in range(0, J, BLOCK)]
            if order == "sorted" else None)
    exact = F.linear(x.double(), weight.double() * live, bias.double())
    dense = lambda x, weight, bias: masked_dense(x, weight, bias, M, seen)
    functions = {"masked dense": dense, "torch.compile": torch.compile(dense)}
    if order == "sorted":
        functions["cropped by hand"] = lambda x, weight, bias: cropped(x, weight, bias, M, seen)
    room = lambda x, weight, bias: ops.masked_linear(x, weight, bias, in_degree, out_degree)
    functions |= {name: in_rung(room, rung) for name, rung in ours("masked_linear").items()}
    errors = checked(functions, (x, weight, bias), exact, 1e-3 if dtype == "float32" else 0.1)
    moving = [a.clone().requires_grad_() for a in (x, weight, bias)]
    calls = [("forward", 1, lambda f: lambda: f(x, weight, bias)), ("backward", 2, lambda f: backward(f, moving, [dy]))]
    rounds = 5 if N * K * J < 1e10 else 2
    for what, products, call in [*calls, ("both", 3, lambda f: both(f, moving, [dy]))]:
        took = times({name: call(function) for name, function in functions.items()}, rounds=rounds)
        for name, time in took.items():
            work = {"bytes": products * x.element_size() * (N * K + L * J * K + N * J),
                    "operations": products * 2 * N * J * K * L}
            label = f"{N}x{K}->{J} {order} {L:.2f}"
            yield row("masked_linear", label, what, name, time, dtype=dtype, error=errors[name],
                      beside=took["masked dense"][0], **work)


if __name__ == "__main__":
    for each in rows():
        print(each)
