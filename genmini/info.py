"""What this machine has: versions, compilers, devices, and the backend of each operator. Light to import."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

from genmini import __version__


def versions():
    """-> {"genmini": "0.1", "python": ..., "torch": ..., "triton": ..., "numpy": ...}"""
    import numpy
    import torch

    from genmini.kernels import _backend

    triton = "missing"
    if not _backend.triton_missing():
        import triton as module

        triton = module.__version__
    return dict(genmini=__version__, python=platform.python_version(), torch=torch.__version__, triton=triton,
                numpy=numpy.__version__)


def notes():
    """A remark on each of some entries of `versions`, and on the compilers."""
    import torch

    from genmini.kernels import _backend

    built_for = f"CUDA {torch.version.cuda}" if torch.version.cuda else "ROCm" if torch.version.hip else "CPU only"
    triton = _backend.triton_missing()
    if not triton:
        triton = "interprets: its kernels run on the CPU" if _backend.interpreting() else "compiles for GPUs"
    return {
        "genmini": f"in {Path(__file__).resolve().parent}",
        "python": platform.platform(),
        "torch": f"({built_for})",
        "triton": f"({triton})",
        "numpy": "",
    }


def compilers():
    """-> {"g++": version and path, or what is missing without it; "nvcc": ...}"""
    return {"g++": _compiler("cpu"), "nvcc": _compiler("cuda")}


def _compiler(kind):
    from genmini.csrc import build

    words = build.compiler(kind)
    if not words or not shutil.which(words[0]):
        without = {"cuda": "nothing can be compiled for GPUs; g++ compiles CUDA kernels for `emulated`",
                   "cpu": "nothing of csrc/ can be compiled; what is built runs all the same"}[kind]
        return f"missing: {without}"
    lines = subprocess.run([*words, "--version"], capture_output=True, text=True).stdout.strip().splitlines()
    line = next((line for line in lines if "release" in line), lines[0] if lines else "?")
    return f"{line}   ({' '.join(words)})"


def devices():
    """-> {"cpu": what it is, "cuda:0": ...}"""
    import torch

    here = {"cpu": f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"}
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        card = torch.cuda.get_device_properties(i)
        here[f"cuda:{i}"] = f"{card.name}, sm_{card.major}{card.minor}, {card.total_memory / 2**30:.0f} GiB"
    return here


def interpreter_broken():
    """Why Triton's interpreter does not work here; "" if it does, or if there is no Triton."""
    from genmini.kernels import _backend

    return "" if _backend.triton_missing() else _backend.interpreter_broken()


def choice(operator, device, request=None):
    """-> the backend and rung that the operator takes on this device, "no" if there is none; and why"""
    from genmini import kernels

    try:
        taken = kernels.chosen(operator, device, request=request)
    except RuntimeError as error:
        return "no", str(error)
    why = "the GPU kernel's own source, on CPU tensors" if request == "emulated" else taken.why
    return taken.backend + (":" + taken.rung if taken.rung else ""), why
