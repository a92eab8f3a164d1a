"""Measures every model with a latent code on unseen digits: its own recipes, three seeds each.

    python bench/table_latent.py                     runs what is missing or has other settings, writes docs/results.md
    python bench/table_latent.py --only vae vqvae    the same for these models
    python bench/table_latent.py --fresh             runs all again
    python bench/table_latent.py --write             only writes docs/results.md from the stored rows

One run is one process with one thread; the seconds are those of the processor. Recipes are tuned on the valid split;
the test split is used here only. The FID is that of digits-v1's features, of as many samples as there are test images;
the last row gives the FID of these images. It does not compare with an FID of other features.

A model with classes gives log p(x|y). The label is worth up to log 10 = 2.3 nats, so this does not compare with
log p(x) of other models. The table gives both, and ranks by log p(x) = log sum_y p(y) p(x|y), with p(y) as in train.
"""

import statistics
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from trained import SETS, Table, cell, train, without_label  # noqa: E402  (bench/trained.py)

BOUNDS = ["elbo", "iwae", "elbo_given_y", "iwae_given_y"]


class Latent(Table):
    name = "latent"
    description = "Every latent model on the embedded digits, three seeds each, and docs/results.md."
    shown = [*BOUNDS, "reconstruction", "squared_error", "fid", "fid_real", "right_class", "perplexity"]
    figures = [*shown, "unit"]
    draws = 500  # an image, of models that bound log p by draws

    def runs(self, only=None):
        """Every model that codes an image and is trained on the digits."""
        from genmini import models

        for name in only or models.MODELS:
            if not models.find(name).cannot("reconstruct"):
                for key, recipe in models.recipes(name).items():
                    if recipe["data"] in SETS:
                        yield from ((name, key, seed) for seed in range(3))

    def measure(self, run):
        import torch

        from genmini import experiment, metrics

        trained = train(*run)
        model, test = trained.model, trained.splits["test"]
        figures = {figure.name: figure.mean for figure in experiment.figures(model, test, self.draws)}
        with torch.no_grad():
            off = (test.x - model.reconstruct(test.x, y=test.y if model.classes else None)) / (test.levels - 1)
        judged = metrics.score(model, metrics.network("digits-v1"), trained.splits["train"], test, n=len(test))
        right, iwae = judged["samples"]["accuracy"], f"iwae-{self.draws}"
        found = {"elbo": figures.get("elbo"), "iwae": figures.get(iwae)}
        if model.classes:
            found = {f"{name}_given_y": value for name, value in found.items()}
            y = trained.splits["train"].y
            without = without_label(model, test.x, y.bincount() / len(y), self.draws)
            found |= {name: without[figure].mean().item() for name, figure in (("elbo", "elbo"), ("iwae", iwae))
                      if figure in without}
        found |= {
            "reconstruction": figures.get("reconstruction"),
            "squared_error": off.square().flatten(1).sum(1).mean().item(), "fid": judged["samples"]["fid"],
            "fid_real": judged["real"]["fid"], "right_class": right and right[0],
            "perplexity": figures.get("perplexity"),
        }
        text = lambda value: "" if value is None else f"{value:.4f}"
        return self.row(run, trained, **{name: text(found.get(name)) for name in self.shown}, unit=model.unit)

    def lines(self, rows, data):
        """The lines of one data set: models with a probability, the best log p(x) first; then densities; then the
        rest."""
        groups = self.grouped(rows, data)

        def order(item):
            group = item[1]
            costs = [-float(row["iwae"] or row["elbo"]) for row in group if row["elbo"]]
            values = costs or [float(row["squared_error"]) for row in group]
            return ("density" in group[0]["unit"], not costs, statistics.mean(values))

        heads = [SETS[data], "−ELBO", f"−IWAE-{self.draws}", "−ELBO given y", f"−IWAE-{self.draws} given y",
                 "−log p(x\\|z)",
                 "squared error", "FID", "right class", "perplexity", "parameters", "seconds"]
        lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        for (who, key), group in sorted(groups.items(), key=order):
            name = f"`{who}` ({key})" + (f", {len(group)} seed{'s' * (len(group) > 1)}" if len(group) < 3 else "")
            cells = [name, *(_nats(group, bound, -1) for bound in BOUNDS)]
            cells += [_nats(group, "reconstruction"), cell(group, "squared_error", 2)]
            cells += [cell(group, "fid", 1), cell(group, "right_class", 3), cell(group, "perplexity", 1)]
            seconds = statistics.mean(float(row["cpu_seconds"]) for row in group)
            cells += [f"{int(group[0]['parameters']):,}", f"{seconds:.0f}"]
            lines.append("| " + " | ".join(cells) + " |")
        if groups:
            floor = next(iter(groups.values()))[0]["fid_real"]
            lines.append("| " + " | ".join(["test images", *[""] * 6, f"{float(floor):.1f}", *[""] * 4]) + " |")
        return lines


def _nats(group, column, sign=1):
    """Mean and deviation of nats; those of a density are marked."""
    nats = cell(group, column, 2, sign)
    return "density " * bool(nats and "density" in group[0]["unit"]) + nats


if __name__ == "__main__":
    Latent().main()
