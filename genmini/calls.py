"""The calls of a step in their order, each with its time forward and, where the step went back through it, backward.

    for call in calls(every, of_a_call, last=4): print(call.name, call.shapes, call.seconds, call.learns)

Autograd numbers its nodes along the forward pass: an operator bears the number that is free when it begins, and so do
those before it that make no node. The last to bear a number made the node; a backward event bears its node's number.

    used by: genmini/profiling.py, genmini/swap/hints.py    test: tests/project/test_advice.py
"""

from dataclasses import dataclass

from genmini import operations


@dataclass(frozen=True)
class Call:
    """One call of an operator."""

    name: str  # without its name space, and without the _ of those that work in place
    shapes: list  # of its arguments
    scalars: list  # the values of those that are no tensors
    seconds: float  # forward and backward
    dtype: object = None  # of its first tensor
    rows: tuple = ()  # (operator, shapes) of the profile that it is part of, its own first

    learns = property(lambda call: len(call.rows) > 1)  # the step went backward through it


def calls(every, of_a_call, last):
    """every: (outermost event, whether it is forward, number of its step); of_a_call: {(operator, shapes): seconds};
    last: the number of the step that is read -> [Call]"""
    of_step = [(event, forward) for event, forward, i in every if i == last]
    maker, of_node, backward = {}, {}, {}
    for event, forward in of_step:
        if forward:
            maker |= dict.fromkeys((one.sequence_nr for one in (event, *below(event))), event)
        else:
            of_node.setdefault(_node(event), []).append(row(event))
    for node, rows in of_node.items():
        if node in maker and node != -1:
            backward.setdefault(id(maker[node]), []).extend(rows)
    return [_call(event, (row(event), *backward.get(id(event), ())), of_a_call)
            for event, forward in of_step if forward]


def _call(event, rows, of_a_call):
    dtype = next((operations.DTYPES[name] for name in event.input_dtypes if name in operations.DTYPES), None)
    return Call(event.name.partition("::")[2].removesuffix("_"), event.input_shapes, event.concrete_inputs,
                sum(of_a_call[each] for each in rows), dtype, rows)


def _node(event):
    """The number of the node of autograd that called a backward event; -1 if none did."""
    while event.cpu_parent is not None and event.sequence_nr == -1:
        event = event.cpu_parent
    return event.sequence_nr


def row(event):
    """As ("aten::linear", "64x100, 50x100")"""
    return event.name, shown(event.input_shapes)


def below(event):
    for child in event.cpu_children:
        yield child
        yield from below(child)


def shown(shapes):
    """[[64, 100], [50, 100], []] -> 64x100, 50x100"""
    known = [shape for shape in shapes if shape and not isinstance(shape[0], list)]
    return ", ".join("x".join(map(str, shape)) for shape in known[:3])
