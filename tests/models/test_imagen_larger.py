"""How Imagen enlarges: in halves of a side, by networks that see what is there with a little noise, and keep it."""

import pytest
import torch
from test_imagen import SMALL, WORDS, imagen
from torch.nn.functional import avg_pool2d

from genmini import conditions
from genmini.conditions import enlarged
from genmini.models.imagen import Imagen


@pytest.mark.parametrize("shape, sides", [
    ((3, 16, 16), [16]), ((31, 32), [32]), ((32, 32), [16, 32]), ((3, 48, 48), [24, 48]), ((3, 64, 64), [16, 32, 64]),
    ((64, 128), [32, 64, 128]), ((256, 256), [64, 128, 256]),
])
def test_images_are_drawn_in_halves_of_their_sides(shape, sides):
    model = Imagen(shape, 17, WORDS, 7, **SMALL)
    assert [part.shape[-1] for part in model.parts[1:]] == sides
    assert model.stages == ("language", "base", "twice", "again")[: 1 + len(sides)]


def test_each_network_learns_from_the_means_of_squares_of_the_image():
    model, x = imagen(shape=(3, 64, 64)), torch.randint(17, (2, 3, 64, 64))
    seen = []
    for part in model.parts[1:]:
        part.loss = lambda x, y: seen.append(x) or torch.zeros(len(x))
    for stage in (1, 2, 3):
        model.stage.fill_(stage)
        model.loss(x, "red")
    for k, means in zip((4, 2, 1), seen, strict=True):
        direct = x.double().unflatten(3, (-1, k)).unflatten(2, (-1, k)).mean((3, 5))
        assert torch.equal(means.double(), direct.round())


def test_what_is_enlarged_is_a_little_noisy_and_the_network_is_told_how_much():
    enlarger, N = imagen(shape=(32, 32), noise=0.2).larger[0], 20_000
    x_0 = torch.full((N, 1, 4, 4), 0.5).double()
    torch.manual_seed(0)
    for training in (False, True):
        seen = enlarger.train(training).shown(x_0)
        u, d = seen[:, 1, 0, 0], seen[:, 0, 0, 0]  # a corner is no mean of pixels
        assert torch.equal(seen[:, 1], u[:, None, None].expand(-1, 4, 4))
        e = (d - (1 - u**2).sqrt() * 0.5) / u
        assert abs(e.mean()) < 5 / N**0.5 and abs(e.var() - 1) < 5 * (2 / N) ** 0.5
        if training:
            assert 0 <= u.min() < 0.01 and 0.49 < u.max() <= 0.5 and abs(u.mean() - 0.25) < 5 * 0.5 / (12 * N) ** 0.5
        else:
            assert (u == 0.2).all()
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(enlarger.shown(x_0, generator), enlarger.shown(x_0, generator.manual_seed(3)))


def test_without_noise_half_of_an_image_is_shown_as_it_is():
    model = imagen(shape=(3, 32, 32), noise=0.0)
    x = torch.randn(2, 3, 16, 16).double()
    seen = model.larger[0].shown(x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert seen.shape == (2, 4, 32, 32) and (seen[:, 3] == 0).all()
    torch.testing.assert_close(seen[:, :3], enlarged(x, (32, 32)), atol=1e-15, rtol=1e-15)


def test_an_enlarger_that_has_not_learnt_gives_the_blurred_image():
    enlarger = Imagen((3, 32, 32), 17, WORDS, 7, dtype=torch.float64, noise=0.0, **SMALL).larger[0].eval()
    x_0, y = torch.randn(2, 3, 32, 32).double(), torch.ones(2, 1, 7).double()
    x0 = enlarger.step(y, threshold="none", x_0=x_0)(torch.randn_like(x_0), (0.6, 0.8), (1.0, 0.0))
    torch.testing.assert_close(x0, enlarged(conditions.part(x_0, "half"), (32, 32)), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_sample_is_enlarged_by_what_has_been_learnt(stage):
    model, film, shown = imagen(shape=(3, 64, 64), sampler="ddim", noise=0.0), [], []
    model.stage.fill_(stage)
    for part in model.larger:
        part.shown = lambda x_0, generator=None, kept=part.shown: shown.append(x_0) or kept(x_0, generator)
    torch.manual_seed(0)
    x = model.sample(2, "a red circle", film=film)
    small = model.means(x, (3, 16, 16))
    assert x.shape == (2, 3, 64, 64) and x.dtype == torch.uint8
    assert len(film) == 1 + 3 + sum(1 + 10 for _ in shown) and all(frame.shape == x.shape for frame in film)
    assert [x_0.shape[-1] for x_0 in shown] == [32, 64][: max(0, stage - 1)]
    torch.manual_seed(0)
    base = model.base.sample(2, model.states(model.check_y("a red circle", 2)))
    if stage < 2:
        assert torch.equal(small, base) and torch.equal(x, base.repeat_interleave(4, 2).repeat_interleave(4, 3))
    else:  # what is enlarged is the sample of the base, and what is enlarged again has its means
        assert torch.equal(conditions.part(model.larger[0].in_levels(shown[0]), "half").round(), base)
    if stage == 3:
        middle = conditions.part(model.larger[1].in_levels(shown[1]), "half").round()
        inside = (middle > 0).all(1) & (middle < 16).all(1)  # whose squares no level has left its range
        whole = inside.unflatten(2, (16, 2)).unflatten(1, (16, 2)).all(4).all(2)[:, None].expand_as(base)
        means = avg_pool2d(middle.float(), 2)
        assert whole.any() and (means - base)[whole].abs().max() <= 0.5


@pytest.mark.parametrize("shape, sides", [((3, 32, 64), (16, 32)), ((32, 32), (16, 16))])
def test_what_is_enlarged_has_the_means_of_what_was_there(shape, sides):
    """Of x within [60, 200) and means within 40 of its own: half a level of rounding each. The details do not move."""
    model, draw = Imagen(shape, 256, WORDS, 7, **SMALL), torch.Generator().manual_seed(3)
    x = torch.randint(60, 200, (4, *shape), generator=draw).to(torch.uint8)
    small = model.means(x, (*shape[:-2], *sides)) + torch.randint(-40, 41, (4, *shape[:-2], *sides), generator=draw)
    fitted = model.fitted(x, small.to(torch.uint8))
    assert fitted.shape == x.shape and fitted.dtype == torch.uint8
    means = avg_pool2d(fitted.double().view(4, -1, *shape[-2:]), 2).view(small.shape)
    assert (means - small).abs().max() <= 0.5 and (model.means(x, small.shape[1:]) - small).abs().max() == 40
    moved = (fitted.float() - x.float()).unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2))
    assert (moved.amax((-1, -3)) - moved.amin((-1, -3))).max() <= 1  # a square moves as a whole
    for level in (0, 255):
        assert (model.fitted(x, torch.full_like(small, level)) == level).float().mean() > 0.2  # and stays in range
