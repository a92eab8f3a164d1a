"""Shared by the tables of trained models: a CSV of runs, which runs are missing, the tables of docs/results.md."""

import argparse
import csv
import multiprocessing
import os
import re
import time

SETS = {"digits": "17 levels", "digits-threshold": "binary, level 8 and above"}
KEYS = ["data", "who", "recipe", "seed"]


def train(name, key, seed):
    """Trains the model by this recipe. -> plan, splits, model, history, seconds of the processor"""
    from genmini import experiment, models

    plan = experiment.plan(name, models.recipes(name)[key]["data"], key, seed=seed)
    splits = experiment.splits(plan)
    model = experiment.build(plan, splits["train"])
    since = time.process_time()
    history = experiment.train(plan, model, splits, progress=False)
    return plan, splits, model, history, time.process_time() - since


def stored(path):
    return list(csv.DictReader(path.open())) if path.exists() else []


def store(path, columns, row):
    """Adds the row, or replaces that of the same run; the file is replaced in one step."""
    key = lambda row: [str(row.get(k, "")) for k in KEYS]
    rows = [old for old in stored(path) if key(old) != key(row)] + [row]
    path.parent.mkdir(exist_ok=True)
    beside = path.with_suffix(".part")
    with beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(sorted(rows, key=key))
    os.replace(beside, path)


def missing(rows, runs, settings):
    """The runs that have no row, or one of other settings."""
    have = {(row["who"], row["recipe"], row["seed"]): row["settings"] for row in rows}
    return [(name, key, seed) for name, key, seed in runs if have.get((name, key, str(seed))) != settings(name, key)]


def write(document, mark, tables):
    """Writes the tables, each a list of lines, between two marks of a document."""
    block = "\n\n".join([f"<!-- {mark} -->", *map("\n".join, tables), f"<!-- /{mark} -->"])
    marked = re.compile(rf"<!-- {mark} -->.*<!-- /{mark} -->", re.S)
    document.write_text(marked.sub(lambda _: block, document.read_text()))


def main(table, description, shown, anchors=()):
    """The command line of a table: a module with runs, missing, measure, store, document. shown: columns to print."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="these models")
    parser.add_argument("--fresh", action="store_true", help="measure again what is stored")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count()), metavar="N",
                        help="processes at a time (default: %(default)s)")  # fmt: skip
    parser.add_argument("--write", action="store_true", help="only write docs/results.md from the stored rows")
    options = parser.parse_args()
    if not options.write:
        for row in anchors:
            table.store(row)
        todo = list(table.runs(options.only)) if options.fresh else table.missing(options.only)
        todo.sort(key=lambda run: run[2])  # the first seed of all before the second of any
        print(f"{len(todo)} runs to do, {options.jobs} at a time")
        with multiprocessing.get_context("spawn").Pool(options.jobs, maxtasksperchild=1) as pool:
            for row in pool.imap_unordered(table.measure, todo):
                table.store(row)
                print("  ".join(f"{row[k]}" for k in (*KEYS, *shown)), flush=True)
    table.document()
