"""What becomes of an image of one of two sets when it is translated, and does the way back find it again?

A column is a test image: what it is, what it becomes, and what comes back. Where the true translation is known, as of
digits-unpaired, it stands between, and the line says how often and how nearly it was met.
"""

import torch

from genmini import data, metrics, plots
from genmini.data import unpaired
from genmini.means import mean_and_error
from genmini.studies._study import Study

COLUMNS = 10


def study(run, path):
    test = run.split("test")
    true = None
    if test.name in unpaired.OF:
        true = unpaired.counterparts(test.x, test.y, data.load(unpaired.OF[test.name], "test").x, test.levels)
    columns = min(COLUMNS, *(int((test.y == k).sum()) for k in range(2)))
    rows = {}
    for k, (here, there, other, back) in enumerate((("x", "G(x)", "y", "F(G(x))"), ("y", "F(y)", "x", "G(F(y))"))):
        n = (test.y == k).nonzero()[:columns, 0]
        rows |= {here: test.x[n], there: run.translate(test.x[n], test.y[n])}
        rows |= {} if true is None else {f"true {other}": true[n]}
        rows[back] = run.reconstruct(test.x[n], test.y[n])
    images = torch.stack([row.float() for row in rows.values()])
    plots.rows(path, f"{run.model.title}: there and back ({test.split})", images, list(rows), test.levels)
    lost, error = mean_and_error((run.reconstruct(test.x, test.y) - test.x).abs().flatten(1).mean(1))
    answer = [f"there and back a pixel is off by {lost:.3f} +- {error:.3f} levels"]
    if true is not None:
        figures = {name: values.mean().item() for name, values in metrics.translation(run.model, test).items()}
        answer += [f"{T} has the right class in {figures[f'{T} right']:.1%} of {len(test)}, is nearest to the image "
                   f"itself in {figures[f'{T} own']:.1%}, and off by {figures[f'{T} off']:.3f} levels"
                   for T in "GF"]
    return "; ".join(answer)


STUDY = Study(study, needs=("translate", "reconstruct"))
