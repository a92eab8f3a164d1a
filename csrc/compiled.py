"""Read what nvcc made of a kernel: registers, shared memory, spills. Python's standard library alone; no torch.

    compiled.usage("kernels/lib/nade.cuda.so")     {(80, "couple<float, 4>"): Usage(registers=38, ...), ...}

The library holds machine code for several architectures; cuobjdump reads it, which comes with CUDA and with Triton. The
names of kernels are those of csrc/count.py, so that what is compiled can stand beside what is counted.

From sm_90 on cuobjdump adds the 1024 bytes of shared memory that CUDA keeps for itself to those of the kernel, ptxas
does not. Here they are left out: who computes occupancy adds them on all cards (cuda_occupancy.h).
"""

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

if __package__:
    from . import count
else:
    import count

KEPT_BY_CUDA = 1024
FUNCTION = re.compile(r"^ *Function (\S+):\n *REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", re.M)


@dataclass(frozen=True)
class Usage:
    """What a kernel takes, for each thread or block."""

    registers: int  # of 32 bits, of a thread
    shared: int  # bytes of static shared memory, of a block
    stack: int  # bytes of a thread in local memory: what spills, arrays that are indexed, frames of calls
    local: int  # bytes of a thread in local memory besides


def tool(name):
    """The path of cuobjdump or nvdisasm, or None: CUDA's own, or the one that Triton brings."""
    triton = importlib.util.find_spec("triton")
    folders = [Path(root) / "bin" for root in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")) if root]
    folders += [Path(place) / "backends" / "nvidia" / "bin" for place in triton.submodule_search_locations or ()
                ] if triton else []
    found = (str(folder / name) for folder in folders if os.access(folder / name, os.X_OK))
    return next(found, None) or shutil.which(name)


def missing():
    """What reading machine code needs and this machine lacks, or an empty string."""
    if tool("cuobjdump") is None:
        return "reading machine code needs cuobjdump, which comes with CUDA and with Triton, and was not found"
    return "" if shutil.which("c++filt") else "reading machine code needs c++filt, of GNU binutils, not found on PATH"


def usage(library):
    """{(architecture, kernel): Usage} of a library of CUDA kernels; the architecture as 80 for sm_80."""
    if missing():
        raise RuntimeError(missing())
    found = {}
    for part in re.split(r"^arch = sm_", output([tool("cuobjdump"), "-res-usage", str(library)]), flags=re.M)[1:]:
        architecture = int(re.match(r"\d+", part)[0])
        kernels = FUNCTION.findall(part)
        names = output(["c++filt"], "".join(f"{mangled}\n" for mangled, *_ in kernels)).splitlines()
        for name, (_, registers, stack, shared, local) in zip(names, kernels, strict=True):
            own = max(int(shared) - KEPT_BY_CUDA * (architecture >= 90), 0)
            found[architecture, count.short(name)] = Usage(int(registers), own, int(stack), int(local))
    return found


def output(words, text=None):
    done = subprocess.run(words, input=text, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{Path(words[0]).name} failed: {done.stderr.strip()}")
    return done.stdout
