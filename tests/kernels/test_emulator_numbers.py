"""Test the numbers of csrc/gpu.h on the emulator: 16-bit floats, roundings, wide loads."""

import ctypes
from fractions import Fraction

import numpy as np
import pytest
import torch
from emulated import DTYPES, call, rounded, with_gxx

pytestmark = with_gxx

ALL_BITS = np.arange(65536, dtype=np.uint16)


def same(a, b):
    """Equal as numbers and in the sign of zero; NaN is NaN."""
    return (
        torch.equal(a.isnan(), b.isnan())
        and torch.equal(a.nan_to_num(), b.nan_to_num())
        and torch.equal(a.signbit()[~a.isnan()], b.signbit()[~b.isnan()])
    )


def numbers_as(kind, bits):
    return torch.from_numpy(bits.view(np.int16)).view(DTYPES[kind])


@pytest.mark.parametrize("kind", DTYPES)
def test_all_16_bit_numbers_become_float_and_come_back(fibers, kind):
    wide, back = np.zeros(65536, np.float32), np.zeros(65536, np.uint16)
    call(fibers, "run_widen", kind, ALL_BITS, wide, ctypes.c_int64(65536))
    assert same(torch.from_numpy(wide), numbers_as(kind, ALL_BITS).float())
    call(fibers, "run_narrow", kind, 0, wide, back, ctypes.c_int64(65536))
    nan = np.isnan(wide)
    assert (back[~nan] == ALL_BITS[~nan]).all() and numbers_as(kind, back[nan]).isnan().all()


@pytest.mark.parametrize("kind", DTYPES)
def test_floats_round_to_nearest_even(fibers, kind):
    """Floats round as in PyTorch: every 16-bit number, points half-way to its neighbours and beside, random floats."""
    exact = numbers_as(kind, ALL_BITS).float().numpy()
    finite = np.sort(exact[np.isfinite(exact)])
    half = ((finite[1:].astype(np.float64) + finite[:-1]) / 2).astype(np.float32)
    random = np.random.default_rng(0).integers(0, 2**32, 100_000, np.uint32).view(np.float32)
    largest = np.float32([65519.996, 65520, 65536, 3.39e38, 3.4e38, np.inf, np.nan])
    v = np.concatenate([exact, half, np.nextafter(half, np.float32(np.inf)), np.nextafter(half, np.float32(-np.inf)),
                        random, largest, -largest])
    out = np.zeros(len(v), np.uint16)
    call(fibers, "run_narrow", kind, 0, v, out, ctypes.c_int64(len(v)))
    assert same(numbers_as(kind, out).float(), torch.from_numpy(v).to(DTYPES[kind]).float())


def test_doubles_round_once(fibers):
    """A double just beside a tie: rounding to float first would make it the tie."""
    half = np.float64([1 + 2**-11, 1 + 3 * 2**-11, 2**-25, 3 * 2**-25, 65520, 2.0**-149, 1e-50])
    v = np.concatenate([s * w for s in (1, -1) for w in (half, half * (1 + 2**-40), half * (1 - 2**-40))])
    out = np.zeros(len(v), np.uint16)
    call(fibers, "run_narrow", 1, 1, v, out, ctypes.c_int64(len(v)))
    with np.errstate(over="ignore"):
        assert (out == v.astype(np.float16).view(np.uint16)).all()  # NumPy rounds a double to a half in one step
    half = np.float64([1 + 2**-8, 1 + 3 * 2**-8])
    v, out = np.concatenate([half, half * (1 + 2**-40), half * (1 - 2**-40)]), np.zeros(6, np.uint16)
    call(fibers, "run_narrow", 2, 1, v, out, ctypes.c_int64(6))
    assert numbers_as(2, out).double().tolist() == [1, 1 + 2**-6, 1 + 2**-7, 1 + 2**-6, 1, 1 + 2**-7]


def test_directed_roundings(fibers):
    generator, N = np.random.default_rng(0), 200
    a = (generator.standard_normal(N) * 2.0 ** generator.integers(-30, 30, N)).astype(np.float32)
    b = (generator.standard_normal(N) * 2.0 ** generator.integers(-30, 30, N)).astype(np.float32)
    d = generator.standard_normal(N)
    out = np.zeros((16, N), np.float32)
    call(fibers, "run_roundings", a, b, d, out, ctypes.c_int64(N))
    x, y, z = ([Fraction(float(v)) for v in values] for values in (a, b, d))
    exact = [
        [p + q for p, q in zip(x, y, strict=True)],
        [p * q for p, q in zip(x, y, strict=True)],
        [p - q for p, q in zip(x, y, strict=True)],
        z,
    ]
    for i, values in enumerate(exact):
        for j, how in enumerate(("nearest", "zero", "up", "down")):
            assert [rounded(v, how) for v in values] == out[4 * i + j].tolist(), (i, how)


# what the CUDA C++ Programming Guide promises: units in the last place, or an absolute error, for x in a range
INTRINSICS = {
    "__expf": (0, np.exp, -80, 80, lambda x: (2 + np.floor(np.abs(1.173 * x)), 0)),
    "__exp10f": (1, lambda x: 10.0**x, -37, 37, lambda x: (2 + np.floor(np.abs(2.97 * x)), 0)),
    "__logf": (2, np.log, 1e-3, 1e3, lambda x: np.where((x >= 0.5) & (x <= 2), [[0], [2**-21.41]], [[3], [0]])),
    "__log2f": (3, np.log2, 1e-3, 1e3, lambda x: np.where((x >= 0.5) & (x <= 2), [[0], [2**-22]], [[2], [0]])),
    "__log10f": (4, np.log10, 1e-3, 1e3, lambda x: np.where((x >= 0.5) & (x <= 2), [[0], [2**-24]], [[3], [0]])),
    "__sinf": (5, np.sin, -3.14159, 3.14159, lambda x: (0, 2**-21.41)),
    "__cosf": (6, np.cos, -3.14159, 3.14159, lambda x: (0, 2**-21.19)),
    "rsqrtf": (7, lambda x: x**-0.5, 1e-3, 1e3, lambda x: (2, 0)),
    "__fdividef": (8, lambda x: x / 3, -100, 100, lambda x: (2, 0)),
}


def with_intrinsics(gpu, x, y):
    out = np.zeros((10, len(x)), np.float32)
    call(gpu, "run_intrinsics", x, np.full_like(x, y), out, ctypes.c_int64(len(x)))
    return out


@pytest.mark.parametrize("name", INTRINSICS)
def test_intrinsics_err_as_much_as_the_guide_allows(gpu, name):
    """Never more; nearly as much; upward where threads run forward, downward in reverse, both ways at random."""
    row, exact, low, high, bound = INTRINSICS[name]
    x = np.random.default_rng(0).uniform(low, high, 1000).astype(np.float32)
    wide, got = exact(x.astype(np.float64)), with_intrinsics(gpu, x, 3)[row].astype(np.float64)
    ulps, absolute = bound(x.astype(np.float64))
    unit = 2.0 ** (np.frexp(wide)[1] - 24)
    error, allowed = got - wide, np.broadcast_to(ulps * unit + absolute, wide.shape)
    assert (np.abs(error) <= allowed).all() and (np.abs(error) >= allowed - 2 * unit).all()
    up = {"forward": {True}, "reverse": {False}, "random": {True, False}}[gpu.order]
    assert set((error[allowed > 2 * unit] > 0).tolist()) <= up and (gpu.order != "random" or len(set(error > 0)) == 2)


def test_intrinsics_of_numbers_at_the_ends(gpu):
    inf, nan = np.float32(np.inf), np.float32(np.nan)
    with np.errstate(over="ignore"):
        out = with_intrinsics(gpu, np.float32([-inf, inf, nan, 0, 1]), 3)
        far = with_intrinsics(gpu, np.float32([1, inf]), np.float32(2.0**127))[8]
    assert out[0, :2].tolist() == [0, inf] and np.isnan(out[:, 2]).all()
    assert out[2, [1, 3]].tolist() == [inf, -inf] and np.isnan(out[2, 0]) and np.isnan(out[7, 0])
    assert out[7, [1, 3]].tolist() == [0, inf] and out[5, 3] == 0 and out[9, 1] == inf
    assert far[0] == 0 and np.isnan(far[1])  # the guide: for 2^126 < |y| < 2^128


def test_tf32_rounds_to_nearest_and_ties_away(fibers):
    v = np.concatenate(
        [
            np.random.default_rng(0).integers(0, 2**32, 10_000, np.uint32),
            np.uint32([0x3F801000, 0x3F800FFF, 0xBF801000, 0x7F7FFFFF, 0x7F800000]),
        ]
    )
    out = np.zeros(len(v), np.uint32)
    call(fibers, "run_tf32", v.view(np.float32), out, ctypes.c_int64(len(v)))
    nan = np.isnan(v.view(np.float32))
    assert (out[~nan] == ((v[~nan].astype(np.uint64) + 0x1000) & 0xFFFFE000)).all()
    assert np.isnan(out[nan].view(np.float32)).all()
    assert out[-5:].view(np.float32).tolist() == [1 + 2**-10, 1, -1 - 2**-10, np.inf, np.inf]


def test_wide_loads(gpu):
    x, y = np.random.default_rng(0).standard_normal(64).astype(np.float32), np.zeros(64)
    call(gpu, "run_wide", x, y, 16)
    assert (y == x).all()
