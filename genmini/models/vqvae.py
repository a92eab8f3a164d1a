"""VQVAE: an image becomes a few codes of a learnt codebook, and a PixelCNN learns how codes are put together.

The course, "VQ-VAE"; van den Oord, Vinyals, Kavukcuoglu, "Neural Discrete Representation Learning", 2017.

    q(k | x) = 1 if k_ij = argmin_k ||z_ij - e_k||^2 at every place ij, else 0,   z = f(x)  (1)
    z_q = z + sg[e - z],   e_ij = e_{k_ij}                                                  (2)
    L(x) = -log p(x | z_q) + sum_ij (||sg[z_ij] - e_ij||^2 + beta ||z_ij - sg[e_ij]||^2)    (3)
    log p(x) = log sum_k p(k) p(x | k)  >=  log p(x | k(x)) + log p(k(x))                   (4)
    p(k) = K^-N,   so that KL(q(k | x) || p(k)) = N log K                                   (5)
    p(k) = prod_ij p(k_ij | k_<ij)                                                          (6)
    log p(x) = log sum_y p(y) p(x | y)  >=  log sum_y p(y) p(x | k(x, y), y) p(k(x, y) | y) (7)
    perplexity = exp(-sum_k p_k log p_k),   p_k the share of the code k                     (8)

f is a convolutional encoder, the decoder gives p(x | e): L probabilities a pixel, or one for two levels. The first
stage learns (3), by the gradient that (2) carries past the argmin; a codebook of moving averages takes no part in it
(average=0: the middle term of (3) moves the codes). A code that `revive` batches did not choose is put on a random z of
the last one. In this stage codes are uniform, (5). In the second stage encoder, codebook and decoder stay as they are,
the codes are numbered along their principal axis, because PixelCNN treats near numbers alike, and its (6), on the
N = h w codes of an image, replaces (5): the prior lowers -log p(k(x)) below N log K, because codes of one image depend
on each other. A class y, if there are `classes`, steers encoder, decoder and PixelCNN; without it, (7).

    layers: genmini.layers.VectorQuantizer, MaskedConv2d    bodies: genmini/nets/conv.py
    rooms: kernels/nearest_code.py, kernels/code_stats.py, kernels/pixelcnn_sample.py
    test: tests/models/test_vqvae.py
"""

import math

import torch

from genmini import ops, outputs
from genmini.layers import VectorQuantizer
from genmini.models._model import Model
from genmini.models.pixelcnn import PixelCNN
from genmini.nets.conv import Decoder, Encoder
from genmini.settings import image, number, share, whole


class VQVAE(Model):
    stages = "codes", "prior"
    is_bound = True

    def __init__(self, shape, levels=2, K=128, dim=16, width=32, blocks=1, halvings=1, dropout=0.0, average=0.99,
                 beta=0.25, revive=50, miss=0.0, classes=0, prior_width=32, prior_blocks=3, prior_dropout=0.0,
                 device=None, dtype=None):
        """shape of one image, (H, W) or (C, H, W); K codes of `dim` numbers; the grid of codes has its sides halved
        `halvings` times.

        width, blocks, dropout: of encoder and decoder. average: how much of itself a code keeps at a step; 0: the loss
        moves the codes. revive: 0 for never. miss: the share of codes that the decoder does not see in training,
        because some codes drawn from the prior are wrong. classes: how many y tells apart. prior_...: of the PixelCNN.
        """
        whole(2, levels=levels, K=K)
        whole(dim=dim, width=width, prior_width=prior_width)
        whole(0, blocks=blocks, halvings=halvings, revive=revive, classes=classes, prior_blocks=prior_blocks)
        share(dropout=dropout, average=average, prior_dropout=prior_dropout)
        number(least=0, beta=beta)
        number(least=0, most=1, miss=miss)
        C, H, W = image(shape)
        if H % 2**halvings or W % 2**halvings:
            raise ValueError(f"halvings={halvings} halves the sides of an image that often: {2**halvings} must divide "
                             f"them, got shape {shape}")
        super().__init__(shape, levels, classes)
        self.K, self.miss, self.C = K, miss, C
        self.grid = H // 2**halvings, W // 2**halvings
        self.N = math.prod(self.grid)  # codes of an image
        self.p = outputs.softmax(levels)  # p(x | z_q), for each number of an image
        if classes:
            self.sample_note = "the classes are drawn as frequent as they are in the training images"
        body = dict(width=width, blocks=blocks, classes=classes, dropout=dropout)
        self.f = Encoder(self.C, dim, halvings=halvings, **body)
        self.codebook = VectorQuantizer(K, dim, beta, average or None, revive)
        self.g = Decoder(dim, self.C * self.p.rows, doublings=halvings, **body)
        prior = dict(gated=True, classes=classes, dropout=prior_dropout, first=5)
        self.prior = PixelCNN(self.grid, K, prior_width, prior_blocks, **prior)
        self.register_buffer("with_prior", torch.tensor(False))  # true from the second stage on: p(k) is (6)
        self.register_buffer("frequency", torch.full((max(1, classes),), 1 / max(1, classes)))  # p(y) of (7)
        self.place(device, dtype)

    # ---- what is learnt, stage by stage ------------------------------------------------------------------------------

    def begin(self, stage, train):
        """From now on `loss` is that of this stage, and only what it learns has gradients."""
        prior = self.stages.index(stage) == 1
        self.with_prior.fill_(prior)
        if prior:
            self._number_codes()
        if prior and self.classes:
            self.frequency.copy_(torch.bincount(train.y, minlength=self.classes) / len(train.y))
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith("prior.") == prior)

    @torch.no_grad()
    def _number_codes(self):
        """Number the codes along their principal axis: PixelCNN treats neighbouring numbers as similar."""
        e = self.codebook.weight.double().cpu()
        axis = torch.linalg.eigh(torch.cov(e.T).view(e.shape[1], -1))[1][:, -1]
        order = (e @ axis * axis[axis.abs().argmax()].sign()).argsort(stable=True).to(self.device)
        for of_codes in self.codebook.state_dict().values():
            of_codes.copy_(of_codes[order])

    @property
    def unit(self):
        return "nats" if self.with_prior else "squared distances and nats"

    def train(self, mode=True):
        super().train(mode)
        for resting in (self.f, self.codebook, self.g) if self.with_prior else ():
            resting.eval()
        return self

    def loss(self, x, y=None):
        """(N, *shape) -> (N,): in the first stage (3), in the second -(4)."""
        if self.with_prior:
            return -self.log_prob(x, y)
        z_q, k, distance = self.codebook(self.z(x, y))  # (1), (2)
        if self.training and self.miss:
            z_q = z_q * (torch.rand(*k.shape, 1, device=k.device) >= self.miss)
        return self.nll(x, z_q, y) + distance.flatten(1).sum(1)  # (3)

    @torch.no_grad()
    def report(self, x, y=None):
        """The perplexity of the codes of these images, the share of all codes that they are, and the number of the
        others."""
        parts = zip(x.split(1000), [None] * len(x) if y is None else y.split(1000), strict=False)
        count = sum(torch.bincount(self.codes(x_b, y_b).flatten(), minlength=self.K) for x_b, y_b in parts)
        used = count > 0
        perplexity = torch.special.entr(count / count.sum()).sum().exp()  # (8)
        return {"perplexity": perplexity.item(), "usage": used.double().mean().item(), "dead": (~used).sum().item()}

    # ---- the bound ---------------------------------------------------------------------------------------------------

    def log_prob(self, x, y=None):
        """(N, *shape) -> (N,) in nats: the bound (4), of log p(x|y) if y is given; the bound (7) for a model with
        classes if y is None."""
        if self.classes and y is None:
            return self.over_classes(lambda c: self.log_prob(x, c), self.frequency)  # (7)
        reconstruction, kl = self.terms(x, y)
        return -reconstruction - kl

    def terms(self, x, y=None):
        """Its parts, each (N,): -log p(x | k(x)), and -log p(k(x)), which is the KL of (5)."""
        k = self.codes(x, y)
        return self.nll(x, self.codebook.weight[k], y), -self.log_p(k, y)  # (4)

    @torch.no_grad()
    def figures(self, x, y=None, *, k=0):
        """The bound, its parts, and what the KL is without a prior; each (N,)."""
        reconstruction, kl = self.terms(x, y)
        uniform = torch.full_like(kl, self.N * math.log(self.K))
        return {"elbo": -reconstruction - kl, "reconstruction": reconstruction, "kl": kl, "kl-uniform": uniform}

    def nll(self, x, z_q, y=None):
        """(N, *shape), (N, h, w, dim) -> (N,): -log p(x | z_q)."""
        x, a = self.check(x)[0], self._logits(z_q, y)
        return -self.p.log_p(a, x.reshape(-1, *a.shape[2:])).reshape(len(x), self.D).sum(1)

    def log_p(self, k, y=None):
        """(N, h, w) -> (N,): log p(k); uniform until the prior is learnt."""
        if not self.with_prior:
            return self.frequency.new_full((len(k),), -self.N * math.log(self.K))  # (5)
        return self.prior.log_prob(k, y)  # (6)

    # ---- codes -------------------------------------------------------------------------------------------------------

    def z(self, x, y=None):
        """(N, *shape) -> (N, h, w, dim)."""
        x, y = self.check(x, y, needed=True)
        v = self.v_of(x).view(len(x), *(1, *self.shape)[-3:])
        return self.f(v, y).movedim(1, -1)

    def codes(self, x, y=None):
        """(N, *shape) -> (N, h, w) int64."""
        return ops.nearest_code(self.z(x, y), self.codebook.weight)  # (1)

    def decode_codes(self, k, y=None):
        """(N, h, w) -> (N, *shape): the mean image in levels, 0 ... L-1."""
        return self.p.mean(self._logits(self.codebook.weight[k], y)).reshape(len(k), *self.shape)

    def reconstruct(self, x, y=None):
        return self.decode_codes(self.codes(x, y), y)

    @torch.no_grad()
    def sample(self, n, y=None, *, mean=False):
        """n draws, (n, *shape): codes from the prior, then each pixel from its distribution given them. y: a class for
        all, or one each; None draws them as frequent as in the data. mean: the mean image of the codes, in levels."""
        if self.classes and y is None:
            y = torch.multinomial(self.frequency, n, replacement=True)
        if self.with_prior:
            k = self.prior.sample(n, y=y).long()  # (6)
        else:
            k = torch.randint(self.K, (n, *self.grid), device=self.device)  # (5)
        if mean:
            return self.decode_codes(k, y)
        a = self._logits(self.codebook.weight[k], y)
        return self.p.draw(a, torch.rand(len(a), *a.shape[2:], device=a.device)).reshape(n, *self.shape)

    def _logits(self, z_q, y=None):
        """(N, h, w, dim) -> (N C, rows, H, W)"""
        a = self.g(z_q.movedim(-1, 1), self.check_y(y, len(z_q), needed=True))  # (N, C rows, H, W)
        return a.unflatten(1, (self.C, self.p.rows)).flatten(0, 1)


_DIGITS = dict(halvings=2, dropout=0.3, prior_width=64, prior_blocks=1, prior_dropout=0.3)
_CODES = dict(steps=2000, batch=64, rate=2e-3, shift=0.4)
_PRIOR = dict(steps=400, batch=64, rate=3e-3, shift=0.2, every=50)
# Tuned on the valid split alone; `conditional` also by the share of its samples that digits-v1 classifies correctly
RECIPES = {
    "digits": {"data": "digits", "model": _DIGITS, "train": _CODES, "prior": _PRIOR, "threads": 1},
    "digits-threshold": {"data": "digits-threshold", "model": _DIGITS, "train": _CODES, "prior": _PRIOR, "threads": 1},
    "conditional": {
        "data": "digits",
        "model": dict(K=16, dropout=0.2, miss=0.1, classes=10, prior_width=64, prior_dropout=0.5),
        "train": dict(steps=2000, batch=64, rate=2e-3, shift=0.2),
        "prior": dict(steps=800, batch=64, rate=3e-3, shift=0.1, ema=0.99, every=50),
        "threads": 1,
    },
    "mnist": {  # 40 ms a step on one core. 256 levels would take 1 s a step, so the images are binary
        "data": "mnist-dynamic",
        "model": dict(K=64, halvings=2, prior_width=64),
        "train": dict(steps=6000, batch=32, rate=2e-3, every=500),
        "prior": dict(steps=3000, batch=64, rate=2e-3, every=500),
    },
    "colour": {  # not tuned
        "data": "images",
        "model": dict(K=256, halvings=2, prior_width=64),
        "train": dict(steps=5000, batch=16, rate=1e-3, every=500),
        "prior": dict(steps=3000, batch=64, rate=2e-3, every=500),
    },
}
