"""docs/data.md: every model learns what its row says, and every command there runs; colours are drawn as colours."""

import math
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from check_models import fast, taken
from PIL import Image
from test_data_idx import lay

from genmini import checkpoint, data, models, plots
from genmini.cli import main
from genmini.models._model import Batch
from genmini.train import evaluate, fit

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text()
TABLE = PAGE.partition("## Which model takes what")[2]
ROWS = {cells[0].strip("`"): cells[1:4] for line in TABLE.splitlines() if line.startswith("| `")
        for cells in [[cell.strip() for cell in line.strip("|").split("|")]]}
pytestmark = pytest.mark.usefixtures("folder_of_its_own")  # one thread: the models are small
KINDS = ("grey", "binary", "colour")
TAKEN = [(name, kind) for name, row in ROWS.items() for kind, cell in zip(KINDS, row, strict=True) if cell == "yes"]
COLOUR = [name for name, kind in TAKEN if kind == "colour"]


def discs(kind, N=24, side=4, classes=3):
    """Discs of three radii on a ground, the class the radius; in colour red, green or blue by class."""
    random, y = np.random.RandomState(0), np.arange(N) % classes
    centre = random.uniform(1, side - 2, size=(N, 2, 1, 1))
    i = np.arange(side)
    far = np.hypot(i[:, None] - centre[:, 0], i - centre[:, 1])  # (N, side, side)
    v = np.clip(1 + y[:, None, None] / 2 - far, 0, 1)
    if kind == "binary":
        return images_of((v > 0.5).astype(np.uint8), y, 2)
    if kind == "colour":
        v = 0.3 + 0.6 * v[:, None] * np.eye(3)[y][:, :, None, None]
    return images_of((255 * v + random.uniform(size=v.shape)).clip(0, 255).astype(np.uint8), y, 256)


def images_of(x, y, levels):
    return data.Data("images", "train", torch.from_numpy(x), torch.from_numpy(y).long(), levels)


def test_the_table_names_every_model():
    assert sorted(ROWS) == sorted(models.MODELS) and all(cell in ("yes", "no") for row in ROWS.values() for cell in row)
    assert [name for name in models.MODELS if "colour" in models.recipes(name)] == COLOUR


@pytest.mark.parametrize("name, kind", TAKEN)
def test_a_model_learns_what_its_row_says(name, kind):
    """A few steps change every weight that an update names, and bring the loss on the images down; an adversary's loss
    is against a player that learns, too, and stays finite. What the model draws are levels of such images."""
    family = models.find(name)
    defaults, settings = taken(family), fast(family, width=24)  # by 6 for PixelCNN's colours, by 8 for a U-Net's groups
    settings |= dict(body="conv") if defaults.get("body") == "mlp" else {}
    settings |= dict(decoder="gaussian-learned") if "decoder" in defaults and kind != "binary" else {}
    settings |= dict(classes=3) if defaults.get("classes") else {}
    train = discs(kind)
    torch.manual_seed(0)
    model = family(train.shape, levels=train.levels, **settings)
    train = discs(kind, classes=model.classes or 3)
    if model.stages:
        model.begin(model.stages[0], train)
    before, weights = judged(model, train), {name: W.detach().clone() for name, W in model.named_parameters()}
    fit(model, train, train, steps=8, batch=12, rate=5e-3, every=8, progress=False)
    after = judged(model, train)
    assert math.isfinite(after) and (after < before or model.judged_by_samples)
    learnt = {id(W) for *_, parameters in model.updates(Batch(train.x, train.y)) for W in parameters if W.requires_grad}
    same = [name for name, W in model.named_parameters() if id(W) in learnt and torch.equal(W, weights[name])]
    assert learnt and not same
    if not model.cannot("sample"):
        x = model.sample(6)
        assert x.shape == (6, *train.shape) and x.dtype == torch.uint8 and x.max().item() < train.levels


def judged(model, split):
    torch.manual_seed(0)
    return evaluate(model, split)[0]


def photos(folder, classes=("a", "b"), each=12):
    x = discs("colour", len(classes) * each, 20).x
    for n, image in enumerate(x.movedim(1, 3).numpy()):
        path = folder / classes[n % len(classes)] / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


@pytest.mark.parametrize("name", COLOUR)
def test_the_recipe_for_colour_is_trained_and_drawn(name, tmp_path, capsys):
    photos(tmp_path / "photos")
    classes = ["--set", "classes=2"] if taken(models.find(name)).get("classes") else []
    words = ["train", name, "--data", "images", "--data-dir", "photos", "--size", "4", "--colour", "--out", "r"]
    assert main([*words, "--steps", "1", "--set", "batch=2", *classes]) == 0, capsys.readouterr().err
    saved = checkpoint.read("r")
    assert saved["options"] == {"size": 4, "colour": True} and saved["recipe_name"] == "colour"
    picture = np.asarray(Image.open("r/samples.png").convert("RGB")).astype(int)
    assert np.ptp(picture, axis=2).max() > 10  # of grey pictures it is 0


def test_a_model_without_a_recipe_for_colour_says_so(tmp_path, capsys):
    photos(tmp_path / "photos")
    for name in set(models.MODELS) - {*COLOUR}:
        assert main(["train", name, "--data", "images", "--data-dir", "photos", "--colour"]) == 2
        assert f"{name} has no recipe for 'images' in colour" in capsys.readouterr().err


def test_colours_are_drawn_as_they_are(tmp_path):
    x = torch.tensor([[[[0, 255]], [[51, 255]], [[255, 255]]]], dtype=torch.uint8)  # (1, 3, 1, 2): blue, white
    cells = plots.grid(x.expand(3, -1, -1, -1), columns=2)
    assert cells.shape == (3, 5, 3) and cells[0, 0].tolist() == [0, 51, 255]
    assert cells[0, 2].isnan().all() and cells[2, 3].isnan().all()
    plots.side_by_side(tmp_path / "p.png", {"data": x}, 256)
    colours = np.asarray(Image.open(tmp_path / "p.png").convert("RGB")).reshape(-1, 3)
    assert (colours == [0, 51, 255]).all(1).sum() > 100  # a square of one colour


def test_the_commands_of_the_page_run(tmp_path, capsys):
    photos(tmp_path / "photos")
    x, y = discs("grey", 36).x.numpy(), discs("grey", 36).y.numpy().astype(np.uint8)
    lay(tmp_path / "fashion", (x, y), (x, y))
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.S | re.M)
    blocks = "\n".join(text for language, text in fenced if not language)
    lines = [shlex.split(line, comments=True)[1:] for line in blocks.splitlines() if line]
    (tmp_path / "shop.csv").write_text("day,sold\n" + "\n".join(f"{n},{n * 7 % 11}" for n in range(90)))
    assert len(lines) == 14
    for words in lines:
        if words[0] == "train" and words[1] != "ar":  # which is fitted at once
            words += ["--steps", "1", "--threads", "1", *(["--set", "classes=3"] if words[1] == "classifier" else [])]
        assert main(words) == 0, capsys.readouterr().err
