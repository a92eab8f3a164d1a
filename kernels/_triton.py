"""Triton, or a stand-in where there is none (macOS, Windows): a room with Triton kernels then runs its reference.

    from ._triton import for_interpreter, tl, triton
"""

import importlib.util
from typing import NamedTuple

import torch

from ._takes import sum_dtype


class _Absent:
    """Gives itself for every attribute: `@triton.jit` returns the kernel unchanged, `tl.constexpr` means nothing."""

    def __getattr__(self, name):
        return self

    def __call__(self, function):
        return function


if importlib.util.find_spec("triton"):
    import triton
    import triton.language as tl
else:
    triton = tl = _Absent()


def for_interpreter(*tensors):
    """The tensors, those in bfloat16 on a CPU as float32.

    The interpreter computes bfloat16 wrongly; in float32 every product of two bfloat16 numbers is exact.
    """
    return tuple(
        t.float() if t is not None and t.dtype == torch.bfloat16 and t.device.type == "cpu" else t for t in tensors
    )


def triton_dtype(dtype):
    return {torch.float32: tl.float32, torch.float64: tl.float64}[dtype]


def precision(switch):
    """How a product of float32 numbers is computed: as PyTorch's own switch says, that of its linear or convolution."""
    return "tf32" if switch.fp32_precision == "tf32" else "ieee"


class Tile(NamedTuple):
    """What a program of a matrix product owns."""

    rows: int
    columns: int
    depth: int  # of a step of its sum
    warps: int
    stages: int  # of the pipeline


TILE = {torch.float16: Tile(128, 128, 64, 8, 3), torch.bfloat16: Tile(128, 128, 64, 8, 3),
        torch.float32: Tile(64, 64, 32, 4, 3), torch.float64: Tile(32, 32, 32, 4, 2)}


def side(channels, most):
    """A tile's side: the power of two that holds these channels, from 16 (the least of a tensor core) to `most`."""
    return min(most, max(16, triton.next_power_of_2(channels)))


def options(tile, dtype, switch, pipelined):
    """What every launch of a matrix product gets: how it rounds and sums, its warps, and the stages of its pipeline."""
    return dict(PRECISION=precision(switch), SUM=triton_dtype(sum_dtype(dtype)), num_warps=tile.warps,
                num_stages=tile.stages if pipelined else 1)


def chunks(length, depth, tiles, programs, least):
    """A long sum, cut until there are so many programs, or chunks of `least` -> how many chunks, and how long one is.

    Its length is a multiple of `depth`, and set by the shapes alone, so that the bits are the same on every device.
    """
    count = max(1, min(triton.cdiv(programs, max(tiles, 1)), triton.cdiv(length, least)))
    CHUNK = max(1, triton.cdiv(triton.cdiv(length, count), depth)) * depth
    return max(1, triton.cdiv(length, CHUNK)), CHUNK


def index_type(length):  # the ends of chunks lie up to 512 * 64 beyond the length
    return tl.int64 if length + 2**16 >= 2**31 else tl.int32
