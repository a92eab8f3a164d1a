"""Time drawing from MADE, and the usual draw, one pass for each pixel. Room: kernels/made_sample.py

The naive draw takes D passes; one pass is timed, beside our draw: a pass of the model itself (masked_linear skips the
dead half of the weights), and one of plain dense layers whose weights were masked before the clock starts, with the
outputs of one pixel alone. The ratio is to the faster one. The case of the row ends with the memory that PyTorch's
allocator holds, in MB, for each in this order and then for ours: for the naive draws at the last step, above the model
as it is (so that the masked weights of the dense layers count); for ours during the whole draw.
"""

import copy

import torch
import torch.nn.functional as F
from measure import DEVICE, GPU, in_rung, ours, peak, row, times

from genmini import ops
from genmini.models._levels import steps
from genmini.models.made import MADE

CASES = [(64, 784, (1000, 1000), 2), (1, 784, (500,), 2), (100, 64, (500,), 17)] + (
    [(1000, 784, (1000, 1000), 2)] if GPU else [])


def dense(model, x):
    """A pass through dense layers."""
    layers = [(layer.weight.masked_fill(~mask, 0), layer.bias)
              for layer, mask in zip((*model.W, model.V), masks(model), strict=True)]
    rows, z = len(model.V.bias) // model.D, steps(x, model.levels, torch.float32)

    def run():
        a = z
        for W, b in layers[:-1]:
            a = F.relu(F.linear(a, W, b))
        return F.linear(a, layers[-1][0][:rows], layers[-1][1][:rows])

    return torch.no_grad()(run)


def masks(model):
    m, d = model._degrees(0)
    return [m_j[:, None] >= m_k for m_k, m_j in zip(m, m[1:], strict=False)] + [d[:, None] > m[-1]]


def rows():
    for N, D, hidden, L in CASES:
        torch.manual_seed(0)
        model = MADE(D, hidden, L).to(DEVICE)
        model.requires_grad_(False)
        u, layers = torch.rand(N, D, device=DEVICE), [*model.W, model.V]
        weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
        x, l = ops.made_sample(u, weights, biases, model._degrees(0)[0][1:], L, logits=True)
        naive = {"PyTorch, own passes": lambda x=x, model=model: model.logits(x), "PyTorch, dense": dense(model, x)}
        draw = lambda model=model, N=N, u=u: model.sample(N, u=u)
        draws = {name: in_rung(draw, rung) for name, rung in ours("made_sample").items()}
        exact = copy.deepcopy(model).double().logits(x).to(l.dtype)
        error, below = ((l - exact).abs().max().item(),
                        exact.sigmoid().neg() + 1 if L == 2 else exact.softmax(2).cumsum(2)[..., :-1])
        wanted = (u[..., None] >= below.view(N, D, -1)).sum(2)
        for name, function in draws.items():  # a wrong kernel is not timed
            differ = (function() != wanted).any(1).sum()  # float32: u may fall between two roundings of a probability
            assert error < 1e-4 and differ <= N // 20, (name, error, differ)
        operations = 2 * N * sum(mask.sum().item() for mask in masks(model))
        functions = naive | draws
        held = {name: peak(function) / 1e6 for name, function in (
            functions | {"PyTorch, dense": lambda x=x, model=model: dense(model, x)()}).items()}
        took = times(functions, seconds=4.0)
        took |= {name: (*(D * t for t in took[name][:3]), took[name][3]) for name in naive}
        fastest = min(took[name][0] for name in naive)
        memory = " / ".join(f"{held[name]:.1f}" for name in took)
        for name, time in took.items():
            case = f"N={N} D={D} H={'x'.join(map(str, hidden))} L={L}, holds {memory} MB"
            yield row("made_sample", case, "sample", name, time, operations=operations,
                      error=error if name in draws else None, beside=fastest)
