"""The proofs that several models pass: of a probability over a small space, of its samples, completions and gradients,
and of a training that is interrupted and resumed.

    model, x = small("made");  probability(model);  follows(model);  completes(model);  differentiable(model, x)
    whole, again, state = resumes(make, train, valid, LOOP, stop=7, folder=tmp_path)
"""

import contextlib
import inspect
import itertools
import json
import math
import signal

import pytest
import torch
from check import drawn_from

from genmini import checkpoint, data, models
from genmini.models._model import Model
from genmini.train import fit

FAST = dict(  # by the name of a setting, its value in a small model
    hidden=4, width=8, blocks=1, layers=1, latent=2, couplings=1, scales=1, K=4, dim=2, prior_width=4, prior_blocks=1,
    features=4, draws=2, pool=3, attributes="area", heads=2, text_width=8, text_blocks=1, vector=8, adapter=1,
    clip_width=4, directions=2, bins=3,
)


def taken(family):
    """The settings that a family takes, {name: default}: its own, and those of its bases."""
    bases = [base for base in family.__mro__[::-1] if issubclass(base, Model)]
    own = [inspect.signature(base.__init__).parameters.items() for base in bases]
    return {name: each.default for parameters in own for name, each in parameters}


def fast(family, **settings):
    """Settings that make a small model of the family: those of FAST, and of `settings`, that it takes."""
    return {name: value for name, value in (FAST | settings).items() if name in taken(family)}


def of_series(family):
    """Whether the family models series of numbers, and not images."""
    return not family.cannot("log_prob_each")


def small(name, **settings):
    """A small model of the family, and five examples of its kind."""
    family = models.find(name)
    if family.of_text:
        return family((9,), **fast(family, levels=5) | settings), torch.randint(1, 5, (5, 9)).tril(2)
    if of_series(family):
        return family(9, **fast(family) | settings), torch.randn(5, 9)
    return family((8, 8), levels=2, **fast(family) | settings), data.load("digits-threshold").x[:5]


def condition(model, n):
    """What `loss` and `figures` of n examples must be given, {} or {"y": ...}."""
    if model.captions:  # "a", "a a", ...
        return dict(y=(torch.arange(model.length) < 1 + torch.arange(n)[:, None] % (model.length - 1)).long())
    return dict(y=torch.zeros(n, dtype=torch.int64)) if model.classes else {}


def takes_text_in_any_form(model, x, draw):
    """Its words are "a", "red" and "circle". draw(y): two samples by the same noise"""
    numbers = model.words.encode(["a Red circle."] * 2, 7)
    every = "a red circle", ["a red circle"] * 2, numbers, numbers[0]
    assert len({tuple(model.loss(x, y).tolist()) for y in every}) == 1
    drawn = [draw(y) for y in every]
    assert all(torch.equal(each, drawn[0]) for each in drawn) and drawn[0].dtype == torch.uint8
    for wrong, says in (("a rde circle", "no word 'rde' here; the nearest is 'red'"), ("", "the text '' has no word"),
                        (["red"], "one text for all, or 2 of them, got 1"), (3, "must be a str, a list of str")):
        with pytest.raises(ValueError, match=says):
            model.sample(2, wrong)
    with pytest.raises(ValueError, match="y is missing: a caption for all"):
        model.loss(x)


def space(model):
    """Every x of the model, (levels^D, *shape)"""
    every = list(itertools.product(range(model.levels), repeat=model.D))
    return torch.tensor(every, dtype=torch.uint8).view(-1, *model.shape)


def probability(model, y=None):
    """p(x), or p(x | y), sums to one; it is not flat, or samples of any distribution would follow it."""
    p = model.log_prob(space(model), y=y).exp()
    assert p.shape == (model.levels**model.D,) and abs(p.sum().item() - 1) < 1e-12
    assert p.max() > 3 * p.mean(), "the test wants a distribution that is not flat"


def follows(model, n=20_000, **how):
    """The frequencies of n samples are the probabilities of all x, by a chi-square test. how: what `sample` takes."""
    x = model.sample(n, **how)
    assert x.shape == (n, *model.shape) and x.dtype == torch.uint8
    cell = (x.flatten(1).long() * model.levels ** torch.arange(model.D - 1, -1, -1)).sum(1)
    wanted = n * model.log_prob(space(model), y=how.get("y")).exp()
    drawn_from(torch.bincount(cell, minlength=model.levels**model.D), wanted)


def density_of_the_plane(model):
    """p(x) integrates to one on a grid of the plane, for each class and for their mean; and samples follow it."""
    torch.manual_seed(3)
    n, cells = 40_000, 20
    x = model.sample(n)
    low, high = x.amin(0) - 3, x.amax(0) + 3
    middles = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    side = [middles * (b - a) + a for a, b in zip(low, high, strict=True)]
    grid = torch.stack(torch.meshgrid(*side, indexing="ij"), -1).flatten(0, 1)
    area = ((high - low) / 400).prod()

    def integrates_to_one(p):
        # the four grids of twice the width differ by more than this one, their mean, is off; beyond the farthest of n
        # samples of k classes lies on each of 4 sides more than 10 k / n with a probability of e^-10
        coarse = 4 * p.view(200, 2, 200, 2).sum((0, 2))
        within = (coarse.max() - coarse.min()).item() + len(p) * 2**-53
        assert -within - 4 * 10 * max(model.classes, 1) / n <= p.sum().item() - 1 <= within

    with torch.no_grad():
        p = model.log_prob(grid).exp() * area
        integrates_to_one(p)
        for k in range(model.classes):
            integrates_to_one(model.log_prob(grid, torch.full((len(grid),), k)).exp() * area)
    cell = lambda x: ((x - low) / (high - low) * cells).long().clamp(0, cells - 1) @ torch.tensor([cells, 1])
    wanted = n * torch.zeros(cells**2, dtype=torch.float64).index_add_(0, cell(grid), p)
    seen = torch.bincount(cell(x), minlength=cells**2)
    often = wanted >= 20
    chi2 = ((seen - wanted).square() / wanted)[often].sum().item()
    assert often.sum() > 10 and chi2 < often.sum() + 5 * math.sqrt(2 * often.sum()), (chi2, often.sum())


def estimate_and_error(log_w):
    """log p of weights (k, N), and its error to first order: that of the mean of w, divided by that mean"""
    log_p = log_w.logsumexp(0) - math.log(len(log_w))
    return log_p, (log_w - log_p).exp().std(0) / len(log_w) ** 0.5


def completes(model, n=50, **how):
    """Known numbers are kept, what stands in the place of the others has no effect, and a sample is completed to itself
    by its own noise. how: what `sample` takes beside it."""
    u, x = torch.rand(n, model.D, dtype=torch.float64), torch.randint(model.levels, (n, *model.shape))
    half, order = (model.D + 1) // 2, model.pixel_order()
    whole = model.sample(n, u=u, x=x, known=half, **how)
    assert torch.equal(whole.flatten(1)[:, order[:half]].long(), x.flatten(1)[:, order[:half]])
    other = x.flatten(1).index_fill(1, order[half:], 0).view_as(x)
    assert not torch.equal(other, x) and torch.equal(model.sample(n, u=u, x=other, known=half, **how), whole)
    drawn = model.sample(n, u=u, **how)
    assert torch.equal(model.sample(n, u=u, x=drawn, known=half, **how), drawn)


def differentiable(model, *arguments, **how):
    """The gradients of log_prob(*arguments) by every parameter, against finite differences. how: of gradcheck."""
    module = torch.nn.Module()  # whose forward is log_prob: that of a flow is h
    module.model, module.forward = model, model.log_prob
    names, values = zip(*module.named_parameters(), strict=True)
    function = lambda *values: torch.func.functional_call(module, dict(zip(names, values, strict=True)), arguments)
    assert torch.autograd.gradcheck(function, values, **how)


# ---- trainings -------------------------------------------------------------------------------------------------------


class Killed(Exception):
    """What ends a training in the place of a kill."""


def kill():
    raise Killed


@contextlib.contextmanager
def ctrl_c():
    """Give a function that sends SIGINT. A background job ignores SIGINT from its start, so Python's handler is set."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield lambda: signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def at_step(family, at, event):
    """event() happens in step `at`, counted through all stages, of the models of this class that are trained."""
    updates, step = family.updates, itertools.count(1)

    def watched(model, batch):
        if next(step) == at:
            event()
        return updates(model, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(family, "updates", watched)
        yield


def rows(run):
    """The rows of a run's metrics without their seconds."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def same_runs(one, other):
    """Two finished runs hold the same bits."""
    assert rows(one) == rows(other)
    assert checkpoint.read(one) == checkpoint.read(other) and "state" not in checkpoint.read(one)
    files = [{path.name: path.read_bytes() for path in run.glob("*.safetensors")} for run in (one, other)]
    assert files[0] == files[1] and len(files[0]) == 1


def same_weights(one, other):
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]


def resumes(make, train, valid, loop, *, stop, folder):
    """A training that Ctrl-C stops after its step `stop` and that is resumed gives the bits of one that nothing stops,
    whatever noise the process has drawn -> the model of the whole training, that of the resumed one, and the state in
    which it was stopped. make() -> the untrained model; loop: what `fit` takes beside it."""
    loop = dict(progress=False) | loop
    whole, parts = make(), make()
    fit(whole, train, valid, **loop, run=folder / "whole")
    with ctrl_c() as press, at_step(type(parts), stop, press):
        history = fit(parts, train, valid, **loop, run=folder / "parts")
    assert history.stopped == "interrupted" and history.last == stop
    assert checkpoint.read(folder / "parts")["state"]["tensors"] == f"state-{stop}.safetensors"
    state, _ = checkpoint.load_state(folder / "parts")
    again = make()
    torch.rand(100, device=again.device)
    history = fit(again, train, valid, **loop, run=folder / "parts", resume=True)
    assert history.last == loop["steps"] and not history.stopped
    same_weights(whole, again)
    same_runs(folder / "whole", folder / "parts")
    return whole, again, state
