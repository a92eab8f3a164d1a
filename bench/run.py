"""Run the benches, print the table, and store it as bench/results/<machine>.csv.

    python bench/run.py                      every room, on a CPU with all threads and again with one
    python bench/run.py affine_coupling      one
    python bench/run.py --threads 1 nade     with one thread alone; the rows of other numbers of threads stay
    python bench/run.py --check nade         exit 1 where a row is twice behind its best rival; stores nothing
    python bench/run.py --write              write docs/measured.md from the stored results

A bench file has rows(): it checks each candidate against float64 before it times it, and yields a row (measure.row) for
each candidate; THREADS in it says with how many alone. bench/results/reasons.csv says why a row is behind its rivals: a
line for a room, a case and a what; an empty case or what stands for all. With a goal it says why the row is not so many
times as fast.
"""

import argparse
import csv
import functools
import importlib
import re
import sys
import textwrap
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
RESULTS = HERE / "results"
REASONS = RESULTS / "reasons.csv"
ENOUGH = 0.95  # of the speed of the best rival, below which --check fails
MODELS = {"steps", "sampling"}  # benches of whole models, some of which take minutes: with all threads alone
MEASURED = HERE.parent / "docs" / "measured.md"
PRICES = {"without gradient": 15, "forward": 40, "both": 100}  # microseconds above eager PyTorch, at most
SHOWN = ["room", "case", "what", "threads", "who", "dtype", "ms", "percent_of_bound", "ratio", "error"]


def rooms():
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def run(names, threads=None):
    """Yields the rows of one room after the other, with these numbers of threads; by default with all and with one."""
    import measure
    import torch

    before = torch.get_num_threads()
    both = [before] if measure.GPU else sorted({before, 1}, reverse=True)
    benches = [importlib.import_module(f"bench_{name}") for name in names]
    print("  ".join(f"{key}: {value}" for key, value in measure.machine().items() if value))
    try:
        for name, bench in zip(names, benches, strict=True):
            rows = []
            for count in vars(bench).get("THREADS", threads or ([before] if name in MODELS else both)):
                torch.set_num_threads(count)
                for row in bench.rows():
                    rows.append({**row, **measure.machine()})
                    print("  ".join(f"{rows[-1][key]:<{width}}"
                                    for key, width in zip(SHOWN, (16, 26, 9, 1, 26, 9, 9, 6, 6, 8), strict=True)),
                          flush=True)
            yield rows
    finally:
        torch.set_num_threads(before)


def store(rows):
    """Replace the rows of this room with these numbers of threads in the file of this machine, keep the others. A room
    may have none here: front_door on a GPU."""
    if not rows:
        return
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / (re.sub(r"[^a-z0-9]+", "-", rows[0]["device"].lower()).strip("-") + ".csv")
    of = lambda row: (row["room"], str(row["threads"]))
    fresh = {*map(of, rows)}
    old = list(csv.DictReader(path.open())) if path.exists() else []
    rows = sorted([row for row in old if of(row) not in fresh] + rows, key=lambda row: row["room"])
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, dict.fromkeys(key for row in rows for key in row))
        writer.writeheader()
        writer.writerows(rows)
    print(f"stored in {path.relative_to(HERE.parent)}\n")


def is_ours(row):
    return row["who"].startswith("genmini")


def rivals(row, rows):
    """The rows of the others in the same case, with as many threads."""
    case = lambda row: [row[key] for key in ("room", "case", "what", "dtype", "threads")]
    return [other for other in rows if not is_ours(other) and case(other) == case(row)]


def ratio(row, others):
    """How many times as fast as the fastest of the others; None without others."""
    return min((float(other["ms"]) for other in others), default=0) / float(row["ms"]) or None


def behind(rows):
    """{a row of ours in words: its ratio} of those under ENOUGH; on a GPU of the best rung alone."""
    from measure import GPU

    compared = {(*(row[key] for key in ("room", "case", "what", "dtype", "threads")), GPU or row["who"]): row
                for row in rows if is_ours(row) and row["room"] != "front_door"}  # the best rung comes last
    ratios = {" | ".join([*key[:4], f"threads={key[4]}", row["who"]]): ratio(row, rivals(row, rows))
              for key, row in compared.items()}
    return {row: times for row, times in ratios.items() if times and times < ENOUGH}


def check(names, measured=run):
    """Yields a line for each row that is behind in two runs, one after the other. A room where none is runs once."""
    for name in names:
        first = behind(next(measured([name])))
        again = behind(next(measured([name]))) if first else {}
        for row in (row for row in first if row in again):
            yield f"{row}: {first[row]:.2f} and {again[row]:.2f} times as fast as its best rival"


def table(rows, reasons=()):
    """The lines of one machine's table: each row of ours beside its fastest rival, the slowest in proportion first.

    Rows of one thread stand beside those of all, if there are both. A row that is slower is bold. A reason for it, or
    for a goal that is missed, stands below the table. Where PyTorch computes the definition, no kernel runs: such a row
    has no ratio, only the peers' times, and stands last.
    """
    from measure import NO_KERNEL

    yield ("| room | case | what | who | ms | 20 to 80 % | % of bound | best rival | times as fast | one thread | "
           "MB, rival's MB | error | commit |")
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    alike = lambda row: (*(row[key] for key in ("room", "what", "dtype", "who")), row["case"].partition(", holds")[0])
    most, alone = {}, {alike(row): row for row in rows if is_ours(row) and str(row["threads"]) == "1"}
    for row in filter(is_ours, rows):
        if alike(row) not in most or int(row["threads"]) > 1:
            most[alike(row)] = row
    shown, notes = [], {}
    for key, row in most.items():
        others, single = rivals(row, rows), alone.get(key, row)
        best = min(others, key=lambda other: float(other["ms"]), default=None)
        kernel = not row["who"].removeprefix("genmini ").startswith(NO_KERNEL)
        rival = f"{best['who']} {best['ms']} ms" if best and kernel else "no kernel; " * (not kernel) + ", ".join(
            f"{other['who']} {other['ms']} ms" for other in others)
        both = [kernel and ratio(each, rivals(each, rows)) or float("inf") for each in (row, single)]
        shown.append((min(both), *both, row, None if single is row else single, best, rival))
    for worst, times, times_alone, row, single, best, rival in sorted(shown, key=lambda each: each[0]):
        why = reason_of(row, worst, reasons)
        number = why and f"({notes.setdefault(why, len(notes) + 1)})"
        speed = f"{times:.2f}" * (times < float("inf"))
        cells = [row["room"], row["case"], row["what"], row["who"].removeprefix("genmini "), row["ms"],
                 f"{row['ms_20']} to {row['ms_80']}", row["percent_of_bound"], rival,
                 " ".join(filter(None, (speed, number))),
                 single and ", ".join([f"{single['ms']} ms"] + [f"{times_alone:.2f}"] * (times_alone < float("inf"))),
                 ", ".join(filter(None, map(megabytes, (row, best)))), row["error"], row["commit"]]
        bold = "**" if worst < 1 else ""
        yield "| " + " | ".join(bold + cell + bold if cell else "" for cell in cells) + " |"
    yield from footnotes(notes)


def reason_of(row, times, reasons):
    """Why it is so many times as fast as its best rival and no more; None if that is enough."""
    return next((each["reason"] for each in reasons if each["room"] == row["room"]
                 and all(each[key] in ("", row[key]) for key in ("case", "what"))
                 and not float(each.get("goal") or 1) <= times < float("inf")), None)


def footnotes(notes):
    for reason, number in notes.items():
        yield from ["", *textwrap.wrap(f"({number}) {reason}", 118)]


def prices(rows, reasons=()):
    """The lines of the table of tiny calls: by how many microseconds each takes longer than eager PyTorch, the one that
    is next to its goal, or furthest beyond it, first."""
    yield "| call | what | us | eager PyTorch, us | above it | at most |"
    yield "|---|---|---|---|---|---|"
    notes, above = {}, lambda row: 1e3 * (float(row["ms"]) - float(rivals(row, rows)[0]["ms"]))
    for row in sorted(filter(is_ours, rows), key=lambda row: PRICES[row["what"]] - above(row)):
        price, most = above(row), PRICES[row["what"]]
        why = reason_of(row, most / max(price, 1e-9), reasons)
        number = f" ({notes.setdefault(why, len(notes) + 1)})" if why else ""
        cells = [row["case"], row["what"], f"{1e3 * float(row['ms']):.1f}", f"{1e3 * float(row['ms']) - price:.1f}",
                 f"{price:.1f}{number}", str(most)]
        bold = "**" if price > most else ""
        yield "| " + " | ".join(bold + cell + bold for cell in cells) + " |"
    yield from footnotes(notes)


def megabytes(row):
    """What a call held, where that was looked at and PyTorch allocated it."""
    return f"{float(row['held']) / 1e6:.3g}" if row and float(row.get("held") or 0) else ""


def limits(rows):
    """What the machine itself could do, a line for each run that the rows come from."""
    of_run = {(row["commit"], row["threads"]): (row["copy_GB_s"], row["matmul_GFLOP_s"]) for row in rows}
    return [f"* {commit}, threads {threads}: copy {copy} GB/s, product {product} GFLOP/s"
            for (commit, threads), (copy, product) in of_run.items()]


def document():
    """docs/measured.md between its markers, from every stored CSV: a table a machine."""
    blocks, reasons = [], list(csv.DictReader(REASONS.open())) if REASONS.exists() else []
    for path in sorted(RESULTS.glob("*.csv")):
        rows = list(csv.DictReader(path.open()))
        if path == REASONS or not rows or "room" not in rows[0]:
            continue  # or the results of trained models
        versions = dict.fromkeys(f"PyTorch {row['torch']}, Triton {row['triton']}, Python {row['python']}"
                                 for row in rows)
        tiny = [row for row in rows if row["room"] == "front_door"]
        blocks += [f"## {rows[0]['device']}\n", f"{'; '.join(versions)}. Limits by commit:\n", *limits(rows), "",
                   *table([row for row in rows if row not in tiny], reasons), ""]
        if tiny:
            blocks += ["### What a call costs on tiny inputs\n", *prices(tiny, reasons), ""]
    block = "<!-- bench -->\n" + "\n".join(blocks).strip() + "\n<!-- /bench -->"
    MEASURED.write_text(re.sub(r"<!-- bench -->.*<!-- /bench -->", lambda _: block, MEASURED.read_text(), flags=re.S))


def _threads(word):
    """A number of threads; the name of a room, which may follow them, as it is."""
    from genmini.cli._options import positive

    return word if word in rooms() else positive(word)


def main():
    parser = argparse.ArgumentParser(description="Time every room beside its peers and beside the machine's limits.")
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"which (default: all): {', '.join(rooms())}")
    parser.add_argument("--check", action="store_true",
                        help=f"store nothing; exit 1 where a row has twice under {ENOUGH} of its best rival's speed")
    parser.add_argument("--threads", type=_threads, nargs="+", metavar="N",
                        help="with how many threads (default: on a CPU with all and then with one)")
    parser.add_argument("--write", action="store_true", help="only write docs/measured.md from the stored results")
    options = parser.parse_args()
    options.rooms += [word for word in options.threads or () if isinstance(word, str)]
    counts = [count for count in options.threads or () if isinstance(count, int)]
    if options.threads and not counts:
        parser.error("--threads takes numbers: --threads 1 2 ROOM")
    options.threads = counts or None
    unknown = set(options.rooms) - set(rooms())
    if unknown:
        parser.error(f"no bench for {', '.join(sorted(unknown))}; there are {', '.join(rooms())}")
    if options.check:
        found = list(check(options.rooms or rooms(), functools.partial(run, threads=options.threads)))
        print("\n".join(["", *found, f"{len(found)} rows are behind their best rival"]))
        sys.exit(1 if found else 0)
    if not options.write:
        for rows in run(options.rooms or rooms(), options.threads):
            store(rows)
    document()


if __name__ == "__main__":
    main()
