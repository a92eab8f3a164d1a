"""Pictures, without a window: matplotlib's Agg."""

import os
from pathlib import Path

import torch


def grid(x, columns=8):
    """Images (N, H, W) as one: rows of `columns`, between them a line of one pixel, NaN.   -> (rows (H+1) - 1, columns (W+1) - 1)"""
    N, H, W = x.shape
    rows = -(-N // columns)
    cells = torch.full((rows * columns, H + 1, W + 1), float("nan"))
    cells[:N, :H, :W] = x.float()
    return cells.unflatten(0, (rows, columns)).transpose(1, 2).reshape(rows * (H + 1), columns * (W + 1))[:-1, :-1]


def side_by_side(path, panels, levels, columns=8, title=None):
    """One panel of images beside another, {"data": (N, H, W), "samples": ...}, ink dark on white; written whole or not at all."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(panels), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    ink = colormaps["gray_r"].with_extremes(bad="0.9")
    for axes, (name, x) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        axes.imshow(grid(x, columns).numpy(), cmap=ink, vmin=0, vmax=levels - 1, interpolation="nearest")
        axes.set_title(name, fontsize=12)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color("0.8")
    if title:
        figure.suptitle(title, fontsize=11)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        figure.savefig(beside, dpi=110, format="png", bbox_inches="tight", pad_inches=0.1)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
