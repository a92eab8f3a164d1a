"""Tests of the panels in the picture of a run (genmini/models/_panels.py): data, reconstructions and samples, of a
conditional model one class a column."""

import dataclasses

import pytest
import torch
from check_models import small

from genmini import data
from genmini.train import judge


@pytest.fixture
def splits():
    return {split: data.load("digits-threshold", split) for split in data.SPLITS}


def test_panels_show_data_reconstructions_and_samples(splits):
    shown, columns = small("made")[0].panels(splits)
    assert (list(shown) == ["data (test)", "samples of MADE"] and columns == 8
            and all(len(x) == 64 for x in shown.values()))
    shown, columns = small("vae")[0].eval().panels(splits)
    assert list(shown) == ["data (train)", "reconstructed (train)", "data (test)", "reconstructed (test)",
                           "samples of VAE"]
    assert torch.equal(shown["data (test)"], splits["test"].x[:64]) and columns == 8
    model, _ = small("classifier")
    shown, _ = model.eval().panels(splits)
    loss = judge(model, splits["test"].x, splits["test"].y)
    hardest = shown["hardest for Classifier (test)"]
    assert torch.equal(hardest[0], splits["test"].x[loss.argmax()]) and len(hardest) == 64


def test_a_class_that_a_split_lacks_leaves_its_column_empty(splits):
    test = splits["test"]
    splits["test"] = dataclasses.replace(test, x=test.x[test.y != 3], y=test.y[test.y != 3])
    shown, columns = small("cvae")[0].eval().panels(splits)
    data_shown, back = (shown[name].unflatten(0, (8, columns)) for name in
                        ("data (test, classes 0 ... 9 by column)", "reconstructed (test)"))
    others = torch.arange(columns) != 3
    for x in (data_shown, back):
        assert x[:, 3].isnan().all() and not x[:, others].isnan().any()
    first = [int((splits["test"].y == k).nonzero()[0]) for k in range(10) if k != 3]
    assert torch.equal(data_shown[0, others], splits["test"].x[first].float())


def test_a_column_of_a_conditional_model_is_one_class(splits):
    (model, _), classes = small("cvae"), []
    decode, sample = model.decode, model.sample
    model.decode = lambda z, y=None: (classes.append(y.argmax(1) if y.dim() > 1 else y), decode(z, y))[1]
    model.sample = lambda n, y=None: (classes.append(y), sample(n, y=y))[1]
    shown, columns = model.eval().panels(splits)
    by_column = torch.arange(80) % 10
    assert columns == 10 and all(len(x) == 80 for x in shown.values())
    assert all(torch.equal(y, by_column) for y in classes)
    assert list(shown)[-1] == "samples of CVAE, classes 0 ... 9 by column" and len(classes) == 3
    test = splits["test"]
    first = [int((test.y == k).nonzero()[0]) for k in range(10)]
    assert torch.equal(shown["data (test, classes 0 ... 9 by column)"][:10], test.x[first])
