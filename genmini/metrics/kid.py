"""The kernel distance between two sets of features: unbiased, unlike FID, so that few images are enough.

Bińkowski et al., "Demystifying MMD GANs", 2018.

    k(x, y) = (x.y / F + 1)^3                                                               (1)
    KID = 1/(n(n-1)) sum_{i != j} k(a_i, a_j)
        + 1/(m(m-1)) sum_{i != j} k(b_i, b_j) - 2/(nm) sum_ij k(a_i, b_j)                   (2)
    error^2 = (n-1)/n sum_i (KID without a_i - mean)^2
            + (m-1)/m sum_j (KID without b_j - mean)^2                                      (3)

(2) takes all pairs; its mean over draws of both sets is the squared distance itself, and 0 where the two have one
distribution: single values are then negative half of the time. The usual mean over random subsets estimates the same
with more noise. (3) is the jackknife; for two sets of one distribution, where (2) has no linear part, it is too large.

    test: tests/project/test_metrics.py
"""

import math

import torch

from ._rows import two

ROWS = 1000  # of the matrix of kernels that are held at a time


def kid(a, b):
    """Features (n, F), (m, F) -> the estimate, its standard error"""
    a, b = two(a, b, least=3)
    (aa, ab), (bb, ba) = (_sums(x, y) for x, y in ((a, b), (b, a)))
    n, m = len(a), len(b)
    value = aa.sum() / (n * (n - 1)) + bb.sum() / (m * (m - 1)) - 2 * ab.sum() / (n * m)  # (2)
    return value.item(), math.sqrt(_jackknife(aa, ab, m) + _jackknife(bb, ba, n))  # (3)


def _jackknife(own, cross, m):
    """The sum of (3) over one set. The pairs within the other set are left out: they are the same in each term."""
    n = len(own)
    within = (own.sum() - 2 * own) / ((n - 1) * (n - 2))  # each pair is counted at both of its ends
    without = within - 2 * (cross.sum() - cross) / ((n - 1) * m)
    return (n - 1) / n * (without - without.mean()).square().sum().item()


def _sums(x, y):
    """For each row of x: the sum of its kernels with the other rows of x, and with those of y."""
    k = lambda x, y: (x @ y.T / x.shape[1] + 1) ** 3  # (1)
    own = torch.cat([k(part, x).sum(1) - ((part * part).sum(1) / x.shape[1] + 1) ** 3 for part in x.split(ROWS)])
    return own, torch.cat([k(part, y).sum(1) for part in x.split(ROWS)])
