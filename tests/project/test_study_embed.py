"""Tests of what `study embed` and `reconstruct` measure of all test images, and of the maps `--by graph` and `tsne`."""

import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from check import command
from planted import planted
from test_studies import TEST, Linear, drawn, figures  # noqa: F401  fixtures

from genmini import checkpoint, studies
from genmini.models.autoencoder import Autoencoder
from genmini.studies import embed, reconstruct

pytestmark = pytest.mark.usefixtures("folder_of_its_own")


class Plane(Linear):
    def encode(self, x, y):
        return torch.stack([x[:, 3, 2], x[:, 3, 3], x[:, 4, 2] + 0.01 * x[:, 5, 5]], 1).float()


def by_hand(z, y):
    """The nearest other of each, one after another"""
    distance = np.square(z[:, None].astype(float) - z[None].astype(float)).sum(2)
    distance[np.arange(len(z)), np.arange(len(z))] = np.inf
    other = distance.argmin(1)
    return other, (y[other] == y).mean()


def check(module, figures, monkeypatch):  # noqa: F811
    """The picture and the line of a graph, of 100 images that are shown and all that are measured"""
    monkeypatch.setattr(module, "SHOWN", 100)
    monkeypatch.setattr(module, "AT_ONCE", 70)
    monkeypatch.setattr(Plane, "encode", lambda self, x, y: NOISE[: len(x)])
    line = module.study(Plane(), "x.png", by="graph")
    panel = figures.pop().axes[0]
    z, y = NOISE.numpy(), TEST.y.numpy()
    points = embed.plane(NOISE)[0].numpy()
    assert np.allclose(panel.collections[0].get_offsets(), points[:100])
    other, _ = by_hand(z[:100], y[:100])
    same = y[:100][other] == y[:100]
    for label, colour, chosen in (("nearest code", "0.6", same), ("of another class", "tab:red", ~same)):
        (edges,) = (each for each in panel.lines if each.get_label() == label)
        ends = edges.get_xydata().reshape(-1, 3, 2)
        assert edges.get_color() == colour and np.isnan(ends[:, 2]).all()
        assert np.allclose(ends[:, 0], points[:100][chosen]) and np.allclose(ends[:, 1], points[:100][other[chosen]])
    shares = [by_hand(a, y)[1] for a in (z, points, TEST.x.flatten(1).numpy())]
    assert line.endswith("images whose nearest neighbour is of their class: " + ", ".join(
        f"{share:.1%} by {of}" for share, of in zip(shares, ("codes", "the plane shown", "pixels"), strict=True))
        + f" ({len(TEST)} of test)")
    assert f"codes of the first 100 of {len(TEST)} images (test)" in panel.get_title()


NOISE = torch.randn(len(TEST), 4, generator=torch.Generator().manual_seed(0)) + TEST.y[:, None]
PLANTED = {
    "the image itself": ("distance[torch.arange(len(n)), n] = torch.inf", "pass"),
    "the first rows alone": ("[torch.arange(len(n)), n]", "[torch.arange(len(n)), torch.arange(len(n))]"),
    "the farthest": ("distance.argmin(1)", "distance.argmax(1)"),
    "some are measured": ("x, y = test.x, test.y", "x, y = test.x[:SHOWN], test.y[:SHOWN]"),
    "wrong split": ('run.split("test")', 'run.split("valid")'),
    "neighbours of the plane": ("nearest(z[:SHOWN])", "nearest(points[:SHOWN])"),
    "colours exchanged": ("((True,", "((False,"),
    "to the next": ("points[other[n]]", "points[n - 1]"),
}


def test_figures_are_of_all_images_and_lines_join_nearest_codes(figures, monkeypatch):  # noqa: F811
    check(embed, figures, monkeypatch)


@pytest.mark.parametrize("right, wrong", PLANTED.values(), ids=PLANTED)
def test_planted_mistakes_are_seen(figures, monkeypatch, right, wrong):  # noqa: F811
    code = planted(embed, right, wrong)
    with pytest.raises((AssertionError, ValueError)):
        check(code, figures, monkeypatch)


def test_tsne_is_scikit_learns_or_its_absence_is_said(figures, monkeypatch, capsys):  # noqa: F811
    asked = []

    class Map:
        def __init__(self, **settings):
            asked.append(settings)

        def fit_transform(self, z):
            return z[:, ::-1][:, :2].copy()

    monkeypatch.setitem(sys.modules, "sklearn.manifold", types.SimpleNamespace(TSNE=Map))
    monkeypatch.setitem(sys.modules, "sklearn", types.SimpleNamespace())
    monkeypatch.setattr(embed, "SHOWN", 90)
    line = embed.study(Plane(), "x.png", by="tsne")
    panel = figures.pop().axes[0]
    z = Plane().encode(TEST.x, TEST.y)
    assert torch.equal(torch.from_numpy(panel.collections[0].get_offsets().data).float(), z[:90, [2, 1]])
    assert asked == [dict(n_components=2, perplexity=89 / 3, init="pca", random_state=0)]
    assert panel.get_xlabel() == panel.get_ylabel() == "" and "t-SNE, whose axes and distances" in panel.get_title()
    share = by_hand(z[:90, [2, 1]].numpy(), TEST.y[:90].numpy())[1]
    assert f"{share:.1%} by the plane shown (of the first 90), " in line
    with pytest.raises(studies.Misfit, match="the map of --by tsne has none: leave one of them out"):
        embed.study(Plane(), "x.png", axes=("0", "1"), by="tsne")
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)  # as if it were not installed
    checkpoint.save("ae", Autoencoder((8, 8), levels=17, latent=3, hidden=8), {"step": 1, "data": "digits"})
    status, _, err = command(capsys, "study", "embed", "ae", "--by", "tsne")
    assert status == 2
    assert err.startswith("genmini: --by tsne needs the package scikit-learn: pip install scikit-learn; --by graph "
                          "needs none (")
    assert command(capsys, "study", "embed", "ae", "--by", "graph")[0] == 0
    assert command(capsys, "study", "embed", "ae", "--by", "graph", "--axes", "0,2")[0] == 0


def test_reconstructions_are_measured_of_all_test_images(drawn, monkeypatch):  # noqa: F811
    """However many they are, and as many of train."""
    run, whole = Linear(), TEST
    many = replace(whole, x=whole.x.repeat(5, 1, 1), y=whole.y.repeat(5))
    many.x[-1] = 16  # the last one counts
    monkeypatch.setattr(Linear, "split", lambda self, split: replace(many, split=split))
    monkeypatch.setattr(Linear, "reconstruct", lambda self, x, y: torch.zeros(x.shape))
    line = reconstruct.study(run, "x.png")
    error = (many.x.double() / 16).square().flatten(1).mean(1).mean()
    assert f"train {error:.4f} +- " in line and f"test {error:.4f} +- " in line
    assert line.endswith(f"; of {len(many)} images of train, {len(many)} of test")
