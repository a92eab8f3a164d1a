"""Drawing from PixelCNN beside one pass a number, which is how everybody draws from it. Room: kernels/pixelcnn_sample.py

Two naive samplers: the model's own passes, over the rows down to the pixel that is drawn; and (plain PixelCNN) PyTorch's convolutions with
weights masked once, before the clock starts, over the same rows. The ratio is to the faster one. How much PyTorch's allocator held is in the
case of the row, in MB. A naive draw takes seconds to minutes, so it is timed a few times only.
"""

import torch
import torch.nn.functional as F
from measure import DEVICE, GPU, peak, row, times

from genmini import kernels, ops
from genmini.models.pixelcnn import PixelCNN

CASES = [(16, 28, False), (16, 28, True)] + ([(100, 28, False)] if GPU else [])


def dense(model):
    """A sampler that passes through plain convolutions, of the rows above the pixel and its own; in channels_last, their faster form."""
    convolutions = [layer for layer in model.modules() if hasattr(layer, "kind") and hasattr(layer, "colours")]
    weights = {}
    for layer in convolutions:  # one colour: what comes after the centre is dead, and the centre of kind A
        O, C, kh, kw = layer.weight.shape
        w = layer.weight.detach()[:, :, : kh // 2 + 1].clone()
        w[:, :, -1, kw // 2 + (layer.kind == "B") :] = 0
        weights[layer] = w.contiguous(memory_format=torch.channels_last)

    def convolve(layer, x):
        kh, kw = layer.kernel_size
        return F.conv2d(F.pad(x, (kw // 2, kw // 2, kh // 2, 0)), weights[layer], layer.bias)

    @torch.no_grad()
    def sample(u):
        N, H, W = len(u), model.H, model.W
        x, u = torch.zeros(N, 1, H, W, device=u.device), u.view(N, H, W)
        for i in range(H):
            for j in range(W):
                ones = torch.ones_like(x[:, :, : i + 1])
                h = convolve(model.enter, torch.cat([ones, x[:, :, : i + 1]], 1).contiguous(memory_format=torch.channels_last))
                for block in model.blocks:
                    h = h + convolve(block.W3, F.relu(convolve(block.W2, F.relu(convolve(block.W1, F.relu(h))))))
                h = h[:, :, i : i + 1, j : j + 1]  # the last two layers look at the pixel alone
                a = convolve(model.out, F.relu(convolve(model.between, F.relu(h))))[:, 0, 0, 0]
                x[:, 0, i, j] = (u[:, i, j] >= torch.sigmoid(-a)).to(x.dtype)
        return x[:, 0].to(torch.uint8)

    return sample


def rows():
    for N, side, gated in CASES:
        torch.manual_seed(0)
        model = PixelCNN((side, side), width=64, blocks=7, gated=gated).to(DEVICE).eval().requires_grad_(False)
        D, u = side * side, torch.rand(N, side * side, device=DEVICE)
        naive = {"PyTorch, own passes": lambda: model.sample_naive(N, u)}
        if not gated:
            masked = dense(model)
            naive["PyTorch, dense"] = lambda: masked(u)
        functions = naive | {f"genmini {rung}": in_rung(model, N, u, rung) for rung in (kernels.rungs("pixelcnn_sample") if GPU else ("cpu",))}
        program = model.program()
        x, a = ops.pixelcnn_sample(u, program, (1, side, side), 2, logits=True)
        error = (a[..., 0] - model.double().logits(x.view(N, side, side)).view(N, D)).abs().max().item()
        model.float()
        for name, function in functions.items():  # a wrong kernel is not timed
            differ = (function().view(N, D) != x).any(1).sum()  # float32: u may fall between two roundings of a probability
            assert differ <= N // 10, (name, differ)
        living = sum(tap[4].numel() for layer in program for tap in layer.taps)
        held = {name: peak(function) / 1e6 for name, function in functions.items() if name.startswith("genmini")}
        for name in naive:  # its largest pass, the last one
            held[name] = peak(lambda: model.features(x.view(N, 1, side, side), None)) / 1e6
        took = times(functions, seconds=0, rounds=2)
        fastest = min(took[name][0] for name in naive)
        for name, time in took.items():
            case = f"N={N} {side}x{side} 7 blocks of 64{' gated' if gated else ''}, holds {held[name]:.1f} MB"
            ours = name.startswith("genmini")
            yield row("pixelcnn_sample", case, "sample", name, time, operations=2 * N * D * living, error=error if ours else None, beside=fastest)


def in_rung(model, N, u, rung):
    def call():
        with kernels.use("auto", rung if GPU else None):
            return model.sample_cached(N, u)

    return call
