"""Which tiles of a mask are dead, full or mixed, and so which spans of inputs some outputs at a time are computed of.

For the backend `cpu` of kernels/masked_linear.py, whose masks are of degrees, and for genmini/swap/rooms.py, whose
masks are any.
"""

import torch
import torch.nn.functional as F

ROWS, SIDE = 128, 16  # a tile of degrees: so many outputs, so many inputs
GAP = 4  # dead tiles side by side that are multiplied: another product would cost as much


def tiles_of_degrees(in_degree, out_degree, strict, rows=ROWS):  # (K), (J) -> live, full (J / rows, K / SIDE)
    (low, high), (least, greatest) = _extremes(in_degree, SIDE), _extremes(out_degree, rows)
    may_see = torch.gt if strict else torch.ge
    return may_see(greatest[:, None], low), may_see(least[:, None], high)


def _extremes(degree, side):
    """The least and the greatest degree of each tile"""
    tiles = torch.cat([degree, degree[-1:].expand(-len(degree) % side)]).view(-1, side)
    return tiles.amin(1), tiles.amax(1)


def tiles_of_mask(mask, rows):  # (J, K) of bool -> live, full (J / rows, K / SIDE)
    J, K = mask.shape
    tiles = lambda beyond: F.pad(mask, (0, -K % SIDE, 0, -J % rows), value=beyond).unflatten(1, (-1, SIDE)).unflatten(
        0, (-1, rows)).transpose(1, 2).flatten(2)
    return tiles(False).any(2), tiles(True).all(2)


def spans(K, live, full, gap=GAP):
    """Of each row of tiles, ((live, mixed), ...): the spans of inputs that some output sees, more than `gap` dead tiles
    apart, and in each, counted from its start, the inputs that not all see; as (start, length)."""
    for seen, whole in zip(live.tolist(), full.tolist(), strict=True):
        runs = []
        for t in (t for t, one in enumerate(seen) if one):
            if runs and t - runs[-1].stop <= gap:
                runs[-1] = range(runs[-1].start, t + 1)
            else:
                runs.append(range(t, t + 1))
        yield tuple(_span(run, [t for t in run if not whole[t]], K) for run in runs)


def _span(run, mixed, K):
    place = lambda tiles: (SIDE * tiles[0], min(SIDE * (tiles[-1] + 1), K) - SIDE * tiles[0])
    start, length = place(run)
    first, count = place(mixed) if mixed else (start, 0)
    return (start, length), (first - start, count)
