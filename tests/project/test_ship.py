"""Runs that come with genmini: they are called by name, hold parameters in float16, and nothing is written beside them;
what cannot be shipped is refused; and prompts that such a run cannot read are answered in one line."""

import json
import re
import shlex

import pytest
import safetensors.torch
import torch
from check import command

import genmini
from genmini import checkpoint, experiment, ship
from genmini.data import captions, shapes
from genmini.models.imagen import Imagen

SMALL = dict(text_width=8, text_blocks=1, text_heads=2, directions=6, vector=8, adapter=1, width=8, larger_width=8,
             draws=3)
TRAIN = "train imagen --data shapes --size 16 --steps 2 --seed 3 --threads 1 --out trained".split()
TRAIN += [word for key, value in {**SMALL, "multiples": (1, 1)}.items() for word in ("--set", f"{key}={value}")]
PROMPT = "two red circles above a blue square"
pytestmark = pytest.mark.usefixtures("folder_of_its_own")


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(shapes, "COUNT", {"train": 30, "valid": 10, "test": 12})
    monkeypatch.setattr(captions, "COUNT", {"train": 40, "valid": 10, "test": 10})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """-> the folder of a run of Imagen, kept for all tests"""
    from genmini.cli import main

    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(shapes, "COUNT", {"train": 30, "valid": 10, "test": 12})
        patch.setattr(captions, "COUNT", {"train": 40, "valid": 10, "test": 10})
        assert main(TRAIN) == 0
    return folder / "trained"


@pytest.fixture
def place(monkeypatch, tmp_path_factory):
    """-> a folder of shipped runs, in the place of genmini's own"""
    folder = tmp_path_factory.mktemp("shipped")
    monkeypatch.setattr(checkpoint, "SHIPPED", folder)
    return folder


@pytest.fixture
def tiny(trained, place):
    """-> what `ship` says of the tiny run that is shipped as "tiny" """
    return ship.ship(trained, "tiny")


# ---- what is shipped -------------------------------------------------------------------------------------------------


def test_the_runs_that_come_with_genmini_are_small_whole_and_say_how_they_were_made():
    assert "digits-v1" in checkpoint.shipped()
    sizes = 0
    for name in checkpoint.shipped():
        folder = checkpoint.SHIPPED / name
        saved = checkpoint.read(folder)
        assert experiment.is_finished(saved) and not saved.get("source")
        assert {path.name for path in folder.iterdir()} == {"README.md", "run.json", saved["weights"]}
        sizes += (folder / saved["weights"]).stat().st_size
        text = (folder / "README.md").read_text()
        assert f"    genmini train {saved['model']} --data {saved['data']}" in text
        model = genmini.load(name)
        assert model.dtype == torch.float32 and all(p.isfinite().all() for p in model.parameters())
    assert sizes <= ship.LARGEST


def test_parameters_are_rounded_and_other_tensors_keep_their_bits(trained, tiny, place):
    exact, model = checkpoint.load(trained), genmini.load("tiny")
    assert type(model) is Imagen and model.settings == exact.settings and not model.training
    parameters = dict(exact.named_parameters())
    for key, tensor in model.state_dict().items():
        before = exact.state_dict()[key]
        assert tensor.dtype == before.dtype
        assert torch.equal(tensor, before.half().float() if key in parameters else before), key
    saved = json.loads((place / "tiny" / "run.json").read_text())
    stored = safetensors.torch.load_file(place / "tiny" / saved["weights"])
    assert {key for key, tensor in stored.items() if tensor.dtype == torch.float16} == {*parameters}
    assert stored["examples"].dtype == torch.int64 and stored["V"].dtype == torch.float32
    off = sum(((p.half().double() - p.double()) ** 2).sum() for p in parameters.values())
    size = sum((p.double() ** 2).sum() for p in parameters.values())
    assert tiny["moved"].startswith(f"{(off / size).sqrt().item():.1e} of the size") and 0 < off / size < 2**-20


def test_the_shipped_run_keeps_nothing_of_a_training_or_of_a_machine(trained, tiny, place):
    before, saved = checkpoint.read(trained), checkpoint.read(place / "tiny")  # the digests are right
    assert {path.name for path in (place / "tiny").iterdir()} == {"README.md", "run.json", saved["weights"]}
    assert before.keys() - saved.keys() <= {"later", "state"} and experiment.is_finished(saved)
    assert str(trained.parent) not in (place / "tiny" / "run.json").read_text()
    path = place / "tiny" / saved["weights"]
    path.write_bytes(path.read_bytes()[:-1] + b"\0\0")
    with pytest.raises(ValueError, match="tiny is damaged: .* is not what was written"):
        genmini.load("tiny")


def test_the_readme_says_the_command_that_made_the_run(trained, tiny, place, tmp_path, capsys):
    text = (place / "tiny" / "README.md").read_text()
    made_by = re.search(r"^    (genmini train .*)$", text, re.M)[1]
    assert made_by == tiny["made by"] and "--size 16 --recipe shapes --seed 3 --threads 1" in made_by
    assert "PyTorch" in text and "float16" in text and max(map(len, text.replace(made_by, "").splitlines())) <= 120
    assert command(capsys, *shlex.split(made_by)[1:])[0] == 0
    again, first = (checkpoint.load(run).state_dict() for run in (tmp_path / "tiny", trained))
    assert all(torch.equal(again[key], tensor) for key, tensor in first.items())
    assert checkpoint.read(tmp_path / "tiny")["settings"] == checkpoint.read(trained)["settings"]


def test_the_command_names_settings_whose_defaults_have_changed(trained):
    saved = checkpoint.read(trained)
    assert "guidance" not in ship.command(saved, "r")
    more = saved | {"options": saved["options"] | {"scenes": 40}}
    assert " --size 16 --scenes 40 --recipe" in ship.command(more, "r")
    saved["settings"] = saved["settings"] | {"guidance": 4.5}
    assert " --set guidance=4.5 " in ship.command(saved, "r")
    del saved["settings"]["guidance"]  # as if this version had added it
    assert "guidance" not in ship.command(saved, "r")


# ---- what cannot be shipped ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value, says", [
    (70_000.0, "float16 cannot hold base.*: its numbers are up to 7e.04, and the largest of float16 is 65504"),
    (float("nan"), "float16 cannot hold base.*: its numbers are not finite"),
    (float("-inf"), "float16 cannot hold base.*: its numbers are not finite"),
])
def test_parameters_that_float16_cannot_hold_are_refused(trained, place, tmp_path, value, says):
    model, saved = checkpoint.load(trained), checkpoint.read(trained)
    with torch.no_grad():
        next(model.base.parameters()).view(-1)[0] = value
    metadata = {key: saved[key] for key in saved if key not in ship.LEFT_OUT}
    checkpoint.save(tmp_path / "large", model, metadata)
    with pytest.raises(ValueError, match=says):
        ship.ship(tmp_path / "large", "tiny")
    assert not list(place.iterdir())


@pytest.mark.parametrize("changed, says", [
    (dict(later=["base"]), "is not at its end: `train --resume` continues from the stage base"),
    (dict(source={"folder": "photos"}), "was trained on shapes in a folder of one machine"),
    (dict(recipe={"steps": 2}), "the recipe 'shapes' of imagen has changed since this run was made"),
    (dict(recipe={"strength": 2}), "--set knows no key 'strength'"),
    (dict(recipe_name="best"), "imagen has no recipe 'best'"),
])
def test_runs_that_no_command_makes_are_refused(trained, place, tmp_path, changed, says):
    metadata = {key: value for key, value in checkpoint.read(trained).items() if key not in ship.LEFT_OUT}
    checkpoint.save(tmp_path / "other", checkpoint.load(trained), metadata | changed)
    with pytest.raises(ValueError, match=says):
        ship.ship(tmp_path / "other", "tiny")
    assert not list(place.iterdir())


def test_runs_made_without_a_recipe_too_large_or_badly_named_are_refused(trained, tiny, tmp_path, monkeypatch):
    metadata = {key: value for key, value in checkpoint.read(trained).items() if key not in (*ship.LEFT_OUT, "recipe")}
    checkpoint.save(tmp_path / "other", checkpoint.load(trained), metadata)
    with pytest.raises(ValueError, match="run.json names no recipe: `genmini train` writes runs"):
        ship.ship(tmp_path / "other", "other")
    with pytest.raises(ValueError, match="tiny already holds a run"):
        ship.ship(trained, "tiny")
    for name in ("", "../x", "A", "a b", "-a", "a/b"):
        with pytest.raises(ValueError, match="a shipped run has a name of small letters and digits"):
            ship.ship(trained, name)
    monkeypatch.setattr(ship, "LARGEST", 1000)
    with pytest.raises(ValueError, match="MB in float16, and those of a shipped run take 0.001 MB at most"):
        ship.ship(trained, "other")


def test_the_command_of_maintainers(trained, place, capsys):
    assert ship.main([str(trained), "tiny"]) == 0
    told = capsys.readouterr().err
    assert "run: tiny, " in told and re.search(r"^size: \d\.\d\d MB$", told, re.M) and "\nmoved: " in told
    assert ship.main([str(trained), "tiny"]) == 2
    assert capsys.readouterr().err.startswith("genmini.ship: ")
    assert ship.main([str(trained), "tiny", "--overwrite"]) == 0
    assert ship.main(["nowhere", "other"]) == 2 and "nowhere holds no run" in capsys.readouterr().err


# ---- how it is called ------------------------------------------------------------------------------------------------


def test_commands_take_its_name_and_write_into_the_working_directory(tiny, place, tmp_path, capsys):
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    for name in ("tiny.png", "tiny-2.png"):
        status, out, err = command(capsys, "sample", "tiny", PROMPT, "-n", "2", "--guidance", "5")
        assert status == 0 and f"2 samples in {name}\n" in out and (tmp_path / name).exists(), err
    assert (tmp_path / "tiny.png").read_bytes() == (tmp_path / "tiny-2.png").read_bytes()
    assert command(capsys, "sample", "tiny", "-n", "2", "--film")[1].startswith("film of 2 samples in tiny.gif\n")
    assert command(capsys, "sample", "tiny", PROMPT, "-n", "2", "--out", "picture.png")[0] == 0
    status, out, _ = command(capsys, "eval", "tiny")
    assert status == 0 and "error of base" in out
    for name in ("tiny-spectrum.png", "tiny-spectrum-2.png"):
        status, out, err = command(capsys, "study", "spectrum", "tiny")
        assert status == 0 and f"picture   {name}\n" in out and (tmp_path / name).exists(), err
    status, _, err = command(capsys, "study", "progress", "tiny")
    assert status == 2 and "tiny does not fit: a run that comes with genmini keeps no metrics of its training" in err
    status, out, err = command(capsys, "score", "tiny", "-n", "9")
    assert status == 2 and "the classifier takes images of shape (8, 8)" in err  # so it was loaded
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.png", "tiny-2.png", "tiny.gif", "picture.png",
                                                          "tiny-spectrum.png", "tiny-spectrum-2.png"}


def test_a_folder_of_its_name_is_taken_instead(trained, tiny, tmp_path, capsys):
    model = checkpoint.load(trained)
    metadata = {key: value for key, value in checkpoint.read(trained).items() if key not in ship.LEFT_OUT}
    checkpoint.save("tiny", model, metadata)
    key, parameter = next(model.named_parameters())
    assert torch.equal(genmini.load("tiny").state_dict()[key], parameter)
    status, out, _ = command(capsys, "sample", "tiny", PROMPT, "-n", "1")
    assert status == 0 and "1 samples in tiny/drawn.png\n" in out
    for path in (tmp_path / "tiny").iterdir():
        path.unlink()
    assert command(capsys, "sample", "tiny")[2] == "genmini: tiny holds no run: there is no tiny/run.json\n"
    (tmp_path / "tiny").rmdir()
    (tmp_path / "tiny").write_text("a file, and no folder")
    assert command(capsys, "sample", "tiny", PROMPT, "-n", "1")[1].startswith("1 samples in tiny.png\n")


def test_a_training_does_not_resume_it(tiny, capsys, tmp_path):
    status, _, err = command(capsys, *TRAIN[:-2 * len(SMALL) - 4], "--out", "tiny", "--resume")
    assert status == 2 and "tiny holds no run" in err and not list(tmp_path.iterdir())


def test_the_list_names_it_and_what_is_nowhere_is_said(tiny, capsys):
    assert re.search(r"\nshipped runs .*\n  tiny +imagen, trained on shapes\n\noperators", command(capsys, "list")[1])
    for name in ("tinny", "tiny/", "./tiny"):
        assert "holds no run: there is no" in command(capsys, "sample", name)[2]


# ---- prompts ---------------------------------------------------------------------------------------------------------

KNOWN = ("the colours red, ", "the shapes circle, ", "the sizes small, big", "the counts a, two, ",
         "the relations left of, ", "the places in the top left, ", "the grounds on a white ground, ", "an example: ")


@pytest.mark.parametrize("prompt, says", [
    ("a purpel circle", "there is no word 'purpel' here; the nearest is 'purple', and known are the colours"),
    ("a pinc circle", "there is no word 'pinc' here; the nearest is '"),
    ("2 red circles", "there is no word '2' here; the nearest is 'two'"),
    ("a red circle in the center", "there is no word 'center' here; the nearest is 'centre'"),
    ("a réd circle", "there is no word 'réd' here; the nearest is 'red'"),
    ("赤い円", "there is no word '赤い円' here; the nearest is '"),
    ("10000000000 circles", "there is no word '10000000000' here; the nearest is '"),
    ("", "the text '' has no word; known are the colours"), (" \t\n", "the text ' \\t\\n' has no word; known are"),
    ("\0\x07\x1b[2J", "there is no word '2j' here"), ("\0\x07\x1b", "the text '\\x00\\x07\\x1b' has no word; known"),
    ("\udcff\udcfe", "has no word; known are"), ("a " + 9000 * "z", f"there is no word '{40 * 'z'}' here; the nearest"),
])
def test_a_prompt_of_other_words_is_told_what_the_grammar_knows(tiny, capsys, tmp_path, prompt, says):
    status, out, err = command(capsys, "sample", "tiny", prompt, "-n", "1")
    assert status == 2 and out == "" and says in err and err.count("\n") == 1, err
    assert all(part in err for part in KNOWN) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("prompt, says", [
    (40 * "red ", "a text has at most 39 words here, a comma is one, and 'red red "),
    (10**6 * "a", "a text has at most 10000 characters, got 1000000"),
    (10**6 * ",", "a text has at most 10000 characters, got 1000000"),
    (5000 * ", ", "a text has at most 39 words here"),
])
def test_a_prompt_that_is_too_long_is_refused_in_one_short_line(tiny, capsys, tmp_path, prompt, says):
    status, _, err = command(capsys, "sample", "tiny", prompt, "-n", "1")
    assert status == 2 and says in err and len(err) < 300 and err.count("\n") == 1, err
    assert not list(tmp_path.iterdir())


def test_capitals_and_what_stands_between_words_do_not_matter(tiny, capsys):
    draw = lambda prompt, out: command(capsys, "sample", "tiny", prompt, "-n", "1", "--out", out)[0]
    assert draw("a red circle", "1.npy") == draw("  A\x07RED...\n\0 Circle!", "2.npy") == 0
    one, other = (open(name, "rb").read() for name in ("1.npy", "2.npy"))
    assert one == other


def test_from_python_the_message_is_the_same(tiny):
    with pytest.raises(ValueError, match="no word 'pinc' here; .*the colours red, .*; the shapes circle"):
        genmini.load("tiny").sample(1, "a pinc circle")
