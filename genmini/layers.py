"""The operators as drop-in nn.Modules: PyTorch's constructors and default initialisation, a state_dict that holds all they need.

    MaskedLinear      an nn.Linear that knows degrees (MADE)                     MaskedConv2d   an nn.Conv2d that knows an order (PixelCNN)
    VectorQuantizer   an nn.Embedding that is searched, not indexed (VQ-VAE)     AffineCoupling   a network that stretches space (RealNVP)
"""

import torch
from torch import nn

from genmini import ops
from genmini.kernels import _check


class MaskedLinear(nn.Linear):
    """y_j = sum_k [out_degree_j >= in_degree_k] W_jk x_k + b_j,   > if strict.     (..., K) -> (..., J)

    Degrees are integers, one an input and one an output. Sorted ones are the fast path (kernels/masked_linear.py).
    """

    def __init__(self, in_features, out_features, bias=True, device=None, dtype=None, *, in_degree, out_degree, strict=False):
        super().__init__(in_features, out_features, bias, device, dtype)
        self.register_buffer("in_degree", _degrees("in_degree", in_degree, in_features, device))
        self.register_buffer("out_degree", _degrees("out_degree", out_degree, out_features, device))
        self.strict = strict

    def forward(self, x):
        return ops.masked_linear(x, self.weight, self.bias, self.in_degree, self.out_degree, self.strict)

    def extra_repr(self):
        return f"{super().extra_repr()}, strict={self.strict}"


def _degrees(name, degrees, features, device):
    degrees = torch.as_tensor(degrees)
    if degrees.is_floating_point() or degrees.is_complex() or degrees.dtype == torch.bool:
        raise TypeError(f"{name} must hold integers, got {degrees.dtype}")
    if degrees.shape != (features,):
        raise ValueError(f"{name} must hold one degree a feature, shape ({features},), got {tuple(degrees.shape)}")
    return degrees.detach().to(device=device or torch.get_default_device(), dtype=torch.int64).clone()


class MaskedConv2d(nn.Conv2d):
    """The convolution of PixelCNN, of its input's size: a pixel sees what comes before it, row by row.   (N, C, H, W) -> (N, O, H, W)

    kind "A" hides the pixel itself from itself (the first layer), kind "B" does not (all others). With colours=3 a channel of green also
    sees the red of its own pixel, and blue sees both.
    """

    def __init__(self, in_channels, out_channels, kernel_size, kind="B", colours=1, bias=True, device=None, dtype=None):
        super().__init__(in_channels, out_channels, kernel_size, padding="same", bias=bias, device=device, dtype=dtype)
        self.kind, self.colours = kind, colours
        like = lambda *shape: torch.empty(shape, device="meta")  # the operator's own checks, before the first forward
        ops.masked_conv2d(like(1, in_channels, 1, 1), like(*self.weight.shape), None, kind, colours)

    def forward(self, x):
        if x.dim() == 3:  # one image, as nn.Conv2d takes it too
            return self(x[None])[0]
        return ops.masked_conv2d(x, self.weight, self.bias, self.kind, self.colours)

    def extra_repr(self):
        return f"{super().extra_repr()}, kind={self.kind!r}, colours={self.colours}"


class VectorQuantizer(nn.Module):
    """The nearest of K codes for every vector, the gradient copied straight through.   z (..., D) -> z_q (..., D), index (...), loss (...)

    decay=None: the codebook `weight` (K, D) is a parameter and learns from the loss, ||sg[z] - e||^2 + beta ||z - sg[e]||^2 a vector.
    decay=0.99: each code is instead a moving average of the vectors that chose it, updated by every forward pass in training; the loss then
    only moves z. A code that nobody chooses stays where it is; with revive=50, when no vector of 50 batches in training has chosen it, it is
    put on a random vector of the last of them.
    """

    def __init__(self, num_embeddings, embedding_dim, beta=0.25, decay=None, revive=0, device=None, dtype=None):
        super().__init__()
        _check.whole("num_embeddings", num_embeddings, 1, 2**63 - 1, "the number of codes")
        _check.whole("embedding_dim", embedding_dim, 1, 2**63 - 1, "the length of a code")
        _check.number("beta", beta)
        _check.whole("revive", revive, 0, 2**63 - 1, "a number of batches, or 0 for never")
        if decay is not None:
            _check.number("decay", decay)
            if not 0 <= decay < 1:
                raise ValueError(f"decay must be None or in [0, 1), got {decay}")
        self.num_embeddings, self.embedding_dim, self.beta, self.decay, self.revive = num_embeddings, embedding_dim, beta, decay, revive
        weight = torch.empty(num_embeddings, embedding_dim, device=device, dtype=dtype)
        if decay is None:
            self.weight = nn.Parameter(weight)
        else:  # count and total in at least float32, as code_stats gives them; e_k = total_k / count_k
            wide = torch.promote_types(weight.dtype, torch.float32)
            self.register_buffer("weight", weight)
            self.register_buffer("count", weight.new_empty(num_embeddings, dtype=wide))
            self.register_buffer("total", weight.new_empty(num_embeddings, embedding_dim, dtype=wide))
        if revive:
            self.register_buffer("idle", weight.new_empty(num_embeddings, dtype=torch.int64))  # batches since somebody chose it
        self.reset_parameters()

    def _apply(self, fn, recurse=True):
        """As nn.Module's (half, to, cuda, ...), but count and total stay in at least float32, to the last bit."""
        kept = {} if self.decay is None else dict(count=self.count, total=self.total)
        super()._apply(fn, recurse)
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        for name, before in kept.items():
            if getattr(self, name).dtype != wide:
                setattr(self, name, before.to(getattr(self, name).device, wide))
        return self

    def reset_parameters(self):
        nn.init.normal_(self.weight)  # as nn.Embedding
        if self.decay is not None:
            self.count.fill_(1)
            self.total.copy_(self.weight)
        if self.revive:
            self.idle.zero_()

    def forward(self, z):
        moves = self.training and (self.decay is not None or self.revive > 0)
        # the backward pass needs the codes that were chosen, not those that the updates leave
        z_q, index, loss = ops.quantize(z, self.weight.clone() if moves else self.weight, self.beta)
        if moves and self.decay is not None:
            self._follow(z.detach(), index)
        if moves and self.revive:
            self._revive(z.detach().reshape(-1, self.embedding_dim), index.flatten())
        return z_q, index, loss

    @torch.no_grad()
    def _follow(self, z, index):
        count, total = ops.code_stats(z, index, self.num_embeddings)
        self.count.lerp_(count.to(self.count.dtype), 1 - self.decay)  # count <- decay count + (1 - decay) count of this batch
        self.total.lerp_(total.to(self.total.dtype), 1 - self.decay)
        alive = self.count > 1e-6  # below, both have faded for long: the code stays
        self.weight.copy_(torch.where(alive[:, None], self.total / self.count[:, None], self.weight))

    @torch.no_grad()
    def _revive(self, z, index):  # (N, D), (N,)
        self.idle.add_(1).index_fill_(0, index, 0)
        if not len(z):
            return
        dead = self.idle >= self.revive
        place = torch.randperm(len(z), device=z.device)[torch.arange(self.num_embeddings, device=z.device) % len(z)]  # no two on one vector
        self.weight.copy_(torch.where(dead[:, None], z[place].to(self.weight.dtype), self.weight))
        if self.decay is not None:
            self.count.masked_fill_(dead, 1)
            self.total.copy_(torch.where(dead[:, None], z[place].to(self.total.dtype), self.total))
        self.idle.masked_fill_(dead, 0)

    def extra_repr(self):
        average = "" if self.decay is None else f", decay={self.decay}"
        revived = f", revive={self.revive}" if self.revive else ""
        return f"{self.num_embeddings}, {self.embedding_dim}, beta={self.beta}{average}{revived}"


class AffineCoupling(nn.Module):
    """y = m x + (1-m) (x exp(s) + t) with (s, t) = net(m x), the layer of RealNVP.   (N, ...) -> (N, ...), logdet (N,)

    mask m, shaped like one x: true where x passes through unchanged, and is what the network sees. net(x, *condition) gives s and t, as a
    pair or stacked along dimension 1; both are used where the mask is false. `inverse` undoes `forward`. save="y" is the memory-free
    backward (kernels/affine_coupling.py).
    """

    def __init__(self, net, mask, save="x"):
        super().__init__()
        _check.one_of("save", save, ("x", "y"))
        if mask is None:
            raise TypeError("mask must be an array shaped like one x, true where x passes through, got None")
        self.net, self.save = net, save
        self.register_buffer("mask", torch.as_tensor(mask).bool())

    def forward(self, x, *condition):
        return ops.affine_coupling(x, *self._s_t(x, condition), save=self.save)

    def inverse(self, y, *condition):
        return ops.affine_coupling_inverse(y, *self._s_t(y, condition))  # m y = m x: the network sees what it saw

    def _s_t(self, x, condition):
        if x.shape[1:] != self.mask.shape:
            raise ValueError(f"x must have shape (N, {', '.join(map(str, self.mask.shape))}) as the mask says, got {tuple(x.shape)}")
        out = self.net(x.masked_fill(~self.mask, 0), *condition)
        s, t = out if isinstance(out, tuple | list) else out.chunk(2, 1)
        return s.masked_fill(self.mask, 0), t.masked_fill(self.mask, 0)

    def extra_repr(self):
        return f"mask={tuple(self.mask.shape)}, save={self.save!r}"
