"""AR(p): the next number is a weighted sum of the last p, and noise.

The course, "Processus autorégressif"; Yule, 1927. The recursions are Levinson's (1947) and Durbin's (1960).

    x_t = c + phi_1 x_t-1 + phi_2 x_t-2 + ... + phi_p x_t-p + e_t,   e_t ~ N(0, sigma^2)    (1)
    1 - phi_1 z - ... - phi_p z^p = 0  only for  |z| > 1                                    (2)
    mu = c / (1 - phi_1 - ... - phi_p)                                                      (3)
    phi^k_k = kappa_k,   phi^k_i = phi^k-1_i - kappa_k phi^k-1_k-i   (0 < i < k)            (4)
    v_p = sigma^2,   v_k-1 = v_k / (1 - kappa_k^2)                                          (5)
    log p(x) = sum_t log N(x_t; mu + sum_i phi^k_i (x_t-i - mu), v_k),   k = min(t-1, p)    (6)
    min over c, phi of  sum_t>p (x_t - c - sum_i phi_i x_t-i)^2                             (7)
    kappa_k = (gamma_k - sum_i phi^k-1_i gamma_k-i) / v_k-1,   v_k = v_k-1 (1 - kappa_k^2)  (8)
    x_T+h ~ N(m_h, sigma^2 (psi_0^2 + ... + psi_h-1^2)),   psi_j = sum_i phi_i psi_j-i      (9)

(2) says that the process is stationary; then x_t has the mean (3), and phi^k predicts best from k < p numbers, with
the error v_k: (4), read from k = p down to 0, finds them from phi, and (6) is the exact likelihood, the first p numbers
included. |kappa_k| < 1 for all k is equivalent to (2), so the search runs over the kappas. (7) is least squares, (8)
Yule and Walker's fit: gamma_k is the autocovariance at lag k. In (9) m_h continues (1) without noise, psi_0 = 1 and
psi_j = 0 for j < 0.

    test: tests/models/test_ar.py
"""

import math

import scipy.optimize
import torch
from torch import nn

from genmini.models._model import Model
from genmini.settings import one_of, whole

METHODS = ("likelihood", "least-squares", "yule-walker")
MOST_SEARCHED = 100  # numbers phi whose likelihood is searched: the time grows faster than their square


class AR(Model):
    def __init__(self, shape=(100,), levels=None, p=2, device=None, dtype=torch.float64):
        """shape (T,): the default length of a sample; log_prob takes any length."""
        if len(shape) != 1 or levels is not None:
            raise ValueError("AR models series of real numbers, shape (T,) without levels; "
                             f"got shape {shape} with levels {levels}")
        whole(0, p=p)
        super().__init__(shape, levels)
        self.shape, self.T, self.p = (None,), shape[0], p  # None: any length
        self.c = nn.Parameter(torch.zeros((), device=device, dtype=dtype))
        self.phi = nn.Parameter(torch.zeros(p, device=device, dtype=dtype))
        self.log_sigma = nn.Parameter(torch.zeros((), device=device, dtype=dtype))

    # ---- the process -------------------------------------------------------------------------------------------------

    @property
    def mu(self):
        return self.c / (1 - self.phi.sum())  # (3)

    @property
    def sigma(self):
        return self.log_sigma.exp()

    @torch.no_grad()
    def roots(self):
        """The p roots z of (2), complex: 1/z are the eigenvalues of the step (x_t-1 ... x_t-p) -> (x_t ... x_t-p+1)."""
        if not self.p:
            return self.phi.new_empty(0, dtype=torch.complex128)
        step = torch.diag(self.phi.new_ones(self.p - 1), -1)
        step[0] = self.phi
        inverse = torch.linalg.eigvals(step)
        return torch.where(inverse == 0, math.inf, 1 / inverse)  # a phi that ends in zeros has roots at infinity

    @property
    def title(self):
        return f"AR({self.p})"

    def stationary(self):
        return bool((self.roots().abs() > 1).all())  # (2)

    def autocovariance(self, lags):
        """gamma_0 ... gamma_lags of the stationary process, (lags + 1,)"""
        phis, v = _lower_orders(self.phi, self.sigma**2)
        gamma = v[0][None]
        for k in range(1, lags + 1):
            i = min(k, self.p)
            gamma = torch.cat([gamma, (phis[i] * gamma[k - i :].flip(0)).sum()[None]])  # phi^k solves (8)
        return gamma

    def log_prob(self, x, y=None):
        """(N, T) -> (N,) in nats: the exact likelihood of a stationary process."""
        self.check_y(y, len(x))
        return self.log_prob_each(x).sum(1)  # (6)

    def log_prob_each(self, x):
        """(N, T) -> (N, T): log p(x_t | x_1 ... x_t-1)"""
        if not self.stationary():
            closest = self.roots().abs().min().item()
            raise ValueError("the process is not stationary, so x_1 has no distribution: "
                             f"a root has |z| = {closest:.4f}, not above 1")
        return _log_prob_each(x.to(self.phi.dtype), self.mu, *_lower_orders(self.phi, self.sigma**2))

    def figures(self, x, y=None, *, k=0):
        """-log p(x_t | x_1 ... x_t-1) of each number, (N T,)"""
        self.check_y(y, len(x))
        return {"nll": -self.log_prob_each(x).flatten()}

    @torch.no_grad()
    def sample(self, n, y=None, *, T=None, e=None):
        """n series of T numbers, (n, T), stationary from the first on. e (n, T): the standard normal noise to use."""
        self.check_y(y, n)
        e = torch.randn(n, T or self.T, device=self.device, dtype=self.dtype) if e is None else e
        phis, v = _lower_orders(self.phi, self.sigma**2)
        x = torch.zeros_like(e)
        for t in range(e.shape[1]):
            k = min(t, self.p)
            x[:, t] = x[:, t - k : t].flip(1) @ phis[k] + v[k].sqrt() * e[:, t]  # (6)
        return self.mu + x

    @torch.no_grad()
    def forecast(self, x, steps, level=0.95):
        """The next `steps` numbers after x (N, T), T >= p -> mean, lower, upper, each (N, steps): x_T+h lies between
        lower and upper with probability `level`."""
        x = x.to(self.phi.dtype)
        if x.dim() != 2 or x.shape[1] < self.p:
            raise ValueError(f"a forecast needs series (N, T) with T >= p = {self.p}, got {tuple(x.shape)}")
        psi = [torch.ones_like(self.c)]
        for h in range(1, steps):
            psi.append(sum(self.phi[i] * psi[h - 1 - i] for i in range(min(h, self.p))) + 0 * self.c)
        for _ in range(steps):
            x = torch.cat([x, self.c + x[:, x.shape[1] - self.p :].flip(1) @ self.phi[:, None]], 1)  # (1)
        mean = x[:, x.shape[1] - steps :]
        deviation = self.sigma * torch.stack(psi).square().cumsum(0).sqrt()  # (9)
        half = torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=mean.dtype)).to(mean.device) * deviation
        return mean, mean - half, mean + half

    # ---- fitting -----------------------------------------------------------------------------------------------------

    def fit(self, x, method="likelihood"):
        """Set c, phi and sigma from series x (N, T), T > p + 1; all methods but "least-squares" make it stationary."""
        one_of(METHODS, method=method)
        x = x.detach().to("cpu", torch.float64)
        if x.dim() != 2 or x.shape[1] <= self.p + 1 or not x.isfinite().all():
            raise ValueError(f"a fit needs finite series (N, T) with T > p + 1 = {self.p + 1}, got {tuple(x.shape)}: a "
                             "smaller p needs fewer numbers")
        if method == "likelihood" and self.p > MOST_SEARCHED:
            raise ValueError(f"the likelihood is searched for p of at most {MOST_SEARCHED}, which takes seconds, got "
                             f"p={self.p}: method='yule-walker' or 'least-squares' solves for more")
        mean, scale = x.mean(), x.std(correction=0)
        if scale == 0:
            raise ValueError("a fit needs series that are not constant")
        step = {"likelihood": _likelihood, "least-squares": _least_squares, "yule-walker": _yule_walker}[method]
        c, phi, v = step((x - mean) / scale, self.p)  # with unit deviation no step depends on the unit of x
        with torch.no_grad():
            self.phi.copy_(phi)
            self.c.copy_(mean * (1 - phi.sum()) + scale * c)
            self.log_sigma.copy_(scale.log() + 0.5 * v.log())
        return self


def _lower_orders(phi, v):
    """phi^0 ... phi^p and v_0 ... v_p, from phi^p and v_p."""
    phis, vs = [phi], [v]
    for _ in range(len(phi)):
        phi, kappa = phi[:-1], phi[-1]
        phi = (phi + kappa * phi.flip(0)) / (1 - kappa**2)  # (4), solved for phi^k-1
        v = v / (1 - kappa**2)  # (5)
        phis.append(phi)
        vs.append(v)
    return phis[::-1], vs[::-1]


def _from_kappas(kappas):
    """phi^p from kappa_1 ... kappa_p"""
    phi = kappas[:0]
    for kappa in kappas:
        phi = torch.cat([phi - kappa * phi.flip(0), kappa[None]])  # (4)
    return phi


def _log_prob_each(x, mu, phis, vs):
    x, p = x - mu, len(phis) - 1
    k = [min(t, p) for t in range(x.shape[1])]  # how many numbers come before
    errors = [x[:, t : t + 1] - x[:, :t].flip(1) @ phis[t][:, None] for t in k[:p]]
    if x.shape[1] > p:
        rows = x.unfold(1, p + 1, 1)  # x_t-p ... x_t for all t > p
        errors.append(rows[..., -1] - rows[..., :-1].flip(-1) @ phis[p])
    v = torch.stack(vs)[k]
    return -0.5 * (torch.cat(errors, 1).square() / v + (2 * math.pi * v).log()) if k else x  # (6)


def _least_squares(x, p):
    rows = x.unfold(1, p + 1, 1).flatten(0, 1)  # x_t-p ... x_t
    past, now = rows[:, :-1].flip(1), rows[:, -1]
    inputs = torch.cat([torch.ones_like(now)[:, None], past], 1)
    solution = torch.linalg.lstsq(inputs, now[:, None], driver="gelsd").solution[:, 0]  # (7)
    c, phi = solution[0], solution[1:]
    return c, phi, (now - c - past @ phi).square().mean()


def _yule_walker(x, p):
    _, phi, v = _levinson(x, p)
    return x.new_zeros(()), phi, v  # the mean of x is 0


def _levinson(x, p):
    """kappa_1 ... kappa_p, phi^p, v_p of the autocovariances of x, whose mean is 0."""
    gamma = [(x[:, k:] * x[:, : x.shape[1] - k]).sum() / x.numel() for k in range(p + 1)]
    kappas, phi, v = x.new_empty(0), x.new_empty(0), gamma[0]
    for k in range(1, p + 1):
        kappa = (gamma[k] - sum(phi[i] * gamma[k - 1 - i] for i in range(k - 1))) / v  # (8)
        v = v * (1 - kappa**2)
        phi, kappas = torch.cat([phi - kappa * phi.flip(0), kappa[None]]), torch.cat([kappas, kappa[None]])
    return kappas, phi, v


def _likelihood(x, p):
    """The maximum of (6), searched from Yule and Walker's fit over mu, atanh kappa, log sigma: all are stationary."""
    kappas, _, v = _levinson(x, p)

    def process(at):
        return at[0], _from_kappas(at[1:-1].tanh()), (2 * at[-1]).exp()

    def loss(at):
        at = torch.from_numpy(at.copy()).requires_grad_()
        mu, phi, v = process(at)
        value = -_log_prob_each(x, mu, *_lower_orders(phi, v)).mean()
        return value.item(), torch.autograd.grad(value, at)[0].numpy()

    start = torch.cat([x.new_zeros(1), kappas.atanh(), 0.5 * v.log()[None]]).numpy()
    options = dict(maxiter=1000, ftol=1e-15, gtol=1e-9)
    best = scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    mu, phi, v = process(torch.from_numpy(best.x))
    return mu * (1 - phi.sum()), phi, v


RECIPES = {
    "series": {"data": "series", "model": dict(p=9), "train": dict(method="likelihood")},  # p minimises AIC on train
}
