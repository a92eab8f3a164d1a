"""How does a network enlarge an image, and where does a checkerboard come from? It takes no run.

The course, "Convolution transposée": a convolution is the product with a matrix, and the operation in the other
direction the product with the transposed matrix.

    y = C x,   C of a 3x3 kernel and a 4x4 image: 4 x 16                                    (1)
    x' = C^T y                                                                              (2)

With a stride of 2 the product (2) doubles the sides, and each pixel of y writes the whole kernel around its place. Of a
3x3 kernel one, two or four weights reach a pixel, in turn; of 4x4 always four, but each of the four places has weights
of its own. Interpolation first, and then a convolution, gives all places the same weights. The share of the power of
the checkerboard (genmini/studies/spectrum.py) is measured on digits whose sides each way doubles, with kernels whose
weights are all equal, and with kernels drawn from N(0, 1), as before training.
"""

import torch
import torch.nn.functional as F

from genmini import data, plots
from genmini.means import mean_and_error
from genmini.nets.coders import enlarged
from genmini.studies import spectrum
from genmini.studies._study import Study

KERNELS, IMAGES, SHOWN = 200, 50, 5
EDGE = 2  # pixels at each side that are cut: there the padding is seen
WAYS = {  # images (N, 1, H, W) and a kernel -> sides doubled
    "transposed 3x3": lambda x, w: F.conv_transpose2d(x, w[..., :3, :3], stride=2, padding=1, output_padding=1),
    "transposed 4x4": lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1),
    "nearest, 3x3": lambda x, w: F.conv2d(enlarged(x, "nearest"), w[..., :3, :3], padding=1),
    "bilinear, 3x3": lambda x, w: F.conv2d(enlarged(x, "bilinear"), w[..., :3, :3], padding=1),
}


def matrix(w, side=4):
    """The matrix of the convolution of images (side, side) with the kernel w, ((side - 2)^2, side^2) for 3x3"""
    pixels = torch.eye(side**2).view(-1, 1, side, side)
    return F.conv2d(pixels, w[None, None]).flatten(1).T  # (1): a column is what one pixel gives


def powers(way, x, kernels):
    """The power of what a way makes of images (N, 1, H, W), for each kernel (K, 4, 4): (K, 2 H - 4, 2 W - 4)"""
    cut = slice(EDGE, -EDGE)
    return torch.stack([spectrum.power(WAYS[way](x, w[None, None])[..., cut, cut], 2) for w in kernels])


def study(path):
    noise = torch.Generator().manual_seed(0)
    test = data.load("digits", "test")
    x = test.x[:IMAGES, None].float() / (test.levels - 1)
    drawn, equal = torch.randn(KERNELS, 4, 4, generator=noise), torch.ones(1, 4, 4)
    P = {way: powers(way, x, drawn) for way in WAYS}
    shares = {way: mean_and_error(torch.tensor([spectrum.checkerboard(each) for each in P[way]])) for way in WAYS}
    of_equal = {way: spectrum.checkerboard(powers(way, x, equal)[0]) for way in WAYS}

    figure, panels = plots.new_figure(2, 4, 3.55, 3.6)
    on_4x4(panels[0])
    sheet, transposed, nearest, bars = panels[1]
    made = torch.stack([WAYS[way](x[:1], w[None, None])[0, 0] for way in WAYS for w in drawn[:SHOWN]])
    low, high = made.flatten(1).aminmax(dim=1)
    plots.show(sheet, (made - low[:, None, None]) / (high - low)[:, None, None], 2, SHOWN)
    side = made.shape[-1] + 1
    sheet.set(yticks=[side * (k + 0.5) - 1 for k in range(len(WAYS))], yticklabels=[*WAYS])
    sheet.set_title(f"a digit enlarged by {SHOWN} kernels\ndrawn from N(0, 1), each of its own scale", fontsize=10)
    shades = {way: torch.fft.fftshift(P[way].mean(0)).log10() for way in ("transposed 4x4", "nearest, 3x3")}
    least = min(shade.quantile(0.02).item() for shade in shades.values())
    for panel, (way, shade) in zip((transposed, nearest), shades.items(), strict=True):
        ends = (-0.5 - 0.5 / len(shade), 0.5 - 0.5 / len(shade))
        panel.imshow(shade.numpy(), cmap="viridis", vmin=least, vmax=max(each.max().item() for each in shades.values()),
                     extent=[*ends, *ends], origin="lower")
        panel.set(xlabel="cycles a pixel", ylabel="cycles a pixel")
        panel.set_title(f"log$_{{10}}$ power: {way}\n-1/2 is the checkerboard", fontsize=10)
    place = torch.arange(len(WAYS))
    bars.bar(place - 0.2, [of_equal[way] for way in WAYS], 0.4, color="0.6", label="equal weights")
    bars.bar(place + 0.2, [mean for mean, _ in shares.values()], 0.4, yerr=[error for _, error in shares.values()],
             color="tab:blue", label="drawn weights")
    bars.set(xticks=place, ylabel="share of the power")
    bars.set_xticklabels([way.replace(" ", "\n") for way in WAYS], fontsize=8)
    bars.set_title("checkerboard, lower is better", fontsize=10)
    bars.legend(fontsize=8, frameon=False)
    plots.save(figure, path)
    words = (f"{way} {of_equal[way]:.2%} and {mean:.2%} +- {error:.2%}" for way, (mean, error) in shares.items())
    return f"the share of the power that is a checkerboard, of equal weights and of drawn ones: {', '.join(words)}"


def on_4x4(panels):
    """Draw C, its transposed, what that makes of a 2x2 image, and how many weights reach a pixel with a stride of 2"""
    w = torch.arange(1.0, 10).view(3, 3)
    C, y = matrix(w), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    back = (C.T @ y.flatten()).view(4, 4)  # (2)
    ones = torch.ones(1, 1, 4, 4)
    reach = F.conv_transpose2d(ones, ones[..., :3, :3], stride=2)[0, 0]
    numbers(panels[0], C, "a 3x3 convolution of a 4x4 image:\ny = C x, C is 4 x 16", "pixel of x", "pixel of y")
    numbers(panels[1], C.T, "in the other direction:\nx' = C$^T$ y", "pixel of y", "pixel of x'")
    numbers(panels[2], back, f"x' of y = {y.int().tolist()}:\neach pixel of y writes the kernel", "", "")
    numbers(panels[3], reach, "stride 2: how many of 3x3 weights\nreach a pixel of 9 x 9", "", "")


def numbers(panel, a, title, across, down):
    """A matrix as a picture with its numbers in it; zeros stay white."""
    panel.imshow(a.numpy(), cmap="Blues", vmin=0, vmax=1.3 * a.max().item(), aspect="auto" if a.shape[0] != a.shape[1]
                 else "equal")
    for (i, j) in a.nonzero().tolist():
        panel.text(j, i, f"{a[i, j]:g}", ha="center", va="center", fontsize=7 if max(a.shape) > 9 else 9)
    panel.set(xlabel=across, ylabel=down, xticks=[], yticks=[])
    panel.set_title(title, fontsize=10)


STUDY = Study(study, needs=(), alone=True, of_text=None)
