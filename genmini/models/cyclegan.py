"""CycleGAN: translates images of one set into another and back, and learns both ways from two sets without pairs.

Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", 2017; the least squares
are Mao et al.'s (2017), the pool is Shrivastava et al.'s ("Learning from Simulated and Unsupervised Images", 2017), R1
is (7) of GAN.

x is an image, and y says of which set: 0 of X, 1 of Y. Both ways have the same equations, so y stands for the way:

    w = T_y(x),   T_0 = G: X -> Y,   T_1 = F: Y -> X                                        (1)
    L_cycle = |T_{1-y}(w) - x|_1 / D                                                        (2)
    L_identity = |T_{1-y}(x) - x|_1 / D                                                     (3)
    T descends   L'' = l(a_{1-y}(w)) + lambda_cycle L_cycle + lambda_identity L_identity    (4)
    a descends   L' = l(a_y(x)) + m(a_{1-y}(w')) + r1/2 |grad_x a_y(x)|^2                   (5)
    "least-squares":    l(a) = (a - 1)^2,   m(a) = a^2                                      (6)
    "non-saturating":   l(a) = -ln sigma(a),   m(a) = -ln(1 - sigma(a))                     (7)
    w' = w while the pool of its set has room, which then keeps it; after that, with the
        probability 1/2 the one that is kept at a random place, where w takes its place     (8)

The discriminators compare w with the images of its set, and not with x. A map that turns every 3 into a thick inverted
7 would deceive them, too; so would one that reaches only a part of Y. (2) is 0 if nothing is lost on the way, (3) if T
leaves alone what is of its set already. Neither says which image of Y is the right one: that depends on the network of
T. Small convolutions that keep the size (body "resnet") find translations that keep most of an image, nearly right even
without (2); those of body "coder", which halves the image and doubles it again, are right only with (2). (3) pulls T to
the identity, so it suits sets that differ by little, as in tint, and works against inversion.

The pool shows a discriminator what the translators made some steps ago, beside what they make now, so that it does not
unlearn to tell that from its set. Its images are buffers of the model: a run keeps them, and a training resumes with
them to the same bits.

On unseen images T is judged without pairs: by the energy distance, (8) of GAN, between translations and the images of
the set that they go to, both ways, plus lambda_cycle (2). A translation is a function: nothing is drawn, so there are
no samples.
Networks see images of L levels as x_0 = 2x/(L-1) - 1, and T ends in tanh. With `noise`, discriminators see x_0 and w
through uniform noise, as wide as so many levels, because the x_0 of images lie on a grid.

There is no room of its own: convolutions and Adam are fused in PyTorch; (2) and (3) are sums over 64 pixels, beside
networks that do thousands of operations for each; and the pool copies a few small images a step.

    bodies: genmini/nets/conv.py, genmini/nets/players.py    data: genmini/data/unpaired.py
    test: tests/models/test_cyclegan.py
"""

import torch
import torch.nn.functional as F
from torch import nn

from genmini.models._model import Model
from genmini.models.gan import FEW, energy_distance, squared_slope, through_noise
from genmini.nets.conv import Decoder, Encoder, ResNet
from genmini.nets.players import mirror
from genmini.settings import image, number, one_of, whole

BODIES = ("resnet", "coder")
LOSSES = {  # name -> l, m, and d: what the discriminator gives, near 1 for images of its set
    "least-squares": (lambda a: (a - 1).square(), lambda a: a.square(), lambda a: a),  # (6)
    "non-saturating": (lambda a: F.softplus(-a), lambda a: F.softplus(a), torch.sigmoid),  # (7)
}


class CycleGAN(Model):
    unit = "distance"

    def __init__(self, shape, levels=2, body="resnet", width=16, blocks=2, loss="least-squares", cycle=5.0,
                 identity=0.0, pool=50, r1=1.0, noise=1.0, device=None, dtype=None):
        """shape: (H, W) or (C, H, W). body: of the translators; width: channels of their first layer and of that of the
        discriminators; blocks: residual blocks of a "resnet", of each half of a "coder"; loss: (6) or (7); cycle,
        identity: lambda of (4); pool: how many images of each set are kept; r1: of (5); noise: in levels."""
        one_of(BODIES, body=body)
        one_of(LOSSES, loss=loss)
        whole(2, 256, levels=levels)
        whole(width=width, pool=pool)
        whole(0, blocks=blocks)
        number(least=0, cycle=cycle, identity=identity, r1=r1, noise=noise)
        super().__init__(shape, levels, classes=2)
        self.image = C, H, W = image(shape)
        if min(H, W) < 4 or body == "coder" and (H % 2 or W % 2):
            raise ValueError(f"shape must have sides of at least 4, even ones for body 'coder', got {shape}")
        self.cycle, self.identity, self.r1, self.noise = cycle, identity, r1, noise
        self.T = nn.ModuleList(translator(body, C, width, blocks) for _ in range(2))
        self.discriminators = nn.ModuleList(discriminator(shape, width) for _ in range(2))
        self.register_buffer("pool", torch.zeros(2, pool, *shape))
        self.register_buffer("pooled", torch.zeros(2, dtype=torch.int64))
        self.place(device, dtype)

    # no part of a pickle
    l, m, as_d = (property(lambda model, i=i: LOSSES[model.settings["loss"]][i]) for i in range(3))

    # ---- there and back ----------------------------------------------------------------------------------------------

    def w(self, x_0, y):
        """(N, *shape), (N,) -> (N, *shape) in (-1, 1): each image, of the set y, as one of the other set"""
        w = torch.empty_like(x_0)
        for k, T in enumerate(self.T):
            w[y == k] = T(x_0[y == k].view(-1, *self.image)).view(-1, *self.shape).tanh().to(x_0)  # (1)
        return w

    def a(self, x_0, y):
        """(N, *shape), (N,) -> (N,): high where x_0 looks like the images of set y."""
        a = x_0.new_empty(len(x_0))
        for k, net in enumerate(self.discriminators):
            a[y == k] = net(x_0[y == k])[:, 0].to(x_0)
        return a

    def seen(self, x_0):
        """x_0 as discriminators see it."""
        return through_noise(x_0, self.noise, self.levels)

    def x_0_and_y(self, x, y):
        """Levels (N, *shape), or flat, and their sets -> x_0, y, checked"""
        x, y = self.check(x, y, needed=True)
        return self.centred(x), y

    def translate(self, x, y=None):
        """(N, *shape) -> (N, *shape) in levels, not rounded: images of the set y become images of the other."""
        x_0, y = self.x_0_and_y(x, y)
        return self.in_levels(self.w(x_0, y))

    def reconstruct(self, x, y=None):
        """(N, *shape) -> (N, *shape) in levels, not rounded: there and back."""
        x_0, y = self.x_0_and_y(x, y)
        return self.in_levels(self.w(self.w(x_0, y), 1 - y))

    # ---- the game ----------------------------------------------------------------------------------------------------

    def parts(self, x_0, w, y):
        """The terms of (4) without their weights, {name: (N,)}"""
        parts = {"adversarial": self.l(self.a(self.seen(w), 1 - y))}
        parts["cycle"] = off(self.w(w, 1 - y), x_0)  # (2)
        parts["identity"] = off(self.w(x_0, 1 - y), x_0)  # (3)
        return parts

    def weighted(self, parts):
        return parts["adversarial"] + self.cycle * parts["cycle"] + self.identity * parts["identity"]  # (4)

    def updates(self, batch):
        x_0, y = self.x_0_and_y(batch.x, batch.y)
        w = self.w(x_0, y)
        yield "translators", self.weighted(self.parts(x_0, w, y)).mean(), self.T.parameters()
        loss = self.discriminator_loss(x_0, self.replayed(w.detach(), 1 - y), y).mean()
        yield "discriminators", loss, self.discriminators.parameters()

    def discriminator_loss(self, x_0, w, y):
        """L' of (5), (N,); w are to be of the set 1 - y"""
        x_0 = self.seen(x_0).requires_grad_()
        a = self.a(x_0, y)
        slope = squared_slope(a, x_0) if self.r1 else 0
        return self.l(a) + self.m(self.a(self.seen(w), 1 - y)) + self.r1 / 2 * slope  # (5)

    def replayed(self, w, y):
        """(N, *shape), and the sets that they are to be of, (N,) -> w', (N, *shape)"""
        older, pooled = w.clone(), self.pooled.tolist()
        swaps = torch.rand(len(w), device="cpu") < 0.5
        places = torch.randint(self.pool.shape[1], (len(w),), device="cpu")
        for n, (k, swap, place) in enumerate(zip(y.tolist(), swaps.tolist(), places.tolist(), strict=True)):
            if pooled[k] < self.pool.shape[1]:
                self.pool[k, pooled[k]] = w[n]
                pooled[k] += 1
            elif swap:
                older[n] = self.pool[k, place]
                self.pool[k, place] = w[n]  # (8)
        self.pooled.copy_(torch.tensor(pooled))
        return older

    # ---- what is judged ----------------------------------------------------------------------------------------------

    def loss(self, x, y=None):
        """(N, *shape) -> (N,): what the translators descend."""
        return self.weighted(self.figures(x, y))

    def figures(self, x, y=None, *, k=0):
        """The terms of (4), {name: (N,)}"""
        x_0, y = self.x_0_and_y(x, y)
        return self.parts(x_0, self.w(x_0, y), y)

    @torch.no_grad()
    def valid_loss(self, x, y=None):
        """How far translations are from unseen images of their new set, and what is lost there and back."""
        x_0, y = self.x_0_and_y(x[:FEW], y[:FEW])
        if len(y.unique()) < 2:
            raise ValueError(f"valid has images of one set alone, {len(y)} of set {y[0]}: it needs some of each")
        w = self.w(x_0, y)
        apart = sum(energy_distance(w[y == k].flatten(1), x_0[y == 1 - k].flatten(1)) for k in range(2))
        return (apart + self.cycle * off(self.w(w, 1 - y), x_0).mean()).item()

    @torch.no_grad()
    def report(self, x, y=None):
        """The share of pairs of an unseen image and a translation to its set in which a ranks the image higher."""
        x_0, y = self.x_0_and_y(x[:FEW], y[:FEW])
        a, b = self.a(x_0, y), self.a(self.w(x_0, y), 1 - y)
        ranked = [(a[y == k][:, None] > b[y == 1 - k]).double().flatten() for k in range(2)]
        return {"accuracy": torch.cat(ranked).mean().item()}

    def warning(self, rows):
        """What the last three evaluations have in common."""
        last = rows[-3:]
        if len(last) == 3 and min(row["accuracy"] for row in last) > 0.95:
            return (f"the discriminators win: they rank {rows[-1]['accuracy']:.0%} of unseen images above "
                    "translations; a larger r1 or noise, or a smaller identity, may help")
        return ""

    def d(self, x, y=None):
        """(N, *shape) -> (N,): near 1 where x looks like the images of set y"""
        return self.as_d(self.a(*self.x_0_and_y(x, y)))

    @torch.no_grad()
    def panels(self, splits):
        """Images of test, their translations, and what comes back: X in the upper half, Y in the lower one."""
        test, columns = splits["test"], 8
        n = [(test.y == k).nonzero()[: 4 * columns, 0] for k in range(2)]
        n = torch.cat([rows[: min(map(len, n)) // columns * columns or None] for rows in n])
        x, y = test.x[n].to(self.device), test.y[n].to(self.device)
        return {"X and Y (test)": x.cpu(), f"translated by {self.title}": self.translate(x, y).cpu(),
                "and back": self.reconstruct(x, y).cpu()}, columns


def off(w, x_0):
    """|w - x_0|_1 / D, (N,)"""
    return (w - x_0).abs().flatten(1).mean(1)


def translator(body, C, width, blocks):
    """(N, C, H, W) -> (N, C, H, W), numbers without bounds"""
    if body == "resnet":
        return ResNet(C, C, width, blocks)
    return nn.Sequential(Encoder(C, 2 * width, width, 1, blocks), Decoder(2 * width, C, width, 1, blocks))


def discriminator(shape, width):
    features, K = mirror(shape, width)
    return nn.Sequential(features, nn.Linear(K, 1))


def _digits(steps=800, **model):
    train = dict(steps=steps, batch=64, rate=1e-3, betas=(0.5, 0.999), ema=0.99, every=100)
    return {"data": "digits-unpaired", "model": model, "train": train, "threads": 1}


RECIPES = {  # tuned on the valid split alone; docs/results.md has what each reaches on test
    "digits": _digits(body="resnet", cycle=5.0),
    "digits-no-cycle": _digits(body="resnet", cycle=0.0),
    "digits-coder": _digits(body="coder", blocks=1, cycle=5.0, steps=1200),
    "digits-coder-no-cycle": _digits(body="coder", blocks=1, cycle=0.0, steps=1200),
    "colour": {  # not tuned
        "data": "images",
        "model": dict(width=32, blocks=4, cycle=10.0, identity=1.0),
        "train": dict(steps=5000, batch=16, rate=5e-4, betas=(0.5, 0.999), ema=0.999, every=250),
    },
}
