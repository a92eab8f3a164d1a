"""Profiles: what is slow leads, shares sum to one, bounds follow from counts, files open; mistakes are found."""

import json
import re
import time
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import pytest
import torch
from planted import planted
from torch import nn

import genmini
from genmini import flame, limits, operations, ops, profiling
from genmini.models.made import MADE

pytestmark = pytest.mark.usefixtures("folder_of_its_own")
a = torch.randn(256, 256)


@pytest.fixture(autouse=True)
def known_limits(monkeypatch):
    """A machine of 1e10 bytes and 1e11 operations a second."""
    monkeypatch.setattr(limits, "copy_bandwidth", lambda device, quick: 1e10)
    monkeypatch.setattr(limits, "matmul_rate", lambda device, dtype, quick: 1e11)
    monkeypatch.setattr(limits, "convolution_rate", lambda device, dtype, quick: 2e11)


class Slow(nn.Module):
    """Small layers, and a large product that is repeated."""

    def __init__(self, repeats=6):
        super().__init__()
        self.layers, self.repeats = nn.Sequential(nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 256)), repeats

    def forward(self, x):
        x = self.layers(x)
        for _ in range(self.repeats):
            x = x @ a
        return x / x.detach().norm()


def shares(found):
    return sum(row.share for row in found.rows) + found.between / found.seconds


def rows_of(found, operator):
    return [row for row in found.rows if row.operator == operator]


def test_a_planted_loop_of_products_leads():
    model, x = Slow(), torch.randn(256, 256)
    found = genmini.profile(model, x, steps=3)
    assert found.rows[0].operator in ("aten::matmul", "aten::mm") and found.rows[0].seconds > found.rows[-1].seconds
    (row,) = rows_of(found, "aten::matmul")
    assert row.calls == 6 and row.shapes == "256x256, 256x256"
    assert row.operations == 6 * 2 * 256**3 and row.bytes == 6 * 3 * 4 * 256**2
    assert row.bound == pytest.approx(row.operations / 1e11) and row.of_bound == pytest.approx(row.bound / row.seconds)
    assert shares(found) == pytest.approx(1) and all(row.share >= 0 for row in found.rows)
    assert {row.operator for row in found.rows} >= {"aten::linear", "aten::relu", "aten::threshold_backward"}
    assert found.plain > 0 and found.device == "cpu" and found.kernel == ""


def check(profiling):
    """What a profile of a known model must say."""
    found = profiling.profile(Slow(3), torch.randn(64, 256), steps=2)
    (row,) = rows_of(found, "aten::matmul")
    assert row.operations == 3 * 2 * 64 * 256**2 and row.calls == 3
    assert row.bound == pytest.approx(row.operations / 1e11) and shares(found) == pytest.approx(1)
    assert all("::" in row.operator and "autograd" not in row.operator for row in found.rows)
    assert not rows_of(found, "aten::addmm"), "it is inside aten::linear"
    found = profiling.profile(lambda: time.sleep(0.005), steps=2)
    assert found.between > 0.004 and not found.rows


@pytest.mark.parametrize("module, right, wrong", [
    (operations, "return shape, 2 * math.prod(shape) * a[-1]", "return shape, math.prod(shape) * a[-1]"),
    (profiling, "Row(*key, len(group) / steps", "Row(*key, len(group)"),
    (profiling, "bound=bound / steps", "bound=bound"),
    (profiling, "total = between + sum(spent.values())", "total = sum(spent.values()) or 1"),
    (profiling, "event.is_user_annotation and not AUTOGRAD.match(event.name):", "event.is_user_annotation:"),
    (profiling, "        yield event, forward\n        return\n", "        yield event, forward\n"),
])
def test_planted_mistakes_are_found(monkeypatch, module, right, wrong):
    check(profiling)
    code = planted(module, right, wrong)
    if module is operations:
        monkeypatch.setattr(profiling, "operations", code)
    with pytest.raises(AssertionError):
        check(profiling if module is operations else code)


def test_the_model_itself_does_not_learn():
    model = Slow()
    before = [p.clone() for p in model.parameters()]
    genmini.profile(model, torch.randn(4, 256), steps=1)
    assert all(torch.equal(p, was) and p.grad is None for p, was in zip(model.parameters(), before, strict=True))
    assert not model.layers[0]._forward_hooks and not model.layers[0]._forward_pre_hooks


def test_a_model_of_genmini_learns_its_own_loss_and_rooms_are_named():
    model = MADE((8, 8), hidden=(32,))
    found = genmini.profile(model, torch.randint(2, (16, 8, 8)), steps=2)
    (row, *_) = [row for row in found.rows if row.operator == "genmini::masked_linear"]
    assert row.room == "masked_linear" and row.operations and row.bytes
    assert any("addcdiv" in row.operator or "_foreach" in row.operator or "adam" in row.operator
               for row in found.rows), "AdamW steps"
    assert profiling.room_of("genmini::affine_coupling_inverse_backward") == "affine_coupling"
    assert profiling.room_of("genmini::nade_sample") == "nade_sample" and profiling.room_of("aten::nade") == ""


def test_what_passes_between_operators_is_a_row():
    """A function that sleeps takes its time between operators."""
    found = genmini.profile(lambda: (torch.ones(2) + 1, time.sleep(0.02)), steps=3)
    assert found.between >= 0.02 and found.between / found.seconds > 0.9 and shares(found) == pytest.approx(1)


def test_a_slow_operator_of_ones_own_leads():
    library = torch.library.Library("mine", "FRAGMENT")
    library.define("sleep(Tensor x) -> Tensor")
    library.impl("sleep", lambda x: (time.sleep(0.01), x.clone())[1], "CPU")
    found = genmini.profile(lambda x: torch.ops.mine.sleep(x) @ x, a, steps=3)
    row = found.rows[0]
    assert row.operator == "mine::sleep" and row.share > 0.7 and row.seconds > 0.01
    library._destroy()


def test_a_loss_of_ones_own_is_learnt():
    seen = []
    genmini.profile(nn.Linear(4, 2), torch.ones(3, 4), loss=lambda out: (seen.append(out.shape), out.sum())[1], steps=1)
    assert set(seen) == {(3, 2)}
    with pytest.raises(ValueError, match="profile takes a module or a function, got int"):
        genmini.profile(3)


def test_files_open():
    found = genmini.profile(Slow(), torch.randn(64, 256), steps=2)
    found.trace("t.json"), found.flame("f.svg"), found.memory("m.png")
    names = {event.get("name") for event in json.load(open("t.json"))["traceEvents"]}
    assert {"aten::mm", "layers.0 (Linear)", profiling.STEP} <= names
    top = ElementTree.parse("f.svg").getroot()
    assert top.tag == "{http://www.w3.org/2000/svg}svg" and not re.search("<script|href|url\\(", open("f.svg").read())
    titles = [title.text for title in top.iter("{http://www.w3.org/2000/svg}title")]
    assert any(title.startswith("layers.0 (Linear): ") for title in titles), titles
    assert titles[0].startswith("genmini: a step: ") and titles[0].endswith(", 100.0%, 1 calls")
    assert open("m.png", "rb").read(8) == b"\x89PNG\r\n\x1a\n"


def test_a_box_lies_under_its_caller_and_is_as_wide_as_its_time():
    event = lambda name, us, *below: SimpleNamespace(
        name=name, cpu_children=below, device_time_total=0, time_range=SimpleNamespace(elapsed_us=lambda: us))
    node = event("XBackward0", 28, event("aten::<", 20))
    wrapped = event("autograd::engine::evaluate_function: XBackward0", 30, node)
    text = flame.svg([event("one", 60, event("aten::a", 20), event("aten::a", 10)), wrapped])
    boxes = re.findall(r'<title>(.*?): .*?x="([\d.]+)" y="(\d+)" width="([\d.]+)"', text)
    ElementTree.fromstring(text)
    assert [(name, float(width)) for name, _, _, width in boxes] == [
        ("one", pytest.approx(1200 * 60 / 88, abs=0.1)), ("aten::a", pytest.approx(1200 * 30 / 88, abs=0.1)),
        ("XBackward0", pytest.approx(1200 * 28 / 88, abs=0.1)), ("aten::&lt;", pytest.approx(1200 * 20 / 88, abs=0.1))]
    assert [int(y) for _, _, y, _ in boxes] == [22, 40, 22, 40]


def test_memory_is_what_tensors_take():
    kept = []
    found = genmini.profile(lambda: kept.append(torch.ones(1000, 1000).sum()), steps=2)
    assert 4e6 <= found.peak < 4.1e6 and found.held[-1][1] < 1e4


def test_on_a_gpu_time_is_that_of_kernels():
    """Made-up events of one step of 10 ms: two operators whose kernels take 1 and 2 ms; the GPU waits for 7."""
    kernel = lambda name, us: SimpleNamespace(name=name, duration=us)

    def event(name, us, kernels=(), below=(), start=0, total=0):
        return SimpleNamespace(
            name=name, cpu_parent=None, cpu_children=below, kernels=kernels, device_time_total=total,
            is_user_annotation=name == profiling.STEP, sequence_nr=-1, input_shapes=[], input_dtypes=[],
            concrete_inputs=[],
            device_type=SimpleNamespace(name="CPU"), device_memory_usage=0, cpu_memory_usage=0,
            time_range=SimpleNamespace(start=start, elapsed_us=lambda: us))

    addmm = event("aten::addmm", 5, [kernel("void at::native::gemm<float, 4>(int)", 2000)], start=3, total=2000)
    events = [event(profiling.STEP, 10000), event("aten::linear", 50, below=[addmm], start=2, total=2000),
              event("aten::relu", 60, [kernel("void relu<4>()", 1000)], start=4, total=1000)]
    found = profiling._summed(SimpleNamespace(events=lambda: events), "cuda", 1, 0.009)
    assert [row.operator for row in found.rows] == ["aten::linear", "aten::relu"]
    assert [row.seconds for row in found.rows] == [pytest.approx(2e-3), pytest.approx(1e-3)]
    assert found.between == pytest.approx(7e-3) and found.kernel == "gemm" and shares(found) == pytest.approx(1)


def test_one_operator_of_a_room_is_one_row():
    z, e = torch.randn(64, 8), torch.randn(16, 8)
    found = genmini.profile(ops.nearest_code, (z, e), steps=2)
    assert [row.operator for row in found.rows if row.room] == ["genmini::nearest_code"]
    assert rows_of(found, "genmini::nearest_code")[0].operations == 2 * 64 * 16 * 8


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_a_training_step_needs_no_mode_of_the_caller(around):
    model, x = nn.Linear(3, 3), torch.ones(2, 3)
    with around():
        assert "aten::linear" in {row.operator for row in genmini.profile(model, x, steps=1).rows}


def test_what_cannot_be_profiled_is_named():
    with pytest.raises(ValueError, match="steps from 1, got 0"):
        genmini.profile(lambda: None, steps=0)
    with pytest.raises(ValueError, match="nothing that has a gradient"):
        genmini.profile(nn.Linear(3, 3), torch.ones(2, 3), loss=lambda out: out.argmax())
