"""Kernels of a user behind our operators: checked on their first use, then run where their backend is chosen."""

import re

import pytest
import torch
from genmini.kernels import _backend, _cruel, _operator

import genmini
from genmini import kernels, ops

Z, E = torch.randn(40, 16), torch.randn(64, 16)
FLOATS = torch.float32, torch.float64
OPERATORS = {*_operator.OPERATORS}  # other tests add toys
CONVERTED = ("nade", "nade_backward")  # their front door makes float32 of 16 bits


@pytest.fixture(autouse=True)
def nothing_registered():
    yield
    _backend.OWN.clear()


def same(operator, change="", at=()):
    """A function that does what the operator does elsewhere; `change` is a line about its inputs or `out`."""
    names = ", ".join(operator.inputs)
    lines = [f"def same({names}):", f"    out = run({names})",
             "    out = [one.clone() for one in (out if type(out) is tuple else [out])]",
             f"    {change or 'pass'}", "    return tuple(out) if len(out) > 1 else out[0]"]
    found = dict(run=lambda *values: operator.overload(*values, "auto"), torch=torch)
    exec("\n".join(lines), found)
    return found["same"]


def exact(z, e):
    infinity = float("inf")
    return (z[:, None].double() - e.double()).square().sum(2).nan_to_num(infinity, infinity).argmin(1)


@pytest.mark.parametrize("name", _cruel.SPECS)
def test_our_own_kernels_pass(name):
    operator = _operator.OPERATORS[name]
    dtypes = FLOATS if name in CONVERTED else (torch.float32, torch.bfloat16)
    kernels.register(name, dtypes=dtypes)(same(operator))
    report = kernels.checked(name)
    assert report.right, str(report)
    assert {case.words for case in report.passed} >= {"odd sizes", "all sizes 1", "tiny numbers", "at odd addresses"}


@pytest.mark.parametrize("name", _cruel.SPECS)
def test_a_wrong_number_or_one_input_too_much_is_found(name):
    """The last number of an output is wrong in each output; or an input is written to."""
    operator = _operator.OPERATORS[name]
    for i, output in enumerate(operator.outputs):
        change = f"if out[{i}].numel(): last = out[{i}].view(-1)[-1:]; last += 1 + last.abs() // 8"
        kernels.register(name)(same(operator, change))
        report = kernels.checked(name)
        assert not report.right and re.search(rf" {output}(\[[\d, ]+\])?: expected", str(report)), str(report)
    first = next(name for name in _cruel.tensors_of(operator) if name not in _cruel.SPECS[operator.name].below)
    kernels.register(name)(same(operator, f"{first}.mul_(2)"))
    assert f"it overwrote its input {first}" in str(kernels.checked(name))


def test_operators_without_cruel_inputs_say_so():
    """Among them those whose draws a rounding of a probability may change."""
    assert OPERATORS - set(_cruel.SPECS) >= {"made_sample", "nade_sample", "pixelcnn_sample"}
    assert set(_cruel.SPECS) <= OPERATORS
    with pytest.raises(ValueError, match="nade_sample cannot be checked"):
        kernels.register("nade_sample")


def test_a_right_kernel_runs_where_it_is_chosen():
    calls = []

    @genmini.register("nearest_code", backend="mine")
    def mine(z, e):
        calls.append(len(z))
        return exact(z, e)

    index = ops.nearest_code(Z, E)
    assert not calls
    with genmini.use("mine"):
        assert torch.equal(ops.nearest_code(Z, E), index) and calls[-1] == 40 and len(calls) > 2
        calls.clear()
        assert torch.equal(ops.nearest_code(Z.view(2, 20, 16), E), index.view(2, 20)) and calls == [40]  # checked once
        chosen = kernels.chosen("nearest_code")
        line = mine.__code__.co_firstlineno
        assert (chosen.backend, chosen.why) == ("mine", f"registered: mine (test_own.py:{line})")
        assert kernels.chosen("code_stats") == kernels.chosen("code_stats", request="auto")
        ops.code_stats(Z, index, 64)  # follows auto
    ops.nearest_code(Z, E)
    assert calls == [40] and mine(Z, E).shape == (40,)  # what is registered is returned as it is


def test_a_wrong_kernel_raises_its_report_and_is_not_used():
    @kernels.register("nearest_code")
    def in_float32(z, e):
        return torch.cdist(z, e).argmin(1)

    with kernels.use("mine"), pytest.raises(kernels.WrongKernel) as error:
        ops.nearest_code(Z, E)
    text = str(error.value)
    assert text.startswith("in_float32 (test_own.py:") and "backend 'mine' of nearest_code, is wrong on 1 of 15" in text
    assert "  codes that are nearly as near: sum in double: N=8 K=16 D=2, float32 and float32\n" in text
    assert "      index[0]: expected 1, came 0 (1 of 8 numbers are wrong)\n" in text
    assert "  right: odd sizes; N = 0; " in text


def test_a_report_says_where_what_was_expected_and_what_came():
    @kernels.register("affine_coupling")
    def forgets(x, s, t):
        return x * s.exp() + t, s[:, 1:].sum(1)

    text = str(kernels.checked("affine_coupling"))
    assert re.search(r"odd sizes: N=13 D=17, float32 \(so, too: .*\)\n +logdet\[0\]: expected -?[\d.]+, "
                     r"came -?[\d.]+, off by [\d.]+ at most, where [\d.e-]+ is allowed \(13 of 13 ", text), text
    assert text.endswith("\n  right: N = 0; D = 0")

    @kernels.register("affine_coupling")
    def unwritten(x, s, t):
        return torch.full_like(x, float("nan")), s.sum(1)

    assert "came nan; was it ever written? (221 of 221 numbers are wrong)" in str(kernels.checked("affine_coupling"))


@pytest.mark.parametrize("returned, words", [
    ("x", "y must be a tensor, got str"), (torch.zeros(1, 2), r"y must have shape \(13, 17\), got \(1, 2\)"),
])
def test_what_is_no_output_is_named(returned, words):
    kernels.register("affine_coupling")(lambda x, s, t: (returned, s.sum(1)))
    assert re.search(words, str(kernels.checked("affine_coupling")))


def test_outputs_of_another_dtype_count_or_memory_are_named():
    for function, words in ((lambda x, s, t: x, "it must return y, logdet, got 1 outputs"),
                            (lambda x, s, t: (x.double(), s.sum(1)), "y must be of dtype float32, got float64"),
                            (lambda x, s, t: (x, s.sum(1)), "y must be a new tensor; it lies in the memory of ")):
        kernels.register("affine_coupling")(function)
        assert words in str(kernels.checked("affine_coupling"))


def test_a_number_that_is_never_written_is_found_whatever_lies_there():
    @kernels.register("affine_coupling")
    def all_but_the_last(x, s, t):
        y = torch.empty_like(x)
        y.view(-1)[:-1] = (x * s.exp() + t).view(-1)[:-1]
        return y, s.sum(1)

    torch.use_deterministic_algorithms(False)  # as it is for users; the next test has it on again
    report = str(kernels.checked("affine_coupling"))
    assert "y[12, 16]: expected" in report and "came nan; was it ever written? (1 of 221 numbers are wrong)" in report
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_default_device_of_the_user_is_left_alone():
    kernels.register("nearest_code")(exact)
    with torch.device("meta"):
        assert kernels.checked("nearest_code").right
        assert torch.empty(1).is_meta


def test_results_that_change_from_run_to_run_are_found():
    noise = iter(range(10**6))
    kernels.register("affine_coupling")(lambda x, s, t: (x * s.exp() + t + 1e-9 * x * next(noise), s.sum(1)))
    assert "y differs between two runs" in str(kernels.checked("affine_coupling"))


def test_errors_name_the_function():
    @kernels.register("affine_coupling")
    def divides(x, s, t):
        if len(x) == 3:
            raise ZeroDivisionError("three rows")
        return x * s.exp() + t, s.sum(1)

    x = torch.randn(3, 4)
    with kernels.use("mine"), pytest.raises(RuntimeError, match=r"divides \(test_own.py:\d+\), backend 'mine' of "
                                            "affine_coupling, failed: ZeroDivisionError: three rows"):
        ops.affine_coupling(x, x, x)
    with kernels.use("mine"), pytest.raises(TypeError, match="takes x of dtype float32, got float64: register it with"):
        ops.affine_coupling(*[x.double()] * 3)
    kernels.register("affine_coupling")(lambda x, s, t: x.no_such_method())
    report = str(kernels.checked("affine_coupling"))
    assert re.search("it raised AttributeError: .* in line [0-9]+ of test_own.py", report)


def test_mistakes_of_registering_are_named():
    with pytest.raises(ValueError, match="unknown operator 'nearest'; the operators are affine_coupling, "):
        kernels.register("nearest")
    for backend in ("cpu", "my kernel", 3):
        with pytest.raises(ValueError, match="backend must be a name of yours"):
            kernels.register("nearest_code", backend)
    with pytest.raises(ValueError, match="dtypes must be of float32, .* got torch.int64"):
        kernels.register("nearest_code", dtypes=torch.int64)
    with pytest.raises(NameError, match="names 'codebook', which is none of z, e"):
        kernels.register("nearest_code")(lambda z, codebook: z)
    with pytest.raises(ValueError, match="nothing is registered as backend 'mine' of nearest_code"):
        kernels.unregister("nearest_code")
    with pytest.raises(ValueError, match="unknown backend 'nobody'"):
        kernels.use("nobody")


def test_registered_again_it_is_checked_again_and_unregistered_it_is_gone():
    kernels.register("nearest_code")(lambda z, e: exact(z, e) * 0)
    with kernels.use("mine"):
        with pytest.raises(kernels.WrongKernel):
            ops.nearest_code(Z, E)
        kernels.register("nearest_code")(exact)
        index = ops.nearest_code(Z, E)
        kernels.unregister("nearest_code")
        assert torch.equal(ops.nearest_code(Z, E), index) and kernels.chosen("nearest_code").backend != "mine"
    assert kernels.own("nearest_code") == ()


def test_without_a_check_it_is_said_aloud():
    with pytest.warns(UserWarning, match=r"zeros \(test_own.py:\d+\) is not checked: nearest_code gives whatever"):
        @kernels.register("nearest_code", check=False)
        def zeros(z, e):
            return torch.zeros(len(z), dtype=torch.int64)

    with kernels.use("mine"):
        assert not ops.nearest_code(Z, E).any()


def test_a_gradient_runs_on_auto_or_on_a_kernel_of_its_own():
    calls = []

    @kernels.register("affine_coupling", dtypes=FLOATS)
    def forward(x, s, t):
        return x * s.exp() + t, s.sum(1)

    x, s, t = (torch.randn(4, 6, dtype=torch.float64, requires_grad=True) for _ in range(3))
    wanted = torch.autograd.grad(sum(o.square().sum() for o in ops.affine_coupling(x, s, t)), (x, s, t))
    for _ in range(2):
        with kernels.use("mine"):
            outs = ops.affine_coupling(x, s, t)
        found = torch.autograd.grad(sum(o.square().sum() for o in outs), (x, s, t))
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other)
        assert bool(calls) == bool(kernels.own("affine_coupling_backward"))
        backward = same(_operator.OPERATORS["affine_coupling_backward"])
        kernels.register("affine_coupling_backward", dtypes=FLOATS)(
            lambda dy, dlogdet, kept, s, t, run=backward: calls.append(1) or run(dy, dlogdet, kept, s, t))
    assert torch.autograd.gradcheck(ops.affine_coupling, (x, s, t))


def test_compile_and_vmap_go_on_behind_the_operator():
    kernels.register("nearest_code")(exact)
    compiled = torch.compile(lambda z: ops.nearest_code(z, E) + 1, fullgraph=True, backend="aot_eager")
    index = ops.nearest_code(Z, E)
    for backend in ("mine", "auto", "mine"):
        with kernels.use(backend):
            assert torch.equal(compiled(Z), index + 1)
            assert torch.equal(torch.func.vmap(lambda z: ops.nearest_code(z, E))(Z.view(4, 10, 16)), index.view(4, 10))


def test_a_kernel_may_call_its_own_operator_for_what_it_leaves_out():
    kernels.register("nearest_code")(lambda z, e: ops.nearest_code(z, e))
    with kernels.use("mine"):
        assert torch.equal(ops.nearest_code(Z, E), exact(Z, E))


def test_inputs_are_contiguous_unless_strided():
    seen = []
    for strided in (False, True):
        kernels.register("nearest_code", strided=strided)(lambda z, e: seen.append(z.is_contiguous()) or exact(z, e))
        with kernels.use("mine"):
            ops.nearest_code(Z.T.contiguous().T, E)
    assert seen[-1] is False and all(seen[: len(seen) // 2])


def test_the_check_leaves_the_random_numbers_and_switches_of_the_user():
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    kernels.register("quantize")(same(_operator.OPERATORS["quantize"]))
    assert kernels.checked("quantize").right and torch.equal(torch.rand(4), wanted)


# ---- sources --------------------------------------------------------------------------------------------------------

NATIVE = """#include <cmath>
#include <cstdint>
extern "C" int couple(const float* x, const float* s, const float* t, float* y, float* logdet, int64_t N, int64_t D,
                      int threads) {
    for (int64_t n = 0; n < N; n++) {
        double sum = 0;
        for (int64_t d = n * D; d < (n + 1) * D; d++) y[d] = x[d] * std::exp(s[d]) + t[d], sum += s[d];
        logdet[n] = float(sum);
    }
    return threads < 1;
}
"""


def test_a_source_in_cpp_is_compiled_again_when_it_changed(tmp_path):
    path = tmp_path / "couple.cpp"
    path.write_text(NATIVE.replace("+ t[d]", "- t[d]"))
    source = kernels.Source(path)

    def couple(x, s, t):
        y, logdet = torch.empty_like(x), x.new_empty(len(x))
        source.call("couple", x, s, t, y, logdet, *x.shape)
        return y, logdet

    kernels.register("affine_coupling")(couple)
    assert not kernels.checked("affine_coupling").right
    path.write_text(NATIVE)
    kernels.register("affine_coupling")(couple)
    report = kernels.checked("affine_coupling")
    assert report.right, str(report)
    assert len([*(tmp_path / "__genmini__").iterdir()]) == 1  # of the last content
    with pytest.raises(RuntimeError, match="couple.cpp has no function double"):
        source.call("double")
    path.write_text(NATIVE.replace("return", "retrun"))
    kernels.register("affine_coupling")(couple)
    with pytest.raises(kernels.WrongKernel, match=r"run: couple.cpp does not compile: .*couple.cpp:10:\d+: error"):
        kernels.checked("affine_coupling")


def test_a_source_must_be_one(tmp_path):
    with pytest.raises(ValueError, match="a source is a .cu or a .cpp, got a.c"):
        kernels.Source(tmp_path / "a.c")
    with pytest.raises(FileNotFoundError, match="there is no .*a.cu"):
        kernels.Source(tmp_path / "a.cu")


def test_the_tolerance_is_that_of_any_order_of_a_sum():
    """float32: a sum from the first to the last is taken; one in bfloat16 is not."""
    for sums, right in ((torch.float32, True), (torch.bfloat16, False)):
        def one_by_one(x, weight, bias, in_degree, out_degree, strict, sums=sums):
            w = ops.masked_linear(torch.eye(x.shape[1]), weight, None, in_degree, out_degree, strict).T
            y = torch.zeros(len(x), len(weight), dtype=sums)
            for k in range(x.shape[1]):
                y = y + x[:, k, None].to(sums) * w[:, k].to(sums)
            return y.float() if bias is None else y.float() + bias

        kernels.register("masked_linear")(one_by_one)
        assert kernels.checked("masked_linear").right == right, str(kernels.checked("masked_linear"))
