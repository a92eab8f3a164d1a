"""Tests of genmini.swap(..., sampling=True) on a flow in the manner of zuko (`make test-peers` has the real one)."""

import copy
import importlib.metadata

import pytest
import strangers
import strangers_flow as theirs
import torch
from check import fair
from torch import nn

import genmini
from genmini.swap import walk

PATH = "zuko.flows.autoregressive.MaskedAutoregressiveTransform"
ORDERS = {"ascending": [0, 1, 2, 3, 4], "descending": [4, 3, 2, 1, 0], "any": [2, 0, 4, 1, 3],
          "two passes": [0, 1, 1, 0, 1]}


@pytest.fixture(autouse=True)
def zuko(monkeypatch):
    package, releases, make = walk.ENTRIES[PATH]
    monkeypatch.setitem(walk.ENTRIES, "strangers_flow.MaskedAutoregressiveTransform", (package, releases, make))
    monkeypatch.setattr(importlib.metadata, "version", {package: releases[0]}.__getitem__)


def flow(order=(2, 0, 4, 1, 3), **kwargs):
    return theirs.MaskedAutoregressiveTransform(torch.tensor(order), **kwargs)


def row_of(module):
    return genmini.swap(module, measure=False, sampling=True).rows[0]


def swapped(module):
    assert row_of(module).state == "swapped"
    module.asked.clear()
    return module


@torch.no_grad()
def draws(module, z):
    return module().inv(z)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("hidden", [(7,), (9, 8), (4, 30, 2)])
def test_it_draws_what_its_owner_draws_without_a_pass(order, hidden):
    module, z = flow(order, hidden=hidden), torch.randn(3, 4, 5)
    expected, exact = draws(module, z), draws(copy.deepcopy(module).double(), z.double())
    fair(draws(swapped(module), z), exact, expected, z.dtype)
    assert not module.asked
    other = copy.deepcopy(module)
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    owner = genmini.unswap(copy.deepcopy(other))
    fair(draws(other, z), draws(copy.deepcopy(owner).double(), z.double()), draws(owner, z), z.dtype)
    torch.testing.assert_close(draws(genmini.unswap(module), z), expected, rtol=0, atol=0)


def test_what_a_mask_hides_of_what_is_ready_stays_hidden():
    module, z = flow(hidden=(30, 20)), torch.randn(3, 5)
    module.hyper[2].mask *= torch.rand(20, 30) < 0.5
    expected, exact = draws(module, z), draws(copy.deepcopy(module).double(), z.double())
    fair(draws(swapped(module), z), exact, expected, z.dtype)
    assert not module.asked and not draws(module, z).is_inference()


def test_only_who_samples_asks_for_it():
    assert all(row.room == "masked_linear" for row in genmini.swap(flow(), measure=False).rows)


@pytest.mark.parametrize("change", {
    "a factor in a mask": lambda hyper: setattr(hyper[2], "mask", 2 * hyper[2].mask),
    "no bias": lambda hyper: setattr(hyper[2], "bias", None),
    "another layer": lambda hyper: hyper.append(nn.Tanh()),
    "two more": lambda hyper: hyper.extend([nn.Tanh(), strangers.Masked(10, 10)]),
}.values())
def test_a_network_that_has_changed_is_its_owners(change):
    module, z = swapped(flow()), torch.randn(3, 5)
    change(module.hyper)
    found = draws(module, z)
    assert module.asked and torch.equal(found, draws(genmini.unswap(module), z))


@pytest.mark.parametrize("what", ["a gradient", "a context", "another mask", "another dtype", "a hook"])
def test_what_the_walk_cannot_do_is_its_owners(what):
    module, z = swapped(flow()), torch.randn(3, 5)
    if what == "a gradient":
        module().inv(z).sum().backward()
        assert module.hyper[0].weight.grad.any()
    elif what == "a context":
        with torch.no_grad():
            module(torch.ones(2)).inv(z)
    elif what == "another mask":
        module.hyper[0].mask = torch.zeros_like(module.hyper[0].mask)
        draws(module, z)
    elif what == "another dtype":
        with pytest.raises((RuntimeError, TypeError)):
            draws(module, z.double())
    else:
        seen = []
        module.hyper[1].register_forward_hook(lambda *_: seen.append(1))
        draws(module, z)
        assert seen
    assert module.asked


class Share(nn.Module):
    def forward(self, x):
        return x.softmax(-1)


def test_an_activation_that_is_no_function_of_one_number_is_left():
    row = row_of(flow(activation=Share))
    assert row.state == "left" and row.why.startswith("output (by"), row


@pytest.mark.parametrize("why, change", {
    "no sequence of masked layers": lambda module: module.hyper.insert(0, nn.Identity()),
    "its own transform": lambda module: setattr(module.hyper[-1], "mask", torch.ones_like(module.hyper[-1].mask)),
    "a context": lambda module: setattr(module.hyper[0], "mask", torch.ones(9, 7)),
}.items())
def test_what_only_looks_so_is_left_and_named(why, change):
    module = flow()
    change(module)
    row = row_of(module)
    assert row.state == "left" and why in row.why, row


def test_a_release_that_nobody_read_is_left(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "2.0")
    assert "it is of zuko 2.0" in row_of(flow()).why


def test_its_gain_is_that_of_draws(monkeypatch):
    monkeypatch.setattr(genmini.swap.gate, "times_as_fast", lambda before, after, inputs, *_: 3.0)
    row = genmini.swap(flow(), sampling=True).rows[0]
    assert row.expected == 3 and row.room == "inverse"
