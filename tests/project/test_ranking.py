"""Tests of `genmini eval RUN --image`: images of one's own become images of the run, their likelihoods are those of the
model, and models without one say so."""

import math

import numpy as np
import pytest
import torch
from check import command
from PIL import Image

from genmini import checkpoint, data, ranking
from genmini.data import own_image
from genmini.models.cvae import CVAE
from genmini.models.gan import GAN
from genmini.models.language import Language
from genmini.models.made import MADE
from genmini.models.nade import NADE
from genmini.models.pixelcnn import PixelCNN
from genmini.models.realnvp import RealNVP
from genmini.models.vae import VAE

pytestmark = pytest.mark.usefixtures("folder_of_its_own")
TEST = data.load("digits", "test")
BITS = data.load("digits-threshold", "test")


def save(name, model, of="digits-threshold", **more):
    checkpoint.save(name, model.eval(), {"step": 1, "data": of, **more})
    return model


def draw(name, pixels, scale=1, mode=None):
    """A PNG of brightness (H, W) or (H, W, 3), each pixel a square of this side"""
    pixels = np.asarray(pixels, np.uint8).repeat(scale, 0).repeat(scale, 1)
    Image.fromarray(pixels).convert(mode or ("L" if pixels.ndim == 2 else "RGB")).save(name)
    return name


def brightness(n, light=False):
    """Image n of the test digits on 0 ... 255, dark on white or light on black"""
    ink = (TEST.x[n].numpy().astype(int) * 255 + 8) // 16
    return ink if light else 255 - ink


def test_a_digit_that_is_drawn_is_the_digit():
    """Dark on white, light on black, in colour, larger, as JPEG: the same levels, and the same bits."""
    for n in range(20):
        for light in (False, True):
            draw("a.png", brightness(n, light))
            x, words = own_image.fitted("a.png", "digits", (8, 8))
            assert torch.equal(x[0], TEST.x[n]) and x.dtype == torch.uint8
            ink = "light is ink, as the border is dark" if light else "dark is ink"
            assert words == f"8 x 8 pixels; {ink}; 256 levels became 17"
        x, words = own_image.fitted("a.png", "digits-threshold", (8, 8))
        assert torch.equal(x[0], BITS.x[n]) and words.endswith("a pixel is 1 from level 8 of 16 on")
    draw("rgba.png", brightness(3), mode="RGBA")
    assert torch.equal(own_image.fitted("rgba.png", "digits", (8, 8))[0][0], TEST.x[3])
    wide = np.full((8, 12), 255)
    wide[:, 2:10] = brightness(3)
    x, words = own_image.fitted(draw("wide.png", wide), "digits", (8, 8))
    assert torch.equal(x[0], TEST.x[3]) and words.startswith("12 x 8 pixels, cut to 8 x 8; ")
    flat = np.full((60, 40, 3), (200, 30, 30))
    words = own_image.fitted(draw("flat.png", flat), "digits", (8, 8))[1]
    assert words.startswith("40 x 60 pixels, cut to 40 x 40, scaled to 8 x 8; colours became grey; ")
    x, words = own_image.fitted(draw("form.png", np.full((30, 30), 255)), "idx", (28, 20))
    assert x.shape == (1, 28, 20) and words == "30 x 30 pixels, cut to 21 x 30, scaled to 20 x 28; dark is ink"


def test_levels_and_colours_are_those_of_the_data():
    grey = np.arange(3, 256, 4).reshape(8, 8)
    draw("grey.png", grey)
    for name in ("mnist", "idx", "images"):
        x = own_image.fitted("grey.png", name, (8, 8))[0]
        assert torch.equal(x[0], torch.from_numpy(255 - grey).to(torch.uint8))
    dark = draw("dark.png", grey // 4)
    assert torch.equal(own_image.fitted(dark, "images", (8, 8))[0][0], torch.from_numpy(255 - grey // 4).byte())
    assert torch.equal(own_image.fitted(dark, "mnist", (8, 8))[0][0], torch.from_numpy(grey // 4).byte())
    rgb = np.random.RandomState(0).randint(256, size=(8, 8, 3))
    x, words = own_image.fitted(draw("rgb.png", rgb), "shapes", (3, 8, 8))
    assert torch.equal(x[0], torch.from_numpy(rgb).movedim(2, 0).byte()) and words == "8 x 8 pixels"
    x, words = own_image.fitted("grey.png", "images", (3, 8, 8))
    assert (x[0] == torch.from_numpy(grey)).all() and words == "8 x 8 pixels; grey: three equal channels"
    x, words = own_image.fitted("grey.png", "mnist-threshold", (8, 8))
    assert torch.equal(x[0], torch.from_numpy(255 - grey >= 128).byte()) and "from level 128 of 255 on" in words
    half = draw("half.png", np.full((40, 40), 127))
    for version in ("drawn", "dynamic"):
        x, words = own_image.fitted(half, f"mnist-{version}", (40, 40))
        assert 0.4 < x.double().mean() < 0.6 and "with the probability level / 255, drawn once" in words
        assert torch.equal(x, own_image.fitted(half, f"mnist-{version}", (40, 40))[0])


def test_an_exact_likelihood_is_that_of_the_model(capsys):
    model = save("made", MADE((8, 8), hidden=4))
    nats = -torch.cat([model.log_prob(x[None]) for x in BITS.x[:5]]).detach()  # one by one, as images are judged
    names = [draw(f"{n}.png", brightness(n)) for n in range(5)]
    ranked = ranking.likelihoods("made", names)
    order = nats.argsort().tolist()
    assert [each.path for each in ranked] == [f"{n}.png" for n in order]
    assert [each.nats for each in ranked] == nats[order].tolist()
    assert all(not each.at_most and each.unit == "nats" and each.y is None for each in ranked)
    assert ranked[0].bits == pytest.approx(ranked[0].nats / 64 / math.log(2))
    status, out, _ = command(capsys, "eval", "made", "--image", *names)
    lines = out.splitlines()
    assert status == 0 and [line.split()[0] for line in lines[:5]] == [names[n] for n in order]
    assert lines[5] == f"  1. {order[0]}.png  {nats.min():.3f} nats, {ranked[0].bits:.4f} bits/dim"
    assert len(lines) == 10 and lines[9].startswith(f"  5. {order[4]}.png  {nats.max():.3f} nats")
    for name, other in (("nade", NADE((8, 8), hidden=4)), ("pixelcnn", PixelCNN((8, 8), width=4, blocks=1))):
        save(name, other)
        nats = -other.log_prob(BITS.x[:1]).item()
        assert ranking.likelihoods(name, names[:1])[0].nats == nats


def test_a_bound_is_called_one_and_does_not_depend_on_the_place(capsys):
    save("vae", VAE((8, 8), latent=2, hidden=8))
    a, b = draw("a.png", brightness(0)), draw("b.png", brightness(1))
    draw("same.png", brightness(0, light=True))
    first, = ranking.likelihoods("vae", [a], k=7)
    model = checkpoint.load("vae")
    torch.manual_seed(0)
    wanted = model.figures(BITS.x[:1], k=7)["iwae-7"].item()
    assert first.nats == -wanted and first.at_most
    three = ranking.likelihoods("vae", [b, "same.png", a], k=7)
    assert {each.nats for each in three if each.path != b} == {first.nats} and len(three) == 3
    assert [each.path for each in three if each.path != b] == ["same.png", a]
    assert command(capsys, "eval", "vae", "-k", "7", "--image", a)[1].splitlines()[1] == (
        f"  1. a.png  {first.nats:.3f} nats, {first.bits:.4f} bits/dim, at most")
    save("flow", RealNVP((8, 8), 17, couplings=2, width=4, blocks=1), "digits")
    flow, = ranking.likelihoods("flow", [a])
    assert flow.at_most and flow.bits > 0 and "256 levels became 17" in flow.words
    save("grey", VAE((8, 8), 17, latent=2, hidden=8, decoder="gaussian"), "digits")
    density, = ranking.likelihoods("grey", [a], k=3)
    assert density.unit == "nats of a density of v" and density.bits is None


def test_classes_are_summed_over(capsys):
    model = save("cvae", CVAE((8, 8), latent=2, hidden=8))
    a = draw("a.png", brightness(0))
    found, = ranking.likelihoods("cvae", [a], k=5)
    each = []
    for y in range(10):
        torch.manual_seed(0)
        each.append(model.figures(BITS.x[:1], y=y, k=5)["iwae-5"].item())
    assert found.nats == pytest.approx(-(np.logaddexp.reduce(each) - math.log(10)), rel=20 * 2**-53)
    assert found.y == int(np.argmax(each))
    assert f"(likeliest as class {found.y})" in command(capsys, "eval", "cvae", "-k", "5", "--image", a)[1]


def test_models_without_a_likelihood_and_files_that_are_no_images_say_so(capsys, tmp_path):
    a = draw("a.png", brightness(0))
    save("gan", GAN((8, 8), 17, hidden=(4,)), "digits")
    save("moons", RealNVP((2,), couplings=2, hidden=4), "moons")
    save("text", Language((40,), 71, width=8, heads=2, blocks=1), "captions")
    save("soft", VAE((8, 8), 17, latent=2, hidden=8, decoder="cross-entropy"), "digits")
    save("made", MADE((8, 8), hidden=4))
    checkpoint.save("unnamed", MADE((8, 8), hidden=4), {"step": 1})
    (tmp_path / "no.png").write_text("no image")
    (tmp_path / "half.png").write_bytes((tmp_path / a).read_bytes()[:60])
    for run, image, says in (("gan", a, "gan does not fit: GAN gives no likelihood"),
                             ("moons", a, "moons does not fit: RealNVP models no images of levels there"),
                             ("text", a, "text does not fit: Language models no images"),
                             ("soft", a, "VAE gives no likelihood as it was trained here, but cross-entropy + KL and"),
                             ("unnamed", a, "unnamed does not name its data"),
                             ("made", "none.png", "there is no image none.png"),
                             ("made", ".", ". is a folder, and an image is a PNG or JPEG file"),
                             ("made", "/dev/zero", "/dev/zero is no file"),
                             ("made", "a\0b", "holds a null byte"),
                             ("made", "no.png", "no.png is no PNG or JPEG image, whatever its name says"),
                             ("made", "half.png", "half.png is damaged or no image")):
        status, _, err = command(capsys, "eval", run, "--image", image)
        assert status == 2 and says in err and len(err.splitlines()) == 1, err
