"""Train a stranger's model twice from one start, as it is and swapped: the same losses? how much faster? and a picture.

    used by: swap_vqvae.py, swap_made.py, swap_flow.py
"""

import argparse
import copy
import time

import torch

import genmini
from genmini import data, plots


def arguments(about, **sizes):
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="of each training")
    parser.add_argument("--out", default=None, help="the picture: a .png")
    for name, size in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    return parser.parse_args()


def digits(n):
    """Handwritten digits, (n, 64) on [0, 1]"""
    x = data.load("digits", "train").x.flatten(1).float() / 16
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:n]]


def beside(model, loss, x, steps, path):
    """The model is swapped, verified, trained beside an unswapped copy; the picture goes to path."""
    before = copy.deepcopy(model)
    print(genmini.swap(model, inputs=x))
    print(genmini.verify(model, x, loss))
    optimisers = [torch.optim.Adam(one.parameters(), 1e-3) for one in (before, model)]
    losses, seconds = [[], []], [[], []]
    for _ in range(steps):
        for i, (one, optimiser) in enumerate(zip((before, model), optimisers, strict=True)):  # in turn
            start = time.perf_counter()
            optimiser.zero_grad()
            value = loss(one, x)
            value.backward()
            optimiser.step()
            seconds[i].append(time.perf_counter() - start)
            losses[i].append(value.item())
    apart = max(abs(a - b) for a, b in zip(*losses, strict=True)) / max(map(abs, losses[0]))  # one of a flow may be 0
    medians = [torch.tensor(each).median().item() for each in seconds]
    print(f"{steps} steps: losses differ by {apart:.1e} of the largest at most; {1000 * medians[0]:.1f} ms a step "
          f"before, {1000 * medians[1]:.1f} ms after: {medians[0] / medians[1]:.2f} times as fast")
    assert all(torch.equal(a, b) for a, b in zip(genmini.unswap(model).state_dict().values(),
                                                 model.state_dict().values(), strict=True))
    if path:
        draw(path, losses, seconds)


def draw(path, losses, seconds):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for values, name, style in zip(losses, ("before", "swapped"), (dict(lw=4, alpha=0.4), dict(lw=1)), strict=True):
        left.plot(values, label=name, **style)
    left.set(xlabel="step", ylabel="loss", title="the same training")
    left.legend()
    right.boxplot([[1000 * s for s in each] for each in seconds], showfliers=False)
    right.set_xticks([1, 2], ["before", "swapped"])
    right.set(ylabel="milliseconds", title="a step", ylim=(0, None))
    plots.save(figure, path)
