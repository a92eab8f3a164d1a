"""What is seen of a training while it goes on: a picture of the model beside data, or texts, and curves in TensorBoard.
"""

import time

import torch

from genmini import files, plots, samples
from genmini.data import toys
from genmini.folder import pictures_of


def place(folder, model):
    """Where the picture of a run lies; of a model of text, its texts."""
    return folder / ("samples.txt" if model.of_text else "samples.png")


def missing(model):
    """Why nothing can be shown of the model here, or an empty string."""
    return "" if model.of_text else plots.missing()


def picture(path, model, splits):
    """Write a picture of data beside what the model makes of it."""
    test = splits["test"]
    if model.of_text:
        samples.write_texts(path, model.panels(splits)[0], model)
    elif test.levels:
        panels, columns = model.panels(splits)
        plots.side_by_side(path, panels, test.levels, columns)
    elif test.name in toys.TOYS and model.cannot("log_prob"):
        plots.points(path, model, test)
    elif test.name in toys.TOYS:
        plots.plane(path, model, test, toys.TOYS[test.name].log_prob)
    else:
        seen = torch.cat([splits["train"].x[0], splits["valid"].x[0]])
        plots.series(path, model, seen, test.x[0], splits["train"].y.item())


def frame(model, splits):
    """The same picture of images, small -> the bytes of a PNG"""
    panels, columns = model.panels(splits)
    return plots.frame(panels, splits["test"].levels, columns)


def check_tensorboard():
    """ValueError if the package is missing."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise ValueError("--tensorboard needs the package tensorboard: pip install .[tensorboard]") from None


class Watch:
    """Called at each evaluation of a training: renews the picture in its folder, and of images keeps a small one as
    progress/STEP.png, each if such pictures took at most 1/40 of the time; writes the metrics for TensorBoard, if that
    is wanted. The small ones show how the model learns; each step is at least a tenth more than the one before, so that
    they are less than a hundred. Of points, series and texts, progress/ has what is drawn in the folder.

    resume: the training goes on, so that what is in progress/ is its own; else that of an older run is removed.
    """

    def __init__(self, folder, splits, seed=0, tensorboard=False, resume=False):
        self.folder, self.splits, self.seed, self.tensorboard = folder, splits, seed, tensorboard
        pictures = self.folder / "progress"
        if pictures.is_symlink() or pictures.exists() and not pictures.is_dir():
            raise ValueError(f"{pictures} is no folder, and pictures along the training are kept there: move it away")
        self.began = time.perf_counter()
        self.spent = {"picture": 0.125, "frame": 0.0}  # seconds; a guess: the first picture comes after five
        self.writer, self.stale = None, not resume
        self.kept = self._kept() if resume else {}  # stage -> step of the last in progress/

    def __call__(self, row, model):
        if self.tensorboard:
            self._write_metrics(row, model)
        if missing(model):
            return
        shown = place(self.folder, model)
        drawn = self._in_time("picture", lambda: picture(shown, model, self.splits))
        is_later = row["step"] >= 1.1 * self.kept.get(row.get("stage", ""), 0)
        if is_later and model.levels and not model.of_text:
            self._in_time("frame", lambda: self._keep(row, ".png", frame(model, self.splits)))
        elif is_later and drawn:
            self._keep(row, shown.suffix, shown.read_bytes())

    def _in_time(self, what, draw):
        """Call draw, by the same noise each time, if `what` took at most 1/40 of the time -> whether it was called"""
        before = time.perf_counter()
        if self.spent[what] > (before - self.began) / 40:
            return False
        torch.manual_seed(self.seed)  # the same samples, getting better
        draw()
        self.spent[what] += time.perf_counter() - before
        return True

    def _kept(self):
        return dict(sorted(pictures_of(self.folder).values(), key=lambda picture: picture[1]))

    def _keep(self, row, suffix, content):
        for old in pictures_of(self.folder) if self.stale else ():
            old.unlink()
        stage, self.stale = row.get("stage", ""), False
        name = f"{stage}-{row['step']}" if stage else str(row["step"])
        files.write(self.folder / "progress" / (name + suffix), content)
        self.kept[stage] = row["step"]

    def _write_metrics(self, row, model):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = self.writer or SummaryWriter(self.folder / "tensorboard")
        stage = f"{row['stage']}/" if "stage" in row else ""
        for name in (name for name in row if name not in ("stage", "step", "seconds", "warning")):
            path = f"{model.unit}/{name}" if name in ("train", "valid") else name
            self.writer.add_scalar(stage + path, row[name], row["step"])
        self.writer.flush()
