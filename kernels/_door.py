"""Go from a front door straight to the plan of its operator, and from a gradient to that of its own.

A front door checks its arguments and calls one operator; a gradient calls one operator of its own; both hand on what it
gives. The second call with a signature is noted: if it did just that, the next ones allocate and call the native
function (kernels/_plan.py), and leave out the checks that look at kinds alone, PyTorch's dispatcher and the choice of a
backend. It is so only where nothing watches: no transform, mode, autocast, profiler or forward mode, and plain tensors
on a CPU. Values, bits, gradients and errors are those of the whole way.

In a step of training other work pushes Python out of the caches, and then each of its calls takes 2 us: the whole way
of affine_coupling and its gradient makes 160, this way 15.

    test: tests/kernels/test_door.py
"""

import functools
import threading
from collections.abc import Callable
from operator import itemgetter
from typing import NamedTuple

import torch

from . import _backend
from ._plan import MOST, Plan, Recording, signature

noting = threading.local()  # .calls in this thread, while one is noted: (operator, its recording, arguments, output)
USUAL = {torch._C._dispatch_tls_local_include_set().raw_repr()}  # what PyTorch's dispatcher heeds in a thread
with torch.inference_mode():
    USUAL.add(torch._C._dispatch_tls_local_include_set().raw_repr())


def note(*call):
    """Tell who notes the calls of this thread, if anybody does."""
    if (calls := getattr(noting, "calls", None)) is not None:
        calls.append(call)


def door(front):
    """The front door, through shortcuts."""
    known = {}

    @functools.wraps(front)
    def enter(*arguments, **named):
        if torch.compiler.is_dynamo_compiling():
            return front(*arguments, **named)
        whole, values = functools.partial(front, *arguments, **named), (*arguments, *named.values())
        return through(known, whole, values, more=tuple(named))

    return enter


def through(known, whole, values, more):
    """whole(), which takes these values and more: by a shortcut, from the third call of a signature on.

    known: {signature: its shortcut; None once it has passed; False where there can be none}
    """
    key, addresses = signature(values)
    if (key is None or torch._C._dispatch_tls_local_include_set().raw_repr() not in USUAL
            or torch._C._len_torch_function_stack() or torch._C._is_any_autocast_enabled()
            or torch.autograd._profiler_enabled() or torch.autograd.forward_ad._current_level >= 0):
        return whole()
    key = key, more, torch.is_grad_enabled(), _backend._requested
    shortcut = known.get(key)
    if shortcut and shortcut.plan.threads == torch.get_num_threads():
        return shortcut(values, addresses)
    if shortcut is None and key in known:
        outer, calls = getattr(noting, "calls", None), []  # a user's kernel or hook may come here inside
        noting.calls = calls
        try:
            with Recording() as seen:
                result = whole()
        finally:
            noting.calls = outer
        still = _backend._requested == key[-1]  # another thread may have asked for another backend meanwhile
        known[key] = still and not seen.computed and shortcut_of(calls, seen.made, values, result)
        return result
    result = whole()
    if shortcut is not False:
        if len(known) >= MOST:
            known.clear()
        known[key] = None
    return result


class Shortcut(NamedTuple):
    plan: Plan  # from the addresses of the values
    record: Callable | None  # ((this, values, addresses), *arguments of the operator) -> outputs that have a gradient
    arguments: itemgetter  # of the operator, from (*values, *constants)
    constants: tuple
    sums: list  # (function, which value, what else it takes) each: what a gradient computes beside its operator
    result: itemgetter  # from (*outputs, *sums, *values, None)
    backward: dict  # what `through` knows of the gradient

    def __call__(self, values, addresses):
        arguments = self.arguments((*values, *self.constants))
        if self.plan.check:
            self.plan.check(*arguments[:-1])
        outputs = self.record((self, values, addresses), *arguments) if self.record else self.plan(values, addresses)
        all_results = [*outputs] if type(outputs) is tuple else [outputs]
        for function, which, more in self.sums:
            all_results.append(function(values[which], *more))
        return self.result((*all_results, *values, None))


def shortcut_of(calls, made, values, result):
    """The shortcut to what a call did, or False if it did more than call one operator that has a plan."""
    if len(calls) != 1:
        return False
    [(operator, record, arguments, outputs)] = calls
    plan = operator.plans.get(signature(arguments)[0])
    if not plan:
        return False
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
    return Shortcut(plan.moved(places, len(values)), record, itemgetter(*places), tuple(constants),
                    [(how[0]._op, given[id(how[1])], how[2:]) for _, how in sums], itemgetter(*whence), {})
