"""Class accuracy: the share of samples that a classifier assigns to the class they were drawn for.

The course, "Évaluation des VAE conditionnels": p(y | x) of a discriminative model, for samples x ~ p(x | y).

    accuracy = share of images with argmax_c p(c | x) = y                                   (1)

The classifier makes errors too: compare with its accuracy on real images. Accuracy does not measure variety: a model
that always draws the same good 7 scores 1.

    test: tests/project/test_metrics.py
"""

import math

import torch


def class_accuracy(logits, y):
    """(n, classes), (n,) -> the share that is right, its standard error, and the share for each class (classes,).

    A class without examples has NaN.
    """
    if logits.dim() != 2 or y.shape != logits.shape[:1] or not len(y):
        raise ValueError("logits must have shape (n, classes) and y (n,), n at least 1, "
                         f"got {tuple(logits.shape)} and {tuple(y.shape)}")
    if not 0 <= y.min() <= y.max() < logits.shape[1]:
        raise ValueError(f"y must hold classes 0 ... {logits.shape[1] - 1}, got {y.min()} ... {y.max()}")
    right = (logits.argmax(1) == y).double()  # (1)
    of_class = [right[y == k].mean() if (y == k).any() else torch.tensor(math.nan) for k in range(logits.shape[1])]
    share = right.mean().item()
    return share, math.sqrt(share * (1 - share) / len(y)), torch.stack(of_class).double()
