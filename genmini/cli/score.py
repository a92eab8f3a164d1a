"""`genmini score`: the metrics of a trained run's samples, beside those of real images."""

from . import _options

HELP = "how good samples are: FID, KID, inception score, precision, recall, class, beside real images"


def options(parser):
    _options.run_folder(parser, "a folder that `genmini train` wrote, of a model that draws images")
    parser.add_argument("-n", type=_options.positive, default=1000, metavar="N",
                        help="how many samples (default: 1000)")  # fmt: skip
    _options.how_to_sample(parser)
    parser.add_argument("--features", default="digits-v1", metavar="F",
                        help="the network that judges: digits-v1, the RUN of a classifier, or inception")  # fmt: skip
    _options.seed(parser)
    _options.where_data_lies(parser)
    _options.where_it_runs(parser)


def run(arguments):
    from genmini import checkpoint, data, metrics
    from genmini.metrics.score import lines

    folder, device = arguments.run_folder, _options.device(arguments)
    saved = checkpoint.read(folder)
    model, network = checkpoint.load(folder, device), metrics.network(arguments.features, device)
    train, test = (data.of_run(saved, split, arguments.data_dir) for split in ("train", "test"))
    how = {} if model.cannot("sample") else _options.chosen(arguments, model)
    _options.check_memory(arguments.n, model)
    print(f"features   {network.name}")
    chosen = "".join(f", {name} {how[name]}" for name in how if name != "mean")
    print(f"samples    {arguments.n}{' means' * arguments.mean} of {type(model).__name__} in {folder}, "
          f"seed {arguments.seed}{chosen}")  # fmt: skip
    print(f"real       of {test.name}, test; samples and real are held against {len(train)} of train", flush=True)
    columns = metrics.score(model, network, train, test, arguments.n, arguments.seed, **how)
    print("\n".join(["", *lines(columns)]))
