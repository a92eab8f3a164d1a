"""The drop-in modules: PyTorch's constructors and initialisation, saved state_dicts, and the laws of their operators.

test_vector_quantizer.py has those of VectorQuantizer.
"""

import copy
import io
import math

import pytest
import torch
import torch.nn.functional as F
from check import fair
from torch import nn
from torch.utils._pytree import tree_leaves

from genmini import ops
from genmini.layers import AffineCoupling, GroupNormSiLU, MaskedConv2d, MaskedLinear, SplineCoupling, VectorQuantizer

IN, OUT = [3, 1, 2, 2], [1, 2, 3, 0, 2]


def halves(D=6):
    return torch.arange(D) < D // 2


def coupling(save="x", dtype=torch.float64):
    return AffineCoupling(nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 12)), halves(), save=save).to(dtype)


MAKERS = {
    "linear": (lambda: MaskedLinear(4, 5, in_degree=IN, out_degree=OUT, strict=True), (7, 4)),
    "linear without bias": (lambda: MaskedLinear(4, 5, bias=False, in_degree=IN, out_degree=OUT), (2, 3, 4)),
    "conv": (lambda: MaskedConv2d(3, 6, (3, 5), "A", colours=3), (2, 3, 6, 5)),
    "codes": (lambda: VectorQuantizer(8, 3), (5, 3)),
    "average codes": (lambda: VectorQuantizer(8, 3, decay=0.9), (5, 3)),
    "codes that come back": (lambda: VectorQuantizer(8, 3, decay=0.9, revive=2), (5, 3)),
    "coupling": (lambda: coupling(dtype=torch.float32), (5, 6)),
    "group norm": (lambda: GroupNormSiLU(2, 6), (3, 6, 4)),
}
each = pytest.mark.parametrize("make, shape", MAKERS.values(), ids=MAKERS)


def first(out):
    return out[0] if isinstance(out, tuple) else out


@each
def test_a_state_dict_survives(make, shape):
    """A module loaded from a file, degrees included, computes the same function as the module that was saved."""
    layer, other, x = make(), make(), torch.randn(shape)
    assert first(layer(x)).shape[0] == shape[0]
    if isinstance(layer, VectorQuantizer) and layer.decay:
        layer.train()(torch.randn(shape))  # the averages have moved
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    if isinstance(other, MaskedLinear):
        other.in_degree.zero_(), other.out_degree.zero_()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(first(other.eval()(x)), first(layer.eval()(x)))
    assert torch.equal(first(copy.deepcopy(layer)(x)), first(layer(x)))


@each
def test_device_and_dtype(make, shape):
    layer = make().double()
    assert first(layer(torch.randn(shape, dtype=torch.float64))).dtype == torch.float64
    assert all(b.dtype in (torch.int64, torch.bool, torch.float64) for b in layer.buffers())
    with torch.device("meta"):
        assert all(t.device.type == "meta" for t in make().state_dict().values() if t.dtype != torch.bool)


@each
@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_layer_learns(make, shape, strict):
    """An exported layer has the layer's outputs and gradients, before and after a file, and compiled."""
    layer, x = make().eval(), torch.randn(shape)

    def outputs_and_gradients(module):
        outs = tree_leaves(module(x))
        moving = sum(out.square().sum() for out in outs if out.requires_grad)
        return [*outs, *(torch.autograd.grad(moving, list(module.parameters())) if list(module.parameters()) else ())]

    file, wanted = io.BytesIO(), outputs_and_gradients(layer)
    torch.export.save(torch.export.export(layer, (x,), strict=strict), file)
    file.seek(0)
    exported = torch.export.load(file).module()
    for module in (exported, torch.compile(exported, backend="aot_eager", fullgraph=True)):
        assert all(map(torch.equal, outputs_and_gradients(module), wanted))


def test_constructors_take_device_and_dtype():
    to = dict(device="meta", dtype=torch.bfloat16)
    layers = [
        MaskedLinear(4, 5, True, **to, in_degree=IN, out_degree=OUT),
        MaskedConv2d(3, 6, 3, **to),
        VectorQuantizer(8, 3, **to),
        VectorQuantizer(8, 3, decay=0.9, **to),
    ]
    for layer in layers:
        assert layer.weight.dtype == torch.bfloat16
        assert {t.device.type for t in layer.state_dict().values()} == {"meta"}
    assert layers[-1].count.dtype == torch.float32  # statistics in 16 bits would stop moving


def test_default_initialisation_is_pytorchs():
    for mine, theirs in (
        (lambda: MaskedLinear(4, 5, in_degree=IN, out_degree=OUT), lambda: nn.Linear(4, 5)),
        (lambda: MaskedConv2d(2, 4, 3), lambda: nn.Conv2d(2, 4, 3)),
        (lambda: VectorQuantizer(8, 3), lambda: nn.Embedding(8, 3)),
    ):
        torch.manual_seed(5)
        a = mine()
        torch.manual_seed(5)
        b = theirs()
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert (isinstance(MaskedLinear(4, 5, in_degree=IN, out_degree=OUT), nn.Linear)
            and isinstance(MaskedConv2d(1, 1, 3), nn.Conv2d))


@pytest.mark.parametrize(
    "make, words",
    [
        (MAKERS["linear"][0], ["in_features=4", "out_features=5", "bias=True", "strict=True"]),
        (MAKERS["conv"][0], ["3, 6", "kernel_size=(3, 5)", "kind='A'", "colours=3"]),
        (MAKERS["average codes"][0], ["8, 3", "beta=0.25", "decay=0.9"]),
        (MAKERS["codes that come back"][0], ["decay=0.9, revive=2"]),
        (MAKERS["coupling"][0], ["mask=(6,)", "save='x'"]),
    ],
)
def test_repr_says_what_it_is(make, words):
    assert all(word in repr(make()) for word in words)


# ---- masked layers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [False, True])
def test_masked_linear_is_the_masked_product(strict):
    layer, x = MaskedLinear(4, 5, in_degree=IN, out_degree=OUT, strict=strict), torch.randn(3, 7, 4)
    i, o = torch.tensor(IN), torch.tensor(OUT)
    mask = o[:, None] > i if strict else o[:, None] >= i
    layer(x).square().sum().backward()
    wanted = []
    for dtype in (torch.float64, torch.float32):
        weight = layer.weight.detach().to(dtype).requires_grad_()
        y = F.linear(x.to(dtype), weight * mask, layer.bias.detach().to(dtype))
        wanted.append((y, *torch.autograd.grad(y.square().sum(), weight)))
    for got, exact, pytorch in zip((layer(x), layer.weight.grad), *wanted, strict=True):
        fair(got, exact, pytorch, torch.float32)
    assert not layer.weight.grad[~mask].any()


def test_masked_linear_names_a_wrong_degree():
    with pytest.raises(ValueError, match=r"in_degree .*\(4,\).*\(3,\)"):
        MaskedLinear(4, 5, in_degree=[1, 2, 3], out_degree=OUT)
    with pytest.raises(TypeError, match="out_degree must hold integers"):
        MaskedLinear(4, 5, in_degree=IN, out_degree=[0.5] * 5)


@pytest.mark.parametrize("kind", ["A", "B"])
def test_masked_conv2d_sees_only_what_comes_before(kind):
    layer, x = MaskedConv2d(1, 2, 3, kind), torch.randn(1, 1, 5, 4, requires_grad=True)
    (seen,) = torch.autograd.grad(layer(x)[0, :, 2, 2].sum(), x)
    before = torch.arange(20).view(5, 4) < 2 * 4 + 2 + (kind == "B")
    near = torch.zeros(5, 4, dtype=torch.bool)
    near[1:4, 1:4] = True
    assert torch.equal(seen[0, 0] != 0, before & near)
    assert torch.equal(layer(x[0]), layer(x)[0])


# ---- AffineCoupling --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", ["x", "y"])
def test_coupling_is_invertible_and_knows_its_volume(save):
    layer, x = coupling(save), torch.randn(4, 6, dtype=torch.float64)
    y, logdet = layer(x)
    back, inverse_logdet = layer.inverse(y)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(inverse_logdet, -logdet)
    assert torch.equal(y[:, :3], x[:, :3])
    for n in range(4):
        jacobian = torch.autograd.functional.jacobian(lambda row: layer(row[None])[0][0], x[n])
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, logdet[n])
        assert not jacobian[:3, 3:].any() and (jacobian[3:, :3] != 0).all()


def test_coupling_gives_the_same_gradients_with_y_saved():
    layer, x = coupling("x"), torch.randn(4, 6, dtype=torch.float64)
    grads = []
    for save in ("x", "y"):
        layer.save = save
        y, logdet = layer(x)
        grads.append(torch.autograd.grad(y.pow(3).sum() + logdet.pow(2).sum(), list(layer.parameters())))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_coupling_of_images_with_a_checkerboard_and_a_condition():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding="same")

        def forward(self, x, y):
            return self.conv(torch.cat([x, y.view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])], 1)).tanh()

    mask = (torch.arange(4)[:, None] + torch.arange(4)) % 2 == 0
    layer = AffineCoupling(Net(), mask.expand(2, 4, 4)).double()
    x, condition = torch.randn(3, 2, 4, 4, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    y, logdet = layer(x, condition)
    torch.testing.assert_close(layer.inverse(y, condition)[0], x)
    assert (logdet.shape == (3,) and torch.equal(y[:, :, mask], x[:, :, mask])
            and (y[:, :, ~mask] != x[:, :, ~mask]).all())
    with pytest.raises(ValueError, match=r"\(N, 2, 4, 4\)"):
        layer(x[:, :1], condition)


def test_couplings_take_nothing_from_where_the_mask_says_so():
    """Numbers that the network must not read, or gives where none is used, may be infinite or NaN."""
    x = torch.randn(3, 6)
    x[0, 3:] = torch.tensor([torch.inf, -torch.inf, torch.nan])
    for layer in (coupling("x", torch.float32), SplineCoupling(nn.Linear(6, 6 * 23), halves())):
        seen = []
        layer.net.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        for of in (layer, layer.inverse):
            y, _ = of(x)
            assert torch.equal(y[:, :3], x[:, :3]) and y[1:].isfinite().all()
        assert all(torch.equal(read, torch.cat([x[:, :3], torch.zeros(3, 3)], 1)) for read in seen)
    spoiled = torch.where(halves(), torch.nan, torch.ones(3, 6)).requires_grad_()
    y, logdet = AffineCoupling(lambda _: (spoiled, spoiled), halves())(x[1:2].expand(3, 6))
    moved = x[1:2, 3:].expand(3, 3).double() * math.e
    assert ((y[:, 3:] - moved - 1).abs() <= 4 * 2**-24 * (moved.abs() + 1)).all()  # e, a product, a sum
    assert torch.equal(logdet, torch.full((3,), 3.0))
    gradient, = torch.autograd.grad(y.sum() + logdet.sum(), spoiled)
    assert not gradient[:, :3].any() and gradient[:, 3:].isfinite().all()


# ---- SplineCoupling --------------------------------------------------------------------------------------------------


def spline(body, mask, **settings):
    """A coupling whose splines bend, in float64"""
    for p in body.parameters():
        nn.init.normal_(p, std=0.5)
    return SplineCoupling(body, mask, bins=4, **settings).double()


def test_spline_coupling_is_invertible_and_knows_its_volume():
    torch.manual_seed(0)
    layer = spline(nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 6 * 11)), halves())
    x = 3 * torch.randn(4, 6, dtype=torch.float64)
    y, logdet = layer(x)
    back, inverse_logdet = layer.inverse(y)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(inverse_logdet, -logdet)
    assert torch.equal(y[:, :3], x[:, :3]) and (y[:, 3:] != x[:, 3:]).any()
    for n in range(4):
        jacobian = torch.autograd.functional.jacobian(lambda row: layer(row[None])[0][0], x[n])
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, logdet[n])


def test_spline_coupling_of_images_bends_a_channel_by_its_own_parameters():
    torch.manual_seed(0)
    mask = ((torch.arange(4)[:, None] + torch.arange(4)) % 2 == 0).expand(2, 4, 4)
    layer = spline(nn.Conv2d(2, 2 * 11, 3, padding="same"), mask, reach=2.0)
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    y, logdet = layer(x)
    torch.testing.assert_close(layer.inverse(y)[0], x)
    assert logdet.shape == (3,) and torch.equal(y[:, mask], x[:, mask])
    w = layer.net(x.masked_fill(~mask, 0))
    one, _ = ops.spline_coupling(x[2:, 1, 2, 3], w[2:, 11:, 2, 3], bound=2.0)
    torch.testing.assert_close(y[2:, 1, 2, 3], one)
    nn.init.zeros_(layer.net.weight), nn.init.zeros_(layer.net.bias)
    torch.testing.assert_close(layer(x)[0], x)
    assert "bins=4, reach=2.0" in repr(layer)


def test_group_norm_silu_takes_the_weights_of_a_group_norm():
    norm, layer, x = nn.GroupNorm(2, 6, eps=1e-3), GroupNormSiLU(2, 6, eps=1e-3), torch.randn(3, 6, 4, 5)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    layer.load_state_dict(norm.state_dict())
    s, b = torch.randn(3, 6), torch.randn(3, 6)
    plain = lambda norm, x, s, b: F.silu((1 + s[..., None, None]) * norm(x) + b[..., None, None])
    for given in ((x, 0 * s, 0 * b), (x, s, b)):
        exact = plain(copy.deepcopy(norm).double(), *(a.double() for a in given))
        fair(layer(*given) if given[1].any() else layer(x), exact, plain(norm, *given), torch.float32)


def test_what_a_coupling_and_a_convolution_are_made_of_is_checked():
    with pytest.raises(TypeError, match="mask must be an array shaped like one x.*, got None"):
        AffineCoupling(nn.Linear(6, 12), None)
    with pytest.raises(TypeError, match="save must be 'x' or 'y', got Tensor"):
        AffineCoupling(nn.Linear(6, 12), halves(), save=torch.ones(2))
    with pytest.raises(TypeError, match="mask must be an array shaped like one x.*, got None"):
        SplineCoupling(nn.Linear(6, 66), None)
    with pytest.raises(ValueError, match="bins must be a number of bins, 2 to 64, got 1"):
        SplineCoupling(nn.Linear(6, 12), halves(), bins=1)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 6\)"):
        SplineCoupling(nn.Linear(6, 66), halves())(torch.zeros(2, 5))
    with pytest.raises(TypeError, match="kind must be 'A' or 'B', got Tensor"):
        MaskedConv2d(1, 1, 3, torch.ones(2))
