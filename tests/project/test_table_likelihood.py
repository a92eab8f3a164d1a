"""Tests of the table of likelihoods: its anchors are computed as they are described, what is stored is not measured
again, and docs/results.md shows what is stored."""

import math
import sys
import zlib

import measure
import pytest
import table_likelihood
import torch
from trained import SETS

from genmini import data, models


@pytest.fixture
def recipes(only_these):
    """Two models of one quick recipe, and one of other data; a commit that is not dirty, whatever this checkout is."""
    quick = lambda rate: {"digits": dict(data="digits-threshold", model=dict(),
                                         train=dict(steps=2, every=2, rate=rate))}
    recipes = {"fvsbn": quick(0.01), "nade": quick(0.02), "realnvp": {"moons": dict(data="moons", model={}, train={})}}
    return only_these(recipes)


@pytest.fixture
def table(tmp_path):
    """The table, with results and a document of the test's own."""
    (tmp_path / "results.md").write_text("before\n<!-- likelihood -->\nold\n<!-- /likelihood -->\nafter\n")
    return table_likelihood.Likelihood(tmp_path / "results", tmp_path / "results.md")


def test_the_histogram_is_the_best_of_independent_pixels():
    """The anchor beats a histogram without valid's help; no other independent pixels beat it on test by more than they
    fit test itself."""
    splits = [data.load("digits", split) for split in data.SPLITS]
    nats, error = table_likelihood.histogram(*splits)
    x = splits[2].x.flatten(1).long()
    of = lambda p: -p.gather(1, x.T).log().sum(0)
    counts = torch.nn.functional.one_hot(splits[0].x.flatten(1).long(), 17).double().sum(0)
    smooth = counts + 1
    assert nats <= of(smooth / smooth.sum(1, keepdim=True)).mean() + 0.5 and 0.3 < error < 0.7
    own = torch.nn.functional.one_hot(x, 17).double().mean(0)
    assert of(own).mean() < nats < 17 * 64


def test_compressors_are_counted_in_bits(table):
    rows = {(row["data"], row["who"]): row for row in table.anchors()}
    x = data.load("digits", "test").x.numpy()
    zipped = 8 * len(zlib.compress(x.tobytes(), 9)) / x.size
    assert float(rows["digits", "zlib, the test images alone"]["bits_per_dim"]) == pytest.approx(zipped, abs=0.51e-4)
    assert (float(rows["digits", "zlib, the test images alone"]["nats"])
            == pytest.approx(zipped * 64 * math.log(2), abs=0.51e-3))
    assert len(table_likelihood._packed(torch.ones(3, 8, 8, dtype=torch.uint8), 2)) == 3 * 8
    for name in SETS:  # a histogram is no worse than bytes, and train helps the compressor
        alone, after = (float(rows[name, f"lzma, {what}"]["nats"])
                        for what in ("the test images alone", "after the train images"))
        assert after < alone and float(rows[name, "histogram of each pixel"]["standard_error"]) > 0


def test_only_what_is_missing_is_measured(table, recipes):
    todo = table.missing()
    assert todo == [(name, "digits", seed) for name in ("fvsbn", "nade") for seed in range(3)]
    for run in todo[:4]:
        table.store(table.measure(run))
    assert table.missing() == todo[4:] and table.missing(["fvsbn"]) == []
    recipes["fvsbn"]["digits"]["train"]["rate"] = 0.03  # other settings: measured anew, in place of the old rows
    assert table.missing(["fvsbn"]) == todo[:3]
    table.store(table.measure(todo[0]))
    assert table.missing(["fvsbn"]) == todo[1:3] and len(table.stored()) == 4


def test_a_row_of_uncommitted_code_is_marked_and_measured_again(table, recipes, monkeypatch):
    monkeypatch.setattr(measure, "commit", lambda: "abc1234-dirty")
    todo = table.missing()
    for run in todo[:2]:
        table.store(table.measure(run))
    assert table.missing() == todo and len(table.stored()) == 2
    again = "rows were measured while the code had uncommitted changes;\n`make table-likelihood` measures them again"
    table.write()
    assert f"2 of the 2 {again}" in table.document.read_text()
    monkeypatch.setattr(measure, "commit", lambda: "abc1234")
    table.store(table.measure(todo[0]))
    table.write()
    assert table.missing() == todo[1:] and f"1 of the 2 {again}" in table.document.read_text()
    table.store(table.measure(todo[1]))
    table.write()
    assert "uncommitted" not in table.document.read_text()


def test_nothing_is_measured_while_code_has_uncommitted_changes(table, recipes, monkeypatch, capsys):
    monkeypatch.setattr(measure, "changed", lambda: ["genmini/train.py"])
    monkeypatch.setattr(sys, "argv", ["table_likelihood.py"])
    with pytest.raises(SystemExit) as ended:
        table.main()
    assert ended.value.code == 2 and "uncommitted changes (genmini/train.py): commit them" in capsys.readouterr().err
    assert table.stored() == []
    monkeypatch.setattr(sys, "argv", ["table_likelihood.py", "--write"])
    table.main()  # what is stored can be shown all the same
    assert "| 17 levels | nats |" in table.document.read_text()


def test_a_short_training_has_the_order_of_the_table(table, monkeypatch):
    """300 steps of the binary recipes: NADE before MADE before FVSBN, each better than independent pixels."""
    recipes = models.recipes
    monkeypatch.setattr(models, "recipes",
                        lambda name: {key: recipe | {"train": recipe["train"] | dict(steps=300, every=300)}
                                      for key, recipe in recipes(name).items()})
    threads = torch.get_num_threads()
    try:
        nade, made, fvsbn = (float(table.measure((name, "digits", 0))["nats"]) for name in ("nade", "made", "fvsbn"))
    finally:
        torch.set_num_threads(threads)
    independent, _ = table_likelihood.histogram(*(data.load("digits-threshold", split) for split in data.SPLITS))
    assert 15 < nade < made < fvsbn < independent


def test_the_document_shows_mean_and_deviation_best_first(table, recipes):
    row = dict(data="digits-threshold", recipe="digits", bound="", parameters=1234, cpu_seconds="10", commit="abc")
    for who, each in (("fvsbn", (20.0, 21.0, 22.0)), ("nade", (17.0, 17.5))):
        for seed, nats in enumerate(each):
            row |= {"settings": table.settings(who, "digits")}
            table.store({**row, "who": who, "seed": seed, "nats": nats, "bits_per_dim": nats / 44.36})
    table.store({**row, "who": "nade", "seed": 2, "nats": 9, "bits_per_dim": 9,
                 "settings": "of a recipe that is no more"})
    for anchor in table.anchors():
        table.store(anchor)
    table.write()
    text = table.document.read_text()
    assert (text.startswith("before\n<!-- likelihood -->\n") and text.endswith("<!-- /likelihood -->\nafter\n")
            and "old" not in text)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    binary = lines[[line.startswith("| binary") for line in lines].index(True) + 1 :]
    assert binary[0] == "| `nade`, 2 seeds | 17.25 ± 0.35 | 0.389 ± 0.008 | 1,234 | 10 |"
    assert binary[1] == "| `fvsbn` | 21.00 ± 1.00 | 0.473 ± 0.023 | 1,234 | 10 |"
    nats = [float(line.split("|")[2].split("±")[0]) for line in binary]
    assert nats == sorted(nats) and "histogram of each pixel" in text and "zlib" in text
    table.write()
    assert table.document.read_text() == text


def test_the_text_says_that_mixture_and_softmax_differ_in_more_than_the_output():
    """By how much the mixture is better, as stored, and the rates and steps of both recipes"""
    table = table_likelihood.Likelihood()
    text, recipes = " ".join(table.document.read_text().split()), models.recipes("pixelcnn")
    nats = {key: [float(row["nats"]) for row in table.of_today() if (row["who"], row["recipe"]) == ("pixelcnn", key)]
            for key in ("digits-levels", "digits-mixture")}
    softmax, mixture = (sum(each) / 3 for each in nats.values())
    assert all(len(each) == 3 for each in nats.values())
    assert f"The logistic mixture is better than the softmax by {softmax - mixture:.1f} nats." in text
    assert "the two recipes differ in more than the output" in text
    rate = lambda key: f"{recipes[key]['train']['rate']:.0e}".replace("e-0", "e-")
    steps = lambda key: recipes[key]["train"]["steps"]
    assert (f"the mixture learns at a rate of {rate('digits-mixture')} for {steps('digits-mixture')} steps, "
            f"the softmax at {rate('digits-levels')} for {steps('digits-levels')}") in text
    assert f"So the {softmax - mixture:.1f} nats are those of output and training together." in text
