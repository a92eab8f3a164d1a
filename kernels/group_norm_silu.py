"""How is each group of channels brought to mean 0 and deviation 1, and through silu, in one pass over memory?

Group normalisation (Wu, He 2018, eq. 1 and 6) and then silu, u sigma(u) (Hendrycks, Gimpel 2016), before each
convolution of a U-Net. Between them the time of a diffusion may scale and shift channels (Dhariwal, Nichol 2021, 4.1).

    kernels: below, kernels/_groups.py, csrc/group_norm_silu.cpp    layer: genmini.layers.GroupNormSiLU
    test: tests/kernels/test_group_norm_silu.py    bench: bench/bench_group_norm_silu.py

Math
    z_ncp = (x_ncp - mean_ng) r_ng,   r_ng = (var_ng + eps)^(-1/2);   a group g has C/G channels c, R = C/G P numbers
    u_ncp = (1 + s_nc) (gamma_c z_ncp + beta_c) + b_nc = w_nc z_ncp + ...        scale s and shift b: 0 if not given
    y_ncp = u_ncp sigma(u_ncp)
    gradient, from dy:
        du = dy sigma(u) (1 + u (1 - sigma(u))),   A_nc = sum_p du z,   B_nc = sum_p du
        dx = r (w du - c1 - z c2),    c1_ng = 1/R sum_{c in g} w B,   c2_ng = 1/R sum_{c in g} w A
        dgamma_c = sum_n (1 + s) A    dbeta_c = sum_n (1 + s) B    ds = gamma A + beta B    db = B
    Statistics take two passes (kernels/_groups.py). `stats` keeps the mean m, that of x - m, its rounding, and r.
    One number a group: z = 0, dx = 0.   A group with NaN or infinity is NaN, and so is y where u = -inf.

Shapes
    x, y (N, C, ...), P numbers a channel; gamma, beta (C); scale, shift (N, C)

Traffic
    A number is w bytes. Forward 1 in + 1 out = 2w, gradient x, dy in, dx out = 3w: if a group is held in registers, or
    in a CPU's first cache. Eager PyTorch reads x twice, writes and reads it: 5w with silu, 4w more for scale and shift;
    the gradient 3w for silu, 6w for the norm, 7w more for scale and shift. Memory binds; on a CPU the exponential.

Tiling
    A program owns a group of an image, which lies in one piece. A last kernel sums dgamma and dbeta over n, in order.
    naive     a program walks along its group, and loads its elements three times forward, twice backward
    held      a program holds its group in registers, (channels, pixels), and loads each number once: a third of the
              elements forward, half backward (DRAM stays if a cache holds a group); a long group goes the naive way
    cpu       a task is some groups, 4096 numbers; dx holds du between two passes
"""

import math

import torch

from . import _check, _library
from ._groups import held_statistics, normalised, place, walked_statistics
from ._room import differentiable, door, operator, room, sum_dtype
from ._triton import for_interpreter, tl, triton, triton_dtype

# ---- reference ------------------------------------------------------------------------------------------------------


def reference(x, gamma, beta, scale, shift, G, eps):  # (N, C, P), (C), (C), (N, C), (N, C) -> y, stats (N, G, 3)
    (z, stats), (w, b) = normalised(x, G, eps), affine(gamma, beta, scale, shift)
    return torch.nn.functional.silu(w * z + b).to(x.dtype), stats


def affine(gamma, beta, scale, shift):
    """w, b of u = w z + b, (C, 1) or (N, C, 1)"""
    w, b = gamma.to(sum_dtype(gamma.dtype)), beta.to(sum_dtype(gamma.dtype))
    if scale is not None:
        w, b = (1 + scale.to(w.dtype)) * w, (1 + scale.to(w.dtype)) * b + shift.to(w.dtype)
    return w[..., None], b[..., None]


def reference_backward(dy, x, gamma, beta, scale, shift, G, eps):
    """It computes the statistics again, so that its own derivative goes through them."""
    (z, stats), (w, b) = normalised(x, G, eps), affine(gamma, beta, scale, shift)
    u = w * z + b
    sigma = u.sigmoid()
    du = dy.to(z.dtype) * sigma * (1 + u * (1 - sigma))  # forward was: y = u sigma(u)
    A, B = (du * z).sum(2), du.sum(2)
    dz, z = (a.reshape(len(x), G, math.prod(x.shape[1:]) // G) for a in (w * du, z))
    dx = stats[..., 2:] * (dz - dz.mean(2, keepdim=True) - z * (dz * z).mean(2, keepdim=True))  # z = (x - mean) r
    one_s = 1 if scale is None else 1 + scale.to(z.dtype)
    found = dx.reshape(x.shape), (one_s * A).sum(0), (one_s * B).sum(0), gamma.to(A) * A + beta.to(B) * B, B
    return tuple(d.to(x.dtype) for d in found)


# ---- kernel: for CPUs in csrc/group_norm_silu.cpp -------------------------------------------------------------------


@triton.jit
def affine_of(n, c, ok, gamma_ptr, beta_ptr, scale_ptr, shift_ptr, C, SUM: tl.constexpr, MODULATED: tl.constexpr):
    """w, b of u = w z + b, for the channels c of image n"""
    w, b = tl.load(gamma_ptr + c, ok, other=0).to(SUM), tl.load(beta_ptr + c, ok, other=0).to(SUM)
    if MODULATED:
        s = 1 + tl.load(scale_ptr + n * C + c, ok, other=0).to(SUM)
        w, b = s * w, s * b + tl.load(shift_ptr + n * C + c, ok, other=0).to(SUM)
    return w, b


@triton.jit
def forward(x_ptr, gamma_ptr, beta_ptr, scale_ptr, shift_ptr, y_ptr, stats_ptr, eps: tl.float64, count: tl.float64,
            C, P, G, SUM: tl.constexpr, MODULATED: tl.constexpr, HELD: tl.constexpr, BM: tl.constexpr,
            BP: tl.constexpr):
    ng, count, M = tl.program_id(0).to(tl.int64), tl.full((), count, tl.float64).to(SUM), C // G
    eps, n, R = tl.full((), eps, tl.float64).to(SUM), ng // G, M * P
    if HELD:
        c, c_ok, at, ok = place(ng, C, P, G, BM, BP)
        d, mean, rest, r = held_statistics(tl.load(x_ptr + at, ok, other=0).to(SUM), ok, count, eps)
        w, b = affine_of(n, c, c_ok, gamma_ptr, beta_ptr, scale_ptr, shift_ptr, C, SUM, MODULATED)
        u = w[:, None] * (d * r) + b[:, None]
        tl.store(y_ptr + at, (u / (1 + tl.exp(-u))).to(y_ptr.dtype.element_ty), ok)
    else:
        mean, rest, r = walked_statistics(x_ptr + ng * R, R, count, eps, SUM, BP)
        for m in range(0, M):
            w, b = affine_of(n, ng % G * M + m, True, gamma_ptr, beta_ptr, scale_ptr, shift_ptr, C, SUM, MODULATED)
            for start in range(0, P, BP):
                p = start + tl.arange(0, BP)
                at = ng * R + m * P + p
                u = w * ((tl.load(x_ptr + at, p < P, other=0).to(SUM) - mean - rest) * r) + b
                tl.store(y_ptr + at, (u / (1 + tl.exp(-u))).to(y_ptr.dtype.element_ty), p < P)
    tl.store(stats_ptr + ng * 3, mean)
    tl.store(stats_ptr + ng * 3 + 1, rest)
    tl.store(stats_ptr + ng * 3 + 2, r)


@triton.jit
def through(at, ok, dy_ptr, x_ptr, mean, rest, r, w, b, SUM: tl.constexpr):
    """z and du = dy d(u sigma(u)) / du, 0 where nothing is"""
    z = tl.where(ok, (tl.load(x_ptr + at, ok, other=0).to(SUM) - mean - rest) * r, 0)
    u = w * z + b
    sigma = 1 / (1 + tl.exp(-u))
    return z, tl.where(ok, tl.load(dy_ptr + at, ok, other=0).to(SUM) * (sigma * (1 + u * (1 - sigma))), 0)


@triton.jit
def backward(dy_ptr, x_ptr, gamma_ptr, beta_ptr, scale_ptr, shift_ptr, stats_ptr, dx_ptr, A_ptr, B_ptr,
             count: tl.float64, C, P, G, SUM: tl.constexpr, MODULATED: tl.constexpr, HELD: tl.constexpr,
             BM: tl.constexpr, BP: tl.constexpr):
    ng, count, M = tl.program_id(0).to(tl.int64), tl.full((), count, tl.float64).to(SUM), C // G
    n, stats_ptr = ng // G, stats_ptr + ng * 3
    mean, rest, r = tl.load(stats_ptr), tl.load(stats_ptr + 1), tl.load(stats_ptr + 2)
    if HELD:
        c, c_ok, at, ok = place(ng, C, P, G, BM, BP)
        w, b = affine_of(n, c, c_ok, gamma_ptr, beta_ptr, scale_ptr, shift_ptr, C, SUM, MODULATED)
        z, du = through(at, ok, dy_ptr, x_ptr, mean, rest, r, w[:, None], b[:, None], SUM)
        A, B = tl.sum(du * z, 1), tl.sum(du, 1)
        tl.store(A_ptr + n * C + c, A, c_ok)
        tl.store(B_ptr + n * C + c, B, c_ok)
        c1, c2 = tl.sum(w * B) / count, tl.sum(w * A) / count
        tl.store(dx_ptr + at, (r * (w[:, None] * du - c1 - z * c2)).to(dx_ptr.dtype.element_ty), ok)
    else:
        c1, c2 = tl.zeros((), SUM), tl.zeros((), SUM)
        for m in range(0, M):
            c, A, B = ng % G * M + m, tl.zeros((BP,), SUM), tl.zeros((BP,), SUM)
            w, b = affine_of(n, c, True, gamma_ptr, beta_ptr, scale_ptr, shift_ptr, C, SUM, MODULATED)
            for start in range(0, P, BP):
                p = start + tl.arange(0, BP)
                z, du = through((ng * M + m) * P + p, p < P, dy_ptr, x_ptr, mean, rest, r, w, b, SUM)
                A, B = A + du * z, B + du
            A_nc, B_nc = tl.sum(A), tl.sum(B)
            tl.store(A_ptr + n * C + c, A_nc)
            tl.store(B_ptr + n * C + c, B_nc)
            c1, c2 = c1 + w * B_nc, c2 + w * A_nc
        c1, c2 = c1 / count, c2 / count
        for m in range(0, M):
            w, b = affine_of(n, ng % G * M + m, True, gamma_ptr, beta_ptr, scale_ptr, shift_ptr, C, SUM, MODULATED)
            for start in range(0, P, BP):
                p = start + tl.arange(0, BP)
                z, du = through((ng * M + m) * P + p, p < P, dy_ptr, x_ptr, mean, rest, r, w, b, SUM)
                tl.store(dx_ptr + (ng * M + m) * P + p, (r * (w * du - c1 - z * c2)).to(dx_ptr.dtype.element_ty), p < P)


@triton.jit
def over_rows(A_ptr, B_ptr, gamma_ptr, beta_ptr, scale_ptr, dgamma_ptr, dbeta_ptr, N, C, SUM: tl.constexpr,
              MODULATED: tl.constexpr, BC: tl.constexpr):
    """dgamma, dbeta; and A becomes ds = gamma A + beta B, while B is db."""
    c = tl.program_id(0).to(tl.int64) * BC + tl.arange(0, BC)
    ok, at, dgamma, dbeta = c < C, c, tl.zeros((BC,), SUM), tl.zeros((BC,), SUM)
    gamma, beta = tl.load(gamma_ptr + c, ok, other=0).to(SUM), tl.load(beta_ptr + c, ok, other=0).to(SUM)
    for _ in range(0, N):
        A, B, s = tl.load(A_ptr + at, ok, other=0), tl.load(B_ptr + at, ok, other=0), tl.full((BC,), 1, SUM)
        if MODULATED:
            s += tl.load(scale_ptr + at, ok, other=0).to(SUM)
        dgamma, dbeta = dgamma + s * A, dbeta + s * B
        tl.store(A_ptr + at, gamma * A + beta * B, ok)
        at += C
    tl.store(dgamma_ptr + c, dgamma, ok)
    tl.store(dbeta_ptr + c, dbeta, ok)


# ---- launcher -------------------------------------------------------------------------------------------------------

LONGEST = 8192  # numbers of a group that a program holds


def launch(backend, rung, x, gamma, beta, scale, shift, G, eps):
    (N, C, P), dtype = x.shape, x.dtype
    ready = _library.for_native if backend == "cpu" else for_interpreter
    x, *channels = ready(x, gamma, beta, scale, shift)
    y, stats = torch.empty_like(x), x.new_empty(N, G, 3, dtype=sum_dtype(dtype))
    if backend == "cpu":
        tensors = x, *channels, y, stats
        _library.call("group_norm_silu", backend, "group_norm_silu_cpu", x.dtype, *tensors, eps, N, C, P, G)
    else:
        constants = dict(SUM=triton_dtype(sum_dtype(dtype)), MODULATED=scale is not None) | _tile(rung, C // G, P)
        with torch.cuda.device_of(x):
            forward[(N * G,)](x, *channels, y, stats, eps, float(max(1, C // G * P)), C, P, G, **constants)
    return y.to(dtype), stats


def launch_backward(backend, rung, dy, x, gamma, beta, scale, shift, stats, G):
    (N, C, P), dtype = x.shape, x.dtype
    ready = _library.for_native if backend == "cpu" else for_interpreter
    dy, x, *channels = ready(dy, x, gamma, beta, scale, shift)
    dx = torch.empty_like(x)
    dgamma, dbeta, A, B = (x.new_empty(size, dtype=sum_dtype(dtype)) for size in ((C,), (C,), (N, C), (N, C)))
    if backend == "cpu":
        tensors = dy, x, *channels, stats, dx, dgamma, dbeta, A, B
        _library.call("group_norm_silu", backend, "group_norm_silu_backward_cpu", x.dtype, *tensors, N, C, P, G)
    else:
        sums, tile = dict(SUM=triton_dtype(sum_dtype(dtype)), MODULATED=scale is not None), _tile(rung, C // G, P)
        with torch.cuda.device_of(x):
            backward[(N * G,)](dy, x, *channels, stats, dx, A, B, float(max(1, C // G * P)), C, P, G, **sums, **tile)
            over_rows[(triton.cdiv(C, 64),)](A, B, *channels[:3], dgamma, dbeta, N, C, **sums, BC=64)
    return tuple(d.to(dtype) for d in (dx, dgamma, dbeta, A, B))  # A is ds now, B is db


def _tile(rung, M, P):
    BM, BP = triton.next_power_of_2(M), triton.next_power_of_2(max(P, 1))
    if rung == "held" and BM * BP <= LONGEST:
        return dict(HELD=True, BM=BM, BP=BP, num_warps=min(16, max(1, BM * BP // 512)))
    return dict(HELD=False, BM=1, BP=min(max(BP, 16), 1024))


# ---- gradient -------------------------------------------------------------------------------------------------------


def gradient(dy, x, gamma, beta, scale, shift, stats, G, eps):
    dx, dgamma, dbeta, dscale, dshift = _backward(
        dy=dy, x=x, gamma=gamma, beta=beta, scale=scale, shift=shift, stats=stats, G=G, eps=eps)
    return dict(x=dx, gamma=dgamma, beta=dbeta) | ({} if scale is None else dict(scale=dscale, shift=dshift))


# ---- registration ---------------------------------------------------------------------------------------------------


def divides(G, C):
    _check.whole("groups", G, 1, C, "a number of groups of channels")
    if C % G:
        raise ValueError(f"groups must divide the channels of x, got {G} groups of {C} channels")


NORM = room("group_norm_silu", "triton", ("naive", "held"), cpu="C++")

_forward = differentiable(operator(
    NORM, "group_norm_silu(Tensor x, Tensor gamma, Tensor beta, Tensor? scale, Tensor? shift, int G, float eps) -> "
    "(Tensor y, Tensor stats)",
    fake=lambda x, G: (x.new_empty(x.shape), x.new_empty((x.shape[0], G, 3), dtype=sum_dtype(x.dtype))),
    takes="x y: T(N, C, P...); gamma beta: T(C); scale shift: T(N, C)", check=lambda x, G: divides(G, x.shape[1]),
    reference=reference, kernel=launch, cpu=launch,
), gradient, rows="x scale shift", constant="stats")
_backward = differentiable(operator(
    NORM, "group_norm_silu_backward(Tensor dy, Tensor x, Tensor gamma, Tensor beta, Tensor? scale, Tensor? shift, "
    "Tensor stats, int G, float eps) -> (Tensor dx, Tensor dgamma, Tensor dbeta, Tensor dscale, Tensor dshift)",
    fake=lambda x: tuple(x.new_empty(shape) for shape in (x.shape, *[x.shape[1:2]] * 2, *[x.shape[:2]] * 2)),
    takes="dy x dx: T(N, C, P...); gamma beta: T(C); scale shift: T(N, C); stats: R(N, *, 3)", check=lambda x, stats, G:
    divides(G, x.shape[1]) or _check.shape("stats", stats, (x.shape[0], G, 3), "(N, G, 3)"),
    reference=reference_backward, kernel=launch_backward, cpu=launch_backward,
))


@door
def group_norm_silu(x, groups, gamma, beta, scale=None, shift=None, eps=1e-5):
    """y = silu((1 + scale) (gamma z + beta) + shift), z = x with mean 0 and deviation 1 in each group of channels.

    x (N, C, ...), gamma and beta (C), scale and shift (N, C) -> (N, C, ...).   Without scale and shift they are 0.
    """
    given = dict(x=x, gamma=gamma, beta=beta) | ({} if scale is shift is None else dict(scale=scale, shift=shift))
    _check.tensors(**given)
    _check.at_least("x", x, 2, "(N, C, ...)")
    N, C, *_ = x.shape
    divides(groups, C)
    for name, tensor in dict(gamma=gamma, beta=beta).items():
        _check.shape(name, tensor, (C,), "(C,), C channels of x")
    for name, tensor in dict(scale=scale, shift=shift).items():
        _check.shape(name, tensor, (N, C), "(N, C) of x")
    _check.number("eps", eps, 0)
    _check.one_device(**given)
    x, gamma, beta, scale, shift = _check.float32_under_autocast(x, gamma, beta, scale, shift)
    _check.one_dtype(x=x, gamma=gamma, beta=beta, scale=scale, shift=shift)
    y, _ = _forward(x=x, gamma=gamma, beta=beta, scale=scale, shift=shift, G=groups, eps=float(eps))
    return y
