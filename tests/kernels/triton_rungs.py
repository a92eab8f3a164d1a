"""Launch every rung of every Triton kernel, forward and backward, on sizes around the edges of its blocks.

    python tests/kernels/triton_rungs.py
    python tests/kernels/triton_rungs.py softmax_nll
    python tests/kernels/triton_rungs.py --sanitize      all of them on a GPU, under compute-sanitizer

It runs on a GPU; elsewhere by the interpreter.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402

from genmini import kernels, ops  # noqa: E402

DEVICE, BACKEND = ("cuda", "triton") if torch.cuda.is_available() else ("cpu", "emulated")


def numbers(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def degrees(*shape):
    return torch.randint(1, 9, shape, generator=torch.Generator().manual_seed(sum(shape)))


def masked_linear():
    for N, K, J in ((1, 1, 1), (33, 70, 65), (130, 17, 129)):
        tensors = numbers(N, K), numbers(J, K) / K**0.5, numbers(J)
        for order in (lambda d: d.sort()[0], lambda d: d):
            yield ops.masked_linear, tensors, (order(degrees(K)), order(degrees(J)), bool(N % 2))


def masked_conv2d():
    for N, C, O, H, W, kh, kw, kind, colours in ((1, 1, 1, 1, 1, 1, 1, "B", 1), (2, 3, 33, 5, 7, 3, 5, "A", 3),
                                                 (3, 35, 17, 8, 9, 7, 7, "B", 1)):
        yield (ops.masked_conv2d,
               (numbers(N, C, H, W), numbers(O, C, kh, kw) / (C * kh * kw) ** 0.5, numbers(O)), (kind, colours))


def softmax_nll():
    for N, L, P in ((1, 1, 1), (3, 17, 65), (130, 300, 1)):
        logits = numbers(N, L, P)
        for strides in (logits, logits.transpose(1, 2).contiguous().transpose(1, 2)):
            yield ops.softmax_nll, (strides,), (degrees(N, P) % L,)


def gaussian_kl():
    for N, D in ((1, 1), (33, 65), (3, 5000)):
        yield ops.gaussian_kl, (numbers(N, D), numbers(N, D).flip(1)), (None, 7)
        yield ops.gaussian_kl, (numbers(N, D), numbers(N, D).flip(1), numbers(D, N).T), ()


def group_norm_silu():
    for N, C, P, G in ((1, 1, 1, 1), (33, 12, 7, 4), (2, 6, 1500, 2), (3, 4, 9000, 2)):
        channels, images = (numbers(C), numbers(C + 1)[1:]), (numbers(N, C), numbers(C, N).T)
        for more in ((), images):
            yield normalised, (numbers(N, C, P), *channels, *more), (G,)


def normalised(x, gamma, beta, *rest):
    *modulation, G = rest
    return ops.group_norm_silu(x, G, gamma, beta, *modulation)


def info_nce():
    for N, D in ((1, 1), (33, 70), (130, 17)):
        yield ops.info_nce, (numbers(N, D), numbers(D, N).T, numbers(1)[0]), ()


def ddim_step():
    for N, D in ((1, 1), (33, 65), (3, 5000)):
        tensors = numbers(N, D), numbers(N, D).flip(0), 2 * numbers(D, N).T
        for threshold in (None, "static", "dynamic"):
            yield stepped, tensors, (threshold,)


@torch.no_grad()
def stepped(x, output, unconditional, threshold):
    return ops.ddim_step(x, output, 0.6, 0.8, 0.8, 0.6, "eps", unconditional, 2.0, threshold, 0.9, 1.0, seed=7)


def q_sample():
    for N, D in ((1, 1), (33, 65), (3, 5000)):
        table = torch.linspace(0.1, 0.9, 8, dtype=torch.float64)
        schedule = degrees(N) - 1, table.flip(0), table
        for target in ("eps", "x0", "v"):
            yield (lambda x0, *rest: ops.q_sample(x0, *rest)), (numbers(N, D),), (*schedule, None, 7, target)
            yield (lambda x0, eps, *rest: ops.q_sample(x0, *rest[:3], eps, *rest[3:])), (
                numbers(N, D), numbers(D, N).T), (*schedule, None, target)


CASES = {"ddim_step": ddim_step, "gaussian_kl": gaussian_kl, "group_norm_silu": group_norm_silu,
         "info_nce": info_nce, "masked_linear": masked_linear, "masked_conv2d": masked_conv2d, "q_sample": q_sample,
         "softmax_nll": softmax_nll}


def results(function, tensors, rest, dtype):
    """The outputs and the gradients that there are, on the CPU in double."""
    tensors = [a.to(DEVICE, dtype, copy=True).requires_grad_() for a in tensors]  # `to` keeps the strides
    outs = function(*tensors, *(a.to(DEVICE) if isinstance(a, torch.Tensor) else a for a in rest))
    outs = outs if isinstance(outs, tuple) else (outs,)
    if outs[0].requires_grad:
        torch.autograd.backward(outs, [torch.ones_like(out) for out in outs])
    return [a.detach().cpu().double() for a in (*outs, *(a.grad for a in tensors)) if a is not None]


def sanitize():
    """Runs this program under each tool but initcheck, which reports PyTorch's own kernels too."""
    program = [sys.executable, __file__]
    alone = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # each tensor is an allocation of its own, whose end is checked
    compute_sanitizer = shutil.which("compute-sanitizer")
    if not compute_sanitizer:
        print("compute-sanitizer is not installed: the kernels run without it")
    # PyTorch asks the driver what it supports; a refusal is no error of a kernel
    options = ["--report-api-errors", "no", "--error-exitcode", "66"]
    for tool in ("memcheck", "racecheck", "synccheck") if compute_sanitizer else (None,):
        command = [compute_sanitizer, "--tool", tool, *options, *program] if tool else program
        done = subprocess.run(command, env=os.environ | alone)
        if done.returncode:
            sys.exit(f"{tool or 'plain'}: exit status {done.returncode}")


def main():
    if sys.argv[1:] == ["--sanitize"]:
        return sanitize()
    names = sys.argv[1:] or sorted(CASES)
    for name in names:
        for rung in kernels.rungs(name):
            for function, tensors, rest in CASES[name]():
                for dtype in (torch.float32, torch.float16):
                    with kernels.use("reference"):
                        wanted = results(function, tensors, rest, dtype)
                    with kernels.use(BACKEND, rung):
                        found = results(function, tensors, rest, dtype)
                    # a rough comparison: the rooms' tests check how exact the results are
                    for got, want in zip(found, wanted, strict=True):
                        off = (got - want).abs().max().item()
                        if not off <= 2**-6 * (1 + want.abs().max().item()):
                            sys.exit(f"{name}, {rung}, {dtype}: wrong by {off}")
            print(f"{name}, {rung}: all right", flush=True)


if __name__ == "__main__":
    main()
