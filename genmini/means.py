"""The mean of numbers, one for each example, and how far it may be from the mean of all that could be drawn.

    used by: genmini/train.py, genmini/experiment.py, genmini/studies    test: tests/project/test_train.py
"""

import math


def mean_and_error(values):
    """(N,) -> the mean, and its standard error: the deviation over root N; NaN for one value"""
    values = values.detach().double()
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return values.mean().item(), error
