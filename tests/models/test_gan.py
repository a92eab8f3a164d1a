"""GAN: its losses against values by hand, gradients that reach one player alone, penalties and spectral norms, the
optimum of every divergence, the distance that judges, what is said of a game that goes wrong, and resumed bits."""

import math

import pytest
import torch
import torch.nn.functional as F
from check_models import resumes
from check_models import rows as rows_of
from torch import nn

from genmini import checkpoint, data
from genmini.models._model import Batch
from genmini.models.gan import DIVERGENCES, GAN, LOSSES, energy_distance, squared_slope
from genmini.studies import optimum
from genmini.train import fit

DIGITS, VALID = (data.load("digits", split) for split in ("train", "valid"))
POINTS = data.load("gaussians", "train")


def small(shape=(3,), levels=None, **settings):
    torch.manual_seed(0)
    return GAN(shape, levels, **dict(latent=2, hidden=(5, 4), dtype=torch.float64) | settings)


def images(**settings):
    return small((8, 8), 17, **dict(width=2, dtype=torch.float32) | settings)


# ---- the losses of both players --------------------------------------------------------------------------------------

sigma = lambda a: 1 / (1 + math.exp(-a))
A, B = [0.3, -1.2, 2.0, 0.0], [-0.7, 0.4, 1.1, -3.0]  # a(x), a(f(z))
BY_HAND = {  # name -> h', h'' of one a
    "jensen-shannon": (lambda a: math.log(1 - sigma(a)), lambda a: -math.log(sigma(a))),
    "kl": (lambda a: -math.exp(a - 1), lambda a: -a),
    "reverse-kl": (lambda a: 1 - a, lambda a: math.exp(-a)),
    "pearson": (lambda a: -a * a / 4 - a, lambda a: -a),
    "hinge": (lambda a: -max(0, 1 + a), lambda a: max(0, 1 - a)),
    "wasserstein": (lambda a: -a, lambda a: -a),
}


class OfNumbers(GAN):
    """A GAN whose discriminator is the first number of v, and whose samples have the numbers B."""

    def a(self, v, y=None):
        return v[:, 0] + 0 * super().a(v)

    def generate(self, n, y=None):
        return torch.tensor(B, dtype=torch.float64)[:, None] + 0 * super().generate(n)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_those_of_the_formulas(loss, divergence):
    torch.manual_seed(0)
    model = OfNumbers((1,), latent=1, hidden=(2,), loss=loss, divergence=divergence, dtype=torch.float64)
    x = torch.tensor(A, dtype=torch.float64)[:, None]
    h1, h2 = BY_HAND[divergence]
    if loss == "relativistic":
        first = [h2(a - b) for a, b in zip(A, B, strict=True)]
        second = [h2(b - a) for a, b in zip(A, B, strict=True)]
    else:
        first = [h2(a) - h1(b) for a, b in zip(A, B, strict=True)]
        second = [h1(b) if loss == "minimax" else h2(b) for b in B]
    mean = lambda values: sum(values) / len(values)
    assert model.discriminator_loss(x).item() == pytest.approx(mean(first), rel=1e-14)
    assert model.generator_loss(x).item() == pytest.approx(mean(second), rel=1e-14)
    torch.testing.assert_close(model.loss(x), torch.tensor(first, dtype=torch.float64), rtol=1e-14, atol=1e-15)


def test_the_slopes_of_both_sides_where_the_discriminator_is_sure():
    """With (3), the slope of (4) in a is -d, that of (5) is d - 1: where d is near 0 only (5) moves the generator."""
    a = torch.tensor([-8.0, 0.0, 3.0], dtype=torch.float64, requires_grad=True)
    h1, h2 = DIVERGENCES["jensen-shannon"]
    slopes = [torch.autograd.grad(h(a).sum(), a)[0] for h in (h1, h2)]
    torch.testing.assert_close(slopes[0], -a.sigmoid())
    torch.testing.assert_close(slopes[1], a.sigmoid() - 1)
    assert abs(slopes[0][0]) < 4e-4 and abs(slopes[1][0]) > 0.999


@pytest.mark.parametrize("loss", LOSSES)
def test_each_player_alone_gets_the_gradient_of_its_loss(loss):
    """Each update names all weights of one player, and its loss moves them; the discriminator's does not depend on the
    generator's weights."""
    model = small(loss=loss, r1=0.3, r2=0.2, k=2)
    batch, names = Batch(torch.randn(8, 3, dtype=torch.float64), torch.zeros(8)), []
    for name, value, parameters in model.updates(batch):
        mine = model.discriminator if name == "discriminator" else model.f
        parameters, names = list(parameters), [*names, name]
        assert list(map(id, parameters)) == list(map(id, mine.parameters()))
        grads = torch.autograd.grad(value, parameters, retain_graph=True)
        assert all(grad.abs().sum() > 0 for grad in grads if grad.numel() > 1)  # one bias of all a cancels in pairs
        if name == "discriminator":
            assert not any(torch.is_tensor(grad)
                           for grad in torch.autograd.grad(value, list(model.f.parameters()), allow_unused=True))
    assert names == ["discriminator", "discriminator", "generator"]


@pytest.mark.parametrize("k, parts", [(3, [4, 3, 3]), (7, [2, 2, 2, 1, 1, 1, 1]), (10, 10 * [1])])
def test_the_batch_is_cut_into_one_part_for_each_step_of_the_discriminator(k, parts):
    seen, model = [], small(k=k)
    model.discriminator_loss = lambda v, y=None: seen.append(v) or v.sum() * 0
    x = torch.randn(10, 3, dtype=torch.float64)
    assert len(list(model.updates(Batch(x, torch.zeros(10))))) == k + 1 and torch.equal(torch.cat(seen), x)
    assert [len(part) for part in seen] == parts


def test_more_steps_than_the_batch_has_examples_are_refused():
    with pytest.raises(ValueError, match="k must be at most the batch, of which each step takes a part, got 11 of 10"):
        next(small(k=11).updates(Batch(torch.randn(10, 3, dtype=torch.float64), torch.zeros(10))))


# ---- penalties and norms ---------------------------------------------------------------------------------------------


def test_the_penalties_are_the_squared_norms_of_the_slopes():
    """Against the whole Jacobian of a, example by example; and their own gradient against finite differences."""
    model = small(r1=0.7, r2=0.4)
    v = torch.randn(6, 3, dtype=torch.float64)
    torch.manual_seed(1)
    with torch.no_grad():
        w = model.generate(6)
    slopes = [torch.autograd.functional.jacobian(model.a, u) for u in (v, w)]  # (6, 6, 3)
    assert all((slope[~torch.eye(6, dtype=torch.bool)] == 0).all() for slope in slopes), "each a is of its own x"
    r1, r2 = (torch.einsum("nnd->nd", slope).square().sum(1).mean() for slope in slopes)
    expected = (F.softplus(-model.a(v)) + F.softplus(model.a(w))).mean() + 0.35 * r1 + 0.2 * r2
    torch.manual_seed(1)
    torch.testing.assert_close(model.discriminator_loss(v), expected, rtol=1e-13, atol=0)

    smooth = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    penalty = lambda weight: squared_slope(torch.func.functional_call(smooth, {"0.weight": weight}, (v,))[:, 0], v)
    v.requires_grad_()
    assert torch.autograd.gradcheck(penalty, smooth[0].weight.detach().clone().requires_grad_())


@pytest.mark.parametrize("body", ["mlp", "conv"])
def test_the_weights_of_a_spectral_discriminator_have_norm_one(body):
    """After its iterations converged, the largest singular value of each weight of the features is 1."""
    model = images(body=body, spectral=True, hidden=(12, 9)).double()
    x = torch.randn(2, 8, 8, dtype=torch.float64)
    for _ in range(400):  # each pass in training makes one step of the power iteration
        model.a(x)
    weights = [layer.weight for layer in model.discriminator["phi"] if isinstance(layer, nn.Linear | nn.Conv2d)]
    for weight in weights:
        assert torch.linalg.svdvals(weight.flatten(1))[0].item() == pytest.approx(1, abs=1e-6)
    assert len(weights) == (2 if body == "mlp" else 3)


# ---- the optimum -----------------------------------------------------------------------------------------------------

P = torch.tensor([0.1, 0.25, 0.3, 0.05, 0.3], dtype=torch.float64)
Q = torch.tensor([0.3, 0.05, 0.25, 0.3, 0.1], dtype=torch.float64)
KL = lambda p, q: (p * (p / q).log()).sum()
JS = lambda p, q: (KL(p, (p + q) / 2) + KL(q, (p + q) / 2)) / 2
OPTIMA = {  # name -> the a that maximises (2), and the maximum
    "jensen-shannon": (lambda p, q: (p / q).log(), lambda p, q: 2 * JS(p, q) - math.log(4)),
    "kl": (lambda p, q: 1 + (p / q).log(), KL),
    "reverse-kl": (lambda p, q: (p / q).log(), lambda p, q: KL(q, p)),
    "pearson": (lambda p, q: 2 * (p / q - 1), lambda p, q: ((p - q).square() / q).sum()),
    "hinge": (lambda p, q: (p - q).sign(), lambda p, q: (p - q).abs().sum() - 2),
}


@pytest.mark.parametrize("divergence", OPTIMA)
def test_the_maximum_of_a_divergence_is_the_divergence(divergence):
    """On five points of known p_data = P and p_m = Q: no a gives more than the formula's, which is the divergence."""
    h1, h2 = DIVERGENCES[divergence]
    value = lambda a: (Q * h1(a)).sum() - (P * h2(a)).sum()  # (2)
    best, most = (f(P, Q) for f in OPTIMA[divergence])
    torch.testing.assert_close(value(best), most, rtol=1e-13, atol=1e-13)
    noise = torch.Generator().manual_seed(0)
    for scale in (1e-3, 0.1, 1.0):
        for _ in range(50):
            assert value(best + scale * torch.randn(5, generator=noise, dtype=torch.float64)) <= most + 1e-13


def test_the_value_is_minus_log_4_where_both_are_equal_and_d_one_half():
    h1, h2 = DIVERGENCES["jensen-shannon"]
    a = torch.zeros(5, dtype=torch.float64)
    assert ((P * h1(a)).sum() - (P * h2(a)).sum()).item() == pytest.approx(-math.log(4), rel=1e-15)
    assert torch.equal(OPTIMA["jensen-shannon"][0](P, P).sigmoid(), torch.full_like(P, 0.5))


@pytest.mark.parametrize("q, error", [(optimum.Q, 0.02), (optimum.P, 0.01)])
def test_a_discriminator_on_the_line_learns_d_star(q, error):
    """From draws of two known densities; its value, an integral, comes within `error` of the maximum, not above it."""
    d, best = optimum.learnt(GAN((3,), hidden=(32, 32)), q, 0.0, seed=0, steps=400), optimum.optimal(q)
    weight = (optimum.density(optimum.LINE, *optimum.P) + optimum.density(optimum.LINE, *q)) / 2
    assert torch.trapezoid(weight, optimum.LINE).item() == pytest.approx(1, abs=1e-6)
    most = optimum.value(best, q)
    assert most - error < optimum.value(d, q) <= most
    assert torch.trapezoid(weight * (d - best).abs(), optimum.LINE).item() < 4 * error
    if q == optimum.P:
        assert most == pytest.approx(-math.log(4), abs=1e-6)


# ---- what judges -----------------------------------------------------------------------------------------------------


def test_the_energy_distance_is_that_of_all_pairs():
    noise = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 3, generator=noise, dtype=torch.float64) for n in (5, 4))
    mean = lambda x, y: sum(math.dist(a, b) for a in x.tolist() for b in y.tolist()) / (len(x) * len(y))
    expected = 2 * mean(x, y) - mean(x, x) - mean(y, y)
    assert energy_distance(x, y).item() == pytest.approx(expected, rel=1e-12) and expected > 0
    assert energy_distance(x, x[[4, 2, 0, 1, 3]]).abs() < 1e-14
    far = torch.tensor([[0.0], [2.0]]), torch.tensor([[5.0], [7.0]])  # 2 * 5 - 1 - 1
    assert energy_distance(*far).item() == 8


def test_judging_leaves_the_noise_alone_and_repeats():
    model = images()
    before = torch.get_rng_state()
    one, accuracy = model.valid_loss(VALID.x), model.report(VALID.x)["accuracy"]
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    assert model.valid_loss(VALID.x) == one and model.report(VALID.x) == {"accuracy": accuracy}
    torch.manual_seed(0)
    v, w = model.centred(VALID.x), model.centred(model.sample(200))
    assert one == energy_distance(v.flatten(1), w.flatten(1)).item()
    pairs = [a > b for a in model.a(v).tolist() for b in model.a(w).tolist()]
    assert accuracy == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)


def test_accuracy_is_a_half_of_what_is_alike_and_one_of_what_is_told_apart():
    """With the samples B: of -3.0, 1.1, 0.4 and -0.7 the number of B below is 0, 3, 2 and 1; all are below 2.0."""
    model = OfNumbers((1,), latent=1, hidden=(2,), dtype=torch.float64)
    model.sample = lambda n, y=None: model.generate(n)
    x = lambda *numbers: torch.tensor(numbers, dtype=torch.float64)[:, None]
    assert model.report(x(-3.0, 1.1, 0.4, -0.7))["accuracy"] == 6 / 16
    assert model.report(x(2.0, 3.0, 2.5, 9.0))["accuracy"] == 1
    assert model.report(x(-4.0, -5.0, -6.0, -7.0))["accuracy"] == 0


def rows(n=4, **last):
    """n evaluations of a game that goes well, the last three with other numbers."""
    well = dict(step=10, valid=1.0, accuracy=0.55, modes=8, missing=0)
    return [well] * (n - 3) + [well | last] * 3


@pytest.mark.parametrize("warning, last", [
    ("", dict()), ("", dict(valid=1.9)), ("training diverges: the distance is 2.1, and was 1", dict(valid=2.1)),
    ("mode collapse: samples leave out 5 of 8 modes", dict(modes=3, missing=5)),
    ("the discriminator wins: it ranks 97% of unseen data above samples", dict(accuracy=0.97)),
    ("the generator wins: the discriminator ranks 70% of samples above unseen data", dict(accuracy=0.3)),
])
def test_what_goes_wrong_is_said(warning, last):
    words = small().warning(rows(**last))
    assert words.startswith(warning) and bool(words) == bool(warning)
    assert small().warning(rows(**last)[-2:]) == "", "two evaluations are too few to tell"
    assert small().warning(rows()[:1] + rows(**last)[-2:] + rows()[:1]) == "", "it is over"


# ---- images and points -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["mlp", "conv"])
@pytest.mark.parametrize("shape", [(8, 8), (3, 8, 4)])
def test_levels_are_scaled_there_and_back(body, shape):
    model = small(shape, 17, body=body, width=2, dtype=torch.float32)
    x = torch.arange(17)[torch.randint(17, (4, *shape))]
    v = model.centred(x)
    assert v.min() >= -1 and v.max() <= 1 and torch.equal(((v + 1) / 2 * 16).round().long(), x)
    z = torch.randn(6, 2)
    assert model.decode(z).shape == (6, *shape) and model.a(model.w(z)).shape == (6,)
    assert model.decode(z).min() >= 0 and model.decode(z).max() <= 16
    torch.manual_seed(5)
    drawn = model.sample(6)
    torch.manual_seed(5)
    assert drawn.dtype == torch.uint8 and torch.equal(drawn, model.decode(torch.randn(6, 2)).round().to(torch.uint8))


def test_noise_is_as_wide_as_its_levels_and_points_have_none():
    model = images(noise=1.0)
    v = torch.zeros(1000, 8, 8)
    apart = (model.seen(v) - v).abs()
    assert 0.99 / 16 < apart.max() <= 1 / 16
    # four standard errors of the mean of uniform numbers: 6 seeds in 100,000
    assert apart.mean().item() == pytest.approx(0.5 / 16, rel=4 / (3 * apart.numel()) ** 0.5)
    assert torch.equal(images().seen(v), v) and small(noise=1.0).sample(3).dtype == torch.float64


@pytest.mark.parametrize("upsample, weights", [("nearest", 3), ("transposed", 4)])
def test_the_generator_doubles_an_image_by_transposed_convolutions_if_wanted(upsample, weights):
    model = images(body="conv", width=4, upsample=upsample)
    assert {layer.weight.shape[-1] for layer in model.f.doublings} == {weights}
    assert model.sample(3).shape == (3, 8, 8)


@pytest.mark.parametrize("settings, words", [
    (dict(loss="wgan"), "loss must be 'minimax', 'non-saturating' or 'relativistic', got 'wgan'"),
    (dict(divergence="tv"), "divergence must be 'jensen-shannon', 'kl', 'reverse-kl', 'pearson', 'hinge' or 'wasserst"),
    (dict(body="unet"), "body must be 'mlp' or 'conv', got 'unet'"), (dict(r1=-1.0), "r1 must be at least 0, got -1.0"),
    (dict(r2=math.inf), "r2 must be at least 0, got inf"), (dict(noise=-0.5), "noise must be at least 0, got -0.5"),
    (dict(k=0), "k must be at least 1, got 0"), (dict(levels=1), "levels must be 2 to 256, got 1"),
    (dict(upsample="cubic"), "upsample must be 'transposed', 'nearest' or 'bilinear', got 'cubic'"),
    (dict(hidden=(4, 0)), r"hidden must be at least 1, got \(4, 0\)"),
    (dict(hidden=()), r"hidden must be one layer or more of body 'mlp', got \(\)"),
])
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        small(**settings)
    with pytest.raises(ValueError, match="sides divisible by 4"):
        small((6, 6), 17, body="conv")


# ---- the whole game --------------------------------------------------------------------------------------------------

LOOP = dict(steps=9, every=3, batch=16, betas=(0.0, 0.9), ema=0.5)


@pytest.mark.parametrize("settings", [dict(loss="relativistic", r1=0.1, r2=0.1, k=2, noise=1.0),
                                      dict(body="conv", spectral=True)], ids=["mlp", "conv"])
def test_a_game_resumes_to_the_same_bits(tmp_path, settings):
    """Both optimisers, the average, and the vectors of the spectral norm, too."""
    whole, _, _ = resumes(lambda: images(**settings), DIGITS, VALID, LOOP, stop=4, folder=tmp_path)
    assert rows_of(tmp_path / "parts")[0].keys() >= {"train discriminator", "train generator", "accuracy"}
    z = torch.randn(4, 2)
    assert torch.equal(checkpoint.load(tmp_path / "parts").decode(z), whole.decode(z))


def test_points_are_learnt_and_the_best_weights_kept():
    """In 300 steps the energy distance falls to a tenth of what it was."""
    torch.manual_seed(0)
    model = GAN((2,), latent=2, hidden=(32, 32), r1=0.1)
    first = model.valid_loss(POINTS.x[:500])
    fit(model, POINTS, data.load("gaussians", "valid"), steps=300, every=50, batch=128, rate=2e-3, betas=(0.0, 0.99),
        ema=0.9, progress=False)
    assert model.valid_loss(POINTS.x[:500]) < first / 10
