"""Tests of genmini.swap on modules of strangers: what is swapped answers, learns, is kept and copied as before; what
only looks so is left."""

import copy
import inspect
import io
import pickle

import numpy as np
import pytest
import strangers
import torch
from alike import agree, gate_copy, learn_the_same, run
from torch import nn

import genmini
from genmini.swap import forward, quantizer, rooms

K, J, D = 12, 10, 6
RASTER = torch.tensor([[1.0, 1, 1], [1, 0, 0], [0, 0, 0]])


def by_setting():
    layer = strangers.MaskedBySetting(K, J)
    layer.set_mask(strangers.staircase(J, K).numpy())
    return layer


def conv(kind, **kwargs):
    return strangers.MaskedConv(kind, 4, 6, 3, **dict(padding=1) | kwargs)


FLAT, IMAGE = (5, K), (2, 4, 6, 5)
MADE = {  # what is swapped: module, the shape of an input, room
    "usual": (lambda: strangers.Masked(K, J), FLAT, "masked_linear"),
    "without bias": (lambda: strangers.Masked(K, J, bias=False), FLAT, "masked_linear"),
    "set by .data": (by_setting, FLAT, "masked_linear"),
    "wrapper": (lambda: strangers.MaskedWrapper(K, J), FLAT, "masked_linear"),
    "from scratch": (lambda: strangers.MaskedFromScratch(K, J), FLAT, "masked_linear"),
    "local": (lambda: strangers.Local(200, 300), (5, 200), "masked_linear by tiles"),
    "kind A": (lambda: conv("A"), IMAGE, "masked_conv2d"),
    "kind B": (lambda: conv("B", bias=False), IMAGE, "masked_conv2d"),
    "broadcast": (lambda: strangers.MaskedConvBroadcast(4, 6, RASTER), IMAGE, "masked_conv2d"),
    "quantiser of images": (lambda: strangers.VectorQuantizer(7, D), (3, D, 4, 2), "nearest_code"),
    "quantiser of vectors": (lambda: strangers.Codes(7, D), (9, D), "nearest_code"),
    "quantiser, D last to first": (lambda: strangers.LastToFirst(7, D), (2, 3, 4, D), "nearest_code"),
}
each = pytest.mark.parametrize("make, shape, room", MADE.values(), ids=MADE)


def swapped(module, **kwargs):
    report = genmini.swap(module, measure=False, **kwargs)
    assert [row.state for row in report.rows] == ["swapped"], report
    return module


def state(module):
    return {name: (id(t), t.detach().clone()) for name, t in [*module.named_parameters(), *module.named_buffers()]}


@each
def test_values_gradients_and_state_are_those_of_before(make, shape, room):
    module = make()
    other, before, keys = copy.deepcopy(module), state(module), list(module.state_dict())
    attributes, kind = set(vars(module)), type(module)
    report = genmini.swap(module, measure=False)
    assert [(row.name, row.room, row.state) for row in report.rows] == [("", room, "swapped")], report
    after = state(module)
    assert all(after[name][0] == at and torch.equal(after[name][1], t) for name, (at, t) in before.items())
    assert list(module.state_dict()) == keys and type(module) is kind
    x = torch.randn(shape)
    agree(module, other, x)
    agree(module.eval(), other.eval(), x)
    genmini.unswap(module)
    assert set(vars(module)) == attributes and "forward" not in vars(module)
    torch.testing.assert_close(run(module, x), run(other, x), rtol=0, atol=0)


@each
def test_the_room_computes_it(make, shape, room, monkeypatch):
    module, seen = swapped(make()), []
    at, name = {"nearest_code": (quantizer.ops, room),
                "masked_linear by tiles": (rooms, "only_where")}.get(room, (rooms.ops, room))
    operator = getattr(at, name)
    monkeypatch.setattr(at, name, lambda *args: seen.append(room) or operator(*args))
    module(torch.randn(shape))
    assert {*seen} == {room}


@each
def test_twenty_steps_learn_the_same(make, shape, room):
    module = make()
    other, exact = copy.deepcopy(module), copy.deepcopy(module).double()
    learn_the_same(swapped(module), other, exact, shape)


@each
def test_copies_pickles_and_files_are_swapped_and_of_their_own(make, shape, room, tmp_path):
    module = swapped(make())
    torch.save(module, tmp_path / "m.pt")
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    x = torch.randn(shape)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)),
                  torch.load(tmp_path / "m.pt", weights_only=False)):
        assert other.forward.module is other and isinstance(other.forward, forward.Swapped)
        agree(other, module, x)
        with torch.no_grad():
            [p.zero_() for p in other.parameters() if p.requires_grad]
        assert any(p.any() for p in module.parameters())
        assert "forward" not in vars(genmini.unswap(other)) and "forward" in vars(module)
    buffer.seek(0)
    make().load_state_dict(torch.load(buffer))


@pytest.mark.parametrize("name", ["usual", "local", "broadcast", "quantiser of vectors"])
def test_it_compiles_without_a_break(name):
    make, shape, room = MADE[name]
    module, x = swapped(make()), torch.randn(shape)
    compiled = torch.compile(copy.deepcopy(module), fullgraph=True, backend="aot_eager")
    agree(compiled, module, x)


@pytest.mark.parametrize("name", ["usual", "local", "kind B"])
def test_it_works_with_checkpoints_functional_calls_and_exports(name):
    make, shape, room = MADE[name]
    module, x = swapped(make()), torch.randn(shape)
    module(x).sum().backward()
    y, gradient = module(x), module.weight.grad.clone()
    module.zero_grad()
    torch.utils.checkpoint.checkpoint(module, x, use_reentrant=False).sum().backward()
    torch.testing.assert_close(module.weight.grad, gradient)
    parameters = dict(module.named_parameters())
    of = torch.func.grad(lambda parameters: torch.func.functional_call(module, parameters, (x,)).sum())(parameters)
    torch.testing.assert_close(of["weight"], gradient)
    torch.testing.assert_close(torch.export.export(module, (x,)).module()(x), y)
    assert inspect.signature(module.forward) == inspect.signature(genmini.unswap(module).forward)


def test_data_parallel_training_reduces_its_gradients(tmp_path):
    module, x = strangers.Masked(K, J), torch.randn(FLAT)
    other = copy.deepcopy(module)
    swapped(module)
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        agree(nn.parallel.DistributedDataParallel(module), other, x)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", ["usual", "local", "kind B"])
def test_compiled_code_sees_a_mask_that_changes(name):
    make, shape, room = MADE[name]
    module = swapped(make())
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    compiled(torch.randn(shape))
    module.mask.data.copy_(torch.rand_like(module.mask) < 0.5)
    with pytest.raises(RuntimeError, match="a mask has changed"):
        compiled(torch.randn(shape))


def test_a_mask_that_its_owner_sets_again_is_followed():
    module = by_setting()
    other = copy.deepcopy(module)
    swapped(module)
    turned = strangers.staircase(J, K).flip(1).numpy()
    for mask in (turned, np.eye(J, K), turned):  # no degrees describe the second: its owner's forward computes
        module.set_mask(mask)
        other.set_mask(mask)
        agree(module, other, torch.randn(FLAT))


def test_a_number_that_its_owner_changes_is_followed():
    module = strangers.VectorQuantizer(7, D)
    other = copy.deepcopy(module)
    swapped(module)
    module.beta = other.beta = 2.0
    agree(module, other, torch.randn(3, D, 4, 2))
    module = swapped(strangers.MaskedConvBroadcast(4, 6, RASTER))
    module.conv.padding = (1, 1)  # of its child, and a tuple
    assert not module.forward.unchanged()


def test_inputs_of_dimensions_that_were_not_probed_are_its_owners():
    module = strangers.MaskedFromScratch(K, J)  # torch.addmm takes matrices
    swapped(module)
    with pytest.raises(RuntimeError, match="must be a matrix"):
        module(torch.randn(2, 3, K))
    with pytest.raises(RuntimeError, match="must be a matrix"):
        genmini.unswap(module)(torch.randn(2, 3, K))


def test_hooks_run_and_none_runs_on_probes():
    module, seen = strangers.Masked(K, J), []
    module.register_forward_hook(lambda module, args, y: seen.append("forward"))
    module.register_forward_pre_hook(lambda module, args: (2 * args[0],))
    module.register_full_backward_hook(lambda module, dx, dy: seen.append("backward"))
    other, x = copy.deepcopy(module), torch.randn(FLAT)
    swapped(nn.Sequential(module), inputs=x)
    assert seen == []
    agree(module, other, x)
    assert seen == ["forward", "backward"] * 3  # the third is in float64


def test_hooks_of_a_child_run():
    seen, x = [], torch.randn(3, D, 4, 2)
    module = swapped(strangers.VectorQuantizer(7, D))
    module.embedding.register_forward_pre_hook(lambda *_: seen.append("called"))
    assert not module.forward.unchanged()  # its owner's forward runs
    genmini.unswap(module)
    (row,) = genmini.swap(module, measure=False, inputs=x).rows
    assert row.state == "left" and "a child of it has hooks" in row.why and seen == []


@pytest.mark.parametrize("of", [torch.nn.utils.weight_norm, torch.nn.utils.parametrizations.weight_norm,
                                torch.nn.utils.parametrizations.spectral_norm])
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_norms_of_the_weight_work_before_and_after_a_swap(of, first):
    torch.manual_seed(1)
    module = strangers.Masked(K, J)
    if first:
        module = of(module)
    swapped(module)
    if not first:
        module = of(module)
    other, x = genmini.unswap(gate_copy(module)), torch.randn(FLAT)
    agree(module, other, x)
    assert "forward" not in vars(other)


def test_a_forward_that_another_put_there_is_left():
    """As accelerate and others do: a copy of the module would share it."""
    module = strangers.Masked(K, J)
    mine = module.forward = lambda x: strangers.Masked.forward(module, x)
    (row,) = genmini.swap(module, measure=False).rows
    assert row.state == "left" and "put there by another" in row.why and vars(module)["forward"] is mine


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_dtype_is_kept(dtype):
    module = strangers.Masked(K, J).to(dtype)
    swapped(module)
    assert module(torch.randn(FLAT, dtype=dtype)).dtype == dtype


def test_autocast_computes_in_its_dtype():
    module, x = strangers.Masked(K, J), torch.randn(FLAT)
    other = copy.deepcopy(module)
    swapped(module)
    with torch.autocast("cpu", torch.bfloat16):
        y, wanted = module(x), other(x)
    assert y.dtype == wanted.dtype == torch.bfloat16
    torch.testing.assert_close(y, wanted)


LEFT = {  # what only looks so: module, a part of the reason
    "in place": (lambda: strangers.MaskedInPlace(K, J), "masks its weight in place"),
    "zeroed once": (lambda: strangers.MaskedOnce(K, J), "uses its weight as it is"),
    "a factor that learns": (lambda: strangers.Scaled(K, J), "computes something else"),
    "a factor that is 1 now": (lambda: strangers.Scaled(K, J, learnt=False), "computes something else"),
    "dropout": (lambda: strangers.Dropped(K, J), "it is random"),
    "a mask that changes": (lambda: strangers.Cycling(K, J), "in training"),
    "a random mask": (lambda: strangers.Resampled(K, J), "computes something else"),
    "not nested": (lambda: with_mask(torch.eye(J, K)), "no degrees describe mask"),
    "not 0 and 1": (lambda: with_mask(torch.full((J, K), 0.5)), "other numbers than 0 and 1"),
    "dilation": (lambda: conv("B", padding=2, dilation=2), "computes something else"),
    "stride": (lambda: conv("B", stride=2), "computes something else"),
    "no padding": (lambda: conv("B", padding=0), "computes something else"),
    "circular": (lambda: conv("B", padding_mode="circular"), "computes something else"),
    "in place, images": (lambda: strangers.MaskedConvInPlace("A", 4, 6, 3, padding=1), "masks its weight in place"),
    "no raster": (lambda: strangers.MaskedConvBroadcast(4, 6, RASTER.t()), "no raster mask"),
    "farthest code": (lambda: strangers.Farthest(7, D), "not the nearest"),
}


def with_mask(mask):
    module = strangers.Masked(K, J)
    module.mask.copy_(mask)
    return module


@pytest.mark.parametrize("make, why", LEFT.values(), ids=LEFT)
def test_what_only_looks_so_is_left_and_named(make, why):
    module = make()
    before, attributes, random = state(module), dict(vars(module)), torch.get_rng_state()
    (row,) = genmini.swap(module, measure=False).rows
    assert row.state == "left" and why in row.why, row
    assert vars(module) == attributes and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(state(module)[name][1], t) for name, (_, t) in before.items())


def test_moving_averages_are_advised():
    (row,) = genmini.swap(strangers.Averaged(7, D), measure=False).rows
    assert row.state == "advised" and "layers.VectorQuantizer" in row.why


def test_ordinary_modules_are_not_mentioned():
    model = nn.Sequential(nn.Linear(3, 4), nn.Conv2d(1, 1, 3), nn.Embedding(3, 4), nn.BatchNorm1d(4), nn.LSTM(3, 4),
                          nn.MultiheadAttention(4, 2), genmini.layers.MaskedConv2d(1, 1, 3))
    assert genmini.swap(model).rows == [] and "no module here" in str(genmini.swap(model))
