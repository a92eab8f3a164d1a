"""The folder of a run while a training writes there: one process holds it, and nothing that was there gets lost."""

import contextlib
import itertools
import re
from pathlib import Path

from genmini import checkpoint, files


def new(name):
    """Make the folder runs/NAME, numbered if that is taken; of two callers at a time each gets one of its own."""
    for i in itertools.count(1):
        folder = Path("runs") / (name if i == 1 else f"{name}-{i}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder


def check_free(run):
    """ValueError if the folder holds a run."""
    if (Path(run) / "run.json").exists():
        raise ValueError(f"{run} already holds a run: choose another folder (--out), or --resume or --overwrite it")


@contextlib.contextmanager
def held(run, resume=False, overwrite=False):
    """Hold the run's folder for one training. If it ends before anything of it was saved, the folder is as it was."""
    run = Path(run)
    run.mkdir(parents=True, exist_ok=True)
    try:
        with files.lock(run):
            if not resume and not overwrite:
                check_free(run)
            files.remove_stale(run, "run.json.*.part", "model-*.part", "state-*.part", "*.png.*.part", "*.txt.*.part",
                               "progress/*.part")
            old = _bytes(run / "run.json"), _bytes(run / "metrics.jsonl")
            if old[0] is None:
                _check_foreign(run)
            try:
                yield
            finally:
                if _bytes(run / "run.json") is None:
                    _remove(run)
                elif _bytes(run / "run.json") == old[0] and not resume:  # nothing was saved over the old run
                    files.write(run / "metrics.jsonl", old[1] or b"")
    finally:
        with contextlib.suppress(OSError):  # it holds something
            run.rmdir()


def _bytes(path):
    return path.read_bytes() if path.exists() else None


WRITTEN = ("metrics.jsonl", "samples.png", "samples.txt", "model-*.safetensors", "state-*.safetensors",
           "tensorboard/events.*")
PICTURE = re.compile(r"(?:([\w-]+)-)?(\d+)\.(?:png|txt)")  # of a stage and a step


def pictures_of(run):
    """The pictures along a training that genmini/watch.py kept: {path: (stage, step)}"""
    folder = Path(run) / "progress"
    if folder.is_symlink() or not folder.is_dir():
        return {}
    inside = (path for path in folder.iterdir() if path.is_file() and not path.is_symlink())
    names = {path: PICTURE.fullmatch(path.name) for path in inside}
    return {path: (name[1] or "", int(name[2])) for path, name in names.items() if name}


def _written(run):
    """What a training wrote into this folder"""
    return [*(path for pattern in WRITTEN for path in run.glob(pattern)), *pictures_of(run)]


def _check_foreign(run):
    """ValueError if a training would replace files of a folder that holds no run."""
    for path in _written(run):
        if path.stat().st_size and not checkpoint.is_weights(path.name):  # a kill may leave weights of ours
            raise ValueError(f"{run} holds no run, and a training would replace its {path.name}: "
                             "choose another folder (--out)")


def _remove(run):
    """Remove what a training writes."""
    for path in _written(run):
        path.unlink()
    for folder in ("tensorboard", "progress"):
        with contextlib.suppress(OSError):
            (run / folder).rmdir()
