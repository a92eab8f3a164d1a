"""The list of layers that kernels/pixelcnn_sample.py draws from, and the tables in which its kernels read it.

    Layer, Tap                       a layer, and what it looks at
    packed(layers, ...)              checks them -> tables of streams, layers and taps, weights, biases
    StreamRow, LayerRow, TapRow      a row of each table, and the sizes of a call: the structs of
    Sizes                            csrc/pixelcnn_sample.h, all int64_t, field by field in their order
                                     (tests/kernels/test_pixelcnn_sample.py compares)

Layer a gives the streams 2a + 1 and 2a + 2, before and after its activation; stream 0 is the input.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from . import _check, _library

SIGHTS = ("ALL", "EARLIER", "UP_TO")  # which colours of its pixel a tap sees
ALL, EARLIER, UP_TO = range(3)
ACTS = ("", "relu", "gate")


class Tap(NamedTuple):
    stream: int
    di: int
    dj: int
    sight: int  # ALL, or at the centre EARLIER or UP_TO
    W: torch.Tensor  # (channels, outputs)


@dataclass
class Layer:
    taps: list
    bias: torch.Tensor  # (outputs) or (classes, outputs)
    act: str = ""  # of ACTS
    residual: int | None = None  # a stream
    rows: bool = False


class StreamRow(NamedTuple):
    channels: int
    depth: int
    offset: int


class LayerRow(NamedTuple):
    outputs: int
    act: int
    raw: int
    after: int
    residual: int
    bias: int
    tap: int
    taps_end: int
    rows: int


class TapRow(NamedTuple):
    stream: int
    di: int
    dj: int
    sight: int
    weight: int


class Sizes(NamedTuple):
    known: int
    N: int
    H: int
    W: int
    C: int
    L: int  # levels
    M: int  # columns of E
    K: int  # logistics, or 0
    count: int  # of layers
    numbers: int  # of all streams of a sample
    widest: int  # outputs of a layer
    bias_columns: int


def rows_of(kind, table):
    return [kind(*row) for row in table.tolist()]


def packed(layers, shape, inputs, outputs):
    """Checks the layers -> the tables of streams, layers and taps; all weights in a row; all biases side by side

    inputs: channels of stream 0; outputs: those that the last layer must have."""
    (C, H, W), channels, depth = shape, [inputs], {0: 1}  # of the streams: their channels, and the rows that are kept
    if not isinstance(layers, tuple | list) or not layers:
        raise ValueError(f"layers must be a list of at least one Layer, got {layers!r}")
    layer_rows, tap_rows, weights, biases, weight, bias = [], [], [], [], 0, 0
    for a, layer in enumerate(layers):
        check_layer(a, layers, channels, C)
        O, act, begin = layer.bias.shape[-1], ACTS.index(layer.act), len(tap_rows)
        for tap in map(Tap._make, layer.taps):
            if (tap.sight, C) == (EARLIER, 1) or -tap.di >= H or abs(tap.dj) >= W:
                continue  # it sees nothing
            depth[tap.stream] = max(depth.get(tap.stream, 1), 1 - tap.di)
            tap_rows.append(TapRow(stream=tap.stream, di=tap.di, dj=tap.dj, sight=tap.sight, weight=weight))
            weights.append(tap.W.reshape(-1))
            weight += tap.W.numel()
        if layer.residual is not None:
            depth.setdefault(layer.residual, 1)
        layer_rows.append(LayerRow(
            outputs=O, act=act, raw=2 * a + 1, after=2 * a + 2, bias=bias, tap=begin, taps_end=len(tap_rows),
            residual=-1 if layer.residual is None else layer.residual, rows=int(layer.rows),
        ))
        channels += [O, (0, O, O // 2)[act]]
        biases.append(layer.bias)
        bias += O
    if O != outputs:
        wanted = f"{outputs} outputs, the numbers that decide the colours of a pixel"
        raise ValueError(f"layers[{a}], the last, must have {wanted}, got {O}")
    depth.setdefault(2 * a + 1, 1)  # the last s_a decides
    stream_rows, offset = [], 0
    for r, count in enumerate(channels):
        stream_rows.append(StreamRow(channels=count, depth=depth.get(r, 0), offset=offset))
        offset += count * depth.get(r, 0) * W
    read = lambda r: r if r in depth else -1
    layer_rows = [row._replace(raw=read(row.raw), after=read(row.after)) for row in layer_rows]
    tables = map(_library.table, (StreamRow, LayerRow, TapRow), (stream_rows, layer_rows, tap_rows))
    return *tables, *of_one_dtype(weights, biases)


def of_one_dtype(weights, biases):
    """All weights in a row, all biases side by side; a bias without classes is the same for each."""
    dtype = torch.float64 if torch.float64 in {array.dtype for array in (*weights, *biases)} else torch.float32
    classes = {len(b) for b in biases if b.dim() == 2} - {1} or {1}
    if len(classes) > 1:
        got = ", ".join(f"layers[{a}].bias {tuple(b.shape)}" for a, b in enumerate(biases) if b.dim() == 2)
        raise ValueError(f"biases must have as many classes in every layer that has any, got {got}")
    weights = torch.cat(weights).to(dtype) if weights else biases[0].new_empty(0, dtype=dtype)
    return weights, torch.cat([b.expand(*classes, -1) for b in biases], 1).to(dtype)


# ---- checks: a layer sees only what is computed before it -----------------------------------------------------------


def check_layer(a, layers, channels, C):
    """channels: those of the streams before layer a"""
    layer, name = layers[a], f"layers[{a}]"
    if not isinstance(layer, Layer):
        raise TypeError(f"{name} must be a Layer, got {type(layer).__name__}")
    _check.tensors(**{f"{name}.bias": layer.bias})
    if layer.bias.dim() not in (1, 2):
        got = tuple(layer.bias.shape)
        raise ValueError(f"{name}.bias must have shape (outputs) or (classes, outputs), got {got}")
    if layer.bias.dim() == 2 and not len(layer.bias):
        raise ValueError(f"{name}.bias must have at least one class, got {tuple(layer.bias.shape)}")
    _check.lists(**{f"{name}.taps": layer.taps})
    _check.one_of(f"{name}.act", layer.act, ACTS)
    _check.flag(f"{name}.rows", layer.rows)
    O = layer.bias.shape[-1]
    if O == 0 or O % (C * (1 + (layer.act == "gate"))):
        got = f"in pairs before a gate, got {O}"
        raise ValueError(f"{name} must have as many outputs for each of {C} colours, {got}")
    for t, tap in enumerate(layer.taps):
        check_tap(f"{name}.taps[{t}]", tap, layers[:a], layer.rows, channels, O, C)
    if layer.residual is not None:
        check_residual(f"{name}.residual", layer, layers[:a], channels, O)


def check_tap(name, tap, before, rows, channels, O, C):
    if not isinstance(tap, tuple | list) or len(tap) != 5:
        raise ValueError(f"{name} must be (stream, di, dj, sight, W), got {tap!r}")
    *numbers, W = tap
    for field, number in zip(Tap._fields, numbers, strict=False):
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"{field} of {name} must be an int, got {type(number).__name__}")
    r, di, dj, sight = numbers
    if not 0 <= sight < len(SIGHTS):
        raise ValueError(f"sight of {name} must be {_check.names(SIGHTS)}, 0 to 2, got {sight}")
    if not 0 <= r < len(channels) or not looks_back(rows, r, r > 0 and of_stream(before, r).rows, di, dj, sight, C):
        got = f"stream {r} at ({di}, {dj}) with sight {SIGHTS[sight]}"
        raise ValueError(f"{name} must look back at a stream that is computed before it, got {got}")
    _check.tensors(**{f"W of {name}": W})
    _check.shape(f"W of {name}", W, (channels[r], O), "(channels, outputs)")


def check_residual(name, layer, before, channels, O):
    """A residual is a stream of an earlier layer, which is final when this layer adds it. The input is none of them: it
    holds x_ijc itself, which is not drawn yet."""
    if not before:
        raise ValueError(f"{name} must be None in the first layer, got {layer.residual!r}")
    _check.whole(name, layer.residual, 1, 2 * len(before), "None or a stream of an earlier layer")
    if channels[layer.residual] != O:
        got = f"stream {layer.residual} has {channels[layer.residual]}"
        raise ValueError(f"{name} must be a stream of {O} channels, as many as the layer's outputs, and {got}")
    if layer.rows and not of_stream(before, layer.residual).rows:
        got = f"as layers[{len(before)}] is one, and stream {layer.residual} is not"
        raise ValueError(f"{name} must be a stream of a layer by rows, {got}")


def of_stream(layers, r):
    return layers[(r - 1) // 2]


def looks_back(rows, r, of_rows, di, dj, sight, C):
    """Whether the layer (by rows, or by pixels) finds this tap of stream r (the input, of a layer by rows, or by
    pixels) computed."""
    if rows:
        return sight == ALL and (di < 0 if r == 0 else di <= 0 and of_rows)
    if (di, dj) == (0, 0) and not of_rows:
        return sight == EARLIER or (r > 0 and (sight == UP_TO or (sight == ALL and C == 1)))
    return sight == ALL and (di < 0 or (di == 0 and (dj < 0 or of_rows)))
