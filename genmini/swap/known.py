"""Quantisers of libraries whose tensors do not tell what they do: known by the path of their class and by its release.

    vector_quantize_pytorch   VectorQuantize   codes that are moving averages, or learnt; straight-through, or rotated
    pythae                    QuantizerEMA     codes that are moving averages

An entry knows which tensors are which. It has no other rights: what it makes of a module passes the same probes
(genmini/swap/gate.py), outputs, gradients and the state after a call. A class of another release is left, and its
subclasses are other classes. What a class can do beyond this, an option or an argument, its owner computes.
"""

import importlib.metadata
import sys

import torch
import torch.nn.functional as F

from genmini import ops

from .rooms import Room, unlike


def recognise_known(module, shape):
    """-> what an entry makes of the module, None if there is no entry.   shape: of an input, if one was given"""
    return made_by(ENTRIES, module, shape)


def made_by(entries, module, shape):
    kind = type(module)
    if (entry := entries.get(f"{kind.__module__}.{kind.__qualname__}")) is None:
        return None
    package, releases, make = entry
    if (release := importlib.metadata.version(package)) not in releases:
        raise unlike(f"it is of {package} {release}; known are {', '.join(releases)}", make.room)
    return make(module, shape)


def rotated(z, e, eps=1e-6):
    """e in value; towards z the gradient is that of |e| / |z| R z, R the rotation of z onto e.   (N, D) twice -> (N, D)

    The rotation trick, Fifty et al. 2024: R = I - 2 w w^T + 2 (e/|e|) (z/|z|)^T, w half way between; R is a constant.
    """
    with torch.no_grad():
        long = lambda v: v.norm(dim=1, keepdim=True)
        of_z, of_e = z / long(z).clamp(min=eps), e / long(e).clamp(min=eps)
        w = F.normalize(of_z + of_e, dim=1, eps=eps)
        scale = long(e) / long(z).clamp(min=eps)
    along = lambda v: (v * z).sum(1, keepdim=True)
    return scale * (z - 2 * along(w) * w + 2 * along(of_z) * of_e)


def theirs(module, name):
    """A function or a class that stands beside the module's class"""
    return getattr(sys.modules[type(module).__module__], name)


class Known(Room):
    """What the entries share."""

    room = "nearest_code"

    def unlike(self, why):
        return unlike(why, self.room)


class VectorQuantize(Known):
    """x (N, D), (N, T, D), or images -> x_q, index, loss = commitment_weight mean |sg[e] - x|^2 in training, else 0"""

    counts = ("_codebook.cluster_size",)
    WITHOUT = {  # {option: its value in what is known}
        "heads": 1, "use_cosine_sim": False, "directional_reparam": False, "sync_update_v": 0.0,
        "commitment_use_cross_entropy_loss": False, "has_codebook_orthogonal_loss": False,
        "has_codebook_diversity_loss": False, "in_place_codebook_optimizer": None,
    }
    OF_CODEBOOK = {"num_codebooks": 1, "affine_param": False, "vq_bridge": None, "use_ddp": False,
                   "has_dead_code_replacement": False, "use_cosine_sim": False}

    def __init__(self, module, shape):
        book = module._codebook
        for part, options in ((module, self.WITHOUT), (book, self.OF_CODEBOOK)):
            for name, value in options.items():
                if getattr(part, name) != value:
                    raise self.unlike(f"{name}={str(getattr(part, name))[:40]} is none of the options known here")
        if any(book.gumbel_sample.keywords.values()):
            raise self.unlike("its codes are drawn, not the nearest")
        if not book.initted:
            raise self.unlike("its codes wait for the first batch")
        D = module.dim
        if module.accept_image_fmap:
            self.probes, self.usual = [(2, D, 3, 4), (3, D, 2, 2)], (16, D, 16, 16)
        elif module.accept_3d_fmap:
            self.probes, self.usual = [(2, D, 3, 2, 2)], (4, D, 8, 8, 8)
        elif module.channel_last:
            self.probes, self.usual = [(11, D), (3, 5, D)], (16, 256, D)
        else:
            self.probes, self.usual = [(3, D, 5)], (16, D, 256)
        self.usual, self.dims = tuple(shape or self.usual), {len(probed) for probed in self.probes}

    def run(self, module, x):
        book = module._codebook
        e = book.embed[0] if book.learnable_codebook else book.embed[0].detach()  # (K, D)
        counted = book.cluster_size.grad is None and book.embed_avg.grad is None  # else their owner adds these
        if x.dtype != e.dtype or torch.is_autocast_enabled(x.device.type) or not counted:
            return NotImplemented
        first = x.dim() > 2 and not (module.channel_last and not module.accept_image_fmap and not module.accept_3d_fmap)
        z = module.project_in(x.movedim(1, -1) if first else x)  # (..., D)
        flat = z.reshape(-1, z.shape[-1])  # (N, D)
        index = ops.nearest_code(flat, e)  # (N,)
        z_q, loss = F.embedding(index, e), module.zero
        if module.training:
            if not module.freeze_codebook:
                self.follow(book, flat.detach(), index)
            code = z_q if module.learnable_codebook and not module.freeze_codebook else z_q.detach()
            if x.requires_grad and module.route_gradients_to_input:
                z_q = rotated(flat, z_q) if module.rotation_trick else flat + (z_q - flat).detach()
            loss.requires_grad_()
            if module.has_commitment_loss:
                loss = loss + F.mse_loss(code, flat) * module.commitment_weight
        z_q = module.project_out(z_q.view(z.shape))
        return z_q.movedim(-1, 1) if first else z_q, index.view(z.shape[:-1]), loss

    @torch.no_grad()
    def follow(self, book, z, index):
        """Codes as moving averages: of how many vectors have each, and of their sum."""
        if not book.ema_update:
            return
        count, total = ops.code_stats(z, index, book.codebook_size)
        book.cluster_size.data.lerp_(count.to(z.dtype)[None], 1 - book.decay)
        book.embed_avg.data.lerp_(total.to(z.dtype)[None], 1 - book.decay)
        if not book.manual_ema_update:
            book.update_ema()


class QuantizerEMA(Known):
    """z (N, H, W, D) -> an output of z_q (N, D, H, W), index (N, 1, H, W), loss = c mean |sg[e] - z|^2"""

    counts = ("cluster_size",)

    def __init__(self, module, shape):
        D = module.embedding_dim
        self.probes, self.dims = [(2, 5, 3, D), (3, 2, 4, D)], {4}
        self.usual = tuple(shape or (16, 16, 16, D))

    def run(self, module, z):
        e = module.embeddings
        if z.dtype != e.dtype or torch.is_autocast_enabled(z.device.type):
            return NotImplemented
        flat = z.reshape(-1, z.shape[-1])
        index = ops.nearest_code(flat, e)
        code = F.embedding(index, e).view(z.shape)
        if module.training:
            self.follow(module, flat.detach(), index)
        return theirs(module, "ModelOutput")(
            quantized_vector=(z + (code - z).detach()).permute(0, 3, 1, 2),
            quantized_indices=index.view(z.shape[:-1]).unsqueeze(1),
            loss=F.mse_loss(code, z) * module.commitment_loss_factor,
        )

    @torch.no_grad()
    def follow(self, module, z, index):
        K, decay = module.num_embeddings, module.decay
        count, total = ops.code_stats(z, index, K)
        size = module.cluster_size * decay + count.to(z.dtype) * (1 - decay)
        n = size.sum()
        module.cluster_size = (size + 1e-5) / (n + K * 1e-5) * n
        module.ema_embed.data.copy_(module.ema_embed * decay + total.to(z.dtype) * (1 - decay))
        module.embeddings.data.copy_(module.ema_embed / module.cluster_size.unsqueeze(-1))


ENTRIES = {  # {path of a class: (package, the releases that were read, what it becomes)}
    "vector_quantize_pytorch.vector_quantize_pytorch.VectorQuantize": (
        "vector-quantize-pytorch", ("1.32.0",), VectorQuantize),
    "pythae.models.vq_vae.vq_vae_utils.QuantizerEMA": ("pythae", ("0.1.2",), QuantizerEMA),
}
