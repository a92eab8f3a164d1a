"""One page that shows why each rung of a room is faster than the one before: equation, definition, ladder, the source
with what was counted on each line, and the accesses of a warp drawn.

    page.write("page", ["affine_coupling"])        -> page/index.html: one file, which needs no network and no other
    page.write_own("page", own_cu.count("my.cu"))  the same of a user's .cu: its launches stand where rungs do

The words are those of docs/counting.md: counted, compiled, predicted. page.js and its neighbours draw what `of`
gathers.

    test: tests/project/test_page.py
"""

import functools
import inspect
import json
import re
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

from genmini import counting, files, kernels, ladder, predict

from . import equations, source
from .store import kept

HERE = Path(__file__).resolve().parent
SCRIPTS = ("dom.js", "costs.js", "access.js", "chart.js", "source.js", "why.js", "page.js")  # one after the other
TITLE = "<title>Counted kernels</title>"  # of page.html
MOST = 16  # examples of a line that are drawn
SMS = {card.name: card.sms for card in predict.named("all")}


def write(folder, rooms, say=lambda room: None, **sizes):
    """Count all rungs of the rooms, and write index.html into the folder -> its path. `say` hears of each room."""
    found = []
    for room in rooms:
        gather = functools.partial(of, room, **sizes)
        found.append(kept(room, counting.sizes_of(room, sizes), gather))
        say(found[-1])
    return _saved(folder, html(found))


def write_own(folder, counted):
    """The same of the launches of a user's .cu: an own_cu.Own -> the path"""
    return _saved(folder, html([of_own(counted)], others=[]))


def _saved(folder, text):
    path = Path(folder) / "index.html"
    files.write(path, text.encode(), "--html")
    return path


def all_rooms():
    """The rooms that can be counted here: those in Triton, if it interprets in this process."""
    return [room for room in counting.rooms() if kernels.ROOMS[room].language == "cuda" or _interprets(room)]


def _interprets(room):
    try:
        return kernels.chosen(room, request="emulated")
    except RuntimeError:
        return False


def check(folder):
    """ValueError where `write` would fail, or overwrite an index.html that is no such page."""
    if not folder:
        raise ValueError("--html takes a folder, got ''")
    path = Path(folder) / "index.html"
    files.check_name(path)
    above = next(each for each in path.resolve().parents if each.exists())
    if not above.is_dir():
        raise ValueError(f"--html takes a folder, and {above} is a file")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, and would be the page: choose another folder")
    if path.exists() and TITLE.encode() not in path.read_bytes():
        raise ValueError(f"{path} is no page of genmini count, and would be lost: choose another folder")


def html(rooms, others=None):
    """The page of what `of` gathered; others: the rooms that are not counted here."""
    others = [name for name in kernels.ROOMS if name not in all_rooms()] if others is None else others
    content = json.dumps({"rooms": rooms, "notCounted": others}, separators=(",", ":")).replace("<", "\\u003c")
    text = (HERE / "page.html").read_text()
    for word, value in (("STYLE", (HERE / "page.css").read_text()), ("CONTENT", content),
                        ("SCRIPT", "\n".join((HERE / name).read_text() for name in SCRIPTS))):
        text = text.replace(f"<!--{word}-->", value, 1)
    return text


def of(room, **sizes):
    """All that the page shows of a room, as dictionaries, lists and numbers."""
    each = [counting.count(room, rung, **sizes) for rung in kernels.rungs(room)]
    module = sys.modules[f"genmini.kernels.{kernels.ROOMS[room].source}"]
    return {
        "name": room, "language": kernels.ROOMS[room].language,
        "question": module.__doc__.splitlines()[0], "about": " ".join(_paragraph(module.__doc__).split()),
        "equations": [{"name": name, "mathml": mathml} for name, mathml in equations.of(room)],
        "math": _math(module.__doc__), "definition": _definition(module, room), "section": _section(module),
        "module": f"kernels/{kernels.ROOMS[room].source}.py", "sizes": each[0].sizes,
    } | _steps(each, [ladder.lesson(room, one.rung) for one in each])


def of_own(counted):
    """All that the page shows of the launches of a user's .cu, one after the other."""
    launches, lines = counted.launches, counted.source.read_text().splitlines()
    each = [replace(counted, rung=_name(launch, launches), launches=[launch]) for launch in launches]
    return ({"name": counted.room, "language": "cuda", "call": counted.call, "printed": counted.printed}
            | _steps(each, [source.comment(lines, launch.kernel) for launch in launches]))


def _name(launch, launches):
    """The kernel's, with its grid and block where it is launched on several."""
    several = sum(other.kernel == launch.kernel for other in launches) > 1
    grid, block = ("x".join(map(str, of)) for of in (launch.grid, launch.block))
    return launch.kernel + f"<<<{grid}, {block}>>>" * several


def _steps(each, lessons):
    """Rungs of a room, or launches of a call: counted, compiled and predicted, and what differs between neighbours.
    each: of every one a counting.Counted, and what it teaches"""
    cards = predict.named("all")
    rungs, prediction = ladder.joined(each, lessons, cards)
    rows = iter(prediction.rows)
    arrays = []
    shown = [_rung(one, rung, [[next(rows) for _ in cards] for _ in one.launches], prediction, arrays)
             for one, rung in zip(each, rungs, strict=True)]
    texts = source.texts(each)
    items = [source.items_of(one, texts) for one in each]
    for rung, of_rung in zip(shown, items, strict=True):
        rung["items"] = of_rung
    return {
        "files": texts, "arrays": arrays, "rungs": shown, "why": prediction.why,
        "differences": [source.difference(a, b, texts) for a, b in zip(items, items[1:], strict=False)],
        "cards": [card.name for card in cards],
    }


def _paragraph(text):
    """The second paragraph of a room's docstring: where the question comes from."""
    return text.split("\n\n")[1]


def _math(text):
    """What stands under Math in a room's docstring, until the next heading."""
    return textwrap.dedent(re.split(r"\n\n[A-Z]", text.partition("\nMath\n")[2])[0])


def _definition(module, room):
    """The function that defines the room: `reference`, or of a room beside it `reference_sample`."""
    beside = f"reference{room.removeprefix(kernels.ROOMS[room].source)}"
    return inspect.getsource(vars(module).get(beside, module.reference)).rstrip()


def _section(module):
    """All that stands under `reference` in a room: helpers, inverses, gradients."""
    text = inspect.getsource(module)
    return text[text.index("# ---- reference") :].partition("\n")[2].partition("\n# ---- ")[0].strip()


def _rung(one, rung, predicted, prediction, arrays):
    """one: counting.Counted; rung: ladder.Rung; predicted: of each launch a Predicted for each card"""
    rows = [_row(number, row, arrays) for number, launch in enumerate(one.launches) for row in launch.rows]
    executed = {}
    for launch in one.launches:
        for branch in launch.branches:
            place = executed.setdefault(branch.file, {}).setdefault(branch.line, [0, 0, 0])
            for i, number in enumerate((branch.executed, branch.lanes, branch.divergent)):
                place[i] += number
    return {
        "name": rung.name, "lesson": rung.lesson, "dram": rung.dram, "l2": rung.l2, "sectors": rung.sectors,
        "wavefronts": rung.wavefronts, "collisions": rung.collisions, "registers": rung.registers,
        "occupancy": rung.occupancy,
        "predicted": {card: {"seconds": seconds, "binds": binds} for card, (seconds, binds) in rung.predicted.items()},
        "barriers": sum(launch.barriers for launch in one.launches),
        "divergent": sum(launch.divergent for launch in one.launches),
        "unit": "tile" if one.in_triton else "request", "launches": [_launch(launch, of_launch, prediction)
                     | (_of_tiles(launch) if one.in_triton else {})
                     for launch, of_launch in zip(one.launches, predicted, strict=True)],
        "rows": rows, "executed": executed,
    }


def _launch(launch, predicted, prediction):
    counters, newest = launch.counters, prediction.newest
    usage = prediction.usage.get((newest, launch.binary))
    return {
        "kernel": launch.kernel, "grid": launch.grid, "block": launch.block, "launches": launch.launches,
        "dramRead": counters["dram__bytes_read.sum"], "dramWritten": counters["dram__bytes_write.sum"],
        "l2": 32 * sum(counters[f"lts__t_sectors_op_{op}.sum"] for op in ("read", "write", "atom")),
        "lanes": launch.lanes, "divergent": launch.divergent, "barriers": launch.barriers, "flop": launch.flop,
        "hazards": [str(hazard) for hazard in launch.hazards], "architecture": newest,
        "registers": usage and usage.registers, "shared": (usage.shared if usage else 0) + launch.dynamic_shared,
        "spilled": usage and usage.stack + usage.local,
        "predicted": {row.card: {"occupancy": row.occupancy and row.occupancy.fraction, "seconds": row.at_least,
                                 "sms": SMS[row.card],
                                 "limited": row.occupancy and row.occupancy.limited_by, "binds": row.binds,
                                 "by": {name: seconds for name, seconds in row.seconds.items() if seconds}}
                      for row in predicted},
    }


def _of_tiles(launch):
    """What a launch in Triton has besides."""
    rows = [row for row in launch.rows if row.space]
    return {"arguments": launch.arguments, "tiles": sum(row.tiles for row in rows),
            "elements": sum(row.thread_inst_executed for row in rows), "masked": sum(row.masked for row in rows)}


def _row(launch, row, arrays):
    return {
        "launch": launch, "file": row.file, "line": row.line, "what": row.what, "space": row.space, "size": row.size,
        "requests": row.inst_executed, "lanes": row.thread_inst_executed, "collisions": row.collisions,
        "sectors": row.memory_l2_theoretical_sectors_global,
        "sectorsLeast": row.memory_l2_theoretical_sectors_global_ideal,
        "wavefronts": row.memory_l1_wavefronts_shared, "wavefrontsLeast": row.memory_l1_wavefronts_shared_ideal,
        "examples": [_example(example, arrays) for example in _some(row.examples)],
    }


def _some(examples):
    """At most MOST of them: the first ones, and some of the rest."""
    first, rest = examples[: MOST // 2], examples[MOST // 2 :]
    step = -(-len(rest) // (MOST // 2)) or 1
    return first + rest[::step]


def _example(example, arrays):
    """Addresses as [start, step] from lane to lane where that says all: most are so."""
    if (example.array, example.skew) not in arrays:
        arrays.append((example.array, example.skew))
    lanes, at = [*example.at], [*example.at.values()]
    step = (at[1] - at[0]) // (lanes[1] - lanes[0]) if len(at) > 1 else 0
    even = all(address == at[0] + step * (lane - lanes[0]) for lane, address in example.at.items())
    return {"block": example.block, "warp": example.warp, "array": arrays.index((example.array, example.skew)),
            "active": sum(1 << lane for lane in lanes)} | ({"start": at[0], "step": step} if even else {"at": at})
