"""The loop that every likelihood model shares: minimise -log p(x) on train, keep the weights that are best on valid.

    model = MADE(train.shape)
    history = fit(model, train, valid, steps=1000, run="runs/made")        # the model is now the best one seen
    nll, error = evaluate(model, test)                                     # nats, and the standard error of their mean
"""

import json
import math
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from genmini import checkpoint


@dataclass
class History:
    step: int = 0  # of the best weights
    valid: float = math.inf  # their loss, nats
    interrupted: bool = False
    rows: list = field(default_factory=list)  # one dict an evaluation


def fit(model, train, valid, *, steps, batch=64, rate=1e-3, decay=0.0, clip=5.0, shift=0.0, every=100, seed=0,
        run=None, about=None, progress=True):  # fmt: skip
    """Adam with a cosine from `rate` to 0, weight `decay`, gradients clipped to the norm `clip`; `shift`: the share of batches that move.

    Every `every` steps the loss on valid is taken; the best weights are kept, and saved in `run` as they come. Ctrl-C ends the training
    early, with what is best so far. A loss that is not finite stops it with FloatingPointError. The same seed gives the same model.
    """
    _same_kind(model, train, valid)
    for name, value in dict(steps=steps, batch=batch, every=every).items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if shift and len(train.shape) < 2:
        raise ValueError(f"shift moves images, and {train.name} holds rows of shape {train.shape}")
    device = next(model.parameters()).device
    noise = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # of dropout
    train, valid = train.to(device), valid.to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    history, best, losses, since = History(), None, [], time.perf_counter()

    def keep(step, valid):
        nonlocal best
        history.step, history.valid = step, valid
        best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        save()

    def save():
        if run:
            checkpoint.save(run, model, {"data": train.name, **(about or {}), "step": history.step, "valid": history.valid})

    if run:
        Path(run).mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=steps, disable=not progress, unit="step", mininterval=0.1 if sys.stderr.isatty() else 10, dynamic_ncols=True)
    with bar, open(Path(run) / "metrics.jsonl" if run else os.devnull, "w", buffering=1) as metrics:
        try:
            for step in range(1, steps + 1):
                n = torch.randint(len(train), (batch,), generator=noise).to(device)
                x = train.batch(n, noise)
                if shift:
                    x = shifted(x, shift, noise)
                model.train()
                loss = -model.log_prob(x, *_class(model, train.y[n])).mean()
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimiser.step()
                schedule.step()
                losses.append(loss.detach())
                bar.update()
                if step % every and step != steps:
                    continue
                row = dict(step=step, train=torch.stack(losses).mean().item(), valid=nll(model, valid.x, valid.y).mean().item())
                row["seconds"] = round(time.perf_counter() - since, 2)
                losses.clear()
                if not math.isfinite(row["train"] + row["valid"]):
                    raise FloatingPointError(_not_finite(row, history, run))
                history.rows.append(row)
                metrics.write(json.dumps(row) + "\n")
                if row["valid"] < history.valid:
                    keep(step, row["valid"])
                bar.set_postfix_str(f"train {row['train']:.2f}  valid {row['valid']:.2f}  best {history.valid:.2f} nats", refresh=False)
        except KeyboardInterrupt:
            history.interrupted = True
            if best is None:  # before the first evaluation
                keep(step, nll(model, valid.x, valid.y).mean().item())
    if best is not None:
        model.load_state_dict(best)
    if history.interrupted:
        save()  # the interrupt may have fallen into the last one
    model.eval()
    return history


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


@torch.no_grad()
def nll(model, x, y=None, batch=1000):
    """-log p(x), or -log p(x | y) for a model with classes, (N,) in nats, with the model in eval mode."""
    model.eval()
    given = [()] * len(x.split(batch)) if y is None else [_class(model, part) for part in y.split(batch)]
    return torch.cat([-model.log_prob(part, *c) for part, c in zip(x.split(batch), given, strict=True)])


def _class(model, y):
    """What log_prob takes beside x: the class, if the model has classes."""
    return (y,) if getattr(model, "classes", 0) else ()


def evaluate(model, data):
    """Mean of -log p in nats, and the standard error of that mean; over the numbers x_t given those before, if x is a series."""
    _same_kind(model, data)
    device = next(model.parameters()).device
    if hasattr(model, "log_prob_each"):
        values = -model.log_prob_each(data.x.to(device)).detach().flatten().double()
    else:
        values = nll(model, data.x.to(device), data.y.to(device)).double()
    return values.mean().item(), (values.std() / math.sqrt(len(values))).item()


def _same_kind(model, *sets):
    for data in sets:
        fits = len(model.shape) == len(data.shape) and all(a in (b, None) for a, b in zip(model.shape, data.shape, strict=True))
        if not fits or model.levels != data.levels:  # a side None of the model takes any length
            takes, has = (f"{tuple(some.shape)} with {some.levels} levels" for some in (model, data))
            raise ValueError(f"the model takes {takes}, and {data.name} has {has}")


def _not_finite(row, history, run):
    kept = "nothing was kept"
    if history.step:
        kept = f"the weights of step {history.step} (valid {history.valid:.2f}) are kept" + (f" in {run}" if run else "")
    return f"the loss is no longer finite at step {row['step']} (train {row['train']}, valid {row['valid']}): {kept}; a lower rate may help"
