"""Read the machine code of kernels, by line of the source, and how many instructions a launch issues at least.

    code = sass.kernels("kernels/lib/nade.cuda.so", 90, {"nade.cu"})     {kernel: [Instruction, ...]}
    sass.issued(code[launch.kernel], launch)                             {"issue": 25320, "fp32": 7168, "fp64": 0}

nvcc writes the lines into the library (-lineinfo), nvdisasm reads them back. What is compiled does not say how often an
instruction runs; csrc/count.py says how often a memory access of a line does. If nvcc does an access as often as it was
counted, its basic block runs so often, and so does every instruction in it:

    one block has the line's access n times       it runs requests / n times
    several blocks b do, n_b times each           they issue at least requests · min_b (instructions of b / n_b)

Blocks without an access of memory, and subroutines such as a division, are left out: the sum is a lower bound.
"""

import re
import subprocess
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

if __package__:
    from . import compiled, count
else:
    import compiled
    import count

KINDS = ("issue", "fp32", "fp64")
FP32, FP64 = {"FADD", "FMUL", "FFMA"}, {"DADD", "DMUL", "DFMA", "DSETP", "DMNMX"}
ACCESSES = {"LDG": ("load", "global"), "STG": ("store", "global"), "ATOMG": ("atomic", "global"),
            "RED": ("atomic", "global"), "REDG": ("atomic", "global"), "LDS": ("load", "shared"),
            "STS": ("store", "shared"), "ATOMS": ("atomic", "shared"), "LDGSTS": ("cp.async", "shared"),
            "LDSM": ("ldmatrix", "shared")}
SIZES = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}
# behind these a warp may go on elsewhere
ENDS = {"BRA", "BRX", "BRXU", "JMP", "EXIT", "RET", "BSYNC", "BREAK", "WARPSYNC"}
INSTRUCTION = re.compile(r"^ +/\*[0-9a-f]{4,}\*/ +(?:@!?U?P\w+ +)?([A-Z][\w.]*)")
PLACE = re.compile(r'"([^"]+)", line (\d+)')


@dataclass(frozen=True)
class Instruction:
    word: str  # LDG.E.128
    file: str  # the innermost place in the kernel's own files, or ""
    line: int
    block: int  # the basic block

    operation = property(lambda self: self.word.partition(".")[0])

    @property
    def access(self):
        """(file, line, what, space, size), as a csrc/count.py Row has it; None if it is no access of memory."""
        if self.operation not in ACCESSES:
            return None
        sizes = [SIZES[part] for part in self.word.split(".") if part in SIZES]
        size = 16 if self.operation == "LDSM" else sizes[-1] if sizes else 4
        return self.file, self.line, *ACCESSES[self.operation], size

    @property
    def kinds(self):
        yield "issue"
        if self.operation in FP32:
            yield "fp32"
        if self.operation in FP64:
            yield "fp64"


def missing():
    """What disassembling needs and this machine lacks, or an empty string."""
    if compiled.tool("nvdisasm") is None:
        return "reading instructions needs nvdisasm, which comes with CUDA and with Triton, and was not found"
    return compiled.missing()


def kernels(library, architecture, files):
    """{kernel: its instructions} of the library's code for one architecture; lines are those of these files."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([compiled.tool("cuobjdump"), "-xelf", f"sm_{architecture}", str(Path(library).resolve())],
                       cwd=folder, capture_output=True, check=True)
        for cubin in sorted(Path(folder).iterdir()):
            found |= read(compiled.output([compiled.tool("nvdisasm"), "-gi", "-c", str(cubin)]), files)
    return found


def read(listing, files):
    """{kernel: its instructions} of what nvdisasm prints."""
    parts = re.split(r"^\.text\.(\S+):$", listing, flags=re.M)[1:]
    names = compiled.output(["c++filt"], "".join(f"{name}\n" for name in parts[::2])).splitlines()
    return {count.short(name): _instructions(body, files) for name, body in zip(names, parts[1::2], strict=True)}


def _instructions(body, files):
    """Up to the first subroutine. Remarks that follow each other are of what is below: a place, and its callers."""
    instructions, places, block, told = [], [], 0, False
    for text in body.splitlines():
        if text.startswith("$"):
            break
        if text.startswith(".L_"):
            block += 1
        elif text.startswith("\t//##"):
            places = PLACE.findall(text) if not told else places + PLACE.findall(text)
            told = True
        elif found := INSTRUCTION.match(text):
            told = False
            at = ((Path(path).name, int(line)) for path, line in places)
            file, line = next((place for place in at if place[0] in files), ("", 0))
            instructions.append(Instruction(found[1], file, line, block))
            block += found[1].partition(".")[0] in ENDS
    return instructions


def issued(instructions, launch):
    """{"issue": instructions that the warps of the launch issue at least, "fp32": those of float32, "fp64": ...}"""
    within, accesses = defaultdict(Counter), defaultdict(Counter)
    for instruction in instructions:
        within[instruction.block].update(instruction.kinds)
        if instruction.access and instruction.file:
            accesses[instruction.access][instruction.block] += 1
    requests = {row.key: row.inst_executed for row in launch.rows if row.key in accesses}
    runs = {}  # of a block: as often as each of its accesses says, at least
    for key, asked in requests.items():
        if len(accesses[key]) == 1:
            ((block, n),) = accesses[key].items()
            runs[block] = min(runs.get(block, asked / n), asked / n)
    total = {kind: sum(times * within[block][kind] for block, times in runs.items()) for kind in KINDS}
    for least in _shared_out(requests, accesses, within, runs):
        total = {kind: total[kind] + least[kind] for kind in total}
    return {kind: round(number) for kind, number in total.items()}


def _shared_out(requests, accesses, within, runs):
    """What accesses issue at least that stand in several blocks; of accesses that share blocks, those of the first."""
    by_blocks = defaultdict(list)
    for key, asked in requests.items():
        others = {block: n for block, n in accesses[key].items() if block not in runs}
        rest = asked - sum(runs[block] * n for block, n in accesses[key].items() if block in runs)
        if others and rest > 0:
            by_blocks[frozenset(others)].append(
                {kind: rest * min(within[block][kind] / n for block, n in others.items()) for kind in KINDS})
    taken = set()
    for blocks, bounds in sorted(by_blocks.items(), key=lambda item: -min(bound["issue"] for bound in item[1])):
        if not blocks & taken:
            taken |= blocks
            yield {kind: min(bound[kind] for bound in bounds) for kind in KINDS}


def made_of(instructions, row):
    """What nvcc made of a row of counters: "3 LDG.E.128", the accesses of its line and space; "" if it has none."""
    words = Counter(i.word for i in instructions if (i.file, i.line) == (row.file, row.line) and i.access
                    and ACCESSES[i.operation] == (row.what, row.space))
    return ", ".join(f"{n} {word}" for word, n in sorted(words.items()))
