"""Measures the samples of every model that draws digits of 17 levels: its own recipes, three seeds each.

    python bench/table_samples.py                    runs what is missing or has other settings, writes docs/results.md
    python bench/table_samples.py --only gan vqvae   the same for these models
    python bench/table_samples.py --fresh            runs all again
    python bench/table_samples.py --write            only writes docs/results.md from the stored rows

One run is one process with one thread; the seconds are those of the processor. Recipes are tuned on the valid split;
the real images of the last rows are those of test. All features are those of digits-v1, and every set is compared
with the train split. FIDs compare only at equal n, so each table states its n, and prints real images of as many.

Models with classes draw all ten evenly. This alone lowers their FID, as it does that of real images chosen so, which
have a row. A diffusion has a row for each sampler and number of steps, whose `how` is "dpm 20" or the like.
"""

import statistics
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from trained import KEYS, Table, cell, train  # noqa: E402  (bench/trained.py)

FEW, MANY = 300, 1000  # samples; test has 300 images
STEPS = 5, 10, 20, 50, 250  # of a diffusion's samplers
METRICS = ["fid", "kid", "precision", "recall", "nearest", "rarest", "commonest", "right_class"]


class Samples(Table):
    name = "samples"
    description = "The samples of every model that draws digits, three seeds each, and docs/results.md."
    keys = [*KEYS, "how"]
    figures = [*METRICS, *(f"{name}_{MANY}" for name in METRICS), "ms_a_sample"]
    shown = ["fid", f"fid_{MANY}", "recall", "nearest", "right_class", "ms_a_sample"]

    def runs(self, only=None):
        from genmini import models

        for name in only or models.MODELS:
            for key, recipe in models.recipes(name).items():
                if recipe["data"] == "digits" and not models.find(name).cannot("sample"):
                    yield from ((name, key, seed) for seed in range(3))

    def rows(self, run):
        """A row for each way of drawing: one, or those of a diffusion."""
        from genmini import metrics

        trained = train(*run)
        judge = metrics.against(trained.splits["train"], metrics.network("digits-v1"))

        def judged(n, **how):
            since = time.process_time()
            x, y = metrics.draw(trained.model, n, 0, 10, **how)
            seconds = time.process_time() - since
            return figures(judge(x, trained.model.levels, y)), seconds

        def row(ways, *counts):
            parts = [judged(n, **ways) for n in counts]
            found = parts[0][0] | {f"{name}_{n}": v for (each, _), n in zip(parts[1:], counts[1:], strict=True)
                                   for name, v in each.items()}
            ms = 1000 * sum(seconds for _, seconds in parts) / sum(counts)
            how = " ".join(map(str, ways.values()))
            return self.row(run, trained, how=how, **found, ms_a_sample=f"{ms:.2f}")

        rows = [row({}, FEW, MANY)]
        if not trained.model.cannot("steps"):
            rows += [row(dict(how=how, steps=steps), FEW) for how in _samplers() for steps in STEPS]
        return rows

    def anchors(self):
        """Real images: the test split, and as many of train as the samples are, also evenly of the ten classes, as
        models with classes draw them."""
        import torch
        from measure import commit

        from genmini import data, metrics

        train, test = data.load("digits", "train"), data.load("digits", "test")
        judge = metrics.against(train, metrics.network("digits-v1"))
        each = lambda split, n: torch.cat([(split.y == k).nonzero()[: n // 10, 0] for k in range(10)])
        judged = lambda split, some: figures(judge(split.x[some], split.levels, split.y[some]))
        named = lambda found: {f"{name}_{MANY}": value for name, value in found.items()}
        same = dict(data="digits", recipe="", seed=0, how="", commit=commit())
        few, many = slice(FEW), slice(MANY)
        yield same | dict(who="test images") | judged(test, few)
        yield same | dict(who="train images") | judged(train, few) | named(judged(train, many))
        few, many = each(train, FEW), each(train, MANY)
        yield same | dict(who="train images, as many of each class") | judged(train, few) | named(judged(train, many))

    # ---- the document ------------------------------------------------------------------------------------------------

    def tables(self, rows):
        return [self.of_models(rows), *self.of_samplers(rows)]

    def of_models(self, rows):
        """A line for each model, the lowest FID first, and those of real images."""
        plain = [row for row in rows if not row["how"]]
        heads = ["17 levels", f"FID, n = {FEW}", f"FID, n = {MANY}", f"KID, n = {MANY}", "precision", "recall",
                 "nearest train image", "rarest, commonest class", "right class", "ms a sample", "parameters",
                 "seconds of training"]
        lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        cost = lambda item: statistics.mean(float(row["fid"]) for row in item[1])
        for (who, key), group in sorted(self.grouped(plain, "digits").items(), key=cost):
            name = f"`{who}` ({key})" if key else who
            name += f", {len(group)} seed{'s' * (len(group) > 1)}" if key and len(group) < 3 else ""
            mean = lambda column: [float(row[column]) for row in group if row[column]]  # noqa: B023
            shares = " to ".join(f"{statistics.mean(mean(f'{end}_{MANY}')):.2f}" if mean(f"{end}_{MANY}") else ""
                                 for end in ("rarest", "commonest"))
            cells = [name, cell(group, "fid", 1), cell(group, f"fid_{MANY}", 1), cell(group, f"kid_{MANY}", 2),
                     cell(group, f"precision_{MANY}", 2), cell(group, f"recall_{MANY}", 2),
                     cell(group, "nearest", 1), shares.strip(" to") and shares, cell(group, "right_class", 3),
                     cell(group, "ms_a_sample", 1, spread=False), f"{int(group[0]['parameters']):,}" if key else "",
                     cell(group, "cpu_seconds", 0, spread=False)]
            lines.append("| " + " | ".join(cells) + " |")
        return lines

    def of_samplers(self, rows):
        """For each recipe of a diffusion, FIDs of n = 300 by sampler and steps."""
        for (who, key), group in sorted(self.grouped([row for row in rows if row["how"]], "digits").items()):
            heads = [f"`{who}` ({key}), FID, n = {FEW}", *(f"{steps} steps" for steps in STEPS)]
            lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
            for how in dict.fromkeys(row["how"].split()[0] for row in group):
                of = lambda steps: [row for row in group if row["how"] == f"{how} {steps}"]  # noqa: B023
                lines.append("| " + " | ".join([how, *(cell(of(steps), "fid", 1) for steps in STEPS)]) + " |")
            yield lines


def _samplers():
    from genmini.samplers import SAMPLERS

    return SAMPLERS


def figures(column, names=METRICS):
    """The figures of one column of `metrics.score`, as text"""
    rarest, commonest = column["shares"]
    found = column | dict(kid=column["kid"][0], rarest=rarest, commonest=commonest,
                          right_class=column["accuracy"] and column["accuracy"][0])
    return {name: "" if found[name] is None else f"{found[name]:.4f}" for name in names}


if __name__ == "__main__":
    Samples().main()
