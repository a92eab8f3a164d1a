"""What `genmini train`, `sample` and `eval` do, once the command line is read.

A run that ends before its end, for whatever reason, says what of it is saved: as a note on the error that ends it.
"""

import ast
import inspect
import io
import itertools
import json
import sys
import time
from functools import partial
from pathlib import Path

from genmini import info

# ---- train -----------------------------------------------------------------------------------------------------------------------------


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
        print(f"{arguments.data} in the version of this recipe: {name} ({data.SETS[name][0]})")
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


def picture(path, model, splits):
    """Data beside what the model makes of it."""
    import torch

    from genmini import data, plots
    from genmini.train import judge

    test = splits["test"]
    if not hasattr(model, "sample"):
        there = test.to(next(model.parameters()).device)
        hardest = judge(model, there.x, there.y).argsort(descending=True).cpu()
        panels = {"data (test)": test.x[:64], f"hardest for {type(model).__name__} (test)": test.x[hardest[:64]]}
        plots.side_by_side(path, panels, test.levels)
    elif test.levels:
        name, device, side = type(model).__name__, next(model.parameters()).device, min(8, len(test))
        columns, given, how = side, (), {}
        if getattr(model, "classes", 0) and hasattr(model, "reconstruct"):  # a column a class
            columns = model.classes
            given, how["y"] = (test.y[: side * columns].to(device),), torch.arange(side * columns, device=device) % columns
        panels = {"data (test)": test.x[: side * columns]}
        if hasattr(model, "reconstruct"):
            with torch.no_grad():
                panels["reconstructions"] = model.reconstruct(panels["data (test)"].to(device), *given).cpu()
        panels[f"samples of {name}"] = model.sample(side * columns, **how).cpu()
        plots.side_by_side(path, panels, test.levels, columns)
    elif test.name in data.toys.TOYS:
        plots.plane(path, model, test, data.toys.TOYS[test.name].log_prob)
    else:
        plots.series(path, model, torch.cat([splits["train"].x[0], splits["valid"].x[0]]), test.x[0], splits["train"].y.item())


def say(model, data, k=0):
    """The model's figures, each on a line, if it has more than one; else its likelihood. k: how many draws, where draws make it better."""
    (say_figures if hasattr(model, "figures") else say_likelihood)(model, data, **{"k": k} if hasattr(model, "figures") else {})


NATS = ("elbo", "iwae", "reconstruction", "kl", "bound", "rate", "N log K")  # figures that are; the others are in the unit that their name says


def say_figures(model, data, k):
    import math

    import torch

    from genmini.train import unit

    torch.manual_seed(0)  # some are draws: the same ones each time
    like, given = next(model.parameters()), bool(getattr(model, "classes", 0))
    sets = (data.x, data.y) if given else (data.x,)
    batches = zip(*(some.split(1000) for some in sets), strict=True)
    with torch.no_grad():
        parts = [model.figures(*(part.to(like.device) for part in batch), k=k) for batch in batches]
    widest = max(map(len, parts[0]))
    for name in parts[0]:
        values = torch.cat([part[name] for part in parts]).double()
        mean, error = values.mean().item(), (values.std() / math.sqrt(len(values))).item()
        if not math.isfinite(mean):
            raise FloatingPointError(f"the {name} of the {data.split} split of {data.name} is not finite: {mean}")
        line = f"{mean:.3f} +- {error:.3f}"
        if name.partition("-")[0] in NATS:
            line += f" {unit(model) if unit(model).startswith('nats') else 'nats'}"
            if "density" not in unit(model):  # a log-probability of levels is a length of code, less its sign
                bits = 1 / (math.prod(data.shape) * math.log(2))
                line += f", {abs(mean) * bits:.4f} +- {error * bits:.4f} bits/dim"
        print(f"{data.split:<9} {name:<{widest}} {line}")
    for name, value in (model.report() if hasattr(model, "report") else {}).items():  # of all that its figures were taken of
        print(f"{data.split:<9} {name:<{widest}} {value:.3f}")
    print(f"{'':<9} mean and standard error over {len(data)} images of {data.name}{', given the class' * given}")


def say_likelihood(model, data):
    import math

    from genmini.data import toys
    from genmini.train import evaluate

    nats, error = evaluate(model, data)
    if not math.isfinite(nats):
        raise FloatingPointError(f"the likelihood of the {data.split} split of {data.name} is not finite: {nats} nats")
    likelihood = f"{nats:.3f} +- {error:.3f} nats"
    what, count = ("images", len(data)) if data.levels else ("points", len(data)) if data.name in toys.TOYS else ("numbers", data.x.numel())
    if data.levels and hasattr(model, "log_prob"):  # of a density it would depend on the unit of x
        bits = 1 / (math.prod(data.shape) * math.log(2))
        likelihood += f", {nats * bits:.4f} +- {error * bits:.4f} bits/dim"
        likelihood += ", at most" * getattr(model, "bounds", False)  # its log_prob is a lower bound
    likelihood += ", given the class" * bool(getattr(model, "classes", 0))
    print(f"{data.split:<9} {likelihood}   (mean and standard error over {count} {what} of {data.name})")
    if data.name in toys.TOYS:
        truth = -toys.TOYS[data.name].log_prob(data.x, data.y if getattr(model, "classes", 0) else None).mean().item()
        print(f"{'truth':<9} {truth:.3f} nats   (of the density that these points were drawn from)")


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


# ---- sample, eval ----------------------------------------------------------------------------------------------------------------------


def sample(arguments):
    import numpy as np
    import torch

    from genmini import checkpoint, plots

    out = Path(arguments.out or Path(arguments.run_folder) / "grid.png")
    if out.suffix not in (".png", ".npy"):
        raise ValueError(f"--out takes a .png or a .npy file, got {out}")
    said = checkpoint.read(arguments.run_folder)
    model = checkpoint.load(arguments.run_folder, where(arguments))
    name, how = type(model).__name__, {}
    if not hasattr(model, "sample"):
        raise ValueError(f"the {name} in {arguments.run_folder} draws no samples: `genmini eval` says how well it judges them")
    if arguments.complete:
        how, panels = _halves(model, said, arguments)
    if arguments.how:
        if "how" not in inspect.signature(model.sample).parameters:
            raise ValueError(f"--how chooses between samplers, and {name} has one")
        how["how"] = arguments.how
    if arguments.mean:
        how["mean"] = _has_mean(model)
    if arguments.y is not None:
        if not getattr(model, "classes", 0):
            raise ValueError(f"-y names a class, and the {name} in {arguments.run_folder} was made without classes")
        if len(arguments.y) > 1 and not hasattr(model, "mixture"):
            raise ValueError(f"-y names several classes, and {name} takes one")
        how["y"] = arguments.y[0] if len(arguments.y) == 1 else model.mixture(arguments.y)
    torch.manual_seed(arguments.seed)
    x = model.sample(len(how["x"]) if arguments.complete else arguments.n, **how).cpu()
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".npy":
        content = io.BytesIO()
        np.save(content, x.numpy(), allow_pickle=False)
        checkpoint.write(out, content.getvalue())
    elif arguments.complete:
        plots.side_by_side(out, {**panels, f"completed by {name}": x}, model.levels)
    else:
        plots.samples(out, f"{len(x)} {'means' if arguments.mean else 'samples'} of {name}", x, model.levels)
    print(f"{len(x)} {'completions' if arguments.complete else 'means' if arguments.mean else 'samples'} in {out}")
    if not how.keys() - {"mean"} and hasattr(model, "says_of_samples"):
        print(f"note      {model.says_of_samples}")


def _has_mean(model):
    if "mean" not in inspect.signature(model.sample).parameters:
        raise ValueError(f"--mean is for models that draw pixels given something drawn before, and {type(model).__name__} is none")
    return True


def _halves(model, said, arguments):
    """Test images, of which the first half of the pixels, in the model's own order, is known -> what sample takes, and panels to show."""
    import math

    import torch

    from genmini import data

    if "known" not in inspect.signature(model.sample).parameters:
        raise ValueError(f"--complete is for models that draw pixel after pixel, and {type(model).__name__} is none")
    test = data.load(_data_of(said, arguments.run_folder), "test", arguments.data_dir)
    if arguments.n > len(test):
        raise ValueError(f"-n {arguments.n} halves are to be completed, and the {test.split} split of {test.name} has {len(test)} images")
    x, D = test.x[: arguments.n], math.prod(model.shape)
    like = next(model.parameters())
    how = dict(x=x.to(like.device), known=D // 2)
    if getattr(model, "classes", 0):
        how["y"] = test.y[: len(x)].to(like.device)
    order = getattr(model, "order", torch.arange(D)).cpu()
    given = x.float().flatten(1).index_fill(1, order[D // 2 :], math.nan).reshape(x.shape)
    return how, {f"data ({test.split})": x, "what is kept": given}


def _data_of(said, run):
    if "data" not in said:
        raise ValueError(f"{run}/run.json does not name its data")
    return said["data"]


def evaluate(arguments):
    import torch

    from genmini import checkpoint, data

    said = checkpoint.read(arguments.run_folder)
    held_out = data.load(_data_of(said, arguments.run_folder), arguments.split, arguments.data_dir)
    torch.manual_seed(0)  # some models draw noise to bound log p
    say(checkpoint.load(arguments.run_folder, where(arguments)), held_out, arguments.k)


# ---- score -----------------------------------------------------------------------------------------------------------------------------


def score(arguments):
    from genmini import checkpoint, data, metrics
    from genmini.metrics.score import lines

    run, device = arguments.run_folder, where(arguments)
    name = _data_of(checkpoint.read(run), run)
    model, network = checkpoint.load(run, device), metrics.network(arguments.features, device)
    train, test = (data.load(name, split, arguments.data_dir) for split in ("train", "test"))
    mean = arguments.mean and _has_mean(model)
    columns = metrics.score(model, network, train, test, arguments.n, arguments.seed, mean)
    print(f"features   {network.name}")
    print(f"samples    {arguments.n}{' means' * mean} of {type(model).__name__} in {run}, seed {arguments.seed}")
    print(f"real       of {name}, test; samples and real are held against {len(train)} of train")
    print("\n".join(["", *lines(columns)]))


# ---- study -----------------------------------------------------------------------------------------------------------------------------


def study(arguments):
    from genmini import studies

    asked = studies.find(arguments.study)
    if arguments.study == "latent-dim":
        return _study_of_dimensions(arguments, asked)
    for option in ("data", "recipe", "steps", "set", "dimensions"):
        if getattr(arguments, option):
            raise ValueError(f"--{option} is for `genmini study latent-dim`, which trains; {arguments.study} takes runs")
    if arguments.out and len(arguments.of) > 1:
        raise ValueError(f"--out names one picture, and there are {len(arguments.of)} runs: without it each gets its own")
    device, fits = where(arguments), 0
    for run in arguments.of:
        try:
            said = studies.study(arguments.study, run, arguments.out, arguments.data_dir, device, arguments.seed)
        except studies.Misfit as why:
            if len(arguments.of) == 1:
                raise
            print(f"genmini: {why}", file=sys.stderr)
            continue
        fits += 1
        print(f"{run}: {said}\npicture   {arguments.out or Path(run) / f'{arguments.study}.png'}")
    if not fits:
        raise ValueError(f"none of these {len(arguments.of)} runs fits {arguments.study}")


def _study_of_dimensions(arguments, asked):
    """Trains what is missing in --out, continues what is not at its end, and then looks at all of it."""
    from copy import copy

    from genmini import models
    from genmini.studies import Run

    if len(arguments.of) > 1 or not arguments.data:
        raise ValueError("latent-dim trains models of its own: genmini study latent-dim MODEL --data D")
    name = arguments.of[0]
    missing = [need for need in asked.NEEDS if not hasattr(models.find(name), need)]
    if missing:
        raise ValueError(f"{name} does not fit: it has no {' and no '.join(missing)}")
    out = Path(arguments.out or Path("runs") / f"latent-dim-{name}-{arguments.data}")
    runs = {}
    for d in arguments.dimensions or asked.DIMENSIONS:
        runs[d] = out / f"latent-{d}"
        one = copy(arguments)
        one.model, one.out, one.set, one.overwrite, one.tensorboard = name, str(runs[d]), [*arguments.set, f"latent={d}"], False, False
        one.resume = (runs[d] / "run.json").exists()
        if train(one):
            return 130
    device = where(arguments)
    said = asked.study({d: Run(run, arguments.data_dir, device, arguments.seed) for d, run in runs.items()}, out / "latent-dim.png")
    print(f"{said}\npicture   {out / 'latent-dim.png'}")
