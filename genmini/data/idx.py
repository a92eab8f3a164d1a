"""IDX, the file format of MNIST: read any set of grey images in it; a file that is not what its header says is refused.

A file is a magic number (two zeros, 8 for bytes, the number of sides), the sides as big-endian 32-bit integers, and the
bytes; raw, or compressed as .gz. MNIST, Fashion-MNIST, KMNIST and EMNIST are published so, under names like these:

    train-images-idx3-ubyte.gz    train-labels-idx1-ubyte.gz         a name holds "train" or "test" (or "t10k"),
    t10k-images-idx3-ubyte.gz     t10k-labels-idx1-ubyte.gz          "images" or "labels", and "idx"

Labels are optional. The valid split is the last sixth of the train images: 60,000 images become 50,000 and 10,000, as
MNIST's do. Without a test file, the last sixth of all images is the test split, and the rest is divided in that way.
"""

import gzip
import math
import re
import struct
import zlib
from pathlib import Path

import numpy as np

MOST_BYTES = 2**31  # of one file's content
MOST_RATIO = 1032  # one byte of deflate's output gives at most so many
PARTS = {"train": "train", "test": "test|t10k"}


def read(split, folder):
    """-> images (N, H, W) uint8, classes (N,) int64, the number K of classes

    The labels of the train images, whatever numbers they are, are the classes 0 ... K-1 in their order. Without labels
    every class is 0, and K is 0.
    """
    train, test = (find(Path(folder), part) for part in PARTS)
    if not train:
        raise ValueError(f"{folder} holds no IDX file of train images: its name must hold 'train', 'images' and 'idx'")
    if test and test["images"] == train["images"]:
        raise ValueError(f"{train['images']} has both 'train' and 'test' in its name: rename it after what it holds")
    files = test if split == "test" and test else train
    x = content(files["images"], 3)
    if test and sides(test["images"], 3)[1:] != sides(train["images"], 3)[1:]:
        raise ValueError(f"{test['images']} and {train['images']} hold images of different sizes")
    y, K = _classes(train, files, len(x))
    rows = rows_of(split, len(x), bool(test), folder)
    return x[rows].copy(), y[rows].copy(), K


def find(folder, part):
    """-> {"images": path, "labels": path}, without labels if there are none; {} if there are no images"""
    paths = {}
    for kind in ("images", "labels"):
        fits = re.compile(rf"(?=.*(?<![a-z])({PARTS[part]})(?![a-z]))(?=.*{kind})(?=.*idx)", re.I).match
        names = sorted(path.name for path in folder.iterdir() if fits(path.name) and path.is_file())
        twice = [name for name in names if name.lower().endswith(".gz") and name[:-3] in names]
        names = [name for name in names if name not in twice]  # the raw one of two
        if len(names) > 1:
            raise ValueError(f"{folder} holds several files of {part} {kind}, {' and '.join(names[:2])}: "
                             "give each set a folder of its own")
        if names:
            paths[kind] = folder / names[0]
    return paths if "images" in paths else {}


def _classes(train, files, N):
    if "labels" not in train:
        return np.zeros(N, np.int64), 0
    if "labels" not in files:
        raise ValueError(f"there are labels beside {train['images']} and none beside {files['images']}")
    names = np.unique(content(train["labels"], 1))
    labels = content(files["labels"], 1)
    if len(labels) != N:
        raise ValueError(f"{files['labels']} holds {len(labels)} labels for the {N} images in {files['images']}")
    strange = np.setdiff1d(labels, names)
    if len(strange):
        raise ValueError(f"{files['labels']} holds the label {strange[0]}, which no train image has")
    return np.searchsorted(names, labels).astype(np.int64), len(names)


def rows_of(split, N, has_test, folder):
    """The rows of N images that are the split: the last sixth is valid, after a sixth for test if that has no file."""
    if has_test and split == "test":
        if not N:
            raise ValueError(f"{folder} holds no test image")
        return slice(0, N)
    train_and_valid = N if has_test else N - N // 6
    train = train_and_valid - train_and_valid // 6
    if train == train_and_valid:
        what = "train and valid" if has_test else "train, valid and test"
        raise ValueError(f"{folder} holds {N} images: at least {6 if has_test else 7} are needed for {what}")
    return {"train": slice(0, train), "valid": slice(train, train_and_valid), "test": slice(train_and_valid, N)}[split]


# ---- one file ------------------------------------------------------------------------------------------------------


def content(path, rank, header=None, what=None):
    """The bytes of an IDX file with `rank` sides as an array, whole and undamaged; or ValueError.

    header: the only right one, of the file that `what` names. No more is read than a file of this size can hold.
    """
    size = path.stat().st_size
    head, shape = _header(path, rank, header, what)
    count = math.prod(shape)
    whole = len(head) + count
    damaged = lambda how: _damaged(path, rank, how, what)
    if count > MOST_BYTES:
        raise damaged(f"its header counts {count} bytes, and at most {MOST_BYTES} are read")
    if path.suffix.lower() != ".gz" and size != whole:
        raise damaged(f"it has {size} bytes instead of {whole}")
    if path.suffix.lower() == ".gz" and whole > MOST_RATIO * size:
        raise damaged(f"it holds less than {whole} bytes")
    try:
        with _open(path) as stream:
            stream.read(len(head))
            body = stream.read(count)
            if len(body) != count or stream.read(1):
                raise damaged(f"it holds {'less' if len(body) != count else 'more'} than {whole} bytes")
    except _BROKEN as error:
        raise damaged(f"it cannot be decompressed ({error})") from None
    return np.frombuffer(body, np.uint8).reshape(shape)


def sides(path, rank):
    """What the header says of an IDX file with `rank` sides: the sides."""
    return _header(path, rank)[1]


_BROKEN = EOFError, zlib.error, gzip.BadGzipFile


def _open(path):
    return (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb")


def _header(path, rank, header=None, what=None):
    """-> the header, the sides that it names"""
    length = 4 + 4 * rank
    try:
        with _open(path) as stream:
            head = stream.read(length)
    except _BROKEN as error:
        raise _damaged(path, rank, f"it cannot be decompressed ({error})", what) from None
    magic = bytes([0, 0, 8, rank])
    if len(head) < length:
        raise _damaged(path, rank, f"it has {len(head)} bytes, fewer than the {length} of a header", what)
    if head != (header or magic + head[4:]):
        right = header or magic
        begins = f"it begins with {head[: len(right)].hex(' ', 4)} and not with {right.hex(' ', 4)}"
        raise _damaged(path, rank, begins, what)
    shape = struct.unpack(f">{rank}I", head[4:])
    if 0 in shape[1:]:
        raise _damaged(path, rank, f"its images have {' x '.join(map(str, shape[1:]))} pixels", what)
    return head, shape


def _damaged(path, rank, how, what=None):
    kind = "images" if rank == 3 else "labels"
    return ValueError(f"{path} is damaged or is not {what or f'an IDX file of {kind}'}: {how}; nothing of it was used")
