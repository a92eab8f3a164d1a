"""Load the libraries that csrc/build.py made, and call their C functions with tensors.

    call("affine_coupling", "emulated", "affine_coupling_naive", x.dtype, x, s, t, y, logdet, N, D)

A tensor is passed as its address, an int as int64_t, a float as double, a bool as int, a dtype as its code in gpu.h,
None as a null pointer. `call` adds the last argument: the current stream for a GPU kernel, the number of threads for a
CPU function. A returned code other than 0 becomes a RuntimeError. `size` calls a function that returns a number.
"""

import ctypes
import functools
import os
import sys
import threading
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from ..csrc import build, count

FOLDER = Path(__file__).resolve().parent / "lib"
DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.float64: 3}  # the codes of csrc/gpu.h


class NotBuilt(RuntimeError):
    """The compiler refused a source, or there is none."""


@dataclass(frozen=True)
class Library:
    name: str
    kind: str  # cpu, emulated, cuda
    path: Path
    built: bool
    log: str  # the compiler's output
    stale: bool = False  # built from other sources than csrc/ has now


def libraries():
    """Every library that csrc/ has a source for, built or not; `genmini info` shows them."""
    found = []
    for kind in build.KINDS:
        for source in build.sources(kind):
            path = FOLDER / f"{source.stem}.{kind}.so"
            log, built = path.with_suffix(".log"), path.exists()
            found.append(Library(
                source.stem, kind, path, built, log.read_text() if log.exists() else "",
                stale=built and stale(path, path.stat().st_mtime_ns),
            ))
    return found


@functools.cache  # hashing the sources takes a few milliseconds, and `auto` asks at each call while it cannot load
def stale(path, built):
    """Whether the library, built at this time, is of other sources than csrc/ has now: it may take other arguments."""
    name, kind = path.stem.split(".")
    return build.stale(path, build.CSRC / (name + (".cpp" if kind == "cpu" else ".cu")))


def missing(name, kind):
    """Why this library cannot be used, or an empty string."""
    try:
        _loaded(name, kind)
    except OSError as error:
        return str(error)
    return ""


def mend():
    """The command that builds what is missing or stale, in a checkout and in an installed package."""
    return f"{sys.executable} {build.CSRC / 'build.py'} --out {FOLDER}"


@functools.cache
def load(name, kind):
    path = FOLDER / f"{name}.{kind}.so"
    if not path.exists():
        log = path.with_suffix(".log")
        last = log.read_text().strip().splitlines()[-1:] if log.exists() else []
        output = f"; the compiler's last line: {last[0]}" if last else ""
        raise FileNotFoundError(f"{path.name} is not built{output}; to build it: {mend()}")
    if stale(path, path.stat().st_mtime_ns):
        raise OSError(f"{path.name} is built from other sources than csrc/ has now; to build it again: {mend()}")
    library = ctypes.CDLL(str(path))
    if hasattr(library, "threads_forked"):  # it has threads
        _threaded.append(library)
        if _forked:
            library.threads_forked()
    return library


_threaded, _forked = [], []  # libraries; not empty: this process is a forked child


def _in_a_child():
    _forked.append(True)
    for library in _threaded:
        library.threads_forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_child)

_counted = set()  # the sources whose counted build takes the place of the emulated one


@contextmanager
def counting(source):
    """Inside, `emulated` runs the counted build of csrc/<source>.cu, which is compiled if need be. Yields a list; at
    the end it has what each launch did (csrc/count.py: Launch)."""
    launches, path = [], build.CSRC / f"{source}.cu"
    library = count.built(path, FOLDER)
    count.launches(library, path)  # those of a call that failed
    _counted.add(source)
    try:
        with filling():
            yield launches
    finally:
        _counted.discard(source)
    launches += count.launches(library, path)


@contextmanager
def filling():
    """Inside, torch.empty fills what it gives with NaN, or with the largest integer."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def filled(tensor):
    """Whether nobody has written the tensor since torch.empty filled it."""
    if tensor.is_floating_point():
        return bool(tensor.isnan().all())
    return tensor.dtype != torch.bool and bool((tensor == torch.iinfo(tensor.dtype).max).all())


def named(source, library, function, arguments):
    """Inside, the counted build of a .cu knows in which of the tensors an address lies, by the names in the source, and
    which of those that it may write nobody has written."""
    tensors = [(tensor.data_ptr(), tensor.numel() * tensor.element_size(),
                f"{word} {str(tensor.dtype).removeprefix('torch.')} {' '.join(map(str, tensor.shape))}",
                not (writes and filled(tensor)))
               for (word, writes), tensor in zip(count.arguments(source, function).items(), arguments, strict=False)
               if isinstance(tensor, torch.Tensor)]
    return count.naming(library, tensors)


def _loaded(name, kind):
    return load(name, "counted" if kind == "emulated" and name in _counted else kind)


def table(kind, rows):
    """Rows of a NamedTuple `kind`, of ints -> (rows, fields) int64 in the memory of the host: an array of the C struct
    with these fields in this order."""
    return torch.tensor(rows, dtype=torch.int64, device="cpu").view(-1, len(kind._fields))


@functools.lru_cache(4096)
def integers(*numbers):
    """An array of int64_t in the memory of the host, from which a C function reads a few numbers."""
    return (ctypes.c_int64 * len(numbers))(*numbers)


def segments(index, K):
    """order, start: code k of an index (N,) has the rows order[start[k]] ... order[start[k + 1] - 1], ascending."""
    ascending, order = torch.sort(index, stable=True)
    return order, torch.searchsorted(ascending, torch.arange(K + 1, device=index.device))


def plain(tensor):
    """The tensor, contiguous and at a multiple of 16 bytes, as the kernels' wide loads need it; None stays None."""
    if tensor is None:
        return None
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()


def for_native(*tensors):
    """The tensors, those of 16 bits as float32, in which native kernels compute; None stays None."""
    if tensors[0].dtype in (torch.float32, torch.float64):
        return tensors
    return tuple(t if t is None else t.float() for t in tensors)


_lock = threading.Lock()  # the emulator runs one launch at a time
recording = threading.local()  # .calls of CPU functions in this thread, while kernels/_plan.py records them


def call(name, kind, function, *arguments, threads=None):
    names = None
    if kind == "emulated" and name in _counted:
        names = named(build.CSRC / f"{name}.cu", FOLDER / f"{name}.counted.so", function, arguments)
    invoke(_loaded(name, kind), kind, function, *arguments, threads=threads, names=names)


def invoke(library, kind, function, *arguments, threads=None, names=None):
    """names: of the tensors, for a counted build"""
    entry = declared(library, function, arguments, ctypes.c_int if kind == "cpu" else ctypes.c_void_p)
    values = [_value(argument) for argument in arguments]
    if kind == "cuda":
        # not that of a table in the memory of the host
        device = next(a.device for a in arguments if isinstance(a, torch.Tensor) and a.is_cuda)
        with torch.cuda.device(device):
            code = entry(*values, torch.cuda.current_stream(device).cuda_stream)
    elif kind == "cpu":
        threads = threads or torch.get_num_threads()
        if (calls := getattr(recording, "calls", None)) is not None:
            calls.append((entry, library, function, [*values, threads], arguments))
        code = entry(*values, threads)
    else:
        with _lock, names or nullcontext():
            code = entry(*values, None)
    succeeded(code, library, function, kind)


def succeeded(code, library, function, kind="cpu"):
    """Raise what the code that a function returned stands for, unless it is 0."""
    if code:
        raise RuntimeError(f"{function} ({kind}) failed: {_text(library, code)}")


def size(name, kind, function, *arguments, threads=None):
    """The int64_t that a function returns: the bytes of a workspace."""
    last = () if threads is None else (threads,)
    entry = declared(_loaded(name, kind), function, arguments, *(ctypes.c_int for _ in last), restype=ctypes.c_int64)
    return entry(*map(_value, arguments), *last)


def declared(library, function, arguments, *last, restype=ctypes.c_int):
    """The function with its C types, declared at the first call: later calls cost a few microseconds less."""
    entry = getattr(library, function)
    if entry.argtypes is None:
        entry.restype, entry.argtypes = restype, (*map(_type, arguments), *last)
    return entry


def _type(argument):
    if isinstance(argument, torch.dtype | bool):
        return ctypes.c_int
    if isinstance(argument, float):
        return ctypes.c_double
    return ctypes.c_int64 if isinstance(argument, int) else ctypes.c_void_p


def _value(argument):
    if isinstance(argument, torch.Tensor):
        return argument.data_ptr()
    return DTYPES[argument] if isinstance(argument, torch.dtype) else argument


def _text(library, code):
    if not hasattr(library, "gpu_error"):
        return f"code {code}"
    library.gpu_error.restype = ctypes.c_char_p
    return library.gpu_error(code).decode()
