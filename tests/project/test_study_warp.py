"""Tests of the study `warp`, with flows of the plane that are known: lines, densities, dots and figures, and planted
mistakes, which the same checks must see."""

import math

import numpy as np
import pytest
import torch
from check import command
from planted import planted

from genmini import checkpoint, data, plots, studies
from genmini.data import toys
from genmini.models._flow import Flow
from genmini.models.realnvp import RealNVP
from genmini.models.vae import VAE
from genmini.studies import warp

TEST = data.load("moons", "test")
A = torch.tensor([[[0.5, 0.3], [0.1, 0.8]], [[0.9, -0.2], [0.6, 0.4]]], dtype=torch.float64)  # of two classes


class Linear(Flow):
    """x = A_y z"""

    def __init__(self, A, classes=0):
        super().__init__((2,), None, classes)
        self.A = torch.nn.Parameter(torch.as_tensor(A, dtype=torch.float64))

    def of(self, y, n):
        return self.A[torch.zeros(n, dtype=torch.long) if y is None else y]

    def forward(self, x, y=None):
        of = self.of(y, len(x)).inverse()
        return torch.einsum("nij,nj->ni", of, x), torch.linalg.slogdet(of).logabsdet

    def inverse(self, z, y=None):
        of = self.of(y, len(z))
        return torch.einsum("nij,nj->ni", of, z), torch.linalg.slogdet(of).logabsdet


class Folded(Linear):
    """h(x) = (|x_1|, x_2), which is no flow"""

    def forward(self, x, y=None):
        return torch.stack([x[:, 0].abs(), x[:, 1]], 1), torch.zeros(len(x))


def run_of(model):
    run = object.__new__(studies.Run)
    run.model, run.device, run.seed, run.split = model, "cpu", 0, lambda split: data.load("moons", split)
    return run


@pytest.fixture
def figures(monkeypatch):
    seen = []
    monkeypatch.setattr(plots, "save", lambda figure, path: seen.append(figure))
    return seen


def check(study, figures, classes):
    """What the picture and the line hold of a linear flow"""
    line = study(run_of(Linear(A, classes)), "x.png")
    left, *right = figures.pop().axes
    assert len(right) == max(1, classes) and (left.get_xlabel(), left.get_ylabel()) == ("z$_1$", "z$_2$")
    at = np.linspace(-3, 3, 13)
    grid = np.stack([each.get_xydata() for each in left.lines])
    for i in (0, 1):  # lines of z_1 constant, then of z_2
        assert np.allclose(grid[13 * i : 13 * i + 13, :, i], at[:, None])
        assert np.allclose(grid[13 * i : 13 * i + 13, :, 1 - i], np.linspace(-3, 3, grid.shape[1]))
    labels = [text.get_text() for text in left.get_legend().get_texts()]
    assert labels == ["z$_1$ is constant", "z$_2$ is constant"]
    assert left.lines[0].get_color() != left.lines[-1].get_color()
    points, y = TEST.x.double(), TEST.y
    z = torch.stack([A[k if classes else 0].inverse() @ x for x, k in zip(points[:1000], y, strict=False)])
    assert np.allclose(left.collections[0].get_offsets(), z.numpy())
    assert np.array_equal(left.collections[0].get_array(), y[:1000].numpy())
    check_density(left, torch.eye(2, dtype=torch.float64))
    for k, panel in enumerate(right):
        assert (panel.get_xlabel(), panel.get_ylabel(), panel.get_aspect()) == ("x$_1$", "x$_2$", 1)
        assert panel.get_title() == f"p(x{f' | y = {k}' if classes else ''}) of Linear, the grid carried"
        of = A[k].numpy()
        for line_left, line_right in zip(left.lines, panel.lines, strict=True):
            assert np.allclose(line_right.get_xydata(), line_left.get_xydata() @ of.T)
            assert line_left.get_color() == line_right.get_color()
        shown = points[y == k] if classes else points
        assert np.allclose(panel.collections[0].get_offsets(), shown[:1000].numpy())
        check_density(panel, A[k])
    each = [-log_normal(points[y == k] if classes else points, A[k]).mean().item() for k in range(max(1, classes))]
    truth = -toys.TOYS["moons"].log_prob(points, y if classes else None).mean().item()
    z = [points[y == k if classes else y >= 0] @ A[k].inverse().T for k in range(max(1, classes))]
    inside = (torch.cat(z).abs() < 3).all(1).double().mean().item()
    shares = y.bincount().double() / len(y) if classes else torch.ones(1)
    nats = np.dot(each, shares)
    assert line == (f"-log p(x{' | y' * bool(classes)}) of test points: {nats:.3f} nats, of the density that drew them "
                    f"{truth:.3f}; {inside:.1%} of them lie in the carried grid, and 99.5% of N(0, I) in the straight "
                    "one; folded: 0.0% of the grid")


def log_normal(x, A):
    """log N(x; 0, A A^T)"""
    return -(x @ A.inverse().T).square().sum(1) / 2 - math.log(2 * math.pi) - torch.linalg.slogdet(A).logabsdet


def check_density(panel, A):
    """Row i and column j of the picture show the density at (x_1 of j, x_2 of i), with x_2 upwards."""
    (image,) = panel.images
    low, high = image.get_extent()[:2]
    shown, at = np.asarray(image.get_array()), torch.linspace(low, high, 200, dtype=torch.float64)
    assert image.get_extent() == [low, high, low, high] == [*panel.get_xlim(), *panel.get_ylim()]
    assert image.origin == "lower"
    x = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).flatten(0, 1)
    assert np.allclose(shown.ravel(), log_normal(x, A).exp())


@pytest.mark.parametrize("classes", [0, 2])
def test_the_grid_the_densities_and_the_points_are_those_of_the_flow(figures, classes):
    check(warp.study, figures, classes)


PLANTED = {
    "wrong direction": ("grid = run.decode(", "grid = run.encode("),
    "the data where their codes belong": ("lines(), z, y)", "lines(), x, y)"),
    "the codes where the data belong": ("grid, x[of], y[of])", "grid, z[of], y[of])"),
    "wrong axis of the second lines": ("torch.stack([upright, upright.flip(-1)])", "torch.stack([upright, upright])"),
    "the lines exchanged": ("torch.stack([upright, upright.flip(-1)])", "torch.stack([upright.flip(-1), upright])"),
    "the density transposed": ('meshgrid(at, at, indexing="xy")', 'meshgrid(at, at, indexing="ij")'),
    "the density upside down": ('origin="lower"', 'origin="upper"'),
    "wrong label": ('xlabel="x$_1$", ylabel="x$_2$"', 'xlabel="x$_2$", ylabel="x$_1$"'),
    "no equal aspect": ('aspect="equal"', 'aspect="auto"'),
    "wrong split": ('run.split("test")', 'run.split("train")'),
    "wrong class": ("(y == k) if", "(y != k) if"),
    "log p in the place of p": ("draw(panel, density.exp()", "draw(panel, density"),
    "the truth without the class": ("y if run.conditional else None)\n", "None)\n"),
    "folded where it is not": ("(det <= 0)", "(det >= 0)"),
}


@pytest.mark.parametrize("right, wrong", PLANTED.values(), ids=PLANTED)
def test_planted_mistakes_are_seen(figures, right, wrong):
    code = planted(warp, right, wrong)
    with pytest.raises(AssertionError):
        check(code.study, figures, classes=2)


def test_folds_are_counted(figures):
    """A reflection turns all of the plane over; |x_1| the half x_1 < 0, and the line x_1 = 0 has no determinant."""
    assert warp.study(run_of(Linear(A[:1] * torch.tensor([1.0, -1.0]))), "x.png").endswith("100.0% of the grid")
    folded = warp.study(run_of(Folded(torch.eye(2).double()[None])), "x.png")
    assert folded.endswith(f"folded: {121 / 241:.1%} of the grid")


def test_the_determinant_is_that_of_the_jacobian():
    h = lambda x: torch.stack([x[:, 0] * x[:, 1], x[:, 1].exp()], 1)
    x = torch.randn(5, 2, dtype=torch.float64)
    torch.testing.assert_close(warp.determinant(h, x), x[:, 1] * x[:, 1].exp())


@pytest.mark.usefixtures("folder_of_its_own")
def test_the_command_draws_flows_of_the_plane_and_refuses_others(capsys, tmp_path):
    small = dict(couplings=2, hidden=8)
    for name, model, data_name in (("affine", RealNVP((2,), **small), "moons"),
                                   ("spline", RealNVP((2,), classes=2, coupling="spline", **small), "moons"),
                                   ("digits", RealNVP((8, 8), 17, couplings=1, width=4, blocks=1), "digits"),
                                   ("vae", VAE((8, 8), latent=2, hidden=8), "digits-threshold")):
        checkpoint.save(name, model, {"step": 1, "data": data_name})
    status, out, err = command(capsys, "study", "warp", "affine", "spline", "digits", "vae")
    assert status == 0 and out.count("folded: 0.0% of the grid") == 2
    assert all((tmp_path / name / "warp.png").stat().st_size > 20_000 for name in ("affine", "spline"))
    assert "digits does not fit: the picture is of the plane, and its examples have the shape (8, 8)" in err
    assert "vae does not fit: VAE carries no noise to examples: warp is for realnvp" in err
