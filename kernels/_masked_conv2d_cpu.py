"""The masked convolution on CPU tensors, in PyTorch, without the rows of the filter below its centre.

The backend `cpu` of kernels/masked_conv2d.py. 6 of 9 taps stay, 15 of 25, 28 of 49; the few dead ones among them, in
the centre's own row, are masked. PyTorch could leave out all dead taps by two convolutions, one for the rows above and
one for the row itself: 3 w P O bytes more, to add the halves.

A cropped filter looks to one side, and PyTorch's convolution pads both alike. Either x gets its border by a copy, which
is cheap where it has few channels or the filter one row; or y gets ph rows below the image, which a copy cuts off. In a
backward pass these rows cost two products, so there only filters of three rows have them. Both gradients come from one
call, which lays out x and dy once.
"""

import functools

import torch
import torch.nn.functional as F
from torch.nn.grad import conv2d_weight

from ._bits import bits_of, masked
from ._live_taps import mask


def cropped(kh, kw):
    """The rows and columns of the filter with the live taps, and the padding (left, right, top, bottom) to x's size."""
    ph, pw = kh // 2, kw // 2
    return ((slice(0, ph + 1), slice(0, kw), (pw, pw, ph, 0)) if kh > 1 else
            (slice(0, 1), slice(0, pw + 1), (pw, 0, 0, 0)))


@functools.lru_cache(maxsize=64)
def cropped_bits(shape, kind, colours, dtype):
    """Of the live taps among the rows and columns that `cropped` leaves; None if all of these live"""
    rows, columns, _ = cropped(*shape[2:])
    live = mask(*shape, kind, colours, "cpu")[:, :, rows, columns]
    return None if live.all() else bits_of(live, dtype)


def cropped_filter(weight, kind, colours):
    rows, columns, padding = cropped(*weight.shape[2:])
    k, bits = weight[:, :, rows, columns], cropped_bits(weight.shape, kind, colours, weight.dtype)
    return k.contiguous() if bits is None else masked(k, bits), padding


def small(O, C, kh, kw):
    """Whether a copy of x with its border costs little: beside y, or because it is of few columns"""
    return 4 * C <= O or kh == 1


def cpu(x, weight, bias, kind, colours):
    (kh, kw), (H, W) = weight.shape[2:], x.shape[2:]
    k, padding = cropped_filter(weight, kind, colours)
    if small(*weight.shape):
        return F.conv2d(F.pad(x, padding) if any(padding) else x, k, bias)
    return F.conv2d(x, k, bias, padding=(kh // 2, kw // 2))[:, :, :H, :W]


def cpu_turned(dy, weight, kind, colours):
    k, padding = cropped_filter(weight, kind, colours)
    return F.pad(F.conv_transpose2d(dy, k), [-side for side in padding])


def cpu_dw(dy, x, kh, kw, kind, colours):
    shape = dy.shape[1], x.shape[1], kh, kw
    rows, columns, padding = cropped(kh, kw)
    dk = conv2d_weight(F.pad(x, padding), (*shape[:2], rows.stop, columns.stop), dy)
    return whole(dk, shape, kind, colours)


def whole(dk, shape, kind, colours):
    """The gradient of a cropped filter, with 0 for all dead taps"""
    rows, columns, _ = cropped(*shape[2:])
    bits = cropped_bits(shape, kind, colours, dk.dtype)
    if dk.shape == shape and bits is None:
        return dk
    dw = dk.new_zeros(shape)
    dw[:, :, rows, columns] = dk if bits is None else masked(dk.contiguous(), bits)
    return dw


def cpu_both(dy, x, weight, kind, colours):
    ph, pw = (side // 2 for side in weight.shape[2:])
    k, padding = cropped_filter(weight, kind, colours)
    gradients = lambda dy, x, sides: torch.ops.aten.convolution_backward(
        dy, x, k, None, (1, 1), sides, (1, 1), False, (0, 0), 1, (True, True, False))[:2]
    if not any(padding):
        dx, dk = gradients(dy, x, (0, 0))
    elif small(*weight.shape) or ph > 1:
        dx, dk = gradients(dy, F.pad(x, padding), (0, 0))
        dx = F.pad(dx, [-side for side in padding])
    else:
        dx, dk = gradients(F.pad(dy, (0, 0, 0, ph)), x, (ph, pw))
    return dx, whole(dk, weight.shape, kind, colours)
