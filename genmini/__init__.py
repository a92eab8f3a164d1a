"""Deep generative models, from the equations of the course to the kernels.

    genmini.models      one model family in each file, in the order of its equations
    genmini.layers      nn.Modules over the operators
    genmini.ops         the operators: affine_coupling, nearest_code, masked_linear, ...
    genmini.kernels     the kernels of the operators, and the choice of a backend
    genmini.outputs     p(x | numbers that a network gives)
    genmini.samplers    a denoiser draws images from noise, step by step
    genmini.train       training: fit, evaluate
    genmini.experiment  from a recipe to a run
    genmini.samples     samples of a run, and completions
    genmini.data        named data sets with fixed splits
    genmini.load        loads a trained model from its run
    genmini.checkpoint  what a run keeps: weights, metadata
    genmini.plots       pictures of images, points, series and trainings
    genmini.profile     ranks the hot spots of a training step, or of a function
    genmini.metrics     FID, KID, inception score, precision, recall, accuracy
    genmini.studies     pictures of what a run has learnt
    genmini.swap        a model of yours computes with the operators: swap(model)
    genmini.unswap      puts it back
    genmini.swapped     with swapped(model): swapped inside only
    genmini.verify      a swapped model beside what it was before: outputs, gradients, times
    genmini.register    puts a kernel of yours behind an operator; it is checked on its first use
    genmini.unregister  takes it back
    genmini.checked     the report on it
    genmini.Source      CUDA or C++ of yours, compiled when it is called
    genmini.use         chooses the backend that runs the operators: use("mine")

`import genmini` imports PyTorch only on a machine with NVIDIA's driver; elsewhere the first use of one of these does.
"""

import ctypes
import importlib
import os
import sys
from pathlib import Path

from ._version import version as __version__

__all__ = [
    "Source", "__version__", "checked", "checkpoint", "data", "experiment", "kernels", "layers", "load", "metrics",
    "models", "ops", "outputs", "plots", "profile", "register", "samplers", "samples", "studies", "swap", "swapped",
    "train", "unregister", "unswap", "use", "verify",
]

# kernels/ lies beside genmini/ in a checkout and inside it in an installed package; `import genmini.kernels` finds
# either.
_here = Path(__file__).resolve().parent
if not (_here / "kernels").is_dir():
    __path__.append(str(_here.parent))


def _has_cuda_device():
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False  # without a driver there is no need to import PyTorch
    try:
        import torch
    except KeyboardInterrupt:
        if Path(sys.argv[0]).name not in ("genmini", "-m"):
            raise
        print("genmini: interrupted", file=sys.stderr)  # as the command line says it, which is not imported yet
        sys.exit(130)
    return torch.cuda.is_available()


# Without a GPU, Triton's kernels can still run, interpreted (`kernels.use("emulated")`). Triton reads this switch once,
# at its import.
if "triton" not in sys.modules and "TRITON_INTERPRET" not in os.environ and not _has_cuda_device():
    os.environ["TRITON_INTERPRET"] = "1"


def __getattr__(name):
    if name == "load":
        from .checkpoint import load

        return load
    if name == "profile":
        from .profiling import profile

        return profile
    if name in ("swapped", "unswap", "verify"):
        return vars(importlib.import_module("genmini.swap"))[name]
    if name in ("Source", "checked", "register", "unregister", "use"):
        return vars(importlib.import_module("genmini.kernels"))[name]
    if name in __all__:
        return importlib.import_module(f"genmini.{name}")
    raise AttributeError(f"module 'genmini' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
