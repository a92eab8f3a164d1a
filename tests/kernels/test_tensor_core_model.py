"""The tensor core of a GPU is no worse than the model of the proofs and the emulator.

The model stands in docs/exact-argmin.md, (5), and csrc/gpu.h. The vectors are adversarial: on them the emulator loses
as much as the model allows. Here the same source, compiled by nvcc, runs on the card. The bound must hold; whether
every bit agrees is printed, for it is a fact about the card and not a promise.
"""

import ctypes

import pytest
import torch
from emulated import INCLUDE, SOURCE, build, load, sanitize
from test_emulator_matrices import multiply, random_matrices

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
KINDS = {"tf32": 0, "float16": 1, "bfloat16": 2}


@pytest.fixture(scope="module")
def card():
    path = sanitize.compiled(SOURCE, [*build.NVCC, INCLUDE], "test_emulator.cuda", compiler="cuda")
    library = ctypes.CDLL(str(path))
    library.gpu_error.restype = ctypes.c_char_p
    return library


def on_card(card, kind, a, b, d):
    a, b, d = (t.cuda().contiguous() for t in (a, b, d))
    code = card.run_multiply(kind, *(ctypes.c_void_p(t.data_ptr()) for t in (a, b, d)), len(a))
    assert code == 0, card.gpu_error(code).decode()
    torch.cuda.synchronize()
    return d.cpu()


def large_first_then_small(kind, M):
    """Return one product of 1 and many just below what alignment keeps: cutting, unlike rounding, loses them all."""
    a, b, d = random_matrices(kind, M, 11, 0)
    a.fill_(1)
    b.fill_(1)
    for m in range(M):
        a[m, :, 1:] = 2.0 ** -(7 + m % 12)
        b[m, 1:] = (2.0 - 2.0**-6) * 2.0 ** -(7 + m // 12 % 12)
    return a.to(a.dtype), b.to(b.dtype), torch.where(torch.arange(M)[:, None, None] % 2 == 0, 0.0, 1.0) + d * 0


def cancelling(kind, M):
    """Products that cancel down to a part in 2^20 of themselves."""
    a, b, d = random_matrices(kind, M, 13, 2)
    a[..., 1::2], b[:, 1::2] = -a[..., ::2], b[:, ::2]
    return a, b, d * 2.0**-20


CASES = {
    "random": lambda kind: random_matrices(kind, 500, 1, 0),
    "wide exponents": lambda kind: random_matrices(kind, 500, 2, 6),
    "large first, then small": lambda kind: large_first_then_small(kind, 288),
    "cancelling": lambda kind: cancelling(kind, 300),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_the_card_keeps_the_bound(card, kind, case):
    a, b, d = CASES[case](KINDS[kind])
    got = on_card(card, KINDS[kind], a, b, d)
    model = torch.from_numpy(multiply(load("fibers"), KINDS[kind], a, b, d))
    exact = d.double() + a.double() @ b.double()
    magnitude = d.double().abs() + a.double().abs() @ b.double().abs()
    blocks = 2 if KINDS[kind] == 0 else 1  # 8 products of tf32 are half a block of 16
    print(f"\n{kind}, {case}: {(got == model).double().mean():.1%} of the results have the model's bits; worst error "
          f"{((got.double() - exact).abs() / magnitude).nan_to_num().max() * 2**23:.2f} of 2^-23, the model's "
          f"{((model.double() - exact).abs() / magnitude).nan_to_num().max() * 2**23:.2f}, "
          f"allowed {12 / blocks}")
    assert ((got.double() - exact).abs() <= 12 / blocks * 2.0**-23 * magnitude).all()

