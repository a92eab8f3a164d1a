"""One picture of all families: digits that each has drawn, and scenes that captions say; docs/families.png.

    python bench/sheet.py            trains what is missing in runs/sheet (half an hour of a core), and draws

Each model is trained by its recipe and draws ten digits by the noise of seed 0: none is chosen. A model with classes
draws one of each. The scenes are by the Imagen that is shipped, of captions that stand under them.
"""

import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

RUNS, PICTURE = HERE.parent / "runs" / "sheet", HERE.parent / "docs" / "families.png"
COLUMNS, ACROSS = 10, 5  # digits of a row, scenes of a row
FAMILIES = {  # (model, recipe): what it is called
    ("made", "digits-levels"): "MADE, pixel after pixel", ("pixelcnn", "digits-levels"): "PixelCNN, by convolutions",
    ("realnvp", "digits"): "RealNVP, a flow", ("vae", "digits-levels"): "VAE",
    ("vqvae", "digits"): "VQ-VAE and a prior of its codes", ("cgan", "digits"): "conditional GAN",
    ("diffusion", "digits-classes"): "diffusion, led to each class",
}
CAPTIONS = ("a small red circle", "a big blue square", "a yellow triangle left of a purple cross",
            "a purple cross left of a yellow triangle", "two green circles",
            "a red square above a blue circle", "a blue circle above a red square", "three cyan triangles",
            "a big green cross on a black ground", "a small yellow circle below a big red square")


def trained(name, recipe):
    """The model of this recipe, from its run, which is trained if it is not there"""
    from genmini import checkpoint, experiment, models

    run = RUNS / f"{name}-{recipe}"
    if not (run / "run.json").exists():
        plan = experiment.plan(name, models.recipes(name)[recipe]["data"], recipe)
        torch.set_num_threads(plan.threads or 1)
        splits = experiment.splits(plan)
        experiment.train(plan, experiment.build(plan, splits["train"]), splits, run)
    return checkpoint.load(run)


def digits(model):
    """Ten draws, (10, 8, 8), in shares of the brightest level"""
    from genmini import samples

    classes = dict(y=torch.arange(COLUMNS)) if model.classes else {}
    return samples.draw(model, COLUMNS, **classes).float() / (model.levels - 1)


def scenes():
    """A draw of each caption, (10, 3, 64, 64)"""
    from genmini import checkpoint, samples

    return samples.draw(checkpoint.load("imagen"), len(CAPTIONS), y=list(CAPTIONS))


def draw(path, rows, pictures):
    """Write {name: ten digits} as rows, and below them the pictures over their captions."""
    from textwrap import fill

    from genmini import plots

    figure, _ = plots.new_figure(1, 1, 9.0, 0.62 * len(rows) + 4.6)
    figure.clear()
    upper, lower = figure.subfigures(2, 1, height_ratios=(0.62 * len(rows), 4.6))
    panel = upper.subplots()
    plots.show(panel, torch.cat([*rows.values()]), 2, COLUMNS)
    H = next(iter(rows.values())).shape[-1] + 1
    panel.set(yticks=[r * H + H / 2 - 1 for r in range(len(rows))], yticklabels=rows)
    panels = lower.subplots(-(-len(pictures) // ACROSS), ACROSS).flat
    for panel, picture, caption in zip(panels, pictures, CAPTIONS, strict=True):
        plots.show(panel, picture[None], 256, 1)
        panel.set_xlabel(fill(caption, 22), fontsize=8)
    plots.save(figure, path)


def main():
    rows = {title: digits(trained(name, recipe)) for (name, recipe), title in FAMILIES.items()}
    draw(PICTURE, rows, scenes())
    print(f"{len(rows)} families and {len(CAPTIONS)} captions in {PICTURE}")


if __name__ == "__main__":
    main()
