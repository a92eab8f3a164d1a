"""Read what the counters of a kernel say, by line of its source. Python's standard library alone; never imports torch.

    library = count.built(source, folder)        compiles <x>.cu as <x>.counted.so, once
    count.launches(library, source)              what was counted since the last call, a Launch for each

The counters stand in csrc/emulator/count.cpp. They know an access by the address of its call in the library; addr2line
turns that into the lines of the source, the innermost first. docs/counting.md says what each counter means.
"""

import ctypes
import json
import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

if __package__:
    from . import build
    from .hazards import Hazard, told
else:
    import build
    from hazards import Hazard, told

FLOP = {"mma_16x8x16_f16": 2 * 16 * 8 * 16, "mma_16x8x16_bf16": 2 * 16 * 8 * 16, "mma_16x8x8_tf32": 2 * 16 * 8 * 8}
BARRIERS = ("__syncthreads", "__syncthreads_count", "__syncthreads_or", "__syncthreads_and")
SHARED = -2  # the number of shared memory among arrays (csrc/emulator/count_examples.h)
DYNAMIC_SHARED = str(build.CSRC / "emulator" / "emulator.h")  # has the one function of the emulator without branches
FIRST = 12  # examples of a row that are kept from its start, and of the rest
PER_LAUNCH = ("lts__t_sectors_op_read.sum", "lts__t_sectors_op_write.sum", "lts__t_sectors_op_atom.sum",
              "dram__bytes_read.sum", "dram__bytes_write.sum")


COUNTERS = ("inst_executed", "thread_inst_executed", "memory_l2_theoretical_sectors_global",
            "memory_l2_theoretical_sectors_global_ideal", "memory_l1_wavefronts_shared",
            "memory_l1_wavefronts_shared_ideal", "collisions")


@dataclass(frozen=True)
class Example:
    """One request as it was, with what its lanes asked for."""

    time: int  # requests of the process before it: orders examples of several lines
    block: int
    warp: int  # of the block
    array: str  # the argument that holds the addresses, as "x float32 64 3072"; "shared"; "" if nobody named it
    skew: int  # bytes from the start of a sector to the start of the array
    at: dict  # {lane: bytes from the start of that sector; in shared memory from a multiple of 128 bytes}


@dataclass
class Row:
    """What the warps of a launch did of one kind on one line. The long names are Nsight Compute's."""

    file: str
    line: int
    what: str  # load, store, atomic, cp.async, ldmatrix, __syncthreads, __shfl_xor_sync, mma_16x8x16_f16, ...
    space: str  # global, shared, or "": no memory
    size: int  # bytes of a lane's access
    inst_executed: int = 0  # requests: times that a warp did it
    thread_inst_executed: int = 0  # lanes that took part, summed over the requests
    memory_l2_theoretical_sectors_global: int = 0
    memory_l2_theoretical_sectors_global_ideal: int = 0
    memory_l1_wavefronts_shared: int = 0
    memory_l1_wavefronts_shared_ideal: int = 0
    collisions: int = 0  # lanes of an atomic operation that find another lane at their address
    examples: list = field(default_factory=list, compare=False)  # a few of the requests, in order

    @property
    def key(self):
        return self.file, self.line, self.what, self.space, self.size

    def __add__(self, other):
        return Row(*self.key, *(getattr(self, name) + getattr(other, name) for name in COUNTERS),
                   thinned(self.examples + other.examples))

    def as_json(self):
        """All sums, by Nsight Compute's names; without the examples."""
        return {name: value for name, value in vars(self).items() if name != "examples"}

    # of a request, on average
    lanes = property(lambda row: row.thread_inst_executed / row.inst_executed)
    sectors = property(lambda row: row.memory_l2_theoretical_sectors_global / row.inst_executed)
    sectors_ideal = property(lambda row: row.memory_l2_theoretical_sectors_global_ideal / row.inst_executed)
    wavefronts = property(lambda row: row.memory_l1_wavefronts_shared / row.inst_executed)
    wavefronts_ideal = property(lambda row: row.memory_l1_wavefronts_shared_ideal / row.inst_executed)

    # of all requests
    bytes = property(lambda row: row.size * row.thread_inst_executed)
    flop = property(lambda row: FLOP.get(row.what, 0) * row.inst_executed)  # on tensor cores


@dataclass
class Branch:
    """The basic blocks that begin on one line."""

    file: str
    line: int
    executed: int = 0  # by warps
    lanes: int = 0  # summed over these
    divergent: int = 0  # after which the lanes went different ways

    @property
    def key(self):
        return self.file, self.line

    def __add__(self, other):
        return Branch(*self.key, self.executed + other.executed, self.lanes + other.lanes,
                      self.divergent + other.divergent)


def thinned(examples):
    """Some of the examples, in order: the first ones, and of the rest as many, evenly spread."""
    examples = sorted(examples, key=lambda example: example.time)
    first, rest = examples[:FIRST], examples[FIRST:]
    step = -(-len(rest) // FIRST)
    return first + (rest[step - 1 :: step] if rest else [])


def summed(parts):
    """Rows (or branches, or hazards) of the same key as one, by file and line."""
    found = {}
    for part in parts:
        found[part.key] = found[part.key] + part if part.key in found else part
    return [found[key] for key in sorted(found)]


@dataclass
class Launch:
    kernel: str  # name<template arguments>
    grid: tuple
    block: tuple
    dynamic_shared: int  # bytes
    rows: list
    branches: list
    counters: dict  # of the whole launch: PER_LAUNCH
    elsewhere: int  # requests that belong to no line of the source: 0, or the counters are not to be trusted
    hazards: list = field(default_factory=list)
    launches: int = 1  # that were added

    def __add__(self, other):
        """The sum over launches of one kernel."""
        return replace(self, rows=summed(self.rows + other.rows), branches=summed(self.branches + other.branches),
                       counters={name: self.counters[name] + other.counters[name] for name in PER_LAUNCH},
                       elsewhere=self.elsewhere + other.elsewhere, hazards=summed(self.hazards + other.hazards),
                       launches=self.launches + other.launches)

    binary = property(lambda launch: launch.kernel)  # the name of what nvcc makes of it
    key = property(lambda launch: (launch.kernel, launch.grid, launch.block, launch.dynamic_shared))

    def as_json(self):
        return asdict(self) | {"rows": [row.as_json() for row in self.rows]}

    # barriers: times that a warp arrived at a barrier of its block; divergent: branches after which lanes parted
    barriers = property(lambda launch: sum(row.inst_executed for row in launch.rows if row.what in BARRIERS))
    divergent = property(lambda launch: sum(branch.divergent for branch in launch.branches))
    flop = property(lambda launch: sum(row.flop for row in launch.rows))

    @property
    def lanes(self):
        """Active lanes of a basic block, on average: 32 where every warp is full and none diverges."""
        executed = sum(branch.executed for branch in self.branches)
        return sum(branch.lanes for branch in self.branches) / executed if executed else 0.0


def missing():
    """What counting needs and this machine lacks, or an empty string."""
    if build.compiler("counted") is None:
        return f"counting needs g++: {build.cxx()[0]} was not found on PATH"
    if os.uname().sysname != "Linux":
        return "counting needs Linux: elsewhere the emulator cannot find the shared arrays of a kernel"
    return "" if shutil.which("addr2line") else "counting needs addr2line, of GNU binutils, which was not found on PATH"


def built(source, folder):
    """The path of the counted library of a .cu. A source, a header or a compiler that changed builds it again."""
    if missing():
        raise RuntimeError(missing())
    Path(folder).mkdir(parents=True, exist_ok=True)
    result = build.compile_one("counted", Path(source), Path(folder))
    if not result.ok:
        lines = result.log.strip().splitlines()
        first = next((line for line in lines if "error" in line or "undefined reference" in line), lines[-1])
        raise RuntimeError(f"{result.path.name} could not be built: {first}   (counting needs g++ with "
                           f"-fsanitize=thread and -fsanitize-coverage=trace-pc; {result.path.with_suffix('.log')})")
    return result.path


def launches(path, source):
    """The launches of this library since the last call, in order."""
    library = ctypes.CDLL(str(path))
    library.gpu_counts.restype = ctypes.c_char_p
    return placed(library.gpu_counts(), path, names(source))


def names(source):
    """{path: its name} of the sources in which something may be counted."""
    return {str(file): file.name for file in build.reads(source) if not of_the_emulator(file)}


def placed(text, path, files):
    """The launches of a library as its gpu_counts() tells them, on the lines of these files."""
    counted = json.loads(text)
    sites = {row["site"] for launch in counted for row in (*launch["rows"], *launch["steps"])}
    hazards = [hazard for launch in counted for hazard in launch["hazards"]]
    sites |= {hazard[part]["site"] for hazard in hazards for part in ("one", "other")} - {0}
    sites |= {site for launch in counted for site in launch["entered"]}
    # a return address belongs to the instruction before it
    places = frames(path, [*(launch["kernel"] for launch in counted), *(site - 1 for site in sites)])
    return [_launch(launch, places, files) for launch in counted]


@contextmanager
def naming(path, arrays):
    """Inside, examples of the library say in which of these arrays they lie, and reads of an array that nobody has
    written are hazards: [(address, bytes, name, whether it is written)]."""
    library = ctypes.CDLL(str(path))
    library.gpu_array.argtypes = ctypes.c_void_p, ctypes.c_int64, ctypes.c_char_p, ctypes.c_int
    library.gpu_array.restype = None
    for address, size, name, written in arrays:
        library.gpu_array(address, size, name.encode(), int(written))
    try:
        yield
    finally:
        library.gpu_array(None, 0, b"", 1)


def arguments(source, function):
    """{name: whether the function may write there} of the arguments of a C function that the source defines, {} if it
    does not. A macro may define it and join its name from parts: room_##rung."""
    text = re.sub(r"//.*|/\*[\s\S]*?\*/", "", Path(source).read_text().replace("\\\n", " "))
    found = [(name, inside) for name, inside in re.findall(r'extern "C" int ([\w#]+)\(([^)]*)\)', text)
             if re.fullmatch(re.sub(r"##\w+", r"\\w+", name), function)]
    name, inside = max(found, key=lambda one: len(one[0]), default=("", ""))
    return {argument.split()[-1].lstrip("*&"): "const" not in argument.partition("*")[0].split()
            for argument in inside.split(",") if argument.strip()}


def of_the_emulator(file):
    return file.parent == build.CSRC / "emulator" or file == build.CSRC / "gpu.h"


def _launch(counted, places, files):
    rows, branches = [], []
    for part in counted["rows"]:
        what = "cp.async" if part["what"] == "copy" else part["what"]
        rows.append(Row(*place(places[part["site"] - 1], files), what, part["space"], part["size"],
                        *(part[name] for name in COUNTERS), _examples(part, counted["arrays"])))
    for part in counted["together"]:
        memory = ("shared", 16) if part["what"] == "ldmatrix" else ("", 0)
        rows.append(Row(files.get(os.path.realpath(part["file"]), ""), part["line"], part["what"], *memory,
                        *(part[name] for name in COUNTERS), _examples(part, counted["arrays"])))
    for part in counted["steps"]:
        at = places[part["site"] - 1]
        of_the_kernel = at[0][1] in files and "emulator::" not in re.split("[<(]", at[0][0])[0]
        if of_the_kernel or at[0][1] == DYNAMIC_SHARED:  # else it is the emulator's own
            branches.append(Branch(*place(at, files), part["executed"], part["lanes"], part["divergent"]))
    return Launch(
        _name(counted, places), tuple(counted["grid"]), tuple(counted["block"]),
        counted["dynamic_shared"], summed(row for row in rows if row.file),
        summed(branch for branch in branches if branch.file), {name: counted[name] for name in PER_LAUNCH},
        elsewhere=sum(row.inst_executed for row in rows if not row.file),
        hazards=_hazards(counted["hazards"], places, files),
    )


def _name(counted, places):
    """The kernel's. Where a function of csrc/own/call.h is launched, to deduce template arguments, that of the kernel
    which this function enters."""
    names = [places[site][0][0] for site in (counted["kernel"], *(site - 1 for site in counted["entered"]))]
    passes = (name for name in names if not (of_a_lambda(name) or re.search(r"^emulator::|\blaunch<", name)))
    return next(map(short, passes), "a kernel") if of_a_lambda(names[0]) else short(next(passes, names[0]))


def of_a_lambda(function):
    """Whether this is a lambda's: one launches a kernel whose template arguments are deduced; these may be lambdas."""
    while (outside := re.sub(r"<[^<>()]*>|\([^<>()]*\)", "", function)) != function:
        function = outside
    return "{lambda" in function


def _examples(part, arrays):
    found = []
    for time, block, warp, array, active, *at in part["examples"]:
        named = arrays[array] if array >= 0 else {"name": "shared" if array == SHARED else "", "skew": 0}
        lanes = [lane for lane in range(32) if active >> lane & 1]
        found.append(Example(time, block, warp, named["name"], named["skew"], dict(zip(lanes, at, strict=True))))
    return found


def _hazards(counted, places, files):
    def access(part):
        at = (place(places[part["site"] - 1], files) if part["site"]
              else (files.get(os.path.realpath(part["file"]), ""), part["line"]))
        return *at, "cp.async" if part["what"] == "copy" else part["what"]

    found = []
    for hazard in counted:
        both = hazard["one"], hazard["other"]
        both = sorted((access(part), part["thread"], part["block"]) for part in both)
        found.append(Hazard(hazard["mistake"], hazard["space"], *zip(*both, strict=True), hazard["times"]))
    return summed(told(found))


def place(frames, files):
    """(file, line) of the innermost frame in the kernel's own source; ("", 0) if there is none."""
    return next(((files[path], line) for _, path, line in frames if path in files), ("", 0))


def frames(path, offsets):
    """{offset: [(function, file, line)]}: what addr2line says of addresses in a library, the innermost frame first."""
    offsets = list(dict.fromkeys(offsets))
    words = ["addr2line", "-C", "-f", "-i", "-a", "-e", str(path)]
    done = subprocess.run(words, input="".join(f"{offset:#x}\n" for offset in offsets), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"addr2line failed: {done.stderr.strip()}")
    blocks = re.split(r"^0x[0-9a-f]+\n", done.stdout, flags=re.M)[1:]
    return {offset: _frames(block.splitlines()) for offset, block in zip(offsets, blocks, strict=True)}


def _frames(lines):
    found = []
    for function, where in zip(lines[::2], lines[1::2], strict=True):
        file, _, line = where.partition(" (discriminator")[0].rpartition(":")
        found.append((function, os.path.realpath(file), int(line) if line.isdigit() else 0))
    return found


def short(function):
    """couple<float, 4> of "void (anonymous namespace)::couple<float, 4>(float const*, long)"."""
    function = function.replace("(anonymous namespace)::", "")
    depth = 0
    for i, c in enumerate(function):
        depth += {"<": 1, ">": -1}.get(c, 0)
        if c == "(" and depth == 0:
            function = function[:i]
            break
    return function.removeprefix("void ").removeprefix("static ")
