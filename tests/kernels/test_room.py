"""Test the wiring of rooms (kernels/_room.py): requests, layouts and results by name.

A name that a schema does not have is an error at import.
"""

import ast
import itertools
import threading
from pathlib import Path

import pytest
import torch
from check import opaque
from genmini.kernels import _backend, _room
from genmini.kernels._takes import Remembered

from genmini import kernels, ops

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
    )
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


# ---- an operator that is called by itself ---------------------------------------------------------------------------


def test_every_operator_states_what_it_takes():
    for path in sorted(Path(_room.__file__).parent.glob("[a-z]*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "operator":
                assert "takes" in {word.arg for word in call.keywords}, f"{path.name}, line {call.lineno}"


TAKES = "x y: T(N, D); e: U(K, D); index: int64(N); which: int(K); loss: R(N); parts: T(*, 2); table: host(*, D)"


def of_each(device="cpu"):
    """An operator of every kind of tensor, and tensors that agree."""
    new = lambda *shape, dtype=torch.float32, on=device: torch.zeros(shape, dtype=dtype, device=on)
    whole = dict(dtype=torch.int64)
    return dict(x=new(4, 3), y=new(4, 3), e=new(5, 3, dtype=torch.float64), index=new(4, **whole),
                which=new(5, dtype=torch.uint8), loss=new(4, dtype=torch.float64), parts=[new(7, 2), None],
                table=new(9, 3, **whole, on="cpu"))


@pytest.fixture
def taking(toy):
    schema = (f"{toy.name}(Tensor x, Tensor? y, Tensor e, Tensor index, Tensor which, Tensor loss, Tensor?[] parts, "
              "Tensor table) -> Tensor z")
    same = lambda x: 1 * x
    return _room.operator(toy, schema, fake="x", takes=TAKES, reference=same, kernel=same, cpu=same)


WRONG = {
    "another extent": (dict(y=(3, 3)), ValueError, r"y must have shape \(N, D\) with N = 4, D = 3, got \(3, 3\)"),
    "one dimension less": (dict(x=(4,)), ValueError, r"x must have shape \(N, D\), got \(4,\)"),
    "one dimension more": (dict(loss=(4, 1)), ValueError, r"loss must have shape \(N\) with N = 4, got \(4, 1\)"),
    "of a list": (dict(parts=(7, 3)), ValueError, r"parts must have shape \(\*, 2\), got \(7, 3\)"),
    "no float": (dict(x=torch.uint8), TypeError, "x must be of dtype float32, float16, bfloat16 or float64, got uint8"),
    "another float": (dict(y=torch.float64), TypeError, "y must be of dtype float32, got float64"),
    "narrow sums": (dict(loss=torch.float32), TypeError, "loss must be of dtype float64, got float32"),
    "narrow integers": (dict(index=torch.int32), TypeError, "index must be of dtype int64, got int32"),
    "no integers": (dict(which=torch.bool), TypeError, "which must be of dtype int64, .* or uint8, got bool"),
    "floats in a list": (dict(parts=torch.float64), TypeError, "parts must be of dtype float32, got float64"),
}


@pytest.mark.parametrize("change, error, words", WRONG.values(), ids=WRONG)
def test_what_an_operator_takes_is_held_by_every_backend_and_the_fake(taking, change, error, words):
    for device, request in itertools.product(("cpu", "meta"), ("reference", "cpu")):
        given = of_each(device)
        assert taking.overload(*given.values(), request).shape == (4, 3)
        assert taking.overload(*(given | dict(y=None)).values(), request).shape == (4, 3)
        for name, to in change.items():
            change_of = lambda a, to=to: a.to(to) if isinstance(to, torch.dtype) else a.new_zeros(to)
            given[name] = [change_of(given[name][0])] if name == "parts" else change_of(given[name])
        with pytest.raises(error, match=f"genmini::toy_.*: {words}"):
            taking.overload(*given.values(), request)


def test_all_tensors_of_an_operator_lie_on_one_device_and_tables_on_the_host(taking):
    given = of_each()
    for name, words in (("e", "e must be on cpu, got meta"), ("table", "table must be on cpu, got meta")):
        with pytest.raises(ValueError, match=words):
            taking.overload(*(given | {name: given[name].to("meta")}).values(), "reference")


def test_a_check_remembers_what_passed_and_not_more_than_it_may():
    tensors = [torch.zeros(n, dtype=dtype) for n in range(4) for dtype in (torch.float32, torch.float64)]
    looked = []
    check = Remembered(lambda values: looked.append(values[1].shape), [1])
    check.MOST = 3
    for tensor in [t for t in tensors for _ in range(2)]:
        check(["no part of the check", tensor])
        assert len(check.passed) <= 3
    assert looked == [t.shape for t in tensors]  # the second time none was checked

    def refuse(values):
        raise ValueError

    for _ in range(2):
        with pytest.raises(ValueError):
            Remembered(refuse, [0])([tensors[0]])


def test_every_tensor_must_be_named_once(toy):
    for takes in ("x: T(*)", "x x bias: T(*)", "x bias times: T(*)"):
        with pytest.raises(NameError, match="must state once what it takes as each of x, bias"):
            scaled(toy, f"_{next(NUMBERS)}", takes=takes)


@pytest.mark.parametrize("backend", ["reference", "cpu", "emulated"])
def test_no_operator_reads_beyond_its_tensors_or_takes_their_bytes_for_other_numbers(backend):
    """Calls past the front door that read the memory of others before, or bytes of one type as those of another."""
    op, f = torch.ops.genmini, torch.zeros
    with pytest.raises(ValueError, match=r"s must have shape \(N, D\) with N = 4, D = 8, got \(1, 8\)"):
        op.affine_coupling(f(4, 8), f(1, 8), f(1, 8), backend)
    with pytest.raises(TypeError, match="s must be of dtype float32, got float64"):
        op.affine_coupling(f(4, 8), f(4, 8).double(), f(4, 8), backend)
    with pytest.raises(TypeError, match="x must be of dtype uint8, got float32"):
        op.nade(f(2, 3), f(3, 5), f(3, 5), f(3), f(5), backend)
    with pytest.raises(ValueError, match="weights, biases and direct must be those of layers of .3, 5, 3. units"):
        op.made_sample(f(2, 3), f(2, 3).short(), 0, 2, [f(5, 2), f(3, 5)], [None, None], [f(5).long()], None, backend)


def test_a_gradient_of_a_list_is_not_dropped_in_silence():
    """made_sample has none: its front door says so by no_grad; the operator called by itself raises."""
    W = torch.zeros(3, 3, requires_grad=True)
    call = lambda: torch.ops.genmini.made_sample(torch.zeros(2, 3), torch.zeros(2, 3).short(), 0, 2, [W], [None], [],
                                                 None, "reference")
    with pytest.raises(RuntimeError, match="genmini::made_sample has no gradient here"):
        call()
    with torch.no_grad():
        assert call()[1].shape == (2, 3, 1)


def test_outputs_without_a_gradient_do_not_require_one():
    logits = torch.zeros(2, 3, 4, requires_grad=True)
    nll, m, log_s = torch.ops.genmini.softmax_nll(logits, torch.zeros(2, 4).long(), "reference")
    assert nll.requires_grad and not m.requires_grad and not log_s.requires_grad
    with kernels.use("reference"):
        (gradient,) = torch.autograd.grad(ops.softmax_nll(logits, torch.zeros(2, 4).long()).sum(), logits)
    assert torch.equal(torch.autograd.grad(nll.sum(), logits)[0], gradient)
