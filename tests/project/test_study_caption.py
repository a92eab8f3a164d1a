"""The study `caption`: its captions are of the kinds that it names, and it tells right samples from wrong ones."""

import pytest
import torch
from check import command

from genmini import checkpoint, plots, studies
from genmini.data import shapes, shapes_captions
from genmini.data.shapes import Object, Scene
from genmini.models.imagen import Imagen
from genmini.models.made import MADE
from genmini.studies import caption

SMALL = dict(text_width=8, text_blocks=1, text_heads=2, directions=6, vector=8, adapter=1, width=8, larger_width=8,
             draws=1)


class Painter:
    """Draws one or two things beside each other, as the caption says, but that it puts the first one to the left."""

    title, levels, shape, device, dtype = "Painter", 256, (3, 16, 16), torch.device("cpu"), torch.float32
    cannot = staticmethod(lambda name: "it has no steps")

    def sample(self, n, y):
        scenes = [self.scene(shapes_captions.parse(text)) for text in ([y] * n if isinstance(y, str) else y)]
        return torch.from_numpy(shapes.draw(scenes, 16))

    def scene(self, read):
        size = lambda thing: thing.size or "small"
        objects = tuple(Object(thing.colour, thing.shape, size(thing), 16 + 28 * i, 30)
                        for i, thing in enumerate(read.things[:2]))
        return Scene(objects, read.ground or "white")


@pytest.mark.parametrize("kind", caption.KINDS)
def test_captions_are_of_their_kind_and_of_what_shapes_never_shows(kind):
    some, (name, counts) = caption.captions_of(kind, 30), caption.KINDS[kind]
    assert len(some) == 30 and some == caption.captions_of(kind, 30)
    assert {tuple(thing.count for thing in each.things) for each in some} == {*counts}
    pairs = [{(thing.colour, thing.shape) for thing in each.things} for each in some]
    assert all(bool(each & {*shapes.HELD_OUT}) == (name == "shapes-pairs") or name == "shapes-counts" for each in pairs)


@pytest.mark.parametrize("share, words", [
    ((0.5, 0.05, 100), "50% +- 5.0%"), ((0.5, 0.25, 4), "50% +- 25.0% of 4"), ((1.0, float("nan"), 1), "100% of 1"),
])
def test_a_share_says_of_how_many_it_is_and_has_no_error_of_one(share, words):
    assert caption.share_of(100, *share) == words


def test_what_is_right_is_told(monkeypatch):
    monkeypatch.setattr(caption, "N", 60)
    shown = []
    monkeypatch.setattr(plots, "rows", lambda path, *given: shown.append(given))
    run = type("Run", (), dict(model=Painter(), seed=0))
    answer = caption.study(run, "x.png").splitlines()
    answers = dict(line.split(": ") for line in answer)
    assert [*answers] == [*caption.KINDS]
    sized = sum(each.things[0].size is not None for each in caption.captions_of("one object", 60))
    start = f"count 100% +- 0.0%, bound 100% +- 0.0%, size 100% +- 0.0% of {sized}, place "
    assert 1 < sized < 60 and answers["one object"].startswith(start)
    assert answers["one object"].endswith("(60 captions, 0% of the samples unreadable)")
    some = [each.relation for each in caption.captions_of("two objects", 60) if each.relation]
    across = [relation for relation in some if relation in ("left of", "right of")]
    axis, order = len(across) / len(some), across.count("left of") / len(across)
    assert f"axis {axis:.0%} +- " in answers["two objects"] and f"order {order:.0%} +- " in answers["two objects"]
    assert "count 0% +- 0.0%" in answers["four or five equal objects, which is unseen"]
    ((_, rows, labels, levels),) = shown
    assert rows.shape == (len(caption.SHOWN), 8, 3, 16, 16) and labels == caption.SHOWN and levels == 256
    assert torch.equal(rows[3], Painter().sample(8, "a blue square left of a red circle"))


@pytest.mark.usefixtures("folder_of_its_own")
def test_the_command_line_and_what_does_not_fit(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(caption, "N", 3)
    words = shapes_captions.VOCABULARY
    checkpoint.save("r", Imagen((3, 16, 16), 256, words, 40, **SMALL), {"step": 1, "data": "shapes"})
    checkpoint.save("small", Imagen((3, 8, 8), 256, words, 40, **SMALL), {"step": 1, "data": "shapes"})
    checkpoint.save("other", Imagen((3, 16, 16), 256, **SMALL), {"step": 1, "data": "shapes"})
    checkpoint.save("made", MADE((8, 8), hidden=4), {"step": 1, "data": "digits-threshold"})
    status, out, err = command(capsys, "study", "caption", "r", "small", "other", "made")
    assert status == 0 and (tmp_path / "r" / "caption.png").stat().st_size > 10_000, err
    assert "r: one object: count 0% +- 0.0%, bound 0% +- 0.0%" in out
    for says in ("small does not fit: it draws images of shape (3, 8, 8), and scenes are read of (3, ",
                 "other does not fit: it reads no captions of shapes", "made does not fit: it reads no captions"):
        assert says in err
    assert studies.misfit("caption", MADE((8, 8), hidden=4)) == "it reads no captions of shapes"
