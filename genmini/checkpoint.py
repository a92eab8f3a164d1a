"""A run is a folder: tensors in safetensors, all else in run.json. Nothing in it can run code, and a reader never sees half of it.

    checkpoint.save("runs/made", model, {"step": 800, "valid": 17.0})      again and again: the last one stays
    model = genmini.load("runs/made");  model.log_prob(x);  model.sample(64)

The weights are written first, under a name of their own, with them the state of a training that is not at its end; then run.json, which
points to them, replaces the old one in one step: there is no moment at which the folder is not the old run or the new one.
"""

import json
from pathlib import Path

import safetensors.torch
import torch

from genmini import models
from genmini.files import write

FORMAT = 1


def save(run, model, about, weights=None, state=None):
    """about: the step, and whatever else belongs to the run and is JSON; it comes back from `read`. weights: not those of the model now.

    state: dicts and lists of tensors and JSON, as `fit` continues from; it comes back from `load_state`.
    """
    name = type(model).__module__.rpartition(".")[2]
    if name not in models.MODELS or models.find(name) is not type(model):
        raise ValueError(f"a run holds a model of genmini.models, not {type(model).__module__}.{type(model).__name__}")
    run = Path(run)
    run.mkdir(parents=True, exist_ok=True)
    at = lambda step: f"{about['stage']}-{step}" if "stage" in about else step
    said = {"format": FORMAT, "model": name, "settings": model.settings, "weights": f"model-{at(about['step'])}.safetensors", **about}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in (weights or model.state_dict()).items()}
    write(run / said["weights"], safetensors.torch.save(tensors))
    if state is not None:
        tensors = {}
        said["state"] = {"step": state["step"], "tensors": f"state-{at(state['step'])}.safetensors", "rest": _part(state, "", tensors)}
        write(run / said["state"]["tensors"], safetensors.torch.save(tensors))
    write(run / "run.json", json.dumps(said, indent=1).encode())
    for old in [*run.glob("model-*.safetensors"), *run.glob("state-*.safetensors")]:
        if old.name not in (said["weights"], said.get("state", {}).get("tensors")):
            old.unlink()


def _part(value, path, tensors):
    """The tensors of a nest go into `tensors` under their path; what is left of it is JSON. (Its keys may be numbers: so a dict is pairs.)"""
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach().cpu().clone()
        return {"tensor": path}
    if isinstance(value, dict):
        return {"dict": [[key, _part(one, f"{path}/{key}", tensors)] for key, one in value.items()]}
    if isinstance(value, list | tuple):
        return [_part(one, f"{path}/{i}", tensors) for i, one in enumerate(value)]
    return value


def _join(value, tensors):
    """The inverse of `_part`, tuples apart: they come back as lists."""
    if isinstance(value, list):
        return [_join(one, tensors) for one in value]
    if isinstance(value, dict) and "tensor" in value:
        return tensors[value["tensor"]]
    if isinstance(value, dict):
        return {key: _join(one, tensors) for key, one in value["dict"]}
    return value


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
        model = models.find(said["model"])(**said["settings"])
        model.load_state_dict(_tensors(run, said["weights"]))
    except (KeyError, TypeError, RuntimeError, FileNotFoundError, safetensors.SafetensorError) as error:
        raise _damaged(run, error) from None
    return model.to(device).eval()


def load_state(run):
    """The state that the training in `run` can continue from, and the weights that were saved with it; (None, None) at its end."""
    said = read(run)
    if "state" not in said:
        return None, None
    try:
        return _join(said["state"]["rest"], _tensors(run, said["state"]["tensors"])), _tensors(run, said["weights"])
    except (KeyError, TypeError, FileNotFoundError, safetensors.SafetensorError) as error:
        raise _damaged(run, error) from None


def _tensors(run, name):
    return safetensors.torch.load_file(Path(run) / Path(name).name)


def _damaged(run, error):
    return ValueError(f"{run} is damaged: {' '.join(str(error).split())}")
