"""What is here: `genmini list` and `genmini info`. Light to import, like the command line that calls it."""

import inspect
import os
import platform
import shutil
import subprocess
from pathlib import Path

from genmini import __version__


def list_(arguments):
    from genmini import data, kernels, models, ops, studies  # noqa: F401  ops imports every room

    print("models       (genmini train MODEL --data D)")
    for name in models.MODELS:
        line = inspect.getmodule(models.find(name)).__doc__.splitlines()[0]
        print(f"  {name:<18} {line}\n  {'':<18} recipes: {', '.join(models.recipes(name))}")
    print("\ndata")
    for name, (what, _) in data.SETS.items():
        print(f"  {name:<18} {what}")
    print("\nstudies      (genmini study STUDY RUN)")
    for name, what in studies.STUDIES.items():
        print(f"  {name:<18} {what}")
    print("\noperators    (genmini.ops; rungs of the GPU kernel, slowest first)")
    for name, room in kernels.ROOMS.items():
        native = "; native CPU kernel" if room.cpu else ""
        print(f"  {name:<18} {room.language}: {' < '.join(kernels.rungs(name))}{native}")


def versions():
    import numpy
    import torch

    from genmini.kernels import _backend

    triton = "missing"
    if not _backend.triton_missing():
        import triton as module

        triton = module.__version__
    return dict(genmini=__version__, python=platform.python_version(), torch=torch.__version__, triton=triton, numpy=numpy.__version__)


def info(arguments):
    import torch

    from genmini import kernels, ops  # noqa: F401  ops imports every room
    from genmini.kernels import _backend

    found = versions()
    built_for = f"CUDA {torch.version.cuda}" if torch.version.cuda else "ROCm" if torch.version.hip else "CPU only"
    print(f"genmini   {found['genmini']}   in {Path(__file__).resolve().parent}")
    print(f"python    {found['python']}   {platform.platform()}")
    print(f"torch     {found['torch']}   ({built_for})")
    missing = _backend.triton_missing()
    mode = missing or ("interprets: its kernels run on the CPU" if _backend.interpreting() else "compiles for GPUs")
    print(f"triton    {found['triton']}   ({mode})")
    print(f"numpy     {found['numpy']}")
    print(f"g++       {_compiler('cpu')}")
    print(f"nvcc      {_compiler('cuda')}")
    if not missing and (broken := _backend.interpreter_broken()):
        print(f"note      {broken}")

    print(f"\ndevices\n  cpu       {torch.get_num_threads()} threads of {os.cpu_count()} cores")
    devices = ["cpu"]
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        card = torch.cuda.get_device_properties(i)
        print(f"  cuda:{i}    {card.name}, sm_{card.major}{card.minor}, {card.total_memory / 2**30:.0f} GiB")
        devices.append(f"cuda:{i}")
    if len(devices) == 1:
        print("  no CUDA device: GPU kernels run as `emulated`, on CPU tensors")

    print("\nlibraries (csrc/, compiled)")
    for library in kernels.libraries():
        print(f"  {library.name + '.' + library.kind:<28} {'built' if library.built else 'NOT built'}")
        if not library.built:
            for line in library.log.strip().splitlines()[-6:]:
                print(f"      {line}")
    if not all(library.built for library in kernels.libraries()):
        print(f"  to build what is missing: {kernels._library.mend()}")

    print(f"\noperators (backend: {kernels.requested()})")
    for name, room in kernels.ROOMS.items():
        print(f"  {name}   [{room.language}: {' < '.join(kernels.rungs(name))}]")
        for device in devices:
            print(f"    {device:<10} {_choice(name, device)}")
        print(f"    {'emulated':<10} {_choice(name, 'cpu', 'emulated')}")


def _choice(name, device, request=None):
    from genmini import kernels

    try:
        taken = kernels.chosen(name, device, request=request)
    except RuntimeError as error:
        return f"no: {error}"
    why = "the GPU kernel's own source, on CPU tensors" if request == "emulated" else taken.why
    return f"{taken.backend + (':' + taken.rung if taken.rung else ''):<24} {why}"


def _compiler(kind):
    from genmini.csrc import build

    path = build.compiler(kind)
    if not path or not shutil.which(path):
        return "missing" + (": CUDA kernels still run as `emulated`" if kind == "cuda" else ": nothing of csrc/ can be compiled")
    said = subprocess.run([path, "--version"], capture_output=True, text=True).stdout.strip().splitlines()
    line = next((line for line in said if "release" in line), said[0] if said else "?")
    return f"{line}   ({path})"
