"""The masked convolution on CPU tensors, in PyTorch, without the rows of the filter below its centre.

The backend `cpu` of kernels/masked_conv2d.py. 6 of 9 taps stay, 15 of 25, 28 of 49; the few dead ones among them, in
the centre's own row, are masked. PyTorch could leave out all dead taps by two convolutions, one for the rows above and
one for the row itself: 3 w P O bytes more, to add the halves.
"""

import functools

import torch.nn.functional as F
from torch.nn.grad import conv2d_weight

from ._bits import bits_of, masked, masked_
from ._live_taps import mask


def cropped(kh, kw):
    """The rows and columns of the filter with the live taps, and the padding (left, right, top, bottom) to x's size."""
    ph, pw = kh // 2, kw // 2
    return ((slice(0, ph + 1), slice(0, kw), (pw, pw, ph, 0)) if kh > 1 else
            (slice(0, 1), slice(0, pw + 1), (pw, 0, 0, 0)))


@functools.lru_cache(maxsize=64)
def cropped_bits(shape, kind, colours, dtype):
    """Of the live taps among the rows and columns that `cropped` leaves"""
    rows, columns, _ = cropped(*shape[2:])
    return bits_of(mask(*shape, kind, colours, "cpu")[:, :, rows, columns], dtype)


def cropped_filter(weight, kind, colours):
    rows, columns, padding = cropped(*weight.shape[2:])
    return masked(weight[:, :, rows, columns], cropped_bits(weight.shape, kind, colours, weight.dtype)), padding


def cpu(x, weight, bias, kind, colours):
    k, padding = cropped_filter(weight, kind, colours)
    return F.conv2d(F.pad(x, padding), k, bias)


def cpu_turned(dy, weight, kind, colours):
    k, padding = cropped_filter(weight, kind, colours)
    return F.pad(F.conv_transpose2d(dy, k), [-side for side in padding])


def cpu_dw(dy, x, kh, kw, kind, colours):
    dw = x.new_zeros(dy.shape[1], x.shape[1], kh, kw)
    rows, columns, padding = cropped(kh, kw)
    live = dw[:, :, rows, columns]
    live.copy_(conv2d_weight(F.pad(x, padding), live.shape, dy))
    masked_(live, cropped_bits(dw.shape, kind, colours, dw.dtype))
    return dw
