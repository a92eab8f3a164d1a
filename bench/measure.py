"""Run, check and time candidates, and compare them with each other and with the limits of the machine.

Candidates of one case run interleaved, so that the machine's other load slows all of them; the results are medians with
20/80 quantiles. On a GPU Triton's do_bench times with events and a cold L2 cache. On a shared machine only ratios
within one run mean anything.
"""

import functools
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

if "avx512f" in (Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""):
    # FAISS at its best: on AMD's processors its BLAS would take AVX2. Set here, before anything loads FAISS.
    os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")

import torch
import torch._dynamo
import torch._functorch.config
from torch.utils._pytree import tree_leaves

from genmini import kernels

torch._functorch.config.donated_buffer = False  # a compiled backward may run again from the same graph: see `backward`
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
NO_KERNEL = ("reference", "cpu in PyTorch")  # what runs in rows that show no ratio; see `ours`
ROOT = Path(__file__).resolve().parent.parent


def ours(*rooms):
    """{name in the table: rung} of the ways in which genmini runs these rooms here.

    On a GPU these are the rungs of the first room, on a CPU what `auto` takes. The name is one of NO_KERNEL where
    PyTorch computes all of them.
    """
    if GPU:
        return {f"genmini {rung}": rung for rung in kernels.rungs(rooms[0])}
    on_cpu = [room for room in rooms if kernels.chosen(room).backend == "cpu"]
    if any(kernels.ROOMS[room].cpu == "C++" for room in on_cpu):
        return {"genmini cpu": None}
    return {"genmini cpu in PyTorch" if on_cpu else "genmini reference": None}


def in_rung(function, rung=None):
    """The function, run on the backend that `auto` takes, in this rung."""

    def call(*arguments):
        with kernels.use("auto", rung):
            return function(*arguments)

    return call


def checked(functions, inputs, exact, tolerance):
    """{name: the largest error of the function's outputs} against the exact ones. A wrong function is not timed.

    Every case is compiled anew: after eight sets of shapes torch.compile would give up, and run eagerly.
    """
    torch._dynamo.reset()
    errors = {}
    for name, function in functions.items():
        pairs = zip(tree_leaves(function(*inputs)), tree_leaves(exact), strict=True)
        errors[name] = max((got.double() - truth.double()).abs().max().item() for got, truth in pairs)
        assert errors[name] < tolerance, f"{name} is off by {errors[name]:.3g}"
    return errors


def times(candidates, seconds=1.0, rounds=5):
    """{name: function} -> {name: (median, 20 % quantile, 80 % quantile)} in milliseconds."""
    if GPU:
        from triton.testing import do_bench

        return {name: tuple(do_bench(function, quantiles=(0.5, 0.2, 0.8))) for name, function in candidates.items()}
    spent = {name: [] for name in candidates}
    for function in candidates.values():
        function()
    started = time.perf_counter()
    while len(next(iter(spent.values()))) < rounds or time.perf_counter() - started < seconds:
        for name, function in candidates.items():
            before = time.perf_counter()
            function()
            spent[name].append(1e3 * (time.perf_counter() - before))
    return {name: (statistics.median(each), *_quantiles(each)) for name, each in spent.items()}


def backward(function, inputs, along=None):
    """Return a call of the backward pass alone, on the kept graph of one forward.

    along: the outputs' gradients; by default the outputs themselves.
    """
    outs, along = _forward(function, inputs, along)
    return lambda: torch.autograd.grad(outs, inputs, along, retain_graph=True)


def both(function, inputs, along=None):
    """Return a call of the forward and the backward pass."""

    def call():
        outs, given = _forward(function, inputs, along)
        return torch.autograd.grad(outs, inputs, given)

    return call


def _forward(function, inputs, along):
    """-> the outputs that have a gradient, and their gradients"""
    outs = [out for out in tree_leaves(function(*inputs)) if out.requires_grad]
    return outs, along or [out.detach() for out in outs]


def _quantiles(each):
    each = sorted(each)
    return each[int(0.2 * (len(each) - 1))], each[int(0.8 * (len(each) - 1))]


def peak(function):
    """The most bytes that PyTorch's allocator held above what it held before."""
    if GPU:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    held = most = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


@functools.cache
def copy_bandwidth():
    """Bytes a second of a large copy, counted once read and once written."""
    source = torch.empty(2**28 if GPU else 2**25, dtype=torch.float32, device=DEVICE).normal_()
    target = torch.empty_like(source)
    ms = times({"copy": lambda: target.copy_(source)})["copy"][0]
    return 2 * source.numel() * 4 / (1e-3 * ms)


@functools.cache
def matmul_rate(dtype=torch.float32):
    """Operations a second of a large matrix product."""
    n = 8192 if GPU else 1024
    a, b = (torch.randn(n, n, device=DEVICE).to(dtype) for _ in range(2))
    ms = times({"mm": lambda: a @ b})["mm"][0]
    return 2 * n**3 / (1e-3 * ms)


def row(room, case, what, who, time, *, dtype="float32", bytes=0, operations=0, error=None, beside=None):
    """Return one line of the table.

    beside: the median of the candidate that this one is compared with; ratio > 1 means faster than it.
    """
    median, low, high = time
    bound = max(bytes / copy_bandwidth(),
                operations / matmul_rate(getattr(torch, dtype) if GPU else torch.float32)) * 1e3
    return {
        "room": room, "case": case, "what": what, "who": who, "dtype": dtype,
        "ms": f"{median:.4g}", "ms_20": f"{low:.4g}", "ms_80": f"{high:.4g}",
        "bytes": int(bytes), "operations": int(operations),
        "percent_of_bound": f"{100 * bound / median:.1f}" if bound else "",
        "ratio": f"{beside / median:.2f}" if beside else "", "error": "" if error is None else f"{error:.2g}",
    }


@functools.cache
def machine():
    """Return the columns that all rows share: the machine, the versions, the commit."""
    try:
        from triton import __version__ as triton_version
    except ImportError:  # macOS, Windows
        triton_version = ""
    driver = ""
    if GPU:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    return {
        "device": torch.cuda.get_device_name() if GPU else _processor(), "driver": driver,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__, "triton": triton_version, "python": platform.python_version(), "commit": commit(),
        "copy_GB_s": f"{copy_bandwidth() / 1e9:.1f}", "matmul_GFLOP_s": f"{matmul_rate() / 1e9:.0f}",
    }


def commit():
    """The commit of the code, with "-dirty" where `changed` is not empty; "" of a copy that is no git checkout."""
    name = _git("describe", "--always")
    return name + "-dirty" * bool(name and changed())


def changed():
    """The tracked files that a bench runs, and that differ from the commit."""
    run = "csrc", "kernels", "genmini", "bench/*.py"
    return _git("diff", "HEAD", "--name-only", "--", *run).splitlines()


def _git(*words):
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def _processor():
    """Its name, and where /proc/cpuinfo tells them its family and model: two kinds of AMD EPYC differ by more than two
    versions of a kernel do."""
    try:
        lines = [line.split(":", 1) for line in open("/proc/cpuinfo") if ":" in line]
        fields = {key.strip(): value.strip() for key, value in lines}
        cores = sum(key.strip() == "model name" for key, _ in lines)
        return f"{fields['model name']} (family {fields['cpu family']}, model {fields['model']}), {cores} cores"
    except (OSError, KeyError, ValueError):
        return platform.processor() or platform.machine()
