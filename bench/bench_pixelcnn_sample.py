"""Time and memory of sampling from PixelCNN, beside one pass for each number. Room: kernels/pixelcnn_sample.py

The naive sampler takes D passes, each over the rows down to the pixel that is drawn: half of them on average. So D
times the pass over half of the rows is set beside our draw: a pass of the model itself, and of the plain PixelCNN also
one of PyTorch's convolutions, channels last, with weights masked before the clock starts and the last two layers
computed at the pixel alone. The ratio is to the faster one. The case of the row ends with the memory that PyTorch's
allocator holds, in MB: for each naive sampler at its last step, a pass over all rows; then for ours during the whole
draw, with its copy of the weights.
"""

import copy

import torch
import torch.nn.functional as F
from measure import DEVICE, GPU, in_rung, ours, peak, row, times

from genmini import ops
from genmini.layers import MaskedConv2d
from genmini.models.pixelcnn import PixelCNN

CASES = [(16, 28, False), (16, 28, True)] + ([(100, 28, False)] if GPU else [])


def dense(model, x):
    """A pass through plain convolutions; x (N, 1, h, W)."""
    convolutions = [layer for layer in model.modules() if isinstance(layer, MaskedConv2d)]
    weights = {}
    for layer in convolutions:  # one colour: what comes after the centre is dead, and the centre of kind A
        O, C, kh, kw = layer.weight.shape
        w = layer.weight.detach()[:, :, : kh // 2 + 1].clone()
        w[:, :, -1, kw // 2 + (layer.kind == "B") :] = 0
        weights[layer] = w.contiguous(memory_format=torch.channels_last)

    def convolve(layer, x):
        kh, kw = layer.kernel_size
        return F.conv2d(F.pad(x, (kw // 2, kw // 2, kh // 2, 0)), weights[layer], layer.bias)

    def run():
        h = convolve(model.enter, z)
        for block in model.blocks:
            h = h + convolve(block.W3, F.relu(convolve(block.W2, F.relu(convolve(block.W1, F.relu(h))))))
        return convolve(model.out, F.relu(convolve(model.between, F.relu(h[:, :, -1:, -1:]))))

    z = model.embed(x).contiguous(memory_format=torch.channels_last)
    return torch.no_grad()(run)


def rows():
    for N, side, gated in CASES:
        torch.manual_seed(0)
        model = PixelCNN((side, side), width=64, blocks=7, gated=gated).to(DEVICE).eval().requires_grad_(False)
        D, u = side * side, torch.rand(N, side * side, device=DEVICE)
        program = model.program()
        x, a = ops.pixelcnn_sample(u, program, (1, side, side), 2, logits=True)
        image = x.view(N, 1, side, side)
        half = image[:, :, : side // 2]
        naive = {"PyTorch, own passes": lambda model=model, half=half: model.features(half, None)}
        if not gated:
            naive["PyTorch, dense"] = dense(model, half)
            last = naive["PyTorch, own passes"]()[:, 0, :, -1:, -1:]
            assert (naive["PyTorch, dense"]() - last).abs().max() < 1e-4
        draw = lambda model=model, N=N, u=u: model.sample_cached(N, u=u)
        draws = {name: in_rung(draw, rung) for name, rung in ours("pixelcnn_sample").items()}
        exact = copy.deepcopy(model).double().logits(image).view(N, D)
        error, wanted = (a[..., 0] - exact).abs().max().item(), u >= torch.sigmoid(-exact)
        for name, function in draws.items():  # a wrong kernel is not timed
            differ = (function().view(N, D) != wanted).any(1).sum()  # u may lie between two roundings of a probability
            assert error < 1e-4 and differ <= N // 10, (name, error, differ)
        living = sum(tap.W.numel() for layer in program for tap in layer.taps)
        functions = naive | draws
        last = {"PyTorch, own passes": lambda model=model, image=image: model.features(image, None)}
        last |= {} if gated else {"PyTorch, dense": lambda model=model, image=image: dense(model, image)()}
        held = {name: peak(function) / 1e6 for name, function in (functions | last).items()}
        took = times(functions, seconds=6.0)
        took |= {name: (*(D * t for t in took[name][:3]), took[name][3]) for name in naive}
        fastest = min(took[name][0] for name in naive)
        memory = " / ".join(f"{held[name]:.1f}" for name in took)
        for name, time in took.items():
            case = f"N={N} {side}x{side} 7 blocks of 64{' gated' if gated else ''}, holds {memory} MB"
            off = error if name in draws else None
            measured = dict(operations=2 * N * D * living, error=off, beside=fastest)
            yield row("pixelcnn_sample", case, "sample", name, time, **measured)
