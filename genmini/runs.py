"""What `genmini sample`, `eval`, `score` and `study` do with a run, once the command line is read."""

import inspect
import io
import sys
from pathlib import Path

from genmini.commands import train, where
from genmini.report import say


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
    if arguments.out and Path(arguments.out).suffix != ".png":
        raise ValueError(f"--out takes a .png file, got {arguments.out}")
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
