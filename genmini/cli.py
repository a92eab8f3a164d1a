"""The command line: what a user types, checked; the work is done elsewhere.

A mistake of the user's ends in one line on stderr and exit status 2, a failure of the machine's in one line and 1, Ctrl-C in 130.
GENMINI_DEBUG=1 shows the traceback behind the line.
"""

import argparse
import ast
import inspect
import itertools
import os
import sys
from pathlib import Path

from genmini import __version__, info

EXAMPLES = """examples:
  genmini train made --data digits               about a minute on a laptop; ends in a picture
  genmini train realnvp --data moons             a density on the plane, beside the true one
  genmini sample runs/made-digits -n 100         more samples from that run
  genmini eval runs/made-digits                  its likelihood of the test images
  genmini info                                   what runs here, on which backend, and why"""


def main(argv=None):
    try:
        arguments = parser().parse_args(argv)
        return arguments.run(arguments) or 0
    except KeyboardInterrupt:
        print("genmini: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `genmini info | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, RuntimeError, FloatingPointError, MemoryError, ModuleNotFoundError) as error:
        if os.environ.get("GENMINI_DEBUG") == "1":
            raise
        print(f"genmini: {_one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, ValueError | OSError) else 1


def _one_line(error):
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "can't allocate memory" in text:
        return f"out of memory: a smaller batch (--set batch=...) or model may fit ({text[:120]})"
    return text


class Parser(argparse.ArgumentParser):
    def error(self, message):
        print(f"genmini: {message}   (see: {self.prog} --help)", file=sys.stderr)
        sys.exit(2)


def parser():
    top = Parser(prog="genmini", description="Deep generative models, from the equation of the course down to the kernel.", epilog=EXAMPLES,
                 formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    top.add_argument("--version", action="version", version=f"genmini {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def command(name, run, help):
        added = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        added.set_defaults(run=run)
        return added

    def where_data_lies(added):
        added.add_argument("--data-dir", metavar="DIR", help="the folder of MNIST's files (default: $GENMINI_DATA, else they are downloaded)")

    def where_it_runs(added):
        added.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
        added.add_argument("--backend", help="auto, reference, cpu, triton, cuda or emulated (default: $GENMINI_BACKEND, else auto)")
        added.add_argument("--threads", type=_positive, help="CPU threads (default: the recipe's, else PyTorch's)")

    command("info", info.info, "versions, devices, libraries, and which backend each operator takes here, and why")
    command("list", info.list_, "the models with their recipes, the data sets, the operators with their rungs")

    added = command("train", train, "train a model; write the best weights, the metrics and a picture of samples beside data")
    added.add_argument("model", metavar="MODEL", help="a model of `genmini list`, as made")
    added.add_argument("--data", required=True, metavar="D", help="a data set of `genmini list`, as digits")
    added.add_argument("--recipe", metavar="R", help="a recipe of the model (default: the one named as the data)")
    added.add_argument("--steps", type=_positive, metavar="N", help="instead of the recipe's")
    added.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting of the recipe; may be repeated")
    added.add_argument("--seed", type=int, default=0, metavar="N")
    added.add_argument("--out", metavar="DIR", help="the run's folder (default: runs/MODEL-D, numbered if that is taken)")
    added.add_argument("--overwrite", action="store_true", help="replace the run that is in --out")
    where_data_lies(added)
    where_it_runs(added)

    added = command("sample", sample, "draw samples from a trained run")
    added.add_argument("run_folder", metavar="RUN", help="a folder that `genmini train` wrote")
    added.add_argument("-n", type=_positive, default=64, metavar="N", help="how many (default: 64)")
    added.add_argument("--out", metavar="FILE", help="a .png picture or a .npy array (default: RUN/grid.png)")
    added.add_argument("--seed", type=int, default=0, metavar="N")
    where_it_runs(added)

    added = command("eval", evaluate, "the likelihood of data under a trained run, in nats and bits per dimension")
    added.add_argument("run_folder", metavar="RUN", help="a folder that `genmini train` wrote")
    added.add_argument("--split", default="test", help="train, valid or test (default: test)")
    where_data_lies(added)
    where_it_runs(added)
    return top


def _positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


# ---- train, sample, eval ---------------------------------------------------------------------------------------------------------------


def train(arguments):
    from genmini import data, models
    from genmini.train import fit, fit_at_once

    model_class = models.find(arguments.model)
    data.check(arguments.data)  # an unknown name is said before anything else
    recipes = models.recipes(arguments.model)
    recipe = recipes.get(arguments.recipe or arguments.data)
    if recipe is None:
        asked = f"no recipe {arguments.recipe!r}" if arguments.recipe else f"no recipe for {arguments.data!r}"
        raise ValueError(f"{arguments.model} has {asked}; its recipes are {', '.join(recipes)} (choose one with --recipe)")
    name = recipe["data"] if arguments.data == recipe["data"].partition("-")[0] else arguments.data
    at_once = hasattr(model_class, "fit")  # a model that is fitted without steps
    settings, loop = _settings(arguments.set, model_class, model_class.fit if at_once else fit, recipe)
    if arguments.steps:
        if at_once:
            raise ValueError(f"{arguments.model} is fitted at once: it takes no --steps")
        loop["steps"] = arguments.steps
    run = _run_folder(arguments)
    device = _where(arguments, recipe.get("threads"))

    import torch

    splits = {split: data.load(name, split, arguments.data_dir) for split in data.SPLITS}
    first = splits["train"]
    torch.manual_seed(arguments.seed)
    with torch.device(device):
        model = model_class(first.shape, levels=first.levels, **settings)
    if name != arguments.data:
        print(f"{arguments.data} in the version of this recipe: {name} ({data.SETS[name][0]})")
    size = lambda x: len(x) if len(x) > 1 else x.numel()  # of one series, its length
    sizes = " / ".join(f"{size(splits[split].x)} {split}" for split in data.SPLITS)
    parameters, how = sum(p.numel() for p in model.parameters()), "fitted at once" if at_once else f"{loop['steps']} steps"
    print(f"{arguments.model} on {name}: {sizes}, {parameters:,} parameters, {how} on {device}")
    about = dict(recipe=settings | loop, seed=arguments.seed, versions=info.versions())
    try:
        if at_once:
            history = fit_at_once(model, splits["train"], splits["valid"], **loop, run=run, about=about)
        else:
            history = fit(model, splits["train"], splits["valid"], **loop, seed=arguments.seed, run=run, about=about)
    except OSError as error:
        raise OSError(f"could not write to {run}: {error}; what was saved there before is whole") from None
    kept = f"the weights of step {history.step}, valid {history.valid:.2f} nats, are in {run}"
    if history.interrupted:
        print(f"genmini: interrupted; {kept}", file=sys.stderr)
        return 130
    print(f"saved     {kept}")
    _say_likelihood(model, splits["test"])
    _picture(run / "samples.png", model, splits)
    print(f"picture   {run / 'samples.png'}")


def _picture(path, model, splits):
    """Data beside what the model makes of it."""
    import torch

    from genmini import data, plots

    test = splits["test"]
    if test.levels:
        side = min(8, len(test))
        panels = {"data (test)": test.x[: side * side], f"samples of {type(model).__name__}": model.sample(side * side).cpu()}
        plots.side_by_side(path, panels, test.levels)
    elif test.name in data.toys.TOYS:
        plots.plane(path, model, test, data.toys.TOYS[test.name].log_prob)
    else:
        plots.series(path, model, torch.cat([splits["train"].x[0], splits["valid"].x[0]]), test.x[0], splits["train"].y.item())


def _say_likelihood(model, data):
    import math

    from genmini.data import toys
    from genmini.train import evaluate

    nats, error = evaluate(model, data)
    likelihood = f"{nats:.3f} +- {error:.3f} nats"
    what, count = ("images", len(data)) if data.levels else ("points", len(data)) if data.name in toys.TOYS else ("numbers", data.x.numel())
    if data.levels:
        bits = 1 / (math.prod(data.shape) * math.log(2))
        likelihood += f", {nats * bits:.4f} +- {error * bits:.4f} bits/dim"
        likelihood += ", at most" * (getattr(model, "bounds", False))  # its log_prob is a lower bound
    print(f"{data.split:<9} {likelihood}   (mean and standard error over {count} {what} of {data.name})")
    if data.name in toys.TOYS:
        truth = -toys.TOYS[data.name].log_prob(data.x, data.y if getattr(model, "classes", 0) else None).mean().item()
        print(f"{'truth':<9} {truth:.3f} nats   (of the density that these points were drawn from)")


def _settings(pairs, model_class, fit, recipe):
    """The recipe's settings with --set KEY=VALUE over them: those of the model, those of the loop."""
    chosen = [dict(recipe["model"]), dict(recipe["train"])]
    fixed = {"self", "x", "shape", "levels", "device", "dtype", "model", "train", "valid", "run", "about", "progress", "seed"}
    known = [{k: p.default for k, p in inspect.signature(f).parameters.items() if k not in fixed} for f in (model_class, fit)]
    for pair in pairs:
        key, equals, text = pair.partition("=")
        part = next((i for i in (0, 1) if key in known[i]), None)
        if not equals or part is None:
            raise ValueError(f"--set takes KEY=VALUE, got {pair!r}; the keys are {', '.join([*known[0], *known[1]])}")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        like = chosen[part].get(key, known[part][key])
        kinds = (int, float) if isinstance(like, float) else tuple | int if isinstance(like, tuple) else type(like)
        if not isinstance(value, kinds) or (isinstance(value, bool) and not isinstance(like, bool)):
            raise ValueError(f"--set {key} takes a value like {like!r}, got {text!r}")
        chosen[part][key] = value
    return chosen


def _run_folder(arguments):
    if arguments.out:
        run = Path(arguments.out)
        if (run / "run.json").exists() and not arguments.overwrite:
            raise ValueError(f"{run} already holds a run: choose another --out, or say --overwrite")
        return run
    name = f"{arguments.model}-{arguments.data}"
    runs = (Path("runs") / (name if i == 1 else f"{name}-{i}") for i in itertools.count(1))
    return next(run for run in runs if not run.exists())


def _where(arguments, threads=None):
    """Set the threads and the backend; -> the device, which exists."""
    import torch

    from genmini import kernels

    if arguments.threads or threads:
        torch.set_num_threads(arguments.threads or threads)
    if arguments.backend:
        kernels.use(arguments.backend)
    kernels.requested()  # an unknown GENMINI_BACKEND is said here
    try:
        device = torch.device(arguments.device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"no device {arguments.device!r} here: {_one_line(error)[:200]}") from None
    return device


def sample(arguments):
    import numpy as np
    import torch

    from genmini import checkpoint, plots

    out = Path(arguments.out or Path(arguments.run_folder) / "grid.png")
    if out.suffix not in (".png", ".npy"):
        raise ValueError(f"--out takes a .png or a .npy file, got {out}")
    checkpoint.read(arguments.run_folder)
    model = checkpoint.load(arguments.run_folder, _where(arguments))
    torch.manual_seed(arguments.seed)
    x = model.sample(arguments.n).cpu()
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".npy":
        np.save(out, x.numpy(), allow_pickle=False)
    else:
        name = type(model).__name__
        plots.samples(out, f"{arguments.n} samples of {name}", x, model.levels)
    print(f"{arguments.n} samples in {out}")


def evaluate(arguments):
    import torch

    from genmini import checkpoint, data

    said = checkpoint.read(arguments.run_folder)
    if "data" not in said:
        raise ValueError(f"{arguments.run_folder}/run.json does not name its data")
    held_out = data.load(said["data"], arguments.split, arguments.data_dir)
    torch.manual_seed(0)  # some models draw noise to bound log p
    _say_likelihood(checkpoint.load(arguments.run_folder, _where(arguments)), held_out)
