"""Whatever is asked of a front door with a shortcut, it answers, or raises, what the whole way does."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from doors import DOORS, SAMPLERS, Seen, of_door, results, same, warm

from genmini import kernels

each_door = pytest.mark.parametrize("name", DOORS)


class Mine(torch.Tensor):
    pass


@pytest.fixture
def warmed(name):
    with kernels.use("cpu"):
        warm(lambda: of_door(name, 3))
        with torch.no_grad():
            warm(lambda: of_door(name, 3))
        yield


def answer(inputs, call):
    """What comes out, with types and whether it has a gradient; or what is raised."""
    try:
        outs = call(*inputs)
        kinds = [(type(o), o.dtype, o.device, o.requires_grad, o.is_inference(), o.is_leaf)
                 for o in (outs if isinstance(outs, tuple) else (outs,))]
        return kinds, results(inputs, call)
    except Exception as error:
        return type(error), str(error)


def alike(inputs, call):
    with Seen():
        whole = answer(inputs, call)
    for _ in range(3):
        got = answer(inputs, call)
        assert got[0] == whole[0]
        if isinstance(whole[1], str):
            assert got[1] == whole[1]
        elif not any(o is not None and o.device.type == "meta" for o in whole[1]):
            same(whole[1], got[1])


def leaves_of(name, seed):
    inputs, call = DOORS[name](seed)
    return [a.requires_grad_() for a in inputs], call


@each_door
def test_each_input_alone_may_require_a_gradient(name, warmed):
    inputs, call = DOORS[name](0)
    alike(inputs, call)
    for i in range(len(inputs)):
        alike([a.detach().requires_grad_(i == j) for j, a in enumerate(inputs)], call)


@each_door
def test_what_was_first_met_without_a_gradient_gets_one_later(name):
    inputs, call = DOORS[name](0)
    leaves = [a.double() for a in inputs]  # no test before has seen these with a gradient
    with kernels.use("cpu"):
        warm(lambda: call(*leaves))
        leaves = [a.requires_grad_() for a in leaves]
        with torch.no_grad():
            warm(lambda: call(*leaves))
        alike(leaves, call)


@each_door
def test_one_tensor_may_stand_for_all_of_its_shape(name, warmed):
    inputs, call = leaves_of(name, 0)
    for one in inputs:
        alike([one if a.shape == one.shape else a for a in inputs], call)
        alike([a if a is one or a.shape != one.shape else one.view_as(one) for a in inputs], call)
    alike(inputs, call)


@each_door
def test_modes_of_gradients(name, warmed):
    inputs, call = leaves_of(name, 0)
    with torch.no_grad():
        alike(inputs, call)
    with torch.inference_mode():
        alike(inputs, call)
        inside = [a.clone() for a in inputs]
    alike(inside, call)  # tensors of inference, where a gradient is recorded
    alike([inside[0], *inputs[1:]], call)


@each_door
def test_other_kinds_of_tensors(name, warmed):
    inputs, call = DOORS[name](0)
    for change in (lambda a: a.as_subclass(Mine), lambda a: a.to("meta"), lambda a: a.double(),
                   lambda a: a[None], lambda a: a.to_sparse(), lambda a: torch.complex(a, -a).conj().imag,
                   lambda a: a.expand(2, *a.shape)[1], lambda a: a[..., :-1] if a.dim() else None):
        for i in range(len(inputs)):
            alike([change(a) if i == j else a for j, a in enumerate(inputs)], call)
    alike([a[:0] if a.dim() else a for a in inputs], call)


@each_door
def test_any_strides_and_addresses(name, warmed):
    inputs, call = DOORS[name](0)
    turned = [a.mT.contiguous().mT if a.dim() > 1 else a for a in inputs]
    moved = [torch.cat([a.flatten(), a.flatten()[:1]])[1:].reshape(a.shape) for a in inputs]  # 4 bytes beyond 16 n
    wide = [a[..., None].expand(*a.shape, 2)[..., 0] for a in inputs]
    for layout in (turned, moved, wide):
        alike([a.detach().requires_grad_() for a in layout], call)
        alike([layout[0], *inputs[1:]], call)


@pytest.mark.parametrize("name", [name for name in DOORS if name not in SAMPLERS])
def test_a_change_in_place_of_what_is_kept_is_seen(name, warmed):
    """By the version of a tensor: a gradient is refused where the whole way refuses it, and only there."""

    def changed(i):
        inputs, call = leaves_of(name, 0)
        held = [1 * a for a in inputs]
        outs = call(*held)
        outs = [o for o in (outs if isinstance(outs, tuple) else (outs,)) if o.requires_grad]
        with torch.no_grad():
            (held[i] if i < len(held) else outs[i - len(held)]).add_(1)
        try:
            return torch.autograd.grad([o.sum() for o in outs], inputs, allow_unused=True)
        except RuntimeError as error:
            assert "inplace" in str(error)

    outs = of_door(name, 0)
    for i in range(len(DOORS[name](0)[0]) + sum(o is not None and o.is_floating_point() for o in outs[:1])):
        with Seen():
            whole = changed(i)
        got = changed(i)
        assert (whole is None) == (got is None)
        if whole is not None:
            same(whole, got)


@pytest.mark.parametrize("name", [name for name in DOORS if "draws" not in name])  # threads share torch's generator
def test_threads_at_once(name, warmed):
    wanted = [of_door(name, seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for seed, got in enumerate(pool.map(lambda i: of_door(name, i % 4), range(32))):
            same(wanted[seed % 4], got)


@each_door
def test_transforms_see_the_whole_way(name, warmed):
    inputs, call = DOORS[name](0)

    def first(*given):
        outs = call(*given)
        return outs[0] if isinstance(outs, tuple) else outs

    if name not in SAMPLERS and name != "code_stats":
        leaves, _ = leaves_of(name, 0)
        by_autograd = torch.autograd.grad(first(*leaves).sum(), leaves, allow_unused=True)
        by_transform = torch.func.grad(lambda *a: first(*a).sum(), tuple(range(len(inputs))))(*inputs)
        for a, b in zip(by_autograd, by_transform, strict=True):
            assert torch.equal(torch.zeros_like(b) if a is None else a, b)
    with Seen() as seen:
        call(*inputs)
    assert any(n.startswith("genmini::") for n in seen.names)
