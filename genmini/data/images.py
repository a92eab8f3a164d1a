"""A folder of PNG and JPEG images of the user's own, each cropped to its central square and scaled to one size.

    photos/cat/1.jpg  photos/cat/2.jpg  photos/dog/old/3.png      sub-folders are classes, numbered in order of name
    photos/1.jpg  photos/2.png                                    no sub-folders: no classes

Grey levels count ink, as MNIST's do: 0 is white and 255 is black. Colour images are (3, size, size): red, green, blue,
255 the brightest. Transparent pixels lie on white. An image that already has this size is not resampled.

Files with other suffixes are ignored. A file that is named as an image and is none, is damaged or has too many pixels
ends the reading in an error that names it; so does a link, which could lead out of the folder. The size is checked
before anything is decoded.

The split: the sorted paths are put into one fixed random order. The last sixth is for test, the last sixth of the rest
for valid, the rest for train.
"""

import contextlib
import hashlib
import io
import os
import stat
import warnings
from pathlib import Path

import numpy as np

from .idx import rows_of

SUFFIXES = (".png", ".jpg", ".jpeg")
MOST_PIXELS = 50_000_000  # of one image: some cameras make as many
MOST_BYTES = 2**28  # of one file
SIZES = range(4, 1025)


def read(split, folder, size, colour):
    """-> images (N, [3,] size, size) uint8, classes (N,) int64, the number of classes, SHA-256 of names and files"""
    root, (paths, chosen) = Path(folder), find(split, folder)
    classes = _classes(root, paths)
    x = np.empty((len(chosen), *((3,) if colour else ()), size, size), np.uint8)
    y = np.empty(len(chosen), np.int64)
    digest = hashlib.sha256()
    for i, parts in enumerate(chosen):
        content = content_of(root.joinpath(*parts))
        digest.update(f"{'/'.join(parts)}\0{len(content)}\0".encode("utf-8", "surrogateescape") + content)
        x[i] = image(content, size, colour, root.joinpath(*parts))
        y[i] = classes.index(parts[0]) if classes else 0
    return x, y, len(classes), digest.hexdigest()


def find(split, folder):
    """-> all images of the folder, and those of the split in its order, each as the names on the way to it"""
    paths = sorted(_paths(Path(folder)))
    if not paths:
        raise ValueError(f"{folder} holds no PNG or JPEG image: they are known by {', '.join(SUFFIXES)}")
    rows = rows_of(split, len(paths), False, folder)
    chosen = np.random.RandomState(0).permutation(len(paths))[rows]  # a stream that NumPy promises never to change
    return paths, [paths[n] for n in chosen]


def check_size(size):
    if type(size) is not int or size not in SIZES:
        raise ValueError(f"size must be a whole number, {SIZES[0]} to {SIZES[-1]} pixels, got {size!r}")


def _paths(root):
    """The image files below root, each as the names on the way to it."""
    folders = [()]  # a list, and no recursion: a thousand may lie in each other
    for inside in folders:
        folders += (yield from _images(root, inside))


def _images(root, inside):
    """The image files of one folder -> the folders in it."""
    folders = []
    for entry in os.scandir(root.joinpath(*inside)):
        here = *inside, entry.name
        named_as_image = entry.name.lower().endswith(SUFFIXES)
        if entry.is_symlink():
            raise ValueError(f"{root.joinpath(*here)} is a link, which could lead out of {root}: "
                             "put the file itself there")
        elif entry.is_dir():
            folders.append(here)
        elif named_as_image:
            if not stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
                raise ValueError(f"{root.joinpath(*here)} is named as an image and is no file")
            yield here
    return folders


def _classes(root, paths):
    """The sub-folders with images, sorted; () if the images lie in root itself."""
    classes = sorted({parts[0] for parts in paths if len(parts) > 1})
    beside = next((parts[0] for parts in paths if len(parts) == 1), None)
    if classes and beside:
        raise ValueError(f"{root} holds images, as {beside}, beside folders of images, as {classes[0]}: "
                         "sub-folders are classes, so put every image into one, or all into one folder")
    return classes


def content_of(path):
    """The bytes of an image file"""
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{path} has {size} bytes, and at most {MOST_BYTES} are read of an image")
    return path.read_bytes()


def image(content, size, colour, name="the image"):
    """The bytes of a PNG or JPEG file -> (size, size) or (3, size, size) uint8"""
    with errors_name(name):
        pixels, _ = cut(decoded(content), (size, size), colour)
    return pixels if colour else 255 - pixels


def decoded(content):
    """The bytes of a PNG or JPEG file -> an image of Pillow, grey or RGB, upright and opaque"""
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own limit is a warning; ours, below, is an error
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as opened:
            width, height = opened.size
            if width * height > MOST_PIXELS:
                raise _TooLarge(f"{width} x {height} pixels")
            return _upright_and_opaque(opened, Image, ImageOps)


def cut(whole, sides, colour):
    """The largest part in the middle with the form of these sides (H, W), scaled to them
    -> brightness (H, W) or (3, H, W) uint8; the width and the height of the part"""
    from PIL import Image

    H, W = sides
    width, height = min(whole.width, max(1, whole.height * W // H)), min(whole.height, max(1, whole.width * H // W))
    left, top = (whole.width - width) // 2, (whole.height - height) // 2
    box = left, top, left + width, top + height
    same = (width, height) == (W, H)
    part = whole.crop(box) if same else whole.resize((W, H), Image.Resampling.BICUBIC, box)
    pixels = np.asarray(part.convert("RGB" if colour else "L"))
    return pixels.transpose(2, 0, 1) if colour else pixels, (width, height)


@contextlib.contextmanager
def errors_name(name):
    """What goes wrong with an image becomes a ValueError that names it."""
    from PIL import Image

    try:
        yield
    except (_TooLarge, Image.DecompressionBombError) as error:
        many = error if isinstance(error, _TooLarge) else "more pixels than Pillow opens"
        raise ValueError(f"{name} has {many}, and at most {MOST_PIXELS} are read") from None
    except Image.UnidentifiedImageError:
        raise ValueError(f"{name} is no PNG or JPEG image, whatever its name says") from None
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can make Pillow raise nearly anything
        why = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{name} is damaged or no image: {why}") from None


class _TooLarge(Exception):
    pass


def _upright_and_opaque(opened, Image, ImageOps):
    """The decoded image, grey or RGB with 8 bits: turned upright, on white where it is transparent."""
    upright = ImageOps.exif_transpose(opened)
    if upright.mode.startswith("I"):  # grey of 16 bits, of which one may stand for transparency
        levels = np.asarray(upright).astype(np.uint32)
        grey = np.where(levels == upright.info.get("transparency", -1), 255, levels >> 8)
        return Image.fromarray(grey.astype(np.uint8))
    if upright.mode in ("LA", "PA", "RGBA") or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        white = Image.new("RGBA", upright.size, "white")
        return Image.alpha_composite(white, upright).convert("RGB")
    return upright if upright.mode in ("L", "RGB") else upright.convert("L" if upright.mode == "1" else "RGB")
