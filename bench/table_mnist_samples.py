"""Measures samples of adversaries and of a diffusion that learnt from MNIST: are they digits, and do they copy?

    export GENMINI_MNIST10K=DIR                    the folder of MNIST's first 10,000 training images and its test set
    python bench/table_mnist_samples.py            runs what is missing or has other settings, writes docs/results.md
    python bench/table_mnist_samples.py --only gan the same for this model
    python bench/table_mnist_samples.py --fresh    runs all again
    python bench/table_mnist_samples.py --write    only writes docs/results.md from the stored rows

The judge is a classifier, trained on the same images, and kept in .cache/: remove it to train it again. A sample is
good if the judge is sure of its class, p(y | x) > 0.9. The features of FID, precision and recall are the judge's, so
these figures compare with no others. Every set is compared with images of the train split: with the first 2000, or with
the nearest of all. One run is one process with one thread and the seed 0. A sheet of samples over their nearest train
images is drawn into docs/mnist/.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from table_mnist import folder, picture  # noqa: E402  (bench/table_mnist.py)
from table_samples import figures  # noqa: E402  (bench/table_samples.py)
from trained import Table, train  # noqa: E402  (bench/trained.py)

N = 1000  # samples, and real images
FEW = 2000  # train images whose features are taken, one at a time
COLUMNS, ROWS = 12, 4  # of samples that the sheet shows
JUDGE_SETTINGS = "width=16", "steps=2500", "ema=0.99"  # less than its recipe: names 98.6% of the test images
JUDGE = HERE.parent / ".cache" / "mnist-classifier"
METRICS = ["good", "rarest", "commonest", "right_class", "fid", "precision", "recall", "nearest"]


class MnistSamples(Table):
    name = "mnist-samples"
    description = "Samples of adversaries and of a diffusion that learnt from 10,000 images of MNIST."
    figures = [*METRICS, "ms_a_sample"]
    shown = figures
    models = "gan", "cgan", "diffusion"

    @property
    def pictures(self):
        return self.document.parent / "mnist"

    def runs(self, only=None):
        from genmini import models

        for name in only or self.models:
            yield from ((name, key, 0) for key, recipe in models.recipes(name).items() if recipe["data"] == "mnist")

    def anchors(self):
        """Real images: those of test, and of train, whose nearest train images are themselves."""
        from measure import commit

        splits = _splits()
        judge = judge_of(splits["train"])
        for split in ("test", "train"):
            x, y = splits[split].x[:N], splits[split].y[:N]
            found = judge(x, y) | (dict(nearest="") if split == "train" else {})
            yield dict(who=f"{split} images", data="idx", recipe="", seed=0, commit=commit(), **found)

    def measure(self, run):
        """Trains one model, draws the sheet -> its row."""
        import torch

        from genmini import metrics

        trained = train(*run, data="idx", folder=folder())
        real, since = trained.splits["train"], time.process_time()
        x, y = metrics.draw(trained.model, N, 0, real.classes)
        ms = 1000 * (time.process_time() - since) / N
        shown = x[: COLUMNS * ROWS]
        near = real.x[metrics.nearest(real.x, shown)[0]]
        rows = lambda images: images.float().unflatten(0, (ROWS, COLUMNS))
        sheet = torch.stack([rows(shown), rows(near)], 1).flatten(0, 2)
        row = self.row(run, trained, **judge_of(real)(x, y), ms_a_sample=f"{ms:.2f}")
        picture(self.pictures / sheet_of(row), sheet, real.levels, COLUMNS)
        return row

    def lines(self, rows):
        heads = ["256 levels", "good", "rarest, commonest class", "right class", f"FID, n = {N}", "precision", "recall",
                 "nearest train image", "ms a sample", "parameters", "seconds of training"]
        lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        for row in sorted(rows, key=lambda row: -float(row["good"])):
            trained = bool(row["recipe"])
            number = lambda name, digits: f"{float(row[name]):.{digits}f}" if row[name] else ""  # noqa: B023
            share = lambda name: f"{float(row[name]):.1%}" if row[name] else ""  # noqa: B023
            cells = [f"`{row['who']}` ({row['recipe']})" if trained else row["who"], share("good"),
                     f"{number('rarest', 2)} to {number('commonest', 2)}", share("right_class"), number("fid", 1),
                     number("precision", 2), number("recall", 2), number("nearest", 0), number("ms_a_sample", 1),
                     f"{int(row['parameters']):,}" if trained else "", number("cpu_seconds", 0)]
            lines.append("| " + " | ".join(cells) + " |")
        return lines

    def sheets(self, rows):
        title = lambda row: f"`{row['who']}` ({row['recipe']}): samples over the train images nearest to them"
        rows = [row for row in rows if row["recipe"]]
        return [line for row in rows for line in (f"![{title(row)}](mnist/{sheet_of(row)})", "")][:-1]

    def tables(self, rows):
        return [part(rows) for part in (self.lines, self.sheets) if rows]


def sheet_of(row):
    """The file of a row's picture: gan-nearest.png of the recipe mnist, gan-x-nearest.png of mnist-x"""
    return row["recipe"].replace("mnist", row["who"], 1) + "-nearest.png"


def judge_of(real):
    """A function of images of levels (n, 28, 28), and their classes (n,) or None -> {figure: text}. The judge is
    trained when it is asked for first."""
    from genmini import experiment, metrics
    from genmini.metrics import coverage

    if not (JUDGE / "run.json").exists():
        plan = experiment.plan("classifier", "idx", "mnist", JUDGE_SETTINGS)
        splits = _splits()
        experiment.train(plan, experiment.build(plan, splits["train"]), splits, run=JUDGE, progress=False)
    network = metrics.network(str(JUDGE))
    against = metrics.against(replace(real, x=real.x[:FEW], y=real.y[:FEW]), network)

    def judge(x, y=None):
        _, a = network(x, real.levels)
        of_all = coverage.count(*coverage.of_images(a), a.shape[1])
        of_all["nearest"] = metrics.nearest(real.x, x)[1].median().item()
        return figures(against(x, real.levels, y) | of_all, METRICS)

    return judge


def _splits():
    from genmini import data

    return {split: data.load("idx", split, folder()) for split in data.SPLITS}


if __name__ == "__main__":
    MnistSamples().main()
