"""A run as studies see it: its model, the data it was trained on, and its codes and images, computed a batch at a time."""

import torch

from genmini import checkpoint, data

AT_ONCE = 1000


class Run:
    def __init__(self, folder, data_dir=None, device="cpu", seed=0):
        self.folder, self.data_dir, self.device, self.seed = folder, data_dir, device, seed
        self.said, self.model = checkpoint.read(folder), checkpoint.load(folder, device)
        self.name = f"{type(self.model).__name__} in {folder}"

    def split(self, split):
        return data.of_run(self.said, split, self.data_dir)

    @property
    def conditional(self):
        return bool(getattr(self.model, "classes", 0))

    def encode(self, x, y):
        """(N, *shape), (N,) -> (N, d) on the CPU; a model without classes is not told y."""
        return self._each("encode", x, y)

    def decode(self, z, y):
        """(N, d), (N,) -> (N, *shape) in levels"""
        return self._each("decode", z, y)

    def reconstruct(self, x, y):
        return self._each("reconstruct", x, y)

    def figures(self, x, y):
        """-> {name: (N,)}"""
        parts = self._parts("figures", x, y)
        return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}

    def _each(self, method, *given):
        return torch.cat(self._parts(method, *given)).cpu()

    @torch.no_grad()
    def _parts(self, method, *given):
        given = given if self.conditional else given[:1]
        of = getattr(self.model, method)
        return [of(*(each.to(self.device) for each in part)) for part in zip(*(some.split(AT_ONCE) for some in given), strict=True)]
