"""Deep generative models, from the equation of the course down to the kernel.

    genmini.models      one model family a file, reading like its equations          genmini.layers   nn.Modules over the operators
    genmini.ops         the operators: affine_coupling, nearest_code, masked_linear  genmini.kernels  who runs them, and how
    genmini.data        named data sets with fixed splits                            genmini.load     a trained model from its run
    genmini.metrics     FID, KID, inception score, precision, recall, accuracy       genmini.studies  pictures of what a run has learnt

Importing genmini is light: PyTorch is imported by the first of these that is touched (on a machine with NVIDIA's driver, at once).
"""

import ctypes
import importlib
import os
import sys
from pathlib import Path

from ._version import version as __version__

__all__ = ["__version__", "checkpoint", "data", "kernels", "layers", "load", "metrics", "models", "ops", "plots", "studies", "train"]

# In a checkout kernels/ stands beside genmini/, in an installed package inside it: `import genmini.kernels` finds both.
_here = Path(__file__).resolve().parent
if not (_here / "kernels").is_dir():
    __path__.append(str(_here.parent))


def _has_cuda_device():
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False  # no driver: PyTorch need not be asked
    try:
        import torch
    except KeyboardInterrupt:
        if Path(sys.argv[0]).name not in ("genmini", "-m"):
            raise
        print("genmini: interrupted", file=sys.stderr)  # of the command line, which is not there yet
        sys.exit(130)
    return torch.cuda.is_available()


# Triton reads this switch once, at its import: without a GPU its kernels can still run, interpreted (`kernels.use("emulated")`).
if "triton" not in sys.modules and "TRITON_INTERPRET" not in os.environ and not _has_cuda_device():
    os.environ["TRITON_INTERPRET"] = "1"


def __getattr__(name):
    if name == "load":
        from .checkpoint import load

        return load
    if name in __all__:
        return importlib.import_module(f"genmini.{name}")
    raise AttributeError(f"module 'genmini' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
