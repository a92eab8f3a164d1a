"""What the picture of a run shows of most models: data, what is reconstructed or restored of it, and samples.

    used by: genmini/models/_model.py, whose `panels` a model may override    test: tests/models/test_model.py
"""

import math

import torch

from genmini import conditions


def panels_of(model, splits):
    """-> {title: images}, the columns of a panel

    Where a model with classes reconstructs, each column shows one class; it is NaN if the split has none of it.
    """
    test, name, rows = splits["test"], model.title, min(8, len(splits["test"]))
    if model.given:
        x = test.x[: rows * rows]
        y = dict(y=test.y[: len(x)].to(model.device)) if model.takes_y else {}
        made = model.restore(x.to(model.device), **y).cpu()
        c = conditions.pictured(x, model.given)
        return {"data (test)": x, "what is given": c, f"restored by {name}": made}, rows
    by_class = bool(model.classes) and not model.cannot("reconstruct")
    columns = model.classes if by_class else rows
    title = f", classes 0 ... {columns - 1} by column" if by_class else ""
    if model.cannot("reconstruct"):
        shown = {"data (test)": test.x[: rows * columns]}
    else:
        shown = {}
        for split in (splits["train"], test):
            n = _first(split, rows, model.classes) if by_class else torch.arange(min(len(split), rows * columns))
            y = dict(y=torch.arange(len(n), device=model.device) % columns) if by_class else {}
            x = split.x[n]
            back = model.reconstruct(x.to(model.device), **y).cpu()
            if (n < 0).any():
                x, back = x.float(), back.float()
                x[n < 0] = back[n < 0] = math.nan
            shown |= {f"data ({split.split}{title})": x, f"reconstructed ({split.split})": back}
    y = dict(y=torch.arange(rows * columns, device=model.device) % columns) if by_class else {}
    return shown | {f"samples of {name}{title}": model.sample(rows * columns, **y).cpu()}, columns


def _first(split, rows, classes):
    """Indices of the first examples of each class, in turn: at most `rows` of each, and as many of all that occur; -1
    for a class that does not."""
    of_class = [(split.y == k).nonzero()[:rows, 0] for k in range(classes)]
    rows = min(len(n) for n in of_class if len(n))
    return torch.stack([n[:rows] if len(n) else torch.full((rows,), -1) for n in of_class], 1).flatten()
