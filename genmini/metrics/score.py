"""Compute all metrics of a model's samples, and of as many real images that the model has not seen.

    columns = score(model, network, train, test, n=1000)        {"samples": {...}, "samples, fewer": ..., "real": ...}

Samples and real images are both compared with the train split. The real ones are of the test split; where these are
fewer than the samples, a column of as many samples stands beside them, because most metrics change with the count. A
model that copies its train split gets better numbers than real images do. What shows it is the distance to the nearest
train image, which is then far below that of real images.
"""

import torch

from genmini.data import family, toys

from . import coverage
from .accuracy import class_accuracy
from .features import network
from .frechet import fid, fid_by_count
from .inception_score import inception_score
from .kid import kid
from .nearest import nearest
from .precision_recall import precision_recall

AT_ONCE = 1000  # samples that are drawn together
FEW = 1000  # unseen images that a training is compared with, at most


def score(model, network, reference, held_out, n=1000, seed=0, **how):
    """Return {column: {metric: value}} for samples and real images.

    reference, held_out: data of the model's kind. A model with classes draws the classes 0, 1, ... in turn.
    how: what the model's `sample` takes beside n and y, as mean=True: the mean of each pixel where the model's last
    step would draw it, as pictures of VAEs often do.
    """
    check(model, reference, held_out, n)
    judge = against(reference, network)  # first: it refuses images that the network does not take
    x, y = draw(model, n, seed, network.classes, **how)
    rows = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(0))[:n]
    named = network.classes and held_out.classes == network.classes
    columns = {"samples": judge(x, model.levels, y)}
    if len(rows) < n:
        columns["samples, fewer"] = judge(x[: len(rows)], model.levels, None if y is None else y[: len(rows)])
    columns["real"] = judge(held_out.x[rows], held_out.levels, held_out.y[rows] if named else None)
    return columns


def check(model, reference, held_out, n):
    """ValueError for a model, a number of samples or data that `score` does not take."""
    if draws_no_images(model):
        raise ValueError(f"a score takes a model that draws images: {draws_no_images(model)}")
    if n < 8:
        raise ValueError(f"n must be at least 8 samples, got {n}")
    for data in (reference, held_out):
        if len(data) < 8:
            raise ValueError(f"a score takes at least 8 real images, and the {data.split} split of {data.name} "
                             f"has {len(data)}")


def draws_no_images(model):
    """Why samples of the model are no images to compare with others; "" if they are."""
    name = type(model).__name__
    if not model.levels or model.cannot("sample"):
        return f"{name} draws none"
    if model.of_text:
        return f"{name} draws texts"
    if model.given:
        return (f"{name} draws what is missing of images, of which it is given {model.given}: see the studies restore "
                "and complete")
    return ""


def against(reference, network):
    """A function of images of levels (n, *shape), these levels, and their classes (n,) or None -> {metric: value}, held
    against the data `reference`."""
    f_ref, _ = network(reference.x, reference.levels)

    def judge(x, levels, y=None):
        f, a = network(x, levels)
        by_count, limit = fid_by_count(f_ref, f)
        precision, recall = precision_recall(f_ref, f)
        return dict(
            n=len(f), fid=by_count[len(f)], fid_of_half=by_count[len(f) // 2], fid_limit=limit, kid=kid(f_ref, f),
            inception_score=inception_score(a), shares=_shares(a), precision=precision, recall=recall,
            nearest=nearest(reference.x, x)[1].median().item(), accuracy=None if y is None else class_accuracy(a, y),
        )

    return judge


def measure(valid, n=1000):
    """A function of a model -> {name: number} of n samples, for the metrics of a training: modes, where those of the
    data are known, and of digits the FID against the split `valid`, which does not compare with that of `score`. By it
    the weights of a training are judged."""
    toy = toys.TOYS.get(valid.name)
    if family(valid.name) in ("digits", "mnist"):
        judge = network()
        f_valid, _ = judge(valid.x[:FEW], valid.levels)

        def of_images(x):
            f, a = judge(x, valid.levels)
            distance = fid(f_valid, f)
            return {"valid": distance, "fid": distance, **coverage.count(*coverage.of_images(a), a.shape[1])}

        return lambda model: of_images(_draw_aside(model, n))
    if toy and toy.centres is not None:
        centres = torch.from_numpy(toy.centres)
        return lambda model: coverage.count(*coverage.of_points(_draw_aside(model, n), centres, toy.sigma), toy.K)
    return lambda model: {}


def _draw_aside(model, n):
    """n samples by the noise of seed 0, which leaves that of the training as it is."""
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
        return draw(model, n, 0, model.classes)[0]


def draw(model, n, seed, classes, **how):
    """Return n samples on the CPU and their requested classes (n,), or None where the network has others."""
    torch.manual_seed(seed)
    has = how["classifier"].classes if how.get("classifier") else model.classes
    known = classes and has == classes
    y = torch.arange(n) % classes if known else None
    requested = [dict(y=part.to(model.device)) for part in y.split(AT_ONCE)] if known else [{}] * -(-n // AT_ONCE)
    sizes = [min(AT_ONCE, n - i) for i in range(0, n, AT_ONCE)]
    return torch.cat([model.sample(size, **how, **one).cpu() for size, one in zip(sizes, requested, strict=True)]), y


def _shares(a):
    """How often the rarest and the commonest class are named, as parts of an even share."""
    counts = torch.bincount(a.argmax(1), minlength=a.shape[1])
    return tuple(part.item() for part in (counts.double() * a.shape[1] / len(a)).aminmax())
