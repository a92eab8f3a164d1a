"""Tests of all studies by the command line: each draws its picture of runs that fit, and says why others do not."""

import copy
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from check import command, fair

from genmini import checkpoint, data, experiment, models, plots, studies
from genmini.cli import main
from genmini.loop import History
from genmini.models.arvae import ARVAE
from genmini.models.autoencoder import Autoencoder
from genmini.models.cgan import CGAN
from genmini.models.cvae import CVAE
from genmini.models.diffusion import Diffusion
from genmini.models.gan import GAN
from genmini.models.made import MADE
from genmini.models.vae import VAE
from genmini.studies import (
    _few_labels,
    interpolate,
    neighbours,
    optimum,
    progress,
    semi_supervised,
)
from genmini.train import rows_of

pytestmark = pytest.mark.usefixtures("folder_of_its_own")
TEST = data.load("digits", "test")


def save(folder, model, name="digits"):
    checkpoint.save(folder, model, {"step": 1, "data": name})
    return str(folder)


def few_steps(monkeypatch):
    """The study `semi-supervised` trains for two steps."""
    for which in (_few_labels.OF_CODES, _few_labels.OF_PIXELS):
        monkeypatch.setitem(which, "steps", 2)


def test_every_study_draws_its_picture_of_runs_that_fit(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(semi_supervised, "DRAWS", 2)
    monkeypatch.setattr(semi_supervised, "LAMBDAS", (1e-2,))
    few_steps(monkeypatch)
    torch.manual_seed(0)
    vae, ae = (VAE((8, 8), latent=2, hidden=8, levels=17, decoder="categorical"),
               Autoencoder((8, 8), levels=17, latent=5, hidden=8))
    save("flat", Autoencoder((8, 8), levels=17, latent=2, hidden=8))
    runs = [save("vae", vae), save("ae", ae), save("made", MADE((8, 8), hidden=4), "digits-threshold")]
    tried = [name for name in studies.STUDIES if not studies.find(name).plans  # those train runs of their own
             and not studies.misfit(name, vae) and studies.find(name).lacks(MADE)]
    assert {"reconstruct", "interpolate", "embed", "grid", "traverse", "semi-supervised"} <= {*tried}
    assert {"continuity", "aggregate", "grid"} <= {name for name in tried if studies.find(name).together}
    for name in tried:
        if studies.find(name).together:
            status, out, err = command(capsys, "study", name, "flat", "vae")
            assert (status == 0 and out.endswith(f"picture   flat/{name}.png\n") and " in vae: " in out
                    and (tmp_path / "flat" / f"{name}.png").stat().st_size > 10_000)
            assert "made does not fit: MADE has no " in command(capsys, "study", name, "vae", "made")[2]
            continue
        status, out, err = command(capsys, "study", name, *runs)
        assert (status == 0 and f"picture   vae/{name}.png" in out
                and (tmp_path / "vae" / f"{name}.png").stat().st_size > 10_000)
        assert (err.startswith("genmini: ") and "made does not fit: MADE has no " in err
                and err.rstrip().endswith("is for " + fitting(name)))
        assert (tmp_path / "ae" / f"{name}.png").exists()
    assert "ae does not fit: its latent space has 5 dimensions" in command(capsys, "study", "grid", "ae", "vae")[2]
    for words in (["embed", "--axes", "4,1"], ["traverse", "--axes", "0,3"],
                  ["interpolate", "--between", "0,7", "--pick", "nearest"]):
        assert command(capsys, "study", words[0], "ae", *words[1:])[0] == 0
    status, out, err = command(capsys, "study", "reconstruct", "nowhere", "vae")
    assert status == 0 and "nowhere holds no run" in err and "picture   vae/reconstruct.png" in out
    words = ["study", "embed", "ae", "--out", "some/where.png"]
    assert command(capsys, *words)[:2] == command(capsys, *words)[:2] and (tmp_path / "some/where.png").exists()


def test_each_study_is_a_file_and_a_row_of_the_documentation():
    """genmini/studies/, `genmini list` and the table of docs/commands.md hold the same studies, in one order."""
    files = {path.stem.replace("_", "-") for path in Path(studies.__file__).parent.glob("[a-z]*.py")}
    page = Path(__file__).resolve().parents[2] / "docs" / "commands.md"
    rows = re.findall(r"^\| \[([\w-]+)\]\(../genmini/studies/(\w+)\.py\)", page.read_text(), re.M)
    assert files == {*studies.STUDIES} and [name for name, _ in rows] == [*studies.STUDIES]
    assert all(file == name.replace("-", "_") for name, file in rows)


def test_the_metrics_of_trainings_are_drawn_along_their_steps(capsys, tmp_path):
    """Numbers that all runs have, each in its panel; a later stage follows the one before."""
    for name, rows in (("a", [dict(step=10, valid=3.0, modes=2, seconds=1.0), dict(step=20, valid=1.0, modes=8),
                              dict(step=30, valid=2.0, modes=7, warning="it diverges")]),
                       ("b", [dict(stage="codes", step=4, valid=5.0), dict(stage="prior", step=2, valid=500.0)])):
        save(name, MADE((8, 8), hidden=4), "digits-threshold")
        Path(name, "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [*rows_of("b")]
    assert progress.curves(rows) == {"valid": [(4, 5.0), (6, 500.0)]}
    checkpoint.save("a", MADE((8, 8), hidden=4), {"step": 20, "data": "digits-threshold"})
    assert command(capsys, "study", "progress", "a")[1] == (
        "MADE in a: at step 20, and in the second half: valid 1, late 1 to 2; modes 8, late 7 to 8\n"
        "picture   a/progress.png\n")
    assert (tmp_path / "a/progress.png").stat().st_size > 10_000
    assert progress.of_last_stage(rows, 2, ["valid"]) == (
        "at step 2 of the stage prior, and in the second half: valid 500, late 500 to 500")
    staged = [dict(stage="codes", step=step, valid=1.7, perplexity=3.0) for step in (100, 200, 300, 400)]
    staged += [dict(stage="prior", step=step, valid=5.0 + step / 1000) for step in (100, 200, 300, 400)]
    assert progress.of_last_stage(staged, 300, ["valid", "perplexity"]) == (
        "at step 300 of the stage prior, and in the second half: valid 5.3, late 5.3 to 5.4")
    diverged = [dict(step=1, valid=1.0), dict(step=2, valid=math.nan), dict(step=3, valid=2.0)]
    assert progress.of_last_stage(diverged, 2, ["valid"]) == "at step 2, and in the second half: valid late 2 to 2"
    assert "with their 10 classes or without" in studies.misfit("guide", Diffusion((8, 8), 17, classes=3, width=8))
    assert all(not studies.find("progress").lacks(models.find(name)) for name in models.MODELS)
    status, out, _ = command(capsys, "study", "progress", "a", "b", "--out", "both.png")
    assert status == 0 and out.count("valid") == 2 and "modes" not in out and Path("both.png").exists()
    for row in ("[1]", "null", '{"train": 1}', '{"step": "a"}'):
        Path("b/metrics.jsonl").write_text(row)
        assert "b is damaged: metrics.jsonl holds no rows of metrics" in command(capsys, "study", "progress", "b")[2]
    Path("b/metrics.jsonl").write_text('{"step": 1, "valid": 1e308, "train": [2]}\n{"step": 2, "valid": 1}\n')
    assert progress.curves(rows_of("b")) == {"valid": [(2, 1)]}
    for runs, says in ((["a", "a"], "progress takes each run once, got a, a"),
                       ([], "progress takes one run or more, got 0")):
        with pytest.raises(ValueError, match=says):
            studies.study("progress", runs)
    with pytest.raises(ValueError, match="reconstruct takes one run, got 2"):
        studies.study("reconstruct", ["a", "b"])
    Path("b/metrics.jsonl").write_text("")
    assert "have no number in common" in command(capsys, "study", "progress", "b")[2]


def test_samples_and_the_grid_of_one_run_are_two_pictures(capsys, tmp_path):
    run = save("vae", VAE((8, 8), latent=2, hidden=8), "digits-threshold")
    assert command(capsys, "study", "grid", run)[0] == 0
    grid = (tmp_path / "vae/grid.png").read_bytes()
    assert command(capsys, "sample", run, "-n", "4")[0] == 0 and (tmp_path / "vae/drawn.png").stat().st_size > 1000
    assert (tmp_path / "vae/grid.png").read_bytes() == grid
    drawn = (tmp_path / "vae/drawn.png").read_bytes()
    assert command(capsys, "study", "grid", run)[0] == 0 and (tmp_path / "vae/drawn.png").read_bytes() == drawn


def fitting(name):
    from genmini import models

    return ", ".join(each for each in models.MODELS if not studies.find(name).lacks(models.find(each)))


def test_a_vae_shows_the_mean_images_first_and_beside_them_the_pixels_drawn(capsys, monkeypatch):
    save("vae", VAE((8, 8), levels=17, latent=2, hidden=8, decoder="categorical"), "digits")
    shown = []
    monkeypatch.setattr(plots, "side_by_side", lambda path, panels, levels, columns=8: shown.append((panels, columns)))
    assert command(capsys, "sample", "vae", "-n", "9")[0] == 0
    assert command(capsys, "sample", "vae", "-n", "9", "--mean")[0] == 0
    ((both, columns), (alone, _)) = shown
    assert [*both] == ["mean images of VAE", "samples of VAE"] and columns == 3 and [*alone] == ["9 means of VAE"]
    mean, drawn = both.values()
    assert torch.equal(mean, alone["9 means of VAE"]) and not torch.equal(mean, drawn.float())
    assert (mean - drawn.float()).abs().mean() > 1, "an untrained VAE draws any level"


def test_a_gan_is_studied_between_two_draws_and_on_the_line(capsys, tmp_path, monkeypatch):
    """It codes no images: the ends are what two z decode to. Its discriminator learns known densities."""
    torch.manual_seed(0)
    gan, cgan = (model((8, 8), 17, latent=3, hidden=(8, 8), r1=0.5) for model in (GAN, CGAN))
    save("gan", gan), save("cgan", cgan), save("points", GAN((2,), hidden=(4,)), "gaussians")
    shown = []
    monkeypatch.setattr(interpolate.plots, "side_by_side", lambda path, panels, *_: shown.append(panels))
    assert command(capsys, "study", "interpolate", "gan", "cgan", "points")[2].count("it draws points") == 1
    for model, panels in zip((gan, cgan), shown, strict=True):
        z = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)).unflatten(0, (6, 2))
        y = TEST.y[interpolate.pairs(TEST.y[:200], bool(model.classes))]
        given = lambda k: dict(y=y[:, k]) if model.classes else {}  # noqa: B023
        row = panels["between two codes, by t (first and last: the images)"].unflatten(0, (6, 11))
        wide = copy.deepcopy(model.eval()).double()
        for step, code, k in ((0, z[:, 0], 0), (10, z[:, 1], 1), (5, z.mean(1), 0)):
            fair(row[:, step], wide.decode(code.double(), **given(k)), model.decode(code, **given(k)), torch.float32)
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
    torch.testing.assert_close(taken, distances.amin(1), rtol=2 * 2**-24, atol=0)  # two roots of the same integers
    real = torch.cdist(test.x.double().flatten(1), train.x.double().flatten(1)).amin(1)
    assert f"{real.median():.2f} of test images; 0.0% of 1000 samples lie nearer" in out


def test_the_checkerboard_of_samples_stands_beside_that_of_images(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(MADE, "sample", lambda self, n: (torch.arange(8)[:, None] + torch.arange(8)).remainder(2)
                        .to(torch.uint8).expand(n, 8, 8))
    save("made", MADE((8, 8), hidden=4), "digits-threshold"), save("points", GAN((2,), hidden=(4,)), "gaussians")
    status, out, _ = command(capsys, "study", "spectrum", "made")
    assert status == 0 and "100.000% of samples; of white noise 4.762%" in out
    assert (tmp_path / "made" / "spectrum.png").stat().st_size > 10_000
    save("too", MADE((8, 8), hidden=4), "digits-threshold"), save("other", GAN((8, 8), 17, hidden=(4,)))
    status, out, _ = command(capsys, "study", "spectrum", "made", "too", "--out", "both.png")
    assert status == 0 and "100.000% of made, 100.000% of too; of white" in out and Path("both.png").exists()
    for run, why in (("points", "points does not fit"), ("other", "other and made have other images")):
        assert why in command(capsys, "study", "spectrum", "made", run)[2]
    monkeypatch.setattr(MADE, "sample", lambda self, n: torch.ones(n, 8, 8, dtype=torch.uint8))
    assert "0.000% of samples" in command(capsys, "study", "spectrum", "made", "--out", "constant.png")[1]


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
                        (["codes", "x", "--axes", "0,1"], "--axes is for embed, traverse: codes does not take it"),
                        (["embed", made, "--data", "digits"], "--data is for `genmini study latent-dim`"),
                        (["latent-dim", made], "genmini study latent-dim MODEL --data D"),
                        (["latent-dim", "made", "--data", "digits"],
                         "made does not fit: MADE has no latent code")):
        status, _, err = command(capsys, "study", *words)
        assert status == 2 and says in err.splitlines()[-1], err


def test_two_of_something_are_two(capsys):
    for words, says in ((["embed", "x", "--axes", "0"], "it takes two, as 0,1, got '0'"),
                        (["interpolate", "x", "--between", "a,7"], "it takes two classes, as 0,7, got 'a,7'")):
        with pytest.raises(SystemExit, match="2"):
            main(["study", *words])
        assert says in capsys.readouterr().err


def test_of_several_runs_one_whose_numbers_are_not_finite_is_named_and_the_other_studied(capsys, monkeypatch):
    def study(name, run, *rest):
        if run == "a":
            raise ArithmeticError("samples are no longer finite")
        return "fine"

    for folder in "ab":
        save(folder, MADE((8, 8), hidden=4), "digits-threshold")
    monkeypatch.setattr(studies, "study", study)
    status, out, err = command(capsys, "study", "neighbours", "a", "b")
    assert status == 0 and "genmini: a: samples are no longer finite" in err and out.startswith("b: fine")


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
    assert line in studies.study("latent-dim", ["d/latent-4", "d/latent-2"], "again.png")
    monkeypatch.setattr(experiment, "train", lambda *_, **how: History(stopped="interrupted"))
    status, out, err = command(capsys, *words, "2", "3", "5")
    assert status == 130 and err.startswith("genmini: interrupted") and "latent = 3" in out and "latent = 5" not in out
