"""`genmini bench`: the ladder of a room: what each rung teaches, what is counted, compiled, predicted, and measured."""

from pathlib import Path

from . import _options

HELP = "the ladder of a room: what each rung teaches, is counted and predicted to take, and what is measured here"
EXAMPLES = """examples:
  genmini bench nearest_code                     its rungs, beside the definition and the C++ of this machine
  genmini bench affine_coupling --card all       predicted for four cards
  genmini bench quantize --shape N=4096 D=32     other sizes; the emulator takes longer for larger ones
  genmini bench code_stats --plot roofline.png   operations a second over operations a byte
  genmini bench nearest_code --with my_search.py    beside a kernel that this file registers (docs/exercises.md)

Each figure says which it is: counted (on a CPU, by the emulator or Triton's interpreter), compiled (by nvcc or
Triton), predicted (from both, for a card), or measured (here). docs/counting.md says what they mean; `make bench`
measures at length, beside other libraries."""


def options(parser):
    from argparse import RawDescriptionHelpFormatter

    parser.epilog, parser.formatter_class = EXAMPLES, RawDescriptionHelpFormatter
    parser.add_argument("room", metavar="ROOM", help="an operator of `genmini list`")
    _options.shape(parser)
    _options.own(parser)
    parser.add_argument("--card", metavar="C", default="h100",
                        help="predict for: a100, h100, h200, rtx4090, or all (default: h100)")
    parser.add_argument("--plot", metavar="FILE", help="a roofline, .png")
    parser.set_defaults(backend=None)
    _options.device_and_threads(parser)


def run(arguments):
    _options.quiet_profiler()
    from genmini import kernels, ladder, plots, predict

    cards, sizes = predict.named(arguments.card), _options.sizes(arguments.shape)
    if arguments.plot is not None and not arguments.plot.endswith(".png"):
        raise ValueError(f"--plot takes a .png file, got {arguments.plot}")
    if arguments.plot is not None and Path(arguments.plot).is_dir():
        raise ValueError(f"--plot takes a file, and {arguments.plot} is a folder")
    if arguments.plot is not None and plots.missing():
        raise ImportError(plots.missing())
    if arguments.own is not None:
        _options.registered(arguments)  # GENMINI_BACKEND may name what it registers
    device = _options.device(arguments)
    try:
        found = ladder.climb(arguments.room, cards, device, **sizes)
    except kernels.WrongKernel as error:  # of --with; its report is longer than a line
        print(error)
        return 1
    shown = " ".join(f"{name}={size}" for name, size in found.sizes.items())
    print(f"{found.room}, {shown}, with its gradient if it has one\n\nthe ladder, slowest first")
    for rung in found.rungs:
        print(f"  {rung.name:<14} {rung.lesson}".rstrip())
    for name, (report, _) in found.own.items():
        print(f"  {name:<14} {report}")
    if any(rung.dram is not None for rung in _all(found)):
        print("\n".join(["", *_table(found, cards, predict.LAUNCH)]))
        if kernels.ROOMS[found.room].language == "triton":
            print("  of Triton's kernels whole tiles are counted, not lanes: wavefronts are up to its compiler")
    if found.why:
        print(f"  note           {found.why}")
        if any(rung.predicted for rung in _all(found)):
            print("  so what is predicted knows no instructions: a rung that issues many looks faster than it is")
    print(f"\nmeasured on {found.device}, in turn (20 to 80 % of the calls)")
    for name, (median, low, high) in found.measured.items():
        print(f"  {name:<14} {_us(median):>10} us   {_us(low)} to {_us(high)}")
    if arguments.plot is not None:
        ladder.roofline(arguments.plot, found, cards)
        print(f"\nplot      {arguments.plot}")


def _all(found):
    return [*found.rungs, *(rung for _, rung in found.own.values())]


def _table(found, cards, launch):
    """A line for each rung: counted, compiled, predicted. ! marks what costs more than the least possible."""
    names = [card.name for card in cards]
    yield f"  {'':<14} {'counted':<52} {'compiled':>9}  predicted, at least, us"
    yield (f"  {'rung':<14} {'DRAM, MB':>9} {'L2, MB':>9} {'sectors':>9} {'wavefronts':>11} {'collisions':>10} "
           f"{'registers':>9}  {'warps':>6}  " + "  ".join(f"{name:<18}" for name in names)).rstrip()
    for rung in _all(found):
        if rung.dram is None:  # a function in Python
            continue
        of_cards = [rung.predicted[name] for name in names if name in rung.predicted]
        needs = (f"{_us(seconds)}{' *' * (seconds < launch)} {binds}" for seconds, binds in of_cards)
        yield (f"  {rung.name:<14} {rung.dram / 1e6:>9.3f} {rung.l2 / 1e6:>9.3f} {_over(rung.sectors):>9} "
               f"{_over(rung.wavefronts):>11} {rung.collisions or '-':>10} {rung.registers or '-':>9}  "
               f"{'-' if rung.occupancy is None else f'{rung.occupancy:.0%}':>6}  "
               + "  ".join(f"{each:<18}" for each in needs)).rstrip()
    yield "  sectors, wavefronts: times the least possible; warps: of an SM, of the kernel that needs longest"
    if any(seconds < launch for rung in found.rungs for seconds, _ in rung.predicted.values()):
        yield "  * less than a launch itself takes: at this size latency binds, of which nothing is predicted"


def _over(times):
    return "-" if times is None else f"{'! ' * (times > 1.005)}{times:.2f}"


def _us(seconds):
    return f"{1e6 * seconds:.3g}" if seconds < 1e-3 else f"{1e6 * seconds:.0f}"
