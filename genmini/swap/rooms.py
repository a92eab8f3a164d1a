"""What a stranger's module computes, told by its tensors and by its answers on probes, never by its source.

    MaskedLinear     y = x (W o M)^T + b, if degrees describe M       room masked_linear
    TiledLinear      the same of any other M with dead tiles          in PyTorch, without these
    MaskedConv2d     y = x * (K o M) + b, if M is a raster mask       room masked_conv2d
    Quantizer        the nearest code, straight-through               room nearest_code    (genmini/swap/quantizer.py)

Making one recognises a module, or raises Unlike with the reason. `run(module, x)` computes by the room, of the tensors
that the module has at that moment, or returns NotImplemented where only its owner knows what to do.
"""

import torch
import torch.nn.functional as F
from torch import nn

from genmini import ops
from genmini.kernels import _live_taps, _spans
from genmini.layers import only_where

from .gate import apart, copy_of, in_float64, perturbed, probe, reason, to
from .masks import degrees, known_degrees, same, unchanged


class Unlike(Exception):
    """Why a module that looks like one that a room computes is none."""


def unlike(why, room):
    error = Unlike(why)
    error.room = room
    return error


def recognise_masked(module, shape):
    """-> a Masked, None if it looks like none.   shape: of an input, if one was given"""
    if not may_be_masked(module):
        return None
    module, why = copy_of(module).eval(), None  # in training, asking a spectral norm for its weight changes it
    child, layer = holder(module)
    for name, mask in masks(module, layer.weight) if layer is not None else ():
        try:
            nested = degrees((mask != 0).expand_as(layer.weight)) if mask.dim() == 2 else None
            kind = MaskedConv2d if mask.dim() == 4 else MaskedLinear if nested else TiledLinear
            return kind(module, child, name, mask, shape)
        except Unlike as error:
            why = why or error
    if why:
        raise why
    return None


def may_be_masked(module):
    """Whether it has, of its own, a matrix or a filter that learns nothing"""
    own = [*module._buffers.values(), *module._parameters.values(), *vars(module).values()]
    return any(isinstance(t, torch.Tensor) and t.dim() in (2, 4) and not t.requires_grad for t in own)


def holder(module):
    """Who has the weight and the bias, and its name: the module, or its only child, an nn.Linear or an nn.Conv2d."""
    children = list(module.named_children())
    if len(children) == 1 and type(children[0][1]) in (nn.Linear, nn.Conv2d):
        return children[0]
    weight = getattr(module, "weight", None)
    ours = isinstance(weight, torch.Tensor) and weight.is_floating_point() and weight.dim() in (2, 4)
    return "", module if ours and hasattr(module, "bias") else None


def masks(module, weight):
    """Names and tensors that have the weight's shape or broadcast to it, and learn nothing."""
    plain = {name: value for name, value in vars(module).items() if isinstance(value, torch.Tensor)}
    for name, mask in {**module._buffers, **module._parameters, **plain}.items():
        if (mask is not None and name not in ("weight", "bias") and not mask.requires_grad and mask.numel() > 1
                and mask.dim() == weight.dim() and mask.shape[-1] == weight.shape[-1]
                and all(size in (1, wanted) for size, wanted in zip(mask.shape, weight.shape, strict=True))):
            yield name, mask


class Room:
    """What is asked of whatever computes in the place of a module

    room: the operator, or a word for what is no operator;  run(module, x): computes, or returns NotImplemented
    dims: of how many dimensions x may be; None: run takes what forward takes
    probes, usual: shapes for the gate, and to time    keep: names of tensors that probes must not change
    counts: of those that are positive, as their owner divides by them    small: probes have small weights
    call(module, x): what is compared and timed, if it is not forward
    """

    keep, counts, small, call = (), (), False, None


class Masked(Room):
    """What the two masked layers share: where the tensors are, the mask that was seen, and how the owner uses it."""

    def __init__(self, module, child, name, mask, shape):
        self.child, self.name, self.keep = child, name, (name,)
        self.size = self.tensors(module)[0].shape
        self.see(mask)
        owner, self.probes = to(perturbed(module, self.keep), torch.float64), []
        for probed in self.shapes(owner, shape):
            weight, bias, mask = self.tensors(owner)
            x, before = probe(probed, torch.float64, mask.device), weight.detach().clone()
            try:
                with in_float64():
                    y = owner.forward(x)
            except Exception as error:  # of a stranger
                if not self.probes:
                    raise self.unlike(f"it cannot be called with {probed}: {reason(error)}") from None
                break  # it takes fewer dimensions than PyTorch's own
            if not torch.equal(weight, before):
                raise self.unlike("it masks its weight in place, and the gradient reaches what is masked: written as "
                                  f"{self.line}, it could be swapped")
            if not close(y, self.definition(x, weight * (mask != 0), bias)):
                raise self.unlike(
                    f"it uses its weight as it is: whoever zeroed it elsewhere may fill it again; {self.line} is safe"
                    if close(y, self.definition(x, weight, bias)) else f"it computes something else than {self.formula}"
                )
            self.probes.append(probed)
        self.dims = {len(probed) for probed in self.probes}

    def tensors(self, module):
        """-> weight, bias, mask"""
        layer = getattr(module, self.child) if self.child else module
        return layer.weight, layer.bias, getattr(module, self.name)

    def unlike(self, why):
        return unlike(why, self.room)

    def fits(self, x, weight, bias, mask):
        """Whether all have the sizes that were probed, and the mask wants no gradient, of which the room has none"""
        return (weight.shape == self.size and x.shape[-1 if len(self.size) == 2 else 1] == self.size[1]
                and (bias is None or bias.dim() == 1 and len(bias) == len(weight))
                and isinstance(mask, torch.Tensor) and not mask.requires_grad and mask.dim() == len(self.size)
                and all(n == 1 or n == size  # where sizes are symbols, torch.compile finds that n is not in (1, n)
                        for n, size in zip(mask.shape, self.size, strict=True)))

    def run(self, module, x):
        weight, bias, mask = self.tensors(module)
        if not self.fits(x, weight, bias, mask):
            return NotImplemented
        if torch.compiler.is_compiling():
            weight = weight + unchanged(mask, self.known).to(weight.dtype)
        elif not self.knows(mask):
            return NotImplemented
        return self.compute(x, weight, bias, mask)

    def see(self, mask):
        """Learn what a mask says."""
        if not ((mask == 0) | (mask == 1)).all():
            raise self.unlike(f"{self.name} holds other numbers than 0 and 1")
        self.learn(mask.detach().expand(self.size) != 0)
        self.known = mask.detach().clone()

    def knows(self, mask):
        """Whether the room can compute with the mask that the module has now, which is learnt if it is another."""
        try:
            if not same(mask, self.known):
                self.see(mask)
        except Unlike:
            return False
        return True


def close(a, b):
    return isinstance(a, torch.Tensor) and a.shape == b.shape and apart(a, b) <= 1e-9


class MaskedLinear(Masked):
    """y_nj = sum_k x_nk W_jk [out_degree_j >= in_degree_k] + b_j"""

    room, formula, line = "masked_linear", "x (W o M)^T + b", "F.linear(x, mask * weight, bias)"

    def learn(self, mask):
        found = degrees(mask)
        if found is None:
            raise self.unlike(f"no degrees describe {self.name}: what its outputs see is not nested")
        self.in_degree, self.out_degree = found

    def definition(self, x, weight, bias):
        return F.linear(x, weight, bias)

    def run(self, module, x):
        weight, bias, mask = self.tensors(module)
        if not self.fits(x, weight, bias, mask):
            return NotImplemented
        if torch.compiler.is_compiling():
            pair = known_degrees(mask, self.known, self.in_degree, self.out_degree)
        elif self.knows(mask):
            pair = self.in_degree, self.out_degree
        else:
            return NotImplemented
        return ops.masked_linear(x, weight, bias, *pair)

    def shapes(self, module, shape):
        K = self.tensors(module)[0].shape[1]
        self.usual = tuple(shape or (256, K))
        return [(7, K), (2, 3, K), *([(2,) * (len(shape) - 1) + (K,)] if shape and len(shape) > 3 else [])]


class TiledLinear(MaskedLinear):
    """y_nj = sum_k x_nk W_jk M_jk + b_j for ROWS outputs at a time, over the inputs that some of them see"""

    room, ROWS = "masked_linear by tiles", 128

    def learn(self, mask):
        live, full = _spans.tiles_of_mask(mask, self.ROWS)
        if live.all():
            raise self.unlike(f"no degrees describe {self.name}: what its outputs see is not nested; and of the tiles "
                              f"of {self.ROWS} x {_spans.SIDE} none is dead")
        nothing = (((0, 0), (0, 0)),)
        self.seen = [seen or nothing for seen in _spans.spans(mask.shape[1], live, full)]

    run = Masked.run

    def compute(self, x, weight, bias, mask):
        biases = [None] * len(self.seen) if bias is None else bias.split(self.ROWS)
        each = zip(weight.split(self.ROWS), mask.expand(self.size).split(self.ROWS), biases, self.seen, strict=True)
        return torch.cat([F.linear(*self.live(x, W, M, seen), b) for W, M, b, seen in each], -1)

    def live(self, x, weight, mask, seen):
        """x and W o M, of the inputs that these outputs see"""
        each = [(x.narrow(-1, *live), weight.narrow(1, *live), mask.narrow(1, *live), some) for live, (_, some) in seen]
        parts = [(x, only_where(M, W) if some else W) for x, W, M, some in each]
        return parts[0] if len(parts) == 1 else [torch.cat(part, -1) for part in zip(*parts, strict=True)]


class MaskedConv2d(Masked):
    """y = x * (K o M) + b over the taps before the centre"""

    room, formula, line = "masked_conv2d", "x * (K o M) + b of images of one size", "F.conv2d(x, mask * weight, ...)"

    def learn(self, mask):
        O, C, kh, kw = mask.shape
        if not {kh, kw} <= {1, 3, 5, 7}:
            raise self.unlike(f"its filter is {kh} x {kw}: the room takes sides of 1, 3, 5 or 7")
        for kind in ("A", "B"):
            for colours in range(1, min(C, O, 4) + 1):
                if torch.equal(_live_taps.mask(O, C, kh, kw, kind, colours, mask.device), mask):
                    self.kind, self.colours = kind, colours
                    return
        raise self.unlike(f"{self.name} is no raster mask of kind A or B")

    def definition(self, x, weight, bias):
        return F.conv2d(x, weight, bias, padding=[side // 2 for side in weight.shape[2:]])

    def compute(self, x, weight, bias, mask):
        return ops.masked_conv2d(x, weight, bias, self.kind, self.colours)

    def shapes(self, module, shape):
        C = self.tensors(module)[0].shape[1]
        self.usual = tuple(shape or (16, C, 28, 28))
        return [(2, C, 9, 6), (1, C, 5, 8)]
