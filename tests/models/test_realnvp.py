"""Tests of RealNVP: it is invertible, its determinant is autograd's, and its density integrates to 1."""

import dataclasses
import json
import math

import pytest
import torch
from check import fair
from check_models import density_of_the_plane
from torch import nn

import genmini
from genmini import data
from genmini.data import toys
from genmini.layers import AffineCoupling, SplineCoupling
from genmini.models._flow import ActNorm
from genmini.models.realnvp import RECIPES, RealNVP, Squeeze, half
from genmini.nets.conv import ResNet
from genmini.train import Loop, evaluate, fit

SMALL = dict(width=6, blocks=1, couplings=2)
MODELS = {
    "plane": dict(shape=(2,), hidden=(16, 16)),
    "one number": dict(shape=(1,), hidden=(8,)),
    "odd vector, classes": dict(shape=(5,), hidden=(12,), couplings=3, classes=3),
    "image, one scale": dict(shape=(3, 5), **SMALL),
    "image, two scales": dict(shape=(4, 4), scales=1, **SMALL),
    "colours, three scales, classes": dict(shape=(3, 4, 8), scales=2, classes=2, **SMALL),
    "splines of the plane": dict(shape=(2,), hidden=(16, 16), coupling="spline"),
    "splines of an odd vector, classes": dict(shape=(5,), hidden=(12,), couplings=3, classes=3, coupling="spline",
                                              bins=5, reach=3.0),
    "splines of images": dict(shape=(2, 4, 4), scales=1, classes=2, coupling="spline", bins=4, **SMALL),
    "tight bound": dict(shape=(2, 4, 4), scales=1, bound=0.3, **{**SMALL, "couplings": 1}),
}
each = pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)


def flow(scale=0.5, seed=1, **settings):
    """An untrained flow with weights large enough that h is far from the identity; float64."""
    torch.manual_seed(seed)
    model = RealNVP(**settings).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(scale * torch.randn_like(p) / (p[0].numel() ** 0.5 if p.dim() > 1 else 1))
    return model.eval()


def batch(model, n=3):
    torch.manual_seed(2)
    y = torch.arange(n) % model.classes if model.classes else None
    return torch.randn(n, *model.shape, dtype=torch.float64), y


# ---- h, its inverse and its determinant ------------------------------------------------------------------------------


@each
def test_inverse_undoes_forward(settings):
    model = flow(**settings)
    x, y = batch(model, 20)
    z, logdet = model(x, y)
    assert z.shape == (20, model.D) and logdet.shape == (20,)
    assert (z - x.flatten(1)).abs().max() > 0.5, "the test wants a flow that moves"
    back, inverse_logdet = model.inverse(z, y)
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(inverse_logdet, -logdet, rtol=1e-9, atol=1e-9)
    there, _ = model(model.inverse(x.flatten(1), y)[0], y)
    torch.testing.assert_close(there, x.flatten(1), rtol=1e-9, atol=1e-9)


@each
def test_logdet_is_slogdet_of_autograds_jacobian(settings):
    model = flow(**settings)
    x, y = batch(model)
    _, logdet = model(x, y)
    for n in range(len(x)):
        one = lambda row, n=n: model(row[None], None if y is None else y[n : n + 1])[0][0]
        jacobian = torch.autograd.functional.jacobian(one, x[n]).reshape(model.D, model.D)
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, logdet[n], rtol=1e-9, atol=1e-9)
    # a lone number is never the half that is bent by another
    assert logdet.std() > 1e-3 or model.D == 1, "the stretch should depend on x"


def test_each_step_alone():
    """ActNorm, squeeze and every way to halve: inverse and slogdet, by themselves."""
    norm = ActNorm((4, 2, 2)).double()
    nn.init.normal_(norm.s), nn.init.normal_(norm.t)
    steps = [norm.eval(), Squeeze()]
    for shape, kind in (((4, 2, 2), "checkerboard"), ((4, 2, 2), "channel")):
        mask = half(shape, kind)
        assert mask.sum() == mask.numel() // 2
        steps += [AffineCoupling(ResNet(4, 8, width=5), m).double() for m in (mask, ~mask)]
    for step in steps:
        for p in step.parameters():
            nn.init.normal_(p, std=0.3)
        x = torch.randn(2, 4, 2, 2, dtype=torch.float64)
        out, logdet = step(x)
        torch.testing.assert_close(step.inverse(out)[0], x)
        jacobian = torch.autograd.functional.jacobian(
            lambda row, step=step: step(row[None])[0][0], x[0]).reshape(16, 16)
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, logdet[0])
    assert half((5,), "parity").tolist() == [True, False, True, False, True]
    squares = half((1, 3, 3), "checkerboard")[0]
    assert (squares[:, 1:] != squares[:, :-1]).all() and (squares[1:] != squares[:-1]).all()
    assert half((4, 1, 1), "channel").flatten().tolist() == [True, True, False, False]
    image = torch.arange(16.0).view(1, 1, 4, 4)
    assert Squeeze()(image)[0][0, :, 0, 0].tolist() == [0, 1, 4, 5]  # 2x2 pixels of one place


def test_halves_change_roles():
    """After two couplings every number has been transformed, after one only half of them."""
    for shape in ((4,), (4, 4), (2, 4, 4)):
        for couplings, moved in ((1, 0.5), (2, 1.0)):
            model = flow(shape=shape, couplings=couplings, **({} if len(shape) == 1 else dict(width=6, blocks=1)))
            for module in model.modules():
                if isinstance(module, ActNorm):
                    nn.init.zeros_(module.s), nn.init.zeros_(module.t)
            x, _ = batch(model)
            assert ((model(x)[0] - x.flatten(1)).abs() > 1e-12).double().mean() == moved


def test_s_is_bounded():
    """However large the weights grow, one coupling stretches by e^b at most, so float32 can be inverted."""
    torch.manual_seed(0)
    model = flow(scale=100.0, shape=(6,), couplings=1, hidden=(16,), bound=1.5)
    x, _ = batch(model, 50)
    coupling = next(m for m in model.modules() if isinstance(m, AffineCoupling))
    s, _ = coupling._s_t(x, ())
    assert 1.4 < s.abs().max() <= 1.5


def test_actnorm_is_set_by_the_first_batch_in_training():
    norm = ActNorm((3, 4, 4))
    x = 5 + 3 * torch.randn(64, 3, 4, 4) * torch.tensor([1.0, 10.0, 0.1])[:, None, None]
    norm.eval()
    assert torch.equal(norm(x)[0], x) and not norm.ready
    out, logdet = norm.train()(x)
    assert norm.ready
    std, mean = torch.std_mean(x.double(), (0, 2, 3), correction=0, keepdim=True)
    sizes = (x.double().abs() + mean.abs()) / std  # x exp(s) and t; eight roundings, none of more than these
    assert ((out - (x - mean) / std).abs() <= 8 * 2**-24 * sizes.max()).all()
    of_std = lambda x: (-16 * x.std((0, 2, 3), correction=0).log().sum()).expand(64)
    fair(logdet, of_std(x.double()), of_std(x), torch.float32)
    again, _ = norm(x + 7)  # it stays as it is: to seven roundings, none of more than again and 7 exp(s)
    most = (again.abs().max() + 7 * norm.s.exp().max()).item()
    torch.testing.assert_close(again - out, 7 * norm.s.exp().expand_as(x), rtol=0, atol=7 * 2**-24 * most)
    assert (norm(torch.ones(4, 3, 4, 4))[0].isfinite().all()
            and ActNorm((2,)).train()(torch.ones(1, 2))[0].isfinite().all())


# ---- the density -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes, coupling", [(0, "affine"), (2, "affine"), (0, "spline")])
def test_the_density_integrates_to_one(classes, coupling):
    """On a grid of the plane, for each class and for their mean; and samples follow it."""
    model = flow(scale=0.3, shape=(2,), couplings=4, hidden=(8,), classes=classes, coupling=coupling)
    density_of_the_plane(model)


@each
def test_samples_are_what_inverse_makes_of_noise(settings):
    """h carries samples to N(0, I): mean 0, variance 1, and its fourth moment. A sampler that forgets a step fails."""
    model = flow(**settings)
    torch.manual_seed(4)
    y = torch.arange(4000) % model.classes if model.classes else None
    x = model.sample(4000, y)
    assert x.shape == (4000, *model.shape)
    with torch.no_grad():
        z, _ = model(x, y)
    error = 5 / math.sqrt(z.numel())
    assert abs(z.mean()) < error and abs(z.square().mean() - 1) < 1.5 * error and abs(z.pow(4).mean() - 3) < 10 * error


def test_classes_steer_and_are_averaged():
    model = flow(shape=(3,), classes=4, hidden=(16,))
    x, _ = batch(model, 6)
    each = torch.stack([model.log_prob(x, torch.full((6,), k)) for k in range(4)])
    assert each.std(0).min() > 1e-2
    torch.testing.assert_close(model.log_prob(x), each.logsumexp(0) - math.log(4))
    torch.testing.assert_close(model.log_prob(x, 2), each[2])
    torch.manual_seed(0)
    a = model.sample(50, 1)
    torch.manual_seed(0)
    assert torch.equal(a, model.sample(50, torch.ones(50, dtype=torch.long)))
    with pytest.raises(ValueError, match="0 ... 3"):
        model.log_prob(x, torch.full((6,), 4))
    with pytest.raises(ValueError, match="without classes"):
        flow(shape=(3,)).log_prob(x, 1)


# ---- gradients and memory --------------------------------------------------------------------------------------------


@each
def test_memory_free_backward_gives_the_same_gradients(settings):
    x_model, y_model = flow(**settings), flow(**settings, save="y")
    x, y = batch(x_model)

    def gradients(model, x):
        x = x.detach().requires_grad_()
        loss = (model.log_prob(x, y) * torch.tensor([1.0, 2.0, -3.0])).sum()
        return torch.autograd.grad(loss, [x, *model.parameters()])

    # what each coupling recomputes is off as x is that comes back; gradients follow by as much as they do along 1e-6
    with torch.no_grad():
        off = (x_model.inverse(x_model(x, y)[0], y)[0].view_as(x) - x).abs().max() + 2**-53
    wanted, found, moved = gradients(x_model, x), gradients(y_model, x), gradients(x_model, x + 1e-6)
    couplings = sum(isinstance(module, (AffineCoupling, SplineCoupling)) for module in x_model.modules())
    slope = max((a - b).abs().max() for a, b in zip(moved, wanted, strict=True)) / 1e-6
    most = max(a.abs().max() for a in wanted)
    for a, b in zip(found, wanted, strict=True):
        assert (a - b).abs().max() <= couplings * slope * off + 64 * 2**-53 * most


def test_memory_free_backward_keeps_nothing_of_the_depth():
    """Bytes that autograd saves: they grow with depth for save="x", and stay for save="y"."""
    x = torch.randn(64, 8)
    kept = {}
    for save in "xy":
        for couplings in (2, 16):
            model, seen = RealNVP((8,), couplings=couplings, hidden=(32,), save=save), {}
            parameters = {p.data_ptr() for p in model.parameters()}

            def note(tensor, seen=seen, parameters=parameters):
                if tensor.data_ptr() not in parameters:
                    seen[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
                loss = model.log_prob(x).sum()
            kept[save, couplings] = sum(seen.values())
            loss.backward()
    assert kept["x", 16] > 6 * kept["x", 2] and kept["y", 16] == kept["y", 2] < kept["x", 2] / 2, kept


def test_gradcheck():
    model = flow(shape=(3,), hidden=(5,), couplings=2, classes=2)
    x, y = batch(model, 2)

    class LogProb(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model.log_prob(x, y)

    names, values = zip(*LogProb().named_parameters(), strict=True)
    function = lambda x, *values: torch.func.functional_call(LogProb(), dict(zip(names, values, strict=True)), (x,))
    assert torch.autograd.gradcheck(function, (x.requires_grad_(), *values))


def test_a_training_step_with_save_y_sets_actnorm_first():
    model = RealNVP((4, 4), scales=1, save="y", **SMALL)
    x = 3 + 2 * torch.randn(32, 4, 4)
    (-model.train().log_prob(x).mean()).backward()
    assert all(m.ready for m in model.modules() if isinstance(m, ActNorm))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# ---- use -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong, words",
    [
        (dict(shape=(2, 2, 2, 2)), "shape"),
        (dict(shape=(6, 6), scales=2), "4 must divide"),
        (dict(shape=(8,), scales=1), "of an image"),
        (dict(shape=(8,), couplings=0), "couplings"),
        (dict(shape=(2,), save="y", dropout=0.1), "dropout"),
        (dict(shape=(2,), save="z"), "save"),
        (dict(shape=(2,), dequantise="no"), "dequantise"),
        (dict(shape=(2,), coupling="linear"), "coupling must be 'affine' or 'spline', got 'linear'"),
        (dict(shape=(2,), bins=1), "bins"),
        (dict(shape=(2,), reach=0.0), "reach"),
        (dict(shape=(2,), levels=1), "levels"),
        (dict(shape=(2,), levels=4, margin=0.0), "margin"),
    ],
)
def test_wrong_settings_are_named(wrong, words):
    with pytest.raises(ValueError, match=words):
        RealNVP(**wrong)


@pytest.mark.parametrize("coupling", ["affine", "spline"])
def test_a_run_comes_back(tmp_path, coupling):
    model = flow(shape=(4, 4), levels=3, scales=1, classes=2, dequantise="variational", coupling=coupling, **SMALL)
    model = model.float()
    genmini.checkpoint.save(tmp_path, model, {"step": 1, "valid": 0.0})
    again = genmini.load(tmp_path)
    torch.manual_seed(0)
    a = model.sample(5, 1)
    torch.manual_seed(0)
    assert torch.equal(a, again.sample(5, 1)) and json.dumps(again.settings) == json.dumps(model.settings)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_can_be_run(name):
    """Each makes its model and takes a training step: on its data, or on noise in the shape of files from elsewhere."""
    recipe = RECIPES[name]
    elsewhere = {"mnist": (28, 28), "images": (3, 32, 32)}
    if recipe["data"] in elsewhere:
        x, levels = torch.randint(256, (2, *elsewhere[recipe["data"]])), 256
    else:
        some = data.load(recipe["data"], "valid")
        x, levels = some.x[:2], some.levels
    model = RealNVP(tuple(x.shape[1:]), levels=levels, **recipe["model"])
    (-model.train().log_prob(x).mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert set(recipe["train"]) <= {field.name for field in dataclasses.fields(Loop)}


def test_it_learns_the_moons():
    """A short training ends far above the Gaussian, and not above the truth, which no density exceeds but by chance."""
    train, valid, test = (data.load("moons", split) for split in data.SPLITS)
    toy = toys.TOYS["moons"]
    gaussian = 0.5 * torch.logdet(2 * math.pi * math.e * torch.cov(train.x.T)).item()
    for classes, truth in ((0, -toy.log_prob(test.x).mean()), (2, -toy.log_prob(test.x, test.y).mean())):
        torch.manual_seed(0)
        model = RealNVP(train.shape, couplings=8, hidden=(64, 64), classes=classes)
        fit(model, train, valid, steps=250, batch=256, rate=1e-2, progress=False)
        nats, error = evaluate(model, test)
        assert truth - 0.01 < nats < truth + 0.3 < gaussian - 0.2, (classes, nats, truth, gaussian)
    # the moon that was asked for
    assert ((model.sample(500, 1) - test.x[test.y == 1].mean(0)).mean(0).abs() < 0.15).all()
