"""Test the wiring of rooms (kernels/_room.py): requests, layouts and results by name.

A name that a schema does not have is an error at import.
"""

import itertools
import threading

import pytest
import torch
from check import opaque
from genmini.kernels import _backend, _room

from genmini import kernels

NUMBERS = itertools.count()


@pytest.fixture
def toy(monkeypatch):
    """A room whose backends multiply by different numbers, so that a result says who ran."""
    monkeypatch.setattr(_backend, "ROOMS", dict(_backend.ROOMS))
    name = f"toy_{next(NUMBERS)}"
    return _room.room(name, "cuda", ("naive", "best"), cpu="PyTorch")


def scaled(toy, name="", **options):
    given = dict(fake=lambda x: x.new_empty(x.shape), reference=lambda x: 1 * x, kernel=lambda x: 3 * x,
                 cpu=lambda x: 2 * x)
    return _room.operator(toy, f"{toy.name}{name}(Tensor x, Tensor? bias, int times) -> Tensor y", **(given | options))


@pytest.mark.parametrize("part", ["fake", "reference", "kernel", "cpu", "check"])
def test_a_parameter_that_the_schema_does_not_name_is_an_error_at_import(toy, part):
    def mistaken(x, weight):
        pass

    with pytest.raises(NameError,
                       match=f"mistaken of genmini::{toy.name} names 'weight', which is none of x, bias, times"):
        scaled(toy, **{part: mistaken})


def test_a_parameter_with_a_default_may_be_absent_from_the_schema(toy):
    f = scaled(toy, reference=lambda x, further=5: further * x)
    with kernels.use("reference"):
        assert f(x=torch.ones(2), bias=None, times=1).tolist() == [5, 5]


def test_an_operator_is_called_by_the_names_of_its_inputs(toy):
    f = scaled(toy)
    one = torch.ones(2)
    for call in (f, _room.differentiable(f, lambda dy: dict(x=dy))):
        assert torch.equal(call(times=1, x=one, bias=None), call(x=one, bias=None, times=1))
        for wrong in (dict(x=one, bias=None), dict(x=one, bias=None, times=1, z=one), dict(x=one, bias=None, time=1)):
            with pytest.raises(TypeError, match=f"genmini::{toy.name} takes x, bias, times, got {', '.join(wrong)}"):
                call(**wrong)


def test_rows_strided_and_gradients_name_what_the_schema_names(toy):
    with pytest.raises(NameError, match="strided of genmini::.* names 'z'"):
        scaled(toy, "_a", strided="x z")
    f = scaled(toy, "_b")
    with pytest.raises(NameError, match="rows of genmini::.* names 'y'"):
        _room.differentiable(f, lambda dy: {}, rows="x y")
    with pytest.raises(NameError, match="names 'dx', which is none of x, bias, times, y, dy, needed"):
        _room.differentiable(f, lambda dx: {})
    g = _room.differentiable(f, lambda dy: dict(x=dy, z=dy))
    with pytest.raises(NameError, match="the result of <lambda> of genmini::.* names 'z'"):
        g(x=torch.ones(2, requires_grad=True), bias=None, times=1).sum().backward()


def test_outputs_must_have_names_of_their_own(toy):
    for schema in ("(Tensor x) -> Tensor", "(Tensor x) -> Tensor x"):
        with pytest.raises(NameError, match="must name every output, and no two arguments alike"):
            _room.operator(toy, f"{toy.name}_{next(NUMBERS)}{schema}", fake=lambda x: x, reference=lambda x: x,
                           kernel=lambda x: x)


def test_each_backend_runs_its_function_and_one_without_cpu_its_reference(toy):
    f, without = scaled(toy), scaled(toy, "_without", cpu=None)
    found = {}
    for backend in ("auto", "reference", "cpu"):
        with kernels.use(backend):
            found[backend] = tuple(g(x=torch.ones(1), bias=None, times=1).item() for g in (f, without))
    assert found == {"auto": (2, 1), "reference": (1, 1), "cpu": (2, 1)}


def test_kernels_get_plain_inputs_and_give_what_the_fake_says(toy):
    seen = []

    def cpu(x, bias):
        seen[:] = x, bias
        return (2 * x).t().contiguous().t()

    wide = torch.arange(13.0)[1:].view(3, 4)  # 4 bytes behind a multiple of 16
    assert scaled(toy, "_a", cpu=cpu)(x=wide, bias=wide.t(), times=1).is_contiguous()
    assert all(a.is_contiguous() and a.data_ptr() % 16 == 0 for a in seen)
    f = scaled(toy, "_b", cpu=cpu, strided="bias y", fake=lambda x: torch.empty_like(x))
    assert f(x=wide.t(), bias=wide.t(), times=1).stride() == wide.t().stride()
    assert seen[0].is_contiguous() and seen[1].stride() == wide.t().stride()
    opaque(f.overload, (wide.t(), None, 1, "cpu"))


def test_a_gradient_has_the_request_of_its_forward_in_any_thread(toy):
    seen = []
    backward = _room.operator(
        toy, f"{toy.name}_backward(Tensor dy) -> Tensor dx",
        fake=lambda dy: dy.new_empty(dy.shape), kernel=lambda dy: dy,
        reference=lambda dy: seen.append("reference") or 1 * dy, cpu=lambda dy: seen.append("cpu") or 1 * dy,
    )  # fmt: skip
    d = _room.differentiable(backward, lambda ddx: dict(dy=d(dy=ddx)))
    f = _room.differentiable(scaled(toy), lambda dy: dict(x=d(dy=dy)))
    x = torch.ones(1, requires_grad=True)
    for backend, other in (("cpu", "reference"), ("reference", "cpu")):
        with kernels.use(backend):
            y = f(x=x, bias=None, times=1)
        with kernels.use(other):
            thread = threading.Thread(target=lambda y=y: torch.autograd.grad(y.sum(), x, create_graph=True)[0].sum())
            thread.start()
            thread.join()
            (dx,) = torch.autograd.grad(y.sum(), x, torch.tensor(1.0, requires_grad=True), create_graph=True)
            assert seen == [backend] * 2
            dx.sum().backward()
            assert seen == [backend] * 3, "a second derivative ran on another backend"
            assert d(dy=torch.ones(1)).item() == 1
            assert seen.pop() == other, "the request stayed after the gradient"
        seen.clear()


def test_what_a_gradient_does_not_name_is_not_kept(toy):
    f = _room.differentiable(scaled(toy), lambda dy, bias: dict(x=dy))
    x, bias = torch.ones(3, requires_grad=True), torch.zeros(2)
    y = f(x=x, bias=bias, times=1)
    assert [a.shape for a in y.grad_fn.saved_tensors] == [bias.shape]
