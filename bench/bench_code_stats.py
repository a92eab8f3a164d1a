"""Time the codes' counts and totals, index_add (eager, compiled), and a product with one-hot vectors.

    room: kernels/code_stats.py
"""

import torch
from measure import DEVICE, GPU, checked, in_rung, ours, row, times

from genmini import ops

# K = 1: one code has all
CASES = [(16384, 512, 64), (16384, 1, 64), (16384, 8192, 64), (4096, 64, 16)]
CASES += [(65536, 1024, 256), (65536, 1, 256)] if GPU else []


def index_add(z, index, K):
    return torch.bincount(index, minlength=K), z.new_zeros(K, z.shape[1]).index_add_(0, index, z)


def one_hot(z, index, K):
    one = torch.nn.functional.one_hot(index, K).to(z.dtype)
    return one.sum(0).long(), one.T @ z


@torch.compile
def added(z, index, K):
    """The same without bincount, which torch.compile leaves to eager PyTorch."""
    one = torch.ones_like(index)
    return one.new_zeros(K).index_add_(0, index, one), z.new_zeros(K, z.shape[1]).index_add_(0, index, z)


def rows():
    for N, K, D in CASES:
        z, index = torch.randn(N, D, device=DEVICE), torch.randint(K, (N,), device=DEVICE)
        functions = {"index_add": index_add, "one_hot": one_hot, "torch.compile": added} | {
            name: in_rung(ops.code_stats, rung) for name, rung in ours("code_stats").items()}
        errors = checked(functions, (z, index, K), index_add(z.double(), index, K), 1e-1)
        took = times({name: lambda function=function: function(z, index, K) for name, function in functions.items()})
        cost = {"bytes": 4 * N * D + 8 * N + 4 * K * D, "beside": took["index_add"][0]}
        for name, time in took.items():
            yield row("code_stats", f"N={N} K={K} D={D}", "forward", name, time, error=errors[name], **cost)
