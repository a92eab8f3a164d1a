"""Two classifiers that learn from n labelled images: one sees all other images, too, the other has the labels alone.

    of_codes     M2 of genmini/models/ssvae.py, q(y|c) and p(c|y, z), by codes of all train images and the n labels
    of_pixels    the same network, which is the encoder of the codes and q(y|c) behind it, by the n labels alone,
                 from weights that have learnt nothing; it sees each image moved by a pixel, too

Both learn by Adam, at a rate that falls to 0 along a cosine, and see at most BATCH labels at a step.

    used by: genmini/studies/semi_supervised.py    test: tests/project/test_study_semi_supervised.py
"""

import torch
import torch.nn.functional as F

from genmini.loop import shifted
from genmini.models.ssvae import M2

BATCH = 64
OF_CODES = dict(steps=600, rate=3e-3)
OF_PIXELS = dict(steps=400, rate=2e-3)
SHIFT = 0.8  # the share of batches that of_pixels moves


def of_codes(mu, sigma, n, y, classes, dropout, seed):
    """mu, sigma (N, d): of q(c|x) of all train images; n, y (n,): which have a label, and the labels -> M2"""
    torch.manual_seed(seed)
    m2 = M2(mu.shape[1], classes, dropout=dropout)
    c = lambda rows: mu[rows] + sigma[rows] * torch.randn_like(mu[rows])

    def loss():
        i = some(len(n))
        return m2.loss(c(torch.randint(len(mu), (BATCH,))), c(n[i]), y[i], len(n) / len(mu))

    return descended(m2, loss, **OF_CODES)


def of_pixels(model, x, y, classes, dropout, seed):
    """model: what codes images; x (n, *shape), y (n,): all that is learnt from -> a function of images, their logits"""
    torch.manual_seed(seed)
    dropouts = dict(dropout=dropout) if "dropout" in model.settings else {}
    network = type(model)(**model.settings | dropouts)
    h = M2(model.latent, classes, dropout=dropout).h
    both, noise = torch.nn.ModuleList([network, h]), torch.Generator().manual_seed(seed)

    def loss():
        i = some(len(x))
        return F.cross_entropy(h(network.encode(shifted(x[i], SHIFT, noise))), y[i])

    descended(both, loss, **OF_PIXELS)
    return lambda x: torch.cat([h(network.encode(part)) for part in x.split(1000)])


def some(n):
    """Indices of a batch of n labels"""
    return torch.randint(n, (min(n, BATCH),))


def descended(network, loss, steps, rate):
    """The network after these steps, in eval mode"""
    optimiser = torch.optim.Adam(network.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    network.train()
    for _ in range(steps):
        optimiser.zero_grad()
        loss().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
    return network.eval()
