"""Measures models on MNIST's test set, each trained by its recipes for it on the first 10,000 training images.

    export GENMINI_MNIST10K=DIR                    the folder of these images and the test set, in IDX files
    python bench/table_mnist.py                    runs what is missing or has other settings, writes docs/results.md
    python bench/table_mnist.py --only nade made   the same for these models
    python bench/table_mnist.py --fresh            runs all again
    python bench/table_mnist.py --write            only writes docs/results.md from the stored rows

The last sixth of the 10,000 images is the valid split, on which recipes are tuned. The test split is used here only.
One run is one process with one thread and the seed 0; the seconds are those of the processor. Binary images are one
draw, the same for all models. 64 samples of each model are drawn into docs/mnist/.

A model with classes gives log p(x|y), which does not compare with log p(x) of other models: a label is worth up to
log 10 = 2.3 nats. The table gives both, and is in the order of log p(x) = log sum_y p(y) p(x|y), p(y) as in train.
"""

import inspect
import math
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from trained import Table, train, without_label  # noqa: E402  (bench/trained.py)

FOLDER = "GENMINI_MNIST10K"
PUBLISHED = {  # what models of the same family reach, learnt from 50,000 images or more
    "fvsbn": "96.58 nats (README of pytorch-generative, bits drawn anew)",
    "nade": "88.33 nats (Larochelle and Murray 2011)",
    "made": "88.40 nats (Germain et al. 2015, one layer and one mask)",
    "pixelcnn": "81.30 nats (van den Oord et al. 2016)",
    "vae": "86.76 nats (Burda et al. 2016, one layer of z)",
    "realnvp": "1.02 to 1.08 bits/dim (flows of the UvA deep learning tutorial 11)",
}


class Mnist(Table):
    name = "mnist"
    description = "MNIST's test set under every model with a recipe for it, learnt from 10,000 images."
    sets = {"idx-dynamic": "binary, one draw", "idx": "256 levels"}
    figures = ["nats", "bits_per_dim", "standard_error", "nats_given_y", "error_given_y", "figure"]
    shown = ["nats", "figure", "bits_per_dim", "valid"]
    draws = 100  # an image, of models that bound log p by draws

    @property
    def pictures(self):
        return self.document.parent / "mnist"

    def runs(self, only=None):
        """Every model with a likelihood, or a bound of it, by its recipes "mnist" and "mnist-..."."""
        from genmini import models

        for name in only or models.MODELS:
            found = models.find(name)
            if not found.cannot("log_prob") and not found.cannot("sample"):
                yield from ((name, key, 0) for key in models.recipes(name) if key.startswith("mnist"))

    def measure(self, run):
        """Trains one model and draws its samples -> its row."""
        import torch

        from genmini import experiment

        trained = train(*run, data="idx", folder=folder())
        model, test = trained.model, trained.splits["test"]
        found = {each.name or "nll": (each.mean, each.error) for each in experiment.figures(model, test, self.draws)}
        what = next(what for what in (f"iwae-{self.draws}", "elbo", "nll") if what in found)
        given = {}
        if model.classes:
            given = {name: f"{abs(v):.4f}" for name, v in zip(("nats_given_y", "error_given_y"), found[what],
                                                               strict=True)}
            frequency = trained.splits["train"].y.bincount(minlength=model.classes).clamp(min=1)
            each = without_label(model, test.x, frequency / frequency.sum(), self.draws)[what].double()
            found[what] = each.mean().item(), each.std().item() / math.sqrt(len(each))
        nats, error = abs(found[what][0]), found[what][1]
        torch.manual_seed(0)
        picture(self.pictures / f"{title(*run[:2])}.png", model.sample(64), test.levels)
        picture(self.pictures / f"{trained.plan.data}.png", test.x[:64], test.levels)
        bits = nats / math.prod(test.shape) / math.log(2)
        row = {"nats": f"{nats:.4f}", "bits_per_dim": f"{bits:.4f}", "standard_error": f"{error:.4f}"}
        figure = "at most" if what == "nll" and model.is_bound else what
        return self.row(run, trained, **row, **given, figure=figure)

    # ---- rows --------------------------------------------------------------------------------------------------------

    def of_today(self):
        """In rows without the column nats_given_y, `nats` of a model with classes is that of log p(x|y)."""
        rows = super().of_today()
        for row in rows:
            if not row["nats_given_y"] and _classes(row["who"], row["recipe"]):
                row |= {"nats_given_y": row["nats"], "error_given_y": row["standard_error"]}
                row |= dict.fromkeys(("nats", "bits_per_dim", "standard_error"), "")
        return rows

    def is_whole(self, row):
        return super().is_whole(row) and bool(row["nats"])

    def lines(self, rows, data):
        """The lines of one version of the data, the best log p(x) first."""
        heads = [self.sets[data], "nats", "nats given y", "bits/dim", "published", "parameters", "seconds"]
        lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        for row in self.in_order(rows, data):
            most = "" if row["figure"] == "nll" else "≤ "
            by = f", {row['figure'].upper()}" if row["figure"].startswith("iwae") else ""
            nats = [f"{most}{float(value):.2f} ± {float(error):.2f}{by}" if value else "" for value, error in
                    ((row["nats"], row["standard_error"]), (row["nats_given_y"], row["error_given_y"]))]
            bits = f"{most}{float(row['bits_per_dim']):.3f}" if row["nats"] else ""
            cells = [f"`{title(row['who'], row['recipe'])}`", *nats, bits, PUBLISHED.get(row["who"], "none known"),
                     f"{int(row['parameters']):,}", f"{float(row['cpu_seconds']):.0f}"]
            lines.append("| " + " | ".join(cells) + " |")
        return lines

    @staticmethod
    def in_order(rows, data):
        return sorted((row for row in rows if row["data"] == data), key=lambda row: float(row["nats"] or "inf"))

    def samples(self, rows, data):
        """The test images and the samples of each model, side by side."""
        shown = [data, *(title(row["who"], row["recipe"]) for row in self.in_order(rows, data))]
        titles = [f"test images ({self.sets[data]})", *(f"`{name}`" for name in shown[1:])]
        images = " | ".join(f"![64 images: {title}](mnist/{name}.png)"
                            for title, name in zip(titles, shown, strict=True))
        return ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|", f"| {images} |"]

    def tables(self, rows):
        measured = [data for data in self.sets if any(row["data"] == data for row in rows)]
        return [part(rows, data) for data in measured for part in (self.lines, self.samples)]


def title(name, key):
    """What a line and a picture are called: "mnist-conv" of vae is vae-conv."""
    return key.replace("mnist", name, 1)


def _classes(name, key):
    """How many classes y tells apart in a model of this recipe; 0: the model takes no y."""
    from genmini import models

    parameter = inspect.signature(models.find(name)).parameters.get("classes")
    return models.recipes(name)[key]["model"].get("classes", parameter.default if parameter else 0)


def folder():
    """That of the images, by the environment."""
    if not os.environ.get(FOLDER):
        raise ValueError(f"{FOLDER} is not set: it names a folder with MNIST's first 10,000 training images "
                         "and its test set, in IDX files")
    return os.environ[FOLDER]


def picture(path, x, levels, columns=8):
    """Images as a small file, dark on white: one bit a pixel, or 16 greys."""
    import torch
    from PIL import Image

    from genmini import plots

    ink = (plots.grid(x, columns) / (levels - 1)).nan_to_num(0.3 if levels > 2 else 0)
    white = torch.round(255 * (1 - ink)).to(torch.uint8).numpy()
    image = Image.fromarray(white)
    image = image.convert("1", dither=Image.Dither.NONE) if levels == 2 else image.quantize(16)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)


if __name__ == "__main__":
    Mnist().main()
