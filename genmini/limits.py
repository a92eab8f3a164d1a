"""What this machine reaches, measured now: the time of functions, the bandwidth of a copy, the rate of a product.

    copy_bandwidth("cpu")                   1.2e10 bytes a second, read once and written once
    matmul_rate("cpu", torch.float32)       1.1e11 operations a second

Candidates of one call run interleaved, so that the machine's other load slows all of them, each after untimed calls of
itself for half a millisecond, and at least one: its code and its inputs are in the caches, not those of the candidate
before it, whose threads may have just fallen asleep. On a GPU Triton's do_bench times with events and a cold L2 cache.
On a shared machine only ratios within one run mean anything.

    used by: genmini/profiling.py, bench/measure.py    test: tests/project/test_bench.py
"""

import functools
import statistics
import time

import torch

UNTIMED = 0.5e-3  # seconds before each timed call: after another candidate a call of 10 us takes 30, the fifth one 10


def times(candidates, seconds=1.0, rounds=5, device="cpu", clock=time.perf_counter):
    """{name: function} -> {name: (median, 20 % quantile, 80 % quantile)} in milliseconds; by the clock, on a CPU."""
    if _on_gpu(device):
        from triton.testing import do_bench

        return {name: tuple(do_bench(function, quantiles=(0.5, 0.2, 0.8))) for name, function in candidates.items()}
    spent = {name: [] for name in candidates}
    started = time.perf_counter()
    while len(next(iter(spent.values()))) < rounds or time.perf_counter() - started < seconds:
        for name, function in candidates.items():
            began = clock()
            function()
            while clock() - began < UNTIMED:
                function()
            before = clock()
            function()
            spent[name].append(1e3 * (clock() - before))
    return {name: (statistics.median(each), *_quantiles(each)) for name, each in spent.items()}


def _quantiles(each):
    each = sorted(each)
    return each[int(0.2 * (len(each) - 1))], each[int(0.8 * (len(each) - 1))]


def _once(function):
    """It is measured once for each number of threads."""
    measured = functools.cache(lambda threads, *arguments, **named: function(*arguments, **named))
    return functools.wraps(function)(lambda *arguments, **named: measured(torch.get_num_threads(), *arguments, **named))


@_once
def copy_bandwidth(device="cpu", quick=False):
    """Bytes a second of a large copy, counted once read and once written; by the median round, or of the quick ones."""
    source = torch.empty(2**28 if _on_gpu(device) else 2**25, dtype=torch.float32, device=device).normal_()
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / _seconds(lambda: target.copy_(source), device, quick)


@_once
def matmul_rate(device="cpu", dtype=torch.float32, quick=False):
    """Operations a second of a large matrix product."""
    n = 8192 if _on_gpu(device) else 1024
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return 2 * n**3 / _seconds(lambda: a @ b, device, quick)


@_once
def convolution_rate(device="cpu", dtype=torch.float32, quick=False):
    """Operations a second of a large convolution, 3x3."""
    N, C, side = (64, 256, 64) if _on_gpu(device) else (16, 64, 32)
    x, w = torch.randn(N, C, side, side, device=device).to(dtype), torch.randn(C, C, 3, 3, device=device).to(dtype)
    seconds = _seconds(lambda: torch.nn.functional.conv2d(x, w, padding=1), device, quick)
    return 2 * N * side**2 * C**2 * 9 / seconds


def _seconds(function, device, quick):
    """Of the median round; quick: of the 20 % quantile, and with one thread of a CPU only the time that it runs, so
    that load from elsewhere changes less."""
    if quick and not _on_gpu(device) and torch.get_num_threads() == 1:
        return 1e-3 * times({"": function}, seconds=0.5, clock=time.thread_time)[""][1]
    return 1e-3 * times({"": function}, device=device)[""][int(quick)]


def _on_gpu(device):
    return torch.device(device).type == "cuda"


def allocations(profiler, device="cpu"):
    """Bytes that PyTorch's allocator holds above what it held before, along a profile that recorded memory
    -> [(nanoseconds, bytes)], after each allocation and each release"""
    kind, held, along = torch.device(device).type.upper(), 0, []
    events = profiler.profiler.kineto_results.events()
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == "[memory]" and event.device_type().name == kind:
            held += event.nbytes()
            along.append((event.start_ns(), held))
    return along
