"""The kernels of tests/kernels/test_emulator.cu, compiled for the emulator in three builds, and calls of them.

fibers     as the rooms use it        ucontext    the portable way to switch stacks
debug      -O0, as for gdb
"""

import ctypes
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "csrc"))
import build  # noqa: E402  (csrc/build.py)
import count  # noqa: E402, F401  (csrc/count.py)
import sanitize  # noqa: E402  (csrc/sanitize.py)

with_gxx = pytest.mark.skipif(build.compiler("emulated") is None, reason="there is no g++")
SOURCE = Path(__file__).with_name("test_emulator.cu")
INCLUDE = f"-I{build.CSRC}"
BUILDS = {"fibers": ["-O2"], "ucontext": ["-O1", "-DEMULATOR_UCONTEXT"], "debug": ["-O0"]}
POISON = {"forward": 0xFF, "reverse": 0x7B, "random": 0xFB}  # bytes of memory that nobody wrote, by order
DTYPES = {1: torch.float16, 2: torch.bfloat16}


def load(kind):
    path = sanitize.compiled(SOURCE, [*build.GXX, INCLUDE, *BUILDS[kind], "-x", "c++"], f"test_emulator.{kind}")
    library = ctypes.CDLL(str(path))
    library.gpu_error.restype = ctypes.c_char_p
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


def poison(order):
    return np.full(4, POISON[order], np.uint8).view(np.float32)[0]


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
