"""Sets of images in IDX files: split by a stated rule, whatever their count; a hostile file ends in one line."""

import gzip
import hashlib
import os
import tracemalloc

import numpy as np
import pytest
import torch

from genmini import data
from genmini.cli import main
from genmini.data import idx

SHAPE = (5, 7)


def file_of(array):
    magic = bytes([0, 0, 8, array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
    return magic + array.tobytes()


def labelled(N, seed=0, labels=(1, 4, 9), shape=SHAPE):
    """N images, and labels of which each occurs."""
    random = np.random.RandomState(seed)
    y = np.resize(np.array(labels, np.uint8), N)
    return random.randint(256, size=(N, *shape), dtype=np.uint8), random.permutation(y)


def lay(folder, train=None, test=None, gz=True, prefix="", t10k="t10k"):
    """The files of a set; train, test: images, or (images, labels)."""
    folder.mkdir(exist_ok=True)
    for part, given in (("train", train), (t10k, test)):
        arrays = () if given is None else given if isinstance(given, tuple) else (given,)
        for array, kind in zip(arrays, ("images-idx3", "labels-idx1"), strict=False):
            content = file_of(array)
            path = folder / (f"{prefix}{part}-{kind}-ubyte" + ".gz" * gz)
            path.write_bytes(gzip.compress(content) if gz else content)
    return folder


@pytest.mark.parametrize("gz", [False, True], ids=["raw", "gz"])
def test_a_set_is_read_and_split_by_the_rule(tmp_path, gz):
    (x, y), (x_test, y_test) = labelled(50), labelled(9, seed=1)
    lay(tmp_path, (x, y), (x_test, y_test), gz)
    train, valid, test = (data.load("idx", split, tmp_path) for split in data.SPLITS)
    assert [len(each) for each in (train, valid, test)] == [42, 8, 9]  # 50 // 6 = 8
    assert np.array_equal(torch.cat([train.x, valid.x]), x) and np.array_equal(test.x, x_test)
    names = np.array([1, 4, 9])
    assert np.array_equal(names[torch.cat([train.y, valid.y])], y) and np.array_equal(names[test.y], y_test)
    assert train.levels == 256 and train.shape == SHAPE and train.classes == 3
    assert train.x.dtype == torch.uint8 and train.y.dtype == torch.int64


def test_as_many_images_as_mnist_are_split_as_mnist_is():
    for split, (part, rows) in data.mnist.SPLITS.items():
        N = {"train": 60_000, "t10k": 10_000}[part]
        assert idx.rows_of(split, N, True, "") == rows


@pytest.mark.parametrize("N", [7, 8, 11, 12, 13, 100])
@pytest.mark.parametrize("has_test", [False, True])
def test_every_image_is_in_one_split(N, has_test):
    splits = ("train", "valid") if has_test else data.SPLITS
    rows = [n for split in splits for n in range(N)[idx.rows_of(split, N, has_test, "")]]
    assert rows == list(range(N))
    sizes = [len(range(N)[idx.rows_of(split, N, has_test, "")]) for split in splits]
    assert min(sizes) > 0 and sizes[0] >= 4 * max(sizes[1:]) - 1


def test_labels_and_the_test_file_are_optional(tmp_path):
    x, _ = labelled(36)
    lay(tmp_path, x)
    splits = [data.load("idx", split, tmp_path) for split in data.SPLITS]
    assert [len(each) for each in splits] == [25, 5, 6]  # 36 // 6 = 6 for test, 30 // 6 = 5 for valid
    assert np.array_equal(torch.cat([each.x for each in splits]), x)
    assert all(each.classes == 0 and not each.y.any() for each in splits)


PREFIXES = [("emnist-letters-", "test"), ("", "t10k"), ("FASHION.", "Test"), ("latest-", "t10k")]


@pytest.mark.parametrize("prefix, t10k", PREFIXES)
def test_published_names_are_found(tmp_path, prefix, t10k):
    (x, y), (x_test, y_test) = labelled(12), labelled(7, seed=1)
    lay(tmp_path, (x, y), (x_test, y_test), prefix=prefix, t10k=t10k)
    (tmp_path / "README").write_text("train images idx")
    (tmp_path / "train-images-idx-folder").mkdir()
    (tmp_path / "README").rename(tmp_path / "LICENSE")
    assert np.array_equal(data.load("idx", "test", tmp_path).x, x_test)


def test_of_a_file_and_its_compressed_copy_the_first_is_read(tmp_path):
    x, _ = labelled(12)
    lay(tmp_path, x, gz=True)
    lay(tmp_path, 255 - x, gz=False)
    assert np.array_equal(data.load("idx", "train", tmp_path).x, 255 - x[:9])


def test_binary_versions_are_those_of_other_data(tmp_path):
    lay(tmp_path, *[labelled(12)] * 2)
    names = "idx", "idx-threshold", "idx-drawn", "idx-dynamic"
    grey, static, drawn, dynamic = (data.load(name, "train", tmp_path) for name in names)
    assert torch.equal(static.x, (grey.x >= 128).to(torch.uint8)) and torch.equal(drawn.x, dynamic.x)
    assert torch.equal(dynamic.grey, grey.x) and {each.levels for each in (static, drawn, dynamic)} == {2}
    assert static.source == grey.source and static.classes == 3


# ---- hostile files -------------------------------------------------------------------------------------------------


def header(*sides, magic=(0, 0, 8)):
    return bytes([*magic, len(sides)]) + b"".join(side.to_bytes(4, "big") for side in sides)


IMAGES = file_of(labelled(12)[0])
HOSTILE = {
    "empty": (b"", "has 0 bytes, fewer than the 16"),
    "cut in its header": (IMAGES[:10], "fewer than the 16"),
    "cut": (IMAGES[:-1], "instead of|holds less"),
    "too long": (IMAGES + b"\0", "instead of|holds more"),
    "labels": (file_of(labelled(12)[1]) * 2, "begins with 00000801 and not with 00000803"),
    "float": (header(12, *SHAPE, magic=(0, 0, 13)) + IMAGES[16:], "begins with 00000d03"),
    "huge count": (header(2**32 - 1, *SHAPE) + IMAGES[16:], "at most 2147483648 are read"),
    "huge sides": (header(12, 2**32 - 1, 2**32 - 1) + IMAGES[16:], "at most 2147483648 are read"),
    "large count": (header(2**24, *SHAPE) + IMAGES[16:], "instead of|holds less"),
    "no images": (header(0, *SHAPE), "holds 0 images: at least 7"),
    "few images": (file_of(labelled(6)[0]), "holds 6 images: at least 7"),
    "no pixels": (header(12, 0, 7), "its images have 0 x 7 pixels"),
    "no image": (b"\x89PNG" * 100, "begins with 89504e47"),
}


@pytest.mark.parametrize("gz", [False, True], ids=["raw", "gz"])
@pytest.mark.parametrize("content, message", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(tmp_path, content, message, gz):
    path = tmp_path / ("train-images-idx3-ubyte" + ".gz" * gz)
    path.write_bytes(gzip.compress(content) if gz else content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=message) as caught:
        data.load("idx", "train", tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


DAMAGE = {
    "cut": lambda gz: gz[:-20],
    "bit": lambda gz: gz[:60] + bytes([gz[60] ^ 255]) + gz[61:],
    "raw": lambda gz: IMAGES,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_gz_is_refused(tmp_path, damage):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(damage(gzip.compress(IMAGES)))
    with pytest.raises(ValueError, match="cannot be decompressed|holds (less|more)"):
        data.load("idx", "train", tmp_path)


def test_a_bomb_is_not_unpacked(tmp_path):
    """Of a .gz that holds a hundred thousand times what its header says, reading ends at the first byte too many."""
    lay(tmp_path, labelled(12)[0])
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(IMAGES + bytes(10**8), 1))
    tracemalloc.start()
    with pytest.raises(ValueError, match="holds more"):
        data.load("idx", "train", tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


def test_a_compressed_file_cannot_claim_more_than_deflate_gives(tmp_path):
    """The content that deflates best, zeros, stays below the bound and is read."""
    zeros = np.zeros((3000, 28, 28), np.uint8)
    lay(tmp_path, zeros)
    packed = (tmp_path / "train-images-idx3-ubyte.gz").stat().st_size
    assert 0.9 < zeros.size / packed / idx.MOST_RATIO < 1 and not data.load("idx", "train", tmp_path).x.any()


def test_labels_must_be_those_of_the_images(tmp_path):
    (x, y), test = labelled(12), labelled(7, seed=1)
    lay(tmp_path / "count", (x, y[:11]), test)
    lay(tmp_path / "strange", (x, y), (test[0], test[1] + 1))
    lay(tmp_path / "missing", (x, y), test[0])
    lay(tmp_path / "swapped", (x, np.zeros((12, 2, 2), np.uint8)), test)
    wrong = {
        ("count", "train"): "11 labels for the 12 images",
        ("strange", "test"): "which no train image has",
        ("missing", "test"): "none beside",
        ("swapped", "train"): "begins with 00000803 and not with 00000801",
    }
    for (folder, split), message in wrong.items():
        with pytest.raises(ValueError, match=message):
            data.load("idx", split, tmp_path / folder)


def test_what_is_ambiguous_or_absent_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("GENMINI_DATA", raising=False)
    x, _ = labelled(12)
    lay(tmp_path / "two", x, prefix="a-")
    lay(tmp_path / "two", x, prefix="b-")
    lay(tmp_path / "sizes", x, labelled(7, shape=(7, 5))[0])
    (tmp_path / "nothing").mkdir()
    lay(tmp_path / "both", x, prefix="test-")
    wrong = {
        "two": "several files of train images, a-train.* and b-train",
        "nothing": "holds no IDX file of train images",
        "both": "has both 'train' and 'test' in its name",
        "nowhere": "there is no folder",
        "sizes": "images of different sizes",
        None: "name it by --data-dir",
    }
    for folder, message in wrong.items():
        with pytest.raises(ValueError, match=message):
            data.load("idx", "test", folder and tmp_path / folder)
    with pytest.raises(ValueError, match="chosen for the data `images`"):
        data.load("idx", "train", tmp_path / "two", size=28)


# ---- real MNIST, where there is some -------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def mnist10k():
    folder = os.environ.get("GENMINI_MNIST10K")
    if not folder:
        pytest.skip("GENMINI_MNIST10K is not set: it names a folder with MNIST's first 10,000 train images and its "
                    "test set, in IDX files")
    return folder


def test_real_mnist_is_read(mnist10k):
    """The counts of the classes are the known ones, and the test images have the pinned digest."""
    train, valid, test = (data.load("idx", split, mnist10k) for split in data.SPLITS)
    assert [len(each) for each in (train, valid, test)] == [8334, 1666, 10_000] and train.shape == (28, 28)
    y = torch.cat([train.y, valid.y])
    assert y[:4].tolist() == [5, 0, 4, 1]
    assert torch.bincount(y).tolist() == [1001, 1127, 991, 1032, 980, 863, 1014, 1070, 944, 978]
    assert torch.bincount(test.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    pinned = data.mnist.FILES["t10k-images-idx3-ubyte"]
    assert hashlib.sha256(pinned.header + test.x.numpy().tobytes()).hexdigest() == pinned.sha256


# ---- the command line ----------------------------------------------------------------------------------------------


def test_the_command_line_trains_on_it_and_finds_it_again(tmp_path, folder_of_its_own, capsys):
    (x, y), (x_test, y_test) = labelled(50, shape=(8, 8)), labelled(20, seed=1, shape=(8, 8))
    own = lay(tmp_path / "own", (x, y), (x_test, y_test))
    words = ["train", "nade", "--data", "idx", "--data-dir", str(own), "--steps", "2", "--set", "hidden=4",
             "--out", "r"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "idx is taken as idx-dynamic" in out and "42 train / 8 valid / 20 test" in out
    line = next(line for line in out.splitlines() if line.startswith("test"))
    assert main(["eval", "r"]) == 0 and capsys.readouterr().out.strip() == line  # the run knows the folder
    own.rename(tmp_path / "moved")
    assert main(["eval", "r"]) == 2 and "there is no folder" in capsys.readouterr().err
    assert main(["sample", "r", "--complete", "-n", "4", "--data-dir", "moved", "--out", "x.npy"]) == 0
    other = lay(tmp_path / "other", (x, y), (x_test[:19], y_test[:19]))
    capsys.readouterr()
    assert main(["eval", "r", "--data-dir", str(other)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "its test split has 19 images with SHA-256" in err and "the run's had 20" in err
    assert main([*words, "--resume", "--data-dir", str(other)]) == 2 and "test split" in capsys.readouterr().err


def test_classes_are_those_of_the_labels(tmp_path, folder_of_its_own, capsys):
    (x, y) = labelled(50, shape=(8, 8))
    lay(tmp_path / "three", (x, y))
    lay(tmp_path / "none", x)
    words = ["train", "classifier", "--data", "idx", "--steps", "1", "--set", "width=2", "--data-dir"]
    assert main([*words, "three"]) == 2
    assert "made for 10 classes, and" in (err := capsys.readouterr().err) and "has 3: --set classes=3" in err
    assert main([*words, "three", "--set", "classes=3"]) == 0
    assert main([*words, "none"]) == 2 and "it needs labels, or sub-folders" in capsys.readouterr().err
