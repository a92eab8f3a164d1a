"""Tests of a CVAE that is given a part of the image: its bound is one of log p(rest | part), what is known stays, and
every future of one beginning is drawn."""

import dataclasses

import pytest
import torch
from check_models import estimate_and_error, space
from test_vae import Z, integral
from torch.distributions import Normal

from genmini import conditions, data, experiment
from genmini.models._model import Cannot
from genmini.models.cvae import CVAE
from genmini.train import fit

X = data.load("digits", "test").x[:5]


def cvae(shape=(2, 2), given="upper", scale=2.0, **settings):
    torch.manual_seed(1)
    model = CVAE(shape, **{"given": given, "latent": 1, "hidden": 8, "dtype": torch.float64, **settings})
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale)
    return model.eval()


@torch.no_grad()
def log_p(model, x):
    """log p(x | c), by quadrature over z"""
    c = model.y_of(x, None)
    of = lambda n: model.log_p(x[n].expand(len(Z), *x[n].shape), Z[:, None], c[n].expand(len(Z), -1))
    return integral(torch.stack([of(n) for n in range(len(x))]) + Normal(0, 1).log_prob(Z))


def test_the_rest_has_a_probability_given_the_upper_half():
    """Over the four lower halves of each upper one it sums to one, and depends on it; the ELBO is below it."""
    model = cvae()
    x = space(model)
    found = log_p(model, x)
    p = found.exp().view(4, 4)  # the upper half changes last
    torch.testing.assert_close(p.sum(1), torch.ones(4).double(), atol=1e-10, rtol=0)
    assert (p - p[0]).abs().max() > 0.05
    elbo = torch.stack([model.elbo(x) for _ in range(2000)]).detach()
    below, error = found - elbo.mean(0), elbo.std(0) / 2000**0.5
    assert (below > -5 * error).all() and (below > 5 * error).any()
    torch.manual_seed(0)
    estimate, error = estimate_and_error(model.log_weights(x, k=20_000).detach())
    assert ((estimate - found).abs() < 5 * error).all()  # five standard errors of 16: a false alarm in 100,000 seeds
    torch.manual_seed(0)
    assert torch.equal(model.iwae(x, k=20_000), estimate)
    figures = model.figures(x, k=3)
    assert [*figures] == ["elbo", "iwae-3", "reconstruction", "kl"] and model.unit == "nats of the missing half"


@pytest.mark.parametrize("body", ["mlp", "conv"])
@pytest.mark.parametrize("what", conditions.GIVEN)
def test_a_draw_depends_on_the_part_and_keeps_what_is_known(what, body):
    model = cvae((8, 8), what, levels=17, decoder="categorical", body=body, width=4, latent=3)
    others = X.clone()
    if what == "upper":
        others[:, 4:] = X[:, 4:].flip(0)
    elif what in conditions.SQUARE:
        others[:, [0, 1]] = X[:, [1, 0]]
    assert what in ("dark", "grey") or not torch.equal(others, X)  # of one channel these are the image itself

    def draw(x, **how):
        torch.manual_seed(0)
        return model.sample(5, x=x, **how)

    drawn, mean = draw(X), draw(X, mean=True)
    if what == "upper":
        assert torch.equal(drawn[:, :4], X[:, :4]) and not torch.equal(drawn[:, 4:], X[:, 4:])
        assert torch.equal(mean[:, :4], X[:, :4].double()) and torch.equal(model.reconstruct(X)[:, :4], mean[:, :4])
        assert torch.equal(draw(others)[:, 4:], drawn[:, 4:])
    elif what in conditions.SQUARE:
        assert torch.equal(draw(others), drawn)
    assert not torch.equal(draw(16 - X), drawn) and drawn.dtype == torch.uint8
    torch.manual_seed(0)
    assert torch.equal(model.restore(X), mean) and not torch.equal(model.restore(X), mean)


def test_figures_of_a_half_have_no_bits_per_dimension_of_the_whole():
    train = data.load("digits", "test")
    for what, bits in (("upper", False), ("half", True)):
        model = CVAE((8, 8), 17, given=what, latent=2, hidden=8, decoder="categorical").eval()
        found = {figure.name: figure for figure in experiment.figures(model, train)}
        assert bool(found["elbo"].bits) == bool(found["kl"].bits) == bits
        assert found["elbo"].unit == ("nats" if bits else "nats of the missing half") and found["kl"].unit == "nats"


def test_it_draws_both_futures_of_one_upper_half():
    """Half of the images with a bright upper left corner go on in the lower left, half in the lower right."""
    torch.manual_seed(0)
    side = torch.arange(400) % 2
    x = torch.zeros(400, 4, 4, dtype=torch.uint8)
    x[:, 0, 0], x[torch.arange(400), 3, 3 * side] = 1, 1
    train = dataclasses.replace(data.load("digits-threshold"), x=x, y=side, grey=None)
    model = CVAE((4, 4), given="upper", latent=2, hidden=32)
    fit(model, train, train, steps=1000, rate=1e-2, every=1000, progress=False)
    drawn = model.sample(400, x=x)
    left, right = drawn[:, 3, 0] == 1, drawn[:, 3, 3] == 1
    assert (left ^ right).float().mean() > 0.9 and 0.25 < left.float().mean() < 0.75
    assert -model.log_prob(x, k=50).mean() < 1.0  # log 2 = 0.69


def test_mistakes_are_said():
    model = cvae((8, 8))
    for call, says in ((lambda: model.sample(5), "x is missing: the 5 images of which this model is given upper"),
                       (lambda: model.sample(4, x=X), "x is missing: the 4 images"),
                       (lambda: model.decode(torch.zeros(2, 1)), "x is missing"),
                       (lambda: model.loss(X > 8, 1), "this model was made without classes"),
                       (lambda: CVAE((8, 6), given="quarter"), "whose sides 4 divides, got 8x6"),
                       (lambda: CVAE((8, 8), given="sepia"), "given must be 'dark', 'grey', 'upper'")):
        with pytest.raises(ValueError, match=says):
            call()
    with pytest.raises(Cannot, match="this CVAE is given no part of an image: set given to dark or"):
        CVAE((8, 8)).restore(X > 8)
