"""A recipe becomes a run: choose the recipe and its settings, build the model, train or resume it, take its figures.

    plan = experiment.plan("made", "digits", assignments=["hidden=300"])
    splits = experiment.splits(plan)
    model = experiment.build(plan, splits["train"])
    history = experiment.train(plan, model, splits, run="runs/made")
    experiment.figures(model, splits["test"])                        [Figure("", 17.1, 0.3, "nats", (0.386, 0.007))]

Functions return values and print nothing, apart from the progress bar of the loop.
"""

import ast
import contextlib
import inspect
import itertools
import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from genmini import checkpoint, data, files, info, kernels, models
from genmini.data import toys
from genmini.train import evaluate, fit, fit_at_once, fit_in_stages, judge, unit

# ---- plan ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """All that decides the bits of a training, apart from the machine."""

    model: str  # a name of models.MODELS
    recipe_name: str
    data: str  # a name of data.SETS: the one asked for, or the version of it that the recipe is for
    settings: dict  # of the model
    loops: list  # the settings of the loop, a dict for each stage
    seed: int
    threads: int | None  # of the recipe
    options: dict  # of the data: size and colour of images, {} of all else

    @property
    def model_class(self):
        return models.find(self.model)

    @property
    def stages(self):
        return getattr(self.model_class, "stages", ())

    @property
    def at_once(self):
        """Whether the model is fitted without steps."""
        return hasattr(self.model_class, "fit")

    @property
    def recipe(self):
        """Every setting under the name that --set gives it."""
        later = zip(self.stages[1:], self.loops[1:], strict=True)
        return self.settings | self.loops[0] | {f"{stage}.{key}": loop[key] for stage, loop in later for key in loop}


def plan(model, data_name, recipe=None, assignments=(), steps=None, seed=0, size=None, colour=False):
    """The recipe of this name (default: the one for the data) with `assignments` "KEY=VALUE" and `steps` over it.

    size, colour: of the data `images`.
    """
    model_class = models.find(model)
    options = data.options(data_name, size, colour)
    name, chosen, data_name = _recipe(model, data_name, recipe, colour)
    at_once = hasattr(model_class, "fit")
    settings, *loops = _settings(assignments, model_class, model_class.fit if at_once else fit, chosen)
    if steps and at_once:
        raise ValueError(f"{model} is fitted at once: it takes no --steps")
    if steps:
        loops = [loop | dict(steps=steps) for loop in loops]
    return Plan(model, name, data_name, settings, loops, seed, chosen.get("threads"), options)


def _recipe(model, wanted, name, colour=False):
    """-> the name of the recipe, the recipe, and the data: `wanted`, or the version of it that the recipe is for.

    The user's own grey images follow the recipes for MNIST; images in colour the one named "colour".
    """
    recipes = models.recipes(model)
    for_wanted = "mnist" if data.family(wanted) in data.OWN else wanted
    named = [key for key, recipe in recipes.items() if for_wanted in (key, recipe["data"])]
    related = [key for key, recipe in recipes.items() if data.family(recipe["data"]) == data.family(for_wanted)]
    key = name or next(iter(["colour"] * ("colour" in recipes) if colour else named + related), None)
    if key not in recipes:
        missing = f"no recipe {key!r}" if name else f"no recipe for {wanted!r}" + " in colour" * colour
        raise ValueError(f"{model} has {missing}; its recipes are {', '.join(recipes)} (choose one with --recipe)")
    meant = recipes[key]["data"]
    if data.kind(meant) != data.kind(wanted):
        raise ValueError(f"the recipe {key!r} of {model} is for {data.kind(meant)}, "
                         f"and {wanted} is {data.kind(wanted)}")  # fmt: skip
    how = meant.partition("-")[2]  # a model of two levels: how such data become binary
    how = "threshold" if how and not name else how
    binary = f"{wanted}-{how}"
    return key, recipes[key], binary if binary in data.SETS else wanted


def _settings(assignments, model_class, fit, recipe):
    """The recipe's settings with "KEY=VALUE" over them: the model's, the loop's, and STAGE.KEY of later stages."""
    later = getattr(model_class, "stages", ())[1:]
    chosen = [dict(recipe[part]) for part in ("model", "train", *later)]
    fixed = {"self", "x", "shape", "levels", "device", "dtype", "model", "train", "valid", "run", "about", "watch",
             "resume", "progress", "seed", "before"}  # fmt: skip
    known = [{k: default for k, default in _parameters(f).items() if k not in fixed} for f in (model_class, fit)]
    known += known[1:] * len(later)
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        stage, _, key = name.rpartition(".")
        parts = [later.index(stage) + 2] if stage in later else [] if stage else [0, 1]
        part = next((i for i in parts if key in known[i]), None)
        if not equals or part is None:
            wrong = f"--set knows no key {name!r}" if equals else f"--set takes KEY=VALUE, got {assignment!r}"
            keys = [*known[0], *known[1], *(f"{stage}.{key}" for stage in later for key in known[1])]
            raise ValueError(f"{wrong}; the keys are {', '.join(keys)}")
        chosen[part][key] = _value(name, text, like=chosen[part].get(key, known[part][key]))
    return chosen


LIMITS = (  # settings that mean the same in every model and loop: names, what they take in words, and as a function
    ({"hidden", "width", "latent", "K", "dim", "layers", "couplings", "components", "features", "masks", "first", "kernel", "p",
      "prior_width", "steps", "batch", "every"}, "whole numbers from 1", lambda v: v >= 1),
    ({"blocks", "prior_blocks", "scales", "halvings", "classes", "patience"}, "whole numbers from 0", lambda v: v >= 0),
    ({"dropout", "prior_dropout", "ema", "average"}, "a share of at least 0 and below 1", lambda v: 0 <= v < 1),
    ({"shift", "binary", "miss"}, "a share from 0 to 1", lambda v: 0 <= v <= 1),
    ({"rate", "clip"}, "a number above 0", lambda v: v > 0),
    ({"decay", "free_bits", "beta"}, "a number from 0", lambda v: v >= 0),
)  # fmt: skip


def _value(name, text, like):
    """The value that `text` spells, of the kind of `like`."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    kinds = (int, float) if isinstance(like, float) else tuple | int if isinstance(like, tuple) else type(like)
    each = value if isinstance(value, tuple) else (value,)
    fits = isinstance(value, kinds) and not (isinstance(value, bool) and not isinstance(like, bool))
    fits = fits and (not isinstance(like, tuple) or all(type(v) is type(like[0]) for v in each))
    if not fits or any(isinstance(v, int) and abs(v) >= 2**63 for v in each):
        raise ValueError(f"--set {name} takes a value like {like!r}, got {text!r}")
    wrong = next((v for v in each if isinstance(v, float) and not math.isfinite(v)), None)
    if wrong is not None:
        raise ValueError(f"--set {name} takes a finite number, got {text!r}, which is {wrong}")
    key = name.rpartition(".")[2]
    for limited, allowed, fits in LIMITS:
        if key in limited and not all(fits(v) for v in each):
            raise ValueError(f"--set {name} takes {allowed}, got {text}")
    return value


def _parameters(f):
    """What f takes, with its defaults; of a class that hands **settings to its base, what the base takes, too."""
    own = inspect.signature(f).parameters.values()
    taken = _parameters(f.__base__) if any(p.kind == p.VAR_KEYWORD for p in own) else {}
    return taken | {p.name: p.default for p in own if p.kind != p.VAR_KEYWORD}


# ---- train ---------------------------------------------------------------------------------------------------------


def splits(plan, data_dir=None):
    """-> {"train": Data, "valid": Data, "test": Data}"""
    return {split: data.load(plan.data, split, data_dir, **plan.options) for split in data.SPLITS}


def build(plan, train, device="cpu"):
    """The model with the weights that the seed gives; train: the split that it will learn from."""
    torch.manual_seed(plan.seed)
    with torch.device(device):
        model = plan.model_class(train.shape, levels=train.levels, **plan.settings)
    classes = getattr(model, "classes", 0)
    if classes and train.classes == 0:
        raise ValueError(f"this {plan.model} learns from classes, and {train.source['folder']} has none: "
                         "it needs labels, or sub-folders")  # fmt: skip
    if classes and train.classes not in (None, classes):
        raise ValueError(f"this {plan.model} is made for {classes} classes, and {train.source['folder']} has "
                         f"{train.classes}: --set classes={train.classes}")  # fmt: skip
    return model


def train(plan, model, splits, run=None, watch=None, resume=False, overwrite=False, progress=True):
    """Train the model as planned, in the folder `run` if there is one -> History.

    No other process trains in `run` meanwhile. An error carries a note of what `run` keeps; if that is nothing, what was
    written is removed.
    """
    learn, valid = splits["train"], splits["valid"]
    if run is None:
        return _fit(plan)(model, learn, valid, **({} if plan.at_once else dict(watch=watch, progress=progress)))
    device = next(model.parameters()).device
    begun = {key: value for key, value in identity(plan, device).items() if key not in ("model", "data")}
    about = begun | dict(threads=torch.get_num_threads(), versions=info.versions())
    about |= {"source": data.record(splits)} if learn.source else {}
    more = {} if plan.at_once else dict(watch=watch, resume=resume, progress=progress)
    with what_is_kept(run):
        try:
            with _alone(Path(run), resume, overwrite):
                return _fit(plan)(model, learn, valid, run=run, about=about, **more)
        except OSError as error:
            if error.errno is None:  # the message names the file
                raise
            raise OSError(f"could not write to {run}: {error.strerror}") from None


@contextlib.contextmanager
def _alone(run, resume, overwrite):
    """Hold the run's folder for one training."""
    run.mkdir(parents=True, exist_ok=True)
    try:
        with files.lock(run):
            if not resume and not overwrite:
                check_free(run)
            files.remove_stale(run)
            if overwrite:
                (run / "run.json").unlink(missing_ok=True)  # so that nothing of the old run is taken for the new one's
            try:
                yield
            finally:
                if not (run / "run.json").exists():
                    _remove(run)
    finally:
        with contextlib.suppress(OSError):  # it holds something
            run.rmdir()


def _remove(run):
    """Remove what a training writes."""
    for pattern in ("metrics.jsonl", "samples.png", "model-*.safetensors", "state-*.safetensors", "tensorboard/events.*"):
        for path in run.glob(pattern):
            path.unlink()
    with contextlib.suppress(OSError):
        (run / "tensorboard").rmdir()


def _fit(plan):
    if plan.at_once:
        return partial(fit_at_once, **plan.loops[0])
    if plan.stages:
        return partial(fit_in_stages, loops=plan.loops, seed=plan.seed)
    return partial(fit, **plan.loops[0], seed=plan.seed)


# ---- runs ----------------------------------------------------------------------------------------------------------


def new_folder(name):
    """Make the folder runs/NAME, numbered if that is taken; of two callers at a time each gets one of its own."""
    for i in itertools.count(1):
        folder = Path("runs") / (name if i == 1 else f"{name}-{i}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder


def check_free(run):
    """ValueError if the folder holds a run."""
    if (Path(run) / "run.json").exists():
        raise ValueError(f"{run} already holds a run: choose another --out, or say --resume or --overwrite")


def identity(plan, device):
    """What a resumed training must have in common with its beginning, or its bits would be others."""
    return dict(model=plan.model, data=plan.data, options=plan.options, recipe_name=plan.recipe_name, recipe=plan.recipe,
                seed=plan.seed, device=device.type, backend=kernels.requested())  # fmt: skip


def check_resume(run, saved, plan, device, splits):
    """ValueError if the run, of which run.json holds `saved`, was begun otherwise, or on other data."""
    flat = lambda settings: {"options": {}, **settings, **settings.get("recipe", {})}
    was, now = flat(saved), flat(json.loads(json.dumps(identity(plan, device))))
    for key in now:
        if key != "recipe" and was.get(key) != now[key]:
            raise ValueError(f"the run in {run} was begun with {key} {was.get(key)!r}, not {now[key]!r}: "
                             "--resume takes what it was begun with")  # fmt: skip
    for split in splits.values():
        data.check_same(split, saved.get("source"))


def is_finished(saved):
    """Whether nothing is left to resume in the run of which run.json holds `saved`."""
    return "state" not in saved and not saved.get("then")


def resumes_at(saved):
    """Where the training continues, in words."""
    if "state" not in saved:
        return f"the stage {saved['then'][0]}"
    return f"step {saved['state']['step']}" + (f" of the stage {saved['stage']}" if "stage" in saved else "")


@contextlib.contextmanager
def what_is_kept(run):
    """Adds notes to an error that passes: what of the run is saved, and where --resume would continue."""
    try:
        yield
    except (OSError, RuntimeError, MemoryError, KeyboardInterrupt) as error:
        try:
            saved = checkpoint.read(run)
        except (ValueError, OSError):
            error.add_note(f"nothing was saved in {run}")
            raise error from None
        error.add_note(f"the weights of step {saved['step']} are in {run}")
        if not is_finished(saved):
            error.add_note(f"--resume continues from {resumes_at(saved)}")
        raise error from None


# ---- figures -------------------------------------------------------------------------------------------------------

NATS = ("elbo", "iwae", "reconstruction", "kl")  # figures in nats; the unit of the others is in their name


@dataclass(frozen=True)
class Figure:
    """A number of a model on a split: the mean over its examples, and the standard error of that mean."""

    name: str  # "": the likelihood, of a model without other figures
    mean: float
    error: float | None = None  # None: a number of the whole split
    unit: str = ""
    bits: tuple | None = None  # mean and error in bits per dimension, where the figure is a length of code


def figures(model, split, k=0):
    """Every figure of the model on the split -> [Figure]. k: the draws for an image, of models that bound log p by them.

    Draws are those of seed 0, so that the figures are the same each time.
    """
    torch.manual_seed(0)
    if not hasattr(model, "figures"):
        return likelihood(model, split)
    like, given = next(model.parameters()), bool(getattr(model, "classes", 0))
    tensors = (split.x, split.y) if given else (split.x,)
    batches = zip(*(tensor.split(1000) for tensor in tensors), strict=True)
    with torch.no_grad():
        parts = [model.figures(*(tensor.to(like.device) for tensor in batch), k=k) for batch in batches]
    found = []
    for name in parts[0]:
        values = torch.cat([part[name] for part in parts]).double()
        mean, error = values.mean().item(), (values.std() / math.sqrt(len(values))).item()
        _check_finite(mean, name, split)
        in_nats, density = name.partition("-")[0] in NATS, "density" in unit(model)
        name_of_unit = (unit(model) if unit(model).startswith("nats") else "nats") if in_nats else ""
        found.append(Figure(name, mean, error, name_of_unit, _bits(mean, error, split) if in_nats and not density else None))
    report = model.report() if hasattr(model, "report") else {}  # of all that the figures were taken of
    return found + [Figure(name, value) for name, value in report.items()]


def likelihood(model, split):
    """-log p of an example, in nats; of a toy also the same under the density that it was drawn from, "truth"."""
    nats, error = evaluate(model, split)
    _check_finite(nats, "likelihood", split)
    coded = split.levels and hasattr(model, "log_prob")  # bits of a density would depend on the unit of x
    found = [Figure("", nats, error, "nats", _bits(nats, error, split) if coded else None)]
    if split.name in toys.TOYS:
        y = split.y if getattr(model, "classes", 0) else None
        found.append(Figure("truth", -toys.TOYS[split.name].log_prob(split.x, y).mean().item(), None, "nats"))
    return found


def _check_finite(mean, name, split):
    if not math.isfinite(mean):
        raise FloatingPointError(f"the {name} of the {split.split} split of {split.name} is not finite: {mean}")


def _bits(mean, error, split):
    """Nats an image in bits per dimension; a log-probability counts as the length of code that it is."""
    bits = 1 / (math.prod(split.shape) * math.log(2))
    return abs(mean) * bits, error * bits


# ---- pictures ------------------------------------------------------------------------------------------------------


def panels(model, splits):
    """Images to look at side by side, data, reconstructions and samples -> {title: images}, columns of a panel."""
    test, name, device = splits["test"], type(model).__name__, next(model.parameters()).device
    if not hasattr(model, "sample"):
        there = test.to(device)
        hardest = judge(model, there.x, there.y).argsort(descending=True).cpu()
        return {"data (test)": test.x[:64], f"hardest for {name} (test)": test.x[hardest[:64]]}, 8
    side = min(8, len(test))
    columns, given, how = side, False, {}
    if getattr(model, "classes", 0) and hasattr(model, "reconstruct"):  # a column a class
        columns = model.classes
        given, how["y"] = True, torch.arange(side * columns, device=device) % columns
    shown = {"data (test)": test.x[: side * columns]}
    if hasattr(model, "reconstruct"):
        train = splits["train"]
        shown = {"data (train)": train.x[: side * columns], "reconstructed (train)": None, **shown}
        for split in (train, test):
            x, y = (part[: side * columns].to(device) for part in (split.x, split.y))
            with torch.no_grad():
                shown[f"reconstructed ({split.split})"] = model.reconstruct(x, *((y,) if given else ())).cpu()
    shown[f"samples of {name}"] = model.sample(side * columns, **how).cpu()
    return shown, columns


def halves(model, test, n):
    """The first n test images with the first half of their pixels known, in the model's own order
    -> what `sample` takes to draw the rest, and {title: images} to show."""
    x, D, like = test.x[:n], math.prod(model.shape), next(model.parameters())
    known = dict(x=x.to(like.device), known=D // 2)
    if getattr(model, "classes", 0):
        known["y"] = test.y[: len(x)].to(like.device)
    order = getattr(model, "order", torch.arange(D)).cpu()
    given = x.float().flatten(1).index_fill(1, order[D // 2 :], math.nan).reshape(x.shape)
    return known, {f"data ({test.split})": x, "what is kept": given}
