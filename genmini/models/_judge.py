"""A model's loss of examples that it does not learn from.

    used by: genmini/models/_model.py, genmini/train.py    test: tests/project/test_train.py
"""

import torch


@torch.no_grad()
def judge(model, x, y=None, batch=1000):
    """The model's loss of each example, (N,), in eval mode, a batch at a time."""
    model.eval()
    x = x.split(batch)
    y = y.split(batch) if model.takes_y and y is not None else [None] * len(x)
    return torch.cat([model.loss(x_b, y=y_b) for x_b, y_b in zip(x, y, strict=True)])
