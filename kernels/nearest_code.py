"""Which code is exactly the nearest, if fast arithmetic cannot separate two of them?

Vector quantisation of VQ-VAE (van den Oord, Vinyals, Kavukcuoglu 2017, eq. 1; the course's "VQ-VAE"): a vector z is
replaced by the nearest of K codes e_k. What the network then learns from is the room quantize.

    kernels: csrc/nearest_code.cu, csrc/nearest_code.cpp    layer: genmini.layers.VectorQuantizer
    test: tests/kernels/test_nearest_code.py    bench: bench/bench_nearest_code.py    proof: docs/exact-argmin.md

Math
    k_n = lowest k of minimal d_nk,    d_nk = sum_d (z_nd - e_kd)^2
    d ascending, each operation rounded to double on its own, NaN counted as infinity: the same on every backend, rung
    and device. A row with NaN in it, or infinitely far from all codes, has index 0. An index has no gradient.

Shapes
    z (..., D), codebook e (K, D), their dtypes may differ -> index (...) int64

Traffic
    3 N K D operations of the definition in double, or 2 N K D of the screen: a matrix product of (N, D) and (D, K)
    whose N K scores are compared and never stored. z is read twice and its packed form written once, then read K / 128
    times from cache. N = 65536, K = 1024, D = 64: 8.6 GFLOP and 42 MB, where storing the scores would move 537 MB.
    A CPU holds the packed codes, 4 K D bytes and 16 K, unless rows are few, and for each thread a block of 64 rows with
    the bounds of up to 1024 groups of codes, half a megabyte: more than the scores take where N < D, or N K < 2^19.

Tiling
    naive         one thread a row: the definition
    tiled         a block owns 128 rows and loops over tiles of 128 codes; a thread holds 8 x 8 products in float. Then:

                        k ->  128   128   128          the true d_nk lies within score_nk -+ margin_nk. Each tile lowers
                    n  [  S  ][  S  ][  S  ]  bound_n  the row's bound, and keeps the codes that reach below it: one
                    v     1      .      2      list_n  or two a row, which are computed again by the definition. A
                                                       row whose list overflows is computed by it for all codes.

    tensor_core   the same with fp16 vectors and mma.sync: a warp holds 32 x 64 products. The rows stay in shared
                  memory (D <= 128), and three pieces of tiles of codes are being copied there
    cpu           a screen of 16-bit integers, or of floats where a row has few products (the same proof with other
                  bounds); few rows are searched in the codes as they lie
"""

import math

import torch

from . import _check, _library
from ._room import differentiable, door, operator, room

ROWS = 2**20  # of one launch of the search: the packed rows take 2 or 4 D bytes each

# ---- reference ------------------------------------------------------------------------------------------------------


def reference(z, e):  # (N, D), (K, D) -> (N,)
    index = [z.new_empty(0, dtype=torch.int64)]
    for rows in z.split(max(1, 2**21 // len(e))):  # so many rows that their distances are 16 MB
        distance = z.new_zeros((len(rows), len(e)), dtype=torch.float64)
        for z_d, e_d in zip(rows.double().unbind(1), e.double().unbind(1), strict=True):  # d ascending
            distance += (z_d[:, None] - e_d).square()
        index.append(distance.nan_to_num(math.inf, math.inf).argmin(1))  # the first of equals
    return torch.cat(index)


# ---- kernel: in csrc/nearest_code.cu and csrc/nearest_code.cpp, by these names --------------------------------------
#
#   rung           the search
#   naive          nearest_code_naive
#   tiled          nearest_code_tiled          packs z and e, screens with float products, decides by the definition
#   tensor_core    nearest_code_tensor_core    packs z and e, screens with mma.sync on fp16, decides by the definition
#   (cpu)          nearest_code_cpu            screens with integers of 16 bits, decides by the definition

# ---- launcher -------------------------------------------------------------------------------------------------------


def launch(backend, rung, z, e, effort=None):
    """effort (N,) int64 on the CPU, if given, receives how many codes of each row a GPU kernel scored again, or -1 for
    all."""
    (N, D), K, threads = z.shape, len(e), torch.get_num_threads()  # read once: the workspace is for so many
    index, workspace = z.new_empty(N, dtype=torch.int64), None
    if backend == "cpu":
        kinds, sizes = (z.dtype, e.dtype), (N, K, D)
        bytes = _library.size("nearest_code", "cpu", "nearest_code_cpu_workspace", *kinds, *sizes, threads=threads)
        arguments = *kinds, z, e, index, *sizes, torch.empty(bytes, dtype=torch.uint8)
        _library.call("nearest_code", "cpu", "nearest_code_cpu", *arguments, threads=threads)
        return index
    half, S = rung == "tensor_core", splits(backend, z.device, min(N, ROWS), K)
    if rung != "naive":
        bytes = _library.size("nearest_code", backend, "nearest_code_workspace", half, min(N, ROWS), K, D, S)
        workspace = torch.empty(bytes, dtype=torch.uint8, device=z.device)
    for n in range(0, N, ROWS):
        rows, their_index = z[n : n + ROWS], index[n : n + ROWS]
        sizes = len(rows), K, D
        arguments = z.dtype, e.dtype, rows, e, their_index, *sizes, workspace, S
        _library.call("nearest_code", backend, f"nearest_code_{rung}", *arguments)
        if effort is not None:
            counting = half, workspace.cpu(), effort[n : n + ROWS], *sizes, S
            _library.size("nearest_code", backend, "nearest_code_effort", *counting)
    return index


def splits(backend, device, N, K):
    """Few rows leave most of a GPU idle: then the codes are split over S blocks, of at least one tile each."""
    processors = torch.cuda.get_device_properties(device).multi_processor_count if backend == "cuda" else 2
    return max(1, min(2 * processors // max(1, math.ceil(N / 128)), math.ceil(K / 128), 64))


# ---- gradient: none; an index is a whole number ---------------------------------------------------------------------

# ---- registration ---------------------------------------------------------------------------------------------------

NEAREST = room("nearest_code", "cuda", ("naive", "tiled", "tensor_core"), cpu="C++")

_index = differentiable(operator(
    NEAREST, "nearest_code(Tensor z, Tensor e) -> Tensor index",
    fake=lambda z: z.new_empty(z.shape[0], dtype=torch.int64), takes="z: T(N, D); e: U(K, D)",
    reference=reference, kernel=launch, cpu=launch,
), lambda: {}, rows="z")


@door
def nearest_code(z, codebook):
    """index[n] = the lowest k whose code is nearest to z[n], exactly.   (..., D), (K, D) -> (...) int64"""
    z, codebook = _check.vectors_and_codes(z, codebook)
    if z.dim() == 2:  # a view of all would do nothing, and take time
        return _index(z=z, e=codebook)
    return _index(z=z.reshape(math.prod(z.shape[:-1]), z.shape[-1]), e=codebook).reshape(z.shape[:-1])
