"""Kernels of a user that are carelessly written or called: each is named, none ends the process or changes it."""

import functools
import re
import threading

import pytest
import torch
from genmini.kernels import _backend

from genmini import kernels, ops


@pytest.fixture(autouse=True)
def nothing_registered():
    yield
    _backend.OWN.clear()


def exact(z, e):
    infinity = float("inf")
    return (z[:, None].double() - e.double()).square().sum(2).nan_to_num(infinity, infinity).argmin(1)


def test_a_kernel_that_returns_one_buffer_again_and_again_is_refused():
    """The outputs of its first call change in the second."""
    buffers = {}

    @kernels.register("affine_coupling")
    def kept(x, s, t):
        y = buffers.setdefault(x.shape, torch.empty_like(x))
        return y.copy_(x * s.exp() + t), s.sum(1)

    assert "y lies in the memory of the call before" in str(kernels.checked("affine_coupling"))


@pytest.mark.parametrize("dtypes", ["float32", "", None, 3, (), [torch.int32]])
def test_dtypes_that_are_none_are_shown(dtypes):
    with pytest.raises(ValueError, match=re.escape(f"float64, got {dtypes!r}")):
        kernels.register("affine_coupling", dtypes=dtypes)


def test_all_that_can_be_called_by_name_is_taken():
    class Search:
        def __call__(self, z, e, more=1):
            return exact(z, e)

    for function in (functools.partial(exact), Search()):
        kernels.register("nearest_code")(function)
        assert kernels.checked("nearest_code").right
    for function in (3, None, torch.jit.script(exact_script)):
        with pytest.raises(TypeError, match=re.escape("needs a function with a signature, as `def f(z, e)`: ")):
            kernels.register("nearest_code")(function)
    kernels.register("nearest_code")(exact)  # the last one stays


def exact_script(z, e):
    return (z[:, None] - e).square().sum(2).argmin(1)


def test_checks_in_two_threads_leave_the_process_as_it_was():
    """One begins within the other, and ends after it."""
    torch.use_deterministic_algorithms(False)
    within, goes_on = threading.Event(), threading.Event()

    @kernels.register("affine_coupling")
    def slow(x, s, t):
        within.set()
        goes_on.wait(0.03)
        return x * s.exp() + t, s.sum(1)

    @kernels.register("nearest_code")
    def late(z, e):
        goes_on.set()
        first.join(0.1)
        return exact(z, e)

    first = threading.Thread(target=kernels.checked, args=["affine_coupling"])
    second = threading.Thread(target=kernels.checked, args=["nearest_code"])
    first.start()
    within.wait(5)
    second.start()
    first.join()
    second.join()
    on = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    assert not on


@pytest.mark.parametrize("numbers", [(), (3,), (3, 4, 5)])
def test_a_call_of_a_source_with_other_arguments_than_it_has_is_no_crash(tmp_path, numbers):
    path = tmp_path / "scale.cpp"
    path.write_text("""#include <cstdint>
extern "C" int scale(const float* x, float* y,  // of rows, columns
                     int64_t N, int64_t D /* of x, of y */, int threads) {
    for (int64_t i = 0; i < N * D; i++) y[i] = 2 * x[i];
    return 0;
}
""")
    x, y, source = torch.ones(3, 4), torch.empty(3, 4), kernels.Source(path)
    with pytest.raises(TypeError, match=f"scale of scale.cpp takes x, y, N, D, got {2 + len(numbers)} arguments$"):
        source.call("scale", x, y, *numbers)
    source.call("scale", x, y, 3, 4)
    assert torch.equal(y, 2 * x)


def test_autocast_ends_where_a_kernel_begins():
    """Its products are of the dtypes that it gets, and it is judged as without."""
    dtypes = set()

    def linear(x, weight, bias, in_degree, out_degree, strict):
        some = out_degree[:, None] > in_degree if strict else out_degree[:, None] >= in_degree
        y = x @ torch.where(some, weight, 0).T
        dtypes.add((x.dtype, y.dtype))
        return y if bias is None else y + bias

    kernels.register("masked_linear", dtypes=(torch.float32, torch.bfloat16))(linear)
    degrees = torch.arange(4)
    with kernels.use("mine"), torch.autocast("cpu", torch.bfloat16):
        y = ops.masked_linear(torch.ones(2, 4), torch.ones(4, 4), None, degrees, degrees)
        assert kernels.checked("masked_linear").right
    assert y.dtype == torch.bfloat16 and all(one == other for one, other in dtypes) and len(dtypes) == 2

    kernels.register("masked_linear")(lambda x, weight, bias, in_degree, out_degree, strict: linear(
        x, weight, bias, in_degree, out_degree, strict) * 1.002)
    with torch.autocast("cpu", torch.bfloat16):
        assert not kernels.checked("masked_linear").right


def test_libraries_of_other_sources_stay(tmp_path):
    for name in ("a.cpp", "a-b.cpp", "a.cu", "a.cpp"):
        (tmp_path / name).write_text('#include <cstdint>\nextern "C" int f(const float* x, int threads) { return 0; }')
        kernels.Source(tmp_path / name).call("f", torch.ones(1))
    (tmp_path / "a.cpp").write_text('extern "C" int f(const float* x, int threads) { return 0; }')
    kernels.Source(tmp_path / "a.cpp").call("f", torch.ones(1))
    found = sorted(path.name.rpartition("-")[0] for path in (tmp_path / "__genmini__").iterdir())
    assert found == ["a-b.cpp", "a.cpp", "a.cu"]


@pytest.mark.parametrize("version", [False, True])
def test_weights_that_are_kept_must_be_read_again_after_a_step(version):
    packed = {}

    @kernels.register("nearest_code")
    def kept(z, e):
        key = e.data_ptr(), e.shape, e._version if version else 0
        if key not in packed:
            packed[key] = e, e.double()  # e stays, so that no other takes its place
        return exact(z, packed[key][1])

    report = kernels.checked("nearest_code")
    assert report.right == version, str(report)
    said = "index is that of an earlier call, whose inputs had other numbers in the same memory"
    assert (said in str(report)) != version


@pytest.mark.parametrize("right, wrong, said", [
    ("i < N * D", "i <= N * D", "scale wrote beyond the end of y, which has 221 numbers"),
    ("i = 0", "i = -1", "scale wrote before the start of y, which has 221 numbers"),
    ("x[i]", "x[i + 1]", r"\[12, 16\]: expected .*, came nan"),
    ("y[i] =", "y[i + 9999] =", "wrote beyond the end of y"),
    ("x[i]", "x[i]", "is right on all"),
])
def test_what_a_source_writes_or_reads_outside_its_tensors_is_seen(tmp_path, right, wrong, said):
    path = tmp_path / "scale.cpp"
    path.write_text("""#include <cstdint>
extern "C" int scale(const float* x, float* y, int64_t N, int64_t D, int threads) {
    for (int64_t i = 0; i < N * D; i++) y[i] = x[i];
    return 0;
}
""".replace(right, wrong))
    source = kernels.Source(path)

    @kernels.register("affine_coupling")
    def mine(x, s, t):
        y = torch.empty_like(x)
        source.call("scale", x * s.exp() + t, y, *x.shape)
        return y, s.sum(1)

    report = str(kernels.checked("affine_coupling"))
    assert re.search(said, report), report
