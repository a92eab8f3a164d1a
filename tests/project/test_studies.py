"""Studies: what each one computes, against models whose answer is known; then all of them by the command line, and what does not fit."""

import math

import numpy as np
import pytest
import torch
from check import command

from genmini import checkpoint, data, plots, studies
from genmini.models.arvae import ARVAE
from genmini.models.autoencoder import Autoencoder
from genmini.models.cvae import CVAE
from genmini.models.made import MADE
from genmini.models.vae import VAE
from genmini.studies import embed, interpolate, reconstruct, semi_supervised, traverse

pytestmark = pytest.mark.usefixtures("folder_of_its_own")
TEST = data.load("digits", "test")


class Linear:
    """A run of a model that decodes three numbers into three pixels, the third one not at all."""

    conditional, seed = False, 0

    def __init__(self, **of_model):
        self.model = type("Model", (), {"latent": 3, "classes": 0, **of_model})()

    def split(self, split):
        return data.load("digits", split)

    def encode(self, x, y):
        return x[:, 3, 2:5].float()

    def decode(self, z, y):
        x = torch.zeros(len(z), 8, 8)
        x[:, 3, 2:4] = z[:, :2].float() * torch.tensor([1.0, 0.5])
        return x

    def reconstruct(self, x, y):
        return self.decode(self.encode(x, y), y)


@pytest.fixture
def drawn(monkeypatch):
    """What the studies hand to plots, in place of the pictures."""
    seen = []
    monkeypatch.setattr(plots, "side_by_side", lambda path, panels, levels, columns=8: seen.append((panels, levels, columns)))
    monkeypatch.setattr(traverse, "draw", lambda path, *shown: seen.append(shown))
    return seen


def test_reconstructions_stand_below_their_images_and_the_error_is_theirs(drawn):
    said = reconstruct.study(Linear(), "x.png")
    x = TEST.x.float()
    back = torch.zeros_like(x)
    back[:, 3, 2], back[:, 3, 3] = x[:, 3, 2], x[:, 3, 3] / 2
    error = ((x - back) / 16).square().mean((1, 2))
    assert f"test {error.mean():.4f} +- {error.std() / math.sqrt(300):.4f}" in said and said.startswith("squared error of a pixel: train 0.")
    ((panels, levels, _),) = drawn
    shown = panels["test: images over their reconstructions"]
    assert levels == 17 and torch.equal(shown[:8], x[:8]) and torch.equal(shown[8:16], back[:8]) and torch.equal(shown[16:24], x[8:16])


def test_interpolations_are_of_different_classes_or_of_one_and_straight_in_the_codes(drawn):
    for conditional in (False, True):
        ends = interpolate.pairs(TEST.y[:200], conditional)
        assert ends.shape == (6, 2) and len(ends.unique()) == 12 and ((TEST.y[ends[:, 0]] == TEST.y[ends[:, 1]]) == conditional).all()
    said = interpolate.study(Linear(), "x.png")
    assert said == "6 pairs: the way through the latent space is 1.00 times as long in pixels as the straight one"  # a linear decoder
    ((panels, _, columns),) = drawn
    row = next(iter(panels.values())).unflatten(0, (6, columns))
    ends = interpolate.pairs(TEST.y[:200], False)
    assert columns == 11 and torch.equal(row[:, 0], TEST.x[ends[:, 0]].float()) and torch.equal(row[:, -1], TEST.x[ends[:, 1]].float())
    torch.testing.assert_close(row[:, 1:10, 3, 2], torch.stack([torch.linspace(a, b, 9) for a, b in TEST.x[ends][:, :, 3, 2].tolist()]))


def test_the_plane_of_codes_is_the_latent_one_or_that_of_most_variance():
    torch.manual_seed(0)
    z = torch.randn(500, 4) * torch.tensor([1.0, 5.0, 0.1, 2.0]) + 3
    assert torch.equal(embed.plane(z[:, :2])[0], z[:, :2])
    points, axes = embed.plane(z)
    variance = z.var(0)
    assert axes == f"2 principal components of 4 dimensions, {(variance[1] + variance[3]) / variance.sum():.0%} of the variance"
    torch.testing.assert_close(points.abs(), (z - z.mean(0))[:, [1, 3]].abs(), rtol=0, atol=1.5)  # the axes, nearly
    assert embed.plane(z[:, :1])[0].shape == (500, 2)
    y = torch.tensor([0, 0, 1, 1, 1])
    assert embed.like_its_neighbour(torch.tensor([[0.0], [1.0], [1.5], [9.0], [9.1]]), y) == 3 / 5  # 1.0 and 1.5 are next to each other


def test_a_dimension_that_moves_nothing_is_said_to(drawn):
    said = traverse.study(Linear(), "x.png")
    ((_, images, labels, levels),) = drawn
    z = data.load("digits").x[:, 3, 2:5].float()
    low, high = torch.quantile(z, 0.01, dim=0), torch.quantile(z, 0.99, dim=0)
    first, second = (high - low)[0] / 16, (high - low)[1] / 32
    assert said == f"z_1 moves the image most, by {first:.2f}; 1 of 3 dimensions by less than a tenth of that"
    assert labels == [f"z$_{{1}}$, moves {first:.1f}", f"z$_{{2}}$, moves {second:.1f}", "z$_{3}$, moves 0.0"] and images.shape == (3, 11, 8, 8)
    torch.testing.assert_close(images[0, :, 3, 2], torch.linspace(low[0], high[0], 11))
    assert images[0, :, 3, 3].eq(images[0, 0, 3, 3]).all() and images[2].eq(images[2, 0]).all()


def test_dimensions_that_follow_attributes_come_first_with_what_they_reach(drawn):
    """The attribute is the pixel that the dimension moves, so its ends are the quantiles; z_3 follows none."""
    names, half = ("left", "right"), lambda self, x: dict.fromkeys(names, 0.5)
    run = Linear(attributes=names, measure=lambda self, x: x[:, 3, 2:4], correlations=half)
    run.device = "cpu"
    said = traverse.study(run, "x.png")
    ((_, images, labels, _),) = drawn
    z = data.load("digits").x[:, 3, 2:5].float()
    low, high = torch.quantile(z, 0.01, dim=0), torch.quantile(z, 0.99, dim=0)
    assert labels[0] == f"left, ρ = 0.50: {low[0]:.3g} to {high[0]:.3g}"
    assert labels[1] == f"right, ρ = 0.50: {low[1] / 2:.3g} to {high[1] / 2:.3g}" and labels[2].startswith("z$_{3}$")
    assert said.endswith("rank correlation of a dimension with its attribute: left 0.500, right 0.500")


def test_the_few_label_classifier_is_at_its_least_and_learns():
    torch.manual_seed(0)
    f, y = torch.randn(60, 5).double(), torch.randint(3, (60,))
    W, b = semi_supervised.fit(f, y, 3, 0.1)
    wrong = (f @ W.T + b).softmax(1) - torch.nn.functional.one_hot(y, 3)
    assert (wrong.T @ f / 60 + 0.1 * W).abs().max() < 1e-5 and wrong.mean(0).abs().max() < 1e-5  # the gradient
    centres = 3 * torch.randn(4, 6).double()
    y = {split: torch.arange(80) % 4 for split in ("train", "valid", "test")}
    f = {split: centres[k] + 0.3 * torch.randn(80, 6).double() for split, k in y.items()}
    right = semi_supervised.accuracy(f, y, [torch.arange(4), torch.arange(4, 8)], 4)
    assert right.shape == (2,) and (right > 0.95).all()
    noise = semi_supervised.accuracy({split: torch.randn(80, 6).double() for split in f}, y, [torch.arange(40)] * 2, 4)
    assert (noise < 0.5).all()


# ---- the command line --------------------------------------------------------------------------------------------------------------------


def save(folder, model, name="digits"):
    checkpoint.save(folder, model, {"step": 1, "data": name})
    return str(folder)


def test_every_study_draws_its_picture_of_runs_that_fit(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(semi_supervised, "DRAWS", 2)
    monkeypatch.setattr(semi_supervised, "LAMBDAS", (1e-2,))
    torch.manual_seed(0)
    vae, ae = VAE((8, 8), latent=2, hidden=8, levels=17, decoder="categorical"), Autoencoder((8, 8), levels=17, latent=5, hidden=8)
    runs = [save("vae", vae), save("ae", ae), save("made", MADE((8, 8), hidden=4), "digits-threshold")]
    for name in studies.STUDIES:
        if name in ("latent-dim", "codes"):
            continue
        status, out, err = command(capsys, "study", name, *runs)
        assert status == 0 and f"picture   vae/{name}.png" in out and (tmp_path / "vae" / f"{name}.png").stat().st_size > 10_000
        assert err.startswith("genmini: ") and "made does not fit: MADE has no " in err and err.rstrip().endswith("is for " + fitting(name))
        assert (tmp_path / "ae" / f"{name}.png").exists() == (name != "grid")
        assert ("ae does not fit: its latent space has 5 dimensions" in err) == (name == "grid")
    words = ["study", "embed", "ae", "--out", "some/where.png"]
    assert command(capsys, *words)[:2] == command(capsys, *words)[:2] and (tmp_path / "some/where.png").exists()


def fitting(name):
    from genmini import models

    return ", ".join(each for each in models.MODELS if all(hasattr(models.find(each), need) for need in studies.find(name).NEEDS))


def test_conditional_models_are_told_the_class_and_attributes_are_followed(capsys, tmp_path):
    """Studies of a CVAE hand on y, grid shows four classes; the few labels are not for it. Of an AR-VAE the correlations are those of eval."""
    torch.manual_seed(0)
    cvae, arvae = (model((8, 8), latent=2, hidden=8, levels=17, decoder="categorical", **more)
                   for model, more in ((CVAE, {}), (ARVAE, dict(attributes=("slant", "area")))))  # fmt: skip
    save("cvae", cvae), save("arvae", arvae)
    for name in ("reconstruct", "interpolate", "embed", "grid", "traverse"):
        assert command(capsys, "study", name, "cvae")[0] == 0 and (tmp_path / "cvae" / f"{name}.png").stat().st_size > 10_000
    status, _, err = command(capsys, "study", "semi-supervised", "cvae")
    assert status == 2 and "cvae does not fit: its encoder is told the class" in err
    back = studies.Run("cvae").reconstruct(TEST.x, TEST.y)
    torch.testing.assert_close(back, cvae.eval().reconstruct(TEST.x, TEST.y).detach())
    assert not torch.equal(back, studies.Run("cvae").reconstruct(TEST.x, (TEST.y + 1) % 10))
    rho = arvae.eval().correlations(TEST.x)
    assert f"attribute: slant {rho['slant']:.3f}, area {rho['area']:.3f}" in command(capsys, "study", "traverse", "arvae")[1]


def test_what_does_not_fit_is_said(capsys):
    made = save("made", MADE((8, 8), hidden=4), "digits-threshold")
    for words, says in ((["embed", made], "made does not fit: MADE has no encode: embed is for"), (["codes", made], "made does not fit"),
                        (["embed", made, made], "none of these 2 runs fits embed"), (["embed", "x"], "holds no run"),
                        (["portrait", made], "unknown study 'portrait'; the studies are reconstruct"),
                        (["embed", made, made, "--out", "x.png"], "--out names one picture, and there are 2 runs"),
                        (["embed", made, "--data", "digits"], "--data is for `genmini study latent-dim`"),
                        (["latent-dim", made], "genmini study latent-dim MODEL --data D"),
                        (["latent-dim", "made", "--data", "digits"], "made does not fit: it has no encode and no")):  # fmt: skip
        status, _, err = command(capsys, "study", *words)
        assert status == 2 and says in err.splitlines()[-1], err


def test_latent_dim_trains_what_is_missing_and_continues(capsys, tmp_path):
    words = ["study", "latent-dim", "autoencoder", "--data", "digits", "--recipe", "pca", "--steps", "3", "--out", "d", "--dimensions"]
    status, out, _ = command(capsys, *words, "2")
    assert status == 0 and out.splitlines()[-2].startswith("squared error: d=2 ") and (tmp_path / "d/latent-dim.png").stat().st_size > 5_000
    before = (tmp_path / "d/latent-2/run.json").read_bytes()
    status, again, _ = command(capsys, *words, "4", "2")
    line = again.splitlines()[-2]
    assert status == 0 and "d/latent-2 is at its end already" in again and (tmp_path / "d/latent-2/run.json").read_bytes() == before
    assert line.startswith(out.splitlines()[-2] + ", d=4 ")
    model, test = checkpoint.load("d/latent-4"), TEST.x
    error = model.figures(test)["squared error"].double()
    assert line.endswith(f"d=4 {error.mean():.3f} +- {error.std() / math.sqrt(300):.3f}") and np.isfinite(error.detach().numpy()).all()
