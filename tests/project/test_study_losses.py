"""Tests of the study losses: its figures are those of known images, it draws several runs, and what is refused."""

import pytest
import torch
from check import command

from genmini import checkpoint, studies
from genmini.models.autoencoder import Autoencoder
from genmini.models.realnvp import RealNVP
from genmini.models.vae import VAE
from genmini.studies import losses

pytestmark = pytest.mark.usefixtures("folder_of_its_own")


def test_the_figures_are_those_of_known_images():
    """A black square on white, and the same at half of its contrast, one step of grey between."""
    v = torch.zeros(2, 4, 4, dtype=torch.float64)
    v[:, 1:3, 1:3] = 1.0
    assert losses.grey(v) == 0 and losses.grey(v / 2) == 0.25
    assert losses.edges(v) == pytest.approx(2 * 4 / 12) and losses.edges(v / 2) == pytest.approx(4 / 12)
    assert losses.measured(v / 2, v) == "squared error 0.0625, absolute error 0.1250, edges 0.50, grey 25.0%"


def test_several_runs_stand_in_one_picture(capsys, tmp_path):
    runs = []
    for name, model in (("cross", VAE((8, 8), 17, latent=2, hidden=8, decoder="cross-entropy")),
                        ("laplace", VAE((8, 8), 17, latent=2, hidden=8, decoder="laplace")),
                        ("ae", Autoencoder((8, 8), 17, latent=2, hidden=8))):
        checkpoint.save(name, model, {"step": 1, "data": "digits"})
        runs.append(name)
    status, out, _ = command(capsys, "study", "losses", *runs)
    assert status == 0 and (tmp_path / "cross" / "losses.png").stat().st_size > 10_000
    assert [line.split(":")[0] for line in out.splitlines() if "squared error" in line] == [
        "VAE in cross", "VAE in laplace", "Autoencoder in ae"]
    assert "the images themselves: grey " in out
    checkpoint.save("bits", VAE((8, 8), latent=2, hidden=8), {"step": 1, "data": "digits-threshold"})
    _, _, err = command(capsys, "study", "losses", "cross", "bits")
    assert "bits has images (8, 8) of 2 levels, and cross images (8, 8) of 17 levels: choose runs of the same" in err
    assert studies.misfit("losses", RealNVP((2,), hidden=4)).startswith("RealNVP ")
