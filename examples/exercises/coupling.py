"""Exercise 1: the coupling of coupling.cu, in CUDA. `python examples/exercises/coupling.py` says when it is right."""

import sys
from pathlib import Path

import right

import genmini

SOURCE = genmini.Source(Path(__file__).with_name("coupling.cu"))


@genmini.register("affine_coupling", backend="mine")
def coupling(x, s, t):  # (N, D) each -> (N, D), (N,)
    y, logdet = x.new_empty(x.shape), x.new_empty(len(x))
    SOURCE.call("coupling", x, s, t, y, logdet, *x.shape)
    return y, logdet


if __name__ == "__main__":
    sys.exit(right.tell("affine_coupling", N=8, D=1000))
