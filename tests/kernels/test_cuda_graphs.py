"""Each rung recorded in a CUDA graph: to replay it on other numbers gives the bits of a call. Run by `make gpu`."""

import pytest
import torch

from genmini import kernels, ops

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
N, D, K, L = 64, 48, 20, 7
OPERATORS = {  # {room: (its operator, shapes of the numbers that move, what stays)}
    "affine_coupling": (ops.affine_coupling, [(N, D)] * 3, ()),
    "spline_coupling": (ops.spline_coupling, [(N, D), (N, D, 23)], ()),
    "nearest_code": (ops.nearest_code, [(N, D), (K, D)], ()),
    "quantize": (ops.quantize_step, [(N, D), (K, D)], (torch.arange(N) % K,)),
    "code_stats": (ops.code_stats, [(N, D)], (torch.arange(N) % K, K)),
    "gaussian_kl": (ops.gaussian_kl, [(N, D)] * 3, ()),
    "group_norm_silu": (lambda x, gamma, beta: ops.group_norm_silu(x, 4, gamma, beta), [(N, 8, 5, 5), (8,), (8,)], ()),
    "info_nce": (ops.info_nce, [(N, D), (N, D), ()], ()),
    "masked_conv2d": (ops.masked_conv2d, [(N, 8, 6, 6), (16, 8, 3, 3), (16,)], ("B",)),
    "masked_linear": (ops.masked_linear, [(N, D), (K, D), (K,)], (torch.arange(D), torch.arange(K))),
    "softmax_nll": (ops.softmax_nll, [(N, L, 9)], (torch.arange(9 * N).view(N, 9) % L,)),
}
WITHOUT = {"nearest_code", "code_stats"}  # a gradient


def call(room, moving, rest):
    """Outputs, and the gradients of the sum of all that have one"""
    out = OPERATORS[room][0](*moving, *rest)
    outs = list(out) if isinstance(out, tuple) else [out]
    if room in WITHOUT:
        return outs
    moved = [one for one in outs if one.requires_grad]
    return [*outs, *torch.autograd.grad(moved, moving, [torch.ones_like(one) for one in moved])]


@pytest.mark.parametrize("room, rung", [(room, rung) for room in OPERATORS for rung in kernels.rungs(room)])
def test_a_graph_replays_a_rung(room, rung):
    draws = lambda: [torch.randn(shape, device="cuda") for shape in OPERATORS[room][1]]
    moving, others = draws(), draws()
    rest = [a.cuda() if isinstance(a, torch.Tensor) else a for a in OPERATORS[room][2]]
    for tensor in moving if room not in WITHOUT else ():
        tensor.requires_grad_()
    with kernels.use("auto", rung):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            call(room, moving, rest)  # compiles, and allocates what stays
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            recorded = call(room, moving, rest)
        with torch.no_grad():
            for tensor, other in zip(moving, others, strict=True):
                tensor.copy_(other)
        graph.replay()
        for once, again in zip(call(room, moving, rest), recorded, strict=True):
            assert torch.equal(once, again)
