"""A classifier: p(y | x), by a small network of convolutions. It draws no images; it judges those of other models.

The course, "Évaluation des VAE" and "Évaluation des VAE conditionnels": a discriminative model gives the features
f(x) by which real and drawn images are compared, and the p(y | x) that tells whether a drawn 7 looks like a 7. LeCun
et al., "Gradient-based learning applied to document recognition", 1998, with the ReLU of Nair and Hinton, 2010.

    h_0 = 2 x / (L - 1) - 1                                                                 (1)
    h_i = maxpool_2x2 relu(V_i * relu(W_i * h_{i-1}))                                       (2)
    f(x) = relu(W_f h_I)                                                                    (3)
    p(y | x) = softmax_y(W_y f(x))                                                          (4)
    loss = -log p(y | x)                                                                    (5)

x has the levels 0 ... L-1, or real numbers between them. In training, units of h_I and f are dropped, and the share
`binary` of the images is made binary, half of these by a threshold, half drawn with the probability x / (L - 1), so
that one network judges grey and binary images.

    test: tests/models/test_classifier.py    used by: genmini/metrics, with the trained run in genmini/shipped/digits-v1
"""

import torch
import torch.nn.functional as F
from torch import nn

from genmini.models._levels import checked
from genmini.models._model import Model
from genmini.settings import image, number, share, whole


class Classifier(Model):
    def __init__(self, shape, levels=2, classes=10, width=16, blocks=2, features=64, dropout=0.0, binary=0.0,
                 device=None, dtype=None):
        """shape of one x: (H, W) or (C, H, W); width: channels of the first block, doubled by each further one;
        features: numbers in f(x)."""
        whole(2, levels=levels, classes=classes)
        whole(width=width, blocks=blocks, features=features)
        share(dropout=dropout)
        number(least=0, most=1, binary=binary)
        super().__init__(shape, levels, classes)
        self.binary = binary
        to = dict(device=device, dtype=dtype)
        C, H, W = image(shape)
        self.W, self.V = nn.ModuleList(), nn.ModuleList()
        for i in range(blocks):
            self.W.append(nn.Conv2d(C, width * 2**i, 3, padding=1, **to))
            C, H, W = width * 2**i, -(-H // 2), -(-W // 2)
            self.V.append(nn.Conv2d(C, C, 3, padding=1, **to))
        self.W_f = nn.Linear(C * H * W, features, **to)
        self.W_y = nn.Linear(features, classes, **to)
        self.dropout = nn.Dropout(dropout)

    def features(self, x):
        """f: levels (N, *shape), whole or not -> (N, F)"""
        x = checked(x, self.shape, None)  # of a sample, or of a mean image
        h = self.x_0(x)  # (1)
        for W, V in zip(self.W, self.V, strict=True):
            h = F.max_pool2d(F.relu(V(F.relu(W(h)))), 2, ceil_mode=True)  # (2)
        return F.relu(self.W_f(self.dropout(h.flatten(1))))  # (3)

    def classify(self, x):
        """(N, *shape) -> features f(x), (N, F), and logits, (N, classes): log p(y | x) but for a constant of each x"""
        f = self.features(x)
        return f, self.W_y(self.dropout(f))  # inside softmax: (4)

    def logits(self, x):
        """(N, *shape) -> (N, classes), those of `classify`"""
        return self.classify(x)[1]

    def loss(self, x, y=None):
        """(N, *shape), (N,) -> (N,) in nats"""
        y = self.check_y(y, len(x), needed=True)
        if self.training and self.binary:
            x = self._partly_binary(x)
        return F.cross_entropy(self.logits(x), y, reduction="none")  # (5)

    def _partly_binary(self, x):
        v = x.float() / (self.levels - 1)
        chosen = lambda share: (torch.rand(len(x), device=x.device) < share).view(-1, *(1 for _ in x.shape[1:]))
        threshold = torch.where(chosen(0.5), 0.5, 1 - torch.rand_like(v))  # v >= 1 - u with the probability v
        return torch.where(chosen(self.binary), (v >= threshold).float(), v) * (self.levels - 1)

    def figures(self, x, y=None, *, k=0):
        """1 where the likeliest class is the right one, else 0; and the loss."""
        a, y = self.logits(x), self.check_y(y, len(x), needed=True)
        return {"accuracy": (a.argmax(1) == y).to(a.dtype), "cross entropy": F.cross_entropy(a, y, reduction="none")}

    @torch.no_grad()
    def panels(self, splits):
        """Images of test, and those of the largest loss."""
        test = splits["test"]
        batches = zip(test.x.split(1000), test.y.split(1000), strict=True)
        loss = torch.cat([self.loss(x.to(self.device), y.to(self.device)) for x, y in batches])
        hardest = loss.argsort(descending=True)[:64].cpu()
        return {"data (test)": test.x[:64], f"hardest for {self.title} (test)": test.x[hardest]}, 8


RECIPES = {  # tuned on the valid split alone, on its grey images and on both ways of making them binary
    "digits": {
        "data": "digits",
        "model": dict(width=24, dropout=0.5, binary=0.5),
        "train": dict(steps=3000, batch=64, rate=2e-3, shift=0.5, ema=0.99),
        "threads": 1,
    },
    "mnist": {
        "data": "mnist",
        "model": dict(width=32, features=128, dropout=0.5, binary=0.5),
        "train": dict(steps=20_000, batch=100, rate=1e-3, shift=0.5, ema=0.999, every=500),
    },
    "colour": {  # not tuned
        "data": "images",
        "model": dict(width=32, features=128, dropout=0.5),
        "train": dict(steps=10_000, batch=64, rate=1e-3, shift=0.5, ema=0.999, every=500),
    },
}
