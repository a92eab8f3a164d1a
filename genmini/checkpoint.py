"""A run is a folder: tensors in safetensors, all else in run.json. Nothing in it can run code, no reader sees half of it.

    checkpoint.save("runs/made", model, {"step": 800, "valid": 17.0})      as often as one likes: the last one stays
    model = genmini.load("runs/made");  model.log_prob(x);  model.sample(64)

The weights are written first, under a name of their own, and with them the state of a training that is not at its end;
then run.json, which names them, replaces the old one in one step: the folder always holds the old run or the new one.

Format 2 is written; runs of format 1 are read too, but not continued: their states hold one optimiser without a name.
"""

import json
from pathlib import Path

import safetensors.torch
import torch

from genmini import models
from genmini.files import write

FORMAT = 2
FORMAT_1_KEYS = {"then": "later"}  # key in run.json of format 1 -> the key now


def save(run, model, metadata, weights=None, state=None):
    """metadata: the step, and whatever else belongs to the run and is JSON; `read` returns it. weights: a state_dict in
    place of the model's. state: dicts and lists of tensors and JSON to continue from; `load_state` returns it."""
    name = type(model).__module__.rpartition(".")[2]
    if name not in models.MODELS or models.find(name) is not type(model):
        kind = f"{type(model).__module__}.{type(model).__name__}"
        raise ValueError(f"a run holds a model of genmini.models, not {kind}")
    run = Path(run)
    run.mkdir(parents=True, exist_ok=True)
    at = lambda step: f"{metadata['stage']}-{step}" if "stage" in metadata else step
    weights_file = f"model-{at(metadata['step'])}.safetensors"
    content = {"format": FORMAT, "model": name, "settings": model.settings, "weights": weights_file, **metadata}
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in (weights or model.state_dict()).items()}
    write(run / weights_file, safetensors.torch.save(tensors))
    if state is not None:
        tensors, state_file = {}, f"state-{at(state['step'])}.safetensors"
        content["state"] = {"step": state["step"], "tensors": state_file, "rest": _part(state, "", tensors)}
        write(run / state_file, safetensors.torch.save(tensors))
    write(run / "run.json", json.dumps(content, indent=1).encode())
    for old in [*run.glob("model-*.safetensors"), *run.glob("state-*.safetensors")]:
        if old.name not in (weights_file, content.get("state", {}).get("tensors")):
            old.unlink()


def _part(value, path, tensors):
    """The tensors of a nest go into `tensors` under their path; the rest is JSON, a dict as pairs, for number keys."""
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach().cpu().clone()
        return {"tensor": path}
    if isinstance(value, dict):
        return {"dict": [[key, _part(one, f"{path}/{key}", tensors)] for key, one in value.items()]}
    if isinstance(value, list | tuple):
        return [_part(one, f"{path}/{i}", tensors) for i, one in enumerate(value)]
    return value


def _join(value, tensors):
    """The inverse of `_part`, except that tuples come back as lists."""
    if isinstance(value, list):
        return [_join(one, tensors) for one in value]
    if isinstance(value, dict) and "tensor" in value:
        return tensors[value["tensor"]]
    if isinstance(value, dict):
        return {key: _join(one, tensors) for key, one in value["dict"]}
    return value


def read(run):
    """The metadata in run.json, in the keys of the present format."""
    path = Path(run) / "run.json"
    if not path.is_file():
        raise ValueError(f"{run} holds no run: there is no {path}")
    try:
        content = json.loads(path.read_text())
        if content["format"] not in (1, FORMAT):
            raise ValueError(f"{path} has format {content['format']}, and this version of genmini reads 1 and {FORMAT}")
        if content["format"] == 1:
            content = {FORMAT_1_KEYS.get(key, key): value for key, value in content.items()}
        return content
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from None


def load(run, device="cpu"):
    """The trained model of a run, in eval mode."""
    metadata = read(run)
    try:
        model = models.find(metadata["model"])(**metadata["settings"])
        model.load_state_dict(_tensors(run, metadata["weights"]))
    except (KeyError, TypeError, RuntimeError, FileNotFoundError, safetensors.SafetensorError) as error:
        raise _damaged(run, error) from None
    return model.to(device).eval()


def load_state(run):
    """The state that the training in `run` can continue from, and the weights beside it; (None, None) at its end."""
    metadata = read(run)
    check_resumable(run, metadata)
    if "state" not in metadata:
        return None, None
    try:
        tensors = _tensors(run, metadata["state"]["tensors"])
        return _join(metadata["state"]["rest"], tensors), _tensors(run, metadata["weights"])
    except (KeyError, TypeError, FileNotFoundError, safetensors.SafetensorError) as error:
        raise _damaged(run, error) from None


def check_resumable(run, metadata):
    """ValueError for a training of format 1 that is not at its end: this version cannot continue it."""
    if metadata["format"] == 1 and ("state" in metadata or metadata.get("later")):
        version = metadata.get("versions", {}).get("genmini", "before format 2")
        raise ValueError(f"{run} holds an unfinished training of format 1, by genmini {version}, which can continue it; "
                         f"this version continues format {FORMAT}: train anew, or use its weights as they are")  # fmt: skip


def _tensors(run, name):
    return safetensors.torch.load_file(Path(run) / Path(name).name)


def _damaged(run, error):
    return ValueError(f"{run} is damaged: {' '.join(str(error).split())}")
