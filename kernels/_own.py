"""A kernel of yours behind an operator: checked on its first use, then run wherever its backend is chosen.

    @kernels.register("nearest_code", backend="mine")
    def my_search(z, e):                       the inputs of the operator, by their names in its schema
        return torch.cdist(z, e).argmin(1)

    kernels.use("mine")                        ops.nearest_code runs my_search; operators without a "mine" follow "auto"
    print(kernels.checked("nearest_code", "mine"))        the report, before or without any use
    kernels.unregister("nearest_code", "mine")

The function may be Python, launch a Triton kernel, or call CUDA or C++ (kernels/_source.py). It gets what the room's
own kernels get: tensors of rows, contiguous and at multiples of 16 bytes (any strides with strided=True), and None for
what is absent. It returns the operator's outputs, of the shapes and dtypes of the definition's. It stands behind the
operator, so autograd, torch.compile and vmap go on as before: the gradient is that of the operator, which has operators
of its own ("affine_coupling_backward") behind which another function may be registered. A new function for the same
operator and backend takes the place of the old one, and is checked in its turn.

    the inputs of the check: kernels/_cruel.py    how it judges: kernels/_verdict.py    test: tests/kernels/test_own.py
"""

import inspect
import runpy
import sys
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch

from . import _backend, _check, _cruel, _library, _operator, _takes
from ._verdict import Unfit, WrongKernel, judge, tensors


class OtherDtype(TypeError, ValueError):
    """The function does not take this dtype: no mistake of ours, so that the command line says so as of a value."""


@dataclass(eq=False)
class Own:
    """A user's function behind an operator."""

    operator: _operator.Operator
    backend: str
    function: object
    dtypes: tuple
    strided: bool
    check: bool
    reports: dict = field(default_factory=dict)  # by the kind of device

    def __post_init__(self):
        self.by_name = by_name(self.function, self.operator, self.name)
        terms = _takes.terms_of(self.operator.takes, self.operator.inputs, _cruel.tensors_of(self.operator), "",
                                self.operator.outputs)
        self.free = [(place, name) for place, name, word, _ in terms if word in ("T", "U")]  # of a dtype of floats
        decides = [i for i, name in enumerate(self.operator.inputs) if self.operator.types[name] == "Tensor"]
        self.decides = decides[0]

    @property
    def name(self):
        """my_search (mine.py:12)"""
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return f"{name} ({Path(code.co_filename).name}:{code.co_firstlineno})" if code else name

    def __call__(self, values):
        """The outputs, on values of all inputs; the first call on a kind of device checks the function there."""
        for place, name in self.free:
            value = values[place]
            for tensor in value if isinstance(value, list | tuple) else [value]:
                if tensor is not None and tensor.dtype not in self.dtypes:
                    taken, got = _check.names(self.dtypes), _check.names([tensor.dtype])
                    raise OtherDtype(f"{self.name}, backend {self.backend!r} of {self.operator.name}, takes {name} of "
                                     f"dtype {taken}, got {got}: register it with dtypes=(...) if it takes these, too")
        if self.check and not self.report(values[self.decides].device).right:
            raise WrongKernel(str(self.report(values[self.decides].device)))
        try:
            return self.run(values)
        except Exception as error:
            raise RuntimeError(f"{self.name}, backend {self.backend!r} of {self.operator.name}, failed: "
                               f"{type(error).__name__}: {error}") from error

    def report(self, device):
        kind = torch.device(device).type
        if kind not in self.reports:
            try:
                self.reports[kind] = judge(self, device)
            except (_library.NotBuilt, NotImplementedError) as error:
                raise WrongKernel(f"{self.name}, backend {self.backend!r} of {self.operator.name}, cannot run: "
                                  f"{error}") from error
        return self.reports[kind]

    def run(self, values):
        """Call the function, unchecked but for the kinds of its outputs."""
        given = values if self.strided else [_operator.plain(v) if isinstance(v, torch.Tensor | list) else v
                                             for v in values]
        before, _backend.inside.kernel = getattr(_backend.inside, "kernel", None), self
        try:
            with _check.without_autocast(values[self.decides].device):  # the operator's front door has cast already
                found = self.by_name(given)
        finally:
            _backend.inside.kernel = before
        self.fits(found, values, given)
        return tuple(found) if isinstance(found, list) else found

    def fits(self, found, values, given):
        outputs, wanted = self.operator.outputs, tensors(self.operator.empty(*values))
        returned = tensors(found)
        if len(returned) != len(outputs):
            raise Unfit(f"it must return {', '.join(outputs)}, got {len(returned)} outputs")
        inputs = {a.untyped_storage().data_ptr(): name
                  for name, a in zip(self.operator.inputs, given, strict=True) if isinstance(a, torch.Tensor)}
        for name, got, want in zip(outputs, returned, wanted, strict=True):
            if not isinstance(got, torch.Tensor):
                raise Unfit(f"{name} must be a tensor, got {type(got).__name__}")
            if got.shape != want.shape:
                raise Unfit(f"{name} must have shape {tuple(want.shape)}, got {tuple(got.shape)}")
            if got.dtype != want.dtype:
                raise Unfit(f"{name} must be of dtype {_check.names([want.dtype])}, got {_check.names([got.dtype])}")
            if got.device != want.device:
                raise Unfit(f"{name} must be on {want.device}, got {got.device}")
            if got.numel() and got.untyped_storage().data_ptr() in inputs:
                raise Unfit(f"{name} must be a new tensor; it lies in the memory of the input "
                            f"{inputs[got.untyped_storage().data_ptr()]}")


def by_name(function, operator, name):
    """The function, called with the values of the inputs that its parameters name."""
    try:
        call = _operator.by_name(function, operator.inputs, operator.name)
    except (TypeError, ValueError) as error:  # of inspect.signature
        raise TypeError(f"{operator.name} needs a function with a signature, as `def f({', '.join(operator.inputs)})`: "
                        f"{error}") from None
    except NameError as error:
        raise NameError(f"{error}: the parameters of {name} are inputs of {operator.name}, "
                        f"{', '.join(operator.inputs)}") from None
    return lambda values: call(*values)


def register(operator, backend="mine", *, dtypes=torch.float32, strided=False, check=True):
    """A decorator: the function runs this operator where this backend is chosen. It returns the function as it is.

    dtypes: those of floats that it takes; check=False: use it without a check, wrong as it may be.
    """
    if operator not in _operator.OPERATORS:
        known = ", ".join(sorted(_operator.OPERATORS))
        raise ValueError(f"unknown operator {operator!r}; the operators are {known}")
    if not isinstance(backend, str) or not backend.isidentifier() or backend in _backend.BACKENDS:
        ours = ", ".join(_backend.BACKENDS)
        raise ValueError(f"backend must be a name of yours, none of {ours}; got {backend!r}")
    each = (dtypes,) if isinstance(dtypes, torch.dtype) else dtypes
    if not isinstance(each, tuple | list) or not each or any(dtype not in _check.FLOATS for dtype in each):
        raise ValueError(f"dtypes must be of {_check.names(_check.FLOATS)}, got {dtypes!r}")
    dtypes = tuple(each)
    if check:
        _cruel.spec_of(_operator.OPERATORS[operator])

    def decorate(function):
        kernel = Own(_operator.OPERATORS[operator], backend, function, dtypes, strided, check)
        if not check:
            warnings.warn(f"{kernel.name} is not checked: {operator} gives whatever it gives where {backend!r} is "
                          "chosen", stacklevel=2)
        _backend.OWN[operator, backend] = kernel
        if backend not in _backend.own_names:
            _backend.own_names = (*_backend.own_names, backend)
        return function

    return decorate


def unregister(operator, backend="mine"):
    """The operator runs on `auto` where this backend is chosen."""
    if (operator, backend) not in _backend.OWN:
        raise ValueError(f"nothing is registered as backend {backend!r} of {operator}")
    del _backend.OWN[operator, backend]


def checked(operator, backend="mine", device="cpu"):
    """The report on a registered kernel, made now or at its first use."""
    if (operator, backend) not in _backend.OWN:
        raise ValueError(f"nothing is registered as backend {backend!r} of {operator}")
    return _backend.OWN[operator, backend].report(device)


def own(operator):
    """The backends that users registered for this operator, in their order."""
    return tuple(backend for name, backend in _backend.OWN if name == operator)


def run(path, operator):
    """Run a .py file that registers kernels, as `python path` would -> the backends registered for this operator."""
    if not str(path).endswith(".py"):
        raise ValueError(f"--with takes a .py file, got {path}")
    if not Path(path).is_file():
        raise ValueError(f"--with takes a .py file, and {path} is {'a folder' if Path(path).is_dir() else 'not there'}")
    before = [*sys.path]
    sys.path.insert(0, str(Path(path).resolve().parent))  # its neighbours
    try:
        runpy.run_path(path, run_name="own")
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        raise ValueError(f"{path}{f', line {lines[-1]}' if lines else ''}: {type(error).__name__}: {error}") from error
    finally:
        sys.path[:] = before
    if not own(operator):
        raise ValueError(f'{path} registers no kernel of {operator}: it needs @genmini.register("{operator}")')
    return own(operator)
