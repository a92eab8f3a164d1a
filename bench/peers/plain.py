"""What the rooms replace, as one writes it in PyTorch: functions with the arguments of those of genmini.ops.

    with instead():
        model.loss(x)      the same network, without rooms
"""

import contextlib
import functools
from unittest import mock

import torch
import torch.nn.functional as F

from genmini import ops


@functools.cache  # a module of plain PyTorch keeps its mask, too
def mask(of_inputs, of_outputs, strict):
    k, j = (torch.tensor(degrees) for degrees in (of_inputs, of_outputs))
    return (j[:, None] > k if strict else j[:, None] >= k).float()


def masked_linear(x, weight, bias, in_degree, out_degree, strict=False):
    M = mask(tuple(in_degree.tolist()), tuple(out_degree.tolist()), strict)
    return F.linear(x, M * weight, bias)


@functools.cache
def taps(kh, kw, kind):
    M = torch.zeros(kh * kw)
    M[: kh * kw // 2 + (kind == "B")] = 1
    return M.view(kh, kw)


def masked_conv2d(x, weight, bias, kind, colours=1):
    assert colours == 1, "grey images only"
    kh, kw = weight.shape[2:]
    return F.conv2d(x, taps(kh, kw, kind) * weight, bias, padding=(kh // 2, kw // 2))


def gaussian_kl(mu, log_var, eps=None, seed=None):
    eps = torch.randn_like(mu) if eps is None else eps
    return mu + (log_var / 2).exp() * eps, 0.5 * (mu.square() + log_var.exp() - 1 - log_var).flatten(1).sum(1)


def softmax_nll(logits, target):
    return F.cross_entropy(logits, target.long(), reduction="none")


def affine_coupling(x, s, t, save="x"):
    return x * s.exp() + t, s.flatten(1).sum(1)


def affine_coupling_inverse(y, s, t):
    return (y - t) * (-s).exp(), -s.flatten(1).sum(1)


def nade_logits(x, W, V, b, c):
    """One pixel after the other, each with one more column of W: the common way in PyTorch."""
    a, logits = c.expand(len(x), -1), []
    for d in range(x.shape[1]):
        logits.append((a.sigmoid() * V[d]).sum(1) + b[d])
        a = a + x[:, d, None] * W[:, d]
    return torch.stack(logits, 1)


def nearest_code(z, codebook):  # |z - e|^2 without |z|^2: faster than torch.cdist, which takes roots
    return torch.addmm(codebook.square().sum(1), z, codebook.T, alpha=-2).argmin(1)


def quantize(z, codebook, beta=0.25):
    index = nearest_code(z.detach().flatten(0, -2), codebook.detach()).view(z.shape[:-1])
    z_q = F.embedding(index, codebook)
    loss = (z.detach() - z_q).square().sum(-1) + beta * (z - z_q.detach()).square().sum(-1)
    return z + (z_q - z).detach(), index, loss


class MovingCodes(torch.nn.Module):
    """layers.VectorQuantizer with a decay: (N, D) -> (N, D), (N,), (N,)"""

    def __init__(self, e, beta=0.25, decay=0.99):
        super().__init__()
        self.e, self.count, self.total, self.beta, self.decay = e.clone(), e.new_ones(len(e)), e.clone(), beta, decay

    def forward(self, z):
        index = nearest_code(z.detach(), self.e)
        z_q = F.embedding(index, self.e)
        loss = self.beta * (z - z_q).square().sum(1)
        with torch.no_grad():
            count, total = code_stats(z, index, len(self.e))
            self.count.lerp_(count.float(), 1 - self.decay)
            self.total.lerp_(total, 1 - self.decay)
            self.e.copy_(self.total / self.count[:, None])
        return z + (z_q - z).detach(), index, loss


def code_stats(z, index, K):
    z, index = z.flatten(0, -2), index.flatten()
    return torch.bincount(index, minlength=K), z.new_zeros(K, z.shape[1]).index_add_(0, index, z)


def group_norm_silu(x, groups, gamma, beta, scale=None, shift=None, eps=1e-5):
    y = F.group_norm(x, groups, gamma, beta, eps)
    each = (*x.shape[:2], *(1 for _ in x.shape[2:]))
    return F.silu(y if scale is None else (1 + scale.view(each)) * y + shift.view(each))


FORMS = (masked_linear, masked_conv2d, gaussian_kl, softmax_nll, affine_coupling, affine_coupling_inverse, nade_logits,
         quantize, code_stats, group_norm_silu)


@contextlib.contextmanager
def instead():
    """Models compute by these functions inside."""
    with contextlib.ExitStack() as stack:
        for function in FORMS:
            stack.enter_context(mock.patch.object(ops, function.__name__, function))
        yield
