"""Tests of the studies that show a plane of codes, or take what is asked for, for models whose answer is known."""

import numpy as np
import pytest
import torch
from test_studies import TEST, Linear, drawn, figures  # noqa: F401  fixtures

from genmini import data, studies
from genmini.models._model import Model
from genmini.studies import embed, grid, interpolate, traverse

pytestmark = pytest.mark.usefixtures("folder_of_its_own")


def cells(panel, rows, columns):
    """The images 8 x 8 of a picture, (rows, columns, 8, 8)"""
    shown = torch.tensor(panel.images[0].get_array().filled(0)).unfold(0, 8, 9).unfold(1, 8, 9)
    assert shown.shape == (rows, columns, 8, 8)
    return shown


class Plane(Linear):
    def encode(self, x, y):
        return x[:, 3, 2:4].float()


def near(shown, wanted):
    """Levels up to 16, to eight roundings of float32"""
    torch.testing.assert_close(shown, wanted, rtol=0, atol=8 * 2**-24 * 16)


def test_the_grid_runs_rightwards_along_z_1_and_upwards_along_z_2(figures):  # noqa: F811
    """Column j decodes the j-th quantile of z_1, row i the i-th largest of z_2, of N(0, 1) or of the codes of train; of
    two runs side by side. Linear decodes z_1 and half of z_2, from 0 to 16."""
    normal = Plane(latent=2, elbo=True, has_normal_prior=True)
    normal.decode = lambda z, y: Linear.decode(normal, 4 * (z + 2), y)
    lines = grid.study([Plane(latent=2), normal], "x.png").splitlines()
    quantiles = (torch.arange(15) + 0.5) / 15
    z = data.load("digits").x[:, 3, 2:4].float()
    of_codes, of_normal = torch.quantile(z, quantiles, dim=0).T, [torch.distributions.Normal(0, 1).icdf(quantiles)] * 2
    for panel, (across, up), line, scale in zip(figures[0].axes, (of_codes, of_normal), lines, (0, 1), strict=True):
        shown = 16 * cells(panel, 15, 15)
        decoded = lambda places: 4 * (places + 2) if scale else places  # noqa: B023
        near(shown[:, :, 3, 2], decoded(across).expand(15, 15))
        near(shown[:, :, 3, 3], decoded(up).flip(0)[:, None].expand(15, 15) / 2)
        inside = ((z > torch.stack([across[0], up[0]])) & (z < torch.stack([across[-1], up[-1]]))).all(1)
        assert line == (f"Linear in runs/linear: z_1 from {across[0]:.2f} to {across[-1]:.2f}, z_2 from {up[0]:.2f} to "
                        f"{up[-1]:.2f}: {inside.double().mean():.1%} of the train codes lie there")
        for places, labels in ((across, panel.get_xticklabels()), (up, panel.get_yticklabels())):
            assert [each.get_text() for each in labels] == [f"{places[k]:.2g}" for k in range(0, 15, 3)]
        assert panel.get_xticks()[1] == 3 * 9 + 3.5 and panel.get_yticks()[0] == 14 * 9 + 3.5  # the least z_2 is below
        assert panel.get_xlabel() == "z$_1$" and panel.get_ylabel() == "z$_2$"


def test_a_picture_of_the_plane_shows_each_code_in_the_colour_of_its_class(figures):  # noqa: F811
    embed.study(Plane(latent=2), "x.png")
    dots = figures[0].axes[0].collections[0]
    assert (np.array_equal(dots.get_offsets(), TEST.x[:, 3, 2:4].numpy())
            and np.array_equal(dots.get_array(), TEST.y.numpy()))
    assert dots.norm.vmin == -0.5 and dots.norm.vmax == 9.5
    legend = figures[0].axes[0].get_legend()
    shades = {each.get_text(): dots_.get_facecolor()[0].tolist()
              for each, dots_ in zip(legend.get_texts(), legend.legend_handles, strict=True)}
    assert shades == {str(k): pytest.approx(dots.cmap(dots.norm(k))) for k in range(10)}
    for name in figures[0].axes[0].texts:  # the number of a class stands in the middle of its codes
        middle = TEST.x[TEST.y == int(name.get_text()), 3, 2:4].float().median(0).values
        assert name.get_position() == tuple(middle.tolist())


def test_codes_are_shown_along_the_axes_that_are_asked_for(figures):  # noqa: F811
    line = embed.study(Linear(attributes=("slant",)), "x.png", axes=("2", "slant"))
    panel = figures[0].axes[0]
    assert np.array_equal(panel.collections[0].get_offsets(), TEST.x[:, 3, [4, 2]].numpy())
    assert panel.get_xlabel() == "z$_{3}$" and panel.get_ylabel() == "z$_{1}$, slant"
    assert line.startswith("z_3 and z_1 of 3 dimensions; ")
    for axes in (("0", "3"), ("1", "1"), ("slant", "0"), ("size", "1"), ("1",)):
        with pytest.raises(studies.Misfit, match=f"two different ones of 0 ... 2, slant, got {', '.join(axes)}"):
            embed.study(Linear(attributes=("slant",)), "x.png", axes=axes)


def test_two_dimensions_move_in_a_plane_and_the_others_stand_still(figures):  # noqa: F811
    """The first axis moves rightwards, the second upwards, over the codes of train; the rest is that of the image."""
    run = Linear(attributes=("left",), measure=lambda self, x: x[:, 3, 2:3])
    run.decode = lambda z, y: Linear.decode(run, z[:, [0, 2]], y)
    scale = torch.tensor([1.0, 1.0, 0.75])
    run.encode = lambda x, y: Linear.encode(run, x, y) * scale
    line = traverse.study(run, "x.png", axes=("2", "left"))
    panel = figures[0].axes[0]
    shown = cells(panel, 11, 11)
    z = data.load("digits").x[:, 3, 2:5].float() * scale
    low, high = torch.quantile(z, torch.tensor([0.01, 0.99]), dim=0)
    along = lambda i: torch.linspace(low[i], high[i], 11)
    near(shown[:, :, 3, 3], along(2).expand(11, 11) / 2)
    near(shown[:, :, 3, 2], along(0).flip(0)[:, None].expand(11, 11))
    steps = high - low
    assert line == (f"rightwards z_3 moves the image by {steps[2] / 32:.2f}, upwards z_1 by {steps[0] / 16:.2f}, in "
                    f"the mean over the other; left grows by 0 rightwards and {steps[0]:.3g} upwards")
    assert panel.get_xlabel() == "z$_{3}$" and panel.get_ylabel() == "z$_{1}$, left"
    assert panel.get_yticks()[0] == 10 * 9 + 3.5 and panel.get_yticklabels()[0].get_text() == f"{low[0]:.2g}"
    other = Linear()
    other.decode = lambda z, y: Linear.decode(other, z[:, 1:], y)
    traverse.study(other, "x.png", axes=("0", "2"))  # z_2 of the test image stands still
    shown = cells(figures[1].axes[0], 11, 11)
    assert (shown[:, :, 3, 2] == TEST.x[0, 3, 3]).all()


def test_images_of_two_classes_are_picked_by_their_place_or_by_their_codes(drawn):  # noqa: F811
    z = TEST.x[:, 3, 2:5].float()
    for pick in ("first", "nearest"):
        line = interpolate.study(Linear(), "x.png", between=(7, 0), pick=pick)
        assert line.startswith("6 pairs of 7 and 0" + ", of the nearest codes" * (pick == "nearest") + ": the way")
        row = drawn[-1][0]["between the pixels"].unflatten(0, (6, 11))
        ends = interpolate.pairs(TEST.y, False, (7, 0), z if pick == "nearest" else None)
        assert (TEST.y[ends] == torch.tensor([7, 0])).all() and len(ends.unique()) == 12
        assert torch.equal(row[:, [0, 10]], TEST.x[ends].float())
        if pick == "first":
            assert torch.equal(ends, torch.stack([(TEST.y == k).nonzero()[:6, 0] for k in (7, 0)], 1))
        else:
            distances = torch.cdist(z[TEST.y == 7], z[TEST.y == 0])
            taken = (z[ends[:, 0]] - z[ends[:, 1]]).norm(dim=1)
            assert taken[0] == distances.min() and (taken.diff() >= 0).all()
    with pytest.raises(ValueError, match="among 300 images there are no two of the classes 3 and 12"):
        interpolate.study(Linear(), "x.png", between=(3, 12))
    with pytest.raises(studies.Misfit, match="encodes no examples, and no image is picked"):
        interpolate.study(Linear(encode=Model.encode, decode=True), "x.png", pick="nearest")
    given = Linear()
    given.conditional = True
    with pytest.raises(studies.Misfit, match="both are of one class"):
        interpolate.study(given, "x.png", between=(0, 7))
