"""How many bytes an operator of PyTorch must move and how many operations it makes: counted from its shapes.

    of("aten::mm", [[64, 32], [32, 16]], ["float", "float"])      Cost(bytes=14336, operations=65536, dtype=float32)

Inputs are read once and outputs are written once; what lies in a cache by chance is not subtracted.

    matrix product    2 n k m operations for (n, k) (k, m); a bias is read, its additions are not counted
    convolution       2 operations for each weight at each place of the output (of a transposed one: of the input); its
                      gradient as many for dx, and as many for dW
    elementwise       one operation for each number of the output
    others            reductions, softmax, norms and operators of genmini: their inputs, and as output what the operator
                      leaves allocated; no operations, but for those products in a room that PRODUCTS names

None: not counted, as views, which move nothing, and operators that are not named here.

    used by: genmini/profiling.py    test: tests/project/test_operations.py
"""

import math
from dataclasses import dataclass

import torch

DTYPES = {"float": torch.float32, "double": torch.float64, "c10::Half": torch.float16, "c10::BFloat16": torch.bfloat16,
          "long int": torch.int64, "long": torch.int64, "int": torch.int32, "short int": torch.int16,
          "signed char": torch.int8, "unsigned char": torch.uint8, "bool": torch.bool}  # as the profiler names them
ELEMENTWISE = {
    "abs", "add", "addcdiv", "addcmul", "clamp", "clamp_max", "clamp_min", "copy", "cos", "div", "elu", "exp", "expm1",
    "gelu", "leaky_relu", "lerp", "log", "log1p", "maximum", "minimum", "mul", "neg", "pow", "reciprocal", "relu",
    "rsqrt", "rsub", "sigmoid", "sigmoid_backward", "silu", "silu_backward", "sin", "softplus", "sqrt", "square",
    "sub", "tanh", "tanh_backward", "threshold_backward", "where",
}
WHOLE = {  # read all of their inputs
    "_log_softmax", "_log_softmax_backward_data", "_softmax", "_softmax_backward_data", "amax", "amin", "argmax",
    "argmin", "cumsum", "logsumexp", "max", "mean", "min", "native_batch_norm", "native_batch_norm_backward",
    "native_group_norm", "native_group_norm_backward", "native_layer_norm", "native_layer_norm_backward", "sum",
    "upsample_nearest2d", "upsample_nearest2d_backward", "var",
}
CONVOLUTIONS = {"conv1d", "conv2d", "conv3d", "convolution", "_convolution"}


@dataclass(frozen=True)
class Cost:
    bytes: int
    operations: int
    dtype: torch.dtype = torch.float32  # of the numbers that are multiplied

    def __add__(self, other):
        return Cost(self.bytes + other.bytes, self.operations + other.operations,
                    self.dtype if self.operations else other.dtype)


def of(name, shapes, dtypes, scalars=(), allocated=0):
    """shapes and dtypes of the arguments, as torch.profiler records them, and the values of those that are no tensors;
    allocated: bytes that the operator leaves allocated -> Cost, or None"""
    space, _, word = name.partition("::")
    tensors = _tensors(shapes, dtypes)
    if name == "aten::cat":
        return Cost(2 * max(allocated, 0), 0)
    if not tensors:
        return None
    dtype, read = tensors[0][1], inputs(shapes, dtypes)
    if space == "genmini":
        of_room = PRODUCTS.get(word)
        return Cost(read + max(allocated, 0), of_room(*(shape for shape, _ in tensors)) if of_room else 0, dtype)
    if space != "aten":
        return None
    if word in MATRICES:
        shape, operations = MATRICES[word](*(shape for shape, _ in tensors))
        return Cost(read + _bytes(shape, tensors[-1][1]), operations, tensors[-1][1])
    if word in CONVOLUTIONS:
        return _convolution(word, tensors, scalars, read)
    if word == "convolution_backward":
        return _convolution_backward(tensors, scalars, read)
    if is_elementwise(name):
        return _elementwise(word, tensors, read)
    if word in WHOLE:
        return Cost(read + max(allocated, 0), 0, dtype)
    return None


def inputs(shapes, dtypes):
    """Bytes of all tensors among the arguments; those in lists have the dtype of the first, which is not recorded."""
    tensors = _tensors(shapes, dtypes)
    lists = [shape for shape, dtype in zip(shapes, dtypes, strict=False) if dtype == "TensorList"]
    dtype = tensors[0][1] if tensors else torch.float32
    return sum(_bytes(*tensor) for tensor in tensors) + sum(_bytes(shape, dtype) for each in lists for shape in each)


def _tensors(shapes, dtypes):
    """[(shape, dtype)] of the tensors among the arguments; a number beside tensors is none"""
    given = [(tuple(shape), DTYPES[dtype]) for shape, dtype in zip(shapes, dtypes, strict=False) if dtype in DTYPES]
    return [tensor for tensor in given if tensor[0]] or given


def is_elementwise(name):
    """aten::add_: True"""
    return name.removeprefix("aten::").rstrip("_") in ELEMENTWISE


def _bytes(shape, dtype):
    return math.prod(shape) * dtype.itemsize


def _elementwise(word, tensors, read):
    if word == "copy_":  # the first argument is only written
        (shape, dtype), (_, of_source) = tensors[0], tensors[1] if len(tensors) > 1 else tensors[0]
        return Cost(_bytes(shape, dtype) + _bytes(tensors[-1][0], of_source), 0, dtype)
    shape = torch.broadcast_shapes(*(shape for shape, _ in tensors))
    dtype = max((dtype for _, dtype in tensors), key=lambda dtype: (dtype.is_floating_point, dtype.itemsize))
    return Cost(read + _bytes(shape, dtype), math.prod(shape), dtype)


# ---- matrix products: shapes of the tensors, perhaps of an output behind them -> that of the output, operations ------


def _mm(a, b, *_):  # (..., n, k), (..., k, m)
    shape = (*a[:-1], b[-1])
    return shape, 2 * math.prod(shape) * a[-1]


def _linear(x, w, *_):  # (..., k), (m, k)
    shape = (*x[:-1], w[0])
    return shape, 2 * math.prod(shape) * x[-1]


MATRICES = {
    "mm": _mm, "bmm": _mm, "addmm": lambda c, *ab: _mm(*ab), "baddbmm": lambda c, *ab: _mm(*ab), "linear": _linear,
    "mv": lambda a, *_: (a[:1], 2 * math.prod(a)), "addmv": lambda c, a, *_: (a[:1], 2 * math.prod(a)),
    "dot": lambda a, *_: ((), 2 * a[0]),
    # q (N, h, L, E), k (N, h, S, E), v (N, h, S, F): q k^T, and its softmax times v
    "scaled_dot_product_attention": lambda q, k, v, *_: (
        (*q[:-1], v[-1]), 2 * math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])),
}
PRODUCTS = {  # of rooms, by their first tensors
    "nearest_code": lambda z, e, *_: 2 * math.prod(z) * e[0],  # (N, D), (K, D)
    "masked_linear": lambda x, w, *_: 2 * math.prod(x) * w[0],  # (N, K), (J, K): a product that skips no mask
    "masked_linear_dw": lambda dy, x, *_: 2 * math.prod(dy) * x[-1],  # (N, J), (N, K)
    "masked_linear_backward": lambda dy, x, *_: 4 * math.prod(dy) * x[-1],
    "masked_conv2d": lambda x, w, *_: 2 * x[0] * math.prod(x[2:]) * math.prod(w),  # (N, C, H, W), (O, C, kh, kw)
    "masked_conv2d_turned": lambda dy, w, *_: 2 * dy[0] * math.prod(dy[2:]) * math.prod(w),
    "masked_conv2d_backward": lambda dy, x, w, *_: 4 * dy[0] * math.prod(dy[2:]) * math.prod(w),
    "nade": lambda x, W, *_: 4 * math.prod(x) * W[0],  # (N, D), (H, D): a <- a + W x_d, and V h
}


# ---- convolutions ----------------------------------------------------------------------------------------------------


def _convolution(word, tensors, scalars, read):
    """(x, w, bias, stride, padding, dilation, ...); None where they are words, as padding="same": then the operators
    below it are counted."""
    (x, dtype), (w, _) = tensors[:2]
    if len(scalars) < 7 or not all(isinstance(value, list | tuple) and value for value in scalars[3:6]):
        return None
    sides = range(len(x) - 2)
    stride, padding, dilation = ([*value] * len(sides) if len(value) == 1 else value for value in scalars[3:6])
    reach = [dilation[i] * (w[2 + i] - 1) for i in sides]
    if scalars[6] is True:  # transposed, w (C, O / groups, ...)
        more, groups = scalars[7] or [0] * len(sides), scalars[8]
        places = [(x[2 + i] - 1) * stride[i] - 2 * padding[i] + reach[i] + more[i] + 1 for i in sides]
        y, operations = (x[0], w[1] * groups, *places), 2 * math.prod(x) * math.prod(w[1:])
    else:  # w (O, C / groups, ...)
        y = x[0], w[0], *((x[2 + i] + 2 * padding[i] - reach[i] - 1) // stride[i] + 1 for i in sides)
        operations = 2 * math.prod(y) * math.prod(w[1:])
    return Cost(read + _bytes(y, dtype), operations, dtype)


def _convolution_backward(tensors, scalars, read):
    (dy, dtype), (x, _), (w, _) = tensors[:3]
    transposed, (dx, dw, db) = scalars[7], scalars[10]
    each = 2 * math.prod(x if transposed else dy) * math.prod(w[1:])
    written = dx * _bytes(x, dtype) + dw * _bytes(w, dtype) + db * dtype.itemsize * dy[1]
    return Cost(read + written, (dx + dw) * each, dtype)
