"""A model of yours computes with the operators of genmini: safely, reversibly, and only where that is faster.

    report = genmini.swap(model)             each module that a room computes faster; print(report) says which, and why
    genmini.unswap(model)                    as it was, to the bit
    with genmini.swapped(model): ...         inside only
    print(genmini.verify(model, inputs))     the same outputs and gradients? how much faster, measured on your inputs

A module is swapped if its tensors look like those of a room, if copies of it answer probes as the room does (outputs,
gradients, state, in training and in evaluation), and if it is then faster on this machine. docs/swap.md says what a
careful user asks before trusting that.

    genmini/swap/rooms.py        what a masked layer computes
    genmini/swap/masks.py        whether a mask is the one that was seen, and its degrees
    genmini/swap/quantizer.py    what a quantiser computes
    genmini/swap/known.py        classes of libraries that probes alone do not explain
    genmini/swap/walk.py         how an autoregressive flow draws without D passes
    genmini/swap/pixels.py       how a PixelCNN draws without D passes; what it computes: genmini/swap/tape.py
    genmini/swap/gate.py         probes: copies, answers, times
    genmini/swap/forward.py      what takes the place of a module's forward, and why so
    genmini/swap/hints.py        lines to write, for what is no module
    genmini/swap/report.py       the table
"""

import contextlib
import copy
import functools
import sys
import types

import torch

from genmini import kernels, layers
from genmini.kernels import _check

from . import gate
from .forward import Swapped, found, install, remove
from .hints import hints
from .known import recognise_known
from .pixels import draw_pixels
from .quantizer import codebooks, recognise_quantizer
from .report import Report, Row
from .rooms import Unlike, may_be_masked, recognise_masked, unlike
from .walk import recognise_flow

__all__ = ["Report", "Row", "draw_pixels", "swap", "swapped", "unswap", "verify"]


def swap(model, backend="auto", *, inputs=None, call=None, measure=True, sampling=False):
    """Let the rooms compute what they compute faster in a model, in place; -> a Report.

    backend: of the rooms, as in `kernels.use`; "auto" follows what is chosen when the model is called
    inputs: those of a call of the model, a tensor or a tuple. The modules' own are taken from that call, as gains
    depend on sizes; without it they are of usual sizes. What else of the call a room could do is advised
    call: call(model, *inputs) is that call, if it is not model(*inputs)
    measure: False swaps what agrees, whether it gains or not
    sampling: True also lets autoregressive flows of zuko draw in one walk through their networks, in the place of a
    pass a number. To probe and to time that takes some twenty draws of the owner's. Of a PixelCNN the line is advised

        model = nn.Sequential(StrangersMaskedLinear(784, 1000), nn.ReLU())
        print(genmini.swap(model, inputs=torch.rand(100, 784)))
    """
    gate.check(model)
    _check.flag("measure", measure)
    _check.flag("sampling", sampling)
    if call is not None and inputs is None:
        raise ValueError("call says how the model takes inputs, and there are none: give inputs too")
    for room in ("masked_linear", "masked_conv2d", "nearest_code"):
        for device in {tensor.device for tensor in gate.tensors(model).values()}:
            with kernels.use(backend):
                kernels.chosen(room, device)  # raises if it cannot
    shapes = calls(model, together(inputs), call) if inputs is not None else {}
    rows = []
    for name, module in model.named_modules():
        if type(module).__module__ != layers.__name__:
            with gate.alone(module):
                rows += [row] if (row := consider(name, module, shapes.get(name), backend, measure, sampling)) else []
    if sampling and any(row.room == "masked_conv2d" for row in rows):
        rows += [Row("", "", "pixelcnn_sample", "advised", "genmini.swap.draw_pixels(network, torch.rand(N, 1, H, W), "
                     "values) draws without a pass a pixel")]
    if inputs is not None:
        with gate.alone(model):
            rows += hints(gate.copy_of(model), together(inputs), {row.room.partition(" ")[0] for row in rows}, call)
    return Report(rows)


def unswap(model):
    """Give every module its owner's forward back; -> the model, which is as if it had never been swapped.

        genmini.unswap(model)
        torch.save(model, "mine.pt")    # who loads it needs no genmini
    """
    gate.check(model)
    for module in model.modules():
        if isinstance(vars(module).get("forward"), Swapped):
            remove(module)
    return model


@contextlib.contextmanager
def swapped(model, backend="auto", **kwargs):
    """Swapped inside, by the arguments of `swap`, and afterwards as before; gives the Report. What was swapped before
    stays swapped.

        with genmini.swapped(model) as report:
            loss(model(x)).backward()
    """
    gate.check(model)
    before = found(model)
    try:
        yield swap(model, backend, **kwargs)
    finally:
        for name, one in found(model).items():
            if name not in before:
                remove(one.module)


def verify(model, inputs, call=None):
    """A swapped model beside what it was before, on inputs of yours: -> a Report with measured gains.

    Outputs and gradients of all parameters are compared in training and in evaluation, by the rule of the gate
    (genmini/swap/gate.py); both are timed in turn, in training, forward and backward, and the median of the ratios is
    the gain. Copies run, not the model.

    call: call(model, *inputs) is what is compared and timed, if it is not model(*inputs)

        genmini.swap(model)
        print(genmini.verify(model, images, lambda model, x: model.loss(x).mean()))
    """
    gate.check(model)
    inputs = together(inputs)
    report = Report([Row(name, type(one.module).__name__, one.room.room, "swapped")
                     for name, one in found(model).items()], same=True)
    with gate.alone(model):
        for training in (False, True):
            compare(report, model, inputs, call, training)
        if report.rows:
            time(report, model, inputs, call)
    return report


def compare(report, model, inputs, call, training):
    fresh = lambda: gate.copy_of(model).train(training)
    after, before = gate.answers(fresh(), inputs, call=call), gate.answers(unswap(fresh()), inputs, call=call)
    wide = [x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in inputs]
    try:
        exact = gate.answers(gate.to(unswap(fresh()), torch.float64), wide, call=call, wide=True)
    except Exception as error:  # of a stranger
        exact, report.judge = None, f"before (float64: {gate.reason(error)})"
    most = torch.finfo(gate.like(model).dtype).eps ** 0.5  # without float64 to judge
    if what := gate.difference(before, after, exact, most):
        report.same, report.differs = False, f"{what} differs {'in training' if training else 'in evaluation'}"
    for when, answer in (("before", before), ("after", after)):
        for what, far in gate.distances(answer[0], (exact or before)[0]).items():
            report.error[f"{what} {when}"] = max(far, report.error.get(f"{what} {when}", 0))


def time(report, model, inputs, call):
    after, before = gate.copy_of(model).train(), unswap(gate.copy_of(model).train())
    run, shapes = call or called, calls(model, inputs, call)
    report.measured = gate.times_as_fast(lambda *x: run(before, *x), lambda *x: run(after, *x), inputs, 2)
    for row in report.rows:
        one = after.get_submodule(row.name)
        like = gate.like(one)
        if row.name in shapes:
            x = gate.probe(shapes[row.name], like.dtype, like.device)
            row.measured = gate.times_as_fast(one.forward.owner, one.forward, [x])


def called(model, *inputs):
    return model(*inputs)


def together(inputs):
    return list(inputs) if isinstance(inputs, tuple | list) else [inputs]


@torch.no_grad()
def calls(model, inputs, call=None):
    """{name of a module: the shape of its largest input} in one call of a copy of the model"""
    shapes, with_hooks = {}, gate.copy_of(model).eval()
    for name, module in with_hooks.named_modules():
        def see(module, args, name=name):
            if args and isinstance(args[0], torch.Tensor):
                shapes[name] = max(shapes.get(name, args[0].shape), args[0].shape, key=torch.Size.numel)
        module.register_forward_pre_hook(see)
    (call or called)(with_hooks, *inputs)
    return shapes


def consider(name, module, shape, backend, measure, sampling=False):
    """What becomes of a module: a Row, or None if it looks like nothing that a room computes."""
    row = Row(name, type(module).__name__, "", "left")
    if isinstance(now := vars(module).get("forward"), Swapped):
        row.room, row.state, row.why = now.room.room, "swapped", "it was before"
        return row
    if now is not None:
        row.why = "its instance has a forward already, put there by another"
        return row if may_be_masked(module) or codebooks(module) else None
    try:
        room = (recognise_known(module, shape) or recognise_masked(module, shape) or recognise_quantizer(module, shape)
                or sampling and recognise_flow(module, shape))
        if not room:
            return None
        row.room = room.room
        if gate.hooked(module):
            raise unlike("a child of it has hooks, and a room does not call the child", room.room)
        put = lambda into: install(into, copy.deepcopy(room), backend)
        like = gate.like(module)
        base = gate.perturbed(module, room.keep, room.counts, room.small)
        row.why = gate.refusal(base, put, room.probes, like.dtype, room.call)
        if not row.why and measure:
            row.expected = gain(module, put, gate.probe(room.usual, like.dtype, like.device), room.call)
            row.why = "" if row.expected > 1.05 else f"no faster here, of {room.usual}"
    except Unlike as error:
        row.room, row.why = error.room, str(error)
    except Exception as error:  # of a stranger: what cannot be copied or called is not swapped
        row.why = f"it cannot be probed: {gate.reason(error)}"
    if not row.why:
        row.state = "swapped"
        put(module)
    elif row.room == "nearest_code" and "which the call changes" in row.why:
        row.state, row.why = "advised", "its codes move by themselves: write layers.VectorQuantizer(K, D, decay=0.99)"
    return row


def gain(module, put, x, call=None):
    """Times as fast as before: a forward and a backward pass of the module"""
    before, after = gate.copy_of(module).train(), gate.copy_of(module).train()
    put(after)
    of = lambda module: functools.partial(call, module) if call else module.forward
    return gate.times_as_fast(of(before), of(after), [x.requires_grad_()])


class _Door(types.ModuleType):
    """`genmini.swap` is this package, and is called as its function."""

    def __call__(self, model, backend="auto", **kwargs):
        return swap(model, backend, **kwargs)


_Door.__call__.__doc__ = swap.__doc__
sys.modules[__name__].__class__ = _Door
