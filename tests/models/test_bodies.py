"""Tests of the bodies MLP and ResNet (genmini/nets): zero at first, and then steered by all that they are given."""

import pytest
import torch
from torch import nn

from genmini.nets.conv import ResNet
from genmini.nets.mlp import MLP


def test_bodies_give_0_at_first_and_then_depend_on_every_input():
    y = torch.tensor([0, 1, 1, 0])
    for body, x, context in (
        (ResNet(3, 5, width=8, classes=2, context=2), torch.randn(4, 3, 6, 6), torch.randn(4, 2, 6, 6)),
        (MLP(3, 5, hidden=(8, 9), classes=2, context=2), torch.randn(4, 3), torch.randn(4, 2)),
    ):
        out = body(x, y, context)
        assert out.shape == (4, 5, *x.shape[2:]) and not out.any()
        nn.init.normal_(body.out.weight)
        out = body(x, y, context)
        for other in (body(x + 1, y, context), body(x, 1 - y, context), body(x, y, -context)):
            assert (other - out).abs().max() > 1e-3


def test_a_class_needs_a_hidden_layer():
    with pytest.raises(ValueError, match=r"hidden must be one layer or more where there are classes, got \(\)"):
        MLP(3, 5, hidden=(), classes=2)
    assert MLP(3, 5, hidden=())(torch.ones(4, 3)).shape == (4, 5)
