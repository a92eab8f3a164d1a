"""Tests of the gates of genmini.swap: a wrong or a slow room is refused, the report and verify say what is so, and
planted mistakes, which the checks of test_swap.py must see."""

import copy
import json

import pytest
import strangers
import test_advice
import test_swap
import torch
from alike import agree
from planted import planted
from test_swap import D, J, K, conv, swapped
from torch import nn

import genmini
from genmini import advice, kernels, ops
from genmini.swap import Report, Row, forward, gate, quantizer, rooms
from genmini.swap.hints import Calls

right = ops.masked_linear


def wrong_gradient(*a):
    y = right(*a)
    return y.detach() + (y - y.detach()) * (1 + 1e-6)


def in_float32(x, *rest):
    return right(x, *rest) * (1 + 1e-5 * (x.dtype == torch.float32))


ROOMS = {
    "a little off": lambda *a: right(*a) * (1 + 1e-7),
    "its gradient a little off": wrong_gradient,
    "no gradient": lambda *a: right(*a).detach(),
    "without bias": lambda x, w, b, *degrees: right(x, w, None, *degrees),
    "strict": lambda *a: right(*a, True),
    "another shape": lambda *a: right(*a)[..., None],
    "wrong in float32 only": in_float32,
}


@pytest.mark.parametrize("room", ROOMS.values(), ids=ROOMS)
def test_a_wrong_room_is_refused(room, monkeypatch):
    monkeypatch.setattr(rooms.ops, "masked_linear", room)
    module = strangers.Masked(K, J)
    (row,) = genmini.swap(module, measure=False).rows
    assert row.state == "left" and "differs in evaluation" in row.why and "forward" not in vars(module)


def test_what_is_slower_is_left(monkeypatch):
    for gain, state in ((0.9, "left"), (1.04, "left"), (1.3, "swapped")):
        monkeypatch.setattr(gate, "times_as_fast", lambda before, after, inputs, gain=gain: gain)
        module = strangers.Masked(K, J)
        (row,) = genmini.swap(module).rows
        assert (row.state, row.expected) == (state, gain) and ("forward" in vars(module)) == (state == "swapped")
        assert ("no faster here" in row.why) == (state == "left")


def test_times_are_those_of_the_two():
    slow = lambda x: [torch.linalg.matrix_exp(x) for _ in range(8)][0]
    assert gate.times_as_fast(slow, torch.linalg.matrix_exp, [torch.randn(40, 40)], 0.2) > 2
    assert gate.times_as_fast(torch.linalg.matrix_exp, slow, [torch.randn(40, 40)], 0.2) < 0.5


def test_sizes_are_those_of_the_inputs(monkeypatch):
    seen = []
    monkeypatch.setattr(gate, "times_as_fast", lambda before, after, inputs: seen.append(inputs[0].shape) or 2.0)
    genmini.swap(nn.Sequential(nn.Linear(3, K), strangers.Masked(K, J)), inputs=torch.rand(13, 2, 3))
    genmini.swap(conv("A"), inputs=(torch.rand(3, 4, 9, 9),))
    genmini.swap(strangers.VectorQuantizer(7, D), inputs=torch.rand(3, D, 4, 2))
    assert seen == [(13, 2, K), (3, 4, 9, 9), (3, D, 4, 2)]


def test_a_backend_is_used_and_refused():
    assert "emulated" not in kernels.requested()
    module, x = strangers.Codes(5, 4), torch.randn(6, 4)
    other = copy.deepcopy(module)
    swapped(module, backend="reference")
    assert module.forward.backend == "reference" and kernels.requested() == "auto"
    agree(module, other, x)
    with pytest.raises(RuntimeError, match="cannot run on the backend 'cuda'"):
        genmini.swap(strangers.Codes(5, 4), backend="cuda")
    with pytest.raises(ValueError, match="unknown backend"):
        genmini.swap(strangers.Codes(5, 4), backend="nobodys")


def test_swapped_is_so_inside_only_and_leaves_what_was():
    model = nn.Sequential(strangers.Masked(K, K), strangers.Masked(K, J))
    swapped(model[0])
    with pytest.raises(KeyError), genmini.swapped(model, measure=False) as report:
        assert [row.why for row in report.swapped] == ["it was before", ""]
        assert all("forward" in vars(layer) for layer in model)
        raise KeyError
    assert "forward" in vars(model[0]) and "forward" not in vars(model[1])


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.made = nn.Sequential(strangers.Masked(K, 2 * K), nn.ReLU(), strangers.Dropped(2 * K, D))
        self.vq = strangers.Codes(7, D)

    def forward(self, x):
        out = self.vq(self.made(x))
        return out.z_q, out.loss


def test_the_report_is_a_table_and_json():
    model = Whole()
    report = genmini.swap(model, measure=False)
    assert [(row.name, row.state) for row in report.rows] == [("made.0", "swapped"), ("made.2", "left"),
                                                              ("vq", "swapped")]
    assert (len(report.swapped), len(report.left), len(report.advised)) == (2, 1, 0)
    assert json.loads(report.json())["rows"][2]["room"] == "nearest_code"
    rows = Row("", "A", "x", "swapped", expected=1.234), Row("b.c", "Bcd", "y", "left", "so")
    assert str(Report(rows)).splitlines() == ["module       class  room  state    expected  measured  why",
                     "(the model)  A      x     swapped  1.23x",
                     "b.c          Bcd    y     left                         so"]


class Coupled(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.norm = strangers.Masked(K, 2 * K), nn.GroupNorm(2, K)

    def forward(self, x):
        s, t = self.net(torch.nn.functional.silu(self.norm(x))).chunk(2, 1)
        return x * torch.exp(s) + t


def test_what_is_no_module_is_advised_if_a_kernel_runs_here(monkeypatch):
    chosen = lambda room, *a, **k: kernels.Chosen("cpu" if room == "group_norm_silu" else "reference", None, "")
    monkeypatch.setattr(kernels, "chosen", chosen)
    report = genmini.swap(Coupled(), measure=False, inputs=torch.randn(5, K))
    assert [(row.state, row.room) for row in report.rows[:1]] == [("swapped", "masked_linear")]
    assert [(row.room, row.why) for row in report.advised] == [("group_norm_silu", f"layers.GroupNormSiLU(2, {K})")]


@pytest.mark.parametrize("room", test_advice.CASES)
def test_the_calls_of_a_model_are_known_by_the_names_that_a_profile_has(room):
    plain, line, _ = test_advice.CASES[room]
    with Calls() as calls:
        plain()
    assert [(each.room, each.line) for each in advice.found(calls.found)] == [(room, line)]


def test_verify_compares_measures_and_touches_nothing():
    model, x = Whole(), torch.randn(20, K)
    genmini.swap(model, measure=False)
    before, random = test_swap.state(model), torch.get_rng_state()
    report = genmini.verify(model, x)
    assert report.same and [row.name for row in report.rows] == ["made.0", "vq"]
    assert report.measured > 0 and all(row.measured > 0 for row in report.rows)
    # of the largest: sums of 12 numbers, and over 20 rows, in float32
    assert all(far < 40 * 2**-24 for far in report.error.values()) and len(report.error) == 4
    assert "before and after agree" in str(report) and "times as fast as before" in str(report)
    assert torch.equal(torch.get_rng_state(), random) and all(p.grad is None for p in model.parameters())
    after = test_swap.state(model)
    assert all(after[name][0] == at and torch.equal(after[name][1], t) for name, (at, t) in before.items())
    loss = genmini.verify(model, x, lambda model, x: model(x)[1])
    assert loss.same


def test_verify_says_what_differs(monkeypatch):
    model = Whole()
    genmini.swap(model, measure=False)
    monkeypatch.setattr(rooms.ops, "masked_linear", ROOMS["without bias"])
    report = genmini.verify(model, torch.randn(20, K))
    assert not report.same and "before and after DIFFER: output" in str(report)
    monkeypatch.setattr(rooms.ops, "masked_linear", lambda *a: right(*a) * torch.nan)
    report = genmini.verify(model, torch.randn(20, K))
    assert not report.same and report.error["outputs after"] == report.error["gradients after"] == float("inf")


def test_verify_does_without_float64(monkeypatch):
    class Narrow(strangers.Codes):
        def forward(self, z):
            assert z.dtype == torch.float32
            return super().forward(z)

    module = strangers.Codes(7, D)
    genmini.swap(module, measure=False)
    monkeypatch.setattr(gate, "times_as_fast", lambda *_: 2.0)
    module.__class__ = Narrow
    report = genmini.verify(module, torch.randn(9, D))
    assert report.same and report.judge.startswith("before (float64: AssertionError") and report.measured == 2
    monkeypatch.setattr(quantizer.ops, "nearest_code", lambda z, e: torch.zeros(len(z), dtype=torch.int64))
    assert not genmini.verify(module, torch.randn(9, D)).same


def test_the_rule_is_at_most_twice_as_wrong():
    answer = lambda y: ({"output": torch.tensor([y])}, None)
    exact = {"output": torch.tensor([1.0], dtype=torch.float64)}, None
    assert gate.difference(answer(1.00001), answer(1.000018), exact) == ""
    assert "output in float32" in gate.difference(answer(1.00001), answer(1.000025), exact)
    assert "output in float32" in gate.difference(answer(1.00001), answer(float("nan")), exact)


def plant(monkeypatch, module, right, wrong):
    """The mistake in every module of genmini.swap that uses what is wrong"""
    code = planted(module, right, wrong)
    for user in (genmini.swap, forward, gate, quantizer, rooms):
        for name, value in vars(code).items():
            if getattr(value, "__module__", None) == "planted" and name in vars(user):
                monkeypatch.setattr(user, name, value)


def left(*names):
    for name in names:
        test_swap.test_what_only_looks_so_is_left_and_named(*test_swap.LEFT[name])


def before(name):
    test_swap.test_values_gradients_and_state_are_those_of_before(*test_swap.MADE[name])


follows = test_swap.test_a_mask_that_its_owner_sets_again_is_followed
number = test_swap.test_a_number_that_its_owner_changes_is_followed
PLANTED = {  # module, right, wrong, a check and its arguments
    "masks are not compared": (rooms, "if not same(mask, self.known)", "if False", follows),
    "a mask without degrees is kept": (rooms, "            return False\n", "            pass\n", follows),
    "numbers are not compared": (forward, " and now == value", "", number),
    "dimensions are not compared": (forward, "args[0].dim() in self.room.dims and ", "",
                                    test_swap.test_inputs_of_dimensions_that_were_not_probed_are_its_owners),
    "hooks run on probes": (gate, "collections.OrderedDict() for", "getattr(part, name) for",
                            test_swap.test_hooks_run_and_none_runs_on_probes),
    "copies hold no random numbers": (gate, "and name not in but", "and False", left, "a factor that is 1 now"),
    "training is not probed": (gate, "for training in (False, True)", "for training in (False,)", left, "dropout"),
    "the random state moves": (gate, "with torch.random.fork_rng(devices), torch", "with torch", left, "dropout"),
    "weights in place": (rooms, "if not torch.equal(weight, before)", "if False", left, "in place"),
    "the first dimension": (quantizer, "z.movedim(1, -1) if", "z.transpose(1, -1) if", before, "quantiser of images"),
    "a and b exchanged": (quantizer, "    return a, b", "    return b, a", before, "quantiser of images"),
    "no straight-through": (quantizer, "self.placed(z_q, shape)", "self.placed(e[index], shape)", before,
                            "quantiser of vectors"),
    "perplexity": (quantizer, "p + 1e-10", "p + 1e-5", before, "quantiser of images"),
    "kind B is not tried": (rooms, 'for kind in ("A", "B")', 'for kind in ("A",)', before, "kind B"),
}


@pytest.mark.parametrize("module, right, wrong, check, names", [(*p[:4], p[4:]) for p in PLANTED.values()], ids=PLANTED)
def test_planted_mistakes_are_seen(module, right, wrong, check, names, monkeypatch):
    plant(monkeypatch, module, right, wrong)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(*names)


def test_a_gate_that_compares_no_gradients_is_seen(monkeypatch):
    plant(monkeypatch, gate, "        sum(part.double() for part in parts).backward()\n", "        pass\n")
    with pytest.raises(AssertionError):
        test_a_wrong_room_is_refused(wrong_gradient, monkeypatch)
