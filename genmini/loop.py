"""The loop of one stage of a training: steps, evaluations, and what the run keeps of them.

A step takes (name, loss, parameters) from `model.updates(batch)`, one after another, and steps these parameters down
this loss before it takes the next; most models yield one update, the mean of `model.loss`. Each name has an optimiser,
a schedule, a clip and a scaler of its own (genmini/descent.py). At an evaluation the weights are judged by
`model.valid_loss` on valid, the mean of `model.loss` unless the model has another, in the model's `unit`; what the
model `report()`s stands in the metrics beside the losses.

    used by: genmini/train.py    test: tests/project/test_train.py, tests/project/test_resume.py
"""

import contextlib
import json
import math
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from genmini import checkpoint
from genmini.descent import Descent, Random, between_steps
from genmini.models._model import Batch
from genmini.settings import number, one_of, share, whole

SAVE_EVERY = 30  # seconds; a run is also saved after the first step, and at every evaluation
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class History:
    step: int = 0  # of the best weights; 0: there was no evaluation yet
    valid: float = math.inf  # their loss
    rows: list = field(default_factory=list)  # a dict for each evaluation
    last: int = 0  # the last step that was made
    stopped: str = ""  # the reason, if before the end: "interrupted" or "early"


@dataclass(frozen=True)
class Loop:
    """The settings of the loop, for one stage."""

    steps: int
    batch: int = 64
    rate: float = 1e-3  # of AdamW; it falls to 0 along a cosine
    betas: tuple = (0.9, 0.999)  # of AdamW: what its averages of gradients and of squares keep at a step
    decay: float = 0.0  # of the weights
    clip: float = 5.0  # the largest norm of the gradients of one update
    shift: float = 0.0  # the share of batches that move by a pixel
    ema: float = 0.0  # what the moving average of the weights keeps of itself at a step; 0: there is none
    patience: int = 0  # evaluations without an improvement, after which the training stops; 0: it does not
    precision: str = "float32"  # of the losses that are learnt from, under autocast; valid is judged in float32
    every: int = 100  # steps between evaluations
    marginals: bool = False  # begin with output biases at the shares of each pixel's levels in train

    def check(self, train):
        """ValueError for an invalid setting."""
        if not isinstance(self.betas, tuple | list) or len(self.betas) != 2:
            raise ValueError(f"betas must be two shares, got {self.betas!r}")
        whole(steps=self.steps, batch=self.batch, every=self.every)
        whole(0, patience=self.patience)
        number(above=0, rate=self.rate, clip=self.clip)
        number(least=0, decay=self.decay)
        number(least=0, most=1, shift=self.shift)
        share(betas=self.betas, ema=self.ema)
        one_of(PRECISIONS, precision=self.precision)
        if not isinstance(self.marginals, bool):
            raise ValueError(f"marginals must be True or False, got {self.marginals!r}")
        if self.shift and len(train.shape) < 2:
            raise ValueError(f"shift moves images, and {train.name} holds rows of shape {train.shape}")


class Training:
    """The training of one stage: the model, its optimisers, its random generators, and the history so far."""

    def __init__(self, model, train, valid, loop, metadata, *, seed, run, watch, measure, progress, before=()):
        self.model, self.loop, self.run, self.progress = model, loop, run, progress
        self.watch, self.measure = watch, measure
        self.metadata, self.before = metadata or {}, list(before)
        self.device = model.device
        self.train_data, self.valid_data = train.to(self.device), valid.to(self.device)
        self.random = Random(seed, self.device)
        if loop.marginals:
            model.begin_at_marginals(self.train_data.x)
        self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(loop.ema)) if loop.ema else None
        self.judged = self.averaged.module if loop.ema else model  # valid is judged by it, and its weights are kept
        self.descents = {}  # name of an update -> Descent, made when the model first yields the name
        self.resumed = None  # name -> the state of its Descent, of a training that is resumed
        self.losses = {}  # name -> losses since the last evaluation
        self.history, self.best = History(), None
        self.began, self.saved = time.perf_counter(), -math.inf
        model.train()

    # ---- one step ----------------------------------------------------------------------------------------------------

    def step(self):
        n = torch.randint(len(self.train_data), (self.loop.batch,), generator=self.random.noise).to(self.device)
        x, y = self.train_data.batch(n, self.random.noise)
        if self.loop.shift:
            x = shifted(x, self.loop.shift, self.random.noise)
        names, updates = set(), self.model.updates(Batch(x, y))
        while (update := self._next(updates)) is not None:
            name, loss, parameters = update
            self._descent(name, list(parameters)).step(loss)
            self.losses.setdefault(name, []).append(loss.detach())
            names.add(name)
        expected = self.descents.keys() | (self.resumed or {}).keys()
        if not names or names != expected:
            raise ValueError(f"updates must yield the same names at each step, {sorted(expected)}, got {sorted(names)}")
        for descent in self.descents.values():
            descent.schedule.step()
        if self.averaged:
            self.averaged.update_parameters(self.model)
        self.history.last += 1

    def _next(self, updates):
        """The next update, its loss computed in the precision to learn from; None after the last."""
        dtype = PRECISIONS[self.loop.precision]
        with torch.autocast(self.device.type, dtype) if dtype else contextlib.nullcontext():
            return next(updates, None)

    def _descent(self, name, parameters):
        if name not in self.descents:
            if self.history.last and name not in (self.resumed or {}):
                raise ValueError(f"updates must yield the same names at each step, got {name!r} first at a later one")
            self.descents[name] = Descent(parameters, self.loop, self.device)
            if self.resumed:
                self.descents[name].load_state_dict(self.resumed[name])
        if list(map(id, parameters)) != list(map(id, self.descents[name].parameters)):
            raise ValueError(f"updates must yield the same parameters for {name!r} at each step")
        return self.descents[name]

    # ---- the loop ----------------------------------------------------------------------------------------------------

    def train(self, resume=False):
        """All steps that are left, with the best weights in the model at the end -> History"""
        if resume:
            self._load()
            self.model.train()  # again: what rests may depend on what was loaded
        total, history = self.loop.steps, self.history
        bar = dict(total=total, initial=history.last, unit="step", mininterval=0.1 if sys.stderr.isatty() else 10)
        with (
            tqdm(disable=not self.progress, dynamic_ncols=True, **bar) as bar,
            open(Path(self.run) / "metrics.jsonl" if self.run else os.devnull, "w", buffering=1) as metrics,
            between_steps() as interrupts,
        ):
            metrics.writelines(json.dumps(row) + "\n" for row in [*self.before, *history.rows])
            while history.last < total and not history.stopped:
                self.step()
                bar.update()
                evaluated = history.last % self.loop.every == 0 or history.last == total
                if not (evaluated or interrupts or time.perf_counter() - self.saved > SAVE_EVERY):
                    continue
                row = self._row(evaluated)
                if evaluated:
                    self._judge(row)
                    metrics.write(json.dumps(row) + "\n")
                    bar.set_postfix_str(self._progress(row), refresh=False)
                self._save(bool(interrupts))
                if self.watch and evaluated:
                    with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
                        self.watch(row, self.judged)
                self.model.train()  # here, not at each step: to tell all modules takes 30 to 170 us
        self.model.load_state_dict(self.best)
        self.model.eval()
        return history

    def _row(self, evaluated):
        """The losses since the last evaluation; at one, the loss on valid and the model's report. All are finite."""
        stage = {"stage": self.metadata["stage"]} if "stage" in self.metadata else {}
        row = dict(**stage, step=self.history.last)
        row |= {_in_metrics(name): torch.stack(losses).mean().item() for name, losses in self.losses.items()}
        if evaluated:
            row |= self._on_valid() | dict(seconds=round(time.perf_counter() - self.began, 2))
            row |= self.judged.report(self.valid_data.x, self.valid_data.y if self.model.takes_y else None)
        losses = {name: row[name] for name in (*map(_in_metrics, self.losses), "valid") if name in row}
        if not math.isfinite(sum(losses.values())):
            saved = self.saved > -math.inf  # by this training
            if self.run and saved and self.best is None:  # resuming from such a state would fail in the same way
                (Path(self.run) / "run.json").unlink(missing_ok=True)
            raise FloatingPointError(self._not_finite(losses))
        return row

    def _on_valid(self):
        """{"valid": what the weights are judged by, ...} and what `measure` adds, or puts in its place."""
        self.judged.eval()
        with torch.no_grad():
            y = self.valid_data.y if self.model.takes_y else None
            row = {"valid": self.judged.valid_loss(self.valid_data.x, y)}
        return row | (self.measure(self.judged) if self.measure else {})

    def _judge(self, row):
        """Keep the weights if they are the best so far; stop if patience is at its end."""
        self.losses.clear()
        self.history.rows.append(row)
        warning = self.judged.warning(self.history.rows)
        if warning:
            row["warning"] = warning
            if self.progress and not any("warning" in before for before in self.history.rows[:-1]):
                tqdm.write(f"warning   step {row['step']}: {warning}", file=sys.stderr)
        if row["valid"] < self.history.valid:
            self._keep(row["valid"])
        waited = sum(row["step"] > self.history.step for row in self.history.rows)
        if self.loop.patience and waited >= self.loop.patience:
            self.history.stopped = "early"

    def _keep(self, valid):
        self.history.step, self.history.valid = self.history.last, valid
        self.best = {name: tensor.clone() for name, tensor in self.judged.state_dict().items()}

    def _progress(self, row):
        losses = "  ".join(f"{name} {short(row[name])}" for name in row if name.startswith("train") or name == "valid")
        return f"{losses}  best {short(self.history.valid)} {self.model.unit}"

    def _not_finite(self, losses):
        kept = "nothing was kept"
        if self.history.step:
            kept = f"the weights of step {self.history.step} (valid {short(self.history.valid)}) are kept"
            kept += f" in {self.run}" if self.run else ""
        losses = ", ".join(f"{name} {value}" for name, value in losses.items())
        return f"the loss is no longer finite at step {self.history.last} ({losses}): {kept}; a lower rate may help"

    # ---- what a run keeps --------------------------------------------------------------------------------------------

    def _save(self, interrupted):
        history = self.history
        ends = history.last == self.loop.steps or history.stopped
        state = None if ends else self._state()
        if interrupted and not ends:
            history.stopped = "interrupted"
            if self.best is None:  # before the first evaluation; the state that is saved does not hold this one
                self._keep(self._on_valid()["valid"])
        if self.run:
            kept = {"step": history.step or history.last, "valid": history.valid if self.best else None}
            metadata = {"data": self.train_data.name, **self.metadata, **kept}
            checkpoint.save(self.run, self.model, metadata, self.best or self.judged.state_dict(), state)
        self.saved = time.perf_counter()

    def _parts(self):
        parts = {"model": self.model, "random": self.random}
        return parts | ({"averaged": self.averaged} if self.averaged else {})

    def _state(self):
        history = self.history
        return {
            "step": history.last, "best": [history.step, history.valid] if self.best else None,
            "before": self.before, "rows": history.rows, "seconds": time.perf_counter() - self.began,
            "losses": {name: torch.stack(losses) for name, losses in self.losses.items()},
            "descents": {name: descent.state_dict() for name, descent in self.descents.items()},
            **{name: part.state_dict() for name, part in self._parts().items()},
        }

    def _load(self):
        state, weights = checkpoint.load_state(self.run)
        if state is None:
            raise ValueError(f"the training in {self.run} is at its end: there is nothing to resume")
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        if state["best"]:
            self.history.step, self.history.valid = state["best"]
            self.best = {name: tensor.to(self.device) for name, tensor in weights.items()}
        self.before, self.history.rows, self.history.last = state["before"], state["rows"], state["step"]
        self.losses = {name: list(losses.to(self.device)) for name, losses in state["losses"].items()}
        self.resumed = state["descents"]
        self.began -= state["seconds"]


def shifted(x, share, noise):
    """(N, ..., H, W): with this probability the batch moves by one pixel, up, down, left or right; zeros enter."""
    if torch.rand((), generator=noise) >= share:
        return x
    top, left = [(0, 1), (2, 1), (1, 0), (1, 2)][torch.randint(4, (), generator=noise)]
    return F.pad(x, (1, 1, 1, 1))[..., top : top + x.shape[-2], left : left + x.shape[-1]]


def short(loss):
    """The loss in a few digits: two after the point, or of a small one its first two."""
    return f"{loss:.2f}" if loss == 0 or abs(loss) >= 0.1 else f"{loss:.2g}"


def _in_metrics(name):
    """The name of an update -> that of its mean loss in the metrics."""
    return "train" if name == "loss" else f"train {name}"
