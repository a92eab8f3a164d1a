"""Lines to write: what a call of a model does by several operators of PyTorch that a room does in one.

They are hints by names and shapes, as `genmini profile` gives them, of rooms that have a kernel on that device. Nothing
is swapped: such operators are no module.
"""

import torch
from torch.autograd.profiler import profile

from genmini import advice, kernels

from .report import Row


def hints(model, inputs, but):
    """A Row for each of the rooms that a copy of a model could call, but for those named.   inputs: of a call"""
    with torch.no_grad(), profile(use_kineto=False, record_shapes=True) as profiler:
        model(*inputs)
    outermost = sorted((event for event in profiler.function_events if event.cpu_parent is None and "::" in event.name),
                       key=lambda event: event.time_range.start)
    calls = [advice.Call(event.name.partition("::")[2].removesuffix("_"), event.input_shapes, event.concrete_inputs,
                         event.cpu_time_total / 1e6) for event in outermost]
    return [Row("", ", ".join(found.operators), found.room, "advised", found.line)
            for found in advice.found(calls)
            if found.room not in but and kernels.chosen(found.room, inputs[0].device).backend != "reference"]
