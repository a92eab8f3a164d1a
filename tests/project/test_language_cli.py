"""The language model by the command line: trained, drawn, judged; and what does not fit text is refused in one line."""

import numpy as np
import pytest
from check import command

from genmini import checkpoint
from genmini.data import captions
from genmini.loop import Loop

pytestmark = pytest.mark.usefixtures("folder_of_its_own")
TRAIN = ["train", "language", "--data", "captions"]
SMALL = [*TRAIN, "--steps", "2", "--set", "batch=4", "--set", "width=8", "--set", "blocks=1", "--threads", "1"]


@pytest.fixture
def run(monkeypatch, capsys):
    """-> the output of a training that wrote the run r"""
    monkeypatch.setattr(captions, "COUNT", {"train": 60, "valid": 20, "test": 70})
    status, out, err = command(capsys, *SMALL, "--out", "r")
    assert status == 0, err
    return out


def test_it_is_trained_drawn_and_judged(run, capsys, tmp_path):
    assert "60 train / 20 valid / 70 test" in run and "texts     r/samples.txt" in run
    assert "nats   (mean and standard error over 70 texts of captions)" in run and "bits/dim" not in run
    assert "\nperplexity " in run and "(of a word, the end of a text counted as one)" in run
    lines = (tmp_path / "r" / "samples.txt").read_text().splitlines()
    assert lines[0] == "# data (test)" and lines[1:65] == captions.read("test", 64) and "# samples of Language" in lines
    assert not (tmp_path / "r" / "samples.png").exists()
    status, out, _ = command(capsys, "eval", "r")
    assert status == 0 and out.splitlines() == [line for line in run.splitlines() if line[:4] in ("test", "perp")]

    status, out, _ = command(capsys, "sample", "r", "-n", "9", "--begin", "Two red")
    head, *shown = out.splitlines()
    assert status == 0 and head == "9 samples in r/drawn.txt" and len(shown) == 8
    title, *drawn = (tmp_path / "r" / "drawn.txt").read_text().splitlines()
    assert title == "# 9 samples of Language" and [f"  {line}" for line in drawn[:8]] == shown and len(drawn) == 9
    assert all(line.startswith("two red") for line in drawn)
    assert command(capsys, "sample", "r", "-n", "3", "--out", "x.npy")[0] == 0
    x = np.load("x.npy")
    assert x.shape == (3, 40) and x.dtype == np.uint8
    model = checkpoint.load("r")
    assert model.words == captions.WORDS and model.log_prob(["a red circle"]).item() < 0
    assert command(capsys, *SMALL, "--out", "r", "--overwrite")[0] == 0


@pytest.mark.parametrize("words, says", [
    (["score", "r"], "a score takes a model that draws images: Language draws texts"),
    (["study", "spectrum", "r"], "r does not fit: its samples are texts, and no images: spectrum is for ar, fvsbn,"),
    (["study", "embed", "r"], "r does not fit: its samples are texts, and no images: embed is for realnvp, maf, auto"),
    (["study", "latent-dim", "language", "--data", "captions"], "language does not fit: Language has no latent code"),
    (["sample", "r", "--complete"], "--complete does not fit: Language keeps no known pixels"),
    (["sample", "r", "-y", "3"], "-y names a class, and the Language in r was made without classes"),
    (["sample", "r", "--film"], "--film does not fit: Language does not draw step by step from noise"),
    (["sample", "r", "--out", "x.png"], "Language draws texts: --out takes a .txt or a .npy file, got x.png"),
    (["sample", "r", "--begin", "a purpel"], "there is no word 'purpel' here; the nearest is 'purple', and known"),
    (["sample", "r", "--begin", ""], "the text '' has no word; known are the colours red, "),
    (["sample", "r", "--begin", 40 * "red "], "a text has at most 39 words here, a comma is one, and 'red red red"),
    (["sample", "r", "--begin", "\0"], "the text '\\x00' has no word"),
    (["train", "made", "--data", "captions"], "made has no recipe for 'captions'; its recipes are digits"),
    (["train", "made", "--data", "captions", "--recipe", "digits"], "is for images, and captions is text"),
    (["train", "language", "--data", "digits"], "language has no recipe for 'digits'; its recipes are captions"),
    ([*SMALL, "--set", "vocabulary=3"], "--set knows no key 'vocabulary'; the keys are width, blocks, heads"),
    ([*SMALL, "--set", "shift=0.5"], "shift moves images, and captions holds rows of shape (40,)"),
    ([*SMALL, "--set", "marginals=True"], "Language has no bias for each level of each pixel"),
    ([*SMALL, "--set", "heads=3"], "width must be a multiple of heads = 3, got 8"),
    ([*SMALL, "--size", "16"], "size and colour are chosen for the data `images`, a size for `shapes`, and captions"),
    ([*SMALL, "--data-dir", "r"], "captions lies in no folder, and 'r' is given"),
])
def test_what_does_not_fit_is_one_line(run, capsys, words, says):
    status, _, err = command(capsys, *words)
    assert status == 2 and says in err.splitlines()[-1], err


def test_only_a_text_goes_on_from_a_beginning(capsys):
    assert command(capsys, "train", "made", "--data", "digits", "--steps", "1", "--out", "m")[0] == 0
    for words, says in ((["--begin", "a red"], "--begin does not fit: MADE does not go on from the beginning"),
                        (["--out", "x.txt"], "MADE draws no texts: --out takes a .png or a .npy file, got x.txt")):
        status, _, err = command(capsys, "sample", "m", *words)
        assert status == 2 and says in err


def test_the_sizes_have_recipes_that_grow():
    from genmini import models

    recipes = models.recipes("language")
    make = lambda name: models.find("language")((40,), 71, captions.WORDS.vocabulary, **recipes[name]["model"])
    sizes = [make(name).parameter_count for name in ("captions-s", "captions", "captions-l")]
    assert sizes[0] * 5 < sizes[1] < 1_500_000 < sizes[2] and [*recipes][0] == "captions"
    for recipe in recipes.values():
        Loop(**recipe["train"])
