"""The proofs that several models pass: all examples of a small space, and a training that is interrupted and resumed.

    assert model.log_prob(space(model)).exp().sum() == 1
    whole, again, state = resumes(make, train, valid, LOOP, stop=7, folder=tmp_path)
"""

import contextlib
import itertools
import json
import signal

import pytest
import torch

from genmini import checkpoint
from genmini.train import fit


def space(model):
    """Every x of the model, (levels^D, *shape)"""
    every = list(itertools.product(range(model.levels), repeat=model.D))
    return torch.tensor(every, dtype=torch.uint8).view(-1, *model.shape)


# ---- trainings -------------------------------------------------------------------------------------------------------


class Killed(Exception):
    """What ends a training in the place of a kill."""


def kill():
    raise Killed


@contextlib.contextmanager
def ctrl_c():
    """-> a function that presses Ctrl-C; a job in the background is born without the handler that it needs."""
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
    """What the metrics of a run tell, but for the time that they took."""
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
