"""A native kernel computes the same bits with any number of threads, and its workspace is for those that use it.

Inputs are large enough for several threads: see worth_waking in csrc/cpu/threads.h.
"""

import os
import subprocess
import sys

import pytest
import torch
from check import numbers
from genmini.kernels import _library, _plan
from planting import Wrong, planted
from test_made_sample import net
from test_nade import inputs
from test_pixelcnn_sample import noise, program

from genmini import kernels, ops


def with_gradients(operator, *arguments):
    """The outputs of the operator, and the gradients of its float inputs."""
    given = [a.float().requires_grad_() if torch.is_tensor(a) and a.is_floating_point() else a for a in arguments]
    out = operator(*given)
    moving = [a for a in given if torch.is_tensor(a) and a.requires_grad]
    return out, *torch.autograd.grad(out, moving, torch.ones_like(out) / 2)


def made_sample():
    return ops.made_sample(noise(150, 20).float(), *net(20, (70, 50), 3, dtype=torch.float32)[:3], 3, logits=True)


def pixelcnn_sample():
    layers = program((1, 4, 4), 2, 0, 20, 3, 1, dtype=torch.float32)
    return ops.pixelcnn_sample(noise(29, 16).float(), layers, (1, 4, 4), 2, logits=True)


def nade_sample():
    _, *weights = inputs(1, 40, 70)
    return ops.nade_sample(noise(37, 40).float(), *(a.float() for a in weights), logits=True)


def affine_coupling():
    """Forward and inverse, of rows that share a part and of rows of several parts"""
    of = lambda operator, N, D: with_gradients(
        lambda *a: torch.cat([out.flatten() for out in operator(*a)]), *(numbers(N, D, seed=i) for i in range(3)))
    return tuple(a for operator in (ops.affine_coupling, ops.affine_coupling_inverse)
                 for shape in ((300_000, 3), (3, 300_000)) for a in of(operator, *shape))


def ddim_step():
    x, output = numbers(40, 301).float(), numbers(40, 301, seed=1).float()
    return ops.ddim_step(x, output, 0.6, 0.8, 0.8, 0.6, threshold="dynamic", quantile=0.9, eta=1.0, seed=4)


def q_sample():
    alpha = torch.linspace(1, 0, 50, dtype=torch.float64)
    t = torch.arange(140) % 50
    return ops.q_sample(numbers(140, 1100).float(), t, alpha, (1 - alpha.square()).sqrt(), seed=3, target="v")


def gaussian_kl():
    """With noise given, drawn, and along rows of several parts"""
    one = lambda N, D, *noise: with_gradients(
        lambda mu, l: torch.cat([a.flatten() for a in ops.gaussian_kl(mu, l, *noise)]), numbers(N, D),
        numbers(N, D, seed=1))
    return *one(900, 450, numbers(900, 450, seed=2).float()), *one(1500, 70, None, 5), *one(3, 40_000, None, 5)


def code_stats():
    """Of many codes, and of one that has all"""
    index, z = torch.arange(12_000) * 7 % 50, numbers(12_000, 70).float()
    return *ops.code_stats(z, index, 50), *ops.code_stats(z, index * 0, 2)


def quantize():
    """Of many codes, and of one that has most rows"""
    of = lambda z, e: with_gradients(lambda z, e: torch.cat([a.flatten() for a in ops.quantize(z, e)[::2]]), z, e)
    return *of(numbers(20_000, 33), numbers(50, 33, seed=1)), *of(numbers(12_000, 70), 9 * numbers(2, 70, seed=1))


def softmax_nll():
    """Levels first and last"""
    of = lambda logits, L: with_gradients(ops.softmax_nll, logits, torch.arange(400 * 90).reshape(400, 90) % L)
    return *of(numbers(400, 17, 90), 17), *of(numbers(400, 90, 30).movedim(-1, 1), 30)


NATIVE = {
    "affine_coupling": affine_coupling,
    "code_stats": code_stats,
    "ddim_step": ddim_step,
    "gaussian_kl": gaussian_kl,
    "group_norm_silu": lambda: with_gradients(
        lambda x, *rest: ops.group_norm_silu(x, 4, *rest), numbers(400, 16, 75), numbers(16), numbers(16, seed=1)
    ),
    "info_nce": lambda: with_gradients(
        ops.info_nce, numbers(500, 33), numbers(500, 33, seed=1), numbers(1, seed=2)[0]
    ),
    "made_sample": made_sample,
    "nade": lambda: with_gradients(ops.nade_logits, *inputs(37, 40, 70)),
    "nade_sample": nade_sample,
    "nearest_code": lambda: ops.nearest_code(numbers(500, 16).float(), numbers(600, 16, seed=1).float()),
    "pixelcnn_sample": pixelcnn_sample,
    "q_sample": q_sample,
    "quantize": quantize,
    "softmax_nll": softmax_nll,
    "spline_coupling": lambda: with_gradients(
        lambda x, w: torch.cat([a.flatten() for a in ops.spline_coupling(x, w)]), numbers(2000, 7), numbers(2000, 7, 23)
    ),
}
each = pytest.mark.parametrize("call", NATIVE.values(), ids=NATIVE)


def test_every_native_kernel_is_here():
    assert [*NATIVE] == sorted(name for name, room in kernels.ROOMS.items() if room.cpu == "C++")


@each
def test_the_same_bits_with_any_number_of_threads(call):
    before, seen = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            with kernels.use("cpu"):
                found = call()
            seen.append(found if isinstance(found, tuple) else (found,))
    finally:
        torch.set_num_threads(before)
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))


@each
def test_the_workspace_is_for_the_threads_that_use_it(call, monkeypatch):
    """Another thread may change torch.get_num_threads() during a call. A launch reads it once, and its kernel uses as
    many threads as the workspace is for. A plan is for one number of threads: tests/kernels/test_door.py."""
    readings, sized, launched, native, size = [], [], [], _library.call, _library.size

    def read():
        readings.append(2 + len(readings))
        return readings[-1]

    def spied_size(*arguments, threads=None):
        sized.append((len(launched), threads))
        return size(*arguments, threads=threads)

    def spied_call(*arguments, threads=None):
        launched.append(threads or torch.get_num_threads())
        return native(*arguments, threads=launched[-1])

    monkeypatch.setattr(_plan.Kinds, "find", lambda *values: (None, None, None))  # no plans
    monkeypatch.setattr(torch, "get_num_threads", read)
    monkeypatch.setattr(_library, "size", spied_size)
    monkeypatch.setattr(_library, "call", spied_call)
    with kernels.use("cpu"):
        call()
    assert launched == readings, "each launch has a reading of its own, and one alone"
    assert all(threads == launched[launch] for launch, threads in sized), "a workspace is for other threads"


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts the threads of a process as Linux shows them")
def test_a_kernel_runs_in_the_threads_of_pytorch():
    """Idle threads of PyTorch spin for a while after each operation: others would have to wait for a core."""
    before, x, e = torch.get_num_threads(), torch.rand(1000, 1000), torch.rand(64, 1000)
    try:
        torch.set_num_threads(11)
        x.exp()  # starts them
        count = len(os.listdir("/proc/self/task"))
        with kernels.use("cpu"):
            ops.nearest_code(x, e)
        assert len(os.listdir("/proc/self/task")) == count
    finally:
        torch.set_num_threads(before)


@pytest.mark.mutants
@pytest.mark.parametrize("loaded", [True, False])
def test_a_child_does_not_wait_for_the_threads_of_pytorch(loaded):
    """Of a parent in which PyTorch's threads ran, and none of a kernel's; its library may have been loaded."""
    script = f"""
import os, signal, torch
from genmini.kernels import _library
from genmini import ops
torch.set_num_threads(2)
z, e = torch.randn(2000, 16), torch.randn(512, 16)
z.repeat(64, 1).exp()
{loaded} and _library.load("nearest_code", "cpu")
if child := os.fork():
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) and 1)
signal.alarm(20)
ops.nearest_code(z, e)
os._exit(0)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_native_threads_that_do_not_wait_for_all_tasks_are_found(tmp_path):
    """ThreadSanitizer finds that a search may read a tile of codes before it is packed: a data race, or a crash where
    a thread goes on after what it shares is gone.

    Whether it does so in a run is chance, so a test of results cannot find it reliably.
    """
    planted(Wrong("nearest_code_cpu", "csrc/cpu/threads.h",
                  "all.work_done.wait(guard, [&] { return job.running == 0; });", "",
                  "a phase that does not wait for all its tasks", "cpu"), tmp_path)
    drive = ("import sys; sys.path.insert(0, 'csrc'); import sanitize; "
             "print(*sanitize.drive(sanitize.DRIVERS / 'nearest_code_cpu.cpp', 'tsan'))")
    done = subprocess.run([sys.executable, "-c", drive], cwd=tmp_path, capture_output=True, text=True)
    found = done.stdout.startswith("False") and "ThreadSanitizer: " in done.stdout
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
