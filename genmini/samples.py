"""Samples of a trained model, and completions of test images: drawn by a seed, written as an array, a picture or text.

    x = samples.draw(model, 64, seed=1)                       (64, *shape) on the CPU
    samples.write("samples.png", x, model, "samples")         or an array, "samples.npy"; of text "samples.txt"
"""

import io
import math
from pathlib import Path

import numpy as np
import torch

from genmini import checkpoint, conditions, files, plots


def draw(model, n, seed=0, **how):
    """n draws by the noise of this seed, on the CPU. how: what the model's `sample` takes beside n."""
    check_memory(n, model)
    torch.manual_seed(seed)
    return model.sample(n, **how).cpu()


def means(model, n, seed=0, **how):
    """{title: images} to show before the same draws, of a model that draws pixels around mean images: these"""
    if model.cannot("mean") or how.get("mean"):
        return {}
    return {f"mean images of {model.title}": draw(model, n, seed, **how, mean=True)}


def halves(model, test, n):
    """The first n test images with the first half of their pixels known, in the model's own order
    -> what `sample` takes to draw the rest, and {title: images} to show."""
    if model.cannot("known"):
        raise ValueError(f"halves cannot be completed: {model.cannot('known')}")
    if why := sees_more(model):
        raise ValueError(f"halves cannot be completed: {why}")
    known, half = _first(model, test, n, "halves are to be completed"), model.D // 2
    kept = known["x"].cpu().float().flatten(1).index_fill(1, model.pixel_order()[half:].cpu(), math.nan)
    return known | dict(known=half), {f"data ({test.split})": test.x[:n], "what is kept": kept.view_as(test.x[:n])}


def sees_more(model):
    """Why a model that is `given` more of an image than its upper half completes no half; "" if it can"""
    if model.given in ("", "upper"):
        return ""
    return f"the model is given {model.given} of the whole image, and would see the half that is to be completed"


def parts(model, test, n):
    """The first n test images, of which the model is given what it is made for -> the same two."""
    known = _first(model, test, n, "images are to be restored")
    return known, {f"data ({test.split})": test.x[:n], "what is given": conditions.pictured(test.x[:n], model.given)}


def _first(model, test, n, what):
    """n test images, and their classes or captions for a model that takes them"""
    if n > len(test):
        raise ValueError(f"{n} {what}, and the {test.split} split of {test.name} "
                         f"has {len(test)} images: ask for fewer (-n)")
    of_class = dict(y=test.y[:n].to(model.device)) if model.takes_y else {}
    return dict(x=test.x[:n].to(model.device), **of_class)


def in_turn(classes, n):
    """These classes one after another, again and again, (n,)"""
    return torch.tensor(classes)[torch.arange(n) % len(classes)]


def check_memory(n, model):
    """ValueError if n samples alone, 8 bytes a number, take more than the free memory, as far as the system tells."""
    needed = 8 * n * math.prod(side or 1 for side in model.shape)
    try:
        with open("/proc/meminfo") as file:
            free = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return
    if needed > free:
        raise ValueError(f"{n:,} samples of {type(model).__name__} take {needed / 1e9:,.1f} GB or more, "
                         f"and {free / 1e9:,.1f} GB are free: ask for fewer (-n)")


def check_file(path, film=False):
    """ValueError for a file that `write`, or of a film `write_film`, does not write."""
    files.check_name(path)
    if film and Path(path).suffix != ".gif":
        raise ValueError(f"--out takes a .gif file for a film, got {path}")
    if not film and Path(path).suffix not in (".png", ".npy", ".txt"):
        raise ValueError(f"--out takes a .png or a .npy file, of text a .txt or a .npy file, got {path}")


def suffix(model, film=False):
    """The end of the name of a file that shows samples of the model."""
    return ".gif" if film else ".txt" if model.of_text else ".png"


def check_fits(path, model):
    """ValueError for a file that does not show what the model draws."""
    what, other = ("texts", ".png") if model.of_text else ("no texts", ".txt")
    if Path(path).suffix == other:
        raise ValueError(f"{type(model).__name__} draws {what}: --out takes a {suffix(model)} or a .npy file, "
                         f"got {path}")


def write(path, x, model, what, beside=None):
    """Write x as an array of NumPy, or as a picture. beside: {title: images} that a picture shows with them."""
    check_file(path)
    check_fits(path, model)
    if Path(path).suffix == ".npy":
        content = io.BytesIO()
        np.save(content, x.numpy(), allow_pickle=False)
        files.write(path, content.getvalue())
    elif model.of_text:
        write_texts(path, {f"{len(x)} {what} of {model.title}": x}, model)
    elif beside and model.levels:
        columns = max(1, round(len(x) ** 0.5))
        plots.side_by_side(path, {**beside, f"{what} of {model.title}": x}, model.levels, columns)
    else:
        plots.samples(path, f"{len(x)} {what} of {model.title}", x, model.levels)


def texts(x, model):
    """Rows of numbers -> a list of texts; the numbers themselves, of a model without a vocabulary"""
    return model.words.decode(x) if model.words else [" ".join(map(str, row)) for row in x.tolist()]


def write_texts(path, panels, model):
    """Write {title: numbers of words (N, L)} as text, a line each."""
    lines = [line for title, x in panels.items() for line in (f"# {title}", *texts(x, model), "")]
    files.write(path, "\n".join(lines).encode())


def write_film(path, frames, levels):
    """Write frames (n, *shape) in levels, one after another, as a film."""
    check_file(path, film=True)
    plots.film(path, [frame.cpu() for frame in frames], levels)


def free_picture(run, suffix=".png"):
    """RUN/drawn.png, of a run that comes with genmini RUN.png in the working directory; numbered if that is taken."""
    files.check_name(run)
    return files.free(Path(f"{run}{suffix}") if checkpoint.is_shipped(run) else Path(run) / f"drawn{suffix}")
