"""What stands in the place of the `forward` of one module, until it is put back.

The module stays: its class, parameters, buffers, hooks, mode and name in the model do not change. Only its instance
gets an attribute `forward`, which hides that of its class. So:

    state_dict, optimisers   hold the same tensors under the same names, as no tensor is made or moved
    hooks                    run, as nn.Module.__call__ runs them around whatever `forward` is
    weight_norm, parametrize the weight is asked for at each call, as the owner's forward does. They may come before or
                             after a swap: another class in the place of the module would stand in their way
    copy.deepcopy, pickle    Swapped keeps its module as an attribute, so that a copy's forward is bound to the copy; a
                             bound method or a closure cannot do both
    torch.save               of a state_dict as before; of a model, who loads it needs genmini, as it needs the owner's
                             class. unswap it first, and what is saved is the owner's own
    torch.compile            follows an attribute as it follows a method, without a break in the graph. Compile after a
                             swap: compiled code does not see what is swapped later
    nn.DataParallel          is not supported: the forward of its replicas would be bound to the first module.
                             DistributedDataParallel works

A module whose instance has a forward already, put there by another, is left: its copies would share that forward.

What the room cannot tell goes to the owner's forward, call by call: arguments beside the input that are not what they
are by default, inputs of another number of dimensions than were probed, a mask that has changed to one that the room
does not know, a number of the module that is not as it was, hooks of a child that it has got.
"""

import contextlib
import functools
import inspect

import torch

from genmini import kernels

from .gate import hooked, plain


class Swapped:
    """Computes by a room what a module's own forward computes."""

    def __init__(self, module, room, backend):
        self.module, self.room, self.backend = module, room, backend
        self.plain = [(*name.rpartition(".")[::2], value) for name, value in plain(module).items()]

    def __call__(self, *args, **kwargs):
        if self.room.dims is None and self.unchanged():
            return self.room.run(self.module, *args, **kwargs)
        one = args and isinstance(args[0], torch.Tensor) and (len(args) + len(kwargs) == 1 or self.usual(args, kwargs))
        if self.room.dims and one and args[0].dim() in self.room.dims and self.unchanged():
            with kernels.use(self.backend) if self.backend != "auto" else contextlib.nullcontext():
                out = self.room.run(self.module, args[0])
            if out is not NotImplemented:
                return out
        return self.owner(*args, **kwargs)

    __code__ = __call__.__code__  # for torch.export, which asks forward for it

    @property
    def __signature__(self):
        return inspect.signature(functools.partial(type(self.module).forward, self.module))

    def usual(self, args, kwargs):
        """Whether what is given beside the input is what the owner's forward takes if nothing is given."""
        takes = list(inspect.signature(type(self.module).forward).parameters.values())[2:]
        given = dict(zip((each.name for each in takes), args[1:], strict=False)) | kwargs
        usual = {each.name: each.default for each in takes if isinstance(each.default, int | float | str | None)}
        return len(given) == len(args) + len(kwargs) - 1 and all(
            name in usual and isinstance(value, type(usual[name])) and value == usual[name]
            for name, value in given.items())

    def unchanged(self):
        """Whether the module's numbers are those of the day of the swap: a factor or a stride may be among them."""
        same = (isinstance(now := getattr(self.module.get_submodule(at), name, None), type(value)) and now == value
                for at, name, value in self.plain)
        return all(same) and not hooked(self.module)

    def owner(self, *args, **kwargs):
        return type(self.module).forward(self.module, *args, **kwargs)


def install(module, room, backend):
    module.__dict__["forward"] = Swapped(module, room, backend)


def found(model):
    """{name: Swapped} of a model"""
    return {name: vars(module)["forward"] for name, module in model.named_modules()
            if isinstance(vars(module).get("forward"), Swapped)}


def remove(module):
    """Put the owner's forward back."""
    del module.__dict__["forward"]
