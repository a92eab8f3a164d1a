"""DALL-E 2: a text becomes the code that CLIP would give to its image, and the code becomes an image.

The course, "DALL.E (2)"; Ramesh et al., "Hierarchical Text-Conditional Image Generation with CLIP Latents", 2022
(unCLIP).

    z = f(x) / |f(x)|,   w, h_1 ... h_l of y    are CLIP's, learnt first; then its weights stay as they are       (1)
    p(x | y) = p(x, z | y) = p(z | y) p(x | z, y)                                           (2)
    p(z | y)    is the prior, by diffusion or number by number; it is learnt next, and stays                      (3)
    c_1 ... c_M = sqrt(d) W z,   c_M+1 ... c_M+l = V h_1, ..., V h_l                        (4)
    F(x_t, t, A(c)) = x_0,   by attention of pixels to A(c_1, ..., c_M+l): p(x | z, y)      (5)
    F <- F(x_t, t) + g (F(x_t, t, z, y) - F(x_t, t))                                        (6)
    z(u) = cos(u q) z_0 + sin(u q) v,   v = (z_1 - cos(q) z_0) / sin(q),   cos(q) = z_0 . z_1                     (7)

z is a function of x, hence (2): a sample is a draw of the prior, and then one of the decoder (5). CLIP is
genmini/models/clip.py, (3) is genmini/models/_priors.py, and the decoder is genmini/models/diffusion.py, with a U-Net
that reads z and the text. A in (4) is a small transformer, "sided" as Imagen's (genmini/models/_painters.py). Codes
have the length 1, and d numbers.

In training the decoder does not see the text of a half of the images (`hide_text`), and neither z nor the text of a
tenth (`hide`), for which learnt vectors c_1 ... c_M stand. So it can also draw of z alone. `variations` of an image are
draws of its z: what CLIP keeps of an image stays, and the rest is drawn anew. `interpolate` goes from z_0 to z_1 on
the sphere, by (7), from the same noise. Imagen has no z: its decoder reads the text alone, as a language model has it.

    networks: genmini/nets/transformer.py, genmini/nets/unet.py    study: genmini/studies/vary.py
    test: tests/models/test_dalle2.py
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from genmini.models._captioned import Captioned
from genmini.models._painters import Reader
from genmini.models._priors import Denoiser, Numbers, Text
from genmini.models.clip import CLIP
from genmini.nets.transformer import Transformer
from genmini.settings import number, one_of, whole

EXAMPLES = 64  # captions that are kept, to draw from where none is given
M = 4  # vectors that the decoder makes of z
IMAGES = 10_000  # whose codes a prior sees before it learns


def slerp(z_0, z_1, u):
    """Vectors (..., d) of length 1, and u (..., 1) from 0 to 1 -> z(u) of (7), (..., d), of length 1"""
    cosine = (z_0 * z_1).sum(-1, keepdim=True)
    across = z_1 - cosine * z_0
    q = torch.atan2(across.norm(dim=-1, keepdim=True), cosine)
    return (u * q).cos() * z_0 + (u * q).sin() * F.normalize(across, dim=-1)  # (7)


class Decoder(Reader):
    """A Reader of a code and a text: y (N, l, d + E + 1) is z beside each vector of the text, and 1 where there is one.
    A z of zeros is hidden."""

    def __init__(self, shape, levels, length, latent, words, vector, adapter, heads, device=None, dtype=None,
                 **settings):
        """length: of the longest text; latent: d; words: E; vector: the length of c; adapter, heads: of A."""
        super().__init__(shape, levels, context=vector, placed=True, device=device, dtype=dtype, **settings)
        self.latent = latent
        self.W, self.V = nn.Linear(latent, M * vector), nn.Linear(words, vector)
        self.A = Transformer(M + length, vector, adapter, heads, sided=True)
        for part in (self.W, self.V, self.A):
            part.to(device=self.device, dtype=self.dtype)
        self.none = nn.Parameter(torch.randn(M, vector).to(self.W.weight))  # in the place of a hidden z

    def hidden(self, y, which):
        return y * ~which[:, None, None]

    def read(self, y):
        z, h, there = y[:, 0, : self.latent], y[:, :, self.latent : -1], y[:, :, -1] > 0
        c = self.W(math.sqrt(self.latent) * z).unflatten(1, (M, -1))
        c = torch.where(z.any(1)[:, None, None], c, self.none)
        mask = torch.cat([torch.ones_like(there[:, :1]).expand(-1, M), there], 1)
        return self.A(torch.cat([c, self.V(h)], 1), mask), mask  # (4)


class DALLE2(Captioned):
    stages = "clip", "prior", "decoder"
    sample_note = "no caption was given: they are drawn from those of the training data"

    def __init__(self, shape, levels=2, vocabulary=("a",), length=40, latent=64, clip_width=32, text_width=64,
                 text_blocks=2, heads=4, swapped=1.0, prior="diffusion", prior_width=64, prior_blocks=2,
                 prior_guidance=1.0, directions=16, bins=16, vector=64, adapter=1, width=32, multiples=(1, 2, 2),
                 blocks=2, attention=2, patch=1, T=1000, schedule="cosine", target="x0", loss="weighted",
                 times="middle", hide=0.1, hide_text=0.5, dropout=0.0, sampler="ddpm", draws=50, guidance=2.0,
                 guided=0.7, threshold="static", device=None, dtype=None):
        """latent: d; clip_width, text_width, text_blocks, swapped: width, text_width, blocks, swapped of CLIP; heads:
        of each transformer; prior: "diffusion" or "autoregressive", by a transformer of prior_width numbers a vector;
        prior_guidance: its g; directions, bins: D' and B of the autoregressive one; vector, adapter: length of c and
        blocks of A; width to patch: of the U-Net; hide, hide_text: as above. T to threshold: as in Diffusion; T,
        schedule, sampler and draws are the prior's, too; times: of (5); guidance, guided: g of (6), and where."""
        whole(latent=latent, prior_width=prior_width, directions=directions, vector=vector)
        whole(0, prior_blocks=prior_blocks)
        whole(2, bins=bins)
        one_of(("diffusion", "autoregressive"), prior=prior)
        number(least=0, most=1, hide_text=hide_text)
        number(prior_guidance=prior_guidance)
        super().__init__(shape, levels, vocabulary, length)
        self.latent, self.hide_text, self.prior_guidance = latent, hide_text, prior_guidance
        on = dict(device=device, dtype=dtype)
        self.clip = CLIP(shape, levels, vocabulary, length, latent, clip_width, text_width, text_blocks, heads,
                         dropout, swapped, **on)
        path = dict(T=T, schedule=schedule, sampler=sampler, draws=draws)
        self.decoder = Decoder(shape, levels, length, latent, text_width, vector, adapter, heads, target=target,
                               loss=loss, times=times, width=width, multiples=multiples, blocks=blocks,
                               attention=attention, patch=patch, hide=hide, dropout=dropout, guidance=guidance,
                               guided=guided, threshold=threshold, **path, **on)
        own = latent, text_width, length, prior_width, prior_blocks, heads, dropout, hide
        numbers = dict(directions=directions, bins=bins)
        self.prior = Denoiser(*own, **path, **on) if prior == "diffusion" else Numbers(*own, **numbers, **on)
        self.register_buffer("stage", torch.tensor(0, device=device))  # the number of the one that is learnt
        self.register_buffer("examples", torch.zeros(EXAMPLES, length, dtype=torch.int64, device=device))

    @classmethod
    def cannot(cls, name):
        if name in ("decode", "reconstruct"):
            return f"{cls.__name__} draws images of a code, and has no mean image of it"
        return super().cannot(name)

    # ---- what is learnt, stage by stage ------------------------------------------------------------------------------

    @property
    def parts(self):
        """What is learnt in each stage"""
        return self.clip, self.prior, self.decoder

    def begin(self, stage, train):
        """From now on `loss` is that of this stage, and only what it learns has gradients."""
        self.stage.fill_(self.stages.index(stage))
        self.examples.copy_(train.y[torch.arange(EXAMPLES) % len(train)])
        if stage == "prior":
            self.clip.eval()
            self.prior.begin(torch.cat([self.encode(x.to(self.device)) for x in train.x[:IMAGES].split(1000)]))
        for name, part in zip(self.stages, self.parts, strict=True):
            part.requires_grad_(name == stage)

    @property
    def unit(self):
        return self.parts[self.stage].unit

    def train(self, mode=True):
        super().train(mode)
        for part in self.parts[: self.stage]:
            part.eval()
        return self

    def updates(self, batch):
        if self.stage:
            yield "loss", self.loss(batch.x, batch.y).mean(), self.parts[self.stage].parameters()
        else:
            yield from self.clip.updates(batch)

    def loss(self, x, y=None):
        """(N, *shape) and N captions -> (N,): of CLIP in the first stage, then of the prior (3), then of (5)"""
        x, y = self.check(x, y, needed=True)
        if not self.stage:
            return self.clip.loss(x, y)
        z, text = self.encode(x), self.text(y)
        if self.stage == 1:
            return self.prior.loss(z, text)  # (3)
        if self.training:
            shown = torch.rand(len(z), 1, device=z.device) >= self.hide_text
            text = text._replace(mask=text.mask & shown)
        return self.decoder.loss(x, self.joined(z, text))  # (5)

    def figures(self, x, y=None, *, k=0):
        """Of what has been learnt: the error of (5), the loss of the prior, the cosine of its draw with the code of the
        image, and CLIP's figures, (N,) each"""
        x, y = self.check(x, y, needed=True)
        z, text, found = self.encode(x), self.text(y), {}
        if self.stage == 2:
            found["error"] = self.decoder.loss(x, self.joined(z, text))
        if self.stage:
            drawn = self.prior.sample(text, self.prior_guidance)
            found |= {"prior": self.prior.loss(z, text), "cosine": (drawn * z).sum(1)}
        of_clip = self.clip.figures(x, y)
        return found | {"contrast": of_clip.pop("loss")} | of_clip

    # ---- codes -------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, x, y=None):
        """(N, *shape) -> z (N, d), of length 1. y is not read."""
        return self.clip.encode(x)  # (1)

    @torch.no_grad()
    def encode_text(self, y):
        """A text, a list of N, or numbers of words (N, L) -> w (N, d), of length 1"""
        return self.clip.encode_text(y)

    @torch.no_grad()
    def text(self, y):
        """Numbers of words (N, L) -> what the prior and the decoder read of them"""
        h, mask = self.clip.states(y)
        return Text(self.clip.w(h, mask), h, mask)  # (1)

    def joined(self, z, text):
        """Codes (N, d) and their texts -> the y of a Decoder"""
        z = z[:, None].expand(-1, text.h.shape[1], -1)
        return torch.cat([z, text.h, text.mask[:, :, None].to(z)], 2)

    # ---- samples -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample_z(self, n, y=None, *, guidance=None):
        """n draws of the prior, z (n, d), of length 1. y: as in `sample`; guidance: g of the prior"""
        guidance = self.prior_guidance if guidance is None else guidance
        number(guidance=guidance)
        return self.prior.sample(self.text(self._captions(y, n)), guidance)  # (3)

    @torch.no_grad()
    def sample(self, n, y=None, *, z=None, how=None, steps=None, guidance=None, threshold=None, noise=None, film=None,
               eta=None):
        """n draws, (n, *shape) uint8, of a text for all, of a list of n, or of their numbers; None draws captions of
        the training data. z (n, d): codes of length 1 in the place of the prior's draws; then y may be None, for no
        text. how, ..., eta: as of Diffusion; guidance: g of (6)."""
        if z is None:
            y = self._captions(y, n)
            z = self.sample_z(n, y)  # (2)
        elif len(self.check_z(z)) != n:
            raise ValueError(f"z must hold n = {n} codes, got {len(z)}")
        text = self.text(self.check_y(y, n) if y is not None else torch.zeros_like(self.examples[:1]).expand(n, -1))
        text = text if y is not None else text._replace(mask=torch.zeros_like(text.mask))
        return self.decoder.sample(n, self.joined(z.to(text.h), text), how=how, steps=steps, guidance=guidance,
                                   threshold=threshold, noise=noise, film=film, eta=eta)  # (6)

    def _captions(self, y, n):
        if y is None:
            y = self.examples[torch.randint(EXAMPLES, (n,), device=self.device)]
        return self.check_y(y, n)

    def variations(self, x, n):
        """(N, *shape) -> (N, n, *shape): draws of the decoder of the code of each image, without a text"""
        whole(0, n=n)
        z = self.encode(x).repeat_interleave(n, 0)
        return self.sample(len(z), z=z).unflatten(0, (len(x), n))

    def interpolate(self, a, b, n):
        """M images, or a list of M texts, twice -> (M, n, *shape): draws of n codes from those of a to those of b, by
        (7), from the same noise and by dpm, which draws no more. The code of a text is a draw of the prior."""
        whole(0, n=n)
        if len(a) != len(b):
            raise ValueError(f"there must be as many ends as beginnings, got {len(a)} and {len(b)}")
        a, b = (self.sample_z(len(each), each) if isinstance(each, list) else self.encode(each) for each in (a, b))
        z = slerp(a[:, None], b[:, None], torch.linspace(0, 1, n, device=a.device, dtype=a.dtype)[:, None])
        noise = torch.randn(len(a), *self.shape, device=a.device, dtype=a.dtype).repeat_interleave(n, 0)
        return self.sample(len(a) * n, z=z.flatten(0, 1), noise=noise, how="dpm").unflatten(0, (len(a), n))

    @torch.no_grad()
    def panels(self, splits):
        """Images of test, what their captions become, and what their codes become without captions"""
        test, rows = splits["test"], min(8, len(splits["test"]))
        x, y = (each[: rows**2].to(self.device) for each in (test.x, test.y))
        shown = {"data (test)": test.x[: rows**2]}
        if self.stage == 2:
            shown[f"{self.title}, by the same captions"] = self.sample(len(x), y).cpu()
            shown["by the codes of the images"] = self.sample(len(x), z=self.encode(x)).cpu()
        return shown, rows


RECIPES = {
    # of 16x16 by the time of a step an hour of a core; the decoder learns as long as Imagen's smallest images
    "shapes": {
        "data": "shapes",
        "scenes": 100_000,
        "model": {},
        "train": dict(steps=4000, batch=128, rate=2e-3, ema=0.99, every=500),
        "prior": dict(steps=4000, batch=64, rate=2e-3, ema=0.99, every=500),
        "decoder": dict(steps=16_000, batch=32, rate=1e-3, ema=0.999, every=1000),
        "threads": 1,
    },
}
