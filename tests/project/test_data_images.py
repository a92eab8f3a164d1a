"""A folder of PNG and JPEG images: crop, size, split and classes by a stated rule; a hostile file ends in one line."""

import contextlib
import io
import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from genmini import data
from genmini.cli import main
from genmini.data import images


def png(image, **options):
    """The file of an array, or of Pillow's image."""
    content = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(content, "PNG", **options)
    return content.getvalue()


def lay(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def pictures(N, side=8, seed=0):
    random = np.random.RandomState(seed)
    return {f"{n:02}.png": png(random.randint(256, size=(side, side, 3), dtype=np.uint8)) for n in range(N)}


GOOD = pictures(1, seed=5)["00.png"]


def whole(folder, **options):
    """All splits together -> x, y"""
    splits = [data.load("images", split, folder, **options) for split in data.SPLITS]
    return torch.cat([each.x for each in splits]), torch.cat([each.y for each in splits])


def pixels_of(content, size=8, colour=True):
    return images.image(content, size, colour)


def test_a_thousand_folders_in_each_other(tmp_path):
    deepest = tmp_path.joinpath(*1100 * ["a"])
    for n in range(1, 1101):
        tmp_path.joinpath(*n * ["a"]).mkdir()
    try:
        lay(deepest, pictures(12))
        assert len(whole(tmp_path, size=8)[0]) == 12
    finally:  # pytest's own way to remove folders is recursive
        for path in deepest.iterdir():
            path.unlink()
        os.removedirs(deepest)


# ---- what is read --------------------------------------------------------------------------------------------------


def test_every_image_is_in_one_split_to_the_bit(tmp_path):
    random = np.random.RandomState(0)
    arrays = random.randint(256, size=(20, 8, 8, 3), dtype=np.uint8)
    lay(tmp_path, {f"{n:02}.png": png(array) for n, array in enumerate(arrays)})
    splits = [data.load("images", split, tmp_path, size=8, colour=True) for split in data.SPLITS]
    assert [len(each) for each in splits] == [15, 2, 3]  # 20 // 6 = 3 for test, 17 // 6 = 2 for valid
    x = torch.cat([each.x for each in splits])
    sort = lambda x: sorted(map(bytes, x))
    assert sort(x.movedim(1, 3).contiguous().numpy()) == sort(arrays)
    assert not np.array_equal(x.movedim(1, 3), arrays)  # in a random order
    assert splits[0].levels == 256 and splits[0].shape == (3, 8, 8) and splits[0].classes == 0
    again = data.load("images", "train", tmp_path, size=8, colour=True)
    assert torch.equal(again.x, splits[0].x) and again.source == splits[0].source


def test_sub_folders_are_classes(tmp_path):
    """The colour tells the class; files in a folder of a class's folder belong to the class."""
    for k, name in enumerate(("ant", "bee", "cow/old")):
        lay(tmp_path / name, {f"{n}.png": png(np.full((8, 8), 255 - 40 * k, np.uint8)) for n in range(7 + k)})
    lay(tmp_path, {"bee/NOTES.txt": b"no image", ".hidden": b"", "empty/Thumbs.db": b""})
    x, y = whole(tmp_path, size=8)
    assert torch.equal(x[:, 0, 0], 40 * y) and torch.bincount(y).tolist() == [7, 8, 9]
    assert data.load("images", "train", tmp_path, size=8).classes == 3


def test_grey_counts_ink_and_colours_are_as_they_are():
    line = np.array([[0, 60, 200, 255]] * 4, np.uint8)
    assert np.array_equal(images.image(png(line), 4, False), 255 - line)
    colours = np.stack([line, line.T, 255 - line], 2)
    assert np.array_equal(images.image(png(colours), 4, True), colours.transpose(2, 0, 1))
    luma = (0.299 * colours[..., 0] + 0.587 * colours[..., 1] + 0.114 * colours[..., 2]).round()
    assert np.abs(255 - luma - images.image(png(colours), 4, False)).max() <= 1


@pytest.mark.parametrize("height, width", [(8, 14), (14, 8), (8, 13), (13, 8)])
def test_the_central_square_is_kept(height, width):
    random = np.random.RandomState(0)
    array = random.randint(256, size=(height, width), dtype=np.uint8)
    top, left = (height - 8) // 2, (width - 8) // 2
    assert np.array_equal(images.image(png(array), 8, False), 255 - array[top : top + 8, left : left + 8])


@pytest.mark.parametrize("side", [4, 16, 61])
def test_scaling_keeps_what_is_constant_and_the_mean_of_what_is_smooth(side):
    colour = (10, 100, 250)
    constant = np.full((side, side, 3), colour, np.uint8)
    assert (images.image(png(constant), 8, True) == np.array(colour)[:, None, None]).all()
    ramp = np.tile(np.linspace(0, 255, side).astype(np.uint8), (side, 1))
    scaled = 255 - images.image(png(ramp), 8, False).astype(int)
    assert abs(scaled.mean() - ramp.mean()) < 3
    assert (np.diff(scaled, axis=1) > 0).all() and (np.diff(scaled, axis=0) == 0).all()


def test_every_mode_of_both_formats_is_read():
    """Palette, 1 bit, 16 bits, alpha on white, CMYK, and what a camera held sideways wrote."""
    random = np.random.RandomState(0)
    colours = random.randint(256, size=(8, 8, 3), dtype=np.uint8)
    plain = Image.fromarray(colours)
    palette = plain.quantize(16)
    assert np.array_equal(pixels_of(png(palette)), np.asarray(palette.convert("RGB")).transpose(2, 0, 1))
    bits = Image.fromarray(colours[..., 0] > 100)
    assert set(np.unique(pixels_of(png(bits), colour=False))) == {0, 255}
    deep = (colours[..., 0].astype(np.uint16) << 8) + 77
    assert np.array_equal(pixels_of(png(deep), colour=False), 255 - colours[..., 0])
    exif = Image.Exif()
    exif[0x0112] = 3  # the camera was upside down
    assert np.array_equal(pixels_of(png(deep, exif=exif), colour=False), 255 - colours[::-1, ::-1, 0])
    paper = pixels_of(png(deep, transparency=int(deep[2, 3])), colour=False)
    assert np.array_equal(paper, np.where(deep == deep[2, 3], 0, 255 - colours[..., 0]))
    alpha = np.dstack([colours, np.where(colours[..., 0] > 128, 255, 0).astype(np.uint8)])
    expected = np.where(alpha[..., 3:] > 0, colours, 255)
    assert np.array_equal(pixels_of(png(alpha)), expected.transpose(2, 0, 1))
    assert not pixels_of(png(alpha), colour=False)[alpha[..., 3] == 0].any()  # no ink
    transparent = png(palette, transparency=palette.getpixel((0, 0)))
    assert (pixels_of(transparent)[:, 0, 0] == 255).all()
    ramp = np.tile(np.linspace(0, 255, 8).astype(np.uint8)[:, None, None], (1, 8, 3))
    upside_down = "RGB", dict(exif=exif), ramp[::-1]
    for mode, options, expected in (("RGB", {}, ramp), ("L", {}, ramp), ("CMYK", {}, ramp), upside_down):
        content = io.BytesIO()
        Image.fromarray(ramp).convert(mode).save(content, "JPEG", quality=95, **options)
        assert np.abs(pixels_of(content.getvalue()).astype(int) - expected.transpose(2, 0, 1)).max() < 12


def test_binary_versions_are_of_grey(tmp_path):
    lay(tmp_path, pictures(8))
    names = "images", "images-threshold", "images-dynamic"
    grey, static, dynamic = (data.load(name, "train", tmp_path, size=8) for name in names)
    assert torch.equal(static.x, (grey.x >= 128).to(torch.uint8)) and torch.equal(dynamic.grey, grey.x)
    with pytest.raises(ValueError, match="images-threshold is made of grey images"):
        data.load("images-threshold", "train", tmp_path, size=8, colour=True)
    with pytest.raises(ValueError, match="size and colour are chosen for the data `images`"):
        data.load("digits", "train", size=8)


# ---- the same data again -------------------------------------------------------------------------------------------


def test_a_run_finds_its_data_again(tmp_path):
    folder = lay(tmp_path / "a", pictures(12))
    splits = {split: data.load("images", split, folder, size=8, colour=True) for split in data.SPLITS}
    metadata = {"data": "images", "options": dict(size=8, colour=True), "source": data.record(splits)}
    for split in data.SPLITS:
        assert torch.equal(data.of_run(metadata, split).x, splits[split].x)  # where it lay
    folder = folder.rename(tmp_path / "moved")
    with pytest.raises(ValueError, match="there is no folder .*--data-dir"):
        data.of_run(metadata, "test")
    assert torch.equal(data.of_run(metadata, "test", folder).x, splits["test"].x)
    added = folder / "99.png"
    added.write_bytes(GOOD)
    with pytest.raises(ValueError, match="does not hold the data of this run: its test split has 2 images .*name the"):
        data.of_run(metadata, "test", folder)
    added.unlink()
    assert torch.equal(data.of_run(metadata, "test", folder).x, splits["test"].x)
    for path in folder.iterdir():  # as many, of the same names, other pixels
        path.write_bytes(GOOD)
    with pytest.raises(ValueError, match="does not hold the data of this run"):
        data.of_run(metadata, "test", folder)
    assert data.record({"train": data.load("digits")}) is None
    assert len(data.of_run({"data": "digits"}, "test")) == 300
    with pytest.raises(ValueError, match="does not name"):
        data.of_run({}, "test")


# ---- hostile folders -----------------------------------------------------------------------------------------------


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_header(width, height):
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0))


END, MANY = chunk(b"IEND", b""), chunk(b"IDAT", zlib.compress(bytes(10**7)))
HOSTILE = {
    "empty": (b"", "is no PNG or JPEG image, whatever its name says"),
    "text": (b"hello", "is no PNG or JPEG image"),
    "gif": (b"GIF89a" + bytes(100), "is no PNG or JPEG image"),
    "cut": (GOOD[:-40], "is damaged or no image"),
    "a byte": (GOOD[:60] + bytes([GOOD[60] ^ 255]) + GOOD[61:], "is damaged or no image"),
    "header alone": (png_header(8, 8), "is no PNG or JPEG image"),
    "no pixels": (png_header(0, 8) + chunk(b"IDAT", zlib.compress(b"")) + END, "is damaged or no image|is no PNG"),
    "bomb": (png_header(2**31 - 1, 2**31 - 1) + MANY + END, "at most 50000000 are read"),
    "large": (png_header(10_000, 5_001) + MANY + END, "10000 x 5001 pixels, and at most 50000000"),
    "jpeg, cut": (b"\xff\xd8\xff\xe0" + bytes(100), "is damaged or no image|is no PNG"),
}


@pytest.mark.parametrize("content, message", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_image_is_refused_in_one_line(tmp_path, content, message):
    lay(tmp_path, {f"{n}.png": content for n in range(8)})
    data.images.image(GOOD, 8, False)  # what Pillow allocates once
    tracemalloc.start()
    with pytest.raises(ValueError, match=message) as caught:
        data.load("images", "train", tmp_path, size=8)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
    assert tracemalloc.get_traced_memory()[1] < 2 * 10**6
    tracemalloc.stop()


def test_links_do_not_lead_out(tmp_path):
    outside = lay(tmp_path / "outside", pictures(8))
    links = {"secret.png": outside / "00.png", "linked": outside, "inside.jpg": "00.png", "loop": "loop", "bad": "/no"}
    for name, target in links.items():
        folder = lay(tmp_path / f"with-{name}", pictures(8))
        (folder / name).symlink_to(target)
        with pytest.raises(ValueError, match=f"{name} is a link"):
            data.load("images", "train", folder, size=8)
    (tmp_path / "named").symlink_to(outside)  # the folder itself may be a link: the user names it
    assert len(data.load("images", "train", tmp_path / "named", size=8)) == 6


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(lay(tmp_path, pictures(8)) / "pipe.png")
    with pytest.raises(ValueError, match="pipe.png is named as an image and is no file"):
        data.load("images", "train", tmp_path, size=8)


def test_what_cannot_be_split_or_labelled_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("GENMINI_DATA", raising=False)
    lay(tmp_path / "none", {"a.txt": b"", "b.gif": b""})
    lay(tmp_path / "few", pictures(6))
    lay(tmp_path / "mixed", pictures(8) | {"class/a.png": GOOD})
    large = lay(tmp_path / "large", pictures(8)) / "00.png"
    with open(large, "wb") as file:
        file.truncate(images.MOST_BYTES + 1)
    wrong = {
        "none": "holds no PNG or JPEG image",
        "few": "holds 6 images: at least 7",
        "nowhere": "there is no folder",
        "mixed": "beside folders of images, as class: sub-folders are classes",
        "large": "has 268435457 bytes, and at most 268435456",
        None: "name it by --data-dir",
    }
    for folder, message in wrong.items():
        with pytest.raises(ValueError, match=message):
            for split in data.SPLITS:
                data.load("images", split, folder and tmp_path / folder, size=8)
    for size in (3, 1025, 8.0, "8"):
        with pytest.raises(ValueError, match="size must be a whole number, 4 to 1024"):
            data.load("images", "train", tmp_path / "mixed", size=size)


# ---- the command line ----------------------------------------------------------------------------------------------


def test_the_command_line_trains_on_it_and_finds_it_again(tmp_path, folder_of_its_own, capsys):
    lay(tmp_path / "own", pictures(30, side=11))
    words = ["train", "vae", "--data", "images", "--data-dir", "own", "--steps", "1", "--set", "hidden=4", "--out", "r"]
    assert main([*words, "--size", "8"]) == 0
    assert ("images is taken as images-dynamic" in (out := capsys.readouterr().out)
            and "21 train / 4 valid / 5 test" in out)
    assert main(["eval", "r", "-k", "2"]) == 0 and "elbo" in capsys.readouterr().out
    assert main(["study", "reconstruct", "r"]) == 0 and main(["sample", "r", "-n", "3", "--out", "x.npy"]) == 0
    assert np.load("x.npy").shape == (3, 8, 8)
    assert main([*words, "--resume"]) == 2 and "begun with options {'size': 8" in capsys.readouterr().err
    lay(tmp_path / "own", {"new.png": GOOD})
    assert main(["score", "r", "-n", "4"]) == 2 and "does not hold the data of this run" in capsys.readouterr().err
    for wrong, message in ((["--data", "digits", "--size", "8"], "chosen for the data `images`"),
                           (["--size", "0"], "--size"), (["--size", "5000"], "4 to 1024"),
                           (["--data", "images-drawn", "--colour"], "grey images")):
        with pytest.raises(SystemExit) if wrong == ["--size", "0"] else contextlib.nullcontext():
            assert main([*words, "--out", "s", *wrong]) == 2
        assert message in capsys.readouterr().err
