"""What is the divergence of Kullback and Leibler, and what is it not? The facts of the course, drawn, without a run.

The course, "Fonction de divergence de Kullback-Leibler": always positive, not symmetric, and no distance.

    KL(p || q) = int p(x) log(p(x) / q(x)) dx                                               (1)
    KL(N(m, s^2) || N(0, 1)) = (m^2 + s^2 - 1 - log s^2) / 2                                (2)

Not negative: p log(p / q) is negative where p < q, but its integral is not; it is 0 if q = p alone. Not symmetric: the
normal density q that is nearest to a p of two hills covers both if KL(p || q) is the least, and takes one of them if
KL(q || p) is. Not a distance: from a to c it can be farther than from a to b and on from b to c; and the same step
between two means is far for narrow densities, near for wide ones. All numbers are integrals over the line, in nats.
"""

import math

import torch

from genmini import plots
from genmini.studies._study import Study

LINE = torch.linspace(-15, 15, 6001, dtype=torch.float64)  # where all densities here are below 1e-8 at both ends
HILLS = (-2.0, 2.0), 0.7  # the centres of p, and the deviation of each hill
STARTS = (0.0, 0.0), (1.5, -0.5)  # m and log s, where searches for the nearest q begin: the better end is taken


def log_normal(m, s):
    """log N(m, s^2) on LINE"""
    return -((LINE - m) / s).square() / 2 - (s.log() if isinstance(s, torch.Tensor) else math.log(s)) - math.log(
        2 * math.pi) / 2


def log_hills(centres, s):
    """The log of the mean of normal densities on LINE"""
    return torch.stack([log_normal(m, s) for m in centres]).logsumexp(0) - math.log(len(centres))


def divergence(log_p, log_q):
    """KL(p || q) of two densities on LINE"""
    return torch.trapezoid(log_p.exp() * (log_p - log_q), LINE)  # (1)


def of_normal(m, s):
    """KL(N(m, s^2) || N(0, 1))"""
    return (m**2 + s**2 - 1 - (s**2).log()) / 2  # (2)


def nearest(loss):
    """The m and s of the normal q for which loss(log q) is least, by descents from STARTS"""
    ends = []
    for start in STARTS:
        a = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS([a], max_iter=200, line_search_fn="strong_wolfe")

        def value():
            optimiser.zero_grad()  # noqa: B023
            least = loss(log_normal(a[0], a[1].exp()))  # noqa: B023
            least.backward()
            return least

        optimiser.step(value)
        ends.append((value().item(), a[0].item(), a[1].exp().item()))
    return min(ends)[1:]


def study(path):
    figure, ((areas, bowl, steps), (covers, takes, widths)) = plots.new_figure(2, 3, 4.5, 3.6)
    answers = [not_negative(areas), zero_at_equality(bowl), not_a_distance(steps), not_symmetric(covers, takes),
               not_the_means(widths)]
    plots.save(figure, path)
    return "\n".join(filter(None, answers))


def hill(panel, log_p, colour, name):
    panel.plot(LINE, log_p.exp(), color=colour, label=name, linewidth=1.3)


def dressed(panel, title, reach=5.0, height=None):
    panel.set(xlim=(-reach, reach), xlabel="x", ylabel="density")
    panel.set_ylim(top=height)
    panel.set_title(title, fontsize=10)
    panel.legend(fontsize=8, frameon=False, loc="upper left")


def not_negative(panel):
    """The integrand of KL(p || q), its positive and its negative part"""
    p, q = log_normal(-0.5, 1.0), log_normal(0.7, 1.3)
    part = p.exp() * (p - q)
    more, less = (torch.trapezoid(side.clamp(min=0), LINE).item() for side in (part, -part))
    hill(panel, p, "tab:blue", "p"), hill(panel, q, "tab:orange", "q")
    panel.fill_between(LINE, part, where=part > 0, color="tab:green", alpha=0.35, linewidth=0,
                       label=f"p ln(p / q) above 0: {more:.3f}")
    panel.fill_between(LINE, part, where=part < 0, color="tab:red", alpha=0.35, linewidth=0,
                       label=f"below 0: -{less:.3f}")
    panel.axhline(0, color="0.6", linewidth=0.7)
    dressed(panel, f"not negative: KL(p || q) = {more:.3f} - {less:.3f} = {more - less:.3f} nats", height=0.75)
    return f"not negative: p ln(p / q) gives {more:.3f} where it is positive, -{less:.3f} elsewhere: {more - less:.3f}"


def zero_at_equality(panel):
    """KL(N(m, s^2) || N(0, 1)) over the plane of m and s"""
    m, s = torch.linspace(-3, 3, 241), torch.linspace(0.15, 3, 241)
    lines = panel.contour(m, s, of_normal(m, s[:, None]), levels=[0.05, 0.2, 0.5, 1, 2, 4], cmap="viridis")
    panel.clabel(lines, fontsize=8)
    panel.plot(0, 1, "o", color="tab:red", label="0 nats: q = p(z)")
    panel.set(xlabel="m", ylabel="s")
    panel.set_title("KL(N(m, s$^2$) || N(0, 1)) in nats, of a VAE's code", fontsize=10)
    panel.legend(fontsize=8, loc="upper right")


def not_a_distance(panel):
    """Three densities in a row: the direct way is longer than the way by the one between"""
    rows = {name: log_normal(m, 1.0) for name, m in (("a", -2.0), ("b", 0.0), ("c", 2.0))}
    for (name, row), colour in zip(rows.items(), ("tab:blue", "tab:green", "tab:orange"), strict=True):
        hill(panel, row, colour, name)
    direct, first, second = (divergence(rows[one], rows[other]).item() for one, other in ("ac", "ab", "bc"))
    for start, end, height, value in ((-2, 2, 0.63, direct), (-2, 0, 0.5, first), (0, 2, 0.5, second)):
        panel.annotate("", (end, height), (start, height), arrowprops=dict(arrowstyle="->", color="0.3"))
        panel.text((start + end) / 2, height + 0.012, f"{value:.1f}", ha="center", fontsize=9)
    dressed(panel, f"not a distance: KL(a || c) = {direct:.1f}, by b {first:.1f} + {second:.1f} nats", height=0.75)
    return f"not a distance: from a to c {direct:.3f}, from a to b {first:.3f} and from b to c {second:.3f}"


def not_symmetric(covers, takes):
    """The normal q that is nearest to two hills, in each direction"""
    p, words = log_hills(*HILLS), []
    for panel, name, loss in ((covers, "KL(p || q)", lambda q: divergence(p, q)),
                              (takes, "KL(q || p)", lambda q: divergence(q, p))):
        m, s = (round(number, 6) + 0.0 for number in nearest(loss))  # no -0.00
        q = log_normal(m, s)
        there, back = divergence(p, q).item(), divergence(q, p).item()
        hill(panel, p, "tab:blue", "p")
        hill(panel, q, "tab:orange", f"q = N({m:.2f}, {s:.2f}$^2$)")
        does = "covers both hills" if panel is covers else "takes one hill"
        dressed(panel, f"least {name}: q {does}\nKL(p || q) = {there:.2f}, KL(q || p) = {back:.2f} nats", height=0.75)
        words.append(f"least {name} at N({m:.2f}, {s:.2f}^2), there KL(p || q) = {there:.3f} and "
                     f"KL(q || p) = {back:.3f}")
    return f"not symmetric: {'; '.join(words)}"


def not_the_means(panel):
    """The same step between the means, of narrow densities and of wide ones"""
    words = []
    for s, colour in ((0.5, "tab:purple"), (1.5, "tab:green")):
        a, b = log_normal(-1.0, s), log_normal(1.0, s)
        value = divergence(a, b).item()
        hill(panel, a, colour, f"s = {s}: KL = {value:.2f} nats")
        panel.plot(LINE, b.exp(), color=colour, linestyle="--", linewidth=1.3)
        words.append(f"{value:.3f} of s = {s}")
    dressed(panel, "the means are 2 apart in both pairs", height=1.1)
    return f"two densities whose means are 2 apart: {', '.join(words)}"


STUDY = Study(study, needs=(), alone=True, of_text=None)
