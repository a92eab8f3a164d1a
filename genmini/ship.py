"""Put a trained run into the package, with its parameters in float16: for those who maintain genmini.

    python -m genmini.ship runs/imagen-shapes imagen        writes genmini/shipped/imagen; then `genmini sample imagen`

The shipped run is an ordinary one, without what a training needs to continue. Its other tensors, as whole numbers and
moments of texts, keep their bits. `checkpoint.load` gives a float32 model. A README.md beside the weights tells the
command that made the run: from run.json, by a comparison with the recipe of this name and the defaults of the model,
which may have changed. A run whose training is not at its end is refused; so are parameters that float16 cannot hold,
and data that lie in a folder of one machine.

    names and folders of shipped runs: genmini/checkpoint.py    test: tests/project/test_ship.py
"""

import argparse
import json
import re
import shlex
import sys
import textwrap
from pathlib import Path

import torch

from genmini import checkpoint, experiment, files, folder, models
from genmini.models._recorded import OF_DATA

LARGEST = 16 * 10**6  # bytes of a file of weights
NAME = r"[a-z][a-z0-9]*(-[a-z0-9]+)*"
LEFT_OUT = "state", "later", "digests", "weights", "format"  # of run.json: a training's, and what `save` writes anew


def ship(run, name, overwrite=False):
    """Write the run in the folder `run` as the shipped run of this name -> {what: its number or text}, to be shown."""
    if not re.fullmatch(NAME, name):
        raise ValueError(f"a shipped run has a name of small letters and digits, as imagen or digits-v1, got {name!r}")
    out = checkpoint.SHIPPED / name
    if not overwrite:
        folder.check_free(out)
    saved = checkpoint.read(run)
    if not experiment.is_finished(saved):
        raise ValueError(f"the training of {run} is not at its end: `train --resume` continues from "
                         f"{experiment.resumes_at(saved)}")
    if saved.get("source"):
        raise ValueError(f"{run} was trained on {saved['data']} in a folder of one machine: data that genmini has "
                         "itself can be shipped")
    made_by = command(saved, name)
    model = checkpoint.load(run)
    weights, error, worst = in_half(model)
    size = sum(tensor.nbytes for tensor in weights.values())
    if size > LARGEST:
        raise ValueError(f"the weights of {run} take {size / 1e6:.1f} MB in float16, and those of a shipped run take "
                         f"{LARGEST / 1e6:g} MB at most")
    checkpoint.save(out, model, {key: value for key, value in saved.items() if key not in LEFT_OUT}, weights)
    files.write(out / "README.md", readme(name, saved, made_by, error).encode())
    return {
        "run": f"{name}, {model.parameter_count:,} parameters of {type(model).__name__}",
        "size": f"{sum(path.stat().st_size for path in out.iterdir()) / 1e6:.2f} MB",
        "moved": f"{error:.1e} of the size of all parameters; most {worst[0]:.1e}, of {worst[1]}",
        "made by": made_by,
    }


def in_half(model):
    """-> the state_dict with its parameters in float16; how far this moved them all, of their size; (how far, which)
    of the one that it moved most. ValueError if one is not finite then."""
    weights, moved, size, worst = model.state_dict(), 0.0, 0.0, (0.0, "none")
    for key, parameter in model.named_parameters():
        weights[key] = parameter.detach().half()
        if not weights[key].isfinite().all():
            held = "not finite" if not parameter.isfinite().all() else f"up to {parameter.abs().max():.3g}"
            raise ValueError(f"float16 cannot hold {key}: its numbers are {held}, and the largest of float16 is "
                             f"{torch.finfo(torch.float16).max:g}")
        exact = parameter.detach().double()
        off, of = (weights[key].double() - exact).square().sum().item(), exact.square().sum().item()
        moved, size = moved + off, size + of
        worst = max(worst, ((off / of) ** 0.5 if of else 0.0, key))
    return weights, (moved / size) ** 0.5 if size else 0.0, worst


def command(saved, out):
    """The command that made the run of which run.json holds `saved`; ValueError if no command would do so now."""
    missing = next((key for key in ("data", "recipe_name", "recipe", "seed", "threads") if key not in saved), None)
    if missing:
        raise ValueError(f"run.json names no {missing}: `genmini train` writes runs that can be shipped")
    options = saved.get("options", {})
    plan = lambda *sets: experiment.plan(saved["model"], saved["data"], saved["recipe_name"], sets, seed=saved["seed"],
                                         size=options.get("size"), colour=options.get("colour", False),
                                         scenes=options.get("scenes"), column=options.get("column"))
    decides = lambda plan: completed(plan.settings, saved) | json.loads(json.dumps(plan.recipe))
    wanted, known = completed(saved["settings"], saved) | saved["recipe"], decides(plan())
    sets = [f"{key}={tuple(value) if isinstance(value, list) else value}"
            for key, value in wanted.items() if key not in known or known[key] != value]
    if decides(plan(*sets)) != wanted:
        raise ValueError(f"the recipe {saved['recipe_name']!r} of {saved['model']} has changed since this run was "
                         "made: no command of this version makes it again")
    words = ["genmini", "train", saved["model"], "--data", saved["data"]]
    words += ["--size", str(options["size"])] if "size" in options else []
    words += ["--scenes", str(options["scenes"])] if "scenes" in options else []
    words += ["--column", options["column"]] if "column" in options else []
    words += ["--colour"] if options.get("colour") else []
    words += ["--recipe", saved["recipe_name"], "--seed", str(saved["seed"]), "--threads", str(saved["threads"])]
    words += [word for each in sets for word in ("--set", each)]
    words += ["--device", saved["device"]] if saved.get("device", "cpu") != "cpu" else []
    words += ["--backend", saved["backend"]] if saved.get("backend", "auto") != "auto" else []
    return shlex.join([*words, "--out", out])


def completed(settings, saved):
    """Settings of the model of `saved`, with this version's defaults, as run.json holds them; without those of data"""
    of_data = {key: value for key, value in saved["settings"].items() if key in OF_DATA}
    with torch.device("meta"):
        complete = models.find(saved["model"])(**settings | of_data).settings
    return json.loads(json.dumps({key: value for key, value in complete.items() if key not in OF_DATA}))


def readme(name, saved, made_by, error):
    """What stands beside the weights."""
    versions = saved.get("versions", {})
    with_these = ", ".join(f"{what} {versions[key]}" for what, key in (("genmini", "genmini"), ("PyTorch", "torch"),
                                                                     ("Python", "python")) if key in versions)
    where = "a CPU" if saved.get("device", "cpu") == "cpu" else f"a GPU ({saved['device']})"
    judged = f", where valid was {saved['valid']:.5g}" if saved.get("valid") is not None else ""
    stage = f" of the stage {saved['stage']}" if "stage" in saved else ""
    what = f"A run that comes with genmini: {saved['model']}, trained on {saved['data']}. It was made by"
    how = (f"with {with_these or 'versions that are not known'} on {where}. Other versions or processors may give "
           "other bits, so the weights are kept here and not made anew. They are those of "
           f"step {saved['step']}{stage}{judged}. The second command rounded the parameters to float16, which moved "
           f"them by {error:.1e} of their size. MIT licence, like the rest; the project's README says where its data "
           "come from.")
    commands = f"    {made_by}\n    python -m genmini.ship {name} {name}"
    return f"# {name}\n\n{what}\n\n{commands}\n\n{textwrap.fill(how, 120)}\n"


def main(words=None):
    parser = argparse.ArgumentParser(prog="python -m genmini.ship", description=__doc__.splitlines()[0])
    parser.add_argument("run", metavar="RUN", help="a folder that `genmini train` wrote")
    parser.add_argument("name", metavar="NAME", help="what `genmini sample NAME` will call it")
    parser.add_argument("--overwrite", action="store_true", help="replace the shipped run of this name")
    arguments = parser.parse_args(words)
    try:
        shown = ship(Path(arguments.run), arguments.name, arguments.overwrite)
    except (ValueError, OSError) as error:
        print(f"genmini.ship: {error}", file=sys.stderr)
        return 2
    for what, value in shown.items():
        print(f"{what}: {value}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
