"""Tests that losses, log p, samples and features of every recipe are those of golden.json, so that no change of them
goes unnoticed."""

import json

import pytest
from golden import STORED, cases, features, values

GOLDEN = json.loads(STORED.read_text())


@pytest.mark.parametrize("name, recipe", cases())
def test_a_recipe_gives_what_it_gave(name, recipe):
    stored, now = GOLDEN[f"{name} {recipe}"], values(name, recipe)
    for what in ("losses", "valid"):  # another processor rounds otherwise, and a few steps make more of it
        assert now[what] == pytest.approx(stored[what], rel=2e-3, abs=2e-3), what
    if now["losses"] == stored["losses"]:  # to the bit: then the samples, too
        assert now.get("samples") == stored.get("samples")


def test_no_recipe_is_forgotten():
    assert GOLDEN.keys() == {"digits-v1", *(" ".join(case) for case in cases())}


def test_the_features_that_judge_samples_stay():
    now, stored = features(), GOLDEN["digits-v1"]
    assert now["mean"] == pytest.approx(stored["mean"], rel=1e-5, abs=1e-6)
    assert now["digest"] == stored["digest"] or now["mean"] != stored["mean"]
