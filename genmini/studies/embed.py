"""Do images of one class have codes that lie together? An autoencoder is trained without the classes.

The course's practical: "tracer les embeddings dans l'espace latent des images en fonction de leur classe", by the two
principal components, or with two axes by these coordinates, as its "deux premières coordonnées" (axes 0 and 1).
"""

import torch

from genmini import plots
from genmini.studies._run import called, coordinates
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


def study(run, path, axes=None):
    run.check_labels()
    test = run.split("test")
    x, y = test.x[:FIRST], test.y[:FIRST]
    z = run.encode(x, y).float()
    if axes:
        chosen = coordinates(run.model, axes)
        points, what = z[:, chosen], f"z_{chosen[0] + 1} and z_{chosen[1] + 1} of {z.shape[1]} dimensions"
    else:
        chosen, (points, what) = [0, 1], plane(z)
    names = [called(run.model, i) if axes or z.shape[1] <= 2 else f"principal component {i + 1}" for i in chosen]
    figure, ((panel,),) = plots.new_figure(1, 1, 7.0, 6.0)
    size = dict(s=14 if len(z) <= 500 else 6, linewidths=0)
    dots = panel.scatter(*points.T, **size, **plots.by_class(y, int(test.y.max()) + 1))
    for k in y.unique().tolist():
        panel.scatter([], [], s=30, linewidths=0, color=dots.cmap(dots.norm(k)), label=str(k))
        panel.text(*points[y == k].median(0).values.tolist(), str(k), weight="bold", ha="center", va="center")
    panel.legend(title="class", loc="center left", bbox_to_anchor=(1, 0.5), ncols=-(-len(y.unique()) // 20),
                 frameon=False)
    panel.set(xlabel=names[0], ylabel=names[1])
    panel.set_title(f"codes of {len(z)} images ({test.split}) by {run.model.title}\n{what}", fontsize=11)
    panel.set_aspect("equal", adjustable="datalim")
    plots.save(figure, path)
    shares = (like_its_neighbour(a, y) for a in (z, points, x.flatten(1).float()))
    shown = ", ".join(f"{share:.1%} by {what}"
                      for share, what in zip(shares, ("codes", "the plane shown", "pixels"), strict=True))
    return f"{what}; images whose nearest neighbour is of their class: {shown} ({len(z)} of {test.split})"


STUDY = Study(study, needs=("encode",), misfit=lacks_images, options=("axes",))
