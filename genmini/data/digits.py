"""1797 real handwritten digits of 8x8 pixels and 17 levels, in 46 kB: data for every model without a download.

"Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak (1998), UCI Machine Learning Repository,
https://doi.org/10.24432/C50P49, CC BY 4.0: its test set, in its order, as scikit-learn ships it too. A pixel counts the
ink in one 4x4 block of a 32x32 bitmap, 0 ... 16. The 13 writers of these digits follow one another, so a split by index
tests a model on writers of whom it has seen almost none.
"""

from pathlib import Path

import numpy as np

LEVELS = 17
SPLITS = {"train": slice(0, 1297), "valid": slice(1297, 1497), "test": slice(1497, 1797)}


def read(split):
    """-> images (N, 8, 8) uint8 in 0 ... 16, labels (N,) uint8 in 0 ... 9"""
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        return file["images"][SPLITS[split]].copy(), file["labels"][SPLITS[split]].copy()
