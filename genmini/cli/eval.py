"""`genmini eval`: the figures of a trained run on a split of its data."""

from . import _options, _output

HELP = "evaluate a run on a split of its data: its likelihood in nats and bits per dimension, or its other figures"


def options(parser):
    _options.run_folder(parser)
    parser.add_argument("--split", default="test", help="train, valid or test (default: test)")
    parser.add_argument("-k", type=_options.positive, default=500, metavar="K",
                        help="of VAEs and Diffusion: draws for an image that estimate the bound (default: 500)")
    _options.where_data_lies(parser)
    _options.where_it_runs(parser)


def run(arguments):
    from genmini import checkpoint, data

    folder = arguments.run_folder
    split = data.of_run(checkpoint.read(checkpoint.place(folder)), arguments.split, arguments.data_dir)
    model = checkpoint.load(folder, _options.device(arguments))
    _output.figures(model, split, arguments.k)
