"""The list of layers that a PixelCNN hands to its sampler (kernels/_pixel_layers.py): what may stand in it, and errors
that name what is wrong."""

import pytest
import torch
from genmini.kernels.pixelcnn_sample import ALL, EARLIER, UP_TO, Layer, masked_taps
from test_pixelcnn_sample import definition, draw, everywhere, noise, numbers, program

from genmini import ops

# ---- what may stand in it --------------------------------------------------------------------------------------------


SEES_NOTHING = {
    "no taps": [],
    "dead": masked_taps(0, torch.ones(3, 3, 1, 1), "A"),
    "far": [(0, -9, 0, ALL, torch.ones(3, 3))],
}


@everywhere
@pytest.mark.parametrize("taps", SEES_NOTHING.values(), ids=SEES_NOTHING)
def test_a_layer_that_sees_nothing_gives_its_bias(run, taps):
    """No taps, the lone tap of a 1 x 1 convolution of kind "A", a tap that reaches above every image: s_a = b_a."""
    bias = torch.tensor([[0.1, 0.2, -0.3], [1.0, 2.0, 3.0]])
    l = draw(run, noise(2, 4), [Layer(taps, bias)], (1, 2, 2), 3, y=torch.tensor([1, 0]))[1]
    assert torch.equal(l, bias[[1, 0], None].expand(2, 4, 3))


@everywhere
def test_a_layer_may_have_any_number_of_taps(run):
    """A filter of 35 x 35 has 613, more than the native kernel sums at a time."""
    weight = torch.randn(2 * 613, 2, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64) / 30
    first = [(0, -1 if t % 3 else 0, -1, ALL, weight[t]) for t in range(613)]
    second = [(2, -1 if t % 3 else 0, -1, ALL, weight[t, :, :1]) for t in range(613, 2 * 613)]
    zeros = lambda n: torch.zeros(n, dtype=torch.float64)
    layers = [Layer(first, zeros(4), "gate"), Layer(second, zeros(1))]
    x = numbers(3, 6, 2)
    l = draw(run, noise(3, 6), layers, (1, 2, 3), 2, x=x, known=6)[1]
    wanted = definition(x, layers, (1, 2, 3), 2, torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(l, wanted, rtol=0, atol=1e-12)
    assert l.std() > 0.1, "sums near zero prove little"


@everywhere
def test_a_gate_follows_the_residual(run):
    """z_{2a+2} is the gate of s_a, and s_a includes the residual."""
    g = torch.Generator().manual_seed(4)
    normal = lambda *size: torch.randn(*size, generator=g, dtype=torch.float64)
    layers = [Layer(masked_taps(0, normal(8, 2, 1, 3), "A"), normal(8), "relu")]
    layers.append(Layer(masked_taps(2, normal(8, 8, 1, 1), "B"), normal(8), "gate", residual=1))
    layers.append(Layer(masked_taps(4, normal(1, 4, 1, 1), "B"), normal(1)))
    x, l = draw(run, noise(5, 4), layers, (1, 2, 2), 2)
    wanted = definition(x, layers, (1, 2, 2), 2, torch.zeros(5, dtype=torch.long))
    torch.testing.assert_close(l, wanted, rtol=0, atol=1e-12)


MIXED = [(torch.float64, torch.float32), (torch.float32, torch.float64), (torch.float32, torch.bfloat16)]


@everywhere
@pytest.mark.parametrize("part", ["W", "bias"])
@pytest.mark.parametrize("dtypes", MIXED, ids=str)
def test_weights_and_biases_of_different_dtypes_become_the_widest(run, part, dtypes):
    mixed, wide = (program((1, 2, 2), 2, 0, 2, 3, 1, dtype=dtypes[0]) for _ in range(2))
    taps, dtype = mixed[2].taps, torch.promote_types(*dtypes)
    if part == "W":
        taps[0] = (*taps[0][:4], taps[0][4].to(dtypes[1]))
    else:
        mixed[2].bias = mixed[2].bias.to(dtypes[1])
    for layer, its in zip(wide, mixed, strict=True):
        layer.taps, layer.bias = [(*tap[:4], tap[4].to(dtype)) for tap in its.taps], its.bias.to(dtype)
    got, wanted = (draw(run, noise(2, 4), layers, (1, 2, 2), 2) for layers in (mixed, wide))
    assert got[1].dtype == dtype and all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape, error, named",
    [((2, 2), ValueError, r"shape must be \(C, H, W\), got \(2, 2\)"),
     (4, ValueError, r"shape must be \(C, H, W\), got 4"),
     ((1, 2.0, 2), TypeError, "H of shape must be an int, got float"),
     ((1, 2, -2), ValueError, "W of shape must be .*, got -2"),
     ((0, 2, 2), ValueError, "C of shape must be .*, got 0")],
)
def test_a_wrong_shape_is_named(shape, error, named):
    with pytest.raises(error, match=named):
        ops.pixelcnn_sample(noise(2, 4), program((1, 2, 2), 2, 0, 2, 3, 2), shape, 2)


TAP, BIAS = (0, 0, -1, ALL, torch.zeros(2, 1)), torch.zeros(1)


@pytest.mark.parametrize(
    "layers, error, named",
    [([], ValueError, r"layers must be a list of at least one Layer, got \[\]"),
     (Layer([TAP], BIAS), ValueError, "layers must be a list of at least one Layer, got Layer"),
     ([([TAP], BIAS)], TypeError, r"layers\[0\] must be a Layer, got tuple"),
     ([Layer([TAP], BIAS, "tanh")], ValueError, r"layers\[0\].act must be '', 'relu' or 'gate', got 'tanh'"),
     ([Layer([TAP], BIAS, rows=1)], TypeError, r"layers\[0\].rows must be True or False, got 1"),
     ([Layer([TAP], 0.0)], TypeError, r"layers\[0\].bias must be a tensor, got float"),
     ([Layer([TAP], torch.zeros(1, 1, 1))], ValueError,
      r"layers\[0\].bias must have shape \(outputs\) or \(classes, outputs\), got \(1, 1, 1\)"),
     ([Layer([TAP], torch.zeros(0, 1))], ValueError, r"layers\[0\].bias must have at least one class, got \(0, 1\)"),
     ([Layer(None, BIAS)], TypeError, r"layers\[0\].taps must be a list or a tuple, got NoneType"),
     ([Layer([(9, 0, 0, 1, TAP[4])], BIAS)], ValueError,
      r"layers\[0\].taps\[0\] must .*, got stream 9 at \(0, 0\) with sight EARLIER"),
     ([Layer([(0, 0, 0, 7, TAP[4])], BIAS)], ValueError,
      r"sight of layers\[0\].taps\[0\] must be ALL, EARLIER or UP_TO, 0 to 2, got 7"),
     ([Layer([TAP[:4]], BIAS)], ValueError, r"layers\[0\].taps\[0\] must be \(stream, di, dj, sight, W\), got"),
     ([Layer([(0, -1.0, *TAP[2:])], BIAS)], TypeError, r"di of layers\[0\].taps\[0\] must be an int, got float"),
     ([Layer([(*TAP[:4], 1)], BIAS)], TypeError, r"W of layers\[0\].taps\[0\] must be a tensor, got int"),
     ([Layer([TAP], torch.zeros(2, 1)), Layer([(1, 0, 0, ALL, BIAS[None])], torch.zeros(3, 1))], ValueError,
      r"biases must have as many classes .*, got layers\[0\].bias \(2, 1\), layers\[1\].bias \(3, 1\)")],
)
def test_a_wrong_layer_is_named(layers, error, named):
    with pytest.raises(error, match=named):
        ops.pixelcnn_sample(noise(2, 4), layers, (1, 2, 2), 2)


@pytest.mark.parametrize(
    "residual, error, named",
    [(5, ValueError, "None or a stream of an earlier layer, 1 to 4, got 5"),
     (10**9, ValueError, ".* 1 to 4, got 1000000000"),
     (-3, ValueError, ".* 1 to 4, got -3"), (0, ValueError, ".* 1 to 4, got 0"), (True, TypeError, "an int, got bool"),
     (1.0, TypeError, "an int, got float"), (1, ValueError, "a stream of 2 channels, .* and stream 1 has 4"),
     (4, ValueError, "a stream of 2 channels, .* and stream 4 has 0")],
)
def test_a_residual_is_a_finished_stream_of_as_many_channels(residual, error, named):
    one = lambda *size: torch.ones(*size) / 4
    layers = [Layer([(0, 0, -1, ALL, one(2, 4))], one(4), "gate"), Layer([(2, 0, 0, UP_TO, one(2, 2))], one(2))]
    layers.append(Layer([(3, 0, 0, UP_TO, one(2, 2))], one(2), "relu", residual))
    layers.append(Layer([(6, 0, 0, UP_TO, one(2, 1))], one(1)))
    with pytest.raises(error, match=rf"layers\[2\].residual must be {named}"):
        ops.pixelcnn_sample(noise(2, 4), layers, (1, 2, 2), 2)


def test_a_layer_by_rows_adds_rows_alone():
    """A layer by rows is computed before the pixels of its row: a residual of a layer by pixels is not there yet."""
    one = lambda *size: torch.ones(*size) / 4
    layers = [Layer([(0, 0, -1, ALL, one(2, 2))], one(2))]
    layers.append(Layer([(0, -1, 0, ALL, one(2, 2))], one(2), residual=1, rows=True))
    layers.append(Layer([(3, 0, 0, ALL, one(2, 1))], one(1)))
    with pytest.raises(ValueError, match=r"layers\[1\].residual must be a stream of a layer by rows"):
        ops.pixelcnn_sample(noise(2, 4), layers, (1, 2, 2), 2)
    with pytest.raises(ValueError, match=r"layers\[0\].residual must be None in the first layer"):
        ops.pixelcnn_sample(noise(2, 4), [Layer([(0, 0, -1, ALL, one(2, 1))], one(1), residual=0)], (1, 2, 2), 2)


def test_a_layer_that_looks_ahead_or_does_not_fit_is_named():
    shape, layers, u = (1, 2, 2), program((1, 2, 2), 2, 0, 2, 3, 2), noise(2, 4)
    draw = ops.pixelcnn_sample
    with pytest.raises(ValueError, match=r"layers\[5\], the last, must have 3 outputs, .* got 1"):
        draw(u, layers, shape, 2, 1)
    ahead = r"taps\[0\] must look back at a stream that is computed before it"
    weight, bias = torch.zeros(2, 1), torch.zeros(1)
    for tap in [(0, 0, 1, ALL), (0, 1, 0, ALL), (0, 0, 0, ALL), (0, 0, 0, UP_TO), (1, 0, -1, ALL)]:
        with pytest.raises(ValueError, match=rf"layers\[0\].{ahead}, got stream {tap[0]} at \({tap[1]}, {tap[2]}\)"):
            draw(u, [Layer([(*tap, weight)], bias)], shape, 2)
    for tap in [(0, 0, -1, ALL), (0, 0, 0, EARLIER), (1, -1, 0, ALL)]:
        with pytest.raises(ValueError, match=rf"layers\[\d\].{ahead}"):
            first = Layer([(0, 0, -1, ALL, weight)], bias)
            draw(u, [first, Layer([(*tap, weight[: 2 - tap[0]])], bias, rows=True)], shape, 2)
    wanted = r"W of layers\[0\].taps\[0\] must have shape \(channels, outputs\) = \(2, 1\), got \(3, 1\)"
    with pytest.raises(ValueError, match=wanted):
        draw(u, [Layer([(0, 0, -1, ALL, torch.zeros(3, 1))], bias)], shape, 2)
    with pytest.raises(ValueError, match=r"layers\[0\] must have as many outputs for each of 2 colours"):
        draw(u, [Layer([(0, 0, -1, ALL, torch.zeros(4, 3))], torch.zeros(3))], (2, 1, 2), 2)
