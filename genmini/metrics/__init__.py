"""How good are samples? One idea a file; each takes features or logits (n, F), and says the same for every order of its rows, to the bit.

    network = genmini.metrics.network("digits-v1")       a classifier that is shipped here; or the run of another
    f, a = network(x, levels)                            features (n, F) and logits (n, classes) of images
    genmini.metrics.fid(f_real, f_samples)               also kid, inception_score(a), precision_recall, class_accuracy(a, y)

An image goes through the network alone: there is no batch that its features could depend on. Then rows are put in one order, that of their
numbers, and sums are taken in float64. `genmini score RUN` prints all of them, beside what real images get; metrics.score returns them.
"""

from .accuracy import class_accuracy
from .features import network
from .frechet import fid, fid_by_count
from .inception_score import inception_score
from .kid import kid
from .precision_recall import precision_recall
from .score import score

__all__ = ["class_accuracy", "fid", "fid_by_count", "inception_score", "kid", "network", "precision_recall", "score"]
