"""The mask that degrees make, in PyTorch and in Triton, the order of tiles, and the product of a tile with the mask.

For kernels/masked_linear.py.
"""

from ._triton import tl, triton


def mask(in_degree, out_degree, strict):  # (K), (J) -> (J, K)
    return out_degree[:, None] > in_degree if strict else out_degree[:, None] >= in_degree


def turned(in_degree, out_degree, strict):
    """The arguments that make the transposed mask."""
    return dict(in_degree=~out_degree, out_degree=~in_degree, strict=strict)


@triton.jit
def may_see(out_degree, in_degree, STRICT: tl.constexpr):
    return out_degree > in_degree if STRICT else out_degree >= in_degree


@triton.jit
def tile_of(program, ROWS, COLUMNS, GROUP):
    """The row and the column of the program's tile of y: GROUP rows of tiles at a time, one column after the other."""
    first, place = program // (GROUP * COLUMNS) * GROUP, program % (GROUP * COLUMNS)
    height = tl.minimum(ROWS - first, GROUP)  # of the last group, perhaps less
    return first + place % height, place // height


@triton.jit
def product_tile(y, x_ptrs, w_ptrs, in_ptr, t, x_k, w_k, n_ok, j_ok, out_degree, K, MASKED: tl.constexpr,
                 STRICT: tl.constexpr, PRECISION: tl.constexpr, BK: tl.constexpr):
    k = t * BK + tl.arange(0, BK)
    x = tl.load(x_ptrs + k.to(tl.int64)[None, :] * x_k, n_ok[:, None] & (k < K)[None, :], other=0)  # (BN, BK)
    w = tl.load(w_ptrs + k.to(tl.int64)[:, None] * w_k, (k < K)[:, None] & j_ok[None, :], other=0)  # W^T, (BK, BJ)
    if MASKED:
        in_degree = tl.load(in_ptr + k, k < K, other=0)
        w = tl.where(may_see(out_degree[None, :], in_degree[:, None], STRICT), w, 0)
    return tl.dot(x, w, y, input_precision=PRECISION, out_dtype=y.dtype)
