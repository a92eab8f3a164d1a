"""The masked product on CPU tensors, in PyTorch, without the dead tiles of W: half the time for sorted degrees.

The backend `cpu` of kernels/masked_linear.py. Of some outputs at a time (`rows`) only the spans of inputs that one of
them sees are multiplied (kernels/_spans.py). Degrees in another order may leave few tiles dead: then they are sorted
(kernels/_masked_linear_sorted_cpu.py), but not for FEW rows of x, or where the parts of the product are LIGHT: that
takes longer than to multiply all of W. A small product, or one of a thin W or of few dead tiles, is not worth cutting:
it takes the whole mask, up to KEPT. What depends on the degrees alone is computed once for their values, and kept:
masks of the last degrees, as many as 256 MiB hold.
"""

import functools
import threading

import torch
import torch.nn.functional as F

from ._bits import bits_of, masked, masked_
from ._masked_linear_sorted_cpu import Order, gradients_in_order, product_in_order
from ._spans import GAP, ROWS, SIDE, spans, tiles_of_degrees

SMALL = 2**23  # multiplications of a product that is not cut
FEW = 48  # rows of x: to sort W takes the time of half their product
DW, TURNED = 2, 6  # times as many rows, if dW alone is wanted, or W lies transposed
BLOCK, LEAST = 256, 64  # rows of x: sorted, so many stay in a cache with what they give; fewer make too many calls
THIN = 128  # inputs or outputs: of so few the dead half takes less time than to cut or to sort
KEPT = 2**20  # weights whose whole mask is kept: 64 masks of float32 are at most 256 MiB
SORTING = 0.15  # of the weights: to sort is worth it if so many more are dead then, and to cut if so many are
LIGHT = 5 * 2**20  # multiplications of a part of a sorted product, for each thread: calls of PyTorch take longer


def rows(J):
    """How many outputs are computed at a time. Of many outputs twice as many: half the calls of PyTorch, while the dead
    part that is multiplied stays a small share."""
    return ROWS if J < 16 * ROWS else 2 * ROWS


def by_tiles(x, weight, bias, in_degree, out_degree, strict):  # (N, K), (J, K), (J) -> (N, J)
    dtype, turned = _layout(weight)
    whole, order, values = _way(x.shape[0], in_degree, out_degree, strict, TURNED if turned else 1)
    if whole:
        return F.linear(x, masked(weight, _bits(*values, dtype, turned)), bias)
    if order:
        return product_in_order(x, weight, bias, order, _steps(*values, True, False, dtype, False))
    return product(x, weight, bias, _steps(*values, False, False, dtype, turned))


def dw_by_tiles(dy, x, in_degree, out_degree, strict):  # (N, J), (N, K) -> (J, K)
    whole, order, values = _way(x.shape[0], in_degree, out_degree, strict, DW if x.itemsize > 2 else None)
    if whole:
        return masked_(dy.T.mm(x), _bits(*values, x.dtype, False))
    steps = _steps(*values, order is not None, False, x.dtype, False)
    return gradients_in_order(dy, x, None, order, steps)[1] if order else outer(dy, x, steps)


def both_by_tiles(dy, x, weight, in_degree, out_degree, strict):  # -> (N, K), (J, K)
    whole, order, values = _way(x.shape[0], in_degree, out_degree, strict, 1 if x.itemsize > 2 else None)
    if whole:
        bits = _bits(*values, x.dtype, False)
        return dy.mm(masked(weight, bits)), masked_(dy.T.mm(x), bits)
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
        pieces = (piece for live_mixed_bits in seen for piece in _pieces(x, weights, *live_mixed_bits))
        for i, (x_seen, w) in enumerate(pieces):
            if i:
                part.addmm_(x_seen, w.T)
            elif bias is None:
                torch.mm(x_seen, w.T, out=part)
            else:
                torch.addmm(b, x_seen, w.T, out=part)
        if not seen:
            part.zero_() if bias is None else part.copy_(b)
    return y


def _pieces(x, weights, live, mixed, bits):
    """Of a live span, the inputs and W o M: a copy of W only where some outputs see what others do not. Sums of 16 bits
    are rounded once: they get one piece."""
    inside = lambda start, length: (x.narrow(1, live[0] + start, length), weights.narrow(1, live[0] + start, length))
    if x.itemsize == 2:
        x_seen, w = inside(0, live[1])
        masked_((w := w.clone()).narrow(1, *mixed), bits)
        yield x_seen, w
        return
    if mixed[1]:
        x_seen, w = inside(*mixed)
        yield x_seen, masked(w, bits)
    for start, end in ((0, mixed[0]), (sum(mixed), live[1])):
        if start < end:
            yield inside(start, end - start)


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


def _way(N, in_degree, out_degree, strict, times):
    """Whether N rows are multiplied by all of W at once; if not, what sorts the degrees, or None; and their values.

    To sort pays for `times` the rows of a forward pass, and never if that is None: sums of 16 bits are rounded once.
    """
    values = *_values(in_degree, out_degree), strict
    (K,), (J,) = in_degree.shape, out_degree.shape
    if J * K <= KEPT and (N * J * K <= SMALL or min(J, K) <= THIN):  # to compute the mask would take longer
        return True, None, values
    order = order_of(N // times, *values) if times else None
    return order is None and J * K <= KEPT and _full(*values), order, values


def order_of(N, *values):
    """What sorts the degrees of these values, or None if it is not worth it, as it is not for few rows"""
    order = _order(*values) if N >= FEW else None
    if order is None or order.block < min(N, LEAST):
        return None
    K = len(values[0]) // 8
    return order if min(N, order.block) * order.side * K > LIGHT * torch.get_num_threads() else None


@functools.lru_cache(maxsize=64)
def _full(in_values, out_values, strict):
    """Whether so few tiles are dead that not to cut takes less time"""
    return _dead(*_tensors(in_values, out_values), strict) <= SORTING


def _dead(in_degree, out_degree, strict, side=ROWS):
    """The share of the tiles"""
    return 1 - tiles_of_degrees(in_degree, out_degree, strict, side)[0].float().mean().item()


def _layout(weight):
    """Its dtype, and whether it is transposed in memory: bits in the same layout are read side by side."""
    return weight.dtype, weight.stride(0) < weight.stride(1)


def _values(in_degree, out_degree):
    """What a cache can compare: bytes."""
    return in_degree.numpy().tobytes(), out_degree.numpy().tobytes()


def _tensors(*values):
    return [torch.frombuffer(bytearray(v), dtype=torch.int64) if v else torch.empty(0, dtype=torch.int64)
            for v in values]


@functools.lru_cache(maxsize=64)
def _bits(in_values, out_values, strict, dtype, turned):
    """Of the whole mask, (J, K), of at most KEPT weights"""
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
    after = _dead(in_degree[k], out_degree[j], strict, side)
    spare = min(after, 0.5) * J * K
    if after - _dead(in_degree, out_degree, strict, side) <= SORTING or side * K > spare:
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
