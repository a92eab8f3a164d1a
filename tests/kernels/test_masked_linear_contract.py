"""The contract of masked_linear (kernels/masked_linear.py): where it runs, what it takes, what it refuses."""

import pytest
import torch
from check import numbers, one_rounding, to
from genmini.kernels import _backend
from genmini.kernels import masked_linear as room
from test_masked_linear import everywhere, inputs

from genmini import kernels, ops


@everywhere
@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (0, 2), (2, 1, 0)])
def test_leading_dimensions(run, leading):
    _, weight, bias, in_degree, out_degree, strict = to(run, None, inputs(1, 5, 4))
    x = numbers(*leading, 5).to(run.device).requires_grad_()
    with run.use():
        y = ops.masked_linear(x, weight, bias, in_degree, out_degree, strict)
        (dx,) = torch.autograd.grad(y.sum(), x)
    assert y.shape == (*leading, 4) and dx.shape == x.shape
    torch.testing.assert_close(y, room.reference(x, weight, bias, in_degree, out_degree, strict))


@everywhere
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_degrees_of_every_integer_type(run, dtype):
    x, weight, bias, in_degree, out_degree, strict = to(run, None, inputs(4, 20, 30))
    with run.use():
        got = ops.masked_linear(x, weight, bias, in_degree.to(dtype), out_degree, strict)
        assert torch.equal(got, ops.masked_linear(x, weight, bias, in_degree, out_degree.to(dtype), strict))
    torch.testing.assert_close(got, room.reference(x, weight, bias, in_degree, out_degree, strict))


@everywhere
def test_a_gradient_runs_where_its_forward_ran_and_only_if_wanted(run, monkeypatch):
    x, weight, bias, in_degree, out_degree, strict = to(run, None, inputs(3, 4, 5))
    chosen, names = _backend.chosen, []
    with run.use():
        y = ops.masked_linear(x, weight.requires_grad_(), bias, in_degree, out_degree, strict)
    monkeypatch.setattr(_backend, "chosen", lambda *a: names.append(chosen(*a)) or names[-1])
    with kernels.use("reference"):
        y.sum().backward()
    assert [(name.backend, name.rung) for name in names] == [(run.backend, run.rung)]  # dW alone: x needs none


@everywhere
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_autocast_casts_as_linear_does(run, dtype):
    x, weight, bias, in_degree, out_degree, strict = to(run, None, inputs(3, 4, 5))
    x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    with run.use(), torch.autocast(run.device, torch.bfloat16):
        y = ops.masked_linear(x, weight, bias, in_degree, out_degree, strict)
        assert y.dtype == torch.nn.functional.linear(x, weight, bias).dtype
    rounded = [a.bfloat16().double() if dtype == torch.float32 else a for a in (x, weight, bias)]
    exact = room.reference(*rounded, in_degree, out_degree, strict)
    sizes = room.reference(*(a.abs() for a in rounded), in_degree, out_degree, strict)
    within = (4 + 2) * (2**-24 if dtype == torch.float32 else 2**-53) * sizes + one_rounding(exact, y.dtype)
    assert ((y.double() - exact).abs() <= within).all()  # a sum of 4 terms and a bias, rounded once more


def test_errors_name_the_argument():
    x, weight, bias, in_degree, out_degree, _ = inputs(2, 3, 4)
    with pytest.raises(ValueError, match=r"weight must have shape \(J, K\) with the K of x = \(4, 3\), got \(4, 2\)"):
        ops.masked_linear(x, weight[:, :2], bias, in_degree, out_degree)
    with pytest.raises(ValueError, match=r"in_degree must have shape \(K\) with the K of x = \(3,\), got \(4,\)"):
        ops.masked_linear(x, weight, bias, out_degree, out_degree)
    with pytest.raises(ValueError, match=r"out_degree must have shape"):
        ops.masked_linear(x, weight, bias, in_degree, in_degree)
    with pytest.raises(ValueError, match=r"bias must have shape"):
        ops.masked_linear(x, weight, bias[:1], in_degree, out_degree)
    with pytest.raises(ValueError, match=r"x must have shape \(..., K\), got \(\)"):
        ops.masked_linear(x[0, 0], weight, bias, in_degree, out_degree)
    with pytest.raises(ValueError, match=r"weight must have shape \(J, K\), got \(3,\)"):
        ops.masked_linear(x, weight[0], bias, in_degree, out_degree)
    with pytest.raises(TypeError, match="in_degree must be of dtype int64, int32, int16, int8 or uint8, got float64"):
        ops.masked_linear(x, weight, bias, in_degree.double(), out_degree)
    with pytest.raises(TypeError, match="weight must have the dtype of x, float64, got float32"):
        ops.masked_linear(x, weight.float(), bias, in_degree, out_degree)
    with pytest.raises(TypeError, match="bias must be a tensor, got float"):
        ops.masked_linear(x, weight, 0.5, in_degree, out_degree)
    with pytest.raises(ValueError, match="out_degree must be on the device of x, cpu, got meta"):
        ops.masked_linear(x, weight, bias, in_degree, out_degree.to("meta"))


def test_meta_tensors_pass():
    x, weight, bias, in_degree, out_degree, strict = (a.to("meta") if isinstance(a, torch.Tensor) else a
                                                      for a in inputs(2, 3, 4))
    assert ops.masked_linear(x, weight, bias, in_degree, out_degree, strict).shape == (2, 4)
