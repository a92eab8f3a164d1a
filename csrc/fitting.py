"""Find launches that a card refuses for what the kernel takes: shared memory and registers, by nvcc's own numbers.

    fitting.refused(fitting.launches(driver), compiled.usage(library))      what is wrong with a driver's launches

The emulator knows the block and the dynamic shared memory of each launch, and nvcc how many registers and how much
memory in arrays declared __shared__ a kernel takes (csrc/compiled.py): all together must fit into what a block may
have.
"""

import os
import re
import subprocess

import compiled
import count

# bytes of shared memory that a block may have, by the card's architecture (CUDA C++ Programming Guide, "Compute
# Capabilities"): the A100's, the RTX 4090's, the H100's and H200's
SHARED = {80: 163 << 10, 89: 99 << 10, 90: 227 << 10}
REGISTERS = 65536
LAUNCH = re.compile(r"^launch of ([0-9a-f]+): (\d+) threads, (\d+) bytes of dynamic shared memory$", re.M)


def missing():
    """What this needs and the machine lacks, or an empty string."""
    return count.missing() or compiled.missing()


def launches(program, arguments=()):
    """{(kernel, threads of a block, bytes of dynamic shared memory)} of a program that runs on the emulator."""
    told = {**os.environ, "GENMINI_EMULATOR_LAUNCHES": "1"}
    done = subprocess.run([program, *arguments], env=told, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{program} failed: {done.stderr}")
    found = {(int(at, 16), int(threads), int(size)) for at, threads, size in LAUNCH.findall(done.stderr)}
    places = count.frames(program, [at for at, *_ in found])
    return {(count.short(places[at][-1][0]), threads, size) for at, threads, size in found}


def refused(launched, usage):
    """Why cards refuse some of these launches, a line each; usage of csrc/compiled.py."""
    found = []
    for card, limit in SHARED.items():
        code = max(architecture for architecture, _ in usage if architecture <= card)
        for kernel, threads, dynamic in sorted(launched):
            taken = usage[code, kernel]
            if taken.shared + dynamic > limit:
                found.append(f"{kernel}: {taken.shared} bytes of arrays declared __shared__ and {dynamic} of dynamic "
                             f"shared memory are more than the {limit} of a block on sm_{card}")
            if threads * taken.registers > REGISTERS:
                found.append(f"{kernel}: {threads} threads of {taken.registers} registers are too many on sm_{card}")
    return found
