"""What does each place of the latent plane mean? A grid of it, decoded.

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


def study(run, path):
    train = run.split("train")
    quantiles = (torch.arange(SIDE) + 0.5) / SIDE
    z = run.encode(train.x[:5000], train.y[:5000]).float()
    if run.model.has_normal_prior:
        across = down = torch.special.ndtri(quantiles)
    else:
        across, down = (torch.quantile(z[:, i], quantiles) for i in (0, 1))
    # row by row, z_2 upwards
    cells = torch.stack(torch.meshgrid(across, down.flip(0), indexing="xy"), -1).flatten(0, 1)
    panels = {}
    for k in range(min(4, run.model.classes)) if run.conditional else (0,):
        named = f"the latent plane of {run.model.title}" + f", class {k}" * run.conditional
        panels[named] = run.decode(cells, torch.full((len(cells),), k))
    plots.side_by_side(path, panels, train.levels, columns=SIDE)
    inside = ((z > torch.stack([across[0], down[0]]))
              & (z < torch.stack([across[-1], down[-1]]))).all(1).double().mean()
    return (f"z_1 from {across[0]:.2f} to {across[-1]:.2f}, z_2 from {down[0]:.2f} to {down[-1]:.2f}: "
            f"{inside:.1%} of the train codes lie there")


STUDY = Study(study, needs=("encode", "decode"), misfit=misfit)
