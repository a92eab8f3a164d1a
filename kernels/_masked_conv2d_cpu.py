"""The masked convolution on CPU tensors, in PyTorch, without the rows of the filter below its centre.

The backend `cpu` of kernels/masked_conv2d.py. 6 of 9 taps stay, 15 of 25, 28 of 49; the few dead ones among them, in
the centre's own row, are masked. PyTorch could leave out all dead taps by two convolutions, one for the rows above and
one for the row itself: 3 w P O bytes more, to add the halves.
"""

import torch.nn.functional as F
from torch.nn.grad import conv2d_weight

from ._live_taps import mask


def cropped(kh, kw):
    """The rows and columns of the filter with the live taps, and the padding (left, right, top, bottom) to x's size."""
    ph, pw = kh // 2, kw // 2
    return ((slice(0, ph + 1), slice(0, kw), (pw, pw, ph, 0)) if kh > 1 else
            (slice(0, 1), slice(0, pw + 1), (pw, 0, 0, 0)))


def cropped_filter(weight, kind, colours):
    rows, columns, padding = cropped(*weight.shape[2:])
    dead = ~mask(*weight.shape, kind, colours, weight.device)[:, :, rows, columns]
    return weight[:, :, rows, columns].masked_fill(dead, 0), padding


def cpu(x, weight, bias, kind, colours):
    k, padding = cropped_filter(weight, kind, colours)
    return F.conv2d(F.pad(x, padding), k, bias)


def cpu_turned(dy, weight, kind, colours):
    k, padding = cropped_filter(weight, kind, colours)
    return F.pad(F.conv_transpose2d(dy, k), [-side for side in padding])


def cpu_dw(dy, x, kh, kw, kind, colours):
    dw = x.new_zeros(dy.shape[1], x.shape[1], kh, kw)
    rows, columns, padding = cropped(kh, kw)
    dw[:, :, rows, columns] = conv2d_weight(F.pad(x, padding), dw[:, :, rows, columns].shape, dy)
    return dw.masked_fill_(~mask(*dw.shape, kind, colours, x.device), 0)
