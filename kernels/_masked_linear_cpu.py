"""The masked product on CPU tensors, in PyTorch, without the masked corner of W: half the time for sorted degrees.

The backend `cpu` of kernels/masked_linear.py. Degrees in another order are sorted first, with their rows and columns,
and the result is put back in the order given.
"""

import torch
import torch.nn.functional as F

ROWS = 128  # outputs that are computed at a time


def by_staircase(x, weight, bias, in_degree, out_degree, strict):  # (N, K), (J, K), (J) -> (N, J)
    if not _sorted(in_degree, out_degree):
        k, j = in_degree.argsort(stable=True), out_degree.argsort(stable=True)
        w = weight.index_select(0, j).index_select(1, k)
        bias = bias if bias is None else bias[j]
        y = by_staircase(x.index_select(1, k), w, bias, in_degree[k], out_degree[j], strict)
        return y.index_select(1, j.argsort())
    y = x.new_empty(x.shape[0], weight.shape[0])
    for rows, live, mixed, dead in _staircase(in_degree, out_degree, strict):
        w = weight[rows, live].clone()
        w[:, mixed].masked_fill_(dead, 0)
        y[:, rows] = F.linear(x[:, live], w, bias if bias is None else bias[rows])
    return y


def dw_by_staircase(dy, x, in_degree, out_degree, strict):  # (N, J), (N, K) -> (J, K)
    if not _sorted(in_degree, out_degree):
        k, j = in_degree.argsort(stable=True), out_degree.argsort(stable=True)
        dw = dw_by_staircase(dy.index_select(1, j), x.index_select(1, k), in_degree[k], out_degree[j], strict)
        return dw.index_select(0, j.argsort()).index_select(1, k.argsort())
    dw = x.new_zeros(dy.shape[1], x.shape[1])
    for rows, live, mixed, dead in _staircase(in_degree, out_degree, strict):
        dw[rows, live] = dy[:, rows].T @ x[:, live]
        dw[rows, live][:, mixed].masked_fill_(dead, 0)
    return dw


def _sorted(*degrees):
    """Whether all degrees ascend, or all descend."""
    return all((d[1:] >= d[:-1]).all() for d in degrees) or all((d[1:] <= d[:-1]).all() for d in degrees)


def _staircase(in_degree, out_degree, strict):
    """Yield, for ROWS outputs at a time: these, the inputs that some of them see, the mixed ones of those, the mask."""
    K, J = len(in_degree), len(out_degree)
    descending = bool((in_degree[:1] > in_degree[-1:]).any() or (out_degree[:1] > out_degree[-1:]).any())
    seen = torch.searchsorted(in_degree.flip(0) if descending else in_degree, out_degree, right=not strict).tolist()
    for j in range(0, J, ROWS):
        rows = slice(j, min(j + ROWS, J))
        most, least = max(seen[j], seen[rows.stop - 1]), min(seen[j], seen[rows.stop - 1])
        live, mixed = slice(0, most), slice(least, most)
        if descending:
            live, mixed = slice(K - most, K), slice(0, most - least)
        in_, out = in_degree[live][mixed], out_degree[rows, None]
        yield rows, live, mixed, out <= in_ if strict else out < in_
