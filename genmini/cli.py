"""The command line: what a user types, checked; the work is done in commands.py and runs.py.

A mistake of the user's ends in one line on stderr and exit status 2, a failure of the machine's in one line and 1, Ctrl-C in 130.
GENMINI_DEBUG=1 shows the traceback behind the line.
"""

import argparse
import os
import sys

from genmini import __version__, commands, info, runs

EXAMPLES = """examples:
  genmini train made --data digits               about a minute on a laptop; ends in a picture
  genmini train realnvp --data moons             a density on the plane, beside the true one
  genmini sample runs/made-digits -n 100         more samples from that run
  genmini sample runs/made-digits --complete     lower halves drawn to the upper halves of test images
  genmini eval runs/made-digits                  its likelihood of the test images
  genmini info                                   what runs here, on which backend, and why"""


def main(argv=None):
    try:
        arguments = parser().parse_args(argv)
        return arguments.run(arguments) or 0
    except KeyboardInterrupt as error:
        print("; ".join(["genmini: interrupted", *_notes(error)]), file=sys.stderr)
        return 130
    except BrokenPipeError:  # `genmini info | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, RuntimeError, ArithmeticError, MemoryError, ImportError) as error:
        if os.environ.get("GENMINI_DEBUG") == "1":
            raise
        print("; ".join([f"genmini: {commands.one_line(error)}", *_notes(error)]), file=sys.stderr)
        return 2 if isinstance(error, ValueError | OSError) else 1


def _notes(error):  # what was saved
    return getattr(error, "__notes__", [])


class Parser(argparse.ArgumentParser):
    def error(self, message):
        print(f"genmini: {message}   (see: {self.prog} --help)", file=sys.stderr)
        sys.exit(2)


def parser():
    top = Parser(prog="genmini", description="Deep generative models, from the equation of the course down to the kernel.", epilog=EXAMPLES,
                 formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    top.add_argument("--version", action="version", version=f"genmini {__version__}")
    kinds = top.add_subparsers(metavar="COMMAND", required=True)

    def command(name, run, help):
        added = kinds.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        added.set_defaults(run=run)
        return added

    def where_data_lies(added):
        added.add_argument("--data-dir", metavar="DIR", help="the folder of MNIST's files (default: $GENMINI_DATA, else they are downloaded)")

    def where_it_runs(added):
        added.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
        added.add_argument("--backend", help="auto, reference, cpu, triton, cuda or emulated (default: $GENMINI_BACKEND, else auto)")
        added.add_argument("--threads", type=_positive, help="CPU threads (default: the recipe's, else PyTorch's)")

    command("info", info.info, "versions, devices, libraries, and which backend each operator takes here, and why")
    command("list", info.list_, "the models with their recipes, the data sets, the operators with their rungs")

    added = command("train", commands.train, "train a model; write the best weights, the metrics and a picture of samples beside data")
    added.add_argument("model", metavar="MODEL", help="a model of `genmini list`, as made")
    added.add_argument("--data", required=True, metavar="D", help="a data set of `genmini list`, as digits")
    added.add_argument("--recipe", metavar="R", help="a recipe of the model (default: the one named as the data)")
    added.add_argument("--steps", type=_positive, metavar="N", help="instead of the recipe's")
    added.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting of the recipe; may be repeated")
    added.add_argument("--seed", type=int, default=0, metavar="N")
    added.add_argument("--out", metavar="DIR", help="the run's folder (default: runs/MODEL-D, numbered if that is taken)")
    existing = added.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="continue the run in --out to the same bits: say again how it was begun")
    existing.add_argument("--overwrite", action="store_true", help="replace the run that is in --out")
    added.add_argument("--tensorboard", action="store_true", help="the metrics for TensorBoard, too (pip install genmini[tensorboard])")
    where_data_lies(added)
    where_it_runs(added)

    added = command("sample", runs.sample, "draw samples from a trained run")
    added.add_argument("run_folder", metavar="RUN", help="a folder that `genmini train` wrote")
    added.add_argument("-n", type=_positive, default=64, metavar="N", help="how many (default: 64)")
    added.add_argument("-y", type=_classes, metavar="CLASS", help="of one class, from a model with classes (default: of all); 3,8: of both at once")
    added.add_argument("--mean", action="store_true", help="of VAEs and VQ-VAE: the mean image of what was drawn, in place of pixels drawn, too")
    added.add_argument("--how", metavar="SAMPLER", help="of PixelCNN and PixelRNN: cached, naive or jacobi, to the same samples")
    added.add_argument("--complete", action="store_true", help="keep the first half of test images, draw the rest")
    added.add_argument("--out", metavar="FILE", help="a .png picture or a .npy array (default: RUN/grid.png)")
    added.add_argument("--seed", type=int, default=0, metavar="N")
    where_data_lies(added)
    where_it_runs(added)

    added = command("eval", runs.evaluate, "what a trained run is worth on data: its likelihood, in nats and bits per dimension, or its figures")
    added.add_argument("run_folder", metavar="RUN", help="a folder that `genmini train` wrote")
    added.add_argument("--split", default="test", help="train, valid or test (default: test)")
    added.add_argument("-k", type=_positive, default=500, metavar="K", help="draws for an image, of models that bound log p by them (default: 500)")
    where_data_lies(added)
    where_it_runs(added)

    added = command("score", runs.score, "how good samples are: FID, KID, inception score, precision, recall, class, beside real images")
    added.add_argument("run_folder", metavar="RUN", help="a folder that `genmini train` wrote, of a model that draws images")
    added.add_argument("-n", type=_positive, default=1000, metavar="N", help="how many samples (default: 1000)")
    added.add_argument("--mean", action="store_true", help="of VAEs and VQ-VAE: the mean image of what was drawn, in place of pixels drawn, too")
    added.add_argument("--features", default="digits-v1", metavar="F", help="who looks: digits-v1, the RUN of a classifier, or inception")
    added.add_argument("--seed", type=int, default=0, metavar="N")
    where_data_lies(added)
    where_it_runs(added)

    added = command("study", runs.study, "one question about what a trained run has learnt: a picture and a line")
    added.add_argument("study", metavar="STUDY", help="one of `genmini list`, as reconstruct")
    added.add_argument("of", nargs="+", metavar="RUN", help="folders that `genmini train` wrote; of latent-dim, a model")
    added.add_argument("--out", metavar="FILE", help="the picture of one run (default: RUN/STUDY.png); of latent-dim, the folder of its runs")
    added.add_argument("--seed", type=int, default=0, metavar="N")
    for_dimensions = added.add_argument_group("of latent-dim, which trains")
    for_dimensions.add_argument("--dimensions", type=_positive, nargs="+", metavar="d", help="default: 2 5 10 20 50")
    for_dimensions.add_argument("--data", metavar="D", help="a data set of `genmini list`")
    for_dimensions.add_argument("--recipe", metavar="R", help="a recipe of the model")
    for_dimensions.add_argument("--steps", type=_positive, metavar="N", help="instead of the recipe's")
    for_dimensions.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any other setting of the recipe")
    where_data_lies(added)
    where_it_runs(added)
    return top


def _positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _classes(text):
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no class, nor classes as 3,8") from None
