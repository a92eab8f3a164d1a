"""What the tables of trained models share: which runs a table has, a CSV with a row for each, and docs/results.md.

A row names the commit of the code that it measures, with "-dirty" where the code had changes that were not committed.
Such a row counts as missing, and a table is not measured while there are such changes.
"""

import argparse
import csv
import json
import multiprocessing
import os
import re
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
KEYS = ["data", "who", "recipe", "seed"]
SETS = {"digits": "17 levels", "digits-threshold": "binary, level 8 and above"}
BATCH = 1000  # images that are judged at once


@dataclass
class Trained:
    plan: object  # genmini.experiment.Plan
    splits: dict
    model: object
    history: object  # genmini.train.History
    seconds: float  # of the processor
    commit: str


def train(name, key, seed, data=None, folder=None, size=None):
    """Trains the model by this recipe, on its data or other `data`, with one thread. size: of `images` and `shapes`."""
    import torch
    from measure import commit

    from genmini import experiment, models

    torch.set_num_threads(1)
    before = commit()
    plan = experiment.plan(name, data or models.recipes(name)[key]["data"], key, seed=seed,
                           size=size)
    splits = experiment.splits(plan, folder)
    model = experiment.build(plan, splits["train"])
    since = time.process_time()
    history = experiment.train(plan, model, splits, progress=False)
    return Trained(plan, splits, model, history, time.process_time() - since, before)


def without_label(model, x, frequency, draws):
    """{figure: mean} of log p(x) = log sum_y p(y) p(x|y), or bounds of it, for a model whose figures are of log p(x|y).

    frequency: p(y), (C,). iwae takes `draws` draws in all, as many with each class: if p'(x|y) are unbiased estimates
    of p(x|y), sum_y p(y) p'(x|y) is one of p(x). elbo is sum_y q(y|x) [log p(y) + elbo(x|y) - log q(y|x)]; q(y|x) is
    proportional to p(y) e^elbo(x|y) with other draws. With the same draws the sum would be log sum_y p(y) e^elbo(x|y),
    and its mean can lie above log p(x). Where log p(x|y) is exact, so is the same sum; its figure is nll.
    """
    import torch

    C = len(frequency)
    torch.manual_seed(0)
    parts = []
    for part in x.split(BATCH):
        with torch.no_grad():
            first, second = ([model.figures(part, y=torch.full((len(part),), c), k=k) for c in range(C)]
                             for k in (draws // C, 0))
        what, sign = ("nll", -1) if "nll" in first[0] else ("elbo", 1)
        weighed = lambda given, name, sign=1: torch.stack(
            [sign * each[name] + p.log() for each, p in zip(given, frequency, strict=True)])
        log_q = weighed(second, what, sign).log_softmax(0)  # (C, N)
        figures = {what: sign * (log_q.exp() * (weighed(first, what, sign) - log_q)).sum(0)}
        if f"iwae-{draws // C}" in first[0]:
            figures[f"iwae-{draws}"] = weighed(first, f"iwae-{draws // C}").logsumexp(0)
        parts.append(figures)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def cell(group, column, digits, scale=1, spread=True):
    """The mean and the deviation of a column over the rows of all seeds; empty where no row has the number"""
    values = [scale * float(row[column]) for row in group if row[column]]
    if not values:
        return ""
    over = f" ± {statistics.stdev(values):.{digits}f}" if spread and len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{over}"


class Table:
    """Some tables of docs/results.md. `name` is that of the CSV, of the marks in the document, and of the make target
    table-<name>. A class says which runs there are, how one is measured, and how its rows are shown.
    """

    name = ""
    description = ""
    keys = KEYS  # columns that tell rows apart
    sets = SETS  # {data: the heading of its table}
    figures = []  # columns of its own
    shown = []  # columns that are printed when a run is measured

    def __init__(self, results=HERE / "results", document=HERE.parent / "docs" / "results.md"):
        self.csv, self.document = results / f"{self.name}.csv", document

    @property
    def columns(self):
        return [*self.keys, *self.figures, "valid", "parameters", "step", "cpu_seconds", "settings", "torch", "commit"]

    def runs(self, only=None):
        """Yields (model, recipe, seed)."""
        raise NotImplementedError

    def measure(self, run):
        """Trains and judges one model -> its row."""
        raise NotImplementedError

    def rows(self, run):
        """The rows of one model: that of `measure`, unless a table has several."""
        return [self.measure(run)]

    def lines(self, rows, data):
        """The lines of the table of one data set, the best model first."""
        raise NotImplementedError

    def anchors(self):
        """Rows that need no training."""
        return ()

    # ---- rows --------------------------------------------------------------------------------------------------------

    def settings(self, name, key):
        """What a row of this recipe depends on, as text; None if there is no such recipe."""
        from genmini import models

        recipe = models.recipes(name).get(key)
        return recipe and json.dumps(self.parts(recipe), sort_keys=True)

    def parts(self, recipe):
        return {part: recipe[part] for part in recipe if part not in ("data", "threads")}

    def row(self, run, trained, **figures):
        import torch

        name, key, seed = run
        return {
            "data": trained.plan.data, "who": name, "recipe": key, "seed": seed, **figures,
            "valid": f"{trained.history.valid:.4f}", "step": trained.history.step,
            "parameters": sum(p.numel() for p in trained.model.parameters()), "cpu_seconds": f"{trained.seconds:.1f}",
            "settings": self.settings(name, key), "torch": torch.__version__, "commit": trained.commit,
        }

    def stored(self):
        if not self.csv.exists():
            return []
        with self.csv.open() as file:
            return [dict.fromkeys(self.columns, "") | row for row in csv.DictReader(file)]

    def store(self, row):
        """Adds the row, or replaces that of the same run; the file is replaced in one step."""
        key = lambda row: [str(row.get(k, "")) for k in self.keys]
        rows = [old for old in self.stored() if key(old) != key(row)] + [row]
        self.csv.parent.mkdir(exist_ok=True)
        beside = self.csv.with_suffix(".part")
        with beside.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(sorted(rows, key=key))
        os.replace(beside, self.csv)

    def is_whole(self, row):
        """Whether the row has all figures, and they are those of a commit."""
        return not row["commit"].endswith("-dirty")

    def of_today(self):
        """The stored rows of anchors, and of recipes as they are now."""
        return [row for row in self.stored()
                if not row["recipe"] or row["settings"] == self.settings(row["who"], row["recipe"])]

    def missing(self, only=None):
        """The runs that have no whole row of today's settings."""
        have = {(row["who"], row["recipe"], row["seed"]) for row in self.of_today() if self.is_whole(row)}
        return [(name, key, seed) for name, key, seed in self.runs(only) if (name, key, str(seed)) not in have]

    # ---- the document ------------------------------------------------------------------------------------------------

    @staticmethod
    def grouped(rows, data):
        """{(model, recipe): its rows}, a row for each seed"""
        groups = {}
        for row in rows:
            if row["data"] == data:
                groups.setdefault((row["who"], row["recipe"]), []).append(row)
        return groups

    def tables(self, rows):
        return [self.lines(rows, data) for data in self.sets]

    def write(self):
        """Writes the tables between two marks of the document."""
        rows = self.of_today()
        blocks = ["\n".join(lines) for lines in self.tables(rows)]
        if again := sum(row["commit"].endswith("-dirty") for row in rows):
            blocks.append(f"{again} of the {len(rows)} rows were measured while the code had uncommitted changes;\n"
                          f"`make table-{self.name}` measures them again.")
        block = "\n\n".join([f"<!-- {self.name} -->", *blocks, f"<!-- /{self.name} -->"])
        marked = re.compile(rf"<!-- {self.name} -->.*<!-- /{self.name} -->", re.S)
        self.document.write_text(marked.sub(lambda _: block, self.document.read_text()))

    # ---- the command line --------------------------------------------------------------------------------------------

    def main(self):
        from measure import changed

        parser = argparse.ArgumentParser(description=self.description)
        parser.add_argument("--only", nargs="+", metavar="MODEL", help="these models")
        parser.add_argument("--fresh", action="store_true", help="measure again what is stored")
        parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count()), metavar="N",
                            help="processes at a time (default: %(default)s)")
        parser.add_argument("--write", action="store_true", help="only write docs/results.md from the stored rows")
        options = parser.parse_args()
        if options.write:
            return self.write()
        if files := changed():
            parser.error(f"the code has uncommitted changes ({', '.join(files)}): commit them first, because each row "
                         "names the commit that it measures")
        for row in self.anchors():
            self.store(row)
        todo = list(self.runs(options.only)) if options.fresh else self.missing(options.only)
        todo.sort(key=lambda run: run[2])  # the first seed of all before the second of any
        print(f"{len(todo)} runs to do, {options.jobs} at a time")
        with multiprocessing.get_context("spawn").Pool(options.jobs, maxtasksperchild=1) as pool:
            for rows in pool.imap_unordered(self.rows, todo):
                for row in rows:
                    self.store(row)
                for row in rows:
                    print("  ".join(f"{row.get(k, '')}" for k in (*self.keys, *self.shown, "cpu_seconds")), flush=True)
        self.write()
