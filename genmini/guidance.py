"""Guidance by a classifier: it leads the samples of a diffusion that was trained without classes to one class.

Dhariwal, Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021, with the classifier of clean images of Chung et
al., "Diffusion Posterior Sampling", 2023, in place of one that was trained on noisy ones.

    grad log p_w(x_t | y) = grad log p(x_t) + w grad log p(y | x_t)                         (1)
    X = (x_t + s_t^2 grad log p(x_t)) / a_t                                                 (2)
    p(y | x_t) ~ p(y | X(x_t)),    so    X <- X + w (s_t^2 / a_t) grad log p(y | X(x_t))    (3)

X(x_t) is the denoiser's estimate of x_0, and (2) is Tweedie's formula. The gradient in (3) is that by x_t: it goes back
through the classifier and the denoiser, so a step costs about three times as much. (3) is exact for Gaussian data and
log p(y | x_0) linear in x_0; in general it takes the classifier's answer to the mean for its mean answer.

w = 1 is Bayes' rule; w > 1 gives samples of which the classifier is surer, and that are less diverse. Classifier-free
guidance (genmini/models/diffusion.py) needs no gradient and no second network, but a model that was trained with the
classes.

    used by: genmini/models/diffusion.py    test: tests/project/test_samplers.py
"""

import torch

from genmini.samplers import lead


def guided(denoiser, log_p, w=1.0, limit=None):
    """A `step` of genmini/samplers.py from denoiser(x, t) -> X and log_p(X) -> (N,), the log p(y | X) of each row; both
    must be differentiable. limit: X is kept within -limit ... limit after (3)."""

    def step(x, t, r, eta=0.0):
        a, s = t
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            X = denoiser(x, t)
            (slope,) = torch.autograd.grad(log_p(X).sum(), x)
        X = X.detach() + w * s**2 / a * slope  # (3)
        return lead(x.detach(), X if limit is None else X.clamp(-limit, limit), t, r, eta)

    return step
