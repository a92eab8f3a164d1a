"""A run with any byte changed is refused in one line, "RUN is damaged: ...", and a reader never sees half a run."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from check import command
from safetensors.torch import load_file, save_file

from genmini import checkpoint, data, models, train

pytestmark = pytest.mark.usefixtures("folder_of_its_own")
TRAIN, VALID = (data.load("digits-threshold", split) for split in ("train", "valid"))


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    """A training that was killed after a step: weights, state, run.json."""
    folder = tmp_path_factory.mktemp("unfinished") / "r"
    torch.manual_seed(0)
    model = models.find("made")((8, 8), hidden=(4,), order="random", masks=2)
    metadata = {"step": 1, "data": "digits-threshold", "threads": 1, "versions": {"genmini": "0"}, "valid": 2.5}
    state = {"step": 1, "rows": [], "losses": torch.zeros(3), "optimiser": {0: torch.ones(2)}}
    checkpoint.save(folder, model, metadata, state=state)
    return folder


def reads(run):
    """All that is read of a run."""
    return checkpoint.read(run), checkpoint.load(run).state_dict(), checkpoint.load_state(run)


def old_format(run):
    """The same run as version 0.1.0 left it at the end of a training: without digests."""
    path = run / "run.json"
    content = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("digests", "state")}
    path.write_text(json.dumps({**content, "format": 1}))


def test_run_json_has_a_line_for_each_key(unfinished):
    """A person reads it, and the state of a long training takes one line of it."""
    lines = (unfinished / "run.json").read_text().splitlines()
    assert [lines[0], lines[-1]] == ["{", "}"]
    keys = [key for line in lines[1:-1] for key in json.loads("{" + line.rstrip(",") + "}")]
    assert keys == [*checkpoint.read(unfinished)] and "state" in keys


def flip(content, noise):
    at = noise.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << noise.randrange(8)]) + content[at + 1 :]


def cut(content, noise):
    return content[: noise.randrange(len(content))]


def put(content, noise):
    at = noise.randrange(len(content) + 1)
    return content[:at] + noise.randbytes(noise.randint(1, 9)) + content[at:]


def overwritten(content, noise):
    at = noise.randrange(len(content))
    return content[:at] + noise.randbytes(40) + content[at + 40 :]


@pytest.mark.parametrize("change", [flip, cut, put, overwritten])
def test_any_changed_byte_is_found(unfinished, tmp_path, change):
    """Of every file in turn; run.json may hold other white space, which changes nothing."""
    noise, whole = random.Random(change.__name__), reads(unfinished)[0]
    shutil.copytree(unfinished, tmp_path / "r")
    found = 0
    for path in sorted((tmp_path / "r").iterdir()) * 40:
        content = path.read_bytes()
        path.write_bytes(change(content, noise))
        try:
            with pytest.raises(ValueError, match="r is damaged: |r has format ") as caught:
                reads(tmp_path / "r")
            assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
            found += 1
        except pytest.fail.Exception:
            assert path.name == "run.json" and reads(tmp_path / "r")[0] == whole, "a changed run was read"
        path.write_bytes(content)
    assert found > 110


VALUES = [None, True, -1, 2**70, "../x", [[]], {"a": 1}, "\ud800"]


@pytest.mark.parametrize("key", checkpoint.KEYS)
def test_a_key_that_is_missing_or_of_another_type_is_named_or_does_no_harm(capsys, unfinished, tmp_path, key):
    """With digests it is damage. Runs of format 1 have none: there each command ends in one line, 0 or 2."""
    shutil.copytree(unfinished, "r")
    path = Path("r/run.json")
    for old in (False, True):
        if old:
            old_format(Path("r"))
        text = path.read_text()
        good = json.loads(text)
        for value in (..., *VALUES):
            content = {k: v for k, v in good.items() if k != key} if value is ... else good | {key: value}
            path.write_text(json.dumps(content))
            if not old and content != good:
                with pytest.raises(ValueError, match="r is damaged: |r has format "):
                    checkpoint.read("r")
            resume = ["train", "made", "--data", "digits", "--out", "r", "--resume"]
            for words in (["eval", "r", "--split", "valid"], resume):
                status, _, err = command(capsys, *words)
                harmless = words[0] == "eval" and (old or content == good)
                assert status == 2 or status == 0 and harmless, (words, value, err)
                assert err.count("\n") == (status == 2) and "Error" not in err, err
        path.write_text(text)


def test_flipped_buffers_are_found(capsys, unfinished):
    """An order of the pixels that is none ended in an IndexError."""
    shutil.copytree(unfinished, "r")
    (path,) = Path("r").glob("model-*.safetensors")
    tensors = load_file(path)
    name = next(name for name, tensor in tensors.items() if not tensor.is_floating_point())
    tensors[name].flatten()[0] = 2**40
    save_file(tensors, path)
    for words in (["sample", "r"], ["eval", "r"], ["score", "r"]):
        status, _, err = command(capsys, *words)
        assert status == 2 and err == "genmini: r is damaged: model-1.safetensors is not what was written\n"


def test_a_byte_that_is_no_utf_8_is_said_where(capsys, unfinished):
    shutil.copytree(unfinished, "r")
    path = Path("r/run.json")
    path.write_bytes(path.read_bytes()[:40] + b"\xff" + path.read_bytes()[40:])
    status, _, err = command(capsys, "sample", "r")
    assert status == 2 and err == "genmini: r is damaged: run.json is no UTF-8 at byte 40\n"


def test_numbers_and_brackets_without_end_are_damage(capsys):
    for text in ('{"format": ' + 5000 * "9" + "}", 100_000 * "[", '"format"', "[]", "{}", "null", ""):
        Path("r").mkdir(exist_ok=True)
        Path("r/run.json").write_text(text)
        status, _, err = command(capsys, "sample", "r")
        assert status == 2 and err.startswith("genmini: r is damaged: run.json ") and len(err) < 200


def test_a_reader_sees_one_state_of_a_run_that_is_being_trained(tmp_path, monkeypatch):
    """Between reading run.json and the weights that it names, the training saves the next ones and removes those."""
    first, second = (models.find("made")((8, 8), hidden=(4,)) for _ in range(2))
    checkpoint.save(tmp_path, first, {"step": 1})
    tensors, saved = checkpoint._tensors, []

    def late(run, metadata, name):
        if not saved:
            saved.append(True)
            checkpoint.save(tmp_path, second, {"step": 2})
        return tensors(run, metadata, name)

    monkeypatch.setattr(checkpoint, "_tensors", late)
    weights = checkpoint.load(tmp_path).state_dict()
    assert saved and all(torch.equal(weights[name], tensor) for name, tensor in second.state_dict().items())


def test_reading_while_training_never_fails(tmp_path, monkeypatch):
    """The loop saves after every step; a reader that looks between any two of its writes sees a whole run."""
    monkeypatch.setattr("genmini.loop.SAVE_EVERY", 0)
    seen, write = [], checkpoint.write

    def watched(path, content):
        write(path, content)
        if (tmp_path / "run.json").exists():
            seen.append(checkpoint.load(tmp_path).sample(1).shape)

    monkeypatch.setattr(checkpoint, "write", watched)
    model = models.find("made")((8, 8), hidden=(4,))
    train.fit(model, TRAIN, VALID, steps=6, every=3, batch=8, run=tmp_path, progress=False)
    assert len(seen) > 12 and set(seen) == {(1, 8, 8)}


@pytest.mark.parametrize("name, shape", [("vae", [10**9]), ("nade", [10**5, 10**5]), ("fvsbn", [10**6]),
                                         ("made", [10**6])])
def test_weights_of_another_shape_are_refused_before_the_model_is_allocated(tmp_path, monkeypatch, name, shape):
    """Of 10^9 pixels, its layers take terabytes; of 10^6 those of MADE take 4 GB, and half a minute to draw."""
    checkpoint.save(tmp_path, models.find(name)((8, 8)), {"step": 1})
    old_format(tmp_path)
    content = json.loads((tmp_path / "run.json").read_text())
    content["settings"]["shape"] = shape
    (tmp_path / "run.json").write_text(json.dumps(content))
    family, made_on = models.find(name), []
    note = lambda **settings: made_on.append(torch.get_default_device().type) or family(**settings)
    monkeypatch.setattr(models, "find", lambda _: note)
    with pytest.raises(ValueError, match="is damaged: Error.s. in loading state_dict for .*: size mismatch"):
        checkpoint.load(tmp_path)
    assert made_on == ["meta"]  # which holds no numbers
