"""Triton, or a stand-in where there is none (macOS, Windows): a room with Triton kernels then runs its reference.

    from ._triton import tl, triton, widened
"""

import importlib.util

import torch


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


def widened(*tensors):
    """The tensors, those in bfloat16 on a CPU as float32.

    The interpreter computes bfloat16 wrongly; in float32 every product of two bfloat16 numbers is exact.
    """
    return tuple(
        t.float() if t is not None and t.dtype == torch.bfloat16 and t.device.type == "cpu" else t for t in tensors
    )


def triton_dtype(dtype):
    return {torch.float32: tl.float32, torch.float64: tl.float64}[dtype]


# For a product of matrices: the sides of a tile of the result, the depth of a step of its sum, warps, pipeline stages
TILE = {torch.float16: (128, 128, 64, 8, 3), torch.bfloat16: (128, 128, 64, 8, 3),
        torch.float32: (64, 64, 32, 4, 3), torch.float64: (32, 32, 32, 4, 2)}  # fmt: skip
