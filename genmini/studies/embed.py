"""Do images of one class have codes that lie together? An autoencoder is trained without the classes.

The course's practical: "tracer les embeddings dans l'espace latent des images en fonction de leur classe".
"""

import math

import torch

from genmini import plots
from genmini.studies._study import Study, lacks_images

FIRST = 2000


def plane(z):
    """(N, d) -> (N, 2), what the axes are, in words; for d > 2 the two principal components"""
    if z.shape[1] == 2:
        return z, "the latent plane"
    if z.shape[1] < 2:
        return torch.cat([z, torch.zeros(len(z), 1)], 1), "the latent line"
    _, s, axes = torch.linalg.svd(z - z.mean(0), full_matrices=False)
    share = (s[:2].square().sum() / s.square().sum()).item()
    return ((z - z.mean(0)) @ axes[:2].T,
            f"2 principal components of {z.shape[1]} dimensions, {share:.0%} of the variance")


def like_its_neighbour(z, y):
    """The share of images whose nearest code is of their class"""
    distance = torch.cdist(z.double(), z.double()).fill_diagonal_(torch.inf)
    return (y[distance.argmin(1)] == y).double().mean().item()


def study(run, path):
    run.check_labels()
    test = run.split("test")
    x, y = test.x[:FIRST], test.y[:FIRST]
    z = run.encode(x, y).float()
    points, axes = plane(z)
    figure, ((panel,),) = plots.new_figure(1, 1, 6.5, 6.0)
    classes = max(10, int(test.y.max()) + 1)
    of_class = panel.scatter(*points.T, s=14 if len(z) <= 500 else 6, linewidths=0, **plots.by_class(y, classes))
    figure.colorbar(of_class, ax=panel, ticks=range(0, classes, math.ceil(classes / 26)), label="class", shrink=0.8)
    panel.set_title(f"codes of {len(z)} images ({test.split}) by {run.model.title}\n{axes}", fontsize=11)
    panel.set_aspect("equal", adjustable="datalim")
    plots.save(figure, path)
    shares = (like_its_neighbour(a, y) for a in (z, points, x.flatten(1).float()))
    shown = ", ".join(f"{share:.1%} by {what}"
                      for share, what in zip(shares, ("codes", "the plane shown", "pixels"), strict=True))
    return f"{axes}; images whose nearest neighbour is of their class: {shown} ({len(z)} of {test.split})"


STUDY = Study(study, needs=("encode",), misfit=lacks_images)
