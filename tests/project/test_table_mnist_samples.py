"""The table of samples of MNIST: the judge is trained once, samples are judged as `metrics` does, and drawn over the
train images nearest to them."""

from dataclasses import replace

import numpy as np
import pytest
import table_mnist
import table_mnist_samples
import torch
from PIL import Image
from test_data_idx import labelled, lay

from genmini import data, metrics

QUICK = dict(steps=2, every=2, batch=8)
U_NET = dict(width=8, multiples=(1,), attention=0)
RUNS = [("gan", "mnist"), ("cgan", "mnist"), ("diffusion", "mnist"), ("diffusion", "mnist-classes")]


@pytest.fixture
def table(tmp_path, monkeypatch, folder_of_its_own, only_these):
    """Data with three classes, a judge and a document of the test's own; quick recipes, few samples."""
    lay(tmp_path / "own", labelled(60, shape=(8, 8)), labelled(70, seed=1, shape=(8, 8)))
    monkeypatch.setenv(table_mnist.FOLDER, str(tmp_path / "own"))
    quick = lambda **model: {"mnist": dict(data="mnist", model=model, train=QUICK)}
    only_these({"gan": quick(hidden=(4,), latent=2), "cgan": quick(hidden=(4,), latent=2, classes=3),
                "diffusion": {key: dict(data=key.split("-")[0], model=dict(U_NET, classes=classes), train=QUICK)
                              for key, classes in (("digits", 0), ("mnist", 0), ("mnist-classes", 3))},
                "classifier": quick(width=2, features=4, classes=3)})
    of_test = dict(N=30, FEW=40, COLUMNS=3, ROWS=2, JUDGE=tmp_path / "judge", JUDGE_SETTINGS=["steps=2"])
    for name, value in of_test.items():
        monkeypatch.setattr(table_mnist_samples, name, value)
    (tmp_path / "results.md").write_text("before\n<!-- mnist-samples -->\nold\n<!-- /mnist-samples -->\nafter\n")
    return table_mnist_samples.MnistSamples(tmp_path / "results", tmp_path / "results.md")


def test_samples_and_real_images_are_judged_and_shown(table, tmp_path):
    real = list(table.anchors())
    judge = tmp_path / "judge" / "run.json"
    written = judge.stat().st_mtime_ns
    for row in real:
        table.store(row)
    todo = table.missing()
    assert todo == [(*run, 0) for run in RUNS]
    for run in todo:
        table.store(table.measure(run))
    assert table.missing() == [] and judge.stat().st_mtime_ns == written  # trained once
    rows = {row["who"]: row for row in table.stored()}
    assert [row["recipe"] or row["who"] for row in table.stored() if row["right_class"]] == [
        "mnist", "mnist-classes", "test images", "train images"]  # the first is that of cgan

    network = metrics.network(str(tmp_path / "judge"))
    train, test = (data.load("idx", split, tmp_path / "own") for split in ("train", "test"))
    column = metrics.against(replace(train, x=train.x[:40], y=train.y[:40]), network)(test.x[:30], 256, test.y[:30])
    sure = (network(test.x[:30], 256)[1].softmax(1).max(1).values > 0.9).double().mean()
    row = rows["test images"]
    assert row["fid"] == f"{column['fid']:.4f}" and row["good"] == f"{sure:.4f}"
    assert row["right_class"] == f"{column['accuracy'][0]:.4f}"
    assert row["nearest"] == f"{metrics.nearest(train.x, test.x[:30])[1].median():.4f}"
    assert rows["train images"]["nearest"] == ""  # their nearest train images are themselves

    table.write()
    text = table.document.read_text()
    assert text.startswith("before\n<!-- mnist-samples -->\n\n| 256 levels | good |") and text.endswith("-->\nafter\n")
    assert "old" not in text and "| test images | " in text and "(mnist/test images" not in text
    for (name, recipe), sheet in zip(RUNS, ("gan", "cgan", "diffusion", "diffusion-classes"), strict=True):
        assert f"| `{name}` ({recipe}) | " in text and f"(mnist/{sheet}-nearest.png)" in text
        pixels = np.asarray(Image.open(tmp_path / "mnist" / f"{sheet}-nearest.png").convert("L"))
        assert pixels.shape == (4 * 9 - 1, 3 * 9 - 1)  # two rows of samples, each over one of train images


def test_the_sheet_shows_the_nearest_train_image_below_each_sample(table, tmp_path):
    table.measure(("gan", "mnist", 0))
    pixels = 255 - np.asarray(Image.open(tmp_path / "mnist" / "gan-nearest.png").convert("L")).astype(int)
    shown = torch.from_numpy(pixels[9:17, :8])  # below the first sample, in 16 greys
    off = (data.load("idx", "train", tmp_path / "own").x.double() - shown).abs().mean((1, 2)).sort().values
    assert off[0] <= 8 and off[1] > 60  # a grey of 16 is off by at most half a step on average, another image by 85


def test_without_the_folder_it_says_what_to_set(table, monkeypatch):
    monkeypatch.delenv(table_mnist.FOLDER)
    with pytest.raises(ValueError, match="GENMINI_MNIST10K is not set"):
        table.measure(("gan", "mnist", 0))
