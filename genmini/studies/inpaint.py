"""What do models draw where a mask hides a part of an image, wherever it lies, and how well do they know it?

The rows show what is known of test images, two draws of each run and the mean of all its draws, and the images. Over
the numbers that are hidden, x_h, beside those that are known, x_k, the line says of each run

    off = root mean (m - x)^2          of the mean m of n draws; the plain mean of the train images is beside it   (1)
    |x' - x''|, |x' - x|               between two draws of an image, and between a draw and the image             (2)
    nats = -log p(x_h | x_k) / |h|     by `Model.log_hidden`; the levels' shares in the train images beside it     (3)

The plain answers see nothing of the image: what lies below them, what is known has told. The two lengths of (2) are
equal if both are draws from p(x_h | x_k). How a model draws, its family says: where the known numbers come first in its
order exactly (MADE and NADE of all orders: always), else by particles and sweeps (genmini/models/_ordered.py), by a
search of z (_search.py), or nearly, by steps that keep the known pixels (genmini/samplers.py). Only then (3) is exact,
too; of particles it is too low in the mean, and of a search an estimate.
"""

from pathlib import Path

import torch

from genmini import conditions, plots
from genmini.studies._run import Misfit
from genmini.studies._study import Study, lacks_images
from genmini.studies.restore import distance, length

IMAGES, DRAWS, COLUMNS, ROWS = 40, 8, 10, 2  # measured: images, draws of each; shown: images, draws of each


def misfit(model):
    if model.given:
        return f"it is given {model.given} of an image, and would see what is hidden, or no mask"
    return lacks_images(model)


def study(runs, path, mask="centre"):
    test, train = (runs[0].split(split) for split in ("test", "train"))
    for run in runs[1:]:
        if (other := run.split("test")).name != test.name or other.shape != test.shape:
            raise Misfit(f"{run.folder} is of {other.name} {other.shape}, and {runs[0].folder} of {test.name} "
                         f"{test.shape}: choose runs of the same images")
    x, known = test.x[:IMAGES], conditions.unmasked(mask, test.shape)
    hidden = ~known
    shown = [x.float().masked_fill(hidden, float("nan"))]
    off = length((train.x.double().mean(0) - x)[:, hidden])
    answers = [f"{mask} hides {hidden.sum()} of {known.numel()} numbers of {len(x)} test images: the mean of train is "
               f"{off:.2f} levels off, shares in train {nats(-shares(train, x)[:, hidden].sum(1), hidden)}"]
    labels = ["known"]
    for run in runs:
        y = test.y[:IMAGES].to(run.device) if run.conditional else None
        torch.manual_seed(run.seed)
        made = run.model.inpaint(x.to(run.device), y, known=known.to(run.device), n=DRAWS).cpu()
        mean = made.double().mean(0)
        answers.append(f"{run.name}: {measured(made, mean, x, known)}{told(run, x, known, y)}")
        shown += [*made[:ROWS].float(), mean.float()]
        labels += [Path(run.folder).name] * ROWS + [f"mean of {DRAWS}"]
    rows = torch.stack([row[:COLUMNS] for row in (*shown, x.float())])
    plots.rows(path, f"hidden: {mask} ({test.split})", rows, [*labels, "the image"], test.levels)
    return "\n".join(answers)


def measured(made, mean, x, known):
    """The figures of draws (n, N, *shape) and their mean, in words"""
    same = (made == x)[..., known].all(-1).double().mean()
    drawn, truth = made[..., ~known].double(), x[:, ~known]
    off = length(mean[:, ~known] - truth)  # (1)
    apart, from_truth = distance(drawn), length(drawn - truth)  # (2)
    return (f"the mean of {len(made)} draws is {off:.2f} levels off, two draws are {apart:.2f} apart, a draw and the "
            f"image {from_truth:.2f}, {same:.1%} keep all that is known")


def told(run, x, known, y):
    """", ... nats" of models with probabilities of levels, else "" """
    if run.model.cannot("log_hidden") or run.model.unit != "nats":
        return ""
    log_p = run.model.log_hidden(x.to(run.device), y, known=known.to(run.device)).cpu()
    return f", {nats(-log_p, ~known)}"


def nats(nll, hidden):
    """-log p of the hidden numbers of each image, (N,) -> its mean for one number, and the standard error, in words"""
    each = nll.double() / hidden.sum()  # (3)
    return f"{each.mean():.3f} ± {each.std() / len(each) ** 0.5:.3f} nats a number"


def shares(train, x):
    """log of the share that the level of x has among train images at its place, (N, *shape); each level counts 1/2 more
    """
    counts = torch.stack([(train.x == level).sum(0) for level in range(train.levels)]).double() + 0.5
    return (counts / counts.sum(0)).log().gather(0, x.long())


STUDY = Study(study, needs=("inpaint",), misfit=misfit, together=True, options=("mask",))
