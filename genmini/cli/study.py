"""`genmini study`: one question about what trained runs have learnt."""

import argparse
import sys
from pathlib import Path

from . import _options

HELP = "one question about what a trained run has learnt: a picture and a line"
OPTIONS = "axes", "between", "pick", "by", "swap", "mask", "horizon", "start"  # of some studies
VALUES = {"dimensions": "latent-dim", "alphas": "alpha"}  # an option -> the study that trains by it


def options(parser):
    parser.add_argument("study", metavar="STUDY", help="one of `genmini list`, as reconstruct")
    parser.add_argument("of", nargs="*", metavar="RUN",
                        help="folders that `genmini train` wrote, or shipped runs; of latent-dim and alpha, a model; "
                             "of kl and upsample, none")
    parser.add_argument("--out", metavar="FILE",
                        help="the picture of one run (default: RUN/STUDY.png, of a shipped run RUN-STUDY.png here, "
                             "without a run STUDY.png here); of latent-dim and alpha, a folder for runs")
    _options.seed(parser)
    ways = parser.add_argument_group("of some studies")
    ways.add_argument("--axes", type=_pair, metavar="A,B",
                      help="of embed and traverse: two of the numbers z, counted from 0, or names of attributes")
    ways.add_argument("--between", type=_classes, metavar="A,B",
                      help="of interpolate: the classes of both ends, as 0,7")
    ways.add_argument("--pick", choices=("first", "nearest"),
                      help="of interpolate: the first pairs of images (default), or those with the nearest codes")
    ways.add_argument("--by", choices=("graph", "tsne"),
                      help="of embed: lines between nearest codes, or a map by t-SNE of scikit-learn")
    ways.add_argument("--swap", action="store_true", default=None,
                      help="of codes: codes of one image moved into another, decoded")
    ways.add_argument("--horizon", type=_options.positive, metavar="H",
                      help="of forecast: how many numbers ahead (default: 12)")
    ways.add_argument("--start", type=_options.positive, metavar="T",
                      help="of forecast: the time of the first of them (default: that of the first test number)")
    ways.add_argument("--mask", metavar="M",
                      help="of inpaint, what is hidden: upper, lower, left, right, centre (default), stripes, "
                           "random:SHARE, or a picture's dark pixels, FILE.png")
    trains = parser.add_argument_group("of latent-dim and alpha, which train")
    trains.add_argument("--dimensions", type=_options.positive, nargs="+", metavar="d",
                        help="of latent-dim (default: 2 5 10 20 50)")
    trains.add_argument("--alphas", type=_weight, nargs="+", metavar="a", help="of alpha (default: 1 5 20 100 500)")
    trains.add_argument("--data", metavar="D", help="a data set of `genmini list`")
    _options.of_images(trains)
    trains.add_argument("--recipe", metavar="R", help="a recipe of the model")
    trains.add_argument("--steps", type=_options.positive, metavar="N", help="instead of the recipe's")
    trains.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="any other setting of the recipe")
    _options.where_data_lies(parser)
    _options.where_it_runs(parser)


def _pair(text):
    parts = text.split(",")
    if len(parts) != 2 or not all(parts):
        raise argparse.ArgumentTypeError(f"it takes two, as 0,1, got {text!r}")
    return tuple(parts)


def _classes(text):
    parts = _pair(text)
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise argparse.ArgumentTypeError(f"it takes two classes, as 0,7, got {text!r}")
    return tuple(map(int, parts))


def _weight(text):
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"it takes a number above 0, got {text!r}")
    return value


def run(arguments):
    from genmini import files, studies

    study, folders = studies.find(arguments.study), arguments.of or [None]
    if arguments.out:
        files.check_name(arguments.out)
    given = {option: getattr(arguments, option) for option in OPTIONS}
    given = {option: value for option, value in given.items() if value is not None}
    studies.check_options(arguments.study, given)
    for values, its in VALUES.items():
        if getattr(arguments, values) and arguments.study != its:
            raise ValueError(f"--{values} is for {its}: {arguments.study} does not take it")
    if study.plans:
        return _trains(arguments, study)
    for option in ("data", "size", "scenes", "colour", "recipe", "steps", "set"):
        if getattr(arguments, option):
            raise ValueError(f"--{option} is for `genmini study latent-dim` and `alpha`, which train; "
                             f"{arguments.study} takes runs")
    if study.alone and arguments.of:
        raise ValueError(f"{arguments.study} takes no run, got {' '.join(arguments.of)}")
    if not study.alone and not arguments.of:
        raise ValueError(f"{arguments.study} takes a RUN, and none is given")
    if study.together:
        folders = [folders]
    if arguments.out and len(folders) > 1:
        raise ValueError(f"--out names one picture, and there are {len(folders)} runs: without it each gets its own")
    device, fits = _options.device(arguments), 0
    for folder in folders:
        first, heading = (folder[0], "") if study.together else (folder, f"{folder}: " * bool(folder))
        try:
            picture = arguments.out or studies.picture(arguments.study, first)
            answer = studies.study(arguments.study, folder, picture, arguments.data_dir, device, arguments.seed,
                                   **given)
        except (ValueError, OSError, ArithmeticError) as why:  # of several runs, the others are still studied
            if len(folders) == 1:
                raise
            print(f"genmini: {heading * isinstance(why, ArithmeticError)}{why}", file=sys.stderr)
            continue
        fits += 1
        print(f"{heading}{answer}\npicture   {picture}")
    if not fits:
        raise ValueError(f"none of these {len(folders)} runs fits {arguments.study}")


def _trains(arguments, study):
    """Train what is missing in --out, continue what is not at its end, then study all of it."""
    from genmini import studies
    from genmini.studies import _trainings

    its = arguments.study
    if len(arguments.of) != 1 or not arguments.data:
        raise ValueError(f"{its} trains models of its own: genmini study {its} MODEL --data D")
    name, (values,) = arguments.of[0], (getattr(arguments, values) for values, owner in VALUES.items() if owner == its)
    plans = study.plans(name, arguments.data, *[values] * bool(values), assignments=arguments.set,
                        recipe=arguments.recipe, steps=arguments.steps, seed=arguments.seed, size=arguments.size,
                        colour=arguments.colour, scenes=arguments.scenes)
    out = Path(arguments.out or Path("runs") / f"{its}-{name}-{arguments.data}")
    folders = {value: out / f"{study.trains}-{value:g}" for value in plans}
    for value, plan in plans.items():
        device = _options.device(arguments, plan.threads)
        print(f"{name} on {plan.data}, {study.trains} = {value:g}, in {folders[value]}", flush=True)
        history = _trainings.train(plan, folders[value], arguments.data_dir, device)
        if history is None:
            print(f"finished  {folders[value]}: there is nothing left to resume")
        elif history.stopped == "interrupted":
            print("genmini: interrupted; the same command continues from here", file=sys.stderr)
            return 130
        else:
            print(f"saved     the weights of step {history.step} are in {folders[value]}")
    picture = out / f"{its}.png"
    answer = studies.study(its, folders.values(), picture, arguments.data_dir, device, arguments.seed)
    print(f"{answer}\npicture   {picture}")
