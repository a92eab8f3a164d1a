"""Time PixelCNN's convolution, the masked-dense one that most copies use, a cropped and a split one, and torch.compile.

Operations and bytes are those of the live taps alone, so that a kernel at 100 % of the bound computes nothing else. On
a CPU the room (kernels/masked_conv2d.py) runs the cropped convolution itself, in PyTorch; on a GPU cropped and split
are cuDNN's, and are the peers to compare with.
"""

import torch
import torch.nn.functional as F
from genmini.kernels._live_taps import mask
from measure import DEVICE, GPU, backward, both, checked, in_rung, ours, row, times

from genmini import ops

# images, channels in and out, side, filter, kind, colours: a first layer, three hidden ones, a layer with colours, two
# with many channels
CASES = [(16, 1, 64, 28, 7, "A", 1), (16, 64, 64, 28, 3, "B", 1), (16, 64, 64, 16, 5, "B", 1),
         (16, 64, 64, 16, 7, "B", 1), (16, 96, 96, 16, 3, "B", 3),
         (4, 128, 128, 32, 3, "A", 1), (4, 128, 128, 32, 5, "B", 1),
         (64, 64, 64, 48, 3, "B", 1)]
if GPU:
    CASES = [(256, 1, 128, 28, 7, "A", 1)] + [(256, 128, 128, 32, k, "B", 1) for k in (3, 5, 7)] + [
        (256, 192, 192, 32, 3, "B", 3)]
DTYPES = ["float32", "bfloat16"] if GPU else ["float32"]


def split(x, weight, bias, centre, kind, colours):
    """Two convolutions that leave every dead tap out: one for the rows above, one for the row itself."""
    ph, live = weight.shape[2] // 2, weight.shape[3] // 2 + (kind == "B" or colours > 1)
    row = weight[:, :, ph : ph + 1, :live]
    if colours > 1:
        row = torch.cat([row[..., :-1], row[..., -1:] * centre], 3)
    y = F.conv2d(F.pad(x, (ph, live - ph - 1, 0, 0)), row, bias)
    return y + F.conv2d(F.pad(x, (ph, ph, ph, -1)), weight[:, :, :ph])


def crop(x, weight, bias):
    """One convolution without the rows of the masked filter below its centre."""
    ph = weight.shape[2] // 2
    return F.conv2d(F.pad(x, (ph, ph, ph, 0)), weight[:, :, : ph + 1], bias)


def rows():
    for dtype in DTYPES:
        for case in CASES:
            yield from rows_of(*case, dtype)


def rows_of(N, C, O, H, k, kind, colours, dtype):
    x, weight, bias, dy = (torch.randn(*s, device=DEVICE).to(getattr(torch, dtype))
                           for s in ((N, C, H, H), (O, C, k, k), (O,), (N, O, H, H)))
    if GPU:
        x, dy = (a.contiguous(memory_format=torch.channels_last) for a in (x, dy))
    weight /= (C * k * k) ** 0.5
    live = mask(O, C, k, k, kind, colours, DEVICE)
    M, L = live.to(x.dtype), live.float().mean().item()
    exact = F.conv2d(x.double(), weight.double() * live, bias.double(), padding=k // 2)
    dense = lambda x, weight, bias: F.conv2d(x, weight * M, bias, padding=k // 2)
    functions = {"masked dense": dense, "torch.compile": torch.compile(dense),
                 "cropped": lambda x, weight, bias: crop(x, weight * M, bias)}
    functions["split"] = lambda x, w, b: split(x, w, b, M[:, :, k // 2, k // 2, None, None], kind, colours)
    room = lambda x, weight, bias: ops.masked_conv2d(x, weight, bias, kind, colours)
    functions |= {name: in_rung(room, rung) for name, rung in ours("masked_conv2d").items()}
    # 5e-3 for float32 because PyTorch's own switch lets cuDNN use TF32
    errors = checked(functions, (x, weight, bias), exact, 5e-3 if dtype == "float32" else 0.1)
    moving = [a.clone().requires_grad_() for a in (x, weight, bias)]
    calls = [("forward", 1, lambda f: lambda: f(x, weight, bias)), ("backward", 2, lambda f: backward(f, moving, [dy]))]
    for what, products, call in [*calls, ("both", 3, lambda f: both(f, moving, [dy]))]:
        took = times({name: call(function) for name, function in functions.items()})
        P = N * H * H
        for name, time in took.items():
            work = {"bytes": products * x.element_size() * (P * C + L * O * C * k * k + P * O),
                    "operations": products * 2 * P * O * C * k * k * L}
            label = f"{N}x{C}x{H}x{H}->{O} {k}x{k} {kind}{colours} {L:.2f}"
            yield row("masked_conv2d", label, what, name, time, dtype=dtype, error=errors[name],
                      beside=took["masked dense"][0], **work)


if __name__ == "__main__":
    for each in rows():
        print(each)
