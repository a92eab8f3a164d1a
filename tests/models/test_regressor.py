"""Tests of what a model is given of an image, and of the regressor: its equations by hand, that it learns the mean
where c leaves a choice, and the commands."""

import dataclasses
import itertools

import pytest
import torch
import torch.nn.functional as F
from check import command

from genmini import conditions, data
from genmini.data import shapes
from genmini.data.shapes import COLOURS, GROUNDS, Object, Scene
from genmini.models.regressor import Regressor
from genmini.train import fit

each_given = pytest.mark.parametrize("what", conditions.GIVEN)


@pytest.mark.parametrize("C", [1, 3])
def test_what_is_given_by_hand(C):
    x = torch.randn(2, C, 8, 4, dtype=torch.float64)
    for what, k in (("half", 2), ("quarter", 4)):
        c = conditions.part(x, what)
        assert c.shape == (2, C, 8 // k, 4 // k) and conditions.channels(what, x.shape[1:]) == C
        for n, i, j in itertools.product(range(2), range(8 // k), range(4 // k)):
            square = x[n, :, k * i : k * (i + 1), k * j : k * (j + 1)].flatten(1)
            torch.testing.assert_close(c[n, :, i, j], square.mean(1))
        repeated = c.repeat_interleave(k, 2).repeat_interleave(k, 3)
        torch.testing.assert_close(conditions.part(repeated, what), c)  # a small image is given by its pixels repeated
    for what, of in (("dark", lambda v: v.min()), ("grey", lambda v: v.mean())):
        c = conditions.part(x, what)
        assert c.shape == (2, 1, 8, 4) and conditions.channels(what, x.shape[1:]) == 1
        assert all(abs(c[n, 0, i, j] - of(x[n, :, i, j])) < 1e-15
                   for n, i, j in itertools.product(range(2), range(8), range(4)))
        assert torch.equal(conditions.shown(x, what), c)


def test_enlarging_keeps_planes_away_from_the_border():
    """Bilinear: of a ramp the means of squares lie in their middles, and what lies between them is the ramp again."""
    h, w = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    ramp = (3 * h - 2 * w + 5)[None, None]
    for what, edge in (("half", 1), ("quarter", 2)):
        inner = slice(edge, 16 - edge)
        shown = conditions.shown(ramp, what)
        assert shown.shape == ramp.shape
        assert torch.equal(shown[..., inner, inner], ramp[..., inner, inner])  # 32nds of integers: float32 has them
        assert abs(shown[..., 0, 0] - ramp[..., 0, 0]) > 0.3, "where nothing lies beyond, the nearest mean stands"


@pytest.mark.parametrize("side", [16, 64])
def test_dark_says_nothing_of_the_colour_and_grey_tells_it(side):
    """One scene in six colours, every shape, on every ground: c is the same to the bit, or differs for every two."""
    for ground, shape in itertools.product(GROUNDS, shapes.SHAPES):
        scenes = [Scene((Object(colour, shape, "big", 31, 29),), ground) for colour in COLOURS]
        x = torch.from_numpy(shapes.draw(scenes, side)).float()
        dark, grey = conditions.part(x, "dark"), conditions.part(x, "grey")
        assert (dark == dark[:1]).all() and len(dark.unique()) > 1, "the scene is seen"
        assert all((a - b).abs().max() > 8 for a, b in itertools.combinations(grey, 2))


def test_a_picture_of_what_is_given_has_the_shape_of_the_images():
    for shape in ((3, 16, 16), (16, 16)):
        x = torch.randint(256, (2, *shape), dtype=torch.uint8)
        for what in conditions.GIVEN:
            shown = conditions.pictured(x, what)
            assert shown.shape == x.shape and shown.min() >= 0 and shown.max() <= 255
    x = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(conditions.pictured(x, "dark"), x.float().amin(1, keepdim=True).expand(-1, 3, -1, -1))


@each_given
def test_it_is_its_equations(what):
    torch.manual_seed(0)
    model = Regressor((3, 8, 8), levels=17, given=what, width=8, dtype=torch.float64).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    x = torch.randint(17, (4, 3, 8, 8))
    x_0 = x / 8.0 - 1
    c = x_0.double().amin(1, keepdim=True) if what == "dark" else x_0.double().mean(1, keepdim=True)
    if what in conditions.SQUARE:
        k = conditions.SQUARE[what]
        c = x_0.double().unfold(2, k, k).unfold(3, k, k).mean((4, 5))
        c = F.interpolate(c, (8, 8), mode="bilinear")
    if what == "upper":
        c = x_0.double() * (torch.arange(8) < 4)[:, None]
    mean = model.net(c, torch.zeros(4))
    torch.testing.assert_close(model.loss(x), (mean - x_0).square().mean((1, 2, 3)))
    torch.testing.assert_close(model.restore(x), ((mean + 1) * 8).clamp(0, 16).detach())
    assert model.restore(x).min() >= 0 and model.restore(x).max() <= 16
    other = x.clone()
    if what in ("dark", "grey"):  # the same c of another image: the same answer
        other = x.roll(1, 1)
    else:
        rows = [6, 7] if what == "upper" else [0, 1]
        other[:, :, rows] = x[:, :, rows[::-1]]
    assert not torch.equal(other, x)
    torch.testing.assert_close(model.restore(other), model.restore(x))
    model.loss(x).sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_where_c_leaves_a_choice_it_learns_the_mean_and_its_loss_is_the_variance():
    """Red and green pixels, as many of each, have the same least channel, 0. Their mean is a dark yellow at half of the
    levels, and the squared error on [-1, 1] is 1 in two of the three channels."""
    x = torch.zeros(40, 3, 4, 4, dtype=torch.uint8)
    x[::2, 0], x[1::2, 1] = 255, 255
    few = data.Data("few", "train", x, torch.zeros(40, dtype=torch.int64), 256)
    torch.manual_seed(0)
    model = Regressor((3, 4, 4), levels=256, width=8)
    history = fit(model, few, dataclasses.replace(few, split="valid"), steps=150, rate=1e-2, batch=40, progress=False)
    mean = model.restore(x[:1])[0]
    wanted = torch.tensor([127.5, 127.5, 0.0]).view(3, 1, 1).expand(3, 4, 4)
    assert (mean - wanted).abs().max() < 12.75, "a tenth of the distance to either colour"
    assert abs(history.valid - 2 / 3) < 0.01


def test_what_cannot_be_is_refused():
    for settings, words in ((dict(given="sepia"), "given must be 'dark', 'grey', 'upper', 'half' or 'quarter', got"),
                            (dict(given="quarter", shape=(8, 6)), "takes images whose sides 4 divides, got 8x6"),
                            (dict(shape=(9,)), r"shape must be \(H, W\)"), (dict(levels=None), "levels must be"),
                            (dict(width=6), "width must be a multiple of 8")):
        with pytest.raises(ValueError, match=words):
            Regressor(**{"shape": (8, 8), **settings})


def test_the_command_line_trains_it_and_says_that_it_draws_nothing(capsys, folder_of_its_own):
    words = ["train", "regressor", "--data", "shapes-one", "--size", "16", "--recipe", "enlarge-4", "--steps", "2",
             "--set", "width=8", "--out", "r"]
    status, out, _ = command(capsys, *words)
    assert status == 0 and "squared error" in out and "picture   r/samples.png" in out
    status, _, err = command(capsys, "sample", "r")
    assert status == 2 and "r does not fit: Regressor draws no samples" in err
    assert command(capsys, "eval", "r")[0] == 0
