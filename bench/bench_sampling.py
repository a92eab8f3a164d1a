"""Time drawing samples from whole models, of recipes and with weights as in bench_steps.py, beside plain PyTorch.

What draws number after number is set beside a pass of the network for each number; all else beside itself without
rooms (bench/peers/plain.py). All draw by the same noise, and must draw the same before they are timed. `error` is the
share of the images that differ, because noise lay between two roundings of a probability. MADE, PixelCNN and NADE have
benches of their own, bench_made_sample.py and its like.
"""

import torch
from bench_steps import of_recipe
from measure import row, times
from peers import plain

MOST = 0.1  # of the images may differ


def pass_a_number(model, n):
    return model.sample_naive(n)


def pass_a_code(model, n):
    """VQ-VAE, whose prior takes a pass for each code"""
    a = model._logits(model.codebook.weight[model.prior.sample_naive(n).long()])
    return model.p.draw(a, torch.rand(len(a), *a.shape[2:], device=a.device)).reshape(n, *model.shape)


def itself(model, n):
    return model.sample(n)


CASES = [("realnvp", "digits", 64, itself), ("realnvp", "mnist", 16, itself), ("diffusion", "digits", 16, itself),
         ("vqvae", "mnist", 16, pass_a_code), ("pixelrnn", "digits", 16, pass_a_number)]


def rows():
    for name, key, n, other in CASES:
        model = of_recipe(name, key)[0].eval()
        if "prior" in model.stages:
            model.with_prior.fill_(True)

        def ours(model=model, n=n):
            torch.manual_seed(1)
            return model.sample(n)

        @torch.no_grad()
        def theirs(model=model, n=n, other=other):
            torch.manual_seed(1)
            with plain.instead():
                return other(model, n)

        differ = (ours().double() - theirs().double()).abs().flatten(1).amax(1) > 1e-3
        assert differ.double().mean() <= MOST, (name, differ)
        what = "plain PyTorch" if other is itself else f"plain PyTorch, {other.__name__.replace('_', ' ')}"
        took = times({what: theirs, "genmini": ours}, rounds=3)
        for who, time in took.items():
            yield row("sampling", f"{name} {key}, {n} images", "sample", who, time,
                      error=differ.double().mean().item(), beside=took[what][0])
