"""The transformer's laws: it is its formula, reads what it may and nothing else, and adds nothing at first."""

import math

import pytest
import torch
import torch.nn.functional as F

from genmini.nets.transformer import Transformer


def transformer(causal=False, **settings):
    """With random weights: what a new one adds is 0"""
    net = Transformer(7, 8, blocks=2, heads=2, causal=causal, **settings).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return net


H = torch.randn(3, 7, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 0, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0]]).bool()


def formula(net, h, mask, causal):
    """The docstring's, vector by vector and head by head"""
    norm = lambda layer, v: F.layer_norm(v, (8,), layer.weight, layer.bias)
    h = h + net.position[: h.shape[1]]
    for block in net.blocks:
        q, k, v = block.qkv(norm(block.norm, h)).chunk(3, 2)
        rows = []
        for n in range(len(h)):
            for l in range(h.shape[1]):
                read = [m for m in range(h.shape[1]) if mask[n, m] and (m <= l or not causal)]
                heads = []
                for part in (slice(0, 4), slice(4, 8)):
                    weight = torch.stack([q[n, l, part] @ k[n, m, part] / math.sqrt(4) for m in read]).softmax(0)
                    heads.append(sum(w * v[n, m, part] for w, m in zip(weight, read, strict=True)))
                rows.append(torch.cat(heads))
        h = h + block.out(torch.stack(rows).view_as(h))
        h = h + block.W(F.gelu(block.V(norm(block.between, h))))
    return norm(net.norm, h)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
def test_it_is_its_formula(causal, mask):
    net = transformer(causal)
    wanted = formula(net, H, torch.ones_like(MASK) if mask is None else mask, causal)
    torch.testing.assert_close(net(H, mask), wanted, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(net(H[:, :4], None if mask is None else mask[:, :4]),
                               formula(net, H[:, :4], torch.ones_like(MASK) if mask is None else mask, causal),
                               rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
def test_a_vector_depends_on_what_it_may_read_and_on_nothing_else(causal, mask):
    """The pattern of the Jacobian, to the bit: what is not read has the weight 0."""
    net = transformer(causal)
    jacobian = torch.autograd.functional.jacobian(lambda h: net(h, mask).sum(2), H)  # (N, l, N, m, width)
    for n in range(3):
        depends = jacobian[n, :, n].abs().sum(2) > 0
        reads = torch.eye(7).bool() | (MASK[n] if mask is not None else True)
        assert torch.equal(depends, reads.tril() if causal else reads)
        assert not jacobian[n, :, [m for m in range(3) if m != n]].any()


def test_place_after_place_gives_what_all_at_once_give():
    net = transformer(causal=True)
    past = [[] for _ in net.blocks]
    each = [net.next(H[:, l], l, past) for l in range(H.shape[1])]
    torch.testing.assert_close(torch.stack(each, 1), net(H), rtol=1e-10, atol=1e-10)


def test_sided_heads_read_one_side_each_and_near_vectors_more():
    """The docstring's formula, head by head: the first half reads what stands before, the second what stands after."""
    torch.manual_seed(0)
    net, mask = Transformer(7, 8, blocks=1, heads=4, sided=True).double(), MASK
    block = net.blocks[0]
    norm = lambda layer, v: F.layer_norm(v, (8,), layer.weight, layer.bias)
    h = H + net.position
    q, k, v = block.qkv(norm(block.norm, h)).chunk(3, 2)
    wanted = torch.zeros_like(h)
    for n in range(3):
        for l in range(7):
            for head, (before, slope) in enumerate([(True, 1 / 2), (True, 1 / 8), (False, 1 / 2), (False, 1 / 8)]):
                read = [m for m in range(7) if m == l or (mask[n, m] and (m < l) == before)]
                part = slice(2 * head, 2 * head + 2)
                scores = [q[n, l, part] @ k[n, m, part] / math.sqrt(2) - slope * abs(l - m) for m in read]
                weights = torch.stack(scores).softmax(0)
                wanted[n, l, part] = sum(w * v[n, m, part] for w, m in zip(weights, read, strict=True))
    wanted = norm(net.norm, h + block.out(wanted))  # W is 0 in a new block
    torch.testing.assert_close(net(H, mask), wanted, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(net(H), net(H, torch.ones_like(mask)), rtol=1e-10, atol=1e-10)


def test_a_new_sided_block_tells_on_which_side_a_word_stands():
    """What the first of three vectors gets of the second, and the third of it, differ; without sides both are 0."""
    h = H[:1, :3].clone()
    other = h.clone()
    other[:, 1] = H[1, 1]
    change = {}
    for sided in (False, True):
        torch.manual_seed(0)
        net = Transformer(7, 8, blocks=1, heads=4, sided=sided).double()
        change[sided] = (net(other) - net(h))[0]
    assert not change[False][[0, 2]].any()
    first, last = change[True][0], change[True][2]
    assert min(first.norm(), last.norm()) > 0.05 and F.cosine_similarity(first, last, dim=0).abs() < 0.9


def test_a_new_block_adds_nothing_and_dropout_is_for_training():
    net = Transformer(7, 8, blocks=3, heads=2)
    h = H.float()
    assert torch.equal(net(h), F.layer_norm(h + net.position, (8,)))
    net = transformer(dropout=0.5)
    assert not torch.equal(net(H), net(H)) and torch.equal(net.eval()(H), net(H))


def test_heads_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="width must be a multiple of heads = 3, got 8"):
        Transformer(7, 8, heads=3)
    for settings in (dict(heads=1), dict(heads=4, causal=True)):
        with pytest.raises(ValueError, match="sided needs an even number of heads that are not causal, got heads = "):
            Transformer(7, 8, sided=True, **settings)
