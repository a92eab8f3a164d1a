"""Mode collapse, counted: on samples whose modes are known, and in the metrics of a training."""

import math

import pytest
import torch

from genmini import data, experiment, metrics
from genmini.metrics import coverage

CENTRES = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)


def test_a_mode_is_covered_by_a_tenth_of_its_even_share_of_good_samples():
    """Of 600 samples and 3 modes: 20 good ones cover a mode, 19 do not."""
    mode = torch.tensor([0] * 500 + [1] * 20 + [2] * 80)
    good = torch.ones(600, dtype=torch.bool)
    assert coverage.count(mode, good, 3) == {"modes": 3, "missing": 0, "good": 1.0}
    good[:100], good[500] = False, False
    assert coverage.count(mode, good, 3) == {"modes": 2, "missing": 1, "good": pytest.approx(499 / 600)}
    assert coverage.count(mode, ~good, 4)["modes"] == 1
    assert coverage.count(mode, torch.zeros(600, dtype=torch.bool), 3) == {"modes": 0, "missing": 3, "good": 0.0}
    with pytest.raises(ValueError, match="must have one shape"):
        coverage.count(mode, good[:-1], 3)


def test_points_are_good_within_three_sigma_of_their_centre():
    x = torch.tensor([[0.0, 0.29], [0.9, 0.0], [0.5, 0.1], [0.0, 1.31]])
    mode, good = coverage.of_points(x, CENTRES, 0.1)
    assert good.tolist() == [True, True, False, False] and mode[[0, 1, 3]].tolist() == [0, 1, 2]


def test_images_are_good_if_the_classifier_is_sure():
    p = torch.tensor([[0.95, 0.05], [0.05, 0.95], [0.8, 0.2]], dtype=torch.float64)
    mode, good = coverage.of_images(p.log())
    assert mode.tolist() == [0, 1, 0] and good.tolist() == [True, True, False]


@pytest.mark.parametrize("name", ["gaussians", "lattice"])
def test_of_the_data_as_many_points_are_good_as_a_gaussian_has_within_three_sigma(name):
    toy, test = data.toys.TOYS[name], data.load(name, "test")
    found = coverage.count(*coverage.of_points(test.x, torch.from_numpy(toy.centres), toy.sigma), toy.K)
    share = 1 - math.exp(-4.5)
    assert (found["modes"], found["missing"]) == (toy.K, 0)
    assert abs(found["good"] - share) < 5 * math.sqrt(share * (1 - share) / len(test))


class Draws:
    """Samples from a split, as a model."""

    device, classes = torch.device("cpu"), 0

    def __init__(self, x):
        self.x = x

    def sample(self, n):
        return self.x[torch.randint(len(self.x), (n,))]


def test_what_a_training_measures_tells_collapsed_samples_from_others():
    for name, K in (("gaussians", 8), ("digits", 10)):
        train, valid = data.load(name, "train"), data.load(name, "valid")
        of = metrics.measure(valid, n=300)
        well, badly = of(Draws(train.x)), of(Draws(train.x[train.y == 3]))
        assert (well["modes"], well["missing"]) == (K, 0) and (badly["modes"], badly["missing"]) == (1, K - 1)
        assert min(well["good"], badly["good"]) > 0.9
        if name == "digits":
            assert well["fid"] < 20 < 200 < badly["fid"]
        before = torch.get_rng_state()
        assert of(Draws(train.x)) == well and torch.equal(torch.get_rng_state(), before)
    assert metrics.measure(data.load("moons", "valid"))(Draws(None)) == {}


def test_modes_stand_in_the_metrics_of_a_gan_and_of_no_other():
    for model, expected in (("gan", {"modes", "missing", "good", "accuracy"}), ("realnvp", set())):
        plan = experiment.plan(model, "gaussians", steps=2, assignments=["every=1", "hidden=4"])
        splits = experiment.splits(plan)
        history = experiment.train(plan, experiment.build(plan, splits["train"]), splits, progress=False)
        assert all(row.keys() & {"modes", "missing", "good", "accuracy", "fid"} == expected for row in history.rows)
