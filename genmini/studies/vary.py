"""What does a code of CLIP keep of an image? Other images of the same code, and images of the codes between two.

The rows of the picture: an image of the test split and draws of the decoder of its code, which differ in their noise
alone; between two images, and between the codes that the prior draws of two captions, the code goes along the sphere
and the noise stays. No draw reads a caption.

The line tells how near the codes of the draws are to the code that they are of, as cosines, beside those of two images
of the test split: of what CLIP sees, how much was kept.
"""

import textwrap

import torch

from genmini import plots
from genmini.means import mean_and_error
from genmini.studies._run import Misfit
from genmini.studies._study import Study

IMAGES, PAIRS, STEPS = 3, 2, 8  # rows of variations, of each kind of way between two; draws of a row
LETTERS = 40  # of a caption that is taken, at most, if there are such
N = 50  # images of which one variation each is measured


@torch.no_grad()
def study(run, path):
    torch.manual_seed(run.seed)
    test, model = run.split("test"), run.model
    if len(test) < 2:
        raise Misfit(f"{run.folder} does not fit: its test split has {len(test)} image, and two are compared")
    x, n = test.x.to(model.device), min(N, len(test))
    ends = x[torch.arange(2 * PAIRS) % len(x)].unflatten(0, (PAIRS, 2))
    short = [text for text in test.captions if len(text) <= LETTERS] or test.captions
    texts = [short[i % len(short)] for i in range(2 * PAIRS)]
    kept = x[: min(IMAGES, len(x))]
    varied = torch.cat([kept[:, None], model.variations(kept, STEPS)], 1)
    ways = torch.cat([ends[:, :1], model.interpolate(ends[:, 0], ends[:, 1], STEPS - 1), ends[:, 1:]], 1)
    of_texts = model.interpolate(texts[::2], texts[1::2], STEPS + 1)
    labels = ["an image, and others\nof its code"] * len(varied) + ["from an image\nto an image"] * PAIRS
    labels += [textwrap.fill(f"{one} to {other}", LETTERS) for one, other in zip(texts[::2], texts[1::2], strict=True)]
    plots.rows(path, f"{model.title} draws of codes", torch.cat([varied, ways, of_texts]).cpu(), labels, test.levels)
    z = run.encode(x[:n], test.y[:n])
    again = run.encode(model.variations(x[:n], 1)[:, 0], test.y[:n])
    own, others = (z * again).sum(1), (z * z.roll(1, 0)).sum(1)
    words = ["{:.2f} +- {:.3f}".format(*mean_and_error(cosines)) for cosines in (own, others)]
    return f"{n} variations have the cosine {words[0]} with their images, two images {words[1]}"


STUDY = Study(study, needs=("variations", "interpolate", "encode"))
