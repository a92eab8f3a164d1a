"""Checks of levels x, classes y, codes z, noise u and orders of pixels that the models share.

x (N, *shape) are whole numbers 0 ... L-1.
"""

import math

import torch

from genmini.settings import whole


def checked(x, shape, levels):
    """x (N, *shape), or flat, -> (N, D). Its values are checked on a CPU only: reading them on a GPU would make the
    host wait for it."""
    D = math.prod(shape)
    if not isinstance(x, torch.Tensor) or x.is_complex():
        raise ValueError(f"x must be a tensor of real numbers, got {_kind(x)}")
    if x.dim() == 0 or math.prod(x.shape[1:]) != D:
        raise ValueError(f"x must have shape (N, {', '.join(map(str, shape))}), got {tuple(x.shape)}")
    if levels is not None and readable(x):
        low, high = x.min().item(), x.max().item()  # Python numbers: a uint8 tensor cannot be compared with 256
        if not 0 <= low <= high < levels:
            raise ValueError(f"x must hold levels 0 ... {levels - 1}, got {low} ... {high}")
        if x.is_floating_point() and not torch.equal(x, x.floor()):
            raise ValueError(f"x must hold whole levels 0 ... {levels - 1}, got {x[x != x.floor()][0]}")
    return x.reshape(len(x), D)


def checked_classes(y, n, classes, needed, device):
    """A class for all, or one each -> (n,) int64 on the device; None stays None, unless it is needed."""
    if y is None:
        if needed and classes:
            raise ValueError(f"y is missing: a class 0 ... {classes - 1} for all, or one each")
        return None
    if not classes:
        raise ValueError("y is given, and this model was made without classes: leave it out")
    y = torch.as_tensor(y)
    if y.is_floating_point() or y.dtype == torch.bool or y.shape not in ((), (n,)):
        raise ValueError(f"y must be one class, or {n} classes, whole numbers; got {tuple(y.shape)} of {y.dtype}")
    if readable(y) and not 0 <= y.min() <= y.max() < classes:
        raise ValueError(f"y must hold classes 0 ... {classes - 1}, got {y.min()} ... {y.max()}")
    return y.to(device).long().expand(n)


def checked_codes(z, d):
    """z (N, d), as it is."""
    if not isinstance(z, torch.Tensor) or z.is_complex():
        raise ValueError(f"z must be a tensor of real numbers, got {_kind(z)}")
    if z.dim() != 2 or z.shape[1] != d:
        raise ValueError(f"z must have shape (N, {d}), got {tuple(z.shape)}")
    return z


def noise_and_start(n, D, u, x, known, device, dtype=torch.uint8):
    """-> the noise u (n, D), drawn on the device if it is None, and x (n, D), zeros if it is None.

    The sampler keeps the first `known` numbers of x, in the model's order.
    """
    u = noise(u, n, D, device)
    whole(0, known=known)
    if not 0 <= known <= D or (known and x is None):
        raise ValueError(f"known must count numbers of x, 0 to {D}, got {known}" + (" and no x" if x is None else ""))
    if x is not None and math.prod(x.shape) != n * D:
        raise ValueError(f"x must hold n = {n} images of {D} numbers, got shape {tuple(x.shape)}")
    return u, torch.zeros(n, D, dtype=dtype, device=u.device) if x is None else x.reshape(n, D).to(dtype)


def noise(u, n, D, device):
    """Uniform noise u (n, D), drawn if it is None. Like those of x, its values are checked on a CPU only."""
    if u is None:
        return torch.rand(n, D, device=device)
    if not isinstance(u, torch.Tensor) or not u.is_floating_point():
        raise ValueError(f"u must be a floating tensor of shape ({n}, {D}), got {_kind(u)}")
    if u.shape != (n, D):
        raise ValueError(f"u must have shape ({n}, {D}), got {tuple(u.shape)}")
    if readable(u):
        low, high = u.min().item(), u.max().item()  # both nan if one of them is
        if not 0 <= low <= high <= 1:
            raise ValueError(f"u must hold numbers from 0 to 1, got {low} ... {high}")
    return u


def readable(values):
    """Whether there are values to check: on a CPU, neither in a graph that torch.compile or torch.export traces, nor in
    a transform of torch.func."""
    traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    return values.device.type == "cpu" and values.numel() > 0 and not traced


def _kind(value):
    return value.dtype if isinstance(value, torch.Tensor) else type(value).__name__


def steps(x, levels, dtype):
    """(N, D) -> (N, D (L-1)): the bits [x_d >= 1] ... [x_d >= L-1], for each d side by side"""
    if levels > 2:
        x = (x[..., None] >= torch.arange(1, levels, device=x.device)).flatten(1)
    return x.to(dtype)


def ordered(order, D):
    """The pixel that comes first, second, ..., (D,), of "natural", "random" or a list of all pixels."""
    if order == "natural":
        return torch.arange(D)
    if order == "random":
        return torch.randperm(D)
    if isinstance(order, str) or sorted(order) != list(range(D)):
        raise ValueError(f"order must be 'natural', 'random' or the numbers 0 ... {D - 1} in some order, got {order!r}")
    return torch.tensor(order)
