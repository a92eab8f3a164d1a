"""Time rooms on inputs so small that a call takes what the Python around it takes, beside eager PyTorch: without a
gradient, forward with one recorded, forward and backward. What counts is how many microseconds longer a room takes.

The samplers are left out, beside which eager PyTorch makes a pass for each number that they draw.

    kernels: kernels/_door.py    goals: PRICES in bench/run.py
"""

import bench_ddim_step
import bench_info_nce
import bench_nade
import bench_q_sample
import bench_spline_coupling
import torch
import torch.nn.functional as F
from measure import DEVICE, GPU, both, checked, ours, row, times
from peers import plain

from genmini import ops

THREADS = (1,)


def cases():
    """Yields a room, the case, the functions of the room and of eager PyTorch, their inputs, and how many of these, the
    first ones, have a gradient."""
    torch.manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, device=DEVICE)
    with_more = lambda function, *more: lambda *inputs: function(*inputs, *more)
    pair = lambda name, *more: [with_more(vars(of)[name], *more) for of in (ops, plain)]
    x, s, t = normal(4, 8), normal(4, 8), normal(4, 8)
    yield "affine_coupling", "4x8", *pair("affine_coupling"), (x, s, t), 3
    yield "affine_coupling", "4x8 inverse", *pair("affine_coupling_inverse"), (x, s, t), 3
    yield "gaussian_kl", "4x8", *pair("gaussian_kl"), (x, s, t), 2
    yield "spline_coupling", "4x8 K=8", ops.spline_coupling, bench_spline_coupling.eager, (x, normal(4, 8, 23)), 2
    scale = torch.tensor(1.0, device=DEVICE)
    yield "info_nce", "4x8", ops.info_nce, bench_info_nce.eager, (x, s, scale), 3
    logits, target = normal(4, 17, 8), torch.randint(17, (4, 8), device=DEVICE)
    yield "softmax_nll", "4x17x8", *pair("softmax_nll"), (logits, target), 1

    image, channels, each = normal(2, 16, 4, 4), normal(16), normal(2, 16)
    norms = [lambda x, *more, f=f: f(x, 2, *more) for f in (ops.group_norm_silu, plain.group_norm_silu)]
    yield "group_norm_silu", "2x16x4x4", *norms, (image, channels, channels + 1), 3
    yield "group_norm_silu", "2x16x4x4 modulated", *norms, (image, channels, channels + 1, each, each + 1), 5
    degree = torch.arange(8, device=DEVICE)
    M = (degree[:, None] >= degree).float()
    linear = lambda x, weight, bias: F.linear(x, M * weight, bias)
    ours_linear = with_more(ops.masked_linear, degree, degree.clone())
    yield "masked_linear", "4x8->8", ours_linear, linear, (x, normal(8, 8), normal(8)), 3
    yield "masked_conv2d", "2x16x4x4->16 3x3", *pair("masked_conv2d", "B"), (image, normal(16, 16, 3, 3), channels), 3

    e, index = normal(16, 8), torch.randint(16, (4,), device=DEVICE)
    yield "quantize", "4x8 K=16", *pair("quantize"), (x, e), 2
    yield "nearest_code", "4x8 K=16", *pair("nearest_code"), (x, e), 0
    yield "code_stats", "4x8 K=16", *pair("code_stats", 16), (x, index), 0
    bits = (x > 0).float()
    nade = [lambda *weights, f=f: f(bits, *weights) for f in (ops.nade, bench_nade.loop_log_prob)]
    yield "nade", "4x8 H=16", *nade, (normal(16, 8), normal(8, 16), normal(8), normal(16)), 4
    at = torch.arange(4, device=DEVICE), *torch.linspace(0.1, 0.9, 4, device=DEVICE).sqrt().expand(2, 4).clone()
    noised = [lambda x0, eps, f=f: f(x0, *at, eps) for f in (bench_q_sample.room, bench_q_sample.eager)]
    yield "q_sample", "4x8", *noised, (x, s), 0
    steps = with_more(bench_ddim_step.room, None), with_more(bench_ddim_step.eager, None)
    yield "ddim_step", "4x8", *steps, (x, s, t), 0


def rows():
    for room, case, function, eager, inputs, moving in () if GPU else cases():
        (name,) = ours(room)
        functions = {"eager": eager, name: function}
        errors = checked(functions, inputs, eager(*(a.double() if a.is_floating_point() else a for a in inputs)), 1e-4)
        leaves, fixed = [a.detach().clone().requires_grad_() for a in inputs[:moving]], inputs[moving:]
        calls = {"without gradient": lambda f: lambda: f(*inputs)}
        if moving:
            calls["forward"] = lambda f: lambda: f(*leaves, *fixed)
            calls["both"] = lambda f: both(lambda *leaves: f(*leaves, *fixed), leaves)
        for what, call in calls.items():
            took = times({who: call(f) for who, f in functions.items()})
            for who, time in took.items():
                yield row("front_door", f"{room} {case}", what, who, time, error=errors[who], beside=took["eager"][0])
