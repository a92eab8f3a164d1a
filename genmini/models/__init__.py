"""One model family a file, in the order of the course. Each reads like its equations and ends in its recipes.

    genmini.models.find("made")       the class, imported when it is asked for
"""

import importlib

# The file, which is also the name on the command line -> its class
MODELS = {
    "ar": "AR", "fvsbn": "FVSBN", "made": "MADE", "nade": "NADE", "pixelcnn": "PixelCNN", "pixelrnn": "PixelRNN", "realnvp": "RealNVP",
    "autoencoder": "Autoencoder", "vae": "VAE", "cvae": "CVAE", "arvae": "ARVAE", "vqvae": "VQVAE", "classifier": "Classifier",
}  # fmt: skip


def find(name):
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; the models are {', '.join(MODELS)}")
    return getattr(importlib.import_module(f"{__name__}.{name}"), MODELS[name])


def recipes(name):
    """What the model's file ends in: {data: {"data": ..., "model": settings, "train": settings}}."""
    find(name)
    return importlib.import_module(f"{__name__}.{name}").RECIPES
