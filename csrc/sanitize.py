"""Run every rung of every kernel in a stand-alone driver under the sanitizers, and prove that they find planted bugs.

    python csrc/sanitize.py               plain, AddressSanitizer + UndefinedBehaviorSanitizer
    python csrc/sanitize.py --thorough    counted too, and ThreadSanitizer of the native kernels
    python csrc/sanitize.py --gpu         the drivers compiled by nvcc, on a GPU, under compute-sanitizer
    python csrc/sanitize.py --only affine_coupling planted

csrc/drivers/<x>.cpp runs csrc/<x>.cu, and <x>_cpu.cpp runs the native <x>.cpp. Each file in csrc/drivers/planted/ has
one bug, and names the build, or the two, that must find it:

    plain      the emulator itself: its reports, poisoned memory, and threads run forward, in reverse and at random
    address    the same under AddressSanitizer and UndefinedBehaviorSanitizer
    counted    the counters (csrc/count.py): races of threads and blocks, missing fences, reads of what nobody wrote
    tsan       of a native kernel: its threads under ThreadSanitizer
    compiled   nvcc's registers and shared memory beside the launches of `plain`: what is too large for a card
    lint       clang-tidy, of planted bugs alone: csrc/widening.py (`make lint`) reads the kernels
"""

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import build
import compiled as of_nvcc
import count
import fitting
import widening

DRIVERS = build.CSRC / "drivers"
CACHE = build.CSRC.parent / ".cache" / "sanitize"
FLAGS = [flag for flag in build.GXX if flag not in ("-shared", "-fPIC", "-g")]
FLAGS += ["-g1"]  # line numbers alone: enough for a report, and compiled in half the time
FORWARD = {"GENMINI_EMULATOR_ORDER": "forward"}
ORDERS = [FORWARD, *({"GENMINI_EMULATOR_ORDER": order} for order in ("reverse", "1", "2"))]
BUILDS = {
    "plain": (["-O1"], ORDERS),
    "address": (["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"], ORDERS),
    "counted": (["-O1", *build.COUNTED], [FORWARD]),
    "tsan": (["-O1", "-fsanitize=thread"], [FORWARD]),
}
QUICK, THOROUGH = ("plain", "address"), tuple(BUILDS)
OPTIONS = {
    "ASAN_OPTIONS": "exitcode=66",
    "TSAN_OPTIONS": "exitcode=66:halt_on_error=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}
TIMEOUT = 900


def drivers():
    return sorted(path for path in DRIVERS.glob("*.cpp"))


def bugs():
    """[(name, build that must find it, words of its report)], from the first lines of each planted bug."""
    found = []
    for path in sorted((DRIVERS / "planted").glob("*.cu")):
        first = re.match(r"(// found by \w+: .*\n)+", path.read_text())[0]
        found += [(path.stem, kind, words) for kind, words in re.findall(r"// found by (\w+): (.*)", first)]
    return found


def compiled(source, flags, name, compiler="emulated", others=(), counted=False):
    """The program made from `source` and others. A change of a file, the flags or the compiler compiles it again.
    counted: the counters, which are compiled without these flags, are linked to it."""
    words = [*build.compiler(compiler), *flags, *map(str, (source, *others))]
    digest = hashlib.sha256(" ".join([*flags, source.name]).encode())
    for path in dict.fromkeys(path for each in (source, *others, *([build.COUNTERS] * counted))
                              for path in build.reads(each)):
        digest.update(path.name.encode() + path.read_bytes())
    digest.update(subprocess.run([*build.compiler(compiler), "--version"], capture_output=True).stdout)
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / f"{name}.{digest.hexdigest()[:16]}"
    with open(CACHE / f".{name}.lock", "w") as lock:  # one process compiles, the others wait
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            for old in CACHE.glob(f"{name}.*"):
                old.unlink()
            fresh = CACHE / f"{name}.new"
            commands = [[*words, "-o", str(fresh)]]
            if counted:
                part, linked = f"{fresh}.o", [*build.compiler(compiler), *FLAGS, "-O2", "-DEMULATOR_COUNT"]
                commands = [[*words, "-c", "-o", part], [*linked, part, str(build.COUNTERS), "-o", str(fresh)]]
            for each in commands:
                done = subprocess.run(each, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                if done.returncode:
                    raise RuntimeError(f"{' '.join(each)}\n{done.stdout}")
            Path(f"{fresh}.o").unlink(missing_ok=True)
            os.replace(fresh, path)
    return path


def drives(source):
    """The source that a driver runs: <x>.cpp runs <x>.cu, <x>_cpu.cpp runs <x>.cpp."""
    cpu = source.stem.removesuffix("_cpu")
    return build.CSRC / (f"{source.stem}.cu" if cpu == source.stem else f"{cpu}.cpp")


def suits(source, kind):
    """Whether the driver has this build. Native CPU kernels have no GPU build, and none for what the emulator reports
    or counts; ThreadSanitizer is theirs alone."""
    return kind != "tsan" if drives(source).suffix == ".cu" else kind in ("address", "tsan")


def program(source, kind):
    if kind == "gpu":
        flags = [flag for flag in build.NVCC if flag not in ("-shared", "-Xcompiler=-fPIC")]
        return compiled(source, [*flags, "-x", "cu"], f"{source.stem}.gpu", "cuda")
    kernel = drives(source)  # a driver includes a .cu, and is linked with a .cpp
    others = [kernel] if kernel.suffix == ".cpp" else []
    # a native kernel is compiled once for each instruction set, and shares the least work between threads
    flags = BUILDS[kind][0] + (["-Og", "-DWORTH_A_THREAD=1"] if others else [])
    name = f"{source.stem}.{kind}"
    return compiled(source, [*FLAGS, *flags, "-x", "c++"], name, others=others, counted=kind == "counted")


def run(command, environment):
    """(exit status, output). ThreadSanitizer of g++ 12 fails for some random layouts of memory: then again without."""
    same = {"env": {**os.environ, **OPTIONS, **environment}, "text": True, "errors": "replace", "timeout": TIMEOUT}
    words = [str(word) for word in command]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **same)
    if "unexpected memory mapping" in done.stdout and shutil.which("setarch"):
        words = ["setarch", os.uname().machine, "-R", *words]
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **same)
    return done.returncode, done.stdout


def looked_at(source, kind, status, output):
    """(exit status, output) of a program; in the counted build a hazard in its last line is a failure, and told."""
    if kind != "counted":
        return status, output
    text, _, counted = output.rstrip("\n").rpartition("\n")
    launches = count.placed(counted, program(source, kind), count.names(source)) if counted.startswith("[") else []
    hazards = dict.fromkeys(f"{launch.kernel}: {hazard}" for launch in launches for hazard in launch.hazards)
    return status or 66 * bool(hazards), "\n".join([text, *hazards])


def drive(source, kind):
    """One driver in one build: (whether it passed, what to print)."""
    command, environments = [program(source, kind)], BUILDS[kind][1]
    for environment in environments if drives(source).suffix == ".cu" else environments[:1]:  # no order of threads
        status, output = looked_at(source, kind, *run(command, environment))
        if status:
            return False, f"exit status {status}, order {environment['GENMINI_EMULATOR_ORDER']}\n{output}"
    return True, ""


def find(name, kind, words):
    """Whether this build finds the planted bug in some order of threads, and passes the right kernel in every order."""
    source = DRIVERS / "planted" / "planted.cpp"
    if kind == "compiled":
        return fits(name, words)
    if kind == "lint":
        return widening.find(source, name, words)
    command = [program(source, kind), name]
    for environment in BUILDS[kind][1]:
        status, output = looked_at(source, kind, *run([*command, "right"], environment))
        if status:
            order = environment["GENMINI_EMULATOR_ORDER"]
            return False, f"a false alarm, order {order}: exit status {status}\n{output}"
    for environment in BUILDS[kind][1]:
        status, output = looked_at(source, kind, *run([*command, "bug"], environment))
        if status and words in output:
            return True, next(line.strip() for line in output.splitlines() if words in line)
    return False, f"NOT found: {words!r} is not in the output of the last run:\n{output}"


def fits(name, words):
    """Whether launches of the planted bug are too large for the cards, and those of the right kernel fit."""
    planted = DRIVERS / "planted" / "planted.cpp"
    usage = of_nvcc.usage(program(planted, "gpu"))
    wrong, right = (fitting.refused(fitting.launches(program(planted, "plain"), [name, which]), usage)
                    for which in ("bug", "right"))
    report = next((line for line in wrong if words in line), "NOT found")
    return words in report and not right, "\n".join(["a false alarm", *right]) if right else report


def on_gpu(source):
    path = program(source, "gpu")
    tool = shutil.which("compute-sanitizer")
    if not tool:
        status, output = run([path], {})
        return not status, output if status else "passed on the GPU; compute-sanitizer is not installed"
    for what in ("memcheck", "racecheck", "initcheck", "synccheck"):
        status, output = run([tool, "--tool", what, "--error-exitcode", "66", path], {})
        if status:
            return False, f"{what}: exit status {status}\n{output}"
    return True, "memcheck racecheck initcheck synccheck"


def cannot_find(kind):
    """What finding bugs of this kind needs and the machine lacks, or an empty string."""
    if kind == "compiled":
        return fitting.missing() or ("" if build.compiler("cuda") else "there is no nvcc")
    return "there is no clang-tidy" if kind == "lint" and not widening.tool() else ""


def jobs(kinds, only):
    """[(name, build, function that does it)] in the order of printing."""
    wanted = [path for path in drivers() if not only or path.stem in only]
    wanted = [(path, kind) for kind in kinds for path in wanted if suits(path, kind)]
    if kinds == ("gpu",):
        return [(path.stem, kind, lambda path=path: on_gpu(path)) for path, kind in wanted]
    listed = [(path.stem, kind, lambda path=path, kind=kind: drive(path, kind)) for path, kind in wanted]
    if not only or "planted" in only:
        planted = [bug for bug in bugs() if bug[1] in kinds or not cannot_find(bug[1]) and bug[1] not in BUILDS]
        listed += [(bug[0], bug[1], lambda bug=bug: find(*bug)) for bug in planted]
    return listed


def done(job):
    """A job's (name, build), whether it passed, what to print, and the seconds that it took."""
    name, kind, function = job
    before = time.time()
    try:
        passed, output = function()
    except (RuntimeError, subprocess.TimeoutExpired) as error:  # the compiler's, or a program that did not end
        passed, output = False, str(error)
    return name, kind, passed, output, time.time() - before


def main():
    parser = argparse.ArgumentParser(description="Every kernel under the sanitizers, and bugs that they must find.")
    parser.add_argument("--thorough", action="store_true", help="counted too, native kernels under ThreadSanitizer")
    parser.add_argument("--gpu", action="store_true", help="on a GPU, under compute-sanitizer")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="drivers, or `planted`")
    options = parser.parse_args()
    known = [*(path.stem for path in drivers()), "planted"]
    if unknown := set(options.only or ()) - set(known):
        parser.error(f"no driver {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    started = time.time()
    listed = jobs(("gpu",) if options.gpu else THOROUGH if options.thorough else QUICK, options.only)
    failed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, kind, passed, output, seconds in pool.map(done, listed):
            failed += not passed
            print(f"{'ok  ' if passed else 'FAIL'} {kind:8s} {name:34s} {seconds:6.1f} s  {output}", flush=True)
    print(f"{len(listed) - failed} of {len(listed)} passed in {time.time() - started:.0f} s")
    sys.exit(1 if failed or not listed else 0)


if __name__ == "__main__":
    main()
