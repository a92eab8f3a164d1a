"""The inception score: high if each image is clearly of one class and all classes occur equally often.

The course, "Évaluation des VAE conditionnels"; Salimans et al., "Improved Techniques for Training GANs", 2016.

    IS = exp( 1/n sum_i KL(p(y | x_i) || p(y)) ),    p(y) = 1/n sum_i p(y | x_i)            (1)
    error^2 = (n - 1) / n sum_i (IS_-i - mean)^2                                            (2)

1 <= IS <= the number of classes. p(y) is the mean over all n images. The usual mean over ten splits would depend on
the order of the images, and is lower, because each split has its own p(y). The error is the jackknife's: IS_-i is the
score without image i.

    test: tests/project/test_metrics.py
"""

import math

import torch

from ._rows import canonical


def inception_score(logits):
    """(n, classes), log p(y | x) up to a constant for each row -> the score, its standard error"""
    log_p = canonical("logits", logits).log_softmax(1)
    n, p = len(log_p), log_p.exp()
    negative_entropy = (p * log_p).sum(1)
    log_marginal = log_p.logsumexp(0) - math.log(n)
    kl = (p * (log_p - log_marginal)).sum(1)
    score = kl.mean().clamp_min(0).exp().item()  # (1)
    without = ((n * log_marginal.exp() - p) / (n - 1)).clamp_min(0)  # p(y) without image i
    scores = ((negative_entropy.sum() - negative_entropy) / (n - 1) - torch.xlogy(without, without).sum(1)).exp()
    return score, math.sqrt((n - 1) / n * (scores - scores.mean()).square().sum().item())  # (2)
