"""Modules as people write them who have never heard of genmini, and some that only look so: for test_swap.py."""

import collections

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def staircase(J, K, strict=False):
    """A mask of MADE with sorted degrees"""
    out, in_ = torch.arange(J)[:, None] * K, torch.arange(K) * J
    return ((out > in_) if strict else (out >= in_)).float()


class Masked(nn.Linear):
    """The usual one."""

    def __init__(self, K, J, bias=True):
        super().__init__(K, J, bias)
        self.register_buffer("mask", staircase(J, K))

    def forward(self, x):
        return F.linear(x, self.mask * self.weight, self.bias)


class MaskedBySetting(nn.Linear):
    """Its mask is set later, from numpy, through .data."""

    def __init__(self, K, J):
        super().__init__(K, J)
        self.register_buffer("mask", torch.ones(J, K))

    def set_mask(self, mask):
        self.mask.data.copy_(torch.from_numpy(mask.astype(np.uint8)))

    def forward(self, input):
        return F.linear(input, self.mask * self.weight, self.bias)


class MaskedWrapper(nn.Module):
    """It has an nn.Linear, and a boolean mask."""

    def __init__(self, K, J):
        super().__init__()
        self.linear = nn.Linear(K, J)
        self.register_buffer("m", staircase(J, K, strict=True).bool(), persistent=False)

    def forward(self, x):
        return x @ torch.where(self.m, self.linear.weight, 0.0).t() + self.linear.bias


class MaskedFromScratch(nn.Module):
    """Its own weight, a mask that is a parameter without gradient."""

    def __init__(self, K, J):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(J, K) / K**0.5), nn.Parameter(torch.zeros(J))
        self.mask = nn.Parameter(staircase(J, K), requires_grad=False)

    def forward(self, x):
        return torch.addmm(self.bias, x, (self.weight * self.mask).t())


class Local(Masked):
    """An output sees the inputs around its place: they are not nested."""

    def __init__(self, K, J):
        super().__init__(K, J)
        self.mask.copy_((torch.arange(J)[:, None] * K // J - torch.arange(K)).abs() < 10)


class MaskedInPlace(Masked):
    def forward(self, x):
        self.weight.data *= self.mask
        return F.linear(x, self.weight, self.bias)


class MaskedOnce(Masked):
    """Zeroed when it is made; a hook keeps it so."""

    def __init__(self, K, J):
        super().__init__(K, J)
        self.weight.data *= self.mask
        self.weight.register_hook(lambda gradient: gradient * self.mask)

    def forward(self, x):
        return F.linear(x, self.weight, self.bias)


class Scaled(Masked):
    """A factor, 1 when it is made"""

    def __init__(self, K, J, learnt=True):
        super().__init__(K, J)
        self.scale = nn.Parameter(torch.ones(J)) if learnt else None
        if not learnt:
            self.register_buffer("factor", torch.ones(()))

    def forward(self, x):
        return super().forward(x) * (self.factor if self.scale is None else self.scale)


class Dropped(Masked):
    def forward(self, x):
        return super().forward(F.dropout(x, 0.5, self.training))


class Cycling(Masked):
    """Its mask changes at every call in training."""

    def forward(self, x):
        if self.training:
            self.mask.copy_(self.mask.roll(1, 0))
        return super().forward(x)


class Resampled(Masked):
    """A mask of its own for each call"""

    def forward(self, x):
        return F.linear(x, (torch.rand(self.weight.shape) < 0.5) * self.mask * self.weight, self.bias)


class MaskedConv(nn.Conv2d):
    """The usual one, kind A or B."""

    def __init__(self, kind, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("mask", torch.ones_like(self.weight))
        *_, kh, kw = self.weight.shape
        self.mask[:, :, kh // 2, kw // 2 + (kind == "B") :] = 0
        self.mask[:, :, kh // 2 + 1 :] = 0

    def forward(self, x):
        return self._conv_forward(x, self.weight * self.mask, self.bias)


class MaskedConvBroadcast(nn.Module):
    """It has an nn.Conv2d, and a mask (1, 1, kh, kw)."""

    def __init__(self, c_in, c_out, mask):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, mask.shape, padding="same")
        self.register_buffer("mask", mask[None, None])

    def forward(self, x):
        return F.conv2d(x, self.conv.weight * self.mask, self.conv.bias, padding="same")


class MaskedConvInPlace(MaskedConv):
    def forward(self, x):
        self.weight.data *= self.mask
        return self._conv_forward(x, self.weight, self.bias)


class VectorQuantizer(nn.Module):
    """Images, by products with one-hot vectors: (N, D, H, W) -> loss, z_q, perplexity, one-hot"""

    def __init__(self, K, D, beta=0.25):
        super().__init__()
        self.K, self.D, self.beta = K, D, beta
        self.embedding = nn.Embedding(K, D)

    def forward(self, inputs):
        inputs = inputs.permute(0, 2, 3, 1).contiguous()
        flat = inputs.view(-1, self.D)
        away = (flat**2).sum(1, keepdim=True) + (self.embedding.weight**2).sum(1) - 2 * flat @ self.embedding.weight.t()
        index = away.argmin(1).unsqueeze(1)
        one_hot = torch.zeros(index.shape[0], self.K, device=inputs.device).scatter_(1, index, 1)
        z_q = (one_hot @ self.embedding.weight).view(inputs.shape)
        loss = F.mse_loss(z_q, inputs.detach()) + self.beta * F.mse_loss(z_q.detach(), inputs)
        z_q = inputs + (z_q - inputs).detach()
        p = one_hot.mean(0)
        perplexity = torch.exp(-torch.sum(p * torch.log(p + 1e-10)))
        return loss, z_q.permute(0, 3, 1, 2).contiguous(), perplexity, one_hot


class Out(collections.OrderedDict):
    """A dictionary of a class of its own"""

    z_q, loss = property(lambda self: self["z_q"]), property(lambda self: self["loss"])


class Codes(nn.Module):
    """Vectors, torch.cdist, its own parameter: (..., D) -> Out"""

    def __init__(self, K, D):
        super().__init__()
        self.codebook = nn.Parameter(torch.randn(K, D))

    def forward(self, z):
        index = torch.cdist(z.flatten(0, -2), self.codebook).argmin(-1).view(z.shape[:-1])
        z_q = F.one_hot(index, len(self.codebook)).to(z.dtype) @ self.codebook
        loss = (z_q - z.detach()).pow(2).mean() + 0.5 * (z_q.detach() - z).pow(2).mean()
        return Out(z_q=z + (z_q - z).detach(), index=index, loss=loss)


class Averaged(nn.Module):
    """Codes are moving averages."""

    def __init__(self, K, D):
        super().__init__()
        self.register_buffer("codes", torch.randn(K, D))
        self.register_buffer("count", torch.ones(K))

    def forward(self, z):
        index = torch.cdist(z, self.codes).argmin(-1)
        if self.training:
            used = F.one_hot(index, len(self.codes)).to(z.dtype)
            self.count.mul_(0.99).add_(used.sum(0), alpha=0.01)
            self.codes.mul_(0.99).add_(used.t() @ z.detach() / self.count[:, None], alpha=0.01)
        z_q = self.codes[index]
        return z + (z_q - z).detach(), index, 0.25 * F.mse_loss(z_q.detach(), z)


class Farthest(Codes):
    def forward(self, z):
        return z + (self.codebook[torch.cdist(z, self.codebook).argmax(-1)] - z).detach()


class LastToFirst(nn.Module):
    """Images with D last -> z_q with D first, index (N, 1, H, W), loss; it takes a word that nobody gives"""

    def __init__(self, K, D):
        super().__init__()
        self.embeddings = nn.Embedding(K, D)

    def forward(self, z, detached=False):
        flat = z.reshape(-1, z.shape[-1])
        index = torch.cdist(flat, self.embeddings.weight).argmin(1).reshape(z.shape[0], z.shape[1], z.shape[2])
        z_q = self.embeddings(index)
        loss = 0.5 * F.mse_loss(z_q.detach(), z) + F.mse_loss(z_q, z.detach())
        z_q = z_q.detach() if detached else z + (z_q - z).detach()
        return {"z_q": z_q.permute(0, 3, 1, 2), "index": index.unsqueeze(1), "loss": loss}
