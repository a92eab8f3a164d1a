"""Diffusion: images become noise little by little; a network learns to undo it, and so noise becomes images.

The course, "Modèles de diffusion", "Classifier-free guidance"; Sohl-Dickstein et al., "Deep Unsupervised Learning
using Nonequilibrium Thermodynamics", 2015; Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020 (DDPM);
Nichol, Dhariwal, 2021 (the cosine); Salimans, Ho, 2022 (v); Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022;
Saharia et al., "Imagen", 2022 (the dynamic threshold).

    q(x_t | x_0) = N(a_t x_0, s_t^2 I),   a_t^2 = prod_{r <= t} 1 - beta_r,   a_t^2 + s_t^2 = 1,   t = 1 ... T    (1)
    linear: beta_t from 0.1 / T to 20 / T;   cosine: a_t ~ cos(pi/2 (t/T + 0.008) / 1.008)                        (2)
    x_t = a_t x_0 + s_t e,   e ~ N(0, I)                                                    (3)
    F(x_t, t) is trained to give e, x_0, v = a_t e - s_t x_0, or EDM's target; hence the estimate x0              (4)
    loss = |F - target|^2 / D,   t uniform on 1 ... T                                       (5)
    -log P(x) <= sum_t L_t,   of genmini/models/_bound.py                                   (6)
    F <- F(x_t, t) + w (F(x_t, t, y) - F(x_t, t))                                           (7)
    x_0 ~ p(x_0 | c),   c = c(x_0):   F(x_t, t) <- F((x_t, c), t)                           (8)

x_0 = 2 x / (L-1) - 1 are the levels on [-1, 1]. The network sees the time as log SNR_t = log a_t^2 / s_t^2.
genmini/schedule.py has (2) and the targets of (4).

A model with classes learns p(x | y), and p(x) from the share `hide` of the images, whose y it does not see. Guidance
(7) with w = 1 is the conditional model; w > 1 goes further away from p(x). A model without classes is led to one by a
classifier (genmini/guidance.py).

A model that is `given` a part c of an image (genmini/conditions.py) has it as further channels of its input (8), and
draws images that have this part: it colours a picture, or enlarges it. Any model completes images of which some pixels
are `known`; it needs no training for that (samplers.repaint).

loss "weighted" is (7) of genmini/schedule.py in the place of (5); loss "bound" trains on one uniform t of (6). In eval
mode `loss` takes the same times and noise at each call, so that valid compares weights and not draws.

    rooms: kernels/q_sample.py, kernels/ddim_step.py
    network: genmini/nets/unet.py    samplers: genmini/samplers.py    test: tests/models/test_diffusion.py
"""

from itertools import pairwise

import torch

from genmini import conditions, ops
from genmini.guidance import guided
from genmini.models._bound import Bounded
from genmini.models._model import Cannot
from genmini.nets.unet import UNet
from genmini.samplers import DATA, repaint, sampler, sampling, start, watched
from genmini.schedule import SCHEDULES, TARGETS, TIMES, deviation, drawn, edm, tables, weighted, x0_of
from genmini.settings import image, number, one_of, whole

LOSSES = "simple", "weighted", "bound"


class Diffusion(Bounded):
    def __init__(self, shape, levels=2, T=1000, schedule="cosine", target="v", deviation=1.0, loss="simple",
                 times="even", width=32, multiples=(1, 2), blocks=1, attention=1, upsample="nearest", patch=1,
                 classes=0, hide=0.1, dropout=0.0, sampler="dpm", draws=20, guidance=1.0, guided=0.0,
                 threshold="static", given="", context=0, placed=False, device=None, dtype=None):
        """T, schedule, target, loss: of (1) to (6); deviation: of x_0, for the target "edm"; times: of training, "even"
        as in (5) or "middle", (8) of genmini/schedule.py; width to patch: of the U-Net; hide: the share of y that is
        hidden in training; given: c of (8), "dark", "grey", "half" or "quarter".
        sampler, draws, guidance, threshold: the defaults of `sample`: the sampler, its steps, w of (7), and what keeps
        x0 in [-1, 1], "none", "static" or "dynamic". guided: w counts where s_t > guided, and is 1 at less noise.
        context: of Imagen and DALL-E 2, how long the vectors are that the U-Net reads; placed: its attention knows
        where a pixel lies."""
        whole(2, 256, levels=levels)
        whole(2, 100_000, T=T)
        whole(0, classes=classes)
        one_of(SCHEDULES, schedule=schedule)
        one_of(TARGETS, target=target)
        one_of(LOSSES, loss=loss)
        one_of(TIMES, times=times)
        if loss == "bound" and times != "even":
            raise ValueError(f"the loss 'bound' is a sum over all times: times must be 'even', got {times!r}")
        if loss == "weighted":  # of eps an error is one of x_0 s/a times as large, near T 1e5 times
            one_of(TARGETS[1:], target=target)
        number(least=0, most=1, hide=hide, guided=guided)
        number(above=0, deviation=deviation)
        C = image(shape)[0]
        super().__init__(shape, levels, classes)
        self.T, self.target, self.spread, self.objective, self.times = T, target, deviation, loss, times
        self.unit = {"simple": "squared error", "weighted": "weighted error", "bound": "nats"}[loss]
        self.default = sampling(T, self.takes_y, sampler, draws, guidance, threshold)
        self.given, self.guided, self.hide = given, guided, hide
        self.net = UNet(C + self.further(), C, width, multiples, blocks, attention, classes, context, upsample,
                        dropout, patch, placed)
        self.place(device, dtype)
        a, s = tables(schedule, T)  # (1), (2)
        self.register_buffer("a", a.to(self.device), persistent=False)
        self.register_buffer("s", s.to(self.device), persistent=False)

    def centred(self, x):
        """x_0 as of every model, but by one product: the last bit may differ, and stored figures have these bits"""
        return (x.to(self.dtype) * (2 / (self.levels - 1)) - 1).view(len(x), *self.shape)

    def x_and_y(self, x, y):
        """The same as `check`, but a class that is not given is -1."""
        x, y = self.check(x, y)
        return x, torch.full((len(x),), -1, device=x.device) if self.classes and y is None else y

    def hidden(self, y, which):
        """y, hidden in the rows that `which` (N,) marks"""
        return torch.where(which, -1, y)

    def read(self, y):
        """What `F` takes of y: the same at all times"""
        return y

    def estimate(self, x, log_snr, y):
        return self.net(x, log_snr, y)

    def further(self):
        """How many channels `shown` has"""
        return conditions.channels(self.given, self.shape)

    def shown(self, x_0, generator=None):
        """The c of (8), enlarged to the sides of x_0; None where the model is given nothing"""
        return conditions.shown(x_0, self.given) if self.given else None

    def F(self, x_t, a, s, y, c=None):
        """x_t (N, C, H, W) at the time a, s, each (N,) or (1,), y (N,), -1 for no class, c (N, c, H, W) or None
        -> the network's estimate of `target`, (N, C, H, W)"""
        log_snr = (2 * (a / s).log()).expand(len(x_t))
        if self.target == "edm":
            x_t = x_t / deviation(a, s, self.spread).to(x_t.dtype).view(-1, 1, 1, 1)
        return self.estimate(x_t if c is None else torch.cat([x_t, c], 1), log_snr, y)  # (4), (8)

    def noised(self, x_0, t, noise):
        """x_t, and what F is to give there"""
        if self.target != "edm":
            return ops.q_sample(x_0, t, self.a, self.s, noise, target=self.target)  # (3)
        x_t, _ = ops.q_sample(x_0, t, self.a, self.s, noise, target="x0")  # (3)
        a, s = (table[t].view(-1, 1, 1, 1).to(x_t.dtype) for table in (self.a, self.s))
        return x_t, edm(x_t, x_0, a, s, self.spread)

    # ---- learning ----------------------------------------------------------------------------------------------------

    def loss(self, x, y=None, *, t=None, noise=None):
        """(N, *shape) -> (N,): (5), or a one-time estimate of (6); t (N,) and noise (N, *shape) are drawn if None."""
        x, y = self.x_and_y(x, y)
        generator = None if self.training else torch.Generator(x.device).manual_seed(0)
        rand = lambda n: torch.rand(n, generator=generator, device=x.device)
        if self.takes_y and self.training:
            y = self.hidden(y, rand(len(x)) < self.hide)
        if t is None:  # one from each of N strata, so that the mean over the batch varies less
            u = (torch.arange(len(x), device=x.device) + rand(len(x))) / max(1, len(x))
            t = drawn(self.times, u, self.T)
        x_0 = self.x_0(x)
        if noise is None:
            noise = torch.randn(x_0.shape, generator=generator, device=x.device, dtype=x_0.dtype)
        x_t, target = self.noised(x_0, t, noise.view_as(x_0))
        a, s = self.a[t], self.s[t]
        out = self.F(x_t, a, s, self.read(y), self.shown(x_0, generator))
        if self.objective == "simple":
            return (out - target).square().flatten(1).mean(1)  # (5)
        if self.objective == "weighted":
            a, s = (each.view(-1, 1, 1, 1).to(x_t.dtype) for each in (a, s))
            return weighted(x_0 - x0_of(self.target, x_t, out, a, s, self.spread), a, s).flatten(1).mean(1)
        return self.prior_kl(x_0) + self.T * self.cost(x, x_0, x_t, t, out)  # (6)

    # ---- samples -----------------------------------------------------------------------------------------------------

    def path(self, steps):
        """The times (a_t, s_t) that a sampler of so many steps takes, from t = T to 0"""
        t = torch.linspace(self.T, 0, steps + 1, dtype=torch.float64).round().long()
        return list(zip(self.a[t].tolist(), self.s[t].tolist(), strict=True))

    def step(self, y, guidance=1.0, threshold="static", x_0=None):
        """The `step` of genmini/samplers.py: x_t, its time, the next time -> x at the next time. x_0: of c"""
        threshold, c = None if threshold == "none" else threshold, self.shown(x_0)
        twice = lambda a: None if a is None else torch.cat([a, a])
        alone = self.read(y)
        if guidance != 1:
            hidden = self.hidden(y, torch.ones(len(y), dtype=torch.bool, device=y.device))
            both = self.read(torch.cat([y, hidden]))

        @torch.no_grad()
        def step(x, t, r, eta=0.0):
            a, s = (torch.full((1,), v, dtype=torch.float64, device=x.device) for v in t)
            target, outs = self.target, [None]
            w = guidance if t[1] > self.guided else 1
            if w == 1:
                outs = [self.F(x, a, s, alone, c), *outs]
            else:
                outs = self.F(twice(x), a, s, both, twice(c)).chunk(2)
            if target == "edm":
                target, outs = "x0", [None if out is None else x0_of("edm", x, out, *t, self.spread) for out in outs]
            return ops.ddim_step(x, outs[0], *t, *r, target, outs[1], w, threshold, eta=eta)  # (7)

        return step

    def led(self, classifier, y, w, threshold, x_0=None):
        """`step`, led to the classes y (N,) by a network of genmini/metrics/features.py: genmini/guidance.py"""
        c = self.shown(x_0)

        def denoiser(x, t):
            a, s = (torch.full((1,), v, dtype=torch.float64, device=x.device) for v in t)
            return x0_of(self.target, x, self.F(x, a, s, None, c), *t, self.spread)

        log_p = lambda X: classifier.log_p(self.in_levels(X), self.levels, y).to(X)
        return guided(denoiser, log_p, w, None if threshold == "none" else 1.0)

    @torch.no_grad()
    def sample(self, n, y=None, *, how=None, steps=None, guidance=None, threshold=None, noise=None, x=None, known=0,
               classifier=None, film=None, eta=None):
        """n draws, (n, *shape) uint8. y: a class for all, or one each; None draws them evenly. how: "ddim", "ddpm",
        "dpm" or "heun"; steps, guidance, threshold: as in the constructor. noise: x_T, (n, *shape), drawn if None.

        x: images (n, *shape). A model with `given` sees c(x) of them alone: a grey image in all channels, or the pixels
        of a small one repeated, will do. known: how many numbers of x stay, the first in `pixel_order`, or which, a
        mask (*shape); samplers.repaint draws the rest by steps of ddpm. classifier: of genmini.metrics.network, leads a
        model without classes to y; then how is "ddpm" if None. film: a list, which gets x_t in levels (n, *shape) at
        every time. eta: of "ddim", which share of ddpm's noise it draws, 0 to 1; 0 if None.
        """
        if classifier is not None and self.classes:
            raise ValueError("a classifier guides a model without classes: this one takes y itself")
        known = conditions.mask(known, self.shape, self.pixel_order()).to(self.device)
        if known.any() and (how not in (None, "ddpm") or eta is not None):
            raise ValueError(f"known pixels are completed by how='ddpm' alone, got {how!r} and eta={eta}")
        how = "ddpm" if how is None and classifier is not None else how
        chosen = how, steps, guidance, threshold
        chosen = (own if value is None else value for own, value in zip(self.default, chosen, strict=True))
        how, steps, guidance, threshold = sampling(self.T, self.takes_y or classifier, *chosen)
        if x is None and (self.given or known.any()):
            raise ValueError(f"x is missing: the images of which this model is given {self.given or 'known pixels'}")
        x_0 = None if x is None else self.x_0(self.check(x)[0])
        if x is not None and len(x) != n:
            raise ValueError(f"x must hold n = {n} images, got {len(x)}")
        if film is not None and not isinstance(film, list):
            raise ValueError(f"film must be a list, got {film!r}")
        if classifier:
            step = self.led(classifier, classifier.labels(y, n), guidance, threshold, x_0)
        else:
            step = self.step(self.classes_or_drawn(y, n), guidance, threshold, x_0)
        noise, path, frames = start(noise, n, image(self.shape), self.device, self.dtype), self.path(steps), {}
        step = step if film is None else watched(step, frames)
        x = repaint(step, noise, path, x_0, known) if known.any() else sampler(how, eta)(step, noise, path)
        if not x.isfinite().all():
            raise ArithmeticError(f"samples are no longer finite: a guidance nearer to 1 (it is {guidance:g}), or a "
                                  f"threshold (it is {threshold!r}), may help")
        if film is not None:
            film += [self.in_levels(x_t) for x_t in (*frames.values(), x)]
        return self.in_levels(x).round().clamp(0, self.levels - 1).to(torch.uint8)

    def pixel_order(self):
        """Pixel after pixel, each with all its channels: what `known` counts"""
        return torch.arange(self.D).view(image(self.shape)[0], -1).T.flatten()

    def inpaint(self, x, y=None, *, known, n):
        """(N, *shape) -> (n, N, *shape), as `Model.inpaint` says, but nearly: by samplers.repaint"""
        if self.given:
            raise Cannot(f"this Diffusion is given {self.given} of an image, and would see what a mask hides")
        whole(n=n)
        known = conditions.mask(known, self.shape, self.pixel_order()).view(self.shape).to(x.device)
        x = torch.where(known, x.view(-1, *self.shape), 0)  # what is hidden is not read
        return torch.stack([self.sample(len(x), y, x=x, known=known) for _ in range(n)])

    def restore(self, x, y=None):
        """(N, *shape) -> (N, *shape): a draw for each, given c(x) alone"""
        if not self.given:
            raise Cannot(f"this Diffusion is given no part of an image: set given to {' or '.join(conditions.GIVEN)}")
        return self.sample(len(x), y, x=x)

    @torch.no_grad()
    def process(self, x, y=None, *, times=8):
        """Images as they become noise, and noise as it becomes images: what `Model.process` says"""
        whole(1, self.T, times=times)
        x, y = self.x_and_y(x, y)
        x_0, between = self.x_0(x), 10  # steps of the way back between two times that are kept
        step, noise, path = self.step(y, x_0=x_0), torch.randn_like(x_0), self.path(min(self.T, times * between))
        kept = path[:: max(1, len(path) // times)][:times]
        there = [t[0] * x_0 + t[1] * noise for t in kept[::-1]]  # (3)
        back, x_t = [], torch.randn_like(x_0)
        for t, r in pairwise(path):
            if t in kept:
                back.append(x_t)
            x_t = step(x_t, t, r)
        x0 = lambda frames, times: [step(x_t, t, DATA) for x_t, t in zip(frames, times, strict=True)]
        four = there, x0(there, kept[::-1]), back, x0(back, kept)
        return tuple(torch.stack([self.in_levels(x) for x in frames]) for frames in four)


_THREE, _LONG = dict(width=16, multiples=(1, 2, 4)), dict(batch=32, rate=1e-3, ema=0.999, every=1000)
RECIPES = {
    # Of digits: as many steps, and so much dropout, that samples lie no nearer to train images than unseen images do.
    # After more steps their FID is lower, and they do.
    "digits": {
        "data": "digits", "model": dict(width=32, dropout=0.4),
        "train": dict(steps=4500, batch=32, rate=1.5e-3, ema=0.999, every=500),
        "threads": 1,
    },
    "digits-classes": {
        "data": "digits",
        "model": dict(width=32, dropout=0.4, classes=10),
        "train": dict(steps=2800, batch=32, rate=1.5e-3, ema=0.999, every=500),
        "threads": 1,
    },
    "mnist": {"data": "mnist", "model": _THREE, "train": dict(steps=10_000, **_LONG)},  # not tuned
    "mnist-classes": {  # led by its own classes, w = 2: half an hour of a core
        "data": "mnist",
        "model": dict(_THREE, classes=10, guidance=2.0), "train": dict(steps=12_000, **_LONG),
        "threads": 1,
    },
    "colour": {  # not tuned
        "data": "images",
        "model": dict(width=32, multiples=(1, 2, 2)), "train": dict(steps=10_000, **_LONG),
    },
    **{
        name: {  # one core, about five minutes; the size was chosen by the time of a step
            "data": "shapes",
            "model": dict(_THREE, attention=attention, given=given, sampler="dpm" if given else "ddpm"),
            "train": dict(steps=steps, batch=batch, rate=2e-3, ema=0.999, every=500),
            "threads": 1,
        }
        for name, given, attention, steps, batch in (
            ("shapes", "", 1, 6500, 16), ("colourise", "dark", 2, 3500, 32),  # a colour goes with the whole shape
            ("enlarge-2", "half", 1, 6500, 16), ("enlarge-4", "quarter", 1, 6500, 16),
        )
    },
}
