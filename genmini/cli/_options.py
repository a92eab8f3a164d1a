"""Options that several commands share, and what they set: threads, backend, device."""

import argparse


def where_data_lies(parser):
    parser.add_argument("--data-dir", metavar="DIR",
                        help="the folder of MNIST's files, or of your own data (default: that of the run, else "
                             "$GENMINI_DATA; MNIST is downloaded if it is nowhere)")  # fmt: skip


def of_images(parser):
    parser.add_argument("--size", type=positive, metavar="N", help="of the data `images`: the side in pixels (default: 32)")
    parser.add_argument("--colour", action="store_true", help="of the data `images`: in colour (default: grey)")


def where_it_runs(parser):
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    parser.add_argument("--backend", help="auto, reference, cpu, triton, cuda or emulated "
                                          "(default: $GENMINI_BACKEND, else auto)")  # fmt: skip
    parser.add_argument("--threads", type=positive, help="CPU threads (default: the recipe's, else PyTorch's)")


def run_folder(parser, of="a folder that `genmini train` wrote"):
    parser.add_argument("run_folder", metavar="RUN", help=of)


def seed(parser):
    parser.add_argument("--seed", type=int, default=0, metavar="N")


def mean(parser):
    parser.add_argument("--mean", action="store_true",
                        help="of VAEs and VQ-VAE: the mean image of what was drawn, in place of drawn pixels")  # fmt: skip


def positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def device(arguments, threads=None):
    """Set the threads and the backend; -> the device, which exists."""
    import torch

    from genmini import kernels

    if arguments.threads or threads:
        torch.set_num_threads(arguments.threads or threads)
    if arguments.backend:
        kernels.use(arguments.backend)
    kernels.requested()  # raises if GENMINI_BACKEND is unknown
    try:
        found = torch.device(arguments.device)
        torch.empty(1, device=found).item()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"no device {arguments.device!r} here: {one_line(error)[:200]}") from None
    return found


def check_mean(model):
    """ValueError if --mean is not for this model."""
    import inspect

    if "mean" not in inspect.signature(model.sample).parameters:
        raise ValueError("--mean is for models that draw pixels given something drawn before, "
                         f"and {type(model).__name__} is none")  # fmt: skip


def one_line(error):
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "can't allocate memory" in text:
        return f"out of memory: a smaller batch (--set batch=...) or model may fit ({text[:120]})"
    return text
