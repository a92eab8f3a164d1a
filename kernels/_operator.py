"""Make an operator of PyTorch, genmini::<name>, from the functions of a room.   kernels/_room.py says what they are.

A backend is chosen inside the operator, where nothing is traced and no gradient is recorded. kernels/_gradient.py puts
the gradient around it.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter

import torch

from . import _backend, _check, _library
from ._door import last_plan, note
from ._fold import folding
from ._plan import as_laid, direct, plan_of, planned
from ._takes import Remembered, agreement

LIBRARY = torch.library.Library("genmini", "DEF")
OPERATORS = {}  # name -> Operator
GRADIENTS = {}  # overload -> its autograd.Function, for an operator called by itself, as in an exported graph


@dataclass(frozen=True, eq=False)
class Operator:
    """genmini::<name>, called with the request of the moment, below autograd: `differentiable` adds the gradient."""

    name: str
    inputs: tuple  # their names in the schema, without the request
    outputs: tuple
    reference: Callable  # of all inputs, in the order of the schema
    overload: Callable  # torch.ops.genmini.<name>.default
    empty: Callable  # of all inputs: empty outputs, with their shapes, dtypes and strides
    takes: str  # kernels/_takes.py
    types: dict  # those of the inputs in the schema: "Tensor", "Optional[Tensor]", "int", ...

    def __call__(self, **named):
        arguments = *self.in_order(named), _backend.requested()
        output = self.overload(*arguments)
        if not torch.compiler.is_dynamo_compiling():
            note(last_plan(), None, arguments, output)
        return output

    def in_order(self, named):
        """The values of these names, in the order of the schema."""
        if named.keys() != set(self.inputs):
            raise TypeError(f"genmini::{self.name} takes {', '.join(self.inputs)}, got {', '.join(named)}")
        return [named[name] for name in self.inputs]


def picked(places):
    """-> what is at these places of a sequence, or has these keys, as a tuple."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: tuple([values[i] for i in places])


def operator(room, schema, *, fake, reference, kernel, cpu=None, check=None, strided="", takes=None):
    """Define genmini::<schema>, which runs on the backend of its request."""
    overload = defined(schema)
    name = schema.partition("(")[0]
    where = f"genmini::{name}"
    *parsed, _ = overload._schema.arguments  # the last is the request
    inputs, outputs = tuple(a.name for a in parsed), tuple(r.name for r in overload._schema.returns)
    if not all(outputs) or len({*inputs, *outputs}) < len(inputs + outputs):
        raise NameError(f"{where} must name every output, and no two arguments alike: {schema}")
    tensors = [a.name for a in parsed if "Tensor" in str(a.type)]
    keep_strides = known(strided, inputs + outputs, f"strided of {where}")

    # the functions of the room, called with the values of all inputs in the order of the schema
    of_inputs = lambda function, *more: function and by_name(function, (*inputs, *more), where)
    empty_outputs = like(fake, inputs, where) if isinstance(fake, str) else of_inputs(fake)
    define, check_values = of_inputs(reference), of_inputs(check or (lambda: None))
    launch, compute = of_inputs(kernel, "backend", "rung"), of_inputs(cpu, "backend", "rung")
    check_kinds = agreement(takes, inputs, tensors, where, outputs) if takes else lambda values: None
    check_new_kinds = Remembered(check_kinds, [inputs.index(n) for n in tensors]) if takes else check_kinds

    decides = next(i for i, a in enumerate(parsed) if str(a.type) == "Tensor")  # the first: its device and dtype
    to_plain = [inputs.index(n) for n in tensors if n not in keep_strides]
    strides_of_fake = bool({*keep_strides} & {*outputs})

    fold, unfold = folding(takes or "", inputs, outputs)

    def laid_out(result, values):
        """What PyTorch computed, contiguous or with the strides of the fake's outputs."""
        many = isinstance(result, tuple)
        outs = result if many else (result,)
        if strides_of_fake:
            wanted = empty_outputs(*map(without_memory, values))
            outs = [as_laid(o, w.stride()) for o, w in zip(outs, wanted if many else (wanted,), strict=True)]
        else:
            outs = [o.contiguous() for o in outs]
        return tuple(outs) if many else outs[0]

    def on_chosen(values, request):
        given = [*values]
        kernel, request = _backend.own(name, request)
        if kernel:
            return laid_out(kernel(values), given)
        choice = _backend.chosen(room.name, values[decides].device, values[decides].dtype, request)
        if choice.backend == "reference" or (choice.backend == "cpu" and not compute):
            return laid_out(define(*values), values)
        for i in to_plain:
            values[i] = plain(values[i])
        if choice.backend != "cpu":
            return launch(*values, choice.backend, choice.rung)
        result = compute(*values, choice.backend, choice.rung)
        return laid_out(result, given) if room.cpu == "PyTorch" else result

    def unchecked(*arguments):
        values, dimensions = fold(arguments[:-1])
        if not torch._C._is_any_autocast_enabled():
            return unfold(on_chosen(values, arguments[-1]), dimensions)
        with _check.without_autocast(values[decides].device):  # a backward pass may be inside, its forward not
            return unfold(on_chosen(values, arguments[-1]), dimensions)

    def by_itself(*arguments):
        """The call of the operator without its front door, with autograd."""
        if not (torch.is_grad_enabled() and requires_gradient(arguments)):
            with torch._C._AutoDispatchBelowAutograd():
                return overload(*arguments)
        if overload not in GRADIENTS or torch._C._are_functorch_transforms_active():
            # a gradient would be dropped in silence
            raise RuntimeError(f"{where} has no gradient here: call its front door in genmini.ops")
        return GRADIENTS[overload].apply(*arguments)

    def checked_fake(*arguments):
        values, dimensions = fold(arguments[:-1])
        check_kinds(values)
        return unfold(empty_outputs(*values), dimensions)

    def of_any_dimensions(*values):
        values, dimensions = fold(values)
        return unfold(define(*values), dimensions)

    of_cpu = [(*inputs, "backend", "rung").index(n) for n in parameters(cpu, (*inputs, "backend", "rung"), where)
              ] if cpu else []
    in_pytorch = room.cpu == "PyTorch" and cpu and direct(cpu, of_cpu, to_plain)
    check_folded = lambda values: check_new_kinds(fold(values)[0])
    on_backend = planned(check_folded, check_values, unchecked, in_pytorch or plan_of)
    LIBRARY.impl(name, on_backend, "CompositeExplicitAutograd")
    LIBRARY.impl(name, by_itself, "Autograd")
    torch.library.register_fake(where, checked_fake, lib=LIBRARY)
    types = {a.name: str(a.type) for a in parsed}
    OPERATORS[name] = Operator(name, inputs, outputs, of_any_dimensions, overload, empty_outputs, takes or "", types)
    return OPERATORS[name]


def defined(schema):
    """The schema, defined with a request as its last argument -> torch.ops.genmini.<name>.default"""
    arguments, _, results = schema.rpartition(") -> ")
    LIBRARY.define(f"{arguments}, str request) -> {results}", tags=[torch.Tag.pt2_compliant_tag])
    return getattr(torch.ops.genmini, schema.partition("(")[0]).default


def plain(value):
    return list(map(_library.plain, value)) if isinstance(value, list) else _library.plain(value)


def like(names, inputs, where):
    """A fake whose outputs have the shapes and dtypes of these inputs."""
    places = [inputs.index(name) for name in known(names, inputs, f"fake of {where}")]
    empty = lambda a: a.new_empty(a.shape)
    return lambda *values: empty(values[places[0]]) if len(places) == 1 else tuple(empty(values[i]) for i in places)


def without_memory(a):
    """A tensor of these strides, by which a fake may decide: `to` would change some."""
    return a.new_empty_strided(a.shape, a.stride(), device="meta") if isinstance(a, torch.Tensor) else a


def by_name(function, names, where):
    """The function, called with a value for each of the names: it gets those that its own parameters name."""
    pick = picked([names.index(name) for name in parameters(function, names, where)])
    return lambda *values: function(*pick(values))


def parameters(function, names, where):
    """The names of the function's parameters; one that is none of `names` must have a default."""
    its = inspect.signature(function).parameters
    needed = [name for name, p in its.items() if name in names or p.default is p.empty]
    return known(needed, names, f"{getattr(function, '__name__', type(function).__name__)} of {where}")


def known(names, all_names, where):
    """These names, or those of a string, if all are known."""
    names = names.split() if isinstance(names, str) else list(names)
    for name in names:
        if name not in all_names:
            raise NameError(f"{where} names {name!r}, which is none of {', '.join(all_names)}")
    return names


def requires_gradient(values):
    """Whether one of these does, or a tensor in a list of them."""
    for a in values:
        if isinstance(a, torch.Tensor):
            if a.requires_grad:
                return True
        elif isinstance(a, list | tuple) and requires_gradient(a):
            return True
    return False
