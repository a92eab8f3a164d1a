"""The table of MNIST: a set in its format is trained on, judged and drawn; docs/results.md shows what is stored."""

import csv

import numpy as np
import pytest
import table_mnist
import torch
from PIL import Image
from test_data_idx import labelled, lay

from genmini import data

COLUMNS = ["data", "who", "recipe", "seed", "nats", "bits_per_dim", "standard_error", "figure", "valid", "parameters",
           "step", "cpu_seconds", "settings", "torch", "commit"]


@pytest.fixture
def recipes(tmp_path, monkeypatch, folder_of_its_own, only_these):
    """Data of the test's own with three classes; models of one quick recipe; a commit that is not dirty."""
    lay(tmp_path / "own", labelled(60, shape=(8, 8)), labelled(70, seed=1, shape=(8, 8)))
    monkeypatch.setenv(table_mnist.FOLDER, str(tmp_path / "own"))
    quick = lambda data, **model: {"mnist": dict(data=data, model=model, train=dict(steps=2, every=2, batch=8))}
    recipes = {"nade": quick("mnist-dynamic", hidden=4), "vae": quick("mnist-dynamic", hidden=4, latent=2),
               "cvae": quick("mnist-dynamic", hidden=4, latent=2, classes=3),
               "realnvp": quick("mnist", couplings=1, width=4, blocks=1), "classifier": quick("mnist")}
    recipes["realnvp"] |= {"mnist-few": recipes["realnvp"]["mnist"]}
    return only_these(recipes)


@pytest.fixture
def table(tmp_path):
    """The table, with results and a document of the test's own."""
    (tmp_path / "results.md").write_text("before\n<!-- mnist -->\nold\n<!-- /mnist -->\nafter\n")
    table = table_mnist.Mnist(tmp_path / "results", tmp_path / "results.md")
    table.draws = 6
    return table


def test_what_is_missing_is_measured_and_shown(table, recipes, tmp_path):
    todo = table.missing()
    few = ("realnvp", "mnist-few", 0)
    assert todo == [*((name, "mnist", 0) for name in ("nade", "vae", "cvae", "realnvp")), few]
    rows = {"realnvp-few" if run == few else run[0]: table.measure(run) for run in todo}
    assert [rows[name]["data"] for name in rows] == ["idx-dynamic"] * 3 + ["idx"] * 2
    assert [rows[name]["figure"] for name in rows] == ["nll", "iwae-6", "iwae-6", "at most", "at most"]
    for row in rows.values():
        bits = float(row["nats"]) / 64 / np.log(2)
        assert float(row["bits_per_dim"]) == pytest.approx(bits, abs=0.51e-3)
        table.store(row)
    assert table.missing() == []
    table.write()
    text = table.document.read_text()
    assert text.startswith("before\n<!-- mnist -->\n") and text.endswith("<!-- /mnist -->\nafter\n")
    assert "old" not in text
    nats = float(rows["nade"]["nats"])
    assert f"| `nade` | {nats:.2f} ± " in text and "88.33 nats" in text
    assert "| `realnvp` | ≤ " in text and "| `realnvp-few` | ≤ " in text and ", IWAE-6 |" in text
    for name in ("idx-dynamic", "idx", *rows):
        assert f"(mnist/{name}.png)" in text and (tmp_path / "mnist" / f"{name}.png").stat().st_size < 60_000
    recipes["nade"]["mnist"]["model"]["hidden"] = 5  # other settings: the row is no longer shown, and measured again
    assert table.missing() == todo[:1]
    table.write()
    assert "`nade`" not in table.document.read_text()


def test_a_model_with_classes_has_both_likelihoods_and_is_ranked_without_the_label(table, recipes):
    """After two steps a label is worth little: log p(x|y) and log p(x) differ by less than log 3 and the noise of six
    draws. The ranks follow log p(x)."""
    row = table.measure(("cvae", "mnist", 0))
    given, without = float(row["nats_given_y"]), float(row["nats"])
    assert given != without and abs(given - without) < np.log(3) + 3 * float(row["standard_error"])
    assert 0 < float(row["error_given_y"]) < 5 and 0 < float(row["standard_error"]) < 5
    for who, nats, given in (("vae", 50, ""), ("cvae", 51, 48)):
        table.store(row | dict(who=who, nats=nats, nats_given_y=given, standard_error=0.25, error_given_y=0.5,
                               settings=table.settings(who, "mnist")))
    table.write()
    lines = [line for line in table.document.read_text().splitlines() if line.startswith("| `")]
    assert lines[0].startswith("| `vae` | ≤ 50.00 ± 0.25, IWAE-6 |  | ")
    assert lines[1].startswith("| `cvae` | ≤ 51.00 ± 0.25, IWAE-6 | ≤ 48.00 ± 0.50, IWAE-6 | ")


def test_rows_of_the_former_columns_are_read(table, recipes):
    """Before there was a column for log p(x|y), `nats` of a model with classes held it: such a row is shown as what it
    is, last, and is measured again."""
    row = dict(zip(COLUMNS, ["idx-dynamic", "", "mnist", "0", "89.7618", "0.1652", "0.2366", "iwae-100", "90.4987",
                             "785284", "10000", "151", "", "2.13.0+cpu", "67f680f"], strict=True))
    table.csv.parent.mkdir()
    with table.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for who in ("cvae", "vae"):
            writer.writerow(row | dict(who=who, settings=table.settings(who, "mnist")))
    assert [run[0] for run in table.missing()] == ["nade", "cvae", "realnvp", "realnvp"]
    table.write()
    lines = [line for line in table.document.read_text().splitlines() if line.startswith("| `")]
    assert lines[0].startswith("| `vae` | ≤ 89.76 ± 0.24, IWAE-100 |  | ≤ 0.165 | ")
    assert "| 785,284 | 151 |" in lines[0]
    assert lines[1].startswith("| `cvae` |  | ≤ 89.76 ± 0.24, IWAE-100 |  | ")
    table.store(row | dict(who="nade", figure="nll", settings=table.settings("nade", "mnist")))
    assert [run[0] for run in table.missing()] == ["cvae", "realnvp", "realnvp"] and len(table.stored()) == 3


def test_a_picture_is_small_and_exact(tmp_path):
    x = data.load("digits-threshold", "test").x[:64]
    table_mnist.picture(tmp_path / "p.png", x, 2)
    pixels = np.asarray(Image.open(tmp_path / "p.png"))
    assert pixels.shape == (71, 71) and torch.equal(torch.from_numpy(~pixels[:8, :8]), x[0].bool())
    assert torch.equal(torch.from_numpy(~pixels[63:, 63:]), x[63].bool()) and (tmp_path / "p.png").stat().st_size < 2000


def test_without_the_folder_it_says_what_to_set(table, recipes, monkeypatch):
    monkeypatch.delenv(table_mnist.FOLDER)
    with pytest.raises(ValueError, match="GENMINI_MNIST10K is not set"):
        table.measure(("nade", "mnist", 0))
