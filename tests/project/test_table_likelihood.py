"""Tests of the table of likelihoods: its anchors are computed as they are described, what is stored is not measured
again, and docs/results.md shows what is stored."""

import math
import sys
import zlib
from pathlib import Path

import pytest
import torch

from genmini import data, models

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))
import table_likelihood as table  # noqa: E402


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Results and a document of the test's own, two models of one quick recipe."""
    document = tmp_path / "results.md"
    document.write_text("before\n<!-- likelihood -->\nold\n<!-- /likelihood -->\nafter\n")
    monkeypatch.setattr(table, "CSV", tmp_path / "results" / "likelihood.csv")
    monkeypatch.setattr(table, "DOCUMENT", document)
    quick = lambda rate: {"digits": dict(data="digits-threshold", model=dict(),
                                         train=dict(steps=2, every=2, rate=rate))}
    recipes = {"fvsbn": quick(0.01), "nade": quick(0.02), "realnvp": {"moons": dict(data="moons", model={}, train={})}}
    monkeypatch.setattr(models, "MODELS", tuple(recipes))
    monkeypatch.setattr(models, "recipes", lambda name: recipes[name])
    return recipes


def test_the_histogram_is_the_best_of_independent_pixels():
    """The anchor beats a histogram without valid's help; no other independent pixels beat it on test by more than they
    fit test itself."""
    splits = [data.load("digits", split) for split in data.SPLITS]
    nats, error = table.histogram(*splits)
    x = splits[2].x.flatten(1).long()
    of = lambda p: -p.gather(1, x.T).log().sum(0)
    counts = torch.nn.functional.one_hot(splits[0].x.flatten(1).long(), 17).double().sum(0)
    smooth = counts + 1
    assert nats <= of(smooth / smooth.sum(1, keepdim=True)).mean() + 0.5 and 0.3 < error < 0.7
    own = torch.nn.functional.one_hot(x, 17).double().mean(0)
    assert of(own).mean() < nats < 17 * 64


def test_compressors_are_counted_in_bits():
    rows = {(row["data"], row["who"]): row for row in table.anchors()}
    x = data.load("digits", "test").x.numpy()
    zipped = 8 * len(zlib.compress(x.tobytes(), 9)) / x.size
    assert float(rows["digits", "zlib, the test images alone"]["bits_per_dim"]) == pytest.approx(zipped, abs=1e-4)
    assert (float(rows["digits", "zlib, the test images alone"]["nats"])
            == pytest.approx(zipped * 64 * math.log(2), abs=1e-3))
    assert len(table._packed(torch.ones(3, 8, 8, dtype=torch.uint8), 2)) == 3 * 8
    for name in table.SETS:  # a histogram is no worse than bytes, and train helps the compressor
        alone, after = (float(rows[name, f"lzma, {what}"]["nats"])
                        for what in ("the test images alone", "after the train images"))
        assert after < alone and float(rows[name, "histogram of each pixel"]["standard_error"]) > 0


def test_only_what_is_missing_is_measured(elsewhere):
    todo = table.missing()
    assert todo == [(name, "digits", seed) for name in ("fvsbn", "nade") for seed in range(3)]
    threads = torch.get_num_threads()
    try:
        for run in todo[:4]:
            table.store(table.measure(run))
    finally:
        torch.set_num_threads(threads)
    assert table.missing() == todo[4:] and table.missing(["fvsbn"]) == []
    elsewhere["fvsbn"]["digits"]["train"]["rate"] = 0.03  # other settings: measured anew, in place of the old rows
    assert table.missing(["fvsbn"]) == todo[:3]
    table.store(table.measure(todo[0]))
    torch.set_num_threads(threads)
    assert table.missing(["fvsbn"]) == todo[1:3] and len(table.stored()) == 4


def test_a_short_training_has_the_order_of_the_table(monkeypatch):
    """300 steps of the binary recipes: NADE before MADE before FVSBN, each better than independent pixels."""
    recipes = models.recipes
    monkeypatch.setattr(models, "recipes",
                        lambda name: {key: recipe | {"train": recipe["train"] | dict(steps=300, every=300)}
                                      for key, recipe in recipes(name).items()})  # fmt: skip
    threads = torch.get_num_threads()
    try:
        nade, made, fvsbn = (float(table.measure((name, "digits", 0))["nats"]) for name in ("nade", "made", "fvsbn"))
    finally:
        torch.set_num_threads(threads)
    independent, _ = table.histogram(*(data.load("digits-threshold", split) for split in data.SPLITS))
    assert 15 < nade < made < fvsbn < independent


def test_readme_shows_mean_and_deviation_best_first(elsewhere):
    row = dict(data="digits-threshold", recipe="digits", bound="", parameters=1234, cpu_seconds="10")
    for who, each in (("fvsbn", (20.0, 21.0, 22.0)), ("nade", (17.0, 17.5))):
        for seed, nats in enumerate(each):
            row |= {"settings": table.settings(who, "digits")}
            table.store({**row, "who": who, "seed": seed, "nats": nats, "bits_per_dim": nats / 44.36})
    table.store({**row, "who": "nade", "seed": 2, "nats": 9, "bits_per_dim": 9,
                 "settings": "of a recipe that is no more"})
    for anchor in table.anchors():
        table.store(anchor)
    table.document()
    text = table.DOCUMENT.read_text()
    assert (text.startswith("before\n<!-- likelihood -->\n") and text.endswith("<!-- /likelihood -->\nafter\n")
            and "old" not in text)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    binary = lines[[line.startswith("| binary") for line in lines].index(True) + 1 :]
    assert binary[0] == "| `nade`, 2 seeds | 17.25 ± 0.35 | 0.389 ± 0.008 | 1,234 | 10 |"
    assert binary[1] == "| `fvsbn` | 21.00 ± 1.00 | 0.473 ± 0.023 | 1,234 | 10 |"
    nats = [float(line.split("|")[2].split("±")[0]) for line in binary]
    assert nats == sorted(nats) and "histogram of each pixel" in text and "zlib" in text
    table.document()
    assert table.DOCUMENT.read_text() == text
