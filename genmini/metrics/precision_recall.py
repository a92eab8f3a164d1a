"""Precision, the share of samples that could be real, and recall, the share of real images that could be samples.

Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", 2019.

    manifold of A = union over a in A of the balls around a that reach a's k-th nearest neighbour in A      (1)
    precision = share of samples in the manifold of the real,
    recall    = share of the real in the manifold of the samples                                            (2)

k = 3 as in the paper. A ball includes its surface, so that a set lies in its own manifold. More images make smaller
balls: numbers compare only at equal counts.

    test: tests/project/test_metrics.py
"""

import torch

from ._rows import two

ROWS = 1000  # of the matrix of distances that are held at a time


def precision_recall(real, samples, k=3):
    """Features (n, F), (m, F) -> precision, recall"""
    real, samples = two(real, samples, least=k + 1)
    return _share(samples, real, k), _share(real, samples, k)  # (2)


def _share(x, of, k):
    # (1); k + 1 because the nearest neighbour of a is a itself
    radius = torch.cat([_distances(part, of).kthvalue(k + 1, 1).values for part in of.split(ROWS)])
    return torch.cat([(_distances(part, of) <= radius).any(1) for part in x.split(ROWS)]).double().mean().item()


def _distances(x, y):
    # computed by differences, so that equal rows are at distance 0
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
