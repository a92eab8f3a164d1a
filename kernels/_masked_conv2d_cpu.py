"""The masked convolution on CPU tensors, in PyTorch, with few of the dead taps or none.

The backend `cpu` of kernels/masked_conv2d.py. The live taps fill a rectangle of the filter without the rows below its
centre; or two rectangles, whose convolutions are added:

      t t t t t        cropped    one convolution; the dead taps in the centre's row are masked
      t t t t t        split      the rows above, and the centre's row up to its last live tap: no dead tap, but each
      t t t . .                   image is read or written twice. Worth it by the rule of `split`

A filter looks to one side, and PyTorch's convolution pads both alike. Columns are padded by the convolution. For rows,
either x gets those above by a copy, or y gets as many below, which a copy cuts off: the first where x has few channels,
the second where it has many, as to pad is to write twice. In a backward pass dy gets the rows below, for filters of
three rows alone: with more the convolution that gives dK would take twice as long. Both gradients come from one call,
which lays out x and dy once. Of MANY images a quarter is convolved at a time, but at least two, so that two threads
have work, and their dK are added: a call then holds less than a dense convolution, and takes half the time, most of
which were new pages of memory (64x64x48x48, 3x3, two threads: 30 ms forward instead of 51, 46 backward instead of 84).
Of fewer it would take longer, and a call holds two copies with the border more. Of FEW channels dx is a product of
matrices, whose columns are added in place.
"""

import functools
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ._bits import bits_of, masked, masked_
from ._live_taps import live_taps, mask, new_image

SPLIT = 14  # measured with 64 and 128 channels, 3x3 to 7x7
MANY = 2**25  # bytes of images: glibc takes so many from the system anew in each call, and gives them back
FEW = 4  # channels: a convolution computes 16 of dx at a time
COLUMNS = 2**19  # bytes of those of dx, added at a time
pad = torch.constant_pad_nd  # F.pad is Python around it
of_both = torch.ops.aten.convolution_backward.default._op  # the overload's own call is Python, too


class Part(NamedTuple):
    """A convolution with a rectangle of the filter."""

    rows: slice
    columns: slice
    sides: tuple  # what x gets (left, right, above, below), of a negative number it is cut; () for nothing
    padding: tuple  # (above and below, left and right), by the convolution
    below: int  # rows that y gets beyond x
    inside: list  # what cuts the sides from dx
    dead: tuple  # columns and rows of the filter around the rectangle
    bits: torch.Tensor | None  # of the live taps; None if all are


@functools.lru_cache(maxsize=128)
def parts(shape, kind, colours, dtype, backward=False):
    """The convolutions whose sum is the masked one, or its gradients"""
    O, C, kh, kw = shape
    ph, pw = kh // 2, kw // 2
    live = live_taps(1, kw, kind, colours)[1]  # in the centre's row
    of_row = max(live, 1)
    copied = pw if ph == 1 else 0  # columns beside x: PyTorch pads those of a single row slower than a copy does
    above = slice(0, ph), slice(0, kw), (copied, copied, ph, -1), (0, pw - copied), 0
    row = slice(ph, ph + 1), slice(0, of_row), (pw, of_row - 1 - pw, 0, 0) if pw else (), (0, 0), 0
    cropped = slice(0, ph + 1), slice(0, kw)
    if ph == 0:
        chosen = [row]
    elif live == 0:
        chosen = [above]
    elif dtype.itemsize > 2 and split(O, C, (ph + 1) * kw, kw - live):  # sums of 16 bits are rounded once
        chosen = [above, row]
    elif 4 * C > O and not (backward and ph > 1):
        chosen = [(*cropped, (), (ph, pw), ph)]
    else:
        chosen = [(*cropped, (0, 0, ph, 0), (0, pw), 0)]
    all_live = mask(*shape, kind, colours, "cpu")
    return tuple(Part(*one, [-side for side in one[2]], around(*one[:2], kh, kw),
                      of_live(all_live[:, :, *one[:2]], dtype)) for one in chosen)


def split(O, C, taps, dead):
    """Whether two convolutions take less than one of so many taps: for dead taps that are many, a large share of the
    taps, and between many channels."""
    return dead * dead / taps * O * C / (O + C) >= SPLIT


def around(rows, columns, kh, kw):
    sides = columns.start, kw - columns.stop, rows.start, kh - rows.stop
    return sides if any(sides) else ()


def of_live(live, dtype):
    return None if live.all() else bits_of(live, dtype)


def in_turn(shape, O, dtype):
    """The images that are convolved together: slices of the batch, or None for all"""
    N, C, H, W = shape
    step = max(2, N // 4)
    if N <= step or N * max(C, O) * H * W * dtype.itemsize < MANY:
        return None
    return [slice(n, n + step) for n in range(0, N, step)]


@functools.lru_cache(maxsize=128)
def way(shape, of_weight, kind, colours, dtype, backward=False):
    """-> `in_turn`, `parts`: one call, for each call of Python takes 2 us in a step of training"""
    return in_turn(shape, of_weight[0], dtype), parts(of_weight, kind, colours, dtype, backward)


def cpu(x, weight, bias, kind, colours):
    images, (first, *more) = way(x.shape, weight.shape, kind, colours, weight.dtype)
    if images is None:
        y = convolved(x, weight, bias, first)
        for part in more:
            y += convolved(x, weight, None, part)
        return y
    y = new_image(x, len(weight))
    for n in images:
        y[n] = convolved(x[n], weight, bias, first)
        for part in more:
            y[n] += convolved(x[n], weight, None, part)
    return y


def convolved(x, weight, bias, part):
    y = F.conv2d(pad(x, part.sides) if part.sides else x, taps(weight, part), bias, padding=part.padding)
    return y[:, :, :x.shape[2]] if part.below else y


def cpu_turned(dy, weight, kind, colours):
    x = dy.new_empty(len(dy), weight.shape[1], *dy.shape[2:])  # its shape counts
    return gradients(dy, x, weight, kind, colours, (True, False))[0]


def cpu_dw(dy, x, kh, kw, kind, colours):
    weight = x.new_empty(dy.shape[1], x.shape[1], kh, kw)  # its shape counts
    return gradients(dy, x, weight, kind, colours, (False, True))[1]


def cpu_both(dy, x, weight, kind, colours):
    return gradients(dy, x, weight, kind, colours, (True, True))


def gradients(dy, x, weight, kind, colours, wanted):
    """-> dx, dK; what is not wanted as None"""
    images, all_parts = way(x.shape, weight.shape, kind, colours, weight.dtype, True)
    if images is None or x.shape[1] <= FEW or x.dtype.itemsize <= 2:  # sums of 16 bits are rounded once
        return gradients_at_once(dy, x, weight, all_parts, wanted)
    dw = None
    dx = new_image(dy, x.shape[1]) if wanted[0] else None
    for n in images:
        dx_n, dw_n = gradients_at_once(dy[n], x[n], weight, all_parts, wanted)
        if wanted[0]:
            dx[n] = dx_n
        if wanted[1]:
            dw = dw_n if dw is None else dw.add_(dw_n)
    return dx, dw


def by_columns(dy, x, k, part):
    """dx of some images at a time, whose columns take taps times as much memory as they do, and that twice"""
    dx, bytes = x.new_empty(x.shape), 2 * k[0].numel() * dy[:1, 0].nbytes
    step = max(1, COLUMNS // max(1, bytes))
    for n in (slice(n, n + step) for n in range(0, len(x), step)):
        columns = k.flatten(1).T @ dy[n].flatten(2)  # (C taps, O) (N, O, H W)
        dx[n] = F.fold(columns, x.shape[2:], k.shape[2:], padding=part.padding)
    return dx


def gradients_at_once(dy, x, weight, all_parts, wanted):
    dx = dw = None
    by_product = wanted[0] and x.shape[1] <= FEW and x.dtype.itemsize > 2
    for part in all_parts:
        k, x_part = taps(weight, part), pad(x, part.sides) if part.sides else x
        dy_part = pad(dy, (0, 0, 0, part.below)) if part.below else dy
        dx_part, dk, _ = of_both(dy_part, x_part, k, None, (1, 1), part.padding, (1, 1), False, (0, 0), 1,
                                 (wanted[0] and not by_product, wanted[1], False))
        if by_product:
            dx_part = by_columns(dy_part, x_part, k, part)
        if wanted[0]:
            dx_part = pad(dx_part, part.inside) if part.sides else dx_part
            dx = dx_part if dx is None else dx.add_(dx_part)
        if wanted[1]:
            dk = dk if part.bits is None else masked_(dk, part.bits)
            if dw is None:
                dw = pad(dk, part.dead) if part.dead else dk
            else:
                dw[:, :, part.rows, part.columns] = dk
    return dx, dw


def taps(weight, part):
    k = weight[:, :, part.rows, part.columns]
    return k.contiguous() if part.bits is None else masked(k, part.bits)
