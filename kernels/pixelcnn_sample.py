"""What does a draw cost, if a convolutional network is asked for one pixel after the other?

Ancestral sampling from PixelCNN and its gated form (van den Oord et al. 2016, both papers: "sequentially", a pass a pixel; caches: Ramachandran
et al. 2017, "Fast Generation for Convolutional Autoregressive Models"). It costs the arithmetic of one pass: what a layer gives for a pixel is
final once the pixels before it are known, and is kept as long as somebody looks back at it.

    kernels: csrc/pixelcnn_sample.cu, csrc/pixelcnn_sample.cpp    model: genmini/models/pixelcnn.py    test: tests/kernels/test_pixelcnn_sample.py
    bench: bench/bench_pixelcnn_sample.py

Math
    A program of layers a = 0, 1, ...; stream 0 is the input: 1 and the steps below x_ijc for every colour c, as PixelCNN's `embed` says.
    s_a(i, j)    = b_a[y] + sum over taps (r, di, dj, W):  W^T z_r(i + di, j + dj)  + z_residual(i, j)          (z_r is 0 outside the image)
    z_{2a+1} = s_a,   z_{2a+2} = relu(s_a) or tanh(s_a[0::2]) sigma(s_a[1::2])          raw and after; the last raw stream decides
    Channels belong to colours, as in masked_conv2d. A tap of the centre sees the colours before its own ("earlier") or also its own ("up to").
    x_ijc = how many of P(x_ijc <= 0), ..., P(x_ijc <= L-2) are at most u_ijc,   P a softmax, a sigmoid for L = 2, or K logistics
    Step (i, j, c): of every layer the outputs of colour c at (i, j). Layers by rows (the vertical stack) see the rows above alone, with all
    their columns: they are computed for all of row i before its first pixel. u and x are data; nothing here has a gradient.

Shapes
    u, x (N, D) with D = H W C in the order of rows, pixels, colours; y (N); a tap's W (channels, outputs); b_a (outputs) or (classes, outputs)
    -> x (N, D)   logits (N, D, F), F = 1 for L = 2, L, or 3 K.      float32, or float64 if one of W and b is; 16-bit numbers become float32

Traffic
    2 N H W (living weights) operations, D times fewer than D passes. 28 x 28, 7 blocks of 64 channels: 72 thousand living weights, 113 million
    operations a sample. A stream is kept for as many rows as its taps look back: 4 of 28 for a filter of 7 x 7, 2 for 3 x 3, 1 for 1 x 1;
    streams that nobody reads are not written.

Tiling
    naive     a block a sample; a thread an output channel
    groups    a block a sample; groups of threads share the channels of every tap, and meet once a layer
    cpu       a task up to 8 samples, which share the loads of W; output channels are the lanes of vectors

          . . . . .
          k k k k k     k: kept, row by row, in a ring;   o: the pixel at hand
          k k o . .
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from . import _backend, _check, _library, _operator

ALL, EARLIER, UP_TO = range(3)  # what a tap sees of its pixel's colours
ACTS = ("", "relu", "gate")


@dataclass
class Layer:
    taps: list  # (stream, di, dj, sight, W), W (channels, outputs); layer a gives the streams 2 a + 1, raw, and 2 a + 2, after its act
    bias: torch.Tensor  # (outputs) or (classes, outputs)
    act: str = ""  # "relu", "gate" or none
    residual: int | None = None  # a stream
    rows: bool = False


def masked_taps(stream, weight, kind):
    """Those of a masked convolution, weight (O, C, kh, kw)."""
    kh, kw = weight.shape[2:]
    live = [divmod(t, kw) for t in range(kh * kw // 2)]
    centre = (stream, 0, 0, UP_TO if kind == "B" else EARLIER, weight[:, :, kh // 2, kw // 2].T)
    return [(stream, u - kh // 2, v - kw // 2, ALL, weight[:, :, u, v].T) for u, v in live] + [centre]


def row_taps(stream, weight, kind):
    """Those of a convolution whose last row of taps lies above the pixel ("A") or on its row ("B"), every one of them alive."""
    kh, kw = weight.shape[2:]
    return [(stream, u - kh + (kind == "B"), v - kw // 2, ALL, weight[:, :, u, v].T) for u in range(kh) for v in range(kw)]


# ---- reference -------------------------------------------------------------------------------------------------------------------------


def reference(u, x, known, levels, components, shape, streams, layers, taps, weights, biases, y):
    """One whole pass for every number that is drawn. -> x drawn from `known` on, and the logits of all"""
    x = x.clone(memory_format=torch.contiguous_format)
    x[:, known:] = 0
    D = x.shape[1]
    run = lambda: _pass(x, levels, components, shape, streams.tolist(), layers.tolist(), taps.tolist(), weights, biases[y])
    l = run() if known == D else None
    for d in range(known, D):
        l = run()  # the last ones are those of every step: x_d and what follows it has no say in l_d
        x[:, d] = (u[:, d, None] >= cumulative(l[:, d], levels, components)).sum(1)
    return x, l


def cumulative(l, levels, components):
    """(N, F) -> P(x <= 0), ..., P(x <= L-2), (N, L-1)"""
    if not components:
        return torch.sigmoid(-l) if levels == 2 else l.softmax(1).cumsum(1)[:, :-1]
    pi, mu, log_s = l.unflatten(1, (3, 1, components)).unbind(1)
    edge = (2 * torch.arange(levels - 1, device=l.device)[:, None] + 1) / (levels - 1) - 1
    return (pi.softmax(-1) * torch.sigmoid((edge - mu) * torch.exp(-log_s.clamp(min=-7)))).sum(-1)


def _pass(x, levels, components, shape, streams, layers, taps, weights, bias):
    (C, H, W), N, steps = shape, len(x), _steps(levels)
    k = torch.arange(steps, device=x.device)
    part = (x.view(N, H, W, C, 1).to(bias.dtype) * (steps / (levels - 1)) - k).clamp(0, 1)
    z = {0: torch.cat([torch.ones_like(part[..., :1]), part], -1).flatten(3).movedim(3, 1)}  # (N, C (1 + steps), H, W)
    colour = lambda channels: torch.arange(channels, device=x.device) * C // channels
    for outputs, act, raw, after, residual, at, begin, end, _ in layers:
        s = bias[:, at : at + outputs, None, None]
        for r, di, dj, sight, weight in taps[begin:end]:
            channels = streams[r][0]
            Wt = weights[weight : weight + channels * outputs].view(channels, outputs)
            if sight != ALL:
                dead = colour(channels)[:, None] >= colour(outputs) if sight == EARLIER else colour(channels)[:, None] > colour(outputs)
                Wt = Wt.masked_fill(dead, 0)
            there = F.pad(z[r], (-dj, dj, -di, di))  # z_r(i + di, j + dj), 0 outside
            s = s + torch.einsum("nchw,co->nohw", there, Wt)
        s = s.expand(N, -1, H, W) if residual < 0 else s + z[residual]
        z[raw] = s
        z[after] = None if after < 0 else F.relu(s) if act == 1 else torch.tanh(s[:, 0::2]) * torch.sigmoid(s[:, 1::2]) if act == 2 else None
    return z[layers[-1][2]].movedim(1, 3).reshape(N, H * W * C, layers[-1][0] // C)


def _steps(levels):
    return min(levels - 1, 32)


# ---- kernel: csrc/pixelcnn_sample.cu and csrc/pixelcnn_sample.cpp; here is who runs what ------------------------------------------------


def run(u, x, known, levels, components, shape, streams, layers, taps, weights, biases, y, request):
    if _check.values(x) and ((x[:, :known] < 0) | (x[:, :known] >= levels)).any():
        raise ValueError(f"x must hold 0 ... {levels - 1}, and it holds other values")
    if _check.values(y) and ((y < 0) | (y >= len(biases))).any():
        raise ValueError(f"y must hold classes 0 ... {len(biases) - 1}, and it holds other values")
    choice = _backend.chosen("pixelcnn_sample", x.device, u.dtype, request)
    if choice.backend == "reference":
        return reference(u, x, known, levels, components, shape, streams, layers, taps, weights, biases, y)
    x = x.clone(memory_format=torch.contiguous_format)
    return x, launch(choice, x, known, levels, components, shape, *map(_library.plain, (u, streams, layers, taps, weights, biases, y)))


# ---- launcher --------------------------------------------------------------------------------------------------------------------------


def launch(choice, x, known, levels, components, shape, u, streams, layers, taps, weights, biases, y):
    """Writes x[:, known:], returns the logits."""
    (C, H, W), N, threads = shape, len(x), torch.get_num_threads()  # read once: the workspace is for so many
    channels, depth, _ = streams.unbind(1)
    numbers, widest = int((channels * depth).sum()) * W, int(layers[:, 0].max())
    logits = u.new_empty(*x.shape, int(layers[-1, 0]) // C)
    if choice.backend == "cpu":
        size = _library.size("pixelcnn_sample", "cpu", "pixelcnn_sample_cpu_workspace", u.dtype, N, numbers, widest, threads=threads)
        function, work = "pixelcnn_sample_cpu", torch.empty(size, dtype=torch.uint8)
    else:
        function, work = f"pixelcnn_sample_{choice.rung}", u.new_empty(N, numbers + widest)
    tables = [table.to(x.device) for table in (streams, layers, taps)]
    sizes = (known, N, H, W, C, levels, components, len(layers), numbers, widest, biases.shape[1])
    arguments = (u, x, y, *tables, weights, biases, logits, work, *sizes)
    _library.call("pixelcnn_sample", choice.backend, function, u.dtype, *arguments, threads=threads)
    return logits


# ---- gradient --------------------------------------------------------------------------------------------------------------------------

# None: a draw is a count of thresholds. The likelihood's gradient is that of masked_conv2d.

# ---- registration ----------------------------------------------------------------------------------------------------------------------

_backend.room("pixelcnn_sample", "cuda", ("naive", "groups"), cpu="C++")


def _fake(u, x, known, levels, components, shape, *_):
    return torch.empty_like(x, memory_format=torch.contiguous_format), u.new_empty(*x.shape, _outputs(levels, components))


def _outputs(levels, components):
    return 3 * components if components else 1 if levels == 2 else levels


_sample = _operator.operator(
    "pixelcnn_sample(Tensor u, Tensor x, int known, int levels, int components, int[] shape, Tensor streams, Tensor layers, Tensor taps,"
    " Tensor weights, Tensor biases, Tensor y, str request) -> (Tensor, Tensor)",
    run,
    _fake,
)


def pixelcnn_sample(u, layers, shape, levels, components=0, y=None, x=None, known=0, logits=False):
    """Draws, (N, D) int64: the same u (N, D), uniform in [0, 1), gives the same draws, whoever computes them.

    layers: the program, a list of Layer; shape (C, H, W); components: K of a mixture of logistics, 0 for a softmax; y (N): classes, for
    layers whose bias has a row a class. x (N, D) and known: x[:, :known] is given, the rest is drawn after it. logits=True also gives what
    decided at every step, (N, D, F).
    """
    _check.tensors(u=u)
    _check.dimensions("u", u, 2, "(N, D)")
    C, H, W = _checked_shape(shape)
    _check.shape("u", u, (len(u), C * H * W), "(N, D) with D = C H W")
    _check.whole("levels", levels, 2, 65536, "at least two")
    _check.whole("components", components, 0, 1024, "none or a few")
    if x is not None:
        _check.tensors(_check.INTEGERS, x=x)
        _check.shape("x", x, u.shape, "that of u")
    elif known:
        raise ValueError(f"known = {known} needs x, which holds the known numbers, and x is None")
    _check.whole("known", known, 0, u.shape[1], "from 0 to the count of numbers")
    x = torch.zeros(u.shape, dtype=torch.int64, device=u.device) if x is None else x.long()
    y = torch.zeros(len(u), dtype=torch.int64, device=u.device) if y is None else y
    _check.tensors(_check.INTEGERS, y=y)
    _check.shape("y", y, (len(u),), "(N,) with N of u")
    with torch.no_grad():
        tables = _packed(layers, C, H, W, C * (1 + _steps(levels)), C * _outputs(levels, components))
        _check.one_device(u=u, x=x, y=y, weights=tables[3], biases=tables[4])
        x, l = _sample(u.to(tables[3].dtype), x, known, levels, components, [C, H, W], *tables, y.long(), _backend.requested())
    return (x, l) if logits else x


def _checked_shape(shape):
    if not isinstance(shape, tuple | list) or len(shape) != 3:
        raise ValueError(f"shape must be (C, H, W), got {shape!r}")
    for name, extent, least in zip("CHW", shape, (1, 0, 0), strict=True):
        _check.whole(f"{name} of shape", extent, least, 2**31, "an extent of the image")
    return shape


def _check_layer(a, layers, channels, C):
    """What the kernels rely on. channels: those of the streams before layer a"""
    layer, name = layers[a], f"layers[{a}]"
    if not isinstance(layer, Layer):
        raise TypeError(f"{name} must be a Layer, got {type(layer).__name__}")
    _check.tensors(**{f"{name}.bias": layer.bias})
    if layer.bias.dim() not in (1, 2):
        raise ValueError(f"{name}.bias must have shape (outputs) or (classes, outputs), got {tuple(layer.bias.shape)}")
    _check.one_of(f"{name}.act", layer.act, ACTS)
    _check.flag(f"{name}.rows", layer.rows)
    O = layer.bias.shape[-1]
    if O == 0 or O % (C * (1 + (layer.act == "gate"))):
        raise ValueError(f"{name} must have as many outputs for each of {C} colours, in pairs before a gate, got {O}")
    for t, tap in enumerate(layer.taps):
        _check_tap(f"{name}.taps[{t}]", tap, layers[:a], layer.rows, channels, O, C)
    if layer.residual is not None:
        _check_residual(f"{name}.residual", layer, layers[:a], channels, O)


def _check_tap(name, tap, before, rows, channels, O, C):
    if not isinstance(tap, tuple | list) or len(tap) != 5:
        raise ValueError(f"{name} must be (stream, di, dj, sight, W), got {tap!r}")
    r, di, dj, sight, W_t = tap
    for part, value in (("stream", r), ("di", di), ("dj", dj), ("sight", sight)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{part} of {name} must be an int, got {type(value).__name__}")
    if not 0 <= r < len(channels) or not _looks_back(rows, r == 0, r > 0 and before[(r - 1) // 2].rows, di, dj, sight, C):
        got = f"stream {r}, tap {di, dj}, sight {sight}"
        raise ValueError(f"layers[{len(before)}] must look back at streams that come before it, got {got}")
    _check.tensors(**{f"W of {name}": W_t})
    _check.shape(f"W of {name}", W_t, (channels[r], O), "(channels, outputs)")


def _looks_back(rows, of_input, of_rows, di, dj, sight, C):
    """Whether a layer finds this tap computed: of the input, of a layer by rows, or of one by pixels."""
    if rows:
        return sight == ALL and (di < 0 if of_input else di <= 0 and of_rows)
    if (di, dj) == (0, 0) and not of_rows:
        return sight == EARLIER or (not of_input and (sight == UP_TO or C == 1))
    return sight == ALL and (di < 0 or (di == 0 and (dj < 0 or of_rows)))


def _check_residual(name, layer, before, channels, O):
    """A residual is a stream of an earlier layer, which is final when this layer adds it. The input is not: it holds x_ijc itself."""
    if not before:
        raise ValueError(f"{name} must be None in the first layer, got {layer.residual!r}")
    _check.whole(name, layer.residual, 1, 2 * len(before), "None or a stream of an earlier layer")
    if channels[layer.residual] != O:
        got = f"stream {layer.residual} has {channels[layer.residual]}"
        raise ValueError(f"{name} must be a stream of {O} channels, as many as the layer's outputs, and {got}")
    if layer.rows and not before[(layer.residual - 1) // 2].rows:
        raise ValueError(f"{name} must be a stream of a layer by rows, as layers[{len(before)}] is one, and stream {layer.residual} is not")


def _packed(layers, C, H, W, inputs, outputs):
    """Tables of streams (channels, depth, offset), layers and taps as csrc/pixelcnn_sample.h reads them; all weights, all biases."""
    if not isinstance(layers, tuple | list) or not layers:
        raise ValueError(f"layers must be a list of at least one Layer, got {layers!r}")
    channels, depth, rows, taps, weights, biases = [inputs], {0: 1}, [], [], [], []
    for a, layer in enumerate(layers):
        _check_layer(a, layers, channels, C)
        O, act, begin = layer.bias.shape[-1], ACTS.index(layer.act), len(taps)
        for r, di, dj, sight, W_t in layer.taps:
            if (sight, C) == (EARLIER, 1) or -di >= H or abs(dj) >= W:
                continue  # sees nothing
            depth[r] = max(depth.get(r, 1), 1 - di)
            taps.append([r, di, dj, sight, sum(w.numel() for w in weights)])
            weights.append(W_t.reshape(-1))
        if layer.residual is not None:
            depth.setdefault(layer.residual, 1)
        residual = -1 if layer.residual is None else layer.residual
        rows.append([O, act, 2 * a + 1, 2 * a + 2, residual, sum(b.shape[-1] for b in biases), begin, len(taps), int(layer.rows)])
        channels += [O, (0, O, O // 2)[act]]
        biases.append(layer.bias)
    if O != outputs:
        raise ValueError(f"layers[{a}], the last, must have {outputs} outputs, those that decide the colours of a pixel, got {O}")
    depth.setdefault(2 * len(layers) - 1, 1)  # what decides
    streams, offset = [], 0
    for r, count in enumerate(channels):
        streams.append([count, depth.get(r, 0), offset])
        offset += count * depth.get(r, 0) * W
    kernel_rows = [[*row[:2], *(r if r in depth else -1 for r in row[2:4]), *row[4:]] for row in rows]
    classes = sorted({len(b) for b in biases if b.dim() == 2} - {1})
    if len(classes) > 1:
        got = ", ".join(f"layers[{a}].bias {tuple(b.shape)}" for a, b in enumerate(biases) if b.dim() == 2)
        raise ValueError(f"biases must have as many classes in every layer that has any, got {got}")
    dtype = torch.float64 if torch.float64 in {array.dtype for array in (*weights, *biases)} else torch.float32  # of all: kernels read one
    weights = torch.cat(weights).to(dtype) if weights else biases[0].new_empty(0, dtype=dtype)
    biases = torch.cat([b.expand(*classes or [1], -1) for b in biases], 1).to(dtype)
    table = lambda numbers, columns: torch.tensor(numbers, dtype=torch.int64, device="cpu").view(-1, columns)
    return table(streams, 3), table(kernel_rows, 9), table(taps, 5), weights, biases
