"""The Fréchet distance between two sets of features, each taken as a Gaussian.

The course, "Fréchet Inception Distance"; Heusel et al., "GANs Trained by a Two Time-Scale Update Rule ...", 2017;
Chong and Forsyth, "Effectively Unbiased FID and Inception Score and where to find them", 2020.

    FID = |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2)                                   (1)
    tr (S_a S_b)^1/2 = sum of the roots of the eigenvalues of S_a S_b
                     = sum of the singular values of R_a R_b^T,    S = R^T R                (2)
    FID(n) = FID_infinity + c / n + ...                                                     (3)

R comes from the QR decomposition of the centred features: no covariance is formed and no root of a matrix is taken.
Where a covariance is singular, rounding turns an eigenvalue 0 of S_a S_b into 1e-16, whose root is 1e-8; a singular
value 0 becomes 1e-16 only. So the distance of equal sets is a rounding error, fewer images than features do no harm,
and no root is complex.

    test: tests/project/test_metrics.py
"""

import math

import numpy as np
import torch

from ._rows import two


def fid(a, b):
    """Features (n, F), (m, F) -> the distance, at least 0"""
    return _distance(*map(_gaussian, two(a, b)))


def _gaussian(x):
    mean = x.mean(0)
    return mean, torch.linalg.qr(x - mean, mode="r").R / math.sqrt(len(x) - 1)


def _distance(a, b):
    (mean_a, R_a), (mean_b, R_b) = a, b
    root = torch.linalg.svdvals(R_a @ R_b.T).sum()  # (2)
    apart = (mean_a - mean_b).square().sum() + R_a.square().sum() + R_b.square().sum()
    return max(0.0, (apart - 2 * root).item())  # (1)


def fid_by_count(a, b, draws=8):
    """Return {n: FID of n rows of b} and, by (3), the value for infinitely many rows.

    FID falls with the number of images. n goes from half of b to all of it, each value is the mean of some draws, and
    the limit lies on the line through these values over 1/n. It may lie below 0: then the distance is too small to be
    measured with so few images.
    """
    a, b = two(a, b, least=4)
    gaussian, noise, n = _gaussian(a), np.random.RandomState(0), len(b)
    fid_of = lambda m: _distance(gaussian, _gaussian(b[np.sort(noise.permutation(n)[:m])]))
    by_count = {m: float(np.mean([fid_of(m) for _ in range(draws)])) for m in (n * k // 8 for k in range(4, 8))}
    by_count[n] = _distance(gaussian, _gaussian(b))
    _, limit = np.polyfit([1 / m for m in by_count], list(by_count.values()), 1)  # (3)
    return by_count, float(limit)
