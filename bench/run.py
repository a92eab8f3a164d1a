"""Run the benches, print the table, and store it as bench/results/<machine>.csv.

    python bench/run.py                      every room
    python bench/run.py affine_coupling      one
    python bench/run.py --readme             write README's table from the stored results

A bench file has rows(): it checks each candidate against float64 before it times it, and yields a row (measure.row) a candidate.
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
README = HERE.parent / "README.md"
SHOWN = ["room", "case", "what", "who", "dtype", "ms", "percent_of_bound", "ratio", "error"]


def rooms():
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def run(names):
    import measure

    print("  ".join(f"{key}: {value}" for key, value in measure.machine().items() if value))
    rows = []
    for name in names:
        for row in importlib.import_module(f"bench_{name}").rows():
            rows.append({**row, **measure.machine()})
            print("  ".join(f"{row[key]:<{width}}" for key, width in zip(SHOWN, (16, 26, 9, 26, 9, 9, 6, 6, 8), strict=True)), flush=True)
    return rows


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
    print(f"\nstored in {path.relative_to(HERE.parent)}")


def speed(room, rows):
    """How many times as fast our best is as the peer that the bench compares it with, from the worst case to the best."""
    key = lambda row: [row[name] for name in ("room", "case", "what", "dtype")]
    found = {}  # (what is timed, peer) -> case -> times as fast
    for row in rows:
        peers = [peer["who"] for peer in rows if key(peer) == key(row) and peer["ratio"] == "1.00" and not peer["who"].startswith("genmini")]
        if row["room"] == room and row["who"].startswith("genmini") and peers:
            best = found.setdefault((row["what"], peers[0]), {})
            best[row["case"], row["dtype"]] = max(float(row["ratio"]), best.get((row["case"], row["dtype"]), 0))
    spread = lambda best: "–".join(dict.fromkeys(f"{end:.1f}" for end in (min(best.values()), max(best.values()))))
    return ", ".join(f"{what} {spread(best)} × {peer}" for (what, peer), best in found.items())


def with_speeds(line, tables):
    """A row of README's map with, behind each bench that its last cell names, what it measured on each machine."""
    benches = re.findall(r"\[[^]]*\]\(bench/bench_(\w+)\.py\)", line)
    if not line.startswith("| ") or not benches:
        return line
    said = [[speed(room, rows) + (" (GPU)" if rows[0]["driver"] else "") for rows in tables if speed(room, rows)] for room in benches]
    links = [" ".join([f"[bench](bench/bench_{room}.py)", *each]) for room, each in zip(benches, said, strict=True)]
    return f"{line[: line.rindex(' | ')]} | {'; '.join(links)} |"


def table(rows):
    """Our rows, and how many times as fast they are as each peer of the same case."""
    yield "| room | case | what | who | ms | % of bound | times as fast as | error |"
    yield "|---|---|---|---|---|---|---|---|"
    same_case = lambda row: [row[key] for key in ("room", "case", "what", "dtype")]
    for row in rows:
        if not row["who"].startswith("genmini"):
            continue
        peers = [peer for peer in rows if same_case(peer) == same_case(row) and not peer["who"].startswith("genmini")]
        ratios = ", ".join(f"{peer['who']} {float(peer['ms']) / float(row['ms']):.2f}" for peer in peers)
        shown = [row["room"], row["case"], row["what"], row["who"].removeprefix("genmini "), row["ms"], row["percent_of_bound"], ratios, row["error"]]
        yield "| " + " | ".join(shown) + " |"


def readme():
    """Write the tables between README's markers from every stored CSV: our rows, and how many times as fast they are as each peer."""
    lines, tables = [], []
    for path in sorted(RESULTS.glob("*.csv")):
        rows = list(csv.DictReader(path.open()))
        if "room" not in rows[0]:
            continue  # the table of likelihoods
        tables.append(rows)
        of = lambda row: tuple(row[key] for key in ("device", "threads", "torch", "commit", "copy_GB_s", "matmul_GFLOP_s"))
        for one_run in dict.fromkeys(map(of, rows)):
            device, threads, torch, commit, copy, matmul = one_run
            lines += [f"**{device}**, {threads} threads, PyTorch {torch}, commit {commit}; measured in the same run: copy {copy} GB/s, "
                      f"matrix product {matmul} GFLOP/s.", "", *table([row for row in rows if of(row) == one_run]), ""]  # fmt: skip
    text = "\n".join(with_speeds(line, tables) for line in README.read_text().split("\n"))
    block = "<!-- bench -->\n" + "\n".join(lines).strip() + "\n<!-- /bench -->"
    README.write_text(re.sub(r"<!-- bench -->.*<!-- /bench -->", lambda _: block, text, flags=re.S))


def main():
    parser = argparse.ArgumentParser(description="Time every room beside its peers and beside the machine's limits.")
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"which (default: all): {', '.join(rooms())}")
    parser.add_argument("--readme", action="store_true", help="only write README's table from the stored results")
    options = parser.parse_args()
    unknown = set(options.rooms) - set(rooms())
    if unknown:
        parser.error(f"no bench for {', '.join(sorted(unknown))}; there are {', '.join(rooms())}")
    if not options.readme:
        store(run(options.rooms or rooms()))
    readme()


if __name__ == "__main__":
    main()
