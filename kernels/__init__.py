"""The rooms: one file an operator, from its equation to the threads that compute it (imported as genmini.kernels).

Begin with affine_coupling.py; every other room has the same order. `use`, `rungs` and `chosen` say which backend runs (see _backend.py).
"""

from . import (  # noqa: F401  each room registers itself
    affine_coupling,
    code_stats,
    gaussian_kl,
    made_sample,
    masked_conv2d,
    masked_linear,
    nade,
    nearest_code,
    pixelcnn_sample,
    softmax_nll,
)  # fmt: skip
from ._backend import BACKENDS, ROOMS, Chosen, chosen, requested, rungs, use
from ._library import libraries

__all__ = ["BACKENDS", "ROOMS", "Chosen", "chosen", "libraries", "requested", "rungs", "use"]
