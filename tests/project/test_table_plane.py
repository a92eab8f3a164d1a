"""Tests of the table of the plane: its figures are those of `genmini eval`; docs/results.md shows what is stored."""

import itertools
import sys
import types
from dataclasses import replace

import pytest
import table_plane
import torch
from peers import zuko_nsf
from torch import nn
from trained import train

from genmini import experiment

QUICK = dict(steps=2, every=2, rate=0.01)


@pytest.fixture
def table(tmp_path, only_these):
    """The table with quick recipes, and results and a document of the test's own."""
    quick = lambda toy, **model: dict(data=toy, model=dict(hidden=(4,), **model), train=QUICK)
    flows = {name: {toy + end: quick(toy, **depth, **how) for toy in table_plane.Plane.sets
                    for end, how in (("", {}), ("-spline", dict(coupling="spline")))}
             for name, depth in (("realnvp", dict(couplings=2)), ("maf", dict(layers=2)))}
    only_these(flows | {"rnade": {toy: quick(toy, components=2) for toy in table_plane.Plane.sets}})
    (tmp_path / "results.md").write_text("before\n<!-- plane -->\nold\n<!-- /plane -->\nafter\n")
    return table_plane.Plane(tmp_path / "results", tmp_path / "results.md")


@pytest.mark.parametrize(("name", "recipe", "runs"), [("realnvp", "rings-spline", 10), ("maf", "rings-spline", 10),
                                                      ("rnade", "rings", 5)])
def test_a_row_has_the_figures_of_eval(table, name, recipe, runs):
    run = (name, recipe, 0)
    assert len(table.missing()) == 30 and len(table.missing([name])) == runs and run in table.missing()
    row = table.measure(run)
    trained = train(*run)
    found = {figure.name or "nats": figure.mean for figure in experiment.figures(trained.model, trained.splits["test"])}
    assert float(row["nats"]) == pytest.approx(found["nats"], abs=0.51e-4)
    assert float(row["truth"]) == pytest.approx(found["truth"], abs=0.51e-4)
    assert float(row["behind"]) == pytest.approx(found["nats"] - found["truth"], abs=0.51e-4)
    table.store(row)
    assert run not in table.missing() and len(table.missing()) == 29


class Normal(nn.Module):
    """What zuko's flow is called with and answers, for a test without zuko: N(m, 1) of all numbers"""

    built = []

    def __init__(self, features, **sizes):
        super().__init__()
        self.m = nn.Parameter(torch.zeros(features))
        self.built.append(sizes)

    def forward(self):
        return torch.distributions.Independent(torch.distributions.Normal(self.m, 1), 1)


def test_a_peer_has_the_sizes_of_our_recipe_and_takes_its_seconds(table, monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko", types.SimpleNamespace(flows=types.SimpleNamespace(NSF=Normal)))
    monkeypatch.setattr(Normal, "built", [])
    monkeypatch.setattr(zuko_nsf, "FIRST", 4)
    monkeypatch.setattr(zuko_nsf, "train", lambda *run: replace(train(*run), seconds=6.0))
    clock = itertools.count()
    monkeypatch.setattr(zuko_nsf, "time", types.SimpleNamespace(process_time=lambda: 2.0 * next(clock)))
    plans = []
    monkeypatch.setattr(experiment, "train", lambda plan, *args, of=experiment.train, **how: (
        plans.append(plan), of(plan, *args, **how))[1])
    row = table.measure(("zuko", "rings-spline", 0))
    assert Normal.built == [dict(transforms=2, hidden_features=(4,), bins=8)] * 2
    assert [plan.loops[0]["steps"] for plan in plans] == [2, 4, 12]  # ours; 4 that take 2 seconds; those of 6
    assert (row["who"], row["cpu_seconds"]) == ("zuko", "2.0")
    table.store(row)
    assert len(table.missing()) == 29 and not table.missing(["zuko"])[4:]


def test_the_document_has_a_line_for_each_model_on_a_density(table):
    row = dict.fromkeys(table.columns, "") | dict(data="moons", seed=0, truth="0.9900", error="0.0012")
    for name, key, nats in (("realnvp", "moons", 1.3), ("realnvp", "moons-spline", 1.0), ("maf", "moons", 1.5),
                             ("rnade", "moons", 1.1)):
        table.store(row | dict(who=name, recipe=key, settings=table.settings(name, key), nats=nats, behind=nats - 0.99,
                               cpu_seconds=nats * 40))
    table.write()
    text = table.document.read_text()
    lines = [line for line in text.splitlines() if line.startswith("| moons")]
    assert lines == ["| moons | 0.990 | RealNVP, splines | 1.000 | 0.010 ± 0.001 | 40 |",
                     "| moons | 0.990 | RealNVP, affine | 1.300 | 0.310 ± 0.001 | 52 |",
                     "| moons | 0.990 | MAF, affine | 1.500 | 0.510 ± 0.001 | 60 |",
                     "| moons | 0.990 | RNADE, mixtures | 1.100 | 0.110 ± 0.001 | 44 |"]
    assert text.startswith("before\n") and text.endswith("after\n")


def test_the_table_of_the_project_is_that_of_its_rows(tmp_path):
    stored = table_plane.Plane()
    copy = table_plane.Plane(stored.csv.parent, tmp_path / "results.md")
    copy.document.write_text(stored.document.read_text())
    copy.write()
    assert copy.document.read_text() == stored.document.read_text()
    assert {row["data"] for row in stored.of_today() if row["recipe"].endswith("-spline")} == set(stored.sets)
    assert {row["data"] for row in stored.of_today() if row["who"] == "rnade"} == set(stored.sets)
