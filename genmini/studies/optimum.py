"""Does the discriminator find d* = p / (p + q)? It learns on the line, where both densities are known, from draws.

The course: the maximum of  E_q [ln(1 - d)] + E_p [ln d]  is where d = d*, and -ln 4 if q = p.

    p = 1/2 N(-1.5, 0.5^2) + 1/2 N(1.5, 0.5^2),    q = N(0, 1),  a generator that has not learnt yet;  or q = p

The discriminator has the run's layers. Each panel has one: without a penalty; with R1, the run's or 1 if it has none,
which keeps d flat where p has data; and where q = p. Values are integrals over the line, not means of draws.
"""

import math

import torch

from genmini import plots
from genmini.models._model import Batch
from genmini.studies._study import Study

STEPS, BATCH = 1500, 512
LINE = torch.linspace(-6, 6, 2401, dtype=torch.float64)  # where p and q are below 1e-8 at both ends


def misfit(model):
    if model.classes:
        return "its discriminator is given the class, and the line has none"
    return "" if model.divergence == "jensen-shannon" else "d* is the optimum of jensen-shannon alone"


def density(x, centres, sigma):
    """Mean of the normal densities of these centres, and one sigma, at x"""
    normals = [torch.exp(-(x - centre).square() / (2 * sigma**2)) for centre in centres]
    return sum(normals) / (sigma * math.sqrt(2 * math.pi) * len(normals))


P, Q = ((-1.5, 1.5), 0.5), ((0.0,), 1.0)


def drawn(n, centres, sigma):
    return torch.tensor(centres)[torch.randint(len(centres), (n, 1))] + sigma * torch.randn(n, 1)


def learnt(model, q, r1, seed, steps):
    """d on LINE, of a discriminator like the model's that learns p from q."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = model.on_the_line(lambda n: drawn(n, *q), r1)
        for step in range(steps):
            _, loss, parameters = next(model.updates(Batch(drawn(BATCH, *P), None)))
            if step == 0:
                optimiser = torch.optim.Adam(parameters, lr=2e-3)
                schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        return model.d(LINE[:, None].float()).double()


def value(d, q):
    """E_q [ln(1 - d)] + E_p [ln d], by quadrature"""
    return torch.trapezoid(torch.xlogy(density(LINE, *q), 1 - d) + torch.xlogy(density(LINE, *P), d), LINE).item()


def optimal(q):
    """d* on LINE"""
    p, q = density(LINE, *P), density(LINE, *q)
    return p / (p + q)


def study(run, path):
    r1 = run.model.r1 or 1.0
    cases = {"q is not p": (Q, 0.0), f"the same, with R1 = {r1:g}": (Q, r1), "q = p": (P, 0.0)}
    figure, panels = plots.new_figure(1, len(cases), 4.6, 3.4)
    reached_of = []
    for panel, (name, (q, penalty)) in zip(panels[0], cases.items(), strict=True):
        d, best = learnt(run.model, q, penalty, run.seed, STEPS), optimal(q)
        panel.fill_between(LINE, density(LINE, *P), color="tab:blue", alpha=0.25, linewidth=0, label="p, of the data")
        panel.fill_between(LINE, density(LINE, *q), color="tab:red", alpha=0.25, linewidth=0, label="q, drawn")
        panel.plot(LINE, best, color="0.2", linewidth=0.8, linestyle="--", label="d* = p / (p + q)")
        panel.plot(LINE, d, color="tab:green", label="d, learnt")
        panel.set(xlim=(-4, 4), ylim=(0, 1))
        reached, most = value(d, q), value(best, q)
        panel.set_title(f"{name}\nvalue {reached:.4f}, of d* {most:.4f}", fontsize=11)
        reached_of.append(f"{name}: {reached:.4f} of {most:.4f}")
    panels[0, 0].legend(fontsize=8, frameon=False, loc="upper center")
    plots.save(figure, path)
    return f"E_q ln(1 - d) + E_p ln d, learnt and of d*: {', '.join(reached_of)} (-ln 4 = {-math.log(4):.4f})"


STUDY = Study(study, needs=("on_the_line",), misfit=misfit)
