"""The masked product on CPU tensors, in PyTorch, without the masked corner of W: half the time for sorted degrees.

The backend `cpu` of kernels/masked_linear.py. Degrees in another order are sorted first, with their rows and columns,
and the result is put back in the order given. A small product is not worth cutting: it takes the whole mask. What
depends on the degrees alone is computed once for their values, and kept, but for whole masks above KEPT.
"""

import functools
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ._bits import bits_of, masked, masked_

SMALL = 2**22  # multiplications of a product that is not cut
KEPT = 2**20  # weights whose whole mask is kept: 64 masks of float32 are at most 256 MiB
ROWS = 128  # outputs that are computed at a time in a larger one


class Staircase(NamedTuple):
    in_order: torch.Tensor | None  # that sorts the inputs; None: they are sorted
    out_order: torch.Tensor | None
    steps: tuple  # (rows, live, mixed, bits): outputs, the inputs that some of them see, the mixed ones, their mask


def by_staircase(x, weight, bias, in_degree, out_degree, strict):  # (N, K), (J, K), (J) -> (N, J)
    if _small(len(x), in_degree, out_degree):
        return F.linear(x, masked(weight, _whole(in_degree, out_degree, strict, *_layout(weight))), bias)
    k, j, steps = _staircase(*_values(in_degree, out_degree), strict, *_layout(weight))
    if k is not None:
        x, weight = x.index_select(1, k), weight.index_select(0, j).index_select(1, k)
        bias = bias if bias is None else bias[j]
    y = x.new_empty(len(x), len(weight))
    for rows, live, mixed, bits in steps:
        w = weight[rows, live].clone()
        masked_(w[:, mixed], bits)
        y[:, rows] = F.linear(x[:, live], w, bias if bias is None else bias[rows])
    return y if k is None else y.index_select(1, j.argsort())


def dw_by_staircase(dy, x, in_degree, out_degree, strict):  # (N, J), (N, K) -> (J, K)
    if _small(len(x), in_degree, out_degree):
        return masked_(dy.T @ x, _whole(in_degree, out_degree, strict, x.dtype, False))
    k, j, steps = _staircase(*_values(in_degree, out_degree), strict, x.dtype, False)
    if k is not None:
        dy, x = dy.index_select(1, j), x.index_select(1, k)
    dw = x.new_zeros(dy.shape[1], x.shape[1])
    for rows, live, mixed, bits in steps:
        torch.mm(dy[:, rows].T, x[:, live], out=dw[rows, live])
        masked_(dw[rows, live][:, mixed], bits)
    return dw if k is None else dw.index_select(0, j.argsort()).index_select(1, k.argsort())


def _small(N, in_degree, out_degree):
    """Whether a product of N rows is; no rows count as one, as the mask would not be small."""
    return max(N, 1) * len(in_degree) * len(out_degree) <= SMALL


def _layout(weight):
    """Its dtype, and whether it is transposed in memory: bits in the same layout are read side by side."""
    return weight.dtype, weight.stride(0) < weight.stride(1)


def _values(*degrees):
    """What a cache can compare: bytes."""
    return [degree.numpy().tobytes() for degree in degrees]


def _tensors(*values):
    return [torch.frombuffer(bytearray(v), dtype=torch.int64) if v else torch.empty(0, dtype=torch.int64)
            for v in values]


def _whole(in_degree, out_degree, strict, dtype, turned):
    """The bits of the whole mask, (J, K)"""
    if len(in_degree) * len(out_degree) > KEPT:
        return _masked(in_degree, out_degree, strict, dtype, turned)
    return _bits(*_values(in_degree, out_degree), strict, dtype, turned)


@functools.lru_cache(maxsize=64)
def _bits(in_values, out_values, strict, dtype, turned):
    return _masked(*_tensors(in_values, out_values), strict, dtype, turned)


def _masked(in_degree, out_degree, strict, dtype, turned):
    out = out_degree[:, None]
    bits = bits_of(out > in_degree if strict else out >= in_degree, dtype)
    return bits.T.contiguous().T if turned else bits


@functools.lru_cache(maxsize=64)
def _staircase(in_values, out_values, strict, dtype, turned):
    in_degree, out_degree = _tensors(in_values, out_values)
    if _sorted(in_degree, out_degree):
        return Staircase(None, None, tuple(_steps(in_degree, out_degree, strict, dtype, turned)))
    k, j = in_degree.argsort(stable=True), out_degree.argsort(stable=True)
    return Staircase(k, j, tuple(_steps(in_degree[k], out_degree[j], strict, dtype, turned)))


def _sorted(*degrees):
    """Whether all degrees ascend, or all descend."""
    return all((d[1:] >= d[:-1]).all() for d in degrees) or all((d[1:] <= d[:-1]).all() for d in degrees)


def _steps(in_degree, out_degree, strict, dtype, turned):
    """Yield, for ROWS outputs at a time: these, the inputs that some of them see, the mixed ones of those, the mask."""
    K, J = len(in_degree), len(out_degree)
    descending = bool((in_degree[:1] > in_degree[-1:]).any() or (out_degree[:1] > out_degree[-1:]).any())
    seen = torch.searchsorted(in_degree.flip(0) if descending else in_degree, out_degree, right=not strict).tolist()
    for start in range(0, J, ROWS):
        rows = slice(start, min(start + ROWS, J))
        most, least = max(seen[start], seen[rows.stop - 1]), min(seen[start], seen[rows.stop - 1])
        live, mixed = slice(0, most), slice(least, most)
        if descending:
            live, mixed = slice(K - most, K), slice(0, most - least)
        yield rows, live, mixed, _masked(in_degree[live][mixed], out_degree[rows], strict, dtype, turned)
