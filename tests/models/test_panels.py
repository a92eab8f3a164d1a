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
    model, _ = small("vae")
    torch.manual_seed(0)
    shown, columns = model.eval().panels(splits)
    assert list(shown) == ["data (train)", "reconstructed (train)", "data (test)", "reconstructed (test)",
                           "samples of VAE, mean images", "samples of VAE, drawn pixels"]
    assert torch.equal(shown["data (test)"], splits["test"].x[:64]) and columns == 8
    for mean, title in ((True, "samples of VAE, mean images"), (False, "samples of VAE, drawn pixels")):  # of one noise
        torch.manual_seed(0)
        assert torch.equal(shown[title], model.sample(64, mean=mean))
    model, _ = small("classifier")
    shown, _ = model.eval().panels(splits)
    loss = judge(model, splits["test"].x, splits["test"].y)
    hardest = shown["hardest for Classifier (test)"]
    assert torch.equal(hardest[0], splits["test"].x[loss.argmax()]) and len(hardest) == 64


def test_a_class_that_a_split_lacks_leaves_its_column_empty(splits):
    test = splits["test"]
    splits["test"] = dataclasses.replace(test, x=test.x[test.y != 3], y=test.y[test.y != 3])
    shown, names = small("cvae")[0].eval().panels(splits)
    data_shown, back = (shown[name].unflatten(0, (8, 10)) for name in ("data (test)", "reconstructed (test)"))
    others = torch.arange(10) != 3
    for x in (data_shown, back):
        assert x[:, 3].isnan().all() and not x[:, others].isnan().any()
    first = [int((splits["test"].y == k).nonzero()[0]) for k in range(10) if k != 3]
    assert torch.equal(data_shown[0, others], splits["test"].x[first].float()) and names == [*"0123456789"]


@pytest.mark.parametrize("name", ["cvae", "cgan"])
def test_a_column_of_a_conditional_model_is_one_class(splits, name):
    (model, _), classes = small(name, **{} if name == "cvae" else dict(classes=10)), []
    decode, sample = model.decode, model.sample
    model.decode = lambda z, y=None: (classes.append(y.argmax(1) if y.dim() > 1 else y), decode(z, y))[1]
    model.sample = lambda n, y=None, **how: (classes.append(y), sample(n, y=y, **how))[1]
    shown, names = model.eval().panels(splits)
    by_column = torch.arange(80) % 10
    assert names == [*"0123456789"] and all(len(x) == 80 for x in shown.values())
    assert len(classes) >= 1 + 4 * (name == "cvae") and all(torch.equal(y, by_column) for y in classes)
    assert list(shown)[-1].startswith(f"samples of {model.title}")
    test = splits["test"]
    first = [int((test.y == k).nonzero()[0]) for k in range(10)]
    assert torch.equal(shown["data (test)"][:10], test.x[first])
