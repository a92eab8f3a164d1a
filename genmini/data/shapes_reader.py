"""Read the scene that an image of shapes shows, exact to the unit; None where it cannot be read.

    gain(h) = |v - g|^2 - |v - g - m_h (c - g)|^2 = 2 <v - g, m_h (c - g)> - |m_h (c - g)|^2

v are the pixels, g the ground, and a hypothesis h is a colour c, a shape, a size and a place, which together cover the
share m_h of each pixel. Its gain is the squared error that drawing it saves. All of them are tried, 17,800 shapes,
sizes and places in 6 colours: 128 convolutions, one for each shape, size and position within a pixel. The one that
gains most is an object, and hypotheses whose boxes meet its box are left out; then the next, until none gains 0.7 of
what it would gain where it is drawn. Every image is read at 16x16 pixels, averaged over squares: a unit is a quarter of
such a pixel.

The answer is checked by drawing it: where the image of the scene differs from the image read by more than `tolerance`
levels, as the root of the mean square over any square of a quarter of the side, the image is unreadable, None. What
differs by less is taken for noise: a faint stain, or at 64 pixels a speck of one pixel.

tests/project/test_data_shapes_reader.py: every scene drawn is read without a mistake, and how much noise that survives.
"""

import functools

import numpy as np
import torch
from torch.nn import functional as F

from .shapes import COLOURS, FINE, GROUNDS, RADIUS, SHAPES, SIDES, Object, Scene, Scenes, draw, templates

SIDE = min(SIDES)  # at which images are read
MOST = 9  # objects of a scene
LEAST = 0.7  # of the gain of an object, which is 1 where exactly it is drawn
TOLERANCE = 28  # levels, of 255


def read(x, tolerance=TOLERANCE):
    """Images (N, 3, side, side), or grey (N, side, side), levels 0 ... 255 -> a list of N: Scene, or None.

    Of grey images, in which objects are 255 on a ground of 0, colours and ground are read as None.
    """
    x = torch.as_tensor(x).float()
    grey = x.dim() == 3
    side = x.shape[-1] if x.dim() > 2 else None
    if side not in SIDES or x.shape[1:] not in ((3, side, side), (side, side)):
        raise ValueError("the reader takes images (N, 3, side, side), or (N, side, side) if they are grey, with a side "
                         f"of {', '.join(map(str, SIDES))}, got {tuple(x.shape)}")
    x = x[:, None] if grey else x
    return [scene for part in x.split(32) if len(part) for scene in _read(part, grey, tolerance)]


@torch.no_grad()
def _read(x, grey, tolerance):
    finite = x.isfinite().flatten(1).all(1)
    x = x.where(finite[:, None, None, None], 0.0)
    colours = torch.tensor([[255]] if grey else [*COLOURS.values()], dtype=torch.float32)  # (K, C)
    grounds = torch.tensor([[0]] if grey else [*GROUNDS.values()], dtype=torch.float32)
    v = F.avg_pool2d(x, x.shape[-1] // SIDE)  # (N, C, 16, 16)
    ground = _ground(v, colours, grounds)
    objects = _objects(v - grounds[ground][:, :, None, None], colours - grounds[ground][:, None])
    scenes = Scenes(objects.numpy(), ground.numpy())
    drawn = torch.from_numpy(draw(scenes, x.shape[-1], colour=not grey)).view(x.shape)
    quarter = x.shape[-1] // 4
    error = F.avg_pool2d((x - drawn).square().mean(1, keepdim=True), quarter, quarter // 4).flatten(1).amax(1).sqrt()
    readable = finite & (error <= tolerance)
    return [_scene(scenes[n], grey) if ok else None for n, ok in enumerate(readable.tolist())]


def _scene(scene, grey):
    if not grey:
        return scene
    return Scene(tuple(Object(None, o.shape, o.size, o.x, o.y) for o in scene.objects), None)


def _ground(v, colours, grounds):
    """(N,): the ground to which most pixels are nearer than to all other grounds and colours"""
    named = torch.cat([grounds, colours])
    nearest = torch.cdist(v.flatten(2).mT.contiguous(), named[None]).argmin(2)  # (N, pixels)
    return F.one_hot(nearest, len(named)).sum(1)[:, : len(grounds)].argmax(1)


def _objects(v, d):
    """v (N, C, 16, 16), pixels less the ground; d (N, K, C), colours less the ground -> (N, MOST, 5), as Scenes has."""
    m, shape, size, x, y, r = _hypotheses()
    N, w = len(v), m.shape[-1]
    met = F.conv2d(F.pad(v, (0, w - 1, 0, w - 1)).flatten(0, 1)[:, None], m)  # (N C, H, 16, 16): <v, m>, by channel
    whole = d.square().sum(2)[:, :, None] * m.square().sum((1, 2, 3))  # (N, K, H): the gain where h is what is there
    gain = 2 * torch.einsum("nkc,nchp->nkhp", d, met.view(N, v.shape[1], len(m), SIDE**2)) - whole[:, :, :, None]
    gain, colour = gain.masked_fill((gain < LEAST * whole[:, :, :, None]) | (x < 0), 0).flatten(2).max(1)  # (N, H 256)
    found = torch.full((N, MOST, 5), -1)
    for n in range(MOST):
        best, h = gain.max(1)
        here = best > 0
        if not here.any():
            break
        at = lambda of: of.flatten()[h]  # noqa: B023
        found[here, n] = torch.stack([colour.gather(1, h[:, None])[:, 0], at(shape), at(size), at(x), at(y)], 1)[here]
        far = [(of.flatten() - at(of)[:, None]).abs() for of in (x, y)]  # (N, H 256)
        gain = gain.masked_fill((torch.maximum(*far) < r.flatten() + at(r)[:, None]) & here[:, None], 0)
    return found


@functools.cache
def _hypotheses():
    """-> the shares m (H, 1, w, w) by shape, size and phase, and for each of H and of the 256 pixels in which its box
    can begin the numbers of shape and size, x, y and radius; x is -1 where the box would leave the image."""
    masks, _ = templates(SIDE)
    m = torch.from_numpy(masks.reshape(-1, 1, *masks.shape[-2:])).float() / (FINE // SIDE) ** 2
    phases, unit = masks.shape[2], np.arange(SIDE) * masks.shape[2]  # a phase is a unit
    axes = np.arange(len(SHAPES)), np.arange(len(RADIUS)), np.arange(phases), np.arange(phases), unit, unit
    shape, size, a, b, i, j = np.meshgrid(*axes, indexing="ij")
    r = np.array([*RADIUS.values()])[size]
    x, y = b + j + r, a + i + r
    x = np.where(np.maximum(x, y) + r <= phases * SIDE, x, -1)
    return m, *(torch.from_numpy(v.reshape(len(m), SIDE**2)) for v in (shape, size, x, y, r))
