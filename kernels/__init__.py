"""The rooms: one file an operator, from its equation to the threads that compute it (imported as genmini.kernels).

Begin with affine_coupling.py; every other room has the same order. `use`, `rungs` and `chosen` say which backend runs
(see _backend.py); `register` puts a kernel of yours behind an operator (see _own.py).
"""

import importlib
import pkgutil

from ._backend import BACKENDS, ROOMS, Chosen, chosen, requested, rungs, use
from ._library import Library, counting, libraries, mend
from ._own import checked, own, register, unregister
from ._own import run as run_own
from ._source import Source
from ._source import counting as counting_sources
from ._tiles import counting as counting_tiles
from ._verdict import WrongKernel

__all__ = ["BACKENDS", "ROOMS", "Chosen", "Library", "Source", "WrongKernel", "checked", "chosen", "counting",
           "counting_sources", "counting_tiles", "libraries", "mend", "own", "register", "requested", "rungs",
           "run_own", "unregister", "use"]

for _name in sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")):
    importlib.import_module(f"{__name__}.{_name}")  # each room registers itself
