"""How does a series go on, and how sure is that? The distribution of the numbers ahead, given those before.

    x_T+h | x_1 ... x_T ~ N(m_h, s_h^2)                       m_h and s_h are those of (9) of genmini/models/ar.py  (1)
    x_T+1 ~ (1) with h = 1, then x_T+2 given x_1 ... x_T+1, and so on: a path, a draw of all that comes             (2)
    |x_T+h - m_h| < s_h Phi^-1((1 + q) / 2)                   the interval of the level q covers the number         (3)

Above: the intervals (1), paths (2), and what came. Below: the share of test numbers that (3) covers h ahead, and how
far m_h is from them, beside s_h. Each test number is forecast from all numbers before T, for each h, so that a share is
one of N numbers; for h = 1 a true model's share is within 2 sqrt(q (1 - q) / N) of q 19 times in 20. Errors of several
steps overlap, and their shares vary more.
"""

import math

import torch

from genmini import data, plots
from genmini.studies._run import Misfit
from genmini.studies._study import Study

LEVELS = (0.9, 0.5)
ONE = math.erf(math.sqrt(0.5))  # the level whose interval is one deviation to each side
PATHS, MOST = 5, 1000  # MOST: numbers before T that a forecast of a test number sees
LAST = 5000  # test numbers that are forecast, the last ones of a longer split


def study(run, path, horizon=12, start=None):
    model, splits = run.model, [run.split(split) for split in data.SPLITS]
    x, first = torch.cat([split.x[0] for split in splits]), splits[0].y.item()
    train, N = len(splits[0].x[0]), min(len(splits[2].x[0]), LAST)
    if horizon >= len(x) - N:
        raise Misfit(f"--horizon takes at most {len(x) - N - 1}, the numbers before the test split, got {horizon}")
    T = len(x) - len(splits[2].x[0]) if start is None else start - first
    if not 0 < T <= len(x):
        raise Misfit(f"--start takes the time of a number after the first, {first + 1} to {first + len(x)} for the one "
                     f"after the last, got {start}")
    error, s = errors(model, x, N, horizon)
    covered = {q: (error.abs() < s[:, None] * wide(q)).double().mean(1) for q in LEVELS}  # (3)
    off, alone = error.square().mean(1).sqrt(), (x[-N:] - x[:train].mean()).square().mean().sqrt().item()

    figure, panels = plots.new_figure(3, 1, 10.0, 2.6)
    torch.manual_seed(run.seed)
    fan(panels[0, 0], model, x, T, horizon, first)
    panels[0, 0].set_title(f"{horizon} numbers from {first + T} on, forecast by {model.title}"
                           + ", of those that it learnt from" * (T < train))
    ahead = torch.arange(1, horizon + 1)
    for q, colour in zip(LEVELS, ("tab:blue", "tab:green"), strict=True):
        panels[1, 0].axhspan(q - 2 * math.sqrt(q * (1 - q) / N), q + 2 * math.sqrt(q * (1 - q) / N), color=colour,
                             alpha=0.12, linewidth=0)
        panels[1, 0].axhline(q, color=colour, linewidth=0.8, linestyle="--")
        panels[1, 0].plot(ahead, covered[q], "o-", markersize=4, color=colour, label=f"the {q:.0%} interval")
    panels[1, 0].set(ylim=(0, 1.02), ylabel="share covered", title=f"{N} test numbers, each forecast h numbers ahead")
    panels[2, 0].plot(ahead, off, "o-", markersize=4, color="0.1", label="error of the forecast (root mean square)")
    panels[2, 0].plot(ahead, s, color="tab:blue", label="deviation s$_h$ that the model expects")
    panels[2, 0].axhline(alone, color="0.6", linestyle="--", linewidth=0.8, label="error of the mean of train")
    panels[2, 0].set(ylim=(0, None), xlabel="h, numbers ahead", ylabel="unit of the series")
    for panel in panels[:, 0]:
        panel.xaxis.get_major_locator().set_params(integer=True)
    for panel in panels[1:, 0]:
        panel.legend(fontsize=8, loc="lower right", frameon=False)
    plots.save(figure, path)
    shares = lambda h: " and ".join(f"{q:.0%} interval {covered[q][h].item():.1%}" for q in LEVELS[::-1])
    sizes = lambda h: f"error {off[h].item():.4g}, expected {s[h].item():.4g}"
    last = f"; {horizon} ahead: {shares(-1)}, {sizes(-1)}" * (horizon > 1)
    return (f"share of {N} test numbers covered, 1 ahead: {shares(0)}, {sizes(0)}{last}; "
            f"the mean of train errs by {alone:.4g}")


def wide(q):
    """Phi^-1((1 + q) / 2): half the interval of the level q, in deviations"""
    return torch.special.ndtri(torch.tensor((1 + q) / 2, dtype=torch.float64)).item()


@torch.no_grad()
def paths(model, past, H, n):
    """n draws of the H numbers after past (T,), (n, H)"""
    x = past.expand(n, -1)
    for _ in range(H):
        mean, _, high = model.forecast(x, 1, ONE)
        x = torch.cat([x, mean + (high - mean) * torch.randn_like(mean)], 1)  # (2)
    return x[:, len(past) :]


@torch.no_grad()
def errors(model, x, N, H):
    """x_T+h - m_h of the last N numbers of x (T,), each h numbers ahead, (H, N); s_h, (H,)"""
    before = len(x) - N - H + 1  # numbers that are known when the first of the N is forecast H ahead
    seen = min(before, MOST)
    known = x.unfold(0, seen, 1)[before - seen : -1]  # (N + H - 1, seen): up to the number before T, for each T
    mean, _, high = (part.cpu() for part in model.forecast(known.to(model.device), H, ONE))  # (1)
    error = [x[-N:] - mean[H - h :, h - 1][:N] for h in range(1, H + 1)]
    return torch.stack(error), (high - mean)[0]


@torch.no_grad()
def fan(panel, model, x, T, H, first):
    """What is known, the intervals of what comes, paths, and what came."""
    time, ahead, kept = first + torch.arange(len(x)), first + T + torch.arange(H), max(0, T - 3 * H)
    for q, alpha in zip(LEVELS, (0.15, 0.3), strict=True):
        mean, low, high = (part[0].cpu() for part in model.forecast(x[None, :T].to(model.device), H, q))
        panel.fill_between(ahead, low, high, color="tab:blue", alpha=alpha, linewidth=0, label=f"{q:.0%} interval")
    panel.plot(ahead, mean, color="tab:blue", label="mean")
    drawn = paths(model, x[:T].to(model.device), H, PATHS).cpu()
    panel.plot(ahead, drawn.T, color="tab:orange", linewidth=0.6, label=["a path", *[None] * (len(drawn) - 1)])
    panel.plot(time[kept:T], x[kept:T], color="0.5", label="known")
    if T < len(x):
        panel.plot(time[T : T + H], x[T : T + H], ".-", color="0.1", markersize=4, linewidth=0.8, label="what came")
    low, high = panel.get_ylim()
    panel.set_ylim(low, high + 0.15 * (high - low))  # room for the legend
    panel.legend(ncols=6, fontsize=8, loc="upper left", frameon=False)
    panel.set(xlabel="time", ylabel="unit of the series")


STUDY = Study(study, needs=("forecast",), options=("horizon", "start"))
