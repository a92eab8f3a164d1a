"""Lines to write: what a call of a model does by several operators of PyTorch that a room does in one.

They are hints by names and shapes, as `genmini profile` gives them, of rooms that have a kernel on that device. Nothing
is swapped: such operators are no module.
"""

import torch
from torch.overrides import TorchFunctionMode

from genmini import advice, calls, kernels

from . import gate
from .report import Row

NAMES = {"cross_entropy": "cross_entropy_loss", "truediv": "div", "rmul": "mul", "imul": "mul", "radd": "add",
         "iadd": "add", "isub": "sub", "rmatmul": "matmul", "float": "to", "double": "to", "half": "to",
         "bfloat16": "to", "type": "to"}  # of Python -> of PyTorch's operators


class Calls(TorchFunctionMode):
    """The calls of PyTorch that give a tensor, in their order"""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out, name = function(*args, **(kwargs or {})), getattr(function, "__name__", "").strip("_")
        if isinstance(out, torch.Tensor) and name != "get":  # of an attribute
            given = [*args, *(kwargs or {}).values()]
            shapes = [list(x.shape) if isinstance(x, torch.Tensor) else [] for x in given]
            scalars = [x if isinstance(x, int | float) else None for x in given]
            self.found.append(calls.Call(NAMES.get(name, name), shapes, scalars, 0.0))
        return out


def hints(model, inputs, but, call=None):
    """A Row for each of the rooms that a copy of a model could call, but for those named.   inputs: of a call, which is
    call(model, *inputs) if that is given"""
    with torch.no_grad(), Calls() as seen:
        call(model, *inputs) if call else model(*inputs)
    device = gate.like(model).device
    return [Row("", ", ".join(found.operators), found.room, "advised", found.line)
            for found in advice.found(seen.found)
            if found.room not in but and kernels.chosen(found.room, device).backend != "reference"]
