"""Translation: is a translated image the right one, where the true counterpart of each image is known?

The digits-unpaired are learnt from without pairs, but the project made Y from X (genmini/data/unpaired.py), so for each
image x_n of a split there is its true y_n, and the split's originals tell the class c_n.

    F right   share of n with  argmax_c p(c | F(y_n)) = c_n,   by digits-v1                 (1)
    G right   the same of  change^-1(G(x_n)),   what G made undone as far as rounding lets  (2)
    F off, G off   |F(y_n) - x_n|, |G(x_n) - y_n|   in levels, a mean over pixels           (3)
    F own, G own   share of n whose F(y_n) is nearer to x_n than to all other x, ...        (4)

A class can be right although the image is another one of this class; (4) counts only the very image. With real images
in the place of F(y_n), (1) is 97.0% on the test split; with true y_n in the place of G(x_n), (2) is 97.0%, too.

    test: tests/project/test_translation.py
"""

import torch

from genmini import data
from genmini.data import unpaired

from .features import network


@torch.no_grad()
def translation(model, split):
    """{name: (n,)}: (1) to (4) of each image of a split of `data.unpaired.OF`, whichever set it is in."""
    real = data.load(unpaired.OF[split.name], split.split)
    x, y = real.x, unpaired.change(real.x, real.levels)
    to = [model.translate(images.to(model.device), y=k).cpu().double() for k, images in enumerate((x, y))]
    judge, values = network(), {}
    for name, made, true in (("F", to[1], x), ("G", to[0], y)):
        plain = unpaired.undo(made.round(), real.levels) if name == "G" else made
        _, logits = judge(plain, real.levels)
        apart = torch.cdist(made.flatten(1), true.double().flatten(1))
        values |= {
            f"{name} right": (logits.argmax(1) == real.y).double(),  # (1), (2)
            f"{name} off": (made - true).abs().flatten(1).mean(1),  # (3)
            f"{name} own": (apart.argmin(1) == torch.arange(len(apart))).double(),  # (4)
        }
    return values
