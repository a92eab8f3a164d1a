"""Tests of genmini.swap on masks that no degrees describe: their dead tiles are left out (genmini/swap/rooms.py)."""

import copy

import pytest
import strangers
import torch
from genmini.kernels import _spans
from hypothesis import given
from hypothesis import strategies as st

import genmini
from genmini.swap import masks, rooms


@pytest.fixture(autouse=True, scope="module")
def small_tiles():
    """Of 3 x 2, so that small masks have many"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rooms.TiledLinear, "ROWS", 3)
        patch.setattr(_spans, "SIDE", 2)
        yield


def mask_of(kind, J, K, seed):
    generator = torch.Generator().manual_seed(seed)
    random = torch.rand(J, K, generator=generator)
    j, k = torch.arange(J)[:, None], torch.arange(K)
    mask = {"random": random < 0.2, "sparse": random < 0.03, "blocks": j * 3 // J == k * 3 // K,
            "blocks in turn": j % 3 == k % 3, "band": (j - k).abs() < 3, "far bands": (j - k).abs() % 15 < 2,
            "empty rows": (random < 0.5) & (j > J // 2), "full rows": (random < 0.02) | (j < 3)}[kind]
    mask[-1, -1] = mask[0, 0] = True
    return mask


kinds = st.sampled_from(["random", "sparse", "blocks", "blocks in turn", "band", "far bands", "empty rows",
                         "full rows"])


def layer(mask, bias=True):
    module = strangers.MaskedFromScratch(mask.shape[1], mask.shape[0]).double()
    module.mask.data = mask.double()
    module.bias = torch.nn.Parameter(torch.randn(len(mask)).double()) if bias else module.bias
    return module


def answer(forward, module, x, dy):
    x = x.clone().requires_grad_()
    y = forward(x)
    return y.detach(), *torch.autograd.grad(y, (x, module.weight, module.bias), dy)


@given(kind=kinds, J=st.integers(1, 40), K=st.integers(1, 50), N=st.integers(0, 5), seed=st.integers(0, 99))
def test_outputs_and_gradients_are_those_of_the_masked_product(kind, J, K, N, seed):
    """Sums of the same products in another order: off by at most 2 n 2^-53 times the sum of their sizes."""
    torch.manual_seed(seed)
    mask = mask_of(kind, J, K, seed)
    module, x, dy = layer(mask), torch.randn(N, K).double(), torch.randn(N, J).double()
    try:
        room = rooms.TiledLinear(module, "", "mask", module.mask, None)
    except rooms.Unlike as error:
        assert _spans.tiles_of_mask(mask, 3)[0].all() and "none is dead" in str(error)
        return
    found, exact = (answer(f, module, x, dy) for f in (lambda x: room.run(module, x), module.forward))
    W = (module.weight * mask).detach().abs()
    sizes = (x.abs() @ W.T + module.bias.detach().abs(), dy.abs() @ W, dy.abs().T @ x.abs(), dy.abs().sum(0))
    for got, truth, size, n in zip(found, exact, sizes, (K + 1, J, N, N), strict=True):
        assert ((got - truth).abs() <= 2 * n * 2.0**-53 * size).all()
    assert (found[2][~mask] == 0).all()
    with torch.no_grad():
        module.weight[~mask] = torch.nan
    again = answer(lambda x: room.run(module, x), module, x, dy)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


@given(kind=kinds, J=st.integers(1, 40), K=st.integers(1, 50), seed=st.integers(0, 99))
def test_a_dead_tile_is_not_multiplied(kind, J, K, seed):
    """Each span begins and ends with a live tile, and holds at most GAP dead ones side by side."""
    mask = mask_of(kind, J, K, seed)
    live, full = _spans.tiles_of_mask(mask, 3)
    for rows, seen, at in zip(mask.split(3), _spans.spans(K, live, full), live, strict=True):
        inside = torch.zeros(K, dtype=torch.bool)
        for (start, length), (first, some) in seen:
            inside[start : start + length] = True
            part = rows.narrow(1, start, length)
            assert part[:, :2].any() and part[:, -2 + length % 2 :].any()
            assert part[:, :first].all() and part[:, first + some :].all()
        assert not rows[:, ~inside].any()
        dead = [len(run) for run in "".join("d" if not one and inside[2 * t] else " " for t, one in
                                            enumerate(at.tolist())).split()]
        assert max(dead, default=0) <= _spans.GAP


def test_second_derivatives_and_transforms():
    torch.manual_seed(0)
    module = layer(mask_of("far bands", 4, 20, 0))
    room = rooms.TiledLinear(module, "", "mask", module.mask, None)
    x = torch.randn(2, 20).double().requires_grad_()

    def of(x, weight, bias):
        return torch.func.functional_call(Called(module, room), dict(weight=weight, bias=bias), (x,))

    tensors = x, module.weight.detach().requires_grad_(), module.bias.detach().requires_grad_()
    assert torch.autograd.gradcheck(of, tensors) and torch.autograd.gradgradcheck(of, tensors)
    jacobian = torch.func.jacrev(lambda x: room.run(module, x))(x[0])
    assert torch.equal(jacobian, module.weight * module.mask)  # one term each: nothing to round
    each = torch.func.vmap(lambda x: room.run(module, x[None])[0])(x)
    torch.testing.assert_close(each, module(x))


class Called(torch.nn.Module):
    """A layer that calls the room, with the parameters of the module"""

    def __init__(self, module, room):
        super().__init__()
        self.weight, self.bias, self.mask, self.room = module.weight, module.bias, module.mask, room

    def forward(self, x):
        return self.room.run(self, x)


@pytest.mark.parametrize("kind", ["blocks", "far bands"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_layer_is_swapped_verified_and_put_back_to_the_bit(kind, dtype):
    torch.manual_seed(0)
    mask, x = mask_of(kind, 33, 50, 0), torch.randn(7, 50).to(dtype)
    assert masks.degrees(mask) is None
    module = layer(mask).to(dtype)
    other = copy.deepcopy(module)
    (row,) = genmini.swap(module, measure=False).rows
    assert (row.state, row.room) == ("swapped", "masked_linear by tiles")
    assert genmini.verify(module, x).same
    genmini.unswap(module)
    assert torch.equal(module(x), other(x)) and "forward" not in vars(module)


def test_a_mask_without_a_dead_tile_is_left():
    (row,) = genmini.swap(layer(mask_of("blocks in turn", 12, 12, 0)), measure=False).rows
    assert row.state == "left" and "not nested; and of the tiles of 3 x 2 none is dead" in row.why


def test_a_mask_that_changes_is_followed():
    module = layer(mask_of("far bands", 33, 50, 0))
    other = copy.deepcopy(module)
    genmini.swap(module, measure=False)
    seen, full, nested = module.mask.clone(), torch.ones(33, 50), strangers.staircase(33, 50)
    for mask in (seen.flip(1), full, nested, seen):  # of `full` its owner's forward computes
        for one in (module, other):
            one.mask.data.copy_(mask)
        x, dy = torch.randn(7, 50).double(), torch.randn(7, 33).double()
        torch.testing.assert_close(answer(module, module, x, dy), answer(other, other, x, dy))


def test_tensors_of_another_size_are_its_owners():
    """Their tiles are others: to compute with some of the numbers would be silent."""
    module = layer(mask_of("blocks", 33, 50, 0))
    assert genmini.swap(module, measure=False).swapped
    for wrong in (torch.randn(7, 51), torch.randn(7, 49)):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            module(wrong.double())
    weight = module.weight
    module.weight = torch.nn.Parameter(torch.randn(33, 51).double())  # and the mask is of before
    with pytest.raises(RuntimeError, match="must match"):
        module(torch.randn(7, 51).double())
    module.weight, module.bias = weight, torch.nn.Parameter(torch.randn(1).double())  # which broadcasts
    for J, K in (33, 50), (30, 50), (33, 60):
        module.weight = torch.nn.Parameter(torch.randn(J, K).double())
        module.mask.data, x = mask_of("blocks", J, K, 0).double(), torch.randn(7, K).double()
        assert torch.equal(module(x), genmini.unswap(copy.deepcopy(module))(x))


def test_a_mask_that_begins_anywhere_in_its_storage_is_compared():
    known, storage = mask_of("blocks", 16, 20, 0), torch.zeros(323, dtype=torch.bool)
    for offset in range(4):
        mask = storage[offset:][:320].view(16, 20).copy_(known)
        assert masks.same(mask, known)
        mask[-1, -1] ^= True
        assert not masks.same(mask, known)
