"""One series to forecast: the yearly sunspot numbers, 1700 to 2008, on which Yule introduced autoregression (1927).

The splits follow one another in time: train, valid, test. A model is judged on years after those it learnt from.
"""

from pathlib import Path

import numpy as np

SPLITS = {"train": slice(0, 220), "valid": slice(220, 255), "test": slice(255, 309)}  # 1700-1919, 1920-1954, 1955-2008


def read(split):
    """-> the numbers (T,) float64, the year of the first of them"""
    text = Path(__file__).with_name("sunspots.txt").read_text(encoding="ascii")
    numbers = [float(word) for line in text.splitlines() if not line.startswith("#") for word in line.split()[1:]]
    return np.array(numbers[SPLITS[split]]), 1700 + SPLITS[split].start
