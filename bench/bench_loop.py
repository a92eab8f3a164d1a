"""Time what the loop of `genmini train` adds to a step: batches, checks, metrics, evaluations and the run's folder.

A bare step has the loss, its gradients, their clip, AdamW and the fall of its rate, as one writes them in PyTorch, on
the same batch each time. The loop makes as many steps as lie between two evaluations, then one evaluation on valid, and
saves the run twice, as any training does after its first step and at an evaluation. Times are of one step.
"""

import copy
import tempfile
from dataclasses import replace

import torch
from measure import row, times

from genmini import experiment
from genmini.loop import Loop, Training

THREADS = (1,)  # as the recipes say
CASES = [("vae", "digits-levels"), ("vae", "digits")]


def bare(model, x, loop):
    parameters = list(model.parameters())
    optimiser = torch.optim.AdamW(parameters, loop.rate, loop.betas, weight_decay=loop.decay, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, loop.steps)
    for _ in range(loop.steps):
        optimiser.zero_grad()
        model.loss(x).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, loop.clip)
        optimiser.step()
        schedule.step()


def rows():
    for name, key in CASES:
        plan = experiment.plan(name, "digits" if key == "digits-levels" else "digits-threshold", key)
        splits = experiment.splits(plan)
        loop = Loop(**plan.loops[0])
        loop = replace(loop, steps=loop.every)
        model = experiment.build(plan, splits["train"])
        other = copy.deepcopy(model)
        x = splits["train"].x[: loop.batch]

        def in_the_loop(model=model, splits=splits, loop=loop):
            how = dict(seed=0, watch=None, measure=None, progress=False)
            with tempfile.TemporaryDirectory() as run:
                Training(model, splits["train"], splits["valid"], loop, {}, run=run, **how).train()

        calls = {"the step alone": lambda other=other, x=x, loop=loop: bare(other, x, loop), "genmini": in_the_loop}
        took = {who: (*(ms / loop.steps for ms in time), held) for who, (*time, held) in times(calls).items()}
        for who, time in took.items():
            yield row("loop", f"{name} {key}, {loop.batch} images", "step", who, time, beside=took["the step alone"][0])
