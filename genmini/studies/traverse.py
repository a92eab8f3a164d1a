"""What does one latent dimension do? It moves, and the others stay as they are.

Each row moves one dimension, from the 1st to the 99th percentile of its codes of the train split, and the code of a test image stands still
in all the others; beside it, how far that takes the image.
"""

import torch

from genmini import plots

NEEDS = ("encode", "decode")
ROWS, STEPS = 10, 11


def study(run, path):
    train, test = run.split("train"), run.split("test")
    z = run.encode(train.x[:5000], train.y[:5000]).float()
    low, high = torch.quantile(z, torch.tensor([0.01, 0.99]), dim=0)
    base, y = run.encode(test.x[:1], test.y[:1]).float(), test.y[:1]
    t = torch.linspace(0, 1, STEPS)
    moved = base.repeat(z.shape[1], STEPS, 1)  # (d, STEPS, d)
    for i in range(z.shape[1]):
        moved[i, :, i] = low[i] + t * (high[i] - low[i])
    images = run.decode(moved.flatten(0, 1), y.repeat(z.shape[1] * STEPS)).unflatten(0, (-1, STEPS)).float()
    reach = (images[:, -1] - images[:, 0]).flatten(1).norm(dim=1) / (test.levels - 1)
    shown = reach.argsort(descending=True, stable=True)[:ROWS]
    labels = [f"z$_{{{i + 1}}}$, moves {reach[i]:.1f}" for i in shown.tolist()]
    draw(path, f"{type(run.model).__name__}: one latent dimension moves", images[shown], labels, test.levels)
    asleep = (reach < 0.1 * reach.max()).sum().item()
    return f"z_{shown[0] + 1} moves the image most, by {reach.max():.2f}; {asleep} of {len(reach)} dimensions by less than a tenth of that"


def draw(path, title, images, labels, levels):
    """Rows of images (R, STEPS, H, W) with a label each."""
    from matplotlib import colormaps

    rows, _, H, _ = images.shape
    figure, ((panel,),) = plots._figure(1, 1, 7.5, 0.65 * rows + 0.5)
    ink, cells = colormaps["gray_r"].with_extremes(bad="0.9"), plots.grid(images.flatten(0, 1), images.shape[1])
    panel.imshow(cells.numpy(), cmap=ink, vmin=0, vmax=levels - 1, interpolation="nearest")
    panel.set(xticks=[], yticks=[r * (H + 1) + H / 2 - 0.5 for r in range(rows)], yticklabels=labels)
    panel.set_title(title, fontsize=12)
    panel.spines[:].set_color("0.8")
    plots._write(figure, path)
