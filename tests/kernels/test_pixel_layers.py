"""Errors of the list of layers that a PixelCNN hands to its sampler (kernels/_pixel_layers.py) name what is wrong."""

import pytest
import torch
from genmini.kernels.pixelcnn_sample import ALL, UP_TO, Layer
from test_pixelcnn_sample import noise, program

from genmini import ops


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
