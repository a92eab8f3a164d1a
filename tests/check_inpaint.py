"""The proofs of `inpaint` and `log_hidden`, against all x of a small model, and mistakes planted in a module.

    check_draws(model, mask(model, "left"), x);  check_hidden(model, mask(model, "left"), x, particles=3)
"""


import pytest
import torch
from check_models import space

MASKS = {  # of 2x3 pixels, what is known
    "first": [1, 1, 1, 0, 0, 0], "last": [0, 0, 0, 1, 1, 1], "left": [1, 0, 0, 1, 0, 0],
    "two": [0, 1, 0, 0, 1, 0], "three": [1, 0, 0, 1, 0, 1], "end": [1, 0, 0, 0, 0, 0], "nothing": [0] * 6,
}


def mask(model, name):
    return torch.tensor(MASKS[name][: model.D], dtype=torch.bool).view(model.shape)


def truth(model, x, known, log_p=None):
    """x (*shape) -> every x with the same known numbers, (M, *shape), p(x_h | x_k) of each, (M,). log_p: of all x"""
    every = space(model)
    log_p = model.log_prob(every).detach() if log_p is None else log_p
    agrees = ((every == x) | ~known).flatten(1).all(1)
    return every[agrees], log_p[agrees].softmax(0)


def follows(made, every, p):
    """The draws (n, *shape) have the frequencies p of `every`."""
    same = (made[:, None] == every[None]).flatten(2).all(2)
    assert same.any(1).all(), "what is known is kept"
    seen, wanted = same.sum(0), len(made) * p
    often = wanted >= 5  # rare cells count as one
    seen, wanted = (torch.cat([a[often], a[~often].sum()[None]]) for a in (seen, wanted))
    chi2, free = ((seen - wanted).square() / wanted.clamp(min=1)).sum().item(), often.sum().item()
    assert free > 2 and chi2 < free + 5 * (2 * free) ** 0.5, (chi2, free)


def check_draws(model, known, x, log_p=None, **how):
    """A draw for each of n copies of x: they are independent of each other."""
    made = model.inpaint(x.expand(n := 1000, *x.shape), known=known, n=1, **how)
    assert made.shape == (1, n, *model.shape) and made.dtype == torch.uint8
    follows(made[0], *truth(model, x, known, log_p))


def check_hidden(model, known, x, n=1000, **how):
    """The estimate of p(x_k) has the right mean: p(x) / p(x_h | x_k)"""
    every, p = truth(model, x, known)
    p_x = model.log_prob(x[None]).exp().item()
    exact = p_x / p[(every == x).flatten(1).all(1)].item()
    found = p_x * (-model.log_hidden(x.expand(n, *x.shape), known=known, **how)).exp()
    assert found.mean().item() == pytest.approx(exact, abs=4 * found.std().item() / n**0.5 + 1e-9 * exact)


def example(model):
    """An x of the model, neither the most probable nor the least"""
    every = space(model)
    return every[model.log_prob(every).argsort()[len(every) * 3 // 4]]
