"""Choose which backend and which rung runs an operator, and say why.

    kernels.use("emulated")                    from now on
    with kernels.use("cuda", rung="naive"):    inside, then as before
    kernels.rungs("nearest_code")              ("naive", "tiled", "tensor_core"): slowest first
    kernels.chosen("nearest_code", "cpu")      Chosen(backend="cpu", rung=None, why="...")
    kernels.register("nearest_code", backend="mine")(function)    a kernel of yours (kernels/_own.py)

A room has kernels in one GPU language, "triton" or "cuda"; each of its rungs also runs on CPU tensors as "emulated".
Some rooms have a backend "cpu", in C++ or in PyTorch, that is fast on CPU tensors; every room has its "reference", the
definition in PyTorch. A backend of any other name is a user's, who registered kernels under it. An explicit backend
holds for the rooms that have it (if it cannot run here, they raise an error with the reason); the other rooms follow
"auto". The choice is one global of the process: threads share it, and torch.compile guards it and compiles again when
it changes. A gradient always runs on the backend of its forward.
"""

import importlib.util
import os
import re
import threading
from dataclasses import dataclass
from typing import NamedTuple

import torch

from . import _library

BACKENDS = ("auto", "reference", "cpu", "triton", "cuda", "emulated")


@dataclass(frozen=True)
class Room:
    name: str
    language: str  # "triton" or "cuda": of its GPU kernels
    rungs: tuple  # names, slowest first
    source: str  # csrc/<source>.*: a room may share another's file
    cpu: str | None  # what its backend "cpu" is written in: "C++" (csrc/<source>.cpp), "PyTorch", or None


class Chosen(NamedTuple):  # made at each call: a frozen dataclass takes a microsecond
    backend: str
    rung: str | None  # of a GPU kernel, emulated or not
    why: str


ROOMS: dict[str, Room] = {}
OWN = {}  # {(operator, backend): kernel}: those that users registered (kernels/_own.py)
own_names = ()  # the backends of these, past ones too: `use` goes on after `unregister`
inside = threading.local()  # .kernel, while a user's kernel runs in this thread


def room(name, language, rungs, *, source=None, cpu=None):
    """Register what can run the operator `name`. Its room calls this when it is imported."""
    ROOMS[name] = Room(name, language, tuple(rungs), source or name, cpu)
    return ROOMS[name]


def _room(operator):
    if operator not in ROOMS:
        raise ValueError(f"unknown operator {operator!r}; the operators are {', '.join(sorted(ROOMS))}")
    return ROOMS[operator]


def rungs(operator):
    """The rungs of an operator's GPU kernel, slowest first; `auto` takes the last."""
    return _room(operator).rungs


def own(operator, request):
    """-> the user's kernel that this request takes for the operator, or None; and the request of all others.

    A kernel that calls its own operator gets there what `auto` takes.
    """
    backend = request.partition(":")[0]
    if backend in BACKENDS:
        return None, request
    kernel = OWN.get((operator, backend))
    return None if kernel is getattr(inside, "kernel", None) else kernel, "auto"


def _valid(backend, rung):
    if backend not in (*BACKENDS, *own_names):
        raise ValueError(f"unknown backend {backend!r}; the backends are {', '.join((*BACKENDS, *own_names))}")
    if rung is not None and rung not in (known := sorted({name for this in ROOMS.values() for name in this.rungs})):
        raise ValueError(f"unknown rung {rung!r}; the rungs are {', '.join(known)}")
    return backend, rung


_requested = (os.environ.get("GENMINI_BACKEND", "auto"), None)  # (backend, rung): the one global


def requested():
    """What `use` or GENMINI_BACKEND asked for, as one word to pass to an operator: "cuda", "emulated:naive", ..."""
    backend, rung = _requested
    if backend not in BACKENDS and backend not in own_names:
        known = ", ".join((*BACKENDS, *own_names))
        raise ValueError(f"GENMINI_BACKEND={backend!r} is unknown; the backends are {known}")
    return backend if rung is None else f"{backend}:{rung}"


class use:
    """Choose the backend (and the rung of its GPU kernels): called, from now on; as a context, inside it."""

    def __init__(self, backend, rung=None):
        global _requested
        self._before, _requested = _requested, _valid(backend, rung)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        global _requested
        _requested = self._before


def chosen(operator, device="cpu", dtype=torch.float32, request=None):
    """What runs this operator on tensors of this device, and why; raises if an explicit backend cannot.

    dtype: for rooms to come; no room chooses by it.
    """
    this, device = _room(operator), torch.device(device)
    backend, _, rung = (request or requested()).partition(":")
    rung = rung if rung in this.rungs else this.rungs[-1]  # for a rung that this room lacks, its best
    if kernel := OWN.get((operator, backend)):
        return Chosen(backend, None, f"registered: {kernel.name}")
    if backend == "reference":
        return Chosen("reference", None, "asked for")
    if backend == "emulated":
        return _or_raise(operator, Chosen("emulated", rung, "asked for"), _cannot_emulate(this, device))
    if backend == this.language:
        return _or_raise(operator, Chosen(backend, rung, "asked for"), _cannot_launch(this, device))
    if backend == "cpu" and this.cpu:
        return _or_raise(operator, Chosen("cpu", None, "asked for"), _cannot_run_native(this, device))
    if device.type == "cuda":
        obstacle = _cannot_launch(this, device)
        return (
            Chosen("reference", None, obstacle)
            if obstacle
            else Chosen(this.language, rung, f"{this.language} kernel for NVIDIA tensors")
        )
    if device.type == "cpu" and this.cpu:
        obstacle = _cannot_run_native(this, device)
        return Chosen("reference", None, obstacle) if obstacle else Chosen("cpu", None, f"{this.cpu} for CPU tensors")
    return Chosen("reference", None, f"no kernel for {device.type} tensors: PyTorch runs the definition")


def _or_raise(operator, choice, obstacle):
    if obstacle:
        raise RuntimeError(f"{operator} cannot run on the backend {choice.backend!r}: {obstacle}")
    return choice


def _cannot_launch(this, device):
    if device.type != "cuda":
        return (
            f"it runs on NVIDIA tensors and these are on {device.type!r}; "
            "use('emulated') runs the same kernel on CPU tensors"
        )
    if torch.version.hip:
        return "the kernels are written for NVIDIA cards and this PyTorch is built for AMD's"
    if this.language == "triton":
        return triton_missing() or (
            "Triton interprets in this process (TRITON_INTERPRET=1): start without it" if interpreting() else ""
        )
    return _library.missing(this.source, "cuda")


def _cannot_run_native(this, device):
    if device.type != "cpu":
        return f"it runs on CPU tensors and these are on {device.type!r}"
    return _library.missing(this.source, "cpu") if this.cpu == "C++" else ""


def _cannot_emulate(this, device):
    if device.type != "cpu":
        return f"the emulator runs on CPU tensors and these are on {device.type!r}"
    if this.language == "cuda":
        return _library.missing(this.source, "emulated")
    if triton_missing():
        return triton_missing()
    if not interpreting():
        return "Triton's interpreter is switched on when triton is imported: start Python with TRITON_INTERPRET=1"
    return interpreter_broken()


def triton_missing():
    return (
        ""
        if importlib.util.find_spec("triton")
        else "triton is not installed (it exists for Linux; pip install triton)"
    )


def interpreting():
    """Whether Triton was imported as an interpreter: it reads TRITON_INTERPRET once, at its import."""
    from triton import language
    from triton.runtime.interpreter import InterpretedFunction

    return isinstance(language.zeros, InterpretedFunction)


def interpreter_broken():
    """Why the interpreter cannot run, or "": Triton 3.6 needs a conversion of loop bounds that NumPy 2.4 dropped."""
    import numpy
    import triton

    version = lambda module: tuple(int(part) for part in re.findall(r"\d+", module.__version__)[:2])
    if version(triton) < (3, 7) and version(numpy) >= (2, 4):
        return (
            f"Triton {triton.__version__} cannot interpret a loop with NumPy {numpy.__version__}: "
            "pip install 'numpy<2.4' or 'triton>=3.7' (kernels compiled for a GPU are not touched)"
        )
    return ""
