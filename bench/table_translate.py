"""Measures translations between two sets without pairs, where the true ones are known: all recipes, three seeds each.

    python bench/table_translate.py            runs what is missing or has other settings, and writes docs/results.md
    python bench/table_translate.py --fresh    runs all again
    python bench/table_translate.py --write    only writes docs/results.md from the stored rows

One run is one process with one thread; the seconds are those of the processor. Recipes are tuned on the valid split;
the test split is used here only. The figures are those that `genmini eval` prints, and the error of an image there and
back, which `genmini study translate` prints. The last row judges the true translations themselves: the classifier does
not name all of them rightly.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from trained import Table, cell, train  # noqa: E402  (bench/trained.py)

FIGURES = [f"{T} {what}" for what in ("right", "own", "off") for T in "FG"]  # of metrics.translation


class Translate(Table):
    name = "translate"
    description = "Every recipe that translates digits without pairs, three seeds each, and docs/results.md."
    sets = {"digits-unpaired": "digits and thick inverted digits"}
    figures = [*FIGURES, "back"]
    shown = [*FIGURES, "back"]

    def runs(self, only=None):
        from genmini import models

        for name in only or models.MODELS:
            for key, recipe in models.recipes(name).items():
                if recipe["data"] in self.sets and not models.find(name).cannot("translate"):
                    yield from ((name, key, seed) for seed in range(3))

    def measure(self, run):
        import torch

        from genmini import experiment

        trained = train(*run)
        model, test = trained.model, trained.splits["test"]
        found = {figure.name: figure.mean for figure in experiment.figures(model, test)}
        with torch.no_grad():
            found["back"] = (model.reconstruct(test.x, y=test.y) - test.x).abs().mean().item()
        return self.row(run, trained, **{name: f"{found[name]:.4f}" for name in self.figures})

    def anchors(self):
        """The true translations"""
        from measure import commit

        from genmini import data, metrics

        for name in self.sets:
            found = metrics.translation(Truth(name), data.load(name, "test"))
            found = {figure: f"{values.mean():.4f}" for figure, values in found.items()}
            yield {"data": name, "who": "true translations", "recipe": "", "seed": 0, **found, "commit": commit()}

    def lines(self, rows, data):
        """The lines of one pair of sets, the least error of a pixel first; then the true translations."""
        heads = [self.sets[data], "right class F, %", "G, %", "itself F, %", "G, %", "off F", "off G", "there and back",
                 "parameters", "seconds"]
        lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        off = lambda group: sum(float(row["F off"]) + float(row["G off"]) for row in group) / len(group)
        order = lambda item: (item[0][1] == "", off(item[1]))
        for (who, key), group in sorted(self.grouped(rows, data).items(), key=order):
            name = f"`{who}` ({key})" if key else who
            name += f", {len(group)} seed{'s' * (len(group) > 1)}" if key and len(group) < 3 else ""
            cells = [name, *(cell(group, figure, 1, scale=100) for figure in FIGURES[:4])]
            cells += [cell(group, figure, 2) for figure in (*FIGURES[4:], "back")]
            cells += [f"{int(group[0]['parameters']):,}" if key else "", cell(group, "cpu_seconds", 0, spread=False)]
            lines.append("| " + " | ".join(cells) + " |")
        return lines


class Truth:
    """Translates the whole test split to the true images, as `metrics.translation` asks of a model."""

    device = "cpu"

    def __init__(self, name):
        from genmini import data
        from genmini.data import unpaired

        self.real = data.load(unpaired.OF[name], "test")
        self.changed = unpaired.change(self.real.x, self.real.levels)

    def translate(self, x, y):
        return self.real.x if y else self.changed


if __name__ == "__main__":
    Translate().main()
