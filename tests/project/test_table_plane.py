"""Tests of the table of the plane: its figures are those of `genmini eval`; docs/results.md shows what is stored."""

import pytest
import table_plane
from trained import train

from genmini import experiment

QUICK = dict(steps=2, every=2, rate=0.01)


@pytest.fixture
def table(tmp_path, only_these):
    """The table with quick recipes, and results and a document of the test's own."""
    quick = lambda toy, **model: dict(data=toy, model=dict(hidden=(4,), **model), train=QUICK)
    only_these({name: {toy + end: quick(toy, **depth, **how) for toy in table_plane.Plane.sets
                       for end, how in (("", {}), (table_plane.SPLINE, dict(coupling="spline")))}
                for name, depth in (("realnvp", dict(couplings=2)), ("maf", dict(layers=2)))})
    (tmp_path / "results.md").write_text("before\n<!-- plane -->\nold\n<!-- /plane -->\nafter\n")
    return table_plane.Plane(tmp_path / "results", tmp_path / "results.md")


@pytest.mark.parametrize("name", table_plane.MODELS)
def test_a_row_has_the_figures_of_eval(table, name):
    run = (name, "rings-spline", 0)
    assert len(table.missing()) == 20 and len(table.missing([name])) == 10 and run in table.missing()
    row = table.measure(run)
    trained = train(*run)
    found = {figure.name or "nats": figure.mean for figure in experiment.figures(trained.model, trained.splits["test"])}
    assert float(row["nats"]) == pytest.approx(found["nats"], abs=1e-4)
    assert float(row["truth"]) == pytest.approx(found["truth"], abs=1e-4)
    assert float(row["behind"]) == pytest.approx(found["nats"] - found["truth"], abs=2e-4)
    table.store(row)
    assert run not in table.missing() and len(table.missing()) == 19


def test_the_document_shows_both_couplings_of_each_model(table):
    row = dict.fromkeys(table.columns, "") | dict(data="moons", seed=0, truth="0.9900", error="0.0012")
    for name, key, nats in (("realnvp", "moons", 1.3), ("realnvp", "moons-spline", 1.0), ("maf", "moons", 1.5)):
        table.store(row | dict(who=name, recipe=key, settings=table.settings(name, key), nats=nats, behind=nats - 0.99,
                               cpu_seconds=nats * 40))
    table.write()
    text = table.document.read_text()
    assert "| moons | 0.990 | RealNVP | 1.000 | 0.010 ± 0.001 | 40 | 1.300 | 0.310 ± 0.001 | 52 |" in text
    assert "| moons | 0.990 | MAF |  | |  | 1.500 | 0.510 ± 0.001 | 60 |" in text
    assert text.startswith("before\n") and text.endswith("after\n")


def test_the_table_of_the_project_is_that_of_its_rows(tmp_path):
    stored = table_plane.Plane()
    copy = table_plane.Plane(stored.csv.parent, tmp_path / "results.md")
    copy.document.write_text(stored.document.read_text())
    copy.write()
    assert copy.document.read_text() == stored.document.read_text()
    assert {row["data"] for row in stored.of_today() if row["recipe"].endswith("-spline")} == set(stored.sets)
