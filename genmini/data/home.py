"""Where data sets lie that are not part of the package.

    used by: genmini/data/mnist.py, genmini/data/__init__.py    test: tests/project/test_mnist.py
"""

import os
from pathlib import Path

from genmini import files


def find(folder=None, needed_by=None):
    """This folder, else that of GENMINI_DATA, else genmini/ in the user's cache.

    needed_by: the data that must be in a folder of the user's own, because it cannot be downloaded.
    """
    named = folder or os.environ.get("GENMINI_DATA")
    if not named and needed_by:
        raise ValueError(f"{needed_by} is read from a folder of yours: name it by --data-dir or GENMINI_DATA")
    if not named:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "genmini"
    files.check_name(named)
    if not Path(named).is_dir():
        raise ValueError(f"there is no folder {named}: name the one that holds the data by --data-dir or GENMINI_DATA")
    return Path(named)
