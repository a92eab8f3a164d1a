"""Remember what the launcher of a native kernel did, and do the same with the next tensors of these kinds.

A launcher allocates its outputs, copies or casts some inputs, and calls C functions with addresses, sizes and
constants. All but the addresses follows from its signature: the dtypes, shapes, strides and alignment of its tensors,
and its other arguments. The second launch of a signature is recorded; the next ones do the same without the Python of
the launcher, of the choice of a backend and of the checks that look at no values. A launch that does anything else
(computes in PyTorch, casts its outputs, runs a GPU's kernel) gives no plan: its signature goes the whole way each
time. Of a room whose backend `cpu` is written in PyTorch a plan calls that function.

    test: tests/kernels/test_door.py
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from . import _library

MOST = 4096  # signatures of an operator, so that those that never come again (a seed's) do not pile up
PLAIN, SCALARS = (torch.Tensor, torch.nn.Parameter), (type(None), bool, int, float, str)
USUAL = {torch._C._dispatch_keys(torch.empty(0, device="cpu")).raw_repr()}  # what PyTorch's dispatcher heeds in it
with torch.inference_mode():
    USUAL.add(torch._C._dispatch_keys(torch.empty(0, device="cpu")).raw_repr())
ATEN = torch.ops.aten
ALLOCATES = (ATEN.empty.memory_format, ATEN.new_empty.default, ATEN.empty_like.default)
OF_ONE = (ATEN.clone.default, ATEN.contiguous.default, ATEN.detach.default, ATEN.reshape.default,
          ATEN.sum.dim_IntList, ATEN.to.dtype, ATEN.view.default)  # tensor: a new one, or the same or a view of it
NATIVE = ("auto", "cpu")  # requests of backends; one of a user's kernel may mean another function tomorrow
CPU = torch.device("cpu")


def signature(values):
    """-> all by which a launcher may decide, or None where a value is no plain tensor on a CPU, number or word; and the
    address of each value, None of what is no tensor."""
    key, addresses = [], []
    for a in values:
        if type(a) in PLAIN and torch._C._dispatch_keys(a).raw_repr() in USUAL:
            addresses.append(a.data_ptr())
            key.append((a.dtype, a.shape, a.stride(), a.requires_grad, addresses[-1] & 15))
        elif type(a) in SCALARS:
            addresses.append(None)
            key.append((type(a), a or str(a)))  # True is not 1, and -0.0 is not 0.0
        else:
            return None, None
    return tuple(key), addresses


def planned(checked, check_values, compute, plan_of):
    """checked(*values, request), which is compute after all checks: by a plan, from its third call with a signature on.

    It stands in one function, as few Python calls as can be: each takes 2 us where other work has pushed Python out of
    the caches.
    """
    plans = {}  # signature -> its plan; None once it has passed; False where there can be none

    def run(*arguments):
        key, addresses = signature(arguments)
        if key is None:
            return checked(*arguments)
        plan = plans.get(key)
        if plan and plan.threads == torch.get_num_threads():
            if plan.check:
                check_values(*arguments[:-1])
            return plan(arguments, addresses)
        if plan is None and key in plans and arguments[-1] in NATIVE and not torch._C._is_any_autocast_enabled():
            with Recording() as check:
                check_values(*arguments[:-1])
            with Recording() as launch:
                outputs = compute(*arguments)
            plans[key] = plan_of(launch, arguments, outputs, check_values if check.computed else None)
            return outputs
        outputs = checked(*arguments)
        if plan is not False:
            if len(plans) >= MOST:
                plans.clear()
            plans[key] = None
        return outputs

    run.plans = plans
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
        return result


class Plan(NamedTuple):
    """What to allocate and to copy, and calls with the addresses of the arguments and of that, in this order."""

    made: list  # (shape, strides, dtype), or (function, which tensor it copies, what else it takes) each
    calls: list  # (function, its library, its name, its values, [(place of an address in them, which address)]) each
    outputs: tuple  # which they are
    threads: int
    check: Callable | None  # of the values of all inputs, if it looks into tensors

    def __call__(self, values, addresses):
        tensors = [*values]
        for a, b, c in self.made:
            tensors.append(a(tensors[b], *c) if type(b) is int else torch.empty_strided(a, b, dtype=c, device=CPU))
            addresses.append(tensors[-1].data_ptr())
        for entry, library, name, given, places in self.calls:
            given = given.copy()
            for i, which in places:
                given[i] = addresses[which]
            if code := entry(*given):
                _library.succeeded(code, library, name)
        if len(self.outputs) == 1:
            return tensors[self.outputs[0]]
        return tuple([tensors[i] for i in self.outputs])

    def moved(self, places, count):
        """The same for `count` values, of which those at these places are the arguments."""
        to = lambda i: places[i] if i < len(places) else i - len(places) + count
        return self._replace(
            made=[(a, to(b), c) if type(b) is int else (a, b, c) for a, b, c in self.made],
            calls=[(*call, [(i, to(which)) for i, which in places]) for *call, places in self.calls],
            outputs=tuple(map(to, self.outputs)))


class Direct(NamedTuple):
    """A function of PyTorch's, without the Python around it."""

    function: Callable  # of the values of all inputs: it does what may depend on values in tensors
    values: list  # those, but of the tensors [(which input, which value)]
    places: list
    strides: list  # of the outputs
    threads: int
    check: Callable | None

    def __call__(self, values, addresses):
        given = self.values.copy()
        for i, which in self.places:
            given[i] = values[which]
        with torch._C._AutoDispatchBelowAutograd():
            result = self.function(*given)
            if type(result) is not tuple:
                return as_laid(result, self.strides[0])
            return tuple(map(as_laid, result, self.strides))

    def moved(self, places, count):
        return self._replace(places=[(i, places[i]) for i, _ in self.places])


def as_laid(a, strides):
    return a if a.stride() == strides else a.new_empty_strided(a.shape, strides).copy_(a)


def direct(function, to_plain):
    """The same of a function that PyTorch computes: False if the inputs at these places are not plain, but copied."""

    def plan_of(launch, arguments, outputs, check):
        values = [None if isinstance(a, torch.Tensor) else a for a in arguments[:-1]]
        places = [(i, i) for i, a in enumerate(arguments) if isinstance(a, torch.Tensor)]
        strides = [a.stride() for a in (outputs if isinstance(outputs, tuple) else (outputs,))]
        plain = all(_library.plain(arguments[i]) is arguments[i] for i in to_plain)
        return plain and Direct(function, values, places, strides, torch.get_num_threads(), check)

    return plan_of


def plan_of(launch, arguments, outputs, check):
    """The plan of what a launch did, or False if that was not all, or if an address stands for two tensors."""
    tensors = [*arguments, *[a for a, _ in launch.made]]
    addresses = [a.data_ptr() for a in tensors if isinstance(a, torch.Tensor)]
    if launch.computed or not launch.calls or len({*addresses}) < len(addresses):
        return False
    which = {a.data_ptr(): i for i, a in enumerate(tensors) if isinstance(a, torch.Tensor)}
    laid = lambda a: (a.shape, a.stride(), a.dtype)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    as_output = {a.data_ptr(): a for a in outputs}  # what was made, perhaps with its dimensions unfolded
    made = []
    for a, how in launch.made:
        if not how:
            made.append(laid(as_output.get(a.data_ptr(), a)))
            continue
        function, source, *more = how
        i = which.get(source.data_ptr())
        if i is None or i >= len(arguments) or laid(tensors[i]) != laid(source) or a.data_ptr() in as_output:
            return False  # an output of 16 bits is cast after the calls, and a plan copies before them
        made.append((function._op, i, more))
    used = [a.data_ptr() for *_, given in launch.calls for a in given if isinstance(a, torch.Tensor)]
    if not {*which} >= {*used, *as_output}:
        return False
    calls = [(*call, values, [(i, which[values[i]]) for i, a in enumerate(given) if isinstance(a, torch.Tensor)])
             for *call, values, given in launch.calls]
    return Plan(made, calls, tuple(which[a.data_ptr()] for a in outputs), launch.calls[0][-2][-1], check)
