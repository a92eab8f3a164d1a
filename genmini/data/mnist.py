"""MNIST: 70,000 handwritten digits of 28x28 pixels and 256 levels, read from a folder or downloaded.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition", 1998. Four IDX
files (genmini/data/idx.py), raw or .gz. They are looked for in the folder of --data-dir or GENMINI_DATA (by default
genmini/ in the user's cache), in its mnist/ and in its MNIST/raw/ (torchvision's layout). A file that is missing is
downloaded into mnist/, where it is written only if it has the digest below.

A file is used only if its content has the digest below, wherever it comes from. The digests of the .gz files are those
that the `tensorflow-mnist-input-data` package of tensorflow/haskell and torchvision for Ruby (ankane/torchvision-ruby)
check their downloads by; independent public lists agree on those of the contents.
"""

import hashlib
import http.client
import struct
import sys
import urllib.request
from dataclasses import dataclass

from genmini import files

from . import home, idx

LEVELS = 256
SPLITS = {
    "train": ("train", slice(0, 50_000)),
    "valid": ("train", slice(50_000, 60_000)),
    "test": ("t10k", slice(0, 10_000)),
}
MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")


@dataclass(frozen=True)
class File:
    shape: tuple
    sha256: str  # of the content
    gz_bytes: int
    gz_sha256: str

    @property
    def header(self):
        return struct.pack(f">HBB{len(self.shape)}I", 0, 8, len(self.shape), *self.shape)


FILES = {
    "train-images-idx3-ubyte": File(
        (60_000, 28, 28), "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
    "train-labels-idx1-ubyte": File(
        (60_000,), "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    "t10k-images-idx3-ubyte": File(
        (10_000, 28, 28), "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    "t10k-labels-idx1-ubyte": File(
        (10_000,), "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
}


def read(split, folder=None):
    """-> images (N, 28, 28) uint8, labels (N,) uint8"""
    folder = home.find(folder)
    part, rows = SPLITS[split]
    images, labels = (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
    paths = {name: find(name, folder) or download(name, folder) for name in (images, labels)}
    return tuple(content(path, FILES[name])[rows].copy() for name, path in paths.items())


def find(name, folder):
    for place in (folder, folder / "mnist", folder / "MNIST" / "raw"):
        for path in (place / name, place / f"{name}.gz"):
            if path.is_file():
                return path
    return None


def content(path, file):
    """The bytes of one of MNIST's files as an array, whole and undamaged; or ValueError."""
    array = idx.content(path, len(file.shape), file.header, "MNIST")
    digest = hashlib.sha256(file.header + array.tobytes()).hexdigest()
    if digest != file.sha256:
        raise ValueError(f"{path} is damaged or is not MNIST: the SHA-256 of its content is {digest} "
                         f"and not {file.sha256}; nothing of it was used")
    return array


def download(name, folder):
    """Download the .gz file from the first mirror that has the right one -> its path."""
    file, path = FILES[name], folder / "mnist" / f"{name}.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    print(f"downloading {path.name} ({file.gz_bytes / 1e6:.1f} MB) into {path.parent}", file=sys.stderr)
    for mirror in MIRRORS:
        try:
            with urllib.request.urlopen(mirror + path.name, timeout=30) as stream:
                got = stream.read(file.gz_bytes + 1)
        except (OSError, http.client.HTTPException) as error:  # OSError includes URLError
            failures.append(f"{mirror}: {error}")
            continue
        digest = hashlib.sha256(got).hexdigest()
        if digest != file.gz_sha256:
            failures.append(f"{mirror}: {len(got)} bytes with SHA-256 {digest[:12]}..., "
                            f"not {file.gz_bytes} with {file.gz_sha256[:12]}...")
            continue
        files.write(path, got, "--data-dir")
        return path
    hint = "put MNIST's four files into a folder of yours and name it by --data-dir or GENMINI_DATA"
    raise ValueError(f"{path.name} could not be downloaded ({'; '.join(failures)}): {hint}")
