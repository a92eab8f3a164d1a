"""Go from a front door straight to the plan of its operator, and from a gradient to that of its own.

A front door checks its arguments and calls one operator; a gradient calls one operator of its own; both hand on what it
gives. The second call with values of a kind is noted: if it did just that, the next ones allocate and call the native
function (kernels/_plan.py), and leave out the checks that look at kinds alone, PyTorch's dispatcher and the choice of a
backend. It is so only where nothing watches: no transform, mode, autocast, profiler or forward mode, and plain tensors
on a CPU. Values, bits, gradients and errors are those of the whole way.

In a step of training other work pushes Python out of the caches, and then each of its calls takes 2 us: the whole way
of affine_coupling and its gradient makes 142, this way 20, without those that PyTorch's own code makes.

    test: tests/kernels/test_door.py
"""

import functools
from collections.abc import Callable
from operator import itemgetter
from typing import NamedTuple

import torch
from torch._C import _len_torch_function_stack as functions_watched  # names found at once: each dot is a search
from torch.autograd import _profiler_enabled as profiled
from torch.autograd import forward_ad
from torch.compiler import is_dynamo_compiling

from . import _backend
from ._plan import Kinds, Plan, Recording, here


def last_plan():
    """That of the operator that this thread ran last, or a false value."""
    return getattr(here, "plan", None)


def note(plan, record, arguments, output):
    """Keep that an operator has run, with its plan and what records its gradient, while this thread notes a call."""
    if (calls := getattr(here, "calls", None)) is not None:
        calls.append((plan, record, arguments, output))


def door(front):
    """The front door, through shortcuts."""
    kinds = Kinds()

    @functools.wraps(front)
    def enter(*arguments, **named):
        if is_dynamo_compiling():
            return front(*arguments, **named)
        values = (*arguments, *named.values()) if named else arguments
        return through(kinds, values, tuple(named), front, arguments, named)

    return enter


def through(kinds, values, more, front, arguments, named):
    """front(*arguments, **named), which takes these values: by a shortcut, from the third call of a kind on.

    more: what else decides
    """
    if functions_watched() or profiled() or forward_ad._current_level >= 0:
        return front(*arguments, **named)
    kind, *found = kinds.find(values, (more, torch.is_grad_enabled(), requested := _backend._requested))
    if kind is None:
        result = front(*arguments, **named)
        kinds.add(*found)
        return result
    if (shortcut := kind.way) and shortcut.plan.threads == torch.get_num_threads():
        return shortcut(values, *found)
    if shortcut is not None:
        kind.way = None if shortcut else False
        return front(*arguments, **named)
    outer, here.calls = getattr(here, "calls", None), []  # a user's kernel or hook may come here inside
    try:
        with Recording() as seen:
            result = front(*arguments, **named)
        calls = here.calls
    finally:
        here.calls = outer
    still = _backend._requested == requested  # another thread may have asked for another backend meanwhile
    kind.way = still and not seen.computed and shortcut_of(calls, seen.made, values, result)
    return result


class Shortcut(NamedTuple):
    plan: Plan  # of the tensors among the values
    record: Callable | None  # ((this, tensors, addresses), *arguments of the operator) -> outputs that have a gradient
    arguments: itemgetter  # of the operator, from (*values, *constants)
    constants: tuple
    sums: list  # (function, which value, what else it takes) each: what a gradient computes beside its operator
    result: Callable | None  # from (*outputs, *sums, *values, None); None: the outputs
    backward: Kinds  # what `through` knows of the gradient

    def __call__(self, values, tensors, addresses):
        plan, record = self.plan, self.record
        if record or plan.check:
            arguments = self.arguments((*values, *self.constants))
            if plan.check:
                plan.check(*arguments[:-1])
        outputs = record((self, tensors, addresses), *arguments) if record else plan(tensors, addresses)
        if self.result is None:
            return outputs
        all_results = [*outputs] if type(outputs) is tuple else [outputs]
        for function, which, more in self.sums:
            all_results.append(function(values[which], *more))
        return self.result((*all_results, *values, None))


def shortcut_of(calls, made, values, result):
    """The shortcut to what a call did, or False if it did more than call one operator that has a plan."""
    if len(calls) != 1:
        return False
    [(plan, record, arguments, outputs)] = calls
    if not plan:
        return plan
    as_it_is = result is outputs
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    given = {id(a): i for i, a in enumerate(values) if isinstance(a, torch.Tensor)}
    if len(given) < sum(isinstance(a, torch.Tensor) for a in values):
        return False  # one tensor for two values: which of them the operator took is not known
    sums = [(a, how) for a, how in made if how and id(how[1]) in given]
    outputs = (*outputs, *[a for a, _ in sums])
    gives = {id(a): i for i, a in enumerate((*outputs, *values)) if isinstance(a, torch.Tensor)}
    results = result if isinstance(result, tuple) else (result,)
    taken = [a for a in arguments if isinstance(a, torch.Tensor)]
    if (len(gives) < len(outputs) + len(given) or not {*given} >= {*map(id, taken)}
            or not {id(None), *gives} >= {*map(id, results)}):
        return False
    constants = [a for a in arguments if not isinstance(a, torch.Tensor)]
    numbers = iter(range(len(values), len(values) + len(constants)))
    places = [given[id(a)] if isinstance(a, torch.Tensor) else next(numbers) for a in arguments]
    whence = [gives.get(id(a), len(outputs) + len(values)) for a in results]
    order = {i: which for which, i in enumerate(given.values())}  # of a value, among the tensors
    moved = plan.moved([order[given[id(a)]] for a in taken], len(given))
    return Shortcut(moved, record, itemgetter(*places), tuple(constants),
                    [(how[0]._op, given[id(how[1])], how[2:]) for _, how in sums],
                    None if as_it_is and not sums else itemgetter(*whence), Kinds())
