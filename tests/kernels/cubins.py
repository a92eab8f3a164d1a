"""Read what ptxas made of kernels: registers, stack, and how often there are the instructions that tests ask about."""

import re
import struct
import subprocess
import tempfile
from bisect import bisect
from collections import Counter
from itertools import accumulate


def machine_code(tools, capability, cubins):
    """-> what each of the cubins takes, and how often it has the instructions that the tests ask about

    nvdisasm starts in a fifth of a second: it reads the instructions of all cubins as one kernel's.
    """
    codes, found = [code(cubin) for cubin in cubins], []
    with tempfile.NamedTemporaryFile() as file:
        show = lambda *tool: subprocess.run([*tool, file.name], capture_output=True, text=True, check=True).stdout
        write = lambda content: (file.seek(0), file.truncate(), file.write(content), file.flush())
        write(b"".join(codes))
        listing = show(tools / "nvdisasm", "-b", {80: "SM80", 90: "SM90a"}[capability])
        for cubin in cubins:
            write(cubin)
            usage = show(tools / "cuobjdump", "-res-usage")
            found.append({"registers": int(re.search(r"REG:(\d+)", usage)[1]),
                          "stack": int(re.search(r"STACK:(\d+)", usage)[1])})
    words, ends = [Counter() for _ in cubins], list(accumulate(map(len, codes)))
    for at, word in re.findall(r"/\*([0-9a-f]+)\*/.*?\b(HMMA|HGMMA|DMMA|FFMA|LDGSTS|LDL|STL|CALL)\b", listing):
        words[bisect(ends, int(at, 16))][word] += 1
    return [usage | of_it for usage, of_it in zip(found, words, strict=True)]


def code(cubin):
    """The instructions of a cubin, which is an ELF file: its sections .text.<kernel>"""
    (table,), (size, count, names) = struct.unpack_from("<Q", cubin, 40), struct.unpack_from("<3H", cubin, 58)
    sections = [struct.unpack_from("<2I4Q", cubin, table + i * size) for i in range(count)]
    named = lambda at: cubin[sections[names][4] + at:].startswith(b".text.")
    return b"".join(cubin[start : start + length] for name, _, _, _, start, length in sections if named(name))
