"""Test what csrc/sass.py reads of machine code, and how many instructions it says that a launch issues at least."""

import ctypes
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from emulated import build, sanitize
from genmini.csrc import count, sass
from genmini.csrc.count import Launch, Row
from genmini.csrc.sass import Instruction

SOURCE = Path(__file__).with_name("test_count.cu")
FOLDER = sanitize.CACHE.parent / "counted"

# ---- the listing -----------------------------------------------------------------------------------------------------

LISTING = """
	.section	.text._Z4pushIfEvPKT_Pf,"ax",@progbits
.text._Z4pushIfEvPKT_Pf:
	//## File "/somewhere/k.cu", line 3
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/              @!P0 BRA `(.L_x_1) ;
	//## File "/somewhere/k.cu", line 5 inlined at "/somewhere/gpu.h", line 58
	//## File "/somewhere/gpu.h", line 58 inlined at "/somewhere/k.cu", line 9
        /*0020*/              @UP2 LDG.E.128 R8, desc[UR6][R4.64] ;
	//## File "/somewhere/gpu.h", line 59
        /*0030*/                   MUFU.RCP R0, R0 ;
.L_x_1:
	//## File "/somewhere/k.cu", line 6
        /*0040*/                   CALL.REL.NOINC `($__internal_0_$__cuda_sm20_div_s64) ;
        /*0050*/                   STS.U16 [R2], R3 ;
        /*0060*/                   EXIT ;
        /*0070*/                   NOP ;
$__internal_0_$__cuda_sm20_div_s64:
        /*0080*/                   DADD R2, R2, R4 ;
"""


def reads_a_listing():
    """A remark tells the innermost place in k.cu; a branch, a label and EXIT end a block, a call does not."""
    (code,) = [sass.read(LISTING, {"k.cu"})]
    assert list(code) == ["push<float>"]
    assert [(i.word, i.line, i.block) for i in code["push<float>"]] == [
        ("LDC", 3, 0), ("BRA", 3, 0), ("LDG.E.128", 5, 1), ("MUFU.RCP", 0, 1),
        ("CALL.REL.NOINC", 6, 2), ("STS.U16", 6, 2), ("EXIT", 6, 2), ("NOP", 6, 3)]
    assert [i.access for i in code["push<float>"] if i.access] == [
        ("k.cu", 5, "load", "global", 16), ("k.cu", 6, "store", "shared", 2)]


def test_a_listing():
    reads_a_listing()


@pytest.mark.parametrize("word, access", [
    ("LDG.E", ("load", "global", 4)), ("LDG.E.64.CONSTANT", ("load", "global", 8)), ("LDG.E.U8", ("load", "global", 1)),
    ("STG.E.128", ("store", "global", 16)), ("LDS.128", ("load", "shared", 16)), ("ATOMS.ADD", ("atomic", "shared", 4)),
    ("REDG.E.ADD.STRONG.GPU", ("atomic", "global", 4)), ("ATOMG.E.CAS.64.STRONG.GPU", ("atomic", "global", 8)),
    ("LDGSTS.E.BYPASS.LTC128B.128", ("cp.async", "shared", 16)), ("LDSM.16.M88.4", ("ldmatrix", "shared", 16)),
])
def test_accesses(word, access):
    assert Instruction(word, "k.cu", 7, 0).access == ("k.cu", 7, *access)
    assert Instruction("FADD", "k.cu", 7, 0).access is None


# ---- how often it runs -----------------------------------------------------------------------------------------------


def code(*blocks):
    """Of words such as "LDG@5": LDG on line 5; a list for each block."""
    return [Instruction(word.partition("@")[0], "k.cu", int(word.partition("@")[2] or 1), number)
            for number, block in enumerate(blocks) for word in block.split()]


def launch(**requests):
    """Requests of loads of 4 bytes by line: line_5=100."""
    rows = [Row("k.cu", int(line[5:]), "load", "global", 4, asked) for line, asked in requests.items()]
    return Launch("kernel", (1, 1, 1), (32, 1, 1), 0, rows, [], dict.fromkeys(count.PER_LAUNCH, 0), 0)


def one_block_runs_as_often_as_its_access():
    body = "LDG@5 FADD FFMA DADD IMAD BRA"
    assert sass.issued(code("MOV MOV", body, "EXIT"), launch(line_5=100)) == {"issue": 600, "fp32": 200, "fp64": 100}
    # two accesses of one line: 50 runs. Those of another line say 30: one of them is wrong, the smaller counts
    assert sass.issued(code("LDG@5 LDG@5 FADD"), launch(line_5=100)) == {"issue": 150, "fp32": 50, "fp64": 0}
    assert sass.issued(code("LDG@5 LDG@5 LDG@6 FADD"), launch(line_5=100, line_6=30))["fp32"] == 30
    assert sass.issued(code("FADD"), launch(line_5=100))["issue"] == 0


def an_unrolled_loop_issues_at_least_its_cheapest_block():
    """Four accesses with 3 instructions more, or one with 3 more: of 100 requests 7 / 4 each at least."""
    unrolled = code("LDG@5 LDG@5 LDG@5 LDG@5 FADD FADD BRA", "LDG@5 FADD MOV BRA")
    assert sass.issued(unrolled, launch(line_5=100)) == {"issue": 175, "fp32": 50, "fp64": 0}
    # a second line in the same blocks is no second run; one that says less counts
    both = code("LDG@5 LDG@6 FADD BRA", "LDG@5 LDG@6 FADD BRA")
    assert sass.issued(both, launch(line_5=100, line_6=100))["fp32"] == 100
    assert sass.issued(both, launch(line_5=100, line_6=60))["fp32"] == 60
    overlap = code("LDG@5 FADD BRA", "LDG@5 LDG@6 FADD BRA", "LDG@6 FADD BRA")  # of two that share a block, one counts
    assert sass.issued(overlap, launch(line_5=100, line_6=80)) == {"issue": 300, "fp32": 100, "fp64": 0}


def blocks_that_are_known_are_taken_off():
    """Line 6 says that block 0 runs 40 times; 60 of the 100 requests of line 5 are left for block 1."""
    known = code("LDG@5 LDG@6 DADD DADD BRA", "LDG@5 FADD BRA")
    assert sass.issued(known, launch(line_5=100, line_6=40)) == {"issue": 40 * 5 + 60 * 3, "fp32": 60, "fp64": 80}


@pytest.mark.parametrize("law", [one_block_runs_as_often_as_its_access, blocks_that_are_known_are_taken_off,
                                 an_unrolled_loop_issues_at_least_its_cheapest_block])
def test_issued(law):
    law()


@pytest.mark.parametrize("right, wrong, law", [
    ("min(runs.get(block, asked / n), asked / n)", "max(runs.get(block, 0), asked / n)",
     one_block_runs_as_often_as_its_access),
    ("rest * min(within", "rest * max(within", an_unrolled_loop_issues_at_least_its_cheapest_block),
    ("if not blocks & taken:", "if True:", an_unrolled_loop_issues_at_least_its_cheapest_block),
    ("rest = asked - sum(", "rest = asked - 0 * sum(", blocks_that_are_known_are_taken_off),
    ('"DSETP", "DMNMX"}', '"DSETP", "DMNMX", "FADD"}', one_block_runs_as_often_as_its_access),
    ('"EXIT", ', "", reads_a_listing), ('if text.startswith("$"):', 'if text.startswith("#"):', reads_a_listing),
    ("if place[0] in files", "if place[0]", reads_a_listing),
    ("if not told else places +", "if True else", reads_a_listing),
])
def test_a_planted_mistake_is_seen(right, wrong, law, monkeypatch):
    text, mutant = Path(sass.__file__).read_text(), types.ModuleType("genmini.csrc.mutant")
    assert text.count(right) == 1
    mutant.__package__ = "genmini.csrc"
    monkeypatch.setitem(sys.modules, mutant.__name__, mutant)
    exec(text.replace(right, wrong), mutant.__dict__)
    monkeypatch.setitem(globals(), "sass", mutant)
    monkeypatch.setitem(globals(), "Instruction", mutant.Instruction)
    with pytest.raises(AssertionError):
        law()


# ---- what nvcc compiles, beside what is counted ----------------------------------------------------------------------


@pytest.fixture(scope="module", params=[80, 90])
def compiled(request, tmp_path_factory):
    """{kernel: instructions} of test_count.cu."""
    if build.compiler("cuda") is None or sass.missing():
        pytest.skip("there is no nvcc, or nothing that reads its code")
    library = tmp_path_factory.mktemp("sass") / "test_count.so"
    flags = [flag for flag in build.NVCC if not flag.startswith("-gencode")]
    build.subprocess.run([*build.compiler("cuda"), *flags, f"-arch=sm_{request.param}", f"-I{build.CSRC}", str(SOURCE),
                          "-o", str(library)], check=True)
    return sass.kernels(library, request.param, {SOURCE.name})


def counted(name):
    if count.missing():
        pytest.skip(count.missing())
    path = count.built(SOURCE, FOLDER)
    library, memory = ctypes.CDLL(str(path)), [np.ones(5000, np.float32) for _ in range(2)]
    x, y = (ctypes.c_void_p((array.ctypes.data + 127) // 128 * 128) for array in memory)
    assert getattr(library, f"run_{name}")(x, y) == 0
    return count.launches(path, SOURCE)[0]


def test_instructions_beside_counters(compiled):
    """y[i] = x[i] + 1 in 16 warps: each loads, adds and stores once. A store of 16 bytes stays one."""
    launched = counted("stride_one")
    issued = sass.issued(compiled["stride_one"], launched)
    assert issued["fp32"] == 16 and issued["fp64"] == 0
    straight = [i for i in compiled["stride_one"] if i.block == 0]
    assert issued["issue"] == 16 * len(straight) and straight[-1].word == "EXIT"
    assert [sass.made_of(compiled["stride_one"], row) for row in launched.rows] == ["1 LDG.E", "1 STG.E"]
    (store,) = (row for row in counted("wide").rows if row.what == "store")
    assert sass.made_of(compiled["wide"], store) == "1 STG.E.128"


def test_a_tile_in_shared_memory(compiled):
    """32 loads, stores, loads and stores of a warp, unrolled or not: at least so many instructions."""
    launched = counted("tile_33")
    assert sum(row.inst_executed for row in launched.rows if row.space) == 128
    assert sass.issued(compiled["tile<33>"], launched)["issue"] >= 128
