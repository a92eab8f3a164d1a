"""Run the call of a user's kernels in this process, which may crash, hang or print. Standard library alone; no torch.

    python csrc/run_call.py LIBRARY REPORT FUNCTIONS       writes what happened into REPORT (csrc/own/arrays.h);
                                                           FUNCTIONS is a file: what the library has

    used by: genmini/own_cu.py
"""

import ctypes
import resource
import sys

MOST = 64 << 20  # bytes of a file that the call may write: what it prints goes into one

if __name__ == "__main__":
    library, report, functions = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST, MOST))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open(functions, "rb") as file:
        ctypes.CDLL(library).own_call(report.encode("utf-8", "surrogateescape"), file.read())
