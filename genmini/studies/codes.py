"""Which codes does a VQ-VAE use, where, and what do they stand for?   -> a picture of three parts

Bars: how often each code is chosen, the most frequent first. Below them the same for each place of the grid: a row is a
place, a column a code. Images: what a code decodes to if it stands at every place (with classes, the mean over them),
and the mean of the patches that it decodes to among its neighbours in real images. With swap=True, another picture:
_swap.py.
"""

import math

import torch

from genmini import plots
from genmini.studies import _swap
from genmini.studies._study import Study


def study(run, path, swap=False):
    return _swap.study(run, path) if swap else picture(path, run.model.cpu(), run.split("train"))


@torch.no_grad()
def count(model, x, y=None):
    """Return how often images choose each code at each place, (h, w, K), and the mean patch of each code, (K, C, a, b).

    The images are x (N, *shape), of the classes y if the model has classes; the patches are those of their
    reconstructions.
    """
    (h, w), (C, H, W) = model.grid, (1, *model.shape)[-3:]
    counts = torch.zeros(h * w, model.K, dtype=torch.int64)
    patches = torch.zeros(model.K, C, H // h, W // w, dtype=torch.float64)
    for n in torch.arange(len(x)).split(1000):
        classes = (y[n],) if y is not None else ()
        k = model.codes(x[n], *classes)
        counts += torch.stack([torch.bincount(at, minlength=model.K) for at in k.flatten(1).T])
        # (N, h, w, C, a, b)
        image = model.decode_codes(k, *classes).view(-1, C, h, H // h, w, W // w).permute(0, 2, 4, 1, 3, 5)
        patches.index_add_(0, k.flatten(), image.flatten(0, 2).double())
    return counts.view(h, w, model.K), patches / counts.sum(0).clamp(min=1).view(-1, 1, 1, 1)


@torch.no_grad()
def picture(path, model, data):
    counts, patches = count(model, data.x, data.y if model.classes else None)
    total = counts.sum((0, 1))
    order, p = total.argsort(descending=True, stable=True), total / total.sum()
    perplexity, used = torch.special.entr(p).sum().exp().item(), (total > 0).sum().item()
    alone = order.view(-1, 1, 1).expand(-1, *model.grid)
    alone = sum(model.decode_codes(alone, *given)
                for given in ([(c,) for c in range(model.classes)] or [()])) / max(1, model.classes)

    figure, ((bars, images), (places, small)) = plots.new_figure(2, 2, 6.0, 4.2)
    bars.bar(range(model.K), p[order].tolist(), width=1.0, color="tab:blue")
    bars.axhline(1 / model.K, color="0.5", linewidth=0.8, linestyle="--")
    bars.set(xlim=(-0.5, model.K - 0.5), ylabel="share of all choices")
    answer = f"{used} of {model.K} codes are used, perplexity {perplexity:.1f} ({len(data)} images, {data.split})"
    bars.set_title(answer, fontsize=11)
    share = counts.flatten(0, 1)[:, order] / len(data)
    shown = places.imshow(share.numpy(), aspect="auto", cmap="Blues", interpolation="nearest", vmin=0)
    names = [f"{i}, {j}" for i in range(model.grid[0]) for j in range(model.grid[1])]
    step = math.ceil(len(names) / 16)
    places.set(xlabel="code, the most frequent first", yticks=range(0, len(names), step), yticklabels=names[::step],
               ylabel="place (row, column)")
    places.set_title("the same at each place of the grid", fontsize=11)
    figure.colorbar(shown, ax=places, label="share of images", location="bottom", shrink=0.6)
    columns = math.ceil(math.sqrt(1.6 * model.K))
    blank = torch.where(total[order] > 0, 0, math.nan).view(-1, 1, 1, 1)  # of a code that is never chosen
    patches = (patches[order] + blank).squeeze(1)  # without the dimension of colours if the patches are grey
    for panel, x, title in ((images, alone, "a code at every place, decoded"),
                            (small, patches, "mean patch where it is chosen (empty: never)")):
        plots.show(panel, x, model.levels, columns)
        panel.set_title(title, fontsize=11)
    plots.save(figure, path)
    return answer


STUDY = Study(study, needs=("codes", "decode_codes"), options=("swap",))  # and, of the model, its `K` and `grid`
