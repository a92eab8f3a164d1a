"""Draws from a stranger's autoregressive flow, whose owner asks its whole network once a number: D passes a draw.

    zuko   MaskedAutoregressiveTransform, of MAF and NSF: x of z by t.inv(z), without gradients

The masks of its network say which numbers each unit sees, and so at which step s it can be computed: ready(unit) is the
largest of what it sees, ready(x_d) = step(d) + 1 and step(d) = ready of the network's outputs for x_d. Units are put in
the order of ready once. Then a step computes, from below, the units that are ready now, of all that was ready before;
then the outputs for its x_d; then x_d, by its owner's transform of one number. So each weight is used once a draw, as
in genmini/models/maf.py. It is no kernel: what is saved is work.
"""

import functools
import itertools

import torch

from .gate import hooked
from .known import Known, made_by, theirs
from .masks import same


class Walk(Known):
    """A flow's transform whose inverse, asked without gradients and without a context, walks."""

    room, dims, small = "inverse", None, True

    def __init__(self, module, shape):
        layers = list(module.hyper)
        if not alternate(layers):
            raise self.unlike("its network is no sequence of masked layers and activations")
        self.keep = tuple(f"hyper.{i}.mask" for i in range(0, len(layers), 2))
        self.masks = [layer.mask != 0 for layer in layers[::2]]
        self.bytes = [layer.mask.detach().clone() for layer in layers[::2]]
        self.learn(module.total)
        D = self.masks[0].shape[1]
        self.probes, self.usual = [(3, D)], (16, D)

    def learn(self, total):
        """The step of each x_d; of every layer the order of its units, and how many get ready at each step; and whether
        its mask hides anything that is ready."""
        D, last, at = self.masks[0].shape[1], len(self.masks[-1]), self.masks[0].device
        if last != D * total:
            raise self.unlike("it has a context")
        sees = functools.reduce(lambda below, mask: (mask.float() @ below > 0).float(), self.masks,
                                torch.eye(D, device=at))
        sees, step = sees.view(D, total, D).amax(1) > 0, torch.zeros(D, dtype=torch.long, device=at)
        for _ in range(D + 1):
            step, before = torch.where(sees, step + 1, 0).amax(1), step
            if torch.equal(step, before):
                break
        else:
            raise self.unlike("a number is seen by its own transform")
        ready = [step + 1]
        for mask in self.masks[:-1]:
            ready.append(torch.where(mask, ready[-1], 0).amax(1))
        self.order = [each.argsort(stable=True) for each in ready]
        self.steps = int(step.max()) + 1
        self.known = [torch.searchsorted(each.sort()[0], torch.arange(self.steps + 1, device=at), right=True).tolist()
                      for each in ready]  # at step s, known[i][s] units of layer i are
        self.order.append((self.order[0][:, None] * total + torch.arange(total, device=at)).flatten())
        gets = lambda known: [b - a for a, b in itertools.pairwise(known)]
        x = gets(self.known[0])
        hidden = [gets([0, *known[:-1], len(each)]) for known, each in zip(self.known[1:], ready[1:], strict=True)]
        self.new = [x, *hidden, [total * count for count in x]]  # of hidden units the last are those that none sees
        self.hides = []
        for mask, (k, j), known, new in zip(self.masks, itertools.pairwise(self.order), self.known, self.new[1:],
                                            strict=True):
            rows = zip(mask[j][:, k].split(new), known[: self.steps], strict=False)
            self.hides.append(not all(mask[:, :count].all() for mask, count in rows))

    @staticmethod
    def call(module, z):
        """What is compared and timed"""
        with torch.no_grad():
            return module.forward().inv(z)

    def run(self, module, *args, **kwargs):
        transform = type(module).forward(module, *args, **kwargs)
        if not any(each is not None for each in (*args, *kwargs.values())):
            transform._inverse = functools.partial(self.inverse, module, transform._inverse)
        return transform

    def knows(self, linear):
        """Whether the masks are those that were seen, in their bytes or at least in their numbers"""
        alike = lambda now, mask: (now.device, now.shape) == (mask.device, mask.shape) and bool((now == mask).all())
        return len(linear) == len(self.masks) and all(
            same(layer.mask, seen) or alike(layer.mask, mask)
            for layer, mask, seen in zip(linear, self.masks, self.bytes, strict=True))

    def inverse(self, module, owner, z):
        layers = list(module.hyper)
        if torch.is_grad_enabled() or hooked(module.hyper) or not alternate(layers) or not self.knows(layers[::2]):
            return owner(z)
        linear, between = layers[::2], layers[1::2]
        if z.dtype != linear[0].weight.dtype:
            return owner(z)
        weights = [(layer.mask * layer.weight if hides else layer.weight).index_select(0, j).index_select(1, k)
                   for layer, hides, (k, j) in zip(linear, self.hides, itertools.pairwise(self.order), strict=True)]
        biases = [layer.bias[j] for layer, j in zip(linear, self.order[1:], strict=True)]
        shape, z = z.shape, z.reshape(-1, z.shape[-1])[:, self.order[0]]
        units = [torch.zeros_like(z), *(z.new_zeros(len(z), len(weight)) for weight in weights[:-1])]
        # of each step: what it computes, in its place, and by which weights
        to = [each.split(new, 1) for each, new in zip(units, self.new, strict=False)]
        W = [weight.t().split(new, 1) for weight, new in zip(weights, self.new[1:], strict=True)]
        b = [bias.split(new) for bias, new in zip(biases, self.new[1:], strict=True)]
        z, unpack = z.split(self.new[0], 1), theirs(module, "unpack")
        with torch.inference_mode():  # its views cost less than those without gradients
            for s in range(self.steps):
                of = lambda i, s=s: torch.addmm(b[i][s], units[i][:, : self.known[i][s]], W[i][s][: self.known[i][s]])
                for i, f in enumerate(between):
                    to[i + 1][s].copy_(f(of(i)))
                phi = of(len(between)).unflatten(-1, (-1, module.total))
                to[0][s].copy_(module.univariate(*unpack(phi, module.shapes)).inv(z[s]))
        return units[0][:, self.order[0].argsort()].view(shape)


def alternate(layers):
    """Whether these are masked layers with something between them"""
    masked = all(getattr(each, "mask", None) is not None and each.bias is not None for each in layers[::2])
    return masked and len(layers) % 2 == 1


ENTRIES = {"zuko.flows.autoregressive.MaskedAutoregressiveTransform": ("zuko", ("1.6.0",), Walk)}


def recognise_flow(module, shape):
    """-> a Walk, None if the module is of none of these classes"""
    return made_by(ENTRIES, module, shape)
