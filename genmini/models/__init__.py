"""One model family a file, in the order of the course. Each reads like its equations and ends in its recipes.

    genmini.models.find("made")       the class, imported on demand
"""

import importlib
import inspect
import pkgutil

COURSE = ("ar", "fvsbn", "nade", "made", "rnade", "pixelrnn", "pixelcnn", "realnvp", "maf", "autoencoder", "vae",
          "cvae", "ssvae", "arvae", "vqvae", "gan", "cgan", "cyclegan", "diffusion", "regressor", "classifier",
          "language", "clip", "dalle2", "imagen")
_found = {name for _, name, _ in pkgutil.iter_modules(__path__) if not name.startswith("_")}

# The families, named as on the command line: in the order of the course, then those that are not in it
MODELS = tuple(sorted(_found, key=lambda name: (COURSE.index(name) if name in COURSE else len(COURSE), name)))


def find(name):
    """The class of a family: the one in its file that has the file's name, in capitals or not."""
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; the models are {', '.join(MODELS)}")
    module = importlib.import_module(f"{__name__}.{name}")
    return next(family for called, family in inspect.getmembers(module, inspect.isclass) if called.lower() == name)


def recipes(name):
    """What the model's file ends in: {recipe: {"data": ..., "model": settings, "train": settings}}."""
    find(name)
    return importlib.import_module(f"{__name__}.{name}").RECIPES
