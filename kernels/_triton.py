"""Triton where it exists; a stand-in where it does not (macOS, Windows), so that a room with Triton kernels imports and runs its reference.

    from ._triton import tl, triton, widened
"""

import importlib.util

import torch


class _Absent:
    """Answers to every name: `@triton.jit` leaves a kernel what it was, `tl.constexpr` annotates nothing."""

    def __getattr__(self, name):
        return self

    def __call__(self, function):
        return function


if importlib.util.find_spec("triton"):
    import triton
    import triton.language as tl
else:
    triton = tl = _Absent()


def widened(*tensors):
    """The interpreter computes bfloat16 wrongly: on a CPU a kernel gets float32, in which every product of two bfloat16 is exact."""
    return tuple(t.float() if t is not None and t.dtype == torch.bfloat16 and t.device.type == "cpu" else t for t in tensors)


def triton_dtype(dtype):
    return {torch.float32: tl.float32, torch.float64: tl.float64}[dtype]


# Of a product of matrices: sides of the tile of the result, depth of a step of its sum, warps, stages of the pipeline
TILE = {torch.float16: (128, 128, 64, 8, 3), torch.bfloat16: (128, 128, 64, 8, 3),
        torch.float32: (64, 64, 32, 4, 3), torch.float64: (32, 32, 32, 4, 2)}  # fmt: skip
