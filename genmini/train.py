"""Training: a model's parameters minimise its losses on train, and the weights that are best on valid stay.

    model = MADE(train.shape)
    history = fit(model, train, valid, steps=1000, run="runs/made")        # the model now has the best weights
    nll, error = evaluate(model, test)                                     # nats, and the standard error of their mean

`fit` checks what it is given and holds the run's folder. Each stage of a model is learnt by the same loop, a `Training`
of genmini/loop.py; a model that needs no steps is solved by its own `fit` (AR).

    used by: genmini/experiment.py    test: tests/project/test_train.py, tests/project/test_resume.py
"""

import contextlib
import json
import os
import time
from pathlib import Path

from genmini import checkpoint, files, folder
from genmini.data import Data
from genmini.loop import History, Loop, Training
from genmini.means import mean_and_error
from genmini.models._judge import judge
from genmini.models._model import Model
from genmini.settings import whole


def fit(model, train, valid, *, later=None, method=None, seed=0, run=None, metadata=None, watch=None, measure=None,
        resume=False, overwrite=False, progress=True, **settings):
    """Train the model by a `Loop` of these settings -> History. The best weights on valid stay, in the model and in the
    folder `run`, where no other process trains meanwhile.

    later: of a model with stages, the settings of each stage after the first, {"prior": dict(steps=400)}; the model's
    `begin` is called before each stage, which starts from the best weights of the one before. Without `later`, only the
    stage that the model is at is learnt. method: of a model that is solved and takes no steps (AR); no other takes it.

    Every `every` steps the loss on valid is taken and watch(row, model) is called. measure(model) -> {name: number}:
    what else the metrics then tell; its "valid", if it has one, is what the weights are judged by. The same seed gives
    the same model; so does `resume`, which continues the training in `run`. `overwrite` replaces the run that is there.
    The first Ctrl-C stops after this step, the second raises KeyboardInterrupt. A loss that is not finite raises
    FloatingPointError. metadata: JSON that belongs to the run.
    """
    _check_same_kind(model, train, valid)
    _check_rest(seed, run, metadata, later, watch=watch, measure=measure)
    if later is not None and tuple(later) != tuple(model.stages[1:]):
        raise ValueError(f"later takes the settings of the stages {model.stages[1:]}, got those of {tuple(later)}")
    if resume and run is None:
        raise ValueError("resume continues the training in run, and none is given")
    solved = not model.cannot("fit")
    if solved and settings:
        raise ValueError(f"{type(model).__name__} is solved at once: it takes no {', '.join(settings)}")
    if not solved and method is not None:
        raise ValueError(f"method is for models that are solved: {model.cannot('fit')}")
    loops = [] if solved else [Loop(**dict(steps=None) | own) for own in (settings, *(later or {}).values())]
    for stage, loop in zip(("", *(later or {})), loops, strict=not solved):
        try:
            loop.check(train)
        except ValueError as error:
            raise ValueError(f"{stage}.{error}" if stage else str(error)) from None
    more = dict(seed=seed, run=run, watch=watch, measure=measure, progress=progress)
    with folder.held(run, resume, overwrite) if run else contextlib.nullcontext():
        if solved:
            return _solve(model, train, valid, method, run, metadata)
        if later is None or not model.stages:
            return Training(model, train, valid, loops[0], metadata, **more).train(resume)
        return _stages(model, train, valid, loops, metadata, resume, more)


def _check_rest(seed, run, metadata, later, **functions):
    """ValueError for what `fit` takes beside the settings of the loop."""
    whole(0, 2**63 - 1, seed=seed)
    if run is not None and not isinstance(run, str | os.PathLike):
        raise ValueError(f"run must be the path of a folder, got {run!r}")
    if run is not None:
        files.check_name(run)
    try:
        json.dumps(metadata)  # now rather than after hours
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata must be JSON: {error}") from None
    if later is not None and not (isinstance(later, dict) and all(isinstance(own, dict) for own in later.values())):
        raise ValueError(f"later must be the settings of each later stage, {{stage: dict(steps=...)}}, got {later!r}")
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise ValueError(f"{name} must be a function, got {function!r}")


def _stages(model, train, valid, loops, metadata, resume, more):
    """One `Training` a stage, each from the best weights of the one before -> the History of the last."""
    run, saved, before = more["run"], checkpoint.read(more["run"]) if resume else {}, ()
    if saved:
        checkpoint.check_resumable(run, saved)
    if saved and "state" not in saved and not saved.get("later"):
        raise ValueError(f"the training in {run} is at its end: there is nothing to resume")
    for i, (stage, loop) in enumerate(zip(model.stages, loops, strict=True)):
        if saved.get("stage", stage) != stage:
            continue  # the run is past this stage
        if saved and "state" not in saved:  # it came to the end of this stage
            model.load_state_dict(checkpoint.load(run).state_dict())
            before, saved = rows_of(run), {}
            continue
        model.begin(stage, train)
        here = {**(metadata or {}), "stage": stage, "later": model.stages[i + 1 :]}
        training = Training(model, train, valid, loop, here, before=before, **more)
        history, saved = training.train(bool(saved)), {}
        before = [*training.before, *history.rows]
        if history.stopped == "interrupted":
            break
    return history


def rows_of(run):
    """What metrics.jsonl of this run holds: a dict for each evaluation"""
    try:
        rows = [json.loads(row) for row in (Path(run) / "metrics.jsonl").read_text().splitlines()]
        strange = [row for row in rows if not isinstance(row, dict) or type(row.get("step")) is not int]
        if strange:
            raise ValueError(f"{strange[0]!r:.40} has no step")
        return rows
    except (ValueError, OSError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise ValueError(f"{run} is damaged: metrics.jsonl holds no rows of metrics ({str(error)[:80]})") from None


def _solve(model, train, valid, method, run, metadata):
    """The model's own `fit`, in the place of the loop."""
    began = time.perf_counter()
    model.fit(train.x, **({} if method is None else dict(method=method)))
    losses = {"train": evaluate(model, train)[0], "valid": evaluate(model, valid)[0]}
    row = dict(step=1, **losses, seconds=round(time.perf_counter() - began, 2))
    if run:
        checkpoint.save(run, model, {"data": train.name, **(metadata or {}), "step": 1, "valid": row["valid"]})
        (Path(run) / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    model.eval()
    return History(step=1, valid=row["valid"], rows=[row], last=1)


def evaluate(model, data):
    """The mean loss over the examples and its standard error; for series, over all x_t given the earlier ones."""
    _check_same_kind(model, data)
    if model.cannot("log_prob_each"):
        values = judge(model, data.x.to(model.device), data.y.to(model.device))
    else:
        values = -model.log_prob_each(data.x.to(model.device)).flatten()
    return mean_and_error(values)


def _check_same_kind(model, *sets):
    if not isinstance(model, Model):
        raise ValueError(f"model must be a genmini.models Model, got {type(model).__name__}")
    for data in sets:
        if not isinstance(data, Data):
            raise ValueError(f"data must be a genmini.data.Data, got {type(data).__name__}")
        fits = len(model.shape) == len(data.shape)  # a side None of the model takes any length
        fits = fits and all(a in (b, None) for a, b in zip(model.shape, data.shape, strict=True))
        if not len(data):
            raise ValueError(f"the {data.split} split of {data.name} is empty")
        if not fits or model.levels != data.levels:
            takes, has = (f"{tuple(one.shape)} with {one.levels} levels" for one in (model, data))
            raise ValueError(f"the model takes {takes}, and {data.name} has {has}")
