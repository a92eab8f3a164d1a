"""Measures models on MNIST's test set, each trained by its recipe "mnist" on the first 10,000 training images.

    export GENMINI_MNIST10K=DIR                    the folder of these images and the test set, in IDX files
    python bench/table_mnist.py                    runs what is missing or has other settings, writes docs/results.md
    python bench/table_mnist.py --only nade made   the same for these models
    python bench/table_mnist.py --fresh            runs all again
    python bench/table_mnist.py --write            only writes docs/results.md from the stored rows

The last sixth of the 10,000 images is the valid split, on which recipes are tuned. The test split is used here only.
One run is one process with one thread and the seed 0; the seconds are those of the processor. Binary images are one
draw, the same for all models. 64 samples of each model are drawn into docs/mnist/.
"""

import json
import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import trained  # noqa: E402  (bench/trained.py)
from trained import KEYS  # noqa: E402

CSV = HERE / "results" / "mnist.csv"
DOCUMENT = HERE.parent / "docs" / "results.md"
PICTURES = HERE.parent / "docs" / "mnist"
FOLDER = "GENMINI_MNIST10K"
SETS = {"idx-dynamic": "binary, one draw", "idx": "256 levels"}
COLUMNS = [*KEYS, "nats", "bits_per_dim", "standard_error", "figure", "valid", "parameters", "step", "cpu_seconds",
           "settings", "torch", "commit"]  # fmt: skip
DRAWS = 100  # an image, of models that bound log p by draws
PUBLISHED = {  # what models of the same family reach, learnt from 50,000 images
    "nade": "88.33 nats (Larochelle and Murray 2011)",
    "made": "88.40 nats (Germain et al. 2015, one layer and one mask)",
    "pixelcnn": "81.30 nats (van den Oord et al. 2016)",
    "vae": "86.76 nats (Burda et al. 2016, one layer of z)",
    "realnvp": "1.02 to 1.08 bits/dim (flows of the UvA deep learning tutorial 11)",
}


def runs(only=None):
    """Yields (model, "mnist", 0) of every model with a likelihood, or a bound of it, that has the recipe."""
    from genmini import models

    for name in only or models.MODELS:
        model_class = models.find(name)
        if "mnist" in models.recipes(name) and not model_class.cannot("log_prob") and not model_class.cannot("sample"):
            yield name, "mnist", 0


def settings(name, key):
    from genmini import models

    recipe = models.recipes(name).get(key)
    parts = recipe and {part: recipe[part] for part in recipe if part not in ("data", "threads")}
    return recipe and json.dumps(parts, sort_keys=True)


def measure(run):
    """Trains one model and draws its samples -> its row."""
    import torch
    from measure import commit

    from genmini import experiment

    folder = os.environ.get(FOLDER)
    if not folder:
        raise ValueError(f"{FOLDER} is not set: it names a folder with MNIST's first 10,000 training images "
                         "and its test set, in IDX files")  # fmt: skip
    torch.set_num_threads(1)
    name, key, seed = run
    plan = experiment.plan(name, "idx", key, seed=seed)
    splits = experiment.splits(plan, folder)
    model = experiment.build(plan, splits["train"])
    since = time.process_time()
    history = experiment.train(plan, model, splits, progress=False)
    seconds = time.process_time() - since
    test = splits["test"]
    figures = {figure.name or "nll": figure for figure in experiment.figures(model, test, DRAWS)}
    what = next(what for what in (f"iwae-{DRAWS}", "elbo", "nll") if what in figures)
    nats, (bits, _) = abs(figures[what].mean), figures[what].bits
    torch.manual_seed(0)
    picture(PICTURES / f"{name}.png", model.sample(64), test.levels)
    picture(PICTURES / f"{plan.data}.png", test.x[:64], test.levels)
    return {
        "data": plan.data, "who": name, "recipe": key, "seed": seed,
        "nats": f"{nats:.4f}", "bits_per_dim": f"{bits:.4f}", "standard_error": f"{figures[what].error:.4f}",
        "figure": "at most" if what == "nll" and model.is_bound else what,
        "valid": f"{history.valid:.4f}", "parameters": sum(p.numel() for p in model.parameters()), "step": history.step,
        "cpu_seconds": f"{seconds:.0f}", "settings": settings(name, key),
        "torch": torch.__version__, "commit": commit(),
    }  # fmt: skip


def picture(path, x, levels):
    """64 images as a small file, dark on white: one bit a pixel, or 16 greys."""
    import torch
    from PIL import Image

    from genmini import plots

    ink = (plots.grid(x) / (levels - 1)).nan_to_num(0.3 if levels > 2 else 0)
    white = torch.round(255 * (1 - ink)).to(torch.uint8).numpy()
    image = Image.fromarray(white)
    image = image.convert("1", dither=Image.Dither.NONE) if levels == 2 else image.quantize(16)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)


# ---- the table -------------------------------------------------------------------------------------------------------


def stored():
    return trained.stored(CSV)


def store(row):
    trained.store(CSV, COLUMNS, row)


def missing(only=None):
    return trained.missing(stored(), runs(only), settings)


def table(rows, data):
    """The lines of one version of the data, the best model first."""
    lines = [f"| {SETS[data]} | nats | bits/dim | published | parameters | seconds |", "|---|---|---|---|---|---|"]
    for row in sorted((row for row in rows if row["data"] == data), key=lambda row: float(row["nats"])):
        how = {"nll": "", "at most": "≤ ", "elbo": "≤ "}.get(row["figure"], "≤ ")
        by = f", {row['figure'].upper()}" if row["figure"].startswith("iwae") else ""
        nats = f"{how}{float(row['nats']):.2f} ± {float(row['standard_error']):.2f}{by}"
        given = " given the class" * (row["who"] == "cvae")
        lines.append(f"| `{row['who']}`{given} | {nats} | {how}{float(row['bits_per_dim']):.3f} | "
                     f"{PUBLISHED.get(row['who'], '')} | {int(row['parameters']):,} | "
                     f"{row['cpu_seconds']} |")  # fmt: skip
    return lines


def pictures(rows, data):
    """The test images and the samples of each model, side by side."""
    shown = [data, *(row["who"] for row in sorted(rows, key=lambda row: float(row["nats"])) if row["data"] == data)]
    titles = [f"test images ({SETS[data]})", *(f"`{name}`" for name in shown[1:])]
    images = " | ".join(f"![64 images: {title}](mnist/{name}.png)" for title, name in zip(titles, shown, strict=True))
    return ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|", f"| {images} |"]


def document():
    """From the rows of the recipes as they are now."""
    rows = [row for row in stored() if row["settings"] == settings(row["who"], row["recipe"])]
    measured = [data for data in SETS if any(row["data"] == data for row in rows)]
    tables = [part(rows, data) for data in measured for part in (table, pictures)]
    trained.write(DOCUMENT, "mnist", tables)


if __name__ == "__main__":
    about = "MNIST's test set under every model with a recipe for it, learnt from 10,000 images, and docs/results.md."
    trained.main(sys.modules[__name__], about, ["nats", "figure", "bits_per_dim", "valid", "cpu_seconds"])
