"""RNADE: a density of real numbers, drawn one after another, each from a mixture of Gaussians that those before give.

The course, "Modèles autorégressifs"; Uria, Murray, Larochelle, "RNADE: The real-valued neural autoregressive
density-estimator", 2013; Bishop, "Mixture Density Networks", 1994. The layers are the masked ones of made.py in the
place of NADE's: two or more of them bend a curve of the plane where one hidden layer needs many more units.

    p(x) = prod_d p(x_d | x_<d)                                                             (1)
    p(x_d | x_<d) = sum_k pi_dk N(x_d; mu_dk, sigma_dk^2)                                   (2)
    pi_d = softmax(a_d),   sigma_d = exp(s_d)                                               (3)
    z = f(b + (W o M^W) x)                                                                  (4)
    (a_d, mu_d, s_d) = c_d + (V o M^V)_d z                                                  (5)
    x_d = mu_dk + sigma_dk Phi^-1((u - P_k-1) / pi_dk)   where P_k-1 <= u < P_k = sum_j<=k pi_dj   (6)
    log P(x) >= E_u [log p(r) + D log(2 / L)],   r = 2 (x + u) / L - 1                      (7)

M^W and M^V are made.py's: x_d has the degree d = 1 ... D, a hidden unit 1 ... D-1, and c_1 alone gives p(x_1). log p
is a log-sum-exp over k, in which no exponent overflows. In (6) one uniform number u decides both: which Gaussian, and,
by its place within that Gaussian's share, where in it. Images of L levels are dequantised (7), as in realnvp.py, by
uniform noise alone. `order` says which number is x_1, which x_2, ...; x comes and goes in its own order.

A mixture could put all its mass on one number, so sigma is at least exp(-7). A model made for data (`of_data`) begins
with c such that each x_d has the mixture of its own numbers, whatever x_<d are.

    room: kernels/masked_linear.py    layer: genmini.layers.MaskedLinear    test: tests/models/test_rnade.py
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from genmini.layers import MaskedLinear
from genmini.models._levels import noise_and_start, ordered
from genmini.models._model import Model
from genmini.outputs import at_least_float32, level_dtype
from genmini.settings import share, whole

LOG_S = -7, 60  # of s: exp(-s) underflows in float32 above 87


class RNADE(Model):
    def __init__(self, shape, levels=None, components=10, hidden=(64, 64), order="natural", dropout=0.0,
                 device=None, dtype=None):
        """shape of one x (2,); levels: None for real numbers of about unit scale, L for images of levels 0 ... L-1;
        components: K Gaussians; hidden: units of each layer; order "natural", "random" or a list of all numbers."""
        whole(hidden=hidden, components=components)
        share(dropout=dropout)
        if levels is not None:
            whole(2, levels=levels)
        super().__init__(shape, levels)
        self.K, self.is_bound = components, levels is not None
        self.register_buffer("order", ordered(order, self.D))
        even = [1 + torch.arange(H, device="cpu") * max(self.D - 1, 1) // H for H in hidden]
        self.degrees = [torch.arange(1, self.D + 1, device="cpu"), *even]  # of x_1 ... x_D, and of each hidden layer
        pairs = zip(self.degrees, even, strict=False)
        self.W = nn.ModuleList(MaskedLinear(len(m), len(d), in_degree=m, out_degree=d) for m, d in pairs)
        last, outputs = self.degrees[-1], self.degrees[0].repeat_interleave(3 * self.K)
        self.V = MaskedLinear(len(last), len(outputs), in_degree=last, out_degree=outputs, strict=True)
        self.dropout = nn.Dropout(dropout)
        self.place(device, dtype)

    @classmethod
    def of_data(cls, train, **settings):
        """A new model, whose mixtures begin where these data lie."""
        model = super().of_data(train, **settings)
        model._set_by(train.x.to(model.device))
        return model

    @torch.no_grad()
    def _set_by(self, x):
        """Set c so that, but for the weights, every x_d has its own mixture, whatever x_<d are: the sorted numbers are
        cut into K parts of the same size, each a Gaussian with their mean and deviation."""
        x = x.reshape(len(x), self.D)[:, self.order].to(self.dtype)
        x = x if self.levels is None else self._on_the_line(x + torch.rand_like(x))
        x = x.repeat(-(-self.K // len(x)), 1).sort(0).values
        parts = [torch.std_mean(part, 0, correction=0) for part in x.tensor_split(self.K)]
        sigma, mu = (torch.stack(each, 1) for each in zip(*parts, strict=True))  # (D, K)
        self.V.bias.copy_(torch.stack([torch.zeros_like(mu), mu, sigma.log().clamp(*LOG_S)], 1).flatten())

    # ---- the mixtures of all numbers at once -------------------------------------------------------------------------

    def parameters_of(self, x):
        """x_1 ... x_D (N, D) -> a, mu, s of each, (N, D, 3, K): those of x_d depend on x_<d only"""
        z = x
        for W in self.W:
            z = self.dropout(F.relu(W(z)))  # (4)
        return self.V(z).unflatten(1, (self.D, 3, self.K))  # (5)

    def log_prob(self, x, y=None):
        """(N, *shape) -> (N,) in nats; with levels the bound (7), by noise that is drawn anew each time."""
        x, _ = self.check(x, y)
        x = x[:, self.order].to(self.dtype)
        if self.levels is None:
            return self._log_p(x)
        r = self._on_the_line(x + torch.rand_like(x))
        return self._log_p(r) + self.D * math.log(2 / self.levels)  # (7)

    def _log_p(self, x):
        return mixture(self.parameters_of(x), x).sum(1)  # log of (1)

    def _on_the_line(self, x):
        """x + u in [0, L) -> r in [-1, 1)"""
        return 2 * x / self.levels - 1

    # ---- samples -----------------------------------------------------------------------------------------------------

    def pixel_order(self):
        return self.order

    def sample(self, n, y=None, *, u=None, x=None, known=0):
        """n draws, (n, *shape): float, or whole levels. u (n, D): uniform noise; u[:, d] decides the d-th number.

        x (n, *shape), known: the first `known` numbers in `order` are those of x, the rest is drawn after them; of
        levels, u says where in its cell a known one lies."""
        self.check_y(y, n)
        return self._sample(n, u, x, known, self._walk)

    def sample_naive(self, n, y=None, *, u=None, x=None, known=0):
        """The same draws, by D passes of the network; tests compare `sample` with it."""
        self.check_y(y, n)
        return self._sample(n, u, x, known, self._passes)

    @torch.no_grad()
    def _sample(self, n, u, x, known, draw):
        u, x = noise_and_start(n, self.D, u, x, known, self.device, self.dtype)
        x = x[:, self.order]
        if self.levels is None:
            drawn = draw(u, x, known)
        else:
            r = draw(u, self._on_the_line(x + u), known)
            levels = (self.levels * (r + 1) / 2).floor().clamp(0, self.levels - 1)
            drawn = torch.cat([x[:, :known], levels[:, known:]], 1).to(level_dtype(self.levels))
        return drawn[:, self.order.argsort()].reshape(n, *self.shape)

    def _walk(self, u, x, known):
        """(n, D) -> the same with x[:, known:] drawn. When x_d is known, the units of degree d are computed, each once;
        degrees ascend, so that those of the units seen so far are the first ones."""
        z = [x.clone(), *(x.new_zeros(len(x), W.out_features) for W in self.W)]
        ends = [[0, *m.bincount(minlength=self.D + 1).cumsum(0)[1:].tolist()] for m in self.degrees]
        V, c = self.V.weight.unflatten(0, (self.D, -1)), self.V.bias.unflatten(0, (self.D, -1))
        for d in range(self.D):
            for i, W in enumerate(self.W if d else ()):  # the units of degree d see x_1 ... x_d
                seen, new = ends[i][d], slice(ends[i + 1][d - 1], ends[i + 1][d])
                z[i + 1][:, new] = F.relu(F.linear(z[i][:, :seen], W.weight[new, :seen], W.bias[new]))  # (4)
            if d >= known:
                seen = ends[-1][d]
                a = F.linear(z[-1][:, :seen], V[d, :, :seen], c[d])  # (5)
                z[0][:, d] = draw(a.unflatten(1, (3, self.K)), u[:, d])
        return z[0]

    def _passes(self, u, x, known):
        x = x.clone()
        for d in range(known, self.D):
            x[:, d] = draw(self.parameters_of(x)[:, d], u[:, d])
        return x


def mixture(a, x):
    """a, mu, s (..., 3, K), x (...) -> log p(x | a), (...)"""
    a, mu, s = at_least_float32(a).unbind(-2)
    s = s.clamp(*LOG_S)
    log_pi = a.log_softmax(-1)  # log of (3)
    e = (x[..., None] - mu) * torch.exp(-s)
    return (log_pi - e.square() / 2 - s).logsumexp(-1) - math.log(2 * math.pi) / 2  # log of (2)


def draw(a, u):
    """a, mu, s (n, 3, K), uniform noise u (n,) -> n draws, in the dtype of a"""
    pi, mu, s = a.double().unbind(-2)
    pi = pi.softmax(-1)  # (3)
    P, u = pi.cumsum(-1), u[:, None].double()
    k = (u >= P).sum(-1, keepdim=True).clamp(max=pi.shape[-1] - 1)
    pi, P, mu, s = (part.gather(-1, k) for part in (pi, P, mu, s.clamp(*LOG_S)))
    within = ((u - P + pi) / pi).clamp(2**-26, 1 - 2**-26)  # Phi^-1 is infinite at 0 and 1
    return (mu + s.exp() * torch.special.ndtri(within))[:, 0].to(a.dtype)  # (6)


RECIPES = {
    toy: {
        "data": toy,
        "model": dict(components=K, hidden=(64, 64, 64)),
        "train": dict(steps=steps, batch=256, rate=5e-3, ema=0.99, every=1000),
        "threads": 1,
    }
    for toy, K, steps in (("moons", 20, 3000), ("spirals", 20, 4000), ("rings", 20, 3000), ("checkerboard", 30, 5000),
                          ("gaussians", 20, 1000))
}
