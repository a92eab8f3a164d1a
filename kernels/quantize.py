"""How does a network learn, if its output is replaced by the nearest code, and the choice of a code has no gradient?

The step of VQ-VAE once the room nearest_code has found the codes (van den Oord, Vinyals, Kavukcuoglu 2017, eq. 2-3;
the course's "VQ-VAE"): the network behind the codes learns as if they were z, and the codes move towards the vectors
that they replace.

    kernels: csrc/quantize.cu, csrc/quantize.cpp    layer: genmini.layers.VectorQuantizer
    test: tests/kernels/test_quantize.py    bench: bench/bench_quantize.py

Math
    z_q_n  = z_n + sg[e - z_n] = e in value             e = e_{k_n} with k_n = index_n;  sg: the gradient stops
    loss_n = |sg[z_n] - e|^2 + beta |z_n - sg[e]|^2 = (1 + beta) |z_n - e|^2 in value
    gradient    dz_n = dz_q_n + 2 beta (z_n - e) dloss_n            de_k = sum_{n: k_n = k} 2 (e_k - z_n) dloss_n
    and their derivatives are those of these formulas, with sg where the step has it.

Shapes
    z (..., D), codebook e (K, D), index (...) int64 in 0 .. K-1; the dtypes of z and e may differ
    -> z_q like z, loss (...) float32 (float64 if z or e is)

Traffic
    The step reads z and writes z_q, 8 N D bytes in float32, and gathers e from cache; dz reads dz_q and z and writes
    dz, 12 N D; de reads z once, 4 N D, and one sort of the indices. Eager PyTorch moves 76 N D forward: gather
    4, twice subtract 12, square 8 and sum 4, then z + (e - z) 24. Memory is the bound.
    For de a CPU holds the order of the rows, 8 N bytes: with one column 4 N more than plain PyTorch.

Tiling
    naive    a thread a row gathers its code, writes z_q and adds the loss; a thread an element (n, d) of dz divides to
             find n; a thread a (k, d) of de looks at every row
    fused    a warp a row, 32 columns at a time. dz: a lane 16 bytes of a row, which 2^g lanes share. de: a stable sort
             puts the rows of a code side by side. A warp adds up a short run of 32 columns, a block a long one

                order  | 3  8  9 | 0 | 1  2  4  5  6  7 | ...        16 sums, each of every 16th row, ascending;
                code       0       1          3                      then these sums are added in order

    A CPU walks along rows, some rows a task; for de it sorts by counting, and a task adds the runs of some codes.
"""

import math

import torch

from . import _check, _library
from ._room import differentiable, door, operator, room, sum_dtype

# ---- reference ------------------------------------------------------------------------------------------------------


def reference(z, e, index, beta):  # (N, D), (K, D), (N,) -> (N, D), (N,)
    square = (z.double() - e[index].double()).square().sum(1)
    return e[index].to(z.dtype), ((1 + beta) * square).to(sum_dtype(z.dtype, e.dtype))


def reference_dz(dz_q, dloss, z, e, index, beta):  # -> (N, D)
    # forward was: z_q = z + sg[e - z], loss = |sg[z] - e|^2 + beta |z - sg[e]|^2
    sums = sum_dtype(z.dtype, e.dtype)
    pull = 2 * beta * (z.to(sums) - e[index].detach().to(sums)) * dloss[:, None]
    return (dz_q.to(sums) + pull).to(z.dtype)


def reference_de(dloss, z, e, index):  # -> (K, D)
    push = 2 * (e[index].double() - z.detach().double()) * dloss[:, None].double()
    return torch.zeros_like(e, dtype=torch.float64).index_add(0, index, push).to(e.dtype)


# ---- kernel: in csrc/quantize.cu, and in csrc/quantize.cpp for CPUs, by these names ---------------------------------
#
#   rung     z_q and loss            dz                 de
#   naive    quantize_forward_naive  quantize_dz_naive  quantize_de_naive
#   fused    quantize_forward_fused  quantize_dz_fused  quantize_de_fused, after a stable sort
#   (cpu)    quantize_forward_cpu    quantize_dz_cpu    quantize_de_cpu

# ---- launcher -------------------------------------------------------------------------------------------------------


def cast(tensor, dtype):  # `to` takes a microsecond where there is nothing to do
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def taken(backend, z, e, *like_z):
    """What a kernel takes: dtypes and tensors. For a native one these have the one dtype of sums."""
    if backend != "cpu":
        return (z.dtype, e.dtype), z, e, *like_z
    sums = sum_dtype(z.dtype, e.dtype)
    return (sums,), *(cast(a, sums) for a in (z, e, *like_z))


def launch(backend, rung, z, e, index, beta):
    dtypes, z_, e_ = taken(backend, z, e)
    z_q, loss = torch.empty_like(z_), z.new_empty(len(z), dtype=sum_dtype(z.dtype, e.dtype))
    arguments = *dtypes, z_, e_, index, z_q, loss, beta, len(z), *e.shape
    _library.call("quantize", backend, f"quantize_forward_{rung or backend}", *arguments)
    return cast(z_q, z.dtype), loss


def launch_dz(backend, rung, dz_q, dloss, z, e, index, beta):
    dtypes, z_, e_, dz_q = taken(backend, z, e, dz_q)
    dz = torch.empty_like(z_)
    arguments = *dtypes, dz_q, dloss, z_, e_, index, dz, beta, len(z), *e.shape
    _library.call("quantize", backend, f"quantize_dz_{rung or backend}", *arguments)
    return cast(dz, z.dtype)


def launch_de(backend, rung, dloss, z, e, index):
    N, (K, D), threads = len(z), e.shape, None
    dtypes, z_, e_ = taken(backend, z, e)
    de = torch.empty_like(e_)
    if backend == "cpu":
        threads = torch.get_num_threads()
        bytes = _library.size("quantize", "cpu", "quantize_de_cpu_workspace", N, K, D, threads=threads)
        arguments = index, de, z.new_empty(bytes, dtype=torch.uint8), N, K, D
    else:
        arguments = (index, de, N, K, D) if rung == "naive" else (*_library.segments(index, K), de, K, D)
    call = "quantize", backend, f"quantize_de_{rung or backend}"
    _library.call(*call, *dtypes, dloss, z_, e_, *arguments, threads=threads)
    return cast(de, e.dtype)


# ---- gradient -------------------------------------------------------------------------------------------------------


def gradient(dz_q, dloss, z, e, index, beta, needed):
    return dict(
        z=_dz(dz_q=dz_q, dloss=dloss, z=z, e=e, index=index, beta=beta) if "z" in needed else None,
        e=_de(dloss=dloss, z=z, e=e, index=index) if "e" in needed else None,
    )


# ---- registration ---------------------------------------------------------------------------------------------------

QUANTIZE = room("quantize", "cuda", ("naive", "fused"), cpu="C++")

_step = differentiable(operator(
    QUANTIZE, "quantize(Tensor z, Tensor e, Tensor index, float beta) -> (Tensor z_q, Tensor loss)",
    fake=lambda z, e: (z.new_empty(z.shape), z.new_empty(z.shape[0], dtype=sum_dtype(z.dtype, e.dtype))),
    check=lambda e, index: _check.in_range("index", index, len(e), "K"),
    takes="z: T(N, D); e: U(K, D); index: int64(N)", reference=reference, kernel=launch, cpu=launch,
), gradient, rows="z index")
_dz = differentiable(operator(
    QUANTIZE, "quantize_dz(Tensor dz_q, Tensor dloss, Tensor z, Tensor e, Tensor index, float beta) -> Tensor dz",
    fake="z", takes="dz_q z: T(N, D); e: U(K, D); index: int64(N); dloss: R(N)",
    reference=reference_dz, kernel=launch_dz, cpu=launch_dz,
), rows="dz_q dloss z index")
_de = differentiable(operator(
    QUANTIZE, "quantize_de(Tensor dloss, Tensor z, Tensor e, Tensor index) -> Tensor de",
    fake="e", takes="z: T(N, D); e: U(K, D); index: int64(N); dloss: R(N)",
    reference=reference_de, kernel=launch_de, cpu=launch_de,
))


@door
def quantize_step(z, codebook, index, beta=0.25):
    """The codes z_q that an index names, and the loss of each vector.   (..., D), (K, D), (...) -> (..., D), (...)"""
    z, codebook = _check.vectors_and_codes(z, codebook)
    _check.tensors((torch.int64,), index=index)
    _check.shape("index", index, z.shape[:-1], "that of z without D")
    _check.one_device(z=z, index=index)
    _check.number("beta", beta)
    if z.dim() == 2:  # views of all would do nothing, and take time
        return _step(z=z, e=codebook, index=index, beta=float(beta))
    N, D = math.prod(z.shape[:-1]), z.shape[-1]
    z_q, loss = _step(z=z.reshape(N, D), e=codebook, index=index.reshape(N), beta=float(beta))
    return z_q.reshape(z.shape), loss.reshape(index.shape)
