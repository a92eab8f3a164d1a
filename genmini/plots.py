"""Pictures, without a window: matplotlib's Agg."""

import importlib.util
import io
import math

import numpy as np
import torch

from genmini.files import write

WIDEST, DPI = 14.4, 110  # inches, and dots of each
SCREEN = 1600  # pixels: what a screen shows beside each other


def missing():
    """Why nothing can be drawn here, or an empty string."""
    if importlib.util.find_spec("matplotlib"):
        return ""
    return "pictures need matplotlib, which is not installed: pip install matplotlib"


def ink():
    """The colours of images: dark on white, and light grey where there is no pixel."""
    _check_matplotlib()
    from matplotlib import colormaps

    return colormaps["gray_r"].with_extremes(bad="0.9")


def colours(n):
    """A map of n colours that differ."""
    _check_matplotlib()
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["turbo"](torch.linspace(0, 1, n).numpy()))


def by_class(y, classes):
    """What `scatter` takes to colour points by classes y: ten that are told apart at a glance, or as many as are."""
    n = max(10, classes or int(y.max()) + 1)
    return dict(c=y, cmap="tab10" if n == 10 else colours(n), vmin=-0.5, vmax=n - 0.5)


def name_classes(panel, points, y):
    """Write the number of each class in the middle of its points (N, 2)."""
    for k in y.unique().tolist():
        panel.text(*points[y == k].median(0).values.tolist(), str(k), weight="bold", ha="center", va="center")


def grid(x, columns=8):
    """Images (N, H, W) in rows of `columns`, with a line of NaN between them -> (rows (H+1) - 1, columns (W+1) - 1)

    Images (N, 3, H, W) keep their colours, as 3 numbers last; of another number of channels the mean is shown.
    """
    x = x.float()
    if x.dim() == 4:
        x = x.movedim(1, -1) if x.shape[1] == 3 else x.mean(1)
    N, H, W, *C = x.shape
    rows = -(-N // columns)
    cells = torch.full((rows * columns, H + 1, W + 1, *C), float("nan"))
    cells[:N, :H, :W] = x
    return cells.unflatten(0, (rows, columns)).transpose(1, 2).reshape(rows * (H + 1), columns * (W + 1), *C)[:-1, :-1]


def show(panel, x, levels, columns=8, interpolation="nearest"):
    """Images of levels on a panel of matplotlib, as a grid: grey levels as dark ink on white, colours as they are."""
    cells = grid(x, columns)
    if cells.dim() == 3:
        cells = (cells / (levels - 1)).clamp(0, 1).nan_to_num(0.9)
        panel.imshow(cells.numpy(), interpolation=interpolation)
    else:
        panel.imshow(cells.numpy(), cmap=ink(), vmin=0, vmax=levels - 1, interpolation=interpolation)
    panel.set(xticks=[], yticks=[])


def ticks(panel, sides, across, up):
    """Write the numbers at the middle of cells of images (H, W) beside a grid of them: each third column, from the
    left, and each third row, from below."""
    H, W = sides
    rows, columns = range(0, len(up), 3), range(0, len(across), 3)
    panel.set_xticks([i * (W + 1) + W / 2 - 0.5 for i in columns], [f"{across[i]:.2g}" for i in columns])
    panel.set_yticks([(len(up) - 1 - i) * (H + 1) + H / 2 - 0.5 for i in rows], [f"{up[i]:.2g}" for i in rows])


def places(n):
    """How many of n panels stand side by side, and how many below each other"""
    down = 1 if n <= 4 else 2
    return -(-n // down), down


def side_by_side(path, panels, levels, columns=8, title=None):
    """Write panels of images, {"data": (N, [3,] H, W), "samples": ...}: up to four side by side; of more each second
    one below the one before it. columns: of a panel, how many, or their names."""
    names, columns = ((), columns) if isinstance(columns, int) else (columns, len(columns))
    high, wide = (max(sizes) for sizes in zip(*(grid(x, columns).shape[:2] for x in panels.values()), strict=True))
    across, down = places(len(panels))
    least = min(4.2, WIDEST / across)
    # inches a pixel: a dot of the picture at least, if the screen has as many
    scale = min(WIDEST / across / wide, 60 / high, max(least / max(wide, high), 1 / 100))
    figure, cells = new_figure(down, across, max(least, scale * wide), scale * high + (0.5 if names else 0.35))
    cells = cells.T.flatten()
    for panel, (name, x) in zip(cells, panels.items(), strict=False):
        show(panel, x, levels, columns, "nearest" if scale >= 1 / DPI else "antialiased")
        if names:
            side = x.shape[-1] + 1
            panel.set_xticks([side * (i + 0.5) - 1 for i in range(columns)], names)
            panel.tick_params(length=0, labelsize=9)
        panel.set_title(name, fontsize=12)
        panel.spines[:].set_color("0.8")
    for unused in cells[len(panels):]:
        unused.set_visible(False)
    if title:
        figure.suptitle(title, fontsize=11)
    save(figure, path)


def rows(path, title, images, labels, levels):
    """Write rows of images (R, STEPS, [3,] H, W) with a label each."""
    R, H = len(images), images.shape[-2]
    figure, ((panel,),) = new_figure(1, 1, 7.5, 0.65 * R + 0.5)
    show(panel, images.flatten(0, 1), levels, images.shape[1])
    panel.set(yticks=[r * (H + 1) + H / 2 - 0.5 for r in range(R)], yticklabels=labels)
    panel.set_title(title, fontsize=12)
    panel.spines[:].set_color("0.8")
    save(figure, path)


def samples(path, title, x, levels=None):
    """What a model drew: images of levels (N, [3,] H, W), points of the plane (N, 2), or series (N, T)."""
    if levels:
        return side_by_side(path, {title: x}, levels, columns=max(1, round(len(x) ** 0.5)))
    figure, ((panel,),) = new_figure(1, 1, 5.0, 5.0)
    if x.shape[1:] == (2,):
        panel.scatter(*x.T, color="0.25", s=max(2, min(20, 4000 / max(1, len(x)))), linewidths=0)
        panel.set_aspect("equal", adjustable="datalim")
    else:
        panel.plot(x.T, linewidth=0.8)
    panel.set_title(title, fontsize=12)
    save(figure, path)


def pixels(x, levels, columns, wide):
    """Images of levels (N, [3,] H, W) as a grid in PIL's image, each pixel as large as fits into about so many dots"""
    from PIL import Image

    v = grid(x, columns) / (levels - 1)
    v = v.clamp(0, 1) if v.dim() == 3 else 1 - v.clamp(0, 1)  # grey levels as dark ink on white
    dots = (255 * v.nan_to_num(0.9)).round().to(torch.uint8)
    scale = max(1, wide // max(dots.shape[:2]))
    return Image.fromarray(dots.repeat_interleave(scale, 0).repeat_interleave(scale, 1).numpy())


def frame(panels, levels, columns=8):
    """The panels of `side_by_side`, in the same places, as a small PNG that takes milliseconds -> bytes"""
    from PIL import Image, ImageDraw

    columns = columns if isinstance(columns, int) else len(columns)
    drawn = [pixels(x, levels, columns, 300) for x in panels.values()]
    across, down = places(len(drawn))
    W, H = (max(sizes) + more for sizes, more in zip(zip(*(each.size for each in drawn), strict=True), (8, 26),
                                                     strict=True))
    colours = "RGB" if any(each.mode == "RGB" for each in drawn) else "L"
    whole = Image.new(colours, (W * across, H * down), "white")
    for i, (title, each) in enumerate(zip(panels, drawn, strict=True)):
        left, top = i // down * W, i % down * H
        ImageDraw.Draw(whole).text((left + 2, top + 3), title, fill="black", font_size=14)
        whole.paste(each, (left, top + 22))
    content = io.BytesIO()
    whole.save(content, format="PNG")
    return content.getvalue()


def film(path, frames, levels, milliseconds=120):
    """Write a list of images of levels (N, [3,] H, W) as a GIF: each a grid, and the last one for two seconds."""
    first, *rest = [pixels(x, levels, max(1, round(len(x) ** 0.5)), 480) for x in frames]
    content, durations = io.BytesIO(), [milliseconds] * len(rest) + [2000]
    first.save(content, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0)
    write(path, content.getvalue())


def plane(path, model, data, truth, n=4000):
    """Write a density on the plane beside the truth: densities, and points. Of a flow also the points that h carries
    to noise, and a round grid that its inverse carries back.

    data: points x (N, 2) with their classes y; truth: log p(x), a function.
    """
    x, y, flows = data.x[:n].float(), data.y[:n], not model.cannot("inverse")
    reach = x.abs().max().item() + 0.3
    side = torch.linspace(-reach, reach, 300)
    points = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1).flatten(0, 1)
    circle, ray = torch.linspace(0, 2 * math.pi, 721), torch.linspace(0, 3, 300)
    polar = lambda r, angle: torch.stack([r * angle.cos(), r * angle.sin()], -1)
    lines = [polar(r, circle) for r in (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)] + [polar(ray, angle) for angle in circle[:-1:30]]
    here = lambda x: x.to(model.device, model.dtype)
    of_class = lambda k: k.to(model.device) if model.classes else None
    with torch.no_grad():
        p = [truth(points).exp(), torch.cat([model.log_prob(part) for part in here(points).split(10000)]).exp().cpu()]
        samples = model.sample(len(x)).cpu()
        if flows:
            z = model(here(x), of_class(y))[0].cpu()
            first = lambda line: of_class(torch.zeros(len(line), dtype=torch.long))
            bent = [model.inverse(here(line), first(line))[0].cpu() for line in lines]

    figure, panels = new_figure(2, 3 if flows else 2, 4.0, 4.2)
    brightest = torch.quantile(p[0], 0.999).item()
    for panel, density in zip(panels[0, :2], p, strict=True):
        panel.imshow(density.view(300, 300), origin="lower", extent=[-reach, reach] * 2, cmap="Blues",
                     vmin=0, vmax=brightest)
    by_class = dict(c=y, cmap="tab10", vmin=0, vmax=9)
    panels[1, 0].scatter(*x.T, s=2, linewidths=0, **by_class)
    panels[1, 1].scatter(*samples.T, s=2, linewidths=0, color="0.25")
    titles = [["true density", f"density of {model.title}", "data carried to noise, z = h(x)"],
              [f"data ({data.split})", f"samples of {model.title}", "a round grid of z, carried back"]]
    if flows:
        panels[0, 2].scatter(*z.T, s=2, linewidths=0, **by_class)
        for r in (1, 2, 3):
            panels[0, 2].plot(*polar(r, circle).T, color="0.4", linewidth=0.7)
        for line in bent:
            panels[1, 2].plot(*line.T, color="tab:blue", linewidth=0.6)
    for (i, j), panel in np.ndenumerate(panels):
        edge = 3.8 if (i, j) == (0, 2) else reach
        panel.set(title=titles[i][j], xlim=(-edge, edge), ylim=(-edge, edge), xticks=[], yticks=[], aspect="equal")
        panel.spines[:].set_color("0.8")
    save(figure, path)


def points(path, model, data, n=4000):
    """Write points of the plane beside samples, and what the discriminator takes for data, if the model has one.

    data: points x (N, 2) with their classes y. Of a model with classes, each player is given those of the data.
    """
    x, y, reach = data.x[:n].float(), data.y[:n], data.x[:n].abs().max().item() + 0.3
    classes = dict(y=y.to(model.device)) if model.classes else {}
    side = torch.linspace(-reach, reach, 300)
    places = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1).flatten(0, 1).to(model.device, model.dtype)
    with torch.no_grad():
        samples = model.sample(len(x), **classes).cpu()
        every = range(model.classes) if model.classes else [None]
        d = None if model.cannot("d") else torch.stack([model.d(places, y=k) for k in every]).amax(0).cpu()
    figure, panels = new_figure(1, 2 if d is None else 3, 4.0, 4.2)
    for panel, drawn in zip(panels[0, :2], (x, samples), strict=True):
        painted = dict(c=y, cmap="tab10", vmin=0, vmax=9) if model.classes else dict(color="0.25")
        panel.scatter(*drawn.T, s=2, linewidths=0, **painted)
    if d is not None:
        shown = panels[0, 2].imshow(d.view(300, 300), origin="lower", extent=[-reach, reach] * 2, cmap="RdBu", vmin=0,
                                    vmax=1)
        figure.colorbar(shown, ax=panels[0, 2], shrink=0.7)
    titles = [f"data ({data.split})", f"samples of {model.title}", "d, by its likeliest class" if model.classes
              else "d: 1/2 where it cannot tell"]
    for panel, title in zip(panels[0], titles, strict=False):
        panel.set(title=title, xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[], aspect="equal")
        panel.spines[:].set_color("0.8")
    save(figure, path)


def series(path, model, before, after, first):
    """Write a series beside its forecast, a sample, and autocorrelations; of the model, those that it can tell.

    before (T,), after (H,): the series, known and to be forecast; first: the time of before[0].
    """
    H, kept = len(after), 3 * len(after)
    time, ahead = first + torch.arange(len(before)), first + len(before) + torch.arange(H)
    lags = min(40, len(before) - 1)
    with torch.no_grad():
        sample = model.sample(1, **({} if model.cannot("T") else dict(T=kept)))[0].cpu()
        seen, levels = before[None].to(model.device), () if model.cannot("forecast") else (0.95, 0.5)
        intervals = {level: [part[0].cpu() for part in model.forecast(seen, H, level)] for level in levels}
        gamma = None if model.cannot("autocovariance") else model.autocovariance(lags).cpu()
    centred = before - before.mean()
    rho = torch.stack([(centred[k:] * centred[: len(before) - k]).sum() for k in range(lags + 1)])
    rho = rho / centred.square().sum()

    figure, panels = new_figure(3, 1, 10.0, 2.5)
    top, middle, bottom = panels[:, 0]
    for (level, (_, low, high)), alpha in zip(intervals.items(), (0.15, 0.3), strict=False):
        top.fill_between(ahead, low, high, color="tab:blue", alpha=alpha, linewidth=0, label=f"{level:.0%} interval")
    if intervals:
        top.plot(ahead, intervals[0.5][0], color="tab:blue", label="forecast")
    top.plot(time[-kept:], before[-kept:], color="0.5", label="seen")
    top.plot(ahead, after, ".-", color="0.1", markersize=4, linewidth=0.8, label="what came")
    top.legend(ncols=5, fontsize=8, loc="upper left", frameon=False)
    forecast = f", and the forecast of {model.title} from {ahead[0]} on" if intervals else ""
    top.set_title(f"data{forecast}")
    middle.plot(sample, color="tab:blue")
    middle.set_title(f"a sample of {model.title}")
    bottom.bar(range(lags + 1), rho.tolist(), color="0.75", label="data")
    if gamma is not None:
        bottom.plot(gamma / gamma[0], ".-", color="tab:blue", label=model.title)
    bottom.legend(fontsize=8, loc="upper right", frameon=False)
    bottom.set_title("autocorrelation by lag")
    save(figure, path)


def _check_matplotlib():
    if missing():
        raise ImportError(missing())


def new_figure(rows, columns, width, height):
    """A figure and its panels (rows, columns), each of this size in inches."""
    _check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def over_sheets(n, height):
    """A figure of n panels over two wide ones of this height in inches -> the figure, the n panels, the two."""
    figure, _ = new_figure(1, 1, WIDEST, 3.4 + height)
    figure.clear()
    above, below = figure.subfigures(2, 1, height_ratios=[3.4, height])
    panels = above.subplots(1, max(3, n), squeeze=False)[0]
    for unused in panels[n:]:
        unused.set_visible(False)
    return figure, panels[:n], below.subplots(1, 2)


def save(figure, path, option="--out"):
    """Write the figure as PNG, at most SCREEN pixels wide with all its labels; all of the file or nothing."""
    png, dpi = _png(figure, DPI), DPI
    while (width := int.from_bytes(png[16:20])) > SCREEN:
        dpi *= (SCREEN - 1) / width  # text does not shrink exactly as the rest
        png = _png(figure, dpi)
    write(path, png, option)


def _png(figure, dpi):
    content = io.BytesIO()
    figure.savefig(content, dpi=dpi, format="png", bbox_inches="tight", pad_inches=0.1)
    return content.getvalue()
