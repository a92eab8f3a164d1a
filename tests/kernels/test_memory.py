"""No call of a room on a CPU holds more memory than the same call in plain PyTorch: docs/rooms.md, "Memory".

Held is what PyTorch's allocator gives beyond what there was before, at its most; native kernels allocate nothing
themselves. Plain PyTorch is what the benches compare a room with; of code_stats the product with one-hot vectors. Where
a room exceeds it, `more` says by how many bytes at most, and the docstring of the room why. Not here are the
samplers of whole images, whose benches print what both hold.
"""

import bench_affine_coupling
import bench_code_stats
import bench_ddim_step
import bench_gaussian_kl
import bench_group_norm_silu
import bench_info_nce
import bench_nade
import bench_nearest_code
import bench_q_sample
import bench_softmax_nll
import bench_spline_coupling
import pytest
import torch
from peers import plain

from genmini import limits, ops

ANGLE = torch.linspace(0.1, 1.5, 1000, dtype=torch.float64)


def some(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


def below(K, *shape):
    return torch.randint(K, shape, generator=torch.Generator().manual_seed(K))


def held(call):
    """The most bytes. A profiler sees a call without the shortcuts of its front door: they hold the same."""
    for _ in range(3):  # what depends on constants is computed once
        call()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    return max((bytes for _, bytes in limits.allocations(profiler)), default=0)


def both(function, inputs):
    """A call of the function, forward with backward, whose gradients are those of the floating inputs."""
    inputs = [a.clone().requires_grad_() if a.is_floating_point() else a for a in inputs]
    moving = [a for a in inputs if a.requires_grad]
    outs = [a.detach() for a in leaves(function(*inputs))]

    def call():
        torch.autograd.grad(leaves(function(*inputs)), moving, outs, allow_unused=True)

    return call


def leaves(outputs):
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return [a for a in outputs if a.is_floating_point()]


def each(name, ours, eager, shapes, inputs, gradient=True, more=lambda what, *shape: 0):
    return [pytest.param(ours, eager, inputs, shape, gradient, more, id=f"{name} {'x'.join(map(str, shape))}")
            for shape in shapes]


def three(N, D):
    return [some(N, D) for _ in range(3)]


def images(N, C, O, H, k):
    return [some(N, C, H, H), some(O, C, k, k), some(O)]


ROWS = [(1, 1), (64, 300), (1, 4097), (5000, 2), (300, 1)]


def quantize(z, e, index):
    code = e[index]
    loss = (code - z.detach()).square().sum(1) + 0.25 * (z - code.detach()).square().sum(1)
    return z + (code - z).detach(), loss


def dense(kind):
    return lambda *given: plain.masked_conv2d(*given, kind)


def threads(most):
    return min(torch.get_num_threads(), most)


def more_of_one_level(what, N, L, P):  # two numbers a pixel for the gradient, where plain PyTorch has its one logit
    return 8 * N * P if L == 1 else 0


def more_of_one_code(what, N, K, D):  # 8 N bytes of order, where one-hot vectors take 4 N K
    return 4 * N if K == 1 else 0


def more_of_few_distances(what, N, K, D):  # a block of rows in each thread, with bounds of up to 1024 groups of codes
    few = N < D or N * K < 2**19 * threads(64)
    return threads(64) * (2**19 + 1024 * D) + 84 * K if few else 0


def more_of_few_columns(what, N, K, D):  # the order of the rows, 8 N bytes, where plain PyTorch has 4 N D
    return 4 * N if D == 1 and what == "both" else 0


def more_of_few_pairs(what, N, D):  # b is packed to whole blocks of 64 rows; a block of l and one of its exponentials
    return 4 * (-N % 64) * D + (256 * 130 if N < 128 else 0)


def more_of_few_units(what, N, D, H):  # 16 rows of a and h in each thread; of a gradient the marks of 64 units
    if N * D * H >= 2**17 * threads(H):
        return 0
    return threads(N) * (4 * 32 * (H + 32) + 64) if what == "forward" else threads(H) * 256 * (161 + D + 32)


def more_of_uncut_images(what, N, C, O, H, k):  # two copies with the rows and columns around; of few channels, columns
    image, columns = 4 * max(C, O) * H * H, 8 * C * k * (k // 2 + 1) * H * H if what == "both" and C <= 4 else 0
    copy = 4 * N * max(C, O) * (H + k // 2) * (H + k - 1)
    copies = 2 if N < 8 or N * image < 2**25 else int(O < C or O <= 16)
    return copies * copy + min(N * columns, max(columns, 2**19))


LAWS = [
    *each("affine_coupling", ops.affine_coupling, bench_affine_coupling.eager, ROWS, three),
    *each("affine_coupling saving y", bench_affine_coupling.saving_y, bench_affine_coupling.eager, ROWS, three),
    *each("affine_coupling_inverse", ops.affine_coupling_inverse, bench_affine_coupling.eager_inverse, ROWS, three),
    *each("spline_coupling", ops.spline_coupling, bench_spline_coupling.eager, [(1, 1), (64, 4), (2000, 2), (1, 300)],
          lambda N, D: [some(N, D), some(N, D, 23)]),
    *each("spline_coupling_inverse", ops.spline_coupling_inverse, lambda x, w: bench_spline_coupling.eager(x, w, True),
          [(1, 1), (64, 4)], lambda N, D: [some(N, D), some(N, D, 23)], gradient=False),
    *each("gaussian_kl", ops.gaussian_kl, bench_gaussian_kl.eager, ROWS, lambda N, D: three(N, D)[:2]),
    *each("gaussian_kl of a seed", bench_gaussian_kl.seeded, bench_gaussian_kl.eager, ROWS,
          lambda N, D: three(N, D)[:2]),
    *each("group_norm_silu", bench_group_norm_silu.room, bench_group_norm_silu.eager,
          [(1, 8, 1, 1), (500, 8, 1, 1), (2, 16, 5, 5), (1, 8, 40, 40)],
          lambda N, C, H, W: [some(N, C, H, W), some(C), some(C)]),
    *each("group_norm_silu modulated", bench_group_norm_silu.room, bench_group_norm_silu.eager,
          [(1, 8, 1, 1), (500, 8, 1, 1), (2, 16, 5, 5)],
          lambda N, C, H, W: [some(N, C, H, W), some(C), some(C), some(N, C), some(N, C)]),
    *each("softmax_nll", ops.softmax_nll, bench_softmax_nll.eager, [(1, 1, 1), (300, 1, 1), (1, 2, 900), (16, 17, 64)],
          lambda N, L, P: [some(N, L, P), below(L, N, P)], more=more_of_one_level),
    *each("code_stats", ops.code_stats, bench_code_stats.one_hot,
          [(1, 1, 1), (1, 900, 3), (300, 2, 1), (300, 1, 64), (1, 1, 64), (2000, 64, 16)],
          lambda N, K, D: [some(N, D), below(K, N), K], gradient=False, more=more_of_one_code),
    *each("quantize_step", ops.quantize_step, quantize,
          [(1, 1, 1), (1, 900, 3), (900, 2, 1), (300, 1000, 1), (1000, 3000, 3), (64, 512, 64), (2000, 64, 16)],
          lambda N, K, D: [some(N, D), some(K, D), below(K, N)], more=more_of_few_columns),
    *each("nearest_code", ops.nearest_code, bench_nearest_code.expanded,
          [(1, 1, 1), (1, 900, 3), (1, 2000, 64), (300, 64, 1), (100, 3000, 200), (4096, 512, 16)],
          lambda N, K, D: [some(N, D), some(K, D)], gradient=False, more=more_of_few_distances),
    *each("q_sample", bench_q_sample.room, bench_q_sample.eager, ROWS,
          lambda N, D: [some(N, D), below(1000, N), ANGLE.cos(), ANGLE.sin()], gradient=False),
    *each("ddim_step", bench_ddim_step.room, bench_ddim_step.eager, ROWS,
          lambda N, D: [*three(N, D), "dynamic"], gradient=False),
    *each("info_nce", ops.info_nce, bench_info_nce.eager,
          [(1, 1), (2, 512), (64, 64), (128, 512), (129, 700), (200, 3), (300, 64)],
          lambda N, D: [some(N, D), some(N, D), torch.tensor(3.0)], more=more_of_few_pairs),
    *each("masked_linear", ops.masked_linear, plain.masked_linear, [(1, 1, 1), (64, 100, 300), (500, 2, 3)],
          lambda N, K, J: [some(N, K), some(J, K), some(J), below(9, K), below(9, J)]),
    *each("nade", ops.nade, bench_nade.loop_log_prob,
          [(1, 1, 1), (1, 50, 3), (1, 200, 200), (100, 50, 40), (300, 2, 16)],
          lambda N, D, H: [below(2, N, D).to(torch.uint8), some(H, D), some(D, H), some(D), some(H)],
          more=more_of_few_units),
    *each("masked_conv2d A", lambda *a: ops.masked_conv2d(*a, "A"), dense("A"),
          [(1, 1, 8, 1, 7), (16, 1, 64, 28, 7), (16, 4, 8, 40, 7), (2, 3, 1, 40, 7), (1, 16, 16, 16, 3),
           (16, 64, 64, 16, 3), (8, 128, 8, 40, 7), (2, 128, 128, 16, 3), (4, 128, 128, 32, 3)],
          images, more=more_of_uncut_images),
    *each("masked_conv2d B", lambda *a: ops.masked_conv2d(*a, "B"), dense("B"),
          [(1, 1, 8, 1, 7), (1, 64, 64, 96, 3), (64, 5, 16, 40, 3), (64, 5, 64, 48, 3), (96, 64, 16, 40, 3),
           (2, 64, 64, 64, 3), (16, 64, 64, 28, 3), (16, 64, 64, 16, 5)],
          images, more=more_of_uncut_images),
]


@pytest.mark.parametrize("ours, eager, inputs, shape, gradient, more", LAWS)
def test_no_call_holds_more_than_plain_pytorch(ours, eager, inputs, shape, gradient, more):
    given = inputs(*shape)
    with torch.no_grad():
        calls = {"forward": [lambda: ours(*given), lambda: eager(*given)]}
    if gradient:
        calls["both"] = [both(ours, given), both(eager, given)]
    for what, (of_room, of_pytorch) in calls.items():
        with torch.set_grad_enabled(what == "both"):
            ours_held, eager_held = held(of_room), held(of_pytorch)
        assert ours_held <= eager_held + more(what, *shape), what
