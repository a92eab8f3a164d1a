"""The loop that every model of one loss shares: minimise it on train, keep the weights that are best on valid.

    model = MADE(train.shape)
    history = fit(model, train, valid, steps=1000, run="runs/made")        # the model is now the best one seen
    nll, error = evaluate(model, test)                                     # nats, and the standard error of their mean

The loss of an example is -log p(x), by the model's `log_prob(x)`, or what its `loss(x)` says in its place, counted in the model's `unit`
(nats, unless it says otherwise). A model with `classes` is told the class too. A model may `report()` numbers of its own, {name: number}:
they stand in the metrics beside the losses. A model with `stages` learns one part of itself after another: `fit_in_stages`.
"""

import contextlib
import json
import math
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from genmini import checkpoint

SAVE_EVERY = 30  # seconds; also after the first step, and at every evaluation
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class History:
    step: int = 0  # of the best weights; 0: there was no evaluation yet
    valid: float = math.inf  # their loss
    rows: list = field(default_factory=list)  # one dict an evaluation
    last: int = 0  # the step that the training came to
    stopped: str = ""  # why, if before its end: "interrupted" or "early"


def fit(model, train, valid, *, steps, batch=64, rate=1e-3, decay=0.0, clip=5.0, shift=0.0, ema=0.0, patience=0, precision="float32",
        every=100, seed=0, run=None, about=None, watch=None, resume=False, progress=True, before=()):  # fmt: skip
    """Adam with a cosine from `rate` to 0, weight `decay`, gradients clipped to the norm `clip`; `shift`: the share of batches that move.

    Every `every` steps the loss on valid is taken, and watch(row, model) is called; the best weights stay, in the model and in `run`. With
    `ema` they are those of the moving average of the weights that keeps so much of itself at a step. After `patience` evaluations without
    a better one (0: never) the training stops. precision: in which log_prob is computed, under autocast, to learn from; never to judge.

    The same seed gives the same model; so does `resume`, which continues the training in `run`. Ctrl-C ends it after the step at hand, a
    second one at once. A loss that is not finite stops it with FloatingPointError. before: rows that stand first in the metrics.
    """
    _same_kind(model, train, valid)
    _check_settings(dict(steps=steps, batch=batch, every=every), dict(rate=rate, clip=clip), shift, ema, patience, precision, train)
    device = next(model.parameters()).device
    train, valid = train.to(device), valid.to(device)
    random = Random(seed, device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema)) if ema else None
    judged = averaged.module if ema else model  # its loss on valid counts, its weights are kept
    moving = {"model": model, "optimiser": optimiser, "schedule": schedule, "scaler": scaler, "random": random}
    moving |= {"averaged": averaged} if ema else {}
    history, best, seen, since, saved = History(), None, [], time.perf_counter(), -math.inf
    stage = {"stage": about["stage"]} if about and "stage" in about else {}

    def state(step):
        return {
            "step": step, "best": [history.step, history.valid] if best else None, "before": list(before), "rows": history.rows,
            "seconds": time.perf_counter() - since, "losses": torch.stack(seen) if seen else None,
            **{name: part.state_dict() for name, part in moving.items()},
        }  # fmt: skip

    def save(now):
        nonlocal saved
        if run:
            kept = {"step": history.step or history.last, "valid": history.valid if best else None}
            checkpoint.save(run, model, {"data": train.name, **(about or {}), **kept}, best or judged.state_dict(), now)
        saved = time.perf_counter()

    def keep(step, loss):
        nonlocal best
        history.step, history.valid = step, loss
        best = {name: tensor.clone() for name, tensor in judged.state_dict().items()}

    if resume:
        was, weights = checkpoint.load_state(run)
        if was is None:
            raise ValueError(f"the training in {run} is at its end: there is nothing to resume")
        for name, part in moving.items():
            part.load_state_dict(was[name])
        if was["best"]:
            history.step, history.valid = was["best"]
            best = {name: tensor.to(device) for name, tensor in weights.items()}
        before, history.rows, history.last, since = was.get("before", ()), was["rows"], was["step"], since - was["seconds"]
        seen = [] if was["losses"] is None else list(was["losses"].to(device))

    if run:
        Path(run).mkdir(parents=True, exist_ok=True)
    at = dict(total=steps, initial=history.last, unit="step", mininterval=0.1 if sys.stderr.isatty() else 10, dynamic_ncols=True)
    with (
        tqdm(disable=not progress, **at) as bar,
        open(Path(run) / "metrics.jsonl" if run else os.devnull, "w", buffering=1) as metrics,
        _between_steps() as interrupted,
    ):
        metrics.writelines(json.dumps(row) + "\n" for row in [*before, *history.rows])
        for step in range(history.last + 1, steps + 1):
            n = torch.randint(len(train), (batch,), generator=random.noise).to(device)
            x = train.batch(n, random.noise)
            if shift:
                x = shifted(x, shift, random.noise)
            model.train()
            with torch.autocast(device.type, PRECISIONS[precision]) if PRECISIONS[precision] else contextlib.nullcontext():
                loss = losses(model, x, train.y[n]).mean()
            optimiser.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimiser)
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            scaler.step(optimiser)
            scaler.update()
            schedule.step()
            if ema:
                averaged.update_parameters(model)
            seen.append(loss.detach())
            history.last = step
            bar.update()

            evaluated = step % every == 0 or step == steps
            if not (evaluated or interrupted or time.perf_counter() - saved > SAVE_EVERY):
                continue
            row = dict(**stage, step=step, train=torch.stack(seen).mean().item())
            if evaluated:
                row |= dict(valid=judge(judged, valid.x, valid.y).mean().item(), seconds=round(time.perf_counter() - since, 2))
                row |= judged.report() if hasattr(judged, "report") else {}
            if not math.isfinite(row["train"] + row.get("valid", 0)):
                if run and best is None:  # a state saved on the way would, resumed, come to the same end
                    (Path(run) / "run.json").unlink(missing_ok=True)
                raise FloatingPointError(_not_finite(row, history, run))
            if evaluated:
                seen.clear()
                history.rows.append(row)
                metrics.write(json.dumps(row) + "\n")
                if row["valid"] < history.valid:
                    keep(step, row["valid"])
                if patience and sum(each["step"] > history.step for each in history.rows) >= patience:
                    history.stopped = "early"
                bar.set_postfix_str(f"train {row['train']:.2f}  valid {row['valid']:.2f}  best {history.valid:.2f} {unit(model)}", refresh=False)
            ends = step == steps or history.stopped
            now = None if ends else state(step)
            if interrupted and not ends:
                history.stopped = "interrupted"
                if best is None:  # before the first evaluation; the state that is saved knows nothing of this one
                    keep(step, judge(judged, valid.x, valid.y).mean().item())
            save(now)
            if watch and evaluated:
                with torch.random.fork_rng([device] if device.type == "cuda" else []):
                    watch(row, judged)
            if history.stopped:
                break
    model.load_state_dict(best)
    model.eval()
    return history


def fit_in_stages(model, train, valid, loops, *, run=None, about=None, resume=False, **rest):
    """One `fit` a stage of the model, with the settings `loops` has for it, each from the best weights of the one before; model.begin(stage,
    train) says what is learnt in it, and by which loss. `resume` continues the stage that was interrupted.   -> the History of the last one"""
    said = checkpoint.read(run) if resume else {}
    for i, (stage, loop) in enumerate(zip(model.stages, loops, strict=True)):
        if said.get("stage", stage) != stage:
            continue  # the run is further
        if said and "state" not in said:  # it came to the end of this one
            model.load_state_dict(checkpoint.load(run).state_dict())
            said = {}
            continue
        model.begin(stage, train)
        here = {**(about or {}), "stage": stage, "then": model.stages[i + 1 :]}
        rows = [json.loads(row) for row in (Path(run) / "metrics.jsonl").read_text().splitlines()] if run and i else []
        history = fit(model, train, valid, **loop, run=run, about=here, resume=bool(said), before=rows, **rest)
        said = {}
        if history.stopped == "interrupted":
            break
    return history


class Random:
    """All randomness of a training: which images, by a generator of its own; dropout and dequantisation, by those of PyTorch."""

    def __init__(self, seed, device):
        self.noise, self.device = torch.Generator().manual_seed(seed), device
        torch.manual_seed(seed)

    def state_dict(self):
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        return {"noise": self.noise.get_state(), "cpu": torch.get_rng_state(), "cuda": cuda}

    def load_state_dict(self, state):
        self.noise.set_state(state["noise"])
        torch.set_rng_state(state["cpu"])
        if state["cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], self.device)


@contextlib.contextmanager
def _between_steps():
    """-> a list, empty until Ctrl-C: the first one is a wish, read between two steps; the second one is KeyboardInterrupt."""
    wishes = []

    def wish(*_):
        if wishes:
            raise KeyboardInterrupt
        wishes.append(True)

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield wishes  # another's handler, or a job in the background, which Ctrl-C is not for
        return
    signal.signal(signal.SIGINT, wish)
    try:
        yield wishes
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def fit_at_once(model, train, valid, *, run=None, about=None, **settings):
    """The same for a model that has a `fit` of its own, and needs no loop (AR)."""
    _same_kind(model, train, valid)
    since = time.perf_counter()
    model.fit(train.x, **settings)
    row = dict(step=1, train=evaluate(model, train)[0], valid=evaluate(model, valid)[0], seconds=round(time.perf_counter() - since, 2))
    if run:
        checkpoint.save(run, model, {"data": train.name, **(about or {}), "step": 1, "valid": row["valid"]})
        (Path(run) / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    model.eval()
    return History(step=1, valid=row["valid"], rows=[row])


def shifted(x, share, noise):
    """(N, ..., H, W): with this probability the whole batch moves by one pixel, up, down, left or right; zeros enter."""
    if torch.rand((), generator=noise) >= share:
        return x
    top, left = [(0, 1), (2, 1), (1, 0), (1, 2)][torch.randint(4, (), generator=noise)]
    return F.pad(x, (1, 1, 1, 1))[..., top : top + x.shape[-2], left : left + x.shape[-1]]


def losses(model, x, y=None):
    """What is minimised, (N,): the model's own `loss`, or -log p(x); of x given y, for a model with classes."""
    given = () if y is None else _class(model, y)
    return model.loss(x, *given) if hasattr(model, "loss") else -model.log_prob(x, *given)


@torch.no_grad()
def judge(model, x, y=None, batch=1000):
    """The same of a model in eval mode, a batch at a time."""
    model.eval()
    parts = [None] * len(x.split(batch)) if y is None else y.split(batch)
    return torch.cat([losses(model, part, of_it) for part, of_it in zip(x.split(batch), parts, strict=True)])


def unit(model):
    return getattr(model, "unit", "nats")


def _class(model, y):
    """What a loss takes beside x: the class, if the model has classes."""
    return (y,) if getattr(model, "classes", 0) else ()


def evaluate(model, data):
    """Mean of the loss, and the standard error of that mean; over the numbers x_t given those before, if x is a series."""
    _same_kind(model, data)
    device = next(model.parameters()).device
    if hasattr(model, "log_prob_each"):
        values = -model.log_prob_each(data.x.to(device)).detach().flatten().double()
    else:
        values = judge(model, data.x.to(device), data.y.to(device)).double()
    return values.mean().item(), (values.std() / math.sqrt(len(values))).item()


def _same_kind(model, *sets):
    for data in sets:
        fits = len(model.shape) == len(data.shape) and all(a in (b, None) for a, b in zip(model.shape, data.shape, strict=True))
        if not fits or model.levels != data.levels:  # a side None of the model takes any length
            takes, has = (f"{tuple(some.shape)} with {some.levels} levels" for some in (model, data))
            raise ValueError(f"the model takes {takes}, and {data.name} has {has}")


def _check_settings(counts, sizes, shift, ema, patience, precision, train):
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    for name, value in sizes.items():
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")
    if not 0 <= ema < 1 or patience < 0:
        raise ValueError(f"ema must be at least 0 and below 1, and patience at least 0, got {ema} and {patience}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if shift and len(train.shape) < 2:
        raise ValueError(f"shift moves images, and {train.name} holds rows of shape {train.shape}")


def _not_finite(row, history, run):
    kept = "nothing was kept"
    if history.step:
        kept = f"the weights of step {history.step} (valid {history.valid:.2f}) are kept" + (f" in {run}" if run else "")
    losses = ", ".join(f"{name} {row[name]}" for name in ("train", "valid") if name in row)
    return f"the loss is no longer finite at step {row['step']} ({losses}): {kept}; a lower rate may help"
