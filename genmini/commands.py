"""What `genmini train` does, once the command line is read; what is done with runs stands in runs.py.

A run that ends before its end, for whatever reason, says what of it is saved: as a note on the error that ends it.
"""

import ast
import inspect
import itertools
import json
import sys
import time
from functools import partial
from pathlib import Path

from genmini import info
from genmini.report import picture, say


def train(arguments):
    from genmini import checkpoint, data, kernels, models
    from genmini.train import fit, fit_at_once, fit_in_stages, unit

    model_class = models.find(arguments.model)
    key, recipe, name = _recipe(models.recipes(arguments.model), arguments)
    at_once = hasattr(model_class, "fit")  # a model that is fitted without steps
    stages = getattr(model_class, "stages", ())
    settings, *loops = _settings(arguments.set, model_class, model_class.fit if at_once else fit, recipe)
    for option in ("steps", "tensorboard") if at_once else ():
        if getattr(arguments, option):
            raise ValueError(f"{arguments.model} is fitted at once: it takes no --{option}")
    if arguments.steps:
        for loop in loops:
            loop["steps"] = arguments.steps
    run = _run_folder(arguments)
    said = checkpoint.read(run) if arguments.resume else {}
    device = where(arguments, said.get("threads") or recipe.get("threads"))

    import torch

    flat = settings | loops[0] | {f"{stage}.{k}": v for stage, loop in zip(stages[1:], loops[1:], strict=True) for k, v in loop.items()}
    asked = dict(model=arguments.model, data=name, recipe_name=key, recipe=flat, seed=arguments.seed)
    asked |= dict(device=device.type, backend=kernels.requested())
    if said:
        _begun_so(run, said, asked)

    splits = {split: data.load(name, split, arguments.data_dir) for split in data.SPLITS}
    first = splits["train"]
    torch.manual_seed(arguments.seed)
    with torch.device(device):
        model = model_class(first.shape, levels=first.levels, **settings)
    if name != arguments.data:
        print(f"{arguments.data} is taken as {name} ({data.SETS[name][0]})")
    size = lambda x: len(x) if len(x) > 1 else x.numel()  # of one series, its length
    sizes = " / ".join(f"{size(splits[split].x)} {split}" for split in data.SPLITS)
    parameters = sum(p.numel() for p in model.parameters())
    how = "fitted at once" if at_once else " + ".join(str(loop["steps"]) for loop in loops) + " steps"
    print(f"{arguments.model} on {name}: {sizes}, {parameters:,} parameters, {how} on {device}")
    about = {k: v for k, v in asked.items() if k not in ("model", "data")} | dict(threads=torch.get_num_threads(), versions=info.versions())
    if said and "state" not in said and not said.get("then"):
        print(f"resumed   {run} is at its end already")
        model = checkpoint.load(run, device)
        kept = f"the weights of step {said['step']} are in {run}"
    else:
        try:
            if arguments.overwrite:
                (run / "run.json").unlink(missing_ok=True)  # so that nothing of the old run is taken for the new one's
            if at_once:
                history = fit_at_once(model, splits["train"], splits["valid"], **loops[0], run=run, about=about)
            else:
                if said:
                    print(f"resumed   {run} at {_where(said)}")
                    if said["versions"] != info.versions():
                        print(f"note      begun with {said['versions']}: other versions, perhaps other bits")
                watch = _watch(run, splits, arguments.seed, arguments.tensorboard)
                learn = partial(fit_in_stages, loops=loops) if stages else partial(fit, **loops[0])
                history = learn(model, splits["train"], splits["valid"], seed=arguments.seed, run=run, about=about, watch=watch, resume=bool(said))
        except OSError as error:
            raise _noted(OSError(f"could not write to {run}: {error}"), run) from None
        except (RuntimeError, MemoryError, KeyboardInterrupt) as error:
            raise _noted(error, run) from None
        kept = f"the weights of step {history.step}, valid {history.valid:.2f} {unit(model)}, are in {run}"
        if history.stopped == "interrupted":
            print(f"genmini: interrupted; {kept}; --resume continues from {_where(checkpoint.read(run))}", file=sys.stderr)
            return 130
        if history.stopped == "early":
            print(f"stopped   at step {history.last}: {loops[-1]['patience']} evaluations without a better one")
    print(f"saved     {kept}")
    try:
        say(model, splits["test"])
        picture(run / "samples.png", model, splits)
    except (OSError, RuntimeError, MemoryError, KeyboardInterrupt) as error:
        raise _noted(error, run) from None
    print(f"picture   {run / 'samples.png'}")
    if hasattr(model, "says_of_samples") and not getattr(model, "classes", 0):  # of classes, the picture shows each
        print(f"note      {model.says_of_samples}")


def _recipe(recipes, arguments):
    """-> the name of the recipe, the recipe, and the data: what --data names, or the version of it that the recipe is for."""
    from genmini import data

    wanted = arguments.data
    data.check(wanted)
    family = lambda name: name.partition("-")[0]
    named = [key for key, recipe in recipes.items() if wanted in (key, recipe["data"])]
    related = [key for key, recipe in recipes.items() if family(recipe["data"]) == family(wanted)]
    key = arguments.recipe or next(iter(named + related), None)
    if key not in recipes:
        asked = f"no recipe {key!r}" if arguments.recipe else f"no recipe for {wanted!r}"
        raise ValueError(f"{arguments.model} has {asked}; its recipes are {', '.join(recipes)} (choose one with --recipe)")
    meant = recipes[key]["data"]
    if data.kind(meant) != data.kind(wanted):
        raise ValueError(f"the recipe {key!r} of {arguments.model} is for {data.kind(meant)}, and {wanted} is {data.kind(wanted)}")
    how = meant.partition("-")[2]  # a model of two levels: how such data become binary
    how = "threshold" if how and not arguments.recipe else how
    binary = f"{wanted}-{how}"
    return key, recipes[key], binary if binary in data.SETS else wanted


def _begun_so(run, said, asked):
    """The run that is to be continued must have been begun with what is asked now, or its bits would be others."""
    asked = json.loads(json.dumps(asked))
    flat = lambda of: {**of, **of.get("recipe", {})}
    was, now = flat(said), flat(asked)
    for key in now:
        if key != "recipe" and was.get(key) != now[key]:
            raise ValueError(f"the run in {run} was begun with {key} {was.get(key)!r}, not {now[key]!r}: --resume takes what it was begun with")


def _noted(error, run):
    from genmini import checkpoint

    try:
        said = checkpoint.read(run)
    except (ValueError, OSError):
        error.add_note(f"nothing was saved in {run}")
        return error
    error.add_note(f"the weights of step {said['step']} are in {run}")
    if "state" in said or said.get("then"):
        error.add_note(f"--resume continues from {_where(said)}")
    return error


def _where(said):
    """Where the training that run.json tells of goes on."""
    if "state" not in said:
        return f"the stage {said['then'][0]}"
    return f"step {said['state']['step']}" + (f" of the stage {said['stage']}" if "stage" in said else "")


def _watch(run, splits, seed, tensorboard):
    """What is done at every evaluation: metrics for TensorBoard, and a picture as long as pictures take a 20th of the time or less."""
    import torch

    from genmini.train import unit

    writer = None
    if tensorboard:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ValueError("--tensorboard needs the package tensorboard: pip install genmini[tensorboard]") from None
        writer = SummaryWriter(run / "tensorboard")
    began, spent = time.perf_counter(), 0.25  # seconds, as a guess: so the first picture comes after five

    def watch(row, model):
        nonlocal spent
        if writer:
            of_stage = f"{row['stage']}/" if "stage" in row else ""
            for name in (name for name in row if name not in ("stage", "step", "seconds")):
                writer.add_scalar(of_stage + (f"{unit(model)}/{name}" if name in ("train", "valid") else name), row[name], row["step"])
            writer.flush()
        before = time.perf_counter()
        if spent <= (before - began) / 20:
            torch.manual_seed(seed)  # the same noise each time: the same samples, getting better
            picture(run / "samples.png", model, splits)
            spent += time.perf_counter() - before

    return watch


def _settings(pairs, model_class, fit, recipe):
    """The recipe's settings with --set KEY=VALUE over them: those of the model, those of the loop, and STAGE.KEY of each later stage's loop."""
    later = getattr(model_class, "stages", ())[1:]
    chosen = [dict(recipe[part]) for part in ("model", "train", *later)]
    fixed = {"self", "x", "shape", "levels", "device", "dtype", "model", "train", "valid", "run", "about", "watch", "resume", "progress", "seed",
             "before"}  # fmt: skip
    known = [{k: default for k, default in _parameters(f).items() if k not in fixed} for f in (model_class, fit)]
    known += known[1:] * len(later)
    for pair in pairs:
        name, equals, text = pair.partition("=")
        stage, _, key = name.rpartition(".")
        parts = [later.index(stage) + 2] if stage in later else [] if stage else [0, 1]
        part = next((i for i in parts if key in known[i]), None)
        if not equals or part is None:
            what = f"--set knows no key {name!r}" if equals else f"--set takes KEY=VALUE, got {pair!r}"
            keys = [*known[0], *known[1], *(f"{stage}.{key}" for stage in later for key in known[1])]
            raise ValueError(f"{what}; the keys are {', '.join(keys)}")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        like = chosen[part].get(key, known[part][key])
        kinds = (int, float) if isinstance(like, float) else tuple | int if isinstance(like, tuple) else type(like)
        each = value if isinstance(value, tuple) else (value,)
        fits = isinstance(value, kinds) and not (isinstance(value, bool) and not isinstance(like, bool))
        fits = fits and (not isinstance(like, tuple) or all(type(v) is type(like[0]) for v in each))
        if not fits or any(isinstance(v, int) and abs(v) >= 2**63 for v in each):
            raise ValueError(f"--set {name} takes a value like {like!r}, got {text!r}")
        chosen[part][key] = value
    return chosen


def _parameters(f):
    """What f takes, with its defaults; of a class that hands **settings to the one it comes from, what that one takes, too."""
    own = inspect.signature(f).parameters.values()
    taken = _parameters(f.__base__) if any(p.kind == p.VAR_KEYWORD for p in own) else {}
    return taken | {p.name: p.default for p in own if p.kind != p.VAR_KEYWORD}


def _run_folder(arguments):
    if arguments.out:
        run = Path(arguments.out)
        if (run / "run.json").exists() and not (arguments.overwrite or arguments.resume):
            raise ValueError(f"{run} already holds a run: choose another --out, or say --resume or --overwrite")
        return run
    if arguments.resume:
        raise ValueError("--resume continues the run in --out, and none is given")
    name = f"{arguments.model}-{arguments.data}"
    runs = (Path("runs") / (name if i == 1 else f"{name}-{i}") for i in itertools.count(1))
    return next(run for run in runs if not run.exists())


def where(arguments, threads=None):
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
        torch.empty(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"no device {arguments.device!r} here: {one_line(error)[:200]}") from None
    return device


def one_line(error):
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "can't allocate memory" in text:
        return f"out of memory: a smaller batch (--set batch=...) or model may fit ({text[:120]})"
    return text
