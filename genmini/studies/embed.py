"""Do images of one class have codes that lie together? An autoencoder is trained without the classes.

The course's practical: "tracer les embeddings dans l'espace latent des images en fonction de leur classe", by the two
principal components, or with two axes by these coordinates, as its "deux premières coordonnées" (axes 0 and 1). by
"graph" joins each image to the one with the nearest code in all dimensions; by "tsne" places codes by t-SNE of
scikit-learn (van der Maaten and Hinton, 2008), which keeps neighbours together, and neither distances nor axes.

Figures are of all test images, and the picture shows the first of them.
"""

import torch

from genmini import plots
from genmini.studies._run import Misfit, called, coordinates
from genmini.studies._study import Study, lacks_images

SHOWN, AT_ONCE = 2000, 1000  # images in the picture; rows of distances
TSNE = "t-SNE, whose axes and distances mean nothing"


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


def nearest(z):
    """(N, d) -> (N,): which of the others is nearest to each"""
    z, found = z.double(), []
    for n in torch.arange(len(z)).split(AT_ONCE):
        distance = torch.cdist(z[n], z)
        distance[torch.arange(len(n)), n] = torch.inf
        found.append(distance.argmin(1))
    return torch.cat(found)


def like_its_neighbour(z, y):
    """The share of images whose nearest code is of their class"""
    return (y[nearest(z)] == y).double().mean().item()


def tsne(z, seed):
    """(N, d) -> (N, 2)"""
    try:
        from sklearn.manifold import TSNE as Map
    except ImportError as error:
        raise Misfit("--by tsne needs the package scikit-learn: pip install scikit-learn; --by graph needs none "
                     f"({error})") from None
    of = Map(n_components=2, perplexity=min(30.0, (len(z) - 1) / 3), init="pca", random_state=seed % 2**32)
    return torch.from_numpy(of.fit_transform(z.numpy()))


def study(run, path, axes=None, by=None):
    run.check_labels()
    if axes and by == "tsne":
        raise Misfit("--axes chooses coordinates, and the map of --by tsne has none: leave one of them out")
    test = run.split("test")
    x, y = test.x, test.y
    z = run.encode(x, y).float()
    if axes:
        chosen = coordinates(run.model, axes)
        points, what = z[:, chosen], f"z_{chosen[0] + 1} and z_{chosen[1] + 1} of {z.shape[1]} dimensions"
    elif by == "tsne":
        points, what = tsne(z[:SHOWN], run.seed), f"{TSNE}, of {z.shape[1]} dimensions"
    else:
        chosen, (points, what) = [0, 1], plane(z)
    if by == "tsne":
        names = ["", ""]
    else:
        names = [called(run.model, i) if axes or z.shape[1] <= 2 else f"principal component {i + 1}" for i in chosen]
    figure, ((panel,),) = plots.new_figure(1, 1, 7.0, 6.0)
    shown, of_shown = points[:SHOWN], y[:SHOWN]
    size = dict(s=14 if len(shown) <= 500 else 6, linewidths=0)
    dots = panel.scatter(*shown.T, **size, **plots.by_class(of_shown, int(y.max()) + 1))
    for k in of_shown.unique().tolist():
        panel.scatter([], [], s=30, linewidths=0, color=dots.cmap(dots.norm(k)), label=str(k))
    plots.name_classes(panel, shown, of_shown)
    if by == "graph":
        join(panel, shown, nearest(z[:SHOWN]), of_shown)
    panel.legend(title="class", loc="center left", bbox_to_anchor=(1, 0.5), ncols=-(-len(of_shown.unique()) // 20),
                 frameon=False)
    panel.set(xlabel=names[0], ylabel=names[1])
    first = f"the first {len(shown)} of " * (len(shown) < len(z))
    panel.set_title(f"codes of {first}{len(z)} images ({test.split}) by {run.model.title}\n{what}", fontsize=11)
    panel.set_aspect("equal", adjustable="datalim")
    if by == "tsne":
        panel.set(xticks=[], yticks=[])
    plots.save(figure, path)
    shares = (like_its_neighbour(a, y[: len(a)]) for a in (z, points, x.flatten(1).float()))
    some = f" (of the first {len(points)})" * (len(points) < len(z))
    places = ("codes", f"the plane shown{some}", "pixels")
    shares = ", ".join(f"{share:.1%} by {place}" for share, place in zip(shares, places, strict=True))
    return f"{what}; images whose nearest neighbour is of their class: {shares} ({len(z)} of {test.split})"


def join(panel, points, other, y):
    """A line from each point to its other one: grey within a class, red between two."""
    for alike, colour, label in ((True, "0.6", "nearest code"), (False, "tab:red", "of another class")):
        n = ((y[other] == y) == alike).nonzero()[:, 0]
        gap = torch.full((len(n), 2), torch.nan)  # ends a line
        ends = torch.stack([points[n], points[other[n]], gap], 1).flatten(0, 1)
        panel.plot(*ends.T, color=colour, linewidth=0.6, zorder=0, label=label)


STUDY = Study(study, needs=("encode",), misfit=lacks_images, options=("axes", "by"))
