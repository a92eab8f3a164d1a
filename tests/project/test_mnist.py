"""Small files in the form of MNIST's: read raw and compressed, from a folder or a server; a wrong byte is refused."""

import gzip
import hashlib
import http.server
import math
import threading

import numpy as np
import pytest
import torch

from genmini import data
from genmini.cli import main
from genmini.data import mnist

N = {"train": 60, "t10k": 10}


@pytest.fixture
def contents(monkeypatch):
    """Four small files in place of MNIST's -> {name: bytes}"""
    random, contents, files = np.random.RandomState(0), {}, {}
    for part, n in N.items():
        for kind, shape in (("images-idx3", (n, 28, 28)), ("labels-idx1", (n,))):
            name = f"{part}-{kind}-ubyte"
            body = random.randint(256 if kind == "images-idx3" else 10, size=shape, dtype=np.uint8)
            magic = bytes([0, 0, 8, len(shape)]) + b"".join(side.to_bytes(4, "big") for side in shape)
            contents[name] = magic + body.tobytes()
            gz = gzip.compress(contents[name], mtime=0)
            digest = lambda content: hashlib.sha256(content).hexdigest()
            files[name] = mnist.File(shape, digest(contents[name]), len(gz), digest(gz))
    monkeypatch.setattr(mnist, "FILES", files)
    splits = {"train": ("train", slice(0, 50)), "valid": ("train", slice(50, 60)), "test": ("t10k", slice(0, 10))}
    monkeypatch.setattr(mnist, "SPLITS", splits)
    monkeypatch.setattr(mnist, "MIRRORS", ())
    monkeypatch.delenv("GENMINI_DATA", raising=False)
    return contents


def lay(folder, contents, gz=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / (name + ".gz" * gz)).write_bytes(gzip.compress(content, mtime=0) if gz else content)


def test_what_is_pinned_has_the_sizes_of_mnist():
    sizes = {name: (len(file.header) + math.prod(file.shape), file.gz_bytes) for name, file in mnist.FILES.items()}
    assert sizes == {
        "train-images-idx3-ubyte": (47_040_016, 9_912_422),
        "train-labels-idx1-ubyte": (60_008, 28_881),
        "t10k-images-idx3-ubyte": (7_840_016, 1_648_877),
        "t10k-labels-idx1-ubyte": (10_008, 4_542),
    }
    digests = {digest for file in mnist.FILES.values() for digest in (file.sha256, file.gz_sha256)}
    assert len(digests) == 8 and all(len(bytes.fromhex(digest)) == 32 for digest in digests)
    headers = {file.header[:4] for file in mnist.FILES.values()}
    assert headers == {(2049).to_bytes(4, "big"), (2051).to_bytes(4, "big")}
    assert [part.stop - part.start for _, part in mnist.SPLITS.values()] == [50_000, 10_000, 10_000]


@pytest.mark.parametrize("gz", [False, True], ids=["raw", "gz"])
@pytest.mark.parametrize("place", [".", "mnist", "MNIST/raw"])
def test_it_is_read_from_a_folder(contents, tmp_path, monkeypatch, gz, place):
    lay(tmp_path / place, contents, gz)
    images = np.frombuffer(contents["train-images-idx3-ubyte"][16:], np.uint8).reshape(60, 28, 28)
    labels = np.frombuffer(contents["train-labels-idx1-ubyte"][8:], np.uint8)
    monkeypatch.setenv("GENMINI_DATA", str(tmp_path))
    for split, rows, folder in (("train", slice(0, 50), None), ("valid", slice(50, 60), tmp_path)):
        read = data.load("mnist", split, folder)
        assert np.array_equal(read.x, images[rows]) and np.array_equal(read.y, labels[rows])
        assert read.levels == 256 and read.shape == (28, 28)
        assert read.x.dtype == torch.uint8 and read.y.dtype == torch.int64
    assert data.load("mnist", "test").x.sum() == sum(contents["t10k-images-idx3-ubyte"][16:])


def flipped(content):
    return content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]


DAMAGE = {
    "cut": (lambda content: content[:-1], False, "bytes instead of"),
    "too long": (lambda content: content + b"\0", False, "bytes instead of"),
    "empty": (lambda content: b"", False, "has 0 bytes"),
    "other magic": (lambda content: b"\0\0\x0d\3" + content[4:], False, "begins with 00000d03"),
    "more images in the header": (lambda content: content[:4] + b"\xff\xff\xff\xff" + content[8:], False,
                                  "begins with 00000803 ffffffff"),
    "a bit": (flipped, False, "SHA-256"),
    "cut, compressed": (lambda content: gzip.compress(content[:-1]), True, "less than"),
    "too long, compressed": (lambda content: gzip.compress(content + bytes(10**6)), True, "more than"),
    "compressed and cut": (lambda content: gzip.compress(content)[:-100], True, "cannot be decompressed"),
    "compressed and a bit": (lambda content: flipped(gzip.compress(content)), True, ""),  # whichever is seen first
    "not compressed": (lambda content: content, True, "cannot be decompressed"),
    "a bit, compressed": (lambda content: gzip.compress(flipped(content)), True, "SHA-256"),
}


@pytest.mark.parametrize("damage, gz, says", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_refused(contents, tmp_path, damage, gz, says):
    lay(tmp_path, contents, gz)
    (path,) = tmp_path.glob("train-images*")
    path.write_bytes(damage(contents["train-images-idx3-ubyte"]))
    with pytest.raises(ValueError, match="is damaged or is not MNIST") as caught:
        data.load("mnist", "train", tmp_path)
    assert says in str(caught.value) and str(path) in str(caught.value)
    assert len(data.load("mnist", "test", tmp_path)) == 10  # its files are whole


def test_a_header_is_checked_before_anything_is_allocated(contents, tmp_path, monkeypatch):
    """No more than the header is unpacked of a .gz with ten megabytes behind a wrong header."""
    lay(tmp_path, contents, gz=True)
    unpacked, read = [], gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, size=-1: unpacked.append(size) or read(self, size))
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(10**7), 1))
    with pytest.raises(ValueError, match="begins with 00000000"):
        data.load("mnist", "test", tmp_path)
    assert unpacked == [16]


# ---- from a server -------------------------------------------------------------------------------------------------


@pytest.fixture
def served(contents, tmp_path, monkeypatch):
    """-> (the folder, the paths requested) of a server of the .gz files on this machine; its first mirror has no
    file."""
    folder, paths = tmp_path / "served", []
    lay(folder, contents, gz=True)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=folder)

        def log_message(self, *_):
            paths.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setattr(mnist, "MIRRORS", (address + "nothing/", address))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield folder, paths
    server.shutdown()
    server.server_close()


def test_what_is_missing_is_downloaded_once(contents, served, tmp_path, capsys):
    read = data.load("mnist", "test")
    assert read.x.sum() == sum(contents["t10k-images-idx3-ubyte"][16:])
    names = ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]
    assert sorted(path.name for path in (tmp_path / "cache" / "genmini" / "mnist").iterdir()) == names
    assert "downloading t10k-images-idx3-ubyte.gz" in capsys.readouterr().err
    before = len(served[1])
    assert torch.equal(data.load("mnist", "test").x, read.x) and len(served[1]) == before


@pytest.mark.parametrize("damage", [flipped, lambda gz: gz[:-10], lambda gz: gz + b"more", lambda gz: b""],
                         ids=["bit", "cut", "long", "empty"])
def test_a_download_with_another_digest_leaves_nothing(served, tmp_path, damage):
    path = served[0] / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"could not be downloaded .*404.*SHA-256.*--data-dir"):
        data.load("mnist", "test")
    assert list((tmp_path / "cache").rglob("*.*")) == []


def test_without_a_net_it_says_where_to_put_the_files(contents, tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", ("http://127.0.0.1:9/",))
    with pytest.raises(ValueError, match="refused.*--data-dir or GENMINI_DATA"):
        data.load("mnist", "train", tmp_path)
    with pytest.raises(ValueError, match="there is no folder"):
        data.load("mnist", "train", tmp_path / "nowhere")


# ---- two levels ----------------------------------------------------------------------------------------------------


def test_binarisations_are_kept_apart(contents, tmp_path):
    lay(tmp_path, contents)
    names = ["mnist", "mnist-threshold", "mnist-drawn", "mnist-dynamic"]
    levels, static, drawn, dynamic = (data.load(name, "train", tmp_path) for name in names)
    assert torch.equal(static.x, (levels.x >= 128).to(torch.uint8))
    assert [static.levels, drawn.levels, dynamic.levels] == [2, 2, 2]
    assert [each.name for each in (levels, static, drawn, dynamic)] == names and torch.equal(dynamic.grey, levels.x)
    rows, noise = torch.arange(50), torch.Generator().manual_seed(0)
    assert torch.equal(static.batch(rows, noise)[0], static.x)  # the same bits at every epoch
    assert torch.equal(drawn.batch(rows, noise)[0], drawn.x) and torch.equal(drawn.x, dynamic.x)
    one, two = dynamic.batch(rows, noise)[0], dynamic.batch(rows, noise)[0]
    assert not torch.equal(one, two) and torch.equal(one, dynamic.batch(rows, torch.Generator().manual_seed(0))[0])
    assert torch.equal(dynamic.x, data.load("mnist-dynamic", "train", tmp_path).x)  # evaluation: one draw, fixed


def test_dynamic_bits_have_the_probability_of_their_level():
    """The frequency of 1 in 4000 draws of each level lies within 5 deviations of level / 16; 0 and 16 are certain."""
    levels = data.load("digits", "train")
    dynamic, noise, share = levels.dynamic(), torch.Generator().manual_seed(1), torch.zeros(17)
    draws = sum(dynamic.batch(torch.arange(200), noise)[0].double() for _ in range(100)).flatten()
    x = levels.x[:200].flatten().long()
    share = torch.zeros(17).double().index_add(0, x, draws) / 100 / torch.bincount(x, minlength=17)
    p, n = torch.arange(17) / 16, 100 * torch.bincount(x, minlength=17)
    assert (((share - p).abs() <= 5 * (p * (1 - p) / n).sqrt()).all() and n.min() > 4000 and share[0] == 0
            and share[16] == 1)
    fixed = dynamic.x.double()[levels.x == 8].mean()  # of the draw that never changes
    assert abs(fixed - 0.5) < 5 * 0.5 / (levels.x == 8).sum() ** 0.5
    other = data.load("digits-dynamic", "valid")
    assert other.x.shape == (200, 8, 8) and not torch.equal(other.x, dynamic.x[:200])


def test_the_command_line_trains_on_it(contents, tmp_path, monkeypatch, capsys):
    lay(tmp_path / "here", contents, gz=True)
    monkeypatch.chdir(tmp_path)
    at = ["--data-dir", "here"]
    words = ["train", "nade", "--data", "mnist", *at, "--steps", "2", "--set", "hidden=4", "--threads", "1"]
    threads = torch.get_num_threads()
    try:
        assert main(words) == 0
        out = capsys.readouterr().out
        assert "mnist is taken as mnist-dynamic" in out and "50 train / 10 valid / 10 test" in out
        assert main([*words, "--recipe", "paper", "--out", "runs/paper"]) == 0
        assert "mnist is taken as mnist-drawn" in capsys.readouterr().out
        assert main(["eval", "runs/nade-mnist", *at]) == 0
        line = next(line for line in out.splitlines() if line.startswith("test"))
        assert capsys.readouterr().out.strip() == line
        assert main(["sample", "runs/nade-mnist", "--complete", "-n", "4", *at, "--out", "x.npy"]) == 0
        assert np.load("x.npy").shape == (4, 28, 28)
        assert main(["eval", "runs/nade-mnist", "--data-dir", "nowhere"]) == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ["autoencoder", "vae", "cvae", "arvae", "vqvae"])
def test_models_with_a_latent_code_train_on_it(contents, tmp_path, monkeypatch, capsys, name):
    """One step of their recipe for it; eval, samples, and the message of a resumed run that is at its end."""
    lay(tmp_path / "here", contents)
    monkeypatch.chdir(tmp_path)
    at, threads = ["--data-dir", "here"], torch.get_num_threads()
    words = ["train", name, "--data", "mnist", *at, "--steps", "1", "--set", "batch=4", "--threads", "1", "--out", "r"]
    try:
        assert main(words) == 0 and (tmp_path / "r" / "samples.png").stat().st_size > 1000
        out = capsys.readouterr().out
        assert "50 train / 10 valid / 10 test" in out and ("squared error" in out or "elbo" in out)
        assert main([*words, "--resume"]) == 0 and "nothing left to resume" in capsys.readouterr().out
        assert (main(["eval", "r", *at, "-k", "2"]) == 0
                and ("iwae-2" in capsys.readouterr().out) == (name in ("vae", "cvae", "arvae")))
        how = ["-y", "3,8"] if name == "cvae" else []
        assert main(["sample", "r", "-n", "3", *how, "--out", "x.npy"]) == 0 and np.load("x.npy").shape == (3, 28, 28)
    finally:
        torch.set_num_threads(threads)


def test_what_it_trains_is_scored_and_studied(contents, tmp_path, monkeypatch, capsys):
    """By the classifier of the package and by one trained here; a study that ten images are too few for says so."""
    lay(tmp_path / "here", contents)
    monkeypatch.chdir(tmp_path)
    at, threads = ["--data-dir", "here", "--threads", "1"], torch.get_num_threads()
    small = ["--data", "mnist", *at, "--steps", "1", "--set", "batch=4"]
    try:
        assert main(["train", "vae", *small, "--set", "latent=2", "--set", "hidden=8", "--out", "vae"]) == 0
        assert main(["train", "classifier", *small, "--set", "width=2", "--out", "classifier"]) == 0
        capsys.readouterr()
        assert main(["eval", "classifier", *at]) == 0 and "accuracy" in capsys.readouterr().out
        for features, named in (("digits-v1", "digits-v1: not comparable"),
                                ("classifier", "the classifier in classifier, trained on mnist")):
            assert main(["score", "vae", "-n", "12", "--features", features, *at]) == 0
            out = capsys.readouterr().out
            assert named in out and "samples, n = 12 samples, n = 10 real, n = 10" in " ".join(out.split())
        for study in ("reconstruct", "interpolate", "embed", "grid", "traverse", "continuity", "aggregate"):
            assert main(["study", study, "vae", *at]) == 0 and (tmp_path / "vae" / f"{study}.png").stat().st_size > 5000
        assert (main(["study", "semi-supervised", "vae", *at]) == 2
                and "10 images of each class, and train has" in capsys.readouterr().err)
    finally:
        torch.set_num_threads(threads)
