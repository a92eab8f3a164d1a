"""A run is a folder: weights in safetensors, all else in run.json. Nothing in it can run code, and a reader never sees half of it.

    checkpoint.save("runs/made", model, {"step": 800, "valid": 17.0})      again and again: the last one stays
    model = genmini.load("runs/made");  model.log_prob(x);  model.sample(64)

The weights are written first, under a name of their own; then run.json, which points to them, replaces the old one in one step.
"""

import json
import os
from pathlib import Path

import safetensors.torch

from genmini import models

FORMAT = 1


def save(run, model, about):
    """about: the step, and whatever else belongs to the run and is JSON; it comes back from `read`."""
    name = type(model).__module__.rpartition(".")[2]
    if name not in models.MODELS or models.find(name) is not type(model):
        raise ValueError(f"a run holds a model of genmini.models, not {type(model).__module__}.{type(model).__name__}")
    run = Path(run)
    run.mkdir(parents=True, exist_ok=True)
    weights = f"model-{about['step']}.safetensors"
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    _write(run / weights, safetensors.torch.save(tensors))
    said = {"format": FORMAT, "model": name, "settings": model.settings, "weights": weights, **about}
    _write(run / "run.json", json.dumps(said, indent=1).encode())
    for old in run.glob("model-*.safetensors"):
        if old.name != weights:
            old.unlink()


def _write(path, content):
    """All of it or nothing: a full disk or a power cut leaves the old file."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read(run):
    """What run.json says."""
    path = Path(run) / "run.json"
    if not path.is_file():
        raise ValueError(f"{run} holds no run: there is no {path}")
    try:
        said = json.loads(path.read_text())
        if said["format"] != FORMAT:
            raise ValueError(f"{path} has format {said['format']}, and this version of genmini reads {FORMAT}")
        return said
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from None


def load(run, device="cpu"):
    """The trained model of a run, in eval mode."""
    said = read(run)
    try:
        name, settings, path = said["model"], said["settings"], Path(run) / Path(said["weights"]).name
        model = models.find(name)(**settings)
        model.load_state_dict(safetensors.torch.load_file(path))
    except (KeyError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
        raise ValueError(f"{run} is damaged: {' '.join(str(error).split())}") from None
    return model.to(device).eval()
