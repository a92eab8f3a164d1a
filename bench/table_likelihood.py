"""Measures log p of unseen digits under every model: its own recipes, three seeds each; and anchors that need no model.

    python bench/table_likelihood.py                   runs what is missing or has other settings; docs/results.md
    python bench/table_likelihood.py --only made nade  the same for these models
    python bench/table_likelihood.py --fresh           runs all again
    python bench/table_likelihood.py --write           only writes docs/results.md from the stored rows

One run is one process with one thread, so its numbers do not depend on the number of cores. The seconds are those of
the processor. Recipes are tuned on the valid split; the test split is used here only.
"""

import json
import lzma
import math
import statistics
import sys
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import trained  # noqa: E402  (bench/trained.py)
from trained import KEYS, SETS  # noqa: E402

CSV = HERE / "results" / "likelihood.csv"
DOCUMENT = HERE.parent / "docs" / "results.md"
COLUMNS = [*KEYS, "nats", "bits_per_dim", "standard_error", "bound", "valid", "parameters", "step", "cpu_seconds",
           "settings", "torch", "commit"]  # fmt: skip


def runs(only=None):
    """Yields (model, recipe, seed) of every model that has a likelihood and no row in bench/table_latent.py."""
    from genmini import models

    for name in only or (name for name in models.MODELS if models.find(name).cannot("reconstruct")):
        for key, recipe in models.recipes(name).items():
            if recipe["data"] in SETS and not models.find(name).cannot("log_prob"):  # a classifier has none
                yield from ((name, key, seed) for seed in range(3))


def settings(name, key):
    from genmini import models

    recipe = models.recipes(name).get(key)
    return recipe and json.dumps(recipe["model"] | recipe["train"], sort_keys=True)


def measure(run):
    """Train one model -> its row."""
    import torch
    from measure import commit

    from genmini import experiment

    torch.set_num_threads(1)
    name, key, seed = run
    plan, splits, model, history, seconds = trained.train(name, key, seed)
    (figure,) = experiment.figures(model, splits["test"])
    return {
        "data": plan.data, "who": name, "recipe": key, "seed": seed,
        **_likelihood(figure.mean, figure.error, splits["test"]),
        "bound": "at most" if model.is_bound else "", "valid": f"{history.valid:.4f}",
        "parameters": sum(p.numel() for p in model.parameters()), "step": history.step, "cpu_seconds": f"{seconds:.1f}",
        "settings": settings(name, key), "torch": torch.__version__, "commit": commit(),
    }  # fmt: skip


def _likelihood(nats, error, test):
    bits = nats / math.prod(test.shape) / math.log(2)
    error = "" if error is None else f"{error:.4f}"
    return {"nats": f"{nats:.4f}", "bits_per_dim": f"{bits:.4f}", "standard_error": error}


# ---- anchors ---------------------------------------------------------------------------------------------------------


def anchors():
    from measure import commit

    from genmini import data

    for name in SETS:
        train, valid, test = (data.load(name, split) for split in data.SPLITS)
        L, D = test.levels, math.prod(test.shape)
        pack = lambda some: _packed(some.x, L)
        alone = lambda compress: 8 * len(compress(pack(test)))
        after = lambda compress: 8 * (len(compress(pack(train) + pack(test))) - len(compress(pack(train))))
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
        best = lambda content: lzma.compress(content, lzma.FORMAT_RAW, filters=filters)
        nats = lambda bits: (bits / len(test) * math.log(2), None, "")
        rows = {
            "histogram of each pixel": (*histogram(train, valid, test), D * (L - 1)),
            "zlib, the test images alone": nats(alone(lambda content: zlib.compress(content, 9))),
            "lzma, the test images alone": nats(alone(best)),
            "lzma, after the train images": nats(after(best)),
        }
        for who, (mean, error, parameters) in rows.items():
            likelihood = _likelihood(mean, error, test)
            yield {"data": name, "who": who, **likelihood, "parameters": parameters, "commit": commit()}


def histogram(train, valid, test):
    """-> nats, standard error of independent pixels: p(l) as its count in train plus `extra`, chosen on valid."""
    import torch

    hot = lambda some: torch.nn.functional.one_hot(some.x.flatten(1).long(), some.levels).double()
    counts = hot(train).sum(0)
    p = lambda extra: (counts + extra) / (counts + extra).sum(1, keepdim=True)
    nll = lambda some, extra: -(hot(some) * p(extra).log()).sum((1, 2))
    extra = min((0.01, 0.03, 0.1, 0.3, 1.0, 3.0), key=lambda extra: nll(valid, extra).mean().item())
    each = nll(test, extra)
    return each.mean().item(), (each.std() / math.sqrt(len(each))).item()


def _packed(x, levels):
    """A byte a pixel, or eight pixels a byte where there are two levels."""
    import numpy as np

    return (np.packbits(x.numpy()) if levels == 2 else x.numpy()).tobytes()


# ---- the table -------------------------------------------------------------------------------------------------------


def stored():
    return trained.stored(CSV)


def store(row):
    trained.store(CSV, COLUMNS, row)


def missing(only=None):
    return trained.missing(stored(), runs(only), settings)


def table(rows, data):
    """The lines of one data set, the least nats first."""
    groups = {}
    for row in rows:
        if row["data"] == data:
            groups.setdefault((row["who"], row["recipe"]), []).append(row)
    mean = lambda group, column: statistics.mean(float(row[column]) for row in group)
    deviation = lambda group, column: statistics.stdev(float(row[column]) for row in group)
    spread = lambda group, column, digits: f" ± {deviation(group, column):.{digits}f}" if len(group) > 1 else ""
    lines = [f"| {SETS[data]} | nats | bits/dim | parameters | seconds |", "|---|---|---|---|---|"]
    for (who, key), group in sorted(groups.items(), key=lambda item: mean(item[1], "nats")):
        recipe = f" ({key})" if key not in ("digits", "digits-levels", "digits-threshold") else ""
        name = f"`{who}`{recipe}" if key else who
        if key and len(group) < 3:
            name += f", {len(group)} seed" + "s" * (len(group) > 1)
        most = "≤ " if group[0]["bound"] else ""
        parameters = f"{int(group[0]['parameters']):,}" if group[0]["parameters"] else ""
        seconds = f"{mean(group, 'cpu_seconds'):.0f}" if key else ""
        nats = f"{most}{mean(group, 'nats'):.2f}{spread(group, 'nats', 2)}"
        bits = f"{most}{mean(group, 'bits_per_dim'):.3f}{spread(group, 'bits_per_dim', 3)}"
        lines.append(f"| {name} | {nats} | {bits} | {parameters} | {seconds} |")
    return lines


def document():
    """Writes the tables from the anchors and the rows whose settings are those of the recipes as they are now."""
    rows = [row for row in stored() if not row["recipe"] or row["settings"] == settings(row["who"], row["recipe"])]
    trained.write(DOCUMENT, "likelihood", [table(rows, data) for data in SETS])


if __name__ == "__main__":
    about = "Test likelihoods of every model on the embedded digits, three seeds each, and docs/results.md."
    trained.main(sys.modules[__name__], about, ["nats", "bits_per_dim", "valid", "cpu_seconds"], anchors())
