"""A recipe becomes a run: choose the recipe and its settings, build the model, train or resume it, take its figures.

    plan = experiment.plan("made", "digits", assignments=["hidden=300"])
    splits = experiment.splits(plan)
    model = experiment.build(plan, splits["train"])
    history = experiment.train(plan, model, splits, run="runs/made")
    experiment.figures(model, splits["test"])                        [Figure("", 17.1, 0.3, "nats", (0.386, 0.007))]

Functions return values and print nothing, apart from progress on stderr: of a training, and of a download.
"""

import ast
import contextlib
import inspect
import itertools
import json
import math
from dataclasses import dataclass

import torch

from genmini import checkpoint, data, info, kernels, metrics, models
from genmini.data import toys, unpaired
from genmini.means import mean_and_error
from genmini.models._recorded import NOT_STORED, OF_DATA
from genmini.train import Loop, fit

# ---- plan ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """All that decides the bits of a training, apart from the machine."""

    model: str  # a name of models.MODELS
    recipe_name: str
    data: str  # a name of data.SETS: the one that was named, or the version of it that the recipe is for
    settings: dict  # of the model
    loops: list  # the settings of the loop, a dict for each stage
    seed: int
    threads: int | None  # of the recipe
    options: dict  # of the data: size, colour, captions and scenes of images, the column of csv; {} of all else

    @property
    def model_class(self):
        return models.find(self.model)

    @property
    def stages(self):
        return self.model_class.stages

    @property
    def at_once(self):
        """Whether the model is fitted without steps."""
        return not self.model_class.cannot("fit")

    @property
    def recipe(self):
        """Every setting under the name that --set gives it."""
        later = zip(self.stages[1:], self.loops[1:], strict=True)
        return self.settings | self.loops[0] | {f"{stage}.{key}": loop[key] for stage, loop in later for key in loop}


def plan(model, data_name, recipe=None, assignments=(), steps=None, seed=0, size=None, colour=False, scenes=None,
         column=None):
    """The recipe of this name (default: the one for the data) with `assignments` "KEY=VALUE" and `steps` over it.

    size, colour: of the data `images` and `shapes`; scenes: of `shapes`, how many to learn from (default: the
    recipe's); column: of `csv`
    """
    model_class = models.find(model)
    options = data.options(data_name, size, colour, scenes=scenes or 0, column=column)
    name, chosen, data_name = _recipe(model, data_name, recipe, colour)
    if data.family(data_name) == "shapes":
        scenes = scenes or chosen.get("scenes")
    options = data.options(data_name, size, colour, model_class.captions, scenes or 0, column)
    at_once = not model_class.cannot("fit")
    settings, *loops = _settings(assignments, model_class, model_class.fit if at_once else Loop, chosen)
    if steps and at_once:
        raise ValueError(f"{model} is fitted at once: it takes no --steps")
    if steps:
        loops = [loop | dict(steps=steps) for loop in loops]
    return Plan(model, name, data_name, settings, loops, seed, chosen.get("threads"), options)


def _recipe(model, wanted, name, colour=False):
    """-> the name of the recipe, the recipe, and the data: `wanted`, or the version of it that the recipe is for.

    The user's own grey images, and shapes without colours, follow the recipes for MNIST; images in colour the one named
    "colour", unless there is one for shapes and they are; so do grey ones of the user's own, of a model that has none
    for MNIST. A series of the user's own follows that for `series`.
    """
    recipes, colour = models.recipes(model), data.in_colour(wanted, colour)
    like_mnist = not colour and data.family(wanted) in (*data.OWN, "shapes")
    for_wanted = "mnist" if like_mnist else "series" if wanted == "csv" else wanted
    named = [key for key, recipe in recipes.items() if for_wanted in (key, recipe["data"])]
    related = [key for key, recipe in recipes.items() if data.family(recipe["data"]) == data.family(for_wanted)]
    in_any = ["colour"] * ("colour" in recipes and (colour or data.family(wanted) in data.OWN))
    key = name or next(iter(named + related + in_any), None)
    if key not in recipes:
        missing = f"no recipe {key!r}" if name else f"no recipe for {wanted!r}" + " in colour" * colour
        raise ValueError(f"{model} has {missing}; its recipes are {', '.join(recipes)} (choose one with --recipe)")
    recipe_data = recipes[key]["data"]
    if data.kind(recipe_data) != data.kind(wanted):
        raise ValueError(f"the recipe {key!r} of {model} is for {data.kind(recipe_data)}, "
                         f"and {wanted} is {data.kind(wanted)}")
    binary = f"{wanted}-{recipe_data.partition('-')[2]}"  # the recipe says how levels become two
    return key, recipes[key], binary if binary in data.SETS else wanted


def _settings(assignments, model_class, loop, recipe):
    """The recipe's settings with "KEY=VALUE" over them: the model's, the loop's, and STAGE.KEY of later stages."""
    later = model_class.stages[1:]
    chosen = [dict(recipe[part]) for part in ("model", "train", *later)]
    fixed = {"self", "x", *OF_DATA, *NOT_STORED}
    known = [{k: default for k, default in _parameters(f).items() if k not in fixed} for f in (model_class, loop)]
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


def _value(name, text, like):
    """The value that `text` spells, of the kind of `like`. The model and the loop check it further."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # the last three: nested without end
        value = text
    kinds = (int, float) if isinstance(like, float) else tuple | int if isinstance(like, tuple) else type(like)
    values = value if isinstance(value, tuple) else (value,)
    fits = isinstance(value, kinds) and not (isinstance(value, bool) and not isinstance(like, bool))
    fits = fits and (not isinstance(like, tuple) or all(type(v) is type(like[0]) for v in values))
    if not fits or any(isinstance(v, int) and abs(v) >= 2**63 for v in values):
        raise ValueError(f"--set {name} takes a value like {like!r}, got {text[:60]!r}")
    wrong = next((v for v in values if isinstance(v, float) and not math.isfinite(v)), None)
    if wrong is not None:
        raise ValueError(f"--set {name} takes a finite number, got {text!r}, which is {wrong}")
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
        model = plan.model_class.of_data(train, **plan.settings)
    classes, where = model.classes, train.source["folder"] if train.source else train.name
    if classes and train.classes == 0:
        raise ValueError(f"this {plan.model} learns from classes, and {where} has none: "
                         "it needs labels, or sub-folders")
    if classes and train.classes not in (None, classes):
        raise ValueError(f"this {plan.model} is made for {classes} classes, and {where} has "
                         f"{train.classes}" + f": --set classes={train.classes}" * ("classes" in model.settings))
    return model


def train(plan, model, splits, run=None, watch=None, resume=False, overwrite=False, progress=True):
    """Train the model as planned, in the folder `run` if there is one -> History.

    No other process trains in `run` meanwhile. An error carries a note of what `run` keeps; if that is nothing, what
    was written is removed.
    """
    later = dict(zip(model.stages[1:], plan.loops[1:], strict=False)) if model.stages else None
    measure = _measure(model, splits["valid"])
    settings = dict(**plan.loops[0], later=later, seed=plan.seed, watch=watch, measure=measure, resume=resume,
                    progress=progress)
    if run is None:
        return fit(model, splits["train"], splits["valid"], **settings)
    begun = {key: value for key, value in identity(plan, model.device).items() if key not in ("model", "data")}
    metadata = begun | dict(threads=torch.get_num_threads(), versions=info.versions())
    metadata |= {"source": data.record(splits)} if splits["train"].source else {}
    with what_is_kept(run):
        try:
            return fit(model, splits["train"], splits["valid"], run=run, metadata=metadata, overwrite=overwrite,
                       **settings)
        except OSError as error:
            if error.errno is None:  # the message names the file
                raise
            raise OSError(f"could not write to {run}: {error.strerror}") from None


def _measure(model, valid):
    """A function of a model -> {name: number}, what the metrics tell beside its losses; or None."""
    if model.judged_by_samples:
        return metrics.measure(valid)
    if _is_known(model, valid):
        return lambda model: {name: v.mean().item() for name, v in metrics.translation(model, valid).items()}
    return None


def _is_known(model, split):
    """Whether the model translates images whose true translations are known."""
    return not model.cannot("translate") and split.name in unpaired.OF


# ---- runs ----------------------------------------------------------------------------------------------------------


def identity(plan, device):
    """What a resumed training must have in common with its beginning, or its bits would be others."""
    return dict(model=plan.model, data=plan.data, options=plan.options, recipe_name=plan.recipe_name,
                recipe=plan.recipe, seed=plan.seed, device=device.type, backend=kernels.requested())


def check_resume(run, saved, plan, device, splits):
    """ValueError if the run, of which run.json holds `saved`, was begun otherwise, on other data, or in format 1."""
    checkpoint.check_resumable(run, saved)
    flat = lambda settings: {"options": {}, **settings, **settings.get("recipe", {})}
    was, now = flat(saved), flat(json.loads(json.dumps(identity(plan, device))))
    for key in now:
        if key != "recipe" and was.get(key) != now[key]:
            raise ValueError(f"the run in {run} was begun with {key} {was.get(key)!r}, not {now[key]!r}: "
                             "continue it with what it was begun with, or choose another folder (--out)")
    for split in splits.values():
        data.check_same(split, saved.get("source"))


def is_finished(saved):
    """Whether nothing is left to resume in the run of which run.json holds `saved`."""
    return "state" not in saved and not saved.get("later")


def resumes_at(saved):
    """Where the training continues, in words."""
    if "state" not in saved:
        return f"the stage {saved['later'][0]}"
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

NATS = ("nll", "elbo", "iwae", "reconstruction", "kl", "cross entropy")  # others name their unit themselves


@dataclass(frozen=True)
class Figure:
    """A number of a model on a split: the mean over its examples, and the standard error of that mean."""

    name: str  # "": -log p, of a model without other figures; "truth": of a toy, the same under its own density
    mean: float
    error: float | None = None  # None: a number of the whole split
    unit: str = ""
    bits: tuple | None = None  # mean and error in bits per dimension, where the figure is a length of code


def figures(model, split, k=0):
    """Every figure of the model on the split -> [Figure]. k: the draws for an image, where log p is bounded by them.

    Draws are those of seed 0, so that the figures are the same each time.
    """
    torch.manual_seed(0)
    x, y = split.x.split(1000), split.y.split(1000) if model.takes_y else itertools.repeat(None)
    to = lambda tensor: None if tensor is None else tensor.to(model.device)
    with torch.no_grad():
        parts = [model.figures(to(x_b), y=to(y_b), k=k) for x_b, y_b in zip(x, y, strict=False)]
    of_examples, shown = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}, []
    if _is_known(model, split):
        of_examples |= metrics.translation(model, split)
    for name, values in of_examples.items():
        mean, error = mean_and_error(values)
        error = None if math.isnan(error) and len(values) == 1 else error
        if not math.isfinite(mean):
            what = "likelihood" if name == "nll" else name
            raise FloatingPointError(f"the {what} of the {split.split} split of {split.name} is not finite: {mean}")
        shown.append(Figure("" if name == "nll" else name, mean, error, *_units(model, name, mean, error, split)))
    if shown[0].name == "" and split.name in toys.TOYS:
        y = split.y if model.classes else None
        shown.append(Figure("truth", -toys.TOYS[split.name].log_prob(split.x, y).mean().item(), None, "nats"))
    report = model.report(to(split.x), y=to(split.y) if model.takes_y else None)
    return shown + [Figure(name, value) for name, value in report.items()]


def _units(model, name, mean, error, split):
    """-> the unit of a figure; its mean and error in bits per dimension, where it is the length of a code."""
    kind = name.partition("-")[0]
    if kind not in NATS:
        return "", None
    of_z = kind in ("kl", "cross entropy")  # no part of it is a density of x
    unit = model.unit if model.unit.startswith("nats") and name != "nll" and not of_z else "nats"
    # bits of a density would depend on the unit of x, and a part of an image has fewer dimensions
    is_code = split.levels and not model.of_text and kind != "cross entropy" and not model.unit.startswith("nats ")
    bits = 1 / (math.prod(split.shape) * math.log(2))
    return unit, (abs(mean) * bits, None if error is None else error * bits) if is_code else None
