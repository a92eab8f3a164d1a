"""Remember what the launcher of a native kernel did, and do the same with the next tensors of these kinds.

A launcher allocates its outputs, copies or casts some inputs, and calls C functions with addresses, sizes and
constants. All but the addresses follows from the kinds of its values: the dtypes, shapes, strides and alignment of its
tensors, and its other arguments. The second launch of a kind is recorded; the next ones do the same without the Python
of the launcher, of the choice of a backend and of the checks that look at no values. A launch that does anything else
(computes in PyTorch, casts its outputs, runs a GPU's kernel) gives no plan: its kind goes the whole way each time. Of a
room whose backend `cpu` is written in PyTorch a plan calls that function.

    test: tests/kernels/test_door.py
"""

import functools
import threading
from collections.abc import Callable
from operator import itemgetter, or_
from typing import NamedTuple

import torch
from torch._C._dynamo.guards import TensorGuards
from torch.utils._python_dispatch import TorchDispatchMode

from . import _library

MOST = 4096  # kinds of an operator, so that those that never come again (a number's) do not pile up
PLAIN, SCALARS = (torch.Tensor, torch.nn.Parameter), (type(None), bool, int, float, str)
USUAL = {torch._C._dispatch_keys(torch.empty(0, device="cpu")).raw_repr()}  # what PyTorch's dispatcher heeds in it
USUAL_HERE = {torch._C._dispatch_tls_local_include_set().raw_repr()}  # and in a thread
with torch.inference_mode():
    USUAL.add(torch._C._dispatch_keys(torch.empty(0, device="cpu")).raw_repr())
    USUAL_HERE.add(torch._C._dispatch_tls_local_include_set().raw_repr())
ATEN = torch.ops.aten
ALLOCATES = (ATEN.empty.memory_format, ATEN.new_empty.default, ATEN.empty_like.default)
OF_ONE = (ATEN.clone.default, ATEN.contiguous.default, ATEN.detach.default, ATEN.reshape.default,
          ATEN.sum.dim_IntList, ATEN.to.dtype, ATEN.view.default)  # tensor: a new one, or the same or a view of it
NATIVE = ("auto", "cpu")  # requests of backends; one of a user's kernel may mean another function tomorrow
here = threading.local()  # .plan: that of the operator that ran last in this thread, if it has one; .calls: _door.py


class Kind:
    """All by which a launcher may decide, of plain tensors, numbers and words; and what is known of it."""

    __slots__ = ("alike", "odd", "way")

    def __init__(self, tensors, odd):
        # one call in C++: types, dtypes, devices, shapes, strides, gradients, and what the dispatcher heeds now
        self.alike = TensorGuards(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None).check
        self.odd = odd
        self.way = None  # a plan or a shortcut; None: to be noted; False: there can be none


class Kinds:
    """Those that calls have had. A kind is met first where no mode, transform or autocast watches, and is not found
    where one does."""

    def __init__(self):
        self.met, self.count = {}, 0

    def find(self, values, more=None):
        """-> the kind of these values, their tensors and addresses of these; None and what `add` takes, if it is new"""
        key, tensors = [more], []
        for a in values:
            if type(a) in PLAIN:
                key.append(a.shape)
                tensors.append(a)
            elif type(a) in SCALARS:
                key += type(a), a or str(a)  # True is not 1, and -0.0 is not 0.0
            else:
                return None, None, None
        for kind in self.met.get(key := tuple(key), ()):
            if kind.alike(*tensors):
                addresses = [*map(address, tensors)]
                if (functools.reduce(or_, addresses) & 15 and oddness(addresses)) == kind.odd:
                    return kind, tensors, addresses
        return None, key, tensors

    def add(self, key, tensors):
        """-> the kind that find has not found; None if something watches, if not all tensors are plain ones on a CPU,
        or if one stands for two values: PyTorch's guards take each once."""
        if (tensors and len({*map(id, tensors)}) == len(tensors)
                and torch._C._dispatch_tls_local_include_set().raw_repr() in USUAL_HERE
                and not torch._C._is_any_autocast_enabled()
                and all(torch._C._dispatch_keys(a).raw_repr() in USUAL for a in tensors)):
            if self.count >= MOST:
                self.met.clear()
                self.count = 0
            kind = Kind(tensors, oddness([*map(address, tensors)]))
            self.met.setdefault(key, []).append(kind)
            self.count += 1
            return kind
        return None


address = torch.Tensor.data_ptr


def oddness(addresses):
    """0 if all are multiples of 16, else what each lacks."""
    return functools.reduce(or_, addresses) & 15 and [a & 15 for a in addresses]


def planned(check_kinds, check_values, compute, plan_of):
    """compute(*values, request), after all checks: by a plan, from its third call with a kind on.

    It stands in one function, as few Python calls as can be: each takes 2 us where other work has pushed Python out of
    the caches.
    """
    kinds = Kinds()

    def run(*arguments):
        kind, *found = kinds.find(arguments)
        plan = kind and kind.way
        if plan and plan.threads == torch.get_num_threads():
            if plan.check:
                check_values(*arguments[:-1])
            here.plan = plan
            return plan(*found)
        early = False
        if kind is None:
            check_kinds(arguments[:-1])
            kind = kinds.add(*found)
            early = getattr(here, "calls", None) is None
        if kind is None or early or plan is False or arguments[-1] not in NATIVE:
            check_values(*arguments[:-1])
            outputs = compute(*arguments)
            here.plan = None  # a user's kernel may have run an operator that has one
            return outputs
        with Recording() as check:
            check_values(*arguments[:-1])
        with Recording() as launch:
            outputs = compute(*arguments)
        kind.way = here.plan = plan_of(launch, arguments, outputs, check_values if check.computed else None)
        return outputs

    return run


class Recording(TorchDispatchMode):
    """What is asked of PyTorch inside: .made, the tensors that were allocated or copied, each with what copies it;
    .computed, whether there was more. And .calls of native functions, as _library.invoke notes them."""

    def __enter__(self):
        self.made, self.computed, self.calls = [], False, []
        _library.recording.calls = self.calls
        return super().__enter__()

    def __exit__(self, *error):
        _library.recording.calls = None
        return super().__exit__(*error)

    def __torch_dispatch__(self, function, types, arguments, named=None):
        result = function(*arguments, **(named or {}))
        if function in ALLOCATES and result.is_cpu:
            self.made.append((result, None))
        elif function in OF_ONE and not named:
            if result.data_ptr() != arguments[0].data_ptr():
                self.made.append((result, (function, *arguments)))
        elif function.namespace != "genmini":
            self.computed = True
        if self.computed:
            self.made.clear()  # nobody asks for them, and they would be held until the end
        return result


class Plan(NamedTuple):
    """What to allocate and to copy, and calls with the addresses of the given tensors and of that, in this order."""

    made: list  # (function, which tensor it copies, or None, what else it takes) each
    calls: list  # (function, its library, its name, its values, [(place of an address in them, which address)]) each
    outputs: Callable  # of all tensors: picks them
    threads: int
    check: Callable | None  # of the values of all inputs, if it looks into tensors

    def __call__(self, tensors, addresses):
        """It appends to both."""
        for function, which, more in self.made:
            made = function(*more) if which is None else function(tensors[which], *more)
            tensors.append(made)
            addresses.append(made.data_ptr())
        for entry, library, name, given, places in self.calls:
            given = given.copy()
            for i, which in places:
                given[i] = addresses[which]
            if code := entry(*given):
                _library.succeeded(code, library, name)
        return self.outputs(tensors)

    def moved(self, places, count):
        """The same for `count` tensors, of which those at these places are its own."""
        to = lambda i: places[i] if i < len(places) else i - len(places) + count
        return self._replace(
            made=[(function, i if i is None else to(i), more) for function, i, more in self.made],
            calls=[(*call, [(i, to(which)) for i, which in places]) for *call, places in self.calls],
            outputs=itemgetter(*map(to, places_of(self.outputs))))


def places_of(getter):
    """Of an itemgetter"""
    return getter.__reduce__()[1]


class Direct(NamedTuple):
    """A function that computes in PyTorch, without the Python around it."""

    function: Callable  # it does what may depend on values in tensors
    values: list  # of its parameters, but of the tensors [(which parameter, which tensor)]
    places: list
    strides: list  # of the outputs
    threads: int
    check: Callable | None

    def __call__(self, tensors, addresses):
        given = self.values.copy()
        for i, which in self.places:
            given[i] = tensors[which]
        result = self.function(*given)  # nothing is recorded: no gradient is wanted, or a Function is around it
        if type(result) is not tuple:
            return result if result.stride() == self.strides[0] else as_laid(result, self.strides[0])
        return tuple(map(as_laid, result, self.strides))

    def moved(self, places, count):
        return self._replace(places=[(i, places[which]) for i, which in self.places])


def as_laid(a, strides):
    return a if a.stride() == strides else a.new_empty_strided(a.shape, strides).copy_(a)


def direct(function, takes, to_plain):
    """The same of a function that computes in PyTorch, and takes the values at these places of all inputs, "cpu" and
    None: False if the inputs at the places `to_plain` are not plain, but copied."""

    def plan_of(launch, arguments, outputs, check):
        inputs = [i for i, a in enumerate(arguments) if isinstance(a, torch.Tensor)]
        given = [(*arguments[:-1], "cpu", None)[i] for i in takes]
        values = [None if isinstance(a, torch.Tensor) else a for a in given]
        places = [(i, inputs.index(which)) for i, which in enumerate(takes) if which in inputs]
        strides = [a.stride() for a in (outputs if isinstance(outputs, tuple) else (outputs,))]
        plain = all(_library.plain(arguments[i]) is arguments[i] for i in to_plain)
        return plain and Direct(function, values, places, strides, torch.get_num_threads(), check)

    return plan_of


def plan_of(launch, arguments, outputs, check):
    """The plan of what a launch did, or False if that was not all, or if an address stands for two tensors."""
    given = [a for a in arguments if isinstance(a, torch.Tensor)]
    tensors = [*given, *[a for a, _ in launch.made]]
    which = {a.data_ptr(): i for i, a in enumerate(tensors)}
    if launch.computed or not launch.calls or len(which) < len(tensors):
        return False
    laid = lambda a: (a.shape, a.stride(), a.dtype)
    empty = lambda dtype: torch.empty(0, dtype=dtype, device="cpu").new_empty_strided
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    as_output = {a.data_ptr(): a for a in outputs}  # what was made, perhaps with its dimensions unfolded
    made = []
    for a, how in launch.made:
        if not how:
            *how, dtype = laid(as_output.get(a.data_ptr(), a))
            made.append((empty(dtype), None, how))
            continue
        function, source, *more = how
        i = which.get(source.data_ptr())
        if i is None or i >= len(given) or laid(tensors[i]) != laid(source) or a.data_ptr() in as_output:
            return False  # an output of 16 bits is cast after the calls, and a plan copies before them
        made.append((function._op, i, more))
    used = [a.data_ptr() for *_, values in launch.calls for a in values if isinstance(a, torch.Tensor)]
    if not {*which} >= {*used, *as_output}:
        return False
    calls = [(*call, values, [(i, which[values[i]]) for i, a in enumerate(taken) if isinstance(a, torch.Tensor)])
             for *call, values, taken in launch.calls]
    return Plan(made, calls, itemgetter(*[which[a.data_ptr()] for a in outputs]), launch.calls[0][-2][-1], check)
