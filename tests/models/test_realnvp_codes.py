"""Tests of the codes of RealNVP: an image comes back from its code exactly, studies begin and end at the images, and
temperature is the deviation of z."""

import math

import numpy as np
import pytest
import torch
from check import command
from test_realnvp import SMALL, flow
from test_realnvp_levels import identity

from genmini import checkpoint, data, plots, studies
from genmini.models._model import Cannot
from genmini.models.made import MADE
from genmini.models.realnvp import RealNVP
from genmini.studies import interpolate

OF_IMAGES = {
    "256 levels": dict(shape=(8, 8), levels=256, scales=1),
    "bits": dict(shape=(4, 4), levels=2),
    "a narrow margin, noise of its own": dict(shape=(4, 4), levels=256, margin=1e-4, dequantise="variational"),
    "colours, two scales, classes": dict(shape=(3, 4, 8), levels=32, scales=2, classes=3),
    "splines": dict(shape=(2, 4, 4), levels=17, scales=1, coupling="spline", bins=5, reach=3.0),
}

# ---- encode and decode -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", OF_IMAGES.values(), ids=OF_IMAGES)
def test_every_level_comes_back_from_its_code(settings):
    """In float32, of a flow far from the identity; also the darkest and the brightest image."""
    model = flow(**settings, **SMALL).float()
    torch.manual_seed(0)
    x = torch.randint(model.levels, (200, *model.shape))
    x[0], x[1] = 0, model.levels - 1
    y = torch.arange(200) % model.classes if model.classes else None
    with torch.no_grad():
        z = model.encode(x, y)
        assert z.shape == (200, model.D) == (200, model.latent) and (z - x.flatten(1)).abs().max() > 0.5
        assert torch.equal(z, model.encode(x, y)) and torch.equal(model.decode(z, y), x.float())


def test_a_code_is_that_of_the_middle_of_the_cell():
    model, _ = identity((3,), levels=5, margin=0.1)
    x = torch.tensor([[0, 2, 4]])
    torch.testing.assert_close(model.encode(x), (0.1 + 0.8 * (x.double() + 0.5) / 5).logit())


def test_codes_outside_the_cells_decode_to_the_first_and_the_last_level():
    model, _ = identity((3,), levels=5, margin=0.1)
    assert model.decode(torch.tensor([[-9.0, 0.0, 9.0]]).double()).tolist() == [[0, 2, 4]]


def test_a_point_is_carried_to_its_code_and_back():
    model, (x, y) = flow(shape=(5,), hidden=(12,), classes=3), (torch.randn(7, 5).double(), torch.arange(7) % 3)
    z = model.encode(x, y)
    assert torch.equal(z, model(x, y)[0])
    torch.testing.assert_close(model.decode(z, y), x)
    assert not torch.allclose(model.decode(z, (y + 1) % 3), x)
    for call in (lambda: model.encode(x), lambda: model.decode(z)):
        with pytest.raises(ValueError, match="class"):
            call()


# ---- temperature -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 2.0])
def test_temperature_is_the_deviation_of_z(temperature):
    model = flow(shape=(6,), hidden=(12,))
    torch.manual_seed(0)
    with torch.no_grad():
        z, _ = model(model.sample(5000, temperature=temperature))
    error = 5 / math.sqrt(z.numel())
    torch.testing.assert_close(z.square().mean().item(), temperature**2, rtol=1.5 * error, atol=1e-20)
    assert abs(z.mean()) <= error * temperature + 1e-9


def test_at_no_temperature_each_sample_is_the_mode_of_p_z_decoded():
    model = flow(shape=(4, 4), levels=17, classes=2, **SMALL)
    mode = model.decode(torch.zeros(2, 16).double(), torch.arange(2))
    x = model.sample(6, torch.arange(6) % 2, temperature=0)
    assert x.dtype == torch.uint8 and torch.equal(x, mode.repeat(3, 1, 1).to(torch.uint8))
    drawn = []
    for how in ({}, dict(temperature=1), dict(temperature=0.5)):
        torch.manual_seed(3)
        drawn.append(model.sample(6, 1, **how))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("temperature", [-1, math.nan, math.inf, "warm", None])
def test_a_temperature_is_a_number_of_at_least_0(temperature):
    with pytest.raises(ValueError, match="^temperature must be "):
        flow(shape=(2,), hidden=(4,)).sample(3, temperature=temperature)


@pytest.mark.usefixtures("folder_of_its_own")
def test_the_command_takes_a_temperature_of_flows_alone(capsys):
    checkpoint.save("flow", flow(shape=(8, 8), levels=17, **SMALL).float(), {"step": 1, "data": "digits"})
    checkpoint.save("made", MADE((8, 8), hidden=4), {"step": 1, "data": "digits-threshold"})
    status, _, _ = command(capsys, "sample", "flow", "-n", "5", "--temperature", "0", "--out", "x.npy")
    x = np.load("x.npy")
    assert status == 0 and x.shape == (5, 8, 8) and (x == x[0]).all()
    assert ", temperature 0.5" in command(capsys, "score", "flow", "-n", "320", "--temperature", "0.5")[1]
    status, _, err = command(capsys, "sample", "made", "--temperature", "0.5")
    assert status == 2 and "--temperature does not fit: MADE draws its noise at one temperature" in err
    assert "temperature must be at least 0" in command(capsys, "sample", "flow", "--temperature", "-1")[2]


# ---- studies ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder_of_its_own")
@pytest.mark.parametrize("classes", [0, 10])
def test_a_path_between_two_codes_ends_at_the_images(monkeypatch, classes):
    """Its images are those of the codes on the straight line, and the first and the last are exact."""
    model = flow(shape=(8, 8), levels=17, scales=1, classes=classes, **SMALL).float()
    checkpoint.save("flow", model, {"step": 1, "data": "digits"})
    shown = []
    monkeypatch.setattr(plots, "side_by_side", lambda path, panels, *_, **how: shown.append(panels))
    studies.study("interpolate", "flow")
    path = next(iter(shown[0].values())).unflatten(0, (6, 11))
    test = data.load("digits", "test")
    ends = interpolate.pairs(test.y[:200], bool(classes))
    for side, at in ((0, 1), (1, 9)):
        assert torch.equal(path[:, at], test.x[ends[:, side]].float())
    y = [test.y[ends[:, side]] if classes else None for side in (0, 1)]
    with torch.no_grad():
        a, b = (model.encode(test.x[ends[:, side]], y[side]) for side in (0, 1))
        middle = model.decode((a + b) / 2, y[0])
    assert (path[:, 5] != middle).double().mean() < 0.01  # another rounding of z may cross the edge of a cell


@pytest.mark.usefixtures("folder_of_its_own")
def test_studies_of_codes_take_a_flow_of_images_and_refuse_one_of_points(capsys, tmp_path):
    checkpoint.save("flow", RealNVP((8, 8), 17, **SMALL), {"step": 1, "data": "digits"})
    checkpoint.save("points", RealNVP((2,), hidden=4), {"step": 1, "data": "moons"})
    for name in ("interpolate", "traverse", "embed"):
        status, _, err = command(capsys, "study", name, "flow", "points")
        assert status == 0 and (tmp_path / "flow" / f"{name}.png").stat().st_size > 10_000
        assert "points does not fit: it draws points, and a picture takes images" in err
    for name in ("grid", "semi-supervised"):
        assert "points does not fit: it draws points" in command(capsys, "study", name, "points")[2]
    assert "its latent space has 64 dimensions" in command(capsys, "study", "grid", "flow")[2]
    assert "RealNVP is invertible, so what it decodes of the code of an image is that image" in command(
        capsys, "study", "reconstruct", "flow")[2]
    with pytest.raises(Cannot, match="is that image"):
        RealNVP((2,)).reconstruct(torch.zeros(1, 2))
