"""Which code lies nearest, exactly, when the fast arithmetic cannot tell?

Vector quantisation of VQ-VAE (van den Oord, Vinyals, Kavukcuoglu 2017, eq. 1-3; the course's "VQ-VAE"): a vector z is replaced by the
nearest of K codes e_k. The network behind the codes learns through the codes as if they were z, and the codes move towards the vectors that
they replace.

    kernels: csrc/nearest_code.cu, csrc/quantize.cu; csrc/nearest_code.cpp for CPUs    layer: genmini.layers.VectorQuantizer
    test: tests/kernels/test_nearest_code.py    bench: bench/bench_nearest_code.py    proof: docs/exact-argmin.md

Math
    index       k_n = lowest k of minimal d_nk,  d_nk = sum_d (z_nd - e_kd)^2, d ascending, each operation rounded to double on its own,
                NaN counted as infinity: the same on every backend, rung and device. A row with NaN in it, or infinitely far from all
                codes, has index 0
    step        z_q = z + sg[e - z] = e in value                          e = e_{k_n},  sg: the gradient stops
                loss_n = |sg[z] - e|^2 + beta |z - sg[e]|^2 = (1 + beta) |z - e|^2 in value
    gradient    dz_n = dz_q_n + 2 beta (z_n - e) dloss_n                  de_k = sum_{n: k_n = k} 2 (e_k - z_n) dloss_n
                and their derivatives are those of these formulas with sg where the step has it

Shapes
    z (..., D), codebook e (K, D), their dtypes may differ -> index (...) int64;  z_q like z, loss (...) float32 (float64 if an input is)

Traffic
    3 N K D operations of the definition in double, or 2 N K D of the screen: a matrix product of (N, D) and (D, K) whose N K scores are
    looked at and forgotten. z is read twice and its packed form written once, then read K / 128 times from cache. N = 65536, K = 1024,
    D = 64: 8.6 GFLOP and 42 MB, where storing the scores would move 537 MB. The step reads z and writes z_q: 8 N D bytes in float32.

Tiling
    naive         one thread a row: the definition
    tiled         a block owns 128 rows; tiles of 128 codes pass by; a thread holds 8 x 8 products in float. Then the sieve:

                        k ->  128   128   128          score_nk -+ margin_nk holds the truth. Each tile lowers the row's bound, and keeps
                    n  [  S  ][  S  ][  S  ]  bound_n  the codes that reach below it: one or two a row. They are computed again by the
                    v     1      .      2      list_n  definition; a row whose list overflows is scanned by it.

    tensor_core   the same with fp16 vectors and mma.sync: a warp holds 32 x 64 products, three tiles are on their way in shared memory
    cpu           integer screens of 16 bits (the same proof with another bound)
    fused         the step: a warp gathers a row's code and adds its loss; the codes' gradient is a run of the rows sorted by index
"""

import math

import torch

from . import _backend, _check, _library, _operator

ROWS = 2**20  # of one launch of the search: the packed rows take 2 or 4 D bytes each

# ---- reference -------------------------------------------------------------------------------------------------------------------------


def reference(z, e):  # (N, D), (K, D) -> (N,)
    index = [z.new_empty(0, dtype=torch.int64)]
    for rows in z.split(max(1, 2**21 // len(e))):  # so many rows that their distances are 16 MB
        distance = z.new_zeros((len(rows), len(e)), dtype=torch.float64)
        for z_d, e_d in zip(rows.double().unbind(1), e.double().unbind(1), strict=True):  # d ascending
            distance += (z_d[:, None] - e_d).square()
        index.append(distance.nan_to_num(math.inf, math.inf).argmin(1))  # the first of equals
    return torch.cat(index)


def reference_step(z, e, index, beta):  # (N, D), (K, D), (N,) -> (N, D), (N,)
    square = (z.double() - e[index].double()).square().sum(1)
    return e[index].to(z.dtype), ((1 + beta) * square).to(_wide(z, e))


def _wide(z, e):
    return torch.float64 if torch.float64 in (z.dtype, e.dtype) else torch.float32


# ---- kernel: csrc/nearest_code.cu, csrc/quantize.cu; here is who runs what -------------------------------------------------------------


def run(z, e, request):
    choice = _backend.chosen("nearest_code", z.device, z.dtype, request)
    if choice.backend == "reference":
        return reference(z, e)
    launch = launch_cpu if choice.backend == "cpu" else launch_search
    return launch(choice, _library.plain(z), _library.plain(e))


def run_step(z, e, index, beta, request):
    choice = _backend.chosen("quantize", z.device, z.dtype, request)
    if choice.backend == "reference":
        return reference_step(z, e, index, beta)
    return launch_step(choice, *map(_library.plain, (z, e, index)), beta)


def run_dz(dz_q, dloss, z, e, index, beta, request):
    choice = _backend.chosen("quantize", z.device, z.dtype, request)
    if choice.backend == "reference":
        return dz_formula(dz_q, dloss, z, e, index, beta, request).contiguous()
    return launch_dz(choice, *map(_library.plain, (dz_q, dloss, z, e, index)), beta)


def run_de(dloss, z, e, index, request):
    choice = _backend.chosen("quantize", z.device, z.dtype, request)
    if choice.backend == "reference":
        return de_formula(dloss, z, e, index, request).contiguous()
    return launch_de(choice, *map(_library.plain, (dloss, z, e, index)))


# ---- launcher --------------------------------------------------------------------------------------------------------------------------


def launch_cpu(choice, z, e):
    (N, D), K, threads = z.shape, len(e), torch.get_num_threads()  # read once: the workspace is for so many
    workspace = torch.empty(_library.size("nearest_code", "cpu", "nearest_code_cpu_workspace", N, K, D, threads=threads), dtype=torch.uint8)
    index = z.new_empty(N, dtype=torch.int64)
    _library.call("nearest_code", "cpu", "nearest_code_cpu", z.dtype, e.dtype, z, e, index, N, K, D, workspace, threads=threads)
    return index


def launch_search(choice, z, e, effort=None):
    """effort (N,) int64 on the CPU, if given, is told how many codes of each row were scored again, or -1 where all were."""
    (N, D), K = z.shape, len(e)
    S = splits(choice.backend, z.device, min(N, ROWS), K)
    half, index, workspace = choice.rung == "tensor_core", z.new_empty(N, dtype=torch.int64), None
    if choice.rung != "naive":
        bytes = _library.size("nearest_code", choice.backend, "nearest_code_workspace", half, min(N, ROWS), K, D, S)
        workspace = torch.empty(bytes, dtype=torch.uint8, device=z.device)
    for n in range(0, N, ROWS):
        rows, found = z[n : n + ROWS], index[n : n + ROWS]
        sizes = len(rows), K, D
        name = f"nearest_code_{choice.rung}"
        _library.call("nearest_code", choice.backend, name, z.dtype, e.dtype, rows, e, found, *sizes, workspace, S)
        if effort is not None:
            counting = half, workspace.cpu(), effort[n : n + ROWS], *sizes, S
            _library.size("nearest_code", choice.backend, "nearest_code_effort", *counting)
    return index


def splits(backend, device, N, K):
    """Few rows leave most of a GPU idle: then the codes are split over S blocks, of at least one tile each."""
    processors = torch.cuda.get_device_properties(device).multi_processor_count if backend == "cuda" else 2
    return max(1, min(2 * processors // max(1, math.ceil(N / 128)), math.ceil(K / 128), 64))


def launch_step(choice, z, e, index, beta):
    z_q, loss, sizes = torch.empty_like(z), z.new_empty(len(z), dtype=_wide(z, e)), (len(z), *e.shape)
    _library.call("quantize", choice.backend, f"quantize_forward_{choice.rung}", z.dtype, e.dtype, z, e, index, z_q, loss, beta, *sizes)
    return z_q, loss


def launch_dz(choice, dz_q, dloss, z, e, index, beta):
    dz, sizes = torch.empty_like(z), (len(z), *e.shape)
    _library.call("quantize", choice.backend, f"quantize_dz_{choice.rung}", z.dtype, e.dtype, dz_q, dloss, z, e, index, dz, beta, *sizes)
    return dz


def launch_de(choice, dloss, z, e, index):
    ascending, order = torch.sort(index, stable=True)  # the rows of code k are order[start[k]] ... order[start[k + 1] - 1]
    start = torch.searchsorted(ascending, torch.arange(len(e) + 1, device=index.device))
    de = torch.empty_like(e)
    _library.call("quantize", choice.backend, f"quantize_de_{choice.rung}", z.dtype, e.dtype, dloss, z, e, order, start, de, *e.shape)
    return de


# ---- gradient --------------------------------------------------------------------------------------------------------------------------


def dz_formula(dz_q, dloss, z, e, index, beta, request):
    # forward was: z_q = z + sg[e - z], loss = |sg[z] - e|^2 + beta |z - sg[e]|^2
    wide = _wide(z, e)
    pull = 2 * beta * (z.to(wide) - e[index].detach().to(wide)) * dloss[:, None]
    return (dz_q.to(wide) + pull).to(z.dtype)


def de_formula(dloss, z, e, index, request):
    push = 2 * (e[index].double() - z.detach().double()) * dloss[:, None].double()
    de = torch.zeros_like(e, dtype=torch.float64)
    if e.device.type == "cpu":  # in order of n, like index_add, and a hundred times as fast
        return de.scatter_add(0, index[:, None].expand_as(push), push).to(e.dtype)
    return de.index_add(0, index, push).to(e.dtype)


def gradient(needed, grads, z, e, index, beta, request):
    dz_q, dloss = grads
    dz = _backward_z(dz_q, dloss, z, e, index, beta, request) if needed[0] else None
    de = _backward_e(dloss, z, e, index, request) if needed[1] else None
    return dz, de, None, None, None


# ---- registration ----------------------------------------------------------------------------------------------------------------------

_backend.room("nearest_code", "cuda", ("naive", "tiled", "tensor_core"), cpu="C++")
_backend.room("quantize", "cuda", ("fused",))  # the step; its index is nearest_code's


def _like(tensor):
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def _fake(z, e, request):
    return z.new_empty(z.shape[0], dtype=torch.int64)


def _fake_step(z, e, index, beta, request):
    return _like(z), z.new_empty(z.shape[0], dtype=_wide(z, e))


_index = _operator.differentiable(
    _operator.operator("nearest_code(Tensor z, Tensor e, str request) -> Tensor", run, _fake),
    lambda inputs, outputs: (),
    lambda needed, grads: (None, None, None),
    fold=(0,),
)
_step = _operator.differentiable(
    _operator.operator("quantize(Tensor z, Tensor e, Tensor index, float beta, str request) -> (Tensor, Tensor)", run_step, _fake_step),
    lambda inputs, outputs: inputs,
    gradient,
    fold=(0, 2),
)
_backward_z = _operator.differentiable_in_pytorch(
    _operator.operator(
        "quantize_dz(Tensor dz_q, Tensor dloss, Tensor z, Tensor e, Tensor index, float beta, str request) -> Tensor",
        run_dz,
        lambda dz_q, dloss, z, *_: _like(z),
    ),
    dz_formula,
    fold=(0, 1, 2, 4),
)
_backward_e = _operator.differentiable_in_pytorch(
    _operator.operator(
        "quantize_de(Tensor dloss, Tensor z, Tensor e, Tensor index, str request) -> Tensor", run_de, lambda dloss, z, e, *_: _like(e)
    ),
    de_formula,
)


def nearest_code(z, codebook):
    """index[n] = the lowest k whose code is nearest to z[n], exactly.   (..., D), (K, D) -> (...) int64"""
    z, codebook = _checked(z, codebook)
    return _index(_rows(z), codebook, _backend.requested()).reshape(z.shape[:-1])


def quantize(z, codebook, beta=0.25):
    """The nearest codes z_q, which index they have, and the loss of each vector.   (..., D), (K, D) -> (..., D), (...) int64, (...)"""
    z, codebook = _checked(z, codebook)
    _check.number("beta", beta)
    rows, request = _rows(z), _backend.requested()
    index = _index(rows, codebook, request)
    z_q, loss = _step(rows, codebook, index, float(beta), request)
    return z_q.reshape(z.shape), index.reshape(z.shape[:-1]), loss.reshape(z.shape[:-1])


def _checked(z, codebook):
    _check.tensors(z=z, codebook=codebook)
    _check.at_least("z", z, 1, "(..., D)")
    if codebook.dim() != 2 or not codebook.numel() or codebook.shape[1] != z.shape[-1]:
        raise ValueError(f"codebook must have shape (K, D) with D = {z.shape[-1]} of z, K and D at least 1, got {tuple(codebook.shape)}")
    _check.one_device(z=z, codebook=codebook)
    return _check.in_float32(z, codebook)


def _rows(z):
    return z.reshape(math.prod(z.shape[:-1]), z.shape[-1])
