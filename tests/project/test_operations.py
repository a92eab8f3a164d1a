"""Bytes and operations of known operators, counted from shapes as the profiler records them, are exact."""

import pytest
import torch
import torch.nn.functional as F

from genmini import operations, ops, profiling

x, w, b = torch.randn(8, 4, 6, 6), torch.randn(5, 4, 3, 3), torch.randn(5)
square = torch.randn(3, 16, 16)
CASES = {  # name: the function, operations, bytes
    "mm": (lambda: torch.randn(64, 32) @ torch.ones(32, 16), 2 * 64 * 32 * 16, 4 * (64 * 32 + 32 * 16 + 64 * 16)),
    "linear": (lambda: F.linear(torch.ones(7, 64, 32), torch.ones(16, 32), torch.ones(16)), 2 * 7 * 64 * 32 * 16,
               4 * (7 * 64 * 32 + 32 * 16 + 16 + 7 * 64 * 16)),
    "addmm": (lambda: torch.addmm(torch.ones(9), torch.ones(5, 3), torch.ones(3, 9)), 2 * 5 * 3 * 9,
              4 * (9 + 15 + 27 + 45)),
    "bmm": (lambda: torch.bmm(square, square.double().float()), 3 * 2 * 16**3, 3 * 4 * 3 * 256),
    "double": (lambda: torch.ones(4, 4).double() @ torch.ones(4, 4).double(), 2 * 64, 3 * 8 * 16),
    "conv2d": (lambda: F.conv2d(x, w, b), 2 * 8 * 5 * 16 * 4 * 9, 4 * (8 * 4 * 36 + 5 * 36 + 5 + 8 * 5 * 16)),
    "conv2d, stride": (lambda: F.conv2d(x, w, b, stride=2, padding=1), 2 * 8 * 5 * 9 * 4 * 9,
                       4 * (8 * 4 * 36 + 5 * 36 + 5 + 8 * 5 * 9)),
    "conv2d, groups": (lambda: F.conv2d(x, torch.ones(4, 1, 3, 3), groups=4), 2 * 8 * 4 * 16 * 9,
                       4 * (8 * 4 * 36 + 36 + 8 * 4 * 16)),
    "conv2d, same": (lambda: F.conv2d(x, w, b, padding="same"), 2 * 8 * 5 * 36 * 4 * 9,
                     4 * (8 * 4 * 36 + 5 * 36 + 5 + 8 * 5 * 36)),
    "transposed": (lambda: F.conv_transpose2d(x, torch.ones(4, 5, 3, 3), stride=2), 2 * 8 * 4 * 36 * 5 * 9,
                   4 * (8 * 4 * 36 + 4 * 5 * 9 + 8 * 5 * 169)),
    "add": (lambda: x + x[:1], x.numel(), 4 * (2 * x.numel() + x[:1].numel())),
    "in place": (lambda: x.clone().mul_(2), x.numel(), 8 * x.numel()),
    "exp, half": (lambda: x.half().exp(), x.numel(), 4 * x.numel()),
    "sum": (lambda: x.sum(), 0, 4 * x.numel() + 4),
    "attention": (lambda: F.scaled_dot_product_attention(*[square[None]] * 3), 3 * 4 * 16**3, 4 * 4 * 3 * 256),
    "nearest_code": (lambda: ops.nearest_code(torch.ones(20, 8), torch.ones(6, 8)), 2 * 20 * 6 * 8,
                     4 * (20 * 8 + 6 * 8) + 8 * 20),
}


def counted(function):
    """What the operator that the function calls last costs, of those that cost something."""
    return [cost for cost in costs(function) if cost][-1]


def costs(function):
    with torch.profiler.profile(record_shapes=True, profile_memory=True) as profiler:
        kept = function()  # what is freed inside the profile would not count as an output
    del kept
    events = [event for root in profiling.roots(profiler) for event, _ in profiling.outermost(root)]
    return [profiling.cost(event) for event in events]


@pytest.mark.parametrize("function, operations, bytes", CASES.values(), ids=list(CASES))
def test_a_known_operator_is_counted_exactly(function, operations, bytes):
    found = counted(function)
    assert (found.operations, found.bytes) == (operations, bytes)


def test_the_gradient_of_a_convolution_is_two_products():
    moved = [a.clone().requires_grad_() for a in (x, w, b)]
    y = F.conv2d(*moved)
    with torch.profiler.profile(record_shapes=True) as profiler:
        torch.autograd.grad(y, moved, torch.ones_like(y))
    (event,) = [event for event in profiler.events() if event.name == "aten::convolution_backward"]
    found = profiling.cost(event)
    assert found.operations == 2 * CASES["conv2d"][1]
    assert found.bytes == 4 * (y.numel() + 2 * x.numel() + 2 * w.numel() + b.numel())


def test_the_dtype_is_that_of_what_is_multiplied():
    assert counted(CASES["double"][0]).dtype == torch.float64 and counted(CASES["mm"][0]).dtype == torch.float32


def test_lists_of_tensors_are_read():
    name, shapes = "genmini::made_sample", [[4, 8], [[8, 16], [16, 8]], []]
    assert operations.of(name, shapes, ["float", "TensorList", "Scalar"], allocated=20).bytes == 4 * (32 + 256) + 20
    assert costs(lambda: torch.cat([x, x]))[-1].bytes == 2 * 2 * 4 * x.numel()


def test_an_older_pytorch_leaves_dtypes_with_the_events_below():
    with torch.profiler.profile(record_shapes=True) as profiler:
        torch.ones(4, 4).double() @ torch.ones(4, 4).double()
    for event in profiler.events():
        del event.input_dtypes, event.structured_input_shapes
    found = [event for root in profiling.roots(profiler) for event, _ in profiling.outermost(root)][-1]
    assert profiling.cost(found) == operations.Cost(3 * 8 * 16, 2 * 64, torch.float64)


def test_what_is_not_known_is_not_counted():
    assert costs(lambda: torch._foreach_norm([x, w])) == [None]
    assert operations.of("aten::view", [[4, 4], []], ["float", "ScalarList"]) is None
    assert operations.of("mine::thing", [[4, 4]], ["float"]) is None
    assert operations.of("aten::mm", [[], []], ["", ""]) is None
