"""CUDA or C++ of yours, compiled when it is first called, and again when it changed.

    coupling = kernels.Source("coupling.cu")
    coupling.call("coupling", x, s, t, y, logdet, N, D)

The source holds plain C functions that return 0 or an error code, as those of csrc/ do, and may include "gpu.h" and the
other headers there. What stands for what is in kernels/_library.py: a tensor is passed as its address, an int as
int64_t, a dtype as its code; a last argument is added, the stream of a .cu or the number of threads of a .cpp. Where
the first tensor lies decides: on a GPU nvcc's library is called, on a CPU that of g++, where the emulator runs a .cu
(docs/emulator.md). Libraries lie in __genmini__/ beside the source.
"""

import ctypes
import shutil
from contextlib import contextmanager
from pathlib import Path

import torch

from ..csrc import build, count
from . import _library

_counted = []  # while launches are counted: the set of sources that made some


class Source:
    def __init__(self, path):
        self.path = Path(path).resolve()
        if self.path.suffix not in (".cu", ".cpp"):
            raise ValueError(f"a source is a .cu or a .cpp, got {self.path.name}")
        if not self.path.is_file():
            raise FileNotFoundError(f"there is no {self.path}")
        self.loaded = {}  # path of a library -> the library, or why there is none

    def call(self, function, *arguments):
        """Call a C function; RuntimeError for a code other than 0, NotBuilt for a source that does not compile."""
        first = next((a for a in arguments if isinstance(a, torch.Tensor)), None)
        if self.path.suffix == ".cpp":
            kind = "cpu"
        elif first is not None and first.is_cuda:
            kind = "cuda"
        else:
            kind = "counted" if _counted else "emulated"
        library = self.library(kind)
        if not hasattr(library, function):
            raise RuntimeError(f'{self.path.name} has no function {function}: is it extern "C"?')
        *takes, _ = count.arguments(self.path, function) or [None]
        if takes and len(takes) != len(arguments):
            raise TypeError(f"{function} of {self.path.name} takes {', '.join(takes)}, got {len(arguments)} arguments")
        if kind == "counted":
            names = _library.named(self.path, self.path_of(kind), function, arguments)
            _library.invoke(library, "emulated", function, *arguments, names=names)
        else:
            _library.invoke(library, kind, function, *arguments)

    def library(self, kind):
        path = self.path_of(kind)
        if path not in self.loaded:
            try:
                self.loaded[path] = ctypes.CDLL(str(self.built(path, kind)))
            except (RuntimeError, OSError) as error:
                self.loaded[path] = _library.NotBuilt(str(error))
        if isinstance(self.loaded[path], Exception):
            raise self.loaded[path]
        if kind == "counted" and self not in _counted[-1]:
            count.launches(path, self.path)  # those of a call that failed
            _counted[-1].add(self)
        return self.loaded[path]

    def path_of(self, kind):
        """In a folder for each content: a process cannot load another library from the path of one that it has."""
        contents = build.contents(self.path).hexdigest()[:16]
        return self.path.parent / "__genmini__" / f"{self.path.name}-{contents}" / f"{self.path.stem}.{kind}.so"

    def built(self, path, kind):
        folder = path.parent
        for other in folder.parent.iterdir() if folder.parent.is_dir() else ():
            if other != folder and other.name.rpartition("-")[0] == self.path.name:  # of another content
                shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        if kind == "counted":
            return count.built(self.path, folder)
        result = build.compile_one(kind, self.path, folder)
        if not result.ok:
            lines = result.log.strip().splitlines()
            first = next((line for line in lines if "error" in line), lines[-1])
            raise RuntimeError(f"{self.path.name} does not compile: {first.strip()}   ({path.with_suffix('.log')})")
        return path


@contextmanager
def counting():
    """Inside, every .cu of a Source runs with counters on CPU tensors. Yields a list, which has at the end, for each
    source that launched kernels, (its path, what each launch did: csrc/count.py)."""
    launches = []
    _counted.append(set())
    try:
        yield launches
    finally:
        used = _counted.pop()
    launches += [(source.path, count.launches(source.path_of("counted"), source.path)) for source in used]
