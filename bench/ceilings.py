"""Predict how near its bound each CUDA kernel of the best rungs can come on an H100, and write docs/counting.md.

    make table-ceilings

Counted in the emulator and compiled by nvcc, not measured: the bytes of DRAM of a kernel, or the products of the
search, over what its busiest resource needs at least (genmini/predict.py). Sizes fill the 132 SMs where the emulator is
quick enough.
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
LEAST = 0.5e-6  # seconds; what is shorter is left out, as the sums of chunks


def rows():
    """(room, sizes, genmini.predict.Predicted) of each kernel that counts"""
    from genmini import counting, predict

    for room, sizes in SIZES:
        prediction = predict.of(counting.count(room, **sizes), predict.named("h100"))
        for row in prediction.rows:
            if row.at_least >= LEAST and (room != "nearest_code" or row.seconds["tensor"]):
                yield room, sizes, row


def table(rows):
    yield "| room | sizes | kernel | bound | predicted, of the bound | binds |"
    yield "|---|---|---|---|---:|---|"
    for room, sizes, row in rows:
        bound = "tensor" if row.seconds["tensor"] else "DRAM"
        shown = " ".join(f"{name}={size}" for name, size in sizes.items())
        kernel = row.kernel.partition("<")[0]
        yield (f"| `{room}` | {shown} | `{kernel}` | {bound}, {1e6 * row.seconds[bound]:.2f} us | "
               f"{row.seconds[bound] / row.at_least:.0%} | {row.binds} |")


def main():
    before, rest = PAGE.read_text().split("<!-- ceilings -->")
    block = "\n".join(["<!-- ceilings -->", *table(rows()), "<!-- /ceilings -->"])
    PAGE.write_text(before + block + rest.split("<!-- /ceilings -->")[1])


if __name__ == "__main__":
    main()
