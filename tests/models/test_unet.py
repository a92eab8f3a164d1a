"""Tests of the U-Net: it takes images of any fitting shape, its skip connections bring details, and time, class and
context reach every pixel."""

import pytest
import torch

from genmini.nets.unet import COSINES, Attention, UNet, cosines, sinusoids


def unet(*channels, seed=0, **settings):
    """Untrained, in float64, with weights that are not 0 anywhere."""
    torch.manual_seed(seed)
    net = UNet(*channels, **{"width": 8, **settings}).double().eval()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net


def numbers(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("upsample", ["transposed", "nearest", "bilinear"])
@pytest.mark.parametrize("channels, sides, multiples, blocks, attention",
                         [((1, 1), (8, 8), (1, 2), 1, 1), ((3, 3), (8, 16), (1, 1, 2), 2, 3),
                          ((1, 2), (64, 64), (1, 1), 1, 0), ((2, 1), (3, 5), (1,), 1, 1)])
def test_images_keep_their_size(upsample, channels, sides, multiples, blocks, attention):
    net = unet(*channels, multiples=multiples, blocks=blocks, attention=attention, upsample=upsample)
    x = numbers(2, channels[0], *sides).requires_grad_()
    out = net(x, numbers(2))
    assert out.shape == (2, channels[1], *sides)
    (gradient,) = torch.autograd.grad(out[0].sum(), x)
    assert gradient[0].any() and not gradient[1].any(), "examples stand apart"


def test_patches_are_channels():
    """A U-Net by patches is the one whose images have P^2 times the channels, and its patches stay where they were."""
    net, x, time = unet(2, 1, patch=2, classes=3), numbers(2, 2, 8, 12), numbers(2)
    of_channels = unet(8, 4, classes=3)
    assert net.state_dict().keys() == of_channels.state_dict().keys()
    of_channels.load_state_dict(net.state_dict())
    squares = x.unfold(2, 2, 2).unfold(3, 2, 2)  # (N, C, H/2, W/2, 2, 2)
    out = of_channels(squares.permute(0, 1, 4, 5, 2, 3).reshape(2, 8, 4, 6), time)
    expected = torch.empty(2, 1, 8, 12, dtype=torch.float64)
    for i in range(2):
        for j in range(2):
            expected[:, 0, i::2, j::2] = out[:, 2 * i + j]
    assert torch.equal(net(x, time), expected)


def test_the_output_is_0_at_initialisation_and_every_weight_learns():
    torch.manual_seed(0)
    fresh = UNet(1, 1, width=8, classes=3, context=5)
    x, y, context = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, -1]), torch.randn(4, 6, 5)
    assert not fresh(x, torch.randn(4), y, context).any()
    net = unet(1, 1, classes=3, context=5)
    net(x.double(), torch.randn(4), y, context.double()).square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in net.parameters())


def test_time_class_and_context_matter():
    net, x = unet(1, 1, classes=3, context=5), numbers(1, 1, 8, 8)
    far = lambda one, other: (one - other).abs().min().item()  # of every pixel
    now = net(x, torch.tensor([0.0]))
    assert far(now, net(x, torch.tensor([1.0]))) > 1e-6
    each = [net(x, torch.tensor([0.0]), torch.tensor([k])) for k in range(3)]
    assert min(far(each[0], each[1]), far(each[0], each[2]), far(each[1], now)) > 1e-6
    assert torch.equal(net(x, torch.tensor([0.0]), torch.tensor([-1])), now), "-1 is no class"
    context = numbers(1, 4, 5)
    assert far(net(x, torch.tensor([0.0]), context=context), now) > 1e-6


def test_a_context_is_a_set_of_vectors_and_self_attention_one_of_pixels():
    """Attention does not depend on the order of what it reads; with one pixel it reads only itself."""
    torch.manual_seed(0)
    layer, itself = Attention(8, 5).double(), Attention(8).double()
    torch.nn.init.normal_(layer.out.weight)
    torch.nn.init.normal_(itself.out.weight)
    h, context = numbers(2, 8, 3, 4), numbers(2, 7, 5)
    shuffled = torch.randperm(7)
    torch.testing.assert_close(layer(h, context), layer(h, context[:, shuffled]), atol=1e-12, rtol=1e-12)
    pixels = torch.randperm(12)
    moved = h.flatten(2)[:, :, pixels].view_as(h)
    torch.testing.assert_close(itself(moved), itself(h).flatten(2)[:, :, pixels].view_as(h), atol=1e-12, rtol=1e-12)
    x = itself.norm(one := numbers(2, 8, 1, 1)).flatten(1)
    v = torch.nn.functional.linear(x, itself.kv.weight[8:], itself.kv.bias[8:])
    torch.testing.assert_close(itself(one).flatten(1), one.flatten(1) + itself.out(v), atol=1e-12, rtol=1e-12)


def test_what_a_mask_hides_of_a_context_has_no_effect():
    """Each row reads its own vectors: to the bit whatever stands beside them, and as if they were alone."""
    net, x, context = unet(1, 1, context=5), numbers(2, 1, 8, 8), numbers(2, 6, 5)
    mask, t = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 1, 0, 1, 0, 0]]).bool(), torch.tensor([0.0, 1.0])
    now = net(x, t, context=context, mask=mask)
    other = torch.where(mask[:, :, None], context, 100 * numbers(2, 6, 5))
    assert torch.equal(net(x, t, context=other, mask=mask), now) and not torch.equal(net(x, t, context=context), now)
    for n in range(2):
        alone = net(x[n : n + 1], t[n : n + 1], context=context[n : n + 1, mask[n]])
        torch.testing.assert_close(alone[0], now[n], atol=1e-12, rtol=1e-12)


def test_attention_is_softmax_of_products():
    torch.manual_seed(0)
    layer = Attention(64, head=32).double()
    torch.nn.init.normal_(layer.out.weight)
    h = numbers(1, 64, 2, 3)
    x = layer.norm(h).flatten(2).mT[0]  # (6, 64)
    q, (k, v) = layer.q(x), layer.kv(x).chunk(2, 1)
    heads = [((q[:, d] @ k[:, d].T) / 32**0.5).softmax(1) @ v[:, d] for d in (slice(0, 32), slice(32, 64))]
    expected = h + layer.out(torch.cat(heads, 1)).T.reshape(1, 64, 2, 3)
    torch.testing.assert_close(layer(h), expected, atol=1e-10, rtol=1e-10)


def test_attention_knows_where_a_pixel_lies_if_it_is_placed():
    """Of an image that is the same everywhere no pixel differs from another, unless attention is told the places."""
    context, h = numbers(1, 5, 4), numbers(1, 8, 1, 1).expand(1, 8, 4, 6)
    for placed in (False, True):
        torch.manual_seed(0)
        layer = Attention(8, 4, placed=placed).double()
        torch.nn.init.normal_(layer.out.weight)
        added = (layer(h, context) - h).flatten(2)[0].T  # (pixels, 8)
        apart = torch.pdist(added)
        assert apart.min() > 1e-4 if placed else apart.max() < 1e-12


def test_cosines_tell_the_sides_of_an_image_apart_whatever_its_size():
    for sides in ((4, 6), (8, 12)):
        c = cosines(numbers(1, 1, *sides)).view(*sides, 2 * COSINES)
        rows, columns = c[:, :, 0], c[:, :, COSINES]
        assert (rows.diff(dim=0) < 0).all() and (columns.diff(dim=1) < 0).all()
        assert not rows.diff(dim=1).any() and not columns.diff(dim=0).any()
        torch.testing.assert_close(c.mean((0, 1)), torch.zeros(2 * COSINES).double(), atol=1e-12, rtol=0)


def test_skip_connections_bring_details():
    """Where nothing comes from the smaller sizes, the output still depends on the input."""
    net = unet(1, 1, multiples=(1, 1, 1), attention=0)
    for layer in net.shrink:
        torch.nn.init.zeros_(layer.weight)
    x = numbers(1, 1, 8, 8).requires_grad_()
    (gradient,) = torch.autograd.grad(net(x, torch.tensor([0.0]))[0, 0, 3, 3], x)
    assert gradient[0, 0, 3, 3].abs() > 1e-6


def test_sinusoids_tell_times_apart():
    t = torch.linspace(-20, 10, 3001)
    e = sinusoids(t, 16)
    assert e.shape == (3001, 32) and e.abs().max() <= 1
    distance = torch.cdist(e, e) + 10 * torch.eye(len(t))
    assert distance.argmin(1).sub(torch.arange(len(t))).abs().max() == 1, "the nearest is a neighbour in time"


def test_every_multiple_of_8_is_a_width():
    """112 channels are not divided by three heads: there are two."""
    assert unet(1, 1, width=56, multiples=(1, 2))(numbers(1, 1, 2, 2), numbers(1)).isfinite().all()
    assert [Attention(K).heads for K in (8, 32, 64, 96, 112)] == [1, 1, 2, 3, 2]


def test_what_cannot_be_is_refused():
    for settings, words in (
        (dict(width=12), "width must be a multiple of 8, got 12"), (dict(blocks=0), "blocks must be at least 1"),
        (dict(attention=3), "attention must be 0 to 2, got 3"),
        (dict(attention=0, context=5), "attention must be 1 or more where there is a context, got 0"),
        (dict(multiples=(), attention=0), r"multiples must be one number or more, got \(\)"),
        (dict(placed=3), "placed must be True or False, got 3"),
        (dict(upsample="cubic"), "upsample must be 'transposed', 'nearest' or 'bilinear', got 'cubic'"),
    ):
        with pytest.raises(ValueError, match=words):
            UNet(1, 1, **settings)
    with pytest.raises(ValueError, match=r"divisible by 4, got \(8, 6\)"):
        unet(1, 1, multiples=(1, 1, 1))(numbers(1, 1, 8, 6), torch.zeros(1))
    with pytest.raises(ValueError, match=r"after patches of 2x2: they must be divisible by 4, got \(8, 6\)"):
        unet(1, 1, patch=2)(numbers(1, 1, 8, 6), torch.zeros(1))


def test_no_images_give_none_whatever_the_patch():
    for patch in (1, 2):
        net = UNet(3, 6, width=8, patch=patch)
        assert net(torch.zeros(0, 3, 8, 12), torch.zeros(0)).shape == (0, 6, 8, 12)
