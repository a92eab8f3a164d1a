"""How did trainings go? The numbers of their metrics along the steps: a panel for each number, a line for each run.

Each number that all of these runs have is shown, apart from the time. The steps of a later stage follow those of the
one before; the words are of the last stage alone. A GAN's `modes` and `good` are those of genmini/metrics/coverage.py:
they tell whether modes collapse, and whether they come back. The pictures along the training stand in RUN/progress.
"""

from genmini import checkpoint, plots
from genmini.studies._run import Misfit
from genmini.studies._study import Study
from genmini.train import rows_of

APART = "stage", "step", "seconds", "warning", "missing"  # `missing` is all modes but those of `modes`
COLUMNS = 3
LARGEST = 1e30  # beyond it a panel has no scale, and so it is of numbers that are not finite


def study(runs, path):
    for run in runs:
        if checkpoint.is_shipped(run.folder):
            raise Misfit(f"{run.folder} does not fit: a run that comes with genmini keeps no metrics of its training")
    rows = {run.name: rows_of(run.folder) for run in runs}
    lines = {name: curves(of_run) for name, of_run in rows.items()}
    common = [name for name in next(iter(lines.values())) if all(name in of_run for of_run in lines.values())]
    if not common:
        raise Misfit(f"the metrics of {' and '.join(str(run.folder) for run in runs)} have no number in common")
    columns = min(COLUMNS, len(common))
    figure, panels = plots.new_figure(-(-len(common) // columns), columns, 4.0, 2.6)
    for panel, name in zip(panels.flat, common, strict=False):
        for run, of_run in lines.items():
            panel.plot(*zip(*of_run[name], strict=True), ".-", markersize=4, linewidth=1, label=run)
        numbers = [number for of_run in lines.values() for _, number in of_run[name]]
        panel.set(title=name, xlabel="step", yscale="log" if 0 < 100 * min(numbers) < max(numbers) else "linear")
    panels[0, 0].legend(fontsize=7)
    for panel in panels.flat[len(common) :]:
        panel.set_axis_off()
    plots.save(figure, path)
    words = {run.name: of_last_stage(rows[run.name], run.metadata["step"], common) for run in runs}
    return "\n".join(f"{name}: {of_run}" for name, of_run in words.items())


def curves(rows):
    """Rows of metrics -> {name: [(step, number)]}"""
    found, before, last = {}, 0, {"step": 0}
    for row in rows:
        before += last["step"] if row.get("stage") != last.get("stage", row.get("stage")) else 0
        for name in row.keys() - {*APART}:
            if shown(row[name]):
                found.setdefault(name, []).append((before + row["step"], row[name]))
        last = row
    return {name: found[name] for row in rows for name in row if name in found}


def shown(value):
    return isinstance(value, int | float) and abs(value) < LARGEST


def of_last_stage(rows, kept, names):
    """Its numbers at the step whose weights are kept, and the least and the most of the second half of its steps"""
    rows, words = [row for row in rows if row.get("stage") == rows[-1].get("stage")], []
    for name in names:
        has = [row for row in rows if shown(row.get(name))]
        at = [row[name] for row in has if row["step"] == kept]
        late = [row[name] for row in has if 2 * row["step"] > rows[-1]["step"]]
        found = [f"{number:.4g}" for number in at] + ([f"late {min(late):.4g} to {max(late):.4g}"] if late else [])
        words += [f"{name} {', '.join(found)}"] * bool(found)
    where = f"step {kept}" + (f" of the stage {rows[-1]['stage']}" if "stage" in rows[-1] else "")
    return f"at {where}, and in the second half: " + "; ".join(words)


STUDY = Study(study, needs=(), together=True, of_text=None)
