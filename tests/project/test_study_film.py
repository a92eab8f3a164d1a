"""The film of a training shows the pictures that the run keeps, in the order of their steps, each with its name."""

import numpy as np
import pytest
from check import command
from PIL import Image

from genmini import checkpoint, studies
from genmini.models.made import MADE
from genmini.models.vqvae import VQVAE
from genmini.studies import film

pytestmark = pytest.mark.usefixtures("folder_of_its_own")


def kept(folder, pictures):
    """Pictures of one colour each, {name: (colour, size)}"""
    for name, (colour, size) in pictures.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colour).save(path)


def frames(path):
    """The colour in the middle of each frame, how long it stands, and the sizes"""
    with Image.open(path) as gif:
        found = []
        for i in range(gif.n_frames):
            gif.seek(i)
            pixels = np.asarray(gif.convert("RGB"))
            found.append((tuple(pixels[film.STRIP + 10, 10].tolist()), gif.info["duration"], pixels.shape[:2]))
    return found


def test_pictures_follow_by_their_steps_and_the_samples_come_last(capsys, tmp_path):
    red, green, blue, grey = (255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)
    checkpoint.save("made", MADE((8, 8), hidden=4), {"step": 1, "data": "digits-threshold"})
    kept(tmp_path / "made", {"progress/100.png": (red, (300, 200)), "progress/1000.png": (blue, (1920, 600)),
                             "progress/200.png": (green, (300, 200)), "samples.png": (grey, (300, 200)),
                             "progress/mine.png": (grey, (9, 9))})
    status, out, _ = command(capsys, "study", "film", "made")
    assert status == 0 and out == ("made: 4 pictures: step 100, step 200, step 1000, at the end\n"
                                   "picture   made/film.gif\n")
    shown = frames("made/film.gif")
    assert [colour for colour, _, _ in shown] == [red, green, blue, grey]
    assert [time for _, time, _ in shown] == [film.MILLISECONDS] * 3 + [film.LAST]
    assert {size for _, _, size in shown} == {(300 + film.STRIP, 960)}  # the widest picture, half as wide
    words = ["study", "film", "made", "--out", "x.png"]
    assert "the study film draws a .gif file, got x.png" in command(capsys, *words)[2]


def test_the_pictures_of_a_later_stage_follow_those_of_the_first(tmp_path):
    model = VQVAE((8, 8), levels=17, K=4, dim=2, width=4, prior_width=4, prior_blocks=1)
    checkpoint.save("codes", model, {"step": 1, "data": "digits"})
    kept(tmp_path / "codes" / "progress", {"prior-50.png": ("red", (20, 20)), "codes-700.png": ("blue", (20, 20)),
                                           "codes-90.png": ("red", (20, 20))})
    assert studies.study("film", "codes") == "3 pictures: step 90 of codes, step 700 of codes, step 50 of prior"
    for name in ("prior-50", "codes-90"):
        (tmp_path / f"codes/progress/{name}.png").unlink()
    assert studies.study("film", "codes") == "1 picture: step 700 of codes"  # a training too short for more
    (tmp_path / "codes/progress/codes-700.png").unlink()
    with pytest.raises(studies.Misfit, match="codes does not fit: it keeps no picture of its training"):
        studies.study("film", "codes")
