"""What calls of masked_linear (kernels/masked_linear.py) hold on a CPU: never more than F.linear(x, W * M, b)."""

import pytest
import torch
import torch.nn.functional as F
from genmini.kernels import masked_linear as room

from genmini import kernels, limits, ops


def held(call):
    """The most bytes that a call holds above what was held before, of three calls: plans are made along the second."""
    call()  # masks are computed once, and kept
    most = 0
    for _ in range(3):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
            call()
        most = max(most, *(bytes for _, bytes in limits.allocations(profiler)))
    return most


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
@pytest.mark.parametrize("N, K, J", [(64, 784, 2048), (700, 784, 1024), (400, 1024, 1024), (150, 300, 500),
                                     (64, 64, 64), (1, 520, 2050)])
def test_no_call_holds_more_than_the_eager_form(N, K, J, order):
    in_degree, out_degree = (torch.arange(n) % (min(K, J) - 1) for n in (K, J))
    if order == "sorted":
        in_degree, out_degree = in_degree.sort().values, out_degree.sort().values
    else:
        in_degree, out_degree = in_degree * 11 % 97, out_degree * 7 % 97
    x, weight, bias, dy = (torch.ones(*shape) for shape in ((N, K), (J, K), (J,), (N, J)))
    M = room.mask(in_degree, out_degree, False).float()
    forms = [lambda x, w, b: F.linear(x, w * M, b), lambda x, w, b: ops.masked_linear(x, w, b, in_degree, out_degree)]

    def calls(form):
        moving = [a.clone().requires_grad_() for a in (x, weight, bias)]
        yield "forward", lambda: form(x, weight, bias)
        yield "both", lambda: torch.autograd.grad(form(*moving), moving, dy)
        yield "both, of the weights alone", lambda: torch.autograd.grad(form(x, *moving[1:]), moving[1:], dy)
        y = form(*moving)
        yield "backward", lambda: torch.autograd.grad(y, moving, dy, retain_graph=True)

    with kernels.use("cpu"):
        for (name, eager), (_, ours) in zip(*map(calls, forms), strict=True):
            most, got = held(eager), held(ours)
            assert got <= most, f"{name}: {got} bytes, and {most} of the eager form"
