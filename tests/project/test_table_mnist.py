"""The table of MNIST: a set in its format is trained on, judged and drawn; docs/results.md shows what is stored."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_data_idx import lay, some

from genmini import data, models

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))
import table_mnist as table  # noqa: E402


@pytest.fixture
def elsewhere(tmp_path, monkeypatch, folder_of_its_own):
    """Data, results and a document of the test's own; three models of one quick recipe."""
    document = tmp_path / "results.md"
    document.write_text("before\n<!-- mnist -->\nold\n<!-- /mnist -->\nafter\n")
    monkeypatch.setattr(table, "CSV", tmp_path / "results" / "mnist.csv")
    monkeypatch.setattr(table, "DOCUMENT", document)
    monkeypatch.setattr(table, "PICTURES", tmp_path / "mnist")
    monkeypatch.setattr(table, "DRAWS", 2)
    lay(tmp_path / "own", some(60, shape=(8, 8)), some(70, seed=1, shape=(8, 8)))
    monkeypatch.setenv(table.FOLDER, str(tmp_path / "own"))
    quick = lambda data, **model: {"mnist": dict(data=data, model=model, train=dict(steps=2, every=2, batch=8))}
    recipes = {"nade": quick("mnist-dynamic", hidden=4), "vae": quick("mnist-dynamic", hidden=4, latent=2),
               "realnvp": quick("mnist", couplings=1, width=4, blocks=1), "classifier": quick("mnist")}  # fmt: skip
    monkeypatch.setattr(models, "MODELS", tuple(recipes))
    monkeypatch.setattr(models, "recipes", lambda name: recipes[name])
    return recipes


def test_what_is_missing_is_measured_and_shown(elsewhere, tmp_path):
    todo = table.missing()
    assert todo == [(name, "mnist", 0) for name in ("nade", "vae", "realnvp")]
    rows = {run[0]: table.measure(run) for run in todo}
    assert [rows[name]["data"] for name in rows] == ["idx-dynamic", "idx-dynamic", "idx"]
    assert [rows[name]["figure"] for name in rows] == ["nll", "iwae-2", "at most"]
    for row in rows.values():
        bits = float(row["nats"]) / 64 / np.log(2)
        assert float(row["bits_per_dim"]) == pytest.approx(bits, abs=1e-3)
        table.store(row)
    assert table.missing() == []
    table.document()
    text = table.DOCUMENT.read_text()
    assert text.startswith("before\n<!-- mnist -->\n") and text.endswith("<!-- /mnist -->\nafter\n")
    assert "old" not in text
    nats = float(rows["nade"]["nats"])
    assert f"| `nade` | {nats:.2f} ± " in text and "88.33 nats" in text
    assert "| `realnvp` | ≤ " in text and ", IWAE-2 |" in text
    for name in ("idx-dynamic", "idx", "nade", "vae", "realnvp"):
        assert f"(mnist/{name}.png)" in text and (tmp_path / "mnist" / f"{name}.png").stat().st_size < 60_000
    elsewhere["nade"]["mnist"]["model"]["hidden"] = 5  # other settings: the row is no longer shown, and measured again
    assert table.missing() == todo[:1]
    table.document()
    assert "`nade`" not in table.DOCUMENT.read_text()


def test_a_picture_is_small_and_exact(tmp_path):
    x = data.load("digits-threshold", "test").x[:64]
    table.picture(tmp_path / "p.png", x, 2)
    pixels = np.asarray(Image.open(tmp_path / "p.png"))
    assert pixels.shape == (71, 71) and torch.equal(torch.from_numpy(~pixels[:8, :8]), x[0].bool())
    assert torch.equal(torch.from_numpy(~pixels[63:, 63:]), x[63].bool()) and (tmp_path / "p.png").stat().st_size < 2000


def test_without_the_folder_it_says_what_to_set(elsewhere, monkeypatch):
    monkeypatch.delenv(table.FOLDER)
    with pytest.raises(ValueError, match="GENMINI_MNIST10K is not set"):
        table.measure(("nade", "mnist", 0))
