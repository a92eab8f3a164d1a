"""Measures log p of unseen points under RealNVP and MAF, affine and by splines, beside their true density.

    python bench/table_plane.py                    runs what is missing or has other settings, writes docs/results.md
    python bench/table_plane.py --only maf         the same for this model
    python bench/table_plane.py --fresh            runs all again
    python bench/table_plane.py --write            only writes docs/results.md from the stored rows

One run is one process with one thread; the seconds are those of the processor. Recipes are tuned on the valid split;
the test split is used here only.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from trained import Table, train  # noqa: E402  (bench/trained.py)

MODELS = {"realnvp": "RealNVP", "maf": "MAF"}
SPLINE = "-spline"  # of the data's name, the recipe


class Plane(Table):
    name = "plane"
    description = "Flows on the densities of the plane, beside the truth, and docs/results.md."
    sets = {"moons": "moons", "spirals": "spirals", "rings": "rings", "gaussians": "8 Gaussians",
            "checkerboard": "checkerboard"}
    figures = ["nats", "truth", "behind", "error"]
    shown = ["nats", "truth", "behind"]

    def runs(self, only=None):
        yield from ((name, key, 0) for name in only or MODELS for data in self.sets for key in (data, data + SPLINE))

    def measure(self, run):
        import torch

        from genmini.data import toys

        trained = train(*run)
        test = trained.splits["test"]
        with torch.no_grad():
            nats = -torch.cat([trained.model.log_prob(x) for x in test.x.split(1000)]).double()
        truth = -toys.TOYS[test.name].log_prob(test.x)
        behind = nats - truth
        figures = {"nats": nats.mean(), "truth": truth.mean(), "behind": behind.mean(),
                   "error": behind.std() / len(behind) ** 0.5}
        return self.row(run, trained, **{name: f"{value.item():.4f}" for name, value in figures.items()})

    def tables(self, rows):
        """One table, a line for each model on each density."""
        lines = ["| density | truth | model | by splines | behind | seconds | affine | behind | seconds |",
                 "|---|---|---|---|---|---|---|---|---|"]
        found = {(row["who"], row["recipe"]): row for row in rows}
        for data, title in self.sets.items():
            for name, model in MODELS.items():
                both = [found.get((name, key)) for key in (data + SPLINE, data)]
                if any(both):
                    truth = next(float(row["truth"]) for row in both if row)
                    lines.append(f"| {title} | {truth:.3f} | {model} | " + " | ".join(map(self.part, both)) + " |")
        return [lines]

    @staticmethod
    def part(row):
        if row is None:
            return " | | "
        number = {name: float(row[name]) for name in ("nats", "behind", "error", "cpu_seconds")}
        return "{nats:.3f} | {behind:.3f} ± {error:.3f} | {cpu_seconds:.0f}".format(**number)


if __name__ == "__main__":
    Plane().main()
