"""Tests of the studies that take no run: what `kl` and `upsample` draw is true."""

import math

import pytest
import torch
import torch.nn.functional as F
from check import command

from genmini import plots, studies
from genmini.studies import kl, upsample

pytestmark = pytest.mark.usefixtures("folder_of_its_own")


@pytest.fixture
def figures(monkeypatch):
    """The figures of matplotlib that the studies draw, in place of files."""
    seen = []
    monkeypatch.setattr(plots, "save", lambda figure, path: seen.append(figure))
    return seen


def of_normals(m, s, k, t):
    """KL(N(m, s^2) || N(k, t^2))"""
    return math.log(t / s) + (s**2 + (m - k) ** 2) / (2 * t**2) - 0.5


def test_studies_without_a_run_are_drawn_here(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(upsample, "KERNELS", 5)
    for name in ("kl", "upsample"):
        for picture in (f"{name}.png", f"{name}-2.png"):
            status, out, _ = command(capsys, "study", name)
            assert (status == 0 and out.endswith(f"picture   {picture}\n")
                    and (tmp_path / picture).stat().st_size > 50_000)
        status, _, err = command(capsys, "study", name, "runs/vae")
        assert status == 2 and f"{name} takes no run, got runs/vae" in err
    assert "embed takes a RUN, and none is given" in command(capsys, "study", "embed")[2]
    with pytest.raises(ValueError, match="kl takes no run"):
        studies.study("kl", "runs/vae")
    with pytest.raises(ValueError, match="embed takes a run, and none is given"):
        studies.study("embed")


def test_the_divergence_is_the_integral_and_the_nearest_normal_is_that_of_its_direction():
    for m, s, k, t in ((0.0, 1.0, 0.0, 1.0), (1.0, 0.5, -1.0, 1.5), (-1.0, 1.5, 0.5, 0.7)):
        value = kl.divergence(kl.log_normal(m, s), kl.log_normal(k, t)).item()
        assert value == pytest.approx(of_normals(m, s, k, t), abs=1e-6)
    m, s = torch.tensor([0.3, 0.0]), torch.tensor([2.0, 1.0])
    assert kl.of_normal(m, s).tolist() == pytest.approx([of_normals(0.3, 2.0, 0, 1), 0])
    p = kl.log_hills((-2.0, 2.0), 0.7)
    # the normal with the least KL(p || q) has the mean and the variance of p
    assert kl.nearest(lambda q: kl.divergence(p, q)) == pytest.approx((0, math.sqrt(4 + 0.49)), abs=1e-4)
    m, s = kl.nearest(lambda q: kl.divergence(q, p))
    assert 1.9 < m < 2 and 0.7 < s < 0.8
    least = kl.divergence(kl.log_normal(m, s), p)
    for dm, ds in ((0.02, 0), (-0.02, 0), (0, 0.02), (0, -0.02)):
        assert kl.divergence(kl.log_normal(m + dm, s + ds), p) > least


def test_the_numbers_beside_the_curves_are_those_of_the_curves(figures):
    line = kl.study("x.png")
    areas, bowl, steps, covers, takes, widths = figures[0].axes
    density = lambda panel, k: torch.tensor(panel.lines[k].get_ydata()).clamp(min=1e-300).log()
    of_curves = lambda panel, k, l: kl.divergence(density(panel, k), density(panel, l)).item()
    assert f"elsewhere: {of_curves(areas, 0, 1):.3f}\n" in line and of_curves(areas, 0, 1) > 0.4
    assert f"= {of_curves(areas, 0, 1):.3f} nats" in areas.get_title()
    direct, parts = of_curves(steps, 0, 2), of_curves(steps, 0, 1) + of_curves(steps, 1, 2)
    assert f"{direct:.1f}, by b" in steps.get_title() and direct > parts + 1
    assert [each.get_text() for each in steps.texts if each.get_text()] == ["8.0", "2.0", "2.0"]
    for panel in (covers, takes):
        there, back = of_curves(panel, 0, 1), of_curves(panel, 1, 0)
        assert f"KL(p || q) = {there:.2f}, KL(q || p) = {back:.2f} nats" in panel.get_title()
    assert of_curves(covers, 0, 1) < of_curves(takes, 0, 1) and of_curves(takes, 1, 0) < of_curves(covers, 1, 0)
    assert [of_curves(widths, k, k + 1) for k in (0, 2)] == pytest.approx([2 / 0.5**2, 2 / 1.5**2])
    levels = bowl.collections[0].levels
    for level, path in zip(levels, bowl.collections[0].get_paths(), strict=True):
        m, s = torch.tensor(path.vertices).T  # across and up
        torch.testing.assert_close(kl.of_normal(m, s), torch.full_like(m, level), rtol=0.05, atol=0.01)


def test_the_transposed_matrix_is_the_transposed_convolution(figures, monkeypatch):
    w, x, y = torch.randn(3, 3), torch.randn(4, 4), torch.randn(2, 2)
    C = upsample.matrix(w)
    assert C.shape == (4, 16)
    for got, of, given in ((C @ x.flatten(), F.conv2d, x), (C.T @ y.flatten(), F.conv_transpose2d, y)):
        wanted, sizes = (of(a[None, None], b[None, None]).flatten()
                         for a, b in ((given.double(), w.double()), (given.double().abs(), w.double().abs())))
        assert ((got - wanted).abs() <= 9 * 2**-24 * sizes).all()  # sums of up to 9 products
    monkeypatch.setattr(upsample, "KERNELS", 5)
    upsample.study("x.png")
    shown = [torch.tensor(panel.images[0].get_array().filled()) for panel in figures[0].axes[:4]]
    C = upsample.matrix(torch.arange(1.0, 10).view(3, 3))
    assert torch.equal(shown[0], C) and torch.equal(shown[1], C.T)
    assert shown[2].tolist() == [[1, 2, 3, 0], [4, 7, 10, 6], [7, 16, 19, 12], [0, 14, 16, 18]]
    assert shown[3][2:7, 2:7].tolist() == [[4, 2, 4, 2, 4], [2, 1, 2, 1, 2]] * 2 + [[4, 2, 4, 2, 4]]
    text = {each.get_position()[::-1]: each.get_text() for each in figures[0].axes[0].texts}  # row, column
    assert len(text) == 36 and all(text[i, j] == f"{C[i, j]:g}" for i, j in C.nonzero().tolist())


def test_transposed_convolutions_have_a_checkerboard_and_interpolations_have_none(figures):
    """Of equal weights 3x3 alone has one; of drawn ones both have."""
    line = upsample.study("x.png")
    sheet, _, _, bars = figures[0].axes[4:8]
    equal, drawn = ([bar.get_height() for bar in group] for group in [each for each in bars.containers
                                                                      if hasattr(each, "patches")])
    assert equal[0] > 0.2 and max(equal[1:]) < 0.01 and min(drawn[:2]) > 0.3 and max(drawn[2:]) < 0.01
    for way, first, second in zip(upsample.WAYS, equal, drawn, strict=True):
        assert f"{way} {first:.2%} and {second:.2%} +- " in line
    names = [each.get_text() for each in sheet.get_yticklabels()]
    cells = torch.tensor(sheet.images[0].get_array().filled(0)).unfold(0, 16, 17).unfold(1, 16, 17)
    assert cells.shape == (4, 5, 16, 16) and names == [*upsample.WAYS]
    for way, row, at in zip(names, cells, sheet.get_yticks(), strict=True):
        share = upsample.spectrum.checkerboard(upsample.spectrum.power(row[..., 2:-2, 2:-2], 2))
        assert (share > 0.1) == way.startswith("transposed") and at == names.index(way) * 17 + 7.5
    x = torch.ones(1, 1, 8, 8)
    for way, make in upsample.WAYS.items():
        made = make(x, torch.randn(1, 1, 4, 4))
        inside = made[..., 2:-2, 2:-2]
        assert made.shape == (1, 1, 16, 16) and (inside.std() > 1e-3) == way.startswith("transposed")
