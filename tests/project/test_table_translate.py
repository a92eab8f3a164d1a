"""Tests of the table of translations: its figures are those of `genmini eval` and of the study, and docs/results.md
shows them above the true translations."""

import pytest
import table_translate
from trained import train

from genmini import data, experiment, metrics
from genmini.data import unpaired

QUICK = dict(steps=2, every=2, rate=0.01)


@pytest.fixture
def table(tmp_path, only_these):
    """The table with quick recipes, and results and a document of the test's own."""
    quick = lambda on, **model: dict(data=on, model=dict(width=2, blocks=0, pool=4, **model), train=QUICK)
    classifier = dict(data="digits-unpaired", model=dict(width=2, classes=2), train=QUICK)  # it translates nothing
    only_these({"cyclegan": {"digits": quick("digits-unpaired"), "digits-no-cycle": quick("digits-unpaired", cycle=0.0),
                             "colour": quick("images")}, "classifier": {"digits": classifier}})
    (tmp_path / "results.md").write_text("before\n<!-- translate -->\nold\n<!-- /translate -->\nafter\n")
    return table_translate.Translate(tmp_path / "results", tmp_path / "results.md")


def test_a_row_has_the_figures_of_eval_and_of_the_study(table):
    assert table.missing() == [("cyclegan", key, seed) for key in ("digits", "digits-no-cycle") for seed in range(3)]
    row = table.measure(("cyclegan", "digits", 1))
    trained = train("cyclegan", "digits", 1)
    model, test = trained.model, trained.splits["test"]
    found = {figure.name: figure.mean for figure in experiment.figures(model, test)}
    assert {name: row[name] for name in table_translate.FIGURES} == {
        name: f"{found[name]:.4f}" for name in table_translate.FIGURES}
    assert float(row["back"]) == pytest.approx(found["cycle"] * 8, abs=0.51e-4)  # v is 1/8 a level, of 16 levels
    assert row["data"] == "digits-unpaired" and int(row["parameters"]) == sum(p.numel() for p in model.parameters())
    table.store(row)
    assert ("cyclegan", "digits", 1) not in table.missing() and len(table.missing()) == 5


def test_the_true_translations_are_judged_as_those_of_a_model(table):
    (row,) = table.anchors()
    assert [row[f"{T} {what}"] for what in ("own", "off") for T in "FG"] == ["1.0000", "1.0000", "0.0000", "0.0000"]
    real = data.load("digits", "test")
    named = metrics.network()(real.x, 17)[1].argmax(1) == real.y
    assert row["F right"] == f"{named.double().mean():.4f}"
    undone = unpaired.undo(unpaired.change(real.x, 17), 17)
    named = metrics.network()(undone, 17)[1].argmax(1) == real.y
    assert row["G right"] == f"{named.double().mean():.4f}"
    text = " ".join(table_translate.Translate().document.read_text().split())
    F, G = (f"{float(row[f'{T} right']):.1%}" for T in "FG")
    assert f"of true translations it is {F} for F and {G} for G" in text


def test_the_document_shows_mean_and_deviation_the_nearest_first(table):
    row = dict.fromkeys(table.columns, "") | dict(data="digits-unpaired", who="cyclegan", parameters=1234,
                                                  cpu_seconds="50")
    row |= {name: "0.5" for name in table.figures}
    for key, seeds, off in (("digits", 3, 1.0), ("digits-no-cycle", 2, 0.4)):
        for seed in range(seeds):
            each = {"F right": 0.90 + 0.01 * seed, "F off": off + 0.1 * seed}
            table.store(row | each | dict(recipe=key, seed=seed, settings=table.settings("cyclegan", key)))
    table.store(row | dict(recipe="digits-no-cycle", seed=2, settings="of a recipe that is no more"))
    for anchor in table.anchors():
        table.store(anchor)
    table.write()
    text = table.document.read_text()
    assert text.startswith("before\n<!-- translate -->\n") and text.endswith("<!-- /translate -->\nafter\n")
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert lines[1] == ("| `cyclegan` (digits-no-cycle), 2 seeds | 90.5 ± 0.7 | 50.0 ± 0.0 | 50.0 ± 0.0 | "
                        "50.0 ± 0.0 | 0.45 ± 0.07 | 0.50 ± 0.00 | 0.50 ± 0.00 | 1,234 | 50 |")
    assert lines[2].startswith("| `cyclegan` (digits) | 91.0 ± 1.0 | 50.0 ± 0.0 |")
    assert lines[3].startswith("| true translations | 97.0 | 97.0 | 100.0 | 100.0 | 0.00 | 0.00 |  |  |  |")
    assert len(lines) == 4 and "old" not in text
