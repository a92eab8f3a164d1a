"""What does a part of the codes say? Codes of an image A are moved into another, B, and the mixture is decoded.

    k_ij = a_ij  for places (i, j) of the region,   b_ij  elsewhere                                             (1)

The rows show A, B, what both decode to, and the mixtures (1) of three regions. Measured over PAIRS pairs of test images
are the squared error of a pixel v = x / (L - 1): in the region against A and against B, decoded, and elsewhere against
B; and the share of codes that come back when the mixture is coded again. The decoder's convolutions mix neighbours, so
that pixels near the region change much, and its norms take means over all places, so that others change a little.

    used by: genmini/studies/codes.py    test: tests/project/test_study_swap.py
"""

import torch

from genmini import plots

PAIRS, COLUMNS = 200, 10  # measured, and shown


def regions(h, w):
    """-> {name: which of the places (h, w) are those of A}"""
    left, upper = torch.arange(w).expand(h, w) < w / 2, torch.arange(h)[:, None].expand(h, w) < h / 2
    return {"left half": left, "upper half": upper, "upper left quarter": left & upper}


def partners(y, alike):
    """For each image the next one, after the last the first, of another class; alike: of its own, and itself if there
    is none, (N,)"""
    N = len(y)
    after = (torch.arange(N) - torch.arange(N)[:, None] - 1) % N  # 0: the next image, N - 1: the image itself
    return torch.where((y[:, None] == y) == alike, after, after + N).argmin(1)  # the next of any class, if none fits


@torch.no_grad()
def study(run, path):
    model, test = run.model.cpu(), run.split("test")
    x, y = test.x[:PAIRS], test.y[:PAIRS]
    b = partners(y, bool(model.classes))
    given = (y[b],) if model.classes else ()  # A has the class of B
    codes = model.codes(x, *[y] * bool(model.classes))
    of_A, of_B = codes, codes[b]
    whole = [model.decode_codes(k, *given) for k in (of_A, of_B)]
    rows, labels, lines = [x, x[b], *whole], ["A", "B", "A decoded", "B decoded"], []
    sides = [side // places for side, places in zip(model.shape[-2:], model.grid, strict=True)]
    for name, region in regions(*model.grid).items():
        k = torch.where(region, of_A, of_B)  # (1)
        mixed = model.decode_codes(k, *given)
        inside = region.repeat_interleave(sides[0], 0).repeat_interleave(sides[1], 1)
        apart = lambda a, b, where: ((a - b) / (test.levels - 1)).square()[..., where].mean().item()
        back = model.codes(mixed.round().to(x.dtype), *given) == k
        lines.append(f"{name}: {apart(mixed, whole[0], inside):.4f} from A and {apart(mixed, whole[1], inside):.4f} "
                     f"from B, elsewhere {apart(mixed, whole[1], ~inside):.4f} from B; "
                     f"{back.double().mean().item():.1%} of the codes come back")
        rows.append(mixed)
        labels.append(f"B, {name} of A")
    images = torch.stack([row[:COLUMNS].float() for row in rows])
    plots.rows(path, f"codes of A moved into B ({test.split})", images, labels, test.levels)
    return f"squared error of a pixel, of {len(x)} pairs; " + "\n".join(lines)
