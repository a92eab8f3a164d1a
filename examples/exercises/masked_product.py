"""Exercise 2: the masked product of MADE, in Triton. `python examples/exercises/masked_product.py` says when it is
right."""

import sys

import right
import torch
import triton
import triton.language as tl

import genmini  # noqa: I001  before a kernel of Triton runs: without a GPU it is interpreted

TILE = 32


@triton.jit
def product(x_ptr, w_ptr, b_ptr, y_ptr, in_ptr, out_ptr, N, J, K, STRICT: tl.constexpr, BIAS: tl.constexpr,
            TILE: tl.constexpr):
    """y_nj = sum_k x_nk W_jk [out_degree_j >= in_degree_k] + b_j, > if STRICT, for one tile of y."""
    # x (N, K), W (J, K) and y (N, J) are contiguous; b (J) where BIAS; in_degree (K), out_degree (J)
    # ---- yours
    tl.static_assert(False, "masked_product.py: the kernel is left blank: write it between the marks "
                            "(docs/exercises.md)")
    # ---- end of yours


@genmini.register("masked_linear", backend="mine")
def masked_product(x, weight, bias, in_degree, out_degree, strict):  # (N, K), (J, K), (J) or None, (K), (J) -> (N, J)
    (N, K), J = x.shape, len(weight)
    y = x.new_empty(N, J)
    with torch.cuda.device_of(x):
        product[triton.cdiv(N, TILE), triton.cdiv(J, TILE)](x, weight, bias, y, in_degree, out_degree, N, J, K, strict,
                                                            bias is not None, TILE)
    return y


if __name__ == "__main__":
    sys.exit(right.tell("masked_linear"))
