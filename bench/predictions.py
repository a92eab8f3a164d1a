"""On a GPU: the time of each CUDA kernel beside its prediction, and what Nsight Compute counts beside the emulator.

    python bench/predictions.py [ROOM ...]      as `make gpu` does; needs nvcc, and g++ for the emulator

A prediction is the least time that a kernel can take (genmini/predict.py): a measured time below it says that a
constant of the card or the model is wrong. Both run the same calls, forward and backward, of each rung: sizes are those
of bench/ceilings.py, or of `genmini count`. Counters are compared if `ncu` is on PATH and may read them. Writes
bench/results/predictions-<card>.csv.
"""

import argparse
import csv
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import torch  # noqa: E402
from ceilings import SIZES  # noqa: E402
from measure import commit, machine  # noqa: E402

from genmini import counting, kernels, predict  # noqa: E402
from genmini.cards import CARDS  # noqa: E402

CALLS = 20  # that are timed
ONCE = """
import torch
from genmini import counting, kernels
with torch.device("cuda"):
    call = counting.made({room!r}, **{sizes!r})
with kernels.use("cuda", {rung!r}):
    call()
torch.cuda.synchronize()
"""


def card_of(device):
    """The card of this name as CUDA tells it: "NVIDIA H100 80GB HBM3" """
    bare = device.lower().replace(" ", "")
    found = [card for name, card in CARDS.items() if name in bare]
    if not found:
        raise SystemExit(f"nothing is predicted for {device}: genmini/cards.py has {', '.join(CARDS)}")
    return found[0]


def base(kernel):
    """couple_chunks of "void couple_chunks<float, 4>(float const*, ...)\""""
    return re.match(r"(?:void )?(?:.*::)?(\w+)", re.split(r"[<(](?!anon)", kernel)[0]).group(1)


def predicted(room, rung, sizes, card):
    """{kernel: ({counter: number}, seconds at least)} of one call, summed over the launches of a kernel"""
    counted, found = counting.count(room, rung, **sizes), {}
    for launch, row in zip(counted.launches, predict.of(counted, [card]).rows, strict=True):
        counters, seconds = found.get(base(launch.kernel), ({}, 0.0))
        total = {name: counters.get(name, 0) + number for name, number in launch.counters.items()}
        found[base(launch.kernel)] = total, seconds + row.at_least
    return found


def measured(room, rung, sizes):
    """{kernel: seconds of one call}, by the card's own clock"""
    with torch.device("cuda"):
        call = counting.made(room, **sizes)
    with kernels.use("cuda", rung):
        call()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            for _ in range(CALLS):
                call()
            torch.cuda.synchronize()
    found = {}
    for event in profiler.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            found[base(event.name)] = found.get(base(event.name), 0) + 1e-6 * event.device_time / CALLS
    return found


def by_ncu(room, rung, sizes, names):
    """{kernel: {counter: number}} of one call, or {} where there is no ncu, or it may not read counters"""
    if not shutil.which("ncu"):
        return {}
    command = ["ncu", "--csv", "--page", "raw", "--print-units", "base", "--metrics", ",".join(names),
               sys.executable, "-c", ONCE.format(room=room, rung=rung, sizes=sizes)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)
    if done.returncode:
        print(f"  ncu     {(done.stdout + done.stderr).strip().splitlines()[-1]}")
        return {}
    return sums(done.stdout, names)


def sums(text, names):
    """The counters of each kernel in what ncu --csv --page raw prints: a row a launch, below one of units"""
    lines, found = text.splitlines(), {}
    start = next(i for i, line in enumerate(lines) if line.startswith('"ID"'))
    for row in csv.DictReader(lines[start:]):
        if row["ID"]:
            of_kernel = found.setdefault(base(row["Kernel Name"]), dict.fromkeys(names, 0.0))
            for name in names:
                of_kernel[name] += float(row[name].replace(",", ""))
    return found


def compared(room, rung, sizes, card):
    """A row for each kernel and each number that both know"""
    ours = predicted(room, rung, sizes, card)
    took = measured(room, rung, sizes)
    counts = by_ncu(room, rung, sizes, list(next(iter(ours.values()))[0]))
    for kernel, (counters, seconds) in ours.items():
        what = {"seconds, at least": (seconds, took.get(kernel))}
        what |= {name: (number, counts[kernel][name]) for name, number in counters.items() if kernel in counts}
        for name, (here, there) in what.items():
            if there is not None:
                yield dict(room=room, rung=rung, sizes=" ".join(f"{k}={v}" for k, v in sizes.items()), kernel=kernel,
                           what=name, predicted=f"{here:.4g}", measured=f"{there:.4g}",
                           ratio=f"{there / here:.3g}" if here else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help="which (default: all that are in CUDA)")
    names = parser.parse_args().rooms
    if not torch.cuda.is_available():
        raise SystemExit("predictions are compared on an NVIDIA GPU, and there is none here")
    card, sizes, found = card_of(torch.cuda.get_device_name()), dict(SIZES), []
    for room in names or [room for room in counting.rooms() if kernels.ROOMS[room].language == "cuda"]:
        of_room = counting.sizes_of(room, sizes.get(room, {}))
        for rung in kernels.rungs(room):
            for row in compared(room, rung, of_room, card):
                found.append({**row, **machine(), "commit": commit()})
                print("  ".join(f"{row[key]:<{width}}" for key, width in
                                dict(room=16, rung=12, kernel=24, what=28, predicted=10, measured=10, ratio=6).items()),
                      flush=True)
    path = HERE / "results" / f"predictions-{card.name.lower().replace(' ', '-')}.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    print(f"stored in {path.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
