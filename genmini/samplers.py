"""Samplers of a diffusion: they lead noise x_T to data, along a path of decreasing noise, by any denoiser.

Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020 (ddpm); Song, Meng, Ermon, "Denoising Diffusion
Implicit Models", 2021 (ddim); Lu et al., "DPM-Solver++", 2022 (dpm); Karras et al., "Elucidating the Design Space of
Diffusion-Based Generative Models", 2022 (heun).

Let x_t = a_t x_0 + s_t e with noise e ~ N(0, I), and let x0(x_t) be the denoiser's estimate of x_0. With
lambda = log(a / s), the probability flow leads from x_t to x_r of less noise by

    d (x / s) = x0(x) d e^lambda                                                            (1)
    x_r = a_r X + s_r (x_t - a_t X) / s_t                                                   (2)

where X is a mean of x0(x) on the way. The samplers differ in X alone:

    ddim    X = x0(x_t)                                                          order 1    (3)
    dpm     X = x0(x_t) + (x0(x_t) - x0(x_q)) (lambda_r - lambda_t) / (2 (lambda_t - lambda_q))   order 2    (4)
    heun    X = (x0(x_t) + x0(x_r)) / 2,    x_r by (3)                           order 2    (5)

with q the time before t. heun calls the denoiser twice a step; it is Heun's rule for (1) with lambda as the time, so
that its first step from pure noise stays bounded. ddim with eta > 0 adds noise: eta = 1 draws from the posterior
q(x_r | x_t, x_0 = X), which is ddpm. The last step, to s = 0, is x_0 = X by (3).

repaint draws x_0 of which the pixels of a mask m are known, k (Lugmayr et al., "RePaint", 2022). A step of ddpm leads
to x', and the known pixels are put in with the noise of that time; then x_r is made as noisy as x_t was,

    x_r = m (a_r k + s_r e) + (1 - m) x'                                                    (6)
    x_t = (a_t / a_r) x_r + sqrt(s_t^2 - (a_t s_r / a_r)^2) e                               (7)

and the step is taken anew, `times` times in all; the last one, to s = 0, once. x' was drawn before the new e of the
known pixels, and does not fit them; with every repetition it fits them better. With many small steps and repetitions
x_0 tends to a draw from p(x_0 | k). With few it lies nearer to what the model draws without k.

A time is a pair (a, s); a path is a list of times. `step(x, t, r, eta)` is (2) by (3): the denoiser and the step that
follows, so that a model can do both in one kernel; step(x, t, DATA) is x0(x). `of(denoiser)` makes it from a function.

    room: kernels/ddim_step.py    used by: genmini/models/diffusion.py, genmini/models/_priors.py
    test: tests/project/test_samplers.py
"""

import functools
import math
from itertools import pairwise

import torch

from genmini import ops
from genmini.settings import number, one_of, whole

DATA = (1.0, 0.0)  # the time of x_0


def of(denoiser):
    """denoiser(x, t) -> x0, for each time t = (a, s), as a `step`."""
    return lambda x, t, r, eta=0.0: lead(x, denoiser(x, t), t, r, eta)


def start(noise, n, shape, device, dtype):
    """x_T, (n, *shape): this noise, or drawn if it is None"""
    if noise is None:
        return torch.randn(n, *shape, device=device, dtype=dtype)
    if noise.numel() != n * math.prod(shape):
        raise ValueError(f"noise must have shape {(n, *shape)}, got {tuple(noise.shape)}")
    noise = noise.view(n, *shape).to(device, dtype)
    if not noise.isfinite().all():
        raise ValueError(f"noise must be finite numbers of {dtype}: {(~noise.isfinite()).sum()} are not")
    return noise


def watched(step, frames):
    """The step, which also sets frames[t] to the last x_t that it was called with."""

    def both(x, t, r, eta=0.0):
        frames[t] = x
        return step(x, t, r, eta)

    return both


def lead(x, X, t, r, eta=0.0):
    """x_t -> x_r, if X is the x_0"""
    return ops.ddim_step(x, X, *t, *r, target="x0", eta=eta)  # (2)


def ddim(step, x, path, eta=0.0):
    for t, r in pairwise(path):
        x = step(x, t, r, eta)  # (3)
    return x


def ddpm(step, x, path):
    return ddim(step, x, path, eta=1.0)


def dpm(step, x, path):
    before = None
    for q, t, r in zip([None, *path], path, path[1:], strict=False):
        x0 = X = step(x, t, DATA)
        if before is not None and r[1] > 0:
            X = x0 + (x0 - before) * (log_ratio(r) - log_ratio(t)) / (2 * (log_ratio(t) - log_ratio(q)))  # (4)
        x, before = lead(x, X, t, r), x0
    return x


def heun(step, x, path):
    for t, r in pairwise(path):
        x0 = step(x, t, DATA)
        X = x0 if r[1] == 0 else (x0 + step(lead(x, x0, t, r), r, DATA)) / 2  # (5)
        x = lead(x, X, t, r)
    return x


def repaint(step, x, path, known, mask, times=5):
    """x_T (N, ...) -> x_0 whose numbers where mask (...) is true are those of known (N, ...)."""
    for t, r in pairwise(path):
        for left in reversed(range(times if r[1] > 0 else 1)):
            drawn = r[0] * known + r[1] * torch.randn_like(x)
            x = torch.where(mask, drawn, step(x, t, r, 1.0))  # (6)
            if left:
                a = t[0] / r[0]
                x = a * x + math.sqrt(t[1] ** 2 - (a * r[1]) ** 2) * torch.randn_like(x)  # (7)
    return x


def log_ratio(t):
    a, s = t
    return math.log(a / s)  # the lambda of (1)


SAMPLERS, THRESHOLDS = {"ddim": ddim, "ddpm": ddpm, "dpm": dpm, "heun": heun}, ("none", "static", "dynamic")


def sampler(how, eta=None):
    """That of this name; eta: of ddim alone, what it takes as eta"""
    if eta is None:
        return SAMPLERS[how]
    number(least=0, most=1, eta=eta)
    if how != "ddim":
        raise ValueError(f"eta is for how='ddim', got how={how!r}: ddpm has eta = 1, the others draw no noise")
    return functools.partial(ddim, eta=eta)


def sampling(T, is_led, how, steps, guidance, threshold):
    """The last four, checked: a sampler, its steps among T times, how far a model that is led to a class is guided, and
    what keeps the estimates of x_0 within the range of data."""
    one_of(SAMPLERS, how=how)
    whole(1, T, steps=steps)
    number(guidance=guidance)
    one_of(THRESHOLDS, threshold=threshold)
    if not is_led and guidance != 1:
        raise ValueError(f"guidance is towards a class, and this model was made without: got {guidance}; a "
                         "classifier can guide it")
    return how, steps, guidance, threshold
