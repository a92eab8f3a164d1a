"""Time the exact search of the nearest code, and PyTorch's own. Room: kernels/nearest_code.py

The error of a search is the share of rows whose index is not the lowest k of least d_k; ours must be 0, or it is not
timed. bench_nearest_code_cpu.py compares the search on CPUs with FAISS and scikit-learn.

    python bench/bench_nearest_code.py --survivors      how many codes a row the screens of the GPU kernel leave over
"""

import argparse
import sys

import torch
from genmini.kernels import nearest_code as room
from measure import DEVICE, GPU, in_rung, ours, row, times

from genmini import ops

CASES = [(16384, 512, 64), (4096, 1024, 256)] + ([(65536, 1024, 64), (65536, 8192, 256)] if GPU else [])  # N, K, D


def cdist(z, e):
    return torch.cdist(z, e).argmin(1)


def expanded(z, e):
    return torch.addmm(e.square().sum(1), z, e.T, alpha=-2).argmin(1)


def data(N, K, D):
    """A trained codebook: rows lie about their codes."""
    e = torch.randn(K, D, device=DEVICE)
    return e[torch.randint(K, (N,), device=DEVICE)] + 0.7 * torch.randn(N, D, device=DEVICE), e


def rows():
    for N, K, D in CASES:
        z, e = data(N, K, D)
        exact = room.reference(z, e)
        rooms = {name: in_rung(ops.nearest_code, rung) for name, rung in ours("nearest_code").items()}
        searches = rooms | {"torch.cdist": cdist, "torch.addmm": expanded}
        errors = {name: (search(z, e) != exact).double().mean().item() for name, search in searches.items()}
        for name in rooms:
            assert errors[name] == 0, f"{name} is wrong in {errors[name]:.1%} of the rows"
        took = times({name: lambda search=search: search(z, e) for name, search in searches.items()})
        cost = {"bytes": 4 * (N * D + K * D) + 8 * N, "operations": 2 * N * K * D, "beside": took["torch.addmm"][0]}
        for name, time in took.items():
            yield row("nearest_code", f"N={N} K={K} D={D}", "index", name, time, error=errors[name], **cost)


def survivors():
    backend = "cuda" if GPU else "emulated"
    N = 65536 if GPU else 512
    for what, noise in (("independent Gaussians", None), ("a trained codebook", 0.7)):
        for K, D in ((512, 64), (1024, 256)):
            e = torch.randn(K, D, device=DEVICE)
            z = torch.randn(N, D, device=DEVICE) * (noise or 1) + (
                e[torch.randint(K, (N,), device=DEVICE)] if noise else 0)
            for rung in ("tiled", "tensor_core"):
                effort = torch.empty(N, dtype=torch.int64)
                room.launch(backend, rung, z, e, effort)
                again, scanned = (effort > 1).double().mean(), (effort < 0).double().mean()
                mean = effort[effort > 0].double().mean()
                left = f"survivors a row {mean:.3f}  scored again {again:.2%}  scanned {scanned:.2%}"
                print(f"{what:<22} K={K:<5} D={D:<4} {rung:<12} {left}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--survivors", action="store_true", required=True)
    parser.parse_args()
    sys.exit(survivors())
