"""`genmini eval`: the figures of a trained run on a split of its data, or the likelihood of images of your own."""

from . import _options, _output

HELP = "evaluate a run on a split of its data: its likelihood in nats and bits per dimension, or its other figures"


def options(parser):
    _options.run_folder(parser)
    parser.add_argument("--split", default="test", help="train, valid or test (default: test)")
    parser.add_argument("-k", type=_options.positive, default=500, metavar="K",
                        help="of VAEs and Diffusion: draws for an image that estimate the bound (default: 500)")
    parser.add_argument("--image", nargs="+", metavar="FILE",
                        help="in the place of a split: PNG or JPEG images of your own, the likeliest first")
    _options.where_data_lies(parser)
    _options.where_it_runs(parser)


def run(arguments):
    from genmini import checkpoint, data, ranking

    folder = arguments.run_folder
    if arguments.image:
        _output.images(ranking.likelihoods(folder, arguments.image, arguments.k, _options.device(arguments)))
        return
    split = data.of_run(checkpoint.read(checkpoint.place(folder)), arguments.split, arguments.data_dir)
    model = checkpoint.load(folder, _options.device(arguments))
    _output.figures(model, split, arguments.k)
