"""The command line: one file a command, arguments in, lines and pictures out. The work is done in genmini.experiment.

A mistake of the user, or a file that cannot be read or written, ends in one line on stderr and exit status 2; other
failures (memory, a loss that is not finite) in one line and status 1; Ctrl-C in status 130. GENMINI_DEBUG=1 shows the
traceback behind the line.
"""

import argparse
import io
import os
import sys

from genmini import __version__

from . import bench, count, eval, info, list, profile, sample, score, study, train
from ._options import one_line

EXAMPLES = """examples:
  genmini train made --data digits               about a minute on a laptop; ends in a picture
  genmini train realnvp --data moons             a density on the plane, beside the true one
  genmini sample runs/made-digits -n 100         more samples from that run
  genmini sample runs/made-digits --complete     lower halves drawn to the upper halves of test images
  genmini eval runs/made-digits                  its likelihood of the test images
  genmini info                                   what runs here, on which backend, and why
  genmini count affine_coupling                  what its CUDA kernels do to memory, counted without a GPU
  genmini bench affine_coupling                  its ladder of kernels: counted, predicted, measured
  genmini profile vae --data digits              where the time of a training step goes"""

REMEDIES = {  # when memory runs out
    "train": "a smaller batch (--set batch=...) or model may fit",
    "sample": "fewer samples (-n) may fit",
    "eval": "fewer draws for an image (-k) may fit",
    "score": "fewer samples (-n) may fit",
    "count": "smaller inputs (--shape) may fit",
    "bench": "smaller inputs (--shape) may fit",
    "profile": "a smaller batch (--set batch=...) or fewer samples (-n) may fit",
}


def main(argv=None):
    """Run one command -> its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of folders may hold bytes that are no characters
            stream.reconfigure(errors="backslashreplace")
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
        print("; ".join([f"genmini: {one_line(error, arguments.remedy)}", *_notes(error)]), file=sys.stderr)
        return 2 if isinstance(error, ValueError | OSError) else 1
    except Exception as error:
        if os.environ.get("GENMINI_DEBUG") == "1":
            raise
        print(f"genmini: {type(error).__name__}: {one_line(error)}; a mistake in genmini, or a run of an older version "
              "that is damaged (GENMINI_DEBUG=1 shows where)", file=sys.stderr)
        return 1


def _notes(error):  # what was saved
    return getattr(error, "__notes__", [])


class Parser(argparse.ArgumentParser):
    def error(self, message):
        print(f"genmini: {message}   (see: {self.prog} --help)", file=sys.stderr)
        sys.exit(2)


def parser():
    description = "Deep generative models, from the equation of the course down to the kernel."
    top = Parser(prog="genmini", description=description, epilog=EXAMPLES,
                 formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--version", action="version", version=f"genmini {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for command in (info, list, train, sample, eval, score, study, count, bench, profile):
        name, help = command.__name__.rpartition(".")[2], command.HELP
        added = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        command.options(added)
        added.set_defaults(run=command.run, remedy=REMEDIES.get(name, "a smaller model may fit"))
    return top
