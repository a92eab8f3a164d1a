"""The nearest code by its definition; and, for test_nearest_code.py, rows and codes that are hard to tell apart.

Each function of (z, e, rng) makes (N, D) rows and (K, D) codes in float64 from Gaussian ones.
"""

import math

import numpy as np
import torch

INF, NAN = math.inf, math.nan


def definition(z, e):
    """The index of the contract: double, d ascending, every operation rounded on its own, NaN counts as infinity, the
    lowest of equals."""
    z, e = z.double().numpy(), e.double().numpy()
    best, index = np.full(len(z), np.inf), np.zeros(len(z), dtype=np.int64)
    with np.errstate(all="ignore"):
        for k0 in range(0, len(e), 4096):
            d = np.zeros((len(z), len(e[k0 : k0 + 4096])))
            for i in range(z.shape[1]):
                t = z[:, i, None] - e[None, k0 : k0 + 4096, i]
                d += t * t
            d[np.isnan(d)] = np.inf
            k = d.argmin(1)
            nearest = d[np.arange(len(z)), k]
            index[nearest < best] = k0 + k[nearest < best]
            best = np.minimum(best, nearest)
    return torch.from_numpy(index)


def gaussian(z, e, rng):
    return z, e


def trained(z, e, rng):
    return e[rng.integers(len(e), size=len(z))] + 0.05 * z, e


def midpoints(z, e, rng):
    """A row between two codes, off the middle by a few roundings."""
    a, b = e[rng.integers(len(e), size=(2, len(z)))]
    return (a + b) / 2 * (1 + 2.0**-24 * rng.integers(-3, 4, size=z.shape)), e


def near_duplicates(z, e, rng):
    """Codes that differ from one another in one entry, by one rounding of float32."""
    e = np.repeat(e[: max(1, len(e) // 8)], 8, 0)[: len(e)]
    return z, e * (1 + 2.0**-23 * (rng.integers(e.shape[1], size=len(e))[:, None] == np.arange(e.shape[1])))


def duplicates(z, e, rng):
    return z, e[rng.integers(max(1, len(e) // 4), size=len(e))]


def equal_codes(z, e, rng):
    return z, np.broadcast_to(e[:1], e.shape)


def lattice(z, e, rng):
    """Small integers: many exact ties, and nothing is rounded but the screen's sums."""
    return rng.integers(-2, 3, size=z.shape).astype(float), rng.integers(-2, 3, size=e.shape).astype(float)


def long_sums(z, e, rng):
    """Integers that fp16 holds, codes a step from one another: the screen's only error is that of its accumulation."""
    base = rng.integers(1500, 2000, size=(1, e.shape[1]))
    sign = np.ones_like(e)
    sign[1::2] = -1
    return base + rng.integers(0, 2, size=z.shape) + 0.0, sign * base + rng.integers(0, 2, size=e.shape)


def offset(by):
    def cruel(z, e, rng):
        return z + by, e + by

    cruel.__name__ = f"offset_{by:g}"
    return cruel


def scaled(by):
    def cruel(z, e, rng):
        return z * by, e * by

    cruel.__name__ = f"scaled_{by:g}"
    return cruel


def rows_of_all_sizes(z, e, rng):
    return z * 10.0 ** rng.integers(-30, 31, size=(len(z), 1)), e


def codes_of_all_sizes(z, e, rng):
    return z, e * 10.0 ** rng.integers(-12, 13, size=(len(e), 1))


def one_code_at(far):
    def cruel(z, e, rng):
        e = e.copy()
        e[rng.integers(len(e))] = far
        return z, e

    cruel.__name__ = f"one_code_at_{far:g}"
    return cruel


def initialised(z, e, rng):
    """VQ-VAE's e ~ U(-1/K, 1/K): all codes seem the same from far away."""
    return z, rng.uniform(-1, 1, size=e.shape) / len(e)


def nan_and_infinite_codes(z, e, rng):
    e = e.copy()
    for value in (NAN, INF, -INF):
        e[rng.integers(len(e)), rng.integers(e.shape[1])] = value
    return z, e


def nan_and_infinite_rows(z, e, rng):
    z = z.copy()
    for value in (NAN, INF, -INF):
        if len(z):
            z[rng.integers(len(z)), rng.integers(z.shape[1])] = value
    return z, e


def no_finite_code(z, e, rng):
    return z, np.where(np.arange(e.shape[1]) == 0, NAN, e)


def last_code_is_nearest(z, e, rng):
    return np.broadcast_to(e[-1:], z.shape) + 1e-3 * z, e


SINGLE = [gaussian, trained, midpoints, near_duplicates, duplicates, equal_codes, lattice, long_sums, offset(1e3),
          offset(1e6), initialised]
SINGLE += [nan_and_infinite_codes, nan_and_infinite_rows, no_finite_code, last_code_is_nearest, codes_of_all_sizes]
WIDE = [scaled(1e30), scaled(1e-40), rows_of_all_sizes, one_code_at(1e6), one_code_at(1e30)]  # beyond float16
DOUBLE = [scaled(1e300), scaled(1e-300), scaled(1e150), scaled(1e-155)]  # where double itself over- and underflows


def made(cruel, N, K, D, seed, z_dtype, e_dtype):
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        z, e = cruel(rng.standard_normal((N, D)), rng.standard_normal((K, D)), rng)
    return torch.from_numpy(np.array(z)).to(z_dtype), torch.from_numpy(np.array(e)).to(e_dtype)


def kinds_for(*given_dtypes):
    fits = torch.float16 not in given_dtypes
    return SINGLE + WIDE * fits + DOUBLE * (set(given_dtypes) == {torch.float64})


# ---- each term of the margin is needed: z is nearer to A by very little, and without the term B would be chosen ------


def between(z, A, B, longer=1, others=6):
    """Return z and a codebook of B, A, some longer codes, and the negatives of all.

    So its centre is zero, and nothing is rounded but what is meant to be.
    """
    long = [(4 + j) * longer * np.sign(B) for j in range(others)]
    half = np.stack([B, *long[:4], A, *long[4:]])  # A and B belong to different threads
    assert ((z - A) ** 2).sum() < ((z - B) ** 2).sum()
    return torch.from_numpy(z[None].copy()), torch.from_numpy(np.concatenate([half, -half]))


def rounded_codes():
    """A is rounded down to fp16 and B up, by almost half an ulp in every entry."""
    one, ulp = np.ones(64), 2.0**-10
    return between(one, one + 0.49 * ulp, one + 0.51 * ulp)


def rounded_far_codes():
    """The same, among codes so short that the margin of the tile leaves A and B out, so that the bound must too."""
    one, ulp = np.ones(64), 2.0**-10
    return between(one, one + 0.49 * ulp, one + 0.51 * ulp, longer=2.0**-11, others=62)


def rounded_row():
    """A - B = 2 in half of the entries; the sum of z over them is positive, and negative when z is rounded to fp16."""
    side, ulp = np.repeat([0, 1], 32), 2.0**-10
    z = np.where(side, 1.5 * (-1.0) ** np.arange(64), 1) + side * 0.49 * ulp
    z[0], A, B = -10 * ulp, np.ones(64), np.where(side, -1.0, 1)
    B[0] = -1
    return between(z, A, B)


def cut_sums():
    """fp16 holds every number; a tensor core cuts bits at each addition for A, and none for B, a power of two."""
    rng = np.random.default_rng(0)
    z, A, B = 1 + (2 * rng.integers(512, size=(2, 1024)) + 1) / 1024, None, np.ones(1024)
    z, A = z
    z[-2:], A[-2:], B[-2:] = 0, (16, 2.0**-6), 0
    # the last two entries of z leave A nearer by as little as fp16 can represent
    for d, grid in ((-2, 2.0**-9), (-1, 2.0**-9)):
        lead = ((z - A) ** 2).sum() - ((z - B) ** 2).sum()
        z[d] = np.ceil(lead / (2 * A[d]) / grid) * grid if d == -1 else np.floor(lead / (2 * A[d]) / grid) * grid
    return between(z, A, B)


def drifting_sums():
    """Every addition for A rounds down by almost half an ulp of the float that 1024 additions reach."""
    one = np.append(np.ones(1024), 0)
    A, B = one * (1 + 0.98 * 2.0**-15), one.copy()
    B[-1] = 2.0**-9
    return between(one, A, B)


def short_codes():
    """A is 2^-61 of the longest code, too short to be told from zero; B, twice as long, seems nearer than zero."""
    one, other = np.eye(4)[:2]
    return between(2.0**-30 * one, 1.9 * 2.0**-61 * one, 2.0**-60 * (0.25 * one + other), longer=2.0**-3)


HAIRS = [rounded_codes, rounded_far_codes, rounded_row, cut_sums, drifting_sums, short_codes]
