"""The masked product on CPU tensors, in PyTorch, without the dead tiles of W: half the time for sorted degrees.

The backend `cpu` of kernels/masked_linear.py. Of some outputs at a time (`rows`) only the spans of inputs that one of
them sees are multiplied (kernels/_spans.py). Degrees in another order may leave few tiles dead: then they are sorted,
with the rows and columns of W, and of a block of rows of x after the other, whose results are put back in the order
given; for FEW rows of x that would take longer than to multiply all of W. A small product, or one of a thin W, is not
worth cutting: it takes the whole mask, up to KEPT. What depends on the degrees alone is computed once for their values,
and kept: masks of the last degrees, as many as 256 MiB hold.
"""

import functools
import threading
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ._bits import bits_of, masked, masked_
from ._spans import GAP, ROWS, SIDE, spans, tiles_of_degrees

SMALL = 2**23  # multiplications of a product that is not cut
FEW = 48  # rows of x: to sort W takes the time of half their product
DW, TURNED = 2, 6  # times as many rows, if dW alone is wanted, or W lies transposed
BLOCK, LEAST = 256, 64  # rows of x: sorted, so many stay in a cache with what they give; fewer make too many calls
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
    side: int  # how many outputs at a time
    block: int  # and rows of x


def by_tiles(x, weight, bias, in_degree, out_degree, strict):  # (N, K), (J, K), (J) -> (N, J)
    if _small(len(x), in_degree, out_degree):
        return F.linear(x, masked(weight, _whole(in_degree, out_degree, strict, *_layout(weight))), bias)
    values = *_values(in_degree, out_degree), strict
    if order := order_of(len(x) // (TURNED if _layout(weight)[1] else 1), *values):
        return product_in_order(x, weight, bias, order, _steps(*values, True, False, weight.dtype, False))
    return product(x, weight, bias, _steps(*values, False, False, *_layout(weight)))


def dw_by_tiles(dy, x, in_degree, out_degree, strict):  # (N, J), (N, K) -> (J, K)
    if _small(len(x), in_degree, out_degree):
        return masked_(dy.T @ x, _whole(in_degree, out_degree, strict, x.dtype, False))
    values = *_values(in_degree, out_degree), strict
    order = order_of(len(x) // DW, *values) if x.itemsize > 2 else None  # sums of 16 bits are rounded once
    steps = _steps(*values, order is not None, False, x.dtype, False)
    return gradients_in_order(dy, x, None, order, steps)[1] if order else outer(dy, x, steps)


def both_by_tiles(dy, x, weight, in_degree, out_degree, strict):  # -> (N, K), (J, K)
    if _small(len(x), in_degree, out_degree):
        bits = _whole(in_degree, out_degree, strict, x.dtype, False)
        return dy @ masked(weight, bits), masked_(dy.T @ x, bits)
    values = *_values(in_degree, out_degree), strict
    order = order_of(len(x), *values) if x.itemsize > 2 else None  # sums of 16 bits are rounded once
    if order:
        return gradients_in_order(dy, x, weight, order, _steps(*values, True, False, x.dtype, False))
    dx = product(dy, weight.T, None, _steps(*values, False, True, *_layout(weight.T)))
    return dx, outer(dy, x, _steps(*values, False, False, x.dtype, False))


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
    (J, K), side = (dy.shape[1], x.shape[1]), rows(dy.shape[1])
    whole = all([live for live, *_ in seen] == [(0, K)] for seen in steps)  # nothing is dead: one product is faster
    dw = dy.T @ x if whole else x.new_empty(J, K)
    for part, dy_part, seen in zip(dw.split(side), dy.split(side, 1), steps, strict=False):
        end = 0
        for live, mixed, bits in seen:
            part[:, end : live[0]] = 0
            w, end = part.narrow(1, *live), sum(live)
            if not whole:
                torch.mm(dy_part.T, x.narrow(1, *live), out=w)
            masked_(w.narrow(1, *mixed), bits)
        part[:, end:] = 0
    return dw


def product_in_order(x, weight, bias, order, steps):
    """The same of the sorted degrees, for a block of rows at a time: x is sorted, and y is put back."""
    y, K, many = x.new_empty(len(x), len(weight)), x.shape[1], len(x) > order.block
    biases = [None] * len(steps) if bias is None else bias[order.j].split(order.side)
    shapes = _shapes(order, steps)
    memory = x.new_empty(_size(shapes) if many else order.side * K)
    slabs = _slabs(weight, order, steps, x.new_empty(order.side, K), _places(memory, shapes, many))
    slabs = [*slabs] if many else slabs  # a single block needs each once
    of_x, of_y = (a.new_empty(a[: order.block].shape) for a in (x, y))
    for x_block, y_block in zip(x.split(order.block), y.split(order.block), strict=True):
        sorted_x, sorted_y = of_x[: len(x_block)], of_y[: len(x_block)]
        torch.index_select(x_block, 1, order.k, out=sorted_x)
        for part, w, b in zip(sorted_y.split(order.side, 1), slabs, biases, strict=True):
            seen = sorted_x[:, : w.shape[1]]
            torch.mm(seen, w.T, out=part) if b is None else torch.addmm(b, seen, w.T, out=part)
        torch.index_select(sorted_y, 1, order.j_back, out=y_block)
    return y


def gradients_in_order(dy, x, weight, order, steps):
    """dx_nk = sum_j dy_nj (W o M)_jk, or None without W; dW_jk = M_jk sum_n dy_nj x_nk"""
    J, K, shapes = dy.shape[1], x.shape[1], _shapes(order, steps)
    dx, dw = None if weight is None else x.new_empty(len(x), K), x.new_empty(J, K)
    if len(x) <= order.block:  # each part of dW is put back while it is in the cache
        memory, part_of_w = x.new_empty(2, order.side, K)
        slabs = _slabs(weight, order, steps, memory, _places(part_of_w, shapes, False))
        sums = _sums(dy, x, dx, slabs, _places(memory, shapes, False), order, 0)
    else:  # dW is written last: until then its memory holds W
        slabs = [*_slabs(weight, order, steps, x.new_empty(order.side, K), _places(dw, shapes, True))]
        sums = [*_places(x.new_empty(_size(shapes)), shapes, True)]
        for n in range(0, len(x), order.block):
            block = slice(n, n + order.block)
            [*_sums(dy[block], x[block], None if dx is None else dx[block], slabs, sums, order, n)]
    back = x.new_zeros(order.side, K)
    for of_seen, j, seen in zip(sums, order.j.split(order.side), steps, strict=True):  # each sees more than the last
        back[: len(j)].scatter_(1, order.k[: of_seen.shape[1]].expand_as(of_seen), _masked_slab(of_seen, seen))
        dw.index_copy_(0, j, back[: len(j)])
    return dx, dw


def _sums(dy, x, dx, slabs, sums, order, n):
    """Write dx of the block of rows from n on; yield dW of some outputs at a time, to which they add what they give."""
    dy, x = dy.index_select(1, order.j), x.index_select(1, order.k)
    sorted_dx = torch.zeros_like(x)
    for part, w, dw in zip(dy.split(order.side, 1), slabs, sums, strict=True):
        k = dw.shape[1]
        if dx is not None:
            sorted_dx[:, :k].addmm_(part, w)
        yield dw.addmm_(part.T, x[:, :k], beta=int(n > 0))
    if dx is not None:
        torch.index_select(sorted_dx, 1, order.k_back, out=dx)


def _slabs(weight, order, steps, memory, places):
    """W o M of some sorted outputs at a time, and of the sorted inputs that they see; without W, the places alone"""
    for j, seen, w in zip(order.j.split(order.side), steps, places, strict=True):
        if weight is not None:
            of_all = torch.index_select(weight, 0, j, out=memory[: len(j)])
            _masked_slab(torch.index_select(of_all, 1, order.k[: w.shape[1]], out=w), seen)
        yield w


def _masked_slab(w, seen):
    for _, mixed, bits in seen:
        masked_(w.narrow(1, *mixed), bits)
    return w


def _shapes(order, steps):
    """Of some sorted outputs at a time: how many they are, and how many inputs they see, which are the first"""
    return [(len(j), sum(seen[0][0]) if seen else 0)
            for j, seen in zip(order.j.split(order.side), steps, strict=True)]


def _size(shapes):
    return sum(j * k for j, k in shapes)


def _places(memory, shapes, apart):
    """Matrices of these shapes in the memory, one after the other if apart, else each at its start"""
    start, memory = 0, memory.view(-1)
    for j, k in shapes:
        yield memory[start : start + j * k].view(j, k)
        start += j * k * apart


def order_of(N, *values):
    """What sorts the degrees of these values, or None if it is not worth it, as it is not for few rows"""
    order = _order(*values) if N >= FEW else None
    return order if order and order.block >= min(N, LEAST) else None


def _small(N, in_degree, out_degree):
    """Whether a product of N rows is, or its W thin, and its mask is kept: to compute it would take longer."""
    K, J = len(in_degree), len(out_degree)
    return J * K <= KEPT and (N * J * K <= SMALL or min(J, K) <= THIN)


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
    """The bits of the whole mask, (J, K), of at most KEPT weights"""
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
    """What sorts the degrees, or None if it would not make many more tiles dead, or take much memory.

    F.linear(x, M * W) and its gradients hold W o M beside what they return. Of many rows the live part of W is held
    here, and in the place of the dead one some outputs' part of W, or a block of rows; of few rows these two.
    """
    in_degree, out_degree = _tensors(in_values, out_values)
    K, J = len(in_degree), len(out_degree)
    side = max(SIDE, min(rows(J), J // 6 // SIDE * SIDE))
    k, j = in_degree.argsort(stable=True), out_degree.argsort(stable=True)
    dead = lambda *degrees: 1 - tiles_of_degrees(*degrees, strict, side)[0].float().mean().item()
    after = dead(in_degree[k], out_degree[j])
    spare = min(after, 0.5) * J * K
    if after - dead(in_degree, out_degree) <= SORTING or side * K > spare:
        return None
    return Order(k, j, k.argsort(), j.argsort(), side, min(BLOCK, int(spare / (2 * K + J))))


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
def _steps(in_values, out_values, strict, in_order, transposed, dtype, turned):
    """Of some outputs at a time, ((live, mixed, bits), ...): the spans of inputs that some of them see, the mixed ones
    of those, and their mask. In the order that sorts the degrees, if wanted; of the transposed mask, if wanted."""
    in_degree, out_degree = _tensors(in_values, out_values)
    if order := in_order and _order(in_values, out_values, strict):
        in_degree, out_degree = in_degree[order.k], out_degree[order.j]
    if transposed:
        in_degree, out_degree = ~out_degree, ~in_degree
    K, side = len(in_degree), order.side if order else rows(len(out_degree))
    gap = GAP if dtype.itemsize > 2 else K  # sums of 16 bits are rounded once
    each = spans(K, *tiles_of_degrees(in_degree, out_degree, strict, side), gap)
    bits = lambda j, live, mixed: _masked(in_degree.narrow(0, live[0] + mixed[0], mixed[1]), j, strict, dtype, turned)
    return tuple(tuple((live, mixed, bits(j, live, mixed)) for live, mixed in seen)
                 for j, seen in zip(out_degree.split(side), each, strict=False))
