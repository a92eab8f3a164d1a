"""Imagen: a diffusion of images, given texts as a language model represents them that was trained on text alone.

The course, "Imagen"; Saharia et al., "Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding",
2022.

    p(y) = prod_l p(y_l | y_<l)    is learnt first, from text alone; then its weights stay as they are            (1)
    e_l = V (h_l - m),   V Cov[h] V^T = I                                                   (2)
    c_1 ... c_l = A(W e_1, ..., W e_l)                                                      (3)
    F(x_t, t, c) = x_0,   by attention of pixels to c_1 ... c_l                             (4)
    F <- F(x_t, t) + w (F(x_t, t, c) - F(x_t, t))                                           (5)

h_l holds the outputs of all layers of the language model (genmini/models/language.py) at place l, side by side. They
depend on the words before place l alone. Most of the variance of h lies in a few directions, which tell the next word;
those that tell which colour belongs to which noun vary little. After (2) all directions vary alike. m and V are
computed from texts once, when the language model has been trained, and do not change afterwards. A in (3) is a small
transformer; it is learnt with the diffusion, and so is W. One half of its heads reads what stands before a word, the
other half what stands after it ("sided"), because "left of" says one thing of the noun before it and the converse of
the noun after it. With heads that read both sides the diffusion learns which colours there are and not which belongs
where: after 6000 steps of 32 channels, with noise of t = 700, the error was smaller for the caption than for it with
its two things exchanged for 56% of 200 valid images of a relation, and with sided heads for 84%.

(4) is genmini/models/diffusion.py's: the loss, the noise, guidance (5), samplers and thresholds. Where a text is hidden
in training, the network reads h_1 alone, the state before any word. So does F(x_t, t) in (5). With a large w estimates
of x_0 leave [-1, 1]; "static" clips them, "dynamic" divides by a quantile of their size (kernels/ddim_step.py).

    network: genmini/nets/unet.py    text: genmini/data/captions.py    measure: genmini/metrics/captions.py
    test: tests/models/test_imagen.py
"""

import torch
from torch import nn

from genmini.data import captions
from genmini.models._captioned import Captioned
from genmini.models.diffusion import Diffusion
from genmini.models.language import Language
from genmini.nets.transformer import Transformer
from genmini.settings import whole

EXAMPLES = 64  # captions that are kept, to draw from where none is given
TEXTS = 4000  # of which (2) is taken
LEAST = 1e-4  # of the largest variance of h: what varies less is not made larger


class Painter(Diffusion):
    """A diffusion with vectors in the place of a class: y (N, L, E + 1), the last number 1 where there is a vector."""

    captions = 1

    def __init__(self, shape, levels, length, E, vector, adapter, heads, device=None, dtype=None, **settings):
        """E: of y; vector: the length of c_l; adapter, heads: blocks and heads of A."""
        super().__init__(shape, levels, context=vector, placed=True, device=device, dtype=dtype, **settings)
        self.W, self.A = nn.Linear(E, vector), Transformer(length, vector, adapter, heads, sided=True)
        nn.init.normal_(self.W.weight, std=E**-0.5)  # W e_l then vary by about 1
        nn.init.normal_(self.A.position, std=0.5)
        for part in (self.W, self.A):
            part.to(device=self.device, dtype=self.dtype)

    def x_and_y(self, x, y):
        return self.check(x)[0], y

    def hidden(self, y, which):
        there = y[:, :, -1:] * ~which[:, None, None]
        there[:, :1] = 1  # h_1 stays
        return torch.cat([y[:, :, :-1], there], 2)

    def read(self, y):
        mask = y[:, :, -1] > 0
        return self.A(self.W(y[:, :, :-1]), mask), mask  # (3)

    def estimate(self, x, log_snr, y):
        c, mask = y
        return self.net(x, log_snr, context=c, mask=mask)  # (4)

    def classes_or_drawn(self, y, n):
        return y


class Imagen(Captioned):
    stages = "language", "base"
    sample_note = "no caption was given: they are drawn from those of the training data"

    def __init__(self, shape, levels=2, vocabulary=("a",), length=40, text_width=96, text_blocks=4, text_heads=4,
                 directions=64, vector=128, adapter=2, width=64, multiples=(1, 2), blocks=1, attention=2, patch=2,
                 T=1000, schedule="cosine", target="x0", hide=0.1, dropout=0.0, sampler="dpm", draws=20, guidance=3.0,
                 threshold="static", device=None, dtype=None):
        """text_...: of the language model; directions: how many numbers e_l has, at most; vector: how many c_l has;
        adapter: blocks of A; width to patch: of the U-Net; hide: the share of captions hidden in training. T, schedule,
        target and the rest: as in Diffusion; guidance: w of (5)."""
        whole(directions=directions, vector=vector)
        super().__init__(shape, levels, vocabulary, length)
        on = dict(device=device, dtype=dtype)
        self.language = Language((length,), len(self.words), self.vocabulary, text_width, text_blocks, text_heads, **on)
        H = (text_blocks + 1) * text_width
        E = min(directions, H)
        self.base = Painter(shape, levels, length, E, vector, adapter, text_heads, T=T, schedule=schedule,
                            target=target, width=width, multiples=multiples, blocks=blocks, attention=attention,
                            patch=patch, hide=hide, dropout=dropout, sampler=sampler, draws=draws, guidance=guidance,
                            threshold=threshold, **on)
        self.register_buffer("m", torch.zeros(H, **on))
        self.register_buffer("V", torch.eye(E, H, **on))
        self.register_buffer("stage", torch.tensor(0, device=device))  # the number of the one that is learnt
        self.register_buffer("examples", torch.zeros(EXAMPLES, length, dtype=torch.int64, device=device))
        self.texts = None  # that the language model learns from

    # ---- what is learnt, stage by stage ------------------------------------------------------------------------------

    def begin(self, stage, train):
        """From now on `loss` is that of this stage, and only what it learns has gradients."""
        self.stage.fill_(self.stages.index(stage))
        self.texts = self._texts_of(train)
        if self.stage:
            self.examples.copy_(train.y[torch.arange(EXAMPLES) % len(train)])
            self._whiten()
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith("language.") == (not self.stage))

    def _texts_of(self, train):
        """-> (T, L): for shapes those of `captions`, which say more than the images show; else all captions of train"""
        if train.scenes is not None and self.vocabulary == captions.WORDS.vocabulary:
            return captions.numbers("train", captions.COUNT["train"]).to(self.device)
        return train.ways.flatten(0, 1)

    @torch.no_grad()
    def _whiten(self):
        """Take m and V of (2) from texts."""
        h, mask = self.language.eval().states(self.texts[:TEXTS], layers=True)
        h = h[mask].double()
        variance, U = torch.linalg.eigh(h.T.cov())  # rising
        variance, U = variance[-len(self.V) :], U[:, -len(self.V) :]
        self.m.copy_(h.mean(0))
        self.V.copy_((U * variance.clamp(min=LEAST * variance[-1]).rsqrt()).T)  # (2)

    @property
    def unit(self):
        return self.base.unit if self.stage else self.language.unit

    def train(self, mode=True):
        super().train(mode)
        if self.stage:
            self.language.eval()
        return self

    def updates(self, batch):
        if self.stage:
            yield "loss", self.loss(batch.x, batch.y).mean(), self.base.parameters()
            return
        y = batch.y
        if self.texts is not None:
            y = self.texts[torch.randint(len(self.texts), (len(y),), device=self.device)]
        yield "loss", self.language.loss(y).mean(), self.language.parameters()

    def loss(self, x, y=None):
        """(N, *shape) and N captions -> (N,): -log of (1) in the first stage, then the error of (4)"""
        x, y = self.check(x, y, needed=True)
        return self.base.loss(x, self.states(y)) if self.stage else -self.language.log_prob(y)  # (1)

    def report(self, x, y=None):
        return {} if self.stage else self.language.report(y)

    def figures(self, x, y=None, *, k=0):
        """The error of (4), once it is learnt, and the nats of the captions themselves, (N,) each"""
        of_base = {"error": self.loss(x, y)} if self.stage else {}
        return of_base | {"text": -self.language.log_prob(self.check_y(y, len(x), needed=True))}

    # ---- the text ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def states(self, y):
        """Texts (N, L) -> what a Painter takes of them, (N, l, E + 1), l the most that one of them has"""
        h, mask = self.language.states(y, layers=True)
        e = (h - self.m) @ self.V.T  # (2)
        longest = int(mask.sum(1).max()) if len(y) else 1
        return torch.cat([e, mask[:, :, None].to(e)], 2)[:, :longest]

    # ---- samples -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, n, y=None, *, how=None, steps=None, guidance=None, threshold=None, noise=None, film=None,
               eta=None):
        """n draws, (n, *shape) uint8, of a text for all, of a list of n, or of their numbers; None draws captions of
        the training data. how, ..., eta: as of Diffusion; guidance: w of (5)."""
        if y is None:
            y = self.examples[torch.randint(EXAMPLES, (n,), device=self.device)]
        y = self.states(self.check_y(y, n))
        return self.base.sample(n, y, how=how, steps=steps, guidance=guidance, threshold=threshold, noise=noise,
                                film=film, eta=eta)  # (5)

    @torch.no_grad()
    def panels(self, splits):
        """Images of test, and what their captions become"""
        test, rows = splits["test"], min(8, len(splits["test"]))
        shown = {"data (test)": test.x[: rows**2]}
        if self.stage:
            made = self.sample(len(shown["data (test)"]), test.y[: rows**2].to(self.device))
            shown[f"{self.title}, by the same captions"] = made.cpu()
        return shown, rows


RECIPES = {
    "shapes": {  # not measured as a whole. With width=32 and 9000 steps, 20 minutes of a shared core, the order was
        # right in 142 of 142 samples with both colours on the right axis; most shapes were too blurred to be read
        "data": "shapes",
        "model": dict(vector=64, adapter=1),
        "train": dict(steps=1000, batch=64, rate=2e-3, every=250),
        "base": dict(steps=14_000, batch=32, rate=1e-3, ema=0.999, every=1000),
        "threads": 1,
    },
}
