"""What every model of levels refuses (genmini/models/_levels.py)."""

import math

import pytest
import torch

from genmini.models._levels import checked
from genmini.models.fvsbn import FVSBN
from genmini.models.made import MADE
from genmini.models.nade import NADE
from genmini.models.pixelcnn import PixelCNN
from genmini.models.realnvp import RealNVP


@pytest.mark.parametrize("known, x, words", [(3, None, "and no x"), (5, torch.zeros(2, 4), "0 to 4, got 5"),
                                             (1, torch.zeros(3, 4), "n = 2 images")])
def test_known_pixels_are_checked(known, x, words):
    for model in (FVSBN(4), FVSBN(4, levels=3), NADE(4), NADE(4, levels=3)):
        with pytest.raises(ValueError, match=words):
            model.sample(2, x=x, known=known)


@pytest.mark.parametrize("make", [FVSBN, NADE, MADE, PixelCNN, RealNVP], ids=lambda make: make.__name__)
@pytest.mark.parametrize("levels", [2, 5])
def test_what_is_no_level_has_no_probability(make, levels):
    model = make((2, 2), levels=levels)
    for x, words in ((torch.full((3, 2, 2), levels), "hold levels"), (torch.full((3, 2, 2), -1), "hold levels"),
                     (torch.full((3, 2, 2), 0.4), "whole levels"), (torch.zeros(3, 5), "must have shape")):
        with pytest.raises(ValueError, match=words):
            model.log_prob(x)


@pytest.mark.parametrize("make", [FVSBN, NADE, MADE, PixelCNN], ids=lambda make: make.__name__)
def test_what_is_no_noise_draws_nothing(make):
    """nan would draw zeros, and 2. ones"""
    model = make((2, 2))
    for u in (math.nan, 2.0, -0.1):
        with pytest.raises(ValueError, match=f"u must hold numbers from 0 to 1, got .*{u}"):
            model.sample(2, u=torch.full((2, 4), u))
    for u in ([0.1], torch.zeros(2, 4, dtype=torch.int32)):
        with pytest.raises(ValueError, match=r"u must be a floating tensor of shape \(2, 4\), got"):
            model.sample(2, u=u)
    with pytest.raises(ValueError, match="known must be a whole number"):
        model.sample(2, x=torch.zeros(2, 4), known=1.5)


@pytest.mark.parametrize("make", [FVSBN, NADE, MADE, PixelCNN, RealNVP], ids=lambda make: make.__name__)
def test_what_is_no_tensor_of_real_numbers_has_no_probability(make):
    model = make((2, 2))
    for x in ([1, 2, 3, 4], None, torch.zeros(3, 4, dtype=torch.complex64)):
        with pytest.raises(ValueError, match="x must be a tensor of real numbers, got"):
            model.log_prob(x)


def test_the_brightest_of_256_levels_is_one():
    """uint8, whose numbers end at 255, beside a bound of 256"""
    x = torch.tensor([[0, 255, 3, 4]], dtype=torch.uint8)
    assert checked(x, (4,), 256) is not None
    with pytest.raises(ValueError, match="levels 0 ... 254, got 0 ... 255"):
        checked(x, (4,), 255)


@pytest.mark.parametrize("model", [FVSBN, NADE])
def test_more_than_256_levels_are_drawn_whole(model):
    """A level above 255 does not fit into uint8: u near 1 draws the brightest of 300, not 299 - 256."""
    torch.manual_seed(0)
    drawn = model(3, levels=300).sample(2, u=torch.full((2, 3), 0.999))
    assert drawn.dtype == torch.int64 and drawn.min() > 290
