"""Tests of the classes of libraries that genmini.swap knows by their path, on modules in the manner of these libraries
(`make test-peers` swaps into the real ones), and of arguments beside an input."""

import copy
import importlib.metadata

import pytest
import strangers
import strangers_known as theirs
import torch
from alike import learn_the_same
from torch import nn

import genmini
from genmini.swap import gate, known

K, D = 7, 6
TOKENS = (3, 5, D)
EACH = {
    "moving averages": (lambda: theirs.VectorQuantize(K, D), TOKENS),
    "learnt codes": (lambda: theirs.VectorQuantize(K, D, learnt=True), TOKENS),
    "straight-through": (lambda: theirs.VectorQuantize(K, D, rotation_trick=False), (9, D)),
    "of pythae": (lambda: theirs.QuantizerEMA(K, D), (2, 3, 4, D)),
}
each = pytest.mark.parametrize("make, shape", EACH.values(), ids=EACH)


@pytest.fixture(autouse=True)
def entries(monkeypatch):
    """These classes stand where those of the libraries stand."""
    for path, entry in list(known.ENTRIES.items()):
        monkeypatch.setitem(known.ENTRIES, f"strangers_known.{path.rpartition('.')[2]}", entry)
    releases = {package: known[0] for package, known, make in known.ENTRIES.values()}
    monkeypatch.setattr(importlib.metadata, "version", releases.__getitem__)
    return releases


def only_row(module):
    (row,) = genmini.swap(module, measure=False).rows
    return row


@each
def test_it_learns_and_moves_its_codes_as_before(make, shape, monkeypatch):
    module, seen, operator = make(), [], known.ops.nearest_code
    monkeypatch.setattr(known.ops, "nearest_code", lambda *args: seen.append(1) or operator(*args))
    other = copy.deepcopy(module)
    assert only_row(module).state == "swapped"
    seen.clear()
    end = nn.Linear(D, D)
    learn_the_same(nn.Sequential(end, module), *(nn.Sequential(*map(copy.deepcopy, (end, other))).to(dtype)
                                                 for dtype in (torch.float32, torch.float64)), shape)
    assert len(seen) == 20
    genmini.unswap(module)
    assert vars(module).keys() == vars(other).keys()


def test_another_release_is_left(entries):
    entries["pythae"] = "0.2.0"
    row = only_row(theirs.QuantizerEMA(K, D))
    assert (row.state, row.why) == ("left", "it is of pythae 0.2.0; known are 0.1.2")


@pytest.mark.parametrize("option, value, at", [
    ("heads", 2, ""), ("use_cosine_sim", True, ""), ("has_dead_code_replacement", True, "_codebook"),
    ("vq_bridge", nn.Linear(2, 2), "_codebook")])
def test_an_option_that_is_not_known_is_named(option, value, at):
    module = theirs.VectorQuantize(K, D)
    setattr(module.get_submodule(at), option, value)
    row = only_row(module)
    assert row.state == "left" and option in row.why


def test_codes_that_are_drawn_or_not_yet_there_are_left():
    module = theirs.VectorQuantize(K, D)
    module._codebook.gumbel_sample.keywords["stochastic"] = True
    assert "drawn" in only_row(module).why
    module = theirs.VectorQuantize(K, D)
    module._codebook.initted.fill_(False)
    assert "first batch" in only_row(module).why


@pytest.mark.parametrize("name", ["Moving", "Louder"])
def test_a_known_class_passes_the_same_probes(name, monkeypatch):
    monkeypatch.setitem(known.ENTRIES, f"strangers_known.{name}", known.ENTRIES["strangers_known.VectorQuantize"])
    row = only_row(getattr(theirs, name)(K, D))
    assert (row.state, "training" in row.why) == (("advised", False) if name == "Moving" else ("left", True)), row


def test_what_its_owner_alone_can_do_is_its_owners(monkeypatch):
    module, seen, operator = theirs.VectorQuantize(K, D), [], known.ops.nearest_code
    monkeypatch.setattr(known.ops, "nearest_code", lambda *args: seen.append(1) or operator(*args))
    assert only_row(module).state == "swapped"
    seen.clear()
    x = torch.randn(TOKENS)
    module(x, mask=torch.ones(TOKENS[:2]))
    module._codebook.cluster_size.grad = torch.ones(1, K)  # its owner adds it to the counts
    module(x)
    module._codebook.cluster_size.grad = None
    with torch.autocast("cpu", torch.bfloat16):
        module(x)
    module._codebook.use_ddp = True
    module(x)
    assert not seen


def test_a_subclass_is_another_class():
    class Mine(theirs.QuantizerEMA):
        pass

    assert known.recognise_known(Mine(K, D), None) is None


def test_the_room_takes_arguments_as_they_are_by_default_and_their_owner_others(monkeypatch):
    module, seen, z = strangers.LastToFirst(K, D), [], torch.randn(2, 3, 4, D)
    assert only_row(module).state == "swapped"
    operator = known.ops.nearest_code
    monkeypatch.setattr(known.ops, "nearest_code", lambda *args: seen.append(1) or operator(*args))
    module(z, False), module(z, detached=False)
    assert len(seen) == 2
    z.requires_grad_()
    assert not module(z, True)["z_q"].requires_grad and not module(z, detached=True)["z_q"].requires_grad
    module(z, 0)  # as good as False, but another thing
    with pytest.raises(TypeError, match="multiple values"):
        module(z, False, detached=False)
    with pytest.raises(TypeError, match="unexpected"):
        module(z, other=None)
    assert len(seen) == 2


def test_the_sizes_of_modules_are_those_of_a_call(monkeypatch):
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.quantiser = strangers.Codes(K, D)

        def forward(self, batch):
            return self.quantiser(batch["z"])

    seen = []
    monkeypatch.setattr(gate, "times_as_fast", lambda before, after, inputs, *_: seen.append(inputs[0].shape) or 2.0)
    call = lambda model, z: model({"z": z})
    genmini.swap(Whole(), inputs=torch.randn(13, D), call=call)
    with genmini.swapped(Whole(), inputs=torch.randn(14, D), call=call):
        pass
    assert seen == [(13, D), (14, D)]


def test_a_room_that_would_not_compute_is_not_installed():
    with torch.autocast("cpu", torch.bfloat16):
        row = only_row(theirs.QuantizerEMA(K, D))
    assert row.state == "left" and "its owner would compute this, not the room" in row.why
