"""The two networks of an adversary: a generator, and the features by which a discriminator tells its samples from data.

    generator       z (N, d), y (N, C) -> (N, 1, *shape), numbers without bounds
    features        (N, *shape) -> (N, F)

Body "mlp" has layers of `hidden` units. Body "conv" of images has `width` channels: the generator is the decoder Up of
genmini/nets/coders.py, the features are its mirror. No layer sees the batch as a whole (no batch norm): the gradient
with respect to one x, which R1 takes, would pass through the others. LeakyReLU lets a gradient reach the generator
wherever x is.
"""

import math

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from genmini.nets.coders import UPSAMPLE, Steered, Up
from genmini.settings import image, one_of, whole

SLOPE = 0.2  # of LeakyReLU below 0


def players(body, shape, d, hidden=(128, 128), width=16, context=0, spectral=False, upsample="nearest"):
    """Return the generator, the features and their number F. context: the length C of y; spectral: divide each weight
    of the features by its largest singular value; upsample: of the generator "conv", as in genmini/nets/coders.py."""
    one_of(("mlp", "conv"), body=body)
    one_of(UPSAMPLE, upsample=upsample)
    whole(hidden=hidden, width=width)
    if body == "mlp" and not hidden:
        raise ValueError("hidden must be one layer or more of body 'mlp', got ()")
    D = math.prod(shape)
    if body == "conv":
        generator = Up(shape, d, 1, width, upsample, context)
        features, count = mirror(shape, width)
    else:
        layers = perceptron(d + context, hidden)
        generator = Steered(*layers, nn.Linear(hidden[-1], D), nn.Unflatten(1, (1, *shape)))
        features, count = nn.Sequential(nn.Flatten(), *perceptron(D, hidden)), hidden[-1]
    if spectral:
        for layer in features:
            if isinstance(layer, nn.Linear | nn.Conv2d):
                spectral_norm(layer)
    return generator, features, count


def perceptron(D, hidden):
    widths = [D, *hidden]
    pairs = zip(widths[:-1], widths[1:], strict=True)
    return [part for K, J in pairs for part in (nn.Linear(K, J), nn.LeakyReLU(SLOPE))]


def mirror(shape, width):
    """The features of body "conv" and their number F: a 3x3 convolution, two of 4x4 and stride 2 that halve the sides;
    their output made flat."""
    C, H, W = image(shape)
    layers = [nn.Unflatten(1, (C, H))] if len(shape) == 2 else []
    for K, J, side, stride in ((C, width, 3, 1), (width, 2 * width, 4, 2), (2 * width, 4 * width, 4, 2)):
        layers += [nn.Conv2d(K, J, side, stride, 1), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers, nn.Flatten()), 4 * width * (H // 4) * (W // 4)
