"""Say whether the kernel of an exercise is right, and where it could touch less memory."""

import torch
from genmini.csrc import count

from genmini import counting, kernels


def tell(operator, **sizes):
    """Print the report on the kernel "mine", and hints by counters of a .cu on inputs of these sizes -> exit status"""
    try:
        report = kernels.checked(operator, device="cuda" if torch.cuda.is_available() else "cpu")
    except kernels.WrongKernel as error:  # it cannot run
        print(error)
        return 1
    print(report)
    if report.right and sizes and not count.missing():
        counted = counting.count_own(operator, "mine", **sizes)
        found = [hint for launch in counted.launches for hint in hints(launch)]
        print("\n".join(found) if found else "counted: no line touches more memory than it must")
    return 0 if report.right else 1


def hints(launch):
    yield from (f"hint: {hazard}" for hazard in launch.hazards)
    for row in launch.rows:
        where = f"{row.file}:{row.line}, a {row.space} {row.what}:"
        if row.sectors > row.sectors_ideal:
            yield (f"hint: {where} {row.sectors:.1f} sectors of 32 bytes, where {row.sectors_ideal:.1f} would do: let "
                   "neighbouring threads read or write neighbouring numbers")
        if row.wavefronts > row.wavefronts_ideal:
            yield (f"hint: {where} {row.wavefronts:.1f} passes through shared memory, where {row.wavefronts_ideal:.1f} "
                   "would do: let the threads of a warp take different banks, by rows one number longer")
