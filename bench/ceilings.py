"""Predict how near its bound each kernel of the best rungs can come on an H100, and write docs/counting.md.

    make table-ceilings

Counted in the emulator and compiled by nvcc, not measured: the bytes of DRAM of a kernel, or the products of the
search, over what its busiest resource needs at least (genmini/predict.py). Sizes fill the 132 SMs where the emulator is
quick enough. Of rooms in Triton a second table has what DRAM, the L2 and the products of tl.dot need: nothing tells how
many instructions their programs issue.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
PAGE = HERE.parent / "docs" / "counting.md"
SIZES = [
    ("affine_coupling", dict(N=528, D=3072)),
    ("spline_coupling", dict(N=2112, D=32)),
    ("quantize", dict(N=8448, K=1056, D=64)),
    ("code_stats", dict(N=8448, K=1024, D=256)),
    ("nearest_code", dict(N=256, K=2048, D=64)),
    ("nearest_code", dict(N=256, K=2048, D=256)),
]
IN_BFLOAT16 = [SIZES[2], SIZES[3]]  # where it is further from its bound than float32
IN_TRITON = [
    ("gaussian_kl", dict(N=264, D=2048)),
    ("group_norm_silu", dict(N=66, C=32, side=14)),
    ("softmax_nll", dict(N=33, L=256, P=256)),
    ("q_sample", dict(N=264, D=2048)),
    ("ddim_step", dict(N=132, D=3072)),
    ("info_nce", dict(N=2048, D=64)),
    ("masked_linear", dict(N=2048, K=512, J=512)),
    ("masked_conv2d", dict(N=43, C=32, O=32, side=14, k=3)),
]
LEAST = 0.5e-6  # seconds; what is shorter is left out, as the sums of chunks


def rows(of, dtype="float32"):
    """(room, sizes, genmini.predict.Predicted) of each kernel that counts; dtype: of the inputs"""
    import torch

    from genmini import counting, predict

    for room, sizes in of:
        torch.set_default_dtype(getattr(torch, dtype))
        try:
            counted = counting.count(room, **sizes)
        finally:
            torch.set_default_dtype(torch.float32)
        for row in predict.of(counted, predict.named("h100")).rows:
            if row.at_least >= LEAST and (room != "nearest_code" or row.seconds["tensor"]):
                yield room, sizes | {"dtype": dtype}, row


def table(rows):
    yield "| room | sizes | kernel | bound | predicted, of the bound | binds |"
    yield "|---|---|---|---|---:|---|"
    for room, sizes, row in rows:
        bound = "tensor" if row.seconds["tensor"] else "DRAM"
        kernel = row.kernel.partition("<")[0]
        yield (f"| `{room}` | {shown(sizes)} | `{kernel}` | {bound}, {1e6 * row.seconds[bound]:.2f} us | "
               f"{row.seconds[bound] / row.at_least:.0%} | {row.binds} |")


def table_of_tiles(rows):
    yield "| room | sizes | kernel | DRAM, us | L2, us | products, us | binds |"
    yield "|---|---|---|---:|---:|---:|---|"
    for room, sizes, row in rows:
        products = "tensor" if row.seconds["tensor"] else "fp32"
        needs = " | ".join(f"{1e6 * row.seconds[name]:.2f}" for name in ("DRAM", "L2", products))
        binds = "products" if row.binds == products else row.binds
        yield f"| `{room}` | {shown(sizes)} | `{row.kernel}` | {needs} | {binds} |"


def shown(sizes):
    return " ".join(f"{name}={size}" for name, size in sizes.items() if size != "float32")


def main():
    of_cuda = [*rows(SIZES), *rows(IN_BFLOAT16, "bfloat16")]
    for name, lines in (("ceilings", table(of_cuda)), ("tiles", table_of_tiles(rows(IN_TRITON)))):
        before, rest = PAGE.read_text().split(f"<!-- {name} -->")
        block = "\n".join([f"<!-- {name} -->", *lines, f"<!-- /{name} -->"])
        PAGE.write_text(before + block + rest.split(f"<!-- /{name} -->")[1])


if __name__ == "__main__":
    main()
