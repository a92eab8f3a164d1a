"""A language model: a causal transformer that predicts the next word, from text alone and no image.

The course, "Imagen": an encoder "à prédire le prochain mot d'une phrase. Aucune image!"; Bengio et al., "A Neural
Probabilistic Language Model", 2003; Radford et al., "Improving Language Understanding by Generative Pre-Training",
2018.

    p(x) = prod_{l=1}^{e} p(x_l | x_<l),   x_e = 0 the end of the text, or e = L            (1)
    h_1 ... h_L = T(E_start, E_x_1, ..., E_x_L-1)                                           (2)
    p(x_l = k | x_<l) = exp(a_k) / sum_j exp(a_j),   a = W h_l + b                          (3)
    x_l = number of k < K - 1 with u_l >= p(x_l <= k | x_<l)                                (4)
    perplexity = exp(-sum_n log p(x_n) / sum_n e_n)                                         (5)

x_l are the numbers of words (genmini/data/text.py), K of them with 0. (1) is the factorisation of NADE, MADE and
PixelCNN, with words for pixels; where these mask weights and filters, attention in T leaves later words out. A row ends
at its first 0: what fills the rest has no probability of its own, and the p(x) of all texts sum to one. (5) is per
word, the end counted as one: of a text of K equally likely words it is K. (4) turns uniform noise u into a sample.

Another model reads a text through `states`: h_l and which of them were trained. h_1 is of E_start, a vector of its own
that stands before every text, and h_l+1 has read the words up to x_l; the last of them has read the whole text. The
start is fed there as here: without it T sees sequences that it never saw in training, and what it gives is useless.

There is no room of its own: attention and matrix products are fused in PyTorch, and (3) is genmini/outputs.py's.

    network: genmini/nets/transformer.py    text: genmini/data/captions.py    test: tests/models/test_language.py
"""

import torch
import torch.nn.functional as F
from torch import nn

from genmini import outputs
from genmini.data import text
from genmini.models._judge import judge
from genmini.models._levels import noise
from genmini.models._model import Model
from genmini.nets.transformer import Transformer
from genmini.settings import whole


class Language(Model):
    of_text = True

    def __init__(self, shape, levels=2, vocabulary=(), width=96, blocks=4, heads=4, dropout=0.0, device=None,
                 dtype=None):
        """shape: (L,), the words of a text and its end; levels: K; vocabulary: the words 1 ... K - 1, which turn text
        into numbers, or none; width to dropout: of T."""
        whole(2, levels=levels)
        whole(width=width)
        if len(shape) != 1:
            raise ValueError(f"shape must be (L,), the length of a text, got {shape}")
        super().__init__(shape, levels)
        if vocabulary and len(vocabulary) != levels - 1:
            raise ValueError(f"levels must be one more than the vocabulary has words, {len(vocabulary)}, got {levels}")
        self.vocabulary = text.Words(vocabulary).vocabulary if vocabulary else ()
        self.E = nn.Embedding(levels + 1, width)  # the last one is the start's
        self.T = Transformer(self.D, width, blocks, heads, causal=True, dropout=dropout)
        self.W = nn.Linear(width, levels)
        self.p = outputs.Levels(levels, dim=-1)
        self.place(device, dtype)

    @classmethod
    def of_data(cls, train, **settings):
        return super().of_data(train, vocabulary=train.words.vocabulary if train.words else (), **settings)

    def check(self, x, y=None, needed=False):
        """As of every model; x may be texts, a list of str."""
        if isinstance(x, list | tuple):
            x = self.numbers(x, len(x))
        x, y = super().check(x, y, needed)
        text.check(x, self.levels)
        return x.long(), y

    def numbers(self, texts, n):
        """One text for all, or n texts, or their numbers -> (n, L) int64 on the model's device"""
        if self.words is None and not isinstance(texts, torch.Tensor):
            raise ValueError("this model has no vocabulary: it takes the numbers of words, not text")
        words = self.words or text.Words(tuple(f"w{k}" for k in range(1, self.levels)))
        return words.rows(texts, n, self.D).to(self.device)

    # ---- the network -------------------------------------------------------------------------------------------------

    def h(self, x, inputs=None):
        """x_1 ... x_l-1 of texts, (N, l - 1) -> h_1 ... h_l, (N, l, E); inputs: as of a Transformer"""
        start = torch.full((len(x), 1), self.levels, device=x.device)
        return self.T(self.E(torch.cat([start, x], 1)), inputs=inputs)  # (2)

    def states(self, x, layers=False):
        """Texts (N, L), or a list of N -> h (N, L, E), and mask (N, L): true for h_1 and for each h that has read one
        word more, from which a word or the end was predicted in training. The others are 0. layers: with what each
        block of T reads before them, (N, L, (blocks + 1) E)."""
        x, _ = self.check(x)
        mask = torch.cat([torch.ones_like(x[:, :1], dtype=torch.bool), x[:, :-1] != 0], 1)
        longest = int(mask.sum(1).max()) if len(x) else 1
        inputs = []
        h = self.h(x[:, : longest - 1], inputs)
        h = (torch.cat([*inputs, h], 2) if layers else h) * mask[:, :longest, None]
        return F.pad(h, (0, 0, 0, self.D - longest)), mask

    # ---- probability -------------------------------------------------------------------------------------------------

    def log_prob(self, x, y=None):
        """Texts (N, L), or a list of N -> (N,) in nats"""
        x, _ = self.check(x, y)
        h, mask = self.states(x)
        log_p = self.p.log_p(self.W(h[mask]), x[mask])  # log of (3)
        return torch.zeros_like(mask, dtype=log_p.dtype).masked_scatter(mask, log_p).sum(1)  # log of (1)

    @torch.no_grad()
    def report(self, x, y=None):
        """The perplexity of all these texts together."""
        words = 1 + (x[:, :-1] != 0).sum().item() / max(1, len(x))  # the mean of e
        return {"perplexity": (judge(self, x).mean() / words).exp().item()}  # (5)

    @torch.no_grad()
    def sample(self, n, y=None, *, u=None, begin=None):
        """n texts, (n, L), uint8 up to 256 words; `words.decode` reads them. u (n, L): uniform noise, u_l decides x_l.
        begin: a text that all begin with, or n of them, or their numbers."""
        self.check_y(y, n)
        u = noise(u, n, self.D, self.device)
        begin = torch.zeros(n, self.D, dtype=torch.long, device=self.device) if begin is None else (
            self.numbers(begin, n))
        x, goes_on = begin.clone(), torch.ones(n, dtype=torch.bool, device=self.device)
        word, past = torch.full((n,), self.levels, device=self.device), [[] for _ in self.T.blocks]
        for l in range(self.D):
            if not goes_on.any():
                break
            h = self.T.next(self.E(word), l, past)  # (2)
            drawn = self.p.draw(self.W(h), u[:, l])  # (4)
            word = x[:, l] = torch.where(begin[:, l] != 0, begin[:, l], drawn * goes_on)
            goes_on = goes_on & (word != 0)
        return x.to(self.p.dtype)


_recipe = lambda steps, rate, **model: {
    "data": "captions",
    "model": model,
    "train": dict(steps=steps, batch=64, rate=rate, every=200),
    "threads": 1,
}
RECIPES = {  # sizes M, S and L of an encoder, whose states other models take
    "captions": _recipe(2000, 2e-3, width=96, blocks=4, heads=4),
    "captions-s": _recipe(2000, 4e-3, width=16, blocks=1, heads=1),
    "captions-l": _recipe(2000, 1e-3, width=192, blocks=6, heads=6),
}
