"""Whether a module answers and learns as another does: float64 judges both."""

import contextlib
import copy

import torch
from check import error, fair

from genmini.swap import gate


def run(module, x):
    """Outputs, and gradients of a sum of them"""
    module.zero_grad()
    x = x.clone().requires_grad_()
    leaves = gate.leaves_of(module(x))
    sum((leaf * torch.linspace(1, 2, leaf.numel(), dtype=leaf.dtype).view(leaf.shape)).sum()
        for leaf in leaves if leaf.requires_grad).backward()
    return [*leaves, x.grad, *(p.grad for p in module.parameters() if p.requires_grad)]


@contextlib.contextmanager
def making(dtype):
    """Inside, the numbers that a forward makes itself are of this dtype."""
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def agree(module, other, x):
    """The module is at most twice as wrong as the other, which float64 judges."""
    @making(torch.float64)
    def exact(x):
        return run(gate_copy(other).double(), x.double())

    beside = lambda: ((1 + (torch.rand_like(x) - 0.5) / 32) * x for _ in range(32))
    for i, (got, theirs, truth) in enumerate(zip(run(module, x), run(other, x), exact(x), strict=True)):
        near = lambda: (error(run(other, x)[i], exact(x)[i]) for x in beside())  # noqa: B023
        fair(got, truth, theirs, x.dtype, f"number {i}", near)


def learn_the_same(module, other, exact, shape):
    """20 steps of Adam leave the module at most twice as far from where float64 goes as the other."""
    for one, dtype in ((module, torch.float32), (other, torch.float32), (exact, torch.float64)):
        torch.manual_seed(0)
        optimiser = torch.optim.Adam([p for p in one.parameters() if p.requires_grad], lr=0.01)
        for _ in range(20):
            x = torch.randn(shape).to(dtype)
            optimiser.zero_grad()
            with making(dtype):
                leaves = gate.leaves_of(one(x))
            sum(leaf.square().mean() for leaf in leaves if leaf.requires_grad).backward()
            optimiser.step()
    for (name, got), theirs, truth in zip(module.state_dict().items(), other.state_dict().values(),
                                          exact.state_dict().values(), strict=True):
        fair(got, truth, theirs, torch.float32, name)


def gate_copy(module):
    """As copy.deepcopy, which the older weight_norm refuses"""
    memo = {id(t): t.detach().clone() for t in vars(module).values() if isinstance(t, torch.Tensor)}
    return copy.deepcopy(module, memo)
