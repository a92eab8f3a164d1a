"""Mode collapse, counted: how many modes of the data samples reach, and what share of samples is good.

Metz et al., "Unrolled Generative Adversarial Networks", 2017; Lin et al., "PacGAN", 2018.

    a point is good       if it lies within 3 sigma of a centre; its mode is the nearest centre               (1)
    an image is good      if the classifier is sure of its class, p(y | x) > 0.9; that class is its mode      (2)
    a mode is covered     if at least a tenth of its even share, n / (10 K), are good samples of it           (3)

In two dimensions 1 - exp(-9/2) = 98.9% of the data are good by (1). What a classifier is sure of need not be an image:
read (2) beside FID.

    test: tests/project/test_coverage.py
"""

import torch

SURE = 0.9


def count(mode, good, K):
    """The mode of each sample (n,) and whether it is good (n,) -> {"modes": how many of K are covered, "missing": how
    many are not, "good": the share}"""
    if mode.shape != good.shape or mode.dim() != 1 or not len(mode):
        raise ValueError(f"mode and good must have one shape (n,), n at least 1, got {mode.shape} and {good.shape}")
    counts = torch.bincount(mode[good], minlength=K)
    covered = (10 * K * counts >= len(mode)).sum().item()  # (3)
    return {"modes": covered, "missing": K - covered, "good": good.double().mean().item()}


def of_points(x, centres, sigma):
    """Points (n, 2), centres (K, 2) -> mode (n,), good (n,)"""
    distance, mode = torch.cdist(x.double(), centres.double()).min(1)
    return mode, distance <= 3 * sigma  # (1)


def of_images(logits):
    """(n, classes) -> mode (n,), good (n,)"""
    sure, mode = logits.softmax(1).max(1)
    return mode, sure > SURE  # (2)
