"""How much does a sample of PixelCNN cost, if every layer keeps what it has computed?

Ancestral sampling from PixelCNN and its gated form (van den Oord et al. 2016, both papers) draws one number after the
other, with a pass of the network for each. This room draws them all for the arithmetic of one pass: the output of a
layer at a pixel is final once the pixels before it are drawn, and it is kept as long as a filter looks back at it
(Ramachandran et al. 2017, "Fast Generation for Convolutional Autoregressive Models").

    kernels: csrc/pixelcnn_sample.cu, csrc/pixelcnn_sample.cpp    model: genmini/models/pixelcnn.py
    test: tests/kernels/test_pixelcnn_sample.py    bench: bench/bench_pixelcnn_sample.py

Math
    The network is a list of layers a = 0, 1, ... over streams z_r. Stream 0 is the input: for every colour c the row
    E[x_ijc] of a table (L, M), by default 1 and the steps below the level (`embed`). A layer sums over its taps
    (r, di, dj, W), with z_r = 0 outside the image, and gives two streams, one before and one after its activation:
        s_a(i, j) = b_a[y] + sum over taps W^T z_r(i + di, j + dj) + z_residual(i, j)
        z_{2a+1} = s_a        z_{2a+2} = relu(s_a)  or  tanh(s_a[0::2]) sigma(s_a[1::2])
    The last s_a holds F numbers for every x_ijc, which decide P(x_ijc <= l | what comes before). With uniform noise u
        x_ijc = number of levels l < L-1 with P(x_ijc <= l) <= u_ijc
    P is a sigmoid for L = 2, a softmax for more levels, or a mixture of K logistics. Channels belong to colours, as
    in masked_conv2d: a tap of the centre sees the EARLIER colours of its pixel, or those UP_TO its own. A layer by
    rows (of the vertical stack) sees only rows above: it is computed for a whole row i before the first pixel of it.

Shapes
    u, x (N, D) with D = H W C: rows, pixels, colours; y (N) classes; W (channels, outputs); b_a (outputs) or
    (classes, outputs) -> x (N, D) and the logits (N, D, F), F = 3 K for K logistics, else 1 for L = 2, else L.
    float32, or float64 if one of W and b is; 16-bit numbers become float32.

Traffic
    2 N H W (living weights) operations, D times fewer than D passes. 28 x 28, 7 blocks of 64 channels: 72 thousand
    living weights, 113 million operations a sample. A stream is kept for as many rows as its taps look back: 4 of 28
    for a filter of 7 x 7, 2 for 3 x 3, 1 for 1 x 1; a stream that no layer reads is not written.

Tiling
    naive     a block a sample; a thread an output channel
    groups    a block a sample; groups of threads share the channels of every tap, and meet once a layer
    cpu       a task is up to 8 samples, which share the loads of W; the lanes of a vector are output channels

          . . . . .
          k k k k k     k: kept, row by row, in a ring;   o: the pixel that is computed
          k k o . .
"""

import functools
import math

import torch
import torch.nn.functional as F

from . import _check, _library
from ._levels import cumulative, outputs_of
from ._pixel_layers import ACTS, ALL, EARLIER, UP_TO, LayerRow, Sizes, StreamRow, Tap, TapRow, packed, rows_of
from ._pixel_layers import Layer as Layer  # for callers
from ._room import operator, room


def masked_taps(stream, weight, kind):
    """The living taps of a masked convolution, weight (O, C, kh, kw)."""
    kh, kw = weight.shape[2:]
    before = [divmod(t, kw) for t in range(kh * kw // 2)]
    centre = Tap(stream, 0, 0, UP_TO if kind == "B" else EARLIER, weight[:, :, kh // 2, kw // 2].T)
    return [Tap(stream, u - kh // 2, v - kw // 2, ALL, weight[:, :, u, v].T) for u, v in before] + [centre]


def row_taps(stream, weight, kind):
    """The taps of a convolution (O, C, kh, kw) whose last row lies above the pixel ("A") or on its row ("B")."""
    kh, kw = weight.shape[2:]
    places = [(u, v) for u in range(kh) for v in range(kw)]
    return [Tap(stream, u - kh + (kind == "B"), v - kw // 2, ALL, weight[:, :, u, v].T) for u, v in places]


def embed(x, levels, dtype, dim=-1):
    """x (...) -> its numbers along a new dimension: 1, which tells a 0 from what lies outside the image, and the steps
    below x, [x >= 1] ... [x >= L-1]. With more than 33 levels there are 32 wider steps; the step in which x lies counts
    by the part of it that is below x."""
    steps = steps_of(levels)
    k = torch.arange(steps, device=x.device).view(-1, *(1,) * (-1 - dim))
    x = x.unsqueeze(dim).to(dtype) * (steps / (levels - 1))
    return torch.cat([torch.ones_like(x), (x - k).clamp(0, 1)], dim)


def steps_of(levels):
    return min(levels - 1, 32)


# ---- reference ------------------------------------------------------------------------------------------------------


def reference(u, x, known, components, shape, E, streams, layers, taps, weights, biases, y):
    """x_d for d = known, known + 1, ..., each from a pass over the whole image -> x (N, D), logits (N, D, F)"""
    x = x.clone(memory_format=torch.contiguous_format)
    x[:, known:] = 0
    network = rows_of(StreamRow, streams), rows_of(LayerRow, layers), rows_of(TapRow, taps), weights, biases[y]
    for d in range(known, x.shape[1]):
        below = cumulative(logits_of(x, shape, E, *network)[:, d], len(E), components)
        x[:, d] = (u[:, d, None] >= below).sum(1)
    return x, logits_of(x, shape, E, *network)


def logits_of(x, shape, E, streams, layers, taps, weights, bias):
    """(N, D) -> (N, D, F): layer by layer over the whole image, streams (N, H, W, channels)"""
    (C, H, W), N = shape, len(x)
    z = {0: E[x].view(N, H, W, C * E.shape[1])}
    for a in layers:
        s = bias[:, None, None, a.bias : a.bias + a.outputs].expand(N, H, W, a.outputs)
        for t in taps[a.tap : a.taps_end]:
            W_t = weights[t.weight :][: streams[t.stream].channels * a.outputs].view(-1, a.outputs)
            there = F.pad(z[t.stream], (0, 0, -t.dj, t.dj, -t.di, t.di))  # z_r(i + di, j + dj), 0 outside
            s = s + there @ torch.where(sees(t.sight, C, *W_t.shape, x.device), W_t, 0)
        s = s if a.residual < 0 else s + z[a.residual]
        z[a.raw], z[a.after] = s, activated(s, ACTS[a.act])  # a stream that no layer reads has number -1
    return s.reshape(N, H * W * C, a.outputs // C)


def sees(sight, C, channels, outputs, device):
    """Which of its channels a tap sees for each output, by their colours, (channels, outputs)."""
    its, own = (torch.arange(n, device=device) * C // n for n in (channels, outputs))
    return its[:, None] < own + {ALL: C, EARLIER: 0, UP_TO: 1}[sight]


def activated(s, act):
    """The pairs of a gate are neighbours, so that a channel stays with its colour."""
    return torch.tanh(s[..., 0::2]) * torch.sigmoid(s[..., 1::2]) if act == "gate" else F.relu(s) if act else s


# ---- kernel: in csrc/pixelcnn_sample.cu and csrc/pixelcnn_sample.cpp, by these names --------------------------------
#
#   rung      the walk over all steps
#   naive     pixelcnn_sample_naive
#   groups    pixelcnn_sample_groups
#   (cpu)     pixelcnn_sample_cpu

# ---- launcher -------------------------------------------------------------------------------------------------------


@functools.cache
def kept(device, kind, rows):
    """These rows as a table on the device. A copy from the host waits for the device, so each network's tables are
    copied once, and stay for the life of the process: a CUDA graph may read them."""
    return _library.table(kind, rows).to(device)


def launch(backend, rung, u, x, known, components, shape, E, streams, layers, taps, weights, biases, y):
    x, y = x.clone(), y.clamp(0, len(biases) - 1)  # x[:, known:] is written; a class out of range touches no memory
    (C, H, W), (N, D), threads = shape, x.shape, torch.get_num_threads()  # read once: the workspace is for so many
    stream_rows, layer_rows, tap_rows = map(rows_of, (StreamRow, LayerRow, TapRow), (streams, layers, taps))
    tables = streams, layers, taps
    if x.device.type != "cpu":
        rows = (StreamRow, stream_rows), (LayerRow, layer_rows), (TapRow, tap_rows)
        tables = [kept(x.device, kind, tuple(its)) for kind, its in rows]
    numbers = sum(stream.channels * stream.depth for stream in stream_rows) * W
    widest = max(layer.outputs for layer in layer_rows)
    logits = u.new_empty(N, D, layer_rows[-1].outputs // C)
    sizes = Sizes(
        known=known, N=N, H=H, W=W, C=C, L=E.shape[0], M=E.shape[1], K=components, count=len(layers), numbers=numbers,
        widest=widest, bias_columns=biases.shape[1],
    )
    sizes = _library.table(Sizes, [sizes])
    if backend == "cpu":
        size = _library.size("pixelcnn_sample", "cpu", "pixelcnn_sample_cpu_workspace", u.dtype, sizes, threads=threads)
        function, work = "pixelcnn_sample_cpu", torch.empty(size, dtype=torch.uint8)
    else:
        function, work = f"pixelcnn_sample_{rung}", u.new_empty(N, numbers + widest)
    arguments = u.dtype, sizes, u, x, y, E, *tables, weights, biases, logits, work
    _library.call("pixelcnn_sample", backend, function, *arguments, threads=threads)
    return x, logits


# ---- gradient: none; a draw is a count of thresholds ----------------------------------------------------------------

# ---- registration ---------------------------------------------------------------------------------------------------

SAMPLE = room("pixelcnn_sample", "cuda", ("naive", "groups"), cpu="C++")


def check(x, known, shape, E, biases, y):
    levels, classes = len(E), len(biases)
    if math.prod(shape) != x.shape[1]:
        raise ValueError(f"x must have the C H W = {math.prod(shape)} numbers of shape, got {x.shape[1]}")
    if _check.values(x) and ((x[:, :known] < 0) | (x[:, :known] >= levels)).any():
        raise ValueError(f"x must hold 0 ... {levels - 1}, and it holds other values")
    if _check.values(y) and ((y < 0) | (y >= classes)).any():
        raise ValueError(f"y must hold classes 0 ... {classes - 1}, and it holds other values")


_sample = operator(
    SAMPLE, "pixelcnn_sample(Tensor u, Tensor x, int known, int components, int[] shape, Tensor E, Tensor streams, "
    "Tensor layers, Tensor taps, Tensor weights, Tensor biases, Tensor y) -> (Tensor drawn, Tensor l)",
    fake=lambda u, x, components, E: (x.new_empty(x.shape), u.new_empty(*x.shape, outputs_of(len(E), components))),
    takes="u: T(N, D); x: int64(N, D); E: T(L, M); streams layers taps: host(*, *); weights: T(*); "
    "biases: T(classes, *); y: int64(N)", check=check, reference=reference, kernel=launch, cpu=launch,
)


def pixelcnn_sample(u, layers, shape, levels, components=0, y=None, x=None, known=0, logits=False, E=None):
    """Draws, (N, D) int64: the same u (N, D), uniform in [0, 1), gives the same draws.

    Backends round differently, so they may differ where u_d lies within a rounding of a probability.

    layers: a list of Layer; shape (C, H, W); components: K of a mixture of logistics, 0 for a softmax; y (N): classes,
    for layers whose bias has a row for each. x (N, D) and known: x[:, :known] is given, the rest is drawn after it.
    logits=True also gives the numbers that decided at every step, (N, D, F), as constants. E (L, M): what the network
    sees of each level, in the place of `embed`.
    """
    C, H, W = shape = check_shape(shape)
    x = _check.x_to_complete(u, x, known, _check.INTEGERS, torch.int64, torch.Tensor.long)
    _check.shape("u", u, (len(u), C * H * W), "(N, D) with D = C H W")
    _check.whole("levels", levels, 2, 65536, "at least two")
    _check.whole("components", components, 0, 1024, "none or a few")
    y = torch.zeros(len(u), dtype=torch.int64, device=u.device) if y is None else y
    _check.tensors(_check.INTEGERS, y=y)
    _check.shape("y", y, (len(u),), "(N,) with N of u")
    if E is not None:
        _check.tensors(E=E)
        _check.shape("E", E, (levels, E.shape[-1] if E.dim() else 0), "(L, M) with L of levels")
    with torch.no_grad():
        M, outputs = 1 + steps_of(levels) if E is None else E.shape[1], C * outputs_of(levels, components)
        streams, rows, taps, weights, biases = packed(layers, shape, C * M, outputs)
        _check.one_device(u=u, x=x, y=y, E=E, weights=weights, biases=biases)
        E = embed(torch.arange(levels, device=u.device), levels, weights.dtype) if E is None else E.to(weights.dtype)
        x, l = _sample(
            u=u.to(weights.dtype), x=x, known=known, components=components, shape=shape, E=E, streams=streams,
            layers=rows, taps=taps, weights=weights, biases=biases, y=y.long(),
        )
    return (x, l) if logits else x


def check_shape(shape):
    if not isinstance(shape, tuple | list) or len(shape) != 3:
        raise ValueError(f"shape must be (C, H, W), got {shape!r}")
    for name, extent, least in zip("CHW", shape, (1, 0, 0), strict=True):
        _check.whole(f"{name} of shape", extent, least, 2**31, "an extent of the image")
    return list(shape)
