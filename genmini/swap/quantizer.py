"""A stranger's quantiser: the vectors it takes, the codebook it has, and what each of the things that it returns is.

    z_q        e_k of the nearest code k of each vector, straight-through: z + sg[e - z]; D last or first
    loss       a mean (e - sg[z])^2 + b mean (sg[e] - z)^2; a and b are found from its gradients
    index      k, flat, as a column, or in the shape of z without D, perhaps with a 1 in it
    one-hot    (N, K)
    perplexity exp(-sum_k p_k log(p_k + 1e-10)), p_k the share of the vectors whose code is k
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from genmini import ops

from .gate import in_float64, leaves_of, mapped, perturbed, probe, to
from .rooms import Room, Unlike, close, unlike


def recognise_quantizer(module, shape):
    """-> a Quantizer, None if it looks like none.   shape: of an input, if one was given"""
    why, owner = None, None
    for name in codebooks(module):
        owner = owner or to(perturbed(module), torch.float64).eval()
        try:
            return Quantizer(owner, name, shape)
        except Unlike as error:
            why = why or (error if error.room else None)
    if why:
        raise why
    return None


def codebooks(module):
    """Names of what may be a codebook (K, D): a matrix of the module, or the weight of an embedding that it has."""
    if isinstance(module, nn.Embedding) or any(type(child) is not nn.Embedding for child in module.children()):
        return []
    own = {**module._parameters, **module._buffers}
    return [*(name for name, tensor in own.items() if tensor is not None and tensor.dim() == 2
              and tensor.is_floating_point()), *(f"{name}.weight" for name, _ in module.named_children())]


@dataclass
class Role:
    """What a thing that it returned is, and how."""

    name: str
    how: tuple = ()


class Quantizer(Room):
    """z (..., D) or (N, D, ...) -> what its owner returns, of the exact nearest codes"""

    room = "nearest_code"

    def __init__(self, owner, name, shape):
        self.name = name
        e = self.codebook(owner)
        K, D = e.shape
        for probed in [(11, D), (3, 5, D), (2, D, 5, 3), (2, 5, 3, D), (2, D, 7)]:
            if shape and len(shape) != len(probed):
                continue
            z = probe(probed, torch.float64, e.device).requires_grad_()
            try:
                with in_float64():
                    out = owner.forward(z)
            except Exception:  # of a stranger: it takes other shapes
                continue
            for first in (False, True):
                self.first = first  # whether D comes first: (N, D, ...)
                if probed[1 if self.first else -1] != D or self.first and len(probed) == 2:
                    continue
                index, codes = self.nearest(z.detach(), e.detach())
                leaves = leaves_of(out)
                if any(close(leaf, codes) or close(leaf, self.turned(codes)) for leaf in leaves):
                    self.dims, self.usual = {len(probed)}, tuple(shape or self.usual_shape(probed, D))
                    self.probes = [probed, tuple(n if n == D else n + 2 for n in probed)]
                    self.roles = mapped(lambda leaf: self.role(leaf, z, e, index, codes), out)  # noqa: B023
                    ab = [role.how for role in leaves_of(self.roles) if role.name == "loss"]
                    self.betas = list(dict.fromkeys(b / a for a, b in ab if a)) or [0.25]
                    return
                if any(self.of_codes(leaf, codes, e) for leaf in leaves):
                    raise unlike(f"its codes, of {name}, are not the nearest", self.room)
        raise unlike(f"no input that it takes is quantised by the codes of {name}", "")

    def usual_shape(self, probed, D):
        wide = {2: (4096,), 3: (16, 256), 4: (16, 16, 16)}[len(probed)]
        return (wide[0], D, *wide[1:]) if self.first else (*wide, D)

    def codebook(self, module):
        for part in self.name.split("."):
            module = getattr(module, part)
        return module

    def rows(self, z):
        """-> (N, D), and the shape (..., D) that they had"""
        z = z.movedim(1, -1) if self.first else z
        return z.reshape(-1, z.shape[-1]), z.shape

    def nearest(self, z, e):
        """By the definition: index (N,), and the codes in the layout of z"""
        flat, shape = self.rows(z)
        index = (flat[:, None] - e).square().sum(2).argmin(1)
        return index, self.placed(e[index], shape)

    def of_codes(self, leaf, codes, e):
        """Whether it consists of codes, whichever"""
        if not isinstance(leaf, torch.Tensor) or leaf.shape != codes.shape or not leaf.is_floating_point():
            return False
        rows = self.rows(leaf.detach())[0]
        return bool(((rows[:, None] - e.detach()).abs().amax(2).amin(1) <= 1e-9 * e.abs().max()).all())

    def placed(self, rows, shape):
        rows = rows.reshape(shape)
        return rows.movedim(-1, 1) if self.first else rows

    def turned(self, codes):
        """D last in the place of first, or first in the place of last"""
        return codes.movedim(1, -1) if self.first else codes.movedim(-1, 1)

    def role(self, leaf, z, e, index, codes):
        batch = self.rows(z)[1][:-1]
        if leaf is None:
            return Role("none")
        if not isinstance(leaf, torch.Tensor):
            raise unlike(f"it returns a {type(leaf).__name__} beside tensors", self.room)
        for turned, form in ((False, codes), (True, self.turned(codes))):
            if close(leaf, form):
                return Role("z_q", (turned, leaf.is_contiguous()))
        if not leaf.is_floating_point() and leaf.numel() == len(index) and torch.equal(leaf.reshape(-1), index):
            if leaf.shape in (flat := {"flat": (len(index),), "column": (len(index), 1)}).values():
                return Role("index", (next(name for name, shape in flat.items() if leaf.shape == shape), leaf.dtype))
            for place in (None, *range(len(batch) + 1)):
                if leaf.shape == with_one(batch, place):
                    return Role("index", (place, leaf.dtype))
        hot = F.one_hot(index, len(e)).to(leaf.dtype)
        if leaf.shape == hot.shape and torch.equal(leaf, hot):
            return Role("one_hot")
        if leaf.dim() == 0 and close(leaf, perplexity(index, e)):
            return Role("perplexity")
        if leaf.dim() == 0 and leaf.requires_grad:
            return Role("loss", coefficients(leaf, z, e, index, self.rows))
        raise unlike(f"it returns something of shape {tuple(leaf.shape)} that is no code, index, loss, one-hot or "
                     "perplexity", self.room)

    def run(self, module, z):
        e = self.codebook(module)
        flat, shape = self.rows(z)  # (N, D), (..., D)
        if e.dtype != z.dtype or shape[-1] != e.shape[1]:
            return NotImplemented
        index = ops.nearest_code(flat, e)  # (N,)
        steps = {beta: ops.quantize_step(flat, e, index, beta) for beta in self.betas}  # z_q (N, D), loss (N,)
        return mapped(lambda role: self.give(role, flat, shape, e, index, steps), self.roles)

    def give(self, role, z, shape, e, index, steps):
        z_q = steps[self.betas[0]][0]
        match role.name:
            case "z_q":
                turned, contiguous = role.how
                z_q = self.placed(z_q, shape)
                z_q = self.turned(z_q) if turned else z_q
                z_q = z_q if z.requires_grad else z_q.detach()
                return z_q.contiguous() if contiguous else z_q
            case "loss":
                a, b = role.how
                if a:
                    return (a * steps[b / a][1].mean() / e.shape[1]).to(z.dtype)
                return b * F.mse_loss(z, z_q.detach())
            case "index":
                place, dtype = role.how
                flat = {"flat": (-1,), "column": (-1, 1)}
                return index.reshape(flat[place] if place in flat else with_one(shape[:-1], place)).to(dtype)
            case "one_hot":
                return F.one_hot(index, len(e)).to(e.dtype)
            case "perplexity":
                return perplexity(index, e)
        return None


def with_one(batch, place):
    """The shape of an index: of z without D, with a 1 at a place of it if any"""
    return tuple(batch) if place is None else (*batch[:place], 1, *batch[place:])


def perplexity(index, e):
    ones = torch.ones(len(index), dtype=torch.promote_types(e.dtype, torch.float32), device=e.device)
    p = (ones.new_zeros(len(e)).index_add(0, index, ones) / len(index)).to(e.dtype)  # (K,)
    return torch.exp(-(p * torch.log(p + 1e-10)).sum())


def coefficients(loss, z, e, index, rows):
    """a and b of a mean (e - sg[z])^2 + b mean (sg[e] - z)^2, by the gradients of loss"""
    towards = [tensor for tensor in (z, e) if tensor.requires_grad]
    gradients = dict(zip(map(id, towards), torch.autograd.grad(loss, towards, retain_graph=True, allow_unused=True),
                         strict=True))
    away = rows(z.detach())[0] - e.detach()[index]  # (N, D)
    by_code = torch.zeros_like(e.detach()).index_add_(0, index, away)

    def share(tensor, of, laid=lambda gradient: gradient):  # gradient = 2 share of / (N D)
        gradient = gradients.get(id(tensor))
        wide = 0.0 if gradient is None else (laid(gradient) * of).sum() * away.numel() / of.square().sum() / 2
        return round(float(wide), 10)

    a, b = -share(e, by_code), share(z, away, lambda dz: rows(dz)[0])
    if not close(loss.detach(), (a + b) * away.square().mean()):
        raise unlike("its loss is no a mean (e - sg[z])^2 + b mean (sg[e] - z)^2", "nearest_code")
    return a, b
