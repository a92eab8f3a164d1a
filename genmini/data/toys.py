"""Six known densities on the plane, to compare a model's density with.

    p(x) = 1/K sum_k p(x | k)        k the class: a moon, a ring, an arm, a square, a Gaussian
    gaussians, lattice, checkerboard p(x | k) is a Gaussian, a uniform square
    rings                            x = r_k (cos a, sin a) + sigma e:
                                     p(x | k) = N(|x|; r_k, sigma^2) I0e(r_k |x| / sigma^2) / (sqrt(2 pi) sigma)
    moons, spirals                   x = curve_k(a) + sigma e:
                                     p(x | k) = int p(a) N(x; curve_k(a), sigma^2 I) da

with e ~ N(0, I) and I0e the scaled Bessel function. The last integral is one-dimensional and its integrand smooth:
Gauss-Legendre nodes, closer together than sigma along the curve, give it to about ten digits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

SIZES = {"train": 50_000, "valid": 5_000, "test": 10_000}


@dataclass(frozen=True)
class Toy:
    what: str
    K: int
    draw: Callable  # k (N,), random -> x (N, 2)
    log_given: Callable  # x (N, 2), k -> log p(x | k), (N,)
    centres: np.ndarray | None = None  # (K, 2), of Gaussians of variance sigma^2 in each direction
    sigma: float = 0.0

    def log_prob(self, x, y=None):
        """(N, 2) -> (N,) float64, in nats: log p(x), or with the classes y (N,) log p(x | y)."""
        given = torch.stack([self.log_given(x.double(), k) for k in range(self.K)], 1)
        return given.logsumexp(1) - math.log(self.K) if y is None else given.gather(1, y[:, None])[:, 0]


def read(name, split):
    """-> x (N, 2) float32, the class of each (N,) int64; always the same numbers."""
    toy, N = TOYS[name], SIZES[split]
    random = np.random.RandomState([list(TOYS).index(name), list(SIZES).index(split)])  # NumPy keeps this stream
    k = random.randint(toy.K, size=N)
    return toy.draw(k, random).astype(np.float32), k.astype(np.int64)


def _log_normal(x, centre, sigma):  # of N(x; centre, sigma^2 I) in the plane
    return -(x - centre).square().sum(-1) / (2 * sigma**2) - math.log(2 * math.pi * sigma**2)


# ---- Gaussians on a circle and on a lattice, squares of a checkerboard -----------------------------------------------


def _gaussians(what, centre, sigma):
    def draw(k, random):
        return centre[k] + sigma * random.standard_normal((len(k), 2))

    log_given = lambda x, k: _log_normal(x, torch.from_numpy(centre[k]), sigma)
    return Toy(what, len(centre), draw, log_given, centre, sigma)


def _circle(radius=1.5):
    angle = np.arange(8) * math.pi / 4
    return radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def _lattice(apart=1.2):
    return apart * (np.array([(i, j) for i in range(5) for j in range(5)]) - 2.0)


def _checkerboard():
    white = [(i, j) for i in range(4) for j in range(4) if (i + j) % 2 == 0]
    corner = np.array(white) - 2.0  # of squares of side 1 in [-2, 2)^2

    def draw(k, random):
        return corner[k] + random.random_sample((len(k), 2))

    def log_given(x, k):
        inside = ((x >= torch.from_numpy(corner[k])) & (x < torch.from_numpy(corner[k] + 1))).all(1)
        return torch.where(inside, 0.0, -math.inf).double()

    return Toy("a checkerboard: 8 uniform squares", 8, draw, log_given)


# ---- blurred curves --------------------------------------------------------------------------------------------------


def _rings(radii=(0.6, 1.2, 1.8), sigma=0.08):
    radii = np.array(radii)

    def draw(k, random):
        a = 2 * math.pi * random.random_sample(len(k))
        return radii[k, None] * np.stack([np.cos(a), np.sin(a)], 1) + sigma * random.standard_normal((len(k), 2))

    def log_given(x, k):
        r, R = x.norm(dim=1), float(radii[k])
        log_bessel = torch.special.i0e(r * R / sigma**2).log()
        return -(r - R).square() / (2 * sigma**2) - math.log(2 * math.pi * sigma**2) + log_bessel

    return Toy("3 concentric rings", 3, draw, log_given)


def _blurred(what, K, curve, a_of, law, end, sigma, nodes):
    """x = curve(k, a) + sigma e, where a = a_of(u) of a uniform u has the density law(a) on (0, end)."""
    node, weight = np.polynomial.legendre.leggauss(nodes)
    a = (node + 1) * end / 2
    log_weight = torch.from_numpy(np.log(weight * end / 2 * law(a)))

    def draw(k, random):
        return curve(k, a_of(random.random_sample(len(k)))) + sigma * random.standard_normal((len(k), 2))

    def log_given(x, k):
        centre = torch.from_numpy(curve(np.full(nodes, k), a))
        parts = x.split(2000)
        return torch.cat([(_log_normal(part[:, None], centre, sigma) + log_weight).logsumexp(1) for part in parts])

    return Toy(what, K, draw, log_given)


def _moons():
    def curve(k, a):  # the upper half of a circle, the lower half of another
        side = 1.0 - 2 * k
        return np.stack([side * (np.cos(a) - 0.5), side * (np.sin(a) - 0.25)], 1)

    even = lambda a: np.full_like(a, 1 / math.pi)
    return _blurred("2 interleaving half circles", 2, curve, lambda u: math.pi * u, even, math.pi, sigma=0.1, nodes=100)


def _spirals(turns=1.5, radius=2.0):
    end = 2 * math.pi * turns

    def curve(k, a):  # the second arm is the first after half a turn
        return (1.0 - 2 * k)[:, None] * radius / end * a[:, None] * np.stack([np.cos(a), np.sin(a)], 1)

    law = lambda a: 2 * a / end**2  # about as many points on every stretch of the arm
    return _blurred("2 spiral arms", 2, curve, lambda u: end * np.sqrt(u), law, end, sigma=0.08, nodes=400)


TOYS = {
    "moons": _moons(),
    "rings": _rings(),
    "spirals": _spirals(),
    "checkerboard": _checkerboard(),
    "gaussians": _gaussians("8 Gaussians on a circle", _circle(), sigma=0.15),
    "lattice": _gaussians("25 Gaussians on a 5x5 lattice", _lattice(), sigma=0.1),
}
