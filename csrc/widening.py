"""Find products of unsigned numbers that wrap around before they become 64 bits wide. Python's standard library alone.

    python csrc/widening.py      of all kernels (csrc/*.cu), as `make lint` does; exit status 1 if there are any

Signed numbers that overflow are found when a driver runs, by UndefinedBehaviorSanitizer (csrc/sanitize.py). Unsigned
ones wrap around by the rules of C++, and g++ has no check for them: clang-tidy reads the source instead. It reports
each product in 32 bits whose result is converted to 64, also one that is never large. A conversion of a factor mends
it.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import build

CHECK = "bugprone-implicit-widening-of-multiplication-result"
UNSIGNED = re.compile(r"type '[^']*unsigned int'|type '[^']*' \(aka 'unsigned int'\)")


def tool():
    """The path of clang-tidy, or None: beside this Python, where pip installs it, or on PATH."""
    beside = Path(sys.executable).parent / "clang-tidy"
    return str(beside) if beside.exists() else shutil.which("clang-tidy")


def findings(source):
    """The lines of clang-tidy's report that concern unsigned numbers: file:line:column: ..."""
    words = [tool(), "--quiet", f"--checks=-*,{CHECK}", "--header-filter=.*", str(source)]
    words += ["--", "-x", "c++", "-std=c++17", *build.headers(source)]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode or "[clang-diagnostic-error]" in done.stdout:
        raise RuntimeError(f"clang-tidy cannot read {source}:\n{done.stdout}")
    return [line for line in done.stdout.splitlines() if CHECK in line and UNSIGNED.search(line)]


def find(planted, name, words):
    """Whether the planted bug of this name is found, and found once, and what to print (csrc/sanitize.py)."""
    found = [line for line in findings(planted) if f"/{name}.cu:" in line]
    return len(found) == 1 and words in found[0], "\n".join(found) or "NOT found"


def main():
    if tool() is None:
        sys.exit("clang-tidy was not found: pip install -c constraints.txt clang-tidy")
    found = list(dict.fromkeys(line for source in build.sources("emulated") for line in findings(source)))
    print("\n".join(found) or "no product of unsigned numbers is widened too late")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
