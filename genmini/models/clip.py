"""CLIP: a tower for images and one for texts, whose vectors of an image and of its caption point the same way.

The course, "CLIP"; Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.

    z_n = f(x_n) / |f(x_n)|,   w_m = g(y_m) / |g(y_m)|                                      (1)
    l_nm = s z_n . w_m,   s = exp(a), a learnt                                              (2)
    contrast_n = -(log softmax_m(l_nm)_m=n + log softmax_m(l_mn)_m=n) / 2                   (3)
    a <- min(a, log 100)   after each step                                                  (4)
    swapped_n = log(1 + exp(s z_n . w'_n - l_nn))                                           (5)
    loss_n = contrast_n + c swapped_n                                                       (6)

x_n, y_n are the N images and captions of a batch: (3) is the cross entropy of finding the caption among those of the
batch, and the image among its images. So the loss of an example depends on the others of its batch, and losses of
batches of different N do not compare: it is log N where all vectors are equal. A split is judged in blocks of 1000.
Where torchrun's processes share a batch, N is that of all of them: each learns from its own rows of (3).

(5): random captions do not teach which thing stands left and which right, because other words tell them apart. w'_n is
of y'_n, the caption with its two things exchanged, which is false of the image: "a blue square left of a red circle".
A caption without a relation has none, and its (5) is 0; c is the setting `swapped`.

f is a network of convolutions. g is a causal transformer; it is read at all words and the end of the text, and the mean
of these is taken. The paper reads the end alone; there the blocks of genmini/nets/transformer.py, which add 0 at
initialisation, have read no word yet, and learning was slow.

    room: kernels/info_nce.py, (2) and (3)    networks: genmini/nets/coders.py, genmini/nets/transformer.py
    used by: genmini/models/dalle2.py, genmini/studies/retrieve.py    test: tests/models/test_clip.py
"""

import math

import torch
import torch.nn.functional as F
from torch import distributed, nn
from torch.distributed.nn.functional import all_gather

from genmini import ops
from genmini.data import shapes_captions
from genmini.models._captioned import Captioned
from genmini.nets.coders import coders
from genmini.nets.transformer import Transformer
from genmini.settings import number, whole

AMONG = 64  # captions, or images, among which the right one is to be found
MOST = 100.0  # of s


def nearer(s, same=None, among=AMONG):
    """How many wrong answers are as near as the right one, or nearer: (N,) for rows n of cosines s (N, N).

    Row n is asked among m = n, n + 1, ... n + among - 1, modulo N. same (N, N): which answers are equal to the right
    one, and so not wrong.
    """
    N = len(s)
    n = torch.arange(N, device=s.device)[:, None]
    m = (n + torch.arange(1, min(among, N), device=s.device)) % N
    wrong = ~(s[n, m] < s.diagonal()[:, None])  # NaN finds nothing
    return (wrong if same is None else wrong & ~same[n, m]).sum(1)


def gathered(v):
    """(N, d) of this process -> n, the number of its first row among those of all processes, and all (P N, d), whose
    gradients go back to where they came from. Each process has as many rows."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, v
    return len(v) * distributed.get_rank(), torch.cat(all_gather(v))


class CLIP(Captioned):
    def __init__(self, shape, levels=2, vocabulary=("a",), length=40, latent=64, width=32, text_width=64, blocks=2,
                 heads=4, dropout=0.0, swapped=0.0, device=None, dtype=None):
        """latent: numbers of z and w; width: channels of f, doubled by its further layers; text_width, blocks, heads:
        of g; dropout: in both; swapped: c."""
        whole(2, levels=levels)
        whole(latent=latent, width=width, text_width=text_width)
        number(least=0, swapped=swapped)
        super().__init__(shape, levels, vocabulary, length)
        self.latent, self.swapped = latent, swapped
        self.f, _ = coders("conv", shape, latent, latent, width=width, dropout=dropout)
        self.E = nn.Embedding(len(self.words), text_width)  # the first one is the end's
        self.T = Transformer(length, text_width, blocks, heads, causal=True, dropout=dropout)
        self.G = nn.Linear(text_width, latent, bias=False)
        self.a = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.place(device, dtype)

    # ---- the towers --------------------------------------------------------------------------------------------------

    def encode(self, x, y=None):
        """Images (N, *shape) -> z (N, d), of length 1. y is not read."""
        x, _ = self.check(x)
        return F.normalize(self.f(self.centred(x)), dim=1)  # (1)

    def encode_text(self, y):
        """A text, a list of M, or numbers of words, (L,) or (M, L) -> w (M, d), of length 1"""
        count = len(y) if isinstance(y, list | tuple) or isinstance(y, torch.Tensor) and y.dim() == 2 else 1
        return self._w(self.check_y(y, count, needed=True))

    def states(self, y):
        """Numbers of words (M, L) -> what g has of the words and the end of each text, (M, l, E), and which of them
        there are, (M, l); l: the most that one text has"""
        mask = torch.cat([torch.ones_like(y[:, :1], dtype=torch.bool), y[:, :-1] != 0], 1)  # the words and the end
        longest = int(mask.sum(1).max()) if len(y) else 1
        return self.T(self.E(y[:, :longest])), mask[:, :longest]  # no word reads what fills the row

    def w(self, h, mask):
        """What `states` gives -> w (M, d)"""
        mask = mask[:, :, None]
        return F.normalize(self.G((h * mask).sum(1) / mask.sum(1)), dim=1)  # (1)

    def _w(self, y):
        return self.w(*self.states(y))

    def similarity(self, x, texts):
        """N images and M texts -> their cosines, (N, M)"""
        return self.encode(x) @ self.encode_text(texts).T

    @property
    def s(self):
        return self.a.exp()

    @classmethod
    def cannot(cls, name):
        if name in ("decode", "reconstruct"):
            return f"{cls.__name__} encodes images and decodes no codes"
        return super().cannot(name)

    # ---- learning ----------------------------------------------------------------------------------------------------

    def loss(self, x, y=None):
        """(N, *shape) and N captions -> (N,) in nats: each within this batch."""
        _, y = self.check(x, y, needed=True)
        return self._loss(self.encode(x), self._w(y), y)

    def _loss(self, z, w, y):
        n, z_all, w_all = 0, z, w
        if self.training:
            (n, z_all), (_, w_all) = gathered(z), gathered(w)
        loss = ops.info_nce(z_all, w_all, self.s)[n : n + len(z)]  # (2), (3)
        n, other = self.exchanged(y) if self.swapped else ([], None)
        if not len(n):
            return loss
        s = self.s.to(loss.dtype)
        wrong, right = (s * (z[n] * each).sum(1).to(loss.dtype) for each in (self._w(other), w[n]))
        return loss.index_add(0, n, self.swapped * F.softplus(wrong - right))  # (5), (6)

    def exchanged(self, y):
        """Captions (N, L) -> n, which of them have a relation, and y' (len(n), L): these with its things exchanged. Of
        a vocabulary that is not that of shapes, none."""
        found = {}
        if self.vocabulary == shapes_captions.VOCABULARY:
            other = map(shapes_captions.exchanged, self.words.decode(y))
            found = {n: text for n, text in enumerate(other) if text}
        n = torch.tensor([*found], dtype=torch.int64, device=self.device)
        return n, self.words.encode([*found.values()], self.length).to(self.device)

    def updates(self, batch):
        yield from super().updates(batch)
        with torch.no_grad():
            self.a.clamp_(max=math.log(MOST))  # (4)

    def figures(self, x, y=None, *, k=0):
        """The loss, and 1 where the nearest of 64 captions, or images, is the right one, else 0: the N examples and
        those that follow each."""
        _, y = self.check(x, y, needed=True)
        z, w = self.encode(x), self._w(y)
        s, same = z @ w.T, (y[:, None] == y).all(2)
        right = {"caption found": nearer(s, same), "image found": nearer(s.T, same)}
        return {"loss": self._loss(z, w, y)} | {name: (wrong == 0).to(s.dtype) for name, wrong in right.items()}

    def report(self, x, y=None):
        return {"scale": self.s.item()}

    @torch.no_grad()
    def panels(self, splits):
        """Images of test, and those whose captions are the least like them."""
        test = splits["test"]
        batches = zip(test.x.split(1000), test.y.split(1000), strict=True)
        s = torch.cat([(self.encode(x.to(self.device)) * self.encode_text(y)).sum(1) for x, y in batches])
        return {"data (test)": test.x[:64], "the least like their captions (test)": test.x[s.argsort()[:64].cpu()]}, 8


RECIPES = {
    "shapes": {  # at 16 pixels six minutes of a core. Of 20,000 scenes it learnt no shapes in 1200 steps
        "data": "shapes",
        "scenes": 100_000,
        "model": dict(swapped=1.0),
        "train": dict(steps=4000, batch=128, rate=2e-3, ema=0.99, every=500),
        "threads": 1,
    },
}
