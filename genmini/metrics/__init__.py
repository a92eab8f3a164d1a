"""How good are samples? One metric a file; rows of features or logits (n, F) may be in any order, to the same bits.

    network = genmini.metrics.network("digits-v1")       a classifier that is shipped here; or the run of another
    f, a = network(x, levels)                            features (n, F) and logits (n, classes) of images
    genmini.metrics.fid(f_real, f_samples)    also kid, inception_score(a), precision_recall, class_accuracy(a, y)
    genmini.metrics.nearest(train, x)         the nearest train image of each sample, and its distance in pixels
    genmini.metrics.translation(model, data)  how right translations are, where their truth is known
    genmini.metrics.captions(texts, x)        what of their captions images of shapes show

Each image goes through the network alone, so that its features do not depend on a batch. Then rows are sorted, and sums
are taken in float64. `genmini score RUN` prints all metrics, beside those of real images; metrics.score returns them.
"""

from .accuracy import class_accuracy
from .captions import captions, shares
from .features import network
from .frechet import fid, fid_by_count
from .inception_score import inception_score
from .kid import kid
from .nearest import nearest
from .precision_recall import precision_recall
from .score import against, draw, measure, score
from .translation import translation

__all__ = ["against", "captions", "class_accuracy", "draw", "fid", "fid_by_count", "inception_score", "kid", "measure",
           "nearest", "network", "precision_recall", "score", "shares", "translation"]
