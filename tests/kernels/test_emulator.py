"""Test what each word of csrc/gpu.h means: run the kernels of tests/kernels/test_emulator.cu in four builds.

fibers     as the rooms use it        ucontext    the portable way to switch stacks
debug      -O0, as for gdb            threads     one OS thread per CUDA thread, the mode for ThreadSanitizer
                                                  (here without it)
"""

import ctypes
import itertools
import os
import shutil
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "csrc"))
import build  # noqa: E402  (csrc/build.py)
import sanitize  # noqa: E402  (csrc/sanitize.py)

pytestmark = pytest.mark.skipif(build.compiler("emulated") is None, reason="there is no g++")
SOURCE = Path(__file__).with_suffix(".cu")
INCLUDE = f"-I{build.CSRC}"
BUILDS = {"fibers": ["-O2"], "ucontext": ["-O1", "-DEMULATOR_UCONTEXT"], "debug": ["-O0"],
          "threads": ["-O1", "-DEMULATOR_OS_THREADS"]}
ORDERS = {"forward": (0, 0), "reverse": (1, 0), "random": (2, 7)}


def load(kind):
    path = sanitize.compiled(SOURCE, [*build.GXX, INCLUDE, *BUILDS[kind], "-x", "c++"], f"test_emulator.{kind}")
    library = ctypes.CDLL(str(path))
    library.gpu_error.restype = ctypes.c_char_p
    return library


@pytest.fixture(scope="module", params=BUILDS)
def library(request):
    return load(request.param)


@pytest.fixture(scope="module")
def fibers():
    return load("fibers")


@pytest.fixture(params=ORDERS)
def gpu(request, library):
    """The library, with threads run forward, in reverse or in random order."""
    mode, seed = ORDERS[request.param]
    library.gpu_order(ctypes.c_int(mode), ctypes.c_uint64(seed))
    return library


def c(value):
    if isinstance(value, np.ndarray):
        assert value.flags["C_CONTIGUOUS"]
        return value.ctypes.data_as(ctypes.c_void_p)
    return ctypes.c_int64(value) if isinstance(value, int) and abs(value) >= 2**31 else value


def call(library, function, *arguments):
    code = getattr(library, function)(*map(c, arguments))
    assert code == 0, library.gpu_error(code).decode()


def error(library, function, *arguments):
    code = getattr(library, function)(*map(c, arguments))
    assert code != 0, "no error was reported"
    return library.gpu_error(code).decode()


def test_a_system_that_gives_few_threads_runs_all_blocks(tmp_path):
    """Of four threads only one starts: it and the caller run the blocks, each once."""
    source = tmp_path / "few_threads.cpp"
    source.write_text("""
#include <dlfcn.h>
#include "gpu.h"
static int asked;
extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* how, void* (*run)(void*), void* of) noexcept {
    if (asked++) return EAGAIN;
    return ((decltype(&pthread_create))dlsym(RTLD_NEXT, "pthread_create"))(thread, how, run, of);
}
__global__ void count(int* runs) { runs[blockIdx.x]++; }
int main() {
    int runs[100] = {};
    if (launch(count, dim3(100), dim3(1), 0, nullptr, runs)) return 2;
    for (int n : runs)
        if (n != 1) return 3;
    return asked == 2 ? 0 : 4;
}
""")
    program = sanitize.compiled(source, [*sanitize.FLAGS, INCLUDE, "-O1", "-ldl"], "few_threads")
    done = subprocess.run([program], env={**os.environ, "GENMINI_EMULATOR_THREADS": "4"}, capture_output=True)
    assert done.returncode == 0, done


# ---- grids, barriers, shared memory ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "grid, block",
    [((1, 1, 1), (1, 1, 1)), ((5, 1, 1), (33, 1, 1)), ((2, 3, 2), (4, 3, 2)), ((1, 2, 3), (8, 4, 4)),
     ((2, 1, 1), (1024, 1, 1))],
)
def test_every_thread_has_its_place_in_grid_and_block(gpu, grid, block):
    blocks, threads = np.prod(grid), np.prod(block)
    out = np.full((blocks, threads, 6), -1, np.int32)
    call(gpu, "run_indices", out, *map(ctypes.c_uint, (*grid, *block)))
    for b in range(blocks):
        for t in range(threads):
            where = [
                b % grid[0],
                b // grid[0] % grid[1],
                b // grid[0] // grid[1],
                t % block[0],
                t // block[0] % block[1],
                t // block[0] // block[1],
            ]
            assert out[b, t].tolist() == where


@pytest.mark.parametrize(
    "grid, block, words",
    [
        ((1, 1, 1), (1025, 1, 1), "a block of (1025,1,1) threads"),
        ((1, 1, 1), (32, 33, 1), "1024 in all"),
        ((1, 1, 1), (1, 1, 65), "a block of (1,1,65)"),
        ((1, 1, 1), (0, 1, 1), "a block of (0,1,1)"),
        ((1, 65536, 1), (1, 1, 1), "a grid of (1,65536,1)"),
        ((1, 1, 65536), (1, 1, 1), "a grid of (1,1,65536)"),
        ((2**31, 1, 1), (1, 1, 1), "a grid of (2147483648,1,1)"),
    ],
)
def test_a_launch_has_the_limits_of_a_gpu(library, grid, block, words):
    assert words in error(library, "run_indices", np.zeros(6, np.int32), *map(ctypes.c_uint, (*grid, *block)))


def test_an_empty_grid_does_nothing(library):
    out = np.full(6, -1, np.int32)
    call(library, "run_indices", out, *map(ctypes.c_uint, (0, 1, 1, 5, 1, 1)))
    assert (out == -1).all()


def test_dynamic_shared_memory_is_limited(library):
    out = np.zeros(6, np.int32)
    call(library, "run_shared_bytes", out, ctypes.c_int64(227 * 1024))
    assert "227" not in error(library, "run_shared_bytes", out, ctypes.c_int64(227 * 1024 + 1))
    assert "232449 bytes" in error(library, "run_shared_bytes", out, ctypes.c_int64(227 * 1024 + 1))


@pytest.mark.parametrize("threads, leave", [(1, 0), (31, 0), (64, 0), (100, 37), (96, 64), (1024, 1000)])
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_barriers_count_the_threads_that_are_there(gpu, threads, leave, density):
    p = (np.random.default_rng(0).random(threads) < density).astype(np.int32) * 5
    out = np.full((threads, 4), -1, np.int32)
    call(gpu, "run_barrier_votes", p, out, leave, threads)
    there = p[leave:] != 0
    assert (out[:leave] == -1).all()
    assert (out[leave:] == [there.sum(), there.any(), there.all(), 7]).all()


@pytest.mark.parametrize("dtype, code", [(np.float32, 0), (np.float16, 1), (np.float64, 3)])
def test_shared_memory_of_both_kinds(gpu, dtype, code):
    x = np.random.default_rng(0).standard_normal((7, 96)).astype(dtype)
    y = np.zeros_like(x)
    call(gpu, "run_reverse", code, x, y, 7)
    assert (y == x[:, np.arange(96) ^ 1]).all()


def test_shared_memory_starts_as_nan_in_every_block(library, request):
    """The build with OS threads poisons dynamic memory alone, for its static shared arrays are plain static ones."""
    out = np.zeros((9, 2, 32), np.float32)
    call(library, "run_uninitialised", out, 9)
    assert np.isnan(out[:, 1]).all()
    if "threads" not in request.node.name:
        assert np.isnan(out[:, 0]).all()


def test_threads_run_in_the_order_that_was_asked_for():
    library, N = load("fibers"), 70

    def run(mode, seed):
        library.gpu_order(ctypes.c_int(mode), ctypes.c_uint64(seed))
        out = np.full((2, N), -1, np.int32)
        call(library, "run_order", np.zeros(1, np.int32), out, N)
        return out

    assert (run(0, 0) == np.arange(N)).all()
    assert (run(1, 0) == np.arange(N)[::-1]).all()
    first, second = run(2, 3)
    assert (np.sort(first) == np.arange(N)).all() and (np.sort(second) == np.arange(N)).all()
    assert (first != np.arange(N)).any() and (first != second).any(), "the order is drawn anew at a barrier"
    assert (run(2, 3) == [first, second]).all(), "a seed repeats its order"
    assert (run(2, 4) != [first, second]).any()


@pytest.mark.parametrize("order, expected", [("forward", [0, 1, 2]), ("reverse", [2, 1, 0])])
def test_the_order_comes_from_the_environment(order, expected):
    path = sanitize.compiled(SOURCE, [*build.GXX, INCLUDE, *BUILDS["fibers"], "-x", "c++"], "test_emulator.fibers")
    program = (
        f"import ctypes; o = (ctypes.c_int * 6)(); ctypes.CDLL({str(path)!r})"
        ".run_order((ctypes.c_int * 1)(), o, 3); print(list(o)[:3])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "GENMINI_EMULATOR_ORDER": order},
        capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(expected)


def test_launches_from_several_threads_do_not_meddle():
    library, x = load("fibers"), np.random.default_rng(0).standard_normal((40, 96)).astype(np.float32)
    results = [np.zeros_like(x) for _ in range(4)]
    workers = [threading.Thread(target=lambda y=y: [call(library, "run_reverse", 0, x, y, 40) for _ in range(10)])
               for y in results]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all((y == x[:, np.arange(96) ^ 1]).all() for y in results)


# ---- warps -----------------------------------------------------------------------------------------------------------

MASKS = [0xFFFFFFFF, 0x0000FFFF, 0xF0F0A5A1, 0x80000000]


def lanes_of(mask):
    return [lane for lane in range(32) if mask >> lane & 1]


@pytest.mark.parametrize("dtype", [np.int32, np.float64])
@pytest.mark.parametrize("kind", [0, 1, 2, 3])
def test_shuffles(library, kind, dtype):
    threads, x = 64, np.random.default_rng(0).integers(-(2**31), 2**31, 64).astype(dtype)
    nothing = np.array(-1, np.int64).view(np.float64) if dtype == np.float64 else np.int32(-1)
    for mask, width, amount in itertools.product(MASKS, (32, 8, 2), (0, 1, 5, 16)):
        out = np.full(threads, 99, dtype)
        call(library, "run_shuffle", kind, int(dtype == np.float64), x, out, ctypes.c_uint32(mask), amount, width,
             threads)
        for i in range(threads):
            lane, start = i % 32, i % 32 // width * width
            if not mask >> lane & 1:
                want = 99
            else:
                source = [start + amount % width, lane - amount, lane + amount, lane ^ amount][kind]
                if (kind == 1 and source < start) or (kind in (2, 3) and source >= start + width):
                    source = lane
                want = x[i - lane + source] if mask >> source & 1 else nothing
            assert out[i] == want or (np.isnan(out[i]) and np.isnan(want)), (i, out[i], want)


def test_parts_of_a_warp_go_different_ways_and_meet_again(gpu):
    x = np.random.default_rng(0).integers(-100, 100, 32).astype(np.int32)
    out = np.zeros(32, np.int32)
    call(gpu, "run_two_halves", x, out)
    assert (out == x[1::2].sum() + x[0::2].max()).all()


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("threads", [32, 96, 45])
def test_votes_matches_and_reductions(gpu, mask, threads):
    x = np.random.default_rng(mask).integers(-3, 4, threads).astype(np.int32) * 0x12345
    out = np.full((12, threads), 99, np.int32)
    call(gpu, "run_votes", x, out, ctypes.c_uint32(mask), threads)
    for i in range(threads):
        first = i // 32 * 32
        lanes = [lane for lane in lanes_of(mask) if first + lane < threads]  # lanes beyond the block do not count
        if not mask >> i % 32 & 1:
            assert (out[:, i] == 99).all()
            continue
        v = {lane: x[first + lane] for lane in lanes}
        u = np.array([v[lane] for lane in lanes], np.int32).view(np.uint32)
        bits = lambda f: sum(1 << lane for lane in lanes if f(v[lane]))  # noqa: B023
        want = [bits(lambda a: a > 0), any(a > 0 for a in v.values()), all(a > 0 for a in v.values()),
                bits(lambda a: a == x[i])]  # noqa: B023
        want += [int(sum(int(a) for a in v.values())), min(v.values()), max(v.values()), u.min(), u.max()]
        want += [np.bitwise_and.reduce(u), np.bitwise_or.reduce(u), np.bitwise_xor.reduce(u)]
        assert [int(a) & 0xFFFFFFFF for a in out[:, i]] == [int(a) & 0xFFFFFFFF for a in want]


# ---- atomics ---------------------------------------------------------------------------------------------------------


def test_atomics(gpu):
    x = np.random.default_rng(0).integers(-1000, 1000, 1000).astype(np.int32)
    f, d, i, u, v = (np.zeros(1, np.float32), np.zeros(1), np.zeros(4, np.int32), np.zeros(21, np.uint32),
                     np.zeros(3, np.uint64))
    u[0] = 0xFFFFFFFF
    call(gpu, "run_atomics", x, f, d, i, u, v, ctypes.c_int64(len(x)))
    unsigned = x.view(np.uint32)
    assert f[0] == d[0] == x.sum()
    assert i.tolist() == [x.sum(), min(0, x.min()), max(0, x.max()), -x.sum()]
    assert u[:3].tolist() == [np.bitwise_and.reduce(unsigned), np.bitwise_or.reduce(unsigned),
                              np.bitwise_xor.reduce(unsigned)]
    assert u[3] == 1000 % 100 and u[4] == -1000 % 100
    assert (u[5:] == np.bincount(x & 15, minlength=16)).all()
    assert v.tolist() == [int(x.astype(np.int64).sum()) % 2**64, int(unsigned.max()),
                          int(x.astype(np.int64).sum()) % 2**64]


# ---- numbers ---------------------------------------------------------------------------------------------------------

DTYPES = {1: torch.float16, 2: torch.bfloat16}
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


def rounded(exact, how):
    """A Fraction as a float32, in one of the four directions."""
    nearest = np.float32(float(exact))  # a double first: only a start
    candidates = [np.nextafter(nearest, np.float32(-np.inf)), nearest, np.nextafter(nearest, np.float32(np.inf))]
    below = max(v for v in candidates if Fraction(float(v)) <= exact)
    above = min(v for v in candidates if Fraction(float(v)) >= exact)
    if how == "nearest":
        low, high = exact - Fraction(float(below)), Fraction(float(above)) - exact
        return below if low < high or (low == high and below.view(np.uint32) % 2 == 0) else above
    return {"zero": below if exact > 0 else above, "up": above, "down": below}[how]


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


# ---- asynchronous copies, matrices -----------------------------------------------------------------------------------


def test_copies_are_invisible_until_the_wait(gpu):
    x, out = np.arange(1, 9, dtype=np.float32), np.zeros((5, 8), np.float32)
    call(gpu, "run_copies", x, out)
    nan = float("nan")
    want = [[nan] * 8, [1, 2, 3, 4, nan, nan, nan, nan], [1, 2, 3, 4, 5, 6, 7, 0], [nan, nan, nan, 4, 5, 6, 7, 0],
            [3, 4, 0, 4, 5, 6, 7, 0]]
    np.testing.assert_array_equal(out, np.float32(want))


@pytest.mark.parametrize("transposed", [0, 1])
def test_load_matrix_hands_out_rows_by_quarters(gpu, transposed):
    matrices = np.arange(256, dtype=np.uint16).reshape(4, 8, 8)
    out = np.zeros((6, 32), np.uint32)
    call(gpu, "run_matrices", matrices, out, transposed)
    for register in range(6):
        matrix = matrices[register % 4].T if transposed else matrices[register % 4]
        want = np.ascontiguousarray(matrix).view(np.uint32).reshape(32)  # lane 4 r + c has columns 2c, 2c + 1 of row r
        assert (out[register] == want).all()


def tensor_core_sum(products, c):
    """Add in exact fractions: align to the largest, cut below its 25th fraction bit, add, cut to 24 bits."""
    terms = [*products, Fraction(float(c))]
    largest = max(map(abs, terms))
    if largest == 0:
        return np.float32(0)
    exponent = largest.numerator.bit_length() - largest.denominator.bit_length()
    exponent -= Fraction(2) ** exponent > largest
    unit = Fraction(2) ** (exponent - 25)
    total = sum(int(term / unit) for term in terms) * unit  # int() cuts toward zero
    return rounded(total, "zero")


def random_matrices(kind, M, seed, exponents):
    generator = np.random.default_rng(seed)
    K, dtype = (8, torch.float32) if kind == 0 else (16, DTYPES[kind])

    def draw(*shape):
        return torch.from_numpy(
            generator.standard_normal(shape) * 2.0 ** generator.integers(-exponents, exponents + 1, shape)
        )

    a, b, d = draw(M, 16, K).to(dtype), draw(M, K, 8).to(dtype), draw(M, 16, 8).float()
    if kind == 0:  # TF32: ten bits of fraction
        a, b = ((v.view(torch.int32) & -8192).view(torch.float32) for v in (a, b))
    return a, b, d


def multiply(library, kind, a, b, d):
    out = d.numpy().copy()
    bits = [v.view(torch.int32 if kind == 0 else torch.int16).numpy() for v in (a, b)]
    call(library, "run_multiply", kind, *bits, out, len(a))
    return out


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("exponents", [0, 3, 7])
def test_tensor_cores_add_as_stated(library, kind, exponents):
    """The sums equal exact fractions bit for bit, and keep the rooms' bound, a share of the largest magnitude."""
    a, b, d = random_matrices(kind, 3, exponents, exponents)
    out = multiply(library, kind, a, b, d)
    K = a.shape[-1]
    for m, i, j in np.ndindex(out.shape):
        products = [Fraction(float(a[m, i, k])) * Fraction(float(b[m, k, j])) for k in range(K)]
        assert out[m, i, j] == tensor_core_sum(products, d[m, i, j])
    assert within_the_bound(kind, a, b, d, out) <= 1


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_tensor_cores_cut_and_lose_what_is_small(library, kind):
    K = 8 if kind == 0 else 16
    a, b, d = torch.zeros(5, 16, K), torch.zeros(5, K, 8), torch.zeros(5, 16, 8)
    one = 1.0
    a[0, :, 0], b[0, 0], d[0] = one, one, 2.0**24  # 2^24 + 1 is no float: cut
    a[1, :, :4], b[1, :4], d[1] = one, 0.25, 2.0**24  # quarters at two extra bits: each is kept, their sum 1 is cut
    a[2, :, :4], b[2, :4], d[2] = one, 0.125, 2.0**23  # eighths at 2^23 lie a bit below the two extra ones (2^-2): lost
    a[3, :, 0], b[3, 0], d[3] = one, -(2.0**-14), one  # toward zero: 1 - 2^-14
    a[4, :, 0], b[4, 0], a[4, :, 1], b[4, 1], d[4] = (
        256.0,
        128.0,
        -256.0,
        128.0,
        2.0**-12,
    )  # 2^15 - 2^15 leaves only what the alignment kept
    dtype = torch.float32 if kind == 0 else DTYPES[kind]
    out = multiply(library, kind, a.to(dtype), b.to(dtype), d)
    for m, want in enumerate([2.0**24, 2.0**24, 2.0**23, 1 - 2.0**-14, 0.0]):
        assert (out[m] == want).all(), (m, out[m][0, 0])


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_tensor_cores_on_subnormals_infinity_and_nan(library, kind):
    K = 8 if kind == 0 else 16
    dtype = torch.float32 if kind == 0 else DTYPES[kind]
    a, b, d = torch.zeros(6, 16, K), torch.zeros(6, K, 8), torch.zeros(6, 16, 8)
    inf, nan = float("inf"), float("nan")
    tiny = {0: 2.0**-130, 1: 2.0**-24, 2: 2.0**-133}[kind]  # subnormal in its type
    a[0, :, 0], b[0, 0] = tiny, 1.0
    a[1, :, 0], b[1, 0], d[1] = inf, 1.0, 5.0
    a[2, :, 0], b[2, 0], d[2] = inf, 1.0, -inf
    a[3, :, 0], b[3, 0] = inf, 0.0
    a[4, :, 0], b[4, 0], d[4] = nan, 0.0, 1.0
    d[5] = 2.0**-149
    out = multiply(library, kind, a.to(dtype), b.to(dtype), d)
    for m, want in enumerate([tiny, inf, nan, nan, nan, 2.0**-149]):
        np.testing.assert_array_equal(out[m], np.float32(want))


def test_tensor_cores_overflow_to_infinity(library):
    a, b, d = torch.zeros(1, 16, 8), torch.zeros(1, 8, 8), torch.full((1, 16, 8), 3e38)
    a[0, :, 0], b[0, 0] = 2.0**64, 2.0**63
    assert (multiply(library, 0, a, b, d) == np.inf).all()
    assert (multiply(library, 0, -a, b, -d) == -np.inf).all()


def adversarial(kind):
    """Return products, of one sign or of alternating signs, that alignment to a larger sum loses almost wholly."""
    K, dtype = (8, torch.float32) if kind == 0 else (16, DTYPES[kind])
    below_one = 1 - 2.0 ** -(8 if kind == 2 else 11)
    a, b, d = torch.empty(40, 16, K), torch.empty(40, K, 8), torch.empty(40, 16, 8)
    for m in range(40):
        sign = torch.tensor([(-1.0) ** (k * (m % 2)) for k in range(K)])
        a[m], b[m] = 2.0**-13 * sign, 2.0 ** (m // 2 - 16) * below_one  # products from 2^-29 to 2^-10
        d[m] = torch.linspace(1, 2, 128).reshape(16, 8) * (1 if m % 4 < 2 else -1)
    return a.to(dtype), b.to(dtype), d


def within_the_bound(kind, a, b, d, out):
    """|out - exact| over the bound that the rooms rely on: (K/4 + 5/4) 2^-23 of the largest magnitude on the way."""
    exact, magnitude = d.double() + a.double() @ b.double(), d.double().abs() + a.double().abs() @ b.double().abs()
    return (
        ((torch.from_numpy(out).double() - exact).abs() / ((a.shape[-1] / 4 + 1.25) * 2.0**-23 * magnitude))
        .max().item()
    )


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_the_bound_is_nearly_reached(fibers, kind):
    a, b, d = adversarial(kind)
    lost = a.shape[-1] / 4  # of the bound K/4 + 5/4: K products, each almost a quarter of the last bit
    assert 0.99 * lost / (lost + 1.25) < within_the_bound(kind, a, b, d, multiply(fibers, kind, a, b, d)) <= 1


@pytest.mark.skipif(not torch.cuda.is_available() or build.compiler("cuda") is None,
                    reason="there is no GPU, or no nvcc")
@pytest.mark.parametrize("kind", [0, 1, 2])
def test_the_tensor_cores_of_this_gpu_keep_the_bound(fibers, kind, record_property):
    """This GPU keeps the bound of the model, which was measured on other cards; equal bits are recorded only."""
    words = [*(flag for flag in build.NVCC if flag != "-lineinfo"), INCLUDE]
    gpu = ctypes.CDLL(str(sanitize.compiled(SOURCE, words, "test_emulator.cuda", compiler="cuda")))
    equal = []
    for a, b, d in (adversarial(kind), *(random_matrices(kind, 500, seed, seed) for seed in (0, 3, 7))):
        on_gpu = [v.cuda() for v in (a, b, d.clone())]
        assert gpu.run_multiply(kind, *(ctypes.c_void_p(v.data_ptr()) for v in on_gpu), len(a)) == 0
        torch.cuda.synchronize()
        out = on_gpu[2].cpu().numpy()
        assert within_the_bound(kind, a, b, d, out) <= 1
        equal.append(float((out == multiply(fibers, kind, a, b, d)).mean()))
    record_property("share equal to the emulator, adversarial and random", equal)


# ---- mistakes --------------------------------------------------------------------------------------------------------

MISTAKES = {
    0: ("dead-lock", "threads 0-39 at __syncthreads in test_emulator.cu:",
        "threads 40-63 at __shfl_sync(0xffffffff) in test_emulator.cu:"),
    1: ("threads meet at different barriers", "threads 0,2,4,6,", "threads 1,3,5,7,",
        ",... at __syncthreads in test_emulator.cu:"),
    2: ("dead-lock", "threads 0-15 at __syncthreads", "threads 16-31 at __shfl_sync(0xffffffff)",
        "threads 32-63 returned"),
    3: ("__ballot_sync: the mask does not name the lane that calls",),
    4: ("copy_async: an address is not a multiple",),
    5: ("atomic operations without end", "threads 0 run; threads 1-63 returned"),
}


@pytest.mark.parametrize("which", MISTAKES)
def test_mistakes_are_reported_with_block_and_threads(library, which):
    library.gpu_order(0, ctypes.c_uint64(0))
    for _ in range(2):  # and the emulator is none the worse
        report = error(library, "run_mistake", which, np.zeros(64, np.int32))
        assert report.startswith("block (") and "of grid (3,2,1): " in report
        for words in MISTAKES[which]:
            assert words in report, report
    call(library, "run_barrier_votes", np.ones(64, np.int32), np.zeros((64, 4), np.int32), 0, 64)


def test_a_spin_that_ends_is_no_mistake(gpu):
    out = np.zeros(64, np.int32)
    call(gpu, "run_mistake", 6, out)
    assert out[0] == 6 * 63


def test_a_barrier_outside_of_a_launch_is_reported_by_the_next_launch(library, capfd):
    library.call_a_kernel_as_a_function(c(np.zeros(64, np.int32)))
    assert "__syncthreads was called outside of a launch" in capfd.readouterr().err
    assert "outside of a launch: call kernels through launch(" in error(
        library, "run_shared_bytes", np.zeros(6, np.int32), ctypes.c_int64(0)
    )
    call(library, "run_shared_bytes", np.zeros(6, np.int32), ctypes.c_int64(0))


def test_codes_have_texts(library):
    assert library.gpu_error(0) == b"no error" and library.gpu_error(1) == b"invalid argument"
    assert "invalid argument" in error(library, "run_reverse", 7, np.zeros(1), np.zeros(1), 1)


# ---- the other compiler ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(build.compiler("cuda") is None, reason="there is no nvcc")
def test_nvcc_compiles_the_same_kernels(tmp_path):
    words = [*build.command("cuda", SOURCE, tmp_path / "test_emulator.so"), INCLUDE]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0 and "warning" not in done.stderr, done.stdout + done.stderr


INSTRUCTIONS = (
    "cp.async.cg.shared.global cp.async.ca.shared.global ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 "
    "cvt.rna.tf32.f32\n"
    "    mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32\n"
    "    mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 redux.sync.add.s32 match.any.sync.b32"
)


@pytest.mark.skipif(build.compiler("cuda") is None, reason="there is no nvcc")
@pytest.mark.parametrize("instruction", INSTRUCTIONS.split())
def test_gpu_code_has_the_instructions(instruction, ptx):
    assert instruction in ptx


@pytest.fixture(scope="module")
def ptx(tmp_path_factory):
    path = tmp_path_factory.mktemp("ptx") / "test_emulator.ptx"
    flags = [flag for flag in build.NVCC if not flag.startswith("-gencode") and flag != "-shared"]
    subprocess.run(
        [*build.compiler("cuda"), *flags, INCLUDE, "-arch=compute_80", "-ptx", str(SOURCE), "-o", str(path)],
        check=True, capture_output=True
    )
    return path.read_text()


# ---- the debugger ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("gdb") is None or os.uname().machine != "x86_64",
                    reason="there is no gdb, or no x86-64")
def test_gdb_steps_through_a_kernel():
    """The session of docs/emulator.md: stop in thread 37, step over a barrier, and see what the others did."""
    planted = sanitize.DRIVERS / "planted" / "planted.cpp"
    flags = [flag for flag in sanitize.FLAGS if flag != "-g1"] + ["-g", "-O0", "-x", "c++"]
    program = sanitize.compiled(planted, flags, "planted.gdb")
    commands = ["set pagination off", "set style enabled off", "set print repeats 200",
                f"source {build.CSRC / 'emulator' / 'emulator.gdb'}"]
    commands += ["break block_sum<false> if threadIdx.x == 37", "run", "print threadIdx", "print part", "next", "next",
                 "cuda-threads"]
    commands += ["next", "print threadIdx", "print part", "cuda-thread 5", "backtrace"]
    words = ["gdb", "-q", "-nx", "-batch", *(word for command in commands for word in ("-ex", command)), "--args"]
    words += [str(program), "barrier_missing_in_a_reduction", "right"]
    environment = {**os.environ, "GENMINI_EMULATOR_THREADS": "1", "GENMINI_EMULATOR_ORDER": "forward"}
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if "ptrace" in done.stdout:
        pytest.skip("a debugger may not attach here")
    before, after = done.stdout.split("threads 38-63 are ready to run")
    assert "$1 = {x = 37, y = 0, z = 0}" in before and "36, -nan(0x7fffff)" in before
    assert "threads 0-36 wait at __syncthreads, line 7" in before
    # the others have arrived, and some have added
    assert "{x = 37, y = 0, z = 0}" in after and "{32, 34, 36, 38, 40," in after
    waiting, here = after.split("emulator::switch_stack", 1)[1].split("in ?? ()", 1)
    assert "block_sum<false>" in waiting and "emulator::fiber" in waiting  # of thread 5
    assert "block_sum<false>" in here and "emulator::fiber" in here  # and our own, unharmed
