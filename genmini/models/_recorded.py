"""What `Model` adds to every constructor and every `sample`: the arguments are recorded as `settings`, which make the
same model again, and the number of samples is checked.

    used by: genmini/models/_model.py    test: tests/models/test_model.py
"""

import functools
import inspect
from numbers import Real

import torch

from genmini.settings import whole

OF_DATA = "shape", "levels", "vocabulary", "length"  # arguments that the data decide
NOT_STORED = "device", "dtype", "context"  # arguments that are no settings; a model hands `context` to its base


def recorded(init):
    """The constructor `init`, with its arguments made plain Python values, as a run stores them, and kept in
    `settings`. Of classes that hand **settings on to their base, the base has recorded what it took."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def constructor(self, *args, **keywords):
        bound = signature.bind(self, *args, **keywords)
        bound.apply_defaults()
        for name in bound.arguments.keys() - {"self"}:
            bound.arguments[name] = _plain(name, bound.arguments[name], signature.parameters[name].default)
        init(*bound.args, **bound.kwargs)
        own, kinds = {}, inspect.Parameter
        for name, value in list(bound.arguments.items())[1:]:
            own |= value if signature.parameters[name].kind == kinds.VAR_KEYWORD else {name: value}
        own = {name: value for name, value in own.items() if name not in NOT_STORED}
        named = {name: own[name] for name in own if name in signature.parameters}
        self.settings = own | vars(self).get("settings", {}) | named

    return constructor


def counted(sample):
    """The method `sample`, which first checks how many samples it is to draw."""

    @functools.wraps(sample)
    def checked(self, n, *args, **keywords):
        if not isinstance(n, torch.SymInt):  # of torch.export
            whole(0, n=n)
        return sample(self, n, *args, **keywords)

    return checked


def _plain(name, value, default):
    """A tensor becomes a list; a shape, and what has a tuple for its default, becomes a tuple, one value one of one.
    ValueError for several values where the default is a number."""
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    if name == "shape" or isinstance(default, tuple):
        return tuple(value) if isinstance(value, list | tuple) else (value,)
    if isinstance(default, Real) and isinstance(value, list | tuple):
        raise ValueError(f"{name} must be one value, got {value!r}")
    return value
