"""Rows and codes that are hard for the integer screen of csrc/nearest_code.cpp, for test_nearest_code_cpu.py.

Each function makes (N, D) rows and (K, D) codes in float64 from a random generator.
"""

import numpy as np


def gaussian(rng, N, K, D):
    return rng.standard_normal((N, D)), rng.standard_normal((K, D))


def trained(rng, N, K, D):
    """Rows close to codes, codes at the means of what they won: after k-means."""
    e = rng.standard_normal((K, D)) * 3
    return e[rng.integers(K, size=N)] + 0.3 * rng.standard_normal((N, D)), e


def fresh(rng, N, K, D):
    """A new VQ-VAE: codes uniform within 1/K."""
    return rng.standard_normal((N, D)), rng.uniform(-1 / K, 1 / K, (K, D))


def duplicates(rng, N, K, D):
    z, e = gaussian(rng, N, K, D)
    return z, e[rng.integers(max(1, K // 8), size=K)]


def midpoints(rng, N, K, D):
    """Rows exactly half way between two codes on a coarse grid: ties in exact arithmetic, and in double."""
    e = rng.integers(-8, 9, (K, D)).astype(float)
    a, b = rng.integers(K, size=(2, N))
    return (e[a] + e[b]) / 2, e


def one_ulp(rng, N, K, D):
    """Codes that differ from a few others by one unit in the last place of float32, in one coordinate."""
    e = rng.standard_normal((max(1, K // 16), D)).astype(np.float32)[rng.integers(max(1, K // 16), size=K)]
    rows, columns = np.arange(K), rng.integers(D, size=K)
    e[rows, columns] = np.nextafter(e[rows, columns], np.where(rng.random(K) < 0.5, -9, 9).astype(np.float32))
    return e[rng.integers(K, size=N)] + rng.standard_normal((N, D)) * rng.choice([0, 1e-6, 1]), e


def shells(rng, N, K, D):
    """Codes whose distances from a row differ in their last bits alone; the centre is 0 where D allows."""
    e = rng.standard_normal((K, D)) * (np.arange(D) % 5 == np.arange(K)[:, None] % min(D, 5))
    e /= np.linalg.norm(e, axis=1, keepdims=True)
    return rng.standard_normal((N, D)) * rng.choice([1e-8, 1e-11]), e * (1 + rng.integers(-2, 3, (K, 1)) * 2.0**-52)


def permuted(rng, N, K, D):
    """Codes with the same coordinates in another order, rows on the diagonal: distances differ by the sum's order."""
    e = rng.permuted(np.tile(rng.standard_normal(D), (K, 1)), axis=1)
    return np.repeat(rng.standard_normal((N, 1)), D, axis=1), e


def against_the_margin(rng, N, K, D):
    """Return codes y and -y as far from a row, to 12 digits, and the row; the screen errs by its whole margin.

    In the units of the screen the row lies 0.49 from an integer on the side of y everywhere, and y on the side of the
    row: the screen takes y to be farther and -y nearer, by all of its margin.
    """
    D, K = max(6, D // 2 * 2), max(40, K)
    z, e = rng.standard_normal((N, D)), np.zeros((K, D))
    norm = 32400 / 1.01  # with this norm the unit is 1
    size, sign = np.repeat(norm / D**0.5 + rng.integers(-20, 10, D // 2), 2).round(), rng.choice([-1.0, 1.0], D)
    side = sign * np.tile([1.0, -1.0], D // 2)  # of the row's coordinates
    x, y = side * size + 0.49 * sign, sign * size + 0.49 * side
    # two coordinates are adjusted so that the norms are right and x.y = 0, a tie
    y[-2] *= ((norm**2 - y @ y) / y[-2] ** 2 + 1) ** 0.5
    slope, shift = -y[-2] / y[-1], -(x[:-2] @ y[:-2]) / y[-1]  # of x[-1] as a function of x[-2]
    roots = np.roots([1 + slope**2, 2 * slope * shift, shift**2 + x[:-2] @ x[:-2] - norm**2])
    x[-2] = roots[np.sign(roots) == np.sign(x[-2])][0]
    x[-1] = slope * x[-2] + shift
    x[-1] *= 1 + rng.integers(-1, 2) * 1e-12
    # codes on the other side, as long as y; zero in four coordinates of five: the centre, a median, is exactly 0
    for k in range(K):
        e[k, k % 5 :: 5] = -np.sign(x[k % 5 :: 5]) * (31000 / len(x[k % 5 :: 5]) ** 0.5).__floor__()
    z[0], e[0], e[1] = x, y, -y
    return z, rng.permutation(e)


def outliers(rng, N, K, D):
    z, e = gaussian(rng, N, K, D)
    e[rng.random(K) < 0.05] *= 1e6
    z[rng.random(N) < 0.05] *= 1e7
    return z, e


def wild(rng, N, K, D):
    """Magnitudes over 16 orders, in rows, codes and coordinates."""
    z, e = gaussian(rng, N, K, D)
    return z * 10.0 ** rng.integers(-8, 9, (N, 1)), e * 10.0 ** rng.integers(-8, 9, (K, D))


def not_finite(rng, N, K, D):
    z, e = gaussian(rng, N, K, D)
    for x in (z, e):
        hit = rng.random(len(x)) < rng.choice([0.1, 0.9, 1.0])
        x[hit, rng.integers(D, size=len(x))[hit]] = rng.choice([np.nan, np.inf, -np.inf], hit.sum())
    return z, e


def constant(rng, N, K, D):
    """Every code the same, but perhaps one."""
    e = np.tile(rng.standard_normal(D), (K, 1))
    e[rng.integers(K)] += rng.choice([0, 1e-12, 1])
    return rng.standard_normal((N, D)), e


def zeros(rng, N, K, D):
    z, e = gaussian(rng, N, K, D)
    return z * (rng.random((N, 1)) < 0.5), e * (rng.random((K, 1)) < 0.1)


def codes_themselves(rng, N, K, D):
    e = rng.standard_normal((K, D))
    return e[rng.integers(K, size=N)], e


KINDS = [gaussian, trained, fresh, duplicates, midpoints, one_ulp, shells, permuted, against_the_margin, outliers,
         wild, not_finite, constant, zeros, codes_themselves]
