"""Test what csrc/gpu.h says of asynchronous copies and of the tensor cores, on the emulator and on a GPU."""

import ctypes
from fractions import Fraction

import numpy as np
import pytest
import torch
from emulated import DTYPES, INCLUDE, SOURCE, build, call, poison, rounded, sanitize, with_gxx

pytestmark = with_gxx


def test_copies_are_invisible_until_the_wait(gpu):
    x, out = np.arange(1, 9, dtype=np.float32), np.zeros((5, 8), np.float32)
    call(gpu, "run_copies", x, out)
    no = poison(gpu.order)
    want = [[no] * 8, [1, 2, 3, 4, no, no, no, no], [1, 2, 3, 4, 5, 6, 7, 0], [no, no, no, 4, 5, 6, 7, 0],
            [3, 4, 0, 4, 5, 6, 7, 0]]
    np.testing.assert_array_equal(out, np.float32(want))


def test_copies_read_early_or_late(gpu):
    """At once where threads run forward, at the wait in other orders: a source that changes in between is noticed."""
    x, out = np.arange(1, 5, dtype=np.float32), np.zeros(4, np.float32)
    call(gpu, "run_copy_meanwhile", x, out)
    assert out.tolist() == ([1, 2, 3, 0] if gpu.order == "forward" else [-1, -1, -1, 0])


@pytest.mark.parametrize("transposed", [0, 1])
def test_load_matrix_hands_out_rows_by_quarters(gpu, transposed):
    matrices = np.arange(256, dtype=np.uint16).reshape(4, 8, 8)
    out = np.zeros((6, 32), np.uint32)
    call(gpu, "run_matrices", matrices, out, transposed)
    for register in range(6):
        matrix = matrices[register % 4].T if transposed else matrices[register % 4]
        want = np.ascontiguousarray(matrix).view(np.uint32).reshape(32)  # lane 4 r + c has columns 2c, 2c + 1 of row r
        assert (out[register] == want).all()


def tensor_core_sum(products, c):
    """Add in exact fractions: align to the largest, cut below its 25th fraction bit, add, cut to 24 bits."""
    terms = [*products, Fraction(float(c))]
    largest = max(map(abs, terms))
    if largest == 0:
        return np.float32(0)
    exponent = largest.numerator.bit_length() - largest.denominator.bit_length()
    exponent -= Fraction(2) ** exponent > largest
    unit = Fraction(2) ** (exponent - 25)
    total = sum(int(term / unit) for term in terms) * unit  # int() cuts toward zero
    return rounded(total, "zero")


def random_matrices(kind, M, seed, exponents):
    generator = np.random.default_rng(seed)
    K, dtype = (8, torch.float32) if kind == 0 else (16, DTYPES[kind])

    def draw(*shape):
        return torch.from_numpy(
            generator.standard_normal(shape) * 2.0 ** generator.integers(-exponents, exponents + 1, shape)
        )

    a, b, d = draw(M, 16, K).to(dtype), draw(M, K, 8).to(dtype), draw(M, 16, 8).float()
    if kind == 0:  # TF32: ten bits of fraction
        a, b = ((v.view(torch.int32) & -8192).view(torch.float32) for v in (a, b))
    return a, b, d


def multiply(library, kind, a, b, d):
    out = d.numpy().copy()
    bits = [v.view(torch.int32 if kind == 0 else torch.int16).numpy() for v in (a, b)]
    call(library, "run_multiply", kind, *bits, out, len(a))
    return out


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("exponents", [0, 3, 7])
def test_tensor_cores_add_as_stated(library, kind, exponents):
    """The sums equal exact fractions bit for bit, and keep the rooms' bound, a share of the largest magnitude."""
    a, b, d = random_matrices(kind, 3, exponents, exponents)
    out = multiply(library, kind, a, b, d)
    K = a.shape[-1]
    for m, i, j in np.ndindex(out.shape):
        products = [Fraction(float(a[m, i, k])) * Fraction(float(b[m, k, j])) for k in range(K)]
        assert out[m, i, j] == tensor_core_sum(products, d[m, i, j])
    assert within_the_bound(kind, a, b, d, out) <= 1


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_tensor_cores_cut_and_lose_what_is_small(library, kind):
    K = 8 if kind == 0 else 16
    a, b, d = torch.zeros(5, 16, K), torch.zeros(5, K, 8), torch.zeros(5, 16, 8)
    one = 1.0
    a[0, :, 0], b[0, 0], d[0] = one, one, 2.0**24  # 2^24 + 1 is no float: cut
    a[1, :, :4], b[1, :4], d[1] = one, 0.25, 2.0**24  # quarters at two extra bits: each is kept, their sum 1 is cut
    a[2, :, :4], b[2, :4], d[2] = one, 0.125, 2.0**23  # eighths at 2^23 lie a bit below the two extra ones (2^-2): lost
    a[3, :, 0], b[3, 0], d[3] = one, -(2.0**-14), one  # toward zero: 1 - 2^-14
    a[4, :, 0], b[4, 0], a[4, :, 1], b[4, 1], d[4] = (
        256.0,
        128.0,
        -256.0,
        128.0,
        2.0**-12,
    )  # 2^15 - 2^15 leaves only what the alignment kept
    dtype = torch.float32 if kind == 0 else DTYPES[kind]
    out = multiply(library, kind, a.to(dtype), b.to(dtype), d)
    for m, want in enumerate([2.0**24, 2.0**24, 2.0**23, 1 - 2.0**-14, 0.0]):
        assert (out[m] == want).all(), (m, out[m][0, 0])


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_tensor_cores_on_subnormals_infinity_and_nan(library, kind):
    K = 8 if kind == 0 else 16
    dtype = torch.float32 if kind == 0 else DTYPES[kind]
    a, b, d = torch.zeros(6, 16, K), torch.zeros(6, K, 8), torch.zeros(6, 16, 8)
    inf, nan = float("inf"), float("nan")
    tiny = {0: 2.0**-130, 1: 2.0**-24, 2: 2.0**-133}[kind]  # subnormal in its type
    a[0, :, 0], b[0, 0] = tiny, 1.0
    a[1, :, 0], b[1, 0], d[1] = inf, 1.0, 5.0
    a[2, :, 0], b[2, 0], d[2] = inf, 1.0, -inf
    a[3, :, 0], b[3, 0] = inf, 0.0
    a[4, :, 0], b[4, 0], d[4] = nan, 0.0, 1.0
    d[5] = 2.0**-149
    out = multiply(library, kind, a.to(dtype), b.to(dtype), d)
    for m, want in enumerate([tiny, inf, nan, nan, nan, 2.0**-149]):
        np.testing.assert_array_equal(out[m], np.float32(want))


def test_tensor_cores_overflow_to_infinity(library):
    a, b, d = torch.zeros(1, 16, 8), torch.zeros(1, 8, 8), torch.full((1, 16, 8), 3e38)
    a[0, :, 0], b[0, 0] = 2.0**64, 2.0**63
    assert (multiply(library, 0, a, b, d) == np.inf).all()
    assert (multiply(library, 0, -a, b, -d) == -np.inf).all()


def adversarial(kind):
    """Return products, of one sign or of alternating signs, that alignment to a larger sum loses almost wholly."""
    K, dtype = (8, torch.float32) if kind == 0 else (16, DTYPES[kind])
    below_one = 1 - 2.0 ** -(8 if kind == 2 else 11)
    a, b, d = torch.empty(40, 16, K), torch.empty(40, K, 8), torch.empty(40, 16, 8)
    for m in range(40):
        sign = torch.tensor([(-1.0) ** (k * (m % 2)) for k in range(K)])
        a[m], b[m] = 2.0**-13 * sign, 2.0 ** (m // 2 - 16) * below_one  # products from 2^-29 to 2^-10
        d[m] = torch.linspace(1, 2, 128).reshape(16, 8) * (1 if m % 4 < 2 else -1)
    return a.to(dtype), b.to(dtype), d


def within_the_bound(kind, a, b, d, out):
    """|out - exact| over the bound that the rooms rely on: (K/4 + 5/4) 2^-23 of the largest magnitude on the way."""
    exact, magnitude = d.double() + a.double() @ b.double(), d.double().abs() + a.double().abs() @ b.double().abs()
    return (
        ((torch.from_numpy(out).double() - exact).abs() / ((a.shape[-1] / 4 + 1.25) * 2.0**-23 * magnitude))
        .max().item()
    )


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_the_bound_is_nearly_reached(fibers, kind):
    a, b, d = adversarial(kind)
    lost = a.shape[-1] / 4  # of the bound K/4 + 5/4: K products, each almost a quarter of the last bit
    assert 0.99 * lost / (lost + 1.25) < within_the_bound(kind, a, b, d, multiply(fibers, kind, a, b, d)) <= 1


@pytest.mark.skipif(not torch.cuda.is_available() or build.compiler("cuda") is None,
                    reason="there is no GPU, or no nvcc")
@pytest.mark.parametrize("kind", [0, 1, 2])
def test_the_tensor_cores_of_this_gpu_keep_the_bound(fibers, kind, record_property):
    """This GPU keeps the bound of the model, which was measured on other cards; equal bits are recorded only."""
    words = [*(flag for flag in build.NVCC if flag != "-lineinfo"), INCLUDE]
    gpu = ctypes.CDLL(str(sanitize.compiled(SOURCE, words, "test_emulator.cuda", compiler="cuda")))
    equal = []
    for a, b, d in (adversarial(kind), *(random_matrices(kind, 500, seed, seed) for seed in (0, 3, 7))):
        on_gpu = [v.cuda() for v in (a, b, d.clone())]
        assert gpu.run_multiply(kind, *(ctypes.c_void_p(v.data_ptr()) for v in on_gpu), len(a)) == 0
        torch.cuda.synchronize()
        out = on_gpu[2].cpu().numpy()
        assert within_the_bound(kind, a, b, d, out) <= 1
        equal.append(float((out == multiply(fibers, kind, a, b, d)).mean()))
    record_property("share equal to the emulator, adversarial and random", equal)
