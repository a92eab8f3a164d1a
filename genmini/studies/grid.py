"""What does each place of the latent plane mean? A grid of it, decoded, of several runs side by side.

If the model draws codes from N(0, I), the lines of the grid are at the quantiles 1/30, 3/30, ... 29/30 of N(0, 1), so
that all cells are equally likely. An autoencoder has no p(z): its lines are at the quantiles of the codes of the train
split, one axis at a time.
"""

import torch

from genmini import plots
from genmini.studies._study import Study, lacks_images

SIDE = 15


def misfit(model):
    return lacks_images(model) or ("" if model.latent == 2 else (f"its latent space has {model.latent} dimensions; "
                                                                 "one trained with --set latent=2 has a plane"))


def lines(run, z):
    """The places z_1 of the columns and z_2 of the rows, upwards, each (SIDE,)"""
    quantiles = (torch.arange(SIDE) + 0.5) / SIDE
    if run.model.has_normal_prior:
        return [torch.special.ndtri(quantiles)] * 2
    return [torch.quantile(z[:, i], quantiles) for i in (0, 1)]


def study(runs, path):
    panels, answers = [], []  # (title, images in [0, 1], across, up)
    for run in runs:
        train = run.split("train")
        z = run.encode(train.x[:5000], train.y[:5000]).float()
        across, up = lines(run, z)
        # row by row, z_2 upwards
        cells = torch.stack(torch.meshgrid(across, up.flip(0), indexing="xy"), -1).flatten(0, 1)
        for k in range(min(4, run.model.classes)) if run.conditional else (0,):
            x = run.decode(cells, torch.full((len(cells),), k)).float() / (train.levels - 1)
            panels.append((f"{run.name}" + f", class {k}" * run.conditional, x, across, up))
        inside = ((z > torch.stack([across[0], up[0]])) & (z < torch.stack([across[-1], up[-1]]))).all(1)
        answers.append(f"{run.name}: z_1 from {across[0]:.2f} to {across[-1]:.2f}, z_2 from {up[0]:.2f} to "
                       f"{up[-1]:.2f}: {inside.double().mean():.1%} of the train codes lie there")
    figure, row = plots.new_figure(1, len(panels), *[min(6.5, plots.WIDEST / len(panels))] * 2)
    for panel, (title, x, across, up) in zip(row[0], panels, strict=True):
        plots.show(panel, x, 2, SIDE)
        plots.ticks(panel, x.shape[-2:], across, up)
        panel.set(xlabel="z$_1$", ylabel="z$_2$")
        panel.set_title(title, fontsize=11)
    plots.save(figure, path)
    return "\n".join(answers)


STUDY = Study(study, needs=("encode", "decode"), misfit=misfit, together=True)
