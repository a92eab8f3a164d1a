"""A run as studies use it: its model, the data it was trained on, its codes and images, computed a batch at a time."""

import torch

from genmini import checkpoint, data

AT_ONCE = 1000


class Misfit(ValueError):
    """A run that a study cannot be made of."""


def coordinates(model, axes):
    """Two different ones of the numbers z, counted from 0 or called by the attributes that they follow -> [i, j]"""
    names = {str(i): i for i in range(model.latent)} | {name: i for i, name in enumerate(model.attributes)}
    chosen = [names.get(str(axis), -1) for axis in axes]
    if -1 in chosen or len(chosen) != 2 or chosen[0] == chosen[1]:
        known = ", ".join([f"0 ... {model.latent - 1}", *model.attributes])
        raise Misfit(f"--axes takes two different ones of {known}, got {', '.join(map(str, axes))}")
    return chosen


def called(model, i):
    """What a picture calls the number z_i, counted from 0."""
    return f"z$_{{{i + 1}}}$" + (f", {model.attributes[i]}" if i < len(model.attributes) else "")


class Run:
    def __init__(self, folder, data_dir=None, device="cpu", seed=0):
        self.folder, self.data_dir, self.device, self.seed = folder, data_dir, device, seed
        self.metadata = checkpoint.read(checkpoint.place(folder))
        self.model = checkpoint.load(folder, device)
        self.name = f"{self.model.title} in {folder}"

    def split(self, split):
        return data.of_run(self.metadata, split, self.data_dir)

    def check_labels(self):
        """Misfit if the images have no classes."""
        if self.split("train").classes == 0:
            raise Misfit(f"{self.folder} does not fit: its images have no classes")

    @property
    def conditional(self):
        return self.model.takes_y

    def encode(self, x, y):
        """(N, *shape), (N,) -> (N, d) on the CPU; y is for a model with classes."""
        return torch.cat(self._batches(self.model.encode, x, y)).cpu()

    def q(self, x, y):
        """(N, *shape), (N,) -> mu, log sigma^2 of q(z|x), each (N, d)"""
        return tuple(torch.cat(part).cpu() for part in zip(*self._batches(self.model.q, x, y), strict=True))

    def decode(self, z, y):
        """(N, d), (N,) -> (N, *shape) in levels"""
        return torch.cat(self._batches(self.model.decode, z, y)).cpu()

    def reconstruct(self, x, y):
        return torch.cat(self._batches(self.model.reconstruct, x, y)).cpu()

    def restore(self, x, y):
        return torch.cat(self._batches(self.model.restore, x, y)).cpu()

    def translate(self, x, y):
        return torch.cat(self._batches(self.model.translate, x, y)).cpu()

    def figures(self, x, y):
        """-> {name: (N,)}"""
        parts = self._batches(self.model.figures, x, y)
        return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}

    @torch.no_grad()
    def _batches(self, method, x, y):
        """What the method gives for each batch of x."""
        y = y.to(self.device).split(AT_ONCE) if self.conditional else [None] * len(x.split(AT_ONCE))
        return [method(x_b.to(self.device), y=y_b) for x_b, y_b in zip(x.split(AT_ONCE), y, strict=True)]
