"""Small kernels in Triton whose counts a reader can work out. test_count_tiles.py has the answers; docs/counting.md
explains them."""

from genmini.kernels._triton import tl, triton


@triton.jit
def strided(x_ptr, y_ptr, STEP: tl.constexpr, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    tl.store(y_ptr + i, tl.load(x_ptr + STEP * i))


@triton.jit
def tail(x_ptr, y_ptr, N, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    x = tl.load(x_ptr + i, i < N,
                other=0)
    tl.store(y_ptr + i, x + tl.load(x_ptr + i, i < N, other=0), i < N)


@triton.jit
def corner(x_ptr, y_ptr, D, BN: tl.constexpr, BD: tl.constexpr):
    """Reads a tile of rows, and writes it turned."""
    n, d = tl.arange(0, BN), tl.arange(0, BD)
    x = tl.load(x_ptr + n[:, None] * D + d[None, :])
    tl.store(y_ptr + d[None, :] * BN + n[:, None], x)


@triton.jit
def counts(x_ptr, count_ptr, B: tl.constexpr):
    i = tl.arange(0, B)
    tl.atomic_add(count_ptr + tl.load(x_ptr + i), 1)


@triton.jit
def twice(x):
    return tl.dot(x, x, input_precision="ieee")


@triton.jit
def products(x_ptr, B: tl.constexpr):
    x_ptrs = x_ptr + tl.arange(0, B)[:, None] * B + tl.arange(0, B)[None, :]
    tl.store(x_ptrs, twice(tl.load(x_ptrs)))


@triton.jit
def described(x_ptr, y_ptr, N, B: tl.constexpr):
    """A descriptor's mask is its check of the bounds."""
    start = tl.program_id(0) * B
    x = tl.make_tensor_descriptor(x_ptr, shape=[N], strides=[1], block_shape=[B]).load([start])
    tl.store(y_ptr + start + tl.arange(0, B), x)


@triton.jit
def blocks(x, ys, B: tl.constexpr):
    """A descriptor that the host made, and a tuple of tensors."""
    i = tl.arange(0, B)
    tl.store(ys[0] + i, x.load([0]))
    tl.store(ys[1] + i, x.load([B]))
