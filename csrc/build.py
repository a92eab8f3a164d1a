"""Compile csrc/: the one place with compiler command lines. Python's standard library alone; never imports torch.

    python csrc/build.py                 build what can be built into kernels/lib/
    python csrc/build.py --debug         the emulated kernels unoptimised, for gdb (docs/emulator.md)
    python csrc/build.py --strict        a missing or failing compiler is an error

Four kinds of library, all plain C functions:

    <x>.cu   -> <x>.cuda.so       nvcc: machine code for sm_80 and sm_90, PTX of compute_90 for newer cards
    <x>.cu   -> <x>.emulated.so   g++ compiles the same source with emulator/emulator.h: the GPU kernel runs on a CPU
    <x>.cpp  -> <x>.cpu.so        g++: the native CPU kernel, where it is faster than PyTorch
    <x>.cu   -> <x>.counted.so    the emulated kernel, with counters; built when it is asked for (csrc/count.py)

A library is rebuilt when its source, a header that it includes, the command or the compiler changes. Beside it are
stored its key, the hash of its sources, by which kernels/_library.py knows that they changed, and the compiler's log.
"""

import argparse
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

CSRC = Path(__file__).resolve().parent
KINDS = ("cpu", "emulated", "cuda")
COUNTERS = CSRC / "emulator" / "count.cpp"
# Contraction is off: two operations in the source are two roundings, as docs/exact-argmin.md needs.
GXX = ["-std=c++17", "-shared", "-fPIC", "-pthread", "-g", "-ffp-contract=off", "-Wall", "-Wextra"]
# A kernel may read memory as another type than it was written as, as under nvcc. g++ does not know nvcc's pragmas.
GXX += ["-fno-strict-aliasing", "-Wno-unknown-pragmas"]
# The compiler calls a function at each access and at each basic block: COUNTERS defines them. What follows keeps
# accesses as wide as in the source, and basic blocks in its order.
COUNTED = ["-DEMULATOR_COUNT", "-fsanitize=thread", "-fsanitize-coverage=trace-pc", "-fno-optimize-sibling-calls"]
COUNTED += ["-fno-reorder-blocks", "-fno-tree-sra", "-fno-ipa-sra", "-fno-ipa-icf", "-fno-tree-vectorize"]
COUNTED += ["-fno-tree-ch", "-fno-store-merging", "-fno-tree-loop-distribute-patterns"]
ARM = ["aarch64-linux-gnu-g++"]  # of csrc/arm.py
NVCC = ["-std=c++17", "-shared", "-Xcompiler=-fPIC", "-O3", "-lineinfo", "-fmad=false"]
NVCC += ["-gencode=arch=compute_80,code=sm_80", "-gencode=arch=compute_90,code=[sm_90,compute_90]"]


@dataclass
class Result:
    name: str  # of the room
    kind: str
    path: Path  # of the library
    ok: bool
    log: str  # the compiler's output, or why there is none

    def report(self):
        state = "built" if self.ok else "NOT built"
        tail = "" if self.ok else "\n" + "\n".join("    " + line for line in self.log.strip().splitlines()[-12:])
        return f"{self.path.name}: {state}{tail}"


def compiler(kind):
    """The words of the compiler for this kind of library, its path first, or None."""
    if kind != "cuda":
        name, *flags = ARM if kind == "arm" else cxx()
        return [path, *flags] if (path := shutil.which(name)) else None
    for root in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")):
        if root and os.access(os.path.join(root, "bin", "nvcc"), os.X_OK):
            return [os.path.join(root, "bin", "nvcc")]
    return [path] if (path := shutil.which("nvcc")) else None


def cxx():
    """The words of $CXX, such as "ccache g++" or "g++ -m64"."""
    return shlex.split(os.environ.get("CXX", "")) or ["g++"]


def sources(kind, csrc=CSRC):
    return sorted(Path(csrc).glob("*.cpp" if kind == "cpu" else "*.cu"))


def command(kind, source, output, debug=False):
    if kind == "cuda":
        return [*compiler(kind), *NVCC, *headers(source), "-o", str(output), str(source)]
    language = ["-x", "c++"] if kind == "emulated" else []
    optimisation = "-O0" if debug else "-O3" if kind == "cpu" else "-O2"
    return [*compiler(kind), *GXX, optimisation, *headers(source), *language, str(source), "-o", str(output)]


def headers(source):
    """A source that lies elsewhere finds gpu.h and the other headers in csrc/."""
    beside = not source.is_absolute() or (source.parent / "gpu.h").exists()
    return [] if beside else [f"-I{CSRC}"]


def commands(kind, source, output, debug=False):
    """The commands that build a library, one after the other."""
    if kind != "counted":
        return [command(kind, source, output, debug)]
    flags, part = [flag for flag in GXX if flag != "-shared"], f"{output}.o"
    compiled = [*compiler(kind), *flags, *COUNTED, "-O2", f"-I{CSRC}", "-x", "c++", "-c", str(source), "-o", part]
    # The counters are compiled without -fsanitize=thread, and stand in the place of its library; a function that they
    # lack is an error here, not when the library is loaded.
    linked = [*compiler(kind), *GXX, "-O2", "-DEMULATOR_COUNT", "-fvisibility=hidden"]
    return [compiled, [*linked, "-Wl,-z,defs", part, str(COUNTERS), "-o", str(output)]]


def reads(source):
    """The source and all files of csrc/ that it includes, directly or indirectly."""
    found = [Path(source).resolve()]
    for path in found:  # `found` grows in the loop
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no text in UTF-8: see byte {error.start}") from None
        named = re.findall(r'^\s*#\s*include\s*"(.+?)"', text, re.M)
        included = dict.fromkeys((folder / name).resolve() for name in named for folder in (path.parent, CSRC))
        found += [other for other in included if other.is_file() and other not in found]
    return found


def contents(source, kind=None):
    """A hash of all sources of a library: the source, what it includes, and the counters."""
    digest = hashlib.sha256()
    for path in (*reads(source), *(reads(COUNTERS) if kind == "counted" else ())):
        digest.update(path.name.encode() + path.read_bytes())
    return digest


def stale(library, source):
    """Whether the library was built from other contents of this source. False where nobody recorded that."""
    kind, record = library.stem.rpartition(".")[2], library.with_suffix(".sources")
    return record.exists() and record.read_text() != contents(source, kind).hexdigest()


def key(kind, source, debug=False):
    """A hash of all that a library is made of. A library with another key is built again."""
    digest = contents(source, kind)
    for words in commands(kind, Path(source.name), "", debug):
        digest.update(" ".join(words).encode())
    digest.update(subprocess.run([*compiler(kind), "--version"], capture_output=True).stdout)
    return digest.hexdigest()


def compile_one(kind, source, out, debug=False):
    library = out / f"{source.stem}.{kind}.so"
    key_file, log_file = library.with_suffix(".key"), library.with_suffix(".log")
    if compiler(kind) is None:
        name = "nvcc" if kind == "cuda" else cxx()[0]
        log = f"{name} was not found on PATH" + (" or in CUDA_HOME" if kind == "cuda" else "")
        if library.exists() and not stale(library, source):
            return Result(source.stem, kind, library, True, log)  # built elsewhere, from these sources
        library.unlink(missing_ok=True)
        log_file.write_text(log)
        return Result(source.stem, kind, library, False, log)
    record, sources = library.with_suffix(".sources"), contents(source, kind).hexdigest()
    wanted = key(kind, source, debug)
    if library.exists() and key_file.exists() and key_file.read_text() == wanted:
        if not record.exists():
            record.write_text(sources)
        return Result(source.stem, kind, library, True, log_file.read_text() if log_file.exists() else "")
    library.unlink(missing_ok=True)
    fresh = out / f"{library.name}.{os.getpid()}"  # renamed when it is whole: no process loads half a library
    log = ""
    for words in commands(kind, source, fresh, debug):
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        log += " ".join(words) + "\n" + done.stdout
        if done.returncode:
            break
    Path(f"{fresh}.o").unlink(missing_ok=True)
    log_file.write_text(log)
    if done.returncode == 0:
        os.replace(fresh, library)
        record.write_text(sources)
        key_file.write_text(wanted)  # last: after an interruption the library is built again
    else:
        fresh.unlink(missing_ok=True)
    return Result(source.stem, kind, library, done.returncode == 0, log)


def build(out, kinds=KINDS, csrc=CSRC, debug=False, only=None):
    """Build every library of these kinds into `out`, as many at a time as there are cores -> a Result for each."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    jobs = [(kind, source) for kind in kinds for source in sources(kind, csrc) if only is None or source.stem in only]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda job: compile_one(*job, out, debug), jobs))


def broken(results):
    """The results that failed. Without nvcc the CUDA libraries are not expected."""
    return [result for result in results if not result.ok and not (result.kind == "cuda" and compiler("cuda") is None)]


def main():
    parser = argparse.ArgumentParser(description="Compile csrc/ into kernels/lib/.")
    parser.add_argument("--out", default=CSRC.parent / "kernels" / "lib", help="folder (default: kernels/lib)")
    parser.add_argument("--kinds", nargs="+", choices=(*KINDS, "counted"), default=KINDS,
                        help=f"(default: {' '.join(KINDS)})")
    parser.add_argument("--only", nargs="+", metavar="ROOM", help="rooms to build (default: all)")
    parser.add_argument("--debug", action="store_true", help="-O0, for stepping through a kernel with gdb")
    parser.add_argument("--strict", action="store_true", help="exit 1 if a library could not be built")
    options = parser.parse_args()
    results = build(options.out, options.kinds, debug=options.debug, only=options.only)
    for result in results:
        print(result.report())
    strict = options.strict or os.environ.get("GENMINI_STRICT") == "1"
    sys.exit(1 if strict and broken(results) else 0)


if __name__ == "__main__":
    main()
