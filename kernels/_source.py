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
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch

from ..csrc import build, count
from . import _library

ZONE = 1 << 16  # bytes on each side of a tensor
guarding = False  # while a kernel is checked (kernels/_verdict.py): what it writes outside its tensors is seen
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
        *takes, _ = count.arguments(self.path, function) or {None: False}
        if takes and len(takes) != len(arguments):
            raise TypeError(f"{function} of {self.path.name} takes {', '.join(takes)}, got {len(arguments)} arguments")
        guard = guarded(function, takes, arguments) if guarding and kind != "cuda" else nullcontext(arguments)
        with guard as given:
            self._invoke(library, kind, function, given)

    def _invoke(self, library, kind, function, arguments):
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
def guarded(function, names, arguments):
    """Yields the arguments, contiguous tensors as copies that have bytes of their own around, which make NaN where they
    are read and an error where they are written. At the end the tensors get what was written to their copies."""
    copies = {}  # by address and size: name, tensor, all bytes, these before, those in front, the copy, what is passed
    for i, a in enumerate(arguments):
        if isinstance(a, torch.Tensor) and a.is_contiguous() and (a.data_ptr(), a.nbytes) not in copies:
            front = ZONE + a.data_ptr() % 64
            whole = torch.full((front + a.nbytes + ZONE,), 255, dtype=torch.uint8)  # NaN in every dtype,
            whole[::2] = 240 + i % 16  # another one around each: what is copied from one to another is seen
            before = whole.clone()
            copy = whole[front : front + a.nbytes].view(a.dtype).view(a.shape).copy_(a)
            name = names[i] if names else f"argument {i + 1}"
            given = copy if a.numel() else whole.data_ptr() + front  # PyTorch says 0 where there are no numbers
            copies[a.data_ptr(), a.nbytes] = name, a, whole, before, front, copy, given
    spans = sorted(copies)
    if any(start + size > other for (start, size), (other, _) in zip(spans, spans[1:], strict=False)):
        yield arguments  # two of them overlap, and must in memory
        return
    yield [copies[a.data_ptr(), a.nbytes][-1] if isinstance(a, torch.Tensor) and a.is_contiguous() else a
           for a in arguments]
    for name, tensor, whole, before, front, copy, _ in copies.values():
        for where, part in (("before the start", slice(front)), ("beyond the end", slice(front + tensor.nbytes, None))):
            if not torch.equal(whole[part], before[part]):
                raise RuntimeError(f"{function} wrote {where} of {name}, which has {tensor.numel()} numbers")
        if not torch.equal(copy.view(-1).view(torch.uint8), tensor.view(-1).view(torch.uint8)):
            tensor.copy_(copy)


@contextmanager
def counting():
    """Inside, every .cu of a Source runs with counters on CPU tensors. Yields a list, which has at the end, for each
    source that launched kernels, (its path, what each launch did: csrc/count.py)."""
    launches = []
    _counted.append(set())
    try:
        with _library.filling():
            yield launches
    finally:
        used = _counted.pop()
    launches += [(source.path, count.launches(source.path_of("counted"), source.path)) for source in used]
