"""Imagen: a diffusion of images, given texts as a language model represents them that was trained on text alone.

The course, "Imagen"; Saharia et al., "Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding",
2022.

    p(y) = prod_l p(y_l | y_<l)    is learnt first, from text alone; then its weights stay as they are            (1)
    e_l = V (h_l - m),   V Cov[h] V^T = I                                                   (2)
    F(x_t, t, e_1 ... e_l) = x_0,   of small images                                         (3)
    F <- F(x_t, t) + w (F(x_t, t, e) - F(x_t, t))                                           (4)
    F'(x_t, t, e, d) = x_0,   d the half of x_0 with a little noise: images twice as large  (5)
    x <- x + up(x' - half(x)),   x' the image that was enlarged: then half(x) = x'          (6)

h_l holds the outputs of all layers of the language model (genmini/models/language.py) at place l, side by side. They
depend on the words before place l alone. Most of the variance of h lies in a few directions, which tell the next word;
those that tell which colour belongs to which noun vary little. After (2) all directions vary alike. m and V are
computed from texts once, when the language model has been trained, and do not change afterwards.

(3) and (5) are diffusions that read e: genmini/models/_painters.py. The smallest images are those that (3) draws, 16x16
pixels of images of 16, 32 and 64; (5) makes 16x16 to 32x32, and another network by the same rule 32x32 to 64x64. Each
is a stage of its own, and learns from the images of the data, not from samples. By (6) what is there cannot change
where an image is enlarged once more (Wang et al., "Zero-Shot Image Restoration Using Denoising Diffusion Null-Space
Model", 2023). The last network has the last word, since (6) leaves fringes at edges.

Where a text is hidden in training, a network reads e_1 alone, of the state before any word. So does F(x_t, t) in (4).
With a large w estimates of x_0 leave [-1, 1]; "static" clips them, "dynamic" divides by a quantile of their size
(kernels/ddim_step.py). w counts where s_t > 0.7, where it is decided which things there are and where; at less noise it
would blur and break their edges
(Kynkäänniemi et al., "Applying Guidance in a Limited Interval Improves Sample and Distribution Quality", 2024).

    network: genmini/nets/unet.py    text: genmini/data/captions.py    measure: genmini/metrics/captions.py
    test: tests/models/test_imagen.py, tests/models/test_imagen_larger.py
"""

import torch
import torch.nn.functional as F
from torch import nn

from genmini.data import captions
from genmini.models._captioned import Captioned
from genmini.models._painters import Enlarger, Painter
from genmini.models.language import Language
from genmini.settings import image, whole

EXAMPLES = 64  # captions that are kept, to draw from where none is given
TEXTS = 4000  # of which (2) is taken
LEAST = 1e-4  # of the largest variance of h: what varies less is not made larger
SMALL = 16  # pixels: smaller sides are not halved to


def halved(shape):
    """Of an image -> the shapes it is drawn in, the smallest first: halves, two at most, of SMALL pixels or more"""
    shapes = [tuple(shape)]
    while len(shapes) < 3 and all(side % 2 == 0 and side >= 2 * SMALL for side in shapes[0][-2:]):
        shapes.insert(0, (*shape[:-2], *(side // 2 for side in shapes[0][-2:])))
    return shapes


def repeated(x, shape):
    """(N, *) images -> (N, *shape): each pixel as a square of the same"""
    k = shape[-1] // x.shape[-1]
    return x.repeat_interleave(k, -1).repeat_interleave(k, -2)


class Imagen(Captioned):
    stages = "language", "base", "twice", "again"  # the last two of images of 32 pixels a side, and of 64
    sample_note = "no caption was given: they are drawn from those of the training data"

    def __init__(self, shape, levels=2, vocabulary=("a",), length=40, text_width=96, text_blocks=4, text_heads=4,
                 directions=64, vector=64, adapter=1, heads=4, width=32, multiples=(1, 2, 2), blocks=2,
                 attention=2, patch=1, larger_width=16, noise=0.1, larger_draws=10, T=1000, schedule="cosine",
                 target="x0", loss="weighted", times="middle", hide=0.1, dropout=0.0, sampler="ddpm", draws=50,
                 guidance=3.0, guided=0.7, threshold="static", device=None, dtype=None):
        """text_...: of the language model; directions: how many numbers e_l has, at most; vector: how many c_l has;
        adapter, heads: blocks and heads of A; width to patch: of the U-Net of (3); larger_width: of those of (5), which
        halve an image down to half of the smallest one, and attend there; noise: of d, where images are drawn;
        larger_draws: steps of (5). times: of (3); hide: the share of captions hidden in training. T, schedule, target
        and the rest: as in Diffusion; guidance, guided: w of (4), and where; (5) has none."""
        whole(directions=directions, vector=vector)
        super().__init__(shape, levels, vocabulary, length)
        on = dict(device=device, dtype=dtype)
        self.language = Language((length,), len(self.words), self.vocabulary, text_width, text_blocks, text_heads, **on)
        H = (text_blocks + 1) * text_width
        E = min(directions, H)
        shapes = halved(shape)
        self.stages = Imagen.stages[: 1 + len(shapes)]
        same = dict(levels=levels, length=length, E=E, vector=vector, adapter=adapter, heads=heads, T=T,
                    schedule=schedule, target=target, loss=loss, hide=hide, dropout=dropout, sampler=sampler,
                    threshold=threshold, **on)
        self.base = Painter(shapes[0], width=width, multiples=multiples, blocks=blocks, attention=attention,
                            patch=patch, times=times, draws=draws, guidance=guidance, guided=guided, **same)
        self.larger = nn.ModuleList(
            Enlarger(each, noise=noise, width=larger_width, multiples=(1, 2, *[2] * i), attention=1,
                     draws=larger_draws, **same) for i, each in enumerate(shapes) if i)
        self.register_buffer("m", torch.zeros(H, **on))
        self.register_buffer("V", torch.eye(E, H, **on))
        self.register_buffer("stage", torch.tensor(0, device=device))  # the number of the one that is learnt
        self.register_buffer("examples", torch.zeros(EXAMPLES, length, dtype=torch.int64, device=device))
        self.texts = None  # that the language model learns from

    # ---- what is learnt, stage by stage ------------------------------------------------------------------------------

    @property
    def parts(self):
        """What is learnt in each stage"""
        return self.language, self.base, *self.larger

    @property
    def learnt(self):
        """What is learnt in this stage"""
        return self.parts[self.stage]

    def begin(self, stage, train):
        """From now on `loss` is that of this stage, and only what it learns has gradients."""
        self.stage.fill_(self.stages.index(stage))
        self.texts = self._texts_of(train)
        if self.stage:
            self.examples.copy_(train.y[torch.arange(EXAMPLES) % len(train)])
        if stage == "base":
            self._whiten()
        for part in self.parts:
            part.requires_grad_(part is self.learnt)

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
        return self.learnt.unit

    def train(self, mode=True):
        super().train(mode)
        for part in self.parts[: self.stage]:
            part.eval()
        return self

    def updates(self, batch):
        if self.stage:
            yield "loss", self.loss(batch.x, batch.y).mean(), self.learnt.parameters()
            return
        y = batch.y
        if self.texts is not None:
            y = self.texts[torch.randint(len(self.texts), (len(y),), device=self.device)]
        yield "loss", self.language.loss(y).mean(), self.language.parameters()

    def loss(self, x, y=None):
        """(N, *shape) and N captions -> (N,): -log of (1) in the first stage, then the error of (3), then of (5)"""
        x, y = self.check(x, y, needed=True)
        if not self.stage:
            return -self.language.log_prob(y)  # (1)
        return self.learnt.loss(self.means(x, self.learnt.shape), self.states(y))  # (3), (5)

    def means(self, x, shape):
        """(N, *self.shape) in levels -> (N, *shape): the means of squares of pixels, in levels"""
        return self._means(x.view(-1, *self.shape), shape).round()

    def _means(self, x, shape):
        x = x.to(self.dtype).view(-1, *image(x.shape[1:]))
        return F.adaptive_avg_pool2d(x, image(shape)[1:]).view(-1, *shape)

    def fitted(self, x, small):
        """(N, *) and smaller images (N, *), in levels -> x with the means `small`"""
        moved = x.to(self.dtype) + repeated(small - self._means(x, small.shape[1:]), x.shape)  # (6)
        return moved.round().clamp(0, self.levels - 1).to(x.dtype)

    def report(self, x, y=None):
        return {} if self.stage else self.language.report(y)

    def figures(self, x, y=None, *, k=0):
        """The errors of (3) and (5), once they are learnt, and the nats of the captions themselves, (N,) each"""
        x, y = self.check(x, y, needed=True)
        e = self.states(y)
        learnt = list(zip(self.stages, self.parts, strict=True))[1 : self.stage + 1]
        errors = {f"error of {name}": part.loss(self.means(x, part.shape), e) for name, part in learnt}
        return errors | {"text": -self.language.log_prob(y)}

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
        the training data. how, ..., eta: as of Diffusion; guidance: w of (4). noise: of the smallest images, (n,
        *base.shape)."""
        if y is None:
            y = self.examples[torch.randint(EXAMPLES, (n,), device=self.device)]
        x, e = None, self.states(self.check_y(y, n))
        same = dict(how=how, steps=steps, threshold=threshold, eta=eta)
        parts = self.parts[1 : max(1, self.stage) + 1]
        for part in parts:
            given = dict(noise=noise, guidance=guidance) if x is None else dict(x=repeated(x, part.shape))
            frames = None if film is None else []
            drawn = part.sample(n, e, film=frames, **same, **given)  # (4), (5)
            x = drawn if x is None or part is parts[-1] else self.fitted(drawn, x)
            if film is not None:
                film += [repeated(frame, self.shape) for frame in frames]
        return repeated(x, self.shape)

    @torch.no_grad()
    def panels(self, splits):
        """Images of test, and what their captions become"""
        test, rows = splits["test"], min(8, len(splits["test"]))
        shown = {"data (test)": test.x[: rows**2]}
        if self.stage:
            made = self.sample(len(shown["data (test)"]), test.y[: rows**2].to(self.device))
            shown[f"{self.title}, by the same captions"] = made.cpu()
        return shown, rows


def _recipe(rate, base, **model):
    """Of 64x64 images four stages, of 16x16 the first two"""
    larger = dict(steps=4000, batch=16, rate=1e-3, ema=0.999, every=1000)
    return {
        "data": "shapes",
        "model": model,
        "train": dict(steps=1000, batch=64, rate=rate, every=250),
        "base": dict(steps=base, batch=32, rate=1e-3, ema=0.999, every=1000),
        "twice": larger,
        "again": larger,
        "threads": 1,
    }


RECIPES = {
    "shapes": _recipe(2e-3, 24_000),  # of 64x64 in 107 minutes of one thread, on a machine that others used, too
    # sizes S, M and L of the language model, with the rates of its own recipes; what draws is the same
    "encoder-s": _recipe(4e-3, 8000, text_width=16, text_blocks=1, text_heads=1),
    "encoder-m": _recipe(2e-3, 8000, text_width=96, text_blocks=4, text_heads=4),
    "encoder-l": _recipe(1e-3, 8000, text_width=192, text_blocks=6, text_heads=6),
}
