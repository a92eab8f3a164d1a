"""What csrc/unit.py makes of a user's .cu: which kernels it has, and what is rewritten for g++."""

import pytest
from genmini.csrc import unit

SOURCE = r"""
// __global__ void commented(int n) { a<<<1, 2>>>(n); }
const char* text = "__global__ void quoted() { b<<<1, 2>>>(); } \" // ";
template <class T, int N>
__global__ void __launch_bounds__(256) many(const T* __restrict__ x,
                                            T* y) { extern __shared__ T s[]; }
static __global__ void one(float *x, int n = 3) {}
__global__ void declared(int n);
"""


def test_kernels_are_found():
    """Those with a body, outside of comments and quotes."""
    assert [str(kernel) for kernel in unit.kernels(SOURCE)] == [
        "many<class T, int N>(const T* __restrict__ x, T* y)", "one(float *x, int n = 3)"]
    (kernel,) = unit.kernels("template <class T, int N = (sizeof(T) > 4)>\n__global__ void "
                             "__launch_bounds__(int(sizeof(T)) * 16) k(T* x) {}")
    assert str(kernel) == "k<class T, int N = (sizeof(T) > 4)>(T* x)"
    assert not unit.has_main(SOURCE) and unit.has_main("\nint main(int argc, char** argv) {}")
    assert not unit.has_main("// int main() {\n/* \nint main() */ int domain() {")


def test_an_example_has_an_array_for_each_pointer():
    assert unit.example(unit.kernels(SOURCE)) == "Array<float> x(1024); one<<<32, 32>>>(x, 1024);"
    kernel = unit.Kernel("k", "int A, class T", "const unsigned int* const a, T *b, float c")
    assert unit.example([kernel]) == ("Array<unsigned int> a(1024); Array<float> b(1024); "
                                      "k<32, float><<<32, 32>>>(a, b, 1024);")


@pytest.mark.parametrize("text, wanted", [
    ("k<<<1, 2>>>(x);", "::genmini::configured(k, 1, 2)(x);"),
    ("a::k<32, (1 > 0), T<3>> <<< dim3(n >> 1), b[1 << 2], 0, s >>> (x);",
     "::genmini::configured(a::k<32, (1 > 0), T<3>> ,  dim3(n >> 1), b[1 << 2], 0, s ) (x);"),
    ("if (x) k<<<g,\n b>>>(x); else k<<<1, f(2, 3)>>>();",
     "if (x) ::genmini::configured(k, g,\n b)(x); else ::genmini::configured(k, 1, f(2, 3))();"),
    ("#define RUN(k) k<<<1, 2>>>(x)", "#define RUN(k) ::genmini::configured(k, 1, 2)(x)"),
    ('puts("k<<<1, 2>>>(x)"); // k<<<1', 'puts("k<<<1, 2>>>(x)"); // k<<<1'),
    ("{ extern __shared__ __align__(16)\n  float s[];", "{ float* s = dynamic_shared<float>();\n"),
    ("namespace a { void f() {} extern __shared__\n float s[]; }",
     "namespace a { void f() {} static const ::genmini::Dynamic<float> s;\n }"),
    ("Array<float> x(f(2), 3), y{4}; Array<int> z(5);",
     'Array<float> x("x", f(2), 3), y{"y", 4}; Array<int> z("z", 5);'),
    ("__constant__ float a[3] = {1, 2}, b;\n", "__constant__ float a[3] = {1, 2}, b; static const "
     "::genmini::Constant a_is_constant(a); static const ::genmini::Constant b_is_constant(b);\n"),
    ("extern __constant__ float a[3];", "extern __constant__ float a[3];"),
    ("void f(Array<float> x, int n);", "void f(Array<float> x, int n);"),
    ("y = a << b; std::cout << x << 'k'; v<w<x>>(1'000);", "y = a << b; std::cout << x << 'k'; v<w<x>>(1'000);"),
])
def test_what_cpp_does_not_have_is_rewritten(text, wanted):
    assert unit.rewritten(text, "my.cu") == wanted


@pytest.mark.parametrize("callee, deduced", [
    ("many", True), ("many<float>", True), ("many<float, 3>", False), ("one", False), ("a::one", False),
    ("twice", True), ("unknown", False), ("twice[0]", False), ("a::all[n[1] + 2][many(3)]", False),
])
def test_cpp_finds_out_which_kernel_is_meant(callee, deduced):
    """Where not all template arguments are written, or several kernels have the name."""
    twice = "".join(f"__global__ void twice({kind} x) {{}}\n" for kind in ("int", "float"))
    start = f"deduced(GENMINI_CALL({callee})" if deduced else f"configured({callee}"
    wanted = f"::genmini::{start}, 1, 2)(x)"
    assert unit.rewritten(f"{callee}<<<1, 2>>>(x)", "my.cu", unit.kernels(SOURCE + twice)) == wanted


@pytest.mark.parametrize("text", ["\nk<<<1, 2>>(x);", "\nk<<<1, 2>>>;", "\n<<<1, 2>>>(x);", "\nk<<<1, (2>>>(x);",
                                  "\nk<<<"])
def test_a_launch_that_is_not_whole_is_named_with_its_line(text):
    with pytest.raises(ValueError, match="my.cu:2: this launch is not whole; it is kernel<<<grid, block>>>"):
        unit.rewritten(text, "my.cu")


def test_the_unit_keeps_lines_and_quotes_paths():
    lines = unit.of("one\ntwo", "call", "my.cu", 'a"b\\c.cu').splitlines()
    assert lines[:4] == ['#include "own/call.h"', r'#line 1 "a\"b\\c.cu"', "one", "two"] and "call" in lines
    assert "(void)main();" in unit.of("int main() {}", "", "my.cu")
    assert "main(1, names);" in unit.of("int main(int n, char** words) {}", "", "my.cu")
    assert "k<<<1, 2>>>(x);" in unit.for_nvcc("", "Array<float> x(3); k<<<1, 2>>>(x);")
