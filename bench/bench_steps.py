"""Time a step of training (forward, backward, AdamW) beside the same network in plain PyTorch (bench/peers/plain.py),
and in another library's model where that can be made equal and is installed (bench/peers/steps.py).

Recipes' models and batches, of random levels: 8x8 for the digits, 28x28 for MNIST; or of points of the plane. All have
the same weights, and their losses must agree before they are timed. `error` is the largest difference of two losses.
"""

import copy

import torch
from measure import DEVICE, row, times
from peers import plain, steps

from genmini import models
from genmini.data import toys

CASES = [("made", "digits"), ("made", "mnist"), ("nade", "mnist"), ("pixelcnn", "digits"), ("pixelcnn", "mnist"),
         ("vae", "mnist"), ("vqvae", "digits"), ("vqvae", "mnist"), ("realnvp", "moons"), ("realnvp", "digits"),
         ("realnvp", "mnist"), ("realnvp", "paper"), ("diffusion", "digits"), ("diffusion", "mnist")]
LONG = [("realnvp", "paper")]  # seconds a step: one round, where all others have five or more


def of_recipe(name, key):
    """-> the model of a recipe, its weights away from those of the start, where many are 0; a batch of random levels,
    or points"""
    recipe = models.recipes(name)[key]
    points = recipe["data"] in toys.TOYS
    shape = (2,) if points else (28, 28) if recipe["data"].startswith("mnist") else (8, 8)
    levels = None if points else {"digits": 17, "mnist": 256}.get(recipe["data"], 2)
    torch.manual_seed(0)
    model = models.find(name)(shape, levels=levels, **recipe["model"]).to(DEVICE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    shape = recipe["train"]["batch"], *shape
    x = torch.randn(shape, device=DEVICE) if points else torch.randint(levels, shape, device=DEVICE)
    with torch.no_grad():
        model.loss(x)  # the first batch sets the actnorms of a flow
    return model, x


def step(model, x, loss=None):
    """A step of training, as a function. loss(x): a number; without it that of the model"""
    optimiser = torch.optim.AdamW(model.parameters(), 1e-5, fused=True)
    loss = loss or (lambda x: model.loss(x).mean())

    def call():
        optimiser.zero_grad()
        loss(x).backward()
        optimiser.step()

    return call


def loss(model, x):
    torch.manual_seed(1)
    return model.loss(x).detach()


def rows():
    for name, key in CASES:
        model, x = of_recipe(name, key)
        other, third = copy.deepcopy(model), copy.deepcopy(model)
        with plain.instead():
            wanted = loss(other, x)
        found = loss(model, x)
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
        ours, theirs = step(model, x), step(other, x)

        def in_plain_pytorch(theirs=theirs):
            with plain.instead():
                theirs()

        calls = {"plain PyTorch": in_plain_pytorch, "genmini": ours}
        library, build = steps.THEIRS.get((name, key), ("", None))
        if build and steps.installed(library):
            theirs, its_loss = build(third)
            torch.manual_seed(1)
            torch.testing.assert_close(its_loss(x).detach(), wanted.mean(), rtol=1e-3, atol=1e-3)
            calls[library] = step(theirs, x, its_loss)
        took = times(calls, seconds=0, rounds=1) if (name, key) in LONG else times(calls)
        for who, time in took.items():
            yield row("steps", f"{name} {key}, {len(x)} {'points' if x.dim() == 2 else 'images'}", "step", who, time,
                      error=(found - wanted).abs().max().item(), beside=took["plain PyTorch"][0])
