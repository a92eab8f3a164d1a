"""How many latent dimensions are enough? The same model, trained with 2, 5, 10, 20 ... of them.

The course's practical. The figures of each model on the test split, with the error of their mean: reconstruction, and
the bound if there is one.
"""

import torch

from genmini import plots

NEEDS = ("encode", "decode")
DIMENSIONS = (2, 5, 10, 20, 50)


def study(runs, path):
    """runs: {d: Run}, of one model but for d."""
    values = {}  # figure -> [(d, mean, error)]
    for d, run in sorted(runs.items()):
        test = run.split("test")
        torch.manual_seed(run.seed)
        figures = run.figures(test.x, test.y)
        for name, each in figures.items():
            each = each.double()
            values.setdefault(name, []).append((d, each.mean().item(), each.std().item() / len(each) ** 0.5))
    figure, panels = plots.new_figure(1, len(values), 4.2, 3.6)
    for panel, (name, points) in zip(panels[0], values.items(), strict=True):
        d, mean, error = zip(*points, strict=True)
        panel.errorbar(d, mean, error, fmt="o-", capsize=3, color="tab:blue")
        panel.set(xscale="log", xlabel="latent dimensions", xticks=d, xticklabels=d)
        panel.minorticks_off()
        panel.set_title(f"{name} ({test.split})", fontsize=11)
    plots.save(figure, path)
    of = lambda points: ", ".join(f"d={d} {mean:.3f} +- {error:.3f}" for d, mean, error in points)
    return "\n".join(f"{name}: {of(points)}" for name, points in values.items())
