"""Test what is compiled and predicted: occupancy as CUDA computes it, ceilings worked out by hand, planted mistakes."""

import importlib.util
import itertools
import re
import shutil
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
from emulated import build
from genmini.csrc import compiled, count
from genmini.csrc.count import Launch, Row

from genmini import kernels, predict
from genmini.cards import CARDS

# ---- occupancy -------------------------------------------------------------------------------------------------------

# card, threads, registers, bytes of shared memory -> blocks, what limits them; each by hand from the formulae
KNOWN = {
    "full": (("a100", 256, 32, 0), 8, "warps and registers"),  # 8 warps: 64 / 8
    "one register more": (("a100", 256, 33, 0), 6, "registers"),  # 33 x 32 = 1056 -> 1280; 16384 / 1280 = 12; 48 / 8
    "registers by the eight": (("a100", 256, 40, 0), 6, "registers"),  # 40 x 32 = 1280: no more than 33 take
    "four files": (("h100", 96, 168, 0), 4, "registers"),  # 5376; 3 warps a file, 12 an SM; 12 / 3. 65536 / 5376 is 12
    "not from one pool": (("h100", 32, 88, 0), 20, "registers"),  # 2816; 5 a file, 20. One pool would have 23
    "a thirty-third lane": (("a100", 33, 16, 0), 32, "warps and blocks"),  # 2 warps
    "blocks": (("h100", 32, 16, 0), 32, "blocks"),
    "shared": (("a100", 128, 32, 40 * 1024), 4, "shared"),  # 41 KB with what CUDA keeps; 164 / 41
    "shared, a byte more": (("a100", 128, 32, 40 * 1024 + 1), 3, "shared"),  # 41 KB + 128
    "what CUDA keeps": (("a100", 128, 32, 54 * 1024), 2, "shared"),  # 164 / 55; without it 164 / 54 is 3
    "shared by the 128": (("a100", 128, 32, 54946), 2, "shared"),  # 55970 -> 56064; 167936 / 55970 is 3
    "shared of hopper": (("h100", 128, 128, 66560), 3, "shared"),  # 66 KB; 228 / 66
    "a small card": (("rtx4090", 256, 32, 0), 6, "warps"),  # 48 warps
    "too much shared": (("rtx4090", 32, 32, 100 * 1024), 0, "shared"),  # 99 KB a block
    "too many registers": (("h100", 1024, 96, 0), 0, "registers"),  # 32 warps x 3072 = 98304
}


@pytest.mark.parametrize("case, blocks, limited_by", KNOWN.values(), ids=list(KNOWN))
def test_occupancy_by_hand(case, blocks, limited_by):
    name, threads, registers, shared = case
    found = predict.occupancy(CARDS[name], threads, registers, shared)
    assert (found.blocks, found.limited_by) == (blocks, limited_by)
    assert found.active == blocks * -(-threads // 32) and found.fraction == found.active / CARDS[name].warps


def header():
    """The folder of cuda_occupancy.h, the calculator that comes with CUDA and with Triton; None without it."""
    triton = importlib.util.find_spec("triton")
    folders = [Path(place) / "backends" / "nvidia" / "include" for place in triton.submodule_search_locations
               ] if triton else []
    folders += [Path(nvcc[0]).resolve().parents[1] / "include"] if (nvcc := build.compiler("cuda")) else []
    return next((folder for folder in folders if (folder / "cuda_occupancy.h").exists()), None)


CALCULATOR = r"""
#include <cstdio>
#include <cstring>
#include "cuda_occupancy.h"
int main() {
    int capability, warps, shared, of_block, threads, registers, bytes;
    while (scanf("%d %d %d %d %d %d %d", &capability, &warps, &shared, &of_block, &threads, &registers, &bytes) == 7) {
        cudaOccDeviceProp p;
        p.computeMajor = capability / 10, p.computeMinor = capability % 10;
        p.maxThreadsPerBlock = 1024, p.maxThreadsPerMultiprocessor = 32 * warps, p.warpSize = 32, p.numSms = 1;
        p.regsPerBlock = p.regsPerMultiprocessor = 65536;
        p.sharedMemPerBlock = 48 << 10, p.sharedMemPerBlockOptin = of_block, p.sharedMemPerMultiprocessor = shared;
        p.reservedSharedMemPerBlock = 1024;
        cudaOccFuncAttributes f;
        f.maxThreadsPerBlock = 1024, f.numRegs = registers, f.numBlockBarriers = 1;
        f.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN, f.maxDynamicSharedSizeBytes = bytes;
        cudaOccDeviceState s;
        cudaOccResult r;
        if (cudaOccMaxActiveBlocksPerMultiprocessor(&r, &p, &f, &s, threads, bytes)) return 1;
        printf("%d %u\n", r.activeBlocksPerMultiprocessor, r.limitingFactors);
    }
}
"""
LIMITS = {1: "warps", 2: "registers", 4: "shared", 8: "blocks", 16: "barriers"}


@pytest.mark.skipif(header() is None, reason="no cuda_occupancy.h: Triton brings one")
@pytest.mark.skipif(build.compiler("emulated") is None, reason="there is no g++")
def test_occupancy_is_what_cudas_own_calculator_says(tmp_path):
    """On every card, for blocks of all kinds: the blocks of an SM, and what limits them."""
    (tmp_path / "c.cpp").write_text(CALCULATOR)
    subprocess.run([*build.compiler("emulated"), f"-I{header()}", "-w", str(tmp_path / "c.cpp"), "-o",
                    str(tmp_path / "c")], check=True)
    threads, shared = (1, 32, 33, 96, 128, 160, 256, 480, 512, 768, 1024), (0, 1, 1024, 12345, 40960, 49152, 66560)
    cases = list(itertools.product(CARDS.values(), threads, (*range(8, 256, 9), 32, 255), shared))
    lines = (f"{card.capability} {card.warps} {card.shared} {card.shared_of_block} {t} {r} {s}\n"
             for card, t, r, s in cases)
    out = subprocess.run([str(tmp_path / "c")], input="".join(lines), capture_output=True, text=True, check=True).stdout
    assert len(cases) == len(out.splitlines()) > 5000
    for case, line in zip(cases, out.splitlines(), strict=True):
        found, (blocks, factors) = predict.occupancy(*case), map(int, line.split())
        assert found.blocks == blocks, (case, found)
        theirs = {name for bit, name in LIMITS.items() if factors & bit}
        if blocks:  # where a launch fails their calculator names more
            assert set(found.limited_by.split(" and ")) == theirs - {"barriers"}, (case, found, theirs)


# ---- what is compiled ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(build.compiler("cuda") is None, reason="there is no nvcc")
@pytest.mark.skipif(bool(compiled.missing()), reason=compiled.missing())
@pytest.mark.parametrize("architecture", [80, 90])
def test_registers_and_shared_memory_are_those_that_ptxas_reports(tmp_path, architecture):
    """The library's, read back by cuobjdump, against what the assembler says while it makes them."""
    (tmp_path / "some.cu").write_text("""
        __global__ void small(float* x) { x[threadIdx.x] += 1; }
        template <int N> __global__ void shared(float* x) {
            __shared__ float s[N];
            s[threadIdx.x] = x[threadIdx.x];
            __syncthreads();
            x[threadIdx.x] = s[threadIdx.x ^ 1];
        }
        __global__ void indexed(float* x, int i) {
            float a[64];
            for (int k = 0; k < 64; k++) a[k] = x[k * i];
            for (int k = 0; k < 64; k++) x[k] = a[(k * i) % 64];
        }
        void launch(float* x) { shared<32><<<1, 32>>>(x); shared<1000><<<1, 32>>>(x); }
        """)
    words = [*build.compiler("cuda"), "-shared", "-Xcompiler=-fPIC", f"-arch=sm_{architecture}", "-Xptxas=-v"]
    said = subprocess.run([*words, "-o", str(tmp_path / "some.so"), str(tmp_path / "some.cu")], capture_output=True,
                          text=True, check=True)
    found = compiled.usage(tmp_path / "some.so")
    assert {name for _, name in found} == {"small", "shared<32>", "shared<1000>", "indexed"}
    names = {"small": "_Z5smallPf", "shared<32>": "_Z6sharedILi32EEvPf", "shared<1000>": "_Z6sharedILi1000EEvPf",
             "indexed": "_Z7indexedPfi"}
    for (_, name), usage in found.items():
        part = (said.stdout + said.stderr).split(f"Compiling entry function '{names[name]}'")[1].split("Compiling")[0]
        assert usage.registers == int(re.search(r"Used (\d+) registers", part)[1]), part
        assert usage.shared == int((re.search(r"(\d+) bytes smem", part) or [0, 0])[1]), part
        assert usage.stack == int((re.search(r"(\d+) bytes (?:stack frame|cumulative)", part) or [0, 0])[1]), part
    assert found[architecture, "shared<1000>"].shared == 4000 and found[architecture, "small"].shared == 0
    assert found[architecture, "indexed"].stack == 256


@pytest.mark.skipif(bool(compiled.missing()), reason=compiled.missing())
@pytest.mark.parametrize("source", [path.stem for path in build.sources("cuda")])
def test_every_kernel_of_a_room_has_its_usage(source):
    (library,) = (library for library in kernels.libraries() if (library.name, library.kind) == (source, "cuda"))
    if not library.built:
        pytest.skip(library.log)
    found = compiled.usage(library.path)
    assert {architecture for architecture, _ in found} == {80, 90}
    assert {name for a, name in found if a == 80} == {name for a, name in found if a == 90}
    text = subprocess.run([compiled.tool("cuobjdump"), "-res-usage", str(library.path)], capture_output=True, text=True,
                          check=True).stdout
    assert len(found) == text.count(" Function "), "two kernels have one name"
    assert sorted(usage.registers for usage in found.values()) == sorted(map(int, re.findall(r"REG:(\d+)", text)))


def test_the_code_that_a_card_runs():
    """That of its generation: an RTX 4090 (8.9) runs what is compiled for 8.0."""
    code = {name: predict.machine_code(card, {80, 90}) for name, card in CARDS.items()}
    assert code == {"a100": 80, "h100": 90, "h200": 90, "rtx4090": 80}
    assert predict.machine_code(CARDS["a100"], {86, 90}) is None


# ---- ceilings --------------------------------------------------------------------------------------------------------

CARD = replace(CARDS["h100"], sms=10, clock=1e9, dram=1e9, l2=4e9, tensor={"f16": 4096e9, "tf32": 2048e9})


def launch(grid=20, launches=1, rows=(), **counters):
    """Of `grid` blocks, with these counters: bytes read and written of DRAM, sectors of L2."""
    shorter = zip(count.PER_LAUNCH, ("sectors", "", "", "read", "written"), strict=True)
    values = {name: counters.get(short, 0) for name, short in shorter}
    return Launch("kernel<float>", (grid, 1, 1), (256, 1, 1), 0, list(rows), [], values, 0, launches)


def shared(wavefronts):
    return Row("k.cu", 1, "load", "shared", 4, inst_executed=1, memory_l1_wavefronts_shared=wavefronts)


def of_tensor_cores(what, times):
    return Row("k.cu", 1, what, "", 0, inst_executed=times)


def test_ceilings_by_hand():
    near = pytest.approx
    copies = predict.ceilings(CARD, launch(read=3000, written=1000, sectors=250))
    assert {name: s for name, s in copies.items() if s} == {"DRAM": near(4e-6), "L2": near(2e-6)}
    # 20 blocks on 10 SMs: a tenth on each; 21 blocks: one SM has 3 of 21
    assert predict.ceilings(CARD, launch(20, rows=[shared(2100)]))["shared"] == near(210e-9)
    assert predict.ceilings(CARD, launch(21, rows=[shared(2100)]))["shared"] == near(300e-9)
    assert predict.ceilings(CARD, launch(1, rows=[shared(2100)]))["shared"] == near(2100e-9)
    # 4096 operations each: an SM does 409.6 a nanosecond in f16, half in tf32 (of 2048 each)
    rows = [of_tensor_cores("mma_16x8x16_f16", 1000), of_tensor_cores("mma_16x8x8_tf32", 1000)]
    assert predict.ceilings(CARD, launch(20, rows=rows))["tensor"] == near(2e-6)
    assert predict.ceilings(CARD, launch(5, rows=rows))["tensor"] == near(4e-6)  # on 5 of the 10 SMs


def test_instructions_by_hand():
    """10 SMs at 1 GHz issue 4 instructions each a nanosecond; 2 x 32 operations of float32 at 3200 a nanosecond on
    10 SMs are 0.2 ns an instruction, of float64 at 640 a nanosecond 1 ns."""
    near, card = pytest.approx, replace(CARD, fp32=3200e9, fp64=640e9)
    rows = [Row("k.cu", 1, "__shfl_xor_sync", "", 0, 300), Row("k.cu", 2, "__syncthreads", "", 0, 9)]
    found = predict.ceilings(card, launch(20, rows=rows), {"issue": 4000, "fp32": 1000, "fp64": 1000})
    assert {name: s for name, s in found.items() if s} == {
        "shuffle": near(30e-9), "issue": near(100e-9), "fp32": near(20e-9), "fp64": near(100e-9)}
    assert predict.ceilings(card, launch(1), {"issue": 4000, "fp32": 0, "fp64": 0})["issue"] == near(1000e-9)


def test_what_needs_most_binds():
    row = predict._row(CARD, launch(read=4000, sectors=2500), {}, {})
    assert (row.binds, row.at_least, row.short) == ("L2", pytest.approx(2e-5), False)
    assert row.occupancy is None and row.waves is None and row.cold
    row = predict._row(CARD, launch(read=2 * CARD.l2_size, sectors=2500), {}, {})
    assert row.binds == "DRAM" and not row.cold
    assert predict._row(CARD, launch(read=4000), {}, {}).short  # 4 us


def test_occupancy_of_a_launch():
    """Static and dynamic shared memory add up; waves are blocks over what the card holds."""
    usage = {(90, "kernel<float>"): compiled.Usage(32, 30 * 1024, 0, 0)}
    row = predict._row(CARD, replace(launch(84), dynamic_shared=6 * 1024), usage, {})  # 37 KB: 228 / 37 = 6 blocks
    assert (row.occupancy.blocks, row.occupancy.limited_by, row.waves) == (6, "shared", 1.4)
    assert predict._row(CARD, launch(84), {(80, "kernel<float>"): usage[90, "kernel<float>"]}, {}).occupancy is None


@pytest.mark.parametrize("right, wrong, law", [
    ("REGISTERS_AT_A_TIME, SHARED_AT_A_TIME = 256", "REGISTERS_AT_A_TIME, SHARED_AT_A_TIME = 512", "four files"),
    ("FILES * (card.registers // FILES // of_warp)", "(card.registers // of_warp)", "not from one pool"),
    ("shared + compiled.KEPT_BY_CUDA", "shared", "what CUDA keeps"),
    ("up(shared + compiled.KEPT_BY_CUDA, SHARED_AT_A_TIME)", "shared + compiled.KEPT_BY_CUDA", "shared by the 128"),
    ("warps = -(-threads // WARP)", "warps = threads // WARP", "a thirty-third lane"),
    ("busiest = -(-blocks // card.sms) / blocks", "busiest = 1 / card.sms", "hand"),
    ("32 * sum(", "sum(", "hand"), ("2 * WARP * busiest", "WARP * busiest", "instructions"),
    ("(card.schedulers * card.clock)", "card.clock", "instructions"),
    ('row.what.startswith("__shfl")', 'row.what.startswith("__s")', "instructions"),
    ("taken.shared + launch", "launch", "launch"), ("max(p.seconds, key", "min(p.seconds, key", "binds"),
])
def test_a_planted_mistake_is_seen(right, wrong, law, monkeypatch):
    """One wrong constant or term in genmini/predict.py turns a test above red."""
    text, mutant = Path(predict.__file__).read_text(), types.ModuleType("mutant")
    assert text.count(right) == 1
    monkeypatch.setitem(sys.modules, "mutant", mutant)
    exec(text.replace(right, wrong), mutant.__dict__)
    monkeypatch.setitem(globals(), "predict", mutant)
    laws = {"hand": test_ceilings_by_hand, "instructions": test_instructions_by_hand,
            "launch": test_occupancy_of_a_launch, "binds": test_what_needs_most_binds}
    with pytest.raises(AssertionError):
        laws.get(law, lambda: test_occupancy_by_hand(*KNOWN[law]))()


# ---- the cards -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CARDS)
def test_constants_agree_with_each_other(name):
    """Peaks are lanes x SMs x clock: 64 lanes of float32 on the A100, 128 on others; two operations each."""
    card = CARDS[name]
    lanes = {"a100": 64}.get(name, 128)
    assert card.fp32 == pytest.approx(2 * lanes * card.sms * card.clock, rel=0.01)
    assert card.fp64 == pytest.approx(card.fp32 / (64 if name == "rtx4090" else 2), rel=0.01)
    assert card.tensor["f16"] == card.tensor["bf16"] == pytest.approx(2 * card.tensor["tf32"], rel=0.01)
    assert card.dram < card.l2 < card.sms * 128 * card.clock  # an SM takes 128 bytes a clock from its first cache


def test_cards_by_name():
    assert predict.named("H100") == [CARDS["h100"]] and predict.named("RTX 4090") == [CARDS["rtx4090"]]
    assert predict.named("all") == list(CARDS.values())
    with pytest.raises(ValueError, match="unknown card 'b200'; known are a100, h100, h200, rtx4090, and all"):
        predict.named("b200")


def test_without_tools_the_reason_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert compiled.missing().startswith("reading machine code needs cuobjdump")
    with pytest.raises(RuntimeError, match="cuobjdump, which comes with CUDA and with Triton"):
        compiled.usage("nothing.so")
