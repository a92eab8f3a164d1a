"""Measure how the cost of rooms and of steps of training grows, store it, and draw docs/scaling.png.

    python bench/scaling.py               every axis, and the picture (two minutes)
    python bench/scaling.py N threads     these axes; the stored rows of the others stay, if they are of this machine
    python bench/scaling.py --write       only the picture, from bench/results/scaling.csv

A line of the picture is a room or a step, along one axis: rows N, codes K, numbers of a row D, the side of an image, a
batch, or threads. Its exponent p is that of cost = c axis^p through the three largest values, where what a call costs
besides no longer counts. Memory is the most that PyTorch's allocator held above what it held before. But for the axis
`threads` one thread runs, and on a CPU its own time counts, so that load from elsewhere changes less.
"""

import argparse
import csv
import math
import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # what the profiler would print
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

import measure  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from bench_steps import step  # noqa: E402

from genmini import limits, models, ops, plots  # noqa: E402

STORED, PICTURE = HERE / "results" / "scaling.csv", HERE.parent / "docs" / "scaling.png"
SECONDS = 0.2  # of a value
FITTED = 3  # values


def randn(*shape):
    return torch.randn(*shape, device=measure.DEVICE)


def index(K, *shape):
    return torch.randint(K, shape, device=measure.DEVICE)


def bind(function, *arguments):
    return lambda: function(*arguments)


def nearest_code(N=4096, K=512, D=64):
    return bind(ops.nearest_code, randn(N, D), randn(K, D))


def code_stats(N=16384, K=512, D=64):
    return bind(ops.code_stats, randn(N, D), index(K, N), K)


def gaussian_kl(N=4096, D=64):
    return bind(ops.gaussian_kl, randn(N, D), randn(N, D), randn(N, D))


def affine_coupling(N=4096, D=64):
    return bind(ops.affine_coupling, randn(N, D), randn(N, D), randn(N, D))


def softmax_nll(N=4096, L=17):
    return bind(ops.softmax_nll, randn(N, L, 1), index(L, N, 1))


def info_nce(N=1024, D=64):
    return bind(ops.info_nce, randn(N, D), randn(N, D), torch.ones((), device=measure.DEVICE))


def masked_linear(N=256, D=512):
    degree = torch.arange(D, device=measure.DEVICE)
    return bind(ops.masked_linear, randn(N, D), randn(D, D), randn(D), degree, degree)


def masked_conv2d(side, N=16, C=32):
    return bind(ops.masked_conv2d, randn(N, C, side, side), randn(C, C, 5, 5), randn(C), "B")


def group_norm_silu(side, N=16, C=32):
    return bind(ops.group_norm_silu, randn(N, C, side, side), C // 8, randn(C), randn(C))


def training(name, batch=32, side=8, **settings):
    """A step of the model's first recipe for digits."""
    recipe = next(recipe for recipe in models.recipes(name).values() if recipe["data"].startswith("digits"))
    levels = 17 if recipe["data"] == "digits" else 2
    torch.manual_seed(0)
    model = models.find(name)((side, side), levels=levels, **recipe["model"] | settings).to(measure.DEVICE)
    return step(model, index(levels, batch, side, side))


def drawing(name, N=16, side=8):
    """Samples of the model of the same recipe."""
    recipe = next(iter(models.recipes(name).values()))
    model = models.find(name)((side, side), levels=2, **recipe["model"]).to(measure.DEVICE)
    return lambda: model.sample(N)


CORES = [2**i for i in range(int(math.log2(os.cpu_count() or 1)) + 1)]
AXES = {  # {axis: (its values, {name: what makes a call of a value})}
    "N": ([256, 1024, 4096, 16384, 65536], {
        "nearest_code": nearest_code, "code_stats": code_stats, "gaussian_kl": gaussian_kl,
        "affine_coupling": affine_coupling, "softmax_nll": softmax_nll}),
    "K": ([64, 256, 1024, 4096, 16384], {
        "nearest_code": lambda K: nearest_code(1024, K), "code_stats": lambda K: code_stats(4096, K)}),
    "D": ([16, 64, 256, 1024, 4096], {
        "nearest_code": lambda D: nearest_code(512, 512, D), "masked_linear": lambda D: masked_linear(D=D),
        "gaussian_kl": lambda D: gaussian_kl(1024, D), "affine_coupling": lambda D: affine_coupling(1024, D)}),
    "side": ([8, 12, 16, 24, 32], {
        "masked_conv2d": masked_conv2d, "group_norm_silu": group_norm_silu,
        "a step of made": lambda side: training("made", side=side),
        "a step of pixelcnn": lambda side: training("pixelcnn", 8, side),
        "a step of vae": lambda side: training("vae", side=side),
        "16 samples of pixelcnn": lambda side: drawing("pixelcnn", side=side)}),
    "batch": ([4, 16, 64, 256, 1024], {
        f"a step of {name}": lambda batch, name=name: training(name, batch)
        for name in ("made", "pixelcnn", "vae", "vqvae", "realnvp", "diffusion")} | {"info_nce": info_nce}),
    "threads": (CORES, {
        "nearest_code": lambda _: nearest_code(16384, 1024), "affine_coupling": lambda _: affine_coupling(16384, 256),
        "masked_linear": lambda _: masked_linear(1024, 1024), "a step of pixelcnn": lambda _: training("pixelcnn", 64),
        "a step of vae": lambda _: training("vae", 256)}),
}


def rows(axis):
    """A row of each value of each line of this axis. They run one after the other: in turn, the large ones would take
    the cache from the small ones."""
    values, lines = AXES[axis]
    clock = time.perf_counter if axis == "threads" else time.thread_time
    for name, make in lines.items():
        for value in values:
            torch.set_num_threads(value if axis == "threads" else 1)
            call = make(value)
            median, low, high = limits.times({"": call}, SECONDS, 5, measure.DEVICE, clock)[""]
            yield dict(axis=axis, name=name, value=value, ms=f"{median:.4g}", ms_20=f"{low:.4g}", ms_80=f"{high:.4g}",
                       bytes="" if axis == "threads" else measure.peak(call),
                       device=measure.machine()["device"], torch=torch.__version__, commit=measure.commit())


def exponent(values, costs):
    """p of cost = c value^p, by least squares of logarithms, through the last of them."""
    x, y = (np.log(np.asarray(each, float)[-FITTED:]) for each in (values, costs))
    return np.polyfit(x, y, 1)[0]


def store(fresh):
    """Put these rows in the place of the stored ones of their axes, and of those of another machine."""
    old = list(csv.DictReader(STORED.open())) if STORED.exists() else []
    old = [row for row in old if row["device"] == fresh[0]["device"]]
    of_axis = {axis: [row for row in old if row["axis"] == axis] for axis in AXES}
    of_axis |= {axis: found for axis in AXES if (found := [row for row in fresh if row["axis"] == axis])}
    with STORED.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(fresh[0]))
        writer.writeheader()
        writer.writerows(row for found in of_axis.values() for row in found)


def draw(stored):
    """A panel of time for each axis, and below one of memory but for threads."""
    figure, panels = plots.new_figure(4, 3, 4.7, 4.0)
    for i, (axis, (values, lines)) in enumerate(AXES.items()):
        for down, what, unit in ((0, "ms", "ms"), (2, "bytes", "MB")):
            panel, drawn = panels[down + i // 3, i % 3], False
            for colour, name in enumerate(lines):
                found = [row for row in stored if row["axis"] == axis and row["name"] == name and row[what]]
                at = [int(row["value"]) for row in found]
                cost = [float(row[what]) / (1e6 if what == "bytes" else 1) for row in found]
                if len(at) < 2 or min(cost) <= 0:
                    continue
                label, drawn = f"{name}  ^{exponent(at, cost):.2f}", True
                panel.plot(at, cost, "o-", color=f"C{colour}", label=label, markersize=3.5, linewidth=1.2)
            panel.set_visible(drawn)
            panel.set(xscale="log", yscale="log", xlabel=axis, ylabel=unit)
            panel.set_xticks(values, map(str, values))
            panel.minorticks_off()
            panel.set_title(f"{'time' if what == 'ms' else 'memory'} by {axis}", fontsize=11)
            panel.grid(color="0.9")
            if drawn:
                low, high = panel.get_ylim()
                panel.set_ylim(top=high * (high / low) ** (0.07 * len(lines)))  # room for the legend
                panel.legend(fontsize=7.5, loc="upper left")
    figure.suptitle(f"{stored[0]['device']}: costs, with the exponent of each through its {FITTED} largest values")
    plots.save(figure, PICTURE)


def main():
    parser = argparse.ArgumentParser(description="Measure and draw how costs grow.")
    parser.add_argument("axes", nargs="*", metavar="AXIS", help=f"which (default: all): {', '.join(AXES)}")
    parser.add_argument("--write", action="store_true", help="only draw the stored rows")
    options = parser.parse_args()
    if unknown := set(options.axes) - set(AXES):
        parser.error(f"no axis {', '.join(sorted(unknown))}; there are {', '.join(AXES)}")
    for axis in [] if options.write else options.axes or AXES:
        found = []
        for row in rows(axis):
            found.append(row)
            print("  ".join(f"{row[key]:<{width}}" for key, width in
                            dict(axis=8, name=24, value=7, ms=10, bytes=10).items()), flush=True)
        store(found)
    draw(list(csv.DictReader(STORED.open())))


if __name__ == "__main__":
    main()
