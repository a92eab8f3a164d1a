"""How noisy x_t is at each time of a diffusion, and what its network is trained to give.

The course, "Modèles de diffusion"; Ho, Jain, Abbeel, 2020 (linear, eps); Nichol, Dhariwal, 2021 (cosine); Salimans,
Ho, 2022 (v); Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022 (edm).

    x_t = a_t x_0 + s_t e,   e ~ N(0, I),   a_t^2 = prod_{r <= t} 1 - beta_r,   a_t^2 + s_t^2 = 1,   t = 1 ... T    (1)
    linear: beta_t from 0.1 / T to 20 / T;   cosine: a_t ~ cos(pi/2 (t/T + 0.008) / 1.008)                        (2)

    target    F is trained to give                 so the estimate of x_0 is
    eps       e                                    (x_t - s F) / a                          (3)
    x0        x_0                                  F                                        (4)
    v         a e - s x_0                          a x_t - s F                              (5)
    edm       (s x_0 / d - a d e) / n              (a d^2 x_t / n + s d F) / n              (6)

In (6) d is the deviation of the data, n^2 = a^2 d^2 + s^2 is the variance of x_t, and the network sees x_t / n: its
input and its target have variance 1 at every time, whatever d is. With d = 1, (6) is (5) but for the sign of F.

How much an error of x_0 counts at each time decides what is learnt first. If F gives x_0, |F - x_0|^2 counts it alike,
and what an image shows at large is learnt soon; |F - v|^2 = (1 + a^2 / s^2) |x_0 - x0|^2 counts the fine lines most,
which are lost last. Between them (Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", 2023;
Salimans, Ho, 2022) lies

    |x_0 - x0|^2 min(max(a^2 / s^2, 1), 5)                                                  (7)

With 25 in the place of 5 lines are sharp sooner still, but after 6000 of 8000 steps Imagen had not begun to learn the
order of two things: with noise of t = 700, 48% of 200 valid captions had a smaller error than with their things
exchanged, and with 5 it was 72%.

Where there is little noise an image shows what it is, and where there is much of it nothing can be known: what a
sample becomes is decided between. Of the times of training "middle" has four in five there, about t = 0.62 T (Esser et
al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024), and "even" has all times alike:

    t / T = 1 / (1 + exp(-0.5 - 0.6 z)),   z ~ N(0, 1)                                      (8)

    used by: diffusion.py, _bound.py and _priors.py of genmini/models    test: tests/models/test_diffusion.py
"""

import math

import torch

SCHEDULES, TARGETS = ("linear", "cosine"), ("eps", "x0", "v", "edm")
TIMES = "even", "middle"
SHARE, CENTRE, WIDTH = 0.8, 0.5, 0.6  # of the times "middle": how many are of (8), and its numbers
HEAVIEST = 5  # what an error of x_0 counts, times that of much noise


def tables(schedule, T):
    """a and s of (1) for t = 0 ... T, each (T + 1,) float64; a_0 = 1, s_0 = 0"""
    t = torch.arange(T + 1, dtype=torch.float64) / T
    if schedule == "linear":
        beta = torch.linspace(0.1 / T, 20 / T, T, dtype=torch.float64)  # (2)
    else:
        squared = torch.cos((t + 0.008) / 1.008 * math.pi / 2).square()
        beta = 1 - squared[1:] / squared[:-1]  # (2)
    log_squared = torch.log1p(-beta.clamp(max=0.999)).cumsum(0)
    log_squared = torch.cat([torch.zeros(1, dtype=torch.float64), log_squared])
    return (log_squared / 2).exp(), torch.expm1(log_squared).neg().sqrt()  # (1)


def deviation(a, s, d):
    """That of x_t, the n of (6)"""
    return (a**2 * d**2 + s**2) ** 0.5


def edm(x_t, x_0, a, s, d):
    """The target (6), from x_t in the place of e"""
    n = deviation(a, s, d)
    return (n * x_0 - a * d**2 / n * x_t) / (s * d)  # (6)


def x0_of(target, x_t, out, a, s, d=1.0):
    """The estimate of x_0 that the network's output stands for"""
    if target == "edm":
        n = deviation(a, s, d)
        return (a * d**2 / n * x_t + s * d * out) / n  # (6)
    return {"eps": lambda: (x_t - s * out) / a,  # (3)
            "x0": lambda: out,  # (4)
            "v": lambda: a * x_t - s * out}[target]()  # (5)


def weighted(error, a, s):
    """(7), of the error x_0 - x0"""
    return (a / s).square().clamp(1, HEAVIEST) * error.square()


def drawn(times, u, T):
    """u (N,), uniform on [0, 1) -> N times 1 ... T of training: one in each of N strata, if u has one in each"""
    if times == "middle":
        z = torch.special.ndtri(u / SHARE)
        u = torch.where(u < SHARE, torch.sigmoid(CENTRE + WIDTH * z), (u - SHARE) / (1 - SHARE))  # (8)
    return 1 + (T * u).long().clamp(max=T - 1)
