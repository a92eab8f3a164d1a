"""`genmini count`: what the kernels of a room, or of a user's own .cu, do to memory, counted on a CPU, by line."""

import sys
from pathlib import Path

from . import _options

HELP = "what a kernel does to memory, counted on a CPU: requests, sectors, bank conflicts, by line of its source"
EXAMPLES = """examples:
  genmini count affine_coupling                  its best rung, forward and backward
  genmini count nearest_code --rung naive        another rung: kernels.rungs("nearest_code") has their names
  genmini count masked_linear                    a room in Triton: tiles of programs, by its interpreter
  genmini count masked_linear --shape N=2048 K=256 J=256 --l2 1    what a second cache of 1 MB does not hold
  genmini count affine_coupling --shape N=4 D=100    other sizes of the inputs
  genmini count affine_coupling --card h100      how fast a card could run it at most: predicted, not measured
  genmini count affine_coupling --with mine.py   a kernel in CUDA or Triton that this file registers
  genmini count nade code_stats --html page      a page of two rooms: page/index.html; without names, of all
  genmini count my.cu --call 'Array<float> x(64), y(64); copy<<<1, 64>>>(x, y);'
                                                 the kernels of a .cu of yours; without --call, of its main()
  genmini count my.cu --html page                a page of its launches, one after the other

The first time, a .cu is compiled with counters, which takes some ten seconds. Nothing is measured:
docs/counting.md says what each counter means, what it is called in Nsight Compute, and what is not seen.
Exit status 1: a kernel in CUDA has a hazard of memory, of which a line above its table tells: a race, a missing fence,
a read of what nobody wrote."""
CONTEXT = 2  # lines of source around a line with counters
WIDTH = 116  # of a line of a launch's arguments
OF_TILES = """of a tile, on average: elements that the mask lets through, those that it keeps out, sectors / the least
possible. On which lanes the elements lie is up to Triton's compiler, and is not counted"""


def options(parser):
    from argparse import RawDescriptionHelpFormatter

    parser.epilog, parser.formatter_class = EXAMPLES, RawDescriptionHelpFormatter
    parser.add_argument("rooms", metavar="ROOM", nargs="*", help="an operator of `genmini list`, with --html as "
                        "many as you like (default: all); or a .cu of yours")
    parser.add_argument("--call", metavar="C++", action="append", help="of a .cu: what runs, as statements; "
                        "Array<float> x(64) is an array of 0, 1, 2, ...; a second --call goes on (default: its main())")
    parser.add_argument("--seconds", type=_options.positive, metavar="S", help="of a .cu: that the call may take "
                        "(default: 60)")
    parser.add_argument("--rung", metavar="R", help="of its kernel (default: the best)")
    _options.shape(parser)
    _options.own(parser)
    parser.add_argument("--l2", metavar="MB", type=float, help="of a room in Triton: the second cache holds so much "
                        "(default: everything)")
    parser.add_argument("--card", metavar="C", help="also predict: a100, h100, h200, rtx4090, or all")
    parser.add_argument("--table", action="store_true", help="without the source")
    parser.add_argument("--html", metavar="DIR", help="write DIR/index.html instead: all rungs of the rooms, or "
                        "launches of a .cu, on one page, their differences, and in CUDA the accesses of lines drawn")
    parser.add_argument("--json", metavar="FILE", help="also write all counters, by Nsight Compute's names")


def run(arguments):
    from genmini import counting, kernels, predict

    if named := [word for word in arguments.rooms if "." in word or "/" in word]:
        return _of_file(arguments, named)
    if given := _given(arguments, "call", "seconds"):
        raise ValueError(f"--{given} belongs to a .cu of yours: name the file in the place of a ROOM")
    if arguments.html is not None:
        return _page(arguments)
    if len(arguments.rooms) != 1:
        raise ValueError("count takes one ROOM, or with --html DIR any number of them")
    (arguments.room,) = arguments.rooms
    cards = predict.named(arguments.card) if arguments.card is not None else []
    if arguments.l2 is not None and not arguments.l2 > 0:
        raise ValueError(f"--l2 takes a size in MB, above 0; this is {arguments.l2:g}")
    l2 = float("inf") if arguments.l2 is None else 1e6 * arguments.l2
    _check_json(arguments.json)
    if arguments.own is not None:
        if arguments.rung or arguments.card or arguments.l2:
            raise ValueError("--with counts the one kernel of your file: --rung, --card and --l2 are of the room's own")
        try:
            counted = counting.count_own(arguments.room, _options.registered(arguments)[-1],
                                         **_options.sizes(arguments.shape))
        except kernels.WrongKernel as error:  # its report is longer than a line
            print(error)
            return 1
    else:
        counted = counting.count(arguments.room, arguments.rung, l2, **_options.sizes(arguments.shape))
    sizes = " ".join(f"{name}={size}" for name, size in counted.sizes.items())
    print(f"{counted.room}, rung {counted.rung}, {sizes}: counted on a CPU, not measured (docs/counting.md)"
          + f", a second cache of {arguments.l2} MB" * (arguments.l2 is not None))
    return _tell(counted, cards, arguments)


def _of_file(arguments, named):
    """Count the call of a .cu, or write its page."""
    from genmini import own_cu, predict

    if len(arguments.rooms) > 1:
        raise ValueError(f"count takes one .cu at a time, and no ROOM beside it; this is {' '.join(arguments.rooms)}")
    (path,) = named
    if Path(path).suffix != ".cu":
        raise ValueError(f"count takes a ROOM or a .cu, and {path} is neither; --with takes a .py beside a ROOM")
    if given := _given(arguments, "rung", "own", "shape", "l2"):
        of_room = {"rung": "--rung is a room's: --call says which kernels run",
                   "l2": "--l2 is of a room in Triton",
                   "own": "--with belongs to a ROOM: it registers a kernel for it",
                   "shape": "--shape is a room's: --call says how large the arrays are"}
        raise ValueError(of_room[given])
    call = "\n".join(arguments.call or ())
    if arguments.call and not call.strip():
        raise ValueError("--call is empty: it takes statements of C++ that launch a kernel")
    cards = predict.named(arguments.card) if arguments.card is not None else []
    _check_json(arguments.json, path)
    if arguments.html is not None:
        _check_page(arguments)
    try:
        counted = own_cu.count(path, call, arguments.seconds or own_cu.SECONDS)
    except own_cu.CannotCount as error:  # it shows what a compiler said
        print(f"genmini: {error}", file=sys.stderr)
        return 2 if isinstance(error, own_cu.NoCall) else 1
    if arguments.html is not None:
        return _page_of_file(arguments, counted)
    print(f"{counted.room}: counted on a CPU, not measured (docs/counting.md)")
    for line in counted.printed.splitlines():
        print(f"  printed {line}")
    return _tell(counted, cards, arguments, names=True)


def _given(arguments, *options):
    """The first of these options that the command has."""
    return next((name for name in options if getattr(arguments, name) not in (None, [], False)), None)


def _check_json(path, source=None):
    """ValueError for a path of --json that cannot be written, before anything is counted, or that is the source."""
    if path is None:
        return
    if not path or Path(path).is_dir():
        raise ValueError(f"--json takes a file, got {path!r}")
    if source and Path(path).exists() and Path(path).resolve() == Path(source).resolve():
        raise ValueError(f"--json {path} is the source, and would be lost: choose another file")


def _tell(counted, cards, arguments, names=False):
    """Print all that was counted, and save it; names: of arrays too -> exit status"""
    from genmini import counting, predict

    predicted = predict.of(counted, cards) if cards else None
    for i, launch in enumerate(counted.launches):
        of_launch = ([*_heading_of_tiles(launch), *_table_of_tiles(launch)] if counted.in_triton else
                     [*_heading(launch), *_table(launch, predicted, names)])
        print("\n".join(["", *of_launch]))
        if predicted:
            of_launch = predicted.rows[i * len(cards) : (i + 1) * len(cards)]
            print("\n".join([*_compiled(predicted, launch), *_predicted(of_launch)]))
    if counted.in_triton:
        print(f"\n{OF_TILES}")
    if not arguments.table:
        of_line = ("tiles, elements, sectors / least possible" if counted.in_triton else
                   "requests, lanes, sectors / least possible, wavefronts / least possible")
        print("\n".join(["", f"{of_line}; all that was counted on a line", *_source(counting.annotated(counted))]))
    if arguments.json:
        counting.save(arguments.json, counted, predicted)
        print(f"\nsaved     {arguments.json}")
    return int(not counted.in_triton and any(launch.hazards for launch in counted.launches))


def _page_of_file(arguments, counted):
    """Write the page of a .cu; its hazards are told here too -> exit status"""
    from genmini import page

    path = page.write_own(arguments.html, counted)
    hazards = [hazard for launch in counted.launches for hazard in launch.hazards]
    print("\n".join([f"counted   {counted.room}: {', '.join(launch.kernel for launch in counted.launches)}",
                     *(f"  {hazard}" for hazard in hazards), f"saved     {path}"]))
    return int(bool(hazards))


def _check_page(arguments):
    from genmini import page

    if given := _given(arguments, "rung", "card", "json", "table", "l2", "own"):
        raise ValueError(f"--html shows all rungs and cards: leave out --{'with' if given == 'own' else given}")
    page.check(arguments.html)


def _page(arguments):
    """Write the page, and say how far it is."""
    from genmini import counting, page

    sizes = _options.sizes(arguments.shape)
    if sizes and len(arguments.rooms) != 1:
        raise ValueError("--shape belongs to one ROOM: name it")
    _check_page(arguments)
    rooms = [*dict.fromkeys(arguments.rooms)] or page.all_rooms()
    for room in rooms:
        counting.checked(room, None, sizes)
    rungs = lambda room: ", ".join(rung["name"] for rung in room["rungs"])
    tell = lambda room: print(f"counted   {room['name']}: {rungs(room)}", flush=True)
    print(f"saved     {page.write(arguments.html, rooms, tell, **sizes)}")


def _heading(launch):
    triple = lambda v: "x".join(map(str, v))
    times = f"{launch.launches} launches of " if launch.launches > 1 else ""
    yield f"{launch.kernel}   {times}{triple(launch.grid)} blocks of {triple(launch.block)} threads"
    yield _memory(launch)
    yield (f"  warps   {launch.lanes:.1f} of 32 lanes active, {launch.divergent} divergent branches, "
           f"{launch.barriers} arrivals at barriers"
           + f", {launch.flop / 1e6:.3g} MFLOP on tensor cores" * bool(launch.flop)
           + f", {launch.dynamic_shared} bytes of dynamic shared memory" * bool(launch.dynamic_shared))
    yield from (f"  {hazard}" for hazard in launch.hazards)
    if launch.elsewhere:
        yield f"  {launch.elsewhere} requests belong to no line of the source: do not trust these counters"


def _memory(launch):
    c, bytes = launch.counters, lambda n: f"{n / 1e6:.3f} MB" if n >= 1e5 else f"{n} bytes"
    l2 = {name: 32 * c[f"lts__t_sectors_op_{name}.sum"] for name in ("read", "write", "atom")}
    return (f"  DRAM    read {bytes(c['dram__bytes_read.sum'])}, written {bytes(c['dram__bytes_write.sum'])}"
            f"     L2  read {bytes(l2['read'])}, written {bytes(l2['write'])}"
            + f", atomic {bytes(l2['atom'])}" * bool(l2["atom"]))


def _table(launch, predicted, names=False):
    """Lines of a table: sectors and wavefronts of a request, each beside the least possible; ! where there are more."""
    compiled = f"  in sm_{predicted.newest}" if predicted and predicted.newest else ""
    yield (f"  {'line':<24} {'access':<24} {'bytes':>5} {'requests':>9} {'lanes':>5} {'sectors':>14} {'wavefronts':>14}"
           + compiled)
    for row in launch.rows:
        where, collide = f"{row.file}:{row.line}", f"   {row.collisions} collisions" * bool(row.collisions)
        made_of = predicted.made_of(launch.kernel, row) if compiled else ""
        arrays = dict.fromkeys(example.array.partition(" ")[0] for example in row.examples)
        of = f" {', '.join(filter(None, arrays))}" if names and row.space == "global" else ""
        yield (f"  {where:<24} {f'{row.space} {row.what}{of}'.strip():<24} {row.size or '':>5} {row.inst_executed:>9} "
               f"{row.lanes:>5.1f} {_pair(row.sectors, row.sectors_ideal):>14} "
               f"{_pair(row.wavefronts, row.wavefronts_ideal):>14}  {made_of}{collide}").rstrip()


def _heading_of_tiles(launch):
    times = f"{launch.launches} launches of " if launch.launches > 1 else ""
    yield f"{launch.kernel}   {times}{'x'.join(map(str, launch.grid))} programs of {launch.block[0] // 32} warps"
    text = "  with   "
    for name, value in launch.arguments.items():
        if len(text) + len(name) + len(value) > WIDTH:
            yield text
            text = "         "
        text += f" {name}={value}"
    yield text
    yield _memory(launch)
    rows = [row for row in launch.rows if row.space]
    masked, through = sum(row.masked for row in rows), sum(row.thread_inst_executed for row in rows)
    yield (f"  tiles   {sum(row.inst_executed for row in rows)}, {masked / max(masked + through, 1):.1%} of their "
           "elements masked off" + f", {launch.flop / 1e6:.4g} MFLOP in tl.dot" * bool(launch.flop))


def _table_of_tiles(launch):
    """Lines of a table: elements, those that are masked off, and sectors of a tile."""
    yield f"  {'line':<24} {'access':<12} {'bytes':>5} {'tiles':>9} {'elements':>9} {'masked':>9} {'sectors':>19}"
    for row in launch.rows:
        where, collide = f"{row.file}:{row.line}", f"   {row.collisions} collisions" * bool(row.collisions)
        elements, masked = (f"{number:.1f}" if row.space else "" for number in (row.lanes, row.masked / row.tiles))
        products = f"   {row.flop / row.tiles / 1e6:.4g} MFLOP each" * bool(row.flop)
        yield (f"  {where:<24} {row.what:<12} {row.size or '':>5} {row.tiles:>9} {elements:>9} {masked:>9} "
               f"{_pair(row.sectors, row.sectors_ideal):>19}{products}{collide}").rstrip()


def _compiled(predicted, launch):
    """What the compiler says of the kernel, by architecture, or why it says nothing."""
    if predicted.why:
        yield f"  compiled  nothing: {predicted.why}"
    for (architecture, kernel), usage in sorted(predicted.usage.items()):
        if kernel == launch.binary:
            spilled = f"{usage.stack + usage.local} bytes of stack" if usage.stack + usage.local else "nothing spilled"
            code = predicted.code.get((architecture, kernel))  # None of a kernel in Triton
            yield (f"  compiled  sm_{architecture}: {usage.registers} registers, {usage.shared} bytes of "
                   + "static " * bool(code) + f"shared memory, {spilled}"
                   + (f", {len(code)} instructions" if code else ""))


def _predicted(rows):
    """A table: occupancy, the microseconds that each resource needs at least, and the one that binds."""
    names = [name for name in rows[0].seconds if any(row.seconds[name] for row in rows)]
    yield (f"  predicted  {'blocks':>6} {'warps':>8}  {'limited by':<20} {'waves':>5} "
           + " ".join(f"{name:>7}" for name in names) + "  at least, us")
    for row in rows:
        room, us = row.occupancy, {name: 1e6 * row.seconds[name] for name in names}
        waves = "" if row.waves is None else f"{row.waves:.2f}"
        occupied = (f"{room.blocks:>6} {f'{room.active} of {room.warps}':>8}  {room.limited_by:<20} {waves:>5}"
                    if room else f"{'-':>6} {'-':>8}  {'-':<20} {'-':>5}")
        needs = " ".join(f"{time:>7.2f}" for time in us.values())
        yield f"  {row.card:<10} {occupied} {needs}  {us[row.binds]:.2f}{' *' * row.short}, {row.binds}"
    if any(row.short for row in rows):
        yield "  * less than a launch itself takes: at this size latency binds, of which nothing is predicted"


def _pair(count, ideal):
    return f"{'! ' * (count > ideal + 1e-9)}{count:.2f} / {ideal:.2f}" if count or ideal else ""


def _source(lines):
    """The source around lines that have counters, with these beside it."""
    last = None
    marked = [(line.file, line.number) for line in lines if line.requests or line.executed]
    for line in lines:
        if not any(line.file == file and abs(line.number - number) <= CONTEXT for file, number in marked):
            continue
        if last is None or last.file != line.file:
            yield f"{line.file}"
        elif last.number + 1 < line.number:
            yield f"{'...':>56}"
        last = line
        lanes = f"{line.lanes:.1f}" if line.requests or line.executed else ""
        counters = (f"{line.requests or '':>8} {lanes:>7} {_pair(line.sectors, line.sectors_ideal):>16} "
                    f"{_pair(line.wavefronts, line.wavefronts_ideal):>16}")
        yield f"{counters:<50} {line.number:>4} | {line.text}".rstrip()
