"""What the picture of a run shows of most models: data, what is reconstructed or restored of it, and samples.

    used by: genmini/models/_model.py, whose `panels` a model may override    test: tests/models/test_model.py
"""

import math

import torch

from genmini import conditions


def panels_of(model, splits):
    """-> {title: images}, the columns of a panel: how many, or their names

    Of a model with classes each column shows one class; it is NaN if the split has none of it. Where pixels are drawn
    around a mean image, this is shown first.
    """
    test, name, rows = splits["test"], model.title, min(8, len(splits["test"]))
    if model.given:
        x = test.x[: rows * rows]
        y = dict(y=test.y[: len(x)].to(model.device)) if model.takes_y else {}
        made = model.restore(x.to(model.device), **y).cpu()
        c = conditions.pictured(x, model.given)
        return {"data (test)": x, "what is given": c, f"restored by {name}": made}, rows
    columns, shown = model.classes or rows, {}
    y = torch.arange(rows * columns, device=model.device) % columns
    given = lambda n: dict(y=y[:n]) if model.classes else {}
    for split in [test] if model.cannot("reconstruct") else [splits["train"], test]:
        n = _first(split, rows, columns) if model.classes else torch.arange(min(len(split), rows * columns))
        shown[f"data ({split.split})"] = _or_nothing(split.x[n], n)
        if not model.cannot("reconstruct"):
            back = model.reconstruct(split.x[n].to(model.device), **given(len(n))).cpu()
            shown[f"reconstructed ({split.split})"] = _or_nothing(back, n)
    if not model.cannot("mean"):
        with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):  # the same noise again
            shown[f"samples of {name}, mean images"] = model.sample(rows * columns, **given(len(y)), mean=True).cpu()
    title = f"samples of {name}" + ", drawn pixels" * (not model.cannot("mean"))
    shown[title] = model.sample(rows * columns, **given(len(y))).cpu()
    return shown, [str(k) for k in range(columns)] if model.classes else columns


def _or_nothing(x, n):
    """Images (N, *shape), NaN where the index n (N,) is -1"""
    return torch.where((n < 0).view(-1, *(1 for _ in x.shape[1:])), math.nan, x.float()) if (n < 0).any() else x


def _first(split, rows, classes):
    """Indices of the first examples of each class, in turn: at most `rows` of each, and as many of all that occur; -1
    for a class that does not."""
    of_class = [(split.y == k).nonzero()[:rows, 0] for k in range(classes)]
    rows = min(len(n) for n in of_class if len(n))
    return torch.stack([n[:rows] if len(n) else torch.full((rows,), -1) for n in of_class], 1).flatten()
