"""The ladder of a room: what each rung teaches, what is counted, compiled and predicted of it, what is measured here.

    ladder = climb("nade", predict.named("h100"))
    for rung in ladder.rungs: print(rung.name, rung.lesson, rung.dram, rung.predicted)
    ladder.measured["cpu"]                             (median, 20 % quantile, 80 % quantile) in seconds
    ladder.own["mine"]                                 the report on a kernel of yours (genmini.register), and its Rung

Four words: *counted* by running the kernel in the emulator, or in Triton's interpreter (genmini/counting.py),
*compiled* by nvcc or Triton, *predicted* from both for a card (genmini/predict.py), *measured* on this machine, all
ways in turn. Where Triton cannot interpret, its rooms have what each rung teaches, and what is measured.

    used by: genmini/cli/bench.py    test: tests/project/test_cli_bench.py
"""

import itertools
import re
import sys
from dataclasses import dataclass, field, replace

import torch

from genmini import counting, kernels, limits, ops, plots, predict, profiling  # noqa: F401  ops imports every room
from genmini.csrc import build


@dataclass(frozen=True)
class Rung:
    name: str
    lesson: str  # what it changes, in a sentence
    dram: int | None = None  # counted: bytes that are read and written; None where nothing is counted
    l2: int | None = None
    sectors: float | None = None  # counted: of global memory, over the least possible; of warps, or of Triton's tiles
    wavefronts: float | None = None  # counted: of shared memory, over the least possible; None without shared memory
    collisions: int = 0  # counted: lanes of an atomic operation that find another lane at their address
    registers: int | None = None  # compiled: of a thread, the most of its kernels; None where nothing is compiled
    occupancy: float | None = None  # predicted: of the kernel that needs longest, the share of the warps of an SM
    predicted: dict = field(default_factory=dict)  # card -> seconds at least, and what binds


@dataclass(frozen=True)
class Ladder:
    room: str
    sizes: dict
    device: str
    rungs: list  # slowest first
    measured: dict  # backend, or rung on a GPU -> (median, 20 % quantile, 80 % quantile) in seconds
    operations: int  # of the definition, counted from shapes
    bytes: int  # of the operators: inputs once, outputs once
    why: str  # something is not counted or not compiled, or ""
    own: dict = field(default_factory=dict)  # backend that a user registered -> (report, Rung)


def climb(room, cards, device="cpu", **sizes):
    """Count, predict for the cards, and time a room, forward and backward, on inputs of these sizes -> Ladder"""
    if room not in kernels.ROOMS:
        raise ValueError(f"unknown room {room!r}; the rooms are {', '.join(kernels.ROOMS)}")
    sizes = counting.sizes_of(room, sizes)
    own = {backend: of_user(room, backend, device, sizes) for backend in kernels.own(room)}  # a wrong one is not timed
    try:
        if kernels.ROOMS[room].language == "triton":
            kernels.chosen(room, request="emulated")
    except RuntimeError as error:  # Triton is missing, or compiles in this process
        rungs, why = [Rung(rung, lesson(room, rung)) for rung in kernels.rungs(room)], str(error)
    else:
        rungs, why = counted(room, cards, sizes)
    return Ladder(room, sizes, str(device), rungs, measured(room, device, sizes), *definition(room, sizes), why, own)


def of_user(room, backend, device, sizes):
    """-> the report on a kernel that a user registered, and its Rung: counted, if it launches kernels"""
    report = kernels.checked(room, backend, device)
    if not report.right:
        raise kernels.WrongKernel(str(report))
    try:
        one = counting.count_own(room, backend, **sizes)
    except ValueError:
        return report, Rung(backend, report.kernel)
    return report, _rung(one, [], {}, [], report.kernel)


def counted(room, cards, sizes):
    """-> [Rung], and why something is not compiled"""
    names = kernels.rungs(room)
    rungs, prediction = joined([counting.count(room, rung, **sizes) for rung in names],
                               [lesson(room, rung) for rung in names], cards)
    return rungs, prediction.why


def joined(each, lessons, cards):
    """each: the counting.Counted of the rungs of a room; what these teach -> [Rung], and the Prediction of all of their
    launches"""
    prediction = predict.of(replace(each[0], launches=[launch for one in each for launch in one.launches]), cards)
    rows = iter(prediction.rows)  # of each launch, those of all cards
    return [_rung(one, list(itertools.islice(rows, len(one.launches) * len(cards))), prediction.usage, cards, words)
            for one, words in zip(each, lessons, strict=True)], prediction


def _rung(one, predicted, usage, cards, words):
    """one: the counting.Counted of a rung; predicted: a genmini.predict.Predicted for each of its launches and cards"""
    total = lambda name: sum(launch.counters[name] for launch in one.launches)
    rows, launched = [row for launch in one.launches for row in launch.rows], {launch.binary for launch in one.launches}
    taken = [of_kernel.registers for (_, kernel), of_kernel in usage.items() if kernel in launched]
    of_card = {card.name: [row for row in predicted if row.card == card.name] for card in cards}
    longest = {name: max(rows, key=lambda row: row.at_least) for name, rows in of_card.items()}
    occupancy = next((row.occupancy for row in longest.values()), None)
    return Rung(
        one.rung, words, total("dram__bytes_read.sum") + total("dram__bytes_write.sum"),
        32 * sum(total(f"lts__t_sectors_op_{op}.sum") for op in ("read", "write", "atom")),
        _over([(row.memory_l2_theoretical_sectors_global, row.memory_l2_theoretical_sectors_global_ideal)
               for row in rows]),
        _over([(row.memory_l1_wavefronts_shared, row.memory_l1_wavefronts_shared_ideal) for row in rows]),
        sum(row.collisions for row in rows), max(taken, default=None), occupancy and occupancy.fraction,
        {name: (sum(row.at_least for row in of_card[name]), row.binds) for name, row in longest.items()},
    )


def _over(pairs):
    """The sum of the counts over the sum of the least possible; None where there are none."""
    least = sum(ideal for _, ideal in pairs)
    return sum(count for count, _ in pairs) / least if least else None


def lesson(room, rung):
    """The sentence on a rung at the head of csrc/<x>.cu, "rung naive   one thread ...", with the room's name before
    it where two share the file, or of a Triton room under Tiling, "naive   one kernel ..."."""
    this = kernels.ROOMS[room]
    if this.language == "cuda":
        text = (build.CSRC / f"{this.source}.cu").read_text()
        own = rf"^//   {room}, rung {rung} +"
        start = own if re.search(own, text, re.M) else rf"^//   rung {rung} +"
    else:
        text = sys.modules[f"genmini.kernels.{this.source}"].__doc__.partition("\nTiling\n")[2]
        start = rf"(?:^|\s){rung}  +"
    lines, names = text.splitlines(), [rf"\b{name}\b" for name in (*this.rungs, "cpu")]
    found = [(i, match.end()) for i, line in enumerate(lines) if (match := re.search(start, line))]
    if not found:
        return ""
    (first, column), *_ = found
    words = [lines[first][column:]]
    for line in lines[first + 1 :]:  # what stands below, in the same column
        left, right = line[:column], line[column:]
        if left[-2:] != "  " or not right or right[0] == " " or any(re.search(name, left) for name in names):
            break
        words.append(right)
    return re.split(r"(?<=\w)\.(?: |$)|:$", " ".join(" ".join(words).split()))[0]


def measured(room, device, sizes):
    """{way to run it: (median, 20 %, 80 %) in seconds}, timed in turn."""
    with torch.device(device):
        call = counting.made(room, **sizes)
    on_gpu, this = torch.device(device).type == "cuda", kernels.ROOMS[room]
    ways = {"reference": ("reference", None)}
    if on_gpu:
        ways |= {rung: (this.language, rung) for rung in this.rungs}
    elif this.cpu and kernels.chosen(room, device, request="auto").backend == "cpu":
        ways["cpu"] = "cpu", None
    ways |= {backend: (backend, None) for backend in kernels.own(room)}

    def timed(backend, rung):
        def once():
            with kernels.use(backend, rung):
                call()

        return once

    found = limits.times({name: timed(*way) for name, way in ways.items()}, seconds=0.5, device=device)
    return {name: tuple(1e-3 * ms for ms in each) for name, each in found.items()}


def definition(room, sizes):
    """Operations of the room's definition in PyTorch, and the bytes that its operators take and give."""
    call = counting.made(room, **sizes)
    with kernels.use("reference"):
        call()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True,
                                    profile_memory=True) as profiler:
            call()
    events = [event for root in profiling.roots(profiler) for event, _ in profiling.outermost(root)
              if profiling.room_of(event.name)]
    costs = [cost for cost in map(profiling.cost, events) if cost]
    return sum(cost.operations for cost in costs), sum(cost.bytes for cost in costs)


# ---- a picture -------------------------------------------------------------------------------------------------------


def roofline(path, ladder, cards):
    """Write operations a second over operations a byte: each rung as predicted for the first card under its roof, and
    what is measured under the roof of this machine."""
    if not ladder.operations:
        raise ValueError(f"{ladder.room} has no roofline: its definition makes no operations that are counted")
    figure, panels = plots.new_figure(1, 2, 6.0, 4.6)
    card = cards[0]
    of_rungs = [(rung.name, ladder.operations / rung.dram, ladder.operations / rung.predicted[card.name][0])
                for rung in ladder.rungs if rung.predicted]
    known = "not measured" if not ladder.why else "without instructions"
    _roof(panels[0, 0], f"{card.name}: predicted, {known}", card.dram,
          {"float32": card.fp32, "float16, tensor cores": card.tensor["f16"]}, of_rungs, "none")
    here = [(name, ladder.operations / ladder.bytes, ladder.operations / seconds)
            for name, (seconds, _, _) in ladder.measured.items()]
    _roof(panels[0, 1], f"this machine, {ladder.device}: measured", limits.copy_bandwidth(ladder.device, quick=True),
          {"float32, a product": limits.matmul_rate(ladder.device, torch.float32, quick=True)}, here, "tab:blue")
    sizes = " ".join(f"{name}={size}" for name, size in ladder.sizes.items())
    figure.suptitle(f"{ladder.room}, {sizes}: operations of its definition", fontsize=11)
    plots.save(figure, path, "--plot")


def together(points, wide, high):
    """[(names, x, y)]: points that lie within these factors of the first of them, and would hide each other's names"""
    found = []
    for name, x, y in sorted(points, key=lambda point: -point[2]):
        near = [names for names, x0, y0 in found if max(x, x0) <= wide * min(x, x0) and y0 <= high * y]
        near[0].append(name) if near else found.append(([name], x, y))
    return found


def _roof(panel, title, bandwidth, rates, points, filled):
    """The lines bandwidth * x and the rates, and the points under them; filled: their colour, none if predicted"""
    ridge = max(rates.values()) / bandwidth
    xs = [x for _, x, _ in points]
    low, high = min([*xs, ridge / 100]) / 2, max([*xs, ridge]) * 4
    panel.plot([low, ridge], [bandwidth * low, bandwidth * ridge], color="0.5", linewidth=1)
    for name, rate in rates.items():
        panel.plot([rate / bandwidth, high], [rate, rate], color="0.5", linewidth=1)
        panel.annotate(name, (high, rate), fontsize=8, ha="right", va="bottom", color="0.4")
    for _, x, y in points:
        panel.scatter([x], [y], s=36, facecolors=filled, edgecolors="tab:blue", zorder=3)
    ys = [y for _, _, y in points] + [bandwidth * low, *rates.values()]
    for names, x, y in together(points, (high / low) ** 0.08, (max(ys) / min(ys)) ** 0.05):
        panel.annotate(", ".join(names), (x, y), xytext=(6, -4), textcoords="offset points", fontsize=9)
    if not points:
        panel.text(0.5, 0.15, "nothing is counted", transform=panel.transAxes, ha="center", color="0.4")
    panel.set(xscale="log", yscale="log", title=title, xlabel="operations a byte", ylabel="operations a second")
