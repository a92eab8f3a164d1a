"""Which taps of a masked filter are live, the product of a tile with one of them, the filter without the others, and
images that are laid out like another.

For kernels/masked_conv2d.py and its backend `cpu`.
"""

import torch

from ._triton import tl, triton


def centre_mask(O, C, kind, colours, device):  # -> (O, C)
    out, in_ = (torch.arange(channels, device=device) * colours // channels for channels in (O, C))
    return out[:, None] > in_ if kind == "A" else out[:, None] >= in_


@triton.jit
def may_see(out, in_, OUT, IN, COLOURS, KIND_A: tl.constexpr, TURNED: tl.constexpr):
    """Whether output channel `out` sees input channel `in_` at the centre; turned, in_ is an output of the filter."""
    out_colour, in_colour = out.to(tl.int64) * COLOURS // OUT, in_.to(tl.int64) * COLOURS // IN
    if TURNED:
        return in_colour > out_colour if KIND_A else in_colour >= out_colour
    else:
        return out_colour > in_colour if KIND_A else out_colour >= in_colour


@triton.jit
def pixel(p, H, W):
    return p // (H * W), p // W % H, p % W  # n, h, w


@triton.jit
def tap_tile(y, x_ptrs, k_ptrs, t, c_start, h, w, p_ok, o, C, O, H, W, kh, kw, x_c, x_h, x_w, k_t, k_c, COLOURS,
             MASKED: tl.constexpr, KIND_A: tl.constexpr, TURNED: tl.constexpr, PRECISION: tl.constexpr,
             BC: tl.constexpr):
    """y_po += sum_c x_p'c K_oct for BC channels c of tap t, which reads the pixel p' beside p; k is (BC, BO)."""
    dh, dw = t // kw - kh // 2, t % kw - kw // 2
    if TURNED:
        dh, dw = -dh, -dw
    c = c_start + tl.arange(0, BC)
    x_ok = p_ok & (h + dh >= 0) & (h + dh < H) & (w + dw >= 0) & (w + dw < W)
    x_ptrs += dh.to(tl.int64) * x_h + dw.to(tl.int64) * x_w
    x = tl.load(x_ptrs[:, None] + c.to(tl.int64)[None, :] * x_c, x_ok[:, None] & (c < C)[None, :], other=0)  # (BP, BC)
    k_ptrs += t.to(tl.int64) * k_t
    k = tl.load(k_ptrs[None, :] + c.to(tl.int64)[:, None] * k_c, (c < C)[:, None] & (o < O)[None, :], other=0)
    if MASKED:
        m = kh * kw // 2
        k = tl.where((t < m) | ((t == m) & may_see(o[None, :], c[:, None], O, C, COLOURS, KIND_A, TURNED)), k, 0)
    return tl.dot(x, k, y, input_precision=PRECISION, out_dtype=y.dtype)


def mask(O, C, kh, kw, kind, colours, device=None):  # -> (O, C, kh, kw)
    m = kh * kw // 2
    live = (torch.arange(kh * kw, device=device) < m).repeat(O, C, 1)
    live[..., m] = centre_mask(O, C, kind, colours, device)
    return live.view(O, C, kh, kw)


def masked(weight, kind, colours):
    """The filter with its dead taps as 0"""
    return weight.masked_fill(~mask(*weight.shape, kind, colours, weight.device), 0)


def live_taps(kh, kw, kind, colours):
    """The taps before the centre, and how many are live in all: T = m, or m + 1 if some weight of the centre lives."""
    m = kh * kw // 2
    return m, m + (kind == "B" or colours > 1)


def packed(weight, kind, colours, turned):
    """The live taps (o, c, t), in memory t, o, c (turned: t, c, o), with the centre masked; and how many they are."""
    O, C, kh, kw = weight.shape
    m, T = live_taps(kh, kw, kind, colours)
    order = (2, 1, 0) if turned else (2, 0, 1)
    k = weight.reshape(O, C, kh * kw)[..., :T].permute(order).clone(memory_format=torch.contiguous_format).permute(
        order if turned else (1, 2, 0))
    if colours > 1:
        k[..., m].masked_fill_(~centre_mask(O, C, kind, colours, k.device), 0)
    return k, T


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)


def new_image(x, channels):
    """An empty image in the memory order of x: channels last, or channels first."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    order = torch.channels_last if last else torch.contiguous_format
    return torch.empty((x.shape[0], channels, *x.shape[2:]), dtype=x.dtype, device=x.device, memory_format=order)
