"""How many vectors did each code replace, and what is their mean?

A codebook can follow running means instead of a gradient (van den Oord et al. 2017, appendix A.1, eq. 6-8; Razavi et
al. 2019; the course's "VQ-VAE"). This room computes the two sums over the batch that the means need.

    kernels: csrc/code_stats.cu, csrc/code_stats.cpp    layer: genmini.layers.VectorQuantizer
    test: tests/kernels/test_code_stats.py    bench: bench/bench_code_stats.py

Math
    forward     count_k = |{n: index_n = k}|     total_k = sum_{n: index_n = k} z_n     total_k / count_k is the mean
    gradient    dz_n = dtotal_{index_n}
    The sums run in double, in an order that depends on the data alone: the same bits every time, whatever the number of
    threads.

Shapes
    z (..., D), index (...) int64 in 0 .. K-1, K -> count (K) int64, total (K, D) float32 (float64 for float64)

Traffic
    w D + 8 bytes a row (w bytes a number of z) and one sort of the indices; the K D sums are written once. Memory
    O(N + K D): the common way, onehot(index)^T z, stores N K numbers and does 2 N K D operations; index_add on a GPU
    adds atomically, in another order each time. A CPU holds 8 N bytes beside the outputs, which are the order of the
    rows; one-hot vectors in float32 take 4 N K, less where K = 1.

Tiling
    naive       one thread a (k, d) looks at every row
    segments    a stable sort puts the rows of a code side by side: one run a code. A warp adds up a short run of 32
                columns, four rows at a time; the warps of a block a long one

                order  | 3  8  9 | 0 | 1  2  4  5  6  7 | ...        16 sums, each of every 16th row, ascending;
                code       0       1          3                      then these sums are added in order

    A CPU sorts by counting; a task adds the runs of some codes, eight vectors of columns at a time, in registers.
"""

import math

import torch

from . import _check, _library
from ._room import differentiable, door, operator, room, sum_dtype

# ---- reference ------------------------------------------------------------------------------------------------------


def reference(z, index, K):  # (N, D), (N,) -> (K,), (K, D)
    row = torch.where((index >= 0) & (index < K), index, K)  # what is outside goes to a row that is cut off
    count = torch.zeros(K + 1, dtype=torch.int64, device=z.device).index_add_(0, row, torch.ones_like(row))
    total = torch.zeros(K + 1, z.shape[1], dtype=torch.float64, device=z.device).index_add_(0, row, z.double())
    return count[:K].clone(), total[:K].to(sum_dtype(z.dtype))


# ---- kernel: in csrc/code_stats.cpp for CPUs, in csrc/code_stats.cu by these names -----------------------------------
#
#   naive       code_stats_naive
#   segments    code_stats_segments, after a stable sort

# ---- launcher -------------------------------------------------------------------------------------------------------


def launch(backend, rung, z, index, K):
    N, D = z.shape
    count, total = index.new_empty(K), z.new_empty((K, D), dtype=sum_dtype(z.dtype))
    if backend == "cpu":
        (z,), order = _library.for_native(z), index.new_empty(N)
        _library.call("code_stats", "cpu", "code_stats_cpu", z.dtype, z, index, count, total, order, N, K, D)
        return count, total
    if rung == "naive":
        arguments = index, count, total, N, K, D
    else:
        arguments = *_library.segments(index, K), count, total, K, D
    _library.call("code_stats", backend, f"code_stats_{rung}", z.dtype, z, *arguments)
    return count, total


# ---- gradient -------------------------------------------------------------------------------------------------------


def gradient(dtotal, index, K):
    # forward was: total_k = sum of z_n with index_n = k.   This gather is PyTorch's, with its own derivative
    inside = (index >= 0) & (index < K)
    return dict(z=torch.where(inside[:, None], dtotal.index_select(0, index.clamp(0, K - 1)), 0))


# ---- registration ---------------------------------------------------------------------------------------------------

STATS = room("code_stats", "cuda", ("naive", "segments"), cpu="C++")

_forward = differentiable(operator(
    STATS, "code_stats(Tensor z, Tensor index, int K) -> (Tensor count, Tensor total)",
    fake=lambda z, index, K: (index.new_empty(K), z.new_empty((K, z.shape[1]), dtype=sum_dtype(z.dtype))),
    check=lambda index, K: _check.in_range("index", index, K, "K"),
    takes="z: T(N, D); index: int64(N)", reference=reference, kernel=launch, cpu=launch,
), gradient)


@door
def code_stats(z, index, K):
    """How many vectors have each index, and their sum.   (..., D), (...) int64, K -> (K,) int64, (K, D)"""
    _check.tensors(z=z)
    _check.tensors((torch.int64,), index=index)
    _check.at_least("z", z, 1, "(..., D)")
    _check.shape("index", index, z.shape[:-1], "that of z without D")
    _check.one_device(z=z, index=index)
    _check.whole("K", K, 1, 2**63 - 1, "the number of codes")
    (z,) = _check.float32_under_autocast(z)
    if z.dim() == 2:  # views of all would do nothing, and take time
        return _forward(z=z, index=index, K=K)
    N = math.prod(z.shape[:-1])
    return _forward(z=z.reshape(N, z.shape[-1]), index=index.reshape(N), K=K)
