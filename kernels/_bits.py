"""Mask weights by bits: all 1 where a weight lives, all 0 where it does not, so that W o M is W & M.

For the backends `cpu` of kernels/masked_linear.py and kernels/masked_conv2d.py, which keep the bits of a mask. This is
as fast as a product, and takes a tenth of the time of masked_fill; a masked NaN is 0, too.
"""

import torch

WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits_of(live, dtype):
    """Of a mask, for weights of this dtype"""
    return -live.to(WORDS[dtype.itemsize])


def masked(weight, bits):
    return (weight.view(bits.dtype) & bits).view(weight.dtype)


def masked_(weight, bits):
    weight.view(bits.dtype).bitwise_and_(bits)
    return weight
