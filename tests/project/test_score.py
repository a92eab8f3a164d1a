"""Tests of `genmini score`: samples beside real images, of every model that draws images, by every network, and what it
refuses."""

import dataclasses
import os
import struct
from pathlib import Path

import pytest
import torch
from check import command

from genmini import data, metrics
from genmini.cli.score import _table
from genmini.metrics.score import draw
from genmini.models._model import Model
from genmini.models.cvae import CVAE
from genmini.models.vae import VAE
from genmini.models.vqvae import VQVAE

pytestmark = pytest.mark.usefixtures("folder_of_its_own")
SPLITS = {split: data.load("digits", split) for split in data.SPLITS}


class Copies(Model):
    """A model whose samples are images of a split, of the class that is requested or of the next one."""

    def __init__(self, split, classes=0):
        super().__init__(split.shape, split.levels, classes)
        self.W, self.x, self.y = torch.nn.Parameter(torch.zeros(1)), split.x, split.y
        self.given, self.classes_drawn = 0, []

    def sample(self, n, y=None):
        if y is None:
            self.given += n
            return self.x[self.given - n : self.given]
        self.classes_drawn.append(y)
        return torch.stack([self.x[self.y == k][0] for k in y.tolist()])


@pytest.fixture(scope="module")
def network():
    return metrics.network()


def test_copies_of_the_train_split_are_perfect_and_count_for_each_number(network):
    train, test = SPLITS["train"], SPLITS["test"]
    columns = metrics.score(Copies(train), network, train, test, n=1297)
    assert (list(columns) == ["samples", "samples, fewer", "real"]
            and [c["n"] for c in columns.values()] == [1297, 300, 300])
    best, real = columns["samples"], columns["real"]
    assert (best["fid"] < 1e-9 and best["fid_of_half"] > 0.1 and best["precision"] == best["recall"] == 1
            and best["accuracy"] is None)
    assert best["nearest"] == 0 and real["nearest"] == torch.cdist(test.x.flatten(1).double(),
                                                                   train.x.flatten(1).double()).amin(1).median()
    assert best["kid"][0] < 0 < real["fid"] and columns["samples, fewer"]["fid"] > 1 and real["recall"] < 1
    counts = network(test.x, 17)[1].argmax(1).bincount()
    assert real["shares"] == (counts.min() / 30, counts.max() / 30)
    assert real["inception_score"] == metrics.inception_score(network(test.x, 17)[1]) and real["accuracy"][0] > 0.95
    assert list(metrics.score(Copies(train), network, train, test, n=200)) == ["samples", "real"]


@pytest.mark.parametrize("name, says", [("digits", "{:.1%} of the grey test digits"),
                                        ("digits-threshold", "{:.1%} of the binary ones")])
def test_the_page_says_how_often_the_network_is_right(network, name, says):
    test = data.load(name, "test")
    share, _, _ = metrics.class_accuracy(network(test.x, test.levels)[1], test.y)
    assert says.format(share) in (Path(__file__).resolve().parents[2] / "docs" / "commands.md").read_text()


def test_a_model_with_classes_is_asked_for_them_evenly(network):
    train, test = SPLITS["train"], SPLITS["test"]
    model = Copies(train, classes=10)
    columns = metrics.score(model, network, train, test, n=1205)
    assert [len(y) for y in model.classes_drawn] == [1000, 205]
    assert torch.equal(torch.cat(model.classes_drawn), torch.arange(1205) % 10)
    share, error, each = columns["samples"]["accuracy"]
    # ten images, again and again
    assert share == 1 and error == 0 and each.eq(1).all() and columns["samples"]["recall"] < 0.5
    wrong = metrics.score(Copies(dataclasses.replace(train, y=(train.y + 1) % 10), classes=10), network, train, test,
                          n=100)
    assert wrong["samples"]["accuracy"][0] == 0 and wrong["real"]["accuracy"][0] > 0.9


def test_classes_that_are_not_the_networks_judge_nothing(network):
    """Data without labels, or with others, have numbers for y, too."""
    train, test = (dataclasses.replace(SPLITS[name], y=SPLITS[name].y // 5, classes=2) for name in ("train", "test"))
    columns = metrics.score(Copies(train, classes=2), network, train, test, n=400)
    assert len(columns) == 3 and not any(column["accuracy"] for column in columns.values())
    train, test = (dataclasses.replace(SPLITS[name], y=0 * SPLITS[name].y, classes=0) for name in ("train", "test"))
    columns = metrics.score(Copies(SPLITS["train"], classes=10), network, train, test, n=400)
    assert [column["accuracy"] is None for column in columns.values()] == [False, False, True]
    rows = {line.strip().partition("   ")[0]: line.split() for line in _table(columns)}
    assert rows["right class"][-1] == rows["of class 3"][-1] == "-" != rows["of class 3"][-2]


def test_images_that_the_network_does_not_take_are_refused_before_any_is_drawn(network):
    one = dataclasses.replace(SPLITS["test"], x=SPLITS["test"].x[:, 1:])
    model = Copies(one)
    with pytest.raises(ValueError, match=r"takes images of shape \(8, 8\), these have \(7, 8\)"):
        metrics.score(model, network, one, one, n=20)
    assert model.given == 0


def test_means_are_scored_in_place_of_samples(network):
    """`sample(mean=True)` gives the mean images of the z or codes that `sample` draws, by the same noise."""
    train, test = SPLITS["train"], SPLITS["test"]
    torch.manual_seed(0)
    vae = VAE((8, 8), levels=17, latent=3, hidden=9, decoder="categorical").eval()
    cvae = CVAE((8, 8), levels=17, latent=3, hidden=9, decoder="categorical").eval()
    vqvae = VQVAE((8, 8), levels=17, K=9, dim=3, width=4, prior_width=4, prior_blocks=1, classes=10).eval()
    for model in (vae, cvae, vqvae):
        y = torch.arange(20) % 10 if model.classes else None
        torch.manual_seed(5)
        means, classes = draw(model, 20, 5, 10, mean=True)
        torch.manual_seed(5)
        if isinstance(model, VAE):
            wanted = model.decode(torch.randn(20, 3), y)
        else:
            wanted = model.decode_codes(torch.randint(9, (20, *model.grid)), y)
        assert torch.equal(means, wanted) and means.is_floating_point() and (y is None or torch.equal(classes, y))
        assert not torch.equal(means, draw(model, 20, 5, 10)[0].float())
        columns = metrics.score(model, network, train, test, n=20, seed=5, mean=True)
        assert columns["samples"]["inception_score"] == metrics.inception_score(network(means, 17)[1])


def test_the_command_prints_every_metric_beside_real_images(capsys):
    few = ["--steps", "2", "--set", "batch=8"]
    for name, more in (("made", ["--set", "hidden=8"]),
                       ("realnvp", ["--set", "classes=10", "--set", "couplings=1", "--set", "width=4"])):
        assert command(capsys, "train", name, "--data", "digits", *few, *more, "--out", name)[0] == 0
        status, out, _ = command(capsys, "score", name, "-n", "320")
        assert status == 0 and "digits-v1: not comparable with Inception FID" in out
        rows = [line.split("   ")[0].strip() for line in out.splitlines()[5:]]
        assert rows[:4] == ["FID", "of half as many", "of infinitely many (line over 1/n)", "KID"]
        assert rows[4:6] == ["inception score", "rarest and commonest class, of an even share"]
        assert rows[6:10] == ["precision", "recall", "distance to the nearest train image, median", "right class"]
        assert " ".join(out.splitlines()[4].split()) == "samples, n = 320 samples, n = 300 real, n = 300"
        assert ("of class 7" in rows) == (name == "realnvp") and out == command(capsys, "score", name, "-n", "320")[1]
        assert out != command(capsys, "score", name, "-n", "320", "--seed", "1")[1]


def test_the_command_takes_another_classifier_and_says_what_it_does_not_take(capsys):
    assert command(capsys, "train", "made", "--data", "digits", "--steps", "2",
                   "--set", "hidden=8", "--out", "m")[0] == 0
    assert command(capsys, "train", "classifier", "--data", "digits", "--steps", "2",
                   "--set", "width=2", "--out", "c")[0] == 0
    assert command(capsys, "train", "ar", "--data", "series", "--set", "p=2",
                   "--set", "method=yule-walker", "--out", "a")[0] == 0
    os.mkdir("own")
    pixels = torch.randint(256, (12, 8, 8), dtype=torch.uint8).numpy().tobytes()
    Path("own/train-images-idx3-ubyte").write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, 12, 8, 8) + pixels)
    assert command(capsys, "train", "made", "--data", "idx", "--data-dir", "own", "--steps", "2",
                   "--set", "hidden=8", "--out", "few")[0] == 0
    status, out, _ = command(capsys, "score", "m", "-n", "20", "--features", "c")
    assert status == 0 and "the classifier in c, trained on digits: not comparable with Inception FID" in out
    for words, says in ((["m", "--features", "m"], "features come from a classifier, and m is a run of made"),
                        (["m", "--features", "nowhere"], "features must be digits-v1, inception, or the folder"),
                        (["m", "--mean"], "--mean does not fit: MADE draws its pixels directly"),
                        (["m", "-n", "3"], "n must be at least 8"), (["c"], "Classifier draws none"),
                        (["a"], "AR draws none"),
                        (["few"], "a score takes at least 8 real images, and the test split of idx-dynamic has 2"),
                        (["x"], "holds no run")):
        status, _, err = command(capsys, "score", *words)
        assert status == 2 and says in err and err.count("\n") == 1, err
