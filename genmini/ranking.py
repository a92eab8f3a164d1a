"""How likely images of the user's own are under a run: each image as one of its data, the likeliest first.

    ranking.likelihoods(run, ["three.png", "cat.jpg"])       [Likelihood("three.png", 17.2, "nats", 0.39, ...), ...]

    log p(x),  or its lower bound: IWAE of k draws where the model has it, else the ELBO                        (1)
    log p(x) = log sum_y p(x | y) / C                                of a model with C classes                  (2)

The draws of a bound are those of seed 0 for each image: equal images are as likely, to the bit.

    used by: genmini/cli/eval.py    test: tests/project/test_ranking.py
"""

import math
from dataclasses import dataclass

import torch

from genmini import checkpoint
from genmini.data import own_image


@dataclass(frozen=True)
class Likelihood:
    path: str
    nats: float  # -log p(x), or an upper bound of it
    unit: str
    bits: float | None  # per dimension; None: p(x) is a density
    at_most: bool  # true: of a bound
    y: int | None  # the class under which it is likeliest, of a model with classes
    words: str  # what was done to make it an image of the run


def likelihoods(run, paths, k=500, device="cpu"):
    """-> [Likelihood], the likeliest image first; of equally likely ones, in the order of paths. k: draws of a bound"""
    metadata, model = checkpoint.read(checkpoint.place(run)), checkpoint.load(run, device)
    if "data" not in metadata:
        raise ValueError(f"{run} does not name its data, so that an image cannot be made one of them")
    if model.levels is None or model.of_text:
        raise ValueError(f"{run} does not fit: {type(model).__name__} models no images of levels there")
    if model.cannot("log_prob"):
        raise ValueError(f"{run} does not fit: {model.cannot('log_prob')}")
    if model.captions:
        raise ValueError(f"{run} does not fit: {type(model).__name__} gives images likelihoods of a caption")
    found = []
    for path in paths:
        x, words = own_image.fitted(path, metadata["data"], model.shape)
        log_p, y, unit = _log_p(model, x.to(model.device), k)
        bits = -log_p / (model.D * math.log(2)) if unit == "nats" else None
        found.append(Likelihood(str(path), -log_p, unit, bits, model.is_bound, y, words))
    return sorted(found, key=lambda each: each.nats)


@torch.no_grad()
def _log_p(model, x, k):
    """-> log p(x) of one image or its bound; the likeliest class or None; the unit"""
    of_class, y = [], range(model.classes) if model.classes else [None]
    for given in y:
        torch.manual_seed(0)
        figures = model.figures(x, y=given, k=k)
        names = [name for name in ("nll", f"iwae-{k}", "elbo") if name in figures]
        if not names:
            raise ValueError(f"{type(model).__name__} gives no likelihood as it was trained here, but "
                             f"{' and '.join(figures)}")
        of_class.append(figures[names[0]].item() * (-1 if names[0] == "nll" else 1))  # (1)
    unit = "nats" if names[0] == "nll" or not model.unit.startswith("nats") else model.unit
    log_p = torch.tensor(of_class, dtype=torch.float64)
    best = int(log_p.argmax()) if model.classes else None
    return (log_p.logsumexp(0) - math.log(len(log_p))).item(), best, unit  # (2)
