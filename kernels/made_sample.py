"""What does a draw cost, if D pixels are drawn one after the other from a network that computes all D at once?

Ancestral sampling from MADE (Germain, Gregor, Murray, Larochelle 2015, section 3: "D forward passes"; the course's
"MADE : principe"). With the degrees sorted, it costs the arithmetic of one pass: a unit of degree m is final once x_1
... x_m are known, and is computed only once.

    kernels: csrc/made_sample.cu, csrc/made_sample.cpp    model: genmini/models/made.py
    test: tests/kernels/test_made_sample.py    bench: bench/bench_made_sample.py

Math
    z^0 = the bits [x_d >= 1] ... [x_d >= L-1] of x_1 ... x_D
    z^i_j = max(0, b^i_j + sum_k [m^i_j >= m^{i-1}_k] W^i_jk z^{i-1}_k),   i = 1 ... I
    l_d = b_d + sum_k [d > m^I_k] V_dk z^I_k ( + sum_k [d > m^0_k] A_dk z^0_k ),   one number if L = 2, else L
    x_d = how many of P(x_d <= 0 | x_<d), ..., P(x_d <= L-2 | x_<d) are at most u_d      (L = 2: [u_d >= sigma(-l_d)])
    Step d computes in every layer, from below, the units of degree d-1, which need x_{d-1} last; then l_d; then x_d.
    u and x are data; nothing here has a gradient.

Shapes
    u (N, D), x (N, D) of 0 ... L-1, W^i (units of i, units of i-1), b^i (units of i), m^i (units of i) of 0 ... D,
    ascending, V (D or D L, units of I), A (D or D L, D (L-1)) -> x (N, D)   l (N, D) or (N, D, L)
    float32 or float64; 16-bit numbers become float32

Traffic
    Every living weight is used once for a sample: 2 N (living weights) operations, D times fewer than D passes; the
    weights are read once a tile of samples. Step d has only a few rows of weights, so it is no product of large
    matrices: it reads a stream of weights. D = 784, two layers of 1000 units: 1.3 million living weights, 2.6 million
    operations a sample.

Tiling
    naive       a block a sample; a unit at a time, its sum shared by all threads
    tiles       a block owns up to 8 samples, and 4 units at a time: a weight that is loaded is used for 8 samples, an
                activation for 4 units; the warps share the k, and add their sums once for 4 units. Activations stay in
                shared memory where they fit.

                W^i   k ->   units final at step d read all that is known by then: a staircase of contiguous rows
                j   # # . . . .
                |   # # # # . .    < step d-1
                v   # # # # # .    < step d

    cpu         samples are the lanes of vectors, up to 4 vectors a task, for the whole walk; the activations of a task
                fit the second cache
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from . import _check, _library
from ._levels import cumulative, outputs_of
from ._room import operator, room

DEEPEST = 64  # hidden layers and V that a launch carries; A comes behind them


class LayerRow(NamedTuple):
    """The struct Layer of csrc/made_sample.h, 8 bytes a field: addresses, 0 for what is absent, and a length."""

    W: int
    b: int
    degrees: int
    K: int  # numbers in a row of W


class Sizes(NamedTuple):
    """The struct Sizes of csrc/made_sample.h."""

    known: int
    I: int  # hidden layers
    L: int  # levels
    N: int
    D: int
    units: int  # of all layers, inputs too


# ---- reference ------------------------------------------------------------------------------------------------------


def reference(u, x, known, levels, weights, biases, degrees, direct):
    """x drawn from `known` on, and the logits of all, (N, D, 1 or L): one whole pass for every pixel that is drawn."""
    x, D = x.to(torch.uint8, copy=True, memory_format=torch.contiguous_format), x.shape[1]
    d = torch.arange(1, D + 1, device=x.device)
    m, rows = [d.repeat_interleave(levels - 1), *degrees], d.repeat_interleave(outputs_of(levels))
    masked = [W.masked_fill(m_j[:, None] < m_k, 0) for W, m_j, m_k in zip(weights, degrees, m, strict=False)]
    V, A = (
        None if W is None else W.masked_fill(rows[:, None] <= m_k, 0)
        for W, m_k in ((weights[-1], m[-1]), (direct, m[0]))
    )

    def logits():
        z = bits = (x[..., None] > torch.arange(levels - 1, device=x.device)).flatten(1).to(V.dtype)
        for W, b in zip(masked, biases, strict=False):
            z = F.relu(F.linear(z, W, b))
        l = F.linear(z, V, biases[-1])
        return (l if A is None else l + F.linear(bits, A)).reshape(len(x), D, outputs_of(levels))

    l = logits() if known == D else None
    for d in range(known, D):
        l = logits()  # l_d does not depend on x_d and later pixels: the last logits are those of every step
        x[:, d] = (u[:, d, None] >= cumulative(l[:, d], levels)).sum(1)
    return x, l


# ---- kernel: in csrc/made_sample.cu and csrc/made_sample.cpp, by these names ----------------------------------------
#
#   rung     the walk over all steps
#   naive    made_sample_naive
#   tiles    made_sample_tiles
#   (cpu)    made_sample_cpu

# ---- launcher -------------------------------------------------------------------------------------------------------


def launch(backend, rung, u, x, known, levels, weights, biases, degrees, direct):
    """Returns x drawn from `known` on, and the logits."""
    x = x.to(torch.uint8, copy=True)  # its pixels from `known` on are written
    (N, D), I, threads = x.shape, len(degrees), torch.get_num_threads()
    degrees = [m.long() for m in degrees]
    address = lambda a: 0 if a is None else a.data_ptr()
    layers = [
        LayerRow(W=address(W), b=address(b), degrees=address(m), K=W.shape[1])
        for W, b, m in zip(weights, biases, (*degrees, None), strict=True)
    ]
    direct = LayerRow(W=address(direct), b=0, degrees=0, K=D * (levels - 1))
    layers = _library.table(LayerRow, [*layers, direct])
    ends = x.new_empty(I + 1, D + 1, dtype=torch.int64)  # how many of z^i have a degree <= d; the kernel writes it
    logits, units = u.new_empty(N, D, outputs_of(levels)), D * (levels - 1) + sum(len(m) for m in degrees)
    sizes = _library.table(Sizes, [Sizes(known=known, I=I, L=levels, N=N, D=D, units=units)])
    if backend == "cpu":
        bytes = _library.size("made_sample", "cpu", "made_sample_cpu_workspace", u.dtype, sizes, threads=threads)
        work, function = torch.empty(bytes, dtype=torch.uint8), "made_sample_cpu"
    else:
        work, function = u.new_empty(N, units), f"made_sample_{rung}"
    arguments = u.dtype, sizes, layers, u, x, ends, logits, work
    _library.call("made_sample", backend, function, *arguments, threads=threads)
    return x, logits


# ---- gradient: none; a draw is a count of thresholds ----------------------------------------------------------------

# ---- registration ---------------------------------------------------------------------------------------------------

SAMPLE = room("made_sample", "cuda", ("naive", "tiles"), cpu="C++")


def _fits(x, known, levels, weights, biases, degrees, direct):
    units = [x.shape[1] * (levels - 1), *map(len, degrees), x.shape[1] * outputs_of(levels)]
    fit = len(weights) == len(biases) == len(units) - 1
    for W, b, K, J in zip(weights, biases, units, units[1:], strict=False):
        fit = fit and W.shape == (J, K) and (b is None or len(b) == J)
    if not fit or not (direct is None or direct.shape == (units[-1], units[0])):
        raise ValueError(f"weights, biases and direct must be those of layers of {units} units")
    if _check.values(x) and (x[:, :known] >= levels).any():
        raise ValueError(f"x must hold 0 ... {levels - 1}, and it holds other values")
    if _check.values(x) and any((m[1:] < m[:-1]).any() or (m < 0).any() or (m > x.shape[1]).any() for m in degrees):
        raise ValueError(f"degrees must ascend from at least 0 to at most {x.shape[1]}")


_sample = operator(
    SAMPLE, "made_sample(Tensor u, Tensor x, int known, int levels, Tensor[] weights, Tensor?[] biases, "
    "Tensor[] degrees, Tensor? direct) -> (Tensor drawn, Tensor l)",
    fake=lambda u, x, levels: (x.new_empty(x.shape, dtype=torch.uint8), u.new_empty(*x.shape, outputs_of(levels))),
    takes="u: T(N, D); x: int16(N, D); weights: T(*, *); biases: T(*); degrees: int(*); direct: T(*, *)",
    check=_fits, reference=reference, kernel=launch, cpu=launch,
)


def made_sample(u, weights, biases, degrees, levels=2, direct=None, x=None, known=0, logits=False):
    """Draws, (N, D) uint8: the same u (N, D), uniform in [0, 1), gives the same draws.

    Backends round differently, so they may differ where u_d lies within a rounding of a probability.

    weights: of the hidden layers from below, (units, inputs) each, then V; biases likewise, each may be None; degrees:
    of the hidden layers, ascending; direct: A. x (N, D) and known: x[:, :known] is given, the rest is drawn after it.
    logits=True also returns the logits of all steps, (N, D), or (N, D, levels) for more than two levels, as
    constants.
    """
    _check.whole("levels", levels, 2, 256, "the number of levels, which a byte holds")
    x = _check.x_to_complete(u, x, known, _check.NUMBERS, torch.int16, _whole_levels)
    _network(u, weights, biases, degrees, levels, direct)
    with torch.no_grad():
        *weights, direct = _library.for_native(*weights, direct)
        biases = [b if b is None else b.to(weights[0].dtype) for b in biases]
        x, l = _sample(
            u=u.to(weights[-1].dtype), x=x, known=known, levels=levels, weights=weights, biases=biases,
            degrees=list(degrees), direct=direct,
        )
    return (x, l[..., 0] if levels == 2 else l) if logits else x


def _whole_levels(x):
    """x as int16. What is no whole number from 0 to 255 becomes 256, which the operator refuses."""
    if x.dtype in (torch.uint8, torch.bool):
        return x.to(torch.int16)
    x = x if x.is_floating_point() else x.long()  # int8 cannot be compared with 255
    return torch.where((x >= 0) & (x <= 255) & (x == x.floor()), x, 256).to(torch.int16)


def _network(u, weights, biases, degrees, levels, direct):
    """Check that each layer takes what the one below gives."""
    _check.lists(weights=weights, biases=biases, degrees=degrees)
    if not len(weights) == len(biases) == len(degrees) + 1:
        raise ValueError(
            f"weights and biases must be those of {len(degrees)} hidden layers and of the output, "
            f"got {len(weights)}, {len(biases)}"
        )
    if len(weights) >= DEEPEST:
        raise ValueError(f"weights must be of at most {DEEPEST - 1} layers, got {len(weights)}")
    D, J, named = u.shape[1], u.shape[1] * outputs_of(levels), {}
    K = D * (levels - 1)
    for i, (W, b) in enumerate(zip(weights, biases, strict=True)):
        named |= {f"weights[{i}]": W} | ({} if b is None else {f"biases[{i}]": b})
        _check.tensors(**named)
        _check.dimensions(f"weights[{i}]", W, 2, "(units, inputs)")
        last = i == len(degrees)
        _check.shape(f"weights[{i}]", W, (J if last else W.shape[0], K),
                     "(outputs, units below)" if last else "(units, units below)")
        K = W.shape[0]
        if b is not None:
            _check.shape(f"biases[{i}]", b, (K,), f"(units of weights[{i}],)")
        if not last:
            _check.tensors(_check.INTEGERS, **{f"degrees[{i}]": degrees[i]})
            _check.shape(f"degrees[{i}]", degrees[i], (K,), f"(units of weights[{i}],)")
    if direct is not None:
        named["direct"] = direct
        _check.tensors(direct=direct)
        _check.shape("direct", direct, (J, D * (levels - 1)), "(outputs, inputs)")
    _check.one_dtype(**named)
    _check.one_device(u=u, **named, **{f"degrees[{i}]": m for i, m in enumerate(degrees)})
