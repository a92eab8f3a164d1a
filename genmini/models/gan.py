"""GAN: a generator draws x from noise, a discriminator tells its samples from data, and each learns against the other.

The course, "Réseau antagoniste (GAN)" and "Réseaux antagonistes générateurs"; Goodfellow et al., "Generative
Adversarial Nets", 2014. The family (2) is that of Nowozin et al. (f-GAN, 2016) and wider; relativistic pairs with both
penalties are Huang et al.'s (R3GAN, 2024), the penalties Mescheder et al.'s (2018), the spectral norm Miyato et al.'s
(2018), the distance (8) Székely and Rizzo's (2013).

    x = f(z),   z ~ N(0, I):   p_m(x) has no formula, but is drawn from                     (1)
    D(p_m || p_data) = max_a E_p_m [h'(a(x))] - E_p_data [h''(a(x))] = -min_a E L',
        L' = h''(a(x)) - h'(a(f(z))),   which the discriminator descends, k steps           (2)
    "jensen-shannon":   h' = ln(1 - d),   h'' = -ln d,   d = sigma(a)                       (3)
    generator, "minimax":     L'' = h'(a(f(z)))                                             (4)
    "non-saturating":         L'' = h''(a(f(z)))                                            (5)
    "relativistic", in pairs: L'  = h''(a(x) - a(f(z))),   L'' = h''(a(f(z)) - a(x))        (6)
    R1 = r1/2 E_p_data |grad_x a(x)|^2,   R2 = r2/2 E_p_m |grad_x a(x)|^2                   (7)
    2 E|x - x'| - E|x - y| - E|x' - y'|,   x, y ~ p_data,   x', y' ~ p_m                    (8)

The maximum of (2) with (3) is where d* = p_data / (p_data + p_m); it is 2 JS(p_data, p_m) - ln 4, which is -ln 4 where
the two are equal: `genmini study optimum` draws this for densities that are known. (4) and (5) have their optimum in
common, but where the discriminator is sure of itself (4) is flat: with (3) its slope is d, that of (5) is 1 - d.

The losses do not tell how good f is, since they are relative to the other player. So f is judged by (8) between samples
and unseen data, which needs no network; of digits `genmini train` takes the FID of digits-v1, because (8) of pixels
hardly tells blurred digits from sharp ones, and it counts modes, too. `accuracy` is the share of pairs of an unseen x
and a sample in which the x has the higher a: 1/2 if the discriminator cannot tell them apart. `ema` of the training
loop averages both players: the pair of averages is what is judged and kept.

Networks see images of L levels as x_0 = 2x/(L-1) - 1, and f ends in tanh. The x_0 of data lie on a grid and those of f
do not, which a discriminator could learn to see; with `noise` both are seen through uniform noise, as wide as so many
levels. A sample is f(z) rounded to the nearest level: no noise is added to it, as p(x|z) of a VAE adds.

There is no room of its own: linear layers, convolutions and Adam are fused in PyTorch, and what is left, a softplus of
one number for each example, is no traffic worth saving. R1 differentiates twice, through the layers as they are.

    bodies: genmini/nets/players.py    test: tests/models/test_gan.py
"""

import torch
import torch.nn.functional as F
from torch import nn

from genmini.models._model import Model
from genmini.nets.players import players
from genmini.settings import number, one_of, whole

DIVERGENCES = {  # name -> h', h'' of (2) as functions of a; D, that of jensen-shannon being 2 JS - ln 4
    "jensen-shannon": (lambda a: -F.softplus(a), lambda a: F.softplus(-a)),  # (3)
    "kl": (lambda a: -(a - 1).exp(), lambda a: -a),  # KL(p_data || p_m)
    "reverse-kl": (lambda a: 1 - a, lambda a: (-a).exp()),  # KL(p_m || p_data)
    "pearson": (lambda a: -a.square() / 4 - a, lambda a: -a),  # int (p_data - p_m)^2 / p_m
    "hinge": (lambda a: -F.relu(1 + a), lambda a: F.relu(1 - a)),  # int |p_data - p_m| - 2
    "wasserstein": (lambda a: -a, lambda a: -a),  # the distance, if a has slopes of at most 1, as r1 and r2 encourage
}
LOSSES = ("minimax", "non-saturating", "relativistic")
FEW = 2000  # examples of valid that (8) takes, at most


class GAN(Model):
    unit = "distance"
    divergence = "jensen-shannon"
    has_normal_prior = True
    judged_by_samples = True

    def __init__(self, shape, levels=None, latent=32, body="mlp", hidden=(128, 128), width=16,
                 loss="non-saturating", divergence="jensen-shannon", k=1, r1=0.0, r2=0.0, spectral=False, noise=0.0,
                 context=0, upsample="nearest", device=None, dtype=None):
        """levels: L of images, None for points. latent: d numbers z. body "mlp" of `hidden` units a layer, or "conv" of
        `width` channels; loss: (4), (5) or (6); k: steps of the discriminator, each on its part of the batch; r1, r2:
        of (7); spectral: its weights have the spectral norm 1; noise: in levels; context: of CGAN, how many classes y
        tells apart; upsample: how the generator "conv" doubles an image, as in genmini/nets/coders.py."""
        one_of(LOSSES, loss=loss)
        one_of(DIVERGENCES, divergence=divergence)
        whole(latent=latent, k=k)
        number(least=0, r1=r1, r2=r2, noise=noise)
        if levels is not None:
            whole(2, 256, levels=levels)
        super().__init__(shape, levels, context)
        self.latent, self.k, self.r1, self.r2, self.noise = latent, k, r1, r2, 0 if levels is None else noise
        self.divergence = divergence
        self.pairing = loss
        self.f, phi, features = players(body, shape, latent, hidden, width, context, spectral, upsample)
        self.discriminator = nn.ModuleDict({"phi": phi, "w": nn.Linear(features, 1)})
        self.place(device, dtype)

    # no part of a pickle
    h1, h2 = (property(lambda model, i=i: DIVERGENCES[model.divergence][i]) for i in range(2))

    # ---- the players -------------------------------------------------------------------------------------------------

    def a(self, x_0, y=None):
        """(N, *shape) -> (N,): high where x_0 looks like data."""
        return self.discriminator["w"](self.discriminator["phi"](x_0))[:, 0]

    def generate(self, n, y=None):
        z = torch.randn(n, self.latent, device=self.device, dtype=self.dtype)
        return self.w(z, y)  # (1)

    def w(self, z, y=None):
        """f: (N, d) -> (N, *shape): points, or images in (-1, 1)"""
        w = self.f(z, y)[:, 0]
        return w if self.levels is None else w.tanh()

    def seen(self, x_0):
        """x_0 as the discriminator sees it."""
        return through_noise(x_0, self.noise, self.levels)

    # ---- the game ----------------------------------------------------------------------------------------------------

    def updates(self, batch):
        x, y = self.check(batch.x, batch.y if self.classes else None)
        if self.k > len(x):
            raise ValueError(f"k must be at most the batch, of which each step takes a part, got {self.k} of {len(x)}")
        x_0 = self.centred(x)
        for n in torch.arange(len(x)).tensor_split(self.k):
            loss = self.discriminator_loss(x_0[n], y if y is None else y[n])
            yield "discriminator", loss, self.discriminator.parameters()
        yield "generator", self.generator_loss(x_0, y), self.f.parameters()

    def discriminator_loss(self, x_0, y=None):
        with torch.no_grad():
            w = self.generate(len(x_0), y)
        x_0, w = (self.seen(v).detach().requires_grad_() for v in (x_0, w))
        a, b = self.a(x_0, y), self.a(w, y)
        loss = self.versus(a, b).mean()
        for r, at, x in ((self.r1, a, x_0), (self.r2, b, w)):
            loss = loss + r / 2 * squared_slope(at, x).mean() if r else loss  # (7)
        return loss

    def versus(self, a, b):
        """L', (N,), of a(x) and a(f(z))"""
        if self.pairing == "relativistic":
            return self.h2(a - b)  # (6)
        return self.h2(a) - self.h1(b)  # (2)

    def generator_loss(self, x_0, y=None):
        b = self.a(self.seen(self.generate(len(x_0), y)), y)
        if self.pairing == "relativistic":
            with torch.no_grad():
                a = self.a(self.seen(x_0), y)
            return self.h2(b - a).mean()  # (6)
        if self.pairing == "minimax":
            return self.h1(b).mean()  # (4)
        return self.h2(b).mean()  # (5)

    # ---- what is judged ----------------------------------------------------------------------------------------------

    def loss(self, x, y=None):
        """(N, *shape) -> (N,): the discriminator's loss, each x against a new sample."""
        x, y = self.check(x, y, needed=True)
        return self.versus(self.a(self.seen(self.centred(x)), y), self.a(self.seen(self.generate(len(x), y)), y))

    @torch.no_grad()
    def valid_loss(self, x, y=None):
        """(8) of unseen examples and as many samples."""
        x_0, w, y = self.beside_samples(x, y)
        return energy_distance(self.joint(x_0, y), self.joint(w, y)).item()

    @torch.no_grad()
    def report(self, x, y=None):
        """The share of pairs of an unseen x and a sample in which the discriminator ranks the x higher."""
        x_0, w, y = self.beside_samples(x, y)
        return {"accuracy": (self.a(x_0, y)[:, None] > self.a(w, y)).double().mean().item()}

    def beside_samples(self, x, y=None):
        """The first examples, and as many samples of the same classes by the noise of seed 0, as x_0; the classes"""
        x, y = self.check(x[:FEW], None if y is None else y[:FEW], needed=True)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(0)
            return self.centred(x), self.centred(self.sample(len(x), y)), y

    def joint(self, x_0, y):
        """What the distance is of: x_0, made flat."""
        return x_0.flatten(1)

    def warning(self, rows):
        """What the last three evaluations have in common."""
        newest, last, best = rows[-1], rows[-3:], min(rows, key=lambda row: row["valid"])
        if len(last) < 3:
            return ""  # too early to tell
        if min(row["valid"] for row in last) > 2 * best["valid"]:
            return (f"training diverges: the {self.unit} is {newest['valid']:.3g}, and was {best['valid']:.3g} at step "
                    f"{best['step']}, whose weights are kept; a larger r1 or a lower rate may help")
        if all(row.get("missing") and row["modes"] for row in last):
            modes = newest["modes"] + newest["missing"]
            return (f"mode collapse: samples leave out {newest['missing']} of {modes} modes; "
                    "r1, or loss=relativistic with r1 and r2, may help")
        if min(row["accuracy"] for row in last) > 0.95:
            return (f"the discriminator wins: it ranks {newest['accuracy']:.0%} of unseen data above samples; "
                    "a larger r1, or k=1, may help")
        if max(row["accuracy"] for row in last) < 0.4:
            return (f"the generator wins: the discriminator ranks {1 - newest['accuracy']:.0%} of samples above unseen "
                    "data; a smaller r1, or a larger k, may help")
        return ""

    # ---- samples -----------------------------------------------------------------------------------------------------

    def d(self, x, y=None):
        """sigma(a), (N,), of points or levels: with (3), the probability that x is of the data."""
        x, y = self.check(x, y, needed=True)
        return self.a(self.centred(x), y).sigmoid()

    def on_the_line(self, draw, r1):
        """What `Model.on_the_line` says, with the loss (2)."""
        layers = {name: self.settings[name] for name in ("hidden", "spectral")}
        model = GAN((1,), latent=1, divergence=self.divergence, r1=r1, **layers)
        model.generate = lambda n, y=None: draw(n)
        return model

    def decode(self, z, y=None):
        """f(z) in levels, not rounded, or as points, (N, *shape)"""
        return self.in_levels(self.w(self.check_z(z), self.check_y(y, len(z), needed=True)))

    @torch.no_grad()
    def sample(self, n, y=None):
        """n draws, (n, *shape): float, or whole levels."""
        x = self.decode(torch.randn(n, self.latent, device=self.device, dtype=self.dtype), y)
        return x if self.levels is None else x.round().to(torch.uint8)


def through_noise(x_0, noise, levels):
    """x_0 and uniform noise that is as wide as so many levels"""
    return x_0 + (2 * torch.rand_like(x_0) - 1) * (noise / (levels - 1)) if noise else x_0


def squared_slope(a, x):
    """|grad_x a|^2, (N,), itself differentiable; a (N,), each of its own x (N, ...)"""
    (slope,) = torch.autograd.grad(a.sum(), x, create_graph=True)
    return slope.flatten(1).square().sum(1)


def energy_distance(x, y):
    """(N, D), (M, D) -> at least 0, and 0 for equal sets: (8), each expectation a mean over all pairs"""
    mean = lambda x, y: torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").mean()
    return 2 * mean(x, y) - mean(x, x) - mean(y, y)  # (8)


_BETAS = 0.0, 0.99  # no momentum: the loss that a player descends changes with each move of the other
_POINTS = dict(steps=3000, batch=256, rate=1e-3, betas=_BETAS, ema=0.99, every=250)
RECIPES = {  # tuned on the valid split alone
    "digits": {
        "data": "digits",
        "model": dict(latent=32, hidden=(256, 256), r1=1.0, noise=1.0),
        "train": dict(steps=4500, batch=128, rate=1e-3, betas=_BETAS, ema=0.995, every=500),
        "threads": 1,
    },
    "digits-collapse": {  # convolutions with momentum, and nothing that holds the discriminator back
        "data": "digits",
        "model": dict(latent=32, body="conv", width=16),
        "train": dict(steps=800, batch=64, rate=1e-3, every=100),
        "threads": 1,
    },
    **{
        toy: {
            "data": toy,
            "model": dict(latent=2, loss="relativistic", r1=0.02, r2=0.02),
            "train": _POINTS,
            "threads": 1,
        }
        for toy in ("gaussians", "moons", "rings", "spirals", "checkerboard")
    },
    "gaussians-collapse": {  # the same without penalty, at ten times the rate, with momentum
        "data": "gaussians",
        "model": dict(latent=32, hidden=(128, 128, 128)),
        "train": dict(steps=1200, batch=64, rate=1e-2, every=100),
        "threads": 1,
    },
    "lattice": {
        "data": "lattice",
        "model": dict(latent=2, hidden=(128, 128, 128), loss="relativistic", r1=0.1, r2=0.1),
        "train": _POINTS | dict(steps=5000),
        "threads": 1,
    },
    "mnist": {  # 20 minutes of a core; for so long, convolutions learn less
        "data": "mnist",
        "model": dict(latent=64, hidden=(512, 512), r1=1.0, noise=16.0),
        "train": dict(steps=40_000, batch=64, rate=1e-3, betas=_BETAS, ema=0.999, every=2000),
        "threads": 1,
    },
    "colour": {  # not tuned
        "data": "images",
        "model": dict(latent=64, body="conv", width=32, loss="relativistic", r1=1.0, r2=1.0, noise=1.0),
        "train": dict(steps=10_000, batch=64, rate=5e-4, betas=_BETAS, ema=0.999, every=500),
    },
}
