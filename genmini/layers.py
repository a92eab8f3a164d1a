"""nn.Modules over the operators, with constructors and default initialisations like those of PyTorch's own.

    MaskedLinear      an nn.Linear whose weights are masked by degrees (MADE)
    MaskedConv2d      an nn.Conv2d that reads only the pixels before (PixelCNN)
    VectorQuantizer   replaces a vector by the nearest of K codes (VQ-VAE)
    GroupNormSiLU     an nn.GroupNorm and silu, with a scale and a shift between them if wanted (the U-Net)
    AffineCoupling    scales and shifts half of the variables by what a network computes from the others (RealNVP)
    SplineCoupling    bends each of that half by a spline instead

The state_dict of a layer holds its weights, degrees, mask and moving averages.
"""

import torch
from torch import distributed, nn

from genmini import ops
from genmini.kernels import _check


class MaskedLinear(nn.Linear):
    """y_j = sum_k [out_degree_j >= in_degree_k] W_jk x_k + b_j,   > if strict.     (..., K) -> (..., J)

    Degrees are integers, one for each input and one for each output. Sorted degrees are computed fastest
    (kernels/masked_linear.py).
    """

    def __init__(
        self, in_features, out_features, bias=True, device=None, dtype=None, *, in_degree, out_degree, strict=False
    ):
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
    """The convolution of PixelCNN: an output pixel reads the pixels before it, row by row.

    (N, C, H, W) -> (N, O, H, W)
    With kind "A" (the first layer) an output does not read its own pixel, with kind "B" (all others) it does. With
    colours=3 a green output also reads the red of its own pixel, and a blue one reads both.
    """

    def __init__(self, in_channels, out_channels, kernel_size, kind="B", colours=1, bias=True, device=None, dtype=None):
        super().__init__(in_channels, out_channels, kernel_size, padding="same", bias=bias, device=device, dtype=dtype)
        self.kind, self.colours = kind, colours
        like = lambda *shape: torch.empty(shape, device="meta")  # runs the operator's checks now
        ops.masked_conv2d(like(1, in_channels, 1, 1), like(*self.weight.shape), None, kind, colours)

    def forward(self, x):
        if self.kernel_size == (1, 1) and self.kind == "B" and self.colours == 1:  # no tap is dead
            return super().forward(x)
        if x.dim() == 3:  # one image, which nn.Conv2d takes too
            return self(x[None])[0]
        return ops.masked_conv2d(x, self.weight, self.bias, self.kind, self.colours)

    def extra_repr(self):
        return f"{super().extra_repr()}, kind={self.kind!r}, colours={self.colours}"


class VectorQuantizer(nn.Module):
    """Replace every vector by the nearest of K codes.   z (..., D) -> z_q (..., D), index (...), loss (...)

    The gradient of z_q is passed on to z unchanged.
    decay=None: the codebook `weight` (K, D) is a parameter and learns from the loss, which is
    ||sg[z] - e||^2 + beta ||z - sg[e]||^2 for each vector.
    decay=0.99: each code is instead a moving average of the vectors whose nearest code it is, updated by every forward
    pass in training; the loss then moves only z. A code that is not used stays as it is. With revive=50, a code that
    no vector used in 50 batches of training is set to a random vector of the last of these batches.
    Where torch.distributed joins processes, a batch is that of all of them: each must call the layer in training.
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
        self.num_embeddings, self.embedding_dim, self.beta, self.decay, self.revive = (
            num_embeddings, embedding_dim, beta, decay, revive
        )
        weight = torch.empty(num_embeddings, embedding_dim, device=device, dtype=dtype)
        if decay is None:
            self.weight = nn.Parameter(weight)
        else:  # count and total in at least float32, as code_stats gives them; e_k = total_k / count_k
            wide = torch.promote_types(weight.dtype, torch.float32)
            self.register_buffer("weight", weight)
            self.register_buffer("count", weight.new_empty(num_embeddings, dtype=wide))
            self.register_buffer("total", weight.new_empty(num_embeddings, embedding_dim, dtype=wide))
        if revive:  # idle: the batches since a code was last used
            self.register_buffer("idle", weight.new_empty(num_embeddings, dtype=torch.int64))
        self.reset_parameters()

    def _apply(self, fn, recurse=True):
        """What half, to, cuda, ... call: as nn.Module's, but count and total stay in at least float32, unrounded."""
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
        # the updates below change weight in place, and the backward pass needs the codes from before
        z_q, index, loss = ops.quantize(z, self.weight.clone() if moves else self.weight, self.beta)
        if moves and self.decay is not None:
            self._follow(z.detach(), index)
        if moves and self.revive:
            self._revive(z.detach().reshape(-1, self.embedding_dim), index.flatten())
        return z_q, index, loss

    @torch.no_grad()
    def _follow(self, z, index):
        count, total = map(of_all_processes, ops.code_stats(z, index, self.num_embeddings))
        # count <- decay count + (1 - decay) count of this batch; total likewise
        self.count.lerp_(count.to(self.count.dtype), 1 - self.decay)
        self.total.lerp_(total.to(self.total.dtype), 1 - self.decay)
        each, weight = self.count[:, None], self.weight
        # a smaller count would divide by nearly 0: the code stays
        torch.where(each > 1e-6, (self.total / each).to(weight.dtype), weight, out=weight)

    @torch.no_grad()
    def _revive(self, z, index):  # (N, D), (N,)
        used = torch.zeros_like(self.idle).index_fill_(0, index, 1)
        self.idle.add_(1).masked_fill_(of_all_processes(used) > 0, 0)
        k = torch.arange(self.num_embeddings, device=z.device)
        # distinct vectors, as far as there are enough; of P processes, process p gives those of the codes p, p + P, ...
        place = torch.randperm(len(z), device=z.device)[k % len(z)] if len(z) else k
        P, p = (distributed.get_world_size(), distributed.get_rank()) if joined() else (1, 0)
        gives = (k % P == p) & (len(z) > 0)
        given = z[place] if len(z) else z.new_zeros(self.weight.shape)
        given = of_all_processes(torch.where(gives[:, None], given, 0))
        unused = (self.idle >= self.revive) & (of_all_processes(gives.long()) > 0)
        self.weight.copy_(torch.where(unused[:, None], given.to(self.weight.dtype), self.weight))
        if self.decay is not None:
            self.count.masked_fill_(unused, 1)
            self.total.copy_(torch.where(unused[:, None], given.to(self.total.dtype), self.total))
        self.idle.masked_fill_(unused, 0)

    def extra_repr(self):
        average = "" if self.decay is None else f", decay={self.decay}"
        revived = f", revive={self.revive}" if self.revive else ""
        return f"{self.num_embeddings}, {self.embedding_dim}, beta={self.beta}{average}{revived}"


def joined():
    """Whether torch.distributed joins this process with others."""
    return distributed.is_available() and distributed.is_initialized()


def of_all_processes(tensor):
    """The sum over all processes that torch.distributed joins, in the memory of the tensor."""
    if joined():
        distributed.all_reduce(tensor)
    return tensor


class GroupNormSiLU(nn.GroupNorm):
    """silu((1 + scale) norm(x) + shift), norm an nn.GroupNorm.   (N, C, ...), scale and shift (N, C) -> (N, C, ...)

    Without scale and shift they are 0.
    """

    def __init__(self, num_groups, num_channels, eps=1e-5, device=None, dtype=None):
        super().__init__(num_groups, num_channels, eps, device=device, dtype=dtype)

    def forward(self, x, scale=None, shift=None):
        return ops.group_norm_silu(x, self.num_groups, self.weight, self.bias, scale, shift, self.eps)


def only_where(mask, x):
    """x where the mask is true, 0 elsewhere, whatever x is there: the derivative of a threshold, which takes a fifth of
    the time of masked_fill, as a product does, but a product keeps NaN."""
    return torch.ops.aten.threshold_backward(x, mask.to(x.dtype), 0)


class AffineCoupling(nn.Module):
    """y = m x + (1-m) (x exp(s) + t) with (s, t) = net(m x), the layer of RealNVP.   (N, ...) -> (N, ...), logdet (N,)

    The mask m has the shape of one x and is true where x passes through unchanged; the network reads x there.
    net(x, *condition) gives s and t, as a pair or stacked along dimension 1; both are used where the mask is false.
    `inverse` undoes `forward`. save="y" keeps y for the backward pass instead of x (kernels/affine_coupling.py).
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
        return ops.affine_coupling_inverse(y, *self._s_t(y, condition))  # m y = m x: the same s and t

    def _s_t(self, x, condition):
        if x.shape[1:] != self.mask.shape:
            raise ValueError(
                f"x must have shape (N, {', '.join(map(str, self.mask.shape))}) as the mask says, got {tuple(x.shape)}"
            )
        out = self.net(only_where(self.mask, x), *condition)
        s, t = out if isinstance(out, tuple | list) else out.chunk(2, 1)
        return only_where(~self.mask, s), only_where(~self.mask, t)

    def extra_repr(self):
        return f"mask={tuple(self.mask.shape)}, save={self.save!r}"


class SplineCoupling(nn.Module):
    """y = x where the mask is true, and a monotonic spline of x elsewhere.   (N, ...) -> (N, ...), logdet (N,)

    The mask has the shape of one x and is true where x passes through unchanged; the network reads x there. A spline
    has `bins` bins on [-reach, reach] and is the identity beyond. net(x, *condition) gives its 3 bins - 1 parameters,
    those of a channel side by side: (N, C (3 bins - 1), ...) of x (N, C, ...); they are used where the mask is false.
    All parameters 0 are the identity. `inverse` undoes `forward`.
    """

    def __init__(self, net, mask, bins=8, reach=5.0):
        super().__init__()
        if mask is None:
            raise TypeError("mask must be an array shaped like one x, true where x passes through, got None")
        _check.whole("bins", bins, 2, 64, "a number of bins")
        _check.number("reach", reach, 1e-3, 1e3)
        self.net, self.bins, self.reach = net, bins, reach
        self.register_buffer("mask", torch.as_tensor(mask).bool())

    def forward(self, x, *condition):
        return self._couple(ops.spline_coupling, x, condition)

    def inverse(self, y, *condition):
        return self._couple(ops.spline_coupling_inverse, y, condition)  # m y = m x: the same parameters

    def _couple(self, operator, x, condition):
        if x.shape[1:] != self.mask.shape:
            raise ValueError(
                f"x must have shape (N, {', '.join(map(str, self.mask.shape))}) as the mask says, got {tuple(x.shape)}"
            )
        w = self.net(only_where(self.mask, x), *condition).unflatten(1, (x.shape[1], 3 * self.bins - 1))
        beyond = torch.where(self.mask, 2 * self.reach, x)  # what passes through has slope 1, and no gradient of w
        y, logdet = operator(beyond, w.movedim(2, -1), self.reach)
        return torch.where(self.mask, x, y), logdet

    def extra_repr(self):
        return f"mask={tuple(self.mask.shape)}, bins={self.bins}, reach={self.reach}"
