"""Test that nvcc compiles the emulator's kernels to the instructions meant, and that gdb steps through one of them."""

import os
import shutil
import subprocess

import pytest
from emulated import INCLUDE, SOURCE, build, sanitize, with_gxx

pytestmark = with_gxx


# ---- the other compiler ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(build.compiler("cuda") is None, reason="there is no nvcc")
def test_nvcc_compiles_the_same_kernels(tmp_path):
    words = [*build.command("cuda", SOURCE, tmp_path / "test_emulator.so"), INCLUDE]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0 and "warning" not in done.stderr, done.stdout + done.stderr


INSTRUCTIONS = (
    "cp.async.cg.shared.global cp.async.ca.shared.global ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 "
    "cvt.rna.tf32.f32\n"
    "    mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32\n"
    "    mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 redux.sync.add.s32 match.any.sync.b32"
)


@pytest.mark.skipif(build.compiler("cuda") is None, reason="there is no nvcc")
@pytest.mark.parametrize("instruction", INSTRUCTIONS.split())
def test_gpu_code_has_the_instructions(instruction, ptx):
    assert instruction in ptx


@pytest.fixture(scope="module")
def ptx(tmp_path_factory):
    path = tmp_path_factory.mktemp("ptx") / "test_emulator.ptx"
    flags = [flag for flag in build.NVCC if not flag.startswith("-gencode") and flag != "-shared"]
    subprocess.run(
        [*build.compiler("cuda"), *flags, INCLUDE, "-arch=compute_80", "-ptx", str(SOURCE), "-o", str(path)],
        check=True, capture_output=True
    )
    return path.read_text()


# ---- the debugger ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("gdb") is None or os.uname().machine != "x86_64",
                    reason="there is no gdb, or no x86-64")
def test_gdb_steps_through_a_kernel():
    """The session of docs/emulator.md: stop in thread 37, step over a barrier, and see what the others did."""
    planted = sanitize.DRIVERS / "planted" / "planted.cpp"
    flags = [flag for flag in sanitize.FLAGS if flag != "-g1"] + ["-g", "-O0", "-x", "c++"]
    program = sanitize.compiled(planted, flags, "planted.gdb")
    commands = ["set pagination off", "set style enabled off", "set print repeats 200",
                f"source {build.CSRC / 'emulator' / 'emulator.gdb'}"]
    commands += ["break block_sum<false> if threadIdx.x == 37", "run", "print threadIdx", "print part", "next", "next",
                 "cuda-threads"]
    commands += ["next", "print threadIdx", "print part", "cuda-thread 5", "backtrace"]
    words = ["gdb", "-q", "-nx", "-batch", *(word for command in commands for word in ("-ex", command)), "--args"]
    words += [str(program), "barrier_missing_in_a_reduction", "right"]
    environment = {**os.environ, "GENMINI_EMULATOR_THREADS": "1", "GENMINI_EMULATOR_ORDER": "forward"}
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if "ptrace" in done.stdout:
        pytest.skip("a debugger may not attach here")
    before, after = done.stdout.split("threads 38-63 are ready to run")
    assert "$1 = {x = 37, y = 0, z = 0}" in before and "36, -nan(0x7fffff)" in before
    assert "threads 0-36 wait at __syncthreads, line 7" in before
    # the others have arrived, and some have added
    assert "{x = 37, y = 0, z = 0}" in after and "{32, 34, 36, 38, 40," in after
    waiting, here = after.split("emulator::switch_stack", 1)[1].split("in ?? ()", 1)
    assert "block_sum<false>" in waiting and "emulator::fiber" in waiting  # of thread 5
    assert "block_sum<false>" in here and "emulator::fiber" in here  # and our own, unharmed
