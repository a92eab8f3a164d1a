"""Run the native CPU kernels on an emulated 64-bit ARM processor, and require the bits that they give on this one.

    python csrc/arm.py               every driver of a native kernel
    python csrc/arm.py nade_cpu      one

csrc/drivers/<x>_cpu.cpp and csrc/<x>.cpp are compiled twice, for ARM by Debian's cross-compiler and for this processor,
both times as the portable code alone (ONLY_PORTABLE of csrc/cpu/each_set.h) and optimised as in the library. A driver
compares each result with a plain loop, and prints a checksum of the bits of all of them: the two must be equal.
"""

import argparse
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import build
import sanitize

FLAGS = [*sanitize.FLAGS, "-O3", "-DONLY_PORTABLE", "-DWORTH_A_THREAD=1", "-x", "c++"]
EMULATOR = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]


def missing():
    """What this machine lacks, or an empty string."""
    lacks = [words[0] for words in (build.ARM, EMULATOR, build.cxx()) if not shutil.which(words[0])]
    advice = "on Debian: apt install g++-aarch64-linux-gnu qemu-user"
    return f"running kernels as on ARM needs {' and '.join(lacks)} ({advice})" if lacks else ""


def drivers():
    return [path for path in sanitize.drivers() if sanitize.drives(path).suffix == ".cpp"]


def output(source, kind, before=()):
    """What the driver prints, compiled by this kind of compiler and run by the words `before`."""
    program = sanitize.compiled(source, FLAGS, f"{source.stem}.{kind}-portable", kind, [sanitize.drives(source)])
    status, printed = sanitize.run([*before, program], {})
    if status:
        raise RuntimeError(f"exit status {status}\n{printed}")
    return printed.strip()


def compare(source):
    """(whether both processors print the same, what to print)"""
    try:
        here, arm = output(source, "cpu"), output(source, "arm", EMULATOR)
    except RuntimeError as error:  # the compiler's, or the program's
        return False, f"{source.stem}: {error}"
    return here == arm, arm if here == arm else f"{source.stem}: other bits\n    here {here}\n    ARM  {arm}"


def main():
    parser = argparse.ArgumentParser(description="The native kernels on an emulated ARM processor: the same bits?")
    parser.add_argument("drivers", nargs="*", metavar="NAME", help="drivers, as nade_cpu (default: all)")
    options = parser.parse_args()
    if missing():
        sys.exit(missing())
    if unknown := set(options.drivers) - {path.stem for path in drivers()}:
        parser.error(f"no driver {', '.join(sorted(unknown))}; there are {', '.join(path.stem for path in drivers())}")
    wanted = [path for path in drivers() if not options.drivers or path.stem in options.drivers]
    failed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for passed, printed in pool.map(compare, wanted):
            failed += not passed
            print(f"{'same' if passed else 'FAIL'} {printed}", flush=True)
    print(f"{len(wanted) - failed} of {len(wanted)} give the same bits on ARM")
    sys.exit(1 if failed or not wanted else 0)


if __name__ == "__main__":
    main()
