"""A run is a folder: tensors in safetensors, all else in run.json. It holds no code, and no reader sees half of it.

    checkpoint.save("runs/made", model, {"step": 800, "valid": 17.0})      each call replaces what the one before saved
    model = genmini.load("runs/made");  model.log_prob(x);  model.sample(64)
    model = genmini.load("digits-v1")                               a run that comes with genmini, of genmini/shipped

The weights are written first, under a name of their own, and with them the state of a training that is not at its end;
then run.json, which names them, replaces the old one in one step: the folder always holds the old run or the new one.
run.json holds the SHA-256 of each file and of itself, so that a changed byte is found: "RUN is damaged: ...".

Format 2 is written; runs of format 1 are read too, but not continued: their states hold one optimiser without a name.
"""

import errno
import hashlib
import json
import os
import re
from pathlib import Path

import safetensors.torch
import torch

from genmini import models
from genmini.files import check_name, write

FORMAT = 2
FORMAT_1_KEYS = {"then": "later"}  # key in run.json of format 1 -> the key now
SHIPPED = Path(__file__).with_name("shipped")  # the folder of the runs that come with genmini
SINCE_FORMAT_2 = ("digests", "options", "source")

# What run.json may hold besides the user's own keys: key -> its type, and whether it must be there
KEYS = {
    "format": (int, True), "model": (str, True), "settings": (dict, True), "weights": (str, True), "step": (int, True),
    "valid": (int | float | None, False), "data": (str, False), "recipe_name": (str, False), "recipe": (dict, False),
    "seed": (int, False), "device": (str, False), "backend": (str, False), "threads": (int, False),
    "versions": (dict, False), "stage": (str, False), "later": (list, False), "state": (dict, False),
    "digests": (dict, False), "options": (dict, False), "source": (dict | None, False),
}


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
    digests = {weights_file: _write(run / weights_file, tensors)}
    if state is not None:
        tensors, state_file = {}, f"state-{at(state['step'])}.safetensors"
        content["state"] = {"step": state["step"], "tensors": state_file, "rest": _flattened(state, "", tensors)}
        digests[state_file] = _write(run / state_file, tensors)
    content["digests"] = digests
    digests["run.json"] = _digest(_bytes_to_digest(content))
    write(run / "run.json", _lines(content).encode())
    for old in run.iterdir():
        if is_weights(old.name) and old.name not in (weights_file, content.get("state", {}).get("tensors")):
            old.unlink()


def is_weights(name):
    """Whether `save` gives its files such names."""
    return bool(re.fullmatch(r"(model|state)-([a-z]+-)?\d+\.safetensors", name))


def _write(path, tensors):
    """Write the tensors -> the digest of the file"""
    content = safetensors.torch.save(tensors)
    write(path, content)
    return _digest(content)


def _lines(content):
    """JSON, a line for each key: `indent` of json.dumps takes ten times as long, over every number of the state."""
    return "{\n" + ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()) + "\n}"


def _digest(content):
    return hashlib.sha256(content).hexdigest()


def _bytes_to_digest(content):
    """The bytes of run.json that its own digest is of: all but that digest."""
    others = {name: digest for name, digest in content["digests"].items() if name != "run.json"}
    return json.dumps(content | {"digests": others}).encode()


def _flattened(value, path, tensors):
    """The tensors of a nest go into `tensors` under their path; the rest is JSON, a dict as pairs, for number keys."""
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": path}
    if isinstance(value, dict):
        return {"dict": [[key, _flattened(one, f"{path}/{key}", tensors)] for key, one in value.items()]}
    if isinstance(value, list | tuple):
        return [_flattened(one, f"{path}/{i}", tensors) for i, one in enumerate(value)]
    return value


def _rebuilt(value, tensors):
    """The inverse of `_flattened`, except that tuples come back as lists."""
    if isinstance(value, list):
        return [_rebuilt(one, tensors) for one in value]
    if isinstance(value, dict) and "tensor" in value:
        return tensors[value["tensor"]]
    if isinstance(value, dict):
        return {key: _rebuilt(one, tensors) for key, one in value["dict"]}
    return value


def shipped():
    """The names of the runs that come with genmini. `python -m genmini.ship` adds one."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/run.json"))


def is_shipped(run):
    """Whether this is the name of a run that comes with genmini, and of no folder here."""
    return str(run) in shipped() and not Path(run).is_dir()


def place(run):
    """What a command calls RUN, a folder or the name of a run that comes with genmini -> the folder."""
    return SHIPPED / str(run) if is_shipped(run) else Path(run)


def read(run):
    """The metadata in run.json of this folder, in the keys of the present format."""
    return _metadata(run, _bytes(run))


def _bytes(run):
    check_name(run)
    path = Path(run) / "run.json"
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise ValueError(f"{run} holds no run: there is no {path}") from None


def _metadata(run, text):
    """What the bytes of run.json say, checked."""
    try:
        content = json.loads(text.decode())
    except UnicodeDecodeError as error:
        raise _damaged(run, f"run.json is no UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise _damaged(run, f"run.json is no JSON at line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError):  # a number of too many digits, too many brackets
        raise _damaged(run, "run.json is not what genmini writes") from None
    if not isinstance(content, dict) or type(content.get("format")) is not int:
        raise _damaged(run, "run.json names no format")
    if content["format"] not in (1, FORMAT):
        raise ValueError(f"{run} has format {content['format']}, and this version of genmini reads 1 and {FORMAT}")
    if content["format"] == 1:
        content = {FORMAT_1_KEYS.get(key, key): value for key, value in content.items() if key not in SINCE_FORMAT_2}
    for key, (kind, needed) in KEYS.items():
        if key not in content and (needed or key == "digests" and content["format"] > 1):
            raise _damaged(run, f"run.json names no {key}")
        if key in content and (not isinstance(content[key], kind) or isinstance(content[key], bool)):
            raise _damaged(run, f"in run.json {key} is {json.dumps(content[key])[:40]}")
    if "digests" in content and content["digests"].get("run.json") != _digest(_bytes_to_digest(content)):
        raise _damaged(run, "run.json is not what was written")
    return content


def load(run, device="cpu"):
    """The trained model of a run, in eval mode. run: its folder, or the name of one that comes with genmini."""
    run = place(run)

    def build(metadata):
        make = lambda: models.find(metadata["model"])(**metadata["settings"])
        weights = _tensors(run, metadata, metadata["weights"])
        with torch.device("meta"):  # the shapes are compared before any memory is taken
            make().load_state_dict(weights, assign=True)
        model = make()
        model.load_state_dict(weights)
        return model.to(device).eval()

    return _of_one_state(run, build)


def load_state(run):
    """The state that the training in `run` can continue from, and the weights beside it; (None, None) at its end."""

    def join(metadata):
        if "state" not in metadata:
            return None, None
        tensors = _tensors(run, metadata, metadata["state"]["tensors"])
        return _rebuilt(metadata["state"]["rest"], tensors), _tensors(run, metadata, metadata["weights"])

    check_resumable(run, read(run))
    return _of_one_state(run, join)


def _of_one_state(run, function):
    """function(metadata), of one state of the run: again, if a training has written the next one meanwhile."""
    while True:
        text = _bytes(run)
        metadata = _metadata(run, text)
        try:
            return function(metadata)
        except Exception as error:
            if _bytes(run) != text:
                continue
            if isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error):
                raise
            if "digests" in metadata and not isinstance(error, _Changed):  # the bytes are those that were written
                raise ValueError(f"{run} does not fit this version of genmini: {_one_line(error)}") from error
            raise _damaged(run, error) from None


class _Changed(Exception):
    """A file of a run is not the one that was written."""


def _tensors(run, metadata, name):
    """The tensors of a file of the run."""
    path = Path(run) / Path(name).name
    try:
        if not path.is_file():  # reading a pipe would not end
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        content = path.read_bytes()
    except OSError as error:
        raise _Changed(f"{error.strerror}: {path}") from None
    if "digests" in metadata and metadata["digests"].get(path.name) != _digest(content):
        raise _Changed(f"{path.name} is not what was written")
    return safetensors.torch.load(content)


def check_resumable(run, metadata):
    """ValueError for a training of format 1 that is not at its end: this version cannot continue it."""
    if metadata["format"] == 1 and ("state" in metadata or metadata.get("later")):
        version = metadata.get("versions", {}).get("genmini", "before format 2")
        raise ValueError(f"{run} holds an unfinished training of format 1, by genmini {version}, which can continue "
                         f"it; this version continues format {FORMAT}: train anew, or use its weights as they are")


def _damaged(run, error):
    return ValueError(f"{run} is damaged: {_one_line(error)}")


def _one_line(error):
    return " ".join(str(error).split())[:300] or type(error).__name__
