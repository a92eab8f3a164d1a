"""`genmini sample`: draw samples from a trained run, or complete test images."""

import argparse
from pathlib import Path

from . import _options

HELP = "draw samples from a trained run"
SHOWN = 8  # texts that are printed, at most


def options(parser):
    _options.run_folder(parser)
    parser.add_argument("caption", nargs="?", metavar="CAPTION", help="what to draw, of a model that reads captions")
    parser.add_argument("-n", type=_options.positive, default=64, metavar="N", help="how many (default: 64)")
    parser.add_argument("-y", type=_classes, metavar="CLASS",
                        help="of one class, from a model with classes; 3,8: of both at once (default: of all)")
    _options.how_to_sample(parser)
    parser.add_argument("--begin", metavar="TEXT", help="of Language: the words that each text begins with")
    parser.add_argument("--complete", action="store_true", help="keep the first half of test images, draw the rest")
    parser.add_argument("--film", action="store_true", help="of diffusions: a .gif of the way from noise to samples")
    parser.add_argument("--out", metavar="FILE",
                        help="a .png picture, a .txt of text, a .npy array, or a film (default: RUN/drawn.png, "
                             "drawn-2.png, ...; of a run that comes with genmini NAME.png here)")
    _options.seed(parser)
    _options.where_data_lies(parser)
    _options.where_it_runs(parser)


def _classes(text):
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise argparse.ArgumentTypeError(f"{text[:30]!r} is no class, nor classes as 3,8")
    return [int(part) for part in parts]


def run(arguments):
    from genmini import checkpoint, data, experiment, samples

    folder = arguments.run_folder
    if arguments.out is not None:
        samples.check_file(arguments.out, arguments.film)
    saved = checkpoint.read(checkpoint.place(folder))
    model = checkpoint.load(folder, _options.device(arguments))
    out = Path(arguments.out or samples.free_picture(folder, samples.suffix(model, arguments.film)))
    samples.check_fits(out, model)
    name, how, beside, n = type(model).__name__, {}, {}, arguments.n
    if model.cannot("sample"):
        raise ValueError(f"{folder} does not fit: {model.cannot('sample')}")
    if arguments.complete:
        if model.cannot("known"):
            raise ValueError(f"--complete does not fit: {model.cannot('known')}")
        how, beside = samples.halves(model, data.of_run(saved, "test", arguments.data_dir), n)
    elif model.given:
        how, beside = samples.parts(model, data.of_run(saved, "test", arguments.data_dir), n)
    how |= _options.chosen(arguments, model)
    if arguments.y is not None and arguments.classifier is not None:
        how["y"] = samples.in_turn(arguments.y, n)
    elif arguments.y is not None:
        if not model.classes:
            raise ValueError(f"-y names a class, and the {name} in {folder} was made without classes: "
                             "leave -y out")
        if len(arguments.y) > 1 and model.cannot("mixture"):
            raise ValueError(f"-y with several classes does not fit: {model.cannot('mixture')}")
        how["y"] = arguments.y[0] if len(arguments.y) == 1 else model.mixture(arguments.y)
    if arguments.caption is not None:
        if not model.captions:
            raise ValueError(f"{arguments.caption[:60]!r} would be a caption, and the {name} in {folder} reads none: "
                             "leave it out")
        how["y"] = arguments.caption
    if arguments.begin is not None:
        if model.cannot("begin"):
            raise ValueError(f"--begin does not fit: {model.cannot('begin')}")
        how["begin"] = arguments.begin
    what = "completions" if arguments.complete else "means" if arguments.mean else "samples"
    if arguments.film:
        if model.cannot("film"):
            raise ValueError(f"--film does not fit: {model.cannot('film')}")
        how["film"] = []
    if out.suffix == ".png":
        beside |= samples.means(model, n, arguments.seed, **how)
    x = samples.draw(model, n, arguments.seed, **how)
    if arguments.film:
        samples.write_film(out, how["film"], model.levels)
    else:
        samples.write(out, x, model, what, beside)
    print(f"{'film of ' if arguments.film else ''}{n} {what} in {out}")
    for line in samples.texts(x[:SHOWN], model) if model.of_text else ():
        print(f"  {line}")
    if not how.keys() & {"x", "y"} and model.sample_note:
        print(f"note      {model.sample_note}")
    if not experiment.is_finished(saved):
        at = experiment.resumes_at(saved)
        print(f"note      the training of {folder} is not at its end: `train --resume` continues from {at}")
