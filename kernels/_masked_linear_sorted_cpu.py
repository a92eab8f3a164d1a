"""The masked product on CPU tensors, for degrees in any order: sorted, with the rows and columns of W, and of x.

For kernels/_masked_linear_cpu.py, which says when that pays. Of sorted degrees each output sees the first inputs alone.
One block of rows of x after the other is sorted, and its results are put back in the order given.
"""

from typing import NamedTuple

import torch

from ._bits import masked_


class Order(NamedTuple):
    k: torch.Tensor  # that sorts the inputs
    j: torch.Tensor  # the outputs
    k_back: torch.Tensor  # and back
    j_back: torch.Tensor
    side: int  # how many outputs at a time
    block: int  # and rows of x


def product_in_order(x, weight, bias, order, steps):
    """y_nj = sum_k x_nk (W o M)_jk + b_j"""
    y, K, many = x.new_empty(len(x), len(weight)), x.shape[1], len(x) > order.block
    biases = [None] * len(steps) if bias is None else bias[order.j].split(order.side)
    shapes = _shapes(order, steps)
    memory = x.new_empty(_size(shapes) if many else order.side * K)
    slabs = _slabs(weight, order, steps, x.new_empty(order.side, K), _places(memory, shapes, many))
    slabs = [*slabs] if many else slabs  # a single block needs each once
    of_x, of_y = (a.new_empty(a[: order.block].shape) for a in (x, y))
    for x_block, y_block in zip(x.split(order.block), y.split(order.block), strict=True):
        sorted_x, sorted_y = of_x[: len(x_block)], of_y[: len(x_block)]
        _columns(x_block, order.k, sorted_x)
        for part, w, b in zip(sorted_y.split(order.side, 1), slabs, biases, strict=True):
            seen = sorted_x[:, : w.shape[1]]
            torch.mm(seen, w.T, out=part) if b is None else torch.addmm(b, seen, w.T, out=part)
        _columns(sorted_y, order.j_back, y_block)
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


def _columns(a, k, out):
    """a_nk of these k, by all threads: index_select is faster with one, and uses no other."""
    if torch.get_num_threads() == 1:
        torch.index_select(a, 1, k, out=out)
    else:
        torch.gather(a, 1, k.expand(len(a), -1), out=out)
