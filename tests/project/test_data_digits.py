"""Tests of the digits that are part of the package: 1797 images in three splits, and their binary version."""


import numpy as np
import pytest
import torch

from genmini import data

TEST = data.load("digits-threshold", "test")


def test_digits_are_the_digits():
    """The 1797 images are in three splits that share none, of ten balanced classes; each class mean differs from all
    others."""
    splits = [data.load("digits", split) for split in data.SPLITS]
    assert [len(s) for s in splits] == [1297, 200, 300]
    x, y = torch.cat([s.x for s in splits]).double(), torch.cat([s.y for s in splits])
    assert x.shape == (1797, 8, 8) and x.min() == 0 and x.max() == 16 and splits[0].levels == 17
    assert x.sum().item() == 561718 and y.sum().item() == 8070  # of the data set as published
    assert torch.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    mean = torch.stack([splits[0].x[splits[0].y == c].double().mean(0) for c in range(10)])
    nearest = torch.cdist(splits[2].x.double().flatten(1), mean.flatten(1)).argmin(1)
    assert (nearest == splits[2].y).double().mean() > 0.8


def test_threshold_is_half_of_the_brightest():
    levels = data.load("digits", "test")
    assert torch.equal(TEST.x, (levels.x >= 8).to(torch.uint8)) and torch.equal(TEST.y, levels.y)
    assert TEST.name == "digits-threshold" and TEST.levels == 2 and TEST.shape == (8, 8)


def test_the_file_needs_no_pickle_and_names_its_authors():
    path = data.digits.__file__.replace(".py", ".npz")
    with np.load(path, allow_pickle=False) as file:
        assert "Alpaydin" in str(file["attribution"]) and "CC BY 4.0" in str(file["licence"])


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="digits-threshold"):
        data.load("digitz")
    with pytest.raises(ValueError, match="train, valid, test"):
        data.load("digits", "dev")
