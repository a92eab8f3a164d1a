"""Which spatial frequencies do samples have, beside those of real images? A network that enlarges images by transposed
convolutions can leave a checkerboard.

    P(k, l) = mean over images of |DFT of (v - mean of v)|^2 / (H W)^2;   the sum of all P is the variance      (1)
    checkerboard = P(H/2, 0) + P(0, W/2) + P(H/2, W/2), as a share of the sum                                (2)

v = x / (L-1) of one channel; sides are cut to even ones. (2) is what changes sign from a pixel to the next, along one
side or both. White noise has 3 / (H W - 1) of its power there.
"""

import torch

from genmini import plots
from genmini.metrics.score import draw, draws_no_images
from genmini.studies._run import Misfit
from genmini.studies._study import Study

N = 1000  # samples, and real images at most


def misfit(model):
    return draws_no_images(model) and f"spectrum is for models that draw images: {draws_no_images(model)}"


def power(x, levels):
    """Images (N, [C,] H, W) of levels -> P of (1), (H, W) float64, the mean over channels; no frequency is at [0, 0]"""
    v = x.double() / (levels - 1)
    H, W = (side // 2 * 2 for side in v.shape[-2:])
    if not H or not W:
        raise ValueError(f"a spectrum takes images of at least 2x2 pixels, got {tuple(v.shape[-2:])}")
    v = v[..., :H, :W]
    v = v - v.mean((-2, -1), keepdim=True)
    return (torch.fft.fft2(v).abs().square() / (H * W) ** 2).flatten(0, -3).mean(0)  # (1)


def checkerboard(P):
    """The share (2) of P (H, W); 0 of constant images, which have no power"""
    H, W = (side // 2 for side in P.shape)
    return ((P[H, 0] + P[0, W] + P[H, W]) / P.sum().clamp(min=1e-300)).item()  # (2)


def radial(P):
    """P (H, W) -> frequencies in cycles a pixel, and the mean power at about each, up to 1/2"""
    k, l = (torch.fft.fftfreq(side, dtype=torch.float64) for side in P.shape)
    at = ((k[:, None].square() + l.square()).sqrt() * min(P.shape)).round().long()
    count = at.flatten().bincount()
    mean = torch.zeros(len(count), dtype=P.dtype).index_add_(0, at.flatten(), P.flatten()) / count
    kept = torch.arange(1, min(P.shape) // 2 + 1)
    return kept / min(P.shape), mean[kept]


def study(runs, path):
    test = runs[0].split("test")
    for run in runs[1:]:
        if run.split("test").name != test.name or run.model.shape != runs[0].model.shape:
            raise Misfit(f"{run.folder} and {runs[0].folder} have other images: choose runs of the same data")
    P = {f"images ({test.split})": power(test.x[:N], test.levels)}
    for run in runs:
        x, _ = draw(run.model, N, run.seed, run.model.classes)
        P["samples" if len(runs) == 1 else str(run.folder)] = power(x, test.levels)
    figure, panels = plots.new_figure(1, len(P) + 1, *[min(4.0, plots.WIDEST / (len(P) + 1))] * 2)
    shades = [torch.fft.fftshift(power).clamp(min=1e-12).log10() for power in P.values()]
    seen = torch.cat([shade[shade > -12] for shade in shades])  # nothing, if all images are constant
    least, most = seen.aminmax() if len(seen) else (-12, 0)
    for panel, (name, shade) in zip(panels[0], zip(P, shades, strict=True), strict=False):
        ends = [end - 0.5 / side for side in reversed(shade.shape) for end in (-0.5, 0.5)]  # of the cells
        panel.imshow(shade.numpy(), cmap="viridis", vmin=least, vmax=most, extent=ends, origin="lower", aspect="auto")
        panel.set(xlabel="cycles a pixel", ylabel="cycles a pixel")
        panel.set_title(f"log$_{{10}}$ power: {name}", fontsize=11)
    for name, each in P.items():
        panels[0, -1].semilogy(*radial(each), "o-", label=name)
    panels[0, -1].set(xlabel="cycles a pixel", ylabel="power")
    panels[0, -1].set_title("mean power by the frequency's length", fontsize=11)
    panels[0, -1].legend(fontsize=9, frameon=False)
    plots.save(figure, path)
    shares = ", ".join(f"{checkerboard(each):.3%} of {name}" for name, each in P.items())
    noise = 3 / (P[f"images ({test.split})"].numel() - 1)
    return f"the share of the power that is a checkerboard: {shares}; of white noise {noise:.3%}"


STUDY = Study(study, needs=("sample",), misfit=misfit, together=True)
