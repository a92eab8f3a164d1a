"""Copies of the project, for tests that change a file of it."""

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LARGE = ".so", ".safetensors"


def copy(name, folder):
    """Copies a folder of the project. The counted libraries stay: they are built when they are asked for, perhaps by
    another test at this moment, and their unfinished files come and go. Of libraries and of shipped models, 60 MB, the
    copy holds links: a build puts a new file in the place of one, and writes into none."""
    link = lambda source, to: (os.symlink if source.endswith(LARGE) else shutil.copy2)(source, to)
    return shutil.copytree(ROOT / name, folder, ignore=shutil.ignore_patterns("__pycache__", "*.counted.*"),
                           copy_function=link)
