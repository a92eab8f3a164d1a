"""Tests that runs of format 1, which the commit 0b895aa wrote, load to the same bits or say why they do not continue.

format1.zip holds a tiny finished run of each family, an unfinished one, and expected.json: of each model the digest of
its tensors in order, and what that commit computed of the first images of valid, cut to their middle 4x4 pixels.
"""

import hashlib
import json
import zipfile
from pathlib import Path

import pytest
import torch
from check import command

from genmini import checkpoint, data, models
from genmini.train import fit

ZIP = Path(__file__).with_name("format1.zip")
with zipfile.ZipFile(ZIP) as file:
    EXPECTED = json.loads(file.read("expected.json"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("format1")
    with zipfile.ZipFile(ZIP) as file:
        file.extractall(folder)
    return folder


def examples(name):
    """-> four examples of valid and their classes; of a series, all of it."""
    split = data.load(name, "valid")
    return (split.x[:4, 2:6, 2:6] if len(split.shape) == 2 else split.x[:4]), split.y[:4]


@pytest.mark.parametrize("run", EXPECTED)
def test_a_finished_run_loads_to_the_same_bits(runs, run):
    model, metadata = checkpoint.load(runs / run), checkpoint.read(runs / run)
    tensors = model.state_dict().values()
    digest = hashlib.sha256(b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)).hexdigest()[:16]
    assert (digest, len(tensors)) == (EXPECTED[run]["state"], EXPECTED[run]["keys"])
    assert metadata["format"] == 1 and "then" not in metadata and metadata["model"] in models.MODELS
    x, y = examples(metadata["data"])
    y = y if model.classes else None
    torch.manual_seed(0)
    with torch.no_grad():
        if not model.cannot("reconstruct"):
            value = model.reconstruct(x, y=y)
        else:
            value = model.logits(x) if metadata["model"] == "classifier" else model.log_prob(x, y=y)
    expected = torch.tensor(EXPECTED[run]["value"], dtype=torch.float64)
    torch.testing.assert_close(value.double().flatten()[:8], expected, rtol=1e-5, atol=1e-5)


def test_every_family_of_that_commit_is_among_them():
    assert len({run.partition("-")[0] for run in EXPECTED}) == 13


def test_an_unfinished_run_is_not_continued_and_not_called_damaged(runs, capsys):
    model = checkpoint.load(runs / "unfinished")
    few = [data.load("digits-threshold", split) for split in ("train", "valid")]
    few = [type(split)(split.name, split.split, split.x[:, 2:6, 2:6], split.y, 2) for split in few]
    with pytest.raises(ValueError, match="unfinished training of format 1") as caught:
        fit(model, *few, steps=9, every=3, run=runs / "unfinished", resume=True, progress=False)
    assert "damaged" not in str(caught.value) and "this version continues format 2" in str(caught.value)
    words = ["train", "nade", "--data", "digits", "--out", str(runs / "unfinished"), "--resume"]
    status, _, err = command(capsys, *words)
    assert status == 2 and "unfinished training of format 1" in err and "damaged" not in err
    assert model.sample(2).shape == (2, 4, 4)


def test_a_run_between_two_stages_is_unfinished(runs, tmp_path):
    content = json.loads((runs / "vqvae" / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(content | {"stage": "codes", "then": ["prior"]}))
    with pytest.raises(ValueError, match="by genmini 0.1.0"):
        checkpoint.load_state(tmp_path)
    assert checkpoint.read(tmp_path)["later"] == ["prior"]


def test_a_later_format_is_refused_by_its_number(runs, tmp_path):
    content = json.loads((runs / "nade" / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(content | {"format": 3}))
    with pytest.raises(ValueError, match="has format 3, and this version of genmini reads 1 and 2"):
        checkpoint.read(tmp_path)
