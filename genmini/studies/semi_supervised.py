"""Are few labels enough if the codes are learnt without labels? A linear classifier on codes, and the same on pixels.

The course, "Exemple d'utilisation : apprentissage semi-supervisé". The model was trained on all images of the train
split without labels. The classifier is trained on 1, 5 or 10 labels of each class, and measured on test, for each of
ten draws of the images with labels.

    p(y | f) = softmax_y(W f + b),   least -1/n sum_i log p(y_i | f_i) + lambda/2 |W|^2

f are codes or pixels, brought to mean 0 and a mean square norm of 1 by the train images, labelled or not. lambda is,
for each number of labels and each kind of f, the one of five that does best on the valid split: this uses more labels
than are counted, for codes and pixels alike.
"""

import numpy as np
import torch
import torch.nn.functional as F

from genmini import plots
from genmini.studies._study import Study, lacks_images

LABELS, DRAWS, LAMBDAS = (1, 5, 10), 10, (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


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


def accuracy(f, y, labelled, classes):
    """Return, for each draw, the share of test images that is right.

    f, y: of the three splits; labelled: for each draw, a tensor of the indices of train images.
    """
    right = {}
    for weight in LAMBDAS:
        fits = [fit(f["train"][n], y["train"][n], classes, weight) for n in labelled]
        share = lambda split: np.array([((f[split] @ W.T + b).argmax(1) == y[split]).double().mean().item()
                                        for W, b in fits])
        right[weight] = share("valid").mean(), share("test")
    return max(right.values(), key=lambda shares: shares[0])[1]


def study(run, path):
    splits = {split: run.split(split) for split in ("train", "valid", "test")}
    y = {split: images.y for split, images in splits.items()}
    run.check_labels()
    classes, noise = int(y["train"].max()) + 1, np.random.RandomState(run.seed % 2**32)
    kinds = {f"codes of {run.model.title}": {split: run.encode(images.x, images.y).double()
                                                      for split, images in splits.items()},
             "pixels": {split: images.x.flatten(1).double() for split, images in splits.items()}}
    for f in kinds.values():
        mean = f["train"].mean(0)
        scale = (f["train"] - mean).square().sum(1).mean().sqrt()
        f.update({split: (rows - mean) / scale for split, rows in f.items()})
    of_class = [np.flatnonzero(y["train"].numpy() == k) for k in range(classes)]
    if min(map(len, of_class)) < max(LABELS):
        raise ValueError(f"the study takes {max(LABELS)} images of each class, "
                         f"and train has {min(map(len, of_class))} of one")
    results = {kind: [] for kind in kinds}
    for n in LABELS:
        labelled = [torch.from_numpy(np.concatenate([noise.choice(rows, n, replace=False) for rows in of_class]))
                    for _ in range(DRAWS)]
        for kind, f in kinds.items():
            right = accuracy(f, y, labelled, classes)
            results[kind].append((right.mean(), right.std(ddof=1) / DRAWS**0.5))

    counts = [n * classes for n in LABELS]
    figure, ((panel,),) = plots.new_figure(1, 1, 6.0, 4.2)
    for kind, values in results.items():
        mean, error = np.array(values).T
        panel.errorbar(counts, mean, error, fmt="o-", capsize=3, label=kind)
    panel.set(xlabel="labels", ylabel="share of test images that is right", xticks=counts)
    panel.set_title(f"a linear classifier of few labels, mean and error over {DRAWS} draws", fontsize=11)
    panel.legend(frameon=False)
    plots.save(figure, path)
    line = lambda i: ", ".join(f"{kind} {values[i][0]:.1%} +- {values[i][1]:.1%}" for kind, values in results.items())
    return "; ".join(f"{n} labels: {line(i)}" for i, n in enumerate(counts))


STUDY = Study(study, needs=("encode",), misfit=misfit)
