"""What every model of levels asks of its data and of its noise, said in one way.   (N, *shape) of whole numbers 0 ... L-1"""

import math

import torch


def checked(x, shape, levels):
    """x (N, *shape), or flat, as (N, D). Its values are looked at on a CPU alone: a GPU would have to be waited for."""
    D = math.prod(shape)
    if x.dim() == 0 or math.prod(x.shape[1:]) != D:
        raise ValueError(f"x must have shape (N, {', '.join(map(str, shape))}), got {tuple(x.shape)}")
    if x.device.type == "cpu" and x.numel():
        low, high = x.min().item(), x.max().item()  # numbers of Python: uint8 knows no 256
        if not 0 <= low <= high < levels:
            raise ValueError(f"x must hold levels 0 ... {levels - 1}, got {low} ... {high}")
        if x.is_floating_point() and not torch.equal(x, x.floor()):
            raise ValueError(f"x must hold whole levels 0 ... {levels - 1}, got {x[x != x.floor()][0]}")
    return x.reshape(len(x), D)


def begun(n, D, u, x, known, like, dtype=torch.uint8):
    """Noise (n, D), drawn if there is none, and x (n, D), or zeros; the first `known` numbers in order are to be those of x."""
    u = torch.rand(n, D, device=like.device) if u is None else u
    if u.shape != (n, D):
        raise ValueError(f"u must have shape (n, D) = ({n}, {D}), got {tuple(u.shape)}")
    if not 0 <= known <= D or (known and x is None):
        raise ValueError(f"known must count numbers of x, 0 to {D}, got {known}" + (" and no x" if x is None else ""))
    if x is not None and math.prod(x.shape) != n * D:
        raise ValueError(f"x must hold n = {n} images of {D} numbers, got shape {tuple(x.shape)}")
    return u, torch.zeros(n, D, dtype=dtype, device=u.device) if x is None else x.reshape(n, D).to(dtype)


def ordered(order, D):
    """The pixel that comes first, second, ...; of "natural", "random" or the pixels in some order.   -> (D,)"""
    if order == "natural":
        return torch.arange(D)
    if order == "random":
        return torch.randperm(D)
    if isinstance(order, str) or sorted(order) != list(range(D)):
        raise ValueError(f"order must be 'natural', 'random' or the numbers 0 ... {D - 1} in some order, got {order!r}")
    return torch.tensor(order)
