"""What decides the level of a pixel, 0 ... L-1, in kernels/made_sample.py and kernels/pixelcnn_sample.py."""

import torch


def outputs_of(levels, components=0):
    """How many numbers l decide a level: a logit for two levels, else one for each, or three for each logistic."""
    return 3 * components if components else 1 if levels == 2 else levels


def cumulative(l, levels, components=0):
    """l (N, outputs) -> P(x <= 0), ..., P(x <= L-2), (N, L-1)"""
    if not components:
        return torch.sigmoid(-l) if levels == 2 else l.softmax(1).cumsum(1)[:, :-1]
    pi, mu, log_s = l.unflatten(1, (3, 1, components)).unbind(1)
    edge = (2 * torch.arange(levels - 1, device=l.device, dtype=l.dtype)[:, None] + 1) / (levels - 1) - 1
    return (pi.softmax(-1) * torch.sigmoid((edge - mu) * torch.exp(-log_s.clamp(min=-7)))).sum(-1)
