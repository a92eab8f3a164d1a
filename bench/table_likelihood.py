"""Measures log p of unseen digits under every model: its own recipes, three seeds each; and anchors that need no model.

    python bench/table_likelihood.py                   runs what is missing or has other settings; docs/results.md
    python bench/table_likelihood.py --only made nade  the same for these models
    python bench/table_likelihood.py --fresh           runs all again
    python bench/table_likelihood.py --write           only writes docs/results.md from the stored rows

One run is one process with one thread, so its numbers do not depend on the number of cores. The seconds are those of
the processor. Recipes are tuned on the valid split; the test split is used here only.
"""

import lzma
import math
import statistics
import sys
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from trained import SETS, Table, train  # noqa: E402  (bench/trained.py)


class Likelihood(Table):
    name = "likelihood"
    description = "Test likelihoods of every model on the embedded digits, three seeds each, and docs/results.md."
    figures = ["nats", "bits_per_dim", "standard_error", "bound"]
    shown = ["nats", "bits_per_dim", "valid"]

    def runs(self, only=None):
        """Every model that has a likelihood and no row in bench/table_latent.py."""
        from genmini import models

        for name in only or (name for name in models.MODELS if models.find(name).cannot("reconstruct")):
            for key, recipe in models.recipes(name).items():
                if recipe["data"] in SETS and not models.find(name).cannot("log_prob"):  # a classifier has none
                    yield from ((name, key, seed) for seed in range(3))

    def parts(self, recipe):
        return recipe["model"] | recipe["train"]

    def measure(self, run):
        from genmini import experiment

        trained = train(*run)
        test = trained.splits["test"]
        (figure,) = experiment.figures(trained.model, test)
        bound = "at most" if trained.model.is_bound else ""
        return self.row(run, trained, **_likelihood(figure.mean, figure.error, test), bound=bound)

    def anchors(self):
        """Rows of what needs no model."""
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

    def lines(self, rows, data):
        """The lines of one data set, the least nats first."""
        groups = self.grouped(rows, data)
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


# ---- anchors ---------------------------------------------------------------------------------------------------------


def _likelihood(nats, error, test):
    bits = nats / math.prod(test.shape) / math.log(2)
    error = "" if error is None else f"{error:.4f}"
    return {"nats": f"{nats:.4f}", "bits_per_dim": f"{bits:.4f}", "standard_error": error}


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


if __name__ == "__main__":
    Likelihood().main()
