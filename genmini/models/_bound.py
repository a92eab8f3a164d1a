"""The bound of a diffusion: how many nats an image costs at most, summed over all times.

Ho, Jain, Abbeel, 2020; Kingma et al., "Variational Diffusion Models", 2021 (by signal-to-noise ratios).

    -log P(x) <= L_T + sum_{t=2}^T L_t + L_1                                                (1)
    L_T = KL(q(x_T | x_0) || N(0, I))                                                       (2)
    L_t = KL(q(x_t-1 | x_t, x_0) || q(x_t-1 | x_t, x0)) = 1/2 (SNR_t-1 - SNR_t) |x_0 - x0|^2,   SNR = a^2 / s^2   (3)
    L_1 = -sum_d log int over level x_d of N(x0_d, (s_1 / a_1)^2)                           (4)

x0 is the network's estimate of x_0 at x_t. In (4) level l reaches half way to its neighbours, the first and the last
one to infinity. `log_prob` and `figures` sum (1) over k stratified times for each image, unbiased, and over all T where
k >= T.

    used by: genmini/models/diffusion.py    test: tests/models/test_diffusion_bound.py
"""

import torch

from genmini.models._model import Model
from genmini.outputs import log_mass
from genmini.schedule import x0_of
from genmini.settings import whole


class Bounded(Model):
    """A Diffusion's figures, (N,) each, in nats"""

    is_bound = True

    def prior_kl(self, x_0):
        a, s = self.a[-1], self.s[-1]
        return ((a * x_0).square() + (s.square() - 1 - 2 * s.log())).flatten(1).sum(1) / 2  # (2)

    def cost(self, x, x_0, x_t, t, out):
        """L_t of levels x for each row, from the network's output at x_t"""
        a, s = (table[t].view(-1, 1, 1, 1).to(x_t.dtype) for table in (self.a, self.s))
        x0 = x0_of(self.target, x_t, out, a, s, self.spread)
        snr = (self.a / self.s).square()
        before = torch.where(t == 1, snr[1], snr[t - 1])  # not SNR_0: infinite, its gradient would be NaN
        kl = (before - snr[t]) / 2 * (x_0 - x0).square().flatten(1).sum(1)  # (3)
        last = log_mass(x, x0.flatten(1), (self.s[1] / self.a[1]), self.levels).sum(1)
        return torch.where(t == 1, -last, kl).to(x_t.dtype)  # (4)

    def terms(self, x, y=None, *, k=20):
        """-> L_1, the sum over t = 2 ... T of L_t, and L_T, each (N,); the sum by k times, one from each of k strata"""
        whole(k=k)
        x, y = self.x_and_y(x, y)
        x_0, y, N, k = self.x_0(x), self.read(y), len(x), min(k, self.T - 1)

        def cost(t):
            x_t, _ = self.noised(x_0, t, torch.randn_like(x_0))
            return self.cost(x, x_0, x_t, t, self.F(x_t, self.a[t], self.s[t], y, self.shown(x_0)))

        kl = torch.zeros(N, device=x.device, dtype=x_0.dtype)
        for j in range(k):
            u = (j + torch.rand(N, device=x.device, dtype=torch.float64)) / k
            kl += cost(2 + ((self.T - 1) * u).long().clamp(max=self.T - 2)) * ((self.T - 1) / k)
        return cost(torch.ones(N, device=x.device, dtype=torch.long)), kl, self.prior_kl(x_0)

    def log_prob(self, x, y=None, *, k=20):
        """(N, *shape) -> (N,): an unbiased estimate of the lower bound (1) of log P(x | y), without y of log P(x)"""
        return -sum(self.terms(x, y, k=k))  # (1)

    def figures(self, x, y=None, *, k=0):
        """The bound and its parts, each (N,); k: how many times t of an image are drawn, 0: 20 of them."""
        reconstruction, kl, prior = self.terms(x, y, k=k or 20)
        return {"elbo": -(reconstruction + kl + prior), "reconstruction": reconstruction, "kl": kl + prior,
                "kl-prior": prior}
