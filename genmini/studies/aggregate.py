"""Does every z that the prior draws lie among the codes of images? The sum of q(z|x_i) over images against p(z).

The course, "Cadre probabiliste: complétude": every point of the latent space is to decode to something coherent.

    q(z) = 1/N sum_i q(z|x_i);   of an autoencoder, its codes                               (1)
    KL(q(z) || p(z)) ~ d/n sum_i log(b_i / a_i) + log(m / (n - 1))                          (2)
    E_i KL(q(z|x_i) || p(z)) = E [log q(z|x_i) / q(z)] + KL(q(z) || p(z))                   (3)

p(z) is N(0, I); of a model without a prior, the Gaussian that fits its codes, which it draws from. All is measured in
coordinates in which that is N(0, I). A draw of p(z) lies in a hole if it is farther from the codes of train than all
but a twentieth of the codes of test are: were q(z) = p(z), 5% of draws would. In (2), a_i is the distance from one of n
codes to the nearest of the others, b_i that to the nearest of m draws of p(z) (Wang, Kulkarni, Verdú, 2009); in many
dimensions it reads low. (3) holds for each VAE, with the mixture (1) as it stands (Hoffman, Johnson, 2016): its first
part is what z tells about which image it is of. In many dimensions, few images cannot fill the space: log N is the most
that z can tell, and what is left of their KL is holes.
"""

import math

import torch

from genmini import plots
from genmini.means import mean_and_error
from genmini.studies._study import Study, lacks_images

CODES, DRAWS, SIDE = 2000, 2000, 6  # images, draws of p(z); the draws of a side of what is decoded
NULL = 0.05  # the share of draws in holes if q(z) were p(z)


def misfit(model):
    return lacks_images(model) or ("" if model.latent > 1 else "one latent dimension is no plane")


def codes(run, split, noise):
    """A draw of q(z|x_i) for each image; the code of a model that has no q. (N, d)"""
    images = run.split(split)
    x, y = images.x[:CODES], images.y[:CODES]
    if run.model.cannot("q"):
        return run.encode(x, y).double()
    mu, log_var = (part.double() for part in run.q(x, y))
    return mu + (log_var / 2).exp() * torch.randn(mu.shape, generator=noise, dtype=torch.float64)


def gaussian(z):
    """(N, d) -> m (d,), the symmetric root of S and its inverse (d, d), and the two axes of most variance (d, 2)"""
    variance, axes = torch.linalg.eigh(z.T.cov())
    root = variance.clamp(min=1e-6 * variance.max()).sqrt()
    return z.mean(0), axes * root @ axes.T, axes / root @ axes.T, axes[:, [-1, -2]]


def holes(train, test, draws):
    """Which draws lie in holes, (M,): farther from the codes of train than all but NULL of the codes of test"""
    far = lambda z: torch.cdist(z, train).amin(1)
    return far(draws) > torch.quantile(far(test), 1 - NULL)


def divergence(z, draws):
    """(n, d), (m, d) -> KL(q(z) || p(z)) by (2), and its error; equal codes, as of equal images, count once"""
    z = z.unique(dim=0)
    (n, d), m = z.shape, len(draws)
    a = torch.cdist(z, z).fill_diagonal_(math.inf).amin(1).clamp(min=1e-9)
    b = torch.cdist(z, draws).amin(1).clamp(min=1e-9)
    return mean_and_error(d * (b / a).log() + math.log(m / (n - 1)))  # (2)


def parts(mu, log_var, noise):
    """(N, d), (N, d) -> the two parts of (3) and their errors, by a draw z for each image"""
    eps = torch.randn(mu.shape, generator=noise, dtype=mu.dtype)
    z = mu + (log_var / 2).exp() * eps
    square = lambda rows: ((rows[:, None] - mu).square() / log_var.exp() + log_var).sum(2)  # -2 log q(z|x_j)
    log_q = torch.cat([(-square(rows) / 2).logsumexp(1) for rows in z.split(100)]) - math.log(len(z))  # (1)
    own, log_p = -(eps.square() + log_var).sum(1) / 2, -z.square().sum(1) / 2  # each without d/2 log 2 pi
    return mean_and_error(own - log_q), mean_and_error(log_q - log_p)  # (3)


def study(runs, path):
    figure, rows = plots.new_figure(len(runs), 4, 3.55, 3.7)
    answers = [shown(run, panels) for run, panels in zip(runs, rows, strict=True)]
    plots.save(figure, path)
    return "\n".join(answers)


def shown(run, panels):
    """Draw the four panels of a run -> its figures, in words"""
    noise = torch.Generator().manual_seed(run.seed)
    train, y = run.split("train"), run.split("train").y[:CODES]
    z, unseen = codes(run, "train", noise), codes(run, "test", noise)
    (n, d), (m, root, inverse, axes) = z.shape, gaussian(z)
    if run.model.has_normal_prior:
        m, root, inverse = torch.zeros(d), torch.eye(d, dtype=z.dtype), torch.eye(d, dtype=z.dtype)
    z, unseen = (z - m) @ inverse, (unseen - m) @ inverse
    draws = torch.randn(DRAWS, d, generator=noise, dtype=z.dtype)
    hole = holes(z, unseen, draws)
    share, error = mean_and_error(hole)
    kl = divergence(z, draws)

    plane = lambda z: (z if d == 2 else z @ axes).T
    axis = ("z$_{%d}$" if d == 2 else "principal component %d") + ", scaled" * (not run.model.has_normal_prior)
    colours = dict(color="0.25") if train.classes == 0 else plots.by_class(y, train.classes)
    panels[0].scatter(*plane(z), s=5, linewidths=0, **colours)
    if train.classes != 0:
        plots.name_classes(panels[0], plane(z).T, y)
    for where, colour, name in ((~hole, "tab:blue", "among codes"), (hole, "tab:red", "in a hole")):
        panels[1].scatter(*plane(draws[where]), s=5, linewidths=0, color=colour, label=name)
    angle = torch.linspace(0, 2 * math.pi, 361)
    for panel in panels[:2]:
        for inside in (0.5, 0.9, 0.99):  # of the draws of N(0, I), on a plane
            radius = math.sqrt(-2 * math.log(1 - inside))
            panel.plot(radius * angle.cos(), radius * angle.sin(), color="0.6", linewidth=0.7)
        panel.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal", xlabel=axis % 1, ylabel=axis % 2)
    of_class = y[torch.arange(DRAWS) % n]
    for panel, where in zip(panels[2:], (~hole, hole), strict=True):
        some = torch.arange(DRAWS)[where][: SIDE**2]
        x = run.decode((m + draws[some] @ root).float(), of_class[some]).float()
        blank = x.new_full((SIDE**2 - len(x), *train.shape), math.nan)
        plots.show(panel, torch.cat([x, blank]), train.levels, SIDE)
    what = "codes of" if run.model.cannot("q") else "a draw of q(z|x$_i$) for each of"
    prior = "p(z)" if run.model.has_normal_prior else "the Gaussian of its codes"
    titles = (f"{run.name}\n{what} {n} images of train", f"{DRAWS} draws of {prior}\n{share:.1%} in holes "
              f"(if q(z) = p(z): {NULL:.0%})", "draws among codes, decoded", "draws in holes, decoded")
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title, fontsize=10)
    panels[1].legend(fontsize=8, frameon=False, loc="upper left", markerscale=2)

    answer = (f"{run.name}: {share:.1%} +- {error:.1%} of draws of p(z) lie in holes ({NULL:.0%} if q(z) were p(z)), "
              f"KL(q(z) || p(z)) about {kl[0]:.2f} +- {kl[1]:.2f} nats by neighbours")
    if run.model.cannot("q"):
        return answer
    q = [part.double() for part in run.q(train.x[:CODES], y)]
    told, apart = parts(*q, noise)
    return f"{answer}, {apart[0]:.2f} +- {apart[1]:.2f} of the sum itself, and z tells {told[0]:.2f} nats of its image"


STUDY = Study(study, needs=("encode", "decode"), misfit=misfit, together=True)
