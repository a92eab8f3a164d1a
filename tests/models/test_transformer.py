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


def test_a_new_block_adds_nothing_and_dropout_is_for_training():
    net = Transformer(7, 8, blocks=3, heads=2)
    h = H.float()
    torch.testing.assert_close(net(h), F.layer_norm(h + net.position, (8,)))
    net = transformer(dropout=0.5)
    assert not torch.equal(net(H), net(H)) and torch.equal(net.eval()(H), net(H))


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width must be a multiple of heads = 3, got 8"):
        Transformer(7, 8, heads=3)
