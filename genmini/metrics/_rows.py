"""Checks and ordering of the rows that every metric takes."""

import numpy as np
import torch


def canonical(name, rows, least=2):
    """(n, F) -> the same rows in float64 on the CPU, sorted, so that no result depends on the order they came in."""
    if rows.dim() != 2 or len(rows) < least or not rows.shape[1]:
        raise ValueError(f"{name} must have shape (n, F) with n at least {least}, got {tuple(rows.shape)}")
    rows = rows.detach().to("cpu", torch.float64).numpy()
    if not np.isfinite(rows).all():
        raise ValueError(f"{name} holds {np.count_nonzero(~np.isfinite(rows))} numbers that are not finite")
    return torch.from_numpy(rows[np.lexsort(rows.T[::-1])] + 0.0)  # + 0.0 turns -0.0 into 0.0


def two(a, b, least=2):
    """Two sets (n, F), (m, F) -> both in canonical form; F must be the same."""
    a, b = canonical("the first set", a, least), canonical("the second set", b, least)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"the two sets must have as many features each, got {a.shape[1]} and {b.shape[1]}")
    return a, b
