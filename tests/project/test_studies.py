"""Tests of the studies: what each one computes, for models whose answer is known; then all of them by the command line,
and what is refused."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from check import command

from genmini import checkpoint, data, experiment, plots, studies
from genmini.loop import History
from genmini.models._model import Model
from genmini.models.arvae import ARVAE
from genmini.models.autoencoder import Autoencoder
from genmini.models.cgan import CGAN
from genmini.models.cvae import CVAE
from genmini.models.gan import GAN
from genmini.models.made import MADE
from genmini.models.vae import VAE
from genmini.studies import (
    embed,
    grid,
    interpolate,
    latent_dim,
    neighbours,
    optimum,
    reconstruct,
    semi_supervised,
    spectrum,
    traverse,
)

pytestmark = pytest.mark.usefixtures("folder_of_its_own")
TEST = data.load("digits", "test")


class Linear:
    """A run of a model that decodes three numbers into three pixels, the third one not at all."""

    conditional, seed, check_labels = False, 0, studies.Run.check_labels

    def __init__(self, **of_model):
        self.model = type("Linear", (Model,), {"latent": 3, "encode": lambda self, x: self, **of_model})((8, 8), 17)

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
    monkeypatch.setattr(plots, "side_by_side",
                        lambda path, panels, levels, columns=8: seen.append((panels, levels, columns)))
    monkeypatch.setattr(plots, "rows", lambda path, *shown: seen.append(shown))
    return seen


def test_reconstructions_stand_below_their_images_and_the_error_is_theirs(drawn):
    line = reconstruct.study(Linear(), "x.png")
    x = TEST.x.float()
    back = torch.zeros_like(x)
    back[:, 3, 2], back[:, 3, 3] = x[:, 3, 2], x[:, 3, 3] / 2
    error = ((x - back) / 16).square().mean((1, 2))
    assert (f"test {error.mean():.4f} +- {error.std() / math.sqrt(300):.4f}" in line
            and line.startswith("squared error of a pixel: train 0."))
    ((panels, levels, _),) = drawn
    shown = panels["test: images over their reconstructions"]
    assert (levels == 17 and torch.equal(shown[:8], x[:8]) and torch.equal(shown[8:16], back[:8])
            and torch.equal(shown[16:24], x[8:16]))


def test_interpolations_are_of_different_classes_or_of_one_and_straight_in_the_codes(drawn):
    for conditional in (False, True):
        ends = interpolate.pairs(TEST.y[:200], conditional)
        assert (ends.shape == (6, 2) and len(ends.unique()) == 12
                and ((TEST.y[ends[:, 0]] == TEST.y[ends[:, 1]]) == conditional).all())
    line = interpolate.study(Linear(), "x.png")
    # a linear decoder
    assert line == "6 pairs: the way through the latent space is 1.00 times as long in pixels as the straight one"
    ((panels, _, columns),) = drawn
    row = next(iter(panels.values())).unflatten(0, (6, columns))
    ends = interpolate.pairs(TEST.y[:200], False)
    assert (columns == 11 and torch.equal(row[:, 0], TEST.x[ends[:, 0]].float())
            and torch.equal(row[:, -1], TEST.x[ends[:, 1]].float()))
    torch.testing.assert_close(row[:, 1:10, 3, 2],
                               torch.stack([torch.linspace(a, b, 9) for a, b in TEST.x[ends][:, :, 3, 2].tolist()]))


def test_the_plane_of_codes_is_the_latent_one_or_that_of_most_variance():
    torch.manual_seed(0)
    z = torch.randn(500, 4) * torch.tensor([1.0, 5.0, 0.1, 2.0]) + 3
    assert torch.equal(embed.plane(z[:, :2])[0], z[:, :2])
    points, axes = embed.plane(z)
    variance = z.var(0)
    assert axes == ("2 principal components of 4 dimensions, "
                    f"{(variance[1] + variance[3]) / variance.sum():.0%} of the variance")
    torch.testing.assert_close(points.abs(), (z - z.mean(0))[:, [1, 3]].abs(), rtol=0, atol=1.5)  # the axes, nearly
    assert embed.plane(z[:, :1])[0].shape == (500, 2)
    y = torch.tensor([0, 0, 1, 1, 1])
    # 1.0 and 1.5 are next to each other
    assert embed.like_its_neighbour(torch.tensor([[0.0], [1.0], [1.5], [9.0], [9.1]]), y) == 3 / 5


def test_a_dimension_that_moves_nothing_is_said_to(drawn):
    line = traverse.study(Linear(), "x.png")
    ((_, images, labels, levels),) = drawn
    z = data.load("digits").x[:, 3, 2:5].float()
    low, high = torch.quantile(z, 0.01, dim=0), torch.quantile(z, 0.99, dim=0)
    first, second = (high - low)[0] / 16, (high - low)[1] / 32
    assert line == f"z_1 moves the image most, by {first:.2f}; 1 of 3 dimensions by less than a tenth of that"
    assert (labels == [f"z$_{{1}}$, moves {first:.1f}", f"z$_{{2}}$, moves {second:.1f}", "z$_{3}$, moves 0.0"]
            and images.shape == (3, 11, 8, 8))
    torch.testing.assert_close(images[0, :, 3, 2], torch.linspace(low[0], high[0], 11))
    assert images[0, :, 3, 3].eq(images[0, 0, 3, 3]).all() and images[2].eq(images[2, 0]).all()


def test_dimensions_that_follow_attributes_come_first_with_what_they_reach(drawn):
    """The attribute is the pixel that the dimension moves, so its ends are the quantiles; z_3 follows none."""
    names, half = ("left", "right"), lambda self, x: dict.fromkeys(names, 0.5)
    run = Linear(attributes=names, measure=lambda self, x: x[:, 3, 2:4], correlations=half)
    run.device = "cpu"
    line = traverse.study(run, "x.png")
    ((_, images, labels, _),) = drawn
    z = data.load("digits").x[:, 3, 2:5].float()
    low, high = torch.quantile(z, 0.01, dim=0), torch.quantile(z, 0.99, dim=0)
    assert labels[0] == f"left, ρ = 0.50: {low[0]:.3g} to {high[0]:.3g}"
    assert labels[1] == f"right, ρ = 0.50: {low[1] / 2:.3g} to {high[1] / 2:.3g}" and labels[2].startswith("z$_{3}$")
    assert line.endswith("rank correlation of a dimension with its attribute: left 0.500, right 0.500")


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


def test_the_regulariser_is_chosen_on_valid_and_the_share_is_of_test(monkeypatch):
    """With the weight 0.1 every prediction is class 1, with others class 0. The weight that is best on valid predicts
    all of test right where test is alike, and none where it is the opposite, though another weight would predict them
    right."""
    b = lambda weight: torch.tensor([0.0, 1.0 if weight == 0.1 else -1.0])
    monkeypatch.setattr(semi_supervised, "fit", lambda f, y, classes, weight: (torch.zeros(2, 1), b(weight)))
    f = {split: torch.zeros(6, 1) for split in ("train", "valid", "test")}
    zeros, ones = torch.zeros(6, dtype=torch.long), torch.ones(6, dtype=torch.long)
    for valid, test, right in ((ones, zeros, 0), (ones, ones, 1), (zeros, ones, 0)):
        y = {"train": zeros, "valid": valid, "test": test}
        assert semi_supervised.accuracy(f, y, [torch.arange(2)] * 3, 2).tolist() == [right] * 3


@pytest.fixture
def figures(monkeypatch):
    """The figures of matplotlib that the studies draw, in place of files."""
    seen = []
    monkeypatch.setattr(plots, "save", lambda figure, path: seen.append(figure))
    return seen


def test_the_few_labels_are_drawn_by_their_number_and_kind(figures, monkeypatch):
    """The curves are the shares in the printed line, of codes and of pixels, at 10, 50 and 100 labels, as many of each
    class."""
    labels, answers = [], iter([[0.1, 0.3], [0.2, 0.2], [0.3, 0.5], [0.4, 0.4], [0.5, 0.7], [0.8, 0.8]])

    def accuracy(f, y, labelled, classes):
        labels.append((f["train"].shape[1], [y["train"][n].bincount(minlength=classes).tolist() for n in labelled]))
        return np.array(next(answers))

    monkeypatch.setattr(semi_supervised, "accuracy", accuracy)
    monkeypatch.setattr(semi_supervised, "DRAWS", 2)
    line = semi_supervised.study(Linear(), "x.png")
    assert [(F, count) for F, (count, _) in labels] == [(F, [n // 10] * 10) for n in (10, 50, 100) for F in (3, 64)]
    panel = figures[0].axes[0]
    curves = {each.get_label(): each.lines[0].get_xydata().tolist() for each in panel.containers}
    (codes, pixels) = curves.values()
    assert codes == pytest.approx(np.array([[10, 0.2], [50, 0.4], [100, 0.6]])) and list(curves)[1] == "pixels"
    assert pixels == pytest.approx(np.array([[10, 0.2], [50, 0.4], [100, 0.8]]))
    assert line.startswith("10 labels: codes of ") and line.endswith("60.0% +- 10.0%, pixels 80.0% +- 0.0%")


class Letters(Linear):
    """Images of 26 classes."""

    folder = "runs/letters"

    def split(self, split):
        some = super().split(split)
        return dataclasses.replace(some, y=torch.arange(len(some)) % 26, classes=26)


def test_few_labels_are_as_many_of_each_class_whatever_the_number_of_classes(figures, monkeypatch):
    """Of 26 classes they are 26, 130 and 260."""
    counts = []
    monkeypatch.setattr(semi_supervised, "accuracy",
                        lambda f, y, labelled, classes: counts.append(len(labelled[0])) or np.zeros(2))
    monkeypatch.setattr(semi_supervised, "DRAWS", 2)
    line = semi_supervised.study(Letters(), "x.png")
    assert [int(part.partition(" ")[0]) for part in line.split("; ")] == [26, 130, 260] == counts[::2]


def test_each_of_many_classes_has_its_colour(figures):
    embed.study(Letters(), "x.png")
    dots = figures[0].axes[0].collections[0]
    assert len({tuple(colour) for colour in dots.cmap(dots.norm(np.arange(26)))}) == 26


@pytest.mark.parametrize("study", [embed, semi_supervised])
def test_a_study_of_classes_refuses_images_without(study, monkeypatch):
    run, load = Letters(), data.load
    monkeypatch.setattr(Letters, "split", lambda self, split: dataclasses.replace(load("digits", split), classes=0))
    with pytest.raises(studies.Misfit, match="runs/letters does not fit: its images have no classes"):
        study.study(run, "x.png")


class Plane(Linear):
    def encode(self, x, y):
        return x[:, 3, 2:4].float()


@pytest.mark.parametrize("normal", [True, False])
def test_the_grid_runs_rightwards_along_z_1_and_upwards_along_z_2(drawn, normal):
    """Column j decodes the j-th quantile of z_1, row i the i-th largest of z_2, of N(0, 1) or of the codes of train."""
    run = Plane(latent=2, **({"elbo": True, "has_normal_prior": True} if normal else {}))
    line = grid.study(run, "x.png")
    ((panels, levels, columns),) = drawn
    quantiles = (torch.arange(15) + 0.5) / 15
    z = data.load("digits").x[:, 3, 2:4].float()
    if normal:
        across = down = torch.distributions.Normal(0, 1).icdf(quantiles)
    else:
        across, down = torch.quantile(z, quantiles, dim=0).T
    (cells,) = (x.unflatten(0, (15, 15)) for x in panels.values())
    assert levels == 17 and columns == 15
    torch.testing.assert_close(cells[:, :, 3, 2], across.expand(15, 15))
    # Linear decodes half of z_2
    torch.testing.assert_close(cells[:, :, 3, 3], down.flip(0)[:, None].expand(15, 15) / 2)
    inside = ((z > torch.stack([across[0], down[0]]))
              & (z < torch.stack([across[-1], down[-1]]))).all(1).double().mean()
    assert line == (f"z_1 from {across[0]:.2f} to {across[-1]:.2f}, z_2 from {down[0]:.2f} to {down[-1]:.2f}: "
                    f"{inside:.1%} of the train codes lie there")


def test_a_picture_of_the_plane_shows_each_code_in_the_colour_of_its_class(figures):
    embed.study(Plane(latent=2), "x.png")
    dots = figures[0].axes[0].collections[0]
    assert (np.array_equal(dots.get_offsets(), TEST.x[:, 3, 2:4].numpy())
            and np.array_equal(dots.get_array(), TEST.y.numpy()))
    assert dots.norm.vmin == -0.5 and dots.norm.vmax == 9.5


def test_the_second_row_of_an_interpolation_blends_the_pixels(drawn):
    interpolate.study(Linear(), "x.png")
    ((panels, _, _),) = drawn
    blends, ends = panels["between the pixels"].unflatten(0, (6, 11)), interpolate.pairs(TEST.y[:200], False)
    x = TEST.x[ends].float()
    for step in range(9):
        torch.testing.assert_close(blends[:, 1 + step], x[:, 0] + step / 8 * (x[:, 1] - x[:, 0]))
    assert torch.equal(blends[:, 0], x[:, 0]) and torch.equal(blends[:, 10], x[:, 1])


def test_a_traversal_moves_rightwards_and_each_row_has_its_label(figures):
    """The picture is R rows of STEPS cells, each row beside its label."""
    images = torch.arange(3 * 2.0).view(3, 2, 1, 1).expand(3, 2, 8, 8)
    plots.rows("x.png", "title", images, ["a", "b", "c"], 17)
    panel = figures[0].axes[0]
    shown = panel.images[0].get_array()
    assert [[shown[9 * r + 4, 9 * c + 4] for c in range(2)] for r in range(3)] == [[0, 1], [2, 3], [4, 5]]
    assert ([each.get_text() for each in panel.get_yticklabels()] == ["a", "b", "c"]
            and panel.get_yticks().tolist() == [3.5, 12.5, 21.5])


def test_figures_are_drawn_at_their_latent_dimension(figures):
    """Runs in any order: each panel's points are (d, mean) of one figure, ascending, with the error of the mean."""

    class Fixed(Linear):
        def figures(self, x, y):
            return {"elbo": torch.tensor([1.0, 3.0]) * self.model.latent, "kl": torch.tensor([5.0, 5.0])}

    line = latent_dim.study({d: Fixed(latent=d) for d in (10, 2)}, "x.png")
    elbo, kl = figures[0].axes
    assert (elbo.lines[0].get_xydata().tolist() == [[2, 4], [10, 20]]
            and kl.lines[0].get_xydata().tolist() == [[2, 5], [10, 5]])
    assert elbo.get_title() == "elbo (test)" and kl.get_title() == "kl (test)"
    assert line == "elbo: d=2 4.000 +- 2.000, d=10 20.000 +- 10.000\nkl: d=2 5.000 +- 0.000, d=10 5.000 +- 0.000"


# ---- the command line ------------------------------------------------------------------------------------------------


def save(folder, model, name="digits"):
    checkpoint.save(folder, model, {"step": 1, "data": name})
    return str(folder)


def test_every_study_draws_its_picture_of_runs_that_fit(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(semi_supervised, "DRAWS", 2)
    monkeypatch.setattr(semi_supervised, "LAMBDAS", (1e-2,))
    torch.manual_seed(0)
    vae, ae = (VAE((8, 8), latent=2, hidden=8, levels=17, decoder="categorical"),
               Autoencoder((8, 8), levels=17, latent=5, hidden=8))
    runs = [save("vae", vae), save("ae", ae), save("made", MADE((8, 8), hidden=4), "digits-threshold")]
    tried = [name for name in studies.STUDIES if name != "latent-dim"  # which trains runs of its own
             and not studies.misfit(name, vae) and studies.lacks(studies.find(name), MADE)]
    assert {"reconstruct", "interpolate", "embed", "grid", "traverse", "semi-supervised"} <= {*tried}
    for name in tried:
        status, out, err = command(capsys, "study", name, *runs)
        assert (status == 0 and f"picture   vae/{name}.png" in out
                and (tmp_path / "vae" / f"{name}.png").stat().st_size > 10_000)
        assert (err.startswith("genmini: ") and "made does not fit: MADE has no " in err
                and err.rstrip().endswith("is for " + fitting(name)))
        assert (tmp_path / "ae" / f"{name}.png").exists() == (name != "grid")
        assert ("ae does not fit: its latent space has 5 dimensions" in err) == (name == "grid")
    status, out, err = command(capsys, "study", "reconstruct", "nowhere", "vae")
    assert status == 0 and "nowhere holds no run" in err and "picture   vae/reconstruct.png" in out
    words = ["study", "embed", "ae", "--out", "some/where.png"]
    assert command(capsys, *words)[:2] == command(capsys, *words)[:2] and (tmp_path / "some/where.png").exists()


def fitting(name):
    from genmini import models

    return ", ".join(each for each in models.MODELS if not studies.lacks(studies.find(name), models.find(each)))


def test_a_gan_is_studied_between_two_draws_and_on_the_line(capsys, tmp_path, monkeypatch):
    """It codes no images: the ends are what two z decode to. Its discriminator learns known densities."""
    torch.manual_seed(0)
    gan, cgan = (model((8, 8), 17, latent=3, hidden=(8, 8), r1=0.5) for model in (GAN, CGAN))
    save("gan", gan), save("cgan", cgan), save("points", GAN((2,), hidden=(4,)), "gaussians")
    shown = []
    monkeypatch.setattr(interpolate.plots, "side_by_side", lambda path, panels, *_, **how: shown.append((panels, how)))
    assert command(capsys, "study", "interpolate", "gan", "cgan", "points")[2].count("it draws points") == 1
    for model, (panels, how) in zip((gan, cgan), shown, strict=True):
        z = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)).unflatten(0, (6, 2))
        y = TEST.y[interpolate.pairs(TEST.y[:200], bool(model.classes))]
        given = lambda k: dict(y=y[:, k]) if model.classes else {}  # noqa: B023
        row = panels["between two codes (first and last: the images)"].unflatten(0, (6, 11))
        torch.testing.assert_close(row[:, 0], model.eval().decode(z[:, 0], **given(0)).detach())
        torch.testing.assert_close(row[:, 10], model.decode(z[:, 1], **given(1)).detach())
        torch.testing.assert_close(row[:, 5], model.decode(z.mean(1), **given(0)).detach())
        assert how == dict(columns=11)
    monkeypatch.setattr(optimum, "STEPS", 20)
    status, out, err = command(capsys, "study", "optimum", "gan", "cgan")
    assert status == 0 and "q = p: -1.3" in out and "R1 = 0.5" in out and "is given the class" in err
    assert (tmp_path / "gan" / "optimum.png").stat().st_size > 10_000


def test_samples_stand_over_the_train_images_nearest_to_them(capsys, tmp_path, monkeypatch):
    save("made", MADE((8, 8), hidden=4), "digits-threshold"), save("points", GAN((2,), hidden=(4,)), "gaussians")
    shown = []
    monkeypatch.setattr(neighbours.plots, "side_by_side", lambda path, panels, *_: shown.append(panels))
    status, out, err = command(capsys, "study", "neighbours", "made", "points")
    assert status == 0 and "points does not fit: neighbours is for models that draw images" in err
    (pairs,) = (panels["samples over their nearest train images"].unflatten(0, (3, 2, 8)) for panels in shown)
    train, test = (data.load("digits-threshold", split) for split in ("train", "test"))
    distances = torch.cdist(pairs[:, 0].flatten(0, 1).flatten(1), train.x.float().flatten(1))
    taken = (pairs[:, 0] - pairs[:, 1]).flatten(0, 1).flatten(1).norm(dim=1)
    torch.testing.assert_close(taken, distances.amin(1))  # float32, of distances up to 8
    real = torch.cdist(test.x.double().flatten(1), train.x.double().flatten(1)).amin(1)
    assert f"{real.median():.2f} of test images; 0.0% of 1000 samples lie nearer" in out


def test_the_power_of_all_frequencies_is_the_variance_and_a_checkerboard_is_one_of_them():
    x = torch.randint(256, (5, 3, 8, 6), generator=torch.Generator().manual_seed(0))
    P = spectrum.power(x, 256)
    v = x.double() / 255
    torch.testing.assert_close(P.sum(), v.var((2, 3), correction=0).mean(), rtol=1e-12, atol=0)
    i, j = torch.arange(8)[:, None], torch.arange(6)
    waves = {"rows": (4 + 3 * (-1) ** i + 0 * j, 1), "both": (4 + 3 * (-1) ** (i + j), 1),
             "slow": (4 + (3.5 * (2 * torch.pi * j / 6).cos()).round() + 0 * i, 0)}
    for name, (wave, share) in waves.items():
        P = spectrum.power(wave[None], 9)
        assert spectrum.checkerboard(P) == pytest.approx(share, abs=0.02), name  # the rounded wave has overtones
        frequency, mean = spectrum.radial(P)
        assert name == "both" or frequency[mean.argmax()] == (1 / 6 if name == "slow" else 1 / 2)
    noise = torch.rand(20000, 4, 4, generator=torch.Generator().manual_seed(0))
    assert spectrum.checkerboard(spectrum.power(noise, 2)) == pytest.approx(3 / 15, rel=0.01)
    with pytest.raises(ValueError, match="at least 2x2"):
        spectrum.power(torch.zeros(3, 1, 8), 2)


def test_the_checkerboard_of_samples_stands_beside_that_of_images(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(MADE, "sample", lambda self, n: (torch.arange(8)[:, None] + torch.arange(8)).remainder(2)
                        .to(torch.uint8).expand(n, 8, 8))
    save("made", MADE((8, 8), hidden=4), "digits-threshold"), save("points", GAN((2,), hidden=(4,)), "gaussians")
    status, out, err = command(capsys, "study", "spectrum", "made", "points")
    assert status == 0 and "100.000% of samples; of white noise 4.762%" in out and "points does not fit" in err
    assert (tmp_path / "made" / "spectrum.png").stat().st_size > 10_000


def test_conditional_models_are_told_the_class_and_attributes_are_followed(capsys, tmp_path):
    """Studies pass y to a CVAE, and grid shows four classes; the study of few labels refuses it. The correlations of an
    AR-VAE are those of eval."""
    torch.manual_seed(0)
    cvae, arvae = (model((8, 8), latent=2, hidden=8, levels=17, decoder="categorical", **more)
                   for model, more in ((CVAE, {}), (ARVAE, dict(attributes=("slant", "area")))))
    save("cvae", cvae), save("arvae", arvae)
    for name in ("reconstruct", "interpolate", "embed", "grid", "traverse"):
        assert (command(capsys, "study", name, "cvae")[0] == 0
                and (tmp_path / "cvae" / f"{name}.png").stat().st_size > 10_000)
    status, _, err = command(capsys, "study", "semi-supervised", "cvae")
    assert status == 2 and "cvae does not fit: its encoder is given the class" in err
    back = studies.Run("cvae").reconstruct(TEST.x, TEST.y)
    torch.testing.assert_close(back, cvae.eval().reconstruct(TEST.x, TEST.y).detach())
    assert not torch.equal(back, studies.Run("cvae").reconstruct(TEST.x, (TEST.y + 1) % 10))
    rho = arvae.eval().correlations(TEST.x)
    assert (f"attribute: slant {rho['slant']:.3f}, area {rho['area']:.3f}"
            in command(capsys, "study", "traverse", "arvae")[1])


def test_what_does_not_fit_is_said(capsys):
    made = save("made", MADE((8, 8), hidden=4), "digits-threshold")
    for words, says in ((["embed", made], "made does not fit: MADE has no latent code: embed is for"),
                        (["codes", made], "made does not fit"),
                        (["embed", made, made], "none of these 2 runs fits embed"), (["embed", "x"], "holds no run"),
                        (["portrait", made], "unknown study 'portrait'; the studies are reconstruct"),
                        (["embed", made, made, "--out", "x.png"], "--out names one picture, and there are 2 runs"),
                        (["embed", made, "--data", "digits"], "--data is for `genmini study latent-dim`"),
                        (["latent-dim", made], "genmini study latent-dim MODEL --data D"),
                        (["latent-dim", "made", "--data", "digits"],
                         "made does not fit: MADE has no latent code")):
        status, _, err = command(capsys, "study", *words)
        assert status == 2 and says in err.splitlines()[-1], err


def test_latent_dim_trains_what_is_missing_and_continues(capsys, tmp_path, monkeypatch):
    words = ["study", "latent-dim", "autoencoder", "--data", "digits", "--recipe", "pca", "--steps", "3", "--out", "d",
             "--dimensions"]
    status, out, _ = command(capsys, *words, "2")
    assert (status == 0 and out.splitlines()[-2].startswith("squared error: d=2 ")
            and (tmp_path / "d/latent-dim.png").stat().st_size > 5_000)
    before = (tmp_path / "d/latent-2/run.json").read_bytes()
    status, again, _ = command(capsys, *words, "4", "2")
    line = again.splitlines()[-2]
    assert (status == 0 and "d/latent-2: there is nothing left to resume" in again
            and (tmp_path / "d/latent-2/run.json").read_bytes() == before)
    assert line.startswith(out.splitlines()[-2] + ", d=4 ")
    model, test = checkpoint.load("d/latent-4"), TEST.x
    error = model.figures(test)["squared error"].double()
    assert (line.endswith(f"d=4 {error.mean():.3f} +- {error.std() / math.sqrt(300):.3f}")
            and np.isfinite(error.detach().numpy()).all())
    assert (tmp_path / "d/latent-4/samples.png").stat().st_size > 5_000
    monkeypatch.setattr(experiment, "train", lambda *_, **how: History(stopped="interrupted"))
    status, out, err = command(capsys, *words, "2", "3", "5")
    assert status == 130 and err.startswith("genmini: interrupted") and "3 latent" in out and "5 latent" not in out
