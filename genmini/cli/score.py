"""`genmini score`: the metrics of a trained run's samples, beside those of real images."""

from . import _options

HELP = "how good samples are: FID, KID, inception score, precision, recall, class, beside real images"


def options(parser):
    _options.run_folder(parser, "a run of a model that draws images")
    parser.add_argument("-n", type=_options.positive, default=1000, metavar="N",
                        help="how many samples (default: 1000)")
    _options.how_to_sample(parser)
    parser.add_argument("--features", default="digits-v1", metavar="F",
                        help="the network that judges: digits-v1, the RUN of a classifier, or inception")
    _options.seed(parser)
    _options.where_data_lies(parser)
    _options.where_it_runs(parser)


def run(arguments):
    from genmini import checkpoint, data, metrics, samples
    from genmini.metrics.score import check

    folder, device = arguments.run_folder, _options.device(arguments)
    saved = checkpoint.read(checkpoint.place(folder))
    model, network = checkpoint.load(folder, device), metrics.network(arguments.features, device)
    train, test = (data.of_run(saved, split, arguments.data_dir) for split in ("train", "test"))
    how = {} if model.cannot("sample") else _options.chosen(arguments, model)
    check(model, train, test, arguments.n)
    samples.check_memory(arguments.n, model)
    print(f"features   {network.name}")
    shown = {name: value for name, value in how.items() if name != "mean"}
    shown |= {"classifier": arguments.classifier} if "classifier" in how else {}
    chosen = "".join(f", {name} {value}" for name, value in shown.items())
    print(f"samples    {arguments.n}{' means' * arguments.mean} of {type(model).__name__} in {folder}, "
          f"seed {arguments.seed}{chosen}")
    print(f"real       of {test.name}, test; samples and real are compared with {len(train)} of train", flush=True)
    columns = metrics.score(model, network, train, test, arguments.n, arguments.seed, **how)
    print("\n".join(["", *_table(columns)]))


def _table(columns):
    """The columns as lines of a table."""
    digits = lambda v: f"{v:.4g}" if abs(v) < 1e4 else f"{v:.3e}"
    pair = lambda v: f"{digits(v[0])} +- {digits(v[1])}"
    share = lambda v: f"{v:.3f}"
    rows = {
        "FID": lambda c: digits(c["fid"]),
        "  of half as many": lambda c: digits(c["fid_of_half"]),
        "  of infinitely many (line over 1/n)": lambda c: digits(c["fid_limit"]),
        "KID": lambda c: pair(c["kid"]),
        "inception score": lambda c: pair(c["inception_score"]),
        "rarest and commonest class, of an even share": lambda c: " to ".join(share(part) for part in c["shares"]),
        "precision": lambda c: share(c["precision"]),
        "recall": lambda c: share(c["recall"]),
        "distance to the nearest train image, median": lambda c: digits(c["nearest"]),
        "right class": lambda c: pair(c["accuracy"][:2]) if c["accuracy"] else "-",
    }
    if columns["samples"]["accuracy"]:
        of_class = lambda k: lambda c: share(c["accuracy"][2][k].item()) if c["accuracy"] else "-"
        rows |= {f"  of class {k}": of_class(k) for k in range(len(columns["samples"]["accuracy"][2]))}
    heads = ["", *(f"{name.partition(',')[0]}, n = {column['n']}" for name, column in columns.items())]
    table = [heads] + [[name, *(cell(column) for column in columns.values())] for name, cell in rows.items()]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
