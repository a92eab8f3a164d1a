"""Quantisers in the manner of two libraries, with the names of their tensors and options: for test_swap_known.py."""

import torch
import torch.nn.functional as F
from torch import nn


class Sampler:
    """What functools.partial is to the library: options of how codes are chosen"""

    def __init__(self, **keywords):
        self.keywords = keywords


class Codebook(nn.Module):
    num_codebooks, affine_param, vq_bridge, has_dead_code_replacement = 1, False, None, False
    manual_ema_update, use_cosine_sim = False, False

    def __init__(self, K, D, learnt):
        super().__init__()
        e = torch.rand(1, K, D)
        self.codebook_size, self.decay, self.ema_update, self.learnable_codebook = K, 0.8, not learnt, learnt
        self.use_ddp, self.gumbel_sample = False, Sampler(stochastic=False, straight_through=False)
        self.register_buffer("initted", torch.tensor(True))
        self.register_buffer("cluster_size", torch.ones(1, K))
        self.register_buffer("embed_avg", e.clone())
        self.embed = nn.Parameter(e) if learnt else nn.Buffer(e)

    def update_ema(self):
        self.embed.data.copy_(self.embed_avg / self.cluster_size[..., None])

    def follow(self, x, one_hot):
        self.cluster_size.data.lerp_(one_hot.sum(0)[None], 1 - self.decay)
        self.embed_avg.data.lerp_((one_hot.t() @ x.detach()).to(x.dtype)[None], 1 - self.decay)
        self.update_ema()

    def forward(self, x):
        flat, e = x.reshape(-1, x.shape[-1]), self.embed[0] if self.learnable_codebook else self.embed[0].detach()
        index = torch.cdist(flat, e).argmin(1)
        one_hot = F.one_hot(index, len(e)).to(x.dtype)
        z_q = (one_hot @ e).view(x.shape)
        if self.training and self.ema_update:
            self.follow(flat, one_hot)
        return z_q, index.view(x.shape[:-1])


class VectorQuantize(nn.Module):
    """vector-quantize-pytorch"""

    heads, sync_update_v, accept_image_fmap, accept_3d_fmap, channel_last = 1, 0.0, False, False, True
    use_cosine_sim = directional_reparam = commitment_use_cross_entropy_loss = has_codebook_orthogonal_loss = False
    has_codebook_diversity_loss, in_place_codebook_optimizer, has_commitment_loss = False, None, True
    freeze_codebook, route_gradients_to_input = False, True

    def __init__(self, K, D, learnt=False, rotation_trick=True):
        super().__init__()
        self.dim, self.commitment_weight, self.learnable_codebook = D, 1.5, learnt
        self.rotation_trick, self._codebook = rotation_trick, Codebook(K, D, learnt)
        self.project_in, self.project_out = nn.Identity(), nn.Identity()
        self.register_buffer("zero", torch.tensor(0.0), persistent=False)

    def forward(self, x, mask=None):
        z = self.project_in(x)
        z_q, index = self._codebook(z)
        loss = self.zero
        if self.training:
            code = z_q if self.learnable_codebook else z_q.detach()
            if x.requires_grad:
                z_q = rotated(z, z_q) if self.rotation_trick else z + (z_q - z).detach()
            loss.requires_grad_()
            loss = loss + self.commitment_weight * F.mse_loss(code, z)
        return self.project_out(z_q if mask is None else z_q * mask[..., None]), index, loss


def rotated(z, e):
    """By the matrix R of each vector"""
    unit = lambda v: (v / v.norm(dim=-1, keepdim=True)).detach()
    w = unit(unit(z) + unit(e))
    outer = lambda a, b: a[..., :, None] * b[..., None, :]
    R = torch.eye(z.shape[-1], dtype=z.dtype) - 2 * outer(w, w) + 2 * outer(unit(e), unit(z))
    return (R @ z[..., None])[..., 0] * (e.norm(dim=-1, keepdim=True) / z.norm(dim=-1, keepdim=True)).detach()


class Twice(Codebook):
    """Its codes move by another rule."""

    def follow(self, x, one_hot):
        super().follow(x, 2 * one_hot)


class Moving(VectorQuantize):
    def __init__(self, K, D):
        super().__init__(K, D)
        self._codebook = Twice(K, D, learnt=False)


class Louder(VectorQuantize):
    """Another loss, in training"""

    def forward(self, x, mask=None):
        z_q, index, loss = super().forward(x, mask)
        return z_q, index, loss * 2 if self.training else loss


class ModelOutput(dict):
    pass


class QuantizerEMA(nn.Module):
    """pythae"""

    def __init__(self, K, D):
        super().__init__()
        self.embedding_dim, self.num_embeddings, self.commitment_loss_factor, self.decay = D, K, 0.25, 0.99
        self.register_buffer("cluster_size", torch.zeros(K))
        self.register_buffer("ema_embed", torch.rand(K, D))
        self.register_buffer("embeddings", torch.rand(K, D))

    def forward(self, z, uses_ddp=False):
        flat = z.reshape(-1, self.embedding_dim)
        index = torch.cdist(flat, self.embeddings).argmin(1)
        one_hot = F.one_hot(index, self.num_embeddings).to(z.dtype)
        code = (one_hot @ self.embeddings).view(z.shape)
        if self.training:
            size = self.cluster_size * self.decay + one_hot.sum(0) * (1 - self.decay)
            n = size.sum()
            self.cluster_size = (size + 1e-5) / (n + self.num_embeddings * 1e-5) * n
            total = self.ema_embed * self.decay + (one_hot.t() @ flat.detach()) * (1 - self.decay)
            self.embeddings.data.copy_(total / self.cluster_size[:, None])
            self.ema_embed.data.copy_(total)
        return ModelOutput(quantized_vector=(z + (code - z).detach()).permute(0, 3, 1, 2),
                           quantized_indices=index.view(z.shape[:-1]).unsqueeze(1),
                           loss=F.mse_loss(code, z) * self.commitment_loss_factor)
