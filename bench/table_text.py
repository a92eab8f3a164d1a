"""Measures what texts become in images of shapes: by the shipped imagen, and, of 16x16 pixels, by imagen with three
encoders and by clip.

    python bench/table_text.py               runs what is missing or has other settings, and writes docs/results.md
    python bench/table_text.py --only clip   the same for this model
    python bench/table_text.py --fresh       runs all again
    python bench/table_text.py --write       only writes docs/results.md and docs/encoder.png from the stored rows

One run is one process with one thread and the seed 0; the seconds are those of the processor. A run of imagen has a row
for each kind of captions (genmini/studies/caption.py): one sample each of N captions of test scenes, drawn with the
model's defaults, and which kinds of words they show (genmini/metrics/captions.py). Encoder M also has a row for each w
of GUIDANCE and kind of SWEPT, of two samples each of FEW captions; shares are those of the first ones.

The shipped runs are not trained here. Imagen is measured once for its weights: in its own size, and as means of squares
of this, images of 16x16. FID is the distance between their codes, by the shipped clip, and those of the N images whose
captions were given. Beside them stand these images themselves, and FID between them and the next N.

Where samples have blurred lines, the exact reader finds no scene in them. So the same is asked of the scene that the
reader takes for the nearest, however far it is ("nearest ..."): count, colour, shape, bound; and axis and order of
two things of two colours, of samples whose nearest scene has the right colours, whatever the shapes.

    diversity = sum_c |x_c - x'_c| / sum_c |d_c - d'_c|

of guidance: x_c and x'_c are the two samples of the caption c, d_c and d'_c images of train scenes of which c is true
(the mean over all pairs of DATA of them at most), and |.| is the mean difference of a level. The sum is over the
captions c for which x_c and x'_c both have the right colours ("nearest colour"), so that errors count less, and for
which there are two such scenes. 1: samples differ as data does.

The rows of clip are those of the study `retrieve`, on the test splits of `shapes` and `shapes-pairs`. Errors are the
standard errors of the choice of captions and images. They do not tell how much another seed of training would change.
"""

import functools
import math
import sys
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from trained import BATCH, KEYS, Table, train  # noqa: E402  (bench/trained.py)

SIDE = 16  # of the images that are learnt here
SHIPPED, CODES = "imagen", "clip"  # names of shipped runs: that which draws, and that which codes what was drawn
REAL = f"test images, {SIDE}x{SIDE}"
N = 500  # captions of a kind
FEW = 200  # captions of a kind, by each guidance
AT_ONCE = 100  # samples that are drawn together
GUIDANCE = 1, 2, 3, 5, 10
SWEPT = "one object", "two objects"
DATA = 8  # images of train scenes that are compared for a caption
SIZES = {"encoder-m": "M", "encoder-s": "S", "encoder-l": "L"}  # in the order of their runs
SHARES = ["count", "colour", "shape", "bound", "size", "place", "axis", "order", "whole", "unread"]  # of metrics
NEAREST = [f"nearest {name}" for name in ("count", "colour", "shape", "bound", "axis", "order")]
FOUND = ["caption", "image", "exchanged"]  # of clip


class Text(Table):
    name = "text"
    description = "Imagen with encoders of three sizes, and CLIP: what texts become, and docs/results.md."
    keys = [*KEYS, "captions", "guidance"]
    figures = [f"{name}{part}" for name in [*SHARES, *NEAREST, "diversity", *FOUND] for part in ("", " error", " of")]
    figures += ["encoder", "text", "error", "fid", "fid by"]
    shown = ["bound", "unread", *NEAREST, "diversity", *FOUND]

    @property
    def picture(self):
        return self.document.parent / "encoder.png"

    def runs(self, only=None):
        from genmini import models

        of = {"imagen": [*SIZES], "clip": ["shapes"]}
        for name in only or of:
            yield from ((name, key, 0) for key in of[name] if key in models.recipes(name))

    def anchors(self):
        """The shipped run: a row for each side and kind of captions, unless there is one of the same weights; and of
        real images."""
        import torch
        from measure import commit

        from genmini import checkpoint
        from genmini.studies.caption import KINDS, scenes_of

        if not {SHIPPED, CODES} <= {*checkpoint.shipped()}:
            return
        by = weights_of(CODES)
        of = {f"{SHIPPED}, {SIDE}x{SIDE}": weights_of(SHIPPED), REAL: ""}
        if {(who, settings, by) for who, settings in of.items()} <= {
                (each["who"], each["settings"], each["fid by"]) for each in self.stored()}:
            return

        def row(who, kind, captions, x, **fid):
            return dict(data="shapes", who=who, recipe="", seed=0, captions=kind, guidance="", settings=of.get(who, ""),
                        commit=commit(), torch=torch.__version__, **judged(captions, x), **fid, **{"fid by": by})

        torch.set_num_threads(1)
        model = checkpoint.load(SHIPPED)
        for kind in KINDS:
            scenes, captions = zip(*scenes_of(kind, 2 * N), strict=True)
            real, captions = images(scenes), captions[:N]
            yield row(REAL, kind, captions, real[None, :N], fid=distance_of_codes(real[:N], real[N:]))
            x = drawn(model, captions, 0)
            for side in sorted({SIDE, x.shape[-1]}):
                seen = means(x, side)
                fid = dict(fid=distance_of_codes(seen[0], real[:N])) if side == SIDE else {}
                yield row(f"{SHIPPED}, {side}x{side}", kind, captions, seen, **fid)

    def parts(self, recipe):
        """Without the stages that enlarge: images of this side are drawn at once."""
        return {part: each for part, each in super().parts(recipe).items() if part not in ("twice", "again")}

    def rows(self, run):
        name, key, seed = run
        trained = train(*run, size=SIDE)
        trained.model.eval()
        return list((self.of_clip if name == "clip" else self.of_imagen)(run, trained))

    def of_imagen(self, run, trained):
        """A row for each kind of captions, then for each guidance."""
        from genmini import experiment
        from genmini.studies.caption import KINDS, captions_of

        model, seed = trained.model, run[2]
        errors = {figure.name: f"{figure.mean:.4f}" for figure in experiment.figures(model, trained.splits["test"])}
        encoder = sum(p.numel() for name, p in model.named_parameters() if name.startswith("language."))
        same = dict(encoder=encoder, text=errors["text"], error=errors["error of base"])
        for kind in KINDS:
            captions = captions_of(kind, N)
            found = judged(captions, drawn(model, captions, seed))
            yield self.row(run, trained, captions=kind, guidance="", **same, **found)
        if run[1] == "encoder-m":
            for kind in SWEPT:
                captions = captions_of(kind, FEW)
                for w in GUIDANCE:
                    found = judged(captions, drawn(model, captions, seed, 2, guidance=float(w)))
                    yield self.row(run, trained, captions=kind, guidance=w, **same, **found)

    def of_clip(self, run, trained):
        """A row of `shapes`, and one of `shapes-pairs`."""
        import torch

        from genmini import data
        from genmini.studies import retrieve

        model = trained.model
        encode = torch.no_grad()(lambda x, y: torch.cat([model.encode(part) for part in x.split(BATCH)]))
        as_run = SimpleNamespace(model=model, encode=encode)
        for split in (trained.splits["test"], data.load(retrieve.OTHER, "test", **trained.plan.options)):
            seen = retrieve.Seen(as_run, split)
            right = {name: (wrong < 1).double() for name, wrong in seen.found().items()}  # R@1
            yield self.row(run, trained, captions=split.name, guidance="",
                           **as_text(right | {"exchanged": seen.ordered()}))

    # ---- the document ------------------------------------------------------------------------------------------------

    def tables(self, rows):
        plain = [row for row in rows if row["who"] == "imagen" and not row["guidance"]]
        swept = [row for row in rows if row["guidance"]]
        clip = [row for row in rows if row["who"] == "clip"]
        shipped = [row for row in rows if not row["recipe"]]
        curve = plain if len({row["recipe"] for row in plain}) > 1 else []  # one encoder makes no curve
        if curve:
            draw(self.picture, curve)
        parts = ((of_shipped, shipped), (of_encoders, plain), (of_captions, plain), (of_nearest_scenes, plain),
                 (self.of_picture, curve), (of_guidance, swept), (of_clip, clip))
        return [part(some) for part, some in parts if some]

    def of_picture(self, rows):
        return [f"![Shares that are right by the weights of the encoder, with standard errors]({self.picture.name})"]


# ---- what is measured ------------------------------------------------------------------------------------------------


def weights_of(name):
    """What tells the weights of this shipped run from others"""
    from genmini import checkpoint

    saved = checkpoint.read(checkpoint.place(name))
    return saved["digests"][saved["weights"]][:16]


def images(scenes):
    """n scenes -> (n, 3, SIDE, SIDE)"""
    import torch

    from genmini.data import shapes

    return torch.from_numpy(shapes.draw(scenes, SIDE))


@functools.cache
def clip():
    from genmini import checkpoint

    return checkpoint.load(CODES)


def distance_of_codes(x, other):
    """Two sets of images (n, 3, SIDE, SIDE), in levels -> FID between their codes, as text"""
    import torch

    from genmini import metrics

    with torch.no_grad():
        return f"{metrics.fid(*(clip().encode(each.round()).double() for each in (x, other))):.4f}"


def drawn(model, captions, seed, each=1, **how):
    """n captions -> `each` samples of each, (each, n, *shape)"""
    import torch

    from genmini.data import shapes_captions

    texts = [shapes_captions.write(caption) for caption in captions]
    parts = [texts[i : i + AT_ONCE] for i in range(0, len(texts), AT_ONCE)]
    torch.manual_seed(seed)
    return torch.stack([torch.cat([model.sample(len(part), part, **how) for part in parts]) for _ in range(each)])


def means(x, side):
    """Images (each, n, 3, S, S) -> (each, n, 3, side, side), the means of squares"""
    import torch

    return torch.nn.functional.avg_pool2d(x.flatten(0, 1).float(), x.shape[-1] // side).unflatten(0, x.shape[:2])


def judged(captions, x):
    """{figure: text} of n captions and samples of them, x (each, n, *shape): the first of each are judged."""
    import torch

    from genmini import metrics

    values = [metrics.captions(captions, part) | of_nearest(captions, part) for part in x]
    found = as_text({name: values[0][name] for name in (*SHARES, *NEAREST)})
    if len(x) > 1:
        right = torch.stack([part["nearest colour"] for part in values]).eq(1).all(0)
        found |= dict(zip(("diversity", "diversity error", "diversity of"), diversity(captions, x, right), strict=True))
    return found


def of_nearest(captions, x):
    """n captions and samples -> {name of NEAREST: (n,) float64, 0, 1 or NaN}"""
    import torch

    from genmini.data import shapes_reader
    from genmini.data.shapes_captions import true_of
    from genmini.metrics.captions import related

    values = []
    for caption, scene in zip(captions, shapes_reader.read(x, tolerance=math.inf), strict=True):
        true = lambda *kinds: scene is not None and true_of(caption.only(*kinds), scene)  # noqa: B023
        found = {"count": true(), "colour": true("colour"), "shape": true("shape"), "bound": true("colour", "shape")}
        if found["colour"] and caption.relation and len(set(caption.says("colour"))) == 2:
            found |= related(caption.only("colour", "relation"), scene)
        values.append({f"nearest {name}": value for name, value in found.items()})
    return {name: torch.tensor([each.get(name, math.nan) for each in values], dtype=torch.float64) for name in NEAREST}


def as_text(values):
    """{name: (n,)} -> {name: the mean of those that are numbers, "... error", "... of": of how many}, as text"""
    from genmini import metrics

    found = {}
    for name, (share, error, n) in metrics.shares(values).items():
        found |= {name: f"{share:.4f}", f"{name} error": "" if math.isnan(error) else f"{error:.4f}", f"{name} of": n}
    return found


def diversity(captions, x, right):
    """n captions, their samples (each, n, *shape), and which are right (n,) -> as in the docstring above, with its
    standard error, and of how many captions; "" where there are none."""
    import torch

    fits = fitting(captions)
    pairs = torch.tensor([(distance(x[:, n]), distance(fits[n])) for n in right.nonzero()[:, 0].tolist()
                          if len(fits[n]) > 1], dtype=torch.float64).view(-1, 2)
    if len(pairs) < 2:
        return "", "", len(pairs)
    samples, real = pairs.T
    ratio = samples.mean() / real.mean()
    error = (samples - ratio * real).std() / len(pairs) ** 0.5 / real.mean()  # of a ratio of means
    return f"{ratio:.4f}", f"{error:.4f}", len(pairs)


def distance(x):
    """Images (k, *shape) -> the mean difference of a level, of all pairs"""
    return sum((a - b).abs().mean().item() for a, b in combinations(x.double(), 2)) / math.comb(len(x), 2)


def fitting(captions):
    """For each caption images of at most DATA scenes of train of which it is true, (k, 3, SIDE, SIDE) each"""
    import torch

    from genmini.data import shapes
    from genmini.data.shapes_captions import true_of

    of_objects, found = by_objects(), []
    for caption in captions:
        things = sorted((thing.colour, thing.shape) for thing in caption.things for _ in range(thing.count))
        fit = [scene for scene in of_objects.get(tuple(things), []) if true_of(caption, scene)][:DATA]
        found.append(torch.from_numpy(shapes.draw(fit, SIDE)) if fit else torch.zeros(0, 3, SIDE, SIDE))
    return found


@functools.cache
def by_objects():
    """{colours and shapes of a scene's objects: scenes of train}; captions name both, so no other scene fits them"""
    from genmini.data import shapes

    scenes = {}
    for scene in shapes.read("shapes", "train")[0]:
        scenes.setdefault(tuple(sorted((o.colour, o.shape) for o in scene.objects)), []).append(scene)
    return scenes


# ---- what is shown ---------------------------------------------------------------------------------------------------


def share(row, name):
    """The share of a row in percent, with its standard error"""
    if not row[name]:
        return ""
    error = f" ± {100 * float(row[f'{name} error']):.1f}" if row[f"{name} error"] else ""
    return f"{100 * float(row[name]):.1f}{error}"


def table(heads, lines):
    return ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|", *("| " + " | ".join(c) + " |" for c in lines)]


def by_size(rows):
    """The rows of the smallest encoder first"""
    return sorted(rows, key=lambda row: int(row["encoder"]))


def of_shipped(rows):
    """A line for each kind of captions and view of a shipped run"""
    from genmini.studies.caption import KINDS

    heads = [f"captions, {rows[0]['bound of']} of a kind; % right", "shipped run", *SHARES[:-2], "of", *SHARES[-2:],
             "nearest bound", "FID"]
    return table(heads, ([kind, row["who"], *(share(row, name) for name in SHARES[:-2]), row["order of"],
                          *(share(row, name) for name in (*SHARES[-2:], "nearest bound")), row["fid"]]
                         for kind in KINDS for row in rows if row["captions"] == kind))


def of_encoders(rows):
    """A line for each size of the encoder"""
    runs = {row["recipe"]: row for row in by_size(rows)}
    heads = ["encoder", "its weights", "nats of a test caption", "error of what draws", "weights in all",
             "seconds of training"]
    return table(heads, ([f"{SIZES[key]}, `imagen` ({key})", f"{int(row['encoder']):,}", f"{float(row['text']):.2f}",
                          f"{float(row['error']):.2f}", f"{int(row['parameters']):,}",
                          f"{float(row['cpu_seconds']):.0f}"]
                         for key, row in runs.items()))


def of_captions(rows):
    """A line for each kind of captions and size of the encoder"""
    from genmini.studies.caption import KINDS

    heads = [f"captions, {rows[0]['bound of']} of a kind; % right", "encoder", *SHARES[:-2], "of", "whole", "unread"]
    return table(heads, ([kind, SIZES[row["recipe"]], *(share(row, name) for name in SHARES[:-2]), row["order of"],
                          *(share(row, name) for name in SHARES[-2:])]
                         for kind in KINDS for row in by_size(rows) if row["captions"] == kind))


def of_nearest_scenes(rows):
    """The same, of the scenes nearest to the samples"""
    from genmini.studies.caption import KINDS

    heads = ["captions; % right by the nearest scene", "encoder", *(name.split()[1] for name in NEAREST), "of"]
    return table(heads, ([kind, SIZES[row["recipe"]], *(share(row, name) for name in NEAREST), row["nearest order of"]]
                         for kind in KINDS for row in by_size(rows) if row["captions"] == kind))


def of_guidance(rows):
    """A line for each kind of captions and guidance"""
    heads = [f"captions, {rows[0]['bound of']} of a kind", "w", "unread, %", "bound, %", "nearest colour, %",
             "nearest bound, %", "nearest order, %", "of", "diversity", "of"]
    number = lambda row, name: f"{float(row[name]):.2f}" if row[name] else ""
    ratio = lambda row: " ± ".join(filter(None, (number(row, "diversity"), number(row, "diversity error"))))
    shown = "unread", "bound", "nearest colour", "nearest bound", "nearest order"
    return table(heads, ([kind, row["guidance"], *(share(row, name) for name in shown), row["nearest order of"],
                          ratio(row), row["diversity of"]]
                         for kind in SWEPT for row in sorted(rows, key=lambda row: int(row["guidance"]))
                         if row["captions"] == kind))


def of_clip(rows):
    heads = ["`clip`, % right", "caption of an image, R@1", "image of a caption, R@1",
             "its caption rather than with its things exchanged", "of", "seconds of training"]
    return table(heads, ([f"`{row['captions']}`", *(share(row, name) for name in FOUND), row["exchanged of"],
                          f"{float(row['cpu_seconds']):.0f}"] for row in sorted(rows, key=lambda row: row["captions"])))


def draw(path, rows):
    """The shares `bound` and `order` of nearest scenes by the weights of the encoder, a line for each of the kinds"""
    from genmini import plots
    from genmini.studies.caption import KINDS

    figure, ((bound, order),) = plots.new_figure(1, 2, 5.5, 4.2)
    for panel, name, title in ((bound, "nearest bound", "colour and shape of each thing"),
                               (order, "nearest order", "which of two colours comes first, on the right axis")):
        for k, kind in enumerate(KINDS):
            of_kind = [row for row in by_size(rows) if row["captions"] == kind and row[name]]
            if of_kind:
                values, errors = ([100 * float(row[column] or "nan") for row in of_kind]
                                  for column in (name, f"{name} error"))
                panel.errorbar([int(row["encoder"]) for row in of_kind], values, errors, marker="o", capsize=3,
                               color=f"C{k}", label=kind)
        panel.set(xscale="log", xlabel="weights of the encoder", ylabel="% right", ylim=(-3, 103), title=title)
        panel.grid(alpha=0.3)
    figure.legend(*bound.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    order.axhline(50, color="0.6", linewidth=0.8, linestyle="--")  # by chance
    plots.save(figure, path)


if __name__ == "__main__":
    Text().main()
