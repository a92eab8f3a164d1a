"""VAE: an autoencoder whose code is nearly a standard Gaussian, so that a code can be drawn without an image.

The course, "Auto-encodeur variationnel" and the practical on MNIST; Kingma, Welling, "Auto-Encoding Variational Bayes",
2014; the bound of many draws is Burda, Grosse, Salakhutdinov's (IWAE, 2016), beta Higgins et al.'s (2017), free bits
are Kingma et al.'s (2016).

    p(x) = int p(x|z) p(z) dz,   p(z) = N(0, I),   q(z|x) = N(mu(x), diag sigma^2(x))       (1)
    z = mu + sigma o eps,   KL(q(z|x) || p(z)) = 1/2 sum_i (mu_i^2 + sigma_i^2 - 1 - log sigma_i^2)     (2)
    log p(x) >= ELBO(x) = E_q(z|x) [log p(x|z)] - KL(q(z|x) || p(z))                        (3)
    loss = -log p(x|z) + beta sum_i max(lambda, KL_i)                                       (4)
    log w_k = log p(x|z_k) + log p(z_k) - log q(z_k|x)                                      (5)
    L_K = E log 1/K sum_k w_k,   ELBO = L_1 <= L_2 <= ... -> log p(x)                       (6)

The expectation in (3) is estimated by one draw of eps, a new one at each step. In (4), KL_i is the mean over the
batch; lambda is the number of nats of each dimension that are not penalised. (6) also estimates log p(x); to first
order the error of one estimate is that of the mean of w.

The decoder gives p(x|z) (genmini/outputs.py), or a density of v = x / (L-1) (genmini/densities.py), no probability of
levels: its nats, which may be negative, compare with one another only, and are printed without bits/dim. With a fixed
scale, the negative of (3) is, up to a constant, the course's alpha ||v - f(z)||^2 + KL for a Gaussian, alpha = 1/(2
sigma^2), and alpha ||v - f(z)||_1 + KL for a Laplace density. The practical takes the cross-entropy of grey v, as if
they were bits: no density has it for its -log p, so (3) then bounds nothing, and log p is refused. With its normaliser
it is the continuous Bernoulli.

The room draws eps: by torch.randn on a CPU, where that is faster; elsewhere from a seed, so that none is stored.

    room: kernels/gaussian_kl.py    bodies: genmini/nets/coders.py    test: tests/models/test_vae.py
"""

import math

import torch

from genmini import densities, ops
from genmini.models._model import Cannot
from genmini.models._search import Searched
from genmini.nets.coders import coders
from genmini.settings import number, one_of, whole

AT_ONCE = 2**21  # numbers of the decoder's output, for many z of one x: its layers hold up to 64 times as many


class VAE(Searched):
    is_bound = True  # in expectation
    has_normal_prior = True

    def __init__(self, shape, levels=2, latent=20, body="mlp", hidden=400, width=32, upsample="nearest",
                 decoder="bernoulli", alpha=20.0, variance="shared", beta=1.0, free_bits=0.0, dropout=0.0,
                 context=(0, 0), device=None, dtype=None):
        """latent: d numbers z. body "mlp", the practical's, of `hidden` units, or "conv" of `width` channels,
        `upsample` "transposed", "nearest" or "bilinear"; decoder "bernoulli", "categorical", "gaussian" or "laplace"
        with `alpha`, "gaussian-learned" or "laplace-learned" with one variance (or b) "shared" by all pixels or one for
        each "pixel", "continuous-bernoulli", or "cross-entropy"; beta, free_bits: of (4).
        context: of CVAE, how many numbers y steer the encoder, and the decoder.
        """
        whole(2, 256, levels=levels)
        whole(latent=latent)
        number(least=0, beta=beta, free_bits=free_bits)
        one_of(("mlp", "conv"), body=body)
        super().__init__(shape, levels)
        self.latent, self.beta, self.free_bits = latent, beta, free_bits
        self.p = densities.decoder(decoder, levels, alpha, variance)
        self.unit = self.p.unit
        numbers = 2 * latent, latent, self.p.rows
        self.encoder, self.f = coders(body, shape, *numbers, hidden, width, upsample, context, dropout)
        self.place(device, dtype)

    @torch.no_grad()
    def begin_at_marginals(self, x):
        last = [layer for layer in self.f.modules() if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)][-1]
        if last.bias.numel() != self.p.rows * self.D:
            raise Cannot("marginals need a bias for each pixel, and convolutions share theirs: take body='mlp'")
        if not self.p.has_marginals:
            raise Cannot("marginals are for bits and levels: take decoder='bernoulli' or 'categorical'")
        last.bias.copy_(self.p.marginals(x.flatten(1)).T.flatten())  # the rows of all pixels, one after another

    # ---- q(z|x) and p(x|z) -------------------------------------------------------------------------------------------

    def q(self, x, y=None):
        """Levels x (N, *shape) -> mu, log sigma^2, each (N, d)"""
        x, y = self.check(x, y)
        return self.encoder(self.v_of(x), y).chunk(2, 1)  # (1)

    def draw(self, mu, log_var, eps=None):
        """-> z (N, d); KL (N,), or (N, d) if free_bits > 0. eps: the noise, drawn if it is None."""
        if not self.free_bits:
            return ops.gaussian_kl(mu, log_var, eps)  # (2)
        row = lambda a: None if a is None else a.reshape(-1, 1)  # rows of one number: their sums are KL_i
        z, kl = ops.gaussian_kl(row(mu), row(log_var), row(eps))
        return z.view_as(mu), kl.view_as(mu)

    def log_p(self, x, z, y=None):
        """log p(x|z), (N,), of levels x"""
        return self.p.log_p(self.f(z, self.check_y(y, len(z))), x.reshape(len(x), *self.shape)).flatten(1).sum(1)

    def terms(self, x, y=None, *, eps=None):
        """-log p(x|z) (N,), KL (N,) or (N, d), z (N, d)"""
        mu, log_var = self.q(x, y)
        z, kl = self.draw(mu, log_var, eps)
        return -self.log_p(x, z, y), kl, z

    # ---- bounds of log p(x), (N,) ------------------------------------------------------------------------------------

    def elbo(self, x, y=None, *, eps=None):
        self._check_likelihood()
        reconstruction, kl, _ = self.terms(x, y, eps=eps)
        return -reconstruction - kl.reshape(len(kl), -1).sum(1)  # (3)

    def _check_likelihood(self):
        if not self.unit.startswith("nats"):
            raise Cannot("the cross-entropy of grey values is no -log p, because its exponential does not integrate to "
                         "one: decoder='continuous-bernoulli' has a likelihood")

    def loss(self, x, y=None, *, eps=None):
        return self.cost(*self.terms(x, y, eps=eps)[:2])

    def cost(self, reconstruction, kl):
        if self.free_bits:
            kl = kl.mean(0).clamp(min=self.free_bits).sum()
        return reconstruction + self.beta * kl  # (4)

    def log_weights(self, x, y=None, *, k):
        """log w_k of (5), (k, N)"""
        self._check_likelihood()
        if k < 1:
            raise ValueError(f"k must be at least 1 draw, got {k}")
        mu, log_var = self.q(x, y)
        N, parts = len(mu), []
        many = max(1, AT_ONCE // max(1, N * self.D * self.p.rows))
        y = self.check_y(y, N)
        for part in range(0, k, many):
            eps = torch.randn(min(many, k - part), N, self.latent, device=mu.device, dtype=mu.dtype)
            z = mu + (log_var / 2).exp() * eps
            again = lambda a: a.expand(len(z), *a.shape).flatten(0, 1)  # noqa: B023
            log_p = self.log_p(again(x), z.flatten(0, 1), None if y is None else again(y)).view(len(z), N)
            parts.append(log_p + (eps.square() + log_var - z.square()).sum(2) / 2)  # (5)
        return torch.cat(parts)

    def iwae(self, x, y=None, *, k):
        return self.log_weights(x, y, k=k).logsumexp(0) - math.log(k)  # (6)

    def log_prob(self, x, y=None, *, k=100):
        """(N, *shape) -> (N,): importance sampling with k draws; in expectation low by half the square of its error."""
        return self.iwae(x, y, k=k)

    def figures(self, x, y=None, *, k=0):
        """What `genmini eval` prints, each (N,). The ELBO takes one draw for each image."""
        reconstruction, kl, _ = self.terms(x, y)
        kl = kl.reshape(len(kl), -1).sum(1)
        if not self.unit.startswith("nats"):
            return {"cross-entropy + KL": reconstruction + kl, "cross-entropy": reconstruction, "KL": kl}
        many = {f"iwae-{k}": self.iwae(x, y, k=k)} if k else {}
        return {"elbo": -reconstruction - kl, **many, "reconstruction": reconstruction, "kl": kl}

    # ---- images ------------------------------------------------------------------------------------------------------

    def encode(self, x, y=None):
        """The mean of q(z|x), (N, d)"""
        return self.q(x, y)[0]

    def decode(self, z, y=None):
        """The mean of p(x|z) in levels, (N, *shape)"""
        return self.p.mean(self.f(self.check_z(z), self.check_y(y, len(z))))

    def reconstruct(self, x, y=None):
        return self.decode(self.encode(x, y), y)

    @torch.no_grad()
    def sample(self, n, y=None, *, mean=False):
        """n draws, (n, *shape) uint8: z from p(z), x from p(x|z); mean: not x, but its mean given z, float levels."""
        z = torch.randn(n, self.latent, device=self.device, dtype=self.dtype)  # (1)
        if mean:
            return self.decode(z, y)
        return self.p.draw(self.f(z, self.check_y(y, n)), torch.rand(n, *self.shape, device=z.device))


RECIPES = {  # tuned on the valid split alone; "-mlp" and its sibling have as many parameters, 10% apart at most
    "digits": {
        "data": "digits-threshold",
        "model": dict(latent=10, body="conv", width=16),
        "train": dict(steps=2500, batch=64, rate=3e-3, shift=0.2),
        "threads": 1,
    },
    "digits-mlp": {
        "data": "digits-threshold",
        "model": dict(latent=10, hidden=270),
        "train": dict(steps=2500, batch=64, rate=1e-3, shift=0.2),
        "threads": 1,
    },
    "digits-levels": {
        "data": "digits",
        "model": dict(latent=10, body="conv", width=24, decoder="categorical"),
        "train": dict(steps=2500, batch=64, rate=3e-3, shift=0.2),
        "threads": 1,
    },
    "digits-levels-mlp": {
        "data": "digits",
        "model": dict(latent=10, hidden=80, decoder="categorical"),
        "train": dict(steps=4000, batch=64, rate=2e-3, shift=0.2),
        "threads": 1,
    },
    "digits-gaussian": {
        "data": "digits",
        "model": dict(latent=10, body="conv", width=16, decoder="gaussian-learned"),
        "train": dict(steps=1500, batch=64, rate=2e-3, shift=0.2),
        "threads": 1,
    },
    **{  # digits-gaussian by other losses of a pixel, not tuned: genmini study losses
        f"digits-{name}": {
            "data": "digits",
            "model": dict(latent=10, body="conv", width=16, decoder=decoder),
            "train": dict(steps=1500, batch=64, rate=2e-3, shift=0.2),
            "threads": 1,
        }
        for name, decoder in (("laplace", "laplace-learned"), ("continuous", "continuous-bernoulli"),
                              ("cross-entropy", "cross-entropy"))
    },
    "mnist": {  # the practical's network
        "data": "mnist-dynamic",
        "model": dict(latent=20, hidden=400),
        "train": dict(steps=25_000, batch=128, rate=1e-3, every=1000, marginals=True),
    },
    "mnist-conv": {
        "data": "mnist-dynamic",
        "model": dict(latent=20, body="conv", width=32),
        "train": dict(steps=50_000, batch=128, rate=1e-3, every=1000),
    },
    "colour": {  # not tuned
        "data": "images",
        "model": dict(latent=64, body="conv", width=32, decoder="gaussian-learned"),
        "train": dict(steps=10_000, batch=64, rate=1e-3, every=500),
    },
}
