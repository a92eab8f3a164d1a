"""Test the emulator: grids, barriers, warps, atomics, and what it reports of mistakes, in each of its builds."""

import ctypes
import itertools
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from emulated import BUILDS, INCLUDE, SOURCE, build, c, call, error, load, poison, sanitize, with_gxx

pytestmark = with_gxx


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
    int* runs = (int*)calloc(100, sizeof(int));
    if (launch(count, dim3(100), dim3(1), 0, nullptr, runs)) return 2;
    for (int i = 0; i < 100; i++)
        if (runs[i] != 1) return 3;
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


def test_shared_memory_starts_poisoned_in_every_block(gpu):
    """NaN where threads run forward, huge numbers else: NaN disappears in a maximum."""
    out = np.zeros((9, 2, 32), np.float32)
    call(gpu, "run_uninitialised", out, 9)
    np.testing.assert_array_equal(out, np.full_like(out, poison(gpu.order)))


@pytest.mark.parametrize("order", ["reverse", "random"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_poison_is_huge_in_every_type(order, dtype):
    value = poison(order).tobytes() * 2
    number = abs(float(np.frombuffer(value, dtype)[0]))
    assert float(np.finfo(dtype).max) ** 0.9 < number < float("inf")


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


def test_active_are_the_lanes_that_go_the_same_way(gpu):
    x = np.random.default_rng(0).integers(-2, 6, 45).astype(np.int32)
    out = np.zeros((2, 45), np.uint32)
    call(gpu, "run_active", x, out, 45)
    for i in range(45):
        alike = [lane for lane in range(i // 32 * 32, min(i // 32 * 32 + 32, 45)) if x[lane] >= 0 <= x[i]]
        assert out[0, i] == sum(1 << lane % 32 for lane in alike if x[lane] % 2 == x[i] % 2)
        assert out[1, i] == sum(1 << lane % 32 for lane in alike)


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


# ---- mistakes --------------------------------------------------------------------------------------------------------

MISTAKES = {
    0: ("dead-lock", "threads 0-39 at __syncthreads in test_emulator_mistakes.cu:",
        "threads 40-63 at __shfl_sync(0xffffffff) in test_emulator_mistakes.cu:"),
    1: ("threads meet at different barriers", "threads 0,2,4,6,", "threads 1,3,5,7,",
        ",... at __syncthreads in test_emulator_mistakes.cu:"),
    2: ("dead-lock", "threads 0-15 at __syncthreads", "threads 16-31 at __shfl_sync(0xffffffff)",
        "threads 32-63 returned"),
    3: ("__ballot_sync: the mask does not name the lane that calls",),
    4: ("copy_async: an address is not a multiple",),
    5: ("atomic operations without end", "threads 0 run; threads 1-63 returned"),
    7: ("lanes of one warp operation stand at different places: threads ",
        *(f",... at __any_sync(0xffffffff) in test_emulator_mistakes.cu:{line}" for line in (31, 33))),
}


@pytest.mark.parametrize("which", MISTAKES)
def test_mistakes_are_reported_with_block_and_threads(library, which):
    library.gpu_order(0, ctypes.c_uint64(0))
    for _ in range(2):  # the emulator goes on after a mistake
        report = error(library, "run_mistake", which, np.zeros(64, np.int32))
        assert report.startswith("block (") and "of grid (3,2,1): " in report
        for words in MISTAKES[which]:
            assert words in report, report
    call(library, "run_barrier_votes", np.ones(64, np.int32), np.zeros((64, 4), np.int32), 0, 64)


def test_a_spin_that_ends_is_no_mistake(gpu):
    out = np.zeros(64, np.int32)
    call(gpu, "run_mistake", 6, out)
    assert out[0] == 6 * 63


def test_a_line_is_one_place_in_every_turn_of_a_loop(gpu):
    out = np.zeros(64, np.int32)
    call(gpu, "run_one_place", out)
    assert (out == [10 if i % 2 == 0 else 6 for i in range(64)]).all()


@pytest.mark.parametrize("which, promised", [(0, 64), (1, 96), (2, 512), (3, 1024)])
def test_a_block_has_at_most_the_threads_of_the_launch_bounds(library, which, promised):
    out = np.zeros(1024, np.int32)
    call(library, "run_promised", which, out, promised)
    assert (out[:promised] == promised).all() and not out[promised:].any()
    words = "the limits are (1024" if promised == 1024 else f"__launch_bounds__ promise at most {promised}"
    assert words in error(library, "run_promised", which, out, promised + 1)


@pytest.mark.parametrize("which", range(6))
def test_pointers_to_memory_of_the_host_are_refused(library, which):
    """Of arguments and of members of a struct: on the stack, of variables; not of memory from an allocator."""
    table, out = np.arange(4, dtype=np.int32), np.full(4, -1, np.int32)
    if which % 3 == 0:
        call(library, "run_pointers", which, table, out)
        assert (out == table).all()
    else:
        place = "the host's stack" if which % 3 == 1 else "a variable of the host"
        assert error(library, "run_pointers", which, table, out) == f"argument 0 points to {place}"
        assert (out == -1).all()


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
