"""Run the benches, print the table, and store it as bench/results/<machine>.csv.

    python bench/run.py                      every room
    python bench/run.py affine_coupling      one
    python bench/run.py --write              write docs/measured.md from the stored results

A bench file has rows(): it checks each candidate against float64 before it times it, and yields a row (measure.row) for
each candidate.
"""

import argparse
import csv
import importlib
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
RESULTS = HERE / "results"
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


def table(rows):
    """The lines of one machine's table: our rows, and how many times as fast they are as each peer of the same case.

    Where PyTorch alone computes, no kernel runs: such a row has no ratio, only the peers' times.
    """
    from measure import NO_KERNEL

    yield "| room | case | what | who | ms | % of bound | times as fast as | error | commit |"
    yield "|---|---|---|---|---|---|---|---|---|"
    same_case = lambda row: [row[key] for key in ("room", "case", "what", "dtype")]
    for row in rows:
        if not row["who"].startswith("genmini"):
            continue
        who = row["who"].removeprefix("genmini ")
        peers = [peer for peer in rows if same_case(peer) == same_case(row) and not peer["who"].startswith("genmini")]
        ratios = ", ".join(f"{peer['who']} {float(peer['ms']) / float(row['ms']):.2f}" for peer in peers)
        if who.startswith(NO_KERNEL):
            ratios = "no kernel; " + ", ".join(f"{peer['who']} {peer['ms']} ms" for peer in peers)
        columns = row["room"], row["case"], row["what"], who, row["ms"], row["percent_of_bound"], ratios, row["error"]
        yield "| " + " | ".join([*columns, row["commit"]]) + " |"


def limits(rows):
    """What the machine itself could do, a line for each run that the rows come from."""
    of_run = {row["commit"]: (row["copy_GB_s"], row["matmul_GFLOP_s"]) for row in rows}
    return [f"* {commit}: copy {copy} GB/s, product {product} GFLOP/s" for commit, (copy, product) in of_run.items()]


def document():
    """docs/measured.md between its markers, from every stored CSV: a table a machine."""
    blocks = []
    for path in sorted(RESULTS.glob("*.csv")):
        rows = list(csv.DictReader(path.open()))
        if "room" not in rows[0]:
            continue  # the results of trained models
        versions = dict.fromkeys(f"PyTorch {row['torch']}, Triton {row['triton']}, Python {row['python']}"
                                 for row in rows)
        blocks += [f"## {rows[0]['device']}\n", f"{'; '.join(versions)}. Limits by commit:\n", *limits(rows), "",
                   *table(rows), ""]
    block = "<!-- bench -->\n" + "\n".join(blocks).strip() + "\n<!-- /bench -->"
    MEASURED.write_text(re.sub(r"<!-- bench -->.*<!-- /bench -->", lambda _: block, MEASURED.read_text(), flags=re.S))


def main():
    parser = argparse.ArgumentParser(description="Time every room beside its peers and beside the machine's limits.")
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"which (default: all): {', '.join(rooms())}")
    parser.add_argument("--write", action="store_true", help="only write docs/measured.md from the stored results")
    options = parser.parse_args()
    unknown = set(options.rooms) - set(rooms())
    if unknown:
        parser.error(f"no bench for {', '.join(sorted(unknown))}; there are {', '.join(rooms())}")
    if not options.write:
        for rows in run(options.rooms or rooms()):
            store(rows)
    document()


if __name__ == "__main__":
    main()
