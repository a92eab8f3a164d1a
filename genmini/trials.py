"""What would a swap gain? The room and the operators that it replaces are timed in turn, here, on the shapes of a call.

    swap = timed(swap, "cpu", torch.float32)
    swap.before, swap.after        seconds of a step by PyTorch and by the room, forward, and backward where the step
                                   went backward there

Both compute on new random numbers of these shapes and this dtype, contiguous, a mask being triangular: so the times are
measured, but not of the user's numbers. What a step gains is predicted from them.

    used by: genmini/profiling.py    test: tests/project/test_advice.py
"""

import time
from dataclasses import replace

import torch
import torch.nn.functional as F

from genmini import limits, ops

SHAPES = 3  # of a swap that calls it on many: those that take longest are timed
SECONDS, ROUNDS = 0.5, 5


def timed(swap, device="cpu"):
    """The swap with its times; as it is where it cannot be timed, as where memory is short."""
    with torch.random.fork_rng(), torch.inference_mode(False), torch.enable_grad():
        try:
            return _timed(swap, device)
        except (RuntimeError, TypeError, ValueError):  # a hint sees shapes, and the room may take other ones
            return swap


def _timed(swap, device):
    groups = {}
    for calls in swap.matches:
        key = str([call.shapes for call in calls]), _dtype(calls), any(call.learns for call in calls)
        groups.setdefault(key, []).append(calls)
    longest = sorted(groups.items(), key=lambda item: -sum(call.seconds for calls in item[1] for call in calls))
    before = after = 0.0
    for (_, dtype, learns), group in longest[:SHAPES]:
        with torch.device(device):
            inputs, plain, room = TRIALS[swap.room](group[0], dtype)
        both = {"plain": _call(plain, inputs, learns), "room": _call(room, inputs, learns)}
        own = torch.device(device).type == "cpu" and torch.get_num_threads() == 1  # not the time of other programs
        clock = time.thread_time if own else time.perf_counter
        found = limits.times(both, SECONDS, ROUNDS, device, clock)
        before, after = (sum_ + 1e-3 * len(group) * found[name][1]
                         for sum_, name in ((before, "plain"), (after, "room")))
    return replace(swap, before=before, after=after, learns=any(learns for _, _, learns in groups))


def _dtype(calls):
    return next((call.dtype for call in calls if call.dtype and call.dtype.is_floating_point), torch.float32)


def _call(function, inputs, learns):
    moved, gradients = [x.requires_grad_() for x in inputs if x.is_floating_point()] if learns else [], []

    def once():
        out = function(*inputs)
        out = [y for y in (out if isinstance(out, tuple) else (out,)) if y.requires_grad]
        gradients.extend(torch.ones_like(y) for y in out[len(gradients) :])  # once
        if out:
            torch.autograd.grad(out, moved, gradients, allow_unused=True)

    return once


# ---- of each room: (calls that match, dtype) -> inputs, what PyTorch does with them, what the room does --------------


def group_norm_silu(calls, dtype):
    norm = _named(calls, "group_norm")
    x, groups = _normal(norm.shapes[0], dtype), norm.scalars[1]
    N, C, *space = x.shape
    gamma, beta = _normal([C], dtype), _normal([C], dtype)
    if len(calls) == 2:
        return ((x, gamma, beta), lambda x, gamma, beta: F.silu(F.group_norm(x, groups, gamma, beta)),
                lambda x, gamma, beta: ops.group_norm_silu(x, groups, gamma, beta))
    wide = lambda s: s.view(N, C, *(1 for _ in space))
    return ((x, gamma, beta, _normal([N, C], dtype), _normal([N, C], dtype)),
            lambda x, gamma, beta, s, t: F.silu((1 + wide(s)) * F.group_norm(x, groups, gamma, beta) + wide(t)),
            lambda x, gamma, beta, s, t: ops.group_norm_silu(x, groups, gamma, beta, s, t))


def nearest_code(calls, dtype):
    call = _named(calls, "cdist", "mm", "matmul", "addmm")
    a, b = [shape for shape in call.shapes if len(shape) > 1][-2:]
    K, D = b if call.name == "cdist" else reversed(b)
    codebook = _normal([K, D], dtype)
    index = torch.randint(K, a[:-1])
    z = codebook[index] + 0.7 * _normal([*a[:-1], D], dtype)
    if call.name == "cdist":
        return (z, codebook), lambda z, e: torch.cdist(z, e).argmin(-1), ops.nearest_code
    return ((z, codebook), lambda z, e: (z.square().sum(-1, True) - 2 * z @ e.T + e.square().sum(-1)).argmin(-1),
            ops.nearest_code)


def info_nce(calls, dtype):
    a, b = (F.normalize(_normal(calls[0].shapes[0], dtype), dim=-1) for _ in range(2))

    def plain(a, b, scale):
        l, own = scale * a @ b.T, torch.arange(len(a), device=a.device)
        return (F.cross_entropy(l, own, reduction="none") + F.cross_entropy(l.T, own, reduction="none")) / 2

    return (a.detach(), b.detach(), torch.tensor(10.0, dtype=dtype)), plain, ops.info_nce


def softmax_nll(calls, dtype):
    shape, dim = list(calls[0].shapes[0]), 1
    if calls[0].name == "log_softmax":  # of the dimension that it names
        dim = next((number for number in calls[0].scalars if isinstance(number, int)), 1) % len(shape)
    shape.insert(1, shape.pop(dim))
    target = torch.randint(shape[1], [shape[0], *shape[2:]])
    return ((_normal(shape, dtype), target), lambda logits, target: F.cross_entropy(logits, target, reduction="none"),
            ops.softmax_nll)


def masked_linear(calls, dtype):
    J, K = calls[-1].shapes[1]
    out_degree, in_degree = (torch.arange(n) * 64 // n for n in (J, K))
    mask = (out_degree[:, None] >= in_degree).to(dtype)
    return ((_normal(calls[-1].shapes[0], dtype), _normal([J, K], dtype), _normal([J], dtype)),
            lambda x, weight, bias: F.linear(x, mask * weight, bias),
            lambda x, weight, bias: ops.masked_linear(x, weight, bias, in_degree, out_degree))


def masked_conv2d(calls, dtype):
    shape, (O, C, *sides) = calls[-1].shapes[:2]
    centre = sides[0] * sides[1] // 2
    mask = (torch.arange(sides[0] * sides[1]) <= centre).to(dtype).view(1, 1, *sides)
    padding = [side // 2 for side in sides]
    return ((_normal(shape, dtype), _normal([O, C, *sides], dtype), _normal([O], dtype)),
            lambda x, weight, bias: F.conv2d(x, mask * weight, bias, padding=padding),
            lambda x, weight, bias: ops.masked_conv2d(x, weight, bias, "B"))


def gaussian_kl(calls, dtype):
    shape = _named(calls, "exp").shapes[0]

    def plain(mu, log_var):
        z = mu + (0.5 * log_var).exp() * torch.randn_like(mu)
        return z, (0.5 * (mu.square() + log_var.exp() - 1 - log_var)).flatten(1).sum(1)

    return (_normal(shape, dtype), _normal(shape, dtype)), plain, ops.gaussian_kl


def affine_coupling(calls, dtype):
    x, s, t = (_normal(_named(calls, "exp").shapes[0], dtype) for _ in range(3))
    return (x, s, t), lambda x, s, t: (x * s.exp() + t, s.flatten(1).sum(1)), ops.affine_coupling


def q_sample(calls, dtype):
    shape = max(_named(calls, "mul").shapes[:2], key=sum)
    alpha, sigma, t = torch.rand(1000), torch.rand(1000), torch.randint(1000, shape[:1])
    of = lambda table, t: table[t].view(-1, *(1 for _ in shape[1:])).to(dtype)
    return ((_normal(shape, dtype), t),
            lambda x0, t: of(alpha, t) * x0 + of(sigma, t) * torch.randn_like(x0),
            lambda x0, t: ops.q_sample(x0, t, alpha, sigma))


def code_stats(calls, dtype):
    (K, N), (_, D) = _named(calls, "mm", "matmul").shapes[:2]
    return ((_normal([N, D], dtype), torch.randint(K, (N,))),
            lambda z, index: (torch.bincount(index, minlength=K), F.one_hot(index, K).to(dtype).T @ z),
            lambda z, index: ops.code_stats(z, index, K))


TRIALS = {function.__name__: function for function in (
    group_norm_silu, nearest_code, info_nce, softmax_nll, masked_linear, masked_conv2d, gaussian_kl, affine_coupling,
    q_sample, code_stats)}


def _named(calls, *names):
    return next(call for call in calls if call.name in names)


def _normal(shape, dtype):
    return torch.randn(*shape, dtype=torch.float32).to(dtype)
