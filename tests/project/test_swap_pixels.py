"""Tests of genmini.swap.draw_pixels on PixelCNNs as teachers write them (`make test-peers` has one of a library)."""

import threading

import pytest
import strangers
import strangers_pixels as theirs
import torch
import torch.nn.functional as F
from torch import nn

import genmini
from genmini.swap import draw_pixels, gate, pixels

N, H, W = 7, 6, 5
EACH = {  # a network, and what it is given for each level
    "two levels": (theirs.plain, [0.0, 1.0]),
    "forty levels": (lambda: theirs.plain(40), torch.arange(40) / 39),
    "batch norms": (theirs.normed, torch.tensor([3.0, -1.0, 0.0, 9.0])),
    "residuals": (theirs.Residual, torch.arange(3.0)),
    "two stacks with gates": (theirs.Gated, torch.arange(5)),
}
each = pytest.mark.parametrize("make, values", EACH.values(), ids=EACH)
BITS = [0.0, 1.0]


def noise(n=N):
    return torch.rand(n, 1, H, W, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def wide(network, values=BITS):
    """In float64, with larger weights: what is drawn depends on what was drawn before."""
    with torch.no_grad():
        for parameter in network.double().eval().parameters():
            parameter.mul_(1.5)
    values = torch.as_tensor(values)
    return network, values.double() if values.is_floating_point() else values


def convolution(rows, c_in=1, c_out=4):
    """A filter of 3 x 3 that sees these pixels"""
    return strangers.MaskedConvBroadcast(c_in, c_out, torch.tensor(rows, dtype=torch.float32))


A, B = [[1, 1, 1], [1, 0, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 0], [0, 0, 0]]


class Net(nn.Module):
    """A convolution of kind A, something, and a head"""

    def __init__(self, between, first=A, **modules):
        super().__init__()
        self.first, self.head, self.between = convolution(first), nn.Conv2d(4, 1, 1), between
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.head(self.between(self, x, self.first(x)))


@each
def test_it_draws_what_its_owners_loop_draws(make, values):
    torch.manual_seed(0)
    network, values = wide(make(), values)
    other, u = gate.copy_of(network), noise()
    images = draw_pixels(network, u, values)
    other(images)  # one of them masks its weights when it is called
    torch.testing.assert_close(network.state_dict(), other.state_dict(), rtol=0, atol=0)
    assert images.dtype == values.dtype and set(images.unique().tolist()) == set(values.tolist())
    assert torch.equal(images, theirs.loop(network, u, values))


@pytest.mark.parametrize("between", [
    lambda net, x, h: F.relu(3 - h) / 2 - torch.ones(4, 1, 1),
    lambda net, x, h: h.clone().mul_(2).add_(h, alpha=1) + (h - 1),  # a sum of what is read elsewhere too
    lambda net, x, h: torch.relu(torch.relu(h)) + h,
    lambda net, x, h: torch.sigmoid(h) * torch.tanh(net.other(x)),  # a gate of two tensors
    lambda net, x, h: net.twice(torch.tanh(h[:, :2]) * torch.sigmoid(h[:, 2:])),
    lambda net, x, h: net.after(F.pad(h[:, 1:3], (4, 0, 1, 0))),
], ids=["numbers", "sums", "twice", "gate", "gate of halves", "parts"])
def test_what_networks_do_between_their_filters(between):
    torch.manual_seed(1)
    after = nn.Conv2d(2, 4, (2, 3), dilation=(1, 2), groups=2)
    network, values = wide(Net(between, other=convolution(A), after=after, twice=convolution(B, 2)))
    u = noise()
    assert torch.equal(draw_pixels(network, u, values), theirs.loop(network, u, values))


@pytest.mark.parametrize("kind", ["sigmoid", "softmax", "log_softmax", "two numbers"])
def test_two_levels_may_be_one_number_or_two_before_or_after_their_probability(kind):
    torch.manual_seed(2)
    network, values = wide(theirs.plain())
    last, u = network[-1], noise()
    expected = draw_pixels(network, u, values)
    assert 0 < expected.mean() < 1
    if kind == "sigmoid":
        assert torch.equal(draw_pixels(nn.Sequential(network, nn.Sigmoid()), u, values), expected)
        return
    two = nn.Conv2d(8, 2, 1).double()  # l_1 - l_0 is the number of before
    two.weight.data = torch.cat([torch.ones_like(last.weight), 1 + last.weight.data])
    two.bias.data = torch.cat([torch.full_like(last.bias, 0.5), 0.5 + last.bias.data])
    network[-1] = two
    end = {"softmax": [nn.Softmax(1)], "log_softmax": [nn.LogSoftmax(dim=-3)]}.get(kind, [])
    assert torch.equal(draw_pixels(nn.Sequential(network, *end), u, values), expected)


def written_into(out, h):
    out[:, :, 1:] = h[:, :, 1:]
    return out


def test_numbers_of_float64_stay_so_in_layers_that_are_added():
    """They are multiplied into the layer of an operator whose input is read twice."""
    torch.manual_seed(3)
    network, values = wide(Net(lambda net, x, h: torch.relu(torch.relu(h)) * 0.7 + 0.1 - torch.full((4, 1, 1), 1 / 3)))
    layers, _ = pixels.layers_of(network, values, H, W)
    assert {tensor.dtype for layer in layers for tensor in (layer.bias, *(tap.W for tap in layer.taps))} == {
        torch.float64}
    assert torch.equal(draw_pixels(network, noise(), values), theirs.loop(network, noise(), values))


REFUSED = {
    "sees the pixel that is drawn": lambda: Net(lambda net, x, h: h, first=B),
    r"sees the pixel at \(\+0, \+1\), drawn later": lambda: Net(lambda net, x, h: net.more(h),
                                                            more=convolution([[1, 1, 1]] * 2 + [[0, 0, 0]], 4)),
    r"sees the pixel at \(\+1, -1\)": lambda: Net(lambda net, x, h: h, first=[[1, 1, 1], [1, 0, 0], [1, 0, 0]]),
    "a batch norm is in training: call network.eval": lambda: nn.Sequential(
        convolution(A), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1)).train(),
    "dropout is in training": lambda: Net(lambda net, x, h: F.dropout(h)),
    "mul of numbers that differ": lambda: Net(lambda net, x, h: h * torch.ones(len(h), 1, 1, 1)),
    "add of numbers that differ": lambda: Net(lambda net, x, h: h + torch.arange(5.0)),
    "elu is none of the operators": lambda: Net(lambda net, x, h: F.elu(h)),
    "max_pool2d_with_indices is none": lambda: Net(lambda net, x, h: F.max_pool2d(h, 3, 1, 1)),
    "the image itself is read": lambda: Net(lambda net, x, h: h + x),
    "an image of another size": lambda: nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"),
    "no function of one pixel": lambda: Net(lambda net, x, h: h + net.first(F.avg_pool2d(x, 3, 1, 1))),
    "read the image in two ways": lambda: Net(lambda net, x, h: h + net.first(x * 2)),
    "it looks at numbers of an image": lambda: Net(lambda net, x, h: h if x.max() > 0.5 else h + 1),
    "has a stride": lambda: Net(lambda net, x, h: F.conv_transpose2d(h, torch.ones(4, 4, 1, 1))),
    r"makes \(6, 3\) pixels of": lambda: Net(lambda net, x, h: F.pad(F.conv2d(h, torch.ones(4, 4, 1, 3)), (1, 1))),
    "sub of two": lambda: Net(lambda net, x, h: h - net.first(x)),
    "divided by": lambda: Net(lambda net, x, h: torch.ones(4, 1, 1) / h),
    "a tanh is read": lambda: Net(lambda net, x, h: torch.tanh(h)),
    "a sum of tensors of other": lambda: Net(lambda net, x, h: h + net.head(h)),
    "5 numbers a pixel, for 2 levels": lambda: theirs.plain(5),
    "1 numbers a pixel, after a softmax": lambda: nn.Sequential(theirs.plain(), nn.Softmax(1)),
    r"no tensor \(N, F, H, W\)": lambda: nn.Sequential(theirs.plain(), nn.Flatten()),
    "not depend on the image by any operator": lambda: Net(lambda net, x, h: written_into(torch.empty(h.shape), h)),
    "it gives tuple": lambda: nn.MaxPool2d(1, return_indices=True),
    r"\(2, 1, 6, 5\) of torch.float32: RuntimeError: Given groups=1": lambda: nn.Conv2d(3, 1, 1),
    "float32: TypeError: cannot pickle": lambda: Net(None, lock=threading.Lock()),
    "not finite": lambda: Net(lambda net, x, h: h + float("nan")),
}


@pytest.mark.parametrize("why, make", REFUSED.items())
def test_what_it_cannot_draw_from_is_named(why, make):
    network = make()
    with pytest.raises(ValueError, match=why):
        draw_pixels(network, noise().float(), BITS)


def test_what_a_network_says_of_what_was_drawn_is_compared():
    network = Net(lambda net, x, h: h + (len(x) == N))  # it is recorded with fewer images
    draw_pixels(network, noise(N + 1).float(), BITS)
    with pytest.raises(ValueError, match="says something else, by"):
        draw_pixels(network, noise().float(), BITS)


def test_its_hooks_are_part_of_a_network():
    torch.manual_seed(0)
    network, values = wide(theirs.plain(4), torch.arange(4.0))
    network[4] = nn.utils.weight_norm(network[4])  # the older one is a hook
    network[4].weight_g.data.mul_(2)
    network.register_forward_pre_hook(lambda module, args: (args[0] / 3,))
    network[0].register_forward_hook(lambda module, args, out: 2 * out)
    hooks, u = [len(module._forward_pre_hooks) for module in network.modules()], noise()
    assert torch.equal(draw_pixels(network, u, values), theirs.loop(network, u, values))
    assert [len(module._forward_pre_hooks) for module in network.modules()] == hooks


def test_a_network_may_write_into_its_input():
    network, values = wide(theirs.plain())
    expected, u = draw_pixels(nn.Sequential(Scaled(False), network), noise(), values), noise()
    assert torch.equal(draw_pixels(nn.Sequential(Scaled(True), network), u, values), expected)


class Scaled(nn.Module):
    def __init__(self, in_place):
        super().__init__()
        self.in_place = in_place

    def forward(self, x):
        return x.mul_(2).sub_(1) if self.in_place else 2 * x - 1


@pytest.mark.parametrize("name, count", [("two levels", 4), ("batch norms", 3), ("residuals", 7),
                                         ("two stacks with gates", 12)])
def test_no_layer_is_added_where_one_can_be_changed(name, count):
    """Batch norms are in the filters before them, sums and gates in the layer that gives them."""
    make, values = EACH[name]
    layers, _ = pixels.layers_of(make().eval(), torch.as_tensor(values), H, W)
    assert len(layers) == count


def test_a_swapped_network_draws_as_before_it_was_swapped():
    torch.manual_seed(0)
    network, values = wide(theirs.plain())
    expected = draw_pixels(network, noise(), values)
    report = genmini.swap(network, measure=False, sampling=True)
    assert len(report.swapped) == 3
    assert [row.room for row in report.advised] == ["pixelcnn_sample"] and "draw_pixels" in report.advised[0].why
    assert torch.equal(draw_pixels(network, noise(), values), expected)


@pytest.mark.parametrize("u, values, why", [
    (torch.rand(2, 3, 4, 4), BITS, r"u must be uniform noise \(N, 1, H, W\)"), (7, BITS, "u must be"),
    (torch.rand(2, 1, 0, 4), BITS, "u must be"), (torch.rand(2, 1, 4, 4), "ab", "at least two levels, got ab"),
    (torch.full((2, 1, 4, 4), torch.nan), BITS, "noise from 0 to 1"), (torch.randn(9, 1, 4, 4), BITS, "from 0 to 1"),
    (torch.rand(2, 1, 4, 4), [1.0], "at least two levels"),
])
def test_wrong_arguments_are_named(u, values, why):
    with pytest.raises(ValueError, match=why):
        draw_pixels(theirs.plain(), u, values)


def test_layers_of_genmini_draw_in_inference_mode_too():
    torch.manual_seed(0)
    convolution = lambda *sizes, kind: genmini.layers.MaskedConv2d(*sizes, kind=kind)
    network, values = wide(nn.Sequential(convolution(1, 6, 5, kind="A"), nn.ReLU(), convolution(6, 1, 3, kind="B")))
    u = noise()
    with torch.inference_mode():
        images = draw_pixels(network, u, values)
    assert torch.equal(images, theirs.loop(network, u, values)) and images.any()


def test_no_images_are_none():
    assert draw_pixels(theirs.plain(), torch.rand(0, 1, 4, 4), BITS).shape == (0, 1, 4, 4)
