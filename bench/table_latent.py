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

import json
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import trained  # noqa: E402  (bench/trained.py)
from trained import KEYS, SETS  # noqa: E402

CSV = HERE / "results" / "latent.csv"
DOCUMENT = HERE.parent / "docs" / "results.md"
BOUNDS = ["elbo", "iwae", "elbo_given_y", "iwae_given_y"]
FIGURES = [*BOUNDS, "reconstruction", "squared_error", "fid", "fid_real", "right_class", "perplexity"]
COLUMNS = [*KEYS, *FIGURES, "unit", "valid", "parameters", "step", "cpu_seconds", "settings", "torch", "commit"]
DRAWS = 500


def runs(only=None):
    """Yields (model, recipe, seed) of every model that codes an image and is trained on the digits."""
    from genmini import models

    for name in only or models.MODELS:
        if not models.find(name).cannot("reconstruct"):
            for key, recipe in models.recipes(name).items():
                if recipe["data"] in SETS:
                    yield from ((name, key, seed) for seed in range(3))


def settings(name, key):
    from genmini import models

    recipe = models.recipes(name).get(key)
    parts = recipe and {part: recipe[part] for part in recipe if part not in ("data", "threads")}
    return recipe and json.dumps(parts, sort_keys=True)


def measure(run):
    """Trains one model -> its row."""
    import torch
    from measure import commit

    from genmini import experiment, metrics

    torch.set_num_threads(1)
    name, key, seed = run
    plan, splits, model, history, seconds = trained.train(name, key, seed)
    train, test = splits["train"], splits["test"]
    figures = {figure.name: figure.mean for figure in experiment.figures(model, test, DRAWS)}
    with torch.no_grad():
        off = (test.x - model.reconstruct(test.x, y=test.y if model.classes else None)) / (test.levels - 1)
    judged = metrics.score(model, metrics.network("digits-v1"), train, test, n=len(test))
    right = judged["samples"]["accuracy"]
    bounds = {"elbo": figures.get("elbo"), "iwae": figures.get(f"iwae-{DRAWS}")}
    if model.classes:
        given_y = {f"{name}_given_y": value for name, value in bounds.items()}
        bounds = without_label(model, test.x, train.y.bincount() / len(train.y)) | given_y
    bounds = dict.fromkeys(BOUNDS) | bounds
    found = {
        **bounds, "reconstruction": figures.get("reconstruction"),
        "squared_error": off.square().flatten(1).sum(1).mean().item(), "fid": judged["samples"]["fid"],
        "fid_real": judged["real"]["fid"], "right_class": right and right[0], "perplexity": figures.get("perplexity"),
    }  # fmt: skip
    return {
        "data": plan.data, "who": name, "recipe": key, "seed": seed,
        **{k: "" if v is None else f"{v:.4f}" for k, v in found.items()}, "unit": model.unit,
        "valid": f"{history.valid:.4f}", "parameters": sum(p.numel() for p in model.parameters()),
        "step": history.step, "cpu_seconds": f"{seconds:.1f}",
        "settings": settings(name, key), "torch": torch.__version__, "commit": commit(),
    }  # fmt: skip


def without_label(model, x, frequency):
    """Bounds of log p(x) = log sum_y p(y) p(x|y), of a model that gives bounds of log p(x|y). frequency: p(y), (C,)

    iwae takes DRAWS draws in all, as many with each class: if p'(x|y) are unbiased estimates of p(x|y), sum_y p(y)
    p'(x|y) is one of p(x). elbo is sum_y q(y|x) [log p(y) + elbo(x|y) - log q(y|x)]; q(y|x) is proportional to
    p(y) e^elbo(x|y) with other draws. With the same draws the sum would be log sum_y p(y) e^elbo(x|y), and its mean
    can lie above log p(x).
    """
    import torch

    C = len(frequency)
    torch.manual_seed(0)
    with torch.no_grad():
        first, second = ([model.figures(x, y=torch.full((len(x),), c), k=k) for c in range(C)] for k in (DRAWS // C, 0))
    weighed = lambda parts, name: torch.stack([part[name] + p.log() for part, p in zip(parts, frequency, strict=True)])
    log_q = weighed(second, "elbo").log_softmax(0)  # (C, N)
    bounds = {"elbo": (log_q.exp() * (weighed(first, "elbo") - log_q)).sum(0).mean().item()}
    if f"iwae-{DRAWS // C}" in first[0]:
        bounds["iwae"] = weighed(first, f"iwae-{DRAWS // C}").logsumexp(0).mean().item()
    return bounds


# ---- the table -------------------------------------------------------------------------------------------------------


def stored():
    return trained.stored(CSV)


def store(row):
    trained.store(CSV, COLUMNS, row)


def missing(only=None):
    return trained.missing(stored(), runs(only), settings)


def cell(group, column, digits, sign=1):
    """Mean and deviation over the seeds; nats of a density are marked."""
    values = [sign * float(row[column]) for row in group if row[column]]
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    density = "density " * ("density" in group[0]["unit"] and column in (*BOUNDS, "reconstruction"))
    return f"{density}{statistics.mean(values):.{digits}f}{spread}"


def table(rows, data):
    """The lines of one data set: models with a probability, the best log p(x) first; then densities; then the rest."""
    groups = {}
    for row in rows:
        if row["data"] == data:
            groups.setdefault((row["who"], row["recipe"]), []).append(row)

    def order(item):
        group = item[1]
        costs = [-float(row["iwae"] or row["elbo"]) for row in group if row["elbo"]]
        values = costs or [float(row["squared_error"]) for row in group]
        return ("density" in group[0]["unit"], not costs, statistics.mean(values))

    heads = [SETS[data], "−ELBO", f"−IWAE-{DRAWS}", "−ELBO given y", f"−IWAE-{DRAWS} given y",
             "−log p(x\\|z)",
             "squared error", "FID", "right class", "perplexity", "parameters", "seconds"]  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for (who, key), group in sorted(groups.items(), key=order):
        name = f"`{who}` ({key})" + (f", {len(group)} seed{'s' * (len(group) > 1)}" if len(group) < 3 else "")
        cells = [name, *(cell(group, bound, 2, -1) for bound in BOUNDS)]
        cells += [cell(group, "reconstruction", 2), cell(group, "squared_error", 2)]
        cells += [cell(group, "fid", 1), cell(group, "right_class", 3), cell(group, "perplexity", 1)]
        seconds = statistics.mean(float(row["cpu_seconds"]) for row in group)
        cells += [f"{int(group[0]['parameters']):,}", f"{seconds:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    if groups:
        floor = next(iter(groups.values()))[0]["fid_real"]
        lines.append("| " + " | ".join(["test images", *[""] * 6, f"{float(floor):.1f}", *[""] * 4]) + " |")
    return lines


def document():
    """Writes the tables from the rows whose settings are those of the recipes as they are now."""
    rows = [row for row in stored() if row["settings"] == settings(row["who"], row["recipe"])]
    trained.write(DOCUMENT, "latent", [table(rows, data) for data in SETS])


if __name__ == "__main__":
    about = "Every latent model on the embedded digits, three seeds each, and docs/results.md."
    trained.main(sys.modules[__name__], about, [*FIGURES, "cpu_seconds"])
