"""Run the benches, print the table, and store it as bench/results/<machine>.csv.

    python bench/run.py                      every room
    python bench/run.py affine_coupling      one
    python bench/run.py --check nade         exit 1 where a row is twice behind its best rival; stores nothing
    python bench/run.py --write              write docs/measured.md from the stored results

A bench file has rows(): it checks each candidate against float64 before it times it, and yields a row (measure.row) for
each candidate. bench/results/reasons.csv says why a row is behind its rivals: a line for a room, a case and a what; an
empty case or what stands for all. With a goal it says why the row is not so many times as fast.
"""

import argparse
import csv
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
MEASURED = HERE.parent / "docs" / "measured.md"
SHOWN = ["room", "case", "what", "who", "dtype", "ms", "percent_of_bound", "ratio", "error"]


def rooms():
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def run(names):
    """Yields the rows of one room after the other."""
    import measure

    benches = [importlib.import_module(f"bench_{name}") for name in names]
    print("  ".join(f"{key}: {value}" for key, value in measure.machine().items() if value))
    for bench in benches:
        rows = []
        for row in bench.rows():
            rows.append({**row, **measure.machine()})
            print("  ".join(f"{row[key]:<{width}}"
                            for key, width in zip(SHOWN, (16, 26, 9, 26, 9, 9, 6, 6, 8), strict=True)),
                  flush=True)
        yield rows


def store(rows):
    """Replace the rows of these rooms in the file of this machine, keep the others."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / (re.sub(r"[^a-z0-9]+", "-", rows[0]["device"].lower()).strip("-") + ".csv")
    fresh = {row["room"] for row in rows}
    old = list(csv.DictReader(path.open())) if path.exists() else []
    rows = sorted([row for row in old if row["room"] not in fresh] + rows, key=lambda row: row["room"])
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"stored in {path.relative_to(HERE.parent)}\n")


def is_ours(row):
    return row["who"].startswith("genmini")


def rivals(row, rows):
    """The rows of the others in the same case."""
    case = lambda row: [row[key] for key in ("room", "case", "what", "dtype")]
    return [other for other in rows if not is_ours(other) and case(other) == case(row)]


def ratio(row, others):
    """How many times as fast as the fastest of the others; None without others."""
    return min((float(other["ms"]) for other in others), default=0) / float(row["ms"]) or None


def behind(rows):
    """{a row of ours in words: its ratio} of those under ENOUGH; on a GPU of the best rung alone."""
    from measure import GPU

    compared = {(*(row[key] for key in ("room", "case", "what", "dtype")), GPU or row["who"]): row
              for row in rows if is_ours(row)}  # the best rung comes last
    ratios = {" | ".join([*key[:4], row["who"]]): ratio(row, rivals(row, rows)) for key, row in compared.items()}
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

    A row that is slower is bold. A reason for it, or for a goal that is missed, stands below the table. Where PyTorch
    computes the definition, no kernel runs: such a row has no ratio, only the peers' times, and stands last.
    """
    from measure import NO_KERNEL

    yield ("| room | case | what | who | ms | 20 to 80 % | % of bound | best rival | times as fast | MB, rival's MB | "
           "error | commit |")
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|"
    shown, notes = [], {}
    for row in filter(is_ours, rows):
        others = rivals(row, rows)
        best = min(others, key=lambda other: float(other["ms"]), default=None)
        if row["who"].removeprefix("genmini ").startswith(NO_KERNEL):
            rival = "no kernel; " + ", ".join(f"{other['who']} {other['ms']} ms" for other in others)
            shown.append((float("inf"), row, best, rival))
        else:
            rival = f"{best['who']} {best['ms']} ms" if best else ""
            shown.append((ratio(row, others) or float("inf"), row, best, rival))
    for times, row, best, rival in sorted(shown, key=lambda each: each[0]):
        marks = [f"{times:.2f}"] if times < float("inf") else []
        why = [each["reason"] for each in reasons if each["room"] == row["room"]
               and all(each[key] in ("", row[key]) for key in ("case", "what"))
               and not float(each.get("goal") or 1) <= times < float("inf")]
        if why:
            marks.append(f"({notes.setdefault(why[0], len(notes) + 1)})")
        cells = [row["room"], row["case"], row["what"], row["who"].removeprefix("genmini "), row["ms"],
                 f"{row['ms_20']} to {row['ms_80']}", row["percent_of_bound"], rival, " ".join(marks),
                 ", ".join(filter(None, map(megabytes, (row, best)))), row["error"], row["commit"]]
        bold = "**" if times < 1 else ""
        yield "| " + " | ".join(cell and bold + cell + bold for cell in cells) + " |"
    for reason, number in notes.items():
        yield from ["", *textwrap.wrap(f"({number}) {reason}", 118)]


def megabytes(row):
    """What a call held, where that was looked at and PyTorch allocated it."""
    return f"{float(row['held']) / 1e6:.3g}" if row and float(row.get("held") or 0) else ""


def limits(rows):
    """What the machine itself could do, a line for each run that the rows come from."""
    of_run = {row["commit"]: (row["copy_GB_s"], row["matmul_GFLOP_s"]) for row in rows}
    return [f"* {commit}: copy {copy} GB/s, product {product} GFLOP/s" for commit, (copy, product) in of_run.items()]


def document():
    """docs/measured.md between its markers, from every stored CSV: a table a machine."""
    blocks, reasons = [], list(csv.DictReader(REASONS.open())) if REASONS.exists() else []
    for path in sorted(RESULTS.glob("*.csv")):
        rows = list(csv.DictReader(path.open()))
        if path == REASONS or "room" not in rows[0]:
            continue  # or the results of trained models
        versions = dict.fromkeys(f"PyTorch {row['torch']}, Triton {row['triton']}, Python {row['python']}"
                                 for row in rows)
        blocks += [f"## {rows[0]['device']}\n", f"{'; '.join(versions)}. Limits by commit:\n", *limits(rows), "",
                   *table(rows, reasons), ""]
    block = "<!-- bench -->\n" + "\n".join(blocks).strip() + "\n<!-- /bench -->"
    MEASURED.write_text(re.sub(r"<!-- bench -->.*<!-- /bench -->", lambda _: block, MEASURED.read_text(), flags=re.S))


def main():
    parser = argparse.ArgumentParser(description="Time every room beside its peers and beside the machine's limits.")
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"which (default: all): {', '.join(rooms())}")
    parser.add_argument("--check", action="store_true",
                        help=f"store nothing; exit 1 where a row has twice under {ENOUGH} of its best rival's speed")
    parser.add_argument("--write", action="store_true", help="only write docs/measured.md from the stored results")
    options = parser.parse_args()
    unknown = set(options.rooms) - set(rooms())
    if unknown:
        parser.error(f"no bench for {', '.join(sorted(unknown))}; there are {', '.join(rooms())}")
    if options.check:
        found = list(check(options.rooms or rooms()))
        print("\n".join(["", *found, f"{len(found)} rows are behind their best rival"]))
        sys.exit(1 if found else 0)
    if not options.write:
        for rows in run(options.rooms or rooms()):
            store(rows)
    document()


if __name__ == "__main__":
    main()
