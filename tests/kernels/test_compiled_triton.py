"""Compile every Triton kernel for Ampere and Hopper, as its launcher launches it, on a machine that has neither.

The interpreter accepts what the compiler rejects, so `emulated` alone proves too little. Triton is an interpreter or a
compiler for a whole process, so this file runs itself in a child process, once for each architecture. There the
launchers get tensors without memory, a driver without a device names the target, and each launch stops after the
compiler. The tests read what ptxas made from the machine code.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cubins import machine_code

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "tf32": torch.float32,
          "float64": torch.float64}
TENSOR_CORE = {80: {"float16": "HMMA", "bfloat16": "HMMA", "tf32": "HMMA", "float64": "DMMA"}}
TENSOR_CORE[90] = {"float16": "HGMMA", "bfloat16": "HGMMA", "tf32": "HGMMA", "float64": "DMMA"}
NAIVE = ("float16", "float32")  # the best rung is compiled for all of these, the naive one for two
COMPILED_FOR = {80: ("float16", "float32", "float64"), 90: ("float16", "bfloat16", "float32", "tf32")}
if os.environ.get("GENMINI_THOROUGH") == "1":
    NAIVE, COMPILED_FOR = tuple(DTYPES), {80: tuple(DTYPES), 90: tuple(DTYPES)}
# the kernels whose inner loop is a matrix product
PRODUCTS = ("product", "outer", "convolve", "correlate", "walk", "walk_back")

# ---- the child: what is launched -------------------------------------------------------------------------------------


def linear(room, rung, dtype):
    N, J, K = 1024, 512, 768
    x, weight, bias, dy = (torch.empty(*shape, dtype=dtype, device="meta") for shape in ((N, K), (J, K), (J,), (N, J)))
    in_degree, out_degree = (torch.empty(size, dtype=torch.int64, device="meta") for size in (K, J))
    room.launch(rung, x, weight, bias, in_degree, out_degree, False)
    room.launch(rung, dy, weight.T, None, out_degree, in_degree, False)
    room.launch_dw(rung, dy, x, in_degree, out_degree, False)


def linear_oddly(room, rung, dtype):
    """Sizes that divide nothing, and strides that nothing can be assumed of."""
    x, weight, dy = (torch.empty(*shape, dtype=dtype, device="meta").T for shape in ((77, 201), (77, 131), (131, 201)))
    in_degree, out_degree = (torch.empty(size, dtype=torch.int64, device="meta") for size in (77, 131))
    room.launch(rung, x, weight, None, in_degree, out_degree, True)
    room.launch_dw(rung, dy, x, in_degree, out_degree, True)


def linear_of_one(room, rung, dtype):
    """Sizes of 1 become constants at compile time, where a variable was."""
    one, degree = torch.empty(1, 1, dtype=dtype, device="meta"), torch.empty(1, dtype=torch.int64, device="meta")
    room.launch(rung, one, one, one[0], degree, degree, False)
    room.launch_dw(rung, one, one, degree, degree, False)


def convolution(room, rung, dtype, kind="A", colours=3):
    N, C, O, H = 4, 96, 192, 32
    x, weight, bias, dy = (torch.empty(*shape, dtype=dtype, device="meta")
                           for shape in ((N, C, H, H), (O, C, 5, 5), (O,), (N, O, H, H)))
    room.launch(rung, x, weight, bias, kind, colours, False)
    room.launch(rung, dy, weight, None, kind, colours, True)
    room.launch_dw(rung, dy, x, 5, 5, kind, colours)


def convolution_without_colours(room, rung, dtype):
    convolution(room, rung, dtype, "B", 1)


def convolution_oddly(room, rung, dtype):
    x, weight, dy = (torch.empty(*shape, dtype=dtype, device="meta").transpose(2, 3)
                     for shape in ((3, 3, 7, 5), (5, 3, 3, 7), (3, 5, 7, 5)))
    room.launch(rung, x, weight, None, "A", 1, False)
    room.launch_dw(rung, dy, x, 7, 3, "A", 1)


def convolution_of_one(room, rung, dtype):
    one = torch.empty(1, 1, 1, 1, dtype=dtype, device="meta")
    for turned in (False, True):
        room.launch(rung, one, one, None, "B", 1, turned)
    room.launch_dw(rung, one, one, 1, 1, "B", 1)


def nll(room, rung, dtype, logits=(4, 256, 1024)):
    (N, L, P), wide = logits, room.sum_dtype(dtype)
    a, target = torch.empty(N, L, P, dtype=dtype, device="meta"), torch.empty(N, P, dtype=torch.int64, device="meta")
    dnll, m, log_s = (torch.empty(N, P, dtype=wide, device="meta") for _ in range(3))
    room.launch("triton", rung, a, target)
    room.launch_backward("triton", rung, dnll, a, target, m, log_s)


def nll_of_levels_last(room, rung, dtype):
    a, target = (torch.empty(512, 256, 1, dtype=dtype, device="meta"),
                 torch.empty(512, 1, dtype=torch.uint8, device="meta"))
    dnll = torch.empty(512, 1, dtype=room.sum_dtype(dtype), device="meta")
    room.launch("triton", rung, a, target)
    room.launch_backward("triton", rung, dnll, a, target, dnll, dnll)


def nll_oddly(room, rung, dtype):
    nll(room, rung, dtype, (3, 17, 77))


def nll_of_one(room, rung, dtype):
    nll(room, rung, dtype, (1, 1, 1))


def contrasted(room, rung, dtype, N=1024, D=256):
    a, b = (torch.empty(N, D, dtype=dtype, device="meta") for _ in range(2))
    scale, dloss, stats = (torch.empty(shape, dtype=room.sum_dtype(dtype), device="meta") for shape in ((), N, (4, N)))
    room.launch("triton", rung, a, b, scale)
    room.launch_backward("triton", rung, dloss, a, b, scale, stats)


def contrasted_oddly(room, rung, dtype):
    contrasted(room, rung, dtype, 77, 131)


def contrasted_of_one(room, rung, dtype):
    contrasted(room, rung, dtype, 1, 1)


def gaussian(room, rung, dtype, N=512, D=64):
    mu, l, eps, dz = (torch.empty(N, D, dtype=dtype, device="meta") for _ in range(4))
    seed = torch.empty((), dtype=torch.int64, device="meta")
    dkl = torch.empty(N, dtype=room.sum_dtype(dtype), device="meta")
    for noise in ((eps, None), (None, seed)):
        room.launch("triton", rung, mu, l, *noise)
        room.launch_backward("triton", dz, dkl, mu, l, *noise)


def gaussian_long(room, rung, dtype):
    gaussian(room, rung, dtype, 3, 3001)


def gaussian_of_one(room, rung, dtype):
    gaussian(room, rung, dtype, 1, 1)


def normed(room, rung, dtype, N=32, C=64, P=256, G=8):
    x, dy = (torch.empty(N, C, P, dtype=dtype, device="meta") for _ in range(2))
    gamma, beta = (torch.empty(C, dtype=dtype, device="meta") for _ in range(2))
    scale, shift = (torch.empty(N, C, dtype=dtype, device="meta") for _ in range(2))
    stats = torch.empty(N, G, 3, dtype=room.sum_dtype(dtype), device="meta")
    for modulation in ((scale, shift), (None, None)):
        room.launch("triton", rung, x, gamma, beta, *modulation, G, 1e-5)
        room.launch_backward("triton", rung, dy, x, gamma, beta, *modulation, stats, G)


def normed_long(room, rung, dtype):
    """Groups that a program just holds, and groups that it does not."""
    normed(room, rung, dtype, 3, 16, 1024, 2)
    normed(room, rung, dtype, 3, 16, 1025, 2)


def normed_of_one(room, rung, dtype):
    normed(room, rung, dtype, 1, 1, 1, 1)


def noised(room, rung, dtype, N=512, D=64):
    x0, eps = (torch.empty(N, D, dtype=dtype, device="meta") for _ in range(2))
    alpha, sigma = (torch.empty(50, dtype=torch.float64, device="meta") for _ in range(2))
    t, seed = (torch.empty(size, dtype=torch.int64, device="meta") for size in ((N,), ()))
    for noise in ((eps, None, "none"), (eps, None, "v"), (None, seed, "eps"), (None, seed, "v")):
        room.launch("triton", rung, x0, t, alpha, sigma, *noise)


def noised_long(room, rung, dtype):
    noised(room, rung, dtype, 3, 3001)


def noised_of_one(room, rung, dtype):
    noised(room, rung, dtype, 1, 1)


def stepped(room, rung, dtype, N=512, D=64):
    x, o, u, eps = (torch.empty(N, D, dtype=dtype, device="meta") for _ in range(4))
    seed, scalars = torch.empty((), dtype=torch.int64, device="meta"), (2.0, 1.5, -0.5, 0.75, 0.5)
    for c, noise in ((0.0, (None, None)), (0.25, (None, seed))):
        for threshold in ("none", "static", "dynamic"):
            room.launch("triton", rung, x, o, u, *noise, *scalars, c, threshold, 0.995)
    room.launch("triton", rung, x, o, None, eps, None, *scalars, 0.25, "dynamic", 0.995)


def stepped_long(room, rung, dtype):
    """Rows that a program just holds, and rows that it does not."""
    for D in (3 * 64 * 64, room.LONGEST + 1):
        x, o, u, eps = (torch.empty(3, D, dtype=dtype, device="meta") for _ in range(4))
        room.launch("triton", rung, x, o, u, eps, None, 2.0, 1.5, -0.5, 0.75, 0.5, 0.25, "dynamic", 0.995)


def stepped_of_one(room, rung, dtype):
    one = torch.empty(1, 1, dtype=dtype, device="meta")
    room.launch("triton", rung, one, one, one, one, None, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, "dynamic", 1.0)


LAUNCHES = {
    "ddim_step": (stepped, stepped_long, stepped_of_one),
    "gaussian_kl": (gaussian, gaussian_long, gaussian_of_one),
    "group_norm_silu": (normed, normed_long, normed_of_one),
    "info_nce": (contrasted, contrasted_oddly, contrasted_of_one),
    "masked_linear": (linear, linear_oddly, linear_of_one),
    "masked_conv2d": (convolution, convolution_without_colours, convolution_oddly, convolution_of_one),
    "q_sample": (noised, noised_long, noised_of_one),
    "softmax_nll": (nll, nll_of_levels_last, nll_oddly, nll_of_one),
}
# kernels that a rung does not launch; the key says whether it is the first one, naive
OTHER_RUNG = {False: {"reparameterise", "divergence"}, True: {"extremes", "fused", "held", "join"}}
ODD = ("linear_oddly", "linear_of_one", "convolution_oddly", "convolution_of_one", "contrasted_oddly",
       "contrasted_of_one")


def child(capability):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    from genmini import kernels

    class NoDevice:
        get_current_target = staticmethod(lambda: GPUTarget("cuda", capability, 32))
        get_current_device = staticmethod(lambda: 0)
        get_current_stream = staticmethod(lambda device=0: 0)

    driver.set_active(NoDevice())
    compiled, run = [], JITFunction.run
    JITFunction.run = lambda kernel, *a, grid, warmup, **k: compiled.append(
        (kernel.__name__, run(kernel, *a, grid=grid, warmup=True, **k))
    )
    tools, cases = Path(triton.__file__).parent / "backends" / "nvidia" / "bin", []
    for operator, launches in LAUNCHES.items():
        room = sys.modules[f"genmini.kernels.{operator}"]
        for rung in kernels.rungs(operator):
            best, seen = rung == kernels.rungs(operator)[-1], set()
            for dtype in COMPILED_FOR[capability] if best else NAIVE:
                torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.conv.fp32_precision = (
                    "tf32" if dtype == "tf32" else "ieee"
                )
                for launch in launches if dtype == "float16" and best else launches[:1]:
                    compiled.clear()
                    launch(room, rung, DTYPES[dtype])
                    for kernel, binary in compiled:
                        if binary.hash not in seen:
                            case = {"operator": operator, "rung": rung, "dtype": dtype, "launch": launch.__name__,
                                    "kernel": kernel}
                            cases.append((case, binary.asm["cubin"]))
                        seen.add(binary.hash)
    for (case, _), found in zip(cases, machine_code(tools, capability, [cubin for _, cubin in cases]), strict=True):
        print(json.dumps(case | found))


# ---- the parent: what must be so -------------------------------------------------------------------------------------

COMPILED = {}


@pytest.fixture(params=[80, 90], ids=["sm_80", "sm_90"])
def compiled(request):
    pytest.importorskip("triton")
    if not COMPILED:  # both children at once
        env = os.environ | {"TRITON_INTERPRET": "0", "PYTHONPATH": str(Path(__file__).parents[2])}
        start = lambda sm: subprocess.Popen([sys.executable, __file__, str(sm)], env=env, stdout=subprocess.PIPE,
                                            stderr=subprocess.PIPE, text=True)
        for sm, process in {sm: start(sm) for sm in (80, 90)}.items():
            out, err = process.communicate()
            assert process.returncode == 0, err[-4000:]
            COMPILED[sm] = [json.loads(line) for line in out.splitlines()]
    return request.param, COMPILED[request.param]


def test_every_kernel_of_every_rung_is_there(compiled):
    from genmini import kernels

    sm, cases = compiled
    triton_rooms = {name for name, room in kernels.ROOMS.items() if room.language == "triton"}
    assert set(LAUNCHES) == triton_rooms
    for operator in triton_rooms:
        defined = set(re.findall(r"@triton\.jit\ndef (\w+)\(\w+_ptr",
                                 Path(sys.modules[f"genmini.kernels.{operator}"].__file__).read_text()))
        for rung in kernels.rungs(operator):
            best = rung == kernels.rungs(operator)[-1]
            here = [case for case in cases if case["operator"] == operator and case["rung"] == rung]
            same = {"tf32"} if not defined & set(PRODUCTS) else set()  # without a product it is the binary of float32
            assert {case["dtype"] for case in here} == set(COMPILED_FOR[sm] if best else NAIVE) - same
            assert {case["kernel"] for case in here} == defined - OTHER_RUNG[rung == "naive"]


def test_nothing_spills(compiled):
    """No kernel spills where a row is a multiple of 16 bytes.

    Elsewhere a tile of 16-bit numbers needs an address for each of them, and some spill. A division of float64 is a
    subroutine; around its calls ptxas may keep one number on the stack, which is written and read once.
    """
    for case in (case for case in compiled[1] if case["launch"] not in ODD):
        kept = 1 if case["dtype"] == "float64" and "CALL" in case else 0
        assert case["stack"] <= 8 * kept and case.get("STL", 0) <= kept and case.get("LDL", 0) <= kept, case
        assert case["registers"] <= 255, case


def test_products_run_on_tensor_cores_unless_float32_means_ieee(compiled):
    sm, cases = compiled
    for case in (case for case in cases if case["kernel"] in PRODUCTS):
        words = {word for word in ("HMMA", "HGMMA", "DMMA") if word in case}
        if case["dtype"] == "float32":
            assert not words and case["FFMA"] >= 64, case
        elif case["launch"] not in ODD:
            assert words == {TENSOR_CORE[sm][case["dtype"]]}, case


def test_all_rungs_but_naive_copy_while_they_compute(compiled):
    for case in (case for case in compiled[1] if case["launch"] not in ODD):
        if case["kernel"] in PRODUCTS and case["dtype"] in ("float16", "bfloat16"):
            assert ("LDGSTS" in case) == (case["rung"] != "naive"), case


if __name__ == "__main__":
    child(int(sys.argv[1]))
