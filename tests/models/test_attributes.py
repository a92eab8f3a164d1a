"""Attributes of drawn shapes whose measures are known."""

import math

import pytest
import torch

from genmini import attributes


def measured(v):
    return dict(zip(attributes.NAMES, attributes.measure(v[None].double())[0].tolist(), strict=True))


def blank(side=28):
    return torch.zeros(side, side)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 10), (3, 12), (20, 2), (5, 5), (28, 28), (28, 1)])
@pytest.mark.parametrize("ink", [1.0, 0.25])
def test_a_box_is_exact(height, width, ink):
    """Of whole pixels, up to the edge of the image. Of a pale one the area counts the ink."""
    v = blank()
    v[:height, 28 - width :] = ink
    measures = measured(v)
    assert measures["area"] == pytest.approx(ink * height * width, abs=1e-9)
    assert measures["width"] == pytest.approx(width, abs=1e-9) and measures["height"] == pytest.approx(height, abs=1e-9)
    assert measures["slant"] == pytest.approx(0, abs=1e-9)
    if ink == 1:
        assert measures["length"] == pytest.approx(max(height, width), abs=1e-6)  # a square is where a root begins
        assert measures["thickness"] == pytest.approx(min(height, width), abs=1e-6)


@pytest.mark.parametrize("columns", [-2, -1, 0, 1, 2])
def test_a_slanted_bar_leans_by_its_columns(columns):
    v = blank()
    for i in range(10):
        start = 12 + columns * (5 - i)  # row 0 is above: to the right there, if columns > 0
        v[8 + i, start : start + 3] = 1
    assert measured(v)["slant"] == pytest.approx(columns, abs=1e-9)


@pytest.mark.parametrize("angle", range(0, 180, 15))
@pytest.mark.parametrize("thickness", [2.0, 4.0])
def test_a_line_of_any_direction_has_its_length_and_thickness(angle, thickness):
    """The bars have soft edges. The perimeter counts eight directions; between them it is too long by 8% at most, that
    is 1 / cos(22.5 degrees), and so is the length; corners and edges cost a pixel more."""
    side, length = 40, 24.0
    row, column = torch.meshgrid(torch.arange(side) - 19.5, torch.arange(side) - 19.5, indexing="ij")
    along = column * math.cos(math.radians(angle)) - row * math.sin(math.radians(angle))
    across = column * math.sin(math.radians(angle)) + row * math.cos(math.radians(angle))
    inside = lambda off, half: (half + 0.5 - off.abs()).clamp(0, 1)
    measures = measured(inside(along, length / 2) * inside(across, thickness / 2))
    assert measures["area"] == pytest.approx(length * thickness, rel=0.03)
    assert -1.5 < measures["length"] - length < 0.085 * length + 1.5
    assert thickness * 0.85 < measures["thickness"] + 0.1 and measures["thickness"] < thickness * 1.1 + 0.1
    if 30 <= angle <= 150 and thickness == 2:
        assert measures["slant"] == pytest.approx(1 / math.tan(math.radians(angle)), abs=0.1)


def test_a_disc_is_as_long_as_it_is_thick():
    row, column = torch.meshgrid(torch.arange(28) - 13.5, torch.arange(28) - 13.5, indexing="ij")
    measures = measured((8.5 - (row.square() + column.square()).sqrt()).clamp(0, 1))
    assert measures["length"] == measures["thickness"] == pytest.approx(2 * math.pi * 8 / 4, rel=0.1)
    assert measures["width"] == pytest.approx(measures["height"], abs=1e-9)


def test_a_move_changes_nothing_and_images_stand_apart():
    torch.manual_seed(0)
    v = torch.zeros(6, 20, 20, dtype=torch.float64)
    v[:, 4:12, 4:12] = torch.rand(6, 8, 8, dtype=torch.float64)
    each = attributes.measure(v)
    torch.testing.assert_close(attributes.measure(v.roll((3, 5), (1, 2))), each, atol=1e-9, rtol=0)
    torch.testing.assert_close(attributes.measure(v[2:3])[0], each[2], atol=1e-12, rtol=0)
    flipped = attributes.measure(v.flip(2))
    torch.testing.assert_close(flipped[:, 3], -each[:, 3], atol=1e-12, rtol=0)
    turned = attributes.measure(v.transpose(1, 2))
    torch.testing.assert_close(turned[:, [0, 1, 2, 5, 4]], each[:, [0, 1, 2, 4, 5]], atol=1e-9, rtol=0)


def test_an_empty_image_has_nothing():
    assert (torch.equal(attributes.measure(torch.zeros(2, 8, 8)), torch.zeros(2, 6))
            and attributes.measure(torch.zeros(0, 8, 8)).shape == (0, 6))
    assert attributes.measure(torch.eye(8, dtype=torch.uint8)[None]).isfinite().all()
