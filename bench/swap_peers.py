"""Measure what genmini.swap gains in real models of five other libraries, store it as bench/results/peers.csv, and
write the table of docs/swap.md.

    make table-peers                         installs the libraries, and measures all
    python bench/swap_peers.py zuko          only models whose name has this word
    python bench/swap_peers.py --write       only write docs/swap.md from the stored rows

One thread. A model is swapped for its own inputs, so what is no faster here is left. Its step (the loss, the gradient,
Adam) with what was swapped and without, and forward and backward passes of the modules that were swapped, are timed in
turn; the median of the ratios counts. If only the swapped modules become faster, a step is at most
1 / (1 - sum_i (p_i - p_i / s_i)) times as fast, as Amdahl says: module i took the share p_i of a step and is s_i times
as fast.
"""

import argparse
import copy
import csv
import functools
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
ROWS, PAGE = HERE / "results" / "peers.csv", HERE.parent / "docs" / "swap.md"
DRAWS = 100
SECONDS = 6  # of the rounds of a model


def step(theirs, loss, x):
    """A function that takes a step of Adam"""
    import torch

    optimiser = torch.optim.Adam(theirs.parameters(), 1e-3)

    def one():
        optimiser.zero_grad()
        loss(theirs, x).backward()
        optimiser.step()

    return one


def in_turn(calls):
    """{name: seconds of each round} of {name: call}; each second round goes backwards: on a busy machine the last of a
    round is interrupted more often"""
    took, names, since = {name: [] for name in calls}, list(calls), time.perf_counter()
    for call in calls.values():
        call()
    while (rounds := len(took[names[0]])) < 4 or time.perf_counter() - since < SECONDS and rounds < 200:
        for name in names if rounds % 2 else names[::-1]:
            start = time.perf_counter()
            calls[name]()
            took[name].append(time.perf_counter() - start)
    return took


def measure_one(name, build):
    import torch

    import genmini
    from genmini import swap

    torch.manual_seed(0)
    theirs, x, loss = build("usual")
    calls = {("step", "before"): step(copy.deepcopy(theirs), loss, x)}
    report = genmini.swap(theirs, inputs=x, call=loss)
    print(report)
    calls |= {("step", "after"): step(theirs, loss, x)}
    shapes, like = swap.calls(theirs, [x], loss), swap.gate.like(theirs)
    for each in report.swapped:
        z = swap.gate.probe(shapes[each.name], like.dtype, like.device)
        forward = theirs.get_submodule(each.name).forward
        calls |= {(each.name, when): lambda f=f, z=z: swap.gate.lasts(f, [z])
                  for when, f in (("before", forward.owner), ("after", forward))}
    took = in_turn(calls) if report.swapped else {}
    ratio = lambda a, b: statistics.median(x / y for x, y in zip(took[a], took[b], strict=True))
    gain = lambda name: ratio((name, "before"), (name, "after"))
    part = lambda name: ratio((name, "before"), ("step", "before"))
    figures = {}
    if report.swapped:
        of = {each.name: (part(each.name), gain(each.name)) for each in report.swapped}
        figures |= {f"{when}_ms": f"{1000 * statistics.median(took['step', when]):.1f}" for when in ("before", "after")}
        figures |= {
            "step": f"{gain('step'):.2f}", "amdahl": f"{1 / (1 - sum(p - p / s for p, s in of.values())):.2f}",
            "modules": " to ".join(dict.fromkeys(f"{pick(s for p, s in of.values()):.1f}" for pick in (min, max))),
        }
    return row_of(name, report, **figures)


def measure_draws(name, build):
    import torch

    import genmini

    torch.manual_seed(0)
    theirs, *_ = build("usual")
    plain = copy.deepcopy(theirs)
    walks = [row for row in genmini.swap(theirs, measure=False, sampling=True).swapped if row.room == "inverse"]
    calls = {"before": lambda: plain().sample((DRAWS,)), "after": lambda: theirs().sample((DRAWS,))}
    return drawn(name, walks, in_turn(calls))


def drawn(name, swapped, took):
    before, after = took.values()
    ms = {f"{when}_ms": f"{1000 * statistics.median(seconds):.1f}" for when, seconds in took.items()}
    return row_of(name, SimpleNamespace(swapped=swapped, left=[]), **ms,
                  step=f"{statistics.median(b / a for b, a in zip(before, after, strict=True)):.1f}")


def measure_pixels(name, build):
    """pythae's PixelCNN, as many images as in a batch"""
    import torch
    from peers import libraries

    import genmini

    torch.manual_seed(0)
    theirs, x, _ = build("usual")
    theirs.eval()
    values = torch.arange(float(theirs.model_config.n_embeddings))
    calls = {"before": lambda: libraries.pythae_draws(theirs, len(x)),
             "after": lambda: genmini.swap.draw_pixels(theirs.net, torch.rand(x.shape), values)}
    return drawn(name, [SimpleNamespace(module="network, by draw_pixels")], in_turn(calls))


def measure_coupling(name, build):
    """normflows' couplings, which no entry swaps, with the operator by hand; `why` tells what is kept for gradients."""
    import torch
    from peers import libraries

    torch.manual_seed(0)
    plain, x, loss = build("usual")
    theirs, kept = copy.deepcopy(plain), []
    for block in theirs.flows[::2]:
        block.inverse = functools.partial(libraries.inverse_by_room, block)
    for one in (plain, theirs):
        seen = {}
        see = lambda t: seen.update({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()}) or t
        with torch.autograd.graph.saved_tensors_hooks(see, lambda t: t):
            value = loss(one, x)
        kept.append(sum(seen.values()) - sum(seen.get(p.data_ptr(), 0) for p in one.parameters()))
        del value
    before, after = (took := in_turn({"before": step(plain, loss, x), "after": step(theirs, loss, x)})).values()
    ms = {f"{when}_ms": f"{1000 * statistics.median(seconds):.1f}" for when, seconds in took.items()}
    left = [SimpleNamespace(module="AffineCouplingBlock", why=f"it keeps {kept[0]} bytes, by the room {kept[1]}")]
    return row_of(name, SimpleNamespace(swapped=[], left=left * (len(theirs.flows) // 2)), **ms,
                  step=f"{statistics.median(b / a for b, a in zip(before, after, strict=True)):.2f}")


def row_of(name, report, **figures):
    import measure
    import torch

    row = {"model": name} | dict.fromkeys(("modules", "before_ms", "after_ms", "step", "amdahl"), "") | figures
    for state, found in (("swapped", report.swapped), ("left", report.left)):
        row |= {f"{state}_count": len(found), state: ", ".join(dict.fromkeys(each.module for each in found))}
    row["why"] = "; ".join(dict.fromkeys(each.why.split(", of (")[0] for each in report.left))
    return row | {"device": measure._processor(), "torch": torch.__version__, "commit": measure.commit()}


def table(rows):
    """The lines of docs/swap.md"""
    yield ("| model | swapped | modules: times as fast | before | after | step or draws: times as fast |"
           " Amdahl allows | left, and why |")
    yield "|---|---|---|---|---|---|---|---|"
    count = lambda row, state: f"{row[f'{state}_count']} {row[state]}" if int(row[f"{state}_count"]) else ""
    for row in rows:
        ms = [f"{row[key]} ms" if row[key] else "" for key in ("before_ms", "after_ms")]
        left = count(row, "left") + (f": {row['why']}" if row["why"] else "")
        yield "| " + " | ".join([row["model"], count(row, "swapped"), row["modules"], *ms, row["step"], row["amdahl"],
                                 left or ("" if row["swapped"] else "nothing looks like what a room computes")]) + " |"


def document(page=PAGE):
    """The table between its markers"""
    rows = list(csv.DictReader(ROWS.open()))
    commits = {}
    for row in rows:
        commits.setdefault(f"{row['device']}, PyTorch {row['torch']}", {})[row["commit"]] = True
    machines = "; ".join(f"{machine}, {', '.join(found)}" for machine, found in commits.items())
    block = "\n".join(["<!-- peers -->", *table(rows), "", f"One thread: {machines}.", "<!-- /peers -->"])
    before, rest = page.read_text().split("<!-- peers -->")
    page.write_text(before + block + rest.split("<!-- /peers -->")[1])


def main():
    parser = argparse.ArgumentParser(description="What genmini.swap gains in models of other libraries.")
    parser.add_argument("words", nargs="*", help="only models whose name has one of them")
    parser.add_argument("--write", action="store_true", help="only write docs/swap.md from the stored rows")
    options = parser.parse_args()
    if not options.write:
        import torch
        from peers import libraries

        torch.set_num_threads(1)
        stored = {row["model"]: row for row in csv.DictReader(ROWS.open())} if ROWS.exists() else {}
        builds = libraries.BUILD | libraries.LARGE
        todo = {name: functools.partial(measure_one, name, build) for name, build in builds.items()}
        todo |= {f"{name}, {DRAWS} draws": functools.partial(measure_draws, f"{name}, {DRAWS} draws", builds[name])
                 for name in libraries.DRAWN}
        pixels = "pythae PixelCNN, 16 draws"
        todo[pixels] = functools.partial(measure_pixels, pixels, builds["pythae PixelCNN"])
        by_hand = "normflows coupling, affine_coupling by hand"
        todo[by_hand] = functools.partial(measure_coupling, by_hand, builds["normflows coupling"])
        for name, run in todo.items():
            if not options.words or any(word in name for word in options.words):
                stored[name] = run()
                print(stored[name], flush=True)
        rows = [stored[name] for name in todo if name in stored]
        with ROWS.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    document()


if __name__ == "__main__":
    main()
