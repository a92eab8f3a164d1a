"""Tests of the study complete: its figures for completions that are known, by the command line, and what is refused."""

import pytest
import torch
from check import command

from genmini import checkpoint, data, plots
from genmini.data import shapes
from genmini.data.shapes import Scene
from genmini.models._model import Model
from genmini.models.diffusion import Diffusion
from genmini.models.made import MADE
from genmini.models.vae import VAE
from genmini.studies import complete

TEST = data.load("shapes-one", "test", size=16)


class Halves(Model):
    """The lower half of its completions is that of another test image, each time of the next."""

    shift, device = 0, torch.device("cpu")

    def pixel_order(self):
        return torch.arange(self.D).view(3, -1).T.flatten()

    def sample(self, n, y=None, x=None, known=0):
        self.shift += 1
        other = TEST.x[:n].roll(self.shift, 0)
        return torch.cat([x[:, :, :8], other[:, :, 8:]], 2)


@pytest.fixture
def drawn(monkeypatch):
    seen = []
    monkeypatch.setattr(plots, "rows", lambda path, *shown: seen.append(shown))
    return seen


def run_of(model):
    return type("Run", (), dict(model=model, seed=0, split=lambda self, split: TEST))()


def test_completions_of_known_halves_are_measured(drawn, monkeypatch):
    monkeypatch.setattr(complete, "IMAGES", 20)
    monkeypatch.setattr(complete, "DRAWS", 3)
    monkeypatch.setattr(complete, "ROWS", 3)
    answer = complete.study(run_of(Halves((3, 16, 16), 256)), "x.png")
    x = TEST.x[:20].double()
    made = torch.stack([torch.cat([x[:, :, :8], x.roll(k, 0)[:, :, 8:]], 2) for k in (1, 2, 3)])
    lower = made[..., 8:, :]
    error = (lower - x[..., 8:, :]).square().mean().sqrt()
    pairs = [(lower[i] - lower[j]).square().mean() for i in range(3) for j in range(i)]
    apart = (sum(pairs) / 3).sqrt()
    assert answer.startswith("100.0% of 60 completions keep every known pixel; in the half that is drawn, two of an "
                             f"image are {apart:.1f} levels apart, one and the image {error:.1f}; ")
    ((_, images, labels, levels),) = drawn
    assert labels == ["known", "Halves", "Halves", "Halves", "the image"] and images.shape == (5, 10, 3, 16, 16)
    assert images[0, :, :, 8:].isnan().all() and torch.equal(images[0, :, :, :8], x[:10, :, :8].float())
    assert torch.equal(images[1], made[0, :10].float()) and torch.equal(images[4], x[:10].float())


def test_a_pixel_that_is_not_kept_is_seen(drawn, monkeypatch):
    monkeypatch.setattr(complete, "IMAGES", 20)
    model = Halves((3, 16, 16), 256)
    sample = model.sample

    def spoilt(n, **how):
        made = sample(n, **how).clone()
        made[0, 2, 7, 15] ^= 1  # the last of the known pixels, of one image in 20
        return made

    model.sample = spoilt
    assert complete.study(run_of(model), "x.png").startswith("95.0% of 160 completions keep every known pixel")


def test_what_is_counted_of_scenes():
    """The images themselves; empty grounds, which keep no object of the upper half and are no scene of the data; and
    noise, which cannot be read."""
    n = 30
    up = sum(bool(complete.upper(TEST.scenes[i])) for i in range(n))
    assert 3 < up < 20, "some objects lie in the upper half"
    empty = torch.from_numpy(shapes.draw([Scene((), TEST.scenes[i].ground) for i in range(n)], 16))
    noise = torch.randint(256, (n, 3, 16, 16), dtype=torch.uint8)
    of = lambda *made: complete.of_scenes(torch.stack(made), TEST)
    itself = of(TEST.x[:n])
    assert itself.startswith("100.0% of the scenes can be read; of these 100.0% have") and ", and 100.0% as" in itself
    share = (2 * n - up) / (2 * n)
    assert of(TEST.x[:n], empty, noise).startswith(f"66.7% of the scenes can be read; of these {share:.1%} have what")
    assert ", and 50.0% as many objects as a scene of shapes-one has" in of(TEST.x[:n], empty, noise)


def test_models_that_draw_pixel_after_pixel_are_asked_too(capsys, folder_of_its_own):
    checkpoint.save("made", MADE((8, 8), hidden=4), {"step": 1, "data": "digits-threshold"})
    status, out, _ = command(capsys, "study", "complete", "made")
    assert status == 0 and "made: 100.0% of 320 completions keep every known pixel" in out and "scenes" not in out
    checkpoint.save("vae", VAE((8, 8), latent=2, hidden=4), {"step": 1, "data": "digits-threshold"})
    status, _, err = command(capsys, "study", "complete", "vae")
    assert status == 2 and "vae does not fit: VAE keeps no known pixels, so it cannot complete" in err


def test_a_model_that_is_given_a_part_of_the_whole_image_is_refused(capsys, folder_of_its_own):
    model = Diffusion((3, 16, 16), 256, width=8, blocks=1, T=20, given="dark")
    checkpoint.save("colours", model, {"step": 1, "data": "shapes-one"})
    for words in (("study", "complete", "colours"), ("sample", "colours", "--complete", "-n", "2")):
        status, _, err = command(capsys, *words)
        assert status == 2 and ("the model is given dark of the whole image, and would see the half that is to be "
                                "completed") in err, err
