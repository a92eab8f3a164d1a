"""How fast could a card run a kernel at most? Predicted from what is counted and compiled; nothing is measured.

    prediction = of(counting.count("nade"), named("h100"))
    for row in prediction.rows: print(row.kernel, row.card, row.at_least, row.binds)

Occupancy (cuda_occupancy.h). A block takes warps w = ⌈threads / 32⌉, and an SM has room for the smallest of

    warps            ⌊warps of the SM / w⌋
    blocks           its limit
    registers        ⌊4 ⌊16384 / r⌋ / w⌋, r = 32 registers, rounded up to a multiple of 256: a warp takes them
                     from one of four files of 16384
    shared memory    ⌊bytes of the SM / s⌋, s = static + dynamic + 1024 that CUDA keeps, rounded up to 128

Ceilings. Each resource needs at least

    DRAM             bytes / bandwidth
    L2               32 sectors / bandwidth

and, on the SM that has most of the B blocks, ⌈B / SMs⌉,

    shared memory    wavefronts / clock
    shuffles         shuffles of a warp / clock
    tensor cores     operations / rate
    issue            instructions of a warp / 4 clock; of float32 and float64 at their own rates. Those that run in the
                     same basic blocks as what was counted (csrc/sass.py), so that this is a lower bound

and the largest of these binds: the kernel cannot take less. docs/counting.md says what this leaves out.
used by: genmini/cli/count.py
"""

import math
from dataclasses import asdict, dataclass, replace

from genmini import compiling, kernels
from genmini.cards import CARDS
from genmini.csrc import compiled, sass

WARP, FILES = 32, 4
REGISTERS_AT_A_TIME, SHARED_AT_A_TIME = 256, 128
LAUNCH = 5e-6  # seconds; what takes less is short beside the launch itself, of which nothing is predicted


@dataclass(frozen=True)
class Occupancy:
    limits: dict  # blocks of an SM at a time, by the resource that allows no more
    warps_of_block: int
    warps: int  # of the SM, at most

    blocks = property(lambda o: min(o.limits.values()))
    limited_by = property(lambda o: " and ".join(name for name, blocks in o.limits.items() if blocks == o.blocks))
    active = property(lambda o: o.blocks * o.warps_of_block)  # warps
    fraction = property(lambda o: o.active / o.warps)


@dataclass(frozen=True)
class Predicted:
    card: str
    kernel: str
    occupancy: Occupancy | None  # None: nothing was compiled
    waves: float | None  # blocks of the grid / blocks that the card runs at a time
    seconds: dict  # at least, by resource
    cold: bool  # the data fit the L2: what a kernel before left there is not read from DRAM

    at_least = property(lambda p: max(p.seconds.values()))
    binds = property(lambda p: max(p.seconds, key=p.seconds.get))
    short = property(lambda p: p.at_least < LAUNCH)


def up(number, step):
    """The number, rounded up to a multiple of the step."""
    return -(-number // step) * step


def occupancy(card, threads, registers, shared):
    """The blocks that an SM runs at a time, of so many threads, registers a thread, bytes of shared memory."""
    warps = -(-threads // WARP)
    of_warp = max(up(WARP * registers, REGISTERS_AT_A_TIME), REGISTERS_AT_A_TIME)
    of_block = up(shared + compiled.KEPT_BY_CUDA, SHARED_AT_A_TIME)
    fits = of_warp * up(warps, FILES) <= card.registers
    return Occupancy({
        "warps": card.warps // warps,
        "blocks": card.blocks,
        "registers": fits * (FILES * (card.registers // FILES // of_warp) // warps),
        "shared": (shared <= card.shared_of_block) * (card.shared // of_block),
    }, warps, card.warps)


def ceilings(card, launch, issued=None):
    """{resource: seconds that the launches need of it at least}, those of a csrc/count.py Launch.

    `issued`: instructions by kind (csrc/sass.py), or None where nothing is compiled.
    """
    counters, blocks, issued = launch.counters, math.prod(launch.grid), issued or dict.fromkeys(sass.KINDS, 0)
    busiest = -(-blocks // card.sms) / blocks  # the share of the blocks on one SM
    wavefronts = sum(row.memory_l1_wavefronts_shared for row in launch.rows)
    shuffles = sum(row.inst_executed for row in launch.rows if row.what.startswith("__shfl"))
    of_a_warp = 2 * WARP * busiest * card.sms  # operations in place of an instruction: a rate counts a fused one as two
    products = [(row.what.rpartition("_")[2], row.flop) for row in launch.rows if row.flop]  # format of factors, flop
    of_tensor = sum(flop / card.tensor[form] for form, flop in products if form in card.tensor)
    of_fp32 = sum(flop for form, flop in products if form == "f32") / card.fp32  # tl.dot that rounds as IEEE says
    return {
        "DRAM": (counters["dram__bytes_read.sum"] + counters["dram__bytes_write.sum"]) / card.dram,
        "L2": 32 * sum(counters[f"lts__t_sectors_op_{op}.sum"] for op in ("read", "write", "atom")) / card.l2,
        "shared": wavefronts * busiest / card.clock,
        "shuffle": shuffles * busiest / card.clock,
        "tensor": of_tensor * busiest * card.sms,
        "issue": issued["issue"] * busiest / (card.schedulers * card.clock),
        "fp32": issued["fp32"] * of_a_warp / card.fp32 + of_fp32 * busiest * card.sms,
        "fp64": issued["fp64"] * of_a_warp / card.fp64,
    }


def machine_code(card, architectures):
    """The architecture whose code the card runs: the newest of its own generation; None if there is none."""
    return max((a for a in architectures if a // 10 == card.capability // 10 and a <= card.capability), default=None)


@dataclass(frozen=True)
class Prediction:
    usage: dict  # {(architecture, kernel): genmini.csrc.compiled.Usage}; empty if nothing is compiled
    code: dict  # {(architecture, kernel): list of genmini.csrc.sass.Instruction}
    why: str  # nothing is compiled, or ""
    rows: list  # a Predicted for each launch and card

    @property
    def newest(self):
        """The newest architecture whose instructions were read, of Triton's that was compiled for; None if none."""
        return max((architecture for architecture, _ in self.code or self.usage), default=None)

    def made_of(self, kernel, row):
        """What nvcc made of a row of the kernel's counters, for the newest architecture: "3 LDG.E.128"."""
        return sass.made_of(self.code.get((self.newest, kernel), ()), row)

    def as_json(self):
        """{"compiled": [...], "predicted": [...]}: dictionaries of numbers and names."""
        found = [dict(architecture=f"sm_{architecture}", kernel=kernel, **asdict(usage))
                 for (architecture, kernel), usage in sorted(self.usage.items())]
        rows = [asdict(row) | dict(at_least=row.at_least, binds=row.binds,
                                   blocks=row.occupancy and row.occupancy.blocks) for row in self.rows]
        return dict(compiled=found, predicted=rows)


def of(counted, cards):
    """What these cards make of the launches of a counting.Counted."""
    usage, code, why = _of_triton(counted, cards) if counted.in_triton else _compiled(counted, cards)
    return Prediction(usage, code, why, [_row(card, launch, usage, code)
                                         for launch in counted.launches for card in cards])


def _row(card, launch, usage, code):
    key = machine_code(card, {architecture for architecture, _ in usage}), launch.binary
    taken, issued = usage.get(key), sass.issued(code[key], launch) if key in code else None
    room = taken and occupancy(card, math.prod(launch.block), taken.registers, taken.shared + launch.dynamic_shared)
    waves = math.prod(launch.grid) / (card.sms * room.blocks) if room and room.blocks else None
    moved = sum(launch.counters[f"dram__bytes_{op}.sum"] for op in ("read", "write")) / launch.launches
    return Predicted(card.name, launch.kernel, room, waves, ceilings(card, launch, issued), moved <= card.l2_size)


def _of_triton(counted, cards):
    """-> usage, {}, "" of the kernels that were launched; {}, {} and the reason where Triton does not compile."""
    rungs = dict.fromkeys(launch.rung for launch in counted.launches)
    usage, why = compiling.of(counted.room, rungs, counted.sizes, {card.capability: None for card in cards})
    return usage, {}, why


def _compiled(counted, cards):
    """-> usage, code, "" of the library of a .cu; {}, {} and the reason where it cannot be read."""
    library, names = counted.library(), counted.names
    if not library.built:
        log = library.log.strip().splitlines() or [f"{library.path.name} was not built: {kernels.mend()}"]
        return {}, {}, log[-1]
    if library.stale:
        return {}, {}, f"{library.path.name} is built from other sources than csrc/ has now: {kernels.mend()}"
    if sass.missing():
        return {}, {}, sass.missing()
    usage = compiled.usage(library.path)
    architectures = {machine_code(card, {architecture for architecture, _ in usage}) for card in cards} - {None}
    code = {(architecture, kernel): [replace(each, file=names.get(each.file, "")) for each in instructions]
            for architecture in sorted(architectures)
            for kernel, instructions in sass.kernels(library.path, architecture, names).items()}
    return {key: taken for key, taken in usage.items() if key[0] in architectures}, code, ""


def named(word):
    """The cards of this name: "h100", "RTX 4090", or "all"."""
    name = word.lower().replace(" ", "")
    if name == "all":
        return list(CARDS.values())
    if name not in CARDS:
        raise ValueError(f"unknown card {word!r}; known are {', '.join(CARDS)}, and all")
    return [CARDS[name]]
