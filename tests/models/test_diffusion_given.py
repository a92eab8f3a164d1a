"""Tests of a diffusion that makes the rest of an image: its network sees what is given of it, and known pixels stay."""

import math

import numpy as np
import pytest
import torch
from check import command
from test_diffusion import diffusion

from genmini import checkpoint, conditions, data
from genmini.models._model import Cannot
from genmini.models.diffusion import LOSSES

# ---- a part of an image is given ------------------------------------------------------------------------------------


def of_parts(what, **settings):
    return diffusion((3, 8, 8), given=what, **{"draws": 3, **settings})


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("what", conditions.GIVEN)
def test_the_network_sees_c_beside_the_noise(what, loss):
    """In the loss, in every term of the bound and in each step of a sampler, with guidance as without."""
    model, seen = of_parts(what, loss=loss, classes=3), []
    net, C = model.net.forward, 3 + conditions.channels(what, (3, 8, 8))
    model.net.forward = lambda x, log_snr, y: (seen.append(x), net(x, log_snr, y))[1]
    x, y = torch.randint(17, (4, 3, 8, 8)), torch.tensor([0, 1, 2, 0])
    model.loss(x, y=y)
    model.log_prob(x, y=y, k=2)
    model.sample(4, y, x=x)
    guided = len(seen)
    model.sample(4, y, x=x, guidance=2.0)
    model.process(x, y, times=2)
    c = conditions.shown(x.double() / 8 - 1, what)
    assert len(seen) > 20
    for n, images in enumerate(seen):
        assert images.shape[1:] == (C, 8, 8)
        twice = guided <= n < guided + 3
        torch.testing.assert_close(images[:, 3:], torch.cat([c, c]) if twice else c, atol=1e-14, rtol=0)


@pytest.mark.parametrize("what", conditions.GIVEN)
def test_a_sample_depends_on_c_alone(what):
    model, noise = of_parts(what), torch.randn(4, 3, 8, 8).double()
    x = torch.randint(17, (4, 3, 8, 8))
    rows = [*range(7), 0] if what == "upper" else [1, 0, *range(2, 8)]  # what is not seen, and two rows of a square
    same = x.roll(1, 1) if what in ("dark", "grey") else x[:, :, rows]
    assert not torch.equal(same, x)
    draw = lambda x: model.sample(4, noise=noise, x=x)
    assert torch.equal(draw(same), draw(x)) and not torch.equal(draw(16 - x), draw(x))
    torch.manual_seed(0)
    one = model.restore(x)
    torch.manual_seed(0)
    assert torch.equal(one, model.sample(4, x=x)) and one.dtype == torch.uint8


def test_what_is_given_must_be_there():
    with pytest.raises(ValueError, match="given must be 'dark', 'grey', 'upper', 'half' or 'quarter', got 'sepia'"):
        of_parts("sepia")
    with pytest.raises(ValueError, match="x is missing: the images of which this model is given half"):
        of_parts("half").sample(2)
    with pytest.raises(ValueError, match="x is missing: the images of which this model is given known pixels"):
        diffusion().sample(2, known=3)
    with pytest.raises(Cannot, match="this Diffusion is given no part of an image: set given to dark or grey or"):
        diffusion().restore(torch.zeros(2, 8, 8))


# ---- completion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [dict(), dict(given="dark"), dict(classes=3)], ids=str)
def test_known_pixels_stay_to_the_bit_and_the_rest_is_drawn(settings):
    model = diffusion((3, 8, 8), levels=256, draws=3, dtype=torch.float32, **settings)
    x = torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8)
    hole = torch.ones(8, 8, dtype=torch.bool)
    hole[2:6, 3:7] = False
    half = torch.zeros(3, 8, 8, dtype=torch.bool)
    half[:, :4] = True  # 96 numbers: the upper rows, in all colours
    for known, mask in ((96, half), (half, half), (hole, hole.expand(3, 8, 8)), (192, torch.ones_like(half))):
        one, other = model.sample(5, x=x, known=known), model.sample(5, x=x, known=known)
        assert torch.equal(one[:, mask], x[:, mask]) and one.dtype == torch.uint8
        assert mask.all() or not torch.equal(one, other)
    for wrong in (-1, 193, 2.0):
        with pytest.raises(ValueError, match="known must be"):
            model.sample(5, x=x, known=wrong)
    for wrong, words in ((dict(x=x[:2], known=3), r"x must hold n = 5 images, got 2"),
                         (dict(noise=torch.zeros(5, 3, 3)), r"noise must have shape \(5, 3, 8, 8\), got \(5, 3, 3\)"),
                         (dict(noise=torch.full((5, 3, 8, 8), math.nan)), "noise must be finite .*: 960 are not"),
                         (dict(film=()), r"film must be a list, got \(\)"),
                         (dict(known=torch.ones(3, 3)), r"known must be a mask of shape \(3, 8, 8\), got \(3, 3\)")):
        with pytest.raises(ValueError, match=words):
            model.sample(5, **dict(x=x) | wrong)
    noise, drawn = torch.randn(5, 3, 8, 8), []
    for same in (noise, noise.double()):  # whatever the dtype that it is given in
        torch.manual_seed(3)
        drawn.append(model.sample(5, x=x, noise=same))
    assert torch.equal(*drawn)
    for times in (0, 1001):
        with pytest.raises(ValueError, match=f"times must be 1 to 1000, got {times}"):
            model.process(x, times=times)
    for how in ("ddim", "dpm", "heun"):
        with pytest.raises(ValueError, match=f"known pixels are completed by how='ddpm' alone, got '{how}'"):
            model.sample(5, x=x, known=96, how=how)
    torch.manual_seed(3)
    one = model.sample(5, x=x, known=96)
    torch.manual_seed(3)
    assert torch.equal(one, model.sample(5, x=x, known=96, how="ddpm"))


def test_the_command_line_completes_and_restores_test_images(capsys, folder_of_its_own):
    """--complete keeps the upper half; a model that is given a part of an image takes that of test images, and
    completes none, as it would see the means of the lower half."""
    test = data.load("shapes-one", "test", size=16).x[:4]
    for what in ("", "half"):
        model = diffusion((3, 16, 16), levels=256, draws=2, given=what, dtype=torch.float32)
        metadata = {"step": 1, "data": "shapes-one", "options": {"size": 16}}
        checkpoint.save(f"run{what}", model, metadata)
        words = ["sample", f"run{what}", "-n", "4", "--out"]
        status, out, err = command(capsys, *words, "x.npy", "--complete")
        if what:
            assert status == 2 and "given half of the whole image, and would see the half" in err
        else:
            assert status == 0 and "4 completions in x.npy" in out
            assert np.array_equal(np.load("x.npy")[:, :, :8], test[:, :, :8].numpy())
            status, _, err = command(capsys, *words, "x.npy", "--complete", "--how", "heun")
            assert status == 2 and err.count("\n") == 1 and "how='ddpm' alone, got 'heun'" in err
        assert command(capsys, *words, "y.npy")[0] == command(capsys, *words, "y.png")[0] == 0
    torch.manual_seed(0)
    assert np.array_equal(np.load("y.npy"), model.sample(4, x=test).numpy())
