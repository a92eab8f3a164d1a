"""Proofs and laws of the room that draws from PixelCNN (kernels/pixelcnn_sample.py). tests/models/test_pixelcnn.py
compares it with whole models."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from check import error, fair, runs, seeds, structs
from genmini.kernels import _check, _library
from genmini.kernels import pixelcnn_sample as room
from genmini.kernels._pixel_layers import ACTS, LayerRow, Sizes, StreamRow, TapRow, packed, rows_of
from genmini.kernels.pixelcnn_sample import ALL, EARLIER, UP_TO, Layer, embed, masked_taps, row_taps
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from genmini import ops

ROOT = Path(__file__).resolve().parents[2]
RUNS = runs("pixelcnn_sample")
KERNELS = [run for run in RUNS if run.backend != "reference"]
everywhere = pytest.mark.parametrize("run", RUNS, ids=str)
each_kernel = pytest.mark.parametrize("run", KERNELS, ids=str)
NETS = {  # N, (C, H, W), levels, logistics, width, filter, classes
    "two levels": (9, (1, 3, 4), 2, 0, 6, 3, 1),
    "wide filter": (5, (1, 4, 5), 2, 0, 7, 7, 1),
    "more than 64 taps": (1, (1, 5, 8), 2, 0, 2, 15, 1),
    "three colours": (5, (3, 2, 3), 3, 0, 6, 3, 1),
    "many levels": (2, (1, 2, 2), 40, 0, 34, 3, 1),
    "logistics, classes": (5, (2, 2, 2), 9, 3, 4, 5, 3),
    "more outputs than threads": (1, (1, 2, 2), 300, 0, 2, 1, 1),
    "one pixel": (17, (1, 1, 1), 2, 0, 2, 3, 2),
}
each_net = pytest.mark.parametrize("sizes", NETS.values(), ids=NETS)


def program(shape, levels, K, width, filter_, classes, seed=0, dtype=torch.float64):
    """Two layers by rows, one that reads them and the input, a residual one, and the last: every kind of tap,
    activation and stream."""
    C, inputs = shape[0], shape[0] * (1 + min(levels - 1, 32))
    outputs = C * (3 * K if K else 1 if levels == 2 else levels)
    g = torch.Generator().manual_seed(seed)
    normal = lambda *size: torch.randn(*size, generator=g, dtype=torch.float64)
    draw = lambda *size: (normal(*size) / math.sqrt(math.prod(size[1:]) + 1)).to(dtype)
    bias = lambda O: 0.5 * draw(classes, O) if classes > 1 else 0.5 * draw(O)
    above, height = 2 * C * width, filter_ // 2
    layers = [Layer(row_taps(0, draw(above, inputs, max(height, 1), filter_), "A"), bias(above), "gate", rows=True)]
    layers.append(Layer(row_taps(2, draw(above, above // 2, height + 1, filter_), "B"), bias(above), "gate", rows=True))
    taps = masked_taps(0, draw(2 * C * width, inputs, 1, filter_), "A") + [(3, 0, 0, ALL, draw(above, 2 * C * width))]
    layers.append(Layer(taps, bias(2 * C * width), "gate"))
    taps = masked_taps(6, draw(C * width, C * width, filter_, filter_), "B")
    layers.append(Layer(taps, bias(C * width), "relu", residual=6))
    layers.append(Layer(masked_taps(8, draw(C * width, C * width, 1, 1), "B"), bias(C * width), "relu", residual=7))
    layers.append(Layer(masked_taps(10, 9 * draw(outputs, C * width, 1, 1), "B"), bias(outputs)))
    return layers


def definition(x, layers, shape, levels, y, dtype=torch.float64):
    """What decides, (N, D, F): layer by layer, pixel by pixel, tap by tap, as the room's equations say."""
    (C, H, W), N, steps = shape, len(x), min(levels - 1, 32)
    level = x.view(N, H, W, C).to(dtype) * (steps / (levels - 1))
    ones = torch.ones(N, H, W, dtype=dtype)
    inputs = [a for c in range(C) for a in (ones, *((level[..., c] - k).clamp(0, 1) for k in range(steps)))]
    z = {0: torch.stack(inputs, -1)}
    for a, layer in enumerate(layers):
        O = layer.taps[0][4].shape[1]
        s = torch.zeros(N, H, W, O, dtype=dtype)
        s += layer.bias.to(dtype)[y][:, None, None] if layer.bias.dim() == 2 else layer.bias.to(dtype)
        for r, di, dj, sight, weight in layer.taps:
            I = weight.shape[0]
            behind = [[o * C // O - c * C // I for o in range(O)] for c in range(I)]  # by how many colours
            least = {ALL: -C, EARLIER: 1, UP_TO: 0}[sight]
            alive = torch.where(torch.tensor(behind) >= least, weight.to(dtype), 0)
            for i in range(max(0, -di), H):
                for j in range(max(0, -dj), min(W, W - dj)):
                    s[:, i, j] += z[r][:, i + di, j + dj] @ alive
        s = s if layer.residual is None else s + z[layer.residual]
        z[2 * a + 1] = s
        if layer.act == "gate":
            z[2 * a + 2] = torch.tanh(s[..., 0::2]) * torch.sigmoid(s[..., 1::2])
        elif layer.act == "relu":
            z[2 * a + 2] = s.relu()
    return s.reshape(N, H * W * C, s.shape[-1] // C)


def below(l, levels, K):
    """P(x <= 0), ..., P(x <= L-2)"""
    if not K:
        return torch.sigmoid(-l) if levels == 2 else l.softmax(-1).cumsum(-1)[..., :-1]
    pi, mu, log_s = l[..., :K].softmax(-1), l[..., K : 2 * K], l[..., 2 * K :].clamp(min=-7)
    edges = [(2 * k + 1) / (levels - 1) - 1 for k in range(levels - 1)]
    return torch.stack([(pi * torch.sigmoid((edge - mu) / log_s.exp())).sum(-1) for edge in edges], -1)


def noise(N, D, seed=1):
    return torch.rand(N, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def numbers(N, D, levels, seed=2):
    return torch.randint(levels, (N, D), generator=torch.Generator().manual_seed(seed))


def on(device, layers):
    taps = lambda layer: [(*tap[:4], tap[4].to(device)) for tap in layer.taps]
    return [replace(layer, taps=taps(layer), bias=layer.bias.to(device)) for layer in layers]


def draw(run, u, layers, shape, levels, K=0, y=None, x=None, known=0):
    move = lambda a: a if a is None else a.to(run.device)
    with run.use():
        arguments = on(run.device, layers), shape, levels, K, move(y), move(x), known
        got = ops.pixelcnn_sample(move(u), *arguments, logits=True)
    return tuple(a.cpu() for a in got)


# ---- the same noise gives the naive sample ---------------------------------------------------------------------------


@everywhere
@each_net
@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_float64_is_the_definition(run, sizes, share):
    """What decides at every step as the equations give it for the sample, and numbers as it and the noise say."""
    N, shape, levels, K, width, filter_, classes = sizes
    D, layers, y = math.prod(shape), program(shape, levels, K, width, filter_, classes), torch.arange(N) % classes
    u, x, known = noise(N, D), numbers(N, D, levels), math.ceil(share * D)
    got, l = draw(run, u, layers, shape, levels, K, y, x, known)
    wanted = definition(got, layers, shape, levels, y)
    assert got.dtype == torch.int64 and torch.equal(got[:, :known], x[:, :known])
    torch.testing.assert_close(l, wanted, rtol=0, atol=1e-12)
    assert N < 3 or (wanted.amax(0) - wanted.amin(0)).max() > 0.1, "the logits do not depend on what was drawn"
    assert torch.equal(got[:, known:], (u[..., None] >= below(wanted, levels, K)).sum(-1)[:, known:])


@each_kernel
@each_net
def test_float32_logits_are_those_of_a_pass(run, sizes):
    N, shape, levels, K, width, filter_, classes = sizes
    layers, y = program(shape, levels, K, width, filter_, classes, dtype=torch.float32), torch.arange(N) % classes
    u = noise(N, math.prod(shape)).float()
    x, l = draw(run, u, layers, shape, levels, K, y)
    assert l.dtype == torch.float32
    passes = lambda x: [definition(x, layers, shape, levels, y, dtype) for dtype in (torch.float64, torch.float32)]
    near = lambda: [error(*reversed(passes(numbers(*x.shape, levels, seed)))) for seed in range(32)]
    fair(l, *passes(x), torch.float32, near=near)
    again = draw(run, u, layers, shape, levels, K, y, x, x.shape[1])[1]
    assert torch.equal(again, l), "known or drawn: the same logits"


@each_kernel
@given(
    seed=seeds, N=st.sampled_from([0, 1, 4, 7, 17]), H=st.integers(1, 3), W=st.integers(1, 3),
    C=st.sampled_from([1, 2]), filter_=st.sampled_from([1, 3, 5]),
)
def test_cruel_shapes(run, seed, N, H, W, C, filter_):
    shape, levels, seed = (C, H, W), 2 + seed % 3, seed % 1000
    layers = program(shape, levels, 0, 1 + seed % 5, filter_, 1, seed)
    u = noise(N, C * H * W, seed)
    x, l = draw(run, u, layers, shape, levels)
    assert x.shape == u.shape
    wanted = definition(x, layers, shape, levels, torch.zeros(N, dtype=torch.long))
    torch.testing.assert_close(l, wanted, rtol=0, atol=1e-12)
    assert torch.equal(x, draw(RUNS[0], u, layers, shape, levels)[0])


# ---- laws ------------------------------------------------------------------------------------------------------------


@everywhere
def test_what_lies_ahead_is_never_seen(run):
    """Neither dead weights of a centre, NaN included, nor what x holds after the known numbers."""
    shape, levels = (2, 2, 2), 3
    layers = program(shape, levels, 0, 2, 3, 1)
    u, x = noise(4, 8), numbers(4, 8, levels)
    wanted = draw(run, u, layers, shape, levels, x=x, known=3)
    for layer in layers:
        for tap in layer.taps:
            if tap[3] != ALL:
                in_, out = (torch.arange(size) * 2 // size for size in tap[4].shape)
                tap[4][in_[:, None] > out] = math.nan
                if tap[3] == EARLIER:
                    tap[4][in_[:, None] == out] = math.nan
    x[:, 3:] = -7
    got = draw(run, u, layers, shape, levels, x=x, known=3)
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


@everywhere
def test_the_network_may_see_numbers_of_its_own_for_each_level(run):
    """With a table E = embed M the weights W of its columns are M W of the default ones."""
    L, g = 3, torch.Generator().manual_seed(3)
    M, W, V = (torch.randn(*size, generator=g, dtype=torch.float64) for size in ((L, 2), (6, 2, 3, 3), (L, 6, 1, 1)))
    layers = [Layer(masked_taps(0, W, "A"), W[:, 0, 0, 0], "relu"), Layer(masked_taps(2, V, "B"), V[:, 0, 0, 0])]
    by_default = [replace(layers[0], taps=[tap._replace(W=M @ tap.W) for tap in layers[0].taps]), layers[1]]
    wanted = draw(run, noise(5, 12), by_default, (1, 3, 4), L)
    E = embed(torch.arange(L), L, torch.float64) @ M
    with run.use():
        to = run.device
        x, l = ops.pixelcnn_sample(noise(5, 12).to(to), on(to, layers), (1, 3, 4), L, logits=True, E=E.to(to))
    assert torch.equal(x.cpu(), wanted[0])
    torch.testing.assert_close(l.cpu(), wanted[1], rtol=0, atol=1e-12)


@each_kernel
def test_a_row_does_not_depend_on_its_neighbours(run):
    shape, u = (1, 3, 4), noise(23, 12).float()
    layers = program(shape, 2, 0, 20, 3, 1, dtype=torch.float32)
    together = draw(run, u, layers, shape, 2)
    for n in (0, 7, 8, 13, 22):
        alone = draw(run, u[n : n + 1], layers, shape, 2)
        assert torch.equal(alone[0][0], together[0][n]) and torch.equal(alone[1][0], together[1][n])


@each_kernel
def test_numbers_out_of_range_touch_no_memory(run, monkeypatch):
    """On a GPU values are not checked: there a level or a class out of range is taken for the nearest one."""
    monkeypatch.setattr(_check, "values", lambda tensor: False)
    shape, far = (1, 2, 2), 2**40
    layers, u = program(shape, 3, 0, 2, 3, 2), noise(2, 4)
    x, y = torch.tensor([[far, -far, 1, 1]] * 2), torch.tensor([-far, far])
    wanted = draw(run, u, layers, shape, 3, y=torch.tensor([0, 1]), x=x.clamp(0, 2), known=2)
    got = draw(run, u, layers, shape, 3, y=y, x=x, known=2)
    assert torch.equal(got[0][:, :2], x[:, :2]) and torch.equal(got[0][:, 2:], wanted[0][:, 2:])
    assert torch.equal(got[1], wanted[1])


@everywhere
def test_the_noise_decides_upwards(run):
    taps = lambda levels, outputs: masked_taps(0, torch.zeros(outputs, levels, 1, 3), "A")
    flat = lambda levels, outputs: [Layer(taps(levels, outputs), torch.zeros(outputs))]
    assert draw(run, torch.tensor([[0.4, 0.5, 0.6]]), flat(2, 1), (1, 1, 3), 2)[0].tolist() == [[0, 1, 1]]
    assert draw(run, torch.tensor([[0.2, 0.25, 0.6, 0.9]]), flat(4, 4), (1, 1, 4), 4)[0].tolist() == [[0, 1, 2, 3]]
    u = torch.tensor([[0.01, 0.49, 0.51, 0.99]])
    assert draw(run, u, flat(4, 3), (1, 1, 4), 4, K=1)[0].tolist() == [[0, 1, 2, 3]]


def test_the_edges_of_levels_have_the_dtype_of_the_logits():
    """In float64 the definition is right to float64, also where the logistic is as narrow as it may be."""
    pi, mu, log_s, levels = [0.3, -0.5], [0.1, -0.2], [-7.0, -9.0], 256  # below -7 log_s counts as -7
    got = room.cumulative(torch.tensor([[*pi, *mu, *log_s]], dtype=torch.float64), levels, 2)[0]
    weight = [math.exp(p) / sum(map(math.exp, pi)) for p in pi]
    edges = [(2 * level + 1) / 255 - 1 for level in range(255)]
    wanted = [sum(w * expit((edge - m) * math.exp(7)) for w, m in zip(weight, mu, strict=True))
              for edge in edges]
    # a rounding of an edge, times e^7 / 4, the steepest slope
    torch.testing.assert_close(got, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=4 * 2**-53 * math.exp(7))


def test_rows_are_kept_as_long_as_a_filter_looks_back():
    """The workspace holds a few rows of what is read again, and nothing of what is not."""
    streams = rows_of(StreamRow, packed(program((1, 28, 28), 2, 0, 4, 7, 1), (1, 28, 28), 2, 1)[0])
    assert [stream.depth for stream in streams] == [4, 0, 4, 1, 0, 0, 4, 1, 1, 0, 1, 1, 0]
    assert streams[-2].offset < 28 * 28 * sum(stream.channels for stream in streams) / 10


def test_the_tables_are_the_structs_of_the_header():
    """Field by field, in their order, all int64_t; and the numbers of activations and sights."""
    header = (ROOT / "csrc/pixelcnn_sample.h").read_text()
    for name, kind in (("Stream", StreamRow), ("Layer", LayerRow), ("Tap", TapRow), ("Sizes", Sizes)):
        fields = structs("pixelcnn_sample.h")[name]
        assert set(fields.values()) == {"int64_t"} and list(fields) == list(kind._fields)
    numbers = {name: int(value) for name, value in re.findall(r"(\w+) = (\d+)[,\s]", header)}
    assert [numbers[name] for name in ("ALL", "EARLIER", "UP_TO")] == [ALL, EARLIER, UP_TO]
    assert [ACTS[numbers[name]] for name in ("RELU", "GATE")] == ["relu", "gate"]


def test_the_tables_of_a_network_are_copied_to_a_device_once(monkeypatch):
    """A copy from the host waits for the device. Of the device only the place of the tensors matters here: meta."""
    seen, shape = [], (1, 2, 3)
    monkeypatch.setattr(_library, "call", lambda name, backend, function, *arguments, **_: seen.append(arguments))
    for levels in (2, 2, 3):
        E = torch.empty(levels, levels, device="meta")
        outputs = 1 if levels == 2 else levels
        *tables, weights, biases = packed(program(shape, levels, 0, 4, 3, 1), shape, levels, outputs)
        u, x, y = torch.empty(5, 6, device="meta"), torch.empty(5, 6, device="meta"), torch.empty(5, device="meta")
        room.launch("cuda", "groups", u, x, 0, 0, shape, E, *tables, weights.to("meta"), biases.to("meta"), y)
        assert [a.device.type for a in seen[-1] if isinstance(a, torch.Tensor)] == ["cpu"] + ["meta"] * 11
    first, again, other = (arguments[6:9] for arguments in seen)
    assert all(a is b for a, b in zip(first, again, strict=True)), "copied again"
    assert all(a is not b for a, b in zip(first, other, strict=True)), "another network with the tables of the first"


@pytest.mark.parametrize("kind", ["avx2", "portable"])
def test_every_instruction_set(kind, monkeypatch):
    """The other vector widths of the native kernel (a processor without AVX2 runs the narrow one twice)."""
    monkeypatch.setenv("GENMINI_CPU", kind)
    run = next(run for run in RUNS if run.backend == "cpu")
    for sizes in NETS.values():
        test_float64_is_the_definition(run, sizes, 0)
        test_float32_logits_are_those_of_a_pass(run, sizes)


def test_opaque():
    tables, E = packed(program((1, 2, 2), 3, 0, 2, 3, 2), (1, 2, 2), 3, 3), embed(torch.arange(3), 3, torch.float64)
    for backend in ("reference", "cpu", "emulated"):
        arguments = (noise(2, 4), numbers(2, 4, 3), 1, 0, [1, 2, 2], E, *tables, torch.tensor([0, 1]), backend)
        torch.library.opcheck(torch.ops.genmini.pixelcnn_sample.default, arguments)


def test_no_gradient_and_16_bits():
    layers = program((1, 2, 2), 2, 0, 2, 3, 1, dtype=torch.bfloat16)
    wide = program((1, 2, 2), 2, 0, 2, 3, 1, dtype=torch.bfloat16)
    for layer in wide:
        layer.taps, layer.bias = [(*tap[:4], tap[4].float()) for tap in layer.taps], layer.bias.float()
    for layer in layers:
        layer.bias.requires_grad_()
    x, l = ops.pixelcnn_sample(noise(2, 4), layers, (1, 2, 2), 2, logits=True)
    assert l.dtype == torch.float32 and not l.requires_grad
    assert torch.equal(ops.pixelcnn_sample(noise(2, 4), wide, (1, 2, 2), 2, logits=True)[1], l)


def test_errors_name_the_argument():
    shape, layers, u, x = (1, 2, 2), program((1, 2, 2), 2, 0, 2, 3, 2), noise(2, 4), numbers(2, 4, 2)
    draw = ops.pixelcnn_sample
    with pytest.raises(ValueError, match=r"u must have shape \(N, D\) with D = C H W = \(2, 4\), got \(2, 3\)"):
        draw(u[:, :3], layers, shape, 2)
    with pytest.raises(ValueError, match="x must hold 0 ... 1, and it holds other values"):
        draw(u, layers, shape, 2, x=x + 2, known=4)
    with pytest.raises(ValueError, match="y must hold classes 0 ... 1, and it holds other values"):
        draw(u, layers, shape, 2, y=torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="known = 2 needs x, which holds the known numbers"):
        draw(u, layers, shape, 2, known=2)
    for known, name in ((torch.tensor([1, 2]), "Tensor"), ("3", "str"), (1.0, "float")):
        with pytest.raises(TypeError, match=f"known must be an int, got {name}"):
            draw(u, layers, shape, 2, known=known)
    with pytest.raises(ValueError, match="known must be from 0 to the count of numbers, 0 to 4, got 5"):
        draw(u, layers, shape, 2, x=x, known=5)
    with pytest.raises(ValueError, match=r"E must have shape \(L, M\) with L of levels = \(2, 5\), got \(3, 5\)"):
        draw(u, layers, shape, 2, E=torch.zeros(3, 5))
    with pytest.raises(TypeError, match="E must be a tensor, got list"):
        draw(u, layers, shape, 2, E=[0, 1])
    with pytest.raises(ValueError, match=r"u must have shape \(N, D\), got \(\)"):
        draw(torch.tensor(0.5), layers, shape, 2)
