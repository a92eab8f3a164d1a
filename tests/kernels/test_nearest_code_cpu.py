"""The native search of csrc/nearest_code.cpp returns the index of the definition, for all data, instruction sets and
numbers of threads."""

import ctypes
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nearest_code_cpu_data import (
    KINDS,
    against_the_margin,
    codes_themselves,
    fresh,
    gaussian,
    one_ulp,
    permuted,
    shells,
)
from nearest_code_data import definition

from genmini import kernels

DTYPES = list(kernels._library.DTYPES)  # in the order of their codes
FLOAT32, FLOAT64 = torch.float32, torch.float64
SETS = ["portable", "avx2", "avx512"]


def library():
    native = kernels._library.load("nearest_code", "cpu")
    native.nearest_code_cpu_workspace.restype = ctypes.c_int64
    native.nearest_code_cpu_info.restype = ctypes.c_char_p
    return native


def runs_here(name):
    os.environ["GENMINI_CPU"] = name
    try:
        return library().nearest_code_cpu_info().decode() == name
    finally:
        del os.environ["GENMINI_CPU"]


def search(z, e, threads=1, instructions=None):
    """The index by the native kernel, in a workspace that is poisoned, and guarded beyond its end."""
    (N, D), K = z.shape, e.shape[0]
    z, e = z.contiguous(), e.contiguous()
    kinds = [DTYPES.index(x.dtype) for x in (z, e)]
    bytes = library().nearest_code_cpu_workspace(*kinds, *map(ctypes.c_int64, (N, K, D)), threads)
    workspace = torch.full((bytes + 64,), 0xCB, dtype=torch.uint8)
    index = torch.full((N + 2,), -7)
    if instructions:
        os.environ["GENMINI_CPU"] = instructions
    try:
        pointers = [ctypes.c_void_p(x.data_ptr()) for x in (z, e, index[1:])]
        sizes = map(ctypes.c_int64, (N, K, D))
        code = library().nearest_code_cpu(*kinds, *pointers, *sizes, ctypes.c_void_p(workspace.data_ptr()), threads)
    finally:
        os.environ.pop("GENMINI_CPU", None)
    assert code == 0
    assert index[0] == -7 and index[-1] == -7 and (workspace[bytes:] == 0xCB).all(), "wrote outside"
    return index[1:-1]


def agrees(z, e, threads=(1, 2, 3)):
    exact = definition(z, e)
    for instructions in filter(runs_here, SETS):
        for count in threads:
            found = search(z, e, count, instructions)
            wrong = (found != exact).nonzero().flatten()
            assert not len(wrong), (
                f"{instructions}, {count} threads: rows {wrong[:5]} gave {found[wrong[:5]]}, not {exact[wrong[:5]]}"
            )


SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.sampled_from([1, 2, 3, 5, 16, 47, 48, 49, 63, 64, 65, 130, 257])
CODES = st.sampled_from([1, 2, 3, 5, 16, 47, 64, 65, 257, 700, 1300])  # K D on both sides of what one screen takes
WIDTHS = st.sampled_from([1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 33, 64, 100])
SCALES = st.sampled_from([1.0, 1e-40, 1e-30, 1e-5, 1e5, 1e30, 1e37])
DOUBLE_SCALES = st.sampled_from([1e-320, 1e-300, 1e-170, 1e-160, 1e-155, 1e-135, 1.0, 1e135, 1e150, 1e153, 1e154, 1e160,
                                 1e300, 1e307])


@settings(max_examples=60)
@given(kind=st.sampled_from(KINDS), N=SIZES, K=CODES, D=WIDTHS, scale=SCALES,
       offset=st.sampled_from([0, 0, 30, 1e3, 1e6]), z_dtype=st.sampled_from(DTYPES), e_dtype=st.sampled_from(DTYPES),
       threads=st.integers(1, 3), seed=SEEDS)
def test_is_the_definition(kind, N, K, D, scale, offset, z_dtype, e_dtype, threads, seed):
    z, e = kind(np.random.default_rng(seed), N, K, D)
    agrees(*(torch.from_numpy((x + offset) * scale).to(t) for x, t in ((z, z_dtype), (e, e_dtype))), threads=(threads,))


@settings(max_examples=40)
@given(kind=st.sampled_from(KINDS), N=SIZES, K=SIZES, D=WIDTHS, scale=DOUBLE_SCALES, seed=SEEDS)
@example(kind=gaussian, N=64, K=64, D=16, scale=1e160, seed=0)
@example(kind=gaussian, N=64, K=64, D=16, scale=1e-160, seed=0)
def test_where_doubles_overflow_and_underflow(kind, N, K, D, scale, seed):
    z, e = kind(np.random.default_rng(seed), N, K, D)
    with np.errstate(over="ignore"):
        agrees(torch.from_numpy(z * scale), torch.from_numpy(e * scale), threads=(1,))


@settings(max_examples=40)
@given(D=WIDTHS, seed=SEEDS)
def test_where_rows_and_codes_differ_in_magnitude(D, seed):
    rng = np.random.default_rng(seed)
    K = 65 if seed % 7 < 4 else 8192 // D + 65
    z, e = gaussian(rng, 49, K, D)
    z *= 2.0 ** rng.integers(-1000, 500, (49, 1)) if seed % 2 else 2.0 ** rng.integers(-70, 70, (49, 1))
    e *= 2.0 ** rng.integers(-1000, 500, (K, 1)) if seed % 3 == 0 else 2.0 ** rng.integers(-70, 70, (K, 1))
    z[::2] = e[rng.integers(K, size=25)] * (1 + 1e-9 * (seed % 5))
    agrees(torch.from_numpy(z), torch.from_numpy(e), threads=(1,))


def test_the_margin_is_needed():
    for seed in range(60):
        D = 2 * (3 + seed)
        z, e = against_the_margin(np.random.default_rng(seed), 4, 8192 // D + 40 + seed, D)
        agrees(torch.from_numpy(z), torch.from_numpy(e), threads=(1,))


@pytest.mark.parametrize("N, K", [(1, 64), (60, 64), (60, 1100)])  # few rows; few codes; groups of codes
@pytest.mark.parametrize("kind", [one_ulp, shells, permuted])
def test_the_margins_in_float_are_needed(kind, N, K):
    """Codes whose distances from a row differ by less than float's precision: of few rows, and of few products."""
    for seed in range(12):
        z, e = kind(np.random.default_rng(seed), N, K, 3 + 5 * seed)
        agrees(torch.from_numpy(z).float(), torch.from_numpy(e).float(), threads=(1,))


@pytest.mark.parametrize("scale", [1e25, 1e-25])
def test_squares_beyond_the_reach_of_float(scale):
    z, e = gaussian(np.random.default_rng(0), 3, 40, 8)
    agrees(torch.from_numpy(z * scale).float(), torch.from_numpy(e * scale).float(), threads=(1,))


def test_rows_far_from_all_codes_are_in_the_margin_in_float():
    """Distances that differ by less than a double's precision: the definition's own rounding decides."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        z, e = gaussian(rng, 60, 64, 8)
        agrees(torch.from_numpy(z * 1e16).float(), torch.from_numpy(e).float(), threads=(1,))


def test_rows_beyond_the_usual_codes_are_near_far_ones():
    """A code far from the others is nearest to rows that lie there; between two such codes the margin is theirs."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        z, e = gaussian(rng, 60, 64, 8)
        e[5], e[6] = 1e6 * e[5], 1e6 * e[5] + 1e-2 * e[6]
        z[::2] = e[5] + 1e-2 * z[::2]
        agrees(torch.from_numpy(z), torch.from_numpy(e).float(), threads=(1,))
        agrees(torch.from_numpy(z).float(), torch.from_numpy(e).float(), threads=(1,))


def test_the_rounding_of_norms_is_in_the_margin():
    """Rows at the centre, where units vanish: codes differ by their norms alone, and by less than a float's precision.

    The index must be the definition's all the same.
    """
    for seed in range(20):
        rng = np.random.default_rng(seed)
        # so the centre, a median, is 0
        e = rng.standard_normal((300, 65)) * (np.arange(65) % 5 == np.arange(300)[:, None] % 5)
        e *= (1 + rng.uniform(-1e-7, 1e-7, (300, 1))) / np.linalg.norm(e, axis=1, keepdims=True)
        agrees(torch.zeros(8, 65), torch.from_numpy(e), threads=(1,))


@pytest.mark.parametrize("N, K, D", [(0, 5, 3), (1, 1, 1), (3, 1, 5), (1, 5000, 4), (2, 300, 1030), (50, 65, 1025),
                                     (333, 5000, 8), (100, 4097, 33), (2000, 512, 16), (7, 4, 0),
                                     (19, 2500, 33), (21, 16401, 512),
                                     (3, 2, 65537)])
def test_shapes(N, K, D):
    z, e = gaussian(np.random.default_rng(0), N, K, D)
    agrees(torch.from_numpy(z).float(), torch.from_numpy(e).float(), threads=(1, 3))


@pytest.mark.parametrize("kind", [gaussian, fresh, codes_themselves])
def test_a_million_codes(kind):
    z, e = kind(np.random.default_rng(0), 49, 2**20, 2)
    agrees(torch.from_numpy(z).float(), torch.from_numpy(e).float(), threads=(2,))


@pytest.mark.parametrize("z_dtype", DTYPES)
@pytest.mark.parametrize("e_dtype", DTYPES)
def test_every_pair_of_dtypes(z_dtype, e_dtype):
    z, e = gaussian(np.random.default_rng(0), 200, 300, 24)
    agrees(torch.from_numpy(z).to(z_dtype), torch.from_numpy(e).to(e_dtype), threads=(2,))


def test_every_half_is_read_right():
    """All 65536 bit patterns, as rows and as codes."""
    for dtype in (torch.float16, torch.bfloat16):
        every = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)[:, None]
        usual = torch.linspace(-3, 3, 97).to(dtype)[:, None]
        tiny = (torch.linspace(-3, 3, 97) * torch.finfo(dtype).tiny / 4).to(dtype)[:, None]
        for few in (usual, tiny):
            agrees(every, few, threads=(2,))
            agrees(few, every, threads=(2,))


def test_special_rows_and_codes():
    nan, inf = float("nan"), float("inf")
    z = torch.tensor([[nan, 0], [0, inf], [1, 1], [-inf, 3], [3.0, 3.0]])
    e = torch.tensor([[nan, 1], [inf, inf], [1, 2], [1, 0], [3, 3]])
    assert search(z, e).tolist() == [0, 0, 2, 0, 4]
    assert search(z, e[:2]).tolist() == [0] * 5
    big = torch.full((1, 4), 1e200, dtype=FLOAT64)
    # the first two are infinitely far in double
    assert search(big, torch.stack([-big[0], 0.9 * big[0], big[0]])).tolist() == [2]


def test_one_bad_code_does_not_slow_or_change_the_others():
    z, e = (torch.from_numpy(x).float() for x in gaussian(np.random.default_rng(0), 500, 700, 32))
    exact = definition(z, e)
    for bad in (float("nan"), float("inf"), 1e30):
        worse = torch.cat([e, torch.full((1, 32), bad)])
        assert (search(z, worse) == exact).all()


def test_the_callers_rounding_mode_and_flushing_do_not_matter():
    z, e = (torch.from_numpy(x * 1e-40).float() for x in gaussian(np.random.default_rng(0), 300, 200, 16))
    exact = definition(z, e)
    try:
        if not torch.set_flush_denormal(True):
            pytest.skip("this processor cannot flush subnormal numbers")
        found = [search(z, e, threads) for threads in (1, 2)]
        flushing = torch.tensor([1e-40]) * torch.ones(1) == 0
    finally:
        torch.set_flush_denormal(False)
    assert flushing.all(), "our setting was not restored"
    assert all((index == exact).all() for index in found)


def test_several_callers_and_a_forked_child_search_at_once():
    z, e = map(torch.from_numpy, gaussian(np.random.default_rng(0), 2000, 512, 16))
    z, e = z.float(), e.float()
    want = definition(z, e)
    with ThreadPoolExecutor(4) as callers:  # ctypes lets go of Python's lock during a call
        for index in callers.map(lambda i: search(z, e, 1 + i % 4), range(40)):
            assert (index == want).all()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # PyTorch's own threads do not survive a fork: the child must not wait for them
    child = os.fork()
    if child == 0:
        os._exit(0 if (search(z, e, 3) == want).all() else 1)
    torch.set_num_threads(threads)
    for _ in range(600):  # it must not wait for threads that only its parent has
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.1)
    else:
        os.kill(child, signal.SIGKILL)
    assert done and status == 0


def test_an_unknown_dtype_or_no_code_is_refused():
    nothing, sizes = ctypes.c_void_p(), [ctypes.c_int64(1)] * 3
    assert library().nearest_code_cpu(4, 0, nothing, nothing, nothing, *sizes, nothing, 1) != 0
    assert library().nearest_code_cpu(0, 0, nothing, nothing, nothing, sizes[0], ctypes.c_int64(0), sizes[0], nothing,
                                      1) != 0


@pytest.mark.parametrize("name", SETS)
def test_an_instruction_set_can_be_chosen(name):
    flags = open("/proc/cpuinfo").read() if os.path.exists("/proc/cpuinfo") else ""
    has = {"portable": True, "avx2": "avx2" in flags and " fma" in flags,
           "avx512": "avx512_vnni" in flags and "avx512dq" in flags}[name]
    assert runs_here(name) == has
