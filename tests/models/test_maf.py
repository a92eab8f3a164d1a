"""Tests of MAF: a number depends only on earlier ones, h is invertible, its determinant is autograd's, its density
integrates to 1, and a sample takes the products of one pass."""

import dataclasses
import json
import math

import pytest
import torch
from check_models import density_of_the_plane, differentiable, estimate_and_error
from torch.utils.flop_counter import FlopCounterMode

import genmini
from genmini import data
from genmini.data import toys
from genmini.models.maf import MAF, RECIPES
from genmini.train import Loop, evaluate, fit

MODELS = {
    "plane": dict(shape=(2,), hidden=(16, 16)),
    "one number": dict(shape=(1,), hidden=(8,)),
    "one layer, odd": dict(shape=(7,), hidden=(20,), layers=1),
    "fewer units than numbers": dict(shape=(6,), hidden=(3,), layers=3),
    "no hidden layer": dict(shape=(5,), hidden=(), layers=2),
    "image, random orders": dict(shape=(3, 4), hidden=(90, 70, 80), order="random"),
    "given order": dict(shape=(5,), hidden=(12,), order=[4, 0, 2, 1, 3]),
    "tight bound": dict(shape=(4,), hidden=(9,), bound=0.3),
    "splines of the plane": dict(shape=(2,), hidden=(16, 16), coupling="spline"),
    "splines, random orders": dict(shape=(2, 3), hidden=(40, 30), layers=3, order="random", coupling="spline", bins=5,
                                   reach=3.0),
}
each = pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)


def flow(scale=0.5, seed=1, **settings):
    """An untrained flow with weights large enough that h is far from the identity; float64."""
    torch.manual_seed(seed)
    model = MAF(**settings).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(scale * torch.randn_like(p) / (p[0].numel() ** 0.5 if p.dim() > 1 and p.numel() else 1))
    return model.eval()


def numbers(model, n=20):
    torch.manual_seed(2)
    return torch.randn(n, *model.shape, dtype=torch.float64)


def jacobian(function, x):
    return torch.autograd.functional.jacobian(lambda row: function(row[None])[0][0], x).reshape(x.numel(), x.numel())


def layers(model):
    return model.f[1::2]  # before each an actnorm


# ---- h, its inverse and its determinant ------------------------------------------------------------------------------


@each
def test_inverse_undoes_forward(settings):
    model = flow(**settings)
    x = numbers(model)
    z, logdet = model(x)
    assert z.shape == (20, model.D) and logdet.shape == (20,)
    assert (z - x.flatten(1)).abs().max() > 0.5, "the test wants a flow that moves"
    back, inverse_logdet = model.inverse(z)
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(inverse_logdet, -logdet, rtol=1e-9, atol=1e-9)
    there, _ = model(model.inverse(x.flatten(1))[0])
    torch.testing.assert_close(there, x.flatten(1), rtol=1e-9, atol=1e-9)
    assert model.inverse(z[:0])[0].shape == (0, *model.shape) and model(x[:0])[1].shape == (0,)


@each
def test_logdet_is_slogdet_of_autograds_jacobian(settings):
    """Also of numbers that are zero, tiny, huge, beyond a spline's reach, or of several magnitudes."""
    model = flow(**settings)
    x = numbers(model, 7).flatten(1)
    x[1:5] *= torch.tensor([0.0, 1e-30, 1e4, 6.0])[:, None]
    x[5] *= 10 ** torch.linspace(-8, 3, model.D)
    x = x.view(7, *model.shape)
    _, logdet = model(x)
    for row, wanted in zip(x, logdet, strict=True):
        of_row = jacobian(model, row)
        torch.testing.assert_close(torch.linalg.slogdet(of_row).logabsdet, wanted, rtol=1e-9, atol=1e-9)
    assert logdet.std() > 1e-3 or model.D == 1 and "coupling" not in settings, "the stretch should depend on x"


@each
def test_a_number_depends_on_those_before_it(settings):
    """The Jacobian of a layer is triangular in its order, with a positive diagonal, and full below it where there are
    enough units; that of w has no diagonal."""
    model = flow(**settings)
    for layer in layers(model):
        seen = torch.zeros(model.D, model.D, dtype=torch.bool)
        for row in numbers(model, 10).flatten(1):
            of_row = jacobian(layer, row)[layer.order][:, layer.order]
            assert not of_row.triu(1).any() and (of_row.diagonal() > 0).all()
            of_w = torch.autograd.functional.jacobian(lambda x, f=layer: f.w(x[None])[0], row).abs().sum(1)
            assert not of_w.triu().any()
            seen |= of_row != 0
        if settings["hidden"] != (3,):
            assert torch.equal(seen, torch.ones_like(seen).tril())


def test_orders_are_reversed_or_drawn_anew():
    """So the numbers that come first and last change places, and two layers see every number by every other."""
    orders = lambda **settings: [layer.order.tolist() for layer in layers(MAF((5,), layers=4, **settings))]
    assert orders() == [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]] * 2
    assert orders(order=[4, 0, 2, 1, 3]) == [[4, 0, 2, 1, 3], [3, 1, 2, 0, 4]] * 2
    assert len({tuple(order) for order in orders(order="random")}) > 2
    model = flow(shape=(5,), hidden=(30,), layers=2)
    assert (sum(jacobian(model, row).abs() for row in numbers(model, 5)) > 0).all()


# ---- the walk --------------------------------------------------------------------------------------------------------


def by_passes(layer, z):
    """The inverse of a layer by D passes of its network."""
    z = z[:, layer.order]
    x = torch.zeros_like(z)
    for d in range(layer.D):
        x[:, d] = layer.curve.inverse(z, layer.w(x))[0][:, d]
    return x[:, layer.order.argsort()]


@each
def test_the_walk_is_what_d_passes_give(settings):
    model = flow(**settings)
    z = numbers(model).flatten(1)
    for layer in layers(model):
        torch.testing.assert_close(layer.inverse(z)[0], by_passes(layer, z), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("coupling", ["affine", "spline"])
def test_a_sample_takes_the_products_of_one_pass(coupling):
    """Each living weight is used once for a sample; one dense pass multiplies by the masked weights, too, and D passes
    take D times that."""
    model, n = MAF((6, 6), layers=2, hidden=(50, 40), coupling=coupling).eval(), 3
    each = [layer for f in layers(model) for layer in (*f.W, f.V)]
    masks = [getattr(f, f"M{i}") for f in layers(model) for i in range(3)]
    living = sum(int(mask.sum().item()) for mask in masks)
    dense = sum(layer.weight.numel() for layer in each)
    assert [mask.shape for mask in masks] == [layer.weight.shape for layer in each] and 0.4 < living / dense < 0.6

    def products(function):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            function()
        return counter.get_total_flops() / 2 / n

    x = model.sample(n)
    assert products(lambda: model.sample(n)) == living
    assert products(lambda: model(x)) == dense
    assert products(lambda: [by_passes(f, x.flatten(1)) for f in layers(model)]) == 36 * dense


# ---- the density -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coupling", ["affine", "spline"])
def test_the_density_integrates_to_one(coupling):
    density_of_the_plane(flow(scale=0.2, shape=(2,), layers=2, hidden=(8,), coupling=coupling))


def test_one_layer_is_a_chain_of_normal_densities():
    """(3): log p(x) = sum_d log N(x_d; t_d, exp(s_d)^2), where the actnorm does nothing"""
    model = flow(shape=(4,), hidden=(30,), layers=1)
    torch.nn.init.zeros_(model.f[0].s), torch.nn.init.zeros_(model.f[0].t)
    x = numbers(model)
    s, t = model.f[1].w(x).unbind(2)
    normal = torch.distributions.Normal(t, (2.0 * (s / 2.0).tanh()).exp())
    torch.testing.assert_close(model.log_prob(x), normal.log_prob(x).sum(1))
    assert s.std(0)[1:].min() > 0.02 and t.std(0)[1:].min() > 0.02, "the test wants numbers that depend on x"


@each
def test_an_untrained_flow_is_the_normal_density(settings):
    model = MAF(**settings).double()
    x = numbers(model)
    normal = -0.5 * (x.flatten(1).square() + math.log(2 * math.pi)).sum(1)
    torch.testing.assert_close(model.eval().log_prob(x), normal)


@pytest.mark.parametrize("coupling", ["affine", "spline"])
def test_gradients(coupling):
    model = flow(shape=(3,), hidden=(6,), layers=2, coupling=coupling, bins=3)
    x = numbers(model, 2)
    differentiable(model, x)
    assert torch.autograd.gradcheck(model.log_prob, x.requires_grad_())


@pytest.mark.parametrize("coupling", ["affine", "spline"])
def test_images_are_levels(coupling):
    """Of an untrained flow P is known, a product of normal probabilities of intervals: the bound's draws average to
    it. Samples are levels."""
    model = MAF((2, 2), levels=5, margin=0.1, hidden=(7,), coupling=coupling).double().eval()
    assert model.is_bound and not MAF((2,)).is_bound
    x = torch.randint(5, (20, 2, 2))
    p = torch.special.ndtr((0.1 + 0.8 * torch.arange(6, dtype=torch.float64) / 5).logit()).diff()
    with torch.no_grad():
        bound = model.log_prob(x.repeat(4000, 1, 1)).view(4000, 20)
    estimate, error = estimate_and_error(bound)
    assert ((estimate - p[x].log().flatten(1).sum(1)).abs() < 5 * error).all()  # of 20: a false alarm in 80,000 seeds
    drawn = flow(scale=0.2, shape=(4, 4), levels=17, hidden=(30,), coupling=coupling).sample(40)
    assert drawn.dtype == torch.uint8 and drawn.shape == (40, 4, 4) and drawn.max() <= 16 and len(drawn.unique()) > 5
    assert MAF((2,), levels=1000).eval().sample(3).dtype == torch.int64


# ---- use -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong, words", [
    (dict(layers=0), "layers"), (dict(hidden=0), "hidden"), (dict(order="backward"), "order must be 'natural'"),
    (dict(order=[0, 0]), "order must be"), (dict(coupling="linear"), "coupling must be 'affine' or 'spline'"),
    (dict(bound=0.0), "bound"), (dict(bins=1), "bins"), (dict(reach=0.0), "reach"), (dict(dropout=1.0), "dropout"),
    (dict(levels=1), "levels"), (dict(levels=4, margin=0.0), "margin"),
])
def test_wrong_settings_are_named(wrong, words):
    with pytest.raises(ValueError, match=words):
        MAF((2,), **wrong)


def test_it_takes_no_class():
    model = MAF((2,))
    x = torch.zeros(3, 2)
    for ask in (lambda: model.log_prob(x, 1), lambda: model.sample(3, 1), lambda: model(x, 1),
                lambda: model.inverse(x, 1)):
        with pytest.raises(ValueError, match="without classes"):
            ask()


@pytest.mark.parametrize("coupling", ["affine", "spline"])
def test_a_run_comes_back(tmp_path, coupling):
    model = flow(shape=(3, 3), levels=3, order="random", hidden=(10,), coupling=coupling).float()
    genmini.checkpoint.save(tmp_path, model, {"step": 1, "valid": 0.0})
    again = genmini.load(tmp_path)
    torch.manual_seed(0)
    a = model.sample(5)
    torch.manual_seed(0)
    assert torch.equal(a, again.sample(5)) and json.dumps(again.settings) == json.dumps(model.settings)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_can_be_run(name):
    some = data.load(RECIPES[name]["data"], "valid")
    model = MAF.of_data(some, **RECIPES[name]["model"])
    (-model.train().log_prob(some.x[:8]).mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert set(RECIPES[name]["train"]) <= {field.name for field in dataclasses.fields(Loop)}


def test_splines_learn_the_moons():
    """A short training comes near to the truth, and not above it, which no density exceeds but by chance."""
    train, valid, test = (data.load("moons", split) for split in data.SPLITS)
    truth = -toys.TOYS["moons"].log_prob(test.x).mean()
    torch.manual_seed(0)
    model = MAF(train.shape, layers=3, hidden=(32, 32), coupling="spline")
    fit(model, train, valid, steps=300, batch=256, rate=1e-2, progress=False)
    nats, _ = evaluate(model, test)
    assert truth - 0.01 < nats < truth + 0.1, (nats, truth)
