"""State once, in the wiring of an operator, which dtypes and shapes of its tensors must agree; and check it.

    takes="z: T(N, D); e: U(K, D); index: int64(N); dloss: R(N); weights: T(*, *)"

Names of inputs, then their dtype and the extents of their dimensions. An extent that has a name is the same wherever
the name stands, a number is itself, * is any. An input that may be absent is checked where it is present, each tensor
of a list by itself. All lie on one device.

    T, U        a dtype of floats, the same wherever the letter stands
    R           the dtype of sums over these: float64 if one of them is float64, else float32
    int         any dtype of integers
    host        int64 in the memory of the host, whatever the device of the others
    int64 ...   this dtype

Dots behind an extent, "x y: T(N, D...)": any number of dimensions, of inputs and outputs (kernels/_fold.py).

Front doors check more, with the names that callers know. This check holds where an operator is called by itself, as an
exported graph does: no kernel reads beyond a tensor, or takes its bytes for numbers of another type.
"""

import re

import torch

from . import _check


def sum_dtype(*dtypes):
    """The dtype of sums, losses and log-determinants: float64 if one of these is float64, else float32."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


def accepted(word, dtype, dtypes):
    """The dtypes that this word stands for; `dtypes` holds what T and U are, and gets this tensor's if it decides."""
    if word in ("T", "U"):
        return (dtypes.setdefault(word, dtype),) if dtype in _check.FLOATS else _check.FLOATS
    if word == "R":
        return (sum_dtype(*dtypes.values()),)
    return _check.INTEGERS if word == "int" else (torch.int64 if word == "host" else getattr(torch, word),)


def terms_of(text, inputs, tensors, where, outputs=()):
    """[(place among the inputs, name, word, extents)], sums last: they depend on the others' dtypes."""
    terms = []
    for part in text.split(";"):
        names, _, kind = part.partition(":")
        word, extents = re.fullmatch(r"\s*(\w+)\(([\w*, ]*)\)\s*", kind.replace("...", "")).groups()
        terms += [(name, word, tuple(extents.replace(",", " ").split())) for name in names.split()]
    terms = [term for term in terms if term[0] not in outputs]
    if sorted(name for name, *_ in terms) != sorted(tensors):
        raise NameError(f"{where} must state once what it takes as each of {', '.join(tensors)}: {text}")
    terms.sort(key=lambda term: term[1] == "R")
    return [(inputs.index(name), name, word, extents) for name, word, extents in terms]


def agreement(text, inputs, tensors, where, outputs=()):
    """The check that the text states, of the values of all inputs; `tensors` are the names of those that are tensors"""
    terms = terms_of(text, inputs, tensors, where, outputs)
    numbers = {extent: int(extent) for *_, extents in terms for extent in extents if extent.isdigit()}

    def check(values):
        dtypes, sizes, devices = {}, dict(numbers), {"host": torch.device("cpu")}
        for place, name, word, extents in terms:
            value = values[place]
            for tensor in value if isinstance(value, list | tuple) else (value,):
                if tensor is None:
                    continue
                if tensor.dtype not in (wanted := accepted(word, tensor.dtype, dtypes)):
                    wanted, got = _check.names(wanted), _check.names([tensor.dtype])
                    raise TypeError(f"{where}: {name} must be of dtype {wanted}, got {got}")
                device = devices.setdefault("host" if word == "host" else "all", tensor.device)
                if tensor.device != device:
                    raise ValueError(f"{where}: {name} must be on {device}, got {tensor.device}")
                if tensor.dim() != len(extents) or not fits(extents, tensor.shape, sizes):
                    known = ", ".join(f"{e} = {sizes[e]}" for e in extents if e in sizes and e not in numbers)
                    wanted = f"({', '.join(extents)})" + (f" with {known}" if known else "")
                    raise ValueError(f"{where}: {name} must have shape {wanted}, got {tuple(tensor.shape)}")

    return check


class Remembered:
    """A check that keeps the dtypes, shapes and devices that passed: to look them up is faster than to check again."""

    MOST = 4096  # shapes, so that those that never come again do not pile up

    def __init__(self, check, places):
        self.check, self.places, self.passed = check, places, set()

    def __call__(self, values):
        key = tuple([kind(values[place]) for place in self.places])
        if key not in self.passed:
            self.check(values)
            if len(self.passed) >= self.MOST:  # two threads may have added at once
                self.passed.clear()
            self.passed.add(key)


def kind(value):
    """All that a check asks of a tensor, of each tensor of a list, or of None."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.device
    return None if value is None else tuple(map(kind, value))


def fits(extents, shape, sizes):
    """Whether each extent is what it was before, if it has a name; `sizes` gets those that are new."""
    return all(e == "*" or sizes.setdefault(e, size) == size for e, size in zip(extents, shape, strict=True))
