"""Tests of the table of samples: one training gives a row for each way of drawing, the figures are those of
`genmini score`, and docs/results.md shows them beside real images of the same number."""

import contextlib
from types import SimpleNamespace

import measure
import pytest
import table_samples
import trained
from trained import train

from genmini import data, experiment, metrics

QUICK = dict(steps=2, every=2, rate=0.01)
UNET = dict(width=8, multiples=(1,), blocks=1, attention=0)


@pytest.fixture
def table(tmp_path, monkeypatch, only_these):
    """The table with quick recipes, few samples, and results and a document of the test's own."""
    recipes = {
        "nade": {"digits-levels": dict(data="digits", model=dict(hidden=4), train=QUICK),
                 "digits": dict(data="digits-threshold", model=dict(hidden=4), train=QUICK)},
        "diffusion": {"digits-classes": dict(data="digits", model=dict(UNET, classes=10), train=QUICK)},
        "classifier": {"digits": dict(data="digits", model=dict(width=2), train=QUICK)},
    }
    only_these(recipes)
    for name, value in dict(FEW=20, MANY=30, STEPS=(1, 2)).items():
        monkeypatch.setattr(table_samples, name, value)
    monkeypatch.setattr(table_samples, "_samplers", lambda: ("ddim", "heun"))
    (tmp_path / "results.md").write_text("before\n<!-- samples -->\nold\n<!-- /samples -->\nafter\n")
    table = table_samples.Samples(tmp_path / "results", tmp_path / "results.md")
    table.figures = [name.replace("1000", "30") for name in table.figures]
    return table


def test_a_row_for_each_way_of_drawing_and_its_figures_are_those_of_score(table):
    todo = table.missing()
    assert todo == [(*run, seed) for run in (("nade", "digits-levels"), ("diffusion", "digits-classes"))
                    for seed in range(3)]
    rows = {run[0]: table.rows(run) for run in todo[::3]}
    assert [row["how"] for row in rows["nade"]] == [""]
    assert [row["how"] for row in rows["diffusion"]] == ["", "ddim 1", "ddim 2", "heun 1", "heun 2"]
    for name, key in (("nade", "digits-levels"), ("diffusion", "digits-classes")):
        trained = train(name, key, 0)
        splits = experiment.splits(trained.plan, None)
        judge = metrics.score(trained.model, metrics.network(), splits["train"], splits["test"], n=20)["samples"]
        row = rows[name][0]
        assert row["fid"] == f"{judge['fid']:.4f}" and row["kid"] == f"{judge['kid'][0]:.4f}"
        assert row["nearest"] == f"{judge['nearest']:.4f}" and row["recall"] == f"{judge['recall']:.4f}"
        assert row["right_class"] == (f"{judge['accuracy'][0]:.4f}" if name == "diffusion" else "")
        assert row["fid_30"] != row["fid"] and float(row["ms_a_sample"]) > 0
    ways = {row["how"]: row["fid"] for row in rows["diffusion"]}
    assert ways["ddim 1"] == ways["heun 1"] != ways["ddim 2"]  # heun's last step is ddim's


def test_the_document_shows_models_beside_real_images_and_samplers_by_steps(table):
    for row in table.anchors():
        table.store(row)
    for run in table.missing():
        if run[2] < 2:
            for row in table.rows(run):
                table.store(row)
    assert table.missing() == [("nade", "digits-levels", 2), ("diffusion", "digits-classes", 2)]
    table.write()
    text = table.document.read_text()
    assert text.startswith("before\n<!-- samples -->\n\n| 17 levels | FID, n = 20 |") and text.endswith("-->\nafter\n")
    lines = text.splitlines()
    test = data.load("digits", "test")
    judged = metrics.against(data.load("digits", "train"), metrics.network())(test.x[:20], 17, test.y[:20])
    (real,) = (line for line in lines if line.startswith("| test images |"))
    assert real.startswith(f"| test images | {judged['fid']:.1f} |  |")  # n = 30 is not shown of test
    models_ = [line for line in lines if "2 seeds" in line]
    assert len(models_) == 2 and all(" ± " in line for line in models_)
    assert "| `diffusion` (digits-classes), FID, n = 20 | 1 steps | 2 steps |" in text and "| heun | " in text


def test_the_command_prints_a_line_for_each_way_of_drawing(table, monkeypatch, capsys):
    here = SimpleNamespace(imap_unordered=map)
    pool = SimpleNamespace(Pool=lambda jobs, **_: contextlib.nullcontext(here))  # this process in place of two
    monkeypatch.setattr(trained.multiprocessing, "get_context", lambda _: pool)
    monkeypatch.setattr(measure, "changed", lambda: [])
    monkeypatch.setattr("sys.argv", ["table_samples.py", "--only", "diffusion"])
    table.main()
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "3 runs to do, 2 at a time" and len(lines) == 3 * 5
    assert [line.split("  ")[4] for line in lines[:5]] == ["", "ddim 1", "ddim 2", "heun 1", "heun 2"]
    assert len(table.stored()) == 3 * 5 + 3 and table.missing() == [("nade", "digits-levels", n) for n in range(3)]
