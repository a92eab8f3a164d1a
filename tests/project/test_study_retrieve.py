"""The command line of CLIP, and the study `retrieve`: its shares are counted by hand, and it takes what fits alone."""

import pytest
import torch
from check import command

from genmini import checkpoint, plots
from genmini.data import shapes, shapes_captions
from genmini.studies import retrieve
from genmini.studies._run import Run

pytestmark = pytest.mark.usefixtures("folder_of_its_own")
TRAIN = ["train", "clip", "--data", "shapes", "--size", "16", "--scenes", "40", "--steps", "2", "--threads", "1",
         "--set", "batch=4", "--set", "width=4", "--set", "text_width=8", "--set", "blocks=1"]


@pytest.fixture
def run(monkeypatch, capsys):
    """-> the output of a training that wrote the run r"""
    monkeypatch.setattr(shapes, "COUNT", {"train": 40, "valid": 20, "test": 70})
    status, out, err = command(capsys, *TRAIN, "--out", "r")
    assert status == 0, err
    return out


def test_it_is_trained_judged_and_studied(run, capsys, tmp_path):
    assert "clip on shapes: 40 train / 20 valid / 70 test" in run and "given the caption" not in run
    for name in ("loss ", "caption found ", "image found ", "scale "):
        assert f"test      {name}" in run
    assert command(capsys, "eval", "r")[1].splitlines() == [
        line for line in run.splitlines() if line[:4] in ("test", "    ")]
    status, out, _ = command(capsys, "study", "retrieve", "r")
    assert status == 0 and (plots.missing() or (tmp_path / "r" / "retrieve.png").stat().st_size > 10_000)

    seen = retrieve.Seen(Run("r"), Run("r").split("test"))
    s, y = seen.z @ seen.w.T, seen.split.y
    wrong = [sum(bool(s[n, m] >= s[n, n]) and not y[m].equal(y[n]) for m in [(n + i) % 70 for i in range(1, 64)])
             for n in range(70)]
    assert seen.found()["caption"].tolist() == wrong
    true = [[not y[m].equal(y[n]) and shapes_captions.true_of(a, b) for m in [(n + i) % 70 for i in range(1, 64)]
             for a, b in [(seen.split.captions[m], seen.split.scenes[n])]] for n in range(70)]
    assert seen.by_truth()["caption"].tolist() == [1 / (1 + sum(row)) for row in true] and max(map(sum, true)) > 0
    assert (0.5 < seen.by_truth()["image"]).any() and "by a guess among what is true: caption" in out
    assert f"r: among 64 caption R@1 {wrong.count(0) / 70:.1%} +- " in out and out.count("of shapes-pairs") == 3

    one = [n for n, scene in enumerate(seen.split.scenes) if len(scene.objects) == 1]
    texts = [f"a {colour} {shape}" for colour, shape in shapes.PAIRS]
    with torch.no_grad():
        nearest = seen.run.model.similarity(seen.split.x[one], texts).argmax(1)
    right = [shapes.PAIRS[k] == (o.colour, o.shape) for k, o in zip(
        nearest.tolist(), [seen.split.scenes[n].objects[0] for n in one], strict=True)]
    assert seen.zero_shot()["both"].tolist() == right and 0 < len(one) < 70
    other = [(n, shapes_captions.exchanged(text)) for n, text in enumerate(seen.split.captions)]
    related = [(n, text) for n, text in other if text]
    with torch.no_grad():
        wanted = [bool(a > b) for n, text in related for a, b in seen.run.model.similarity(
            seen.split.x[n : n + 1], [seen.split.captions[n], text])]
    assert seen.ordered().tolist() == wanted and len(wanted) > 5


@pytest.mark.parametrize("words, says", [
    (["sample", "r", "a red circle"], "r does not fit: CLIP draws no samples"),
    (["score", "r"], "a score takes a model that draws images: CLIP draws none"),
    (["study", "grid", "r"], "r does not fit: CLIP encodes images and decodes no codes: grid is for realnvp, maf"),
    (["study", "embed", "r"], "r does not fit: its images have no classes"),
    (["study", "retrieve", "made"], "made does not fit: MADE has no latent code"),
    (["train", "clip", "--data", "digits"], "clip has no recipe for 'digits'; its recipes are shapes"),
    ([*TRAIN, "--set", "vocabulary=3"], "--set knows no key 'vocabulary'"),
    ([*TRAIN, "--set", "swapped=-1.0"], "swapped must be at least 0, got -1.0"),
    ([*TRAIN, "--set", "heads=3"], "width must be a multiple of heads = 3, got 8"),
])
def test_what_does_not_fit_is_one_line(run, capsys, words, says):
    from genmini.models.made import MADE

    checkpoint.save("made", MADE((8, 8), hidden=4), {"step": 1, "data": "digits-threshold"})
    status, _, err = command(capsys, *words)
    assert status == 2 and says in err, err
