"""The contract of masked_conv2d (kernels/masked_conv2d.py): where it runs, what it takes, what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from check import one_rounding, to
from genmini.kernels import _backend
from genmini.kernels import masked_conv2d as room
from test_masked_conv2d import everywhere, inputs

from genmini import kernels, ops


@everywhere
def test_a_gradient_runs_where_its_forward_ran_and_only_if_wanted(run, monkeypatch):
    x, weight, bias, *rest = to(run, None, inputs())
    chosen, names = _backend.chosen, []
    with run.use():
        y = ops.masked_conv2d(x, weight.requires_grad_(), bias, *rest)
    monkeypatch.setattr(_backend, "chosen", lambda *a: names.append(chosen(*a)) or names[-1])
    with kernels.use("reference"):
        y.sum().backward()
    assert [(name.backend, name.rung) for name in names] == [(run.backend, run.rung)]  # dK alone: x needs none


@everywhere
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_autocast_casts_as_conv2d_does(run, dtype):
    x, weight, bias, *rest = to(run, dtype, inputs())
    with run.use(), torch.autocast(run.device, torch.bfloat16):
        y = ops.masked_conv2d(x, weight, bias, *rest)
        assert y.dtype == F.conv2d(x, weight, bias).dtype
    rounded = [a.bfloat16().double() if dtype == torch.float32 else a for a in (x, weight, bias)]
    exact, sizes = room.reference(*rounded, *rest), room.reference(*(a.abs() for a in rounded), *rest)
    terms = weight[0].numel() + 2  # a sum is off by so many roundings of its sizes, and is rounded once more
    within = terms * (2**-24 if dtype == torch.float32 else 2**-53) * sizes + one_rounding(exact, y.dtype)
    assert ((y.double() - exact).abs() <= within).all()


def test_errors_name_the_argument():
    x, weight, bias, *_ = inputs()
    with pytest.raises(ValueError, match="kind must be 'A' or 'B', got 'C'"):
        ops.masked_conv2d(x, weight, bias, "C")
    with pytest.raises(ValueError, match=r"x must have shape \(N, C, H, W\), got \(3, 4, 5\)"):
        ops.masked_conv2d(x[0], weight, bias, "A")
    with pytest.raises(
        ValueError,
        match=r"weight must have shape \(O, C, kh, kw\) with the C of x = \(5, 3, 3, 3\), got \(5, 2, 3, 3\)",
    ):
        ops.masked_conv2d(x, weight[:, :2], bias, "A")
    with pytest.raises(ValueError, match="kw of weight must be 1, 3, 5 or 7, got 2"):
        ops.masked_conv2d(x, weight[..., :2], bias, "A")
    with pytest.raises(ValueError,
                       match="colours must be from 1 to the number of channels of x and of y, 1 to 3, got 4"):
        ops.masked_conv2d(x, weight, bias, "A", 4)
    with pytest.raises(TypeError, match="colours must be an int, got float"):
        ops.masked_conv2d(x, weight, bias, "A", 1.0)
    with pytest.raises(ValueError, match=r"bias must have shape \(O\)"):
        ops.masked_conv2d(x, weight, bias[:1], "A")
    with pytest.raises(TypeError, match="weight must have the dtype of x, float64, got float32"):
        ops.masked_conv2d(x, weight.float(), bias, "A")
    with pytest.raises(ValueError, match="bias must be on the device of x, cpu, got meta"):
        ops.masked_conv2d(x, weight, bias.to("meta"), "A")


def test_meta_tensors_pass():
    x, weight, bias, *rest = (a.to("meta") if isinstance(a, torch.Tensor) else a for a in inputs())
    assert ops.masked_conv2d(x, weight, bias, *rest).shape == (2, 5, 4, 5)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_the_memory_order_of_y_is_that_of_the_fake_whatever_the_strides_of_x(backend):
    x, weight, bias, *rest = inputs(C=4)
    last = x.to(memory_format=torch.channels_last)
    for a in (x, last, last[:, :, ::2, ::2], last[:, 1:3], last[:1].expand(x.shape)):
        with kernels.use(backend):
            y = ops.masked_conv2d(a, weight[:, : a.shape[1]], bias, *rest)
        assert y.stride() == room.new_image(a, len(weight)).stride()
