"""Are few labels enough if all images help, also those without a label? Classifiers of codes, and the same of pixels.

The course, "Exemple d'utilisation : apprentissage semi-supervisé"; Kingma et al., 2014, whose M2 is of
genmini/models/ssvae.py. The model of the run was trained on all images of the train split without labels, and gives
codes of them: it is their M1. 1, 5, 10 or 100 images of each class have a label. Four classifiers learn from them,
for each of five draws of these images, and are measured on test:

    M2 on codes      q(y|c), learnt with p(c|y, z) by the codes of all train images and by the labels
    the same network on pixels       the encoder and q(y|c), by the labelled images alone (_few_labels.py)
    linear, on codes or pixels f     p(y|f) = softmax_y(W f + b),  least -1/n sum_i log p(y_i|f_i) + lambda/2 |W|^2

The linear ones take f brought to mean 0 and a mean square norm of 1 by all train images. Each classifier takes, for
each number of labels, the regularisation that does best on the valid split, a lambda of five or a dropout of two: this
uses more labels than are counted, for all alike. The picture has the shares that are right, and analogies: the z of a
test image with every class y in the place of its own, by the M2 of the first draw of 10 labels of each class.
"""

import numpy as np
import torch
import torch.nn.functional as F

from genmini import plots
from genmini.studies import _few_labels
from genmini.studies._study import Study, lacks_images

LABELS, DRAWS, LAMBDAS, DROPOUTS = (1, 5, 10, 100), 5, (1e-5, 1e-4, 1e-3, 1e-2, 1e-1), (0.0, 0.5)
NEEDED, SHOWN = 10, 10  # labels of each class that train must have, and by which images are shown; rows of them


def misfit(model):
    given = "its encoder is given the class, which the classifier has to predict"
    return lacks_images(model) or (given if model.classes else "")


def fit(f, y, classes, weight):
    """(n, F), (n,) -> W (classes, F), b (classes,), float64"""
    W, b = (torch.zeros(classes, *shape, dtype=torch.float64, requires_grad=True) for shape in ((f.shape[1],), ()))
    optimiser = torch.optim.LBFGS([W, b], max_iter=200, tolerance_grad=1e-7, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        value = F.cross_entropy(f @ W.T + b, y) + weight / 2 * W.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return W.detach(), b.detach()


def best(ways, learn, logits, f, y):
    """-> the share of test images that is right, for each draw, and what was learnt, by the way that does best on valid

    learn(way) -> what each draw teaches, a list; logits(learnt, f of a split); f, y: of the splits
    """
    found = {}
    for way in ways:
        learnt = learn(way)
        share = lambda split: np.array([(logits(each, f[split]).argmax(1) == y[split]).double().mean().item()
                                        for each in learnt])  # noqa: B023
        with torch.no_grad():
            found[way] = share("valid").mean(), share("test"), learnt
    return max(found.values(), key=lambda shares: shares[0])[1:]


def accuracy(f, y, labelled, classes):
    """Return, for each draw, the share of test images that a linear classifier tells right.

    f, y: of the three splits; labelled: for each draw, a tensor of the indices of train images.
    """
    learn = lambda weight: [fit(f["train"][n], y["train"][n], classes, weight) for n in labelled]
    return best(LAMBDAS, learn, lambda each, f: f @ each[0].T + each[1], f, y)[0]


def by_m2(mu, sigma, y, labelled, classes):
    """The same of M2, and the M2 of each draw. mu, sigma: of the codes of the three splits"""
    learn = lambda dropout: [_few_labels.of_codes(mu["train"], sigma["train"], n, y["train"][n], classes, dropout, seed)
                             for seed, n in enumerate(labelled)]
    return best(DROPOUTS, learn, lambda m2, mu: m2.h(mu), mu, y)


def by_pixels(model, x, y, labelled, classes):
    """The same of the network on pixels"""
    learn = lambda dropout: [_few_labels.of_pixels(model, x["train"][n], y["train"][n], classes, dropout, seed)
                             for seed, n in enumerate(labelled)]
    return best(DROPOUTS, learn, lambda logits, x: logits(x), x, y)[0]


def codes(run, splits):
    """-> mu and sigma of the codes of each split; sigma is 0 for a model without a distribution of codes"""
    if run.model.cannot("q"):
        mu = {split: run.encode(images.x, images.y).float() for split, images in splits.items()}
        return mu, {split: torch.zeros_like(c) for split, c in mu.items()}
    q = {split: run.q(images.x, images.y) for split, images in splits.items()}
    return {split: mu for split, (mu, _) in q.items()}, {split: (v / 2).exp() for split, (_, v) in q.items()}


def scaled(f):
    mean = f["train"].mean(0)
    scale = (f["train"] - mean).square().sum(1).mean().sqrt()
    return {split: (rows - mean) / scale for split, rows in f.items()}


@torch.no_grad()
def analogies(run, m2, c, x, classes):
    """Codes c and images x (n, *shape) -> (n, 1 + classes, *shape): the image, then z of it with each class"""
    hot = torch.eye(classes)
    z, _ = m2.q(c, hot[m2.h(c).argmax(1)])
    each = m2.f(z.repeat_interleave(classes, 0), hot.repeat(len(c), 1))[:, 0]
    return torch.cat([x.float()[:, None], run.decode(each, None).float().view(len(c), classes, *x.shape[1:])], 1)


def study(run, path):
    splits = {split: run.split(split) for split in ("train", "valid", "test")}
    x, y = ({split: of(images) for split, images in splits.items()} for of in (lambda one: one.x, lambda one: one.y))
    run.check_labels()
    classes, noise = int(y["train"].max()) + 1, np.random.RandomState(run.seed % 2**32)
    of_class = [np.flatnonzero(y["train"].numpy() == k) for k in range(classes)]
    least = min(map(len, of_class))
    if least < NEEDED:
        raise ValueError(f"the study takes {NEEDED} images of each class, and train has {least} of one")
    mu, sigma = codes(run, splits)
    title = run.model.title
    linear = {f"linear on codes of {title}": scaled({split: c.double() for split, c in mu.items()}),
              "linear on pixels": scaled({split: images.flatten(1).double() for split, images in x.items()})}
    results = {f"M2 on codes of {title}": [], "the same network on pixels": [], **{kind: [] for kind in linear}}
    counts, shown = [n for n in LABELS if n <= least], None
    for n in counts:
        labelled = [torch.from_numpy(np.concatenate([noise.choice(rows, n, replace=False) for rows in of_class]))
                    for _ in range(DRAWS)]
        right, learnt = by_m2(mu, sigma, y, labelled, classes)
        shown = learnt[0] if n == NEEDED else shown
        of_kind = [right, by_pixels(run.model, x, y, labelled, classes),
                   *(accuracy(f, y, labelled, classes) for f in linear.values())]
        for values, right in zip(results.values(), of_kind, strict=True):
            values.append((right.mean(), right.std(ddof=1) / DRAWS**0.5))

    first = torch.stack([(y["test"] == k).nonzero()[0, 0] for k in range(classes) if (y["test"] == k).any()])[:SHOWN]
    images = analogies(run, shown, mu["test"][first], x["test"][first], classes)
    counts = [n * classes for n in counts]
    draw(path, counts, results, images, splits["test"])
    line = lambda i: ", ".join(f"{kind} {values[i][0]:.1%} +- {values[i][1]:.1%}" for kind, values in results.items())
    return "; ".join(f"{n} labels: {line(i)}" for i, n in enumerate(counts))


def draw(path, counts, results, images, test):
    figure, ((panel, sheet),) = plots.new_figure(1, 2, 6.2, 4.8)
    for kind, values in results.items():
        mean, error = np.array(values).T
        panel.errorbar(counts, mean, error, fmt="o--" if kind.startswith("linear") else "o-", capsize=3, label=kind)
    panel.set(xlabel="labels", ylabel="share of test images that is right", xscale="log", xticks=counts,
              xticklabels=counts)
    panel.minorticks_off()
    panel.set_title(f"classifiers of few labels, mean and error over {DRAWS} draws", fontsize=11)
    panel.legend(frameon=False)
    columns, side = images.shape[1], images.shape[-1] + 1
    plots.show(sheet, images.flatten(0, 1), test.levels, columns)
    sheet.set_xticks([side * (i + 0.5) - 1 for i in range(columns)], ["test", *map(str, range(columns - 1))])
    sheet.set_title(f"test images, and their z with each class y, by {NEEDED * (columns - 1)} labels",
                    fontsize=11)
    plots.save(figure, path)


STUDY = Study(study, needs=("encode", "decode"), misfit=misfit)
