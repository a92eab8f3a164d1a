"""Measures log p of unseen points under RealNVP and MAF, affine and by splines, and RNADE, beside their true density,
and beside zuko's flow by splines, trained as long as ours (`pip install zuko`).

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
from peers import zuko_nsf  # noqa: E402  (bench/peers/)
from trained import Table, train  # noqa: E402  (bench/trained.py)

MODELS = {  # how a line calls it: the model, and what the recipe adds to the name of the data
    "RealNVP, splines": ("realnvp", "-spline"), "RealNVP, affine": ("realnvp", ""),
    "MAF, splines": ("maf", "-spline"), "zuko's NSF, as long": ("zuko", "-spline"), "MAF, affine": ("maf", ""),
    "RNADE, mixtures": ("rnade", ""),
}


class Plane(Table):
    name = "plane"
    description = "Flows and RNADE on the densities of the plane, beside the truth, and docs/results.md."
    sets = {"moons": "moons", "spirals": "spirals", "rings": "rings", "gaussians": "8 Gaussians",
            "checkerboard": "checkerboard"}
    figures = ["nats", "truth", "behind", "error"]
    shown = ["nats", "truth", "behind"]

    def runs(self, only=None):
        yield from ((name, data + end, 0) for data in self.sets for name, end in MODELS.values()
                    if not only or name in only)

    def settings(self, name, key):
        """A peer's flow is trained by the recipe of MAF."""
        return super().settings("maf" if name == "zuko" else name, key)

    def measure(self, run):
        import torch

        from genmini.data import toys

        trained = zuko_nsf.train_as_long(run[1]) if run[0] == "zuko" else train(*run)
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
        lines = ["| density | truth | model | nats | behind | seconds |", "|---|---|---|---|---|---|"]
        found = {(row["who"], row["recipe"]): row for row in rows}
        for data, title in self.sets.items():
            for model, (name, end) in MODELS.items():
                if row := found.get((name, data + end)):
                    truth, nats, behind, error, seconds = (
                        float(row[column]) for column in ("truth", "nats", "behind", "error", "cpu_seconds"))
                    lines.append(f"| {title} | {truth:.3f} | {model} | {nats:.3f} | {behind:.3f} ± {error:.3f} "
                                 f"| {seconds:.0f} |")
        return [lines]


if __name__ == "__main__":
    Plane().main()
