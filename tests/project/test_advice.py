"""What a room could serve: each pattern is found in a plain PyTorch model, the line runs and gives the same, and models
without it, or that use the room already, are left alone."""

import dataclasses

import check
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import genmini
from genmini import advice, kernels, layers, limits, ops, profiling, trials

CPU = check.Run("reference", None, "cpu")
torch.manual_seed(0)
norm, linear, conv = nn.GroupNorm(4, 8), nn.Linear(6, 5), nn.Conv2d(3, 4, 3, padding=1)
in_degree, out_degree = torch.tensor([1, 1, 2, 2, 3, 3]), torch.tensor([1, 2, 2, 3, 3])
mask = (out_degree[:, None] >= in_degree).float()
of_conv = torch.tensor([[1.0, 1, 1], [1, 1, 0], [0, 0, 0]])[None, None].expand(4, 3, 3, 3).contiguous()
images, z, codebook = torch.randn(5, 8, 6, 6), torch.randn(20, 3), torch.randn(7, 3)
logits, target = torch.randn(9, 4), torch.randint(4, (9,))
x, s, t = torch.randn(3, 6, 5).unbind()
a, b = F.normalize(torch.randn(2, 6, 5), dim=2).unbind()
table, times = torch.linspace(0.1, 0.9, 5), torch.tensor([0, 2, 4, 1, 3])


def coupled():
    y, logdet = ops.affine_coupling(x, s, t)
    return y


def contrastive():
    l, own = a @ b.T * 3, torch.arange(6)
    return (F.cross_entropy(l, own, reduction="none") + F.cross_entropy(l.T, own, reduction="none")) / 2


def noised():
    scale, shift = (table[times].view(-1, 1, 1, 1) for _ in range(2))
    return scale * images + shift * torch.randn_like(images)


CASES = {  # room: as PyTorch has it; the line; the same by the room, or None where both draw
    "group_norm_silu": (lambda: F.silu(norm(images)), "layers.GroupNormSiLU(4, 8)",
                        lambda: ops.group_norm_silu(images, 4, norm.weight, norm.bias)),
    "nearest_code": (lambda: torch.cdist(z, codebook).argmin(1), "ops.nearest_code(z, codebook)",
                     lambda: ops.nearest_code(z, codebook)),
    "softmax_nll": (lambda: F.cross_entropy(logits, target, reduction="none"), "ops.softmax_nll(logits, target)",
                    lambda: ops.softmax_nll(logits, target)),
    "masked_linear": (lambda: F.linear(x[:, :1].expand(6, 6), mask * linear.weight, linear.bias),
                      "layers.MaskedLinear(6, 5, in_degree, out_degree)",
                      lambda: ops.masked_linear(x[:, :1].expand(6, 6), linear.weight, linear.bias, in_degree,
                                                out_degree)),
    "masked_conv2d": (lambda: F.conv2d(images[:, :3], of_conv * conv.weight, conv.bias, padding=1),
                      "layers.MaskedConv2d(3, 4, (3, 3))",
                      lambda: ops.masked_conv2d(images[:, :3], conv.weight, conv.bias, "B")),
    "gaussian_kl": (lambda: x + (0.5 * s).exp() * torch.randn_like(x), "z, kl = ops.gaussian_kl(mu, log_var)", None),
    "affine_coupling": (lambda: x * s.exp() + t, "y, logdet = ops.affine_coupling(x, s, t)", coupled),
    "q_sample": (noised, "x_t, y = ops.q_sample(x0, t, alpha, sigma)", None),
    "info_nce": (contrastive, "ops.info_nce(a, b, scale)", lambda: ops.info_nce(a, b, torch.tensor(3.0))),
    "code_stats": (lambda: F.one_hot(target, 4).float().T @ logits, "count, total = ops.code_stats(z, index, K)",
                   lambda: ops.code_stats(logits, target, 4)[1]),
}


@pytest.fixture(autouse=True)
def known_limits(monkeypatch):
    monkeypatch.setattr(trials, "SECONDS", 0.01)
    for name in ("copy_bandwidth", "matmul_rate", "convolution_rate"):
        monkeypatch.setattr(limits, name, lambda *_, **__: 1e10)


@pytest.mark.parametrize("room", CASES)
def test_a_pattern_is_found_and_the_line_gives_the_same(room):
    plain, line, by_room = CASES[room]
    found = genmini.profile(plain, steps=2).swaps
    assert [(each.room, each.line) for each in found] == [(room, line)], found
    assert found[0].seconds > 0 and found[0].before > 0 and found[0].after > 0
    constructor, _, arguments = line.partition("(")
    assert callable(getattr({"layers": layers, "ops": ops}[constructor.rpartition(" ")[2].partition(".")[0]],
                            constructor.rpartition(".")[2]))
    if by_room:
        wanted = plain().float()  # sums of up to 72 terms, in float32
        torch.testing.assert_close(by_room().float(), wanted, rtol=0, atol=72 * 2**-24 * wanted.abs().max().item())
        assert genmini.profile(by_room, steps=1).swaps == [], "the room itself needs no advice"


@pytest.mark.parametrize("function", [
    lambda: F.silu(linear(x[:, :1].expand(6, 6))), lambda: (logits @ logits.T).argmax(1), lambda: x * s + t,
    lambda: F.linear(x[:, :1].expand(6, 6), 2 * linear.weight), lambda: norm(images).relu(), lambda: x.exp() + t,
], ids=["silu alone", "argmax", "no exp", "a scale, no mask", "norm and relu", "no product"])
def test_what_no_room_serves_gets_no_advice(function):
    assert genmini.profile(function, steps=1).swaps == []


many = torch.randn(2, 20, 3)


@pytest.mark.parametrize("function", [
    lambda: x + (0.5 * s[0]).exp() * torch.randn_like(x), lambda: x[0] + s[0].exp() * torch.randn_like(x[0]),
    lambda: torch.cdist(many, many[:, :7]).argmin(2), lambda: (many @ many.mT).argmin(2),
    lambda: (z @ codebook[0]).argmin(0), lambda: (z @ codebook.T).min(), lambda: torch.cdist(z, codebook, 1).argmin(1),
    lambda: F.one_hot(target, 4).float() @ x[:4, 0, None], lambda: F.one_hot(target[None], 4).float() @ x[:4, 0, None],
    lambda: F.conv2d(images[:, :4], of_conv[:, :1] * of_conv[:, :1], groups=4, padding=1),
    lambda: F.conv2d(images[:, :3], of_conv * conv.weight, stride=2, padding=1),
    lambda: F.conv2d(images[:, :3], of_conv * conv.weight), lambda: F.conv2d(images[0, :3], of_conv * conv.weight),
    lambda: F.conv2d(images[:, :3], of_conv[..., :2] * conv.weight[..., :2], padding="same"),
    lambda: logits[0].log_softmax(0).gather(0, target[:1]),
    lambda: logits.log_softmax(1).gather(1, target[:8].view(4, 2)),
    lambda: F.nll_loss(logits.log_softmax(1), target, logits.exp()[0]),
], ids=["noise of one scale", "noise of a vector", "batches of distances", "batches of products", "one code",
        "least of all", "sums of differences", "look-up", "look-ups", "groups", "stride", "no padding", "one image",
        "even", "one example", "several of a row", "weights of nll_loss"])
def test_a_pattern_of_other_shapes_is_neither_advised_nor_timed(function):
    assert genmini.profile(function, steps=1).swaps == []


def test_a_trial_that_fails_ends_no_profile(monkeypatch):
    def refused(calls, dtype):
        raise RuntimeError("out of memory")

    monkeypatch.setitem(trials.TRIALS, "softmax_nll", refused)
    (swap,) = genmini.profile(CASES["softmax_nll"][0], steps=1).swaps
    assert swap.before is None and swap.after is None and not swap.gains


@pytest.mark.parametrize("loss", [
    lambda: F.cross_entropy(logits, logits.softmax(1)), lambda: F.cross_entropy(logits, target, torch.ones(4)),
    lambda: F.cross_entropy(logits, target, label_smoothing=0.1), lambda: F.cross_entropy(logits[0], target[0]),
], ids=["probabilities", "weights", "smoothing", "one example"])
def test_a_loss_that_the_room_does_not_have_gets_no_advice(loss):
    assert genmini.profile(loss, steps=1).swaps == []


def test_what_is_timed_computes_the_same():
    """Of rooms that draw nothing, as near to float64 as check.py says; and so do the variants of a pattern."""
    found = {room: genmini.profile(CASES[room][0], steps=1).swaps[0].matches[0] for room in CASES}
    film = [*found["group_norm_silu"][:1], None, *found["group_norm_silu"][1:]]
    last = genmini.profile(lambda: logits.log_softmax(-1).gather(1, target[:, None]), steps=1).swaps[0].matches[0]
    product = genmini.profile(lambda: (z @ codebook.T).neg().argmin(1), steps=1).swaps[0].matches[0]
    cases = [*found.items(), ("group_norm_silu", film), ("softmax_nll", last), ("nearest_code", product)]
    for room, calls in cases:
        inputs, plain, by_room = trials.TRIALS[room](calls, torch.float32)
        _, exact, _ = trials.TRIALS[room](calls, torch.float64)
        truth, one, other = (
            [out] if torch.is_tensor(out) else [*out]
            for out in (exact(*check.to(CPU, torch.float64, inputs)), plain(*inputs), by_room(*inputs)))
        if room in ("gaussian_kl", "q_sample"):
            assert one[0].shape == other[0].shape
            truth, one, other = truth[1:], one[1:], other[1 : len(one)]
        for wanted, a, b in zip(truth, one, other, strict=True):
            check.fair(b, wanted, a, torch.float32, room)


def test_what_went_backward_is_part_of_a_swap():
    """The gradient of the loss, and of no operator before it that has none: its number in autograd is the same."""
    w = torch.randn(40, 300, requires_grad=True)
    wanted = torch.randint(300, (40,))

    def step():
        index = torch.cdist(z, codebook).argmin(1)
        F.cross_entropy(w, wanted).backward()
        return index

    found = genmini.profile(step, steps=3)
    swaps = {swap.room: swap for swap in found.swaps}
    loss, search = swaps["softmax_nll"], swaps["nearest_code"]
    names = {operator for operator, _ in loss.rows}
    assert names == {"aten::cross_entropy_loss", "aten::nll_loss_backward", "aten::_log_softmax_backward_data"}
    assert {operator for operator, _ in search.rows} == {"aten::cdist", "aten::argmin"}
    of_rows = {(row.operator, row.shapes): row for row in found.rows}
    assert loss.seconds == pytest.approx(sum(of_rows[row].seconds for row in loss.rows))
    assert all(of_rows[row].could == "softmax_nll" for row in loss.rows) and loss.learns and not search.learns


def test_gradients_and_optimisers_are_no_pattern():
    """The steps of AdamW and the gradients of a plain network hold products and sums in a row."""
    network = nn.Sequential(nn.Linear(6, 8), nn.SiLU(), nn.Linear(8, 6))
    assert genmini.profile(network, x[:, :1].expand(6, 6), steps=1).swaps == []


def test_advice_says_how_much_of_a_step_it_concerns(monkeypatch):
    reference = kernels.Chosen("reference", None, "nade.cpu.so is not built")
    monkeypatch.setattr(kernels, "chosen", lambda room, device: reference)
    rows = [profiling.Row("aten::add", "4", 1, 0.5, 0.5), profiling.Row("aten::mm", "4x4, 4x4", 1, 0.1, 0.1),
            profiling.Row("genmini::nade", "4x4", 1, 0.1, 0.1, room="nade")]
    found = [advice.Swap("nearest_code", "ops.nearest_code(z, codebook)", ("cdist", "argmin"), 0.1)]
    profile = lambda rows, between, swaps: profiling.Profile("cpu", 1, 1, 1.0, rows, between, swaps, {}, None)
    of = lambda *parts: list(advice.advice(profile(*parts)))
    first, second, third, fourth = of(rows, 0.3, found)
    assert first == ("10% of the step, cdist, argmin: the room nearest_code does these in one, "
                     "ops.nearest_code(z, codebook)")
    assert second == "10% of the step, nade: PyTorch runs its definition here (nade.cpu.so is not built)"
    assert third.startswith("50% of the step, elementwise") and fourth.startswith("30% of the step passes between")
    timed = advice.Swap("nearest_code", "ops.nearest_code(z, codebook)", ("cdist",), 0.4, 0.02, 0.005, True)
    (gains,) = of([], 0.2, [timed])
    assert gains.partition("\n")[2] == (
        "measured here on these shapes, forward and backward: 20 ms by PyTorch, 5 ms by the room\n"
        "predicted from this ratio and that share: a step shorter by 30%")
    (slower,) = of([], 0.2, [dataclasses.replace(timed, after=0.0195, learns=False)])
    assert slower.endswith("shapes, forward: 20 ms by PyTorch, 19.5 ms by the room\nnothing to gain on this machine")
    small = [advice.Swap("nearest_code", "ops.nearest_code(z, codebook)", ("cdist", "argmin"), 0.01)]
    assert of(rows[1:2], 0.2, small) == []
