"""Wires a room: its functions become PyTorch operators, and every argument is known by its name in the schema.

    SQUARE = room("square", "cuda", ("naive", "tiled"), cpu="C++")       # rungs of the GPU kernel, slowest first

    backward = operator(SQUARE, "square_dx(Tensor dy, Tensor x) -> Tensor dx", fake=..., reference=..., kernel=...)
    forward = operator(SQUARE, "square(Tensor x) -> Tensor y", fake=..., reference=..., kernel=..., cpu=...)

    def gradient(dy, x): return dict(x=_backward(dy=dy, x=x))            # each input's gradient, by its name

    _square = differentiable(forward, gradient, rows="x")
    _backward = differentiable(backward, rows="dy x")                    # PyTorch differentiates its reference

    room              kernels/_backend.py      what can run the operator of a room
    operator          kernels/_operator.py     from functions that know names to an operator of PyTorch
    differentiable    kernels/_gradient.py     its gradient, and vmap
    door              kernels/_door.py         decorates a front door: later calls of a kind go straight to the kernel
    sum_dtype         kernels/_takes.py        float32 or float64, for what is summed

An operator names its inputs and outputs in its schema, and is called by the names of its inputs. Its functions take
whichever of these they need, in any order, under these names:

    fake(inputs)                       empty outputs: their shapes, dtypes and strides; or a string, "x s", of the
                                       inputs that they are like: the first like x, the second like s
    takes                              a string, "x s: T(N, D)": which dtypes and shapes agree (kernels/_takes.py);
                                       held before every backend and in the fake. With dots, "x y: T(N, D...)", D
                                       is any dimensions, seen as one (kernels/_fold.py)
    check(inputs)                      raises if values inside the tensors are not allowed; runs before every backend
    reference(inputs)                  the definition, in plain PyTorch
    kernel(inputs, backend, rung)      launches the GPU kernel, real or emulated
    cpu(inputs, backend, rung)         what is fast on CPU tensors: a function of PyTorch's, or `kernel` again, which
                                       launches the native one. Without it an operator takes its reference there
    gradient(inputs, outputs, d<output>, needed)
                                       -> dict(input=gradient). The inputs and outputs that it names are kept for the
                                       backward pass; `needed` is the set of inputs that want a gradient

`cpu` and `kernel` get contiguous tensors at addresses that are multiples of 16 bytes, except those named in `strided`.
What PyTorch computes is made contiguous, or gets the strides of the fake where `strided` names an output. `rows` names
the inputs whose dimension 0 is the batch: vmap folds its new dimension into it.

The request (the backend that `kernels.use` had chosen when the front door was called) travels as a last, hidden
argument. A gradient's operators get the request of their forward, whatever is chosen by then, in whatever thread.
"""

from ._backend import room
from ._door import door
from ._gradient import differentiable
from ._operator import operator
from ._takes import sum_dtype

__all__ = ["differentiable", "door", "operator", "room", "sum_dtype"]
