"""`genmini profile`: the hot spots of a step of training or sampling, each beside what this machine could do."""

import shlex
import sys
from pathlib import Path

from . import _options

HELP = "the hot spots of a step of training or sampling, beside what this machine could do, and what a room could serve"
EXAMPLES = """examples:
  genmini profile vae --data digits              a training step by the recipe: ranked operators, bounds, advice
  genmini profile vae --data digits --set batch=512 --set hidden=400
  genmini profile runs/vae-digits --sample -n 1000    1000 draws of a run
  genmini profile mine:step                      runs your code: step() of mine.py, which takes no arguments
  genmini profile vae --data digits --flame step.svg --trace step.json --memory step.png
  genmini profile vae --data digits --device cuda     the same on a GPU, by the time of its kernels

docs/profiling.md says how to read the table."""
UNITS = (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, "")


def options(parser):
    from argparse import RawDescriptionHelpFormatter

    parser.epilog, parser.formatter_class = EXAMPLES, RawDescriptionHelpFormatter
    parser.add_argument("model", metavar="MODEL",
                        help="a model of `genmini list` (by a recipe), a run, or module:function, your own code")
    parser.add_argument("--data", metavar="D", help="of a model: a data set of `genmini list` (default: its first)")
    _options.of_images(parser)
    parser.add_argument("--recipe", metavar="R", help="of a model (default: its first for the data)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="of a model: any setting of the recipe, as batch=512")
    parser.add_argument("--stage", metavar="S", help="of a model with stages (default: the first; the run's own)")
    parser.add_argument("--sample", action="store_true", help="profile how it draws, not how it learns")
    parser.add_argument("-n", type=_options.positive, default=64, metavar="N",
                        help="of --sample: how many draws (default: 64)")
    parser.add_argument("--steps", type=_options.positive, default=10, metavar="N", help="to measure (default: 10)")
    parser.add_argument("--rows", type=_options.positive, default=15, metavar="N", help="to print (default: 15)")
    parser.add_argument("--trace", metavar="FILE", help="a .json trace for ui.perfetto.dev or chrome://tracing")
    parser.add_argument("--flame", metavar="FILE", help="a flame graph, .svg: modules, operators, by their time")
    parser.add_argument("--memory", metavar="FILE", help="a picture of the memory of tensors over time, .png")
    parser.add_argument("--plain", action="store_true", help="only run the steps, for another profiler to watch")
    _options.seed(parser)
    _options.where_data_lies(parser)
    _options.where_it_runs(parser)


def run(arguments):
    _options.quiet_profiler()
    files = dict(trace=(arguments.trace, ".json"), flame=(arguments.flame, ".svg"), memory=(arguments.memory, ".png"))
    for option, (path, suffix) in files.items():
        if path is not None and Path(path).suffix != suffix:
            raise ValueError(f"--{option} takes a {suffix} file, got {path}")
        if path is not None and Path(path).is_dir():
            raise ValueError(f"--{option} takes a file, and {path} is a folder")
    from genmini import advice, profiling

    step = _step(arguments)
    print(f"{step.what}, on {step.device}", flush=True)
    if arguments.plain:
        profiling.repeated(step.run, arguments.steps)
        print(f"{arguments.steps} steps were run, without the profiler")
        return
    profile = profiling.measured(step.run, step.device, arguments.steps, step.module)
    print("\n".join([*_heading(profile), "", *_table(profile, arguments.rows), ""]))
    for sentence in advice.advice(profile):
        print(f"advice    {sentence}".replace("\n", f"\n{'':10}"))
    if profile.kernel:
        print(f"ncu       ncu -k {profile.kernel} -c 3 --set full -o step genmini {shlex.join(sys.argv[1:])} --plain")
    writers = dict(trace=profile.trace, flame=profile.flame, memory=profile.memory)
    for option, (path, _) in files.items():
        if path is not None:
            writers[option](path)
            print(f"{option:<9} {path}")


def _step(arguments):
    from genmini import experiment, models, steps

    name, samples = arguments.model, arguments.n if arguments.sample else 0
    if samples and arguments.stage is not None:
        raise ValueError("--stage does not fit: it says what learns, and --sample draws with all of the model")
    of_recipe = dict(data=arguments.data, recipe=arguments.recipe, set=arguments.set)
    if ":" in name and not Path(name).exists():
        _refuse(of_recipe | dict(sample=samples, stage=arguments.stage), "your own code")
        device = str(_options.device(arguments))
        return steps.of_function(name)._replace(device=device)
    if name in models.MODELS and (arguments.data or not Path(name).is_dir()):
        recipes = models.recipes(name)
        wanted = arguments.data or recipes.get(arguments.recipe, next(iter(recipes.values())))["data"]
        plan = experiment.plan(name, wanted, arguments.recipe, arguments.set, None, arguments.seed, arguments.size,
                               arguments.colour, arguments.scenes)
        device = _options.device(arguments, plan.threads)
        return steps.of_recipe(plan, device, arguments.data_dir, arguments.stage, samples)
    _refuse(of_recipe, "a run, which has its own recipe")
    return steps.of_run(name, _options.device(arguments), arguments.data_dir, arguments.stage, samples)


def _refuse(given, what):
    for option, value in given.items():
        if value:
            raise ValueError(f"--{option} does not fit: this is {what}")


def _heading(profile):
    yield (f"a step    {_ms(profile.plain)}; {_ms(profile.seconds)} under the profiler, by the quick ones of "
           f"{profile.steps} steps")
    reached = [f"copy {profile.limits['copy'] / 1e9:.1f} GB/s"]
    reached += [f"{_name(dtype)} {_unit(rate)}FLOP/s" for dtype, rate in profile.limits.items() if dtype != "copy"]
    yield f"machine   {', '.join(reached)}, measured now: the bounds below are of these"
    yield f"memory    at most {_unit(profile.peak)}B above what was held before"


def _name(dtype):
    return str(dtype).removeprefix("torch.")


def _table(profile, rows):
    """Rows, the longest first; the last two are all other operators, and the time that no operator takes."""
    yield f"{'time':>10} {'share':>6} {'calls':>6} {'bytes':>9} {'operations':>10} {'of bound':>8}  operator"
    for row in profile.rows[:rows]:
        bound = "" if row.of_bound is None else f"{row.of_bound:.0%}"
        yield (f"{_ms(row.seconds):>10} {row.share:>6.1%} {row.calls:>6g} {_counted(row.bytes, 'B'):>9} "
               f"{_counted(row.operations, ''):>10} {bound:>8}  {row.operator}  {row.shapes}"
               + f"  (room {row.room})" * bool(row.room) + f" ({row.could}?)" * bool(row.could)).rstrip()
    others = profile.rows[rows:]
    if others:
        seconds, calls = sum(row.seconds for row in others), sum(row.calls for row in others)
        yield _rest(profile, seconds, f"{calls:g}", f"{len(others)} more operators and shapes")
    what = "the GPU waits" if profile.device.startswith("cuda") else "between operators: Python, autograd"
    yield _rest(profile, profile.between, "", what)


def _rest(profile, seconds, calls, what):
    return f"{_ms(seconds):>10} {seconds / profile.seconds:>6.1%} {calls:>6} {'':>9} {'':>10} {'':>8}  ({what})"


def _ms(seconds):
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _counted(number, unit):
    return f"{_unit(number)}{unit}" if number else ""


def _unit(number):
    size, letter = next((unit for unit in UNITS if number >= unit[0]), (1, ""))
    return f"{number / size:.3g} {letter}"
