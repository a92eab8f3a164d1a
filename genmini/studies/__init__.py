"""What a trained run has learnt, one question a file, each one command, one picture and one line.

    genmini study reconstruct runs/vae-digits            writes runs/vae-digits/reconstruct.png
    studies.study("embed", "runs/vae-digits")            the same from Python -> the line

A study of runs together, as `restore`, makes one picture of all that it is given; `kl` and `upsample` take no run. What
a study needs of a model, and which fit, its `STUDY` says (_study.py).
"""

import importlib
from pathlib import Path

from genmini import checkpoint, files

from ._run import Misfit, Run

STUDIES = {  # of runs, but for the last ones: `latent-dim` and `alpha` train their own, `kl` and `upsample` take none
    "reconstruct": "originals over their reconstructions, of the train and of the test split",
    "losses": "what runs reconstruct and draw by other losses of a pixel: how sharp, how grey",
    "interpolate": "the images on the line between the codes of two images; --between two classes, --pick nearest",
    "embed": "the codes of test images on a plane, by class; --axes: of two coordinates, --by: graph or tsne",
    "grid": "the latent planes of runs, decoded side by side: of models with 2 latent dimensions",
    "traverse": "one latent dimension moves, the others stand still; --axes: two of them, in a plane",
    "warp": "p(z) with a straight grid, and p(x) with the grid carried by the flow: of flows on the plane",
    "continuity": "draws of z around the code of a test image, decoded, farther and farther: do they stay alike?",
    "aggregate": "the sum of q(z|x) over images against p(z): which draws lie in holes, and what they decode to",
    "neighbours": "samples over the train images nearest to them: does the model copy?",
    "spectrum": "the spatial frequencies of samples beside those of images: is there a checkerboard?",
    "codes": "the codebook: how often each code is chosen, where, and what it decodes to; --swap: moved codes",
    "optimum": "a discriminator on known densities, beside d* = p / (p + q)",
    "translate": "images of two sets, each as one of the other set, and what comes back",
    "diffuse": "images as they become noise, noise as it becomes images, and what the model estimates on the way",
    "restore": "colours or detail that runs make of a part of an image: a regressor's mean, and draws",
    "complete": "the missing half of test images, drawn several times: of models that can complete",
    "forecast": "the numbers ahead of a series: intervals, paths, and how many test numbers they cover",
    "semi-supervised": "classifiers that learn from 1, 5, 10 or 100 labels of each class, on codes and on pixels",
    "inpaint": "what a --mask hides, drawn by several runs: how far off, and how probable; of models that can inpaint",
    "words": "nats a text beside counts of words and of pairs of words, and what samples are: of models of text",
    "retrieve": "captions of images and images of captions, found among 64; colours and shapes told by captions",
    "caption": "what samples show of their captions, seen and unseen: of models that draw shapes by captions",
    "edit": "one word of a caption replaced, the noise kept: what changes in the sample, and what else",
    "sweep": "guidance towards captions by several weights and thresholds: what is right, and how much is left open",
    "guide": "guidance towards classes by several weights: by a diffusion's own classes, by a classifier",
    "vary": "other images of the code of an image, and images between two codes: of models that draw codes of CLIP",
    "progress": "the numbers of the metrics along the steps of trainings, a panel each",
    "film": "the pictures along a training, one after another: a GIF",
    "latent-dim": "figures and images against the latent dimension: takes MODEL --data D, and trains runs",
    "alpha": "a VAE's two terms against their weight, and its images: takes MODEL --data D, and trains runs",
    "kl": "what the divergence of two densities is, and is not: not negative, not symmetric, no distance; takes no run",
    "upsample": "transposed convolutions as transposed matrices, their checkerboard, interpolation: takes no run",
}


def find(name):
    """-> Study"""
    if name not in STUDIES:
        raise ValueError(f"unknown study {name!r}; the studies are {', '.join(STUDIES)}")
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}").STUDY


def misfit(name, model):
    """The reason why the study cannot be made of this model; "" if it can."""
    from genmini import models

    its, why = find(name), find(name).lacks(model)
    if why:
        fitting = ", ".join(other for other in models.MODELS if not its.lacks(models.find(other)))
        return f"{why}: {name} is for {fitting}"
    return its.misfit(model)


def picture(name, run=None):
    """Where the picture of this study of the run goes: RUN/NAME.png; of a run that comes with genmini RUN-NAME.png, and
    without a run NAME.png, in the working directory, numbered if that is taken."""
    if run is None:
        return files.free(Path(f"{name}.png"))
    file = f"{name}{find(name).suffix}"
    return files.free(Path(f"{run}-{file}")) if checkpoint.is_shipped(run) else Path(run) / file


def check_options(name, options):
    """ValueError if the study does not take one of these options."""
    for option in options:
        if option not in find(name).options:
            having = ", ".join(other for other in STUDIES if option in find(other).options)
            raise ValueError(f"--{option} is for {having or 'no study'}: {name} does not take it")


def study(name, folder=None, out=None, data_dir=None, device="cpu", seed=0, **options):
    """-> what the picture shows, in a line. out: the picture's path (default: that of `picture`); folder: of a run, or
    those of several for a study of runs together, or None for a study of none; options: those that the study has."""
    its = find(name)
    if out and Path(out).suffix != its.suffix:
        raise ValueError(f"the study {name} draws a {its.suffix} file, got {out}")
    if its.alone != (folder is None):
        raise ValueError(f"{name} takes no run" if its.alone else f"{name} takes a run, and none is given")
    check_options(name, options)
    if its.alone:
        return its.make(Path(out or picture(name)))
    folders = [folder] if isinstance(folder, str | Path) else list(folder)
    if not folders or len(folders) > 1 and not its.together:
        raise ValueError(f"{name} takes one run" + " or more" * its.together + f", got {len(folders)}")
    runs = [Run(folder, data_dir, device, seed) for folder in folders]
    if len({Path(each).resolve() for each in folders}) < len(folders):
        raise ValueError(f"{name} takes each run once, got {', '.join(map(str, folders))}")
    for run in runs:
        why = misfit(name, run.model)
        if why:
            raise Misfit(f"{run.folder} does not fit: {why}")
    return its.make(runs if its.together else runs[0], Path(out or picture(name, folders[0])), **options)
