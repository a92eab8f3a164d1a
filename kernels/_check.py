"""Checks of arguments, and the forms in which rooms take them.

A message names the argument, what it takes and what it got. TypeError is for kinds and dtypes, ValueError for values
and shapes.
"""

import math
import os
from contextlib import nullcontext

import torch

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
NUMBERS = (*FLOATS, *INTEGERS, torch.bool)


def names(items):
    items = [str(item).replace("torch.", "") for item in items]
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " or " + items[-1]


def tensors(dtypes=FLOATS, **named):
    """Each is a tensor of one of these dtypes."""
    for name, tensor in named.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
        if tensor.dtype not in dtypes:
            raise TypeError(f"{name} must be of dtype {names(dtypes)}, got {names([tensor.dtype])}")
        if tensor.layout != torch.strided:
            raise TypeError(f"{name} must be a dense tensor, got layout {tensor.layout}")


def one_device(**named):
    like = None
    for name, tensor in named.items():
        if like is None:
            first, like = name, tensor
        elif tensor is not None and tensor.device != like.device:
            raise ValueError(f"{name} must be on the device of {first}, {like.device}, got {tensor.device}")


def one_dtype(**named):
    like = None
    for name, tensor in named.items():
        if like is None:
            first, like = name, tensor
        elif tensor is not None and tensor.dtype != like.dtype:
            wanted, got = names([like.dtype]), names([tensor.dtype])
            raise TypeError(f"{name} must have the dtype of {first}, {wanted}, got {got}")


def lists(**named):
    """Each is a list, a tuple or an nn.ParameterList."""
    for name, value in named.items():
        if not isinstance(value, list | tuple | torch.nn.ParameterList):
            raise TypeError(f"{name} must be a list or a tuple, got {type(value).__name__}")


def shape(name, tensor, wanted, meaning):
    """The tensor, if it is given, has exactly this shape; `meaning` spells it, as in "(O, I) with I = 3 of x"."""
    if tensor is not None and tuple(tensor.shape) != tuple(wanted):
        raise ValueError(f"{name} must have shape {meaning} = {tuple(wanted)}, got {tuple(tensor.shape)}")


def at_least(name, tensor, count, meaning):
    if tensor.dim() < count:
        raise ValueError(f"{name} must have shape {meaning}, got {tuple(tensor.shape)}")


def dimensions(name, tensor, count, meaning):
    if tensor.dim() != count:
        raise ValueError(f"{name} must have shape {meaning}, got {tuple(tensor.shape)}")


def vectors_and_codes(z, codebook):
    """z (..., D) and codebook (K, D), K and D at least 1; under autocast in float32."""
    tensors(z=z, codebook=codebook)
    at_least("z", z, 1, "(..., D)")
    if codebook.dim() != 2 or not codebook.numel() or codebook.shape[1] != z.shape[-1]:
        wanted = f"(K, D) with D = {z.shape[-1]} of z, K and D at least 1"
        raise ValueError(f"codebook must have shape {wanted}, got {tuple(codebook.shape)}")
    one_device(z=z, codebook=codebook)
    return float32_under_autocast(z, codebook)


def whole(name, value, least, most, meaning):
    """An integer within bounds; `meaning` spells them, as in "from 1 to the number of channels"."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be {meaning}, {least} to {most}, got {value}")


def number(name, value, least=-math.inf, most=math.inf):
    """A finite int or float from least to most."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not -math.inf < value < math.inf:  # torch.compile cannot trace math.isfinite
        raise ValueError(f"{name} must be finite, got {value}")
    if not least <= value <= most:
        bounds = "not be negative" if (least, most) == (0, math.inf) else f"lie in {least} to {most}"
        raise ValueError(f"{name} must {bounds}, got {value}")


def flag(name, value):
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def one_of(name, value, options):
    if not isinstance(value, str | int | torch.SymInt):
        raise TypeError(f"{name} must be {names([repr(option) for option in options])}, got {type(value).__name__}")
    if value not in options:
        raise ValueError(f"{name} must be {names([repr(option) for option in options])}, got {value!r}")


def values(tensor):
    """Whether to check the values of this tensor: always on a CPU; on a GPU, which then waits, if GENMINI_CHECK=1."""
    return tensor.device.type == "cpu" or (tensor.device.type == "cuda" and os.environ.get("GENMINI_CHECK") == "1")


def x_to_complete(u, x, known, dtypes, dtype, converted):
    """The x that a sampler with noise u (N, D) completes: converted(x), which has this dtype, or zeros without an x."""
    tensors(u=u)
    dimensions("u", u, 2, "(N, D)")
    whole("known", known, 0, u.shape[1], "from 0 to the count of numbers")
    if x is None and known:
        raise ValueError(f"known = {known} needs x, which holds the known numbers, and x is None")
    if x is None:
        return torch.zeros(u.shape, dtype=dtype, device=u.device)
    tensors(dtypes, x=x)
    shape("x", x, u.shape, "that of u")
    one_device(u=u, x=x)
    return converted(x)


def in_range(name, tensor, count, letter):
    """Each number of the tensor is one of 0 ... count - 1; `letter` names the count. Checked as `values` says."""
    if values(tensor) and tensor.numel():
        low, high = (bound.item() for bound in torch.aminmax(tensor))
        if low < 0 or high >= count:
            raise ValueError(f"{name} must lie in 0 .. {letter}-1 = {count - 1}, got values from {low} to {high}")


def as_rows(tensor):
    """(N, ...) -> (N, D)"""
    if tensor.dim() == 2:  # a microsecond a tensor
        return tensor
    return tensor.reshape(tensor.shape[0], math.prod(tensor.shape[1:]))


def float32_under_autocast(*arrays):
    """Under autocast on their device 16-bit tensors become float32, as PyTorch does for its losses and norms.

    None, which stands for an argument that is not given, stays.
    """
    kind = arrays[0].device.type
    if not (_has_autocast(kind) and torch.is_autocast_enabled(kind)):
        return arrays
    return tuple(a.float() if a is not None and a.dtype in (torch.float16, torch.bfloat16) else a for a in arrays)


def without_autocast(device):
    """Inside, PyTorch computes on this device in the dtypes of its tensors."""
    kind = torch.device(device).type
    return torch.autocast(kind, enabled=False) if _has_autocast(kind) else nullcontext()


@torch.compiler.assume_constant_result  # torch.compile of PyTorch 2.11 cannot trace this call
def _has_autocast(kind):
    return torch.amp.is_autocast_available(kind)


def in_autocast_dtype(*arrays):
    """Under autocast on their device all but float64 get autocast's dtype, as in PyTorch's linear and convolution."""
    device = arrays[0].device.type
    if not (_has_autocast(device) and torch.is_autocast_enabled(device)):
        return arrays
    dtype = torch.get_autocast_dtype(device)
    return tuple(array if array is None or array.dtype == torch.float64 else array.to(dtype) for array in arrays)
