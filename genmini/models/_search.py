"""Draws the hidden numbers of any mask, by a decoder: it searches the codes z that give what is known of an image.

    p(x_h | x_k) = int p(x_h | z) p(z | x_k) dz,   p(z | x_k) = p(x_k | z) p(z) / p(x_k)    (1)
    max over mu_s, sigma_s of E_q_s log p(x_k | z) - KL(q_s || p(z)),   q_s = N(mu_s, diag sigma_s^2)   (2)
    q(z) = (p(z) + sum_s q_s(z)) / (S + 1)                                                  (3)
    w_i = p(x_k | z_i) p(z_i) / q(z_i),   p(x_k) ~ mean of w_i                              (4)

The encoder knows whole images only. So S searches begin at draws of p(z), and gradients lead each up the bound (2) of
log p(x_k): to a mode of p(z | x_k), and to how wide it is. Draws from (3), as many from each part, are weighted by (4)
and chosen by their weights (importance resampling); p(z) among the parts bounds w. The mean of w is p(x_k) without
bias, and its logarithm too low in the mean. A search that ends at a poor mode costs draws, and no correctness.

Cremer, Li, Duvenaud, "Inference Suboptimality in Variational Autoencoders", 2018 (a q for each image by gradients).

    used by: genmini/models/vae.py    test: tests/models/test_inpaint.py
"""

import math

import torch

from genmini import conditions
from genmini.models._model import Model
from genmini.settings import whole

STARTS, STEPS, DRAWS, RATE = 8, 80, 40, 0.1  # searches, their steps, draws from each part, and Adam's rate
AT_ONCE = 2**21  # numbers of the decoder's output, of all draws together


class Searched(Model):
    """A model with a decoder f(z, y), p(x | f), and p(z) = N(0, I)."""

    def inpaint(self, x, y=None, *, known, n):
        """(N, *shape) -> (n, N, *shape), as `Model.inpaint` says."""
        whole(n=n)
        parts = []
        for x_b, y_b, mask in self._batches(x, y, known):
            z, log_w = self._search(x_b, y_b, mask)
            chosen = torch.multinomial(log_w.softmax(1), n, True)
            z = z.gather(1, chosen[..., None].expand(-1, -1, self.latent)).transpose(0, 1)  # (n, N, d)
            a = self.f(z.flatten(0, 1), None if y_b is None else y_b.repeat(n, 1))
            drawn = self.p.draw(a, torch.rand(n * len(x_b), *self.shape, device=z.device))
            parts.append(torch.where(mask, x_b.to(drawn.dtype), drawn.view(n, *x_b.shape)))
        return torch.cat(parts, 1)

    def log_hidden(self, x, y=None, *, known):
        """(N,), as `Model.log_hidden` says: log p(x) - log p(x_k), each by a search."""
        everything = torch.ones(self.shape, dtype=torch.bool)
        log_p = [torch.cat([log_mean(self._search(*batch)[1]) for batch in self._batches(x, y, of)])
                 for of in (everything, known)]
        return log_p[0] - log_p[1]

    def _batches(self, x, y, known):
        """Triples of x (N, *shape), y and the mask (*shape), for as many examples as their draws fit"""
        x, y = self.check(x, y)
        mask = conditions.mask(known, self.shape, self.pixel_order()).view(self.shape).to(x.device)
        many = max(1, AT_ONCE // ((STARTS + 1) * DRAWS * self.D * self.p.rows))
        for i in range(0, len(x), many):
            yield x[i : i + many].view(-1, *self.shape), None if y is None else y[i : i + many], mask

    @torch.no_grad()
    def _search(self, x, y, mask):
        """-> z (N, m, d), log w (N, m)"""
        self._check_likelihood()

        def log_p(z):  # (N, m, d) -> log p(x_k | z), (N, m)
            again = lambda a: a.repeat_interleave(z.shape[1], 0)
            each = self.p.log_p(self.f(z.flatten(0, 1), None if y is None else again(y)), again(x))
            return torch.where(mask, each, 0).flatten(1).sum(1).view(z.shape[:2])

        mu = torch.randn(len(x), STARTS, self.latent, device=self.device, dtype=self.dtype)
        rho = torch.full_like(mu, -1.0)  # log sigma
        parameters = [mu.requires_grad_(), rho.requires_grad_()]
        adam = torch.optim.Adam(parameters, RATE)
        for _ in range(STEPS):
            with torch.enable_grad():
                kl = (mu.square() + (2 * rho).exp() - 1 - 2 * rho).sum(2) / 2
                bound = log_p(mu + rho.exp() * torch.randn_like(mu)) - kl  # (2)
                mu.grad, rho.grad = torch.autograd.grad(-bound.sum(), parameters)
            adam.step()
        mu, rho = (torch.cat([each, torch.zeros_like(each[:, :1])], 1) for each in parameters)  # the last is p(z)
        z = mu[:, :, None] + rho.exp()[:, :, None] * torch.randn(*mu.shape[:2], DRAWS, self.latent).to(mu)
        z = z.flatten(1, 2)
        q = log_normal(z[:, :, None], mu[:, None], rho[:, None]).logsumexp(2) - math.log(STARTS + 1)  # log of (3)
        return z, log_p(z) + log_normal(z, torch.zeros_like(z), torch.zeros_like(z)) - q  # log of (4)


def log_mean(log_w):
    """(N, m) -> (N,)"""
    return log_w.logsumexp(1) - math.log(log_w.shape[1])


def log_normal(z, mu, rho):
    """log N(z; mu, diag exp(2 rho)), over the last dimension"""
    return (-((z - mu) / rho.exp()).square() / 2 - rho - math.log(2 * math.pi) / 2).sum(-1)
