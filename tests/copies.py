"""Copies of the project, for tests that change a file of it."""

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def copy(name, folder):
    """Copies a folder of the project. The counted libraries stay: they are built when they are asked for, perhaps by
    another test at this moment, and their unfinished files come and go."""
    return shutil.copytree(ROOT / name, folder, ignore=shutil.ignore_patterns("__pycache__", "*.counted.*"))
