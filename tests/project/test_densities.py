"""genmini/densities.py: densities of v integrate to one, the normaliser of the continuous Bernoulli is exact, and a
cross-entropy of grey values is no density. What densities share with other outputs is tested in test_outputs.py."""

import math
from decimal import Decimal, localcontext

import pytest
import torch
from test_outputs import numbers

from genmini import densities
from genmini.densities import Continuous, CrossEntropy, Gaussian, Laplace
from genmini.outputs import Bits, Levels

TINY_TO_HUGE = [sign * a for a in (0.0, 1e-300, 1e-12, 1e-5, 0.01, 0.3, 0.4999, 0.5001, 1.0, 7.0, 80.0, 700.0, 1e4)
                for sign in (1, -1)]
SCALED = {"alpha": dict(alpha=4.0), "shared": dict(variance="shared"), "pixel": dict(variance="pixel")}


def exact(a):
    """log((e^a - 1) / a) and its derivative, E v, by more digits than the cancellation takes"""
    if a == 0:
        return 0.0, 0.5
    with localcontext() as context:
        context.prec, context.Emax, context.Emin = 700, 10**8, -(10**8)
        a = Decimal(a)
        e = a.exp()
        return float(((e - 1) / a).ln()), float(e / (e - 1) - 1 / a)


@pytest.mark.parametrize("how", SCALED.values(), ids=SCALED)
@pytest.mark.parametrize("kind", [Gaussian, Laplace])
def test_a_scaled_density_is_pytorchs_and_draws_its_nearest_levels(kind, how):
    p = kind(6, **how).double()
    a = numbers(p, 25, 3)
    floor, fixed = (1 / 300, 1 / 8) if kind is Gaussian else (1 / 20, 1 / 4)
    b = a[:, 1] if "pixel" in how.values() else torch.full((25, 3), -3.0, dtype=torch.float64)
    scale = torch.full_like(b, fixed) if "alpha" in how else floor + b.exp()
    centre = a[:, 0].sigmoid()
    truth = (torch.distributions.Normal(centre, scale.sqrt()) if kind is Gaussian
             else torch.distributions.Laplace(centre, scale))
    x = torch.arange(75).view(25, 3) % 6
    torch.testing.assert_close(p.log_p(a, x), truth.log_prob(x / 5), rtol=1e-6, atol=1e-6)  # b is stored in float32
    torch.testing.assert_close(p.mean(a), 5 * a[:, 0].sigmoid())
    edges = torch.stack([truth.cdf(torch.tensor((l + 0.5) / 5).double()) for l in range(5)], -1)
    torch.testing.assert_close(p.cumulative(a), edges, rtol=1e-6, atol=1e-6)


def test_absolute_errors_find_the_median_and_squared_errors_the_mean():
    """Of a pixel that is empty in 60 images of 100 and full in the others."""
    x = torch.cat([torch.zeros(60), torch.full((40,), 5.0)])
    for p, best in ((Gaussian(6, alpha=3.0), 0.4), (Laplace(6, alpha=3.0), 0.0), (CrossEntropy(6), 0.4)):
        v = torch.linspace(0.001, 0.999, 999)
        losses = -p.log_p(v.logit().view(-1, 1, 1).expand(-1, 1, 100), x.expand(999, 100)).sum(1)
        assert v[losses.argmin()].item() == pytest.approx(best, abs=0.002)


# ---- the continuous Bernoulli ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, error", [(torch.float64, 4e-16), (torch.float32, 2e-7)])
def test_the_normaliser_is_exact_near_one_half_and_far_from_it(dtype, error):
    """log p of v = 0 is minus it; its derivative is E v."""
    p, a = Continuous(2), torch.tensor(TINY_TO_HUGE, dtype=dtype).requires_grad_()
    log_p = p.log_p(a[:, None], torch.zeros(len(a)))
    (slope,) = torch.autograd.grad(-log_p.sum(), a)
    for a_n, found, found_slope, mean in zip(a.tolist(), log_p.tolist(), slope.tolist(), p.mean(a[:, None]).tolist(),
                                             strict=True):
        log_C, expected = exact(a_n)
        assert abs(-found - log_C) <= error * (1 + abs(a_n)), a_n
        assert abs(found_slope - expected) <= 20 * error and abs(mean - expected) <= 20 * error, a_n


def test_its_density_integrates_to_one_and_cumulative_is_the_integral():
    n = 100_000
    v = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    for a in (-40.0, -1.0, 0.0, 1e-9, 0.3, 12.0):
        p = Continuous(n + 1)
        within = max(a * a, 1) / 12 / n**2  # twice the error of the midpoint rule, by the slope at the two ends
        density = p.log_p(torch.full((n, 1), a).double(), v * n).exp()  # x / (L-1) = v, between two levels
        assert density.mean().item() == pytest.approx(1, abs=within)
        assert (density * v).mean().item() == pytest.approx(p.mean(torch.tensor([[a]]).double()).item() / n, abs=within)
        below = Continuous(5).cumulative(torch.tensor([[a]]).double())[0]
        edges = [(l + 0.5) / 4 for l in range(4)]
        torch.testing.assert_close(below, torch.stack([density[v < e].sum() / n for e in edges]), atol=within, rtol=0)


def test_it_is_pytorchs_away_from_one_half():
    a = torch.tensor([-6.0, -2.0, 1.0, 5.0], dtype=torch.float64)
    truth = torch.distributions.ContinuousBernoulli(logits=a)
    for x in range(5):
        found = Continuous(5).log_p(a[:, None], torch.full((4,), x))
        torch.testing.assert_close(found, truth.log_prob(torch.full((4,), x / 4).double()))
    torch.testing.assert_close(Continuous(5).mean(a[:, None]) / 4, truth.mean)


def test_draws_are_finite_for_every_a():
    a = torch.tensor(TINY_TO_HUGE, dtype=torch.float32)
    for u in (0.0, 0.3, 1 - 2**-24):
        x = Continuous(256).draw(a[:, None], torch.full((len(a),), u))
        assert x.dtype == torch.uint8 and (u > 0 or x[a <= 1e-5].max() == 0)
    assert Continuous(256).draw(torch.tensor([[1e4], [-1e4]]), torch.tensor([0.5, 0.5])).tolist() == [255, 0]


# ---- the cross-entropy -----------------------------------------------------------------------------------------------


def test_a_cross_entropy_is_no_density_of_grey_values():
    """Its exponential integrates to tanh(a/2) / a, at most 1/2. The factor that is missing is C."""
    n, p = 20_000, CrossEntropy(20_001)
    x = torch.arange(n, dtype=torch.float64) + 0.5
    for a in (-9.0, -0.5, 1e-4, 0.5, 9.0):
        mass = p.log_p(torch.full((n, 1), a).double(), x).exp().mean().item()
        within = abs(a) / 12 / n**2 + n * 2**-53  # twice the error of the midpoint rule, and of the sum
        assert mass == pytest.approx(math.tanh(a / 2) / a, abs=within) and mass <= 0.5 + within
        missing = Continuous(5).log_p(torch.tensor([[a]]).double(), torch.ones(1)) - CrossEntropy(5).log_p(
            torch.tensor([[a]]).double(), torch.ones(1))
        assert missing.item() == pytest.approx(-math.log(mass), abs=2 * within / mass)


def test_a_cross_entropy_of_bits_is_their_probability_and_grey_is_drawn_as_bits():
    a, x = numbers(Bits(), 9, 4), torch.arange(36).view(9, 4) % 2
    assert torch.equal(CrossEntropy(2).log_p(a, x), Bits().log_p(a, x))
    drawn = CrossEntropy(17).draw(a, torch.rand(9, 4).double())
    assert set(drawn.unique().tolist()) == {0, 16}
    torch.testing.assert_close(CrossEntropy(17).mean(a), 16 * a[:, 0].sigmoid())


def test_names_and_levels_choose_the_class():
    v, kinds = "nats of a density of v", densities.decoder
    for name, kind, rows, unit in (
            ("bernoulli", Bits, 1, "nats"), ("categorical", Levels, 2, "nats"), ("gaussian", Gaussian, 1, v),
            ("gaussian-learned", Gaussian, 1, v), ("laplace", Laplace, 1, v), ("laplace-learned", Laplace, 1, v),
            ("continuous-bernoulli", Continuous, 1, v), ("cross-entropy", CrossEntropy, 1, "cross-entropy")):
        p = kinds(name, 2)
        assert isinstance(p, kind) and p.rows == rows and p.unit == unit
    assert kinds("gaussian-learned", 17, variance="pixel").rows == 2
    assert list(kinds("gaussian-learned", 17).state_dict()) == ["b"]
    for wrong, says in (
        (("poisson", 2), "decoder must be 'bernoulli', 'categorical', 'gaussian', "),
        (("bernoulli", 17), "decoder 'bernoulli' is for two levels, got 17: take 'categorical'"),
        (("gaussian", 17, 0.0), "alpha must be above 0, got 0.0"),
        (("gaussian-learned", 17, 1.0, "row"), "variance must be 'shared' or 'pixel', got 'row'"),
    ):
        with pytest.raises(ValueError) as error:
            kinds(*wrong)
        assert says in str(error.value)
