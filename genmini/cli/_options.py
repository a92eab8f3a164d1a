"""Options that several commands share, and what they set: threads, backend, device."""

import argparse
import os

MOST = 10**9  # of anything that is counted


def where_data_lies(parser):
    parser.add_argument("--data-dir", metavar="DIR",
                        help="the folder of MNIST's files, or of your own data (default: that of the run, else "
                             "$GENMINI_DATA; MNIST is downloaded if it is nowhere)")
    parser.add_argument("--path", dest="data_dir", metavar="FILE",
                        help="of --data csv: the file of the series (default: that of the run)")


def of_images(parser):
    parser.add_argument("--size", type=positive, metavar="N",
                        help="with --data images and shapes: their side in pixels (default: 32)")
    parser.add_argument("--scenes", type=positive, metavar="N",
                        help="with --data shapes: how many to learn from (default: the recipe's, else 20000)")
    parser.add_argument("--colour", action="store_true", help="with --data images: keep their colours (default: grey)")


def where_it_runs(parser):
    device_and_threads(parser)
    parser.add_argument("--backend", help="auto, reference, cpu, triton, cuda or emulated "
                                          "(default: $GENMINI_BACKEND, else auto)")


def device_and_threads(parser):
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: the recipe's, else PyTorch's)")


def shape(parser):
    parser.add_argument("--shape", nargs="+", default=[], metavar="NAME=SIZE",
                        help="sizes of the inputs, by the letters of the room (default: small ones)")


def own(parser):
    parser.add_argument("--with", dest="own", metavar="FILE",
                        help="a .py that registers a kernel of yours (docs/exercises.md)")


def registered(arguments):
    """Run the file of --with -> the backends that are registered for the room."""
    from genmini import kernels

    return kernels.run_own(arguments.own, arguments.room)


def sizes(words):
    """["N=64", "D=8"] of --shape -> {"N": 64, "D": 8}"""
    found = {}
    for word in words:
        name, _, size = word.partition("=")
        if not size.isdecimal() or not 1 <= int(size) <= MOST:
            raise ValueError(f"--shape takes NAME=SIZE with a size from 1 to 10^9, as N=64; this is {word!r}")
        found[name] = int(size)
    return found


def run_folder(parser, help="a folder that `genmini train` wrote, or a shipped run of `genmini list`"):
    parser.add_argument("run_folder", metavar="RUN", help=help)


def seed(parser):
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="0 to 2^63 - 1 (default: 0)")


def mean(parser):
    parser.add_argument("--mean", action="store_true",
                        help="of VAEs and VQ-VAE: the mean image of what was drawn, not drawn pixels")


def how_to_sample(parser):
    parser.add_argument("--how", metavar="SAMPLER",
                        help="how PixelCNN and PixelRNN draw the same samples (cached, naive, jacobi); "
                             "how Diffusion, DALLE2 and Imagen draw (ddim, ddpm, dpm, heun)")
    parser.add_argument("--eta", type=float, metavar="E",
                        help="of --how ddim: from 0, no noise at its steps (default), to 1, as ddpm")
    parser.add_argument("--sampling-steps", type=positive, metavar="N", help="steps of a diffusion from noise to image")
    parser.add_argument("--guidance", type=float, metavar="W",
                        help="of Diffusion with classes or --classifier, of DALLE2 and Imagen: 1 draws from p(x | y), "
                             "a larger W goes further from p(x)")
    parser.add_argument("--temperature", type=float, metavar="T",
                        help="of flows: z is drawn from N(0, T^2 I); 0 shows what the mode of p(z) decodes to "
                             "(default: 1)")
    parser.add_argument("--classifier", metavar="C",
                        help="leads a Diffusion without classes to classes: digits-v1, or the RUN of a classifier")
    mean(parser)


def chosen(arguments, model):
    """What these options say -> arguments of `sample`; ValueError if one of them is not for this model."""
    from genmini import metrics

    chosen = dict(how=arguments.how, eta=arguments.eta, steps=arguments.sampling_steps,
                  guidance=arguments.guidance, classifier=arguments.classifier, mean=arguments.mean or None,
                  temperature=arguments.temperature)
    chosen = {name: value for name, value in chosen.items() if value is not None}
    for name in chosen:
        if model.cannot(name):
            option = "sampling-steps" if name == "steps" else name
            raise ValueError(f"--{option} does not fit: {model.cannot(name)}")
    if arguments.classifier is not None:
        if arguments.classifier == "inception":
            raise ValueError("--classifier takes digits-v1 or the RUN of a classifier: inception has none of the "
                             "classes of the data")
        chosen["classifier"] = metrics.network(arguments.classifier, model.device)
    return chosen


def positive(text):
    return _whole(text, 1, MOST)


def _seed(text):
    return _whole(text, 0, 2**63 - 1)


def _whole(text, least, most):
    digits = text.isascii() and text.isdigit() and len(text) < 30
    if not digits or not least <= int(text) <= most:
        short = text if len(text) < 30 else f"{text[:27]}..."
        raise argparse.ArgumentTypeError(f"it takes a whole number from {least} to {most}, got {short!r}")
    return int(text)


def quiet_profiler():
    """Before PyTorch is imported: what its profiler's library and its C++ would print to stderr is left out."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def device(arguments, threads=None):
    """Set the threads and the backend; -> the device, which exists."""
    import torch

    from genmini import kernels

    threads, most = arguments.threads or threads, max(64, 4 * (os.cpu_count() or 1))
    if threads and not 1 <= threads <= most:  # many more end the process: the system refuses them to OpenMP
        raise ValueError(f"--threads takes 1 to {most} on this machine of {os.cpu_count()} cores, got {threads}")
    if threads:
        torch.set_num_threads(threads)
    if arguments.backend:
        kernels.use(arguments.backend)
    kernels.requested()  # raises if GENMINI_BACKEND is unknown
    try:
        chosen = torch.device(arguments.device)
        torch.empty(1, device=chosen).item()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"no device {arguments.device!r} here: {one_line(error)[:200]}") from None
    _check_backend(chosen)
    return chosen


def _check_backend(device):
    """ValueError if an operator that has the chosen backend cannot run it here: before hours of work, not after."""
    from genmini import kernels, ops  # noqa: F401  ops imports every room

    for name in kernels.ROOMS:
        try:
            kernels.chosen(name, device)
        except RuntimeError as error:
            raise ValueError(f"the backend {kernels.requested()!r} does not run here on --device {device}: "
                             f"{one_line(error)}") from None


def one_line(error, remedy="a smaller model may fit"):
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "can't allocate memory" in text:
        return f"out of memory: {remedy} ({text[:120]})"
    return text
