"""How does a flow bend space? p(z) with a straight grid, and p(x) with the grid that the flow makes of it.

The course, "Réseau inversible (NF)":  z ~ N(0, I),  x = h^-1(z),  and

    p(x) = N(h(x); 0, I) |det dh/dx|

The flow carries each cell of the grid with the probability in it: where cells become small p(x) is high, where they
become large it is low. The dots are test points on the right, and what h makes of them on the left. A model with
classes has an h for each: there is a panel of p(x | y) for each of the first four, and the left one has the points of
all.

Space is folded where det dh/dx is not positive, so that h cannot be inverted. The determinant is autograd's, on a fine
lattice of z; float64, because it is a small difference of large products.
"""

import math

import torch

from genmini import plots
from genmini.data import toys
from genmini.studies._study import Study

REACH, LINES, FINE, DOTS, MOST = 3.0, 13, 241, 1000, 4  # z from -3 to 3, a line each 1/2
SIDE = 200  # of the pictures of densities, in pixels


def misfit(model):
    return "" if model.shape == (2,) else f"the picture is of the plane, and its examples have the shape {model.shape}"


def lines():
    """(2, LINES, FINE, 2): lines of z_1 constant from left to right, and lines of z_2 constant upwards"""
    at, along = (torch.linspace(-REACH, REACH, count, dtype=torch.float64) for count in (LINES, FINE))
    upright = torch.stack(torch.meshgrid(at, along, indexing="ij"), -1)
    return torch.stack([upright, upright.flip(-1)])


def lattice(side, reach):
    """(side^2, 2): rightwards along the first number, row by row upwards along the second"""
    at = torch.linspace(-reach, reach, side, dtype=torch.float64)
    return torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).flatten(0, 1)


def determinant(h, x):
    """h: (N, 2) -> z (N, 2).   x (N, 2) -> det dh/dx (N,)"""
    x = x.detach().requires_grad_()
    rows = [torch.autograd.grad(h(x)[:, i].sum(), x)[0] for i in (0, 1)]
    return torch.linalg.det(torch.stack(rows, 1))


def study(run, path):
    model, test, edge = run.model.double(), run.split("test"), REACH + 0.5
    x, y, shown = test.x.double(), test.y, min(MOST, model.classes) or 1
    z = run.encode(x, y)
    figure, panels = plots.new_figure(1, 1 + shown, 4.6, 4.6)
    normal = torch.exp(-lattice(SIDE, edge).square().sum(1) / 2) / (2 * math.pi)
    draw(panels[0, 0], normal, edge, lines(), z, y)
    panels[0, 0].set(title="p(z) = N(0, I), a straight grid", xlabel="z$_1$", ylabel="z$_2$")
    panels[0, 0].legend(fontsize=8, loc="lower right")

    reach, folded = x.abs().max().item() + 0.3, []
    for k, panel in enumerate(panels[0, 1:]):
        of = (y == k) if run.conditional else torch.ones_like(y, dtype=torch.bool)
        class_of = lambda points, k=k: torch.full((len(points),), k)
        density = -run.figures(lattice(SIDE, reach), class_of(lattice(SIDE, reach)))["nll"]
        grid = run.decode(lines().flatten(0, 2), class_of(lines().flatten(0, 2))).view_as(lines())
        draw(panel, density.exp(), reach, grid, x[of], y[of])
        given = f" | y = {k}" * run.conditional
        panel.set(title=f"p(x{given}) of {model.title}, the grid carried", xlabel="x$_1$", ylabel="x$_2$")
        inner = lattice(FINE, REACH)
        there = run.decode(inner, class_of(inner)).to(run.device)
        det = determinant(lambda x, k=k: model.encode(x, k if run.conditional else None), there)
        folded.append((det <= 0).double().mean().item())
    plots.save(figure, path)

    nats, truth = run.figures(x, y)["nll"].mean(), -toys.TOYS[test.name].log_prob(x, y if run.conditional else None)
    inside, of_normal = (z.abs() < REACH).all(1).double().mean(), math.erf(REACH / math.sqrt(2)) ** 2
    return (f"-log p(x{' | y' * run.conditional}) of test points: {nats:.3f} nats, of the density that drew them "
            f"{truth.mean():.3f}; {inside:.1%} of them lie in the carried grid, and {of_normal:.1%} of N(0, I) in the "
            f"straight one; folded: {sum(folded) / len(folded):.1%} of the grid")


def draw(panel, density, reach, grid, points, y):
    panel.imshow(density.view(SIDE, SIDE), origin="lower", extent=[-reach, reach] * 2, cmap="Greys",
                 vmin=0, vmax=1.5 * torch.quantile(density, 0.999).item())
    for i, colour in enumerate(("firebrick", "darkcyan")):
        for j, line in enumerate(grid[i]):
            label = f"z$_{i + 1}$ is constant" if j == 0 else None
            panel.plot(*line.T, color=colour, linewidth=0.8, label=label)
    panel.scatter(*points[:DOTS].T, c=y[:DOTS], cmap="tab10", vmin=0, vmax=9, s=3, linewidths=0, zorder=3)
    panel.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")


STUDY = Study(study, needs=("encode", "decode", "inverse", "log_prob"), misfit=misfit)
