"""What Triton kernels do to memory, counted by tile and line of their source, while Triton's interpreter runs them.

    with tiles.counting() as launches:
        with kernels.use("emulated"): ops.q_sample(...)
    for launch in launches: print(launch.kernel, launch.rows)

The interpreter computes addresses and masks as arrays, and hands them to its builder: there each load, store, atomic
operation and tl.dot of a program is seen, with the line that made it. How a tile's elements lie on lanes is decided by
the compiler alone, so that everything here is of whole tiles: the distinct sectors of 32 bytes that a tile touches are
the least that its warps must ask for, however it is laid out. docs/counting.md says what each counter means.

    used by: genmini/counting.py    test: tests/kernels/test_count_tiles.py
"""

import math
import os
import sys
from collections import OrderedDict
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..csrc import count
from . import _backend

SECTOR = 32  # bytes
WARPS = 4  # of a program, if its launch names no other number: Triton's default
READS, WRITES = ("load", "atomic"), ("store", "atomic")


@dataclass
class Row(count.Row):
    """What the programs of a launch did of one kind on one line. A request is that of a tile here: inst_executed says
    how many tiles, thread_inst_executed how many of their elements, which the mask lets through."""

    masked: int = 0  # elements that the mask keeps out
    flop: int = 0  # of tl.dot

    tiles = property(lambda row: row.inst_executed)

    def __add__(self, other):
        sums = {name: getattr(self, name) + getattr(other, name) for name in (*count.COUNTERS, "masked", "flop")}
        return replace(self, **sums)

    def as_json(self):
        """By names of its own: Nsight Compute knows warps, and no tiles."""
        return {"file": self.file, "line": self.line, "what": self.what, "size": self.size,
                "tiles": self.tiles, "elements": self.thread_inst_executed, "masked": self.masked,
                "sectors": self.memory_l2_theoretical_sectors_global,
                "sectors_ideal": self.memory_l2_theoretical_sectors_global_ideal, "collisions": self.collisions,
                "flop": self.flop}


@dataclass
class Launch(count.Launch):
    """A program stands in the place of a block, of so many threads as the warps that its launcher asks for."""

    arguments: dict = field(default_factory=dict)  # name -> value as text, of those that are no tensors
    source: Path | None = None  # of the kernel
    rung: str = ""
    files: dict = field(default_factory=dict)  # name -> path, of all sources that its rows name

    key = property(lambda launch: (launch.kernel, launch.grid, launch.block, *launch.arguments.items()))
    binary = property(lambda launch: binary(launch.kernel, launch.arguments))  # of what Triton's compiler makes

    def as_json(self):
        return {"kernel": self.kernel, "grid": self.grid, "block": self.block, "launches": self.launches,
                "arguments": self.arguments, "counters": self.counters, "rows": [row.as_json() for row in self.rows]}


@contextmanager
def counting(l2=math.inf):
    """Inside, launches of Triton's interpreter are counted. Yields a list, which gets a Launch for each, in order. It
    stays empty where Triton is missing, or compiles. l2: bytes that the second cache holds."""
    if _backend.triton_missing() or not _backend.interpreting():
        yield []
        return
    from triton.runtime import interpreter

    launches, builder, launch_of = [], interpreter.interpreter_builder, interpreter.GridExecutor.__call__

    def launched(executor, *arguments, **options):
        recorder = Recorder(builder, l2)
        with recorder.hooked():
            launch_of(executor, *arguments, **options)
        launches.append(recorder.launch(executor.fn, texts(executor.arg_names, arguments, options),
                                        options.get("num_warps", WARPS)))

    interpreter.GridExecutor.__call__ = launched
    try:
        yield launches
    finally:
        interpreter.GridExecutor.__call__ = launch_of


class Recorder:
    """Stands between a launch and the interpreter's builder."""

    def __init__(self, builder, l2):
        self.builder, self.l2, self.rows, self.files = builder, l2, {}, {}
        self.program, self.in_cache, self.cached, self.dirty = None, set(), OrderedDict(), set()
        self.counters = dict.fromkeys(count.PER_LAUNCH, 0)

    @contextmanager
    def hooked(self):
        """create_load and create_store, block pointers and descriptors all end in the masked ones."""
        hooks = {"create_masked_load": lambda pointers, mask, *_: self.access("load", pointers, mask),
                 "create_masked_store": lambda pointers, _, mask, *__: self.access("store", pointers, mask),
                 "create_atomic_rmw": lambda _, pointers, __, mask, *___: self.access("atomic", pointers, mask),
                 "create_atomic_cas": lambda pointers, *_: self.access("atomic", pointers, None),
                 "create_dot": lambda a, b, d, precision, _: self.dot(a, b, precision)}

        def behind(hook, create):
            def both(*arguments, **named):
                hook(*arguments, *named.values())
                return create(*arguments, **named)

            return both

        with ExitStack() as stack:
            for name, hook in hooks.items():
                stack.enter_context(instead(self.builder, name, behind(hook, getattr(self.builder, name))))
            yield

    def access(self, what, pointers, mask):
        addresses, size = np.asarray(pointers.data), max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        if mask is not None:
            mask = np.broadcast_to(np.asarray(mask.data), addresses.shape)
        active = np.sort(addresses.ravel() if mask is None else addresses[mask]).astype(np.int64)
        sectors, least, distinct = cost(active, size)
        self.add(what, size, thread_inst_executed=active.size, memory_l2_theoretical_sectors_global=len(sectors),
                 memory_l2_theoretical_sectors_global_ideal=least, masked=addresses.size - active.size,
                 collisions=(active.size - distinct) * (what == "atomic"))
        self.through_caches(what, set(sectors.tolist()))

    def through_caches(self, what, sectors):
        """The model of csrc/emulator/count.cpp: the first cache belongs to a program and holds all that it reads, the
        second is empty at first. It holds everything, or of what was asked for the latest l2 bytes: programs run one
        after the other here."""
        if self.program != self.builder.grid_idx:
            self.program, self.in_cache = self.builder.grid_idx, set()
        counters, asked = self.counters, sectors
        if what == "load":
            asked = sectors - self.in_cache
            self.in_cache |= sectors
        counters[f"lts__t_sectors_op_{dict(load='read', store='write', atomic='atom')[what]}.sum"] += len(asked)
        if what in READS:
            counters["dram__bytes_read.sum"] += SECTOR * sum(sector not in self.cached for sector in asked)
        if what in WRITES:
            counters["dram__bytes_write.sum"] += SECTOR * len(sectors - self.dirty)
            self.dirty |= sectors
        for sector in asked:
            self.cached[sector] = None
            self.cached.move_to_end(sector)
        while SECTOR * len(self.cached) > self.l2:
            oldest, _ = self.cached.popitem(last=False)
            self.dirty.discard(oldest)  # written to DRAM; if it is written again, then once more

    def dot(self, a, b, precision):
        *batch, M, K = a.data.shape
        rounded = a.dtype.scalar.name.replace("fp", "f")
        if rounded == "f32" and precision.name != "IEEE":
            rounded = precision.name.lower()
        flop = 2 * math.prod(batch) * M * K * b.data.shape[-1]
        self.add(f"dot_{rounded}", 0, space="", flop=flop)

    def add(self, what, size, space="global", **counters):
        path, line = place(sys._getframe(1))
        self.files[path.name] = path
        row = Row(path.name, line, what, space, size, inst_executed=1, **counters)
        self.rows[row.key] = self.rows[row.key] + row if row.key in self.rows else row

    def launch(self, kernel, arguments, warps):
        return Launch(kernel.__name__, tuple(self.builder.grid_dim), (32 * warps, 1, 1), 0,
                      count.summed(self.rows.values()), [], self.counters, elsewhere=0, arguments=arguments,
                      source=Path(kernel.__code__.co_filename), files=self.files)


@contextmanager
def instead(builder, name, function):
    """Inside, the builder calls this function; then what it called before: another count's, or the class's method."""
    before = vars(builder).get(name)
    setattr(builder, name, function)
    try:
        yield
    finally:
        setattr(builder, name, before) if before else delattr(builder, name)


def texts(names, arguments, options):
    """{name: value as text} of the arguments of a launch that hold no tensors; of a descriptor the shape of a block."""
    named = dict(zip(names, arguments, strict=False)) | {
        name: value for name, value in options.items() if name in names}
    named = {name: getattr(value, "block_shape", value) for name, value in named.items()}
    return {name: str(value) for name, value in named.items() if not holds_tensor(value)}


def holds_tensor(value):
    return any(map(holds_tensor, value)) if isinstance(value, tuple) else hasattr(value, "data_ptr")


def binary(kernel, arguments):
    """A name for what the compiler makes of a kernel for such arguments: "fused N=2 D=96 ..."."""
    return " ".join([kernel, *(f"{name}={value}" for name, value in arguments.items())])


def cost(active, size):
    """-> the distinct sectors that sorted addresses of elements of this size touch, as few as could hold their distinct
    bytes, and how many addresses there are."""
    addresses = np.unique(active)
    if not addresses.size:
        return addresses, 0, 0
    sectors = np.unique(np.concatenate([addresses // SECTOR, (addresses + size - 1) // SECTOR]))
    distinct_bytes = size + int(np.minimum(np.diff(addresses), size).sum())  # elements may overlap
    return sectors, -(-distinct_bytes // SECTOR), addresses.size


def place(frame):
    """(path, line) of the innermost frame outside this file and Triton: the line of the kernel, or of a function that
    it calls."""
    import triton

    root = os.path.join(Path(triton.__file__).parent, "")  # not triton_kernels beside it
    while frame.f_code.co_filename == __file__ or frame.f_code.co_filename.startswith(root):
        frame = frame.f_back
    return Path(frame.f_code.co_filename), frame.f_lineno
