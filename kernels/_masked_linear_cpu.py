"""The masked product on CPU tensors, in PyTorch, without the dead tiles of W: half the time for sorted degrees.

The backend `cpu` of kernels/masked_linear.py. Of some outputs at a time (`rows`) only the spans of inputs that one of
them sees are multiplied (kernels/_spans.py). Degrees in another order may leave few tiles dead: then they are sorted,
with their rows and columns, and the result is put back in the order given; for FEW rows of x that would take longer
than to multiply all of W. A small product, or one of a thin W, is not worth cutting: it takes the whole mask. What
depends on the degrees alone is computed once for their values, and kept: masks of the last degrees, as many as 256 MiB
hold, and whole masks up to KEPT.
"""

import functools
import threading
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ._bits import bits_of, masked, masked_
from ._spans import GAP, ROWS, spans, tiles_of_degrees

SMALL = 2**23  # multiplications of a product that is not cut
FEW = 96  # rows of x: to sort W takes the time of half their products
THIN = 128  # inputs or outputs: of so few the dead half takes less time than to cut or to sort
KEPT = 2**20  # weights whose whole mask is kept: 64 masks of float32 are at most 256 MiB
SORTING = 0.15  # of the weights: to sort is worth it if so many more are dead then


def rows(J):
    """How many outputs are computed at a time. Of many outputs twice as many: half the calls of PyTorch, while the dead
    part that is multiplied stays a small share."""
    return ROWS if J < 16 * ROWS else 2 * ROWS


class Order(NamedTuple):
    k: torch.Tensor  # that sorts the inputs
    j: torch.Tensor  # the outputs
    k_back: torch.Tensor  # and back
    j_back: torch.Tensor


def by_tiles(x, weight, bias, in_degree, out_degree, strict):  # (N, K), (J, K), (J) -> (N, J)
    if _small(len(x), in_degree, out_degree):
        return F.linear(x, masked(weight, _whole(in_degree, out_degree, strict, *_layout(weight))), bias)
    values = *_values(in_degree, out_degree), strict
    many, order = of_rows(len(x), *values)
    if order:
        x, weight = x.index_select(1, order.k), weight.index_select(0, order.j).index_select(1, order.k)
        bias = None if bias is None else bias[order.j]
    y = product(x, weight, bias, _steps(*values, many, False, *_layout(weight)))
    return y.index_select(1, order.j_back) if order else y


def dw_by_tiles(dy, x, in_degree, out_degree, strict):  # (N, J), (N, K) -> (J, K)
    if _small(len(x), in_degree, out_degree):
        return masked_(dy.T @ x, _whole(in_degree, out_degree, strict, x.dtype, False))
    values = *_values(in_degree, out_degree), strict
    many, order = of_rows(len(x), *values)
    if order:
        dy, x = dy.index_select(1, order.j), x.index_select(1, order.k)
    dw = outer(dy, x, _steps(*values, many, False, x.dtype, False))
    return dw.index_select(1, order.k_back).index_select(0, order.j_back) if order else dw


def both_by_tiles(dy, x, weight, in_degree, out_degree, strict):  # -> (N, K), (J, K)
    if _small(len(x), in_degree, out_degree):
        bits = _whole(in_degree, out_degree, strict, x.dtype, False)
        return dy @ masked(weight, bits), masked_(dy.T @ x, bits)
    values = *_values(in_degree, out_degree), strict
    many, order = of_rows(len(x), *values)
    if order:
        dy, x = dy.index_select(1, order.j), x.index_select(1, order.k)
        weight = weight.index_select(0, order.j).index_select(1, order.k)
    dx = product(dy, weight.T, None, _steps(*values, many, True, *_layout(weight.T)))
    dw = outer(dy, x, _steps(*values, many, False, x.dtype, False))
    if not order:
        return dx, dw
    weight = torch.index_select(dw, 1, order.k_back, out=weight)  # in memory that is at hand: new pages cost time
    return torch.index_select(dx, 1, order.k_back, out=x), torch.index_select(weight, 0, order.j_back, out=dw)


def product(x, weight, bias, steps):
    """y_nj = sum_k x_nk (W o M)_jk + b_j"""
    y = x.new_empty(len(x), len(weight))
    side = rows(len(weight))
    biases = [None] * len(steps) if bias is None else bias.split(side)
    for part, weights, b, seen in zip(y.split(side, 1), weight.split(side), biases, steps, strict=False):
        for i, (live, mixed, bits) in enumerate(seen):
            w = weights.narrow(1, *live)
            if mixed[1] == live[1]:
                w = masked(w, bits)
            else:
                masked_((w := w.clone()).narrow(1, *mixed), bits)
            if i:
                part.addmm_(x.narrow(1, *live), w.T)
            elif bias is None:
                torch.mm(x.narrow(1, *live), w.T, out=part)
            else:
                torch.addmm(b, x.narrow(1, *live), w.T, out=part)
        if not seen:
            part.zero_() if bias is None else part.copy_(b)
    return y


def outer(dy, x, steps):
    """dW_jk = M_jk sum_n dy_nj x_nk"""
    dw, side = x.new_empty(dy.shape[1], x.shape[1]), rows(dy.shape[1])
    for part, dy_part, seen in zip(dw.split(side), dy.split(side, 1), steps, strict=False):
        end = 0
        for live, mixed, bits in seen:
            part[:, end : live[0]] = 0
            w, end = part.narrow(1, *live), sum(live)
            torch.mm(dy_part.T, x.narrow(1, *live), out=w)
            masked_(w.narrow(1, *mixed), bits)
        part[:, end:] = 0
    return dw


def of_rows(N, *values):
    """Whether so many rows are many, and what then sorts the degrees of these values, if it is worth it"""
    return N >= FEW, _order(*values) if N >= FEW else None


def _small(N, in_degree, out_degree):
    """Whether a product of N rows is, or its W thin; no rows count as one, as the mask would not be small."""
    K, J = len(in_degree), len(out_degree)
    return max(N, 1) * J * K <= SMALL or min(J, K) <= THIN


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
def _order(in_values, out_values, strict):
    """What sorts the degrees, or None if it would not make many more tiles dead."""
    in_degree, out_degree = _tensors(in_values, out_values)
    k, j = in_degree.argsort(stable=True), out_degree.argsort(stable=True)
    dead = lambda *degrees: 1 - tiles_of_degrees(*degrees, strict)[0].float().mean()
    gain = dead(in_degree[k], out_degree[j]) - dead(in_degree, out_degree)
    return Order(k, j, k.argsort(), j.argsort()) if gain > SORTING else None


class Kept:
    """A function, and what it gave for its last arguments: at most 64 of them, whose masks are at most `most` bytes.

    Degrees that leave few tiles dead, and are not sorted, have masks as large as W.
    """

    def __init__(self, function, most=256 * 2**20):
        self.function, self.most = function, most
        self.results, self.lock = {}, threading.Lock()  # the last used is the last

    def __call__(self, *key):
        with self.lock:
            if key in self.results:
                self.results[key] = self.results.pop(key)
                return self.results[key]
        steps = self.function(*key)
        with self.lock:
            self.results[key] = steps
            while len(self.results) > 64 or self.bytes() > self.most:
                del self.results[next(iter(self.results))]
        return steps

    def bytes(self):
        return sum(bits.nbytes for steps in self.results.values() for seen in steps for _, _, bits in seen)


@Kept
def _steps(in_values, out_values, strict, many, transposed, dtype, turned):
    """Of some outputs at a time, ((live, mixed, bits), ...): the spans of inputs that some of them see, the mixed ones
    of those, and their mask. Of the sorted degrees, where these are sorted; of the transposed mask, if wanted."""
    in_degree, out_degree = _tensors(in_values, out_values)
    if many and (order := _order(in_values, out_values, strict)):
        in_degree, out_degree = in_degree[order.k], out_degree[order.j]
    if transposed:
        in_degree, out_degree = ~out_degree, ~in_degree
    K, side = len(in_degree), rows(len(out_degree))
    gap = GAP if dtype.itemsize > 2 else K  # sums of 16 bits are rounded once
    each = spans(K, *tiles_of_degrees(in_degree, out_degree, strict, side), gap)
    bits = lambda j, live, mixed: _masked(in_degree.narrow(0, live[0] + mixed[0], mixed[1]), j, strict, dtype, turned)
    return tuple(tuple((live, mixed, bits(j, live, mixed)) for live, mixed in seen)
                 for j, seen in zip(out_degree.split(side), each, strict=False))
