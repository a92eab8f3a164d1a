"""Run, check and time candidates, and compare them with each other and with the limits of the machine.

Times and the limits of the machine are those of genmini/limits.py: medians with 20/80 quantiles of candidates that run
interleaved. On a shared machine only ratios within one run mean anything.
"""

import functools
import os
import platform
import subprocess
from pathlib import Path

if "avx512f" in (Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""):
    # FAISS at its best: on AMD's processors its BLAS would take AVX2. Set here, before anything loads FAISS.
    os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")

import torch
import torch._dynamo
import torch._functorch.config
from torch.utils._pytree import tree_leaves

from genmini import kernels, limits

torch._functorch.config.donated_buffer = False  # a compiled backward may run again from the same graph: see `backward`
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
NO_KERNEL = "reference"  # what runs in rows that show no ratio; see `ours`
ROOT = Path(__file__).resolve().parent.parent
copy_bandwidth = functools.partial(limits.copy_bandwidth, DEVICE)  # of the present number of threads
matmul_rate = functools.partial(limits.matmul_rate, DEVICE)


def ours(*rooms):
    """{name in the table: rung} of the ways in which genmini runs these rooms here.

    On a GPU these are the rungs of the first room, on a CPU what `auto` takes. The name is NO_KERNEL where PyTorch
    computes the definitions of all of them.
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
        errors[name] = furthest(function(*inputs), exact)
        assert errors[name] < tolerance, f"{name} is off by {errors[name]:.3g}"
    return errors


def furthest(got, exact):
    """The largest error of some outputs; NaN if there is one, which Python's max may pass over."""
    pairs = zip(tree_leaves(got), tree_leaves(exact), strict=True)
    return torch.stack([(a.double() - b.double()).abs().max() for a, b in pairs]).max().item()


def times(candidates, seconds=1.0, rounds=5):
    """{name: function} -> {name: (median, 20 % quantile, 80 % quantile, in milliseconds; the most bytes held)}.

    With one thread, in the second run over a room, for a quarter as long. Nobody looks at the memory of calls of a
    second or more, whose profile would take gigabytes.
    """
    took = limits.times(candidates, seconds if torch.get_num_threads() > 1 else seconds / 4, rounds, DEVICE)
    return {name: (*took[name], peak(function) if took[name][0] < 1000 else None)
            for name, function in candidates.items()}


def backward(function, inputs, along=None):
    """Return a call of the backward pass alone, on the kept graph of one forward: the third, which a front door answers
    by a shortcut, as it does those of training (kernels/_door.py).

    along: the outputs' gradients; by default copies of the outputs. These themselves would lie where a room may keep
    them for its backward pass, which they never do in a model.
    """
    along = along or _copies(function, inputs)
    for _ in range(3):
        outs = _moving(function(*inputs))
    return lambda: torch.autograd.grad(outs, inputs, along, retain_graph=True)


def both(function, inputs, along=None):
    """Return a call of the forward and the backward pass."""
    along = along or _copies(function, inputs)
    return lambda: torch.autograd.grad(_moving(function(*inputs)), inputs, along)


def _moving(outputs):
    """Those that have a gradient."""
    return [out for out in tree_leaves(outputs) if out.requires_grad]


def _copies(function, inputs):
    return [out.detach().clone() for out in _moving(function(*inputs))]


def peak(function):
    """The most bytes that PyTorch's allocator held above what it held before."""
    if GPU:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    return max((held for _, held in limits.allocations(profiler)), default=0)


def row(room, case, what, who, time, *, dtype="float32", bytes=0, operations=0, error=None, beside=None):
    """Return one line of the table.

    beside: the median of the candidate that this one is compared with; ratio > 1 means faster than it.
    """
    median, low, high, held = time
    bound = max(bytes / copy_bandwidth(),
                operations / matmul_rate(getattr(torch, dtype) if GPU else torch.float32)) * 1e3
    return {
        "room": room, "case": case, "what": what, "who": who, "dtype": dtype,
        "ms": f"{median:.4g}", "ms_20": f"{low:.4g}", "ms_80": f"{high:.4g}",
        "held": "" if held is None else held,
        "bytes": int(bytes), "operations": int(operations),
        "percent_of_bound": f"{100 * bound / median:.1f}" if bound else "",
        "ratio": f"{beside / median:.2f}" if beside else "", "error": "" if error is None else f"{error:.2g}",
    }


def machine():
    """Return the columns that all rows share: the machine, the number of threads, the versions, the commit."""
    return {**_machine(), "threads": torch.get_num_threads(), "copy_GB_s": f"{copy_bandwidth() / 1e9:.1f}",
            "matmul_GFLOP_s": f"{matmul_rate() / 1e9:.0f}"}


@functools.cache
def _machine():
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
        "torch": torch.__version__, "triton": triton_version, "python": platform.python_version(), "commit": commit(),
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
