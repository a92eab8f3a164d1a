"""A perceptron that can be conditioned on a class and a vector.   (N, D), y (N,), context (N, C) -> (N, O)"""

import torch
import torch.nn.functional as F
from torch import nn


class MLP(nn.Module):
    """Layers of SiLU; the output is 0 at initialisation.

    hidden: the units of each layer; classes: the number of classes of y; context: the length of the vector.
    """

    def __init__(self, D, O, hidden=(128, 128), classes=0, context=0, dropout=0.0):
        super().__init__()
        if classes and not hidden:
            raise ValueError("hidden must be one layer or more where there are classes, got ()")
        widths = [D + context, *hidden]
        self.layers = nn.ModuleList(nn.Linear(K, J) for K, J in zip(widths[:-1], widths[1:], strict=True))
        self.of_class = nn.Embedding(classes, hidden[0]) if classes else None
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(widths[-1], O)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x, y=None, context=None):
        h = x if context is None else torch.cat([x, context], 1)
        for i, layer in enumerate(self.layers):
            h = layer(h)
            if i == 0 and self.of_class is not None:
                h = h + self.of_class(y)
            h = self.dropout(F.silu(h))
        return self.out(h)
