"""Check the machine code that nvcc makes of every CUDA source for Ampere and Hopper; the machine may have neither.

The emulator accepts what ptxas makes slow. Triton brings cuobjdump, which reads registers, stacks and instructions
back from the libraries.
"""

import importlib.util
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from emulated import sanitize

from genmini.cards import CARDS

fitting = sanitize.fitting  # csrc/fitting.py
ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURES = ("sm_80", "sm_90")
SOURCES = sorted(path.stem for path in (ROOT / "csrc").glob("*.cu"))


def cuobjdump():
    triton = importlib.util.find_spec("triton")
    bundled = (Path(triton.submodule_search_locations[0]) / "backends" / "nvidia" / "bin" / "cuobjdump"
               if triton else None)
    return str(bundled) if bundled and bundled.exists() else shutil.which("cuobjdump")


@pytest.fixture(params=SOURCES)
def library(request):
    path = ROOT / "kernels" / "lib" / f"{request.param}.cuda.so"
    if not path.exists():
        assert shutil.which("nvcc") is None, f"nvcc is here and {path.name} is not: python csrc/build.py says why"
        pytest.skip("no nvcc: nothing was compiled")
    if cuobjdump() is None:
        pytest.skip("no cuobjdump: Triton brings one")
    return path


def disassembly(library, *options):
    return subprocess.run([cuobjdump(), *options, str(library)], capture_output=True, text=True, check=True).stdout


def test_nothing_spills(library):
    usage = disassembly(library, "-res-usage")
    assert {arch for arch in ARCHITECTURES if f"arch = {arch}" in usage} == set(ARCHITECTURES)
    found = re.findall(r"Function (\w+):\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", usage)
    assert found
    for kernel, registers, stack, shared, local in found:
        assert (int(stack), int(local)) == (0, 0), f"{kernel} spills: {registers} registers, {stack} bytes of stack"
        assert int(shared) <= 48 << 10, f"{kernel} has more static shared memory than a block may have"


def test_the_tensor_core_rung_uses_the_tensor_cores():
    path = ROOT / "kernels" / "lib" / "nearest_code.cuda.so"
    if not path.exists() or cuobjdump() is None:
        pytest.skip("nothing was compiled, or nothing reads it")
    names = re.findall(r"Function (\w+):", disassembly(path, "-res-usage"))
    parts = ("screen_tensor_core", "screen_tiled", "nearest_naive")
    screen, tiled, naive = (next(name for name in names if part in name) for part in parts)
    for arch in ARCHITECTURES:
        words = {}
        for listing in disassembly(
                path, "-arch", arch, "-sass", "-fun", ",".join((screen, tiled, naive))).split("Function : ")[1:]:
            words[listing.split()[0]] = Counter(re.findall(r"\b(HMMA|LDSM|LDGSTS|FFMA|DADD|DMUL|DFMA)\b", listing))
        # for each 16 of 32 entries: 2 x 8 products of tiles, 2 + 4 loads of them
        assert (words[screen]["HMMA"], words[screen]["LDSM"]) == (32, 12) and words[screen]["LDGSTS"], words[screen]
        # 8 x 8 products for each of 16 entries
        assert words[tiled]["FFMA"] >= 16 * 64 and not words[tiled]["HMMA"], words[tiled]
        # the definition: a product and a sum are two roundings
        assert words[naive]["DADD"] and words[naive]["DMUL"] and not words[naive]["DFMA"], words[naive]


@pytest.mark.parametrize("source", SOURCES)
def test_all_launches_fit_on_every_card(source):
    """The registers and the shared memory, of both kinds, of all that the drivers launch."""
    path = ROOT / "kernels" / "lib" / f"{source}.cuda.so"
    if not path.exists() or fitting.missing():
        pytest.skip("nothing was compiled, or nothing reads it")
    launched = fitting.launches(sanitize.program(sanitize.DRIVERS / f"{source}.cpp", "plain"))
    assert launched and fitting.refused(launched, fitting.compiled.usage(path)) == []


def test_a_launch_that_does_not_fit_is_refused_with_the_reason():
    """What fits to the last byte and register is not. An RTX 4090 runs the code of sm_80."""
    usage = {(80, "k"): fitting.compiled.Usage(64, 1024, 0, 0), (90, "k"): fitting.compiled.Usage(65, 2048, 0, 0)}
    assert fitting.refused({("k", 992, (98 << 10))}, usage) == []
    refused = fitting.refused({("k", 1024, (98 << 10) + 1)}, usage)
    assert ["1024 bytes of arrays" in refused[0], "sm_89" in refused[0]] == [True, True]
    assert refused[1:] == ["k: 1024 threads of 65 registers are too many on sm_90"]


def test_the_limits_are_those_of_the_cards():
    assert fitting.SHARED == {card.capability: card.shared_of_block for card in CARDS.values()}
    assert {fitting.REGISTERS} == {card.registers for card in CARDS.values()}
