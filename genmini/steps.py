"""What `genmini profile` measures: a step of training or of sampling, of a recipe or of a run, or the user's own code.

    step = of_recipe(experiment.plan("vae", "digits"))         a training step, from the weights of seed 0
    step = of_run("runs/vae-digits", samples=64)               64 draws of a trained run
    step = of_function("mine:step")                            mine.step(), of mine.py in this folder
    profile = profiling.measured(step.run, step.device, module=step.module)

    used by: genmini/cli/profile.py    test: tests/project/test_cli_profile.py
"""

import dataclasses
import importlib
import os
import sys
from typing import NamedTuple

import torch

from genmini import checkpoint, data, experiment, profiling
from genmini.loop import Loop
from genmini.models._model import Model


class Step(NamedTuple):
    run: object  # a function without arguments
    what: str
    device: str
    module: Model | None = None


def of_recipe(plan, device="cpu", data_dir=None, stage=None, samples=0):
    """A step of training by the plan, of its first stage unless another is named, from the weights of its seed; or so
    many samples."""
    train = experiment.splits(plan, data_dir)["train"]
    model = experiment.build(plan, train, device)
    return _step(model, train, dict(zip(model.stages or ("",), plan.loops, strict=False)), stage,
                 f"{plan.model}, recipe {plan.recipe_name}", samples, plan.seed)


def of_run(run, device="cpu", data_dir=None, stage=None, samples=0):
    """The same of a run: of the stage that it is at, with its weights."""
    folder = checkpoint.place(run)
    saved, model = checkpoint.read(folder), checkpoint.load(folder, device)
    if samples:
        return _step(model, None, {}, stage, f"{saved['model']} of {run}", samples)
    if "recipe" not in saved:
        raise ValueError(f"{run} does not say how it was trained: its run.json holds no recipe; --sample profiles how "
                         "it draws")
    fields, recipe = [field.name for field in dataclasses.fields(Loop)], saved["recipe"]
    of_stage = lambda prefix: {name: recipe[prefix + name] for name in fields if prefix + name in recipe}
    stages = model.stages or ("",)
    loops = {stage: of_stage(f"{stage}." if i else "") for i, stage in enumerate(stages)}
    here = stage or saved.get("stage") or stages[-1]
    return _step(model, data.of_run(saved, "train", data_dir), loops, here, f"{saved['model']} of {run}", 0)


def of_function(name):
    """module:function, found as `python -m` finds modules: its code runs when it is imported, and at each step."""
    module, _, function = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"{name} is no module:function: {error}") from None
    except Exception as error:
        raise ValueError(f"{name}: {module!r} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(os.getcwd())
    run = vars(found).get(function)
    if not callable(run):
        raise ValueError(f"{module} ({found.__file__}) has no function {function!r} to profile")
    def step():
        try:
            run()
        except Exception as error:
            raise RuntimeError(f"{name} raised {type(error).__name__}: {error}") from error

    return Step(step, f"{name}, your own code in {found.__file__}", "cpu")


def _step(model, train, loops, stage, name, samples, seed=0):
    device = str(model.device)
    if samples:
        if model.cannot("sample"):
            raise ValueError(f"--sample does not fit: {model.cannot('sample')}")
        model.eval()
        return Step(lambda: _drawn(model, samples, seed), f"{name}: {samples} samples", device, model)
    if stage is not None and stage not in loops:
        raise ValueError(f"{name} has no stage {stage!r}; its stages are {', '.join(filter(None, loops)) or 'one'}")
    stage = stage or next(iter(loops))
    if model.stages:
        model.begin(stage, train)
    settings, of_stage = loops[stage], f", stage {stage}" * bool(stage)
    if not model.cannot("fit"):
        return Step(profiling.training_step(model, train, **settings), f"{name}: solved at once", device, model)
    batch = settings.get("batch", Loop.batch)
    return Step(profiling.training_step(model, train, seed, **settings),
                f"{name}{of_stage}: a training step of {batch} examples", device, model)


def _drawn(model, n, seed):
    torch.manual_seed(seed)
    model.sample(n)
