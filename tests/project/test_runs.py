"""Tests of runs and pictures: a run comes back, a failed write leaves the old one whole, a damaged one is refused."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from test_train import TEST, small

import genmini
from genmini import checkpoint, files, plots
from genmini.models.made import MADE


def test_a_run_comes_back(tmp_path):
    model = small(order="random", direct=True).eval()
    checkpoint.save(tmp_path, model, {"step": 7, "data": "digits-threshold"})
    back, u = genmini.load(tmp_path), torch.rand(5, 64)
    assert (torch.equal(back.log_prob(TEST.x), model.log_prob(TEST.x))
            and torch.equal(back.sample(5, u=u), model.sample(5, u=u)))
    assert not back.training and back.settings == model.settings


def test_a_run_holds_only_models_that_can_come_back(tmp_path):
    class Mine(MADE):
        pass

    with pytest.raises(ValueError, match="Mine"):
        checkpoint.save(tmp_path, Mine(4), {"step": 1})
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_run_whole(tmp_path, monkeypatch):
    old, new = small(1), small(2)
    checkpoint.save(tmp_path, old, {"step": 1})

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path, new, {"step": 2})
    monkeypatch.undo()
    assert torch.equal(genmini.load(tmp_path).log_prob(TEST.x), old.eval().log_prob(TEST.x))
    assert not list(tmp_path.glob("*.part"))


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


DAMAGE = {
    "no run": lambda run: (run / "run.json").unlink(),
    "weights cut": lambda run: cut(next(run.glob("*.safetensors"))),
    "weights gone": lambda run: next(run.glob("*.safetensors")).unlink(),
    "json cut": lambda run: cut(run / "run.json"),
    "other settings": lambda run: edit(run, settings={"shape": [8, 8], "hidden": [17]}),
    "unknown model": lambda run: edit(run, model="os"),
    "other format": lambda run: edit(run, format=99),
    "no settings": lambda run: edit(run, settings=None),
}


def edit(run, **changes):
    path = run / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_run_is_refused_in_one_line(tmp_path, damage):
    checkpoint.save(tmp_path, small(), {"step": 1})
    damage(tmp_path)
    with pytest.raises((ValueError, OSError)) as caught:
        genmini.load(tmp_path)
    assert str(tmp_path) in str(caught.value) or "unknown model" in str(caught.value)


def wide(path, n, side):
    """How many pixels a picture of n panels is wide, of eight images of this side in a row each"""
    plots.side_by_side(path, {str(i): torch.zeros(8, side, side) for i in range(n)}, 2)
    with Image.open(path) as picture:
        return picture.width


def test_pictures(tmp_path):
    cells = plots.grid(torch.arange(5 * 6).view(5, 2, 3), columns=3)
    assert cells.shape == (5, 11) and cells[0, :3].tolist() == [0, 1, 2] and cells[3, 4:7].tolist() == [24, 25, 26]
    assert cells[2].isnan().all() and cells[:, 3].isnan().all() and cells[3:, 8:].isnan().all()
    path = tmp_path / "deeper" / "p.png"
    plots.side_by_side(path, {"data": TEST.x[:9], "samples": TEST.x[:3]}, 2)
    width = lambda n, side: wide(tmp_path / "wide.png", n, side)
    assert 850 < width(2, 8) < 1000 and 1300 < width(5, 8) < 1420  # two rows of panels
    assert 1500 < width(2, 130) <= 1600, "a screen shows the whole"
    plots.side_by_side(tmp_path / "long.png", {"a long title " * 9 + str(i): TEST.x[:8] for i in range(4)}, 2)
    with Image.open(tmp_path / "long.png") as picture:
        assert 1500 < picture.width <= 1600
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and [p.name for p in path.parent.iterdir()] == ["p.png"]


def test_columns_have_names_and_of_many_panels_each_second_one_is_below(monkeypatch):
    figures, x = [], torch.zeros(6, 8, 8)
    monkeypatch.setattr(plots, "save", lambda figure, path: figures.append(figure))
    for n in (4, 5):
        plots.side_by_side("x.png", {f"panel {i}": x + i for i in range(n)}, 17, ["a", "b", "c"])
    assert [panel.get_title() for panel in figures[0].axes] == [f"panel {i}" for i in range(4)]
    rows = torch.tensor([float(panel.images[0].get_array()[0, 0]) if panel.images else -1 for panel in figures[1].axes])
    assert rows.view(2, 3).tolist() == [[0, 2, 4], [1, 3, -1]] and not figures[1].axes[5].get_visible()
    for panel in figures[1].axes[:5]:
        names = {at: each.get_text() for at, each in zip(panel.get_xticks(), panel.get_xticklabels(), strict=True)}
        assert names == {3.5: "a", 12.5: "b", 21.5: "c"}


def test_the_small_picture_has_the_panels_in_the_same_places_and_ink_is_dark():
    x = torch.zeros(4, 8, 8)
    for n, left, top in ((3, 2, 0), (5, 1, 1)):  # the places of the last of three panels, and of the fourth of five
        panels = {"a panel": x} | {str(i): x.index_fill(0, torch.tensor(i % 4), 16) for i in range(n - 1)}
        with Image.open(io.BytesIO(plots.frame(panels, 17, columns=["left", "right"]))) as picture:
            shown = np.asarray(picture)
        W, H, scale = shown.shape[1] // plots.places(n)[0], shown.shape[0] // plots.places(n)[1], 300 // 17
        assert picture.mode == "L" and (W, H) == (17 * scale + 8, 17 * scale + 26)
        cells = shown[top * H + 22 :, left * W :][: 17 * scale : scale, : 17 * scale : scale]
        dark = {3: 1, 5: 2}[n]  # the image of this panel that is all ink
        assert [cells[9 * (i // 2), 9 * (i % 2)] == 0 for i in range(4)] == [i == dark for i in range(4)]
        assert cells[0, 8] == round(0.9 * 255) and (shown[:20, :60] < 128).any(), "a line between images, and a title"
    colour = torch.tensor([255, 0, 0]).view(1, 3, 1, 1).expand(4, 3, 8, 8)
    with Image.open(io.BytesIO(plots.frame({"red": colour}, 256, columns=2))) as picture:
        assert picture.getpixel((5, 30)) == (255, 0, 0)
