"""Are images alike whose codes are near to each other? Draws of z around the code of an image, decoded.

The course, "Cadre probabiliste: continuité": draws from a small region of the latent space give similar images.

    z' = z + r sqrt(2 d) sigma o u,   u uniform on the sphere |u| = 1                       (1)
    moved = |f(z') - f(z)| / |f(z_1) - f(z_2)|,   each length the root of the mean square   (2)

sigma_i is the deviation of z_i over test images, so that r = 1 is the distance between the codes of two of them, in any
latent space. (2) tells how far the image goes, as a share of the distance between two decoded images. With classes, a
draw keeps its class if the train image nearest to it, in pixels, is of the class of the image.
"""

import math

import torch

from genmini import plots
from genmini.means import mean_and_error
from genmini.studies._study import Study, lacks_images

RADII = 0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1
NAMES = "0", "1/16", "1/8", "1/4", "1/2", "1"
SHOWN, IMAGES, DRAWS, TRAIN = 8, 200, 8, 5000  # draws shown; images measured, draws of each; train images to be near


def around(z, r, sigma, noise):
    """(N, d) -> (N, d), a draw of (1) for each"""
    u = torch.randn(z.shape, generator=noise)
    return z + r * math.sqrt(2 * z.shape[1]) * sigma * u / u.norm(dim=1, keepdim=True)  # (1)


def measured(run, noise):
    """-> (RADII, SHOWN, *shape) around the first test image, [(moved, error)], [(share of the class, error)] or []"""
    train, test = run.split("train"), run.split("test")
    x, y = test.x[:IMAGES], test.y[:IMAGES]
    z = run.encode(x, y).float()
    sigma, image = z.std(0), run.decode(z, y).float()
    apart = (2 * image.flatten(1).var(0).sum()).sqrt()  # of two images: |a - b|^2 has the mean 2 var
    shown, moved, kept = [], [], []
    for r in RADII:
        near = lambda z, y: run.decode(around(z, r, sigma, noise), y).float()  # noqa: B023
        shown.append(near(z[:1].repeat(SHOWN, 1), y[:1].repeat(SHOWN)))
        draws = torch.stack([near(z, y) for _ in range(DRAWS)])  # (DRAWS, N, *shape)
        squares = (draws - image).flatten(2).square().sum(2).mean(0)  # (N,)
        mean, error = mean_and_error(squares)
        length = math.sqrt(mean)
        moved.append((length / apart.item(), error / max(2 * length, 1e-9) / apart.item()))  # (2)
        if train.classes != 0:
            nearest = torch.cdist(draws.flatten(2), train.x[:TRAIN].flatten(1).float()).argmin(2)  # (DRAWS, N)
            kept.append(mean_and_error((train.y[nearest] == y).double().mean(0)))
    return torch.stack(shown), moved, kept


def study(runs, path):
    figure, (panels,) = plots.new_figure(1, len(runs) + 2, min(3.6, plots.WIDEST / (len(runs) + 2)), 3.4)
    answers = []
    for panel, run in zip(panels, runs, strict=False):
        shown, moved, kept = measured(run, torch.Generator().manual_seed(run.seed))
        levels, H = run.split("test").levels, shown.shape[-2]
        plots.show(panel, shown.flatten(0, 1), levels, SHOWN)
        panel.set(yticks=[k * (H + 1) + H / 2 - 0.5 for k in range(len(RADII))], yticklabels=NAMES,
                  ylabel="distance r from the code of an image")
        panel.set_title(f"draws around a code\n{run.name}", fontsize=10)
        for curve, values in zip(panels[-2:], (moved, kept), strict=True):
            if values:
                curve.errorbar(RADII, *zip(*values, strict=True), fmt="o-", capsize=3, markersize=4, label=run.name)
        at = NAMES.index("1/4")
        answers.append(f"{run.name}: at 1/4 of the distance of two codes an image moves by "
                       f"{moved[at][0]:.1%} +- {moved[at][1]:.1%} of the distance of two images" + (
                       f", and {kept[at][0]:.1%} +- {kept[at][1]:.1%} of draws keep its class, of its own code "
                       f"{kept[0][0]:.1%}" if kept else ""))
    for curve, title in zip(panels[-2:], ("how far the image moves\n1: as two images are apart",
                                          "share of draws that keep the class\nhigher is better"), strict=True):
        curve.set(xlabel="distance r, 1: as two codes are apart", xlim=(-0.03, 1.03))
        curve.set_ylim(bottom=0)
        curve.set_title(title, fontsize=10)
    panels[-2].legend(fontsize=8, frameon=False)
    panels[-1].set_visible(bool(panels[-1].containers))
    plots.save(figure, path)
    return "\n".join(answers)


STUDY = Study(study, needs=("encode", "decode"), misfit=lacks_images, together=True)
