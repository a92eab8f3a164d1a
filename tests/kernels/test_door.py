"""The short way from a front door to a native kernel, and from a gradient to its own, gives what the whole way does."""

import sys

import pytest
import torch
from doors import DOORS, IN_PYTORCH, SAMPLERS, Seen, levels, of_door, same, some, warm
from genmini.kernels import _backend, _door, _plan
from torch.overrides import TorchFunctionMode

from genmini import kernels, ops


@pytest.fixture
def doors():
    """Whether a call goes the short way: `doors.short` counts."""

    class Count:
        short = 0

    was = _door.Shortcut.__call__

    def counted(self, *arguments):
        Count.short += 1
        return was(self, *arguments)

    _door.Shortcut.__call__ = counted
    yield Count
    _door.Shortcut.__call__ = was


@pytest.mark.parametrize("name", DOORS)
def test_the_short_way_gives_the_bits_of_the_whole_way(doors, name):
    with kernels.use("cpu"):
        with Seen():
            whole = [of_door(name, seed) for seed in (0, 1)]
        assert doors.short == 0
        for _ in range(4):  # a forward pass goes the short way from the third on, a backward pass from the fifth
            same(whole[0], of_door(name, 0))
        before = doors.short
        short = [of_door(name, seed) for seed in (0, 1)]
        assert doors.short >= before + 4 - 2 * (name in IN_PYTORCH + SAMPLERS), "a pass went the whole way"
        same(whole[0], short[0])
        same(whole[1], short[1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", DOORS)
def test_other_dtypes_have_the_bits_of_the_whole_way(name, dtype):
    with kernels.use("cpu"):
        inputs, call = DOORS[name](0)
        whole, *more = (call(*[a.to(dtype) for a in inputs]) for _ in range(5))
        for short in more:
            same(whole if isinstance(whole, tuple) else [whole], short if isinstance(short, tuple) else [short])


@pytest.mark.parametrize("name", [name for name in DOORS if name != "code_stats" and name not in SAMPLERS])
def test_second_derivatives_are_those_of_the_whole_way(name):
    with kernels.use("cpu"):
        whole = of_door(name, 5, order=2)
        for _ in range(3):
            of_door(name, 6)
        same(whole, of_door(name, 5, order=2))


def test_a_call_makes_few_calls_of_python():
    """The whole way makes 142; in a step of training each takes 2 us."""
    x, s, t = (some(4, 3, seed=i).requires_grad_() for i in range(3))
    dy, dlogdet = some(4, 3), some(4)
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event == "call" and "/torch/" not in frame.f_code.co_filename

    def call():
        y, logdet = ops.affine_coupling(x, s, t)
        torch.autograd.backward([y, logdet], [dy, dlogdet])

    with kernels.use("cpu"):
        warm(call)
        sys.setprofile(profile)
        try:
            call()
        finally:
            sys.setprofile(None)
    assert 5 < count <= 25


def test_who_watches_sees_the_operator(doors):
    x, s, t = (some(4, 3, seed=i) for i in range(3))
    call = lambda: ops.affine_coupling(x, s, t)
    with kernels.use("cpu"):
        warm(call)
        before = doors.short
        with Seen() as seen:
            call()
        with torch.profiler.profile() as profiler:
            call()
        with torch.autocast("cpu", torch.bfloat16):
            call()
        torch.func.vmap(lambda x: ops.affine_coupling(x, s, t)[0])(x[None])
        torch.func.grad(lambda x: ops.affine_coupling(x, s, t)[0].sum())(x)
        with torch.autograd.forward_ad.dual_level():
            call()
        traced = torch.jit.trace(ops.affine_coupling, (x, s, t), check_trace=False)
        assert doors.short == before
        call()
        assert doors.short == before + 1
    assert seen.names == ["genmini::affine_coupling"]
    assert any(event.key == "genmini::affine_coupling" for event in profiler.key_averages())
    assert torch.equal(traced(2 * x, s, t)[0], ops.affine_coupling(2 * x, s, t)[0])


def test_other_kinds_of_tensors_go_the_whole_way(doors):
    class Mine(torch.Tensor):
        pass

    x, s, t = (some(4, 3, seed=i) for i in range(3))
    with kernels.use("cpu"):
        warm(lambda: ops.affine_coupling(x, s, t))
        before = doors.short
        negative = torch.complex(x, -x).conj().imag  # its minus is not computed yet
        assert negative.is_neg()
        assert torch.equal(ops.affine_coupling(negative, s, t)[0], ops.affine_coupling(x.clone(), s, t)[0])
        assert doors.short == before + 1  # of x alone
        assert isinstance(ops.affine_coupling(x.as_subclass(Mine), s, t)[0], Mine)
        for wrong in (x.double(), x[:, :2], x[None]):
            with pytest.raises((TypeError, ValueError)):
                ops.affine_coupling(wrong, s, t)
        with pytest.raises(ValueError, match="save must be"):
            ops.affine_coupling(x, s, t, save="z")
        with pytest.raises(TypeError, match="tensor"):
            ops.affine_coupling(x, s, None)


def test_an_index_is_checked_each_time():
    a = some(4, 3)
    with kernels.use("cpu"):
        warm(lambda: ops.softmax_nll(a, torch.tensor([0, 1, 2, 0])))
        with pytest.raises(ValueError, match="target must lie in 0"):
            ops.softmax_nll(a, torch.tensor([0, 1, 3, 0]))


def test_one_tensor_may_stand_for_two_arguments():
    x, s, t = (some(4, 3, seed=i) for i in range(3))
    with kernels.use("cpu"):
        for _ in range(4):
            assert torch.equal(ops.affine_coupling(x, x, x)[0], ops.affine_coupling(x, x.clone(), x.clone())[0])
        for _ in range(4):
            assert torch.equal(ops.affine_coupling(x, s, s)[0], ops.affine_coupling(x, s, s.clone())[0])
            assert torch.equal(ops.affine_coupling(x, s, t)[0], ops.affine_coupling(x.clone(), s.clone(), t)[0])


def test_one_tensor_for_two_arguments_hides_neither_from_the_gradient():
    """A noted gradient that gets a tensor twice cannot tell which of the two its operator took."""

    def gradients(a, b):
        return torch.autograd.grad(ops.info_nce(a, b, torch.tensor(2.0)).sum(), [a, b])

    a, b = (some(6, 9, seed=i).requires_grad_() for i in range(2))
    with kernels.use("cpu"):
        wanted = [gradients(a, b) for _ in range(3)][0]
        for _ in range(2):
            gradients(a, a)
        for _ in range(2):
            same(wanted, gradients(a, b))


def test_one_tensor_for_two_arguments_leaves_nothing_behind(monkeypatch):
    """PyTorch's guards never match it: a kind of it would be kept for each call, and looked at by all later ones."""
    x, s = (some(4, 3, seed=i).requires_grad_() for i in range(2))
    kept = []
    with kernels.use("cpu"):
        warm(lambda: ops.affine_coupling(x, s, s)[0].sum().backward())
        monkeypatch.setattr(_plan.Kinds, "add", lambda *a, add=_plan.Kinds.add: kept.append(add(*a)) or kept[-1])
        ops.affine_coupling(x, s, s)[0].sum().backward()
    assert kept and not any(kept)


def test_a_function_mode_sees_the_operator_each_time():
    class Functions(TorchFunctionMode):
        def __torch_function__(self, function, types, arguments=(), named=None):
            names.append(getattr(function, "__name__", ""))
            return function(*arguments, **(named or {}))

    x, s, t = (some(4, 3, seed=i) for i in range(3))
    with kernels.use("cpu"):
        warm(lambda: ops.affine_coupling(x, s, t))
        for _ in range(3):
            names = []
            with Functions():
                ops.affine_coupling(x, s, t)
            assert "affine_coupling.default" in names


def test_a_kernel_may_call_its_own_front_door_each_time():
    x, s, t = (some(4, 10, seed=i) for i in range(3))
    kernels.register("affine_coupling", check=False)(lambda x, s, t: ops.affine_coupling(x, s, t))
    try:
        with kernels.use("mine"):
            for _ in range(4):
                y, logdet = ops.affine_coupling(x, s, t)
                torch.testing.assert_close((y, logdet), (x * s.exp() + t, s.sum(1)))
    finally:
        kernels.unregister("affine_coupling")


def test_a_kernel_that_runs_another_operator_is_not_that_operator():
    """The plan that the other had is not the kernel's."""
    x, s, t = (some(4, 11, seed=i) for i in range(3))
    inverse = torch.ops.genmini.affine_coupling_inverse

    @kernels.register("affine_coupling", check=False)
    def twice_inverted(x, s, t):
        y, logdet = inverse(x, s, t, "cpu")
        return 2 * y, logdet

    try:
        with kernels.use("mine"):
            for _ in range(4):
                assert torch.equal(ops.affine_coupling(x, s, t)[0], 2 * inverse(x, s, t, "cpu")[0])
    finally:
        kernels.unregister("affine_coupling")


def test_a_hook_that_runs_another_operator_is_not_the_operator():
    """Hooks of saved tensors run between the operator and the end of what records its gradient."""
    x, s, t = (some(4, 13, seed=i) for i in range(3))
    inverse = torch.ops.genmini.affine_coupling_inverse

    def pack(a):
        inverse(x, s, t, "cpu")
        return a

    leaves = [a.clone().requires_grad_() for a in (x, s, t)]
    with kernels.use("cpu"), torch.autograd.graph.saved_tensors_hooks(pack, lambda a: a):
        first, *more = (ops.affine_coupling(*leaves)[0] for _ in range(5))
    assert all(torch.equal(first, y) for y in more)


def test_a_backend_asked_for_meanwhile_is_not_that_of_the_call(doors):
    """Threads share the choice: the one of another may fall between a call's key and its operator."""

    @_door.door
    def front(x, s, t):
        kernels.use("cpu")
        return ops.affine_coupling.__wrapped__(x, s, t)

    x, s, t = (some(4, 3, seed=i) for i in range(3))
    with kernels.use("auto"):
        for _ in range(4):
            kernels.use("reference")
            front(x, s, t)
    assert doors.short == 0


def test_the_short_way_holds_for_its_backend_alone(monkeypatch, doors):
    x, s, t = (some(4, 3, seed=i) for i in range(3))
    names, chosen = [], _backend.chosen
    with kernels.use("cpu"):
        warm(lambda: ops.affine_coupling(x, s, t))
    monkeypatch.setattr(_backend, "chosen", lambda *a: names.append(chosen(*a).backend) or chosen(*a))
    with kernels.use("reference"):
        for _ in range(4):
            ops.affine_coupling(x, s, t)
    assert names == ["reference"] * 4
    kernels.register("affine_coupling", check=False)(lambda x, s, t: (x + 1, s.sum(1)))
    try:
        with kernels.use("mine"):
            for _ in range(4):
                assert torch.equal(ops.affine_coupling(x, s, t)[0], x + 1)
    finally:
        kernels.unregister("affine_coupling")


def test_views_and_threads_may_change():
    whole, threads = some(70), torch.get_num_threads()
    s, t = some(4, 8, seed=1), some(4, 8, seed=2)
    with kernels.use("cpu"):
        try:
            for count in (1, 2, 1, 2, 3):
                torch.set_num_threads(count)
                for x in (whole[:32].view(4, 8), whole[1:33].view(4, 8), whole[:64].view(4, 16)[:, ::2],
                          whole[:32].view(8, 4).T, whole[:8].expand(4, 8)):
                    for _ in range(3):
                        y, logdet = ops.affine_coupling(x, s, t)
                        wanted = ops.affine_coupling(x.clone(memory_format=torch.contiguous_format), s, t)
                        assert torch.equal(y, wanted[0]) and torch.equal(logdet, wanted[1]) and y.is_contiguous()
        finally:
            torch.set_num_threads(threads)


def test_a_plan_is_for_a_number_of_threads(doors):
    """Its workspace is for so many."""
    z, index, threads = some(40, 8), levels(40, below=5), torch.get_num_threads()
    with kernels.use("cpu"):
        try:
            torch.set_num_threads(2)
            warm(lambda: ops.code_stats(z, index, 5))
            before = doors.short
            torch.set_num_threads(3)
            ops.code_stats(z, index, 5)
            assert doors.short == before
            warm(lambda: ops.code_stats(z, index, 5))
            assert doors.short > before
        finally:
            torch.set_num_threads(threads)


def test_a_changed_input_is_refused_by_the_backward_pass():
    x, s, t = (some(4, 3, seed=i).requires_grad_() for i in range(3))
    with kernels.use("cpu"):
        for _ in range(4):
            h = 1 * x
            y, _ = ops.affine_coupling(h, s, t)
            with torch.no_grad():
                h.add_(1)
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                y.sum().backward()
