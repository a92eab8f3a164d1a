"""`genmini sample`: draw samples from a trained run, or complete test images."""

import argparse
import io
import itertools
from pathlib import Path

from . import _options

HELP = "draw samples from a trained run"


def options(parser):
    _options.run_folder(parser)
    parser.add_argument("-n", type=_options.positive, default=64, metavar="N", help="how many (default: 64)")
    parser.add_argument("-y", type=_classes, metavar="CLASS",
                        help="of one class, from a model with classes; 3,8: of both at once (default: of all)")
    _options.how_to_sample(parser)
    parser.add_argument("--complete", action="store_true", help="keep the first half of test images, draw the rest")
    parser.add_argument("--out", metavar="FILE",
                        help="a .png picture or a .npy array (default: RUN/drawn.png, drawn-2.png, ...)")  # fmt: skip
    _options.seed(parser)
    _options.where_data_lies(parser)
    _options.where_it_runs(parser)


def _classes(text):
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise argparse.ArgumentTypeError(f"{text[:30]!r} is no class, nor classes as 3,8")
    return [int(part) for part in parts]


def run(arguments):
    import numpy as np
    import torch

    from genmini import checkpoint, experiment, files, plots

    folder = arguments.run_folder
    out = Path(arguments.out) if arguments.out else _free_picture(Path(folder))
    if out.suffix not in (".png", ".npy"):
        raise ValueError(f"--out takes a .png or a .npy file, got {out}")
    saved = checkpoint.read(folder)
    model = checkpoint.load(folder, _options.device(arguments))
    name, how, panels = type(model).__name__, {}, {}
    if model.cannot("sample"):
        raise ValueError(f"{folder} does not fit: {model.cannot('sample')}")
    if arguments.complete:
        how, panels = experiment.halves(model, _test_images(model, saved, arguments), arguments.n)
    how |= _options.chosen(arguments, model)
    if arguments.y is not None:
        if not model.classes:
            raise ValueError(f"-y names a class, and the {name} in {folder} was made without classes")
        if len(arguments.y) > 1 and model.cannot("mixture"):
            raise ValueError(f"-y with several classes does not fit: {model.cannot('mixture')}")
        how["y"] = arguments.y[0] if len(arguments.y) == 1 else model.mixture(arguments.y)
    _options.check_memory(arguments.n, model)
    torch.manual_seed(arguments.seed)
    x = model.sample(len(how["x"]) if arguments.complete else arguments.n, **how).cpu()
    what = "completions" if arguments.complete else "means" if arguments.mean else "samples"
    if out.suffix == ".npy":
        content = io.BytesIO()
        np.save(content, x.numpy(), allow_pickle=False)
        files.write(out, content.getvalue())
    elif arguments.complete:
        plots.side_by_side(out, {**panels, f"completed by {name}": x}, model.levels)
    else:
        plots.samples(out, f"{len(x)} {what} of {name}", x, model.levels)
    print(f"{len(x)} {what} in {out}")
    if not how.keys() & {"x", "y"} and model.sample_note:
        print(f"note      {model.sample_note}")


def _free_picture(folder):
    """RUN/drawn.png, numbered if that is taken."""
    names = ("drawn.png" if i == 1 else f"drawn-{i}.png" for i in itertools.count(1))
    return next(folder / name for name in names if not (folder / name).exists())


def _test_images(model, saved, arguments):
    """The test split whose halves are to be completed: at least -n images."""
    from genmini import data

    if model.cannot("known"):
        raise ValueError(f"--complete does not fit: {model.cannot('known')}")
    test = data.of_run(saved, "test", arguments.data_dir)
    if arguments.n > len(test):
        raise ValueError(f"-n {arguments.n} halves are to be completed, "
                         f"and the {test.split} split of {test.name} has {len(test)} images")  # fmt: skip
    return test
