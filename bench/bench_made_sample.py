"""Drawing from MADE beside one pass a pixel, which is how everybody draws from it. Room: kernels/made_sample.py

Two naive samplers: the model's own passes (masked_linear skips the dead half of the weights), and plain dense layers whose weights were
masked once, before the clock starts. The ratio is to the faster one. How much PyTorch's allocator held is in the case of the row, in MB.
"""

import torch
import torch.nn.functional as F
from measure import DEVICE, GPU, peak, row, times

from genmini import kernels, ops
from genmini.models.made import MADE

CASES = [(64, 784, (1000, 1000), 2), (1, 784, (500,), 2), (100, 64, (500,), 17)] + ([(1000, 784, (1000, 1000), 2)] if GPU else [])


@torch.no_grad()
def dense(model):
    """A sampler that passes through dense layers."""
    layers = [(layer.weight.masked_fill(~mask, 0), layer.bias) for layer, mask in zip((*model.W, model.V), masks(model), strict=True)]
    each = model.levels if model.levels > 2 else 1

    def sample(u):
        x = torch.zeros(len(u), model.D, model.levels - 1, device=u.device)
        levels = torch.arange(model.levels - 1, device=u.device)
        for d in range(model.D):
            z = x.flatten(1)
            for W, b in layers[:-1]:
                z = F.relu(F.linear(z, W, b))
            W, b = (a[each * d : each * (d + 1)] for a in layers[-1])  # of the outputs, those of pixel d alone
            l = F.linear(z, W, b)
            below = torch.sigmoid(-l) if each == 1 else l.softmax(1).cumsum(1)[:, :-1]
            x[:, d] = (u[:, d, None] >= below).sum(1)[:, None] > levels
        return x.sum(2).to(torch.uint8)

    return torch.no_grad()(sample)


def masks(model):
    m, d = model._degrees(0)
    return [m_j[:, None] >= m_k for m_k, m_j in zip(m, m[1:], strict=False)] + [d[:, None] > m[-1]]


def rows():
    for N, D, hidden, L in CASES:
        torch.manual_seed(0)
        model = MADE(D, hidden, L).to(DEVICE)
        u, masked = torch.rand(N, D, device=DEVICE), dense(model)
        naive = {"PyTorch, own passes": lambda: model.sample_naive(N, u), "PyTorch, dense": lambda: masked(u)}
        functions = naive | {f"genmini {rung}": in_rung(model, N, u, rung) for rung in (kernels.rungs("made_sample") if GPU else ("cpu",))}
        layers = [*model.W, model.V]
        weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
        x, l = ops.made_sample(u, weights, biases, model._degrees(0)[0][1:], L, logits=True)
        error = (l - model.double().logits(x)).abs().max().item()
        exact = model.sample_naive(N, u)
        model.float()
        for name, function in functions.items():  # a wrong kernel is not timed
            differ = (function() != exact).any(1).sum()  # float32: u may fall between two roundings of a probability
            assert differ <= N // 20, (name, differ)
        operations = 2 * N * sum(mask.sum().item() for mask in masks(model))
        held = {name: peak(function) / 1e6 for name, function in functions.items()}
        took = times(functions, seconds=1.0, rounds=3)
        fastest = min(took[name][0] for name in naive)
        for name, time in took.items():
            case = f"N={N} D={D} H={'x'.join(map(str, hidden))} L={L}, holds {held[name]:.1f} MB"
            ours = name.startswith("genmini")
            yield row("made_sample", case, "sample", name, time, operations=operations, error=error if ours else None, beside=fastest)


def in_rung(model, N, u, rung):
    def call():
        with kernels.use("auto", rung if GPU else None):
            return model.sample(N, u)

    return call
