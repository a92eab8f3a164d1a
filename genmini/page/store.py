"""Keep what was gathered of a room beside the counted libraries, until a source or a compiler changes.

    used by: genmini/page/__init__.py    test: tests/project/test_page.py
"""

import contextlib
import hashlib
import json
from pathlib import Path

import torch

from genmini import files, kernels
from genmini.csrc import build, sass


def kept(room, sizes, gather):
    """What gather() gives: dictionaries, lists and numbers; as it was, if all that it depends on is as it was."""
    folder = kernels.libraries()[0].path.parent
    path, key = folder / f"{room}.page.json", _key(room, sizes, folder)
    with contextlib.suppress(OSError, ValueError, KeyError):  # none, or not whole
        stored = json.loads(path.read_text())
        if stored["key"] == key:
            return stored["room"]
    found = gather()
    with contextlib.suppress(OSError):  # a folder that cannot be written to: it is counted again
        files.write(path, json.dumps({"key": key, "room": found}).encode())
    return found


def _key(room, sizes, folder):
    """A hash of the sizes, of all sources, and of what compiled them."""
    source = kernels.ROOMS[room].source
    digest = hashlib.sha256(f"{room} {sorted(sizes.items())} {torch.__version__} {sass.missing()}".encode())
    genmini = Path(__file__).resolve().parents[1]
    for root, pattern in ((genmini, "*.py"), (Path(kernels.__file__).parent, "*.py"), (build.CSRC, "*.*")):
        for path in sorted(root.rglob(pattern)):
            digest.update(path.name.encode() + path.read_bytes() if path.is_file() and path.suffix != ".pyc" else b"")
    for library in (folder / f"{source}.cuda.key", folder / f"{source}.cuda.log"):
        digest.update(library.read_bytes() if library.exists() else b"")
    if kernels.ROOMS[room].language == "cuda" and build.compiler("counted"):
        digest.update(build.key("counted", build.CSRC / f"{source}.cu").encode())
    return digest.hexdigest()
